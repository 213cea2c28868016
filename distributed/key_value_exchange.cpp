#include "distributed/key_value_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/attention/views.h"
#include "core/cuda/trace.h"

namespace longnet {
namespace {

/// Where rows lie in a message: head by head.
HeadRows packed_places(const std::vector<Span>& rows) {
  HeadRows packed{{}, 1};
  std::int64_t first = 0;
  for (const Span& span : rows) {
    packed.spans.push_back({first, span.count});
    first += span.count;
  }
  return packed;
}

std::int64_t row_count(const std::vector<Span>& rows) {
  return Parcel{0, rows}.row_count();
}

/// Calls visitor(rows of `tensor`, the same rows of `message`) for evenly spaced heads at a time. `tensor` is (B,
/// places, H, D) with its rows at `places`; `message` is (B, rows, D).
template <typename Visitor>
void visit_rows(const at::Tensor& tensor, const HeadRows& places, const at::Tensor& message, std::int64_t period,
                const Visitor& visitor) {
  const auto packed = packed_places(places.spans);
  const auto by_head = message.unsqueeze(2).expand({-1, -1, tensor.size(2), -1});
  for (const Tile& tile : make_tiles(places, packed, packed, period, 1, 0)) {
    visitor(tile_view(tensor, tile, tile.queries, 0), tile_view(by_head, tile, tile.keys, 0));
  }
}

/// One crossing segment: what travels, and where its rows lie in own tensors and in the buffer.
struct Crossing {
  const CrossingSegment& segment;
  const CrossingTraffic& traffic;
  Communicator* aligned;
  Range own;

  HeadRows own_places(const std::vector<Span>& rows) const {
    return {places_of(segment.heads, segment.segment.begin, rows, own.begin), segment.heads.branch.rate};
  }
  static HeadRows buffer_places(const std::vector<Span>& rows) { return {rows, 1}; }

  void pack(const SegmentRows& from, const HeadRows& places, const at::Tensor& message) const {
    const auto copy = [](const at::Tensor& rows, const at::Tensor& packed) { packed.copy_(rows); };
    visit_rows(from.keys, places, message[0], segment.heads.period(), copy);
    visit_rows(from.values, places, message[1], segment.heads.period(), copy);
  }
  void unpack(const at::Tensor& message, const SegmentRows& into, const HeadRows& places) const {
    const auto copy = [](const at::Tensor& rows, const at::Tensor& packed) { rows.copy_(packed); };
    visit_rows(into.keys, places, message[0], segment.heads.period(), copy);
    visit_rows(into.values, places, message[1], segment.heads.period(), copy);
  }
  void add(const at::Tensor& message, const SegmentRows& into, const HeadRows& places) const {
    const auto sum = [](const at::Tensor& rows, const at::Tensor& packed) { rows.add_(packed); };
    visit_rows(into.keys, places, message[0], segment.heads.period(), sum);
    visit_rows(into.values, places, message[1], segment.heads.period(), sum);
  }

  /// The place of `peer` in the group.
  std::int64_t member(int peer) const {
    return std::find(traffic.group.begin(), traffic.group.end(), peer) - traffic.group.begin();
  }
};

at::Tensor message(const at::Tensor& like, std::int64_t rows, at::ScalarType type) {
  return at::empty({2, like.size(0), rows, like.size(3)}, like.options().dtype(type));
}

/// All operations of one fetch or return.
class Works {
 public:
  void add(std::unique_ptr<Work> work) { works_.push_back(std::move(work)); }
  void poll() {
    for (const auto& work : works_) work->poll();
  }
  void wait() {
    for (const auto& work : works_) work->wait();
  }

 private:
  std::vector<std::unique_ptr<Work>> works_;
};

class Exchange : public KeyValueExchange, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::shared_ptr<const AttentionPlan> plan, std::vector<CrossingTraffic> traffic, ExchangeGroups groups,
           std::int64_t* received_bytes)
      : plan_(std::move(plan)),
        traffic_(std::move(traffic)),
        groups_(std::move(groups)),
        received_bytes_(received_bytes) {}

