// Dilated attention against its definition on random shapes, whole and cut into ranges.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <random>

#include "core/attention/dilated_attention.h"
#include "core/error.h"
#include "tests/core/attention/oracle.h"
#include "tests/device.h"

namespace longnet {
namespace {

struct Problem {
  Mixture mixture;
  bool causal;
  at::Tensor q, k, v, out_gradient;
  std::optional<at::Tensor> key_mask;

  std::int64_t length() const { return q.size(1); }
  std::int64_t heads() const { return q.size(2); }
  std::shared_ptr<AttentionPlan> plan(Range own) const {
    return std::make_shared<AttentionPlan>(plan_attention(mixture, heads(), causal, length(), own));
  }
};

Problem random_problem(unsigned seed) {
  std::mt19937 random(seed);
  const auto number = [&](int low, int high) { return std::uniform_int_distribution<std::int64_t>(low, high)(random); };
  Problem problem{
      {{}, number(0, 1) == 0 ? HeadOffsets::Cyclic : HeadOffsets::Block}, number(0, 1) == 0, {}, {}, {}, {}, {}};
  const std::int64_t batch = number(1, 3), length = number(1, 90), heads = number(1, 7), width = number(1, 9);
  for (std::int64_t branch = number(1, 4); branch > 0; --branch) {
    problem.mixture.branches.push_back({number(1, 100), number(1, 9)});
  }
  at::manual_seed(seed);
  const auto tensor = [&] { return at::randn({batch, length, heads, width}, at::kDouble).to(test::device()); };
  problem.q = tensor().requires_grad_();
  problem.k = tensor().requires_grad_();
  problem.v = tensor().requires_grad_();
  problem.out_gradient = tensor();
  if (number(0, 1) == 0) problem.key_mask = at::rand({batch, length}).gt(0.4).to(test::device());
  return problem;
}

struct Result {
  at::Tensor out, lse;
  std::vector<at::Tensor> gradients;
};

Result expected(const Problem& problem) {
  const auto result = test::oracle(problem.q, problem.k, problem.v, problem.mixture, problem.causal, problem.key_mask);
  return {result.out, result.lse,
          torch::autograd::grad({result.out}, {problem.q, problem.k, problem.v}, {problem.out_gradient})};
}

void expect_equal(const Result& actual, const Result& reference) {
  const auto close = [](const at::Tensor& a, const at::Tensor& b) { return at::allclose(a, b, 1e-11, 1e-11); };
  EXPECT_TRUE(close(actual.out, reference.out));
  EXPECT_TRUE(close(actual.lse, reference.lse));
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_TRUE(close(actual.gradients[i], reference.gradients[i])) << "gradient " << i;
}

/// Stands in for other owners: reads their rows from the whole sequence and collects the gradients there.
class WholeSequence : public KeyValueExchange {
 public:
  WholeSequence(std::shared_ptr<const AttentionPlan> plan, at::Tensor k, at::Tensor v, at::Tensor& dk, at::Tensor& dv)
      : plan_(std::move(plan)), k_(std::move(k)), v_(std::move(v)), dk_(dk), dv_(dv) {}

  std::unique_ptr<Fetch> fetch(const at::Tensor&, const at::Tensor&) override { return std::make_unique<Here>(*this); }

  std::unique_ptr<Return> give_back(const std::vector<SegmentRows>& gradients, at::ScalarType) override {
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      visit(plan_->crossings[i], [&](std::int64_t position, std::int64_t head, std::int64_t row) {
        dk_.select(1, position).select(1, head) += gradients[i].keys.select(1, row).select(1, head);
        dv_.select(1, position).select(1, head) += gradients[i].values.select(1, row).select(1, head);
      });
    }
    return std::make_unique<Nothing>();
  }

 private:
  /// Calls visitor(position, head, row) for every row of the buffer that lies outside the own range.
  static void visit(const CrossingSegment& segment, const auto& visitor) {
    for (std::int64_t head = 0; head < segment.heads.heads; ++head) {
      for (std::int64_t row = 0; row < segment.buffer_rows; ++row) {
        const std::int64_t position =
            segment.segment.begin + segment.heads.offset(head) + row * segment.heads.branch.rate;
        const bool own = position >= segment.own.begin && position < segment.own.end;
        if (position < segment.segment.end && !own) visitor(position, head, row);
      }
    }
  }

