// Expressions: names, attributes, items, slices, calls, arithmetic and comparison as Python does them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace temper::text::jinja {
namespace {

Value undefined(std::string what) { return Undefined{std::make_shared<const std::string>(std::move(what))}; }

std::string missing(const Value& value) {
  const auto* u = value.as<Undefined>();
  return u->what ? *u->what + " is undefined" : "the value is undefined";
}

/// List index with Python's negative ones, or -1.
std::int64_t wrap_index(std::int64_t index, std::size_t size) {
  const auto n = static_cast<std::int64_t>(size);
  if (index < 0) index += n;
  return index >= 0 && index < n ? index : -1;
}

Value bound_method(const Value& self, const std::string& name) {
  auto method = std::make_shared<Callable>();
  method->name = name;
  method->depth = depth_of(self) + 1;
  method->call = [self, name](Interpreter& interpreter, const Args& args) {
    return call_method(interpreter, self, name, args);
  };
  return std::shared_ptr<const Callable>(std::move(method));
}

}  // namespace

Value Interpreter::eval_node(const Expr& expr, const ScopePtr& scope, const Value* block) {
  const auto child = [&](std::size_t i) { return eval(*expr.children[i], scope, block); };
  switch (expr.kind) {
    case ExprKind::Constant: return expr.value;
    case ExprKind::Name: return eval_name(expr, scope);
    case ExprKind::List:
    case ExprKind::Tuple: return eval_items(expr, scope);
    case ExprKind::Dict: return eval_dict(expr, scope);
    case ExprKind::Attribute: return attribute(child(0), expr.text);
    case ExprKind::Item: {
      const Value object = child(0);
      return item(object, child(1));
    }
    case ExprKind::Slice: return eval_slice(expr, scope);
    case ExprKind::Call: return eval_call(expr, scope);
    case ExprKind::Filter: {
      const Value input = expr.children[0] ? child(0) : *block;
      return apply_filter(expr.text, input, eval_args(expr, scope));
    }
    case ExprKind::Test: {
      const Value value = child(0);
      return apply_test(expr.text, value, eval_args(expr, scope));
    }
    case ExprKind::Not: return !truth(child(0));
    case ExprKind::Negate:
    case ExprKind::Plus: return eval_unary(expr, scope);
    case ExprKind::And: {
      Value left = child(0);
      return truth(left) ? child(1) : left;
    }
    case ExprKind::Or: {
      Value left = child(0);
      return truth(left) ? left : child(1);
    }
    case ExprKind::Binary: return eval_binary(expr, scope);
    case ExprKind::Concat: return eval_concat(expr, scope);
    case ExprKind::Compare: return eval_compare(expr, scope);
    case ExprKind::Condition:
      if (truth(child(1))) return child(0);
      return expr.children[2] ? child(2) : undefined("the value of an 'if' without 'else'");
  }
  fail("an expression of an unknown kind");
}

Value Interpreter::eval_name(const Expr& expr, const ScopePtr& scope) {
  const Value* value = scope->find(expr.text);
  return value ? *value : undefined("'" + expr.text + "'");
}

Value Interpreter::eval_items(const Expr& expr, const ScopePtr& scope) {
  std::vector<Value> items;
  for (const ExprPtr& child : expr.children) items.push_back(eval(*child, scope));
  Value list = make_list(std::move(items), expr.kind == ExprKind::List ? ListKind::List : ListKind::Tuple);
  charge(expr.children.size() * sizeof(Value));
  return list;
}

Value Interpreter::eval_dict(const Expr& expr, const ScopePtr& scope) {
  std::vector<std::pair<Value, Value>> items;
  for (std::size_t i = 0; i < expr.children.size(); i += 2) {
    Value key = eval(*expr.children[i], scope);
    Value value = eval(*expr.children[i + 1], scope);
    const auto same =
        std::find_if(items.begin(), items.end(), [&](const auto& item) { return equal_values(item.first, key); });
    if (same != items.end()) {
      same->second = std::move(value);
    } else {
      items.emplace_back(std::move(key), std::move(value));
    }
  }
  charge(items.size() * 2 * sizeof(Value));
  return make_dict(std::move(items));
}

Value Interpreter::eval_slice(const Expr& expr, const ScopePtr& scope) {
  const Value object = eval(*expr.children[0], scope);
  std::optional<std::int64_t> parts[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (!expr.children[i + 1]) continue;
    const Value value = eval(*expr.children[i + 1], scope);
    if (value.is_none()) continue;
    if (!value.is_integral()) fail(fmt::format("a slice needs integers, found {}", type_name(value)));
    parts[i] = value.integer();
  }
  return slice(object, parts);
}

