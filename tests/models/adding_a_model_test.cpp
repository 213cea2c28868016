// The model that docs/adding-a-model.md shows: it is a model like all others.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/configuration/config_section.h"
#include "core/error.h"
#include "distributed/mpi/mpi_communicator.h"
#include "models/model.h"
#include "tests/device.h"
#include "tests/temporary_folder.h"

namespace longnet {

ModelSpecification specify_forecaster(ConfigReader reader);  // from the page

namespace {

ModelSpecification specify(const std::string& model) {
  const test::TemporaryFolder folder;
  const auto root = load_config_node(folder.write("c.yaml", "model: {" + model + "}"));
  ConfigReader reader(root.find("model"), "model", "");
  std::string type;
  reader("type", type);
  return specify_forecaster(reader);
}

const std::string good =
    "type: forecaster, channels: 3, width: 16, layers: 2, heads: 4, feed_forward: 32, attention: {segments: [8, 64], "
    "rates: [1, 3]}";

/// Loss and gradients of a sequence that the ranks of `world` share.
at::Tensor gradients_over(Communicator& world, double& loss) {
  SequenceParallel parallel(world);
  const auto model = specify(good).build(parallel, at::kDouble, 3);
  at::manual_seed(1);
  const auto frames = at::randn({2, 51, 3}, at::kDouble);
  const auto shard = parallel.shard(50);
  const auto part = [&](std::int64_t shift) { return frames.slice(1, shard.own.begin + shift, shard.own.end + shift); };
  const std::vector<std::int64_t> both{0, 1};
  const Batch batch{{{"frames", {part(0), both}}, {"frames.next", {part(1), both}}}, both, {50, 50}, shard};
  const auto result = model->loss(batch, {.dtype = at::kDouble});
  EXPECT_EQ(result.count.item<std::int64_t>(), 2 * shard.size());
  result.sum.backward();
  auto sum = result.sum.detach().reshape({1});
  world.all_reduce(sum, Reduction::Sum)->wait();
  loss = sum.item<double>();
  world.all_reduce(model->parameters().gradients(), Reduction::Sum)->wait();
  return model->parameters().gradients();
}

TEST(AddingAModel, ThePagesModelDoesNotDependOnTheRankCount) {
  const auto world = make_mpi_world();
  const auto single = world->split(world->rank());
  double loss = 0, expected_loss = 0;
  const auto gradients = gradients_over(*world, loss), expected = gradients_over(*single, expected_loss);
  EXPECT_NEAR(loss, expected_loss, 1e-10 * expected_loss);
  EXPECT_TRUE(at::allclose(gradients, expected, 1e-10, 1e-10));
  EXPECT_GT(expected.abs().max().item<double>(), 0.1);
}

TEST(AddingAModel, ThePagesModelRefusesWhatItDoesNotKnow) {
  EXPECT_THROW(specify(good + ", colour: red"), ConfigError);
  EXPECT_EQ(specify(good).json.at("channels"), 3);
}

}  // namespace
}  // namespace longnet
