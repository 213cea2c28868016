#include "distributed/nccl/nccl_communicator.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>
#include <utility>

#include "core/host_name.h"
#include "distributed/agreement.h"
#include "distributed/message_sum.h"
#include "distributed/nccl/nccl_error.h"
#include "distributed/nccl/nccl_handle.h"
#include "distributed/nccl/nccl_work.h"
#include "distributed/watchdog.h"

namespace longnet {
namespace {

using nccl::Handle;
using nccl::Launch;
using nccl::NcclWork;

ncclDataType_t arithmetic_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kInt:
      return ncclInt32;
    case at::kLong:
      return ncclInt64;
    default:
      throw CommunicationError(std::string("NCCL is not asked to reduce ") + c10::toString(type));
  }
}

void check_device(const at::Tensor& tensor) {
  if (!tensor.is_contiguous()) throw CommunicationError("an NCCL operation got a tensor that is not contiguous");
}

/// What the communicators of a process share.
struct Context {
  explicit Context(const NcclSettings& settings, int rank)
      : gpu(settings.gpu),
        timeout(settings.timeout),
        stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, settings.gpu.index())),
        watchdog({"rank " + std::to_string(rank) + " on " + host_name(), settings.timeout,
                  std::chrono::milliseconds(100), settings.on_failure}) {}

  c10::Device gpu;
  std::chrono::milliseconds timeout;
  c10::cuda::CUDAStream stream;
  Watchdog watchdog;
  std::shared_ptr<Launch> group;  ///< while operations are being grouped
};

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Context> context, std::shared_ptr<Handle> handle)
      : host_(std::move(host)), context_(std::move(context)), handle_(std::move(handle)) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }

  std::unique_ptr<Communicator> split(int color) override {
    auto host = host_->split(color);
    const c10::cuda::CUDAGuard guard(context_->gpu);
    ncclConfig_t config = non_blocking();
    auto handle = nccl::make_handle("ncclCommSplit", context_->timeout, [&](ncclComm_t* place) {
      LONGNET_NCCL(ncclCommSplit(handle_->get(), color, rank(), place, &config));
      handle_->settle("ncclCommSplit", context_->timeout);
    });
    return std::make_unique<NcclCommunicator>(std::move(host), context_, std::move(handle));
  }

  std::unique_ptr<Communicator> split_by_host() override { return host_->split_by_host(); }

  void barrier() override { host_->barrier(); }

  void set_timeout(std::chrono::milliseconds timeout) override { host_->set_timeout(timeout); }

  std::unique_ptr<Work> broadcast(at::Tensor data, int root) override {
    if (data.is_cpu()) return host_->broadcast(std::move(data), root);
    check_device(data);
    return start("broadcast", {data}, [&](cudaStream_t stream) {
      LONGNET_NCCL(
          ncclBroadcast(data.data_ptr(), data.data_ptr(), data.nbytes(), ncclInt8, root, handle_->get(), stream));
    });
  }

  std::unique_ptr<Work> all_reduce(at::Tensor data, Reduction reduction) override {
    if (data.is_cpu()) return host_->all_reduce(std::move(data), reduction);
    check_device(data);
    const bool half = data.scalar_type() == at::kBFloat16 || data.scalar_type() == at::kHalf;
    const auto sum = half ? data.to(at::kFloat) : data;
    const auto type = arithmetic_type(sum.scalar_type());
    const auto operation = reduction == Reduction::Sum ? ncclSum : ncclMax;
    auto work = start("all-reduce", {sum}, [&](cudaStream_t stream) {
      LONGNET_NCCL(ncclAllReduce(sum.data_ptr(), sum.data_ptr(), static_cast<std::size_t>(sum.numel()), type, operation,
                                 handle_->get(), stream));
    });
    if (half) work->then([data, sum] { data.copy_(sum); });
    return work;
  }

  std::unique_ptr<Work> all_gather(at::Tensor output, at::Tensor input) override {
    if (input.is_cpu()) return host_->all_gather(std::move(output), std::move(input));
    check_device(input);
    check_device(output);
    if (output.numel() != size() * input.numel()) throw CommunicationError("all_gather: output is not (size, input)");
    return start("all-gather", {output, input}, [&](cudaStream_t stream) {
      LONGNET_NCCL(
          ncclAllGather(input.data_ptr(), output.data_ptr(), input.nbytes(), ncclInt8, handle_->get(), stream));
    });
  }

  std::unique_ptr<Work> reduce_scatter(at::Tensor output, at::Tensor input) override {
    if (input.is_cpu()) return host_->reduce_scatter(std::move(output), std::move(input));
    check_device(input);
    check_device(output);
    if (input.size(0) != size()) throw CommunicationError("reduce_scatter: input is not (size, output)");
    if (input.scalar_type() != output.scalar_type()) return sum_of_messages(output, input);
    const auto type = arithmetic_type(input.scalar_type());
    return start("reduce-scatter", {output, input}, [&](cudaStream_t stream) {
      LONGNET_NCCL(ncclReduceScatter(input.data_ptr(), output.data_ptr(), static_cast<std::size_t>(output.numel()),
                                     type, ncclSum, handle_->get(), stream));
    });
  }

  std::unique_ptr<Work> exchange(std::vector<Message> sends, std::vector<Message> receives) override {
    const auto on_host = [](const std::vector<Message>& messages) {
      return !messages.empty() && messages.front().data.is_cpu();
    };
    if (on_host(sends) || on_host(receives)) return host_->exchange(std::move(sends), std::move(receives));
    return start_messages("exchange", sends, receives);
  }

  void together(const std::function<void()>& calls) override {
    if (context_->group) return calls();  // part of a larger group
    const c10::cuda::CUDAGuard guard(context_->gpu);
    context_->group = std::make_shared<Launch>("grouped operations", context_->gpu);
    context_->group->record_start(context_->stream);
    const auto launch = context_->group;
    grouped([&] { calls(); });
    context_->group.reset();
    finish(launch);
  }

 private:
  /// Starts one operation; in a group it goes with the others when the group ends.
  std::unique_ptr<NcclWork> start(const char* name, std::vector<at::Tensor> tensors,
                                  const std::function<void(cudaStream_t)>& call) {
    const c10::cuda::CUDAGuard guard(context_->gpu);
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream());
    ready.block(context_->stream);
    if (context_->group) {
      context_->group->add(handle_);
      call(context_->stream);
      return std::make_unique<NcclWork>(context_->group, std::move(tensors));
    }
    const auto launch = std::make_shared<Launch>(name, context_->gpu);
    launch->add(handle_);
    launch->record_start(context_->stream);
    call(context_->stream);
    finish(launch);
    return std::make_unique<NcclWork>(launch, std::move(tensors));
  }

  /// Everything has been given to NCCL. Until it has accepted that, the stream does not hold it, and an event recorded
  /// there would come too early.
  void finish(const std::shared_ptr<Launch>& launch) {
    for (const auto& handle : launch->handles()) handle->settle(launch->name().c_str(), context_->timeout);
    launch->record_end(context_->stream);
    context_->watchdog.watch(launch);
  }

  /// NCCL launches the calls together. The group is ended whatever happens, because NCCL keeps it a thread.
  template <typename Calls>
  void grouped(const Calls& calls) {
    LONGNET_NCCL(ncclGroupStart());
    try {
      calls();
    } catch (...) {
      context_->group.reset();
      ncclGroupEnd();
      throw;
    }
    LONGNET_NCCL(ncclGroupEnd());
  }

  std::unique_ptr<NcclWork> start_messages(const char* name, const std::vector<Message>& sends,
                                           const std::vector<Message>& receives) {
    std::vector<at::Tensor> tensors;
    for (const auto* messages : {&sends, &receives}) {
      for (const Message& message : *messages) {
        check_device(message.data);
        tensors.push_back(message.data);
      }
    }
    return start(name, std::move(tensors), [&](cudaStream_t stream) {
      grouped([&] {
        for (const Message& message : sends) {
          if (message.data.numel() == 0) continue;  // its receiver leaves it out, too
          LONGNET_NCCL(
              ncclSend(message.data.data_ptr(), message.data.nbytes(), ncclInt8, message.peer, handle_->get(), stream));
        }
        for (const Message& message : receives) {
          if (message.data.numel() == 0) continue;
          LONGNET_NCCL(
              ncclRecv(message.data.data_ptr(), message.data.nbytes(), ncclInt8, message.peer, handle_->get(), stream));
        }
      });
    });
  }

  /// A reduce-scatter whose sums are wider than what travels, which NCCL does not have: every rank sends its parts, and
  /// the receiver sums them in rank order.
  std::unique_ptr<Work> sum_of_messages(const at::Tensor& output, const at::Tensor& input) {
    const MessageSum sum(input, rank());
    auto work = start_messages("reduce-scatter", sum.sends, sum.receives);
    work->then([sum, output] { sum.sum_into(output); });
    return work;
  }

  std::unique_ptr<Communicator> host_;
  std::shared_ptr<Context> context_;  ///< outlives the handle: its watchdog may be looking at it
  std::shared_ptr<Handle> handle_;
};

