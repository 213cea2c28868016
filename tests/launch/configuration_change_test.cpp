// What may differ between a checkpoint's configuration and the present one.

#include "launch/training/configuration_change.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace longnet {
namespace {

using Json = nlohmann::ordered_json;

const Json before =
    Json::parse(R"({"run": "a", "model": {"heads": 4, "dropout": 0.1, "attention": {"segments": [16, 64]}},
  "data": {"type": "text", "sequence_length": 64}, "training": {"seed": 3, "steps": 6}, "optimizer": {"learning_rate": 0.1}})");

std::string refusal(const Json& now, const std::vector<std::string>& allowed = {}, bool training = true) {
  try {
    require_compatible(changes_between(before, now), allowed, training, "step-6");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

Json with(const char* pointer, const Json& value) {
  Json now = before;
  now[Json::json_pointer(pointer)] = value;
  return now;
}

TEST(ConfigurationChange, WhatShapesTheFunctionMustStay) {
  EXPECT_EQ(refusal(before), "");
  for (const bool training : {true, false}) {
    EXPECT_NE(refusal(with("/model/heads", 8), {}, training)
                  .find("model.heads is 8, but the weights of step-6 were trained with 4"),
              std::string::npos);
    EXPECT_NE(refusal(with("/model/attention/segments", {16}), {}, training).find("model.attention.segments is [16]"),
              std::string::npos);
    EXPECT_NE(refusal(with("/model/new_key", true), {}, training).find("were trained with none"), std::string::npos);
    EXPECT_EQ(refusal(with("/model/dropout", 0.2), {}, training), "");
  }
  EXPECT_NE(refusal(with("/model/heads", 8), {"model.heads"}).find("mean nothing without"), std::string::npos);
}

TEST(ConfigurationChange, WhatShapesTheOrderOfSamplesNeedsAnAllowance) {
  for (const auto& [pointer, key, value] : {std::tuple("/training/seed", "training.seed", Json(4)),
                                            std::tuple("/data/sequence_length", "data.sequence_length", Json(32))}) {
    EXPECT_NE(refusal(with(pointer, value)).find(std::string("--allow-change ") + key), std::string::npos);
    EXPECT_EQ(refusal(with(pointer, value), {key}), "");
    EXPECT_EQ(refusal(with(pointer, value), {}, /*training=*/false), "") << "an evaluation may look at anything";
  }
  EXPECT_NE(refusal(with("/data/type", "fasta"), {}, /*training=*/false).find("may not mean the same"),
            std::string::npos);
  EXPECT_EQ(refusal(with("/data/type", "fasta"), {"data.type"}, /*training=*/false), "");
  EXPECT_NE(refusal(before, {"optimizer.learning_rate"}).find("needs no allowance"), std::string::npos);
}

TEST(ConfigurationChange, TheRestIsTold) {
  Json now = with("/optimizer/learning_rate", 0.2);
  now["training"]["steps"] = 7;
  now["run"] = "b";
  now["training"]["recompute"] = true;
  std::vector<std::string> texts;
  for (const auto& change : changes_between(before, now)) texts.push_back(change.text());
  EXPECT_EQ(texts, (std::vector<std::string>{"training.steps 6 -> 7", "training.recompute none -> true",
                                             "optimizer.learning_rate 0.1 -> 0.2"}));
  EXPECT_EQ(refusal(now), "");
}

}  // namespace
}  // namespace longnet