  std::unique_ptr<Fetch> fetch(const at::Tensor& k, const at::Tensor& v) override;
  std::unique_ptr<Return> give_back(const std::vector<SegmentRows>& gradients, at::ScalarType wire) override;

 private:
  class RowsOnTheWay;
  class GradientsOnTheWay;

  std::size_t crossings() const { return traffic_.size(); }
  Crossing crossing(std::size_t i) const { return {plan_->crossings[i], traffic_[i], groups_.aligned[i], plan_->own}; }
  void count(const at::Tensor& received) { *received_bytes_ += static_cast<std::int64_t>(received.nbytes()); }

  std::shared_ptr<const AttentionPlan> plan_;
  std::vector<CrossingTraffic> traffic_;
  ExchangeGroups groups_;
  std::int64_t* received_bytes_;
};

class Exchange::RowsOnTheWay : public Fetch {
 public:
  RowsOnTheWay(std::shared_ptr<Exchange> exchange, const at::Tensor& k, const at::Tensor& v)
      : exchange_(std::move(exchange)), like_(k) {
    const TraceRange trace("exchange");
    exchange_->groups_.sequence->together([&] {
      std::vector<Message> sends, receives;
      for (std::size_t i = 0; i < exchange_->crossings(); ++i) {
        const Crossing crossing = exchange_->crossing(i);
        arrivals_.emplace_back();
        crossing.aligned != nullptr ? gather(crossing, {k, v}) : collect(crossing, {k, v}, sends, receives);
      }
      works_.add(exchange_->groups_.sequence->exchange(std::move(sends), std::move(receives)));
    });
  }

  void poll() override { works_.poll(); }

  std::vector<SegmentRows> finish() override {
    works_.wait();
    std::vector<SegmentRows> result;
    for (std::size_t i = 0; i < exchange_->crossings(); ++i) {
      const Crossing crossing = exchange_->crossing(i);
      const auto buffer = [&] {
        return at::empty({like_.size(0), crossing.segment.buffer_rows, like_.size(2), like_.size(3)}, like_.options());
      };
      result.push_back({buffer(), buffer()});
      for (std::size_t parcel = 0; parcel < arrivals_[i].size(); ++parcel) {
        crossing.unpack(arrivals_[i][parcel], result[i],
                        Crossing::buffer_places(crossing.traffic.receives[parcel].rows));
      }
    }
    return result;
  }

 private:
  void gather(const Crossing& crossing, const SegmentRows& own) {
    const auto& rows = crossing.traffic.own_rows;
    const auto mine = message(like_, row_count(rows), like_.scalar_type());
    crossing.pack(own, crossing.own_places(rows), mine);
    const auto members = static_cast<std::int64_t>(crossing.traffic.group.size());
    const auto all = at::empty({members, 2, mine.size(1), mine.size(2), mine.size(3)}, mine.options());
    works_.add(crossing.aligned->all_gather(all, mine));
    for (std::int64_t member = 1; member < members; ++member)
      exchange_->count(mine);  // what each other sends is as large
    for (const Parcel& parcel : crossing.traffic.receives)
      arrivals_.back().push_back(all[crossing.member(parcel.peer)]);
  }

  void collect(const Crossing& crossing, const SegmentRows& own, std::vector<Message>& sends,
               std::vector<Message>& receives) {
    for (const Parcel& parcel : crossing.traffic.sends) {
      sends.push_back({parcel.peer, message(like_, parcel.row_count(), like_.scalar_type())});
      crossing.pack(own, crossing.own_places(parcel.rows), sends.back().data);
    }
    for (const Parcel& parcel : crossing.traffic.receives) {
      arrivals_.back().push_back(message(like_, parcel.row_count(), like_.scalar_type()));
      receives.push_back({parcel.peer, arrivals_.back().back()});
      exchange_->count(arrivals_.back().back());
    }
  }

  std::shared_ptr<Exchange> exchange_;
  at::Tensor like_;
  Works works_;
  std::vector<std::vector<at::Tensor>> arrivals_;  ///< for each crossing segment, the messages of its parcels
};