void check_version() {
  int loaded = 0;
  LONGNET_NCCL(ncclGetVersion(&loaded));
  if (loaded != NCCL_VERSION_CODE) {
    throw CommunicationError("longnet was built with NCCL " + std::to_string(NCCL_VERSION_CODE) +
                             ", but this process has loaded " + std::to_string(loaded) +
                             ": set LD_LIBRARY_PATH so that LibTorch's own NCCL is found first");
  }
}

/// The first rank's id, on all ranks.
ncclUniqueId common_id(Communicator& host) {
  ncclUniqueId id{};
  agree(host, [&] {
    check_version();
    if (host.rank() == 0) LONGNET_NCCL(ncclGetUniqueId(&id));
  });
  auto bytes = at::empty({static_cast<std::int64_t>(sizeof id)}, at::kByte);
  std::memcpy(bytes.data_ptr(), &id, sizeof id);
  host.broadcast(bytes, 0)->wait();
  std::memcpy(&id, bytes.data_ptr(), sizeof id);
  return id;
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host, const NcclSettings& settings) {
  const ncclUniqueId id = common_id(*host);
  const c10::cuda::CUDAGuard guard(settings.gpu);
  auto context = std::make_shared<Context>(settings, host->rank());
  ncclConfig_t config = non_blocking();
  auto handle = nccl::make_handle("ncclCommInitRankConfig", settings.timeout, [&](ncclComm_t* place) {
    LONGNET_NCCL(ncclCommInitRankConfig(place, host->size(), id, host->rank(), &config));
  });
  return std::make_unique<NcclCommunicator>(std::move(host), std::move(context), std::move(handle));
}

}  // namespace longnet
