// Files that others wrote, or that a disk has spoilt: whatever is in them, they are read, or refused with an error of the
// project; no crash, no hang, no gigabytes. Thousands of sound files are changed at random (the same in every run) and
// read. Sanitizers watch in tests/sanitize.sh.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <iterator>
#include <random>
#include <span>

#include "core/configuration/configuration.h"
#include "core/data/fasta.h"
#include "core/data/token_source.h"
#include "core/error.h"
#include "core/files/pickle.h"
#include "core/files/safetensors.h"
#include "core/files/weights_file.h"
#include "distributed/checkpoint_manifest.h"
#include "models/registry.h"
#include "tests/device.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

constexpr int rounds = 3000;

/// Changes a text at one to four places.
class Mutator {
 public:
  std::string operator()(std::string text) {
    for (std::size_t change = 0, changes = 1 + below(4); change < changes; ++change) text = changed(std::move(text));
    return text;
  }

 private:
  std::size_t below(std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(random_); }

  std::string changed(std::string text) {
    constexpr std::array<const char*, 12> telling{
        "0",  "-1", "9223372036854775807", "18446744073709551616", "1e999", "[", "{", "\"", "\xff\xff\xff\xff", "\n",
        "&a", "*a"};
    if (text.empty()) return "x";
    const std::size_t place = below(text.size()), length = std::min(text.size() - place, 1 + below(16));
    switch (below(6)) {
      case 0:
        text[place] = static_cast<char>(text[place] ^ (1 << below(8)));
        break;
      case 1:
        text[place] = static_cast<char>(below(256));
        break;
      case 2:
        text.erase(place, length);
        break;
      case 3:
        text.insert(below(text.size()), text.substr(place, length));
        break;
      case 4:
        text.replace(place, length, telling[below(telling.size())]);
        break;
      default:
        text.resize(place);
    }
    return text;
  }

  std::mt19937_64 random_{20'240'710};
};

/// Reads `rounds` mutations of the texts. At least one must be refused, or the test tests nothing.
void expect_only_our_errors(const std::vector<std::string>& texts,
                            const std::function<void(const std::string&)>& read) {
  for (const std::string& text : texts) EXPECT_NO_THROW(read(text)) << "what is sound is read";
  Mutator mutate;
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string text = mutate(texts[static_cast<std::size_t>(round) % texts.size()]);
    try {
      read(text);
    } catch (const Error&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL() << "round " << round << ": " << error.what();
    }
  }
  EXPECT_GT(refused, 0);
}

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Mutations : public testing::Test {
 protected:
  test::TemporaryFolder folder;
};

TEST_F(Mutations, OfSafetensors) {
  write_safetensors(folder.path() / "sound", {{"a", at::ones({2, 3})}, {"b", at::ones({4}, at::kHalf)}},
                    {{"format", "pt"}});
  expect_only_our_errors({content(folder.path() / "sound")}, [&](const std::string& text) {
    const SafetensorsFile file(folder.write("x", text));
    for (const std::string& name : file.names()) {
      if (file.readable(name)) file.read(name);
    }
  });
}

TEST_F(Mutations, OfPickles) {
  const std::string names = "\x80\x02}(X\x01" + std::string("\0\0\0", 3) +
                            "a]K\x01"
                            "aX\x01" +
                            std::string("\0\0\0", 3) +
                            "b(K\x02K\x03tq\x01h\x01\x8c\x01"
                            "c\x94u.";
  const std::string tensor =
      "\x80\x02"
      "ctorch._utils\n_rebuild_tensor_v2\n((X\x07" +
      std::string("\0\0\0storage", 10) + "ctorch\nFloatStorage\nX\x01" + std::string("\0\0\0", 3) + "0X\x03" +
      std::string("\0\0\0cpuK\x06tQK\0", 12) +
      "K\x02K\x03\x86K\x03K\x01\x86\x89"
      "ccollections\nOrderedDict\n)RtR.";
  const auto storage = [](at::ScalarType type, const std::string&, std::int64_t count) {
    if (count < 0 || count > 1000) throw DataError("the storage is shorter than it says");
    return at::ones({count}, type);
  };
  expect_only_our_errors(
      {tensor, names,
       "\x80\x02]K\x01"
       "a."},
      [&](const std::string& text) { read_pickle(std::as_bytes(std::span(text.data(), text.size())), storage); });
}

TEST_F(Mutations, OfTorchsFiles) {
  expect_only_our_errors({content(std::filesystem::path(test::source_folder()) / "tests/golden/weights/linear.pt")},
                         [&](const std::string& text) { read_weights(folder.write("x.pt", text)); });
}

/// With a digest that is right, so that the fields are looked at.
TEST_F(Mutations, OfManifests) {
  Manifest manifest;
  manifest.progress = {.step = 7, .tokens = 7000, .samples = 70, .updates = 6};
  manifest.notes.config = {{"model", {{"heads", 4}}}, {"data", {{"train", {"x"}}}}, {"training", {{"steps", 9}}}};
  manifest.files = {{"shard-0", {100, std::string(32, 'a')}}};
  manifest.tensors["weight"] = {at::kFloat, {2, 3}, {{"shard-0", "weight", {0, 6}}}};
  const std::string whole = to_text(manifest), mark = ",\n \"xxh3_128\": ";
  expect_only_our_errors({whole.substr(0, whole.rfind(mark))}, [&](const std::string& text) {
    const std::string digest = digest_of(std::as_bytes(std::span(text.data(), text.size()))).xxh3_128;
    parse_manifest(text + mark + "\"" + digest + "\"\n}\n");
  });
}

TEST_F(Mutations, OfConfigurations) {
  expect_only_our_errors(
      {content(std::filesystem::path(test::source_folder()) / "configs/quickstart.yaml")},
      [&](const std::string& text) { specify_model(load_configuration(folder.write("c.yaml", text), {}).model); });
}

TEST_F(Mutations, OfFasta) {
  expect_only_our_errors({">one\nACGTN\nacgu\n>two words\nRYK\n"}, [&](const std::string& text) {
    std::filesystem::remove_all(folder.path() / "cache");
    cache_fasta({folder.write("x.fa", text)}, folder.path() / "cache");
  });
}

TEST_F(Mutations, OfTokenFiles) {
  std::vector<std::int32_t> header(256);
  header[0] = 20240520, header[1] = 1, header[2] = 4;
  const std::string llmc(reinterpret_cast<const char*>(header.data()), header.size() * sizeof header[0]);
  std::string npy = "{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }";
  npy.resize(118, ' ');
  npy = std::string("\x93NUMPY\x01\x00\x76\x00", 10) + npy;
  DataConfig config;
  config.type = DataType::Tokens;
  expect_only_our_errors({llmc + "12345678", npy + "12345678"}, [&](const std::string& text) {
    const TokenSource source(config, {folder.write("x", text)}, 1 << 16);
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(source.size()));
    source.read(0, tokens);
  });
}

}  // namespace
}  // namespace longnet
