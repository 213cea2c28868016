#pragma once

namespace longnet {

/// A named stretch of time in a profiler's picture (NVTX), from construction to destruction. Costs nothing where no
/// profiler listens, or in a build without CUDA.
class TraceRange {
 public:
  explicit TraceRange(const char* name);
  ~TraceRange();  // NOLINT(performance-trivially-destructible): only a build without CUDA has nothing to do in it
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;
};

}  // namespace longnet
