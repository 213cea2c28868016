#include <cmath>
#include <cstdio>
#include <numbers>

#include "core/error.h"
#include "distributed/agreement.h"
#include "launch/commands.h"
#include "launch/evaluation.h"
#include "launch/restore.h"

namespace longnet {
namespace {

const char* bits_name(DataType type) {
  switch (type) {
    case DataType::Text:
      return "bits/byte";
    case DataType::Fasta:
      return "bits/base";
    default:
      return "bits/token";
  }
}

/// The training length, a half, a quarter and an eighth of it.
std::vector<std::int64_t> default_contexts(std::int64_t length) {
  std::vector<std::int64_t> contexts;
  for (const std::int64_t part : {8, 4, 2, 1}) {
    if (length / part > 0) contexts.push_back(length / part);
  }
  return contexts;
}

}  // namespace

int eval(std::unique_ptr<Communicator> world, const EvalOptions& options) {
  Job job = start_job(std::move(world), options);
  const auto contexts =
      options.contexts.empty() ? default_contexts(job.configuration.data.sequence_length) : options.contexts;
  const auto checkpoint = restore_weights(job, options.checkpoint);
  const TokenDataset& data = job.data.validation;
  agree(*job.mesh.world, [&] {
    for (const std::int64_t context : contexts) {
      if (context < 1) throw ConfigError("--contexts: " + std::to_string(context) + " is below 1");
      data.require_window(context);
    }
  });

  const bool first = job.mesh.is_first();
  if (first) {
    std::printf("%s on held-out data\n%10s %12s %10s %12s %12s\n", checkpoint.c_str(), "context", "tokens", "loss",
                "perplexity", bits_name(job.configuration.data.type));
  }
  for (const std::int64_t context : contexts) {
    const auto result = evaluate(job, context, options.tokens > 0 ? options.tokens : data.size());
    if (!first) continue;
    std::printf("%10lld %12lld %10.4f %12.4f %12.4f\n", static_cast<long long>(context),
                static_cast<long long>(result.tokens), result.loss, std::exp(result.loss),
                result.loss / std::numbers::ln2);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace longnet
