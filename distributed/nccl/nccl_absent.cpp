// Stands in for NCCL in a build without CUDA.

#include "distributed/nccl/nccl_communicator.h"

namespace longnet {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator>, const NcclSettings&) {
  throw Error("this longnet was built without NCCL; build it with -DLONGNET_CUDA=ON");
}

}  // namespace longnet
