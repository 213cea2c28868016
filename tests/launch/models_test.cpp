// Every model: a training run does not depend on how many ranks make it, and goes on from its checkpoint at another
// rank count. Padding, missing modalities, class tokens and pooling included.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/files/safetensors.h"
#include "distributed/mpi/mpi_communicator.h"
#include "launch/training/evaluation.h"
#include "launch/training/resume.h"
#include "launch/training/training_step.h"
#include "tests/device.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* name;
  const char* model;
  const char* data;  ///< below the test's folder
  int micro_batch_size = 2;
};

constexpr const char* stack = "width: 16, layers: 2, heads: 4, feed_forward: 24, dropout: 0.1";

/// Examples have 37 to 91 positions, so that batches are padded and shares uneven; some lack a modality.
const std::vector<Case> cases{
    {"MaskedTokens",
     "type: encoder, vocabulary: 30, attention: {segments: [8, 20, 200], rates: [1, 2, 3]}, positions: "
     "rope, head: {type: masked_tokens}",
     "type: series, train: [series], sequence_length: 101"},
    {"MaskedTokensInPaddedSequencesWithAClassToken",
     "type: encoder, vocabulary: 30, class_token: true, attention: {segments: [8, 20, 200], rates: [1, 2, 3]}, "
     "positions: xpos, head: {type: masked_tokens}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"SequenceClassesByClassToken",
     "type: encoder, channels: 6, class_token: true, attention: {segments: [16, 200], rates: [1, 3]}, positions: "
     "sinusoidal, head: {type: classification, classes: 3, pooling: class_token}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"SequenceValuesByMeanOnAGrid",
     "type: encoder, channels: 6, class_token: true, attention: {segments: [16, 200], rates: [1, 3]}, positions: grid, "
     "grid: {cell: 10}, head: {type: regression, outputs: 2, field: values, pooling: mean}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"PositionClasses",
     "type: encoder, channels: 6, class_token: true, attention: {segments: [16, 200], rates: [1, 3]}, positions: none, "
     "head: {type: classification, classes: 3, per: position, field: labels}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"FramesAsTheyAre",
     "type: encoder, channels: 16, embed_frames: false, field: wide, attention: {segments: [16, 200], rates: [1, 3]}, "
     "positions: rope, head: {type: regression, outputs: 2, field: values, pooling: mean}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"FramesAsTheyAreBehindAClassToken",
     "type: encoder, channels: 16, embed_frames: false, field: wide, class_token: true, attention: {segments: [16, "
     "200], "
     "rates: [1, 3]}, positions: rope, head: {type: classification, classes: 3, pooling: class_token}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"Slides",
     "type: slide_encoder, channels: 6, cell: 10, pooling: mean, compatibility: torchscale, attention: {segments: [16, "
     "33, 200], rates: [1, 3, 7]}, head: {type: classification, classes: 3}",
     "type: examples, train: [slides], sequence_length: 100", 1},
    {"ModalitiesOfSequences",
     "type: multimodal, attention: {segments: [8, 20, 200], rates: [1, 2, 3]}, positions: rope, modalities: {touch: "
     "{channels: 3}, sound: {channels: 2, stride: 4, attention: {segments: [30], rates: [1]}}, words: {vocabulary: 11, "
     "stride: 2}}, cross: {width: 24, heads: 3, attention: {segments: [25, 200], rates: [1, 4]}}, modality_dropout: "
     "0.2, head: {type: classification, classes: 3}",
     "type: examples, train: [examples], sequence_length: 100"},
    {"ModalitiesOfWhichOneIsMissingEverywhere",
     "type: multimodal, attention: {segments: [8, 200], rates: [1, 3]}, positions: sinusoidal, modalities: {touch: "
     "{channels: 3}, sound: {channels: 2, stride: 4}, words: {vocabulary: 11, stride: 2}}, head: {type: regression, "
     "outputs: 6, field: frames, per: position}",
     "type: examples, train: [examples], missing: [sound], sequence_length: 100"},
    {"Forecast",
     "type: multimodal, attention: {segments: [8, 20, 200], rates: [1, 2, 3]}, positions: xpos, modalities: {touch: "
     "{channels: 3}, sound: {channels: 2, stride: 4}, words: {vocabulary: 11, stride: 2}}, modality_dropout: 0.3, "
     "head: "
     "{type: forecast, forecast: [touch, sound]}",
     "type: series, train: [series], sequence_length: 101"},
};

