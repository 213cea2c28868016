#pragma once

/// The largest numbers that a configuration takes. They lie beyond all models, data and machines that there are; and what
/// the program multiplies (a model's parameters, a step's tokens, their bytes) stays within 64 bits up to them.
namespace longnet::limits {

constexpr double layers = 10'000;
constexpr double width = 1 << 20;             ///< channels of a position, and the heads among which they are divided
constexpr double feed_forward = 1 << 22;      ///< channels
constexpr double stride = 1 << 16;            ///< rows of a field that make up a position
constexpr double tokens = 2'147'483'647;      ///< different ones; classes, too
constexpr double positions = 68'719'476'736;  ///< of a sequence, a segment, a rate, a grid's cell: 2 to the 36th
constexpr double sequences = 1 << 24;         ///< of a step
constexpr double steps = 1e12;                ///< and whatever is counted in them
constexpr double ranks = 1 << 20;             ///< and threads
constexpr double seconds = 1e9;
constexpr double minutes = 1e7;
constexpr double smallest_float = 1.2e-38;  ///< below, what precision fp32 and bf16 compute with would be 0
constexpr double largest_float = 3.4e38;

}  // namespace longnet::limits
