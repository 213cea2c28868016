// What only a GPU can show: its kernels against the plain one, its own code against the CPU's, a step that nothing
// waits for. Everything else runs from the CPU's test sources (see tests/device.h).

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <fstream>

#include "core/attention/dilated_attention.h"
#include "core/attention/kernels/kernels.h"
#include "core/cuda/device.h"
#include "core/layers/dropout.h"
#include "core/layers/layer_norm.h"
#include "core/layers/linear_cross_entropy.h"
#include "core/layers/rotary.h"
#include "core/training/adamw.h"
#include "core/training/clipping.h"
#include "distributed/mpi/mpi_communicator.h"
#include "distributed/nccl/nccl_communicator.h"
#include "launch/training/resume.h"
#include "launch/training/training_step.h"
#include "tests/device.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Rows as tiles show them: heads that step through neighbouring tokens, rows that are `rate` tokens apart.
at::Tensor strided(std::int64_t segments, std::int64_t heads, std::int64_t rows, std::int64_t width,
                   at::ScalarType dtype) {
  const std::int64_t rate = 4, segment = rate * rows + heads, places = segments * segment;
  const auto memory = at::randn({places, heads, width}, at::kDouble).to(test::on(dtype));
  const std::int64_t place = heads * width;
  return memory.as_strided({segments, heads, rows, width}, {segment * place, width + place, rate * place, 1});
}

struct KernelTest {
  at::Tensor q, k, v, out_gradient;
  KernelTest(std::int64_t rows, std::int64_t keys, std::int64_t width, at::ScalarType dtype) {
    at::manual_seed(7);
    q = strided(2, 3, rows, width, dtype);
    k = strided(2, 3, keys, width, dtype);
    v = strided(2, 3, keys, width, dtype);
    out_gradient = strided(2, 3, rows, width, dtype);
  }

  static double error(const at::Tensor& actual, const at::Tensor& expected) {
    return ((actual.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
  }

  /// `forward` and `backward` against the plain kernel in float64 on the same values.
  void expect_close(bool causal, const kernels::OptionalBias& bias, double tolerance, const auto& forward,
                    const auto& backward) const {
    const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kDouble); };
    const kernels::OptionalBias wide_bias = bias ? kernels::OptionalBias(wide(*bias)) : std::nullopt;
    const auto expected = kernels::plain(wide(q), wide(k), wide(v), causal, wide_bias);
    const KernelOutput actual = forward(q, k, v, causal, bias);
    EXPECT_LT(error(actual.out, expected.out), tolerance);
    EXPECT_TRUE(actual.lse.isinf().equal(expected.lse.isinf()));
    EXPECT_TRUE(at::allclose(wide(actual.lse), expected.lse, 1e-3, 1e-3));

    // Half of a larger softmax: out and lse are those of these keys and as many again. In q's layout, as in training.
    const auto like_q = [&](const at::Tensor& values) {
      auto result = at::empty_strided(q.sizes(), q.strides(), q.options());
      result.copy_(values);
      return result;
    };
    const auto out = like_q(expected.out * 0.75), gradient = like_q(out_gradient);
    const auto lse = (expected.lse + std::log(2.0)).masked_fill(expected.lse.eq(-infinity), infinity);
    const auto reference =
        kernels::plain_backward({wide(gradient), wide(q), wide(k), wide(v), wide(out), lse, causal, wide_bias});
    const KernelGradients gradients = backward({gradient, q, k, v, out, lse.to(at::kFloat), causal, bias});
    EXPECT_LT(error(gradients.q, reference.q), tolerance);
    EXPECT_LT(error(gradients.k, reference.k), tolerance);
    EXPECT_LT(error(gradients.v, reference.v), tolerance);
  }
};

constexpr double bfloat16_error = 1e-2, float16_error = 2e-3, float32_error = 2e-5;

