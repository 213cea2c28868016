#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "distributed/communicator.h"

namespace longnet {

/// An error of one or several ranks that all ranks have learnt of, so that all end together. Its message names the
/// ranks, unless every rank met the same error.
class AgreedError : public Error {
 public:
  AgreedError(const std::string& message, int exit_code) : Error(message), exit_code_(exit_code) {}
  /// For an error that all ranks are known to meet alike.
  explicit AgreedError(const Error& error) : AgreedError(error.what(), error.exit_code()) {}
  int exit_code() const override { return exit_code_; }

 private:
  int exit_code_;
};

/// The text of every rank, in rank order: for short texts. Collective.
std::vector<std::string> gather_text(Communicator& communicator, const std::string& text);

/// The text of rank `root`. Collective.
std::string broadcast_text(Communicator& communicator, const std::string& text, int root);

/// Runs `work`, which must not communicate, on every rank and waits for all. If it throws any exception on any rank,
/// throws the same AgreedError on every rank. Collective.
void agree(Communicator& communicator, const std::function<void()>& work);

/// Throws AgreedError (exit code 2) on every rank unless all ranks give the same `text`. `what` names it. Only a digest
/// travels where they do. Collective.
void require_same(Communicator& communicator, const std::string& what, const std::string& text);

}  // namespace longnet
