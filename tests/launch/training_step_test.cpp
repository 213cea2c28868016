// The promise of the project: a training run does not depend on how many ranks make it.

#include "launch/training/training_step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/attention/mixture.h"
#include "distributed/mpi/mpi_communicator.h"
#include "launch/training/restore.h"
#include "tests/definition.h"
#include "tests/device.h"

namespace longnet {
namespace {

constexpr std::int64_t length = 1003;
constexpr std::int64_t layers = 2, heads = 4, width = 32;
const Mixture mixture = make_mixture({64, 200, 2000}, {1, 3, 8}, HeadOffsets::Cyclic);

class TrainingStep : public testing::Test {
 protected:
  TrainingStep() {
    // Ranks of one mpirun have the same parent.
    folder = std::filesystem::temp_directory_path() / ("longnet-step-" + std::to_string(::getppid()));
    if (world->rank() == 0) {
      std::filesystem::create_directories(folder);
      std::string text;
      for (int i = 0; i < 40000; ++i) text += static_cast<char>('a' + (i * i / 7 + i % 13) % 26);
      std::ofstream(folder / "text") << text;
      std::ofstream(folder / "config.yaml") << "run: " << (folder / "run").string() << R"(
model:
  type: decoder
  vocabulary: 128
  width: 32
  layers: 2
  heads: 4
  feed_forward: 64
  attention: {segments: [64, 200, 2000], rates: [1, 3, 8]}
  dropout: 0.1
  tied_embeddings: true
data: {train: [)" << (folder / "text").string()
                                            << R"(], sequence_length: 1003}
parallel: {threads: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 3, clip_norm: 0.5}
training: {steps: 10, batch_size: 4, micro_batch_size: 1, precision: fp64, seed: 5}
)";
    }
    world->barrier();
  }
  ~TrainingStep() override {
    world->barrier();
    if (world->rank() == 0) std::filesystem::remove_all(folder);
  }

  Job job(std::unique_ptr<Communicator> ranks, std::vector<std::string> assignments = {}) {
    for (const auto& assignment : test::device_assignments()) assignments.push_back(assignment);
    return start_job(std::move(ranks), {(folder / "config.yaml").string(), std::move(assignments)});
  }

  static Training training(Job& job) { return {job, AdamW(job.model->parameters(), {}), {}}; }

  static std::vector<StepResult> run(Job& job, int steps) {
    Training state = training(job);
    std::vector<StepResult> results;
    for (int step = 0; step < steps; ++step) results.push_back(training_step(state).result());
    return results;
  }

  /// The same run on this rank alone.
  std::vector<StepResult> alone(int steps, std::vector<std::string> assignments = {}) {
    Job single = job(world->split(world->rank()), std::move(assignments));
    return run(single, steps);
  }

