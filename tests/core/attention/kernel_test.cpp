// The choice of a kernel, the kernel that serves every case, and how results of kernels are found again.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "core/attention/kernel_choice.h"
#include "core/attention/kernels/kernels.h"
#include "core/attention/part.h"
#include "core/attention/plan.h"
#include "core/attention/views.h"

namespace longnet {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

TEST(KernelChoice, FollowsItsTable) {
  const KernelCase hopper{true, 90, at::kBFloat16, 64, 2048, 2048, false, true};
  const auto changed = [&](auto&& change) {
    KernelCase call = hopper;
    change(call);
    return choose_kernel(call);
  };
  EXPECT_EQ(choose_kernel(hopper), Kernel::Cudnn);
  EXPECT_EQ(changed([](auto& call) { call.cuda = false; }), Kernel::CpuFlash);
  EXPECT_EQ(changed([](auto& call) { call.compute_capability = 80; }), Kernel::CudaFlash);
  EXPECT_EQ(changed([](auto& call) { call.compute_capability = 75; }), Kernel::Plain);
  EXPECT_EQ(changed([](auto& call) { call.compute_capability = 120; }), Kernel::CudaFlash);
  EXPECT_EQ(changed([](auto& call) { call.rows = 127; }), Kernel::CudaFlash);
  EXPECT_EQ(changed([](auto& call) { call.keys = 100; }), Kernel::CudaFlash);
  EXPECT_EQ(changed([](auto& call) { call.head_width = 192; }), Kernel::CudaFlash);
  EXPECT_EQ(changed([](auto& call) { call.head_width = 512; }), Kernel::Plain);
  EXPECT_EQ(changed([](auto& call) { call.dtype = at::kHalf; }), Kernel::Cudnn);
  EXPECT_EQ(changed([](auto& call) { call.dtype = at::kFloat; }), Kernel::Efficient);
  EXPECT_EQ(changed([](auto& call) { call.dtype = at::kDouble; }), Kernel::Plain);
  EXPECT_EQ(changed([](auto& call) { call.masked = true; }), Kernel::Efficient);
  EXPECT_EQ(changed([](auto& call) { call.aligned = false; }), Kernel::Plain);
}

TEST(PlainKernel, AgreesWithTheFlashKernel) {
  at::manual_seed(3);
  for (const bool causal : {false, true}) {
    for (const bool masked : {false, true}) {
      const std::int64_t keys = causal ? 13 : 9;
      const auto input = [](std::int64_t rows) { return at::randn({2, 3, rows, 5}, at::kDouble); };
      const auto q = input(13), k = input(keys), v = input(keys), out_gradient = input(13);
      kernels::OptionalBias bias;
      if (masked) {
        bias = at::zeros({2, 3, 1, keys}, at::kDouble).masked_fill_(at::rand({2, 3, 1, keys}).gt(0.5), -infinity);
        bias->select(0, 0).select(0, 0).fill_(-infinity);  // a head without a key
      }
      const auto expected = kernels::cpu_flash(q, k, v, causal, bias), actual = kernels::plain(q, k, v, causal, bias);
      EXPECT_TRUE(at::allclose(actual.out, expected.out, 1e-12, 1e-12));
      EXPECT_TRUE(at::allclose(actual.lse, expected.lse, 1e-12, 1e-12));
      const auto lse = expected.lse.masked_fill(expected.lse.eq(-infinity), infinity);
      const kernels::BackwardCall call{out_gradient, q, k, v, expected.out, lse, causal, bias};
      const auto a = kernels::plain_backward(call), b = kernels::cpu_flash_backward(call);
      EXPECT_TRUE(at::allclose(a.q, b.q, 1e-12, 1e-12));
      EXPECT_TRUE(at::allclose(a.k, b.k, 1e-12, 1e-12));
      EXPECT_TRUE(at::allclose(a.v, b.v, 1e-12, 1e-12));
    }
  }
}

/// Compares the places of a call's rows with tile_view, for every row of a tensor.
void expect_found(const at::Tensor& numbers, const Tile& tile, const RowView& view, std::int64_t call) {
  const auto rows = tile_view(numbers, tile, view, call);  // (batch, heads, rows), each its own number
  const PartRows part = part_rows(tile, view, call);
  std::int64_t found = 0;
  for (std::int64_t sequence = 0; sequence < numbers.size(0); ++sequence) {
    if (!part.holds_sequence(sequence)) continue;
    for (std::int64_t head = 0; head < part.heads; ++head) {
      const auto places = part.places_of(head);
      for (std::int64_t place = 0; place < numbers.size(1); ++place) {
        const auto at = places.find(place);
        const auto narrow = narrowed(places).find(static_cast<std::int32_t>(place));
        ASSERT_EQ(narrow.found, at.found);
        if (!at.found) continue;
        ++found;
        ASSERT_EQ(narrow.segment, at.segment);
        ASSERT_EQ(narrow.row, at.row);
        const std::int64_t batch = part.segments > 1 ? at.segment : sequence;
        ASSERT_EQ(rows[batch][head][at.row].item<std::int64_t>(),
                  numbers[sequence][place][part.first_head + head * part.head_stride].item<std::int64_t>());
      }
    }
  }
  EXPECT_EQ(found, rows.numel()) << "every row of the call, and no other";
}

TEST(PartRows, FindWhatAViewShows) {
  for (unsigned seed = 0; seed < 25; ++seed) {
    std::mt19937 random(seed);
    const auto number = [&](int low, int high) {
      return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    const std::int64_t batch = number(1, 2), length = number(2, 40), heads = number(1, 6);
    Mixture mixture{{}, number(0, 1) == 0 ? HeadOffsets::Cyclic : HeadOffsets::Block};
    for (int branch = 0; branch < 3; ++branch) mixture.branches.push_back({number(1, 45), number(1, 8)});
    const std::int64_t begin = number(0, static_cast<int>(length) - 1);
    const auto plan = plan_attention(mixture, heads, number(0, 1) == 0, length, {begin, length});
    const auto count = [&](std::int64_t places) {
      return at::arange(batch * places * heads, at::kLong).view({batch, places, heads});
    };
    for (const Tile& tile : plan.own_tiles) {
      for (std::int64_t call = 0; call < call_count(batch, tile); ++call) {
        expect_found(count(length - begin), tile, tile.queries, call);
      }
    }
    for (const CrossingSegment& segment : plan.crossings) {
      for (const Tile& tile : segment.tiles) expect_found(count(segment.buffer_rows), tile, tile.keys, 0);
    }
  }
}

TEST(PartRows, HoldABillionPlaces) {
  const std::int64_t length = 1'000'000'000, heads = 16;
  const auto plan = plan_attention(make_mixture({2048, 1 << 20, length}, {1, 512, 1 << 19}, HeadOffsets::Cyclic), heads,
                                   true, length, {0, length});
  for (const Tile& tile : plan.own_tiles) {
    const PartRows part = part_rows(tile, tile.queries, 0);
    const std::int64_t segment = tile.segments - 1, head = tile.heads.count - 1, row = tile.queries.count - 1;
    const std::int64_t place = tile.queries.first + segment * tile.queries.segment_step +
                               head * tile.queries.head_step + row * tile.queries.row_step;
    const auto at = part.places_of(head).find(place);
    EXPECT_TRUE(at.found);
    EXPECT_EQ(at.row, row);
    EXPECT_EQ(at.segment, segment);
    const auto narrow = narrowed(part.places_of(head)).find(static_cast<std::int32_t>(place));
    EXPECT_TRUE(narrow.found);
    EXPECT_EQ(narrow.row, row);
  }
}

}  // namespace
}  // namespace longnet
