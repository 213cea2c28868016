#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

/// Python's pickle format, read without running anything: what a state_dict holds becomes values, everything else a
/// name that is never called.
namespace longnet {

struct PickleValue;
using PickleList = std::vector<PickleValue>;                          ///< of a list, tuple or set
using PickleDict = std::vector<std::pair<PickleValue, PickleValue>>;  ///< in order

/// A class or function that the file names, or what calling it would have given.
struct PickleName {
  std::string name;  ///< module.name
};

/// A tensor, or its storage, of a type that is not read.
struct PickleUnread {
  std::string type;
};

struct PickleValue {
  std::variant<std::monostate, bool, std::int64_t, double, std::string, at::Tensor, std::shared_ptr<PickleList>,
               std::shared_ptr<PickleDict>, PickleName, PickleUnread>
      value;

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&value);
  }
};

/// An object that was read, with all it holds.
class Pickle {
 public:
  Pickle() = default;
  ~Pickle();
  Pickle(Pickle&&) noexcept = default;
  Pickle& operator=(Pickle&&) = delete;
  Pickle(const Pickle&) = delete;
  Pickle& operator=(const Pickle&) = delete;

  PickleValue value;

  std::shared_ptr<PickleList> make_list(PickleList items);
  std::shared_ptr<PickleDict> make_dict();

 private:
  // All of them, so that they can be emptied one by one: one inside another a million times would go by recursion, and
  // one inside itself never.
  std::vector<std::shared_ptr<PickleList>> lists_;
  std::vector<std::shared_ptr<PickleDict>> dicts_;
};

/// A storage that the file refers to: its dtype, its record's name, and its number of elements. Gives its content as a
/// flat tensor.
using LoadStorage = std::function<at::Tensor(at::ScalarType dtype, const std::string& key, std::int64_t elements)>;

/// Reads the object in `bytes`. Knows OrderedDict, tensors and parameters over storages, and Python's plain types.
/// Throws DataError for anything that is no such pickle.
Pickle read_pickle(std::span<const std::byte> bytes, const LoadStorage& load_storage);

}  // namespace longnet
