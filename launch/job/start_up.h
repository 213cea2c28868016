#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace longnet {

/// Where the seconds from the start of this process to its first step go.
class StartUp {
 public:
  /// To be made first: what was before is the loading of libraries.
  StartUp();

  /// `what` has ended, which began when the one before ended.
  void finished(const std::string& what);

  /// As "0.83 s: libraries 0.30 s, MPI 0.31 s, ...".
  std::string text() const;

 private:
  std::vector<std::pair<std::string, double>> parts_;  ///< with their seconds
  std::chrono::steady_clock::time_point last_;
};

}  // namespace longnet
