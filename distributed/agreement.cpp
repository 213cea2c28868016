#include "distributed/agreement.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

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
  std::memcpy(padded.data_ptr(), text.data(), text.size());
  communicator.all_gather(all, padded)->wait();

  std::vector<std::string> texts;
  for (std::int64_t rank = 0; rank < communicator.size(); ++rank) {
    const auto length = static_cast<std::size_t>(lengths[rank].item<std::int64_t>());
    texts.emplace_back(static_cast<const char*>(all[rank].data_ptr()), length);
  }
  return texts;
}

void agree(Communicator& communicator, const std::function<void()>& work) {
  int exit_code = 0;
  std::string message;
  try {
    work();
  } catch (const Error& error) {
    exit_code = error.exit_code();
    message = error.what();
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
  const auto texts = gather_text(communicator, text);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    const auto differs = std::mismatch(texts[0].begin(), texts[0].end(), texts[rank].begin(), texts[rank].end()).first;
    const auto place = static_cast<std::size_t>(differs - texts[0].begin());
    throw AgreedError(ConfigError("ranks 0 and " + std::to_string(rank) + " have a different " + what + ": '" +
                                  line_at(texts[0], place) + "' and '" + line_at(texts[rank], place) +
                                  "'; start all ranks with the same"));
  }
}

}  // namespace longnet
