#pragma once

#include <exception>
#include <string>

namespace longnet {

/// An exception in the words of the program: one line that says what to do, and the exit code.
struct Failure {
  std::string message;
  int exit_code;
};

/// A message as one line: what it quotes of a file may hold other characters.
std::string one_line(std::string message);

/// Of any exception: the project's own, files and folders that the system refuses, memory that is not there, and what
/// LibTorch throws. All that is left is an internal error, exit code 1.
Failure failure_of(const std::exception& error);

}  // namespace longnet
