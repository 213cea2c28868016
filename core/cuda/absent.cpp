// Stands in for all of core's CUDA code in a build without CUDA: there is no GPU, and nothing that needs one works.

#include "core/attention/cuda/join_parts.h"
#include "core/cuda/device.h"
#include "core/cuda/side_streams.h"
#include "core/cuda/trace.h"
#include "core/error.h"
#include "core/layers/cuda/cross_entropy.h"
#include "core/layers/cuda/dropout.h"
#include "core/layers/cuda/layer_norm.h"
#include "core/layers/cuda/rotary.h"

namespace longnet {
namespace {

[[noreturn]] void refuse() {
  throw Error("this longnet was built without CUDA; build it with -DLONGNET_CUDA=ON");
}

}  // namespace

int device_count() {
  return 0;
}

std::string device_identity(int) {
  refuse();
}

c10::Device select_device(int) {
  refuse();
}

int compute_capability(c10::Device) {
  refuse();
}

std::int64_t peak_device_bytes(c10::Device) {
  refuse();
}

TraceRange::TraceRange(const char*) {}
TraceRange::~TraceRange() = default;

namespace cuda {

void on_side_streams(c10::Device, std::int64_t, const std::function<void(std::int64_t)>&) {
  refuse();
}

void merge_parts(const std::vector<Part>&, at::Tensor&, at::Tensor&) {
  refuse();
}

void sum_parts(const std::vector<Part>&, at::Tensor&) {
  refuse();
}

at::Tensor cross_entropy(at::Tensor&, const at::Tensor&, std::int64_t, bool) {
  refuse();
}

void dropout(const at::Tensor&, at::Tensor&, const DropoutMask&, const std::vector<std::int64_t>&) {
  refuse();
}

bool takes_layer_norm(std::int64_t, at::ScalarType) {
  return false;
}

LayerNormOutput layer_norm(const at::Tensor&, const at::Tensor&, const at::Tensor&, double) {
  refuse();
}

LayerNormGradients layer_norm_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                       const at::Tensor&) {
  refuse();
}

at::Tensor rotate(const at::Tensor&, const at::Tensor&, bool) {
  refuse();
}

}  // namespace cuda
}  // namespace longnet
