#include "core/data/recording_datasets.h"

#include <algorithm>

#include "core/data/sample_order.h"
#include "core/error.h"
#include "core/random.h"

namespace longnet {
namespace {

/// The sequences of `length` in a part, each with the position after its last.
std::int64_t windows(const RecordingPart& part, std::int64_t length) {
  return std::max<std::int64_t>(0, part.positions.size() - 1) / length;
}

const Recording& at(const std::vector<std::shared_ptr<const Recording>>& recordings, const SequencePlace& place) {
  return *recordings[static_cast<std::size_t>(place.source)];
}

const RecordingPart& at(const std::vector<RecordingPart>& parts, const SequencePlace& place) {
  return parts[static_cast<std::size_t>(place.source)];
}

/// The window number `index` over all parts, not shifted.
SequencePlace window(const std::vector<RecordingPart>& parts, std::int64_t index, std::int64_t length) {
  SequencePlace place{0, 0, length};
  while (index >= windows(at(parts, place), length)) index -= windows(at(parts, place), length), ++place.source;
  place.begin = index * length;
  return place;
}

}  // namespace

std::int64_t ExampleDataset::size() const {
  std::int64_t size = 0;
  for (const auto& recording : recordings_) size += recording->length();
  return size;
}

std::int64_t ExampleDataset::count(std::int64_t) const {
  return static_cast<std::int64_t>(recordings_.size());
}

SequencePlace ExampleDataset::training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const {
  const std::int64_t count = this->count(length), epoch = number / count;
  return evaluation_sequence(permute(number % count, count, hash({seed, static_cast<std::uint64_t>(epoch)})), length);
}

SequencePlace ExampleDataset::evaluation_sequence(std::int64_t index, std::int64_t) const {
  return {index, 0, recordings_[static_cast<std::size_t>(index)]->length()};
}

FieldRows ExampleDataset::read(const SequencePlace& place, Range positions) const {
  return at(recordings_, place).read(positions);
}

std::string ExampleDataset::name(const SequencePlace& place) const {
  return at(recordings_, place).path().stem().string();
}

std::int64_t SeriesDataset::size() const {
  std::int64_t size = 0;
  for (const RecordingPart& part : parts_) size += part.positions.size();
  return size;
}

std::int64_t SeriesDataset::count(std::int64_t length) const {
  std::int64_t count = 0;
  for (const RecordingPart& part : parts_) count += windows(part, length);
  return count;
}

SequencePlace SeriesDataset::training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const {
  const std::int64_t count = this->count(length);
  if (count == 0) throw DataError("the data hold no sequence of " + std::to_string(length));
  const std::int64_t epoch = number / count;
  const std::uint64_t key = hash({seed, static_cast<std::uint64_t>(epoch)});
  SequencePlace place = window(parts_, permute(number % count, count, key), length);
  const RecordingPart& part = at(parts_, place);
  const std::int64_t spare = part.positions.size() - 1 - windows(part, length) * length;
  if (spare <= 0) return place;
  const std::uint64_t draw = hash({key, 1, static_cast<std::uint64_t>(place.source)});
  place.begin += static_cast<std::int64_t>(draw % static_cast<std::uint64_t>(spare + 1));
  return place;
}

SequencePlace SeriesDataset::evaluation_sequence(std::int64_t index, std::int64_t length) const {
  return window(parts_, index, length);
}

FieldRows SeriesDataset::read(const SequencePlace& place, Range positions) const {
  const RecordingPart& part = at(parts_, place);
  const std::int64_t begin = part.positions.begin + place.begin;
  return part.recording->read({begin + positions.begin, begin + positions.end});
}

std::string SeriesDataset::name(const SequencePlace& place) const {
  const RecordingPart& part = at(parts_, place);
  return part.recording->path().stem().string() + "-" + std::to_string(part.positions.begin + place.begin);
}

}  // namespace longnet
