// Whole models on the weights of their peers, torchscale's LongNet and GigaPath's slide encoder, in float64: outputs,
// loss and gradients, whole and across ranks. LONGNET_GOLDEN_DIR adds files.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/files/safetensors.h"
#include "distributed/mpi/mpi_communicator.h"
#include "models/decoder.h"
#include "models/encoder.h"
#include "models/slide_encoder.h"
#include "tests/device.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr double tolerance = 1e-9;

void add_files(std::set<fs::path>& files, const fs::path& folder, const std::string& model) {
  if (!fs::is_directory(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const auto metadata = SafetensorsFile(entry.path()).metadata();
    if (metadata.contains("model") && metadata.at("model") == model) files.insert(entry.path());
  }
}

std::set<fs::path> files_of(const std::string& model) {
  std::set<fs::path> files;
  add_files(files, fs::path(test::source_folder()) / "tests/golden/torchscale", model);
  if (const char* more = std::getenv("LONGNET_GOLDEN_DIR")) {
    add_files(files, more, model);
    add_files(files, fs::path(more) / "torchscale", model);
  }
  return files;
}

/// A file, and the part of it that this rank computes.
class Torchscale : public testing::Test {
 protected:
  /// The stack that the file's configuration describes; its keys begin with `side`.
  static TransformerConfig stack(const Json& config, const std::string& side) {
    const bool slide = side.empty();
    const auto number = [&](const std::string& key, const char* of_slide) {
      return config.at(slide ? std::string(of_slide) : side + key).get<std::int64_t>();
    };
    TransformerConfig result{.width = number("_embed_dim", "embed_dim"),
                             .layers = number("_layers", "depth"),
                             .heads = number("_attention_heads", "heads"),
                             .feed_forward = number("_ffn_embed_dim", "ffn_dim"),
                             .attention = {config.at("segment_length"), config.at("dilated_ratio"), HeadOffsets::Block},
                             .positions = slide ? Positions::Grid : Positions::None,
                             .compatibility = Compatibility::Torchscale};
    if (!slide && config.value("xpos_rel_pos", false)) result.positions = Positions::Xpos;
    return result;
  }

  Batch batch_of(std::int64_t count, std::int64_t length) const {
    Batch batch{{}, {}, {}, parallel.shard(length)};
    for (std::int64_t sequence = 0; sequence < count; ++sequence) {
      batch.samples.push_back(sequence);
      batch.lengths.push_back(length);
    }
    return batch;
  }

  static at::Tensor own(const at::Tensor& tensor, const SequenceShard& shard, std::int64_t prefix = 0) {
    return tensor
        .slice(1, std::max<std::int64_t>(0, shard.own.begin - prefix),
               std::max<std::int64_t>(0, shard.own.end - prefix))
        .contiguous();
  }

  static void load(const ParameterSet& parameters, const SafetensorsFile& file) {
    for (const Parameter& parameter : parameters.list()) {
      const auto value = file.read(parameter.name);
      ASSERT_EQ(value.sizes(), parameter.value.sizes()) << parameter.name;
      parameter.value.detach().copy_(value);
    }
  }

  static double difference(const at::Tensor& a, const at::Tensor& b) {
    EXPECT_EQ(a.sizes(), b.sizes());
    return a.numel() == 0 ? 0 : (a - b).abs().max().item<double>();
  }

  /// Relative to the largest value where that is above 1.
  static void expect_close(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) {
    const double scale = expected.numel() == 0 ? 1 : std::max(1.0, expected.abs().max().item<double>());
    EXPECT_LE(difference(actual.detach(), expected), tolerance * scale) << what;
  }

  /// Sums the gradients of all ranks and compares them with the file's `kind`.
  void expect_gradients(ParameterSet& parameters, const SafetensorsFile& file, const std::string& kind) const {
    world->all_reduce(parameters.gradients(), Reduction::Sum)->wait();
    for (const Parameter& parameter : parameters.list()) {
      expect_close(parameter.value.grad(), file.read(kind + "." + parameter.name), kind + "." + parameter.name);
    }
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  SequenceParallel parallel{*world};
};

TEST_F(Torchscale, Decoders) {
  const auto files = files_of("LongNetDecoder");
  EXPECT_GE(files.size(), 1U);
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.string());
    const SafetensorsFile file(path);
    const Json config = Json::parse(file.metadata().at("config"));
    Decoder decoder({config.at("vocab_size"), stack(config, "decoder"), config.at("share_decoder_input_output_embed")},
                    parallel, at::kDouble, 1);
    load(decoder.parameters(), file);
    const auto tokens = file.read("input.tokens");
    Batch batch = batch_of(tokens.size(0), tokens.size(1));
    batch.fields["tokens"] = {own(tokens, batch.shard), batch.samples};
    batch.fields["tokens.next"] = {own(file.read("input.targets"), batch.shard), batch.samples};
    Pass pass{.dtype = at::kDouble};
    const auto logits = decoder.logits(decoder.hidden(batch, pass));
    expect_close(logits, own(file.read("output.logits"), batch.shard), "logits");
    for (const bool again : {false, true}) {
      pass.recompute = again;
      decoder.parameters().gradients().zero_();
      const auto count = static_cast<double>(tokens.numel());
      const auto loss = decoder.loss(batch, pass).sum / count;
      loss.backward();
      auto mean = loss.detach().reshape({1});
      world->all_reduce(mean, Reduction::Sum)->wait();
      EXPECT_NEAR(mean.item<double>(), file.read("output.loss").item<double>(), tolerance);
      expect_gradients(decoder.parameters(), file, "grad_true");
    }
  }
}

