#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/configuration/config_node.h"
#include "core/configuration/config_section.h"

/// The sections of a configuration file that do not depend on the model. docs/configuration.md lists all keys.
namespace longnet {

enum class DataType { Text, Fasta, Tokens, Examples, Series };

/// How tokens are stored in files that have no header to say so.
enum class TokenType { Automatic, Uint8, Uint16, Uint32, Int32, Int64 };

template <>
struct ConfigNames<TokenType> {
  static constexpr std::array<std::pair<const char*, TokenType>, 6> names{{{"auto", TokenType::Automatic},
                                                                           {"uint8", TokenType::Uint8},
                                                                           {"uint16", TokenType::Uint16},
                                                                           {"uint32", TokenType::Uint32},
                                                                           {"int32", TokenType::Int32},
                                                                           {"int64", TokenType::Int64}}};
};

struct DataConfig {
  DataType type = DataType::Text;
  TokenType token_type = TokenType::Automatic;  ///< of files of tokens; automatic: as their headers say
  std::vector<std::string> train;               ///< files, folders, globs
  std::vector<std::string> validation;          ///< the same; else the end of `train` is held out
  double validation_fraction = 0.05;
  std::vector<std::string> missing;  ///< fields to do without, of examples and series
  std::int64_t sequence_length = 0;
};

struct ParallelConfig {
  std::optional<std::int64_t> sequence;  ///< ranks that share a sequence; automatic: all
  std::optional<std::int64_t> threads;   ///< of each rank; automatic: its share of the cores that it may use
  enum class Transport { Automatic, Aligned, Unaligned } transport = Transport::Automatic;
  enum class Device { Automatic, Cpu, Cuda } device = Device::Automatic;  ///< automatic: a GPU where there is one
  bool shard_optimizer = true;  ///< each rank keeps, and updates by, a part of the optimizer's state (ZeRO stage 1)
  bool share_gpu = false;       ///< let several ranks use one GPU; their tensors then travel through the host
  std::int64_t timeout_seconds = 600;  ///< of an operation between ranks
};

struct OptimizerConfig {
  enum class Type { AdamW } type = Type::AdamW;
  double learning_rate = 6e-4;
  std::array<double, 2> betas{0.9, 0.98};
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  enum class Schedule { Constant, Cosine, Polynomial } schedule = Schedule::Cosine;
  std::int64_t warmup_steps = 0;
  double final_learning_rate = 0;
  double power = 1;      ///< of the polynomial schedule
  double clip_norm = 0;  ///< 0: no clipping
};

enum class Precision { Float32, BFloat16, Float64 };

struct TrainingConfig {
  std::int64_t steps = 0;
  std::int64_t batch_size = 1;        ///< sequences a step over all ranks
  std::int64_t micro_batch_size = 1;  ///< sequences a forward pass of one rank
  Precision precision = Precision::Float32;
  bool recompute = false;
  std::int64_t seed = 1;
  std::int64_t skipped_steps_limit = 10;          ///< non-finite steps in a row that end the training
  double skip_spikes = 0;                         ///< standard deviations of a loss above its mean; 0: none is skipped
  std::int64_t compare_replicas_every_steps = 0;  ///< 0: only at saves
  std::int64_t evaluate_every_steps = 0;          ///< 0: never
  std::int64_t evaluation_sequences = 8;
};

struct CheckpointConfig {
  enum class OnFailure { Continue, Stop };
  std::int64_t every_steps = 0;  ///< 0: not by steps
  double every_minutes = 15;     ///< besides; 0: not by time
  std::int64_t keep = 3;
  std::int64_t keep_every_steps = 0;           ///< and those of multiples of it; 0: no others
  std::int64_t keep_best = 0;                  ///< and so many with the lowest validation loss
  OnFailure on_failure = OnFailure::Continue;  ///< of a save
};

struct LoggingConfig {
  std::int64_t every_steps = 1;
  bool tensorboard = true;
  std::int64_t trace_step = 0;  ///< the step that is recorded; 0: none
};

struct Configuration {
  std::string run;
  ConfigNode model;  ///< read by the model that its key `type` names
  DataConfig data;
  ParallelConfig parallel;
  OptimizerConfig optimizer;
  TrainingConfig training;
  CheckpointConfig checkpoint;
  LoggingConfig logging;
};

/// Reads a file and applies the `--set` assignments. Throws ConfigError with the place of what is wrong.
Configuration load_configuration(const std::filesystem::path& path, const std::vector<std::string>& assignments);

/// The whole configuration with all defaults filled in. `model` is the model's own section.
nlohmann::ordered_json to_json(const Configuration& configuration, const nlohmann::ordered_json& model);

/// The same as YAML, as it could be given to load_configuration.
std::string to_yaml(const nlohmann::ordered_json& configuration);

}  // namespace longnet
