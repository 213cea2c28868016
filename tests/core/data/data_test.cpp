// Token sources, their order and their split.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <set>

#include "core/data/fasta.h"
#include "core/data/open_data.h"
#include "core/data/paths.h"
#include "core/data/sample_order.h"
#include "core/data/token_source.h"
#include "core/error.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

std::vector<std::int64_t> read_all(const TokenSource& source, std::int64_t vocabulary = 1 << 20) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(source.size()));
  source.read(0, tokens, vocabulary);
  return tokens;
}

std::string message_of(const auto& work) {
  try {
    work();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

template <typename Token>
std::string bytes_of(const std::vector<Token>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(Token)};
}

class DataTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder.path() / name).string(); }
  test::TemporaryFolder folder;
};

TEST_F(DataTest, PathsAreFilesFoldersAndGlobs) {
  folder.write("a.txt", "1");
  folder.write("sub/deep/c.txt", "2");
  folder.write("sub/b.txt", "3");
  folder.write("sub/empty.txt", "");
  const auto names = [&](const std::vector<std::string>& patterns) {
    std::vector<std::string> result;
    for (const auto& file : expand_paths(patterns)) result.push_back(file.filename());
    return result;
  };
  EXPECT_EQ(names({path("a.txt"), path("sub")}), (std::vector<std::string>{"a.txt", "b.txt", "c.txt"}));
  EXPECT_EQ(names({path("*.t?t")}), std::vector<std::string>{"a.txt"});
  EXPECT_NE(message_of([&] { expand_paths({path("none.txt")}); }).find("none.txt: no such file"), std::string::npos);
  EXPECT_NE(message_of([&] { expand_paths({path("sub/empty.txt")}); }).find("the file is empty"), std::string::npos);
}

TEST_F(DataTest, TextIsBytesAcrossFiles) {
  const TokenSource source(DataType::Text,
                           {folder.write("a", "ab\xff"), folder.write("b", "c"), folder.write("c", "de")});
  EXPECT_EQ(read_all(source), (std::vector<std::int64_t>{'a', 'b', 255, 'c', 'd', 'e'}));
  std::vector<std::int64_t> middle(3);
  source.read(2, middle, 256);
  EXPECT_EQ(middle, (std::vector<std::int64_t>{255, 'c', 'd'}));
  EXPECT_THROW(source.read(4, middle, 256), DataError);
}

TEST_F(DataTest, TokenFilesWithAndWithoutHeader) {
  std::vector<std::int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = 3;
  const auto with_header = folder.write("llmc.bin", bytes_of(header) + bytes_of<std::uint16_t>({5, 50256, 7}));
  header[0] = 20240801, header[1] = 7, header[2] = 2;
  const auto wide = folder.write("wide.bin", bytes_of(header) + bytes_of<std::uint32_t>({100000, 2}));
  const auto raw = folder.write("nano.bin", bytes_of<std::uint16_t>({1, 2, 65535}));
  EXPECT_EQ(read_all(TokenSource(DataType::Tokens, {with_header, wide, raw})),
            (std::vector<std::int64_t>{5, 50256, 7, 100000, 2, 1, 2, 65535}));
}

TEST_F(DataTest, TokenFilesThatLieAreRefused) {
  std::vector<std::int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = 1000;
  const auto shorter = folder.write("short.bin", bytes_of(header) + bytes_of<std::uint16_t>({5}));
  EXPECT_NE(message_of([&] { TokenSource(DataType::Tokens, {shorter}); }).find("too short"), std::string::npos);
  header[1] = 9;
  const auto version = folder.write("version.bin", bytes_of(header));
  EXPECT_NE(message_of([&] { TokenSource(DataType::Tokens, {version}); }).find("version 9"), std::string::npos);
  const auto odd = folder.write("odd.bin", "abc");
  EXPECT_NE(message_of([&] { TokenSource(DataType::Tokens, {odd}); }).find("odd"), std::string::npos);
}

TEST_F(DataTest, ATokenOutsideTheVocabularyIsNamed) {
  const TokenSource source(DataType::Tokens, {folder.write("a.bin", bytes_of<std::uint16_t>({1, 2, 99, 4}))});
  std::vector<std::int64_t> tokens(3);
  const auto message = message_of([&] { source.read(1, tokens, 50); });
  EXPECT_NE(message.find("a.bin: token 2 is 99, but model.vocabulary is 50"), std::string::npos) << message;
}

TEST_F(DataTest, FingerprintsTellDataApart) {
  const auto fingerprint = [&](const std::string& text) {
    return TokenSource(DataType::Text, {folder.write("t", text)}).fingerprint();
  };
  EXPECT_EQ(fingerprint("abc"), fingerprint("abc"));
  EXPECT_NE(fingerprint("abc"), fingerprint("abd"));
}

