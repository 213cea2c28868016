#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "launch/job.h"
#include "launch/signals.h"

/// The subcommands of the program, one file each. They return the program's exit code and throw longnet::Error.
namespace longnet {

struct TrainOptions : JobOptions {
  std::string resume = "auto";  ///< auto, none, or a checkpoint's folder
};
int train(std::unique_ptr<Communicator> world, const TrainOptions& options, SignalWatch& signals);

struct EvalOptions : JobOptions {
  std::string checkpoint;              ///< empty: the newest of the run
  std::vector<std::int64_t> contexts;  ///< empty: the training length and three halvings
  std::int64_t tokens = 0;             ///< 0: all
};
int eval(std::unique_ptr<Communicator> world, const EvalOptions& options);

struct GenerateOptions : JobOptions {
  std::string checkpoint;
  std::string prompt;
  std::int64_t tokens = 200;
  double temperature = 1;
  std::int64_t top_k = 0;  ///< 0: all
  double top_p = 1;
  std::uint64_t seed = 1;
};
int generate(std::unique_ptr<Communicator> world, const GenerateOptions& options);

}  // namespace longnet
