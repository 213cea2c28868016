// Prints the versions of NCCL's header and library; fails when they differ.

#include <nccl.h>

#include <cstdio>

int main() {
  int library = 0;
  const bool known = ncclGetVersion(&library) == ncclSuccess;
  std::printf("header %d, library %d", NCCL_VERSION_CODE, library);
  return known && library == NCCL_VERSION_CODE ? 0 : 1;
}
