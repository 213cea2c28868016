#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "launch/job/job.h"
#include "launch/job/process.h"

/// The subcommands of the program, one file each. They return the program's exit code and throw longnet::Error.
namespace longnet {

struct TrainOptions : JobOptions {
  std::string resume = "auto";  ///< auto, none, or a checkpoint's folder
};
int train(std::unique_ptr<Communicator> world, const TrainOptions& options, Process& process);

/// Of commands that need trained weights.
struct CheckpointOptions : JobOptions {
  std::string checkpoint;  ///< empty: the newest of the run; none: a new model's weights
};

struct EvalOptions : CheckpointOptions {
  std::vector<std::int64_t> contexts;  ///< empty: the training length and three halvings
  std::int64_t tokens = 0;             ///< 0: all
  std::string outputs;                 ///< folder for what the model says about each sequence; empty: not written
};
int eval(std::unique_ptr<Communicator> world, const EvalOptions& options);

struct AttendOptions : CheckpointOptions {
  std::int64_t sequence = 0;            ///< of the held-out data
  std::vector<std::int64_t> queries;    ///< positions
  std::vector<std::string> attentions;  ///< empty: all
  std::string output;                   ///< folder; empty: attention in the run folder
};
int attend(std::unique_ptr<Communicator> world, const AttendOptions& options);

struct ImportOptions : JobOptions {
  std::string weights;                  ///< the file that others wrote
  std::vector<std::string> initialize;  ///< parameters that begin so keep their new values
  std::vector<std::string> ignore;      ///< tensors that begin so are left out
};
int checkpoint_import(std::unique_ptr<Communicator> world, const ImportOptions& options);

struct GenerateOptions : CheckpointOptions {
  std::string prompt;
  std::int64_t tokens = 200;
  double temperature = 1;
  std::int64_t top_k = 0;  ///< 0: all
  double top_p = 1;
  std::uint64_t seed = 1;
};
int generate(std::unique_ptr<Communicator> world, const GenerateOptions& options);

}  // namespace longnet
