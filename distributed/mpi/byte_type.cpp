#include "distributed/mpi/byte_type.h"

#include <array>
#include <limits>

#include "distributed/mpi/mpi_error.h"

namespace longnet::mpi {

ByteType::ByteType(std::int64_t bytes) {
  if (bytes <= std::numeric_limits<int>::max()) {
    count_ = static_cast<int>(bytes);
    return;
  }
  constexpr int unit = 1 << 20;
  MPI_Datatype units = MPI_DATATYPE_NULL;
  LONGNET_MPI(MPI_Type_contiguous(unit, MPI_BYTE, &units));
  const std::array<int, 2> lengths{static_cast<int>(bytes / unit), static_cast<int>(bytes % unit)};
  const std::array<MPI_Aint, 2> offsets{0, static_cast<MPI_Aint>(bytes / unit * unit)};
  const std::array<MPI_Datatype, 2> types{units, MPI_BYTE};
  LONGNET_MPI(MPI_Type_create_struct(2, lengths.data(), offsets.data(), types.data(), &type_));
  LONGNET_MPI(MPI_Type_free(&units));
  LONGNET_MPI(MPI_Type_commit(&type_));
  count_ = 1;
}

ByteType::~ByteType() {
  if (type_ != MPI_BYTE) MPI_Type_free(&type_);
}

}  // namespace longnet::mpi