class Models : public testing::TestWithParam<Case> {
 protected:
  Models() {
    // Ranks of one mpirun have the same parent.
    folder = fs::temp_directory_path() / ("longnet-models-" + std::to_string(::getppid()));
    if (world->rank() == 0) write_files();
    world->barrier();
  }
  ~Models() override {
    world->barrier();
    if (world->rank() == 0) fs::remove_all(folder);
  }

  void write_files() const {
    fs::create_directories(folder / "examples");
    fs::create_directories(folder / "series");
    fs::create_directories(folder / "slides");
    at::manual_seed(3);
    const std::vector<std::int64_t> lengths{37, 64, 91, 50, 77, 42, 91, 60};
    for (std::int64_t number = 0; number < 8; ++number) {
      write_recording(folder / "examples" / std::to_string(number), lengths[static_cast<std::size_t>(number)], number);
    }
    write_recording(folder / "series" / "long", 700, 0);
    for (std::int64_t number = 0; number < 8; ++number) {
      const std::int64_t length = lengths[static_cast<std::size_t>(number)];
      write_safetensors((folder / "slides" / std::to_string(number)).string() + ".safetensors",
                        {{"tiles", at::randn({length, 6}, at::kDouble)},
                         {"coords", at::rand({length, 2}, at::kDouble) * 500},
                         {"label", at::full({}, number % 3, at::kLong)}});
    }
    std::string data = GetParam().data;
    const auto open = data.find('[') + 1;
    data.insert(open, (folder / "").string());
    std::ofstream(folder / "config.yaml")
        << "run: " << (folder / "run").string() << "\nmodel: {" << GetParam().model << ", " << stack << "}\n"
        << "data: {" << data << ", validation_fraction: 0.3}\n"
        << "parallel: {threads: 1}\noptimizer: {learning_rate: 0.01, warmup_steps: 3, clip_norm: 0.5}\n"
        << "training: {steps: 9, batch_size: 4, micro_batch_size: " << GetParam().micro_batch_size
        << ", precision: fp64, seed: 5}\n";
  }

  static void write_recording(const fs::path& path, std::int64_t length, std::int64_t number) {
    std::vector<NamedTensor> tensors{
        {"tokens", at::randint(30, {length}, at::kLong)}, {"frames", at::randn({length, 6}, at::kDouble)},
        {"wide", at::randn({length, 16}, at::kDouble)},   {"coords", at::rand({length, 2}, at::kDouble) * 500},
        {"label", at::full({}, number % 3, at::kLong)},   {"values", at::randn({2}, at::kDouble)},
        {"labels", at::randint(3, {length}, at::kLong)}};
    const bool whole = number == 0;
    if (whole || number % 3 != 1) tensors.emplace_back("touch", at::randn({length, 3}, at::kDouble));
    if (whole || number % 4 != 2) tensors.emplace_back("sound", at::randn({length * 4, 2}, at::kDouble));
    if (whole || number % 3 != 2) tensors.emplace_back("words", at::randint(11, {length * 2}, at::kLong));
    write_safetensors(path.string() + ".safetensors", tensors);
  }

  Job job(std::unique_ptr<Communicator> ranks, std::vector<std::string> assignments = {}) const {
    for (const auto& assignment : test::device_assignments()) assignments.push_back(assignment);
    return start_job(std::move(ranks), {(folder / "config.yaml").string(), std::move(assignments)});
  }
  Job alone(const std::vector<std::string>& assignments = {}) const {
    return job(world->split(world->rank()), assignments);
  }

