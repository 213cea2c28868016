// Attention across ranks: equal to the definition on the whole sequence, whichever way the rows travel, and with as
// many bytes as the design says.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <random>

#include "distributed/agreement.h"
#include "distributed/sequence_parallel.h"
#include "tests/core/attention/oracle.h"
#include "tests/definition.h"
#include "tests/device.h"

namespace longnet {
namespace {

struct Problem {
  Mixture mixture;
  bool causal;
  at::Tensor q, k, v, out_gradient;  // of the whole sequence, the same on every rank
  std::optional<at::Tensor> key_mask;
};

Problem make_problem(Mixture mixture, bool causal, std::vector<std::int64_t> shape, unsigned seed) {
  at::manual_seed(seed);
  const auto tensor = [&] { return at::randn(shape, at::kDouble).to(test::device()); };
  Problem problem{std::move(mixture), causal, tensor(), tensor(), tensor(), tensor(), {}};
  if (seed % 3 == 0) problem.key_mask = at::rand({shape[0], shape[1]}).gt(0.3).to(test::device());
  return problem;
}

Problem random_problem(unsigned seed) {
  std::mt19937 random(seed);
  const auto number = [&](int low, int high) { return std::uniform_int_distribution<std::int64_t>(low, high)(random); };
  Mixture mixture{{}, number(0, 1) == 0 ? HeadOffsets::Cyclic : HeadOffsets::Block};
  for (std::int64_t branch = number(1, 3); branch > 0; --branch)
    mixture.branches.push_back({number(1, 90), number(1, 9)});
  const bool causal = number(0, 1) == 0;
  return make_problem(mixture, causal, {number(1, 3), number(1, 80), number(1, 6), number(1, 6)}, seed);
}

struct Result {
  at::Tensor out;
  std::vector<at::Tensor> gradients;
  std::int64_t forward_bytes, total_bytes;  // that arrived here
};

/// This rank's part of the attention and its gradients.
Result run(Communicator& world, const Problem& problem, TransportChoice transport) {
  SequenceParallel parallel(world, transport);
  const auto attention = parallel.attention(problem.mixture, problem.q.size(2), problem.causal);
  const auto shard = parallel.shard(problem.q.size(1));
  const auto part = [&](const at::Tensor& tensor) {
    return tensor.slice(1, shard.own.begin, shard.own.end).contiguous();
  };
  auto q = part(problem.q).requires_grad_(), k = part(problem.k).requires_grad_(), v = part(problem.v).requires_grad_();
  const auto out = (*attention)(q, k, v, shard, problem.key_mask).out;
  const auto forward_bytes = parallel.received_bytes();
  EXPECT_EQ(forward_bytes, attention->forward_bytes(shard.length, q.size(0), q.size(3), 8));
  const auto gradients = torch::autograd::grad({out}, {q, k, v}, {part(problem.out_gradient)});
  return {out.detach(), gradients, forward_bytes, parallel.received_bytes()};
}

std::int64_t sum_over_ranks(Communicator& world, std::int64_t value) {
  auto sum = at::full({1}, value, at::kLong);
  world.all_reduce(sum, Reduction::Sum)->wait();
  return sum.item<std::int64_t>();
}

void expect_definition(Communicator& world, const Problem& problem, const Result& result) {
  const auto q = problem.q.clone().requires_grad_(), k = problem.k.clone().requires_grad_(),
             v = problem.v.clone().requires_grad_();
  const auto whole = test::oracle(q, k, v, problem.mixture, problem.causal, problem.key_mask).out;
  const auto gradients = torch::autograd::grad({whole}, {q, k, v}, {problem.out_gradient});
  const auto own = test::shares_by_definition(q.size(1), world.size())[static_cast<std::size_t>(world.rank())];
  const auto close = [&](const at::Tensor& mine, const at::Tensor& all) {
    return at::allclose(mine, all.slice(1, own.begin, own.end), 1e-11, 1e-11);
  };
  EXPECT_TRUE(close(result.out, whole));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(close(result.gradients[i], gradients[i])) << "gradient " << i;
}

/// Keys and values of one rank alone need a gradient: it comes from the other ranks, which must not skip their part.
TEST(SequenceAttention, GivesGradientsToARankWhileTheOthersNeedNone) {
  const auto world = test::make_world();
  for (unsigned seed = 0; seed < 30; ++seed) {
    const Problem problem = random_problem(seed);
    SequenceParallel parallel(*world);
    const auto attention = parallel.attention(problem.mixture, problem.q.size(2), problem.causal);
    const auto shard = parallel.shard(problem.q.size(1));
    const auto part = [&](const at::Tensor& tensor) {
      return tensor.slice(1, shard.own.begin, shard.own.end).contiguous();
    };
    const bool wants = world->rank() == 0;
    const auto k = part(problem.k).requires_grad_(wants), v = part(problem.v).requires_grad_(wants);
    const auto out = (*attention)(part(problem.q), k, v, shard, problem.key_mask).out;
    const auto loss = (out * part(problem.out_gradient)).sum();
    if (loss.requires_grad()) loss.backward();
    if (!wants) continue;
    const auto whole_k = problem.k.clone().requires_grad_(), whole_v = problem.v.clone().requires_grad_();
    const auto expected =
        test::oracle(problem.q, whole_k, whole_v, problem.mixture, problem.causal, problem.key_mask).out;
    const auto gradients = torch::autograd::grad({expected}, {whole_k, whole_v}, {problem.out_gradient});
    EXPECT_TRUE(at::allclose(k.grad(), part(gradients[0]), 1e-11, 1e-11)) << seed;
    EXPECT_TRUE(at::allclose(v.grad(), part(gradients[1]), 1e-11, 1e-11)) << seed;
  }
}

TEST(SequenceSum, ReachesARankWhileTheOthersNeedNoGradient) {
  const auto world = test::make_world();
  SequenceParallel parallel(*world);
  const bool wants = world->rank() == world->size() - 1;
  const auto x = at::full({2}, world->rank() + 1.0, test::on(at::kDouble)).requires_grad_(wants);
  const auto sum = parallel.sum(x);
  (sum * static_cast<double>(world->rank() + 1)).sum().backward();
  const double ranks = world->size();
  EXPECT_TRUE(sum.detach().eq(ranks * (ranks + 1) / 2).all().item<bool>());
  if (wants) {
    EXPECT_TRUE(x.grad().eq(ranks * (ranks + 1) / 2).all().item<bool>());
  }
}

/// The weights of a query, times the values, are its output: masks, zero keys and uncovered queries included.
TEST(AttentionWeights, AreThoseOfTheOutput) {
  const auto world = test::make_world();
  for (unsigned seed = 0; seed < 30; ++seed) {
    Problem problem = random_problem(seed);
    problem.mixture.zero_keys = seed % 2 == 0;
    SequenceParallel parallel(*world);
    const auto attention = parallel.attention(problem.mixture, problem.q.size(2), problem.causal);
    const auto shard = parallel.shard(problem.q.size(1));
    const auto part = [&](const at::Tensor& tensor) {
      return tensor.slice(1, shard.own.begin, shard.own.end).contiguous();
    };
    const auto q = part(problem.q) * 5, k = part(problem.k) * 5, v = part(problem.v);
    const auto out = (*attention)(q, k, v, shard, problem.key_mask).out;
    for (const std::int64_t position : {std::int64_t{0}, shard.length / 2, shard.length - 1}) {
      const auto weights = attention->weights(q, k, shard, problem.key_mask, position);
      ASSERT_EQ(weights.sizes(), v.sizes().slice(0, 3));
      EXPECT_TRUE(weights.ge(0).all().item<bool>());
      const auto weighted = parallel.sum((weights.unsqueeze(-1) * v).sum(1));
      if (position < shard.own.begin || position >= shard.own.end) continue;
      EXPECT_TRUE(at::allclose(weighted, out.select(1, position - shard.own.begin), 1e-11, 1e-11)) << seed;
    }
  }
}

/// Rows of other ranks that arrive, over all ranks, counted position by position from the text of the design.
std::int64_t rows_by_definition(const Problem& problem, int ranks, bool all_gather) {
  const std::int64_t length = problem.q.size(1), heads = problem.q.size(2);
  const auto layout = test::shares_by_definition(length, ranks);
  const auto owner = [&](std::int64_t position) {
    int rank = 0;
    while (position >= layout[static_cast<std::size_t>(rank)].end) ++rank;
    return rank;
  };
  std::int64_t rows = 0;
  for (const Branch& branch : problem.mixture.branches) {
    for (std::int64_t begin = 0; begin < length; begin += branch.segment) {
      const std::int64_t end = std::min(begin + branch.segment, length);
      for (std::int64_t head = 0; head < heads; ++head) {
        std::vector<std::int64_t> held(static_cast<std::size_t>(ranks));  // rows of the segment on each rank
        std::vector<bool> touches(static_cast<std::size_t>(ranks));
        const std::int64_t offset = test::offset_by_definition(head, heads, branch.rate, problem.mixture.head_offsets);
        for (std::int64_t position = begin; position < end; ++position) {
          const auto rank = static_cast<std::size_t>(owner(position));
          touches[rank] = true;
          if ((position - begin) % branch.rate == offset) ++held[rank];
        }
        for (std::size_t reader = 0; reader < held.size(); ++reader) {
          for (std::size_t holder = 0; holder < held.size(); ++holder) {
            if (reader == holder || !touches[reader]) continue;
            const bool seen = (!problem.causal || holder < reader) && held[reader] > 0;
            if (all_gather || seen) rows += held[holder];
          }
        }
      }
    }
  }
  return rows;
}

std::int64_t bytes_of_rows(const Problem& problem, std::int64_t rows) {
  return 2 * 8 * problem.q.size(3) * problem.q.size(0) * rows;
}

class AcrossRanks : public testing::TestWithParam<unsigned> {
 protected:
  std::unique_ptr<Communicator> world = test::make_world();
};

TEST_P(AcrossRanks, MatchesTheDefinition) {
  const auto problem = random_problem(GetParam());
  expect_definition(*world, problem, run(*world, problem, TransportChoice::Automatic));
}

TEST_P(AcrossRanks, ReceivesExactlyTheRowsThatQueriesSee) {
  const auto problem = random_problem(GetParam());
  const auto result = run(*world, problem, TransportChoice::Unaligned);
  expect_definition(*world, problem, result);
  const auto expected = bytes_of_rows(problem, rows_by_definition(problem, world->size(), false));
  EXPECT_EQ(sum_over_ranks(*world, result.forward_bytes), expected);
  EXPECT_EQ(sum_over_ranks(*world, result.total_bytes), 2 * expected) << "backward returns as much";
}

INSTANTIATE_TEST_SUITE_P(Attention, AcrossRanks, testing::Range(0U, 60U));

class Transports : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Communicator> world = test::make_world();
};

TEST_P(Transports, GiveEqualResults) {
  const std::int64_t share = 24, ranks = world->size();
  for (const auto layout : {HeadOffsets::Cyclic, HeadOffsets::Block}) {
    // Segments of one share, of all shares, and longer than the sequence; rates that do and do not divide a share.
    const auto problem = make_problem(make_mixture({8, share * ranks, 1000, share * ranks}, {1, 4, 5, 7}, layout),
                                      GetParam(), {2, share * ranks, 35, 4}, 4);
    const auto aligned = run(*world, problem, TransportChoice::Automatic);
    const auto unaligned = run(*world, problem, TransportChoice::Unaligned);
    EXPECT_TRUE(at::allclose(aligned.out, unaligned.out, 1e-13, 1e-13));
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(at::allclose(aligned.gradients[i], unaligned.gradients[i], 1e-13, 1e-13));
    }
    expect_definition(*world, problem, aligned);
  }
}

