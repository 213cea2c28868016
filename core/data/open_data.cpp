#include "core/data/open_data.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <sstream>

#include "core/data/fasta.h"
#include "core/data/paths.h"
#include "core/data/recording_datasets.h"
#include "core/data/sample_order.h"
#include "core/data/token_dataset.h"
#include "core/error.h"
#include "core/files/hashing_file.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;
using Recordings = std::vector<std::shared_ptr<const Recording>>;

std::int64_t part_of(double fraction, std::int64_t size) {
  return static_cast<std::int64_t>(std::floor(fraction * static_cast<double>(size)));
}

std::int64_t count(const Recordings& recordings) {
  return static_cast<std::int64_t>(recordings.size());
}

std::int64_t lines_in_both(const std::string& first, const std::string& second) {
  std::set<std::string> lines;
  std::istringstream first_lines(first), second_lines(second);
  for (std::string line; std::getline(first_lines, line);) lines.insert(line);
  std::int64_t both = 0;
  for (std::string line; std::getline(second_lines, line);) both += lines.contains(line) ? 1 : 0;
  return both;
}

/// `train`, `validation`: fingerprints of their files; the latter is empty where a part of the former is held out.
Data with_digests(Data data, const std::string& train, const std::string& validation) {
  const auto digest = [](const std::string& files, const Dataset& dataset) {
    const std::string text = files + std::to_string(dataset.size());
    return digest_of(std::as_bytes(std::span(text))).xxh3_128;
  };
  data.fingerprint = train + validation;
  if (const auto both = lines_in_both(train, validation); both > 0) {
    data.warnings.push_back(std::to_string(both) +
                            " of the files of data.validation are among those of data.train, too: what " +
                            "is held out is trained on");
  }
  data.train_digest = digest(train, *data.train);
  data.validation_digest = digest(validation.empty() ? train : validation, *data.validation);
  return data;
}

Data open_tokens(const DataConfig& config, const std::vector<Field>& fields, const fs::path& cache) {
  for (const Field& field : fields) {
    const bool tokens = field.name == "tokens" && field.kind == Field::Kind::Tokens && field.stride == 1;
    if (tokens || !field.required) continue;
    throw ConfigError("data.type: these data are one row of tokens, but the model reads the field " + field.name +
                      "; use examples or series");
  }
  if (fields.empty() || fields[0].name != "tokens") {
    throw ConfigError("data.type: these data are one row of tokens, which the model does not read");
  }
  const auto open = [&](const std::vector<std::string>& patterns) {
    auto files = expand_paths(patterns);
    if (config.type == DataType::Fasta) files = cache_fasta(files, cache);
    return std::make_shared<const TokenSource>(config, files, fields[0].size);
  };
  const auto train = open(config.train);
  const auto validation = config.validation.empty() ? train : open(config.validation);
  const bool held_out = validation == train;
  const std::int64_t border = train->size() - (held_out ? part_of(config.validation_fraction, train->size()) : 0);
  const Range validation_part = held_out ? Range{border, train->size()} : Range{0, validation->size()};

  return with_digests({std::make_shared<TokenDataset>(train, Range{0, border}),
                       std::make_shared<TokenDataset>(validation, validation_part),
                       {},
                       {},
                       {}},
                      train->fingerprint(), held_out ? "" : validation->fingerprint());
}

Recordings open_recordings(const DataConfig& config, const std::vector<Field>& fields,
                           const std::vector<std::string>& patterns, std::string& fingerprint) {
  Recordings recordings;
  const auto files = expand_paths(patterns);
  const auto names = names_of(files, ".safetensors");
  for (std::size_t index = 0; index < files.size(); ++index) {
    recordings.push_back(std::make_shared<const Recording>(files[index], names[index], fields, config.missing));
    fingerprint += recordings.back()->fingerprint();
  }
  return recordings;
}

