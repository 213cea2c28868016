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

 protected:
  std::string shortage(std::int64_t length, const std::string& key) const override;

 private:
  std::vector<std::shared_ptr<const Recording>> recordings_;
};

/// Long recordings, cut into sequences of equal length.
class SeriesDataset : public Dataset {
 public:
  /// `with_next`: a model reads what follows the last position of a sequence, too.
  SeriesDataset(std::vector<RecordingPart> parts, bool with_next)
      : parts_(std::move(parts)), positions_after_(with_next ? 1 : 0) {}

  std::int64_t size() const override;
  std::int64_t count(std::int64_t length) const override;
  /// Every epoch shifts the cuts and visits all sequences in another order.
  SequencePlace training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const override;
  SequencePlace evaluation_sequence(std::int64_t index, std::int64_t length) const override;
  FieldRows read(const SequencePlace& place, Range positions) const override;
  std::string name(const SequencePlace& place) const override;

 protected:
  std::string shortage(std::int64_t length, const std::string& key) const override;

 private:
  /// Sequences of `length` in a part.
  std::int64_t windows(const RecordingPart& part, std::int64_t length) const;
  /// The window number `index` over all parts, not shifted.
  SequencePlace window(std::int64_t index, std::int64_t length) const;

  std::vector<RecordingPart> parts_;
  std::int64_t positions_after_;
};

}  // namespace longnet
