#pragma once

#include <memory>
#include <vector>

#include "core/data/dataset.h"
#include "core/data/recording.h"

namespace longnet {

/// A part of a recording.
struct RecordingPart {
  std::shared_ptr<const Recording> recording;
  Range positions;
};

/// Each recording is one sequence, of its own length.
class ExampleDataset : public Dataset {
 public:
  explicit ExampleDataset(std::vector<std::shared_ptr<const Recording>> recordings)
      : recordings_(std::move(recordings)) {}

  std::int64_t size() const override;
  std::int64_t count(std::int64_t length) const override;
  /// Every epoch visits all recordings, in another order.
  SequencePlace training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const override;
  SequencePlace evaluation_sequence(std::int64_t index, std::int64_t length) const override;
  FieldRows read(const SequencePlace& place, Range positions) const override;
  std::string name(const SequencePlace& place) const override;

 private:
  std::vector<std::shared_ptr<const Recording>> recordings_;
};

/// Long recordings, cut into sequences of equal length; what follows the last position of a sequence belongs to the
/// recording, too.
class SeriesDataset : public Dataset {
 public:
  explicit SeriesDataset(std::vector<RecordingPart> parts) : parts_(std::move(parts)) {}

  std::int64_t size() const override;
  std::int64_t count(std::int64_t length) const override;
  /// Every epoch shifts the cuts and visits all sequences in another order.
  SequencePlace training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const override;
  SequencePlace evaluation_sequence(std::int64_t index, std::int64_t length) const override;
  FieldRows read(const SequencePlace& place, Range positions) const override;
  std::string name(const SequencePlace& place) const override;

 private:
  std::vector<RecordingPart> parts_;
};

}  // namespace longnet
