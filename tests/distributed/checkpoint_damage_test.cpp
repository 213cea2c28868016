// A checkpoint is what was saved, at any number of ranks, or it is refused by name: whatever bit of it has changed.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/flat_parts.h"
#include "distributed/mpi/mpi_communicator.h"
#include "distributed/sharded_checkpoint.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;
using Held = FlatState::Held;

/// A model of three parameters and two states beside its weights, whole on every rank or in parts.
struct Small {
  Small(Communicator& ranks, Held held) : world(ranks), parameters(at::kFloat, 1) {
    parameters.add("matrix", {5, 3}, normal(1));
    parameters.add("bias", {3}, normal(1));
    parameters.add("scalar", {}, normal(1));
    parameters.flatten();
    const Range own = held == Held::Whole ? Range{0, parameters.count()} : own_part(world, parameters.count());
    states.push_back({"", parameters.values()});
    for (const char* name : {"optimizer.a.", "optimizer.b."}) {
      states.push_back({name, at::zeros({own.size()}, at::kFloat), held});
    }
  }

  /// Numbers that tell state and place, or nothing.
  void fill(bool with_numbers) {
    const Range own = own_part(world, parameters.count());
    for (std::size_t state = 0; state < states.size(); ++state) {
      const auto all = at::arange(parameters.count(), at::kFloat) + 100.5 * static_cast<double>(state + 1);
      const auto held = states[state].held == Held::Whole ? all : all.slice(0, own.begin, own.end);
      states[state].flat.copy_(with_numbers ? held : at::full_like(held, -1));
    }
  }
  bool is_filled() {
    const auto now = copies();
    fill(true);
    const auto expected = copies();
    for (std::size_t state = 0; state < now.size(); ++state) {
      if (!now[state].equal(expected[state])) return false;
    }
    return true;
  }
  std::vector<at::Tensor> copies() const {
    std::vector<at::Tensor> result;
    for (const FlatState& state : states) result.push_back(state.flat.clone());
    return result;
  }

  void save(const fs::path& folder) {
    const TrainingProgress progress{.step = 3, .tokens = 300, .samples = 6, .updates = 3};
    CheckpointNotes notes;
    notes.program = "test";
    notes.config = {
        {"model", {{"heads", 4}}}, {"data", nlohmann::ordered_json::object()}, {"training", {{"steps", 9}}}};
    CheckpointSave(world, folder, progress, notes, parameters.list(), states).finish(Lineage::Continued, {.newest = 1});
  }
  TrainingProgress load(const fs::path& folder) {
    return load_checkpoint(world, folder / checkpoint_name(3), parameters.list(), states);
  }

  Communicator& world;
  ParameterSet parameters;
  std::vector<FlatState> states;
};

class CheckpointDamage : public testing::Test {
 protected:
  CheckpointDamage() {
    folder = fs::temp_directory_path() / ("longnet-damage-" + std::to_string(::getppid()));  // of one mpirun
    at_first([&] { fs::remove_all(folder); });
  }
  ~CheckpointDamage() override {
    at_first([&] { fs::remove_all(folder); });
  }

  /// What only the first rank does, while the others wait.
  void at_first(const std::function<void()>& work) {
    world->barrier();
    if (world->rank() == 0) work();
    world->barrier();
  }

  static std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const fs::path& path, const std::string& text) {
    at_first([&] { std::ofstream(path, std::ios::binary) << text; });
  }

  /// Why the checkpoint is refused; "" when it is taken. Nothing of one that is refused may be mistaken for its content: all is
  /// as it was, or nothing is a number.
  std::string refusal(Small& model) {
    model.fill(false);
    const auto before = model.copies();
    try {
      model.load(folder);
      return "";
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.exit_code(), CheckpointError("").exit_code());
      for (std::size_t state = 0; state < before.size(); ++state) {
        const auto& now = model.states[state].flat;
        EXPECT_TRUE(now.equal(before[state]) || now.isnan().all().item<bool>()) << error.what();
      }
      return error.what();
    }
  }

  std::vector<fs::path> files() const {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder / checkpoint_name(3))) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
  }

  std::unique_ptr<Communicator> world = make_mpi_world();
  fs::path folder;
};

