#include "launch/job/threads.h"

#include <ATen/Parallel.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "distributed/agreement.h"

namespace longnet {
namespace {

constexpr double no_quota = std::numeric_limits<double>::infinity();

std::vector<int> allowed_cores() {
  for (int most = CPU_SETSIZE; most <= (1 << 20); most *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(static_cast<std::size_t>(most)),
                                                               [](cpu_set_t* memory) { CPU_FREE(memory); });
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(most));
    if (::sched_getaffinity(0, bytes, set.get()) != 0) continue;  // the host has more cores than that
    std::vector<int> cores;
    for (int core = 0; core < most; ++core) {
      if (CPU_ISSET_S(static_cast<std::size_t>(core), bytes, set.get())) cores.push_back(core);
    }
    return cores;
  }
  return {0};
}

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// The path of the own control group in hierarchy `controller`; empty for version 2. Nothing where there is none.
std::optional<std::string> control_group(const std::string& controller) {
  std::istringstream lines(content("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::istringstream controllers(line.substr(first + 1, second - first - 1));
    bool found = controller.empty() && second == first + 1;
    for (std::string name; std::getline(controllers, name, ',');) found = found || name == controller;
    if (found) return line.substr(second + 1);
  }
  return {};
}

/// The smallest quota on the way from a group up to the root, by `read`, which takes a folder.
double smallest_quota(const std::string& root, std::string group, double (*read)(const std::string& folder)) {
  double quota = no_quota;
  while (true) {
    quota = std::min(quota, read(root + group));
    if (group.empty() || group == "/") return quota;
    group.erase(group.rfind('/'));
  }
}

double quota_version_1(const std::string& folder) {
  double quota = 0, period = 0;
  std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
  std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  return quota > 0 && period > 0 ? quota / period : no_quota;
}

/// A number of threads from the environment; a list ("4,2", for nested parallelism) begins with it.
int limit_from(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::numeric_limits<int>::max();
  int value = 0;
  const std::string_view all(text);
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  return error == std::errc() && value > 0 ? value : std::numeric_limits<int>::max();
}

/// The shares of all ranks of this rank's host, and which of them is its own.
std::vector<CoreShare> shares_of_host(Communicator& host) {
  const CoreShare own = core_share();
  const nlohmann::json text{own.cores, own.quota == no_quota ? 0 : own.quota, own.group, own.limit};
  std::vector<CoreShare> shares;
  for (const std::string& other : gather_text(host, text.dump())) {
    const auto parts = nlohmann::json::parse(other);
    const double quota = parts[1];
    shares.push_back({parts[0], quota == 0 ? no_quota : quota, parts[2], parts[3]});
  }
  return shares;
}

}  // namespace

double parse_cpu_max(const std::string& text) {
  double quota = 0, period = 0;
  std::istringstream(text) >> quota >> period;  // the word "max" leaves 0
  return quota > 0 && period > 0 ? quota / period : no_quota;
}

CoreShare core_share() {
  CoreShare share;
  share.cores = allowed_cores();
  if (const auto group = control_group("")) {
    share.group = *group;
    share.quota = smallest_quota("/sys/fs/cgroup", *group,
                                 [](const std::string& folder) { return parse_cpu_max(content(folder + "/cpu.max")); });
  }
  if (const auto group = control_group("cpu")) {
    share.group = *group;
    share.quota = std::min(share.quota, smallest_quota("/sys/fs/cgroup/cpu", *group, &quota_version_1));
  }
  share.limit = std::min(limit_from("OMP_NUM_THREADS"), limit_from("SLURM_CPUS_PER_TASK"));
  return share;
}

int threads_for(const std::vector<CoreShare>& host, std::size_t own) {
  const CoreShare& mine = host[own];
  double cores = 0;
  for (const int core : mine.cores) {
    const auto may_use = [&](const CoreShare& other) {
      return std::binary_search(other.cores.begin(), other.cores.end(), core);
    };
    cores += 1.0 / static_cast<double>(std::count_if(host.begin(), host.end(), may_use));
  }
  const auto in_group = [&](const CoreShare& other) { return other.group == mine.group; };
  const double quota = mine.quota / static_cast<double>(std::count_if(host.begin(), host.end(), in_group));
  constexpr double rounding = 1e-6;  // thirds of cores add up
  const double share = std::min({cores, quota, static_cast<double>(mine.limit)});
  return std::max(1, static_cast<int>(share + rounding));
}

Threads set_threads(Communicator& world, const std::optional<std::int64_t>& wanted) {
  const auto host = world.split_by_host();
  const auto shares = shares_of_host(*host);
  const CoreShare& own = shares[static_cast<std::size_t>(host->rank())];
  const int share = threads_for(shares, static_cast<std::size_t>(host->rank()));
  const auto cores = static_cast<long>(own.cores.size()), online = ::sysconf(_SC_NPROCESSORS_ONLN);
  agree(world, [&] {
    constexpr long most_a_core = 8;  // far more would not end, and not be stopped
    if (wanted.value_or(0) <= most_a_core * online) return;
    throw ConfigError("parallel.threads is " + std::to_string(*wanted) + ", but the host has " +
                      std::to_string(online) + " cores; leave it auto");
  });
  at::set_num_threads(static_cast<int>(wanted.value_or(share)));

  Threads threads{at::get_num_threads(), {}};
  const auto ranks = static_cast<long>(shares.size());
  if (threads.count > share) {
    threads.warning = "parallel.threads is " + std::to_string(threads.count) + ", but a rank's share of the cores is " +
                      std::to_string(share) +
                      ": threads will wait for each other; leave it auto, or export OMP_WAIT_POLICY=passive";
  } else if (own.limit == std::numeric_limits<int>::max() && cores * ranks < online) {
    threads.warning = "a rank may use " + std::to_string(cores) + " of the host's " + std::to_string(online) +
                      " cores; where mpirun bound it there, --bind-to none gives it more";
  }
  return threads;
}

}  // namespace longnet
