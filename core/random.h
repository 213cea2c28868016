#pragma once

#include <cstdint>
#include <initializer_list>

namespace longnet {

/// 64 random-looking bits that are a pure function of `values`: for all that must not depend on the order in which
/// ranks draw numbers. (XXH3)
std::uint64_t hash(std::initializer_list<std::uint64_t> values);

}  // namespace longnet