  struct Here : Fetch {
    explicit Here(WholeSequence& sequence) : whole(sequence) {}
    void poll() override {}
    std::vector<SegmentRows> finish() override {
      std::vector<SegmentRows> rows;
      for (const auto& segment : whole.plan_->crossings) {
        const auto buffer = [&] {  // NaN shows any use of a row that nobody sent
          return at::full({whole.k_.size(0), segment.buffer_rows, segment.heads.heads, whole.k_.size(3)}, NAN,
                          whole.k_.options());
        };
        rows.push_back({buffer(), buffer()});
        visit(segment, [&](std::int64_t position, std::int64_t head, std::int64_t row) {
          rows.back().keys.select(1, row).select(1, head).copy_(whole.k_.select(1, position).select(1, head));
          rows.back().values.select(1, row).select(1, head).copy_(whole.v_.select(1, position).select(1, head));
        });
      }
      return rows;
    }
    WholeSequence& whole;
  };
  struct Nothing : Return {
    void poll() override {}
    void finish(at::Tensor&, at::Tensor&) override {}
  };

  std::shared_ptr<const AttentionPlan> plan_;
  at::Tensor k_, v_;
  at::Tensor &dk_, &dv_;
};

class RandomShapes : public testing::TestWithParam<unsigned> {};

TEST_P(RandomShapes, MatchTheDefinition) {
  const auto problem = random_problem(GetParam());
  const auto result =
      dilated_attention(problem.q, problem.k, problem.v, problem.plan({0, problem.length()}), problem.key_mask);
  expect_equal({result.out, result.lse,
                torch::autograd::grad({result.out}, {problem.q, problem.k, problem.v}, {problem.out_gradient})},
               expected(problem));
}

TEST_P(RandomShapes, MatchTheDefinitionWhenCutIntoRanges) {
  const auto problem = random_problem(GetParam());
  std::mt19937 random(GetParam());
  std::vector<std::int64_t> cuts{0, problem.length()};
  for (int i = 0; i < 3; ++i) cuts.push_back(std::uniform_int_distribution<std::int64_t>(0, problem.length())(random));
  std::sort(cuts.begin(), cuts.end());

  Result joined{at::zeros_like(problem.q), at::zeros(problem.q.sizes().slice(0, 3), problem.q.options()), {}};
  for (int i = 0; i < 3; ++i) joined.gradients.push_back(at::zeros_like(problem.q));
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const Range own{cuts[i], cuts[i + 1]};
    if (own.size() == 0) continue;
    const auto part = [&](const at::Tensor& tensor) { return tensor.detach().slice(1, own.begin, own.end); };
    auto q = part(problem.q).requires_grad_(), k = part(problem.k).requires_grad_(),
         v = part(problem.v).requires_grad_();
    const auto plan = problem.plan(own);
    std::shared_ptr<KeyValueExchange> exchange;
    if (!plan->crossings.empty()) {
      exchange = std::make_shared<WholeSequence>(plan, problem.k.detach(), problem.v.detach(), joined.gradients[1],
                                                 joined.gradients[2]);
    }
    const auto result = dilated_attention(q, k, v, plan, problem.key_mask, exchange);
    const auto gradients = torch::autograd::grad({result.out}, {q, k, v}, {part(problem.out_gradient)});
    part(joined.out).copy_(result.out.detach());
    part(joined.lse).copy_(result.lse);
    for (std::size_t j = 0; j < 3; ++j) part(joined.gradients[j]).add_(gradients[j]);
  }
  expect_equal(joined, expected(problem));
}

INSTANTIATE_TEST_SUITE_P(Attention, RandomShapes, testing::Range(0U, 120U));

TEST(Gradient, IsTheSlopeOfTheOutput) {
  auto problem = random_problem(11);
  problem.key_mask.reset();
  const auto plan = problem.plan({0, problem.length()});
  const auto value = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return (dilated_attention(q, k, v, plan).out * problem.out_gradient).sum();
  };
  const auto gradients =
      torch::autograd::grad({value(problem.q, problem.k, problem.v)}, {problem.q, problem.k, problem.v});
  std::vector<at::Tensor> inputs{problem.q.detach(), problem.k.detach(), problem.v.detach()};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto direction = at::randn_like(inputs[i]);
    constexpr double step = 1e-6;
    const auto shifted = [&](double by) {
      auto moved = inputs;
      moved[i] = moved[i] + by * direction;
      return value(moved[0], moved[1], moved[2]).item<double>();
    };
    const double slope = (shifted(step) - shifted(-step)) / (2 * step);
    EXPECT_NEAR(slope, (gradients[i] * direction).sum().item<double>(), 1e-7 * std::max(1.0, std::abs(slope)));
  }
}

