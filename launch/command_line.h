#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/error.h"
#include "distributed/communicator.h"
#include "launch/job/process.h"

namespace longnet {

/// What the user asks for.
struct Request {
  std::string command;              ///< as "train"; the same on all ranks
  std::optional<std::string> text;  ///< for help and the version: what to print, and nothing to run
  bool saves = false;               ///< it minds signals and saves
  std::function<int(std::unique_ptr<Communicator> world, Process& process)> run;  ///< gives the exit code
};

/// Understands the command line. Throws ConfigError for a mistake. `on_failure`: see JobOptions.
Request parse_command_line(int argc, char** argv, const std::function<void(const CommunicationError&)>& on_failure);

}  // namespace longnet
