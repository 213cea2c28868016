// Files that others read or that we read from others.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/files/append_file.h"
#include "core/files/event_records.h"
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
  EXPECT_EQ(digest_of(InputFile(folder.path() / "x")), digest);
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

std::string refusal(const std::filesystem::path& path) {
  try {
    SafetensorsFile{path};
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

/// A file with this header and `bytes` bytes of data.
std::string with_header(const std::string& header, std::size_t bytes) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + std::string(bytes, '\1');
}

TEST(Safetensors, HeadersThatLieAreRefused) {
  const test::TemporaryFolder folder;
  const auto refused = [&](const std::string& header, std::size_t bytes) {
    return refusal(folder.write("x", with_header(header, bytes)));
  };
  const auto tensor = [](const std::string& name, const std::string& shape, int begin, int end) {
    return "\"" + name + R"(":{"dtype":"U8","shape":)" + shape + R"(,"data_offsets":[)" + std::to_string(begin) + "," +
           std::to_string(end) + "]}";
  };
  EXPECT_EQ(refused("{" + tensor("a", "[4]", 0, 4) + "," + tensor("b", "[2,2]", 4, 8) + "}", 8), "");
  for (const char* shape : {"[-1,-4]", "[5]", "[4611686018427387904,8]", "[1.5]", "[\"4\"]", "4"}) {
    EXPECT_NE(refused("{" + tensor("a", shape, 0, 4) + "}", 4), "") << shape;
  }
  EXPECT_NE(refused("{" + tensor("a", "[4]", 0, 4) + "," + tensor("b", "[4]", 2, 6) + "}", 6), "") << "overlap";
  EXPECT_NE(refused("{" + tensor("a", "[4]", 0, 4) + "," + tensor("b", "[4]", 5, 9) + "}", 9), "") << "gap";
  EXPECT_NE(refused("{" + tensor("a", "[4]", 0, 4) + "}", 5), "") << "bytes behind";
  EXPECT_NE(refused("{" + tensor("a", "[4]", 4, 0) + "}", 4), "") << "backwards";
  EXPECT_NE(refused("{" + tensor("a", "[4]", 0, 4) + "," + tensor("a", "[4]", 0, 4) + "}", 4).find("a is there twice"),
            std::string::npos);
  EXPECT_NE(refused("[]", 0), "");
  EXPECT_NE(refused("7", 0), "");
  const std::string deep(1'000'000, '[');
  EXPECT_NE(refused(deep, 0).find("64 levels"), std::string::npos);
  const std::string shape = deep + std::string(deep.size(), ']');
  EXPECT_NE(refused("{" + tensor("a", shape, 0, 4) + "}", 4).find("64 levels"), std::string::npos);
}

TEST(Safetensors, ManyTensorsAreNoWork) {
  const test::TemporaryFolder folder;
  std::string header;
  constexpr int count = 100'000;
  for (int i = 0; i < count; ++i) {
    header += (i == 0 ? "{\"" : ",\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]}";
  }
  const SafetensorsFile file(folder.write("x", with_header(header + "}", count)));
  EXPECT_EQ(file.names().size(), std::size_t{count});
}

TEST(Safetensors, ATensorOfAnUnknownDtypeIsInNobodysWay) {
  const test::TemporaryFolder folder;
  const SafetensorsFile file(
      folder.write("x", with_header(R"({"known":{"dtype":"U16","shape":[2],"data_offsets":[0,4]},)"
                                    R"("other":{"dtype":"F4","shape":[8],"data_offsets":[4,8]}})",
                                    8)));
  EXPECT_TRUE(file.read("known").to(at::kLong).eq(0x0101).all().item<bool>());
  EXPECT_FALSE(file.readable("other"));
  EXPECT_THROW(file.read("other"), DataError);
}

TEST(InputFile, IsARegularFile) {
  const test::TemporaryFolder folder;
  EXPECT_THROW(InputFile(folder.path()), DataError);
  const auto pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(InputFile{pipe}, DataError) << "nobody writes to it: it must not wait";
  std::vector<std::byte> bytes(4);
  EXPECT_THROW(InputFile(folder.write("x", "abc")).read(0, bytes), DataError);
}

TEST(AppendFile, KeepsWholeRecordsOnly) {
  const test::TemporaryFolder folder;
  const auto path = folder.write("x", "before\n");
  {
    AppendFile file(path);
    file.append("one\n");
    rlimit limit{};  // a disk that takes 6 bytes more
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const rlimit small{17, limit.rlim_max};
    std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    EXPECT_THROW(file.append("a long record\n"), FileError);
    EXPECT_EQ(content(path), "before\none\n") << "nothing of it is left";
    ::setrlimit(RLIMIT_FSIZE, &limit);
    file.append("two\n");
  }
  EXPECT_EQ(content(path), "before\none\ntwo\n");
  EXPECT_THROW(AppendFile(folder.path() / "no" / "folder"), FileError);
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
  EXPECT_THROW(HashingFile(folder.path() / "no" / "folder"), FileError);
}

TEST(EventRecords, ChecksumIsTheStandardsOne) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU) << "RFC 3720, appendix B.4";
}

}  // namespace
}  // namespace longnet
