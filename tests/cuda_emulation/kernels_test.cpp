// The project's CUDA kernels, run on threads by emulation.h, against the CPU's code or the definition in float64. What a machine
// without a GPU can show of them: their index arithmetic, what lanes and blocks tell each other, odd sizes and odd values.

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <random>

#include "core/attention/cuda/join_parts.h"
#include "core/attention/kernels/kernels.h"
#include "core/attention/merged_rows.h"
#include "core/attention/plan.h"
#include "core/attention/views.h"
#include "core/layers/cuda/cross_entropy.h"
#include "core/layers/cuda/dropout.h"
#include "core/layers/cuda/layer_norm.h"
#include "core/layers/cuda/rotary.h"
#include "core/layers/linear_cross_entropy.h"
#include "core/layers/rotary.h"
#include "tests/cuda_emulation/emulation.h"

namespace longnet {
namespace {

namespace emulated = cuda_emulated;

constexpr double infinity = std::numeric_limits<double>::infinity();

double error(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected.to(at::kDouble)).norm() / expected.to(at::kDouble).norm()).item<double>();
}

struct Type {
  at::ScalarType dtype;
  double tolerance;
};
const Type types[] = {{at::kDouble, 1e-13}, {at::kFloat, 1e-6}, {at::kBFloat16, 1e-2}, {at::kHalf, 2e-3}};

/// What a mixture's kernel calls give, as a GPU joins them; and what the CPU makes of the same.
struct Joined {
  std::vector<Part> parts;
  KernelOutput expected;
};

Joined join_on_cpu(const AttentionPlan& plan, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  Joined joined;
  MergedRows merged(q.to(at::kDouble));
  for (const Tile& tile : plan.own_tiles) {
    for (std::int64_t call = 0; call < call_count(q.size(0), tile); ++call) {
      const auto rows = [&](const at::Tensor& tensor, const RowView& view) {
        return tile_view(tensor, tile, view, call).to(at::kDouble);
      };
      const auto exact = kernels::plain(rows(q, tile.queries), rows(k, tile.keys), rows(v, tile.keys), plan.causal, {});
      const KernelOutput part{exact.out.to(q.scalar_type()), exact.lse.to(at::toOpMathType(q.scalar_type()))};
      joined.parts.push_back({part_rows(tile, tile.queries, call), part.out, part.lse});
      merged.add(tile, call, {part.out.to(at::kDouble), part.lse.to(at::kDouble)});
    }
  }
  joined.expected = merged.finish();
  return joined;
}

KernelOutput merge(const std::vector<Part>& parts, const at::Tensor& q) {
  KernelOutput result{at::full_like(q, NAN),
                      at::full(q.sizes().slice(0, 3), NAN, q.options().dtype(at::toOpMathType(q.scalar_type())))};
  emulated::merge_parts(parts, result.out, result.lse);
  return result;
}

void expect_merged(const Mixture& mixture, std::int64_t batch, std::int64_t length, std::int64_t heads,
                   std::int64_t width, const Type& type) {
  const auto random = [&] { return at::randn({batch, length, heads, width}).to(type.dtype); };
  const auto plan = plan_attention(mixture, heads, true, length, {0, length});
  const auto q = random(), k = random(), v = random();
  const Joined joined = join_on_cpu(plan, q, k, v);
  const KernelOutput actual = merge(joined.parts, q);
  EXPECT_LT(error(actual.out, joined.expected.out), type.tolerance);
  EXPECT_TRUE(actual.lse.isinf().equal(joined.expected.lse.isinf()));
  const auto finite = joined.expected.lse.isfinite();
  EXPECT_LT(error(actual.lse.masked_select(finite), joined.expected.lse.masked_select(finite)), type.tolerance);
}

TEST(JoinParts, MergesWhatTheCpuMerges) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    std::mt19937 random(seed);
    const auto number = [&](int low, int high) {
      return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    at::manual_seed(seed);
    Mixture mixture{{}, number(0, 1) == 0 ? HeadOffsets::Cyclic : HeadOffsets::Block};
    for (int branch = 0; branch < 3; ++branch) mixture.branches.push_back({number(1, 45), number(1, 8)});
    expect_merged(mixture, number(1, 3), number(1, 40), number(1, 6),
                  std::vector<std::int64_t>{1, 5, 8, 24, 64}[seed % 5], types[seed % 4]);
  }
}

