#include "core/configuration/configuration.h"

#include <yaml-cpp/yaml.h>

#include "core/configuration/limits.h"
#include "core/error.h"

namespace longnet {

template <>
struct ConfigNames<DataType> {
  static constexpr std::array<std::pair<const char*, DataType>, 5> names{{{"text", DataType::Text},
                                                                          {"fasta", DataType::Fasta},
                                                                          {"tokens", DataType::Tokens},
                                                                          {"examples", DataType::Examples},
                                                                          {"series", DataType::Series}}};
};

template <>
struct ConfigNames<ParallelConfig::Transport> {
  using Transport = ParallelConfig::Transport;
  static constexpr std::array<std::pair<const char*, Transport>, 3> names{
      {{"auto", Transport::Automatic}, {"aligned", Transport::Aligned}, {"unaligned", Transport::Unaligned}}};
};

template <>
struct ConfigNames<ParallelConfig::Device> {
  using Device = ParallelConfig::Device;
  static constexpr std::array<std::pair<const char*, Device>, 3> names{
      {{"auto", Device::Automatic}, {"cpu", Device::Cpu}, {"cuda", Device::Cuda}}};
};

template <>
struct ConfigNames<OptimizerConfig::Type> {
  static constexpr std::array<std::pair<const char*, OptimizerConfig::Type>, 1> names{
      {{"adamw", OptimizerConfig::Type::AdamW}}};
};

template <>
struct ConfigNames<OptimizerConfig::Schedule> {
  using Schedule = OptimizerConfig::Schedule;
  static constexpr std::array<std::pair<const char*, Schedule>, 3> names{
      {{"constant", Schedule::Constant}, {"cosine", Schedule::Cosine}, {"polynomial", Schedule::Polynomial}}};
};

template <>
struct ConfigNames<CheckpointConfig::OnFailure> {
  using OnFailure = CheckpointConfig::OnFailure;
  static constexpr std::array<std::pair<const char*, OnFailure>, 2> names{
      {{"continue", OnFailure::Continue}, {"stop", OnFailure::Stop}}};
};

template <>
struct ConfigNames<Precision> {
  static constexpr std::array<std::pair<const char*, Precision>, 3> names{
      {{"fp32", Precision::Float32}, {"bf16", Precision::BFloat16}, {"fp64", Precision::Float64}}};
};

namespace {

template <typename Fields>
void describe(Fields& field, DataConfig& data) {
  field("type", data.type);
  field("token_type", data.token_type);
  field("train", data.train, not_empty);
  field("validation", data.validation);
  field("validation_fraction", data.validation_fraction, from_zero_to_below(1));
  field("missing", data.missing);
  field("sequence_length", data.sequence_length, between(1, limits::positions));
}

template <typename Fields>
void describe(Fields& field, ParallelConfig& parallel) {
  field("sequence", parallel.sequence, between(1, limits::ranks));
  field("threads", parallel.threads, between(1, limits::ranks));
  field("transport", parallel.transport);
  field("device", parallel.device);
  field("shard_optimizer", parallel.shard_optimizer);
  field("share_gpu", parallel.share_gpu);
  field("timeout_seconds", parallel.timeout_seconds, between(1, limits::seconds));
}

template <typename Fields>
void describe(Fields& field, OptimizerConfig& optimizer) {
  field("type", optimizer.type);
  field("learning_rate", optimizer.learning_rate, between(0, limits::largest_float));
  field("betas", optimizer.betas, from_zero_to_below(1));
  field("epsilon", optimizer.epsilon, between(limits::smallest_float, limits::largest_float));
  field("weight_decay", optimizer.weight_decay, between(0, limits::largest_float));
  field("schedule", optimizer.schedule);
  field("warmup_steps", optimizer.warmup_steps, between(0, limits::steps));
  field("final_learning_rate", optimizer.final_learning_rate, between(0, limits::largest_float));
  field("power", optimizer.power, between(limits::smallest_float, limits::largest_float));
  field("clip_norm", optimizer.clip_norm, between(0, limits::largest_float));
}

template <typename Fields>
void describe(Fields& field, TrainingConfig& training) {
  field("steps", training.steps, between(1, limits::steps));
  field("batch_size", training.batch_size, between(1, limits::sequences));
  field("micro_batch_size", training.micro_batch_size, between(1, limits::sequences));
  field("precision", training.precision);
  field("recompute", training.recompute);
  field("seed", training.seed, at_least(0));
  field("skipped_steps_limit", training.skipped_steps_limit, between(1, limits::steps));
  field("skip_spikes", training.skip_spikes, between(0, limits::largest_float));
  field("compare_replicas_every_steps", training.compare_replicas_every_steps, between(0, limits::steps));
  field("evaluate_every_steps", training.evaluate_every_steps, between(0, limits::steps));
  field("evaluation_sequences", training.evaluation_sequences, between(1, limits::steps));
}

template <typename Fields>
void describe(Fields& field, CheckpointConfig& checkpoint) {
  field("every_steps", checkpoint.every_steps, between(0, limits::steps));
  field("every_minutes", checkpoint.every_minutes, between(0, limits::minutes));
  field("keep", checkpoint.keep, between(1, limits::steps));
  field("keep_every_steps", checkpoint.keep_every_steps, between(0, limits::steps));
  field("keep_best", checkpoint.keep_best, between(0, limits::steps));
  field("on_failure", checkpoint.on_failure);
}

template <typename Fields>
void describe(Fields& field, LoggingConfig& logging) {
  field("every_steps", logging.every_steps, between(1, limits::steps));
  field("tensorboard", logging.tensorboard);
  field("trace_step", logging.trace_step, between(0, limits::steps));
}

template <typename Section>
void read(ConfigReader& root, const char* key, Section& section, std::initializer_list<const char*> required = {}) {
  auto reader = root.section(key);
  for (const char* name : required) reader.require(name);
  describe(reader, section);
  reader.finish();
}

template <typename Section>
nlohmann::ordered_json written(Section section) {
  ConfigWriter writer;
  describe(writer, section);
  return writer.json;
}

void emit(YAML::Emitter& out, const nlohmann::ordered_json& json) {
  if (json.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      out << YAML::Key << key << YAML::Value;
      emit(out, value);
    }
    out << YAML::EndMap;
  } else if (json.is_array()) {
    out << YAML::Flow << YAML::BeginSeq;
    for (const auto& value : json) emit(out, value);
    out << YAML::EndSeq;
  } else if (json.is_string()) {
    out << json.get<std::string>();
  } else {
    out << json.dump();
  }
}

}  // namespace

