#pragma once

namespace longnet {

/// MPI from its start to its end. Lives in main, outside of any try block: MPI_Finalize must not run while an exception
/// unwinds, because other ranks may not come to it.
class MpiEnvironment {
 public:
  /// Starts MPI so that any thread may call it. Throws CommunicationError.
  MpiEnvironment(int& argc, char**& argv);
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  int world_rank() const;

  /// Ends the processes of all ranks with `exit_code`: for an error that this rank alone has met.
  [[noreturn]] void abort(int exit_code) const;
};

}  // namespace longnet
