#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace longnet {

/// Fills a new parameter, given as float64, so that a model starts from the same values in every precision.
using Initializer = std::function<void(at::Tensor& value, at::Generator generator)>;

Initializer constant(double value);
Initializer uniform(double bound);  ///< in +-bound
Initializer normal(double standard_deviation);

struct Parameter {
  std::string name;
  at::Tensor value;
  bool decays;  ///< under an optimizer's weight decay: matrices (two dimensions) do; vectors and learned tokens do not
};

/// The parameters of a model and their gradients, each in one flat piece of memory. Parameters are views of it, so that
/// a sum over ranks, a norm or a checkpoint shard takes slices of one tensor.
class ParameterSet {
 public:
  /// Values depend on the seed and on the order in which parameters are added, on nothing else.
  /// `options`: dtype and device of the values and their gradients.
  ParameterSet(const at::TensorOptions& options, std::uint64_t seed) : options_(options), seed_(seed) {}
  ParameterSet(const ParameterSet&) = delete;
  ParameterSet& operator=(const ParameterSet&) = delete;

  /// A new parameter. The handle stays valid; its memory moves once, in flatten(), where it gets its values.
  at::Tensor add(const std::string& name, const std::vector<std::int64_t>& shape, const Initializer& initialize);

  /// Moves all parameters into flat memory, gives them their values, on several threads, and each a gradient there, of zeros.
  /// Once, after the last add(): throws Error for a second call, and for an add() after it.
  void flatten();

  const std::vector<Parameter>& list() const { return list_; }
  const at::TensorOptions& options() const { return options_; }
  std::int64_t count() const { return values_.numel(); }

  const at::Tensor& values() const { return values_; }        ///< (count)
  const at::Tensor& gradients() const { return gradients_; }  ///< (count)

 private:
  void initialize(std::size_t number) const;

  at::TensorOptions options_;
  std::uint64_t seed_;
  std::vector<Parameter> list_;
  std::vector<Initializer> initializers_;  ///< of the list; until flatten()
  at::Tensor values_;
  at::Tensor gradients_;
};

}  // namespace longnet
