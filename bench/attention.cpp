// Dilated attention against LibTorch's dense causal flash kernel, in the same run.
//
//   build/release/bin/bench_attention --benchmark_counters_tabular=true
//
// FLOP/s counts useful work: 4 * D operations a (query, key) pair forward, 10 * D more backward. Divide a Dilated row
// by the Dense row of the same N for the ratio of rates; compare their times for the speed-up.

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/attention/dilated_attention.h"

namespace longnet {
namespace {

constexpr std::int64_t heads = 12, width = 64;

std::shared_ptr<AttentionPlan> plan(const Mixture& mixture, std::int64_t length) {
  return std::make_shared<AttentionPlan>(plan_attention(mixture, heads, true, length, {0, length}));
}

Mixture papers_mixture() {
  return make_mixture({2048, 4096, 8192, 16384, 32768}, {1, 2, 4, 6, 12}, HeadOffsets::Cyclic);
}

at::Tensor dense(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto heads_first = [](const at::Tensor& tensor) { return tensor.transpose(1, 2); };
  return std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(heads_first(q), heads_first(k), heads_first(v),
                                                                     0.0,
                                                                     /*is_causal=*/true))
      .transpose(1, 2);
}

template <typename Attention>
void measure(benchmark::State& state, std::int64_t pairs, bool backward, const Attention& attention) {
  at::manual_seed(1);
  const auto input = [&] { return at::randn({1, state.range(0), heads, width}).requires_grad_(backward); };
  const auto q = input(), k = input(), v = input(), out_gradient = at::randn_like(q);
  for (auto _ : state) {
    const auto out = attention(q, k, v);
    if (backward) benchmark::DoNotOptimize(torch::autograd::grad({out}, {q, k, v}, {out_gradient}));
  }
  const double flops = static_cast<double>(pairs) * static_cast<double>(width) * (backward ? 14 : 4);
  state.counters["useful_flops"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void Dense(benchmark::State& state, bool backward) {
  const std::int64_t length = state.range(0);
  measure(state, heads * length * (length + 1) / 2, backward, dense);
}

void Dilated(benchmark::State& state, bool backward) {
  const auto dilated = plan(papers_mixture(), state.range(0));
  measure(state, score_pairs(*dilated), backward, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return dilated_attention(q, k, v, dilated).out;
  });
}

constexpr auto with = [](benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(8192)->Arg(32768)->Unit(benchmark::kMillisecond)->UseRealTime();
};

BENCHMARK_CAPTURE(Dense, forward, false)->Apply(with);
BENCHMARK_CAPTURE(Dilated, forward, false)->Apply(with);
BENCHMARK_CAPTURE(Dense, forward_backward, true)->Apply(with);
BENCHMARK_CAPTURE(Dilated, forward_backward, true)->Apply(with);

}  // namespace
}  // namespace longnet
