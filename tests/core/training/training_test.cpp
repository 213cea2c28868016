// AdamW, schedules and clipping against their formulas.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "core/training/adamw.h"
#include "core/training/clipping.h"
#include "core/training/schedule.h"
#include "core/training/spike_guard.h"

namespace longnet {
namespace {

/// 1 where the guard finds a spike.
std::vector<double> spikes_in(SpikeGuard& guard, const std::vector<double>& losses) {
  std::vector<double> found;
  for (const double loss : losses) found.push_back(guard(at::full({}, loss, at::kDouble)).item<double>());
  return found;
}

/// Losses around `mean` with the variance `deviation`^2.
std::vector<double> around(double mean, double deviation, int count) {
  std::vector<double> losses;
  for (int i = 0; i < count; ++i) losses.push_back(mean + (i % 2 == 0 ? deviation : -deviation));
  return losses;
}

TEST(SpikeGuard, KnowsTheMeanAndVarianceOfAllItHasSeenUpToAHundred) {
  SpikeGuard guard(6, at::kCPU);
  double sum = 0, squares = 0;
  for (int step = 1; step <= 100; ++step) {
    const double loss = 5 + std::sin(step * step);
    spikes_in(guard, {loss});
    sum += loss;
    squares += loss * loss;
    const double mean = sum / step;
    EXPECT_NEAR(guard.level().mean, mean, 1e-12);
    EXPECT_NEAR(guard.level().variance, squares / step - mean * mean, 1e-12);
    EXPECT_EQ(guard.level().steps, step);
  }
}

TEST(SpikeGuard, FindsWhatIsFarAboveTheMean) {
  SpikeGuard guard(6, at::kCPU);
  EXPECT_EQ(spikes_in(guard, around(3, 0.1, 40)), std::vector<double>(40, 0));
  EXPECT_EQ(spikes_in(guard, {3.59, -100, 3.0}), (std::vector<double>{0, 0, 0})) << "a fall is none";
  SpikeGuard other(6, at::kCPU);
  spikes_in(other, around(3, 0.1, 40));
  EXPECT_EQ(spikes_in(other, {3.61, NAN, INFINITY, 1e30}), (std::vector<double>{1, 0, 0, 1}));
}

TEST(SpikeGuard, JudgesNothingAtTheBeginning) {
  SpikeGuard guard(6, at::kCPU);
  auto losses = around(3, 0.1, 19);
  losses.push_back(1000);
  EXPECT_EQ(spikes_in(guard, losses), std::vector<double>(20, 0));
}

TEST(SpikeGuard, TakesASpikeInAsFarAsItIsNone) {
  SpikeGuard high(6, at::kCPU), higher(6, at::kCPU);
  for (SpikeGuard* guard : {&high, &higher}) spikes_in(*guard, around(3, 0.1, 40));
  spikes_in(high, {5});
  spikes_in(higher, {1e30});
  EXPECT_EQ(high.level().mean, higher.level().mean);
  EXPECT_EQ(high.level().variance, higher.level().variance);
  const LossLevel before = high.level();
  spikes_in(high, {NAN});
  EXPECT_EQ(high.level().steps, before.steps);
  EXPECT_EQ(high.level().mean, before.mean);
}

TEST(SpikeGuard, LearnsALevelThatStays) {
  for (const double deviation : {0.1, 0.0}) {
    SpikeGuard guard(6, at::kCPU);
    spikes_in(guard, around(3, deviation, 300));
    const auto found = spikes_in(guard, std::vector<double>(60, 5));
    EXPECT_EQ(found.front(), 1);
    EXPECT_EQ(found.back(), 0);
  }
}

TEST(SpikeGuard, GoesOnFromItsLevel) {
  SpikeGuard guard(6, at::kCPU), resumed(6, at::kCPU);
  spikes_in(guard, around(3, 0.1, 150));
  resumed.set_level(guard.level());
  const std::vector<double> losses{3.1, 3.7, 2.9, 3.8};
  EXPECT_EQ(spikes_in(guard, losses), spikes_in(resumed, losses));
  EXPECT_EQ(guard.level().mean, resumed.level().mean);
  EXPECT_EQ(guard.level().variance, resumed.level().variance);
}

TEST(AdamW, FollowsItsFormulaAndDecaysMatricesOnly) {
  ParameterSet parameters(at::kDouble, 1);
  const auto matrix = parameters.add("matrix", {3, 2}, normal(1));
  const auto bias = parameters.add("bias", {2}, normal(1));
  parameters.flatten();
  const AdamWSettings settings{{0.8, 0.95}, 1e-6, 0.1};
  AdamW optimizer(parameters, {{0, parameters.count()}}, settings);

  auto value = parameters.values().clone(), average = at::zeros_like(value), square = at::zeros_like(value);
  const auto decay = at::cat({at::full({6}, 0.1, at::kDouble), at::zeros({2}, at::kDouble)});
  for (std::int64_t step = 1; step <= 5; ++step) {
    const auto gradient = at::randn({8}, at::kDouble);
    parameters.gradients().copy_(gradient);
    const double rate = 0.01 * static_cast<double>(step);
    optimizer.update(rate, at::zeros({1}));

    value = value - rate * decay * value;
    average = 0.8 * average + 0.2 * gradient;
    square = 0.95 * square + 0.05 * gradient * gradient;
    const auto corrected = average / (1 - std::pow(0.8, step)),
               scale = (square / (1 - std::pow(0.95, step))).sqrt() + 1e-6;
    value = value - rate * corrected / scale;
    EXPECT_TRUE(at::allclose(parameters.values(), value, 1e-12, 1e-12)) << "step " << step;
  }
  EXPECT_TRUE(at::allclose(optimizer.states()[0].second, average));
  EXPECT_TRUE(at::allclose(optimizer.states()[1].second, square));
  EXPECT_EQ(optimizer.updates(), 5);
  EXPECT_EQ(matrix.dim() + bias.dim(), 3);
}

/// An optimizer that is divided among ranks gives the same, to the last bit.
TEST(AdamW, IsTheSameInParts) {
  for (const auto type : {at::kDouble, at::kFloat}) {
    ParameterSet whole(type, 1), divided(type, 1);
    for (ParameterSet* parameters : {&whole, &divided}) {
      parameters->add("matrix", {33, 7}, normal(1));
      parameters->add("bias", {7}, normal(1));
      parameters->add("other", {5, 11}, normal(1));
      parameters->flatten();
    }
    const std::int64_t count = whole.count();
    for (const std::int64_t parts : {1, 2, 3, 7, 300}) {
      std::vector<Range> ranges;
      std::vector<std::unique_ptr<AdamW>> each;
      for (std::int64_t part = 0; part < parts; ++part) {
        ranges.push_back(equal_part(count, part, parts));
        each.push_back(std::make_unique<AdamW>(divided, std::vector{ranges.back()}, AdamWSettings{}));
      }
      AdamW one(whole, ranges, {});
      for (int step = 0; step < 3; ++step) {
        whole.gradients().copy_(at::randn({count}, type));
        divided.gradients().copy_(whole.gradients());
        one.update(0.01, at::zeros({1}));
        for (const auto& optimizer : each) optimizer->update(0.01, at::zeros({1}));
        EXPECT_TRUE(divided.values().equal(whole.values())) << parts << " parts of " << type;
      }
      std::vector<at::Tensor> averages;
      for (const auto& optimizer : each) averages.push_back(optimizer->states()[0].second);
      EXPECT_TRUE(at::cat(averages).equal(one.states()[0].second));
    }
  }
}

TEST(AdamW, ChangesNothingWhenToldToSkip) {
  ParameterSet parameters(at::kDouble, 1);
  parameters.add("matrix", {3, 2}, normal(1));
  parameters.flatten();
  AdamW optimizer(parameters, {{0, parameters.count()}}, {});
  parameters.gradients().fill_(NAN);
  const auto before = parameters.values().clone();
  optimizer.update(0.1, at::ones({1}));
  EXPECT_TRUE(parameters.values().equal(before));
  for (const auto& [name, state] : optimizer.states()) EXPECT_TRUE(state.eq(0).all().item<bool>()) << name;
}

/// Skipped steps leave no trace: neither in the averages nor in how they are corrected for their beginning at 0.
TEST(AdamW, GoesOnAfterSkippedStepsAsIfTheyHadNotBeen) {
  const auto train = [](bool with_skips) {
    ParameterSet parameters(at::kDouble, 1);
    parameters.add("matrix", {3, 2}, normal(1));
    parameters.flatten();
    AdamW optimizer(parameters, {{0, parameters.count()}}, {});
    at::manual_seed(4);
    for (int step = 0; step < 4; ++step) {
      if (with_skips) {
        parameters.gradients().fill_(NAN);
        optimizer.update(0.1, at::ones({1}));
      }
      parameters.gradients().copy_(at::randn({6}, at::kDouble));
      optimizer.update(0.1, at::zeros({1}));
    }
    EXPECT_EQ(optimizer.updates(), 4);
    return parameters.values().clone();
  };
  EXPECT_TRUE(train(true).equal(train(false)));
}

TEST(AdamW, DecaysMatricesButNoLearnedToken) {
  ParameterSet parameters(at::kDouble, 1);
  const auto token = parameters.add("cls_token", {1, 1, 4}, normal(1)), row = parameters.add("row", {1, 4}, normal(1));
  parameters.flatten();
  const auto token_before = token.detach().clone(), row_before = row.detach().clone();
  OptimizerConfig config;
  config.weight_decay = 0.1;
  make_optimizer(config, parameters, {{0, parameters.count()}})->update(0.5, at::zeros({1}));  // gradients are 0
  EXPECT_TRUE(token.detach().equal(token_before));
  EXPECT_TRUE(at::allclose(row.detach(), row_before * 0.95));
}

OptimizerConfig with(OptimizerConfig::Schedule schedule) {
  OptimizerConfig optimizer;
  optimizer.learning_rate = 2;
  optimizer.final_learning_rate = 0.5;
  optimizer.schedule = schedule;
  optimizer.warmup_steps = 4;
  optimizer.power = 2;
  return optimizer;
}

TEST(Schedule, RisesLinearlyThenFalls) {
  using Schedule = OptimizerConfig::Schedule;
  for (const auto schedule : {Schedule::Constant, Schedule::Cosine, Schedule::Polynomial}) {
    const auto optimizer = with(schedule);
    EXPECT_DOUBLE_EQ(learning_rate(optimizer, 1, 24), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate(optimizer, 4, 24), 2);
  }
  EXPECT_DOUBLE_EQ(learning_rate(with(Schedule::Constant), 20, 24), 2);
  EXPECT_DOUBLE_EQ(learning_rate(with(Schedule::Cosine), 14, 24), 1.25);
  EXPECT_DOUBLE_EQ(learning_rate(with(Schedule::Cosine), 24, 24), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(with(Schedule::Polynomial), 14, 24), 0.5 + 1.5 * 0.25);
  EXPECT_DOUBLE_EQ(learning_rate(with(Schedule::Polynomial), 24, 24), 0.5);
  OptimizerConfig no_warmup;
  no_warmup.schedule = Schedule::Constant;
  EXPECT_DOUBLE_EQ(learning_rate(no_warmup, 1, 10), no_warmup.learning_rate);
}

TEST(Clipping, ScalesToTheLimitAndNoFurther) {
  EXPECT_DOUBLE_EQ(global_norm(at::tensor({3.0, 4.0})).item<double>(), 5);
  EXPECT_DOUBLE_EQ(global_norm(at::full({3'000'000}, 2.0, at::kFloat)).item<double>(), 2 * std::sqrt(3e6))
      << "summed in float64";
  EXPECT_FALSE(std::isfinite(global_norm(at::tensor({1.0, NAN})).item<double>()));
  EXPECT_DOUBLE_EQ(clip_factor(at::full({}, 5, at::kDouble), 2).item<double>(), 0.4);
  EXPECT_DOUBLE_EQ(clip_factor(at::full({}, 1.5, at::kDouble), 2).item<double>(), 1);
  EXPECT_DOUBLE_EQ(clip_factor(at::full({}, 1e9, at::kDouble), 0).item<double>(), 1) << "0: no clipping";
}

}  // namespace
}  // namespace longnet