Value Interpreter::slice(const Value& object, const std::optional<std::int64_t> (&parts)[3]) {
  const bool text = object.is_string();
  if (object.is_undefined()) fail(missing(object));
  if (!text && !(object.is_list() && object.list().kind <= ListKind::Range)) {
    fail(fmt::format("a value of type {} cannot be sliced", type_name(object)));
  }
  charge(text ? object.text().size() : object.list().items.size());
  const std::vector<std::size_t> offsets = text ? code_point_offsets(object.text()) : std::vector<std::size_t>();
  const auto n = static_cast<std::int64_t>(text ? offsets.size() - 1 : object.list().items.size());
  const std::int64_t step = parts[2].value_or(1);
  if (step == 0) fail("a slice's step cannot be 0");
  const auto clamp = [&](std::optional<std::int64_t> part, std::int64_t fallback) {
    if (!part) return fallback;
    const std::int64_t at = *part < 0 ? std::max<std::int64_t>(*part, -n - 1) + n : *part;
    return step > 0 ? std::clamp<std::int64_t>(at, 0, n) : std::clamp<std::int64_t>(at, -1, n - 1);
  };
  const std::int64_t begin = clamp(parts[0], step > 0 ? 0 : n - 1), end = clamp(parts[1], step > 0 ? n : -1);
  std::string out;
  std::vector<Value> items;
  const std::int64_t stride = std::clamp<std::int64_t>(step, -n - 1, n + 1);  // beyond the length all steps are alike
  for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += stride) {
    const auto k = static_cast<std::size_t>(i);
    if (text) {
      out += object.text().substr(offsets[k], offsets[k + 1] - offsets[k]);
    } else {
      items.push_back(object.list().items[k]);
    }
  }
  if (text) return Value(std::move(out), object.is_markup());
  return make_list(std::move(items), object.list().kind == ListKind::Tuple ? ListKind::Tuple : ListKind::List);
}

Args Interpreter::eval_args(const Expr& expr, const ScopePtr& scope) {
  Args args;
  for (std::size_t i = 1; i < expr.children.size(); ++i) args.positional.push_back(eval(*expr.children[i], scope));
  for (const auto& [name, value] : expr.keywords) args.keyword.emplace_back(name, eval(*value, scope));
  return args;
}

Value Interpreter::eval_call(const Expr& expr, const ScopePtr& scope, Args extra) {
  const Expr& callee = *expr.children[0];
  const auto arguments = [&] {
    Args args = eval_args(expr, scope);
    for (auto& item : extra.keyword) args.keyword.push_back(std::move(item));
    line_ = expr.line;
    return args;
  };
  if (callee.kind != ExprKind::Attribute) {
    const Value function = eval(callee, scope);
    return call(function, arguments());
  }
  // A method is run at once, without making a bound function of it.
  const Value object = eval(*callee.children[0], scope);
  if (method_kind(object, callee.text) == MethodKind::Safe) return call_method(*this, object, callee.text, arguments());
  const Value function = attribute(object, callee.text);
  return call(function, arguments());
}

Value Interpreter::call(const Value& callee, const Args& args) {
  if (callee.is_undefined()) fail(missing(callee));
  const auto* function = callee.as<std::shared_ptr<const Callable>>();
  if (!function) fail(fmt::format("a value of type {} cannot be called", type_name(callee)));
  const std::shared_ptr<const Callable> keep = *function;
  return keep->call(*this, args);
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail(missing(object) + fmt::format(", so it has no attribute '{}'", name));
  if (const auto* ns = object.as<std::shared_ptr<Namespace>>()) {
    for (const auto& [key, value] : (*ns)->items) {
      if (key == name) return value;
    }
  } else if (const auto* loop = object.as<std::shared_ptr<Loop>>()) {
    Value value = loop_attribute(*loop, name);
    if (!value.is_undefined() || name == "previtem" || name == "nextitem") return value;
  } else if (const MethodKind kind = method_kind(object, name); kind != MethodKind::None) {
    if (kind == MethodKind::Safe) return bound_method(object, name);
    return undefined(fmt::format("{}.{}, which would change a value,", type_name(object), name));
  } else if (object.is_dict()) {
    if (const Value* value = object.dict().find(std::string_view(name))) return *value;
  }
  return undefined(fmt::format("attribute '{}' of a {}", name, type_name(object)));
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) fail(missing(object) + ", so it has no items");
  if (object.is_dict()) {
    charge(object.dict().items.size());
    if (const Value* value = object.dict().find(key)) return *value;
  } else if (key.is_integral() && object.is_list() && object.list().kind <= ListKind::Range) {
    const auto& items = object.list().items;
    const std::int64_t index = wrap_index(key.integer(), items.size());
    if (index >= 0) return items[static_cast<std::size_t>(index)];
  } else if (key.is_integral() && object.is_string()) {
    charge(object.text().size());
    const auto offsets = code_point_offsets(object.text());
    const std::int64_t index = wrap_index(key.integer(), offsets.size() - 1);
    if (index >= 0) {
      const auto k = static_cast<std::size_t>(index);
      return object.text().substr(offsets[k], offsets[k + 1] - offsets[k]);
    }
  }
  if (key.is_string()) return attribute(object, key.text());
  return undefined(fmt::format("item {} of a {}", repr(key), type_name(object)));
}

