#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "launch/output/log.h"

namespace longnet {

/// Whether somebody looks: standard output is a terminal, and so is mpirun's, which gives its ranks pseudo-terminals in
/// any case.
bool on_terminal();

/// What a training run shows of itself: a bar that renews itself on a terminal, plain lines elsewhere.
class Progress {
 public:
  /// Lines go to `log`, for every `every_steps`-th step and the last; beside a bar to its file alone.
  Progress(Log log, std::int64_t steps, std::int64_t every_steps, bool bar)
      : log_(std::move(log)), steps_(steps), every_steps_(every_steps), bar_(bar) {}
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// A step with a remark is told in any case.
  void report(std::int64_t step, double loss, double tokens_per_second, double seconds, const std::string& remark);

  /// Removes the bar, so that a line can be written.
  void clear();

 private:
  void draw(std::int64_t step, const std::string& text) const;

  Log log_;
  std::int64_t steps_;
  std::int64_t every_steps_;
  bool bar_;
  double smooth_seconds_ = 0;
};

}  // namespace longnet