class Exchange::GradientsOnTheWay : public Return {
 public:
  GradientsOnTheWay(std::shared_ptr<Exchange> exchange, const std::vector<SegmentRows>& gradients, at::ScalarType wire)
      : exchange_(std::move(exchange)), wire_(wire) {
    const TraceRange trace("exchange of gradients");
    exchange_->groups_.sequence->together([&] {
      std::vector<Message> sends, receives;
      for (std::size_t i = 0; i < exchange_->crossings(); ++i) {
        const Crossing crossing = exchange_->crossing(i);
        arrivals_.emplace_back();
        crossing.aligned != nullptr ? scatter(crossing, gradients[i])
                                    : collect(crossing, gradients[i], sends, receives);
      }
      works_.add(exchange_->groups_.sequence->exchange(std::move(sends), std::move(receives)));
    });
  }

  void poll() override { works_.poll(); }

  void finish(at::Tensor& k_gradient, at::Tensor& v_gradient) override {
    works_.wait();
    for (std::size_t i = 0; i < exchange_->crossings(); ++i) {
      const Crossing crossing = exchange_->crossing(i);
      for (const auto& [rows, gradient] : arrivals_[i]) {
        crossing.add(gradient, {k_gradient, v_gradient}, crossing.own_places(rows));
      }
    }
  }

 private:
  struct Arrival {
    std::vector<Span> rows;  ///< own rows
    at::Tensor gradient;
  };

  void scatter(const Crossing& crossing, const SegmentRows& gradients) {
    const auto& rows = crossing.traffic.own_rows;
    const auto mine = message(gradients.keys, row_count(rows), gradients.keys.scalar_type());
    const auto members = static_cast<std::int64_t>(crossing.traffic.group.size());
    const auto all = at::zeros({members, 2, mine.size(1), mine.size(2), mine.size(3)}, mine.options().dtype(wire_));
    for (const Parcel& parcel : crossing.traffic.receives) {
      crossing.pack(gradients, Crossing::buffer_places(parcel.rows), all[crossing.member(parcel.peer)]);
    }
    works_.add(crossing.aligned->reduce_scatter(mine, all));
    for (std::int64_t member = 1; member < members; ++member) exchange_->count(all[0]);
    arrivals_.back().push_back({rows, mine});
  }

  void collect(const Crossing& crossing, const SegmentRows& gradients, std::vector<Message>& sends,
               std::vector<Message>& receives) {
    for (const Parcel& parcel : crossing.traffic.receives) {  // back to where they came from
      sends.push_back({parcel.peer, message(gradients.keys, parcel.row_count(), wire_)});
      crossing.pack(gradients, Crossing::buffer_places(parcel.rows), sends.back().data);
    }
    for (const Parcel& parcel : crossing.traffic.sends) {
      arrivals_.back().push_back({parcel.rows, message(gradients.keys, parcel.row_count(), wire_)});
      receives.push_back({parcel.peer, arrivals_.back().back().gradient});
      exchange_->count(arrivals_.back().back().gradient);
    }
  }

  std::shared_ptr<Exchange> exchange_;
  at::ScalarType wire_;
  Works works_;
  std::vector<std::vector<Arrival>> arrivals_;
};

std::unique_ptr<KeyValueExchange::Fetch> Exchange::fetch(const at::Tensor& k, const at::Tensor& v) {
  return std::make_unique<RowsOnTheWay>(shared_from_this(), k, v);
}

std::unique_ptr<KeyValueExchange::Return> Exchange::give_back(const std::vector<SegmentRows>& gradients,
                                                              at::ScalarType wire) {
  return std::make_unique<GradientsOnTheWay>(shared_from_this(), gradients, wire);
}

}  // namespace

std::shared_ptr<KeyValueExchange> make_key_value_exchange(std::shared_ptr<const AttentionPlan> plan,
                                                          std::vector<CrossingTraffic> traffic, ExchangeGroups groups,
                                                          std::int64_t* received_bytes) {
  return std::make_shared<Exchange>(std::move(plan), std::move(traffic), std::move(groups), received_bytes);
}

}  // namespace longnet
