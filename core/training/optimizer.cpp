#include "core/training/optimizer.h"

#include "core/error.h"
#include "core/training/adamw.h"

namespace longnet {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, ParameterSet& parameters,
                                          const std::vector<Range>& parts) {
  switch (config.type) {
    case OptimizerConfig::Type::AdamW:
      return std::make_unique<AdamW>(parameters, parts,
                                     AdamWSettings{config.betas, config.epsilon, config.weight_decay});
  }
  throw Error("an optimizer of no known type");
}

}  // namespace longnet
