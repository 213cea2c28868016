// Weights that others wrote: every tensor of a state_dict is read, and nothing in a file is ever run.

#include "core/files/weights_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/files/grey_image.h"
#include "core/files/pickle.h"
#include "core/files/safetensors.h"
#include "tests/device.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& name) {
  return fs::path(test::source_folder()) / "tests/golden/weights" / name;
}

std::string refusal(const fs::path& path) {
  try {
    read_weights(path);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(WeightsFile, ReadsEveryTensorOfAStateDict) {
  auto weights = read_weights(golden("state_dict.pt")).tensors;
  const auto rows = at::arange(12, at::kFloat).reshape({3, 4});
  EXPECT_EQ(weights.size(), 10U);
  EXPECT_TRUE(weights["rows"].equal(rows));
  EXPECT_TRUE(weights["transposed"].equal(rows.t()));
  EXPECT_TRUE(weights["column"].equal(rows.select(1, 1)));
  EXPECT_TRUE(weights["half"].equal(rows.to(at::kHalf)));
  EXPECT_TRUE(weights["narrow"].equal(rows.to(at::kBFloat16)));
  EXPECT_TRUE(weights["double"].equal(rows.to(at::kDouble)));
  EXPECT_TRUE(weights["whole"].equal(rows.to(at::kLong)));
  EXPECT_EQ(weights["number"].item<double>(), 2.5);
  EXPECT_EQ(weights["empty"].sizes(), (std::vector<std::int64_t>{0, 4}));
  EXPECT_TRUE(weights["parameter"].equal(rows + 1));
  EXPECT_EQ(read_weights(golden("linear.pt")).tensors.size(), 2U);
}

TEST(WeightsFile, FindsTheModelInATrainingsCheckpointAndRunsNothing) {
  fs::remove("/tmp/longnet-was-here");
  const auto weights = read_weights(golden("training.pt")).tensors;
  ASSERT_EQ(weights.size(), 1U);
  EXPECT_TRUE(weights.at("weight").equal(at::arange(12, at::kFloat).reshape({3, 4})));
  EXPECT_FALSE(fs::exists("/tmp/longnet-was-here"));
}

TEST(WeightsFile, ReadsSafetensors) {
  const test::TemporaryFolder folder;
  write_safetensors(folder.path() / "w.safetensors", {{"a", at::ones({2, 3})}});
  EXPECT_TRUE(read_weights(folder.path() / "w.safetensors").tensors.at("a").equal(at::ones({2, 3})));
}

TEST(WeightsFile, RefusesWithTheReason) {
  EXPECT_NE(refusal(golden("legacy.pt")).find("before version 1.6"), std::string::npos);
  EXPECT_NE(refusal(golden("list.pt")).find("holds no dictionary"), std::string::npos);
  const test::TemporaryFolder folder;
  write_safetensors(folder.path() / "renamed.bin", {{"w", at::ones({3})}});
  EXPECT_TRUE(read_weights(folder.path() / "renamed.bin").tensors.at("w").equal(at::ones({3})));
  EXPECT_NE(refusal(folder.write("text.pt", "hello")).find("neither a safetensors file nor"), std::string::npos);
  EXPECT_NE(refusal(folder.path() / "none.pt").find("none.pt"), std::string::npos);
}

TEST(WeightsFile, DamagedFilesAreRefusedNotFollowed) {
  const test::TemporaryFolder folder;
  const std::string whole = content(golden("state_dict.pt"));
  for (std::size_t size = 4; size < whole.size(); size += whole.size() / 40) {
    EXPECT_FALSE(refusal(folder.write("cut.pt", whole.substr(0, size))).empty()) << size;
  }
  // A byte that the reader needs is missed when it is wrong. What remains is padding, times and the like: then nothing
  // may differ.
  const auto expected = read_weights(golden("state_dict.pt")).tensors;
  for (std::size_t place = 0; place < whole.size(); ++place) {
    std::string damaged = whole;
    damaged[place] = static_cast<char>(damaged[place] ^ 0x55);
    const auto path = folder.write("damaged.pt", damaged);
    if (!refusal(path).empty()) continue;
    const auto actual = read_weights(path).tensors;
    ASSERT_EQ(actual.size(), expected.size()) << place;
    for (const auto& [name, tensor] : expected)
      ASSERT_TRUE(actual.at(name).equal(tensor)) << name << ", byte " << place;
  }
}

/// The content of a record is never padding: pickle, storages and the order of bytes, where the zip's headers have them.
TEST(WeightsFile, NoByteOfItsRecordsMayBeWrong) {
  const test::TemporaryFolder folder;
  const std::string whole = content(golden("state_dict.pt"));
  for (const std::string record : {"data.pkl", "byteorder", "data/0", "data/1", "data/3", "data/7"}) {
    const auto name = whole.find("state_dict/" + record);
    ASSERT_NE(name, std::string::npos);
    constexpr std::size_t header = 30, name_length = 26, extra_length = 28;
    const auto number = [&](std::size_t offset) {
      std::uint16_t value = 0;
      std::memcpy(&value, whole.data() + name - header + offset, sizeof value);
      return std::size_t{value};
    };
    const std::size_t begin = name + number(name_length) + number(extra_length);
    ASSERT_LT(begin + 4, whole.size());
    for (std::size_t place = begin; place < begin + 4; ++place) {
      std::string damaged = whole;
      damaged[place] = static_cast<char>(damaged[place] ^ 1);
      EXPECT_FALSE(refusal(folder.write("damaged.pt", damaged)).empty()) << record << ", byte " << place - begin;
    }
  }
}

/// Every prefix of a pickle, and tensors that reach beyond their storage.
TEST(Pickle, NeverReadsBeyondItsEnd) {
  const auto storage = [](at::ScalarType type, const std::string&, std::int64_t count) {
    return at::ones({count}, type);
  };
  const auto read = [&](const std::string& text) {
    return read_pickle(std::as_bytes(std::span(text.data(), text.size())), storage);
  };
  const auto tensor = [](const std::string& sizes, const std::string& strides) {
    return "\x80\x02"
           "ctorch._utils\n_rebuild_tensor_v2\n((X\x07" +
           std::string("\0\0\0storage", 10) + "ctorch\nFloatStorage\nX\x01" + std::string("\0\0\0", 3) + "0X\x03" +
           std::string("\0\0\0cpuK\x06tQK\0", 12) + sizes + strides +
           "\x89"
           "ccollections\nOrderedDict\n)RtR.";
  };
  const std::string good = tensor("K\x02K\x03\x86", "K\x03K\x01\x86");
  EXPECT_TRUE(read(good).value.get<at::Tensor>()->equal(at::ones({2, 3})));
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_THROW(read(good.substr(0, size)), DataError) << size;
  EXPECT_THROW(read(tensor("K\x02K\x04\x86", "K\x04K\x01\x86")), DataError);
  EXPECT_THROW(read(tensor("K\x02K\x03\x86", "K\x03J\xff\xff\xff\xff\x86")), DataError);
  EXPECT_THROW(read("\x80\x02)R."), DataError);
  EXPECT_THROW(read("\x80\x02u."), DataError);
}

/// What is beside the weights need not be understood: long numbers, tensors of types that are not read.
TEST(Pickle, NamesWhatItDoesNotRead) {
  const auto storage = [](at::ScalarType type, const std::string&, std::int64_t count) {
    return at::ones({count}, type);
  };
  const auto read = [&](const std::string& text) {
    return read_pickle(std::as_bytes(std::span(text.data(), text.size())), storage);
  };
  const std::string long_number = "\x80\x02\x8a\x09" + std::string("\xff\xff\xff\xff\xff\xff\xff\xff\0", 9) + ".";
  EXPECT_NE(read(long_number).value.get<PickleName>(), nullptr) << "2^64 - 1, a random seed";
  const auto tensor_of = [](const std::string& type) {
    return "\x80\x02"
           "ctorch._utils\n_rebuild_tensor_v2\n((X\x07" +
           std::string("\0\0\0storage", 10) + "ctorch\n" + type + "\nX\x01" + std::string("\0\0\0", 3) + "0X\x03" +
           std::string("\0\0\0cpuK\x06tQK\0", 12) + "K\x06\x85K\x01\x85\x89" + "ccollections\nOrderedDict\n)RtR.";
  };
  EXPECT_EQ(read(tensor_of("CharStorage")).value.get<at::Tensor>()->scalar_type(), at::kChar);
  const auto unread = read(tensor_of("ComplexFloatStorage"));
  ASSERT_NE(unread.value.get<PickleUnread>(), nullptr);
  EXPECT_EQ(unread.value.get<PickleUnread>()->type, "torch.ComplexFloatStorage");
}

/// A million lists inside each other, made from the inside and from the outside, whole and cut short; one inside itself.
TEST(Pickle, NestsAsDeepAsItLikes) {
  const auto none = [](at::ScalarType, const std::string&, std::int64_t) -> at::Tensor {
    throw DataError("no storage");
  };
  const auto read = [&](const std::string& text) {
    return read_pickle(std::as_bytes(std::span(text.data(), text.size())), none);
  };
  constexpr std::size_t depth = 1'000'000;
  const std::string lists(depth, ']'), header = "\x80\x02";
  EXPECT_NO_THROW(read(header + lists + std::string(depth - 1, 'a') + "."));
  EXPECT_NO_THROW(read(header + "]" + std::string(depth, '\x85') + "."));
  EXPECT_THROW(read(header + lists + std::string(depth / 2, 'a')), DataError);
  EXPECT_NO_THROW(read(header + "]2a."));
}

TEST(GreyImage, IsAPng) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "image.png";
  write_grey_image(path, at::rand({3, 5000}));
  const auto bytes = content(path);
  EXPECT_EQ(bytes.substr(1, 3), "PNG");
  EXPECT_EQ(bytes.substr(16, 8), std::string("\0\0\x06\x83\0\0\0\x18", 8))
      << "1667 columns of 3 positions, 3 rows of 8 pixels";
  EXPECT_THROW(write_grey_image(folder.path() / "no/image.png", at::rand({3, 5})), FileError);
}

}  // namespace
}  // namespace longnet
