#pragma once

namespace longnet::mpi {

/// Throws CommunicationError with MPI's own words when `code` is not MPI_SUCCESS. `call` is the failed expression.
void check(int code, const char* call);

}  // namespace longnet::mpi

/// Calls MPI and checks the result.
#define LONGNET_MPI(call) ::longnet::mpi::check((call), #call)