TEST(JoinParts, MergesMorePartsThanAGroupOrAWarpHasLanes) {
  at::manual_seed(1);
  Mixture mixture{{}, HeadOffsets::Cyclic};
  for (std::int64_t branch = 1; branch <= 40; ++branch) mixture.branches.push_back({branch, 1});
  expect_merged(mixture, 1, 40, 2, 8, types[0]);
  mixture.branches.resize(11);
  expect_merged(mixture, 2, 23, 1, 16, types[1]);
}

TEST(JoinParts, GoesOverWideRowsInSteps) {
  at::manual_seed(2);
  const Mixture mixture = make_mixture({8, 16}, {1, 2}, HeadOffsets::Cyclic);
  expect_merged(mixture, 1, 16, 2, 256, types[0]);
  expect_merged(mixture, 1, 16, 2, 67, types[1]);
}

/// One part of 4 places of one head, for each value of its lse.
std::vector<Part> single_parts(const std::vector<double>& values, const std::vector<double>& lse) {
  std::vector<Part> parts;
  for (std::size_t i = 0; i < lse.size(); ++i) {
    parts.push_back({{0, 4, 1, 0, 0, 1, 0, 1, 1, -1},
                     at::full({1, 1, 4, 2}, values[i], at::kDouble),
                     at::full({1, 1, 4}, lse[i], at::kDouble)});
  }
  return parts;
}

TEST(JoinParts, KeepsWhatIsNotFinite) {
  const auto q = at::zeros({1, 4, 1, 2}, at::kDouble);
  const auto merged = [&](const std::vector<double>& values, const std::vector<double>& lse) {
    const auto result = merge(single_parts(values, lse), q);
    return std::pair(result.out[0][0][0][0].item<double>(), result.lse[0][0][0].item<double>());
  };
  EXPECT_EQ(merged({}, {}), std::pair(0.0, -infinity)) << "no part";
  EXPECT_EQ(merged({5, 6}, {-infinity, -infinity}), std::pair(0.0, -infinity)) << "no key in any";
  EXPECT_EQ(merged({NAN, 6}, {-infinity, 1}), std::pair(6.0, 1.0)) << "what has no key does not count";
  EXPECT_EQ(merged({5, 7}, {1e300, -1e300}), std::pair(5.0, 1e300));
  EXPECT_TRUE(std::isnan(merged({NAN, 6}, {1, 1}).first));
  EXPECT_TRUE(std::isnan(merged({5, 6}, {NAN, 1}).first));
  EXPECT_TRUE(std::isnan(merged({5, 6}, {1, NAN}).second));
  EXPECT_TRUE(std::isinf(merged({infinity, 6}, {1, 1}).first));
}

TEST(JoinParts, SumsWhatTheCpuSums) {
  for (const Type& type : types) {
    at::manual_seed(4);
    const std::int64_t batch = 2, length = 23, heads = 2;
    for (const std::int64_t width : {3, 16}) {
      const auto plan =
          plan_attention(make_mixture({5, 10, 40}, {1, 2, 3}, HeadOffsets::Cyclic), heads, true, length, {0, length});
      std::vector<Part> parts;
      const auto rows = at::zeros({batch, length, heads, width}, type.dtype);
      SummedRows expected(rows.to(at::kDouble));
      for (const Tile& tile : plan.own_tiles) {
        for (std::int64_t call = 0; call < call_count(batch, tile); ++call) {
          const auto part = at::randn(tile_view(rows, tile, tile.keys, call).sizes()).to(type.dtype);
          parts.push_back({part_rows(tile, tile.keys, call), part, {}});
          expected.add(tile, tile.keys, call, part.to(at::kDouble));
        }
      }
      const auto sum = expected.finish(at::kDouble);
      for (const auto result : {type.dtype, at::toOpMathType(type.dtype)}) {
        auto actual = at::full_like(rows, NAN, rows.options().dtype(result));
        emulated::sum_parts(parts, actual);
        EXPECT_LT(error(actual, sum), result == type.dtype ? type.tolerance : 1e-6) << c10::toString(type.dtype);
      }
    }
  }
}

/// Memory that is there only where it is touched.
class SparseMemory {
 public:
  explicit SparseMemory(std::size_t bytes)
      : bytes_(bytes),
        memory_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~SparseMemory() { ::munmap(memory_, bytes_); }
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;

