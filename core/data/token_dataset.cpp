#include "core/data/token_dataset.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/data/fasta.h"
#include "core/data/paths.h"
#include "core/data/sample_order.h"
#include "core/error.h"

namespace longnet {

TokenSlice TokenDataset::read(std::int64_t begin, Range positions) const {
  auto tokens = at::empty({positions.size() + 1}, at::kLong);
  source_->read(part_.begin + begin + positions.begin,
                {tokens.data_ptr<std::int64_t>(), static_cast<std::size_t>(tokens.numel())}, vocabulary_);
  return {tokens.slice(0, 0, positions.size()), tokens.slice(0, 1)};
}

void TokenDataset::require_window(std::int64_t length) const {
  if (windows(length) >= 1) return;
  throw DataError("the data hold " + std::to_string(size()) + " tokens, too few for one sequence of " +
                  std::to_string(length) + " and the token after it; lower data.sequence_length or add data");
}

TokenSlice TokenDataset::sample(std::int64_t number, std::uint64_t seed, std::int64_t length, Range positions) const {
  return read(place_of_sample(number, seed, size(), length).begin, positions);
}

TokenSlice TokenDataset::window(std::int64_t index, std::int64_t length, Range positions) const {
  return read(index * length, positions);
}

TokenData open_token_data(const DataConfig& config, std::int64_t vocabulary, const std::filesystem::path& cache) {
  const auto open = [&](const std::vector<std::string>& patterns) {
    auto files = expand_paths(patterns);
    if (config.type == DataType::Fasta) files = cache_fasta(files, cache);
    return std::make_shared<const TokenSource>(config.type, files);
  };
  const auto train = open(config.train);
  const auto validation = config.validation.empty() ? train : open(config.validation);
  const double fraction = config.validation.empty() ? config.validation_fraction : 0;
  const auto held_out = static_cast<std::int64_t>(std::floor(fraction * static_cast<double>(train->size())));
  const Range train_part{0, train->size() - held_out};
  const Range validation_part =
      config.validation.empty() ? Range{train_part.end, train->size()} : Range{0, validation->size()};

  TokenData data{{train, train_part, vocabulary}, {validation, validation_part, vocabulary}, train->fingerprint()};
  if (validation != train) data.fingerprint += validation->fingerprint();
  data.train.require_window(config.sequence_length);
  return data;
}

}  // namespace longnet