TEST(CudaFlash, AgreesWithThePlainKernel) {
  const auto forward = [](const auto& q, const auto& k, const auto& v, bool causal, const auto&) {
    return kernels::cuda_flash(q, k, v, causal);
  };
  for (const std::int64_t width : {8, 64, 128}) {
    KernelTest(200, 200, width, at::kBFloat16)
        .expect_close(true, {}, bfloat16_error, forward, kernels::cuda_flash_backward);
    KernelTest(77, 130, width, at::kHalf).expect_close(false, {}, float16_error, forward, kernels::cuda_flash_backward);
  }
}

TEST(Cudnn, AgreesWithThePlainKernel) {
  if (compute_capability(test::device()) / 10 < 9) GTEST_SKIP() << "chosen on Hopper and Blackwell only";
  const auto forward = [](const auto& q, const auto& k, const auto& v, bool causal, const auto&) {
    return kernels::cudnn(q, k, v, causal);
  };
  for (const std::int64_t width : {64, 128}) {
    KernelTest(600, 600, width, at::kBFloat16).expect_close(true, {}, bfloat16_error, forward, kernels::cudnn_backward);
    KernelTest(513, 700, width, at::kHalf).expect_close(false, {}, float16_error, forward, kernels::cudnn_backward);
  }
}

TEST(Efficient, AgreesWithThePlainKernelWithAndWithoutMask) {
  for (const auto& [dtype, tolerance] :
       {std::pair(at::kFloat, float32_error), std::pair(at::kBFloat16, bfloat16_error)}) {
    for (const bool causal : {false, true}) {
      for (const bool masked : {false, true}) {
        const std::int64_t keys = causal ? 150 : 99;
        const KernelTest problem(150, keys, 64, dtype);
        kernels::OptionalBias bias;
        if (masked) {
          bias = at::zeros({2, 3, 1, keys}, test::on(dtype));
          bias->masked_fill_(at::rand({2, 3, 1, keys}).gt(0.5).to(test::device()), -infinity);
          bias->select(0, 1).select(0, 2).fill_(-infinity);  // a head without a key
        }
        problem.expect_close(causal, bias, tolerance, kernels::efficient, kernels::efficient_backward);
      }
    }
  }
}

/// Attention and its gradients on a device, brought back to the CPU.
std::vector<at::Tensor> attend(const Mixture& mixture, const std::vector<at::Tensor>& inputs, c10::Device device,
                               at::ScalarType dtype) {
  std::vector<at::Tensor> leaves;
  for (int i = 0; i < 3; ++i) leaves.push_back(inputs[i].to(at::TensorOptions(device).dtype(dtype)).requires_grad_());
  const auto& q = leaves[0];
  const auto plan =
      std::make_shared<AttentionPlan>(plan_attention(mixture, q.size(2), true, q.size(1), {0, q.size(1)}));
  const auto out = dilated_attention(q, leaves[1], leaves[2], plan).out;
  auto results = torch::autograd::grad({out}, leaves, {inputs[3].to(out.options())});
  results.push_back(out.detach());
  for (auto& result : results) result = result.to(at::TensorOptions(at::kCPU).dtype(at::kDouble));
  return results;
}

TEST(DilatedAttention, OnTheGpuIsThatOnTheCpu) {
  at::manual_seed(9);
  const Mixture mixture = make_mixture({600, 1200, 5000}, {1, 2, 6}, HeadOffsets::Cyclic);
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < 4; ++i) inputs.push_back(at::randn({2, 3001, 12, 64}));
  const auto expected = attend(mixture, inputs, at::kCPU, at::kDouble);
  for (const auto& [dtype, tolerance] :
       {std::pair(at::kDouble, 1e-12), std::pair(at::kFloat, float32_error), std::pair(at::kBFloat16, bfloat16_error),
        std::pair(at::kHalf, float16_error)}) {
    const auto actual = attend(mixture, inputs, test::device(), dtype);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LT(KernelTest::error(actual[i], expected[i]), tolerance) << c10::toString(dtype) << ", result " << i;
    }
  }
}

