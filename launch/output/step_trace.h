#pragma once

#include <filesystem>

namespace longnet {

/// Records what this process and its GPU do, from construction to `write`: every operation, kernel and copy, with their times. At most
/// one at a time.
class StepTrace {
 public:
  StepTrace();
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  /// Ends the recording, and writes it as Chrome's trace format has it (chrome://tracing, Perfetto). Throws Error.
  void write(const std::filesystem::path& path);

 private:
  bool recording_ = true;
};

}  // namespace longnet
