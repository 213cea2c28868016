#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace longnet {

/// What a process may use of its host's cores.
struct CoreShare {
  std::vector<int> cores;                                  ///< by affinity
  double quota = std::numeric_limits<double>::infinity();  ///< of its control group, in cores
  std::string group;                                       ///< its control group: processes in one share the quota
  int limit = std::numeric_limits<int>::max();             ///< OMP_NUM_THREADS, SLURM_CPUS_PER_TASK
};

/// Of this process, as the system says.
CoreShare core_share();

/// How many threads the process number `own` of those of a host should use: cores and quotas that several may use are
/// divided among them. At least 1.
int threads_for(const std::vector<CoreShare>& host, std::size_t own);

/// The quota of a cgroup from the text of cpu.max ("200000 100000", "max 100000"), in cores.
double parse_cpu_max(const std::string& text);

/// The number of threads of this rank, and what is to be said about it.
struct Threads {
  int count;
  std::optional<std::string> warning;
};

/// Threads of this rank, set in LibTorch: `wanted`, or its share of what the ranks of its host may use. Collective;
/// throws AgreedError for a wish far above the host's cores.
Threads set_threads(Communicator& world, const std::optional<std::int64_t>& wanted);

}  // namespace longnet
