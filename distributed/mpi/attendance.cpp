#include "distributed/mpi/attendance.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>

#include "core/error.h"
#include "distributed/mpi/mpi_error.h"

namespace longnet::mpi {
namespace {

using namespace std::chrono_literals;

constexpr auto period = 100ms;    ///< between two looks at the notes
constexpr auto answer_time = 1s;  ///< that ranks have to answer in
constexpr auto precedence = 5s;   ///< that a lower rank, which calls the roll too, has to report in
constexpr int tag = 0;
constexpr int nobody = std::numeric_limits<int>::max();

template <std::size_t size>
void copy_text(std::array<char, size>& into, const std::string& text) {
  into.fill('\0');
  std::copy_n(text.begin(), std::min(text.size(), size - 1), into.begin());
}

std::string listed(const std::vector<std::string>& entries) {
  constexpr std::size_t most = 8;
  std::string text;
  for (std::size_t index = 0; index < std::min(entries.size(), most); ++index) {
    text += (index == 0 ? "" : ", ") + entries[index];
  }
  if (entries.size() > most) text += " and " + std::to_string(entries.size() - most) + " more";
  return text;
}

std::vector<std::string> host_names(MPI_Comm handle) {
  int size = 0, length = 0;
  LONGNET_MPI(MPI_Comm_size(handle, &size));
  using Name = std::array<char, MPI_MAX_PROCESSOR_NAME>;
  Name own{};
  LONGNET_MPI(MPI_Get_processor_name(own.data(), &length));
  std::vector<Name> all(static_cast<std::size_t>(size));
  LONGNET_MPI(MPI_Allgather(own.data(), sizeof(Name), MPI_BYTE, all.data(), sizeof(Name), MPI_BYTE, handle));
  std::vector<std::string> names;
  names.reserve(all.size());
  for (const Name& name : all) names.emplace_back(name.data());
  return names;
}

}  // namespace

Attendance::Attendance() {
  LONGNET_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &handle_));
  LONGNET_MPI(MPI_Comm_set_errhandler(handle_, MPI_ERRORS_RETURN));
  LONGNET_MPI(MPI_Comm_rank(handle_, &rank_));
  hosts_ = host_names(handle_);
}

Attendance::~Attendance() {
  // Collective: while an exception unwinds, others may not come to it.
  if (std::uncaught_exceptions() == 0) MPI_Comm_free(&handle_);
}

void Attendance::wait(const Operation& operation, const std::function<bool()>& is_complete) {
  if (is_complete()) return;
  int lowest_caller = nobody;
  if (read_until(Clock::now() + timeout_, operation, is_complete, lowest_caller)) return;

  answers_.clear();
  for (const int rank : operation.group->ranks) {
    if (rank != rank_) send(rank, note_of(operation, /*is_question=*/true));
  }
  lowest_caller = nobody;
  if (read_until(Clock::now() + answer_time, operation, is_complete, lowest_caller)) return;
  if (lowest_caller < rank_ && read_until(Clock::now() + precedence, operation, is_complete, lowest_caller)) return;
  throw CommunicationError(report(operation));
}

bool Attendance::read_until(Clock::time_point until, const Operation& operation,
                            const std::function<bool()>& is_complete, int& lowest_caller) {
  auto next = Clock::now() + period;
  while (!is_complete()) {
    const auto now = Clock::now();
    if (now >= until) return false;
    if (now < next) continue;
    next = now + period;
    lowest_caller = std::min(lowest_caller, read(operation));
  }
  return true;
}

Attendance::Note Attendance::note_of(const Operation& operation, bool is_question) const {
  Note note{.number = operation.number, .from = rank_, .is_question = is_question};
  copy_text(note.operation, operation.name);
  copy_text(note.group, operation.group->name);
  return note;
}

void Attendance::send(int rank, const Note& note) {
  // Nobody may ever receive it: it stays where it is until the process ends.
  auto* kept = new Note(note);  // NOLINT(cppcoreguidelines-owning-memory)
  MPI_Request request = MPI_REQUEST_NULL;
  LONGNET_MPI(MPI_Isend(kept, sizeof(Note), MPI_BYTE, rank, tag, handle_, &request));
  LONGNET_MPI(MPI_Request_free(&request));  // NOLINT(clang-analyzer-optin.mpi.MPI-Checker): nobody waits for it
}

int Attendance::read(const Operation& operation) {
  int lowest_caller = nobody;
  while (true) {
    int has_come = 0;
    MPI_Status status;
    LONGNET_MPI(MPI_Iprobe(MPI_ANY_SOURCE, tag, handle_, &has_come, &status));
    if (has_come == 0) return lowest_caller;
    Note note;
    LONGNET_MPI(MPI_Recv(&note, sizeof(Note), MPI_BYTE, status.MPI_SOURCE, tag, handle_, MPI_STATUS_IGNORE));
    if (note.is_question) {
      lowest_caller = std::min(lowest_caller, static_cast<int>(note.from));
      send(note.from, note_of(operation, /*is_question=*/false));
    } else {
      answers_[note.from] = note;
    }
  }
}

std::string Attendance::place(int rank) const {
  return "rank " + std::to_string(rank) + " on " + hosts_[static_cast<std::size_t>(rank)];
}

std::string Attendance::report(const Operation& operation) const {
  const Note own = note_of(operation, false);
  std::vector<std::string> present{place(rank_)}, elsewhere, absent;
  for (const int rank : operation.group->ranks) {
    if (rank == rank_) continue;
    const auto answer = answers_.find(rank);
    if (answer == answers_.end()) {
      absent.push_back(place(rank));
    } else if (answer->second.number == own.number && answer->second.group == own.group) {
      present.push_back(place(rank));
    } else {
      const Note& note = answer->second;
      elsewhere.push_back(place(rank) + " waits in " + note.operation.data() + ", number " +
                          std::to_string(note.number) + " of " + note.group.data());
    }
  }
  std::string text = std::string(operation.name) + ", operation number " + std::to_string(operation.number) + " of " +
                     operation.group->name + ", did not end within " +
                     std::to_string(std::chrono::duration_cast<std::chrono::seconds>(timeout_).count()) +
                     " s (parallel.timeout_seconds): there are " + listed(present);
  if (!absent.empty()) text += "; stopped, gone or at work elsewhere are " + listed(absent);
  if (!elsewhere.empty()) text += "; " + listed(elsewhere);
  return text;
}

}  // namespace longnet::mpi
