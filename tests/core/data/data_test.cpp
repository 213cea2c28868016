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

constexpr std::int64_t vocabulary = 1 << 20;

DataConfig config_of(DataType type, TokenType token_type = TokenType::Automatic) {
  DataConfig config;
  config.type = type;
  config.token_type = token_type;
  return config;
}

std::vector<std::int64_t> read_all(const TokenSource& source) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(source.size()));
  source.read(0, tokens);
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
  folder.write("sub/.hidden.txt", "4");
  folder.write("sub/.tool/d.txt", "5");
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
  const TokenSource source(config_of(DataType::Text),
                           {folder.write("a", "ab\xff"), folder.write("b", "c"), folder.write("c", "de")}, 256);
  EXPECT_EQ(read_all(source), (std::vector<std::int64_t>{'a', 'b', 255, 'c', 'd', 'e'}));
  std::vector<std::int64_t> middle(3);
  source.read(2, middle);
  EXPECT_EQ(middle, (std::vector<std::int64_t>{255, 'c', 'd'}));
  EXPECT_THROW(source.read(4, middle), DataError);
}

TEST_F(DataTest, TokenFilesWithAndWithoutHeader) {
  std::vector<std::int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = 3;
  const auto with_header = folder.write("llmc.bin", bytes_of(header) + bytes_of<std::uint16_t>({5, 50256, 7}));
  header[0] = 20240801, header[1] = 7, header[2] = 2;
  const auto wide = folder.write("wide.bin", bytes_of(header) + bytes_of<std::uint32_t>({100000, 2}));
  EXPECT_EQ(read_all(TokenSource(config_of(DataType::Tokens), {with_header, wide}, vocabulary)),
            (std::vector<std::int64_t>{5, 50256, 7, 100000, 2}));
  const auto raw = folder.write("nano.bin", bytes_of<std::uint16_t>({1, 2, 65535}));
  EXPECT_EQ(read_all(TokenSource(config_of(DataType::Tokens, TokenType::Uint16), {raw}, vocabulary)),
            (std::vector<std::int64_t>{1, 2, 65535}));
}

std::string npy_with(std::string header, const std::string& data) {
  header.resize(118, ' ');
  return std::string("\x93NUMPY\x01\x00", 8) + bytes_of<std::uint16_t>({118}) + header + data;
}

std::string npy(const std::string& type, const std::string& shape, const std::string& data) {
  return npy_with("{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }", data);
}

TEST_F(DataTest, NumpyFilesSayHowTheirTokensAreStored) {
  const auto read = [&](const std::string& text) {
    return read_all(TokenSource(config_of(DataType::Tokens), {folder.write("t.npy", text)}, vocabulary));
  };
  const std::vector<std::int64_t> expected{70000, 1, 2};
  EXPECT_EQ(read(npy("<i4", "(3,)", bytes_of<std::int32_t>({70000, 1, 2}))), expected);
  EXPECT_EQ(read(npy("<u4", "(3,)", bytes_of<std::uint32_t>({70000, 1, 2}))), expected);
  EXPECT_EQ(read(npy("<i8", "(3,)", bytes_of<std::int64_t>({70000, 1, 2}))), expected);
  EXPECT_EQ(read(npy("|u1", "(2,)", "ab")), (std::vector<std::int64_t>{'a', 'b'}));
  const auto refusal = [&](const std::string& text) { return message_of([&] { read(text); }); };
  EXPECT_NE(refusal(npy("<f4", "(2,)", bytes_of<float>({1, 2}))).find("is of type '<f4'"), std::string::npos);
  EXPECT_NE(refusal(npy_with("{'descr': [('a', '<i4'), ('b', '<i4')], 'shape': (2,), }", ""))
                .find("a type of several fields"),
            std::string::npos);
  EXPECT_NE(refusal(npy_with("{'shape': (2,), }", "")).find("a type that its header does not tell"), std::string::npos);
  EXPECT_NE(refusal(npy("<i4", "(1, 2)", bytes_of<std::int32_t>({1, 2}))).find("not one dimension"), std::string::npos);
  EXPECT_NE(refusal(npy("<i4", "(3,)", bytes_of<std::int32_t>({1, 2}))).find("promises 3 tokens"), std::string::npos);
  EXPECT_NE(refusal(npy("<i4", "(2,)", bytes_of<std::int32_t>({1, -2}))).find("token 1 is -2"), std::string::npos);
  const auto whole = npy("<i4", "(2,)", bytes_of<std::int32_t>({1, 2}));
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_NE(refusal(whole.substr(0, size)), "no error") << size;
}

TEST_F(DataTest, TokenFilesThatLieAreRefused) {
  const auto refusal = [&](const std::string& text) {
    return message_of([&] { TokenSource(config_of(DataType::Tokens), {folder.write("t.bin", text)}, vocabulary); });
  };
  std::vector<std::int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = 1000;
  EXPECT_NE(refusal(bytes_of(header) + bytes_of<std::uint16_t>({5})).find("promises 1000 tokens"), std::string::npos);
  header[2] = 1;
  EXPECT_NE(refusal(bytes_of(header) + bytes_of<std::uint16_t>({5, 6})).find("promises 1 tokens"), std::string::npos)
      << "nothing is left out in silence";
  header[1] = 9;
  EXPECT_NE(refusal(bytes_of(header)).find("version 9"), std::string::npos);
}

