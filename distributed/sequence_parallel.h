#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "core/attention/dilated_attention.h"
#include "distributed/communicator.h"
#include "distributed/exchange_plan.h"
#include "distributed/sequence_shard.h"
#include "distributed/sequence_sum.h"

namespace longnet {

class SequenceAttention;

/// The ranks that share a sequence, as a model sees them: shards, and attention that works across shards.
class SequenceParallel {
 public:
  /// `communicator` must outlive this object.
  explicit SequenceParallel(Communicator& communicator, TransportChoice transport = TransportChoice::Automatic)
      : communicator_(communicator), transport_(transport) {}

  /// What this rank holds of a sequence of `length` tokens.
  SequenceShard shard(std::int64_t length) const;

  /// An attention for shards of any length. It must not outlive this object.
  std::unique_ptr<SequenceAttention> attention(const Mixture& mixture, std::int64_t heads, bool causal);

  /// The sum of x over all shards of the sequence, on each: see sum_over_ranks.
  at::Tensor sum(const at::Tensor& x) const { return sum_over_ranks(x, communicator_); }

  /// Payload of keys, values and their gradients that has arrived here so far.
  std::int64_t received_bytes() const { return received_bytes_; }

 private:
  friend class SequenceAttention;

  /// Ranks in consecutive groups of `size`: this rank's. Made once; collective the first time.
  Communicator* group(int size);

  Communicator& communicator_;
  TransportChoice transport_;
  std::map<int, std::unique_ptr<Communicator>> groups_;
  std::int64_t received_bytes_ = 0;
};

/// Dilated attention over a sequence that several ranks share. Collective: all ranks of the sequence call it alike.
class SequenceAttention {
 public:
  SequenceAttention(SequenceParallel& parallel, Mixture mixture, std::int64_t heads, bool causal)
      : parallel_(parallel), mixture_(std::move(mixture)), heads_(heads), causal_(causal) {}

  /// See dilated_attention. Throws AgreedError (ConfigError) when the transport that the user asked for does not fit
  /// the length. q, k, v: (B, shard.size(), H, D); key_mask: (B, shard.length).
  AttentionOutput operator()(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const SequenceShard& shard,
                             const std::optional<at::Tensor>& key_mask = {});

  /// What the query at `position` of the sequence weighs each position of the shard with: (B, n, H) float64. The
  /// weights of all shards sum to 1 for each sequence and head (less what zero keys get); a key that two branches reach
  /// has both their weights; all are 0 for a query without keys. One row of scores is all that is ever held.
  /// q, k: see above. Collective.
  at::Tensor weights(const at::Tensor& q, const at::Tensor& k, const SequenceShard& shard,
                     const std::optional<at::Tensor>& key_mask, std::int64_t position);

  /// Bytes that a forward pass over a sequence of `length` brings to this rank.
  std::int64_t forward_bytes(std::int64_t length, std::int64_t batch, std::int64_t head_width,
                             std::int64_t element_size);

 private:
  /// What a length needs. Kept, because every layer and step asks for the same: of the lengths that were used last, the
  /// same on all ranks.
  struct Prepared {
    std::shared_ptr<const AttentionPlan> plan;
    std::vector<CrossingTraffic> traffic;
    std::shared_ptr<KeyValueExchange> exchange;  ///< null when no segment crosses
    std::uint64_t last_use;
  };
  const Prepared& prepare(std::int64_t length);
  void forget_oldest();
  /// Looks at all ranks' parts, so that all come to the same result without a word between them.
  void require_aligned(const SequenceLayout& layout) const;

  SequenceParallel& parallel_;
  Mixture mixture_;
  std::int64_t heads_;
  bool causal_;
  std::map<std::int64_t, Prepared> prepared_;
  std::uint64_t uses_ = 0;
};

}  // namespace longnet