TEST(Dropout, DropsOnTheGpuWhatItDropsOnTheCpu) {
  for (const std::int64_t channels : {1, 6, 64}) {
    const auto x = at::randn({2, 301, channels}, at::kFloat);
    const DropoutSite site{7, 3, {4, 9}, 1'000'000'007, 2, 1};
    EXPECT_TRUE(dropout(x.to(test::device()), 0.3, site).cpu().equal(dropout(x, 0.3, site)));
  }
}

TEST(Rotary, OnTheGpuIsThatOnTheCpu) {
  for (const auto& [dtype, tolerance] :
       {std::pair(at::kDouble, 1e-13), std::pair(at::kFloat, 1e-6), std::pair(at::kBFloat16, 1e-2)}) {
    const auto run = [&](c10::Device device) {
      at::manual_seed(4);
      const auto options = at::TensorOptions(device).dtype(dtype);
      const auto x = at::randn({2, 37, 3, 10}, at::kDouble).to(options).requires_grad_();
      const auto gradient = at::randn({2, 37, 3, 10}, at::kDouble).to(options);
      const auto y = rotate(x, rotary_rotations({999'999'000, 999'999'037}, 10, options));
      return std::pair(y.detach().cpu(), torch::autograd::grad({y}, {x}, {gradient})[0].cpu());
    };
    const auto expected = run(at::kCPU), actual = run(test::device());
    EXPECT_TRUE(at::allclose(actual.first, expected.first, tolerance, tolerance));
    EXPECT_TRUE(at::allclose(actual.second, expected.second, tolerance, tolerance));
  }
}

TEST(LayerNorm, OnTheGpuIsThatOnTheCpu) {
  for (const std::int64_t width : {8, 40, 768, 3072, 7, 20000}) {  // the last two are LibTorch's own
    for (const auto& [dtype, tolerance] : {std::pair(at::kDouble, 1e-12), std::pair(at::kFloat, float32_error),
                                           std::pair(at::kBFloat16, bfloat16_error)}) {
      at::manual_seed(3);
      const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); };
      // A mean of a thousand deviations: what subtracts squares of float32 has no digit left.
      const auto x = (random({2, 701, width}) + (dtype == at::kBFloat16 ? 1 : 1000)).to(dtype),
                 gradient = random({2, 701, width}).to(dtype);
      const auto weight = random({width}), bias = random({width});
      const auto run = [&](c10::Device device, at::ScalarType type, at::ScalarType parameters) {
        const auto leaf = [&](const at::Tensor& values, at::ScalarType as) {
          return values.to(at::TensorOptions(device).dtype(as)).detach().requires_grad_();
        };
        const auto x_leaf = leaf(x, type), w = leaf(weight, parameters), b = leaf(bias, parameters);
        const auto y = layer_norm(x_leaf, w, b, 1e-5);
        auto results = torch::autograd::grad({y}, {x_leaf, w, b}, {gradient.to(y.options())});
        results.push_back(y.detach());
        for (auto& result : results) result = result.to(at::TensorOptions(at::kCPU).dtype(at::kDouble));
        return results;
      };
      const auto expected = run(at::kCPU, at::kDouble, at::kDouble);
      const auto actual = run(test::device(), dtype, dtype == at::kDouble ? at::kDouble : at::kFloat);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_LT(KernelTest::error(actual[i], expected[i]), tolerance * (dtype == at::kFloat ? 10 : 1))
            << c10::toString(dtype) << ", width " << width << ", result " << i;
      }
    }
  }
}

TEST(CrossEntropy, OnTheGpuIsThatOnTheCpu) {
  at::manual_seed(2);
  for (const std::int64_t vocabulary : {3, 256, 5003}) {
    const auto hidden = at::randn({57, 16}, at::kDouble), weight = at::randn({vocabulary, 16}, at::kDouble);
    auto targets = at::randint(vocabulary, {57}, at::kLong);
    targets[5] = ignored_target;
    const auto run = [&](c10::Device device) {
      const auto h = hidden.to(device).detach().requires_grad_(), w = weight.to(device).detach().requires_grad_();
      const auto loss = linear_cross_entropy(h, w, targets.to(device), 10 * vocabulary);
      auto results = torch::autograd::grad({loss.sum}, {h, w});
      results.push_back(loss.token);
      for (auto& result : results) result = result.cpu();
      return results;
    };
    const auto expected = run(at::kCPU), actual = run(test::device());
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(at::allclose(actual[i], expected[i], 1e-12, 1e-12)) << i;
  }
}

