#pragma once

#include <mpi.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace longnet::mpi {

/// Ranks that operate together, and how far this one is. Operations are numbered from 1 in the order in which they are
/// started: the same on all ranks.
struct Group {
  std::string name;             ///< the same on all ranks: "world", and for its parts "world.1:0"
  std::vector<int> ranks;       ///< in the world, in the group's order
  std::int64_t operations = 0;  ///< started so far
  std::int64_t splits = 0;
};

/// An operation of a group.
struct Operation {
  const char* name;
  const Group* group;
  std::int64_t number;
};

/// Waits for operations, but not for ever. Who has waited too long calls the roll: it asks all ranks of the group where
/// they are. Ranks that wait answer; the others are stopped, gone, or at work elsewhere.
///
/// MPI itself never gives up: a rank that has stopped, or has left the order of operations, would hang all others.
class Attendance {
 public:
  /// Collective over MPI_COMM_WORLD.
  Attendance();
  ~Attendance();
  Attendance(const Attendance&) = delete;
  Attendance& operator=(const Attendance&) = delete;

  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  /// Calls `is_complete` until it is true. Throws CommunicationError, on one rank before the others, after the time-out:
  /// it names the operation, who waits in it and who does not, with their hosts.
  void wait(const Operation& operation, const std::function<bool()>& is_complete);

 private:
  using Clock = std::chrono::steady_clock;

  /// What ranks tell each other.
  struct Note {
    std::array<char, 48> operation{}, group{};
    std::int64_t number = 0;
    std::int32_t from = 0;
    bool is_question = false;
  };

  Note note_of(const Operation& operation, bool is_question) const;
  void send(int rank, const Note& note);
  /// Reads what has come: answers questions, keeps answers. Returns the lowest rank that has called the roll.
  int read(const Operation& operation);
  /// Reads until `is_complete` or `until`. True when it is complete.
  bool read_until(Clock::time_point until, const Operation& operation, const std::function<bool()>& is_complete,
                  int& lowest_caller);
  std::string report(const Operation& operation) const;
  std::string place(int rank) const;

  MPI_Comm handle_ = MPI_COMM_NULL;
  int rank_ = 0;
  std::vector<std::string> hosts_;  ///< of all ranks
  std::chrono::milliseconds timeout_{std::chrono::minutes(10)};
  std::map<int, Note> answers_;
};

}  // namespace longnet::mpi
