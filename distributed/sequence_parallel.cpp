#include "distributed/sequence_parallel.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/attention/query_weights.h"
#include "distributed/agreement.h"
#include "distributed/key_value_exchange.h"

namespace longnet {

SequenceShard SequenceParallel::shard(std::int64_t length) const {
  const auto layout = even_layout(length, communicator_.size());
  return {length, layout[static_cast<std::size_t>(communicator_.rank())]};
}

std::unique_ptr<SequenceAttention> SequenceParallel::attention(const Mixture& mixture, std::int64_t heads,
                                                               bool causal) {
  return std::make_unique<SequenceAttention>(*this, mixture, heads, causal);
}

Communicator* SequenceParallel::group(int size) {
  auto& group = groups_[size];
  if (!group) group = communicator_.split(communicator_.rank() / size);
  return group.get();
}

const SequenceAttention::Prepared& SequenceAttention::prepare(std::int64_t length) {
  if (const auto found = prepared_.find(length); found != prepared_.end()) {
    found->second.last_use = ++uses_;
    return found->second;
  }
  Communicator& communicator = parallel_.communicator_;
  const auto layout = even_layout(length, communicator.size());
  const Range own = layout[static_cast<std::size_t>(communicator.rank())];
  auto plan = std::make_shared<AttentionPlan>(plan_attention(mixture_, heads_, causal_, length, own));
  if (parallel_.transport_ == TransportChoice::Aligned) require_aligned(layout);
  auto traffic = plan_exchange(*plan, layout, communicator.rank(), parallel_.transport_);
  ExchangeGroups groups{&communicator, {}};
  for (const CrossingTraffic& crossing : traffic) {
    const bool aligned = crossing.transport == Transport::Aligned;
    groups.aligned.push_back(aligned ? parallel_.group(static_cast<int>(crossing.group.size())) : nullptr);
  }
  std::shared_ptr<KeyValueExchange> exchange;
  if (!traffic.empty()) exchange = make_key_value_exchange(plan, traffic, groups, &parallel_.received_bytes_);
  forget_oldest();
  return prepared_.emplace(length, Prepared{plan, std::move(traffic), exchange, ++uses_}).first->second;
}

void SequenceAttention::forget_oldest() {
  constexpr std::size_t most = 64;  // lengths; one takes some 20 kB
  if (prepared_.size() < most) return;
  prepared_.erase(std::min_element(prepared_.begin(), prepared_.end(),
                                   [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; }));
}

void SequenceAttention::require_aligned(const SequenceLayout& layout) const {
  try {
    for (std::size_t rank = 0; rank < layout.size(); ++rank) {
      const auto plan = plan_attention(mixture_, heads_, causal_, layout.back().end, layout[rank]);
      plan_exchange(plan, layout, static_cast<int>(rank), TransportChoice::Aligned);
    }
  } catch (const ConfigError& error) {
    throw AgreedError(error);
  }
}

AttentionOutput SequenceAttention::operator()(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                              const SequenceShard& shard, const std::optional<at::Tensor>& key_mask) {
  const Prepared& prepared = prepare(shard.length);
  return dilated_attention(q, k, v, prepared.plan, key_mask, prepared.exchange);
}

at::Tensor SequenceAttention::weights(const at::Tensor& q, const at::Tensor& k, const SequenceShard& shard,
                                      const std::optional<at::Tensor>& key_mask, std::int64_t position) {
  const AttentionPlan& plan = *prepare(shard.length).plan;
  const bool here = position >= shard.own.begin && position < shard.own.end;
  auto query = here ? q.select(1, position - shard.own.begin).to(at::kDouble)
                    : at::zeros({q.size(0), q.size(2), q.size(3)}, q.options().dtype(at::kDouble));
  query = parallel_.sum(query);  // only one rank has it
  const auto counts = key_counts(plan, position).to(q.device());
  auto scores = (k.to(at::kDouble) * query.unsqueeze(1)).sum(-1) / std::sqrt(static_cast<double>(q.size(3)));
  scores = scores + counts.log();  // -inf for what is out of reach
  if (key_mask) {
    const auto own = key_mask->slice(1, shard.own.begin, shard.own.end);
    scores = scores.masked_fill(own.logical_not().unsqueeze(-1), -std::numeric_limits<double>::infinity());
  }
  constexpr double nothing = -std::numeric_limits<double>::infinity();
  const auto log_zero_keys =
      zero_key_counts(plan, {position, position + 1}).to(q.device()).log().expand({q.size(0), -1});
  auto largest = at::full({q.size(0), q.size(2)}, nothing, scores.options());
  if (scores.size(1) > 0) largest = scores.amax(1);
  parallel_.communicator_.all_reduce(largest, Reduction::Maximum)->wait();
  largest = at::maximum(largest, log_zero_keys);
  largest.masked_fill_(largest.eq(nothing), 0);  // a query without keys
  const auto weights = (scores - largest.unsqueeze(1)).exp();
  const auto total = parallel_.sum(weights.sum(1)) + (log_zero_keys - largest).exp();
  return weights / total.masked_fill(total.eq(0), 1).unsqueeze(1);
}

std::int64_t SequenceAttention::forward_bytes(std::int64_t length, std::int64_t batch, std::int64_t head_width,
                                              std::int64_t element_size) {
  return longnet::forward_bytes(prepare(length).traffic, batch, head_width, element_size);
}

}  // namespace longnet
