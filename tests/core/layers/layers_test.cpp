// The layers, each against its definition.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "core/error.h"
#include "core/layers/dropout.h"
#include "core/layers/linear.h"
#include "core/layers/linear_cross_entropy.h"
#include "core/layers/parameters.h"
#include "core/layers/position_encoding.h"
#include "core/layers/recompute.h"
#include "core/layers/rotary.h"
#include "core/layers/token_masking.h"

namespace longnet {
namespace {

TEST(Rotary, TurnsEachPairByItsAngle) {
  const std::int64_t width = 6;
  const auto x = at::randn({1, 3, 2, width}, at::kDouble);
  const auto y = rotate(x, rotary_rotations({5, 8}, width, at::kDouble));
  for (std::int64_t n = 0; n < 3; ++n) {
    for (std::int64_t pair = 0; pair < width / 2; ++pair) {
      const double angle =
          static_cast<double>(5 + n) * std::pow(10000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(width));
      const double a = x[0][n][1][2 * pair].item<double>(), b = x[0][n][1][2 * pair + 1].item<double>();
      EXPECT_NEAR(y[0][n][1][2 * pair].item<double>(), a * std::cos(angle) - b * std::sin(angle), 1e-14);
      EXPECT_NEAR(y[0][n][1][2 * pair + 1].item<double>(), b * std::cos(angle) + a * std::sin(angle), 1e-14);
    }
  }
}

/// xPos by its formula, and what it is for: scores depend on the distance alone, whatever the sequence's middle.
TEST(Rotary, XposScalesByTheDistanceFromTheMiddle) {
  const std::int64_t width = 6, length = 5;
  const auto [q, k] = xpos_rotations({1, 4}, length, width, at::kDouble);
  for (std::int64_t n = 0; n < 3; ++n) {
    for (std::int64_t pair = 0; pair < width / 2; ++pair) {
      const double m = static_cast<double>(1 + n) - 3;  // floor(-5 / 2)
      const double z = (2 * static_cast<double>(pair) + 0.4 * 6) / (1.4 * 6), scale = std::pow(z, m / 512);
      EXPECT_NEAR(at::abs(q)[n][0][pair].item<double>(), scale, 1e-14);
      EXPECT_NEAR(at::abs(k)[n][0][pair].item<double>(), 1 / scale, 1e-14);
    }
  }
  const auto x = at::randn({1, 1, 2, width}, at::kDouble), y = at::randn({1, 1, 2, width}, at::kDouble);
  const auto score = [&](std::int64_t p, std::int64_t r, std::int64_t of) {
    return (rotate(x, xpos_rotations({p, p + 1}, of, width, at::kDouble).q) *
            rotate(y, xpos_rotations({r, r + 1}, of, width, at::kDouble).k))
        .sum()
        .item<double>();
  };
  EXPECT_NEAR(score(700, 20, 1000), score(1690, 1010, 5001), 1e-12);
  EXPECT_GT(std::abs(score(700, 20, 1000) - score(700, 21, 1000)), 1e-6);
}

TEST(Rotary, XposStaysFiniteUpToItsLongestSequence) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const std::int64_t longest = longest_xpos_sequence(type);
    EXPECT_GT(longest, type == at::kDouble ? 500'000 : 60'000);
    for (const std::int64_t position : {std::int64_t{0}, longest - 1}) {
      const auto [q, k] = xpos_rotations({position, position + 1}, longest, 16, type);
      EXPECT_TRUE(at::view_as_real(q * 500).isfinite().all().item<bool>());
      EXPECT_TRUE(at::view_as_real(k * 500).isfinite().all().item<bool>());
      EXPECT_TRUE(at::abs(q).gt(0).all().item<bool>());
    }
  }
}