Configuration load_configuration(const std::filesystem::path& path, const std::vector<std::string>& assignments) {
  ConfigNode tree = load_config_node(path);
  for (const auto& assignment : assignments) assign(tree, assignment);

  Configuration configuration;
  ConfigReader root(&tree, "", path.string());
  root.require("run");
  root("run", configuration.run, not_empty);
  root.require("model");
  root.section("model");
  if (const ConfigNode* model = tree.find("model")) configuration.model = *model;
  read(root, "data", configuration.data, {"train", "sequence_length"});
  read(root, "parallel", configuration.parallel);
  read(root, "optimizer", configuration.optimizer);
  read(root, "training", configuration.training, {"steps"});
  read(root, "checkpoint", configuration.checkpoint);
  read(root, "logging", configuration.logging);
  root.finish();
  return configuration;
}

nlohmann::ordered_json to_json(const Configuration& configuration, const nlohmann::ordered_json& model) {
  return {{"run", configuration.run},
          {"model", model},
          {"data", written(configuration.data)},
          {"parallel", written(configuration.parallel)},
          {"optimizer", written(configuration.optimizer)},
          {"training", written(configuration.training)},
          {"checkpoint", written(configuration.checkpoint)},
          {"logging", written(configuration.logging)}};
}

std::string to_yaml(const nlohmann::ordered_json& configuration) {
  YAML::Emitter out;
  emit(out, configuration);
  return std::string(out.c_str()) + "\n";
}

}  // namespace longnet
