#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "core/attention/rows.h"
#include "core/data/token_source.h"

namespace longnet {

/// Tokens and what comes after each of them.
struct TokenSlice {
  at::Tensor tokens;   ///< (n) int64
  at::Tensor targets;  ///< (n) int64
};

/// A part of a token source, cut into sequences.
class TokenDataset {
 public:
  /// `part` of `source`, in tokens. Tokens must be below `vocabulary`.
  TokenDataset(std::shared_ptr<const TokenSource> source, Range part, std::int64_t vocabulary)
      : source_(std::move(source)), part_(part), vocabulary_(vocabulary) {}

  std::int64_t size() const { return part_.size(); }

  /// How many sequences of `length` tokens it holds that do not overlap, each with the target after its last token.
  std::int64_t windows(std::int64_t length) const { return (size() - 1) / length; }

  /// Throws DataError unless the data hold a sequence of `length`.
  void require_window(std::int64_t length) const;

  /// The given positions of training sample `number`: see place_of_sample. Needs a window.
  TokenSlice sample(std::int64_t number, std::uint64_t seed, std::int64_t length, Range positions) const;

  /// The given positions of the window `index` < windows(length).
  TokenSlice window(std::int64_t index, std::int64_t length, Range positions) const;

 private:
  TokenSlice read(std::int64_t begin, Range positions) const;

  std::shared_ptr<const TokenSource> source_;
  Range part_;
  std::int64_t vocabulary_;
};

/// The training and validation data of a configuration. Validation data are empty when there is none.
struct TokenData {
  TokenDataset train;
  TokenDataset validation;
  std::string fingerprint;
};

/// Opens the data of a configuration. `cache` is a folder for what has to be converted first. Throws DataError.
TokenData open_token_data(const DataConfig& config, std::int64_t vocabulary, const std::filesystem::path& cache);

}  // namespace longnet
