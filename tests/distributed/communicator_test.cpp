// Every operation of a communicator, over dtypes and counts, the empty one included.

#include "distributed/communicator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/flat_parts.h"
#include "distributed/process_mesh.h"
#include "distributed/replica_check.h"
#include "tests/device.h"

namespace longnet {
namespace {

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong};
constexpr std::int64_t counts[] = {0, 1, 10, 1000};

/// Small whole numbers that differ by rank and place: exact in every dtype.
at::Tensor values(std::int64_t count, int rank, at::ScalarType dtype) {
  return (at::arange(count, at::kLong) % 7 + rank).to(test::on(dtype));
}

class CommunicatorTest : public testing::Test {
 protected:
  std::unique_ptr<Communicator> world = test::make_world();
  int rank = world->rank(), size = world->size();
};

TEST_F(CommunicatorTest, Broadcasts) {
  for (const auto dtype : dtypes) {
    for (const auto count : counts) {
      auto data = values(count, rank, dtype);
      world->broadcast(data, size - 1)->wait();
      EXPECT_TRUE(data.equal(values(count, size - 1, dtype)));
    }
  }
}

TEST_F(CommunicatorTest, ReducesOverAllRanks) {
  for (const auto dtype : dtypes) {
    for (const auto count : counts) {
      auto sum = values(count, rank, dtype), largest = values(count, rank, dtype);
      world->all_reduce(sum, Reduction::Sum)->wait();
      world->all_reduce(largest, Reduction::Maximum)->wait();
      auto expected = at::zeros({count}, test::on(dtype));
      for (int peer = 0; peer < size; ++peer) expected += values(count, peer, dtype);
      EXPECT_TRUE(sum.equal(expected));
      EXPECT_TRUE(largest.equal(values(count, size - 1, dtype)));
    }
  }
}

TEST_F(CommunicatorTest, GathersInRankOrder) {
  for (const auto dtype : dtypes) {
    for (const auto count : counts) {
      auto all = at::empty({size, count}, test::on(dtype));
      world->all_gather(all, values(count, rank, dtype))->wait();
      for (int peer = 0; peer < size; ++peer) EXPECT_TRUE(all[peer].equal(values(count, peer, dtype)));
    }
  }
}

TEST_F(CommunicatorTest, ReduceScatterSumsInRankOrderInTheOutputsDtype) {
  // 1 + 256 summands of 2^-8 vanish one by one in bfloat16, but not in float32.
  auto input = at::full({size, 5}, 1.0 / 256, test::on(at::kBFloat16)), output = at::empty({5}, test::on(at::kFloat));
  if (rank == 0) input.fill_(1);
  world->reduce_scatter(output, input)->wait();
  EXPECT_TRUE(output.equal(at::full({5}, 1 + (size - 1) / 256.0, test::on(at::kFloat))));

  if (test::with_nccl()) return;  // sums equal dtypes in an order of its own
  auto large = at::full({size, 1}, rank == 0 ? 1e16 : 1.0, test::on(at::kDouble)),
       sum = at::empty({1}, test::on(at::kDouble));
  world->reduce_scatter(sum, large)->wait();
  double expected = 1e16;
  for (int peer = 1; peer < size; ++peer) expected += 1.0;  // each is lost: the order matters
  EXPECT_EQ(sum.item<double>(), expected);
}

TEST_F(CommunicatorTest, ExchangesMessagesInTheOrderGiven) {
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    for (int number = 0; number < 3; ++number) {
      sends.push_back({peer, at::full({number}, 10 * rank + number, test::on(at::kBFloat16))});
      receives.push_back({peer, at::empty({number}, test::on(at::kBFloat16))});
    }
  }
  const auto expected = receives;
  const auto work = world->exchange(sends, receives);
  while (!work->poll()) {
  }
  work->wait();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto number = static_cast<std::int64_t>(i % 3);
    EXPECT_TRUE(expected[i].data.equal(at::full({number}, 10 * expected[i].peer + number, test::on(at::kBFloat16))));
  }
}