  at::Tensor tensor(at::IntArrayRef sizes, at::ScalarType dtype) const { return at::from_blob(memory_, sizes, dtype); }

 private:
  std::size_t bytes_;
  void* memory_;
};

TEST(JoinParts, ReachesBeyondTwoToThe31Elements) {
  const std::int64_t places = 300'000'000, width = 16;  // 4.8e9 elements, of which the last block's are touched
  const SparseMemory part_memory(static_cast<std::size_t>(places * width) * 2),
      sum_memory(static_cast<std::size_t>(places * width) * 2);
  auto part = part_memory.tensor({1, 1, places, width}, at::kBFloat16);
  part.select(2, places - 1).fill_(3);
  auto sum = sum_memory.tensor({1, places, 1, width}, at::kBFloat16);
  const std::vector<Part> parts{{{0, places, 1, 0, 0, 1, 0, 1, 1, -1}, part, {}},
                                {{places - 1, 1, 1, 0, 0, 1, 0, 1, 1, -1}, part.slice(2, places - 1), {}}};
  emulation::only_blocks.first =
      static_cast<unsigned>((places + 511) / 512 - 1);  // 2 lanes a row, 128 rows at once, 4 times
  emulated::sum_parts(parts, sum);
  emulation::only_blocks.first.reset();
  EXPECT_TRUE(sum[0][places - 1].eq(6).all().item<bool>());
}

TEST(CrossEntropy, IsThatOfTheDefinition) {
  for (const Type& type : types) {
    for (const std::int64_t vocabulary : {1, 3, 64, 300, 2003}) {
      at::manual_seed(5);
      const std::int64_t rows = 7, columns = (vocabulary + 63) / 64 * 64;
      auto logits = at::randn({rows, columns}).mul(5).to(type.dtype);
      logits.slice(1, vocabulary).fill_(1000);  // must not count
      auto targets = at::randint(vocabulary, {rows}, at::kLong);
      targets[2] = ignored_target;
      const auto exact = logits.slice(1, 0, vocabulary).to(at::kDouble).contiguous().requires_grad_();
      const auto label = targets.clamp(0).unsqueeze(1);
      const auto expected =
          (exact.logsumexp(1, true) - exact.gather(1, label)).squeeze(1).masked_fill(targets.eq(ignored_target), 0);
      const auto gradient = torch::autograd::grad({expected.sum()}, {exact})[0];
      const auto before = logits.clone();
      const auto plain = emulated::cross_entropy(logits, targets, vocabulary, /*with_gradient=*/false);
      EXPECT_TRUE(logits.equal(before)) << "without a gradient nothing is overwritten";
      const auto losses = emulated::cross_entropy(logits, targets, vocabulary, /*with_gradient=*/true);
      EXPECT_TRUE(losses.equal(plain));
      EXPECT_TRUE(at::allclose(losses.to(at::kDouble), expected, type.dtype == at::kDouble ? 1e-13 : 1e-5, 1e-5));
      EXPECT_TRUE(logits.slice(1, vocabulary).eq(0).all().item<bool>());
      EXPECT_TRUE(
          at::allclose(logits.slice(1, 0, vocabulary).to(at::kDouble), gradient, type.tolerance, type.tolerance));
    }
  }
}

TEST(CrossEntropy, KeepsWhatIsNotFinite) {
  for (const double value : {infinity, static_cast<double>(NAN)}) {
    auto logits = at::zeros({2, 64}, at::kFloat);
    logits[1][40] = value;
    const auto losses = emulated::cross_entropy(logits, at::zeros({2}, at::kLong), 60, true);
    EXPECT_TRUE(std::isfinite(losses[0].item<double>()));
    EXPECT_FALSE(std::isfinite(losses[1].item<double>()));
  }
  auto impossible = at::full({1, 64}, -infinity, at::kFloat);
  impossible[0][3] = 1;
  EXPECT_EQ(emulated::cross_entropy(impossible, at::full({1}, 3, at::kLong), 60, true).item<double>(), 0);
}

