#include "core/failure.h"

#include <c10/util/Exception.h>

#include <filesystem>
#include <new>
#include <string_view>

#include "core/error.h"

namespace longnet {
namespace {

constexpr const char* less_memory =
    "; lower training.micro_batch_size or data.sequence_length, set training.recompute: true, or share the sequence "
    "among more ranks; if the model itself is too large, make it smaller";

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

/// LibTorch's allocators have no exception of their own on the CPU.
bool tells_of_memory(const std::string& message) {
  return message.find("can't allocate memory") != std::string::npos ||
         message.find("out of memory") != std::string::npos;
}

/// How much was asked for, out of what LibTorch says; empty where it says nothing of the kind.
std::string asked_for(const std::string& message) {
  constexpr std::string_view before = "ried to allocate ";
  const auto begin = message.find(before);
  if (begin == std::string::npos) return {};
  const std::string rest = first_line(message.substr(begin + before.size()));
  const std::string amount = rest.substr(0, rest.find(". "));
  return " (" + amount + " were asked for)";
}

}  // namespace

std::string one_line(std::string message) {
  for (char& character : message) {
    if (static_cast<unsigned char>(character) < ' ' || character == '\x7f') character = ' ';
  }
  return message;
}

Failure failure_of(const std::exception& error) {
  if (const auto* own = dynamic_cast<const Error*>(&error)) return {own->what(), own->exit_code()};
  if (const auto* files = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    return {files->path1().string() + ": " + files->code().message(), FileError("").exit_code()};
  }
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return {std::string("out of memory") + less_memory, 1};
  if (const auto* torch = dynamic_cast<const c10::Error*>(&error)) {
    const std::string message = torch->what_without_backtrace();
    if (tells_of_memory(message)) return {"out of memory" + asked_for(message) + less_memory, 1};
    return {"internal error: " + first_line(message), 1};
  }
  return {std::string("internal error: ") + first_line(error.what()), 1};
}

}  // namespace longnet
