#include "core/data/recording_datasets.h"

#include <algorithm>

#include "core/data/sample_order.h"
#include "core/error.h"
#include "core/random.h"

namespace longnet {
namespace {

const Recording& at(const std::vector<std::shared_ptr<const Recording>>& recordings, const SequencePlace& place) {
  return *recordings[static_cast<std::size_t>(place.source)];
}

const RecordingPart& at(const std::vector<RecordingPart>& parts, const SequencePlace& place) {
  return parts[static_cast<std::size_t>(place.source)];
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
  return at(recordings_, place).name();
}

std::string ExampleDataset::shortage(std::int64_t, const std::string&) const {
  return "the data hold no examples; add files, or raise data.validation_fraction where none is left to be held out";
}

std::int64_t SeriesDataset::windows(const RecordingPart& part, std::int64_t length) const {
  return std::max<std::int64_t>(0, part.positions.size() - positions_after_) / length;
}

SequencePlace SeriesDataset::window(std::int64_t index, std::int64_t length) const {
  SequencePlace place{0, 0, length};
  for (const RecordingPart& part : parts_) {
    const std::int64_t count = windows(part, length);
    if (index < count) break;
    index -= count;
    ++place.source;
  }
  place.begin = index * length;
  return place;
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
  SequencePlace place = window(permute(number % count, count, key), length);
  const RecordingPart& part = at(parts_, place);
  const std::int64_t spare = part.positions.size() - positions_after_ - windows(part, length) * length;
  if (spare <= 0) return place;
  const std::uint64_t draw = hash({key, 1, static_cast<std::uint64_t>(place.source)});
  place.begin += static_cast<std::int64_t>(draw % static_cast<std::uint64_t>(spare + 1));
  return place;
}

SequencePlace SeriesDataset::evaluation_sequence(std::int64_t index, std::int64_t length) const {
  return window(index, length);
}

FieldRows SeriesDataset::read(const SequencePlace& place, Range positions) const {
  const RecordingPart& part = at(parts_, place);
  const std::int64_t begin = part.positions.begin + place.begin;
  return part.recording->read({begin + positions.begin, begin + positions.end});
}

std::string SeriesDataset::name(const SequencePlace& place) const {
  const RecordingPart& part = at(parts_, place);
  return part.recording->name() + "-" + std::to_string(part.positions.begin + place.begin);
}

std::string SeriesDataset::shortage(std::int64_t length, const std::string& key) const {
  std::int64_t longest = 0;
  for (const RecordingPart& part : parts_) longest = std::max(longest, part.positions.size());
  return "the longest of " + std::to_string(parts_.size()) + " recordings, or parts of them, has " +
         std::to_string(longest) + " positions, too few for a sequence of " + std::to_string(length) +
         (positions_after_ > 0 ? " and the position after it" : "") + "; lower " + key +
         ", or add longer recordings (a sequence never spans two)";
}

}  // namespace longnet