TEST(PositionEncoding, IsSinesThenCosines) {
  const auto encoding = sinusoidal_encoding(at::tensor({3, 70000}), 8);
  for (std::int64_t k = 0; k < 4; ++k) {
    const double angle = 70000 * std::pow(10000.0, -static_cast<double>(k) / 4);
    EXPECT_NEAR(encoding[1][k].item<double>(), std::sin(angle), 1e-9);
    EXPECT_NEAR(encoding[1][4 + k].item<double>(), std::cos(angle), 1e-9);
  }
  // The second coordinate comes first, and a coordinate anywhere in a cell is the cell.
  const auto grid = grid_encoding(at::tensor({255.9, 1024.0}).unsqueeze(0), 256, 16);
  EXPECT_TRUE(
      grid.equal(at::cat({sinusoidal_encoding(at::full({1}, 4), 8), sinusoidal_encoding(at::zeros({1}), 8)}, -1)));
}

TEST(TokenMasking, ChoosesAsBertDoes) {
  const std::int64_t vocabulary = 50, length = 20000;
  const auto tokens = at::randint(vocabulary, {2, length}, at::kLong);
  const DropoutSite site{1, 2, {0, 1}, 0, -1, 0};
  const auto [masked, targets] = mask_tokens(tokens, 0.15, vocabulary, site);
  const auto chosen = targets.ne(ignored_target);
  const auto share = [](const at::Tensor& of, const at::Tensor& among) {
    return of.logical_and(among).sum().item<double>() / among.sum().item<double>();
  };
  EXPECT_NEAR(chosen.to(at::kDouble).mean().item<double>(), 0.15, 0.01);
  EXPECT_TRUE(targets.masked_select(chosen).equal(tokens.masked_select(chosen)));
  EXPECT_TRUE(masked.masked_select(chosen.logical_not()).equal(tokens.masked_select(chosen.logical_not())));
  EXPECT_NEAR(share(masked.eq(vocabulary), chosen), 0.8, 0.02);
  EXPECT_NEAR(share(masked.eq(tokens), chosen), 0.1 + 0.1 / 50, 0.02);
  const auto random = masked.masked_select(chosen.logical_and(masked.ne(tokens)).logical_and(masked.ne(vocabulary)));
  EXPECT_NEAR(random.to(at::kDouble).mean().item<double>(), 24.5, 2);
  EXPECT_TRUE(random.ge(0).logical_and(random.lt(vocabulary)).all().item<bool>());

  // A shard chooses as the whole does, another step otherwise.
  const DropoutSite later{1, 2, {0, 1}, 700, -1, 0}, next{1, 3, {0, 1}, 0, -1, 0};
  EXPECT_TRUE(mask_tokens(tokens.slice(1, 700, 900), 0.15, vocabulary, later).tokens.equal(masked.slice(1, 700, 900)));
  EXPECT_FALSE(mask_tokens(tokens, 0.15, vocabulary, next).tokens.equal(masked));
}

TEST(Rotary, IsExactAtABillionPositions) {
  const std::int64_t position = 1'000'000'000;
  const auto rotation = rotary_rotations({position, position + 1}, 4, at::kFloat);
  EXPECT_EQ(rotation.scalar_type(), at::kComplexFloat);
  const auto first = rotation[0][0][0].item<c10::complex<float>>(),
             second = rotation[0][0][1].item<c10::complex<float>>();
  EXPECT_NEAR(first.real(), std::cos(1e9), 1e-6);
  EXPECT_NEAR(first.imag(), std::sin(1e9), 1e-6);
  EXPECT_NEAR(second.real(), std::cos(1e7), 1e-6);
  EXPECT_NEAR(second.imag(), std::sin(1e7), 1e-6);
}

DropoutSite site(std::int64_t first_position, std::vector<std::int64_t> samples = {0, 1}) {
  return {7, 3, std::move(samples), first_position, 2, 1};
}

