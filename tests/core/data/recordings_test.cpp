// Recordings: several fields along one sequence, whole or cut, and what is wrong with them said by name.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "core/data/open_data.h"
#include "core/data/recording.h"
#include "core/data/recording_datasets.h"
#include "core/error.h"
#include "core/files/safetensors.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

using Kind = Field::Kind;

const std::vector<Field> fields{
    {.name = "frames", .kind = Kind::Frames, .size = 2, .stride = 3, .next = true, .required = false},
    {.name = "tokens", .size = 9, .required = false, .size_key = "model.vocabulary"},
    {.name = "label", .size = 4, .per_sequence = true, .size_key = "model.head.classes"}};

class RecordingTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, const std::vector<NamedTensor>& tensors) const {
    write_safetensors(folder.path() / name, tensors);
    return folder.path() / name;
  }
  static std::vector<NamedTensor> good(std::int64_t length) {
    return {{"frames", at::arange(length * 6, at::kFloat).reshape({length * 3, 2})},
            {"tokens", at::arange(length).remainder(9)},
            {"label", at::full({}, 3, at::kLong)}};
  }
  std::string refusal(const std::vector<NamedTensor>& tensors, const std::vector<std::string>& missing = {}) const {
    try {
      const Recording recording(write("bad.safetensors", tensors), "bad", fields, missing);
      recording.read({0, recording.length() - 1});  // the last has no next
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryFolder folder;
};

TEST_F(RecordingTest, ReadsTheRowsOfItsPositions) {
  const Recording recording(write("a.safetensors", good(10)), "a", fields, {});
  EXPECT_EQ(recording.length(), 10);
  auto rows = recording.read({2, 5});
  EXPECT_TRUE(rows["frames"].equal(at::arange(60, at::kFloat).reshape({30, 2}).slice(0, 6, 15)));
  EXPECT_TRUE(rows["frames.next"].equal(at::arange(60, at::kFloat).reshape({30, 2}).slice(0, 9, 18)));
  EXPECT_TRUE(rows["tokens"].equal(at::arange(2, 5)));
  EXPECT_TRUE(rows["label"].equal(at::full({1}, 3, at::kLong)));
  EXPECT_FALSE(Recording(write("a.safetensors", good(10)), "a", fields, {"tokens"}).read({0, 1}).contains("tokens"));
}

TEST_F(RecordingTest, ARowMayStandInATableOfOne) {
  const std::vector<Field> target{fields[1], {.name = "y", .kind = Kind::Frames, .size = 2, .per_sequence = true}};
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{2}, {1, 2}}) {
    const Recording recording(write("a.safetensors", {{"tokens", at::zeros({5}, at::kLong)},
                                                      {"y", at::arange(2, at::kFloat).reshape(shape)}}),
                              "a", target, {});
    EXPECT_TRUE(recording.read({0, 5}).at("y").equal(at::arange(2, at::kFloat)));
  }
}

TEST_F(RecordingTest, AFileThatWasWrittenSinceIsRefused) {
  const auto path = write("a.safetensors", good(10));
  const Recording recording(path, "a", fields, {});
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  EXPECT_THROW(recording.read({0, 5}), DataError);
}

TEST_F(RecordingTest, SaysWhatIsWrongAndWhere) {
  const auto with = [](std::size_t index, const at::Tensor& tensor) {
    auto tensors = good(10);
    tensors[index].second = tensor;
    return tensors;
  };
  const auto label = at::full({}, 1, at::kLong);
  EXPECT_EQ(refusal(good(10)), "");
  EXPECT_NE(refusal(with(1, at::arange(9)))
                .find("bad.safetensors: the field tokens covers 9 positions, but the fields "
                      "before it 10"),
            std::string::npos);
  EXPECT_NE(refusal(with(1, at::full({10}, 9, at::kLong))).find("holds 9 in row 0, but model.vocabulary is 9"),
            std::string::npos);
  EXPECT_NE(refusal(with(1, at::full({10}, -1, at::kLong))).find("holds -1"), std::string::npos);
  EXPECT_NE(refusal(with(1, at::ones({10}))).find("does not hold whole numbers"), std::string::npos);
  EXPECT_NE(refusal(with(0, at::ones({31, 2}))).find("has 31 rows, no multiple of its stride 3"), std::string::npos);
  EXPECT_NE(refusal(with(0, at::ones({30, 3}))).find("has the shape [30,3], but must be (rows, 2)"), std::string::npos);
  EXPECT_NE(refusal(with(0, at::ones({30, 2}, at::kLong))).find("does not hold real numbers"), std::string::npos);
  EXPECT_NE(refusal(with(2, at::full({2}, 1, at::kLong))).find("must be one row for the whole sequence"),
            std::string::npos);
  EXPECT_NE(refusal(with(2, at::full({}, 4, at::kLong))).find("is 4, but model.head.classes is 4"), std::string::npos);
  EXPECT_NE(refusal({{"frames", at::ones({30, 2})}}).find("the field label is missing"), std::string::npos);
  EXPECT_NE(refusal({{"label", label}}).find("has none of frames, tokens"), std::string::npos);
  EXPECT_NE(refusal(good(10), {"frames", "tokens"}).find("has none of frames, tokens"), std::string::npos);
  EXPECT_NE(refusal(good(10), {"label"}).find("the model cannot do without it"), std::string::npos);
  EXPECT_NE(refusal(with(1, at::arange(0))).find("is empty"), std::string::npos);
  auto gap = good(10)[0].second.clone();
  gap[17][1] = NAN;
  EXPECT_NE(refusal(with(0, gap)).find("bad.safetensors: the field frames holds nan in row 17, channel 1"),
            std::string::npos);
  gap[17][1] = -INFINITY;
  EXPECT_NE(refusal(with(0, gap)).find("holds -inf in row 17, channel 1"), std::string::npos);
  gap[17][1] = 3e38;
  gap[16][1] = 3e38;
  EXPECT_EQ(refusal(with(0, gap)), "") << "large is not infinite";
}

