// The decoder: begins as its peer does, and one token at a time it equals itself.

#include "models/decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/attention/row_cache.h"
#include "distributed/mpi/mpi_communicator.h"
#include "models/sampler.h"
#include "tests/device.h"

namespace longnet {
namespace {

class DecoderTest : public testing::Test {
 protected:
  Batch batch_of(const at::Tensor& tokens, const at::Tensor& targets) {
    const auto shard = parallel.shard(tokens.size(1));
    const auto part = [&](const at::Tensor& tensor) {
      return tensor.slice(1, shard.own.begin, shard.own.end).contiguous();
    };
    std::vector<std::int64_t> samples;
    for (std::int64_t i = 0; i < tokens.size(0); ++i) samples.push_back(i);
    const std::vector<std::int64_t> lengths(samples.size(), tokens.size(1));
    return {{{"tokens", {part(tokens), samples}}, {"tokens.next", {part(targets), samples}}}, samples, lengths, shard};
  }

  static Pass exact() {
    Pass pass;
    pass.dtype = at::kDouble;
    return pass;
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  SequenceParallel parallel{*world};
};

DecoderConfig small(Positions positions, bool tied) {
  return {.vocabulary = 17,
          .transformer = {.width = 24,
                          .layers = 2,
                          .heads = 6,
                          .feed_forward = 32,
                          .attention = {{8, 20, 1000}, {1, 3, 5}, HeadOffsets::Cyclic},
                          .positions = positions,
                          .dropout = 0},
          .tied_embeddings = tied};
}

TEST_F(DecoderTest, TiedEmbeddingsAreOneParameter) {
  Decoder tied(small(Positions::Rope, true), parallel, at::kDouble, 1),
      untied(small(Positions::Rope, false), parallel, at::kDouble, 1);
  EXPECT_EQ(tied.parameters().count() + 17 * 24, untied.parameters().count());
  for (const Parameter& parameter : tied.parameters().list()) EXPECT_NE(parameter.name, "output_projection.weight");
}

TEST_F(DecoderTest, BeginsAsThePeerDoes) {
  Decoder decoder(small(Positions::Rope, false), parallel, at::kDouble, 1);
  const double gain = std::sqrt(std::log(4.0)), width = 24, feed_forward = 32;
  for (const Parameter& parameter : decoder.parameters().list()) {
    const auto value = parameter.value.detach();
    const double largest = value.abs().max().item<double>();
    const auto ends = [&](const char* text) { return parameter.name.find(text) != std::string::npos; };
    if (ends("q_proj") || ends("k_proj")) {
      EXPECT_LE(largest, 1 / std::sqrt(width));
      EXPECT_GT(largest, 0.5 / std::sqrt(width));
    } else if (ends("v_proj") || ends("out_proj") || ends("fc1")) {
      EXPECT_LE(largest, gain / std::sqrt(width));
      EXPECT_GT(largest, 0.8 * gain / std::sqrt(width)) << parameter.name;
    } else if (ends("fc2")) {
      EXPECT_LE(largest, gain / std::sqrt(feed_forward));
    } else if (ends("embed_tokens") || ends("output_projection")) {
      EXPECT_NEAR(value.std().item<double>(), 1 / std::sqrt(width), 0.03);
    } else {
      EXPECT_TRUE(value.eq(ends("weight") ? 1 : 0).all().item<bool>()) << parameter.name;
    }
  }
}

TEST_F(DecoderTest, OneTokenAtATimeEqualsAFullForward) {
  if (world->size() > 1) GTEST_SKIP() << "generation works on one rank";
  for (const Positions positions : {Positions::Rope, Positions::None}) {
    Decoder decoder(small(positions, false), parallel, at::kDouble, 3);
    const std::int64_t length = 90;  // past several segments of 8 and of 20
    const auto tokens = at::randint(17, {1, length}, at::kLong);
    const auto full = decoder.logits(decoder.hidden(batch_of(tokens, tokens), exact()));
    for (const std::int64_t prompt : {1, 7, 8, 9, 20, 43}) {
      DecoderSession session(decoder, at::kDouble);
      auto logits = session.begin(tokens[0].slice(0, 0, prompt));
      for (std::int64_t position = prompt; position < length; ++position) {
        ASSERT_TRUE(at::allclose(logits, full[0][position - 1], 1e-10, 1e-10))
            << "prompt " << prompt << ", position " << position - 1;
        logits = session.next(tokens[0][position].item<std::int64_t>());
      }
      EXPECT_TRUE(at::allclose(logits, full[0][length - 1], 1e-10, 1e-10));
    }
  }
}

TEST(RowCache, HoldsTheRowsOfTheCurrentSegmentsAndNoMore) {
  const std::int64_t heads = 4;
  const Mixture mixture = make_mixture({8, 32}, {1, 4}, HeadOffsets::Cyclic);
  RowCache cache(mixture, heads);
  for (std::int64_t position = 0; position < 100; ++position) {
    const auto row = at::randn({1, 1, heads, 2});
    cache.attend(row, row, row);
    const std::int64_t next = position + 1, in_first = next % 8, in_second = next % 32;
    EXPECT_EQ(cache.row_count(), heads * in_first + in_second)
        << "each head keeps every fourth, and there are four offsets";
  }
}

TEST(Sampler, ObeysItsSettings) {
  const auto logits = at::tensor({1.0, 3.0, 2.0, -std::numeric_limits<double>::infinity()});
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{1});
  const auto draws = [&](const SamplerSettings& settings) {
    std::vector<int> counts(4);
    for (int i = 0; i < 3000; ++i) ++counts[static_cast<std::size_t>(sample_token(logits, settings, generator))];
    return counts;
  };
  EXPECT_EQ(draws({0, 0, 1})[1], 3000) << "temperature 0";
  EXPECT_EQ(draws({1, 1, 1})[1], 3000) << "top-k 1";
  EXPECT_EQ(draws({1, 0, 0.5})[1], 3000) << "the likeliest alone has 0.665";
  const auto two = draws({1, 0, 0.7});
  EXPECT_EQ(two[0], 0);
  EXPECT_GT(two[2], 0);
  const auto all = draws({1, 0, 1});
  EXPECT_NEAR(all[1] / 3000.0, 0.665, 0.04);
  EXPECT_NEAR(all[0] / 3000.0, 0.090, 0.03);
  EXPECT_EQ(all[3], 0);
  EXPECT_NEAR(draws({2, 0, 1})[1] / 3000.0, 0.506, 0.04) << "temperature 2 flattens";
}

}  // namespace
}  // namespace longnet
