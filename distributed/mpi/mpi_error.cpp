#include "distributed/mpi/mpi_error.h"

#include <mpi.h>

#include <array>
#include <string>

#include "core/error.h"

namespace longnet::mpi {

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw CommunicationError(std::string(text.data(), static_cast<std::size_t>(length)) + " in " + call);
}

}  // namespace longnet::mpi
