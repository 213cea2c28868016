// A manifest is read back as it was written, and nothing else is one.

#include "distributed/checkpoint_manifest.h"

#include <gtest/gtest.h>

#include <span>

#include "core/error.h"

namespace longnet {
namespace {

using Json = nlohmann::ordered_json;

Manifest example() {
  Manifest manifest;
  manifest.progress = {.step = 7, .tokens = 7000, .samples = 70, .updates = 6, .loss_level = {2.7, 0.3, 5}};
  manifest.notes = {.seed = 18446744073709551615U,
                    .data_ranks = 1,
                    .sequence_ranks = 2,
                    .program = "0.1.0",
                    .config = {{"model", {{"heads", 4}}}, {"data", Json::object()}, {"training", {{"steps", 9}}}},
                    .train_data = "a digest",
                    .validation_data = "",
                    .validation_loss = 0.1};
  manifest.files = {{"shard-0", {100, std::string(32, 'a')}}, {"shard-1", {200, std::string(32, '0')}}};
  manifest.tensors["weight"] = {
      at::kFloat, {2, 3}, {{"shard-0", "weight[0:4]", {0, 4}}, {"shard-1", "weight[4:6]", {4, 6}}}};
  manifest.tensors["scale"] = {at::kDouble, {}, {{"shard-1", "scale", {0, 1}}}};
  return manifest;
}

/// The JSON as a manifest whose digest is right.
std::string sealed(Json json) {
  json.erase("xxh3_128");
  std::string text = json.dump(1);
  text.resize(text.size() - 2);
  const std::string digest = digest_of(std::as_bytes(std::span(text))).xxh3_128;
  return text + ",\n \"xxh3_128\": \"" + digest + "\"\n}\n";
}

TEST(CheckpointManifest, IsReadBackAsItWasWritten) {
  const Manifest manifest = example(), read = parse_manifest(to_text(manifest));
  EXPECT_EQ(read.progress.step, 7);
  EXPECT_EQ(read.progress.tokens, 7000);
  EXPECT_EQ(read.progress.samples, 70);
  EXPECT_EQ(read.progress.updates, 6);
  EXPECT_EQ(read.progress.loss_level.mean, 2.7);
  EXPECT_EQ(read.progress.loss_level.variance, 0.3);
  EXPECT_EQ(read.progress.loss_level.steps, 5);
  EXPECT_EQ(read.notes.seed, 18446744073709551615U);
  EXPECT_EQ(nlohmann::json(read.notes.config), nlohmann::json(manifest.notes.config));
  EXPECT_EQ(read.notes.train_data, "a digest");
  EXPECT_EQ(read.notes.validation_loss, 0.1);
  EXPECT_EQ(read.files, manifest.files);
  EXPECT_EQ(read.tensors.at("weight").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(read.tensors.at("weight").parts.at(1).range, (Range{4, 6}));
}

TEST(CheckpointManifest, NeedsNoValidationLoss) {
  Manifest manifest = example();
  manifest.notes.validation_loss.reset();
  EXPECT_FALSE(parse_manifest(to_text(manifest)).notes.validation_loss);
}

TEST(CheckpointManifest, NoBitMayFlip) {
  const std::string whole = to_text(example());
  for (std::size_t place = 0; place < whole.size(); ++place) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[place] = static_cast<char>(flipped[place] ^ (1 << bit));
      EXPECT_THROW(parse_manifest(flipped), CheckpointError) << "bit " << bit << " of byte " << place;
    }
  }
}

TEST(CheckpointManifest, NoEndMayBeMissingAndNothingFollow) {
  const std::string whole = to_text(example());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse_manifest(whole.substr(0, size)), CheckpointError) << size;
  }
  EXPECT_THROW(parse_manifest(whole + "\n"), CheckpointError);
}

/// What is wrong although the digest is right: a program that is not ours wrote it.
struct Edit {
  const char* where;     ///< a JSON pointer
  Json value;            ///< null removes the entry
  const char* expected;  ///< in the message
};

