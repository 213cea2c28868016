// The configuration file: what it means, and that whatever is wrong is refused with its place.

#include "core/configuration/configuration.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "models/registry.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

const std::string minimal =
    "run: runs/x\n"
    "model: {type: decoder, vocabulary: 256, width: 8, layers: 1, heads: 2, feed_forward: 8,\n"
    "        attention: {segments: [4, 8], rates: [1, 2]}}\n"
    "data: {train: [a.txt], sequence_length: 16}\n"
    "training: {steps: 3}\n";

class ConfigurationTest : public testing::Test {
 protected:
  Configuration load(const std::string& text, const std::vector<std::string>& assignments = {}) {
    return load_configuration(folder.write("c.yaml", text), assignments);
  }

  /// The error's message, without the folder.
  std::string error(const std::string& text, const std::vector<std::string>& assignments = {}) {
    try {
      const auto configuration = load(text, assignments);
      specify_model(configuration.model);
    } catch (const ConfigError& error) {
      std::string message = error.what();
      const std::string prefix = (folder.path() / "").string();
      if (message.starts_with(prefix)) message.erase(0, prefix.size());
      return message;
    }
    return "accepted";
  }

  static std::string replaced(std::string text, const std::string& from, const std::string& to) {
    return text.replace(text.find(from), from.size(), to);
  }

  test::TemporaryFolder folder;
};

TEST_F(ConfigurationTest, FillsInDefaults) {
  const auto configuration = load(minimal);
  EXPECT_EQ(configuration.training.steps, 3);
  EXPECT_EQ(configuration.training.precision, Precision::Float32);
  EXPECT_EQ(configuration.optimizer.betas, (std::array{0.9, 0.98}));
  EXPECT_FALSE(configuration.parallel.sequence.has_value()) << "auto";
}

TEST_F(ConfigurationTest, SetReplacesAndAdds) {
  const auto configuration = load(minimal, {"training.steps=9", "optimizer.learning_rate=1e-2",
                                            "data.train=[b.txt, c.txt]", "parallel={sequence: 4}"});
  EXPECT_EQ(configuration.training.steps, 9);
  EXPECT_EQ(configuration.optimizer.learning_rate, 1e-2);
  EXPECT_EQ(configuration.data.train, (std::vector<std::string>{"b.txt", "c.txt"}));
  EXPECT_EQ(configuration.parallel.sequence, 4);
}

TEST_F(ConfigurationTest, WhatItWritesItReadsAsTheSame) {
  const auto json = [](const Configuration& c) { return to_json(c, specify_model(c.model).json); };
  const auto configuration = load(minimal, {"optimizer.learning_rate=0.1234567890123", "run='a: b'"});
  const auto again = load(to_yaml(json(configuration)));
  EXPECT_EQ(json(again), json(configuration));
}

TEST_F(ConfigurationTest, NamesTheKeyAndTheNearestKnownOne) {
  EXPECT_EQ(error(replaced(minimal, "steps", "stepps")),
            "c.yaml:5:12: unknown key 'training.stepps'; did you mean 'steps', which has no default?");
  EXPECT_EQ(error(minimal + "optimizer: {learning_rat: 1}\n"),
            "c.yaml:6:13: unknown key 'optimizer.learning_rat'; did you mean 'learning_rate'?");
  EXPECT_EQ(error(minimal + "optimiser: {}\n"), "c.yaml:6:1: unknown key 'optimiser'; did you mean 'optimizer'?");
  EXPECT_EQ(error(minimal + "zebra: 1\n"), "c.yaml:6:1: unknown key 'zebra'");
  EXPECT_EQ(error(replaced(minimal, "layers", "layer")),
            "c.yaml:2:51: unknown key 'model.layer'; did you mean 'layers', which has no default?");
  EXPECT_EQ(error(replaced(minimal, "layers: 1, ", "")), "c.yaml:2:8: model.layers is missing: it has no default");
  EXPECT_EQ(error(replaced(minimal, "heads: 2", "heads: 2, head: 2")),
            "c.yaml:2:72: unknown key 'model.head'; did you mean 'heads'?");
}