  static std::vector<StepResult> run(Training& training, int steps) {
    std::vector<StepResult> results;
    for (int step = 0; step < steps; ++step) results.push_back(training_step(training).result());
    return results;
  }
  static std::vector<StepResult> run(Job& job, int steps) {
    Training training = begin_training(job);
    return run(training, steps);
  }

  static void expect_equal(const std::vector<StepResult>& actual, const std::vector<StepResult>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t step = 0; step < expected.size(); ++step) {
      EXPECT_NEAR(actual[step].loss, expected[step].loss, 1e-10 * std::abs(expected[step].loss)) << "step " << step + 1;
      EXPECT_NEAR(actual[step].gradient_norm, expected[step].gradient_norm, 1e-10 * expected[step].gradient_norm)
          << "step " << step + 1;
      EXPECT_EQ(actual[step].tokens, expected[step].tokens);
      EXPECT_FALSE(actual[step].skipped);
      EXPECT_GT(actual[step].gradient_norm, 1e-3);
    }
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  fs::path folder;
};

TEST_P(Models, DoNotDependOnTheRankCount) {
  Job together = job(make_mpi_world()), single = alone();
  expect_equal(run(together, 5), run(single, 5));
  const auto evaluation = evaluate(together, together.configuration.data.sequence_length, 100),
             expected = evaluate(single, single.configuration.data.sequence_length, 100);
  EXPECT_NEAR(evaluation.loss, expected.loss, 1e-10 * expected.loss);
  EXPECT_EQ(evaluation.labels, expected.labels);
  for (std::size_t metric = 0; metric < expected.metrics.size(); ++metric) {
    EXPECT_NEAR(evaluation.metrics[metric], expected.metrics[metric], 1e-10);
  }
}

TEST_P(Models, DoNotDependOnMicroBatchesRecomputationOrTheMesh) {
  Job single = alone();
  const auto expected = run(single, 2);
  Job again = job(make_mpi_world(), {"training.recompute=true"});
  expect_equal(run(again, 2), expected);
  Job smaller = job(make_mpi_world(), {"training.micro_batch_size=1"});
  expect_equal(run(smaller, 2), expected);
  if (world->size() != 2 && world->size() != 4) return;
  Job data = job(make_mpi_world(), {"parallel.sequence=" + std::to_string(world->size() / 2)});
  expect_equal(run(data, 2), expected);
}

/// With everything before the first layer frozen, no rank's input needs a gradient, and all other parameters get theirs.
TEST_P(Models, GetTheSameGradientsWhereTheirInputNeedsNone) {
  const auto embeds = [](const std::string& name) {
    return name.find("embed") != std::string::npos || name == "cls_token";
  };
  const auto gradients = [&](bool frozen, const char* recompute) {
    Job together = job(make_mpi_world(), {std::string("training.recompute=") + recompute, "optimizer.clip_norm=0"});
    for (const Parameter& parameter : together.model->parameters().list()) {
      if (frozen && embeds(parameter.name)) at::Tensor(parameter.value).requires_grad_(false);
    }
    run(together, 1);
    std::map<std::string, at::Tensor> result;
    for (const Parameter& parameter : together.model->parameters().list()) {
      if (!embeds(parameter.name)) result.emplace(parameter.name, parameter.value.grad().clone());
    }
    return result;
  };
  const auto expected = gradients(false, "false");
  for (const char* recompute : {"false", "true"}) {
    for (const auto& [name, gradient] : gradients(true, recompute)) {
      EXPECT_TRUE(at::allclose(gradient, expected.at(name), 1e-10, 1e-12)) << name << ", recompute " << recompute;
    }
  }
}

TEST_P(Models, GoOnFromTheirCheckpointAtAnotherRankCount) {
  Job first = job(make_mpi_world());
  Training before = begin_training(first);
  run(before, 2);
  save_training(before);
  const auto expected = run(before, 2);

  Job single = alone();
  Training after = begin_training(single);
  load_training(after, folder / "run/checkpoints/step-00000002");
  expect_equal(run(after, 2), expected);
}

INSTANTIATE_TEST_SUITE_P(All, Models, testing::ValuesIn(cases),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace longnet
