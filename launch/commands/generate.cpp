#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/data/fasta.h"
#include "core/error.h"
#include "distributed/agreement.h"
#include "launch/commands/commands.h"
#include "launch/training/resume.h"
#include "models/decoder.h"
#include "models/sampler.h"

namespace longnet {
namespace {

/// How tokens of a data type are written: text as it is, bases as letters, other tokens as numbers.
std::vector<std::int64_t> encode(DataType type, const std::string& prompt) {
  std::vector<std::int64_t> tokens;
  if (type == DataType::Tokens) {
    const char* at = prompt.data();
    const char* end = at + prompt.size();
    while (at != end) {
      std::int64_t token = 0;
      const auto [next, error] = std::from_chars(at, end, token);
      if (error != std::errc()) throw ConfigError("--prompt: token data want numbers, separated by spaces");
      tokens.push_back(token);
      at = next;
      while (at != end && *at == ' ') ++at;
    }
    return tokens;
  }
  const std::string letters = fasta_letters;
  for (const char letter : prompt) {
    if (type == DataType::Text) {
      tokens.push_back(static_cast<unsigned char>(letter));
    } else if (const auto place = letters.find(letter); place != std::string::npos) {
      tokens.push_back(static_cast<std::int64_t>(place));
    } else {
      throw ConfigError(std::string("--prompt: '") + letter + "' is none of " + letters);
    }
  }
  return tokens;
}

void print(DataType type, std::int64_t token) {
  if (type == DataType::Text && token < 256) {  // a model may have a larger vocabulary than its bytes
    std::putchar(static_cast<int>(token));
  } else if (type == DataType::Fasta && token < fasta_vocabulary) {
    std::putchar(fasta_letters[token]);
  } else {
    std::printf("%lld ", static_cast<long long>(token));
  }
  std::fflush(stdout);
}

at::Tensor finite(at::Tensor logits) {
  if (logits.isfinite().all().item<bool>()) return logits;
  throw AgreedError(
      DivergenceError("what the model gives is not finite: its weights are not, or they overflow in this precision; "
                      "take an earlier checkpoint (--checkpoint)"));
}

void check(const GenerateOptions& options, int ranks) {
  if (ranks != 1) throw ConfigError("generate works on one rank; start it with mpirun -np 1, or without mpirun");
  if (!(options.temperature >= 0) || std::isinf(options.temperature)) {
    throw ConfigError("--temperature must be a number, and not negative");
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) throw ConfigError("--top-p must be above 0 and at most 1");
}

}  // namespace

int generate(std::unique_ptr<Communicator> world, const GenerateOptions& options) {
  agree(*world, [&] { check(options, world->size()); });
  JobOptions job_options = options;
  job_options.assignments.emplace_back("parallel.sequence=1");  // whatever the training used
  job_options.reads_data = false;
  Job job = start_job(std::move(world), job_options);
  auto* decoder = dynamic_cast<Decoder*>(job.model.get());
  if (decoder == nullptr) throw AgreedError(ConfigError("generate needs a model of type decoder"));

  // A token of a small model is too little work to share: threads would wait for each other all the time.
  constexpr std::int64_t small_model = 30'000'000;
  if (!job.configuration.parallel.threads && decoder->parameters().count() < small_model) at::set_num_threads(1);

  const DataType type = job.configuration.data.type;
  std::vector<std::int64_t> prompt;
  agree(*job.mesh.world, [&] {
    prompt = encode(type, options.prompt);
    if (prompt.empty()) throw ConfigError("--prompt is empty; give at least one token");
    for (const std::int64_t token : prompt) {
      if (token < 0 || token >= decoder->config().vocabulary) {
        throw ConfigError("--prompt: token " + std::to_string(token) + " is outside the vocabulary");
      }
    }
  });
  restore_weights(job, options.checkpoint, options.allowed_changes);
  print_warnings(job);

  auto generator = at::detail::createCPUGenerator(options.seed);
  const SamplerSettings sampling{options.temperature, options.top_k, options.top_p};
  DecoderSession session(*decoder, job.activation_dtype());
  auto logits = finite(session.begin(at::tensor(prompt).to(job.device)));
  for (const std::int64_t token : prompt) print(type, token);
  for (std::int64_t count = 0; count < options.tokens; ++count) {
    const std::int64_t token = sample_token(logits, sampling, generator);
    print(type, token);
    if (count + 1 < options.tokens) logits = finite(session.next(token));
  }
  std::putchar('\n');
  return 0;
}

}  // namespace longnet