TEST_F(ConfigurationTest, TellsUnknownKeysBeforeThoseThatAreMissing) {
  EXPECT_EQ(error(replaced(minimal, "layers: 1", "how_deep: 1")), "c.yaml:2:51: unknown key 'model.how_deep'");
  EXPECT_EQ(error(replaced(minimal, "train:", "files:")), "c.yaml:4:8: unknown key 'data.files'");
  EXPECT_EQ(error(replaced(minimal, "data:", "corpus:")), "c.yaml:4:1: unknown key 'corpus'");
  EXPECT_EQ(error(replaced(minimal, "run: runs/x", "folder: runs/x")), "c.yaml:1:1: unknown key 'folder'");
  EXPECT_EQ(error(replaced(minimal, "rates:", "dilations:")), "c.yaml:3:39: unknown key 'model.attention.dilations'");
  EXPECT_EQ(error(replaced(minimal, "run: runs/x\n", "")), "c.yaml:1:1: run is missing: it has no default");
  EXPECT_EQ(error(replaced(minimal, ", rates: [1, 2]", "")),
            "c.yaml:3:20: model.attention.rates is missing: it has no default");
  EXPECT_EQ(error(replaced(minimal, "type: decoder, ", "")), "c.yaml:2:8: model.type is missing: it has no default");
}

TEST_F(ConfigurationTest, RefusesWrongTypes) {
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: three")),
            "c.yaml:5:19: training.steps must be a whole number, not 'three'");
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: 3.5")),
            "c.yaml:5:19: training.steps must be a whole number, not '3.5'");
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: '3'")),
            "c.yaml:5:19: training.steps must be a whole number, not '3'");
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: [3]")),
            "c.yaml:5:19: training.steps must be a whole number, not a list");
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: ")),
            "c.yaml:5:19: training.steps has no value; give one or leave the key out");
  EXPECT_EQ(error(minimal + "optimizer: {betas: [0.9]}\n"),
            "c.yaml:6:20: optimizer.betas must be a list of two numbers, not a list");
  EXPECT_EQ(error(minimal + "logging: {tensorboard: yes}\n"),
            "c.yaml:6:24: logging.tensorboard must be true or false, not 'yes'");
  EXPECT_EQ(error(minimal + "optimizer: {schedule: linear}\n"),
            "c.yaml:6:23: optimizer.schedule must be one of constant, cosine, polynomial, not 'linear'");
  EXPECT_EQ(error(minimal + "optimizer: 5\n"), "c.yaml:6:12: optimizer must hold keys and values, not '5'");
  EXPECT_EQ(error(minimal + "parallel: {threads: many}\n"),
            "c.yaml:6:21: parallel.threads must be a whole number, not 'many'");
}

TEST_F(ConfigurationTest, RefusesWhatYamlReadersDisagreeAbout) {
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: 010")),
            "c.yaml:5:19: training.steps must not begin with a zero: '010'");
  EXPECT_EQ(error(minimal + "optimizer: {learning_rate: 01.5}\n"),
            "c.yaml:6:28: optimizer.learning_rate must not begin with a zero: '01.5'");
  EXPECT_EQ(error(minimal + "training: {steps: 4}\n"), "c.yaml:6:1: the key 'training' is given twice");
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: 3, steps: 4")), "c.yaml:5:22: the key 'steps' is given twice");
  EXPECT_EQ(error("run: [x\n").substr(0, 7), "c.yaml:");
}

TEST_F(ConfigurationTest, RefusesNumbersOutOfBounds) {
  EXPECT_EQ(error(replaced(minimal, "steps: 3", "steps: 0")),
            "c.yaml:5:19: training.steps is 0: it must be at least 1");
  EXPECT_EQ(error(minimal + "optimizer: {betas: [0.9, 1]}\n"), "c.yaml:6:20: optimizer.betas is 1: it must be below 1");
  EXPECT_EQ(error(minimal, {"optimizer.learning_rate=-1"}),
            "--set optimizer.learning_rate: optimizer.learning_rate is -1: it must be at least 0");
  EXPECT_EQ(error(minimal + "optimizer: {learning_rate: .inf}\n"),
            "c.yaml:6:28: optimizer.learning_rate must be a number, not '.inf'");
}

