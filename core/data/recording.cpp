#include "core/data/recording.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace longnet {

Recording::Recording(const std::filesystem::path& path, std::string name, const std::vector<Field>& fields,
                     const std::vector<std::string>& missing)
    : path_(path), name_(std::move(name)), file_(path) {
  for (const Field& field : fields) {
    const bool hidden = std::find(missing.begin(), missing.end(), field.name) != missing.end();
    if (!hidden && file_.contains(field.name)) {
      examine(field);
      fields_.push_back(field);
    } else if (field.required) {
      fail(field, hidden ? "is named in data.missing, but the model cannot do without it" : "is missing");
    }
  }
  if (length_ >= 0) return;
  std::string names;
  for (const Field& field : fields) {
    if (!field.per_sequence) names += (names.empty() ? "" : ", ") + field.name;
  }
  throw DataError(path.string() + ": has none of " + names + ": nothing is left of the sequence");
}

void Recording::fail(const Field& field, const std::string& what) const {
  throw DataError(path_.string() + ": the field " + field.name + " " + what);
}

void Recording::examine(const Field& field) {
  const auto& shape = file_.shape(field.name);
  const auto shown = nlohmann::json(shape).dump();
  const bool whole_numbers = c10::isIntegralType(file_.dtype(field.name), /*includeBool=*/false);
  if (field.kind == Field::Kind::Tokens && !whole_numbers) fail(field, "does not hold whole numbers");
  if (field.kind == Field::Kind::Frames && whole_numbers) fail(field, "does not hold real numbers");
  std::vector<std::int64_t> row;
  if (field.kind == Field::Kind::Frames) row.push_back(field.size);
  if (field.per_sequence) {
    const bool single = field.kind == Field::Kind::Tokens
                            ? shape.empty() || shape == std::vector<std::int64_t>{1}
                            : shape == row || shape == std::vector<std::int64_t>{1, field.size};
    if (!single) fail(field, "has the shape " + shown + ", but must be one row for the whole sequence");
    return;
  }
  if (shape.size() != row.size() + 1 || !std::equal(row.begin(), row.end(), shape.begin() + 1)) {
    fail(field, "has the shape " + shown + ", but must be (rows" +
                    (row.empty() ? ")" : ", " + std::to_string(field.size) + ")"));
  }
  if (shape[0] % field.stride != 0) {
    fail(field, "has " + std::to_string(shape[0]) + " rows, no multiple of its stride " + std::to_string(field.stride));
  }
  const std::int64_t length = shape[0] / field.stride;
  if (length == 0) fail(field, "is empty");
  if (length_ >= 0 && length != length_) {
    fail(field, "covers " + std::to_string(length) + " positions, but the fields before it " + std::to_string(length_));
  }
  length_ = length;
}

at::Tensor Recording::usable(const Field& field, const at::Tensor& stored, std::int64_t first_row) const {
  if (field.kind == Field::Kind::Frames) {
    const auto frames = stored.scalar_type() == at::kDouble ? stored : stored.to(at::kFloat);
    require_finite(field, frames, first_row);
    return frames;
  }
  auto tokens = stored.to(at::kLong);
  const auto outside = tokens.lt(0).logical_or(tokens.ge(field.size)).nonzero();
  if (outside.size(0) > 0) {
    const auto row = outside[0][0].item<std::int64_t>();
    const std::string value = std::to_string(tokens[row].item<std::int64_t>());
    const std::string where =
        field.per_sequence ? "is " + value : "holds " + value + " in row " + std::to_string(first_row + row);
    fail(field, where + ", but " + field.size_key + " is " + std::to_string(field.size));
  }
  return tokens;
}

void Recording::require_finite(const Field& field, const at::Tensor& frames, std::int64_t first_row) const {
  // A sum shows whether there is anything to look for. It may overflow without reason; the search then finds nothing.
  if (std::isfinite(frames.sum(at::kDouble).item<double>())) return;
  const auto places = frames.isfinite().logical_not().nonzero();
  if (places.size(0) == 0) return;
  const auto value =
      std::to_string(frames.flatten()[frames.isfinite().logical_not().flatten().nonzero()[0][0]].item<double>());
  std::string where =
      field.per_sequence ? "" : " in row " + std::to_string(first_row + places[0][0].item<std::int64_t>());
  where += ", channel " + std::to_string(places[0][places.size(1) - 1].item<std::int64_t>());
  fail(field, "holds " + value + where + ": every number must be finite; fill such gaps, or leave those rows out");
}

FieldRows Recording::read(Range positions) const {
  FieldRows result;
  for (const Field& field : fields_) {
    if (field.per_sequence) {
      const auto whole = file_.read(field.name);
      result.emplace(field.name, usable(field, whole.flatten(), 0));  // a row may stand in a table of one
      continue;
    }
    const auto rows = [&](std::int64_t begin, std::int64_t end) {
      return usable(field, file_.read_rows(field.name, begin * field.stride, end * field.stride), begin * field.stride);
    };
    result.emplace(field.name, rows(positions.begin, positions.end));
    if (field.next) result.emplace(field.name + ".next", rows(positions.begin + 1, positions.end + 1));
  }
  return result;
}

std::string Recording::fingerprint() const {
  return longnet::fingerprint(path_);
}

}  // namespace longnet