  static void expect_equal(const std::vector<StepResult>& actual, const std::vector<StepResult>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t step = 0; step < expected.size(); ++step) {
      EXPECT_NEAR(actual[step].loss, expected[step].loss, 1e-10 * expected[step].loss) << "step " << step + 1;
      EXPECT_NEAR(actual[step].gradient_norm, expected[step].gradient_norm, 1e-10 * expected[step].gradient_norm)
          << "step " << step + 1;
      EXPECT_FALSE(actual[step].skipped);
    }
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  std::filesystem::path folder;
};

TEST_F(TrainingStep, DoesNotDependOnTheRankCount) {
  Job together = job(make_mpi_world());
  const auto results = run(together, 10), expected = alone(10);
  expect_equal(results, expected);
  EXPECT_GT(results.front().gradient_norm, 0.5) << "clipping is at work";
  EXPECT_LT(results.back().loss, results.front().loss);
}

TEST_F(TrainingStep, DoesNotDependOnTheMesh) {
  if (world->size() != 4) GTEST_SKIP() << "needs four ranks";
  Job grid = job(make_mpi_world(), {"parallel.sequence=2"});
  expect_equal(run(grid, 10), alone(10));
  Job data = job(make_mpi_world(), {"parallel.sequence=1"});
  expect_equal(run(data, 10), alone(10));
}

TEST_F(TrainingStep, DoesNotDependOnMicroBatchesOrRecomputation) {
  const auto expected = alone(3);
  Job larger = job(make_mpi_world(), {"training.micro_batch_size=2"});
  expect_equal(run(larger, 3), expected);
  Job again = job(make_mpi_world(), {"training.recompute=true"});
  expect_equal(run(again, 3), expected);
}

/// Rows that one forward pass of one layer moves for one sequence, over all ranks, from the text of the design.
std::int64_t rows_by_definition(std::int64_t tokens, int ranks, bool all_gather) {
  const auto layout = test::shares_by_definition(tokens, ranks);
  std::int64_t rows = 0;
  for (const Branch& branch : mixture.branches) {
    for (std::int64_t begin = 0; begin < tokens; begin += branch.segment) {
      const std::int64_t end = std::min(begin + branch.segment, tokens);
      for (std::int64_t head = 0; head < heads; ++head) {
        std::vector<std::int64_t> held;  // rows of the head on each rank that the segment touches
        for (const Range& own : layout) {
          if (std::max(own.begin, begin) >= std::min(own.end, end)) continue;
          held.push_back(0);
          for (std::int64_t p = std::max(own.begin, begin); p < std::min(own.end, end); ++p) {
            held.back() += (p - begin) % branch.rate == head % branch.rate ? 1 : 0;
          }
        }
        for (std::size_t reader = 0; reader < held.size(); ++reader) {
          for (std::size_t holder = 0; holder < held.size(); ++holder) {
            if (holder != reader && (all_gather || (holder < reader && held[reader] > 0))) rows += held[holder];
          }
        }
      }
    }
  }
  return rows;
}

TEST_F(TrainingStep, MovesExactlyTheBytesOfTheFormula) {
  for (const auto& [precision, element] : {std::pair("fp64", 8), std::pair("fp32", 4), std::pair("bf16", 2)}) {
    for (const bool recompute : {false, true}) {
      Job together = job(make_mpi_world(), {std::string("training.precision=") + precision,
                                            std::string("training.recompute=") + (recompute ? "true" : "false"),
                                            "parallel.transport=unaligned"});
      const std::int64_t forward =
          2 * element * (width / heads) * layers * 4 * rows_by_definition(length, world->size(), false);
      const std::int64_t expected = forward * (recompute ? 3 : 2);
      EXPECT_EQ(planned_exchange_bytes(together), expected);
      for (const auto& result : run(together, 2)) EXPECT_EQ(result.exchange_bytes, expected) << precision;
    }
  }
}

TEST_F(TrainingStep, BothTransportsGiveTheSameRun) {
  // Shares of equal size, so that the branch of 2000 is aligned; rate 8 leaves 4 heads with unequal rows unless 8
  // divides a share.
  const std::string sequence_length = "data.sequence_length=" + std::to_string(96 * world->size());
  const std::vector<std::string> segments{"model.attention.segments=[48, 96, 2000]", sequence_length};
  const auto with = [&](const char* transport) {
    auto assignments = segments;
    assignments.push_back(std::string("parallel.transport=") + transport);
    return assignments;
  };
  Job aligned = job(make_mpi_world(), with("aligned")), unaligned = job(make_mpi_world(), with("unaligned"));
  const auto expected = alone(3, segments);
  const auto aligned_results = run(aligned, 3), unaligned_results = run(unaligned, 3);
  expect_equal(aligned_results, expected);
  expect_equal(unaligned_results, expected);
  if (world->size() == 1) return;
  EXPECT_EQ(aligned_results[0].exchange_bytes, planned_exchange_bytes(aligned));
  EXPECT_EQ(aligned_results[0].exchange_bytes, 2 * unaligned_results[0].exchange_bytes)
      << "a causal all-gather brings later rows, too";
}

TEST_F(TrainingStep, ANonFiniteStepChangesNothingOnAnyRank) {
  Job together = job(make_mpi_world());
  Training state = training(together);
  training_step(state);
  ParameterSet& parameters = together.model->parameters();
  if (world->rank() == world->size() - 1) parameters.values()[0] = NAN;  // on one rank alone
  const auto before = parameters.values().clone(), average = state.optimizer.average().clone();
  const auto result = training_step(state).result();
  EXPECT_TRUE(result.skipped);
  EXPECT_TRUE(at::allclose(parameters.values(), before, 0, 0, /*equal_nan=*/true));
  EXPECT_TRUE(state.optimizer.average().equal(average));
  EXPECT_EQ(state.progress.step, 2) << "a skipped step counts as a step";
}

TEST_F(TrainingStep, BFloat16FollowsFloat32) {
  Job narrow = job(make_mpi_world(), {"training.precision=bf16"}),
      wide = job(make_mpi_world(), {"training.precision=fp32"});
  EXPECT_EQ(narrow.model->parameters().options().dtype(), at::kFloat) << "master weights";
  const auto narrow_results = run(narrow, 8), wide_results = run(wide, 8);
  for (std::size_t step = 0; step < 8; ++step) EXPECT_NEAR(narrow_results[step].loss, wide_results[step].loss, 0.02);
}

TEST_F(TrainingStep, ACheckpointHoldsTheWholeState) {
  Job first = job(make_mpi_world());
  Training state = training(first);
  for (int step = 0; step < 2; ++step) training_step(state);
  const auto& list = first.model->parameters().list();
  save_checkpoint(*first.mesh.world, folder / "run/checkpoints", state.progress,
                  {5, 1, world->size(), "test", first.resolved}, list,
                  training_states(first.model->parameters(), state.optimizer), 3);
  const auto expected = training_step(state).result();

  Job second = job(make_mpi_world());
  Training resumed = training(second);
  const auto checkpoints = list_checkpoints(folder / "run/checkpoints");
  ASSERT_EQ(checkpoints.size(), 1U);
  resumed.progress = load_checkpoint(*second.mesh.world, checkpoints[0], second.model->parameters().list(),
                                     training_states(second.model->parameters(), resumed.optimizer));
  EXPECT_EQ(resumed.progress.step, 2);
  const auto actual = training_step(resumed).result();
  EXPECT_EQ(actual.loss, expected.loss) << "to the last bit";
  EXPECT_EQ(actual.gradient_norm, expected.gradient_norm);
  EXPECT_TRUE(second.model->parameters().values().equal(first.model->parameters().values()));

  // Another rank count reads the same.
  Job alone_job = job(world->split(world->rank()));
  Training other = training(alone_job);
  other.progress = load_checkpoint(*alone_job.mesh.world, checkpoints[0], alone_job.model->parameters().list(),
                                   training_states(alone_job.model->parameters(), other.optimizer));
  const auto elsewhere = training_step(other).result();
  EXPECT_NEAR(elsewhere.loss, expected.loss, 1e-10 * expected.loss);
}

}  // namespace
}  // namespace longnet
