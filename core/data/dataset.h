#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/range.h"

namespace longnet {

/// What a model reads of a sequence: a row of tokens or of frames at each position, or one for the whole sequence.
struct Field {
  enum class Kind { Tokens, Frames };

  std::string name;           ///< in the data
  Kind kind = Kind::Tokens;   ///< whole numbers, or real ones
  std::int64_t size = 0;      ///< tokens must be below; frames have so many channels
  std::int64_t stride = 1;    ///< rows that make up one position
  bool per_sequence = false;  ///< one row for the whole sequence
  bool next = false;          ///< the rows of each following position, too, as `name` + ".next"
  bool required = true;       ///< else a sequence may lack it
  std::string size_key = {};  ///< the configuration's key that `size` came from, for messages
};

/// The rows of one sequence's fields, each (rows) int64 or (rows, channels) float32 or float64; (1) or (channels) for a
/// field of the whole sequence. What the sequence lacks is not there.
using FieldRows = std::map<std::string, at::Tensor>;

/// Where a sequence is.
struct SequencePlace {
  std::int64_t source;  ///< which file, or 0
  std::int64_t begin;   ///< its first position there
  std::int64_t length;  ///< in positions
};

/// Sequences to train on or to evaluate. The same on every rank; each reads only the positions that it holds.
class Dataset {
 public:
  virtual ~Dataset() = default;

  /// Positions that it holds.
  virtual std::int64_t size() const = 0;

  /// How many sequences it has for evaluation: of `length` positions, or whole ones of at most that.
  virtual std::int64_t count(std::int64_t length) const = 0;

  /// The training sequence `number`: a pure function of its arguments. Needs count(length) > 0.
  virtual SequencePlace training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const = 0;

  /// The sequence `index` < count(length) for evaluation.
  virtual SequencePlace evaluation_sequence(std::int64_t index, std::int64_t length) const = 0;

  /// The given positions, which lie in the sequence, and all fields of the sequence as a whole. Throws DataError for
  /// values that the model has no room for.
  virtual FieldRows read(const SequencePlace& place, Range positions) const = 0;

  /// A name for files that belong to the sequence: no other has it. May hold slashes.
  virtual std::string name(const SequencePlace& place) const = 0;

  /// Throws DataError unless there is a sequence of `length`, which the user gave as `key`.
  void require_sequence(std::int64_t length, const std::string& key = "data.sequence_length") const;

 protected:
  /// Why there is no sequence of `length`, and what to do.
  virtual std::string shortage(std::int64_t length, const std::string& key) const = 0;
};

}  // namespace longnet