TEST_F(CommunicatorTest, SplitsByColor) {
  const auto part = world->split(rank % 2);
  EXPECT_EQ(part->size(), (size + 1 - rank % 2) / 2);
  EXPECT_EQ(part->rank(), rank / 2);
  EXPECT_EQ(world->split_by_host()->size(), size) << "the tests run on one host";
}

TEST_F(CommunicatorTest, StartsOperationsTogether) {
  auto sum = values(10, rank, at::kFloat), all = at::empty({size, 10}, test::on(at::kFloat));
  auto got = at::empty({10}, test::on(at::kFloat));
  const auto part = world->split(0);
  std::vector<std::unique_ptr<Work>> works;
  world->together([&] {
    works.push_back(world->all_reduce(sum, Reduction::Sum));
    works.push_back(part->all_gather(all, values(10, rank, at::kFloat)));
    std::vector<Message> sends, receives;
    if (size > 1) {
      sends.push_back({(rank + 1) % size, values(10, rank, at::kFloat)});
      receives.push_back({(rank + size - 1) % size, got});
    }
    works.push_back(world->exchange(sends, receives));
  });
  for (const auto& work : works) work->wait();
  auto expected = at::zeros({10}, test::on(at::kFloat));
  for (int peer = 0; peer < size; ++peer) {
    expected += values(10, peer, at::kFloat);
    EXPECT_TRUE(all[peer].equal(values(10, peer, at::kFloat)));
  }
  EXPECT_TRUE(sum.equal(expected));
  if (size == 1) return;
  EXPECT_TRUE(got.equal(values(10, (rank + size - 1) % size, at::kFloat)));
}

TEST_F(CommunicatorTest, ReducesToPartsAndGathersThem) {
  for (const std::int64_t count : {0, 1, 2, 3, 57, 1000}) {
    for (const std::int64_t bucket_bytes : {1, 8, 100, 1 << 20}) {
      const auto mine = at::arange(count, test::on(at::kDouble)) + rank;
      const auto sum = at::arange(count, test::on(at::kDouble)) * size + size * (size - 1) / 2;
      const auto flat = mine.clone();
      reduce_to_parts(*world, flat, bucket_bytes);
      const Range own = own_part(*world, count);
      for (std::int64_t i = 0; i < count; ++i) {
        const bool owned = own.begin <= i && i < own.end;
        EXPECT_EQ(flat[i].item<double>(), (owned ? sum : mine)[i].item<double>()) << i << " of " << count;
      }
      gather_parts(*world, flat, bucket_bytes);
      EXPECT_TRUE(flat.equal(sum)) << count << " in buckets of " << bucket_bytes;
    }
  }
}

TEST_F(CommunicatorTest, SumsPartsInRankOrder) {
  // Of 1e16, 1, -1e16 and 1 the order decides: the sum of all from left to right.
  const std::vector<double> values{1e16, 1, -1e16, 1};
  double sum = 0;
  for (int each = 0; each < size; ++each) sum += values[static_cast<std::size_t>(each) % 4];
  const auto flat = at::full({11}, values[static_cast<std::size_t>(rank) % 4], test::on(at::kDouble));
  reduce_to_parts(*world, flat, 24);
  gather_parts(*world, flat, 24);
  EXPECT_TRUE(flat.eq(sum).all().item<bool>());
}

TEST_F(CommunicatorTest, MovesMoreThanTwoGigabytes) {
  if (size != 2) GTEST_SKIP() << "needs memory: runs with two ranks only";
  constexpr std::int64_t bytes = (std::int64_t{1} << 31) + 12345;
  auto data = at::full({bytes}, rank, test::on(at::kByte));
  std::vector<Message> sends, receives;
  if (rank == 0) {
    data[bytes - 1] = 77;
    sends.push_back({1, data});
  } else {
    receives.push_back({0, data});
  }
  world->exchange(std::move(sends), std::move(receives))->wait();
  EXPECT_EQ(data[0].item<int>(), 0);
  EXPECT_EQ(data[bytes / 2].item<int>(), 0);
  EXPECT_EQ(data[bytes - 1].item<int>(), 77);
}

