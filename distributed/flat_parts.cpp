#include "distributed/flat_parts.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>

namespace longnet {
namespace {

/// The same columns of all parts of a flat tensor, where row p is part p. Parts may be one element short.
class Bucket {
 public:
  Bucket(const at::Tensor& flat, int parts, Range columns) : flat_(flat), parts_(parts), columns_(columns) {}

  /// A view of its elements in part `part`.
  at::Tensor in(int part) const {
    const Range range = equal_part(flat_.numel(), part, parts_);
    return flat_.slice(0, std::min(range.begin + columns_.begin, range.end),
                       std::min(range.begin + columns_.end, range.end));
  }

  at::Tensor row() const { return at::empty({columns_.size()}, flat_.options()); }
  at::Tensor rows() const { return at::empty({parts_, columns_.size()}, flat_.options()); }

 private:
  at::Tensor flat_;
  int parts_;
  Range columns_;
};

/// Copies between a part of the tensor and the row of a bucket, which may be longer.
void copy_into_row(const at::Tensor& row, const at::Tensor& part) {
  row.slice(0, 0, part.numel()).copy_(part);
  if (part.numel() < row.numel()) row.slice(0, part.numel()).zero_();
}
void copy_from_row(const at::Tensor& part, const at::Tensor& row) {
  part.copy_(row.slice(0, 0, part.numel()));
}

/// A bucket that travels, and what is to be done when it has come.
struct Travelling {
  std::unique_ptr<Work> work;
  std::function<void()> arrived;

  void finish() const {
    work->wait();
    arrived();
  }
};

/// On the CPU a bucket stays in the cache from one pass over it to the next, but messages are long enough to be worth one.
std::int64_t fast_bucket_bytes(const at::Tensor& flat, int parts) {
  constexpr std::int64_t of_cache = 4 << 20, of_gpu = 64 << 20, of_message = 64 << 10;
  return std::max(flat.is_cpu() ? of_cache : of_gpu, parts * of_message);
}

/// Sends all buckets of `flat` with `start`, two at a time.
void in_buckets(const Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes,
                const std::function<Travelling(const Bucket& bucket)>& start) {
  const int parts = communicator.size();
  if (parts == 1) return;
  constexpr std::size_t most_under_way = 2;
  if (bucket_bytes == 0) bucket_bytes = fast_bucket_bytes(flat, parts);
  const std::int64_t longest = (flat.numel() + parts - 1) / parts;
  const std::int64_t width =
      std::max<std::int64_t>(1, bucket_bytes / (parts * static_cast<std::int64_t>(flat.element_size())));
  std::deque<Travelling> under_way;
  for (std::int64_t begin = 0; begin < longest; begin += width) {
    if (under_way.size() == most_under_way) {
      under_way.front().finish();
      under_way.pop_front();
    }
    under_way.push_back(start(Bucket(flat, parts, {begin, std::min(begin + width, longest)})));
  }
  for (const Travelling& each : under_way) each.finish();
}

}  // namespace

std::vector<Range> all_parts(const Communicator& communicator, std::int64_t count) {
  std::vector<Range> parts;
  parts.reserve(static_cast<std::size_t>(communicator.size()));
  for (int part = 0; part < communicator.size(); ++part) parts.push_back(equal_part(count, part, communicator.size()));
  return parts;
}

Range own_part(const Communicator& communicator, std::int64_t count) {
  return equal_part(count, communicator.rank(), communicator.size());
}

void reduce_to_parts(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes) {
  in_buckets(communicator, flat, bucket_bytes, [&](const Bucket& bucket) {
    const auto rows = bucket.rows(), sum = bucket.row();
    for (int part = 0; part < communicator.size(); ++part) copy_into_row(rows[part], bucket.in(part));
    const auto own = bucket.in(communicator.rank());
    return Travelling{communicator.reduce_scatter(sum, rows), [own, sum] { copy_from_row(own, sum); }};
  });
}

void gather_parts(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes) {
  in_buckets(communicator, flat, bucket_bytes, [&](const Bucket& bucket) {
    const auto rows = bucket.rows(), row = bucket.row();
    copy_into_row(row, bucket.in(communicator.rank()));
    return Travelling{communicator.all_gather(rows, row), [&communicator, bucket, rows] {
                        for (int part = 0; part < communicator.size(); ++part) {
                          if (part != communicator.rank()) copy_from_row(bucket.in(part), rows[part]);
                        }
                      }};
  });
}

}  // namespace longnet
