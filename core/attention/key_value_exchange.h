#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace longnet {

/// Keys and values, or their gradients, of one crossing segment: (B, buffer_rows, H, D) each (see CrossingSegment).
/// Rows that no own query sees are undefined.
struct SegmentRows {
  at::Tensor keys;
  at::Tensor values;
};

/// Brings the rows of crossing segments that other owners hold, and returns their gradients. How they travel is not the
/// attention's concern; `distributed` implements it. All owners of a sequence make the same calls in the same order.
class KeyValueExchange {
 public:
  virtual ~KeyValueExchange() = default;

  /// Something on its way. `poll` keeps it moving, cheaply, between kernel calls.
  class Transfer {
   public:
    virtual ~Transfer() = default;
    virtual void poll() = 0;
  };

  class Fetch : public Transfer {
   public:
    /// Waits for the rows: one entry for each crossing segment of the plan, in its order, of k's dtype.
    virtual std::vector<SegmentRows> finish() = 0;
  };

  class Return : public Transfer {
   public:
    /// Waits for the gradients that others computed for own rows and adds them to k_gradient and v_gradient (B, n, H,
    /// D).
    virtual void finish(at::Tensor& k_gradient, at::Tensor& v_gradient) = 0;
  };

  /// Sends own rows of k and v (B, n, H, D) to those who need them.
  virtual std::unique_ptr<Fetch> fetch(const at::Tensor& k, const at::Tensor& v) = 0;

  /// Sends `gradients` of fetched rows back to their owners, in the dtype `wire`.
  virtual std::unique_ptr<Return> give_back(const std::vector<SegmentRows>& gradients, at::ScalarType wire) = 0;
};

}  // namespace longnet
