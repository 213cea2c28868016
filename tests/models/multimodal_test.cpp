// The multi-modal model: its gradient is that of its loss when modalities are missing, what is missing is not touched,
// and nothing depends on the order in which modalities are named.

#include "models/multimodal.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/configuration/config_section.h"
#include "core/error.h"
#include "distributed/mpi/mpi_communicator.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

constexpr std::int64_t length = 45, width = 12;

class MultimodalTest : public testing::Test {
 protected:
  /// A model whose modalities are named in this order.
  std::unique_ptr<Model> model(const std::string& modalities, const std::string& head) {
    const test::TemporaryFolder folder;
    const auto root = load_config_node(folder.write("c.yaml",
                                                    "model: {type: multimodal, width: 12, layers: 2, heads: 2, "
                                                    "feed_forward: 16, attention: {segments: [8, 100], rates: "
                                                    "[1, 3]}, cross: {width: 8, heads: 2}, modalities: {" +
                                                        modalities + "}, head: " + head + "}"));
    ConfigReader reader(root.find("model"), "model", "");
    std::string type;
    reader("type", type);
    return specify_multimodal(reader).build(parallel, at::kDouble, 3);
  }

  /// Two sequences; `with_sound` are those that have sound.
  Batch batch(const std::vector<std::int64_t>& with_touch, const std::vector<std::int64_t>& with_sound) const {
    at::manual_seed(2);
    const auto shard = parallel.shard(length);
    const auto frames = at::randn({2, length + 1, 3}, at::kDouble);
    const auto tokens = at::randint(11, {2, 2 * length}, at::kLong);
    const auto part = [&](const at::Tensor& rows, std::int64_t stride, std::int64_t shift,
                          const std::vector<std::int64_t>& sequences) {
      return FieldBatch{rows.index_select(0, at::tensor(sequences, at::kLong))
                            .slice(1, (shard.own.begin + shift) * stride, (shard.own.end + shift) * stride),
                        sequences};
    };
    Batch batch{{}, {0, 1}, {length, length}, shard};
    batch.fields["label"] = {at::tensor({2, 0}, at::kLong).unsqueeze(1), {0, 1}};
    if (!with_touch.empty()) {
      batch.fields["touch"] = part(frames, 1, 0, with_touch);
      batch.fields["touch.next"] = part(frames, 1, 1, with_touch);
    }
    if (!with_sound.empty()) batch.fields["sound"] = part(tokens, 2, 0, with_sound);
    return batch;
  }

  double loss(Model& model, const Batch& batch) const {
    const c10::NoGradGuard no_gradient;
    auto sum = model.loss(batch, {.dtype = at::kDouble}).sum.reshape({1});
    world->all_reduce(sum, Reduction::Sum)->wait();
    return sum.item<double>();
  }

  void gradients(Model& model, const Batch& batch) const {
    model.parameters().gradients().zero_();
    model.loss(batch, {.dtype = at::kDouble}).sum.backward();
    world->all_reduce(model.parameters().gradients(), Reduction::Sum)->wait();
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  SequenceParallel parallel{*world};
  const std::string touch = "touch: {channels: 3}", sound = "sound: {vocabulary: 11, stride: 2}";
  const std::string classes = "{type: classification, classes: 3}", forecast = "{type: forecast}";
};

TEST_F(MultimodalTest, TheGradientIsThatOfTheLossWhateverIsMissing) {
  const std::vector<std::vector<std::int64_t>> everywhere{{0, 1}, {1}, {}};
  for (const std::string& head : {classes, forecast}) {
    for (const auto& with_sound : everywhere) {
      const auto built = model(touch + ", " + sound, head);
      const Batch data =
          batch(with_sound.size() == 2 ? std::vector<std::int64_t>{0} : std::vector<std::int64_t>{0, 1}, with_sound);
      gradients(*built, data);
      at::manual_seed(7);
      const auto direction = at::randn_like(built->parameters().values());
      const double slope = (built->parameters().gradients() * direction).sum().item<double>();
      const double step = 1e-5;
      built->parameters().values().add_(direction, step);
      const double above = loss(*built, data);
      built->parameters().values().sub_(direction, 2 * step);
      const double below = loss(*built, data);
      EXPECT_NEAR((above - below) / (2 * step), slope, 1e-6 * std::max(1.0, std::abs(slope)));
    }
  }
}

TEST_F(MultimodalTest, WhatIsMissingIsNotTouchedAndItsVectorLearns) {
  const auto built = model(touch + ", " + sound, classes);
  gradients(*built, batch({0, 1}, {}));
  int vectors = 0;
  for (const Parameter& parameter : built->parameters().list()) {
    if (parameter.name.find("modalities.sound.") == std::string::npos) continue;
    const bool learns = parameter.value.grad().ne(0).any().item<bool>();
    const bool vector = parameter.name.ends_with(".missing");
    EXPECT_EQ(learns, vector) << parameter.name;
    vectors += vector ? 1 : 0;
  }
  EXPECT_EQ(vectors, 3) << "one a layer and one after the last";
}

TEST_F(MultimodalTest, NothingDependsOnTheOrderOfModalities) {
  const auto first = model(touch + ", " + sound, classes), second = model(sound + ", " + touch, classes);
  const c10::NoGradGuard no_gradient;
  const auto swapped = [](const at::Tensor& tensor, std::int64_t dimension) {
    const auto halves = tensor.split(width, dimension);
    return at::cat({halves[1], halves[0]}, dimension);
  };
  for (const Parameter& parameter : second->parameters().list()) {
    for (const Parameter& other : first->parameters().list()) {
      if (other.name != parameter.name) continue;
      const bool cross = parameter.name.find(".cross.") != std::string::npos;
      const bool reads = (cross && parameter.name.ends_with("_proj.weight")) || parameter.name == "head.weight";
      const bool writes = cross && parameter.name.find("out_proj") != std::string::npos;
      parameter.value.copy_(writes ? swapped(other.value, 0) : reads ? swapped(other.value, 1) : other.value.detach());
    }
  }
  for (const auto& with_sound : std::vector<std::vector<std::int64_t>>{{0, 1}, {0}}) {
    const Batch data = batch({0, 1}, with_sound);
    const double expected = loss(*first, data);
    EXPECT_NEAR(loss(*second, data), expected, 1e-11 * expected);
  }
}

TEST_F(MultimodalTest, ASequenceWithoutAnyModalityIsNamed) {
  const auto built = model(touch + ", " + sound, classes);
  try {
    loss(*built, batch({0}, {}));
    FAIL() << "a sequence without anything was taken";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("sequence 1 of the batch lacks every modality"), std::string::npos);
  }
}

TEST_F(MultimodalTest, ConfigurationsThatCannotWorkAreRefused) {
  EXPECT_THROW(model("touch: {}", classes), ConfigError);
  EXPECT_THROW(model("touch: {channels: 3, vocabulary: 4}", classes), ConfigError);
  EXPECT_THROW(model("touch: {channels: 3, strides: 2}", classes), ConfigError);
  EXPECT_THROW(model(touch, "{type: masked_tokens}"), ConfigError);
  EXPECT_THROW(model(touch, "{type: classification, classes: 3, pooling: class_token}"), ConfigError);
  EXPECT_THROW(model(touch, "{type: forecast, forecast: [smell]}"), ConfigError);
  EXPECT_THROW(model(sound, forecast), ConfigError) << "tokens are not forecast";
}

}  // namespace
}  // namespace longnet
