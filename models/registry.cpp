#include "models/registry.h"

#include <array>

#include "core/configuration/config_section.h"
#include "models/decoder.h"
#include "models/encoder.h"
#include "models/multimodal.h"
#include "models/slide_encoder.h"

namespace longnet {
namespace {

struct ModelType {
  const char* name;
  ModelSpecification (*specify)(ConfigReader reader);
};

/// Every model of the program.
constexpr std::array model_types{
    ModelType{"decoder", &specify_decoder},
    ModelType{"encoder", &specify_encoder},
    ModelType{"multimodal", &specify_multimodal},
    ModelType{"slide_encoder", &specify_slide_encoder},
};

}  // namespace

ModelSpecification specify_model(const ConfigNode& section) {
  ConfigReader reader(&section, "model", section.place);
  reader.require_first("type");
  std::string type, known;
  reader("type", type);
  for (const ModelType& candidate : model_types) {
    if (type == candidate.name) return candidate.specify(reader);
    known += (known.empty() ? "" : ", ") + std::string(candidate.name);
  }
  reader.fail("type", "is '" + type + "', but must be one of " + known);
}

}  // namespace longnet
