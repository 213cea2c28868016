#pragma once

#include <cstdint>
#include <memory>

#include "core/data/dataset.h"
#include "core/data/token_source.h"

namespace longnet {

/// A part of a token source, cut into sequences. Its only field is `tokens`.
class TokenDataset : public Dataset {
 public:
  /// `part` of `source`, in tokens.
  TokenDataset(std::shared_ptr<const TokenSource> source, Range part) : source_(std::move(source)), part_(part) {}

  std::int64_t size() const override { return part_.size(); }
  /// Sequences that do not overlap, each with the target after its last token.
  std::int64_t count(std::int64_t length) const override { return (size() - 1) / length; }
  /// See place_of_sample.
  SequencePlace training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const override;
  SequencePlace evaluation_sequence(std::int64_t index, std::int64_t length) const override;
  FieldRows read(const SequencePlace& place, Range positions) const override;
  std::string name(const SequencePlace& place) const override;

 protected:
  std::string shortage(std::int64_t length, const std::string& key) const override;

 private:
  std::shared_ptr<const TokenSource> source_;
  Range part_;
};

}  // namespace longnet
