// The promise of the project: a training run does not depend on how many ranks make it.

#include "launch/training/training_step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/attention/mixture.h"
#include "core/files/safetensors.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/mpi/mpi_communicator.h"
#include "launch/training/resume.h"
#include "tests/definition.h"
#include "tests/device.h"

namespace longnet {
namespace {

constexpr std::int64_t length = 1003;
constexpr std::int64_t layers = 2, heads = 4, width = 32;
Mixture mixture_of(const std::vector<std::int64_t>& segments) {
  return make_mixture(segments, {1, 3, 8}, HeadOffsets::Cyclic);
}

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

  static std::vector<StepResult> run(Job& job, int steps) {
    Training state = begin_training(job);
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

  /// Saves it, and moves the checkpoint out of the run folder.
  std::filesystem::path saved(const Training& training, const std::string& name) {
    save_training(training);
    const auto place = folder / name;
    world->barrier();
    if (world->rank() == 0) {
      std::filesystem::remove_all(place);
      std::filesystem::rename(*std::filesystem::directory_iterator(folder / "run/checkpoints"), place);
    }
    world->barrier();
    return place;
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
std::int64_t rows_by_definition(const Mixture& mixture, std::int64_t tokens, int ranks, bool all_gather) {
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
      const std::int64_t forward = 2 * element * (width / heads) * layers * 4 *
                                   rows_by_definition(mixture_of({64, 200, 2000}), length, world->size(), false);
      const std::int64_t expected = forward * (recompute ? 3 : 2);
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
  const std::int64_t rows = rows_by_definition(mixture_of({48, 96, 2000}), 96 * world->size(), world->size(), true);
  EXPECT_EQ(aligned_results[0].exchange_bytes, 2 * 2 * 8 * (width / heads) * layers * 4 * rows);
  EXPECT_EQ(aligned_results[0].exchange_bytes, 2 * unaligned_results[0].exchange_bytes)
      << "a causal all-gather brings later rows, too";
}

/// The same numbers, whoever keeps the optimizer's state: to the last bit, in every precision, and through a checkpoint of the other.
TEST_F(TrainingStep, DoesNotDependOnWhoUpdates) {
  for (const std::string precision : {"fp64", "fp32", "bf16"}) {
    const auto with = [&](const std::string& sharded) {
      return job(make_mpi_world(), {"training.precision=" + precision, "parallel.shard_optimizer=" + sharded});
    };
    Job sharded_job = with("true"), whole_job = with("false");
    Training sharded = begin_training(sharded_job), whole = begin_training(whole_job);
    const std::int64_t count = whole_job.model->parameters().count();
    const auto held = sharded.optimizer->states()[0].second.numel();
    EXPECT_LE(held, count / world->size() + 1);
    const auto expect_same = [&] {
      const StepResult actual = training_step(sharded).result(), expected = training_step(whole).result();
      EXPECT_EQ(actual.loss, expected.loss) << precision;
      EXPECT_EQ(actual.gradient_norm, expected.gradient_norm) << precision;
      EXPECT_TRUE(sharded_job.model->parameters().values().equal(whole_job.model->parameters().values())) << precision;
    };
    for (int step = 0; step < 3; ++step) expect_same();
    const auto of_sharded = saved(sharded, "sharded"), of_whole = saved(whole, "whole");
    expect_same();
    for (const auto& checkpoint : {of_sharded, of_whole}) {
      for (const char* kind : {"true", "false"}) {
        Job other = with(kind);
        Training resumed = begin_training(other);
        load_training(resumed, checkpoint);
        training_step(resumed);
        EXPECT_TRUE(other.model->parameters().values().equal(whole_job.model->parameters().values())) << checkpoint;
        EXPECT_EQ(resumed.optimizer->updates(), 4);
      }
    }
  }
}

TEST_F(TrainingStep, ANonFiniteStepChangesNothingOnAnyRank) {
  for (const char* sharded : {"true", "false"}) {
    Job together = job(make_mpi_world(), {std::string("parallel.shard_optimizer=") + sharded});
    Training state = begin_training(together);
    training_step(state);
    ParameterSet& parameters = together.model->parameters();
    // On one rank alone; in what it gives the others, where each updates a part.
    if (world->rank() == world->size() - 1) parameters.values()[parameters.count() - 1] = NAN;
    const auto before = parameters.values().clone(), average = state.optimizer->states()[0].second.clone();
    const auto result = training_step(state).result();
    EXPECT_TRUE(result.skipped);
    const auto all_but_last = [&](const at::Tensor& values) { return values.slice(0, 0, parameters.count() - 1); };
    EXPECT_TRUE(all_but_last(parameters.values()).equal(all_but_last(before)));
    EXPECT_TRUE(state.optimizer->states()[0].second.equal(average));
    EXPECT_EQ(state.progress.step, 2) << "a skipped step counts as a step";
    EXPECT_EQ(state.optimizer->updates(), 1) << "but not as an update";
  }
}

/// What a training that expects losses around a millionth makes of its first step.
Training expecting_little(Job& job) {
  Training state = begin_training(job);
  state.spikes->set_level({1e-6, 1e-14, 50});
  return state;
}

TEST_F(TrainingStep, ASpikeIsSkippedByAllRanksAlike) {
  Job together = job(make_mpi_world(), {"training.skip_spikes=6"});
  Training state = expecting_little(together);
  const auto before = together.model->parameters().values().clone();
  const auto result = training_step(state).result();
  EXPECT_TRUE(result.skipped && result.spike);
  EXPECT_TRUE(together.model->parameters().values().equal(before));
  EXPECT_EQ(state.optimizer->updates(), 0);
  EXPECT_EQ(state.progress.step, 1);

  state.spikes->set_level({result.loss, 0, 50});
  const auto next = training_step(state).result();
  EXPECT_FALSE(next.skipped || next.spike);
  EXPECT_FALSE(together.model->parameters().values().equal(before));
  // On one rank alone, by its last bit.
  if (world->rank() == 0) state.spikes->set_level({1e-6, 1e-14, 50});
  EXPECT_TRUE(training_step(state).result().spike);

  Job unguarded = job(make_mpi_world());
  EXPECT_FALSE(begin_training(unguarded).spikes) << "by default nothing is skipped";
}

TEST_F(TrainingStep, WhatIsASpikeOutlastsARestart) {
  Job first = job(make_mpi_world(), {"training.skip_spikes=6"}),
      second = job(make_mpi_world(), {"training.skip_spikes=6"});
  Training state = expecting_little(first), resumed = begin_training(second);
  training_step(state);
  save_training(state);
  load_training(resumed, folder / "run/checkpoints/step-00000001");
  EXPECT_EQ(resumed.spikes->level().mean, state.spikes->level().mean);
  EXPECT_EQ(resumed.spikes->level().variance, state.spikes->level().variance);
  EXPECT_EQ(resumed.spikes->level().steps, 51);
}

TEST_F(TrainingStep, ACopyThatWentBadLastsAStep) {
  if (world->size() == 1) GTEST_SKIP() << "a rank alone has no copy";
  Job together = job(make_mpi_world());
  Training state = begin_training(together);
  training_step(state);
  ParameterSet& parameters = together.model->parameters();
  const auto before = parameters.values().clone();
  if (world->rank() == world->size() - 1) parameters.values()[0] = NAN;  // the first rank's
  EXPECT_TRUE(training_step(state).result().skipped);
  EXPECT_TRUE(parameters.values().equal(before));
  EXPECT_FALSE(training_step(state).result().skipped);
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
  Training state = begin_training(first);
  for (int step = 0; step < 2; ++step) training_step(state);
  save_training(state);
  const auto expected = training_step(state).result();

  Job second = job(make_mpi_world());
  Training resumed = begin_training(second);
  const auto checkpoint = folder / "run/checkpoints/step-00000002";
  EXPECT_EQ(list_checkpoints(*world, folder / "run/checkpoints").checkpoints, std::vector{checkpoint});
  load_training(resumed, checkpoint);
  EXPECT_EQ(resumed.progress.step, 2);
  const auto actual = training_step(resumed).result();
  EXPECT_EQ(actual.loss, expected.loss) << "to the last bit";
  EXPECT_EQ(actual.gradient_norm, expected.gradient_norm);
  EXPECT_TRUE(second.model->parameters().values().equal(first.model->parameters().values()));

  // Another rank count reads the same.
  Job alone_job = job(world->split(world->rank()));
  Training other = begin_training(alone_job);
  load_training(other, checkpoint);
  const auto elsewhere = training_step(other).result();
  EXPECT_NEAR(elsewhere.loss, expected.loss, 1e-10 * expected.loss);
}

/// Three steps of an optimizer as PyTorch makes them, from the configuration to the parameters: see
/// tests/golden/training/make.py.
class GoldenTraining : public testing::TestWithParam<const char*> {
 protected:
  GoldenTraining() : golden(test::source_folder() + "/tests/golden/training/" + GetParam() + ".safetensors") {
    if (world->rank() == 0) write_files();
    world->barrier();
  }
  ~GoldenTraining() override {
    world->barrier();
    if (world->rank() == 0) std::filesystem::remove_all(folder);
  }

  void write_files() const {
    std::filesystem::create_directories(folder / "examples");
    std::string data;
    if (golden.contains("tokens")) {
      std::ofstream tokens(folder / "tokens", std::ios::binary);
      const auto bytes = golden.read("tokens").to(at::kByte);
      tokens.write(static_cast<const char*>(bytes.const_data_ptr()), bytes.numel());
      data = "type: text, train: [" + (folder / "tokens").string() + "], validation: [" + (folder / "tokens").string() +
             "], sequence_length: 46";
    } else {
      for (const std::string number : {"0", "1", "2"}) {
        write_safetensors(folder / "examples" / (number + ".safetensors"),
                          {{"frames", golden.read("frames." + number)}, {"values", golden.read("values." + number)}});
      }
      data = "type: examples, train: [" + (folder / "examples").string() + "], sequence_length: 50";
    }
    std::ofstream(folder / "config.yaml")
        << "run: " << (folder / "run").string() << "\ndata: {" << data << "}\nparallel: {threads: 1}\n"
        << golden.metadata().at("config");
  }

  void expect_parameters(ParameterSet& parameters, const std::string& prefix) const {
    for (const Parameter& parameter : parameters.list()) {
      EXPECT_TRUE(
          at::allclose(parameter.value.detach().to(at::kCPU), golden.read(prefix + parameter.name), 1e-9, 1e-10))
          << prefix << parameter.name;
    }
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("longnet-golden-" + std::to_string(::getppid()));
  SafetensorsFile golden;
};

TEST_P(GoldenTraining, IsPyTorchs) {
  Job job = start_job(make_mpi_world(), {(folder / "config.yaml").string(), test::device_assignments()});
  ParameterSet& parameters = job.model->parameters();
  for (const Parameter& parameter : parameters.list()) {
    at::Tensor(parameter.value.detach()).copy_(golden.read("initial." + parameter.name));
  }
  Training training = begin_training(job);
  const auto numbers = [&](const char* name) { return golden.read(name); };
  for (std::int64_t step = 0; step < 3; ++step) {
    const StepResult result = training_step(training).result();
    EXPECT_NEAR(result.loss, numbers("losses")[step].item<double>(), 1e-10) << step;
    EXPECT_NEAR(result.gradient_norm, numbers("gradient_norms")[step].item<double>(), 1e-9) << step;
    EXPECT_DOUBLE_EQ(result.learning_rate, numbers("learning_rates")[step].item<double>()) << step;
    expect_parameters(parameters, "after." + std::to_string(step + 1) + ".");
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTraining, testing::Values("decoder", "encoder"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace longnet
