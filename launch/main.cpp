#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <functional>
#include <optional>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/mpi/mpi_communicator.h"
#include "distributed/mpi/mpi_environment.h"
#include "launch/commands/commands.h"
#include "launch/job/signals.h"
#include "launch/job/version.h"

namespace longnet {
namespace {

constexpr int usage_exit_code = 2;

constexpr const char* description =
    "Trains LongNet models, transformers with dilated attention, on sequences that several ranks share.\n\n"
    "Examples:\n"
    "  mpirun -np 2 longnet train configs/quickstart.yaml\n"
    "  mpirun -np 2 longnet train configs/quickstart.yaml --set training.steps=400   (goes on from the last "
    "checkpoint)\n"
    "  mpirun -np 2 longnet eval configs/quickstart.yaml --contexts 512,4096\n"
    "  longnet checkpoint import configs/slide-encoder.yaml slide_encoder.pth\n"
    "  longnet generate configs/quickstart.yaml --prompt '#include <' --tokens 300 --temperature 0.8\n\n"
    "Exit codes: 0 done, 2 configuration or usage, 3 data, 4 checkpoint unusable, 5 training diverged, 6 communication "
    "failed,\n"
    "75 stopped on request (SIGUSR1 or SIGTERM) with a checkpoint saved.";

void add_job_options(CLI::App* command, JobOptions& options) {
  command->add_option("config", options.config, "The configuration, a YAML file")->required();
  command->add_option("--set", options.assignments, "Replaces one value: key.path=value. May be given several times")
      ->allow_extra_args(false);
}

void add_checkpoint_option(CLI::App* command, std::string& checkpoint) {
  command->add_option("--checkpoint", checkpoint,
                      "A checkpoint's folder instead of the run's newest; none: the weights of a new model");
}

/// The command line, and what it says.
struct CommandLine {
  CLI::App app{description, "longnet"};
  TrainOptions train;
  EvalOptions eval;
  GenerateOptions generate;
  AttendOptions attend;
  ImportOptions import;
  CLI::App *train_command, *eval_command, *generate_command, *attend_command, *import_command;

  CommandLine() {
    app.require_subcommand(1);
    app.set_version_flag("--version", version);

    train_command = app.add_subcommand("train", "Trains a model, or goes on with it");
    add_job_options(train_command, train);
    train_command
        ->add_option("--resume", train.resume,
                     "auto: from the run's newest checkpoint, if any; none; or a checkpoint's folder")
        ->capture_default_str();

    eval_command = app.add_subcommand("eval", "Loss and metrics on held-out data, by context length");
    add_job_options(eval_command, eval);
    add_checkpoint_option(eval_command, eval.checkpoint);
    eval_command
        ->add_option("--contexts", eval.contexts,
                     "Context lengths, as 512,4096. By default the training length and three halvings")
        ->delimiter(',');
    eval_command->add_option("--tokens", eval.tokens, "How many tokens to evaluate; 0: all")->capture_default_str();
    eval_command->add_option(
        "--outputs", eval.outputs,
        "A folder for what the model says about each sequence, a safetensors file each. For models "
        "without a loss: outputs in the run folder");

    generate_command = app.add_subcommand("generate", "Continues a prompt, on one rank");
    add_job_options(generate_command, generate);
    add_checkpoint_option(generate_command, generate.checkpoint);
    generate_command->add_option("--prompt", generate.prompt, "Text; bases; or token numbers, as the data are")
        ->required();
    generate_command->add_option("--tokens", generate.tokens, "How many tokens to generate")->capture_default_str();
    generate_command->add_option("--temperature", generate.temperature, "0: always the likeliest token")
        ->capture_default_str();
    generate_command->add_option("--top-k", generate.top_k, "Only the k likeliest tokens; 0: all")
        ->capture_default_str();
    generate_command
        ->add_option("--top-p", generate.top_p, "Only the likeliest tokens that together have this probability")
        ->capture_default_str();
    generate_command->add_option("--seed", generate.seed, "Of the random draws")->capture_default_str();

    attend_command = app.add_subcommand("attend", "Shows what queries look at: their weights over all positions");
    add_job_options(attend_command, attend);
    add_checkpoint_option(attend_command, attend.checkpoint);
    attend_command->add_option("--sequence", attend.sequence, "Which sequence of the held-out data")
        ->capture_default_str();
    attend_command
        ->add_option("--queries", attend.queries,
                     "Positions in the sequence, as 0,100; where the model has a class token, that is position 0")
        ->required()
        ->delimiter(',');
    attend_command
        ->add_option("--attention", attend.attentions,
                     "Which, as layers.0.self_attn. May be given several times; by "
                     "default all")
        ->allow_extra_args(false);
    attend_command->add_option(
        "--output", attend.output,
        "A folder for weights.safetensors, (queries, heads, positions) for each attention, and an "
        "image of each, a row a query and head. By default attention in the run folder");

    auto* checkpoint_command = app.add_subcommand("checkpoint", "Works on checkpoints");
    checkpoint_command->require_subcommand(1);
    import_command = checkpoint_command->add_subcommand(
        "import", "Makes the first checkpoint of a run out of published weights: torchscale's, GigaPath's");
    add_job_options(import_command, import);
    import_command->add_option("weights", import.weights, "A safetensors file, or one of torch.save")->required();
    import_command
        ->add_option("--initialize", import.initialize,
                     "Parameters whose names begin so keep the values of a new model. May be given several "
                     "times")
        ->allow_extra_args(false);
    import_command
        ->add_option("--ignore", import.ignore, "Tensors whose names begin so are left out. May be given several times")
        ->allow_extra_args(false);
  }