TEST_F(RecordingTest, AnEpochVisitsEveryExampleOnce) {
  std::vector<std::shared_ptr<const Recording>> recordings;
  for (const std::int64_t length : {4, 7, 5}) {
    recordings.push_back(std::make_shared<const Recording>(write(std::to_string(length), good(length)),
                                                           std::to_string(length), fields, std::vector<std::string>{}));
  }
  const ExampleDataset data(recordings);
  EXPECT_EQ(data.size(), 16);
  EXPECT_EQ(data.count(100), 3);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::int64_t> lengths;
    for (std::int64_t i = 0; i < 3; ++i) lengths.insert(data.training_sequence(epoch * 3 + i, 1, 100).length);
    EXPECT_EQ(lengths, (std::set<std::int64_t>{4, 5, 7}));
  }
  EXPECT_EQ(data.name(data.evaluation_sequence(1, 100)), "7");
}

TEST_F(RecordingTest, ASeriesIsCutWithinItsRecordings) {
  const auto recording =
      std::make_shared<const Recording>(write("a", good(50)), "a", fields, std::vector<std::string>{});
  const SeriesDataset data({{recording, {0, 21}}, {recording, {30, 50}}}, /*with_next=*/true);
  EXPECT_EQ(data.count(10), 3) << "each window has a position after it";
  const auto first = [&](const SequencePlace& place) {
    return data.read(place, {0, 1}).at("frames")[0][0].item<double>() / 6;
  };
  EXPECT_EQ(first(data.evaluation_sequence(1, 10)), 10);
  EXPECT_EQ(first(data.evaluation_sequence(2, 10)), 30);
  std::set<double> begins;
  for (std::int64_t number = 0; number < 300; ++number) {
    const double begin = first(data.training_sequence(number, 1, 10));
    EXPECT_TRUE((begin >= 0 && begin <= 10) || (begin >= 30 && begin <= 39)) << begin;
    begins.insert(begin);
  }
  EXPECT_GT(begins.size(), 10U) << "epochs shift the cuts";
  EXPECT_EQ(data.name(data.evaluation_sequence(1, 10)), "a-10");

  const SeriesDataset without_next({{recording, {0, 20}}}, /*with_next=*/false);
  EXPECT_EQ(without_next.count(20), 1) << "a model that reads no next position needs none";
  EXPECT_NO_THROW(without_next.read(without_next.training_sequence(0, 1, 20), {0, 19}));
  try {
    data.require_sequence(30);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("the longest of 2 recordings, or parts of them, has 21 positions"),
              std::string::npos);
  }
}

TEST_F(RecordingTest, DataOfAnotherKindAreRefused) {
  write("a.safetensors", good(20));
  DataConfig config;
  config.type = DataType::Examples;
  config.train = {(folder.path() / "*.safetensors").string()};
  config.sequence_length = 20;
  const auto message = [&](const std::vector<Field>& wanted) -> std::string {
    try {
      open_data(config, wanted, folder.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  auto whole = fields;
  EXPECT_NE(message(whole).find("use series"), std::string::npos);
  whole[0].next = false;
  EXPECT_EQ(message(whole), "");
  config.sequence_length = 19;
  EXPECT_NE(message(whole).find("has 20 positions, but data.sequence_length is 19"), std::string::npos);
  config.missing = {"colour"};
  EXPECT_NE(message(whole).find("data.missing names colour"), std::string::npos);
  config.type = DataType::Text;
  config.missing.clear();
  EXPECT_NE(message(whole).find("the model reads the field label"), std::string::npos);
}

}  // namespace
}  // namespace longnet
