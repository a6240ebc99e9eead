// Tests: what may follow `is`, and name a condition in select and its kin.
#include <cmath>
#include <map>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace temper::text::jinja {
namespace {

using I = Interpreter;

const Value& operand(I& in, const Args& args) {
  if (args.positional.empty()) in.fail("the test needs a value to compare with");
  return args.positional[0];
}

std::int64_t whole(I& in, const Value& value) {
  if (!value.is_integral()) in.fail(fmt::format("the test needs an integer, found {}", type_name(value)));
  return value.integer();
}

bool is_sequence(const Value& v) {
  return v.is_string() || v.is_dict() || v.is_undefined() || (v.is_list() && v.list().kind <= ListKind::Range);
}

bool divisible(I& in, const Value& value, const Args& args) {
  const std::int64_t by = whole(in, operand(in, args));
  if (by == 0) in.fail("division by zero");
  return by == -1 || whole(in, value) % by == 0;
}

bool same_object(I& in, const Value& value, const Args& args) {
  const Value& other = operand(in, args);
  return value.data().index() == other.data().index() && in.equal_values(value, other);
}

bool equals(I& in, const Value& value, const Args& args) { return in.equal_values(value, operand(in, args)); }
bool differs(I& in, const Value& value, const Args& args) { return !in.equal_values(value, operand(in, args)); }
bool below(I& in, const Value& value, const Args& args) { return in.less(value, operand(in, args)); }
bool above(I& in, const Value& value, const Args& args) { return in.less(operand(in, args), value); }
bool at_most(I& in, const Value& value, const Args& args) { return equals(in, value, args) || below(in, value, args); }
bool at_least(I& in, const Value& value, const Args& args) { return equals(in, value, args) || above(in, value, args); }

}  // namespace

Test find_test(std::string_view name) {
  static const std::map<std::string_view, Test> kTests = {
      {"!=", differs},
      {"<", below},
      {"<=", at_most},
      {"==", equals},
      {">", above},
      {">=", at_least},
      {"boolean", [](I&, const Value& v, const Args&) { return v.is_bool(); }},
      {"callable", [](I&, const Value& v, const Args&) { return v.as<std::shared_ptr<const Callable>>() != nullptr; }},
      {"defined", [](I&, const Value& v, const Args&) { return !v.is_undefined(); }},
      {"divisibleby", divisible},
      {"eq", equals},
      {"equalto", equals},
      {"escaped", [](I&, const Value& v, const Args&) { return v.is_markup(); }},
      {"even", [](I& in, const Value& v, const Args&) { return whole(in, v) % 2 == 0; }},
      {"false", [](I&, const Value& v, const Args&) { return v.is_bool() && !truth(v); }},
      {"filter", [](I& in, const Value& v, const Args&) { return find_filter(in.text_of(v)) != nullptr; }},
      {"float", [](I&, const Value& v, const Args&) { return v.is_float(); }},
      {"ge", at_least},
      {"greaterthan", above},
      {"gt", above},
      {"in", [](I& in, const Value& v, const Args& a) { return in.contains(operand(in, a), v); }},
      {"integer", [](I&, const Value& v, const Args&) { return v.is_integral() && !v.is_bool(); }},
      {"iterable",
       [](I&, const Value& v, const Args&) { return v.is_string() || v.is_dict() || v.is_undefined() || v.is_list(); }},
      {"le", at_most},
      {"lessthan", below},
      {"lower", [](I& in, const Value& v, const Args&) { return is_cased(in.text_of(v), false); }},
      {"lt", below},
      {"mapping", [](I&, const Value& v, const Args&) { return v.is_dict(); }},
      {"ne", differs},
      {"none", [](I&, const Value& v, const Args&) { return v.is_none(); }},
      {"number", [](I&, const Value& v, const Args&) { return v.is_number(); }},
      {"odd", [](I& in, const Value& v, const Args&) { return whole(in, v) % 2 != 0; }},
      {"sameas", same_object},
      {"sequence", [](I&, const Value& v, const Args&) { return is_sequence(v); }},
      {"string", [](I&, const Value& v, const Args&) { return v.is_string(); }},
      {"test", [](I& in, const Value& v, const Args&) { return find_test(in.text_of(v)) != nullptr; }},
      {"true", [](I&, const Value& v, const Args&) { return v.is_bool() && truth(v); }},
      {"undefined", [](I&, const Value& v, const Args&) { return v.is_undefined(); }},
      {"upper", [](I& in, const Value& v, const Args&) { return is_cased(in.text_of(v), true); }},
  };
  const auto it = kTests.find(name);
  return it == kTests.end() ? nullptr : it->second;
}

}  // namespace temper::text::jinja
