#include "launch/output/progress.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

namespace longnet {
namespace {

std::string duration(double seconds) {
  const std::int64_t whole = std::llround(seconds);
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
}

}  // namespace

bool on_terminal() {
  if (::isatty(STDOUT_FILENO) == 0) return false;
  const std::string parent = "/proc/" + std::to_string(::getppid());
  std::string name;
  std::ifstream(parent + "/comm") >> name;
  if (name != "mpirun" && name != "orterun" && name != "mpiexec" && name != "orted") return true;
  std::error_code error;
  return std::filesystem::read_symlink(parent + "/fd/1", error).string().starts_with("/dev/pts/");
}

Progress::~Progress() {
  clear();
}

void Progress::clear() {
  if (!bar_) return;
  std::fputs("\r\033[K", stdout);
  std::fflush(stdout);
}

void Progress::draw(std::int64_t step, const std::string& text) const {
  constexpr std::int64_t width = 24;
  const auto filled = static_cast<std::size_t>(width * step / steps_);
  const std::string bar = std::string(filled, '#') + std::string(static_cast<std::size_t>(width) - filled, '.');
  std::fprintf(stdout, "\r\033[K[%s] %s", bar.c_str(), text.c_str());
  std::fflush(stdout);
}

void Progress::report(std::int64_t step, double loss, double tokens_per_second, double seconds,
                      const std::string& remark) {
  smooth_seconds_ = smooth_seconds_ == 0 ? seconds : 0.9 * smooth_seconds_ + 0.1 * seconds;
  const double left = smooth_seconds_ * static_cast<double>(steps_ - step);
  const auto text = fmt::format("step {}/{}  loss {:.4f}  {:.0f} tokens/s  {} left{}", step, steps_, loss,
                                tokens_per_second, duration(left), remark.empty() ? "" : "  " + remark);
  if (bar_) draw(step, text);
  if (step % every_steps_ == 0 || step == steps_ || !remark.empty()) bar_ ? log_.record(text) : log_.info(text);
}

}  // namespace longnet
