#include "launch/output/run_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "core/files/input_file.h"
#include "core/files/strict_json.h"
#include "core/host_name.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// The first bytes of a file that is opened anew, so that it is what other hosts wrote; nothing when there is none. Throws
/// ConfigError for what is no file.
std::optional<std::string> read_anew(const fs::path& path) {
  constexpr std::size_t longest = 4096;
  std::error_code error;
  const auto status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return {};
  try {
    return InputFile(path).beginning(longest);
  } catch (const DataError& reason) {
    if (fs::status(path, error).type() == fs::file_type::not_found) return {};
    throw ConfigError(std::string(reason.what()) + ", where the lock of the run folder belongs; remove it");
  }
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// When a process of this host was started, in ticks since it was booted; nothing when there is none of this number.
std::optional<std::string> start_of(std::int64_t pid) {
  const std::string stat = first_line("/proc/" + std::to_string(pid) + "/stat");
  const auto name_end = stat.rfind(')');  // the name in parentheses may hold blanks
  if (name_end == std::string::npos) return {};
  std::istringstream fields(stat.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 22 && fields >> field; ++number) {
    if (number == 3 && field == "Z") return {};  // it has ended, and nobody has asked for its code yet
  }
  return fields ? std::optional(field) : std::nullopt;
}

/// What tells the processes of two hosts, two boots and two containers apart.
std::string process_space() {
  std::error_code error;
  return first_line("/proc/sys/kernel/random/boot_id") + " " + fs::read_symlink("/proc/self/ns/pid", error).string();
}

std::string describe_this_process() {
  std::random_device random;
  std::array<char, 32> now{};
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::strftime(now.data(), now.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  const std::int64_t pid = ::getpid();
  return Json{{"host", host_name()},
              {"pid", pid},
              {"since", now.data()},
              {"space", process_space()},
              {"start", start_of(pid).value_or("")},
              {"job", std::to_string(random()) + std::to_string(random())}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_of(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}

/// What tells a folder from another that gets its name; empty where there is none.
std::string identity_of(const fs::path& folder) {
  struct stat status = {};
  if (::stat(folder.c_str(), &status) != 0) return {};
  return std::to_string(status.st_dev) + " " + std::to_string(status.st_ino);
}

/// What a lock says about its owner: its first line. The second is the number.
Json owner_of(const std::string& content) {
  try {
    return parse_json(content.substr(0, content.find('\n')));
  } catch (const DataError&) {
    return {};
  }
}

/// Whether a lock can be one of ours. They are written at once, and whole.
bool names_an_owner(const Json& owner) {
  return !text_of(owner, "host").empty() && !text_of(owner, "job").empty();
}

enum class Life { Alive, Gone, Unknown };

/// Of the process that a lock names, as far as this process can see it.
Life life_of(const Json& owner) {
  if (!names_an_owner(owner)) return Life::Gone;
  const std::string start = text_of(owner, "start");
  if (start.empty() || text_of(owner, "space") != process_space()) return Life::Unknown;
  if (!owner.contains("pid") || !owner["pid"].is_number_unsigned()) return Life::Unknown;
  return start_of(owner["pid"].get<std::int64_t>()) == start ? Life::Alive : Life::Gone;
}

std::string describe(const Json& owner) {
  if (!names_an_owner(owner)) return "its lock is none that can be read";
  const auto pid = owner.value("pid", Json());
  return "process " + pid.dump() + " on " + text_of(owner, "host") + ", since " + text_of(owner, "since");
}

}  // namespace

RunLock::RunLock(const fs::path& run, Settings settings)
    : path_(run / "lock"), folder_(identity_of(run)), settings_(std::move(settings)), owner_(describe_this_process()) {
  take();
  if (held_) thread_ = std::thread([this] { grow(); });
}

RunLock::~RunLock() {
  give_back();
}

void RunLock::give_back() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
  std::error_code ignored;
  if (std::exchange(held_, false) && is_ours()) fs::remove(path_, ignored);
}

bool RunLock::is_ours() const {
  try {
    const auto content = read_anew(path_);
    return content && content->starts_with(owner_);
  } catch (const ConfigError&) {
    return false;
  }
}

bool RunLock::require_held(bool now) {
  if (!held_ || (!now && Clock::now() - looked_ < settings_.period)) return false;
  looked_ = Clock::now();
  const auto taken_over = [this](const std::string& by) {
    return FileError(path_.string() + ": the run folder was taken over by " + by);
  };
  if (const auto content = read_anew(path_)) {
    if (content->starts_with(owner_)) return false;
    throw taken_over(describe(owner_of(*content)));
  }
  const fs::path run = path_.parent_path();
  std::error_code error;
  fs::create_directories(run, error);  // where that fails, so does what comes
  const std::string before = std::exchange(folder_, identity_of(run));
  const bool gone = folder_ != before;
  if (!create()) throw taken_over("another job, which took the lock's place");
  if (gone) {
    settings_.say("warning: " + run.string() +
                  ": was removed or moved by somebody; it is made anew, without what was in it");
  } else if (held_) {
    settings_.say("the run folder's lock was removed by somebody; it is there again");
  }
  return gone;
}

void RunLock::take() {
  constexpr int attempts = 3;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    if (create()) return;
    const auto found = read_anew(path_);
    if (!found) continue;  // it has just been given back
    require_free(*found);
    // Of two that find the same job gone, the second may find the first one's lock here: it gives it back.
    const fs::path stale = path_.string() + ".stale-" + std::to_string(::getpid());
    std::error_code error;
    fs::rename(path_, stale, error);
    if (error) continue;
    if (read_anew(stale) != found) {
      fs::rename(stale, path_, error);
      continue;
    }
    fs::remove(stale, error);
    settings_.say("the run folder's last job did not end by itself (" + describe(owner_of(*found)) + ")");
  }
  if (create()) return;
  throw ConfigError(path_.string() +
                    ": other jobs are taking this run folder at the same time; choose another (--set run=...)");
}

/// True when there is nothing left to try: the lock is taken, or this disk takes none.
bool RunLock::create() {
  const int descriptor = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0 && errno == EEXIST) return false;
  int error = descriptor < 0 ? errno : 0;
  if (descriptor >= 0) {
    const std::string text = content(0);
    const auto written = ::write(descriptor, text.data(), text.size());
    if (written != static_cast<ssize_t>(text.size())) error = written < 0 ? errno : ENOSPC;
    if (::close(descriptor) != 0 && error == 0) error = errno;
    std::error_code ignored;
    if (error != 0) fs::remove(path_, ignored);
  }
  held_ = error == 0;
  if (!held_) {
    settings_.say("warning: " + path_.string() + " cannot be written (" + std::strerror(error) +
                  "): nothing keeps a second job out of this run folder");
  }
  return true;
}

