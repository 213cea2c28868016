#include "launch/job/restarts.h"

#include <cstdlib>
#include <fstream>

#include "core/failure.h"

namespace longnet {
namespace {

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Restarts::Restarts()
    : reason_(one_line(from_environment("LONGNET_RESTART"))), file_(from_environment("LONGNET_SAVED_STEP_FILE")) {}

bool Restarts::tell(const std::string& what) const {
  if (file_.empty()) return true;
  std::ofstream out(file_, std::ios::trunc);
  out << what << '\n' << std::flush;
  return out.good();
}

}  // namespace longnet
