#pragma once

#include <stdexcept>

namespace longnet {

/// Root of every error that longnet throws. The message names the file, key or rank and says what to do about it.
/// A library function never exits or prints: the program turns an error into one line and an exit code.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The configuration or the command line cannot work (exit code 2).
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// The data cannot be read or do not fit the configuration (exit code 3).
class DataError : public Error {
 public:
  using Error::Error;
};

/// A checkpoint cannot be written, read or used (exit code 4).
class CheckpointError : public Error {
 public:
  using Error::Error;
};

/// Training diverged: too many steps in a row had a non-finite loss or gradient (exit code 5).
class DivergenceError : public Error {
 public:
  using Error::Error;
};

/// A message between ranks failed or timed out (exit code 6).
class CommunicationError : public Error {
 public:
  using Error::Error;
};

}  // namespace longnet