  /// The exit code if the command line is all there is to do: help, the version, or a mistake.
  std::optional<int> parse(int argc, char** argv, bool first) {
    try {
      app.parse(argc, argv);
      return {};
    } catch (const CLI::ParseError& error) {
      const bool mistake = error.get_exit_code() != 0;
      if (first) mistake ? std::fprintf(stderr, "longnet: %s; see longnet --help\n", error.what()) : app.exit(error);
      return mistake ? usage_exit_code : 0;
    }
  }

  int run(SignalWatch& signals, const std::function<void(const CommunicationError&)>& on_failure) {
    auto world = make_mpi_world();
    for (JobOptions* options :
         {static_cast<JobOptions*>(&train), static_cast<JobOptions*>(&eval), static_cast<JobOptions*>(&generate),
          static_cast<JobOptions*>(&attend), static_cast<JobOptions*>(&import)}) {
      options->on_failure = on_failure;
    }
    if (train_command->parsed()) return longnet::train(std::move(world), train, signals);
    signals.release();
    if (eval_command->parsed()) return longnet::eval(std::move(world), eval);
    if (attend_command->parsed()) return longnet::attend(std::move(world), attend);
    if (import_command->parsed()) return checkpoint_import(std::move(world), import);
    return longnet::generate(std::move(world), generate);
  }
};

int run(int argc, char** argv) {
  SignalWatch signals;
  const MpiEnvironment mpi(argc, argv);
  const int rank = mpi.world_rank();
  CommandLine command_line;
  if (const auto code = command_line.parse(argc, argv, rank == 0)) return *code;
  try {
    return command_line.run(signals, [&](const CommunicationError& error) {
      std::fprintf(stderr, "longnet: %s\n", error.what());
      mpi.abort(error.exit_code());
    });
  } catch (const AgreedError& error) {
    if (rank == 0) std::fprintf(stderr, "longnet: %s\n", error.what());
    return error.exit_code();
  } catch (const Error& error) {  // this rank's alone: the others may wait for it
    std::fprintf(stderr, "longnet: rank %d: %s\n", rank, error.what());
    mpi.abort(error.exit_code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "longnet: rank %d: internal error: %s\n", rank, error.what());
    mpi.abort(1);
  }
}

}  // namespace
}  // namespace longnet

int main(int argc, char** argv) {
  try {
    return longnet::run(argc, argv);
  } catch (const std::exception& error) {  // MPI itself did not start
    std::fprintf(stderr, "longnet: %s\n", error.what());
    return 6;
  }
}
