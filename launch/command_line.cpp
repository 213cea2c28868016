#include "launch/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <sstream>
#include <utility>
#include <vector>

#include "core/configuration/spelling.h"
#include "launch/commands/commands.h"
#include "launch/job/version.h"

namespace longnet {
namespace {

using OnFailure = std::function<void(const CommunicationError&)>;

constexpr const char* description =
    "Trains LongNet models, transformers with dilated attention, on sequences that several ranks share.\n\n"
    "Examples:\n"
    "  mpirun -np 2 longnet train configs/quickstart.yaml\n"
    "  mpirun -np 2 longnet train configs/quickstart.yaml --set training.steps=400   (goes on from the last "
    "checkpoint)\n"
    "  mpirun -np 2 longnet eval configs/quickstart.yaml --contexts 512,4096\n"
    "  longnet checkpoint import configs/slide-encoder.yaml slide_encoder.pth\n"
    "  longnet generate configs/quickstart.yaml --prompt '#include <' --tokens 300 --temperature 0.8\n\n"
    "Exit codes: 0 done, 2 configuration or usage, 3 data, 4 checkpoint unusable or not to be saved, 5 training "
    "diverged,\n"
    "6 communication failed, 75 stopped on request (SIGINT, SIGTERM, SIGHUP or SIGUSR1) with a checkpoint saved, or "
    "before "
    "the first\n"
    "step, 1 anything else, as a disk that is full.";

/// Of an option with text: CLI11 takes an empty one, as a variable of a script that is not set, for none.
CLI::Validator filled() {
  return {[](std::string& text) { return text.empty() ? std::string("is empty") : std::string(); }, ""};
}

/// Of an option with a whole number. CLI11 would take one that is too long for the largest that there is, and 010 for 8.
template <typename Number>
CLI::Validator whole_number(Number least) {
  return {[least](std::string& text) -> std::string {
            Number value{};
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            if (error == std::errc::result_out_of_range) return "'" + text + "' is beyond 64 bits";
            if (error != std::errc() || end != text.data() + text.size()) return "'" + text + "' is no whole number";
            if (text.size() > 1 && text.front() == '0') return "'" + text + "' must not begin with a zero";
            return value < least ? text + " is below " + std::to_string(least) : "";
          },
          ""};
}

void add_job_options(CLI::App* command, JobOptions& options) {
  command->add_option("config", options.config, "The configuration, a YAML file")->required()->check(filled());
  command->add_option("--set", options.assignments, "Replaces one value: key.path=value. May be given several times")
      ->allow_extra_args(false);
}

void add_allowed_changes(CLI::App* command, JobOptions& options) {
  command
      ->add_option("--allow-change", options.allowed_changes,
                   "Goes on although this differs from the checkpoint: data, data.type, data.sequence_length or "
                   "training.seed. May be given several times")
      ->allow_extra_args(false);
}

void add_checkpoint_options(CLI::App* command, CheckpointOptions& options) {
  command
      ->add_option("--checkpoint", options.checkpoint,
                   "A checkpoint's folder instead of the run's newest; none: the weights of a new model")
      ->check(filled());
  add_allowed_changes(command, options);
}

CLI::App* describe(CLI::App& app, TrainOptions& options) {
  CLI::App* command = app.add_subcommand("train", "Trains a model, or goes on with it");
  add_job_options(command, options);
  command
      ->add_option("--resume", options.resume,
                   "auto: from the run's newest checkpoint, if any; none; or a checkpoint's folder")
      ->check(filled())
      ->take_last()
      ->capture_default_str();
  add_allowed_changes(command, options);
  return command;
}

CLI::App* describe(CLI::App& app, EvalOptions& options) {
  CLI::App* command = app.add_subcommand("eval", "Loss and metrics on held-out data, by context length");
  add_job_options(command, options);
  add_checkpoint_options(command, options);
  command
      ->add_option("--contexts", options.contexts,
                   "Context lengths, as 512,4096. By default the training length and three halvings")
      ->delimiter(',')
      ->check(whole_number<std::int64_t>(1));
  command->add_option("--tokens", options.tokens, "How many tokens to evaluate; 0: all")
      ->capture_default_str()
      ->check(whole_number<std::int64_t>(0));
  command
      ->add_option("--outputs", options.outputs,
                   "A folder for what the model says about each sequence, a safetensors file each. For models "
                   "without a loss: outputs in the run folder")
      ->check(filled());
  return command;
}

CLI::App* describe(CLI::App& app, GenerateOptions& options) {
  CLI::App* command = app.add_subcommand("generate", "Continues a prompt, on one rank");
  add_job_options(command, options);
  add_checkpoint_options(command, options);
  command->add_option("--prompt", options.prompt, "Text; bases; or token numbers, as the data are")->required();
  command->add_option("--tokens", options.tokens, "How many tokens to generate")
      ->capture_default_str()
      ->check(whole_number<std::int64_t>(0));
  command->add_option("--temperature", options.temperature, "0: always the likeliest token")->capture_default_str();
  command->add_option("--top-k", options.top_k, "Only the k likeliest tokens; 0: all")
      ->capture_default_str()
      ->check(whole_number<std::int64_t>(0));
  command->add_option("--top-p", options.top_p, "Only the likeliest tokens that together have this probability")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of the random draws")
      ->capture_default_str()
      ->check(whole_number<std::uint64_t>(0));
  return command;
}

CLI::App* describe(CLI::App& app, AttendOptions& options) {
  CLI::App* command = app.add_subcommand("attend", "Shows what queries look at: their weights over all positions");
  add_job_options(command, options);
  add_checkpoint_options(command, options);
  command->add_option("--sequence", options.sequence, "Which sequence of the held-out data")
      ->capture_default_str()
      ->check(whole_number<std::int64_t>(0));
  command
      ->add_option("--queries", options.queries,
                   "Positions in the sequence, as 0,100; where the model has a class token, that is position 0")
      ->required()
      ->delimiter(',')
      ->check(whole_number<std::int64_t>(0));
  command
      ->add_option("--attention", options.attentions,
                   "Which, as layers.0.self_attn. May be given several times; by "
                   "default all")
      ->allow_extra_args(false)
      ->check(filled());
  command
      ->add_option("--output", options.output,
                   "A folder for weights.safetensors, (queries, heads, positions) for each attention, and an "
                   "image of each, a row a query and head. By default attention in the run folder")
      ->check(filled());
  return command;
}

CLI::App* describe(CLI::App& checkpoint, ImportOptions& options) {
  CLI::App* command = checkpoint.add_subcommand(
      "import", "Makes the first checkpoint of a run out of published weights: torchscale's, GigaPath's");
  add_job_options(command, options);
  command->add_option("weights", options.weights, "A safetensors file, or one of torch.save")
      ->required()
      ->check(filled());
  command
      ->add_option("--initialize", options.initialize,
                   "Parameters whose names begin so keep the values of a new model. May be given several "
                   "times")
      ->allow_extra_args(false)
      ->check(filled());
  command
      ->add_option("--ignore", options.ignore, "Tensors whose names begin so are left out. May be given several times")
      ->allow_extra_args(false)
      ->check(filled());
  return command;
}

std::vector<std::string> names(const CLI::App& app) {
  std::vector<std::string> result;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    result.push_back(command->get_name());
  }
  return result;
}

/// A misspelt command, which CLI11 takes for a surplus argument.
void require_known(const CLI::App& app, const char* word) {
  const std::vector<std::string> known = names(app);
  if (word == nullptr || *word == '-' || std::find(known.begin(), known.end(), word) != known.end()) return;
  throw ConfigError(std::string("unknown command '") + word + "'" + suggestion(word, known));
}

/// All options live here until the command has run.
struct CommandLine {
  CLI::App app{description, "longnet"};
  TrainOptions train;
  EvalOptions eval;
  GenerateOptions generate;
  AttendOptions attend;
  ImportOptions import;
};

/// Adds a command; `request` becomes it if the user names it.
template <typename Options, typename Run>
void add(CLI::App& app, Options& options, const OnFailure& on_failure, Request& request, Run run) {
  CLI::App* command = describe(app, options);
  command->callback([=, &options, &request] {
    options.on_failure = on_failure;
    request.command = command->get_name();
    request.run = [&options, run](std::unique_ptr<Communicator> world, Process& process) {
      return run(std::move(world), options, process);
    };
  });
}

}  // namespace