TEST_F(CheckpointDamage, AnyBitIsFoundAndItsFileNamed) {
  if (world->size() > 2) GTEST_SKIP() << "runs with one rank and with two";
  Small model(*world, Held::OwnPart);
  model.fill(true);
  model.save(folder);
  std::mt19937_64 random(5);  // the same on all ranks
  for (const fs::path& path : files()) {
    const std::string whole = content(path);
    const std::size_t flips = 5000 / files().size();
    for (std::size_t flip = 0; flip < flips; ++flip) {
      std::string damaged = whole;
      const std::size_t place = random() % whole.size(), bit = random() % 8;
      damaged[place] = static_cast<char>(damaged[place] ^ (1 << bit));
      write(path, damaged);
      const std::string why = refusal(model);
      ASSERT_NE(why.find(path.filename().string()), std::string::npos)
          << "bit " << bit << " of byte " << place << " of " << path << ": '" << why << "'";
    }
    write(path, whole);
  }
  model.fill(false);
  EXPECT_EQ(model.load(folder).samples, 6);
  EXPECT_TRUE(model.is_filled()) << "nothing is left of the damage";
}

TEST_F(CheckpointDamage, FilesThatEndEarlyOrAreOthersAreRefused) {
  if (world->size() > 2) GTEST_SKIP() << "runs with one rank and with two";
  Small model(*world, Held::OwnPart);
  model.fill(true);
  model.save(folder);
  const auto paths = files();
  for (const fs::path& path : paths) {
    const std::string whole = content(path);
    for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 50) {
      write(path, whole.substr(0, size));
      EXPECT_NE(refusal(model).find(path.filename().string()), std::string::npos) << size << " bytes of " << path;
    }
    write(path, whole + " ");
    EXPECT_NE(refusal(model).find(path.filename().string()), std::string::npos) << "more than " << path;
    at_first([&] { fs::remove(path); });
    EXPECT_NE(refusal(model), "") << "without " << path;
    for (const fs::path& other : paths) {
      if (other == path) continue;
      write(path, content(other));
      EXPECT_NE(refusal(model), "") << other << " in the place of " << path;
    }
    write(path, whole);
  }
  EXPECT_EQ(refusal(model), "");
}

TEST_F(CheckpointDamage, AShardOfAnotherStepIsRefused) {
  if (world->size() > 2) GTEST_SKIP() << "runs with one rank and with two";
  Small model(*world, Held::OwnPart);
  model.fill(true);
  model.save(folder);
  const fs::path shard = files().back();
  const std::string first = content(shard);
  model.states[1].flat.add_(1);
  model.save(folder);
  ASSERT_NE(content(shard), first);
  world->barrier();
  write(shard, first);
  EXPECT_NE(refusal(model).find(shard.filename().string()), std::string::npos);
}

/// Saved by some ranks and loaded by others, with states whole or in parts.
TEST_F(CheckpointDamage, AnyRankCountReadsAnyOthers) {
  std::vector<int> counts;
  for (const int count : {1, 2, 3, 4, 6, 8}) {
    if (count <= world->size()) counts.push_back(count);
  }
  const auto with = [&](int count, const std::function<void(Communicator&)>& work) {
    const auto group = world->split(world->rank() < count ? 0 : 1);
    if (world->rank() < count) work(*group);
    world->barrier();
  };
  for (const int savers : counts) {
    for (const Held saved_as : {Held::Whole, Held::OwnPart}) {
      with(savers, [&](Communicator& group) {
        Small model(group, saved_as);
        model.fill(true);
        model.save(folder);
      });
      for (const int loaders : counts) {
        for (const Held loaded_as : {Held::Whole, Held::OwnPart}) {
          with(loaders, [&](Communicator& group) {
            Small model(group, loaded_as);
            EXPECT_EQ(model.load(folder).tokens, 300);
            EXPECT_TRUE(model.is_filled()) << savers << " ranks' by " << loaders;
          });
        }
      }
    }
  }
}

}  // namespace
}  // namespace longnet