TEST(Dropout, DropsByTheNumbersOfEachPosition) {
  for (const std::int64_t channels : {1, 6, 64}) {
    const auto x = at::randn({2, 31, channels}, at::kFloat);
    const DropoutMask mask{123456789, 1U << 30, 4.0 / 3, 1'000'000'007};
    const std::vector<std::int64_t> samples{4, 9};
    auto expected = at::empty_like(x), actual = at::full_like(x, NAN);
    for (std::int64_t sequence = 0; sequence < 2; ++sequence) {
      for (std::int64_t row = 0; row < 31; ++row) {
        auto numbers = mask.numbers(samples[static_cast<std::size_t>(sequence)], row, channels, 0);
        for (std::int64_t channel = 0; channel < channels; ++channel) {
          const auto value = x[sequence][row][channel] * static_cast<float>(mask.keep);
          expected[sequence][row][channel] = numbers() < mask.threshold ? at::zeros({}) : value;
        }
      }
    }
    emulated::dropout(x, actual, mask, samples);
    EXPECT_TRUE(actual.equal(expected)) << channels;
  }
}

TEST(Rotary, TurnsAsTheCpuDoes) {
  for (const Type& type : types) {
    for (const std::int64_t width : {2, 10, 64}) {
      at::manual_seed(6);
      const auto x = at::randn({2, 13, 3, width}).to(type.dtype);
      const auto rotations = rotary_rotations({999'999'000, 999'999'013}, width, x.options());
      const auto expected = rotate(x.to(at::kDouble), rotations.to(at::kComplexDouble));
      const auto actual = emulated::rotate(x, rotations, /*back=*/false);
      EXPECT_LT(error(actual, expected), type.tolerance);
      EXPECT_LT(error(emulated::rotate(actual, rotations, /*back=*/true), x), 2 * type.tolerance);
    }
  }
}

TEST(LayerNorm, IsThatOfLibTorch) {
  for (const Type& type : types) {
    for (const std::int64_t width : {8, 40, 776, 3072}) {
      at::manual_seed(8);
      if (width > 1000 && type.dtype != at::kBFloat16) continue;
      const std::int64_t rows = 29;  // more than blocks that go backward
      const auto wide = at::toOpMathType(type.dtype);
      const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); };
      const auto x = (random({rows, width}) + 3).to(type.dtype), gradient = random({rows, width}).to(type.dtype);
      const auto weight = random({width}).to(wide), bias = random({width}).to(wide);
      const auto leaf = [](const at::Tensor& tensor) {
        return tensor.to(at::kDouble).detach().clone().requires_grad_();
      };
      const auto x_leaf = leaf(x), w = leaf(weight), b = leaf(bias);
      const auto y = at::layer_norm(x_leaf, {width}, w, b, 1e-5);
      const auto expected = torch::autograd::grad({y}, {x_leaf, w, b}, {gradient.to(at::kDouble)});
      const auto output = emulated::layer_norm(x, weight, bias, 1e-5);
      const auto actual = emulated::layer_norm_backward(gradient, x, weight, output.mean, output.inverse_deviation);
      const double sums = type.dtype == at::kDouble ? 1e-13 : 1e-5;  // in float32 whatever x is
      EXPECT_LT(error(output.y, y.detach()), type.tolerance * 2) << c10::toString(type.dtype) << " " << width;
      EXPECT_LT(error(actual.x, expected[0]), type.tolerance * 4) << c10::toString(type.dtype) << " " << width;
      EXPECT_LT(error(actual.weight, expected[1]), sums) << c10::toString(type.dtype) << " " << width;
      EXPECT_LT(error(actual.bias, expected[2]), sums) << c10::toString(type.dtype) << " " << width;
    }
  }
  EXPECT_FALSE(emulated::takes_layer_norm(20, at::kBFloat16)) << "no multiple of 16 bytes";
  EXPECT_FALSE(emulated::takes_layer_norm(8200, at::kBFloat16)) << "more than a block has threads";
}

TEST(LayerNorm, KeepsItsDigitsBesideALargeMean) {
  at::manual_seed(9);
  const auto x = (at::randn({5, 776}, at::kDouble) + 10000).to(at::kFloat), one = at::ones({776}),
             zero = at::zeros({776});
  const auto exact = at::layer_norm(x.to(at::kDouble), {776}, one.to(at::kDouble), zero.to(at::kDouble), 1e-5);
  EXPECT_LT(error(emulated::layer_norm(x, one, zero, 1e-5).y, exact), 1e-3);
}

}  // namespace
}  // namespace longnet