/// Throws unless the job that wrote `found` is gone.
void RunLock::require_free(const std::string& found) const {
  const Json owner = owner_of(found);
  Life life = life_of(owner);
  if (life == Life::Unknown) {
    settings_.say("the run folder is locked by " + describe(owner) + ": waiting whether it shows life");
    life = changes_within(settings_.patience, found) ? Life::Alive : Life::Gone;
  } else if (found.empty() && changes_within(settings_.writing, found)) {
    life = Life::Alive;
  }
  if (life == Life::Gone) return;
  throw ConfigError(path_.string() + ": the run folder is in use by " +
                    describe(owner_of(read_anew(path_).value_or(found))) +
                    "; wait for it, end it, or choose another (--set run=...)");
}

bool RunLock::changes_within(std::chrono::milliseconds time, const std::string& found) const {
  const auto deadline = Clock::now() + time;
  while (Clock::now() < deadline) {
    std::this_thread::sleep_for(std::min(settings_.period, std::chrono::milliseconds(500)));
    if (read_anew(path_) != found) return true;
  }
  return false;
}

void RunLock::grow() {
  std::unique_lock lock(mutex_);
  for (std::int64_t number = 1; !wake_.wait_for(lock, settings_.period, [this] { return ending_; }); ++number) {
    if (!is_ours()) continue;  // require_held says it
    const int descriptor = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) continue;
    const std::string text = content(number);
    [[maybe_unused]] const auto written = ::pwrite(descriptor, text.data(), text.size(), 0);
    ::close(descriptor);
  }
}

/// Always of the same length, so that it needs no more room on a full disk.
std::string RunLock::content(std::int64_t number) const {
  std::string digits = std::to_string(number);
  digits.insert(0, 20 - digits.size(), '0');
  return owner_ + "\n" + digits + "\n";
}

}  // namespace longnet