TEST_F(CommunicatorTest, GathersMoreThanTwoGigabytes) {
  if (size != 2) GTEST_SKIP() << "needs memory: runs with two ranks only";
  constexpr std::int64_t bytes = (std::int64_t{1} << 30) + 4321;
  auto all = at::empty({2, bytes}, test::on(at::kByte));
  world->all_gather(all, at::full({bytes}, rank + 5, test::on(at::kByte)))->wait();
  EXPECT_EQ(all[1][bytes - 1].item<int>(), 6);
  EXPECT_EQ(all[0][bytes - 1].item<int>(), 5);
}

TEST_F(CommunicatorTest, RefusesWhatItCannotMove) {
  EXPECT_THROW(world->all_reduce(at::zeros({4, 4}, test::on(at::kFloat)).t().slice(1, 0, 2), Reduction::Sum),
               CommunicationError);
  EXPECT_THROW(world->all_gather(at::zeros({size + 1}, test::on(at::kFloat)), at::zeros({1}, test::on(at::kFloat))),
               CommunicationError);
  EXPECT_THROW(world->all_reduce(at::zeros({3}, test::on(at::kBool)), Reduction::Sum), CommunicationError);
}

TEST_F(CommunicatorTest, AnMpiErrorIsAnException) {
  EXPECT_THROW(world->exchange({{size + 5, at::zeros({1})}}, {}), CommunicationError);
}

TEST_F(CommunicatorTest, AReplicaWithOneWrongBitIsNamed) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    auto weights = at::linspace(-1, 1, 1001, test::on(dtype)), moments = at::zeros({1001}, test::on(dtype));
    EXPECT_NO_THROW(require_equal_replicas(*world, {weights, moments}));
    if (size == 1) continue;
    if (rank == size - 1) moments.view(dtype == at::kFloat ? at::kInt : at::kLong)[77].bitwise_xor_(1);
    try {
      require_equal_replicas(*world, {weights, moments});
      ADD_FAILURE() << "not found";
    } catch (const AgreedError& error) {
      const std::string named = "rank " + std::to_string(size - 1) + " differs from most others", text = error.what();
      EXPECT_EQ(text.find(named) != std::string::npos, size > 2) << text;
    }
  }
}

TEST_F(CommunicatorTest, AgreementMakesOneErrorOfMany) {
  EXPECT_NO_THROW(agree(*world, [] {}));
  try {
    agree(*world, [] { throw DataError("gone"); });
    FAIL();
  } catch (const AgreedError& error) {
    EXPECT_STREQ(error.what(), "gone") << "a common error is told once";
    EXPECT_EQ(error.exit_code(), 3);
  }
  if (size == 1) return;
  try {
    agree(*world, [&] {
      if (rank == 1) throw ConfigError("mine alone");
    });
    FAIL();
  } catch (const AgreedError& error) {
    EXPECT_STREQ(error.what(), "rank 1: mine alone");
    EXPECT_EQ(error.exit_code(), 2);
  }
}

TEST_F(CommunicatorTest, RanksMustHoldTheSame) {
  EXPECT_NO_THROW(require_same(*world, "text", "a\nb"));
  if (size == 1) return;
  EXPECT_THROW(require_same(*world, "text", rank == size - 1 ? "a\nc" : "a\nb"), AgreedError);
}

TEST_F(CommunicatorTest, MeshLaysRanksOutInRows) {
  if (size == 4) {
    const auto mesh = make_process_mesh(test::make_world(), 2);
    EXPECT_EQ(mesh.sequence->size(), 2);
    EXPECT_EQ(mesh.sequence->rank(), rank % 2);
    EXPECT_EQ(mesh.data_index, rank / 2);
    EXPECT_EQ(mesh.data_size, 2);
  }
  EXPECT_THROW(make_process_mesh(test::make_world(), size + 1), ConfigError);
  EXPECT_THROW(make_process_mesh(test::make_world(), 0), ConfigError);
}

}  // namespace
}  // namespace longnet