std::vector<Edit> edits() {
  const std::int64_t huge = std::int64_t{1} << 61;
  return {{"/format", "another", "format is \"another\""},
          {"/format", nullptr, "no format"},
          {"/version", 1, "version is 1, not 2"},
          {"/version", "2", "version is \"2\""},
          {"/step", -1, "step is -1"},
          {"/step", 7.0, "step is 7.0"},
          {"/step", nullptr, "no step"},
          {"/tokens", "7000", "tokens is \"7000\""},
          {"/samples", -7, "samples is -7"},
          {"/samples", huge, "samples is 2305843009213693952"},
          {"/updates", 8, "updates is 8"},
          {"/seed", -1, "seed is -1"},
          {"/mesh", Json::array(), "mesh is []"},
          {"/mesh/sequence", nullptr, "no sequence"},
          {"/program", 1, "program is 1"},
          {"/config", nullptr, "no config"},
          {"/config", "text", "config is \"text\""},
          {"/config", Json::array({1}), "config is [1]"},
          {"/config/model", nullptr, "no model"},
          {"/config/model", 4, "model is 4"},
          {"/config/training", Json::array(), "training is []"},
          {"/config/data", "x", "data is \"x\""},
          {"/data", nullptr, "no data"},
          {"/data/train", 1, "train is 1"},
          {"/loss_level", 1, "loss_level is 1"},
          {"/loss_level/mean", nullptr, "no mean"},
          {"/loss_level/variance", -0.1, "variance is -0.1"},
          {"/loss_level/variance", "x", "variance is \"x\""},
          {"/loss_level/steps", -1, "steps is -1"},
          {"/validation_loss", "low", "validation_loss is \"low\""},
          {"/validation_loss", Json::array({0.1}), "validation_loss is [0.1]"},
          {"/files", nullptr, "no files"},
          {"/files", Json::object(), "which is not listed"},
          {"/files/shard-0", nullptr, "shard-0, which is not listed"},
          {"/files/shard-0", 1, "shard-0 is 1"},
          {"/files/shard-0/bytes", -1, "bytes is -1"},
          {"/files/shard-0/xxh3_128", "abc", "xxh3_128 is \"abc\""},
          {"/files/..~1shard", {{"bytes", 1}, {"xxh3_128", std::string(32, 'a')}}, "no name of a file"},
          {"/files/..", {{"bytes", 1}, {"xxh3_128", std::string(32, 'a')}}, "no name of a file"},
          {"/tensors", Json::array(), "tensors is []"},
          {"/tensors", Json::object(), "no tensors"},
          {"/tensors/weight/dtype", "F31", "F31"},
          {"/tensors/weight/dtype", 1, "dtype is 1"},
          {"/tensors/weight/shape", 6, "shape is 6"},
          {"/tensors/weight/shape", {2, -3}, "shape is -3"},
          {"/tensors/weight/shape", {1LL << 40, 1LL << 40}, "too large"},
          {"/tensors/weight/shape", {2, 4}, "not the whole"},
          {"/tensors/weight/ranges", nullptr, "no ranges"},
          {"/tensors/weight/ranges", Json::array(), "not the whole"},
          {"/tensors/weight/ranges/0", 1, "a range is 1"},
          {"/tensors/weight/ranges/0/begin", -4, "begin is -4"},
          {"/tensors/weight/ranges/0/begin", 1, "do not fit together"},
          {"/tensors/weight/ranges/1/begin", 3, "do not fit together"},
          {"/tensors/weight/ranges/1/end", 3, "do not fit together"},
          {"/tensors/weight/ranges/1/end", 7, "not the whole"},
          {"/tensors/weight/ranges/1/file", "shard-2", "not listed"},
          {"/tensors/weight/ranges/1/key", 1, "key is 1"}};
}

TEST(CheckpointManifest, EveryFieldIsHeldAgainstItsTypeAndBounds) {
  const Json whole = Json::parse(to_text(example()));
  EXPECT_NO_THROW(parse_manifest(sealed(whole))) << "the test seals as the product does";
  for (const Edit& edit : edits()) {
    const Json::json_pointer where(edit.where);
    Json json = whole;
    if (edit.value.is_null()) {
      json[where.parent_pointer()].erase(where.back());
    } else {
      json[where] = edit.value;
    }
    try {
      parse_manifest(sealed(json));
      ADD_FAILURE() << edit.where << " " << edit.value.dump() << " was taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(edit.expected), std::string::npos)
          << edit.where << " " << edit.value.dump() << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace longnet