/// What is no token file for sure, and what the file itself cannot tell.
TEST_F(DataTest, ForeignFilesAreNotTakenForTokens) {
  const auto refusal = [&](const std::string& text, TokenType type) {
    return message_of([&] { TokenSource(config_of(DataType::Tokens, type), {folder.write("t.bin", text)}, 100'000); });
  };
  std::vector<std::int32_t> narrow;
  std::vector<std::int64_t> wide;
  for (int i = 0; i < 5000; ++i) narrow.push_back(70'000 + i % 100), wide.push_back(narrow.back());
  for (const std::string& text : {bytes_of(narrow), bytes_of(wide), std::string("# A README of even size\n"),
                                  bytes_of<std::uint16_t>({1, 2, 3, 4})}) {
    EXPECT_NE(refusal(text, TokenType::Automatic).find("data.token_type: uint16"), std::string::npos);
  }
  EXPECT_NE(refusal(bytes_of(narrow), TokenType::Uint16).find("twice as many bits"), std::string::npos);
  EXPECT_NE(refusal(bytes_of(wide), TokenType::Uint16).find("twice as many bits"), std::string::npos);
  EXPECT_NE(refusal(bytes_of(wide), TokenType::Int32).find("twice as many bits"), std::string::npos);
  std::vector<std::uint32_t> beyond;  // of the vocabulary, too
  std::vector<std::uint16_t> bases, half;
  std::string bytes;
  for (std::uint32_t i = 0; i < 5000; ++i) {
    beyond.push_back(i * 7919 % 120'000);
    bases.push_back(static_cast<std::uint16_t>(i * i % 5));
    half.push_back(static_cast<std::uint16_t>(i * 7919 % 60'000));
    bytes.push_back(static_cast<char>(i * i % 100));
  }
  EXPECT_NE(refusal(bytes_of(beyond), TokenType::Uint16).find("twice as many bits"), std::string::npos);
  EXPECT_NE(refusal(bytes_of(bases), TokenType::Uint8).find("twice as many bits"), std::string::npos);
  EXPECT_EQ(refusal(bytes_of(bases), TokenType::Uint16), "no error");
  EXPECT_EQ(refusal(bytes_of(half), TokenType::Uint16), "no error");
  EXPECT_EQ(refusal(bytes, TokenType::Uint8), "no error");
  EXPECT_EQ(refusal(std::string(5000, '\0'), TokenType::Uint16), "no error");
  std::string readme;
  for (int line = 0; line < 20; ++line) readme += "A README of even size, which says nothing.\n ";
  EXPECT_NE(refusal(readme, TokenType::Uint16).find("this is text"), std::string::npos);
  EXPECT_EQ(refusal(readme, TokenType::Uint8), "no error") << "tokens of a byte may be text";
  EXPECT_EQ(refusal(bytes_of(narrow), TokenType::Int32), "no error");
  EXPECT_EQ(refusal(bytes_of(wide), TokenType::Int64), "no error");
  EXPECT_NE(refusal(std::string("MMIDIDX\0\0", 9) + "x", TokenType::Uint16).find("Megatron"), std::string::npos);
  EXPECT_NE(refusal("BIN.TOK\n01234567", TokenType::Uint16).find("llmq"), std::string::npos);
  EXPECT_NE(refusal("abc", TokenType::Uint16).find("no multiple"), std::string::npos);
  std::vector<std::int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = 1;
  EXPECT_NE(refusal(bytes_of(header) + "ab", TokenType::Uint32).find("its header says uint16"), std::string::npos);
}

TEST_F(DataTest, ATokenOutsideTheVocabularyIsNamed) {
  const TokenSource source(config_of(DataType::Tokens, TokenType::Uint16),
                           {folder.write("a.bin", bytes_of<std::uint16_t>({1, 2, 99, 4}))}, 50);
  std::vector<std::int64_t> tokens(3);
  const auto message = message_of([&] { source.read(1, tokens); });
  EXPECT_NE(message.find("a.bin: token 2 is 99, but model.vocabulary is 50"), std::string::npos) << message;
}

TEST_F(DataTest, NamesTellFilesOfSeveralFoldersApart) {
  const std::vector<fs::path> files{folder.write("x/a/0.s", "1"), folder.write("x/b/0.s", "2"),
                                    folder.write("x/b/c/0", "3")};
  EXPECT_EQ(names_of(files, ".s"), (std::vector<std::string>{"a/0", "b/0", "b/c/0"}));
  EXPECT_EQ(names_of({files[0]}, ".s"), std::vector<std::string>{"0"});
  EXPECT_NE(message_of([&] {
              names_of({files[0], folder.write("x/a/0", "4")}, ".s");
            }).find("differ in their extension"),
            std::string::npos);
}

TEST_F(DataTest, FingerprintsTellDataApart) {
  const auto fingerprint = [&](const std::string& text) {
    return TokenSource(config_of(DataType::Text), {folder.write("t", text)}, 256).fingerprint();
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
    EXPECT_EQ(read_all(TokenSource(config_of(DataType::Fasta), cached, fasta_vocabulary)), expected) << source;
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
