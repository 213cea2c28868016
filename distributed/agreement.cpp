#include "distributed/agreement.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>

#include "core/failure.h"
#include "core/files/hashing_file.h"

namespace longnet {
namespace {

/// The line that holds the character `place`, without what indents it.
std::string line_at(const std::string& text, std::size_t place) {
  const auto newline = place == 0 ? std::string::npos : text.rfind('\n', place - 1);
  const auto begin = text.find_first_not_of(' ', newline == std::string::npos ? 0 : newline + 1);
  return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

std::vector<std::string> gather_text(Communicator& communicator, const std::string& text) {
  auto lengths = at::empty({communicator.size()}, at::kLong);
  communicator.all_gather(lengths, at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong))->wait();
  const std::int64_t longest = lengths.max().item<std::int64_t>();
  auto padded = at::zeros({longest}, at::kByte), all = at::empty({communicator.size(), longest}, at::kByte);
  std::copy(text.begin(), text.end(), static_cast<char*>(padded.data_ptr()));
  communicator.all_gather(all, padded)->wait();

  std::vector<std::string> texts;
  for (std::int64_t rank = 0; rank < communicator.size(); ++rank) {
    const auto length = static_cast<std::size_t>(lengths[rank].item<std::int64_t>());
    texts.emplace_back(static_cast<const char*>(all[rank].data_ptr()), length);
  }
  return texts;
}

std::string broadcast_text(Communicator& communicator, const std::string& text, int root) {
  auto length = at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong);
  communicator.broadcast(length, root)->wait();
  auto bytes = at::empty({length.item<std::int64_t>()}, at::kByte);
  if (communicator.rank() == root) std::copy(text.begin(), text.end(), static_cast<char*>(bytes.data_ptr()));
  communicator.broadcast(bytes, root)->wait();
  return {static_cast<const char*>(bytes.data_ptr()), static_cast<std::size_t>(bytes.numel())};
}

void agree(Communicator& communicator, const std::function<void()>& work) {
  int exit_code = 0;
  std::string message;
  try {
    work();
  } catch (const std::exception& error) {
    const Failure failure = failure_of(error);
    exit_code = failure.exit_code;
    message = failure.message;
  }
  auto worst = at::full({1}, exit_code, at::kInt);
  communicator.all_reduce(worst, Reduction::Maximum)->wait();
  if (worst.item<int>() == 0) return;

  const auto messages = gather_text(communicator, message);
  const bool common =
      std::all_of(messages.begin(), messages.end(), [&](const auto& text) { return text == messages[0]; });
  if (common) throw AgreedError(message, worst.item<int>());
  std::string joined;
  for (std::size_t rank = 0; rank < messages.size(); ++rank) {
    if (messages[rank].empty()) continue;
    joined += (joined.empty() ? "rank " : "; rank ") + std::to_string(rank) + ": " + messages[rank];
  }
  throw AgreedError(joined, worst.item<int>());
}

void require_same(Communicator& communicator, const std::string& what, const std::string& text) {
  const std::string digest = digest_of(std::as_bytes(std::span(text))).xxh3_128;
  const auto digests = gather_text(communicator, digest);
  if (std::all_of(digests.begin(), digests.end(), [&](const auto& other) { return other == digests[0]; })) return;
  const std::string first = broadcast_text(communicator, text, 0);
  const auto differs = std::mismatch(first.begin(), first.end(), text.begin(), text.end()).first;
  const std::size_t place = static_cast<std::size_t>(differs - first.begin());
  const auto lines =
      gather_text(communicator, digest == digests[0] ? "" : line_at(text, place) + "\n" + line_at(first, place));
  for (std::size_t rank = 1; rank < lines.size(); ++rank) {
    if (lines[rank].empty()) continue;
    const auto border = lines[rank].find('\n');
    throw AgreedError(ConfigError("ranks 0 and " + std::to_string(rank) + " have a different " + what + ": '" +
                                  lines[rank].substr(border + 1) + "' and '" + lines[rank].substr(0, border) +
                                  "'; start all ranks with the same"));
  }
}

}  // namespace longnet
