#include "launch/job/start_up.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <sstream>

#include "core/seconds_since.h"

namespace longnet {
namespace {

/// How long this process has run, as the system has it (proc(5)), to a hundredth; 0 where it does not tell.
double age_seconds() {
  std::ifstream uptime_file("/proc/uptime"), stat_file("/proc/self/stat");
  double uptime = 0;
  uptime_file >> uptime;
  const std::string stat{std::istreambuf_iterator<char>(stat_file), {}};
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string field;
  constexpr int start_time = 22, first = 3;  // of the fields behind the name
  for (int number = first; number <= start_time; ++number) fields >> field;
  const double ticks = std::strtod(field.c_str(), nullptr);
  if (!fields || ticks <= 0) return 0;
  return std::max(0.0, uptime - ticks / static_cast<double>(::sysconf(_SC_CLK_TCK)));
}

}  // namespace

StartUp::StartUp() : parts_{{"libraries", age_seconds()}}, last_(std::chrono::steady_clock::now()) {}

void StartUp::finished(const std::string& what) {
  parts_.emplace_back(what, seconds_since(last_));
  last_ = std::chrono::steady_clock::now();
}

std::string StartUp::text() const {
  double sum = 0;
  std::ostringstream parts;
  parts << std::fixed << std::setprecision(2);
  for (const auto& [what, seconds] : parts_) {
    sum += seconds;
    parts << (parts.tellp() > 0 ? ", " : "") << what << " " << seconds << " s";
  }
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << sum << " s: " << parts.str();
  return text.str();
}

}  // namespace longnet
