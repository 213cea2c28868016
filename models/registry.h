#pragma once

#include "core/configuration/config_node.h"
#include "models/model.h"

namespace longnet {

/// Reads the section `model` of a configuration with the model that its key `type` names. Throws ConfigError.
ModelSpecification specify_model(const ConfigNode& section);

}  // namespace longnet