Request parse_command_line(int argc, char** argv, const OnFailure& on_failure) {
  const auto line = std::make_shared<CommandLine>();
  CLI::App& app = line->app;
  app.require_subcommand(1);
  app.set_version_flag("--version", version);
  Request request;
  add(app, line->train, on_failure, request, [](auto world, const TrainOptions& options, Process& process) {
    return train(std::move(world), options, process);
  });
  add(app, line->eval, on_failure, request,
      [](auto world, const EvalOptions& options, Process&) { return eval(std::move(world), options); });
  add(app, line->generate, on_failure, request,
      [](auto world, const GenerateOptions& options, Process&) { return generate(std::move(world), options); });
  add(app, line->attend, on_failure, request,
      [](auto world, const AttendOptions& options, Process&) { return attend(std::move(world), options); });
  CLI::App* checkpoint = app.add_subcommand("checkpoint", "Works on checkpoints");
  checkpoint->require_subcommand(1);
  add(*checkpoint, line->import, on_failure, request,
      [](auto world, const ImportOptions& options, Process&) { return checkpoint_import(std::move(world), options); });

  try {
    if (argc > 1) require_known(app, argv[1]);
    if (argc > 2 && std::string(argv[1]) == "checkpoint") require_known(*checkpoint, argv[2]);
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw ConfigError(std::string(error.what()) + "; see longnet --help");
    std::ostringstream text;
    app.exit(error, text, text);
    return {"help", text.str(), false, {}};
  } catch (const ConfigError& error) {
    throw ConfigError(std::string(error.what()) + "; see longnet --help");
  }
  request.saves = request.command == "train";
  request.run = [line, run = request.run](std::unique_ptr<Communicator> world, Process& process) {
    return run(std::move(world), process);
  };
  return request;
}

}  // namespace longnet