Data as_examples(const DataConfig& config, const std::vector<Field>& fields, const Recordings& train,
                 const Recordings& validation) {
  for (const Field& field : fields) {
    if (field.next) {
      throw ConfigError(
          "data.type: examples are whole sequences, but the model predicts what follows each position; "
          "use series");
    }
  }
  for (const Recordings* recordings : {&train, &validation}) {
    for (const auto& recording : *recordings) {
      if (recording->length() <= config.sequence_length) continue;
      throw DataError(recording->path().string() + ": has " + std::to_string(recording->length()) +
                      " positions, but data.sequence_length is " + std::to_string(config.sequence_length));
    }
  }
  if (!validation.empty()) {
    return {std::make_shared<ExampleDataset>(train), std::make_shared<ExampleDataset>(validation), {}, {}, {}};
  }
  // Files are often sorted by class: those that are held out are spread over all.
  Recordings kept, held_out;
  const std::int64_t border = count(train) - part_of(config.validation_fraction, count(train));
  for (std::int64_t index = 0; index < count(train); ++index) {
    const bool keep = permute(index, count(train), 0) < border;
    (keep ? kept : held_out).push_back(train[static_cast<std::size_t>(index)]);
  }
  return {std::make_shared<ExampleDataset>(kept), std::make_shared<ExampleDataset>(held_out), {}, {}, {}};
}

Data as_series(const DataConfig& config, const std::vector<Field>& fields, const Recordings& train,
               const Recordings& validation) {
  std::vector<RecordingPart> kept, held_out;
  for (const auto& recording : train) {
    const double fraction = validation.empty() ? config.validation_fraction : 0;
    const std::int64_t border = recording->length() - part_of(fraction, recording->length());
    kept.push_back({recording, {0, border}});
    if (border < recording->length()) held_out.push_back({recording, {border, recording->length()}});
  }
  for (const auto& recording : validation) held_out.push_back({recording, {0, recording->length()}});
  const bool with_next = std::any_of(fields.begin(), fields.end(), [](const Field& field) { return field.next; });
  return {std::make_shared<SeriesDataset>(kept, with_next),
          std::make_shared<SeriesDataset>(held_out, with_next),
          {},
          {},
          {}};
}

/// Throws when what a run writes would become data: checkpoints and logs, at the next start.
void require_outside(const fs::path& run, const std::vector<std::string>& patterns, const char* key) {
  const fs::path inner = fs::weakly_canonical(run);
  for (const std::string& pattern : patterns) {
    if (!fs::is_directory(pattern)) continue;
    const fs::path below = inner.lexically_relative(fs::canonical(pattern));
    const auto hidden = [](const fs::path& part) { return part.string().starts_with('.') && part != "."; };
    if (below.empty() || std::any_of(below.begin(), below.end(), hidden)) continue;  // elsewhere, or not looked into
    throw ConfigError("run: " + run.string() + " lies in " + pattern + ", which " + key +
                      " names: what the run writes would become data; choose another folder for one of them");
  }
}

void require_known(const std::vector<std::string>& missing, const std::vector<Field>& fields) {
  for (const std::string& name : missing) {
    const auto known = [&](const Field& field) { return field.name == name; };
    if (std::none_of(fields.begin(), fields.end(), known)) {
      throw ConfigError("data.missing names " + name + ", which the model does not read");
    }
  }
}

}  // namespace

Data open_data(const DataConfig& config, const std::vector<Field>& fields, const fs::path& cache) {
  require_known(config.missing, fields);
  if (config.token_type != TokenType::Automatic && config.type != DataType::Tokens) {
    throw ConfigError("data.token_type says how tokens are stored; it goes with data.type: tokens");
  }
  require_outside(cache.parent_path(), config.train, "data.train");
  require_outside(cache.parent_path(), config.validation, "data.validation");
  Data data;
  if (config.type != DataType::Examples && config.type != DataType::Series) {
    data = open_tokens(config, fields, cache);
  } else {
    std::string train_files, validation_files;
    const auto train = open_recordings(config, fields, config.train, train_files);
    const auto validation =
        config.validation.empty() ? Recordings{} : open_recordings(config, fields, config.validation, validation_files);
    data = config.type == DataType::Examples ? as_examples(config, fields, train, validation)
                                             : as_series(config, fields, train, validation);
    data = with_digests(std::move(data), train_files, validation_files);
  }
  data.train->require_sequence(config.sequence_length);
  return data;
}

}  // namespace longnet