TEST_F(ConfigurationTest, RefusesWhatHoldsNothing) {
  EXPECT_EQ(error(minimal, {"data.train=[]"}), "--set data.train: data.train is an empty list");
  EXPECT_EQ(error(minimal, {"data.train=['']"}), "--set data.train: data.train holds an empty text");
  EXPECT_EQ(error(minimal, {"data.validation=''"}), "--set data.validation: data.validation holds an empty text");
  EXPECT_EQ(error(minimal, {"run=''"}), "--set run: run is empty");
  EXPECT_EQ(error(minimal, {"data.validation=[]"}), "accepted") << "as the default is written";
}

TEST_F(ConfigurationTest, SaysThatAFileIsNestedTooDeep) {
  EXPECT_NE(error(std::string(100'000, '[')).find("nested deeper"), std::string::npos);
  EXPECT_NE(error(minimal, {"run=" + std::string(100'000, '{')}).find("nested deeper"), std::string::npos);
}

TEST_F(ConfigurationTest, RefusesWhatNoMachineHolds) {
  const std::string largest = "9223372036854775807";
  const std::vector<std::pair<std::string, std::string>> bounds{{"model.layers", "10000"},
                                                                {"model.width", "1048576"},
                                                                {"model.heads", "1048576"},
                                                                {"model.feed_forward", "4194304"},
                                                                {"model.vocabulary", "2147483647"},
                                                                {"data.sequence_length", "68719476736"},
                                                                {"parallel.sequence", "1048576"},
                                                                {"parallel.timeout_seconds", "1000000000"},
                                                                {"training.steps", "1000000000000"},
                                                                {"training.batch_size", "16777216"},
                                                                {"training.micro_batch_size", "16777216"},
                                                                {"checkpoint.keep", "1000000000000"}};
  for (const auto& [key, bound] : bounds) {
    EXPECT_EQ(error(minimal, {key + "=" + largest}),
              "--set " + key + ": " + key + " is " + largest + ": it must be at most " + bound);
    EXPECT_EQ(error(minimal, {key + "=" + bound}).find("must be at most"), std::string::npos) << key;
  }
  EXPECT_EQ(
      error(minimal, {"model.attention.segments=[4, " + largest + "]"}),
      "--set model.attention.segments: model.attention.segments is " + largest + ": it must be at most 68719476736");
  EXPECT_EQ(error(minimal, {"model.width=100000000000"}),
            "--set model.width: model.width is 100000000000: it must be at most 1048576");
}

TEST_F(ConfigurationTest, RefusesModelsThatCannotBe) {
  EXPECT_EQ(
      error(replaced(minimal, "rates: [1, 2]", "rates: [1]")),
      "c.yaml:3:20: model.attention cannot work: attention has 2 segments but 1 rates; give one rate for each segment");
  EXPECT_EQ(error(replaced(minimal, "segments: [4, 8]", "segments: [0, 8]")),
            "c.yaml:3:31: model.attention.segments is 0: it must be at least 1");
  EXPECT_EQ(error(replaced(minimal, "rates: [1, 2]", "rates: [0, 2]")),
            "c.yaml:3:46: model.attention.rates is 0: it must be at least 1");
  EXPECT_EQ(error(replaced(minimal, "heads: 2", "heads: 3")),
            "c.yaml:2:69: model.heads is 3, which does not divide the width 8");
  EXPECT_EQ(
      error(replaced(minimal, "heads: 2", "heads: 8")),
      "c.yaml:2:8: model.positions turns pairs of channels, which needs an even head width, but width / heads is 1");
  EXPECT_EQ(error(replaced(minimal, "type: decoder", "type: transformer")),
            "c.yaml:2:15: model.type is 'transformer', but must be one of decoder, encoder, multimodal, "
            "slide_encoder");
}

TEST_F(ConfigurationTest, RefusesAssignmentsWithoutATarget) {
  EXPECT_EQ(error(minimal, {"training.steps"}), "--set training.steps: write it as key.path=value");
  EXPECT_EQ(error(minimal, {"training.steps.more=3"}), "--set training.steps.more: no such key");
  EXPECT_EQ(error(minimal, {"training.stepz=3"}),
            "--set training.stepz: unknown key 'training.stepz'; did you mean 'steps'?");
}

TEST_F(ConfigurationTest, AMissingFileIsSaidToBeMissing) {
  EXPECT_THROW(load_configuration(folder.path() / "none.yaml", {}), ConfigError);
}

}  // namespace
}  // namespace longnet
