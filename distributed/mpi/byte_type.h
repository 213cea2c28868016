#pragma once

#include <mpi.h>

#include <cstdint>

namespace longnet::mpi {

/// An MPI datatype of `bytes` bytes and a count, for transfers of any size: MPI's own counts end at 2^31 - 1.
/// It may go before a transfer that uses it is complete (MPI 3.1, section 4.1.9).
class ByteType {
 public:
  explicit ByteType(std::int64_t bytes);
  ~ByteType();
  ByteType(const ByteType&) = delete;
  ByteType& operator=(const ByteType&) = delete;

  MPI_Datatype type() const { return type_; }
  int count() const { return count_; }

 private:
  MPI_Datatype type_ = MPI_BYTE;  // anything else is owned
  int count_ = 0;
};

}  // namespace longnet::mpi