std::vector<Value> Interpreter::iterate(const Value& value) {
  if (value.is_undefined()) return {};
  charge(value.is_string() ? value.text().size() : 1);
  std::vector<Value> items;
  if (value.is_list()) {
    List& list = value.list();
    items = list.kind == ListKind::Generator ? std::exchange(list.items, {}) : list.items;
  } else if (value.is_dict()) {
    for (const auto& [key, item] : value.dict().items) items.push_back(key);
  } else if (value.is_string()) {
    const auto offsets = code_point_offsets(value.text());
    charge(offsets.size() * sizeof(String));
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      items.emplace_back(value.text().substr(offsets[i], offsets[i + 1] - offsets[i]));
    }
  } else {
    fail(fmt::format("a value of type {} cannot be iterated", type_name(value)));
  }
  charge(items.size() * sizeof(Value));
  return items;
}

Value Interpreter::eval_unary(const Expr& expr, const ScopePtr& scope) {
  const Value value = eval(*expr.children[0], scope);
  if (value.is_undefined()) fail(missing(value));
  if (!value.is_number()) fail(fmt::format("a value of type {} has no sign", type_name(value)));
  const bool negate = expr.kind == ExprKind::Negate;
  if (value.is_float()) return negate ? -value.number() : value.number();
  if (negate && value.integer() == std::numeric_limits<std::int64_t>::min()) fail("an integer beyond 64 bits");
  return negate ? -value.integer() : value.integer();
}

Value Interpreter::eval_binary(const Expr& expr, const ScopePtr& scope) {
  const Value a = eval(*expr.children[0], scope);
  const Value b = eval(*expr.children[1], scope);
  line_ = expr.line;
  if (a.is_undefined()) fail(missing(a));
  if (expr.text == "+") return add(a, b);
  if (expr.text == "%" && a.is_string()) return format_percent(*this, a.text(), b);
  if (b.is_undefined()) fail(missing(b));
  if (expr.text == "*" && b.is_integral() && (a.is_string() || a.is_list())) return repeat(a, b.integer());
  if (expr.text == "*" && a.is_integral() && (b.is_string() || b.is_list())) return repeat(b, a.integer());
  return arithmetic(expr.text, a, b);
}

Value Interpreter::add(const Value& a, const Value& b) {
  for (const Value* side : {&a, &b}) {
    if (side->is_undefined()) fail(missing(*side));
  }
  if (a.is_string() && b.is_string()) {
    charge(a.text().size() + b.text().size());
    if (!a.is_markup() && !b.is_markup()) return a.text() + b.text();
    const auto safe = [](const Value& v) { return v.is_markup() ? v.text() : escape_html(v.text()); };
    return Value(safe(a) + safe(b), true);
  }
  if (a.is_list() && b.is_list() && a.list().kind == b.list().kind && a.list().kind <= ListKind::Tuple) {
    std::vector<Value> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    charge(items.size() * sizeof(Value));
    return make_list(std::move(items), a.list().kind);
  }
  if (!a.is_number() || !b.is_number()) fail(fmt::format("cannot add {} and {}", type_name(a), type_name(b)));
  return arithmetic("+", a, b);
}

Value Interpreter::repeat(const Value& sequence, std::int64_t times) {
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  const std::size_t size = sequence.is_string() ? sequence.text().size() : sequence.list().items.size() * sizeof(Value);
  if (size > 0 && n > kMaxWork / size) charge(kMaxWork + 1);
  charge(size * n);
  if (sequence.is_string()) {
    std::string out;
    if (size > 0) {
      for (std::size_t i = 0; i < n; ++i) out += sequence.text();
    }
    return Value(std::move(out), sequence.is_markup());
  }
  if (sequence.list().kind > ListKind::Tuple) fail(fmt::format("a {} cannot be repeated", type_name(sequence)));
  std::vector<Value> items;
  if (size > 0) {
    for (std::size_t i = 0; i < n; ++i)
      items.insert(items.end(), sequence.list().items.begin(), sequence.list().items.end());
  }
  return make_list(std::move(items), sequence.list().kind);
}

