#pragma once

#include <stdexcept>

namespace longnet {

/// Root of every error that longnet throws. The message names the file, key or rank and says what to do about it. A
/// library function never exits or prints: the program prints the message and ends with the error's exit code.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  virtual int exit_code() const { return 1; }
};

/// The configuration or the command line cannot work.
class ConfigError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 2; }
};

/// The data cannot be read or do not fit the configuration.
class DataError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 3; }
};

/// A file of results cannot be written.
class FileError : public Error {
 public:
  using Error::Error;
};

/// A checkpoint cannot be written, read or used.
class CheckpointError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 4; }
};

/// Training diverged: too many steps in a row had a non-finite loss or gradient.
class DivergenceError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 5; }
};

/// A message between ranks failed or timed out.
class CommunicationError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 6; }
};

}  // namespace longnet
