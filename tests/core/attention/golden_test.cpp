// The golden files: results of the definition in float64, made by an independent program.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/attention/dilated_attention.h"
#include "core/files/safetensors.h"
#include "tests/device.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> golden_files() {
  std::set<fs::path> files;
  std::vector<fs::path> folders{fs::path(test::source_folder()) / "tests/golden"};
  if (const char* more = std::getenv("LONGNET_GOLDEN_DIR")) folders.emplace_back(more);
  for (const auto& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() != ".safetensors") continue;
      const bool whole_model = SafetensorsFile(entry.path()).metadata().contains("model");
      if (!whole_model) files.insert(entry.path());
    }
  }
  return {files.begin(), files.end()};
}

struct Case {
  fs::path file;
  at::ScalarType dtype;
  double tolerance;
};

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const auto& file : golden_files()) {
    result.push_back({file, at::kDouble, 1e-10});
    result.push_back({file, at::kFloat, 2e-5});
  }
  return result;
}

class Golden : public testing::TestWithParam<Case> {};

void expect_close(const char* what, const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const auto finite = expected.isfinite();
  EXPECT_TRUE(actual.isfinite().cpu().equal(finite)) << what << ": other places are finite";
  const auto reference = expected.masked_fill(finite.logical_not(), 0);
  const auto error = (actual.to(at::kDouble).cpu().masked_fill(finite.logical_not(), 0) - reference).abs().max();
  const double scale = std::max(1.0, reference.abs().max().item<double>());
  EXPECT_LE(error.item<double>(), tolerance * scale) << what;
}

TEST_P(Golden, MatchesTheDefinition) {
  const auto& [path, dtype, tolerance] = GetParam();
  const SafetensorsFile file(path);
  const auto& metadata = file.metadata();
  const auto numbers = [&](const char* key) {
    return nlohmann::json::parse(metadata.at(key)).get<std::vector<std::int64_t>>();
  };
  const auto layout = metadata.at("layout") == "cyclic" ? HeadOffsets::Cyclic : HeadOffsets::Block;
  const bool causal = metadata.at("causal") == "true";

  // The files have (B, H, N, D): transposed views serve as they are.
  const auto input = [&](const char* name) { return file.read(name).to(test::on(dtype)).transpose(1, 2); };
  auto q = input("q").requires_grad_(), k = input("k").requires_grad_(), v = input("v").requires_grad_();
  std::optional<at::Tensor> mask;
  if (file.contains("key_mask")) mask = file.read("key_mask").to(test::on(at::kBool));
  const auto plan = std::make_shared<AttentionPlan>(plan_attention(
      make_mixture(numbers("segments"), numbers("rates"), layout), q.size(2), causal, q.size(1), {0, q.size(1)}));

  const auto result = dilated_attention(q, k, v, plan, mask);
  const auto gradients = torch::autograd::grad({result.out}, {q, k, v}, {input("dout")});

  const auto expected = [&](const char* name) { return file.read(name).transpose(1, 2); };
  EXPECT_EQ(result.lse.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
  expect_close("out", result.out, expected("out"), tolerance);
  expect_close("lse", result.lse, expected("lse"), tolerance);
  expect_close("dq", gradients[0], expected("dq"), tolerance);
  expect_close("dk", gradients[1], expected("dk"), tolerance);
  expect_close("dv", gradients[2], expected("dv"), tolerance);
}

INSTANTIATE_TEST_SUITE_P(Attention, Golden, testing::ValuesIn(cases()), [](const auto& test) {
  std::string name = test.param.file.stem().string() + "_" + c10::toString(test.param.dtype);
  for (char& letter : name) letter = std::isalnum(static_cast<unsigned char>(letter)) ? letter : '_';
  return std::to_string(test.index) + "_" + name;
});

TEST(GoldenFiles, AreAllThere) {
  EXPECT_GE(golden_files().size(), 13U);
}

}  // namespace
}  // namespace longnet