TEST(Dropout, DropsTheRateAndKeepsTheMean) {
  const auto x = at::ones({2, 500, 101}, at::kDouble);
  const auto y = dropout(x, 0.3, site(0));
  const double kept = y.ne(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(kept, 0.7, 5 * std::sqrt(0.3 * 0.7 / 101000));
  EXPECT_NEAR(y.max().item<double>(), 1 / 0.7, 1e-12);
}

TEST(Dropout, DoesNotDependOnHowPositionsAndSamplesAreSpread) {
  const auto x = at::randn({2, 30, 5}, at::kDouble);
  const auto whole = dropout(x, 0.5, site(0));
  EXPECT_TRUE(dropout(x.slice(1, 11, 30), 0.5, site(11)).equal(whole.slice(1, 11, 30)));
  EXPECT_TRUE(dropout(x.slice(0, 1, 2), 0.5, site(0, {1})).equal(whole.slice(0, 1, 2)));
}

TEST(Dropout, DiffersByEverythingThatItDependsOn) {
  const auto x = at::ones({1, 40, 8});
  const auto mask = [&](const DropoutSite& where) { return dropout(x, 0.5, where); };
  const DropoutSite base{7, 3, {0}, 0, 2, 1};
  EXPECT_TRUE(mask(base).equal(mask(base)));
  EXPECT_FALSE(mask(base).equal(mask({8, 3, {0}, 0, 2, 1}))) << "seed";
  EXPECT_FALSE(mask(base).equal(mask({7, 4, {0}, 0, 2, 1}))) << "step";
  EXPECT_FALSE(mask(base).equal(mask({7, 3, {1}, 0, 2, 1}))) << "sample";
  EXPECT_FALSE(mask(base).equal(mask({7, 3, {0}, 1, 2, 1}))) << "position";
  EXPECT_FALSE(mask(base).equal(mask({7, 3, {0}, 0, 3, 1}))) << "layer";
  EXPECT_FALSE(mask(base).equal(mask({7, 3, {0}, 0, 2, 0}))) << "site";
}

TEST(Dropout, GradientPassesWhereTheValueDid) {
  auto x = at::randn({2, 6, 5}, at::kDouble).requires_grad_();
  const auto y = dropout(x, 0.4, site(9));
  const auto gradient = torch::autograd::grad({y.sum()}, {x})[0];
  EXPECT_TRUE(at::allclose(gradient, y.detach().ne(0).to(at::kDouble) / 0.6));
}

TEST(LinearCrossEntropy, EqualsTheWholeLogitsWhateverTheChunk) {
  at::manual_seed(3);
  const std::int64_t rows = 23, width = 6, vocabulary = 11;
  auto hidden = at::randn({rows, width}, at::kDouble).requires_grad_();
  auto weight = at::randn({vocabulary, width}, at::kDouble).requires_grad_();
  auto targets = at::randint(vocabulary, {rows}, at::kLong);
  targets[4] = ignored_target;
  targets[22] = ignored_target;
  const auto expected =
      at::cross_entropy_loss(hidden.matmul(weight.t()), targets, {}, at::Reduction::Sum, ignored_target);
  const auto expected_gradients = torch::autograd::grad({expected * 0.37}, {hidden, weight});
  for (const std::int64_t chunk : {1, 30, 110, 100000}) {
    const auto loss = linear_cross_entropy(hidden, weight, targets, chunk);
    EXPECT_NEAR(loss.sum.item<double>(), expected.item<double>(), 1e-11);
    EXPECT_NEAR(loss.token.sum().item<double>(), expected.item<double>(), 1e-11);
    EXPECT_EQ(loss.token[4].item<double>(), 0);
    const auto gradients = torch::autograd::grad({loss.sum * 0.37}, {hidden, weight});
    EXPECT_TRUE(at::allclose(gradients[0], expected_gradients[0], 1e-11, 1e-12));
    EXPECT_TRUE(at::allclose(gradients[1], expected_gradients[1], 1e-11, 1e-12));
  }
}

TEST(LinearCrossEntropy, RefusesShapesThatDoNotFit) {
  EXPECT_THROW(linear_cross_entropy(at::zeros({3, 4}), at::zeros({5, 6}), at::zeros({3}, at::kLong)), Error);
  EXPECT_THROW(linear_cross_entropy(at::zeros({3, 4}), at::zeros({5, 4}), at::zeros({2}, at::kLong)), Error);
}

TEST(Recompute, GivesTheSameGradientsAndRunsTheLayerTwice) {
  ParameterSet parameters(at::kDouble, 1);
  const Linear linear(parameters, "linear", 4, 4);
  parameters.flatten();
  const auto x = at::randn({3, 4}, at::kDouble);
  const auto gradients = [&](bool again, int& runs) {
    parameters.gradients().zero_();
    auto input = x.clone().requires_grad_();
    const auto layer = [&](const at::Tensor& value) {
      ++runs;
      return linear(value).tanh();
    };
    const auto y = again ? recompute(layer, input) : layer(input);
    y.pow(2).sum().backward();
    return std::pair(input.grad().clone(), parameters.gradients().clone());
  };
  int plain_runs = 0, again_runs = 0;
  const auto plain = gradients(false, plain_runs), again = gradients(true, again_runs);
  EXPECT_TRUE(plain.first.equal(again.first));
  EXPECT_TRUE(plain.second.equal(again.second));
  EXPECT_EQ(plain_runs, 1);
  EXPECT_EQ(again_runs, 2);
}

TEST(Recompute, GivesParametersTheirGradientsWhereTheInputNeedsNone) {
  ParameterSet parameters(at::kDouble, 1);
  const Linear linear(parameters, "linear", 4, 4);
  parameters.flatten();
  const auto x = at::randn({3, 4}, at::kDouble);
  linear(x).tanh().pow(2).sum().backward();
  const auto expected = parameters.gradients().clone();
  parameters.gradients().zero_();
  recompute([&](const at::Tensor& value) { return linear(value).tanh(); }, x).pow(2).sum().backward();
  EXPECT_TRUE(parameters.gradients().equal(expected));
  EXPECT_FALSE(x.requires_grad());
}

TEST(ParameterSet, KeepsAllParametersInFlatMemory) {
  ParameterSet parameters(at::kFloat, 5);
  const auto weight = parameters.add("weight", {3, 4}, normal(1));
  const auto bias = parameters.add("bias", {4}, constant(2));
  parameters.flatten();
  EXPECT_EQ(parameters.count(), 16);
  EXPECT_TRUE(weight.detach().flatten().equal(parameters.values().slice(0, 0, 12)));
  EXPECT_TRUE(parameters.values().slice(0, 12, 16).eq(2).all().item<bool>());
  (weight.sum() * 3 + bias.sum()).backward();
  (weight.sum()).backward();
  EXPECT_TRUE(parameters.gradients().slice(0, 0, 12).eq(4).all().item<bool>()) << "gradients accumulate in place";
  parameters.values().fill_(9);
  EXPECT_TRUE(weight.detach().eq(9).all().item<bool>());
}

TEST(ParameterSet, BeginsTheSameInEveryPrecision) {
  ParameterSet narrow(at::kFloat, 5), wide(at::kDouble, 5), other(at::kDouble, 6);
  const auto value = [](ParameterSet& set) {
    const auto parameter = set.add("w", {100}, uniform(0.5));
    set.flatten();
    return parameter.detach();
  };
  const auto a = value(narrow), b = value(wide), c = value(other);
  EXPECT_TRUE(b.to(at::kFloat).equal(a));
  EXPECT_FALSE(b.equal(c));
  EXPECT_LE(b.abs().max().item<double>(), 0.5);
}

TEST(ParameterSet, BeginsTheSameWithAnyNumberOfThreads) {
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> values;
  for (const int count : {1, 2, 5}) {
    at::set_num_threads(count);
    ParameterSet parameters(at::kDouble, 5);
    for (const std::int64_t size : {1000, 3, 70, 1, 500, 20, 9}) {
      parameters.add("w", {size}, size % 2 == 0 ? normal(1) : uniform(1));
    }
    parameters.flatten();
    values.push_back(parameters.values());
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(values[1].equal(values[0]));
  EXPECT_TRUE(values[2].equal(values[0]));
  EXPECT_EQ(std::get<0>(at::_unique(values[0])).numel(), values[0].numel()) << "each draws numbers of its own";
}

}  // namespace
}  // namespace longnet
