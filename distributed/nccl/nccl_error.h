#pragma once

#include <nccl.h>

namespace longnet::nccl {

/// Throws CommunicationError with NCCL's own words when `code` is an error. ncclInProgress is none: communicators are
/// non-blocking. `call` is the failed expression.
void check(ncclResult_t code, const char* call);

}  // namespace longnet::nccl

/// Calls NCCL and checks the result.
#define LONGNET_NCCL(call) ::longnet::nccl::check((call), #call)
