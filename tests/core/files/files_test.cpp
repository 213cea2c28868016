// Files that others read or that we read from others.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/files/event_file.h"
#include "core/files/safetensors.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

std::string content(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

TEST(Safetensors, ComeBackAsTheyWere) {
  const test::TemporaryFolder folder;
  const auto a = at::randn({3, 4}, at::kDouble), b = at::randn({5}).to(at::kBFloat16), empty = at::empty({0, 2});
  const auto digest =
      write_safetensors(folder.path() / "x", {{"a", a.t()}, {"b", b}, {"empty", empty}}, {{"key", "value"}});
  const SafetensorsFile file(folder.path() / "x");
  EXPECT_TRUE(file.read("a").equal(a.t()));
  EXPECT_TRUE(file.read("b").equal(b));
  EXPECT_EQ(file.read("empty").sizes(), empty.sizes());
  EXPECT_EQ(file.metadata().at("key"), "value");
  EXPECT_EQ(digest_of(file.bytes()), digest);
  EXPECT_THROW(file.read("c"), DataError);
}

TEST(Safetensors, DamagedFilesAreRefused) {
  const test::TemporaryFolder folder;
  write_safetensors(folder.path() / "x", {{"a", at::zeros({100})}});
  const auto whole = content(folder.path() / "x");
  for (const std::size_t length : {std::size_t{0}, std::size_t{4}, std::size_t{20}, whole.size() - 1}) {
    const auto cut = folder.write("cut", whole.substr(0, length));
    EXPECT_THROW(SafetensorsFile{cut}, DataError) << length;
  }
  auto broken = whole;
  broken[9] = '}';
  EXPECT_THROW(SafetensorsFile{folder.write("broken", broken)}, DataError);
  EXPECT_THROW(SafetensorsFile{folder.path() / "none"}, DataError);
}

TEST(HashingFile, HashesWhatItWrites) {
  const test::TemporaryFolder folder;
  HashingFile file(folder.path() / "x");
  file.write(std::string("hello "));
  file.write(std::string("world"));
  const auto digest = file.commit();
  EXPECT_EQ(content(folder.path() / "x"), "hello world");
  EXPECT_EQ(digest.bytes, 11U);
  const std::string text = "hello world";
  EXPECT_EQ(digest, digest_of(std::as_bytes(std::span(text))));
  EXPECT_THROW(HashingFile(folder.path() / "no" / "folder"), CheckpointError);
}

TEST(EventFile, ChecksumIsTheStandardsOne) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU) << "RFC 3720, appendix B.4";
}

}  // namespace
}  // namespace longnet
