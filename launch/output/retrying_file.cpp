#include "launch/output/retrying_file.h"

#include <utility>

#include "core/error.h"

namespace longnet {
namespace {

constexpr std::uint64_t most_waiting_bytes = std::uint64_t{64} << 20;

std::string records(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " record" : " records");
}

}  // namespace

RetryingFile::RetryingFile(std::filesystem::path path, std::function<void(const std::string&)> say)
    : path_(std::move(path)), say_(std::move(say)) {}

RetryingFile::~RetryingFile() {
  if (waiting_.empty() || flush()) return;
  say_("warning: " + path_.string() + ": cannot be written to the last; " +
       records(static_cast<std::int64_t>(waiting_.size()) + lost_) + " lost");
}

void RetryingFile::write(std::string record) {
  waiting_bytes_ += record.size();
  waiting_.push_back(std::move(record));
  if (flush()) return;
  ++late_;
  while (waiting_bytes_ > most_waiting_bytes) {
    waiting_bytes_ -= waiting_.front().size();
    waiting_.pop_front();
    ++lost_;
  }
}

bool RetryingFile::flush() {
  try {
    if (file_ && !file_->is_whole()) {
      file_.reset();
      say_("warning: " + path_.string() +
           ": was removed, moved or cut by somebody; what comes now is in what is there");
    }
    if (!file_) file_.emplace(path_);
    for (; !waiting_.empty(); waiting_.pop_front()) {
      file_->append(waiting_.front());
      waiting_bytes_ -= waiting_.front().size();
    }
  } catch (const FileError& error) {
    if (late_ == 0)
      say_("warning: " + std::string(error.what()) + "; training goes on, and what is missing is written later");
    return false;
  }
  if (late_ > 0) {
    say_(path_.string() + ": can be written again; " + records(late_ - lost_) + " made up for" +
         (lost_ > 0 ? ", " + records(lost_) + " lost" : ""));
  }
  late_ = lost_ = 0;
  return true;
}

}  // namespace longnet