TEST_F(Torchscale, Encoders) {
  const auto files = files_of("LongNetEncoder");
  EXPECT_GE(files.size(), 1U);
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.string());
    const SafetensorsFile file(path);
    EncoderConfig config{.embed_frames = false,
                         .stack = {.transformer = stack(Json::parse(file.metadata().at("config")), "encoder")}};
    config.channels = config.stack.transformer.width;
    Encoder encoder(config, parallel, at::kDouble, 1);
    load(encoder.parameters(), file);
    const auto input = file.read("input.token_embeddings");
    const Batch batch = batch_of(input.size(0), input.size(1));
    const auto x = own(input, batch.shard).requires_grad_();
    const auto out = encoder.hidden(encoder.embed(x, batch, at::kDouble), batch, {.dtype = at::kDouble});
    expect_close(out, own(file.read("output.out"), batch.shard), "out");
    (out * own(file.read("input.dout"), batch.shard)).sum().backward();
    expect_gradients(encoder.parameters(), file, "grad_true");
    expect_close(x.grad(), own(file.read("grad_true.input.token_embeddings"), batch.shard), "input");
  }
}

TEST_F(Torchscale, SlideEncoders) {
  const auto files = files_of("GigaPath LongNetViT");
  EXPECT_GE(files.size(), 2U);
  for (const fs::path& path : files) {
    const SafetensorsFile file(path);
    const Json config = Json::parse(file.metadata().at("config"));
    const bool loss_of_mean = file.metadata().at("loss_global_pool") == "true";
    for (const bool corrected : {false, true}) {
      const std::string suffix = corrected ? "_corrected" : "";
      if (!file.contains("output" + suffix + ".cls.all")) continue;
      for (const Pooling pooling : {Pooling::ClassToken, Pooling::Mean}) {
        const bool mean = pooling == Pooling::Mean;
        SCOPED_TRACE(path.string() + suffix + (mean ? " mean" : " class token"));
        SlideEncoderConfig settings{.channels = config.at("in_chans"),
                                    .cell = config.at("tile_size"),
                                    .transformer = stack(config, ""),
                                    .pooling = pooling};
        if (corrected) settings.transformer.compatibility = Compatibility::None;
        SlideEncoder model(settings, parallel, at::kDouble, 1);
        load(model.parameters(), file);
        const auto tiles = file.read("input.tiles");
        Batch batch = batch_of(tiles.size(0), tiles.size(1) + 1);
        const auto own_tiles = own(tiles, batch.shard, 1).requires_grad_();
        batch.fields["tiles"] = {own_tiles, batch.samples};
        batch.fields["coords"] = {own(file.read("input.coords"), batch.shard, 1), batch.samples};
        const auto [all, last] = model.embed(batch, {.dtype = at::kDouble});
        const std::string prefix = "output" + suffix + (mean ? ".pool." : ".cls.");
        expect_close(all.transpose(0, 1), file.read(prefix + "all"), "all");
        expect_close(last, file.read(prefix + "last"), "last");

        if (mean != loss_of_mean) continue;
        const auto loss =
            (all.transpose(0, 1) * file.read("input.dout_all")).sum() + (last * file.read("input.dout_last")).sum();
        (loss * (batch.shard.is_first() ? 1 : 0)).backward();
        const std::string kind = corrected ? "grad_corrected" : "grad_true";
        expect_gradients(model.parameters(), file, kind);
        expect_close(own_tiles.grad(), own(file.read(kind + ".input.tiles"), batch.shard, 1), "tiles");
      }
    }
  }
}

/// 50 tiles and the class token do not divide into segments: torchscale's zero keys matter.
TEST_F(Torchscale, RowsThatTorchscaleMisplacesAreRefused) {
  const TransformerConfig config{.width = 8,
                                 .layers = 1,
                                 .heads = 2,
                                 .feed_forward = 8,
                                 .attention = {{10, 100}, {4, 1}, HeadOffsets::Block},
                                 .compatibility = Compatibility::Torchscale};
  EXPECT_THROW(coverage_warning(config, 11), ConfigError);
  EXPECT_NO_THROW(coverage_warning(config, 10));
}

}  // namespace
}  // namespace longnet