TEST_F(DataTest, FastaBecomesBases) {
  const std::string text = ">one x\nACGT\nacgu\nNry\n\n>two\r\nTT\r\n";
  const std::vector<std::int64_t> expected{5, 0, 1, 2, 3, 0, 1, 2, 3, 4, 4, 4, 5, 3, 3};
  const auto plain = folder.write("a.fna", text);
  const auto zipped = folder.path() / "b.fna.gz";
  gzFile file = gzopen(zipped.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  const auto xz = folder.path() / "c.fna.xz";
  ASSERT_EQ(std::system(("xz --keep --stdout " + plain.string() + " > " + xz.string()).c_str()), 0);
  for (const auto& source : {plain, zipped, xz}) {
    const auto cached = cache_fasta({source}, folder.path() / "cache");
    EXPECT_EQ(read_all(TokenSource(DataType::Fasta, cached), fasta_vocabulary), expected) << source;
    const auto written = fs::last_write_time(cached[0]);
    EXPECT_EQ(fs::last_write_time(cache_fasta({source}, folder.path() / "cache")[0]), written) << "made once";
  }
}

TEST_F(DataTest, WhatIsNoFastaIsRefusedWithItsLine) {
  const auto message = [&](const std::string& text) {
    return message_of([&] { cache_fasta({folder.write("x.fna", text)}, folder.path() / "cache"); });
  };
  EXPECT_NE(message(">a\nAC\nA*T\n").find("x.fna:3: '*' is no base"), std::string::npos);
  EXPECT_NE(message("ACGT\n").find("x.fna:1: not a FASTA file"), std::string::npos);
  EXPECT_NE(message_of([&] {
              cache_fasta({folder.write("y.fna.xz", "no xz at all")}, folder.path() / "cache");
            }).find("broken xz data"),
            std::string::npos);
}

TEST(SampleOrder, PermutesEverySize) {
  for (const std::int64_t size : {1, 2, 3, 10, 64, 1000, 1025}) {
    std::set<std::int64_t> seen;
    for (std::int64_t index = 0; index < size; ++index) seen.insert(permute(index, size, 42));
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), size);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(SampleOrder, IsMixedAndDiffersBySeedAndEpoch) {
  const std::int64_t tokens = 100 * 10 + 7, length = 10, windows = 100;
  const auto epoch = [&](std::uint64_t seed, std::int64_t number) {
    std::vector<std::int64_t> begins;
    for (std::int64_t i = 0; i < windows; ++i)
      begins.push_back(place_of_sample(number * windows + i, seed, tokens, length).begin);
    return begins;
  };
  const auto first = epoch(1, 0);
  EXPECT_EQ(first, epoch(1, 0));
  EXPECT_NE(first, epoch(2, 0));
  EXPECT_NE(first, epoch(1, 1));
  std::set<std::int64_t> windows_seen;
  int in_order = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_GE(first[i], 0);
    EXPECT_LT(first[i] + length, tokens);
    windows_seen.insert(first[i] / length);
    in_order += i > 0 && first[i] > first[i - 1] ? 1 : 0;
  }
  EXPECT_EQ(windows_seen.size(), 100U) << "an epoch visits every window once";
  EXPECT_GT(in_order, 30);
  EXPECT_LT(in_order, 70);
}

const std::vector<Field> text_fields{{.name = "tokens", .size = 256, .next = true, .size_key = "model.vocabulary"}};

TEST_F(DataTest, TheEndIsHeldOutAndRanksReadTheirSlices) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(i);
  DataConfig config;
  config.train = {folder.write("t", text)};
  config.validation_fraction = 0.25;
  config.sequence_length = 20;
  const auto data = open_data(config, text_fields, folder.path());
  EXPECT_EQ(data.train->size(), 150);
  EXPECT_EQ(data.validation->size(), 50);
  const auto first = data.validation->read(data.validation->evaluation_sequence(0, 20), {0, 20});
  EXPECT_EQ(first.at("tokens")[0].item<std::int64_t>(), 150);

  const auto place = data.train->training_sequence(3, 9, 20);
  auto whole = data.train->read(place, {0, 20}), part = data.train->read(place, {7, 15});
  EXPECT_TRUE(part["tokens"].equal(whole["tokens"].slice(0, 7, 15)));
  EXPECT_TRUE(part["tokens.next"].equal(whole["tokens"].slice(0, 8, 16)));
  EXPECT_EQ(whole["tokens.next"][19].item<std::int64_t>(), whole["tokens"][19].item<std::int64_t>() + 1);
}

TEST_F(DataTest, ASequenceLongerThanTheDataIsRefused) {
  DataConfig config;
  config.train = {folder.write("t", std::string(100, 'x'))};
  config.validation_fraction = 0;
  config.sequence_length = 99;
  EXPECT_NO_THROW(open_data(config, text_fields, folder.path()));
  config.sequence_length = 100;
  EXPECT_NE(
      message_of([&] { open_data(config, text_fields, folder.path()); }).find("the data hold 100 tokens, too few"),
      std::string::npos);
}

}  // namespace
}  // namespace longnet