TEST_P(Transports, AlignedBytesFollowTheFormula) {
  const std::int64_t share = 24, ranks = world->size();
  const auto problem = make_problem(make_mixture({8, share * ranks, 1000}, {1, 4, 5}, HeadOffsets::Cyclic), GetParam(),
                                    {2, share * ranks, 20, 4}, 4);
  const auto result = run(*world, problem, TransportChoice::Aligned);
  const auto expected = bytes_of_rows(problem, rows_by_definition(problem, world->size(), true));
  EXPECT_EQ(sum_over_ranks(*world, result.forward_bytes), expected);
  EXPECT_EQ(sum_over_ranks(*world, result.total_bytes), 2 * expected);
}

INSTANTIATE_TEST_SUITE_P(Attention, Transports, testing::Bool());

TEST(AlignedGroups, AreTheRanksOfASegment) {
  const auto world = test::make_world();
  if (world->size() != 4) GTEST_SKIP() << "needs four ranks";
  const auto problem = make_problem(make_mixture({20, 40}, {2, 2}, HeadOffsets::Cyclic), true, {1, 80, 4, 3}, 5);
  expect_definition(*world, problem, run(*world, problem, TransportChoice::Aligned));
}

TEST(AlignedTransport, IsRefusedWhereSharesDoNotFit) {
  const auto world = test::make_world();
  if (world->size() == 1) GTEST_SKIP() << "nothing crosses on one rank";
  const auto problem = make_problem(make_mixture({50}, {1}, HeadOffsets::Cyclic), true, {1, 101, 2, 2}, 1);
  EXPECT_THROW(run(*world, problem, TransportChoice::Aligned), AgreedError);
}