TEST(CrossEntropy, LetsANonFiniteLogitThrough) {
  for (const double value : {infinity, static_cast<double>(NAN)}) {
    auto hidden = at::ones({3, 4}, test::on(at::kFloat));
    hidden[1][2] = value;
    const auto loss =
        linear_cross_entropy(hidden, at::ones({9, 4}, test::on(at::kFloat)), at::zeros({3}, test::on(at::kLong)));
    EXPECT_FALSE(loss.sum.isfinite().item<bool>());
  }
}

TEST(Attention, LetsANonFiniteValueThrough) {
  for (const auto dtype : {at::kDouble, at::kBFloat16}) {
    auto q = at::ones({1, 64, 4, 64}, test::on(dtype));
    q[0][40] = NAN;
    const auto plan = std::make_shared<AttentionPlan>(
        plan_attention(make_mixture({16, 64}, {1, 2}, HeadOffsets::Cyclic), 4, true, 64, {0, 64}));
    EXPECT_TRUE(dilated_attention(q, q, q, plan).out[0][40].isnan().all().item<bool>());
  }
}

TEST(AdamW, SkipsOnTheGpu) {
  ParameterSet parameters(test::on(at::kFloat), 1);
  parameters.add("matrix", {3, 2}, normal(1));
  parameters.flatten();
  AdamW optimizer(parameters, {{0, parameters.count()}}, {});
  parameters.gradients().fill_(1);
  const auto before = parameters.values().clone();
  optimizer.update(0.1, at::ones({1}, test::on(at::kFloat)));
  EXPECT_TRUE(parameters.values().equal(before));
  EXPECT_TRUE(optimizer.states()[0].second.eq(0).all().item<bool>());
  optimizer.update(0.1, at::zeros({1}, test::on(at::kFloat)));
  EXPECT_FALSE(parameters.values().equal(before));
  EXPECT_NEAR(global_norm(parameters.gradients()).item<double>(), std::sqrt(6.0), 1e-6);
}

/// Turns any wait of the host for the GPU, as LibTorch knows it, into an error.
struct NoWaiting {
  NoWaiting() { c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR); }
  ~NoWaiting() { c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED); }
};

TEST(TrainingStep, NeverMakesTheHostWait) {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "text") << std::string(20000, 'a') << std::string(20000, 'b');
  for (const char* precision : {"bf16", "fp32"}) {
    std::ofstream(folder.path() / "config.yaml") << "run: " << (folder.path() / "run").string() << R"(
model:
  type: decoder
  vocabulary: 128
  width: 128
  layers: 2
  heads: 2
  feed_forward: 256
  attention: {segments: [64, 200, 2000], rates: [1, 2, 4]}
  dropout: 0.1
  tied_embeddings: true
data: {train: [)" << (folder.path() / "text").string()
                                                 << R"(], sequence_length: 4096}
parallel: {device: cuda}
optimizer: {clip_norm: 0.5}
training: {steps: 10, batch_size: 2, recompute: true, precision: )"
                                                 << precision << "}\n";
    Job job = start_job(make_mpi_world(), {(folder.path() / "config.yaml").string(), {}});
    Training training = begin_training(job);
    training_step(training).result();  // plans, memory and libraries are ready after it
    StartedStep started;
    {
      const NoWaiting guard;
      training_step(training);
      started = training_step(training);
    }
    EXPECT_TRUE(std::isfinite(started.result().loss));
    EXPECT_GT(started.result().seconds, 0);
  }
}

}  // namespace
}  // namespace longnet
