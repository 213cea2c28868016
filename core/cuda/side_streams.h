#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

namespace longnet::cuda {

/// Calls `work` with 0 to count - 1. What it gives a GPU to do runs on a few streams beside the current one, so that a call that is
/// too small for the whole GPU, or that ends unevenly, runs beside the next: no call may need the results of another. Begins after what
/// the current stream has been given so far; what that is given later begins when all calls have ended. The host waits for
/// nothing.
///
/// A tensor that `work` makes belongs to a side stream. It may be used on the current stream after this function, and freed at any
/// time: its memory serves that side stream again, and side streams begin after the current one.
void on_side_streams(c10::Device device, std::int64_t count, const std::function<void(std::int64_t)>& work);

}  // namespace longnet::cuda
