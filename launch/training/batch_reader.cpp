#include "launch/training/batch_reader.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "distributed/agreement.h"

namespace longnet {
namespace {

/// `rows` (r, ...) with zeros behind, so that there are `count`.
at::Tensor padded(const at::Tensor& rows, std::int64_t count) {
  if (rows.size(0) == count) return rows;
  auto shape = rows.sizes().vec();
  shape[0] = count - rows.size(0);
  return at::cat({rows, at::zeros(shape, rows.options())});
}

/// The positions of `range` that lie in a sequence of `length`.
Range inside(Range range, std::int64_t length) {
  return {std::min(range.begin, length), std::min(range.end, length)};
}

Batch read(const Job& job, const Dataset& data, const std::vector<SequencePlace>& places,
           const std::vector<std::int64_t>& samples) {
  const std::int64_t prefix = job.specification.prefix;
  Batch batch{{}, samples, {}, {}};
  std::int64_t longest = 0;
  for (const SequencePlace& place : places) {
    batch.lengths.push_back(place.length + prefix);
    longest = std::max(longest, batch.lengths.back());
  }
  batch.shard = job.parallel->shard(longest);
  const Range own = batch.shard.own;
  const Range positions{std::max<std::int64_t>(0, own.begin - prefix), std::max<std::int64_t>(0, own.end - prefix)};

  std::vector<FieldRows> sequences;
  sequences.reserve(places.size());
  for (const SequencePlace& place : places) sequences.push_back(data.read(place, inside(positions, place.length)));
  for (const Field& field : job.specification.fields) {
    for (const std::string& name : {field.name, field.name + ".next"}) {
      FieldBatch values;
      std::vector<at::Tensor> rows;
      for (std::size_t sequence = 0; sequence < sequences.size(); ++sequence) {
        const auto found = sequences[sequence].find(name);
        if (found == sequences[sequence].end()) continue;
        values.sequences.push_back(static_cast<std::int64_t>(sequence));
        rows.push_back(field.per_sequence ? found->second : padded(found->second, positions.size() * field.stride));
      }
      if (rows.empty()) continue;
      values.values = at::stack(rows);
      batch.fields.emplace(name, std::move(values));
    }
  }
  return batch;
}

}  // namespace

Batch read_batch(const Job& job, const Dataset& data, const std::vector<SequencePlace>& places,
                 const std::vector<std::int64_t>& samples) {
  Batch batch;
  agree(*job.mesh.world, [&] {
    if (!places.empty()) batch = read(job, data, places, samples);
  });
  return batch;
}

}  // namespace longnet
