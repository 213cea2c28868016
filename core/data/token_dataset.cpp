#include "core/data/token_dataset.h"

#include <ATen/ATen.h>

#include "core/data/sample_order.h"

namespace longnet {

SequencePlace TokenDataset::training_sequence(std::int64_t number, std::uint64_t seed, std::int64_t length) const {
  return {0, place_of_sample(number, seed, size(), length).begin, length};
}

SequencePlace TokenDataset::evaluation_sequence(std::int64_t index, std::int64_t length) const {
  return {0, index * length, length};
}

FieldRows TokenDataset::read(const SequencePlace& place, Range positions) const {
  auto tokens = at::empty({positions.size() + 1}, at::kLong);
  source_->read(part_.begin + place.begin + positions.begin,
                {tokens.data_ptr<std::int64_t>(), static_cast<std::size_t>(tokens.numel())});
  return {{"tokens", tokens.slice(0, 0, positions.size())}, {"tokens.next", tokens.slice(0, 1)}};
}

std::string TokenDataset::name(const SequencePlace& place) const {
  return "tokens-" + std::to_string(part_.begin + place.begin);
}

std::string TokenDataset::shortage(std::int64_t length, const std::string& key) const {
  return "the data hold " + std::to_string(size()) + " tokens, too few for one sequence of " + std::to_string(length) +
         " and the token after it; lower " + key + " or add data";
}

}  // namespace longnet