TEST(Gradient, HasNoSecondDerivative) {
  const auto problem = random_problem(3);
  const auto result = dilated_attention(problem.q, problem.k, problem.v, problem.plan({0, problem.length()}));
  EXPECT_THROW(torch::autograd::grad({result.out.sum()}, {problem.q}, {}, /*retain_graph=*/true, /*create_graph=*/true),
               Error);
}

TEST(Inputs, ThatDoNotFitAreRefused) {
  const auto x = at::randn({1, 8, 2, 4});
  const Mixture mixture = make_mixture({4}, {1}, HeadOffsets::Cyclic);
  const auto plan = std::make_shared<AttentionPlan>(plan_attention(mixture, 2, true, 8, {0, 8}));
  EXPECT_NO_THROW(dilated_attention(x, x, x, plan));
  EXPECT_THROW(dilated_attention(x, x.to(at::kDouble), x, plan), Error);
  EXPECT_THROW(dilated_attention(x, x.slice(1, 0, 7), x, plan), Error);
  EXPECT_THROW(dilated_attention(x.slice(1, 0, 7), x.slice(1, 0, 7), x.slice(1, 0, 7), plan), Error);
  EXPECT_THROW(dilated_attention(x, x, x, plan, at::ones({1, 8})), Error);
  EXPECT_THROW(dilated_attention(x.to(at::kHalf), x.to(at::kHalf), x.to(at::kHalf), plan), Error) << "on the CPU";
  const auto cut = std::make_shared<AttentionPlan>(plan_attention(mixture, 2, true, 16, {2, 10}));
  EXPECT_THROW(dilated_attention(x, x, x, cut), Error) << "segments cross the range, but there is no exchange";
}

/// The error of bfloat16 dilated attention, against that of the dense kernel on the same inputs. A GPU's kernels round each call's
/// gradients to bfloat16 before they are summed, as the dense kernel's are rounded once: that rounding comes on top there.
TEST(BFloat16, IsNearlyAsExactAsTheDenseKernel) {
  at::manual_seed(5);
  const std::int64_t length = 4096, heads = 12, width = 64;
  const auto input = [&] { return at::randn({1, length, heads, width}).to(test::on(at::kBFloat16)); };
  const auto q = input(), k = input(), v = input(), out_gradient = input();
  const auto error = [&](const Mixture& mixture) {
    const auto run = [&](at::ScalarType type) {
      auto q_leaf = q.to(type).requires_grad_(), k_leaf = k.to(type).requires_grad_(),
           v_leaf = v.to(type).requires_grad_();
      const auto plan = std::make_shared<AttentionPlan>(plan_attention(mixture, heads, true, length, {0, length}));
      const auto out = dilated_attention(q_leaf, k_leaf, v_leaf, plan).out;
      auto result = torch::autograd::grad({out}, {q_leaf, k_leaf, v_leaf}, {out_gradient.to(type)});
      result.insert(result.begin(), out.detach());
      return result;
    };
    const auto exact = run(at::kDouble), rounded = run(at::kBFloat16);
    struct Error {
      double of_kernel, of_rounding;
    };
    std::vector<Error> errors;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const auto relative = [&](const at::Tensor& other) {
        return ((other.to(at::kDouble) - exact[i]).norm() / exact[i].norm()).item<double>();
      };
      errors.push_back({relative(rounded[i]), relative(exact[i].to(at::kBFloat16))});
    }
    return errors;
  };
  const auto dense = error(make_mixture({length}, {1}, HeadOffsets::Cyclic));
  const auto dilated = error(make_mixture({512, 1024, 2048, 4096}, {1, 2, 4, 6}, HeadOffsets::Cyclic));
  const char* names[] = {"out", "dq", "dk", "dv"};
  for (std::size_t i = 0; i < dense.size(); ++i) {
    const double rounding = i > 0 && q.is_cuda() ? dilated[i].of_rounding : 0;
    EXPECT_LE(dilated[i].of_kernel, 1.1 * std::hypot(dense[i].of_kernel, rounding))
        << names[i] << ": dense " << dense[i].of_kernel << ", dilated " << dilated[i].of_kernel;
  }
}

}  // namespace
}  // namespace longnet