Value Interpreter::arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number()) {
    fail(fmt::format("'{}' has no meaning for {} and {}", op, type_name(a), type_name(b)));
  }
  const bool divides = op == "/" || op == "//" || op == "%";
  if (divides && b.number() == 0) fail("division by zero");
  const bool integers = a.is_integral() && b.is_integral();
  if (integers && op != "/" && !(op == "**" && b.integer() < 0)) return integer_arithmetic(op, a.integer(), b.integer());
  const double x = a.number(), y = b.number();
  if (op == "+") return x + y;
  if (op == "-") return x - y;
  if (op == "*") return x * y;
  if (op == "/") return x / y;
  if (op == "//") return std::floor(x / y);
  if (op == "**") return std::pow(x, y);
  const double r = std::fmod(x, y);
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

Value Interpreter::integer_arithmetic(const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    result = 1;
    const bool unit = a == 0 || a == 1 || a == -1;
    for (std::int64_t i = unit ? (b == 0 ? 0 : 2 - b % 2) : b; i > 0 && !overflow; --i) {
      overflow = __builtin_mul_overflow(result, a, &result);
    }
  } else if (b == -1) {  // the one quotient that overflows is min / -1
    overflow = op == "//" && __builtin_sub_overflow(std::int64_t{0}, a, &result);
  } else {
    const std::int64_t quotient = a / b, remainder = a % b;
    const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
    result = op == "//" ? quotient - adjust : remainder + (adjust ? b : 0);
  }
  if (overflow) fail("an integer beyond 64 bits");
  return result;
}

Value Interpreter::eval_concat(const Expr& expr, const ScopePtr& scope) {
  std::string out;
  for (const ExprPtr& child : expr.children) out += text_of(eval(*child, scope));
  charge(out.size());
  return out;
}

bool Interpreter::eval_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = eval(*expr.children[0], scope);
  for (std::size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = eval(*expr.children[i + 1], scope);
    line_ = expr.line;
    if (!compare(expr.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

bool Interpreter::compare(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal_values(a, b);
  if (op == "!=") return !equal_values(a, b);
  if (op == "in") return contains(b, a);
  if (op == "not in") return !contains(b, a);
  if (op == "<") return less(a, b);
  if (op == ">") return less(b, a);
  // Not the negation of the other order: a NaN is neither.
  return equal_values(a, b) || (op == "<=" ? less(a, b) : less(b, a));
}

bool Interpreter::equal_values(const Value& a, const Value& b) {
  charge(std::min(weight_of(a), weight_of(b)));
  return equal(a, b);
}

bool Interpreter::less(const Value& a, const Value& b) {
  for (const Value* side : {&a, &b}) {
    if (side->is_undefined()) fail(missing(*side));
  }
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? a.integer() < b.integer() : a.number() < b.number();
  }
  if (a.is_string() && b.is_string()) {
    charge(std::min(a.text().size(), b.text().size()));
    return a.text() < b.text();  // UTF-8 sorts as code points do
  }
  if (a.is_list() && b.is_list() && a.list().kind == b.list().kind) {
    const auto &x = a.list().items, &y = b.list().items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal_values(x[i], y[i])) return less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  fail(fmt::format("{} and {} have no order", type_name(a), type_name(b)));
}

bool Interpreter::contains(const Value& container, const Value& value) {
  if (container.is_string()) {
    if (value.is_undefined()) fail(missing(value));
    if (!value.is_string()) fail(fmt::format("'in' a string needs a string, found {}", type_name(value)));
    charge(container.text().size() + value.text().size());
    return find(container.text(), value.text()) != std::string::npos;
  }
  if (container.is_dict()) {
    charge(container.dict().items.size());
    return container.dict().find(value) != nullptr;
  }
  for (const Value& element : iterate(container)) {
    if (equal_values(element, value)) return true;
  }
  return false;
}

Value Interpreter::apply_filter(const std::string& name, const Value& input, const Args& args) {
  const Filter filter = find_filter(name);
  if (!filter) fail(fmt::format("there is no filter '{}'", name));
  charge(kStepCost);
  return filter(*this, input, args);
}

bool Interpreter::apply_test(const std::string& name, const Value& value, const Args& args) {
  const Test test = find_test(name);
  if (!test) fail(fmt::format("there is no test '{}'", name));
  return test(*this, value, args);
}

}  // namespace temper::text::jinja
