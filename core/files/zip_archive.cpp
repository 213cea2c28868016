#include "core/files/zip_archive.h"

#include "core/error.h"
#include "core/files/input_file.h"

namespace longnet {

ZipArchive::ZipArchive(const std::filesystem::path& path)
    : archive_(nullptr, &zip_discard), size_(InputFile(path).size()) {
  int code = 0;
  archive_.reset(zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &code));
  if (archive_) return;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string reason = zip_error_strerror(&error);
  zip_error_fini(&error);
  throw DataError("a damaged zip file: " + reason);
}

std::vector<std::string> ZipArchive::names() const {
  std::vector<std::string> names;
  const zip_int64_t count = zip_get_num_entries(archive_.get(), 0);
  for (zip_int64_t index = 0; index < count; ++index) {
    if (const char* name = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(index), 0)) names.emplace_back(name);
  }
  return names;
}

std::vector<std::byte> ZipArchive::read(const std::string& name) const {
  const auto fail = [&](const std::string& what) { throw DataError("the entry " + name + " " + what); };
  zip_stat_t status;
  zip_stat_init(&status);
  constexpr zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_CRC;
  if (zip_stat(archive_.get(), name.c_str(), 0, &status) != 0 || (status.valid & needed) != needed) fail("is missing");
  if (status.comp_method != ZIP_CM_STORE) fail("is compressed, which torch.save never does");
  if (status.size > size_) fail("is larger than the file");
  const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> file(zip_fopen(archive_.get(), name.c_str(), 0),
                                                                &zip_fclose);
  if (!file) fail(std::string("cannot be opened: ") + zip_strerror(archive_.get()));
  // One byte more than there is, so that libzip comes to the end and compares the checksum.
  std::vector<std::byte> content(static_cast<std::size_t>(status.size) + 1);
  std::size_t filled = 0;
  while (filled < content.size()) {
    const zip_int64_t count = zip_fread(file.get(), content.data() + filled, content.size() - filled);
    if (count < 0) fail(std::string("is damaged: ") + zip_file_strerror(file.get()));
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  if (filled != status.size) fail("is damaged: it has another length than its header says");
  content.resize(filled);
  return content;
}

}  // namespace longnet
