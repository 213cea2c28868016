#include "core/files/pickle.h"

#include <ATen/ATen.h>

#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include "core/error.h"

namespace longnet {
namespace {

/// The opcodes that torch.save and Python's protocols 2 to 4 write.
enum Opcode : unsigned char {
  Mark = '(',
  Stop = '.',
  Pop = '0',
  PopMark = '1',
  Duplicate = '2',
  BinaryFloat = 'G',
  BinaryInt = 'J',
  BinaryInt1 = 'K',
  BinaryInt2 = 'M',
  None = 'N',
  PersistentId = 'Q',
  Reduce = 'R',
  BinaryUnicode = 'X',
  Append = 'a',
  Build = 'b',
  Global = 'c',
  Dict = 'd',
  EmptyDict = '}',
  Appends = 'e',
  Get = 'h',
  LongGet = 'j',
  List = 'l',
  EmptyList = ']',
  Put = 'q',
  LongPut = 'r',
  SetItem = 's',
  Tuple = 't',
  EmptyTuple = ')',
  SetItems = 'u',
  BinaryBytes = 'B',
  ShortBinaryBytes = 'C',
  Protocol = 0x80,
  NewObject = 0x81,
  Tuple1 = 0x85,
  Tuple2 = 0x86,
  Tuple3 = 0x87,
  NewTrue = 0x88,
  NewFalse = 0x89,
  Long1 = 0x8a,
  ShortBinaryUnicode = 0x8c,
  BinaryUnicode8 = 0x8d,
  EmptySet = 0x8f,
  AddItems = 0x90,
  StackGlobal = 0x93,
  Memoize = 0x94,
  Frame = 0x95
};

constexpr std::array<std::pair<const char*, at::ScalarType>, 10> storages{{{"torch.DoubleStorage", at::kDouble},
                                                                           {"torch.FloatStorage", at::kFloat},
                                                                           {"torch.HalfStorage", at::kHalf},
                                                                           {"torch.BFloat16Storage", at::kBFloat16},
                                                                           {"torch.LongStorage", at::kLong},
                                                                           {"torch.IntStorage", at::kInt},
                                                                           {"torch.ShortStorage", at::kShort},
                                                                           {"torch.ByteStorage", at::kByte},
                                                                           {"torch.CharStorage", at::kChar},
                                                                           {"torch.BoolStorage", at::kBool}}};

[[noreturn]] void fail(const std::string& what) {
  throw DataError("not a usable pickle: " + what);
}

template <typename T>
const T& as(const PickleValue& value, const char* what) {
  const T* found = value.get<T>();
  if (found == nullptr) fail(std::string("expected ") + what);
  return *found;
}

const PickleList& items(const PickleValue& value) {
  return *as<std::shared_ptr<PickleList>>(value, "a tuple");
}

std::vector<std::int64_t> whole_numbers(const PickleValue& value) {
  std::vector<std::int64_t> numbers;
  for (const PickleValue& item : items(value)) numbers.push_back(as<std::int64_t>(item, "whole numbers"));
  return numbers;
}

/// _rebuild_tensor_v2(storage, offset, sizes, strides, ...): a view that must lie in its storage. Over a storage that
/// is not read it is only named.
PickleValue rebuild_tensor(const PickleList& arguments) {
  if (arguments.size() < 4) fail("a tensor has too few arguments");
  if (const auto* unread = arguments[0].get<PickleUnread>()) return {*unread};
  const at::Tensor& storage = as<at::Tensor>(arguments[0], "a storage");
  const std::int64_t offset = as<std::int64_t>(arguments[1], "an offset");
  const auto sizes = whole_numbers(arguments[2]), strides = whole_numbers(arguments[3]);
  if (sizes.size() != strides.size() || offset < 0) fail("a tensor has sizes and strides that do not fit");
  std::int64_t last = offset, count = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::int64_t reach = 0;
    if (sizes[i] < 0 || strides[i] < 0 || __builtin_mul_overflow(sizes[i] - 1, strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last) || __builtin_mul_overflow(count, sizes[i], &count)) {
      fail("a tensor has impossible sizes or strides");
    }
  }
  if (count == 0) return {at::empty(sizes, storage.options())};
  if (last >= storage.numel()) fail("a tensor reaches beyond its storage");
  if (count > storage.numel()) fail("a tensor has more elements than its storage");
  return {storage.as_strided(sizes, strides, offset).contiguous()};
}

/// The stack machine.
class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const LoadStorage& load_storage)
      : bytes_(bytes), load_storage_(load_storage) {}

  Pickle run() {
    while (true) {
      const auto opcode = number<unsigned char>();
      if (opcode == Opcode::Stop) {
        result_.value = pop();
        return std::move(result_);
      }
      if (!constant(opcode) && !memory(opcode) && !collection(opcode) && !object(opcode)) {
        fail("the opcode " + std::to_string(opcode) + " is not known");
      }
    }
  }

 private:
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> take(std::uint64_t size) {
    if (size > bytes_.size() - position_) fail("it ends early");
    const auto part = bytes_.subspan(position_, size);
    position_ += size;
    return part;
  }
  std::string text(std::uint64_t size) {
    const auto part = take(size);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  std::string line() {
    std::string result;
    for (char letter = 0; (letter = number<char>()) != '\n';) result += letter;
    return result;
  }

  PickleValue list_of(PickleList values) { return {result_.make_list(std::move(values))}; }
  PickleValue dict() { return {result_.make_dict()}; }

  void push(PickleValue value) { stack_.push_back(std::move(value)); }
  PickleValue pop() {
    const std::size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) fail("its stack runs empty");
    PickleValue value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  PickleValue& top() {
    if (stack_.empty()) fail("its stack runs empty");
    return stack_.back();
  }
  PickleList pop_mark() {
    if (marks_.empty()) fail("a mark is missing");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    PickleList values(std::make_move_iterator(begin), std::make_move_iterator(stack_.end()));
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return values;
  }
  PickleList pop_count(std::size_t count) {
    PickleList values(count);
    for (std::size_t i = count; i > 0; --i) values[i - 1] = pop();
    return values;
  }

  bool constant(unsigned char opcode) {
    switch (opcode) {
      case Opcode::Protocol:
        if (number<unsigned char>() > 5) fail("its protocol is not known");
        return true;
      case Opcode::Frame:
        take(8);
        return true;
      case Opcode::None:
        push({});
        return true;
      case Opcode::NewTrue:
      case Opcode::NewFalse:
        push({opcode == Opcode::NewTrue});
        return true;
      case Opcode::BinaryInt:
        push({std::int64_t{number<std::int32_t>()}});
        return true;
      case Opcode::BinaryInt1:
        push({std::int64_t{number<std::uint8_t>()}});
        return true;
      case Opcode::BinaryInt2:
        push({std::int64_t{number<std::uint16_t>()}});
        return true;
      case Opcode::Long1:
        push(long_number(take(number<std::uint8_t>())));
        return true;
      case Opcode::BinaryFloat:
        push({std::bit_cast<double>(__builtin_bswap64(number<std::uint64_t>()))});
        return true;
      case Opcode::BinaryUnicode:
      case Opcode::BinaryBytes:
        push({text(number<std::uint32_t>())});
        return true;
      case Opcode::ShortBinaryUnicode:
      case Opcode::ShortBinaryBytes:
        push({text(number<std::uint8_t>())});
        return true;
      case Opcode::BinaryUnicode8:
        push({text(number<std::uint64_t>())});
        return true;
      default:
        return false;
    }
  }

  /// Numbers of more than 64 bits, as random seeds are, are only named.
  static PickleValue long_number(std::span<const std::byte> digits) {
    if (digits.size() > sizeof(std::int64_t)) return {PickleName{"a number of more than 64 bits"}};
    const bool negative = !digits.empty() && (digits.back() & std::byte{0x80}) != std::byte{0};
    std::int64_t value = negative ? -1 : 0;
    std::memcpy(&value, digits.data(), digits.size());
    return {value};
  }

  bool memory(unsigned char opcode) {
    switch (opcode) {
      case Opcode::Put:
        memo_[number<std::uint8_t>()] = top();
        return true;
      case Opcode::LongPut:
        memo_[number<std::uint32_t>()] = top();
        return true;
      case Opcode::Memoize:
        memo_[static_cast<std::uint32_t>(memo_.size())] = top();
        return true;
      case Opcode::Get:
        push(remembered(number<std::uint8_t>()));
        return true;
      case Opcode::LongGet:
        push(remembered(number<std::uint32_t>()));
        return true;
      case Opcode::Pop:
        pop();
        return true;
      case Opcode::PopMark:
        pop_mark();
        return true;
      case Opcode::Duplicate:
        push(PickleValue(top()));
        return true;
      case Opcode::Mark:
        marks_.push_back(stack_.size());
        return true;
      default:
        return false;
    }
  }

  PickleValue remembered(std::uint32_t key) const {
    const auto found = memo_.find(key);
    if (found == memo_.end()) fail("it refers to something that is not there");
    return found->second;
  }

  bool collection(unsigned char opcode) {
    switch (opcode) {
      case Opcode::EmptyDict:
        push(dict());
        return true;
      case Opcode::Dict: {
        auto pairs = pop_mark();
        push(dict());
        add_pairs(std::move(pairs));
        return true;
      }
      case Opcode::EmptyList:
      case Opcode::EmptyTuple:
      case Opcode::EmptySet:
        push(list_of({}));
        return true;
      case Opcode::List:
      case Opcode::Tuple:
        push(list_of(pop_mark()));
        return true;
      case Opcode::Tuple1:
      case Opcode::Tuple2:
      case Opcode::Tuple3:
        push(list_of(pop_count(std::size_t{1} + opcode - Opcode::Tuple1)));
        return true;
      case Opcode::Append:
        add_items(pop_count(1));
        return true;
      case Opcode::Appends:
      case Opcode::AddItems:
        add_items(pop_mark());
        return true;
      case Opcode::SetItem:
        add_pairs(pop_count(2));
        return true;
      case Opcode::SetItems:
        add_pairs(pop_mark());
        return true;
      default:
        return false;
    }
  }

  void add_items(PickleList values) {
    if (top().get<PickleName>() != nullptr) return;  // what is not known holds nothing
    auto& list = *as<std::shared_ptr<PickleList>>(top(), "a list");
    list.insert(list.end(), std::make_move_iterator(values.begin()), std::make_move_iterator(values.end()));
  }

  void add_pairs(PickleList values) {
    if (values.size() % 2 != 0) fail("a key has no value");
    if (top().get<PickleName>() != nullptr) return;
    auto& entries = *as<std::shared_ptr<PickleDict>>(top(), "a dictionary");
    for (std::size_t i = 0; i < values.size(); i += 2) {
      entries.emplace_back(std::move(values[i]), std::move(values[i + 1]));
    }
  }

  bool object(unsigned char opcode) {
    switch (opcode) {
      case Opcode::Global: {
        const std::string module = line();
        push({PickleName{module + "." + line()}});
        return true;
      }
      case Opcode::StackGlobal: {
        const auto parts = pop_count(2);
        push({PickleName{as<std::string>(parts[0], "a module") + "." + as<std::string>(parts[1], "a name")}});
        return true;
      }
      case Opcode::PersistentId:
        push(storage(pop()));
        return true;
      case Opcode::Reduce:
      case Opcode::NewObject: {
        const auto parts = pop_count(2);
        push(made_by(as<PickleName>(parts[0], "something to call"), items(parts[1])));
        return true;
      }
      case Opcode::Build:  // attributes, as the _metadata of a state_dict: nothing here needs them
        pop();
        return true;
      default:
        return false;
    }
  }

  /// What the call would give, for the few that a state_dict needs. All others stay names.
  PickleValue made_by(const PickleName& name, const PickleList& arguments) {
    if (name.name == "collections.OrderedDict") return dict();
    if (name.name == "torch._utils._rebuild_tensor_v2") return rebuild_tensor(arguments);
    if (name.name == "torch._utils._rebuild_parameter" && !arguments.empty()) return arguments[0];
    return {name};
  }

  PickleValue storage(const PickleValue& id) const {
    const PickleList& parts = items(id);
    if (parts.size() != 5 || as<std::string>(parts[0], "a kind") != "storage") fail("it refers to what is no storage");
    const std::string& type = as<PickleName>(parts[1], "a storage's type").name;
    for (const auto& [name, dtype] : storages) {
      if (type == name) {
        return {load_storage_(dtype, as<std::string>(parts[2], "a key"), as<std::int64_t>(parts[4], "a size"))};
      }
    }
    return {PickleUnread{type}};
  }

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  const LoadStorage& load_storage_;
  Pickle result_;  ///< outlives what follows
  PickleList stack_;
  std::vector<std::size_t> marks_;
  std::map<std::uint32_t, PickleValue> memo_;
};

}  // namespace

Pickle::~Pickle() {
  for (const auto& list : lists_) list->clear();
  for (const auto& dict : dicts_) dict->clear();
}

std::shared_ptr<PickleList> Pickle::make_list(PickleList items) {
  return lists_.emplace_back(std::make_shared<PickleList>(std::move(items)));
}

std::shared_ptr<PickleDict> Pickle::make_dict() {
  return dicts_.emplace_back(std::make_shared<PickleDict>());
}

Pickle read_pickle(std::span<const std::byte> bytes, const LoadStorage& load_storage) {
  return Machine(bytes, load_storage).run();
}

}  // namespace longnet