/// More lengths than are kept, some of them again while a graph of their first use still lives.
TEST(SequenceAttention, ServesAnyNumberOfLengths) {
  const auto world = test::make_world();
  const Mixture mixture = make_mixture({7, 300}, {1, 3}, HeadOffsets::Cyclic);
  SequenceParallel parallel(*world);
  const auto attention = parallel.attention(mixture, 2, /*causal=*/true);
  const auto loss_of = [&](std::int64_t length, at::Tensor& q) {
    at::manual_seed(static_cast<std::uint64_t>(length));
    const auto whole = at::randn({1, length, 2, 4}, test::on(at::kDouble));
    const auto shard = parallel.shard(length);
    q = whole.slice(1, shard.own.begin, shard.own.end).clone().requires_grad_();
    return (*attention)(q, q, q, shard).out.square().sum();
  };
  at::Tensor first_q, q;
  const auto first = loss_of(50, first_q);
  for (std::int64_t length = 51; length < 251; ++length) loss_of(length, q).backward();
  first.backward();
  loss_of(50, q).backward();
  EXPECT_TRUE(first_q.grad().equal(q.grad()));
}

TEST(EvenLayout, CoversEveryPositionOnce) {
  for (const std::int64_t length : {0, 1, 3, 1003}) {
    for (int ranks = 1; ranks <= 7; ++ranks) {
      std::int64_t position = 0;
      const auto layout = even_layout(length, ranks);
      EXPECT_EQ(layout, test::shares_by_definition(length, ranks));
      for (const Range& own : layout) {
        EXPECT_EQ(own.begin, position);
        EXPECT_GE(own.size(), length / ranks);
        EXPECT_LE(own.size(), length / ranks + 1);
        position = own.end;
      }
      EXPECT_EQ(position, length);
    }
  }
}

}  // namespace
}  // namespace longnet
