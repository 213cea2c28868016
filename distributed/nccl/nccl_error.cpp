#include "distributed/nccl/nccl_error.h"

#include <string>

#include "core/error.h"

namespace longnet::nccl {

void check(ncclResult_t code, const char* call) {
  if (code == ncclSuccess || code == ncclInProgress) return;
  std::string detail = ncclGetLastError(nullptr);
  if (!detail.empty()) detail = " (" + detail + ")";
  throw CommunicationError(std::string("NCCL: ") + ncclGetErrorString(code) + detail + " in " + call);
}

}  // namespace longnet::nccl
