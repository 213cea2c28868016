// Attention on a GPU, measured with CUDA events. Prints one JSON object a line: see tests/gpu/run.sh, which makes a
// table of them.
//
//   attention   the paper's segments and rates, H = 12, D = 64, causal, bfloat16, against LibTorch's own choice of a
//               dense kernel
//   kernel      one call of each kernel by rows: what core/attention/kernel_choice.h decides between

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "core/attention/dilated_attention.h"
#include "core/attention/kernels/kernels.h"
#include "core/cuda/device.h"

namespace longnet {
namespace {

constexpr std::int64_t heads = 12, width = 64;
constexpr double forward_operations = 4 * width, backward_operations = 10 * width;  // a (query, key) pair
constexpr c10::DeviceType cuda = c10::DeviceType::CUDA;

/// The median time of `work`, in milliseconds.
double milliseconds(int repetitions, const std::function<void()>& work) {
  const auto record = [](c10::Event& event) {
    event.record(c10::impl::VirtualGuardImpl(cuda).getStream(c10::Device(cuda, 0)));
  };
  for (int i = 0; i < 2; ++i) work();
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    c10::Event begin(cuda, c10::EventFlag::BACKEND_DEFAULT), end(cuda, c10::EventFlag::BACKEND_DEFAULT);
    record(begin);
    work();
    record(end);
    end.synchronize();
    times.push_back(begin.elapsedTime(end));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Inputs {
  at::Tensor q, k, v, out_gradient;
  explicit Inputs(std::int64_t length) {
    const auto options = at::TensorOptions(cuda).dtype(at::kBFloat16);
    const auto input = [&] { return at::randn({1, length, heads, width}, options); };
    q = input().requires_grad_();
    k = input().requires_grad_();
    v = input().requires_grad_();
    out_gradient = input();
  }
};

using Attention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

void measure(const char* name, std::int64_t length, double pairs, const Attention& attention) {
  const Inputs x(length);
  const int repetitions = length > 200000 ? 3 : 10;
  const double forward = milliseconds(repetitions, [&] { attention(x.q, x.k, x.v); });
  const double both = milliseconds(repetitions, [&] {
    torch::autograd::grad({attention(x.q, x.k, x.v)}, {x.q, x.k, x.v}, {x.out_gradient});
  });
  const auto rate = [&](double operations, double time) { return pairs * operations / time * 1e-9; };
  std::printf(
      "{\"what\":\"attention\",\"name\":\"%s\",\"length\":%lld,\"forward_ms\":%.4f,\"both_ms\":%.4f,"
      "\"forward_tflops\":%.1f,\"both_tflops\":%.1f}\n",
      name, static_cast<long long>(length), forward, both, rate(forward_operations, forward),
      rate(forward_operations + backward_operations, both));
  std::fflush(stdout);
}

void measure_attention() {
  const Mixture mixture = make_mixture({2048, 4096, 8192, 16384, 32768}, {1, 2, 4, 6, 12}, HeadOffsets::Cyclic);
  for (const std::int64_t length : {32768, 131072}) {
    const double pairs = static_cast<double>(heads) * static_cast<double>(length) * static_cast<double>(length + 1) / 2;
    measure("dense", length, pairs, [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      const auto heads_first = [](const at::Tensor& tensor) { return tensor.transpose(1, 2); };
      return at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), {}, 0, true)
          .transpose(1, 2);
    });
  }
  for (const std::int64_t length : {32768, 131072, 1048576}) {
    const auto plan = std::make_shared<AttentionPlan>(plan_attention(mixture, heads, true, length, {0, length}));
    measure("dilated", length, static_cast<double>(score_pairs(*plan)),
            [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
              return dilated_attention(q, k, v, plan).out;
            });
  }
}

/// One call as a tile of rate 4 makes it: 16384 rows a head in all, in segments of `rows`.
void measure_kernel(std::int64_t rows, std::int64_t head_width, bool causal) {
  const auto options = at::TensorOptions(cuda).dtype(at::kBFloat16);
  const std::int64_t segments = 16384 / rows, rate = 4, place = heads * head_width;
  const auto tensor = [&] {
    return at::randn({segments * rows * rate, heads, head_width}, options)
        .as_strided({segments, heads, rows, head_width}, {rows * rate * place, head_width, rate * place, 1});
  };
  const auto q = tensor(), k = tensor(), v = tensor(), gradient = tensor(), out = tensor();
  const auto lse = at::full({segments, heads, rows}, 10.0, options.dtype(at::kFloat));
  const kernels::OptionalBias none;
  const kernels::BackwardCall call{gradient, q, k, v, out, lse, causal, none};
  const auto report = [&](const char* name, const std::function<void()>& forward,
                          const std::function<void()>& backward) {
    std::printf("{\"what\":\"kernel\",\"name\":\"%s\",\"rows\":%lld,\"width\":%lld,\"causal\":%s,", name,
                static_cast<long long>(rows), static_cast<long long>(head_width), causal ? "true" : "false");
    try {
      const double forward_ms = milliseconds(10, forward), backward_ms = milliseconds(10, backward);
      std::printf("\"forward_ms\":%.4f,\"backward_ms\":%.4f}\n", forward_ms, backward_ms);
    } catch (const std::exception&) {
      std::printf("\"forward_ms\":null,\"backward_ms\":null}\n");
    }
    std::fflush(stdout);
  };
  report(
      "flash", [&] { kernels::cuda_flash(q, k, v, causal); }, [&] { kernels::cuda_flash_backward(call); });
  report(
      "cudnn", [&] { kernels::cudnn(q, k, v, causal); }, [&] { kernels::cudnn_backward(call); });
}

void measure_kernels() {
  for (const std::int64_t rows : {128, 256, 512, 1024, 2048, 4096, 16384}) measure_kernel(rows, 64, true);
  for (const std::int64_t rows : {256, 512, 2048, 16384}) measure_kernel(rows, 64, false);
  for (const std::int64_t rows : {128, 256, 512, 2048, 16384}) measure_kernel(rows, 128, true);
}

}  // namespace
}  // namespace longnet

int main() {
  if (longnet::device_count() == 0) {
    std::printf("skipped: this benchmark needs a GPU, and this process sees none\n");
    return 77;
  }
  longnet::select_device(0);
  longnet::measure_attention();
  longnet::measure_kernels();
}
