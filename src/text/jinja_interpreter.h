// Runs a parsed template. Meaning follows Jinja 3.1 with its default Undefined and the immutable sandbox.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/jinja_ast.h"

namespace temper::text::jinja {

/// Budget of one rendering. A step costs kStepCost, and each byte or value that is made or searched costs one; so both time
/// and memory are bounded, whatever the template does.
inline constexpr std::size_t kMaxWork = std::size_t{1} << 28;
inline constexpr std::size_t kStepCost = 16;
/// Greatest nesting of evaluations, macro calls included.
inline constexpr int kMaxEvaluationDepth = 1000;
/// Longest range(), as in Jinja's sandbox.
inline constexpr std::int64_t kMaxRange = 100000;

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;

  void set(const std::string& name, Value value);
  const Value* find(std::string_view name) const;
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  /// `name` is what errors call the template.
  explicit Interpreter(const std::string& name) : name_(name) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// Renders `body` with `variables` as the template's context.
  std::string run(const Body& body, std::vector<std::pair<std::string, Value>> variables);

  // What filters, tests and methods need.

  /// Throws BadData naming template and line.
  [[noreturn]] void fail(const std::string& message) const;
  /// Takes `work` from the budget; throws OutOfMemory where it is spent.
  void charge(std::size_t work);
  /// str(value), charged.
  std::string text_of(const Value& value);
  Value call(const Value& callee, const Args& args);
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  /// All items that iterating gives; a generator is empty afterwards. Fails for what cannot be iterated.
  std::vector<Value> iterate(const Value& value);
  Value make_namespace(const Args& args);
  Value apply_filter(const std::string& name, const Value& input, const Args& args);
  bool apply_test(const std::string& name, const Value& value, const Args& args);
  /// Python's < ; fails for values that have no order.
  bool less(const Value& a, const Value& b);
  bool contains(const Value& container, const Value& value);
  bool equal_values(const Value& a, const Value& b);
  Value add(const Value& a, const Value& b);

 private:
  enum class Flow { Next, Break, Continue };
  class Depth;

  Flow exec_body(const Body& body, const ScopePtr& scope);
  Flow exec(const Stmt& stmt, const ScopePtr& scope);
  Flow exec_if(const Stmt& stmt, const ScopePtr& scope);
  Flow exec_for(const Stmt& stmt, const ScopePtr& scope);
  void exec_block(const Stmt& stmt, const ScopePtr& scope);
  std::string capture(const Body& body, const ScopePtr& scope);
  void assign(const Target& target, const Value& value, const ScopePtr& scope);
  Value make_macro(const Stmt& stmt, const ScopePtr& scope);
  Value call_macro(const Stmt& stmt, const ScopePtr& scope, const Args& args);
  void emit(std::string_view text);

  Value eval(const Expr& expr, const ScopePtr& scope, const Value* block = nullptr);
  Value eval_node(const Expr& expr, const ScopePtr& scope, const Value* block);
  Value eval_name(const Expr& expr, const ScopePtr& scope);
  Value eval_items(const Expr& expr, const ScopePtr& scope);
  Value eval_dict(const Expr& expr, const ScopePtr& scope);
  Value eval_slice(const Expr& expr, const ScopePtr& scope);
  Value eval_call(const Expr& expr, const ScopePtr& scope, Args extra = {});
  Value eval_unary(const Expr& expr, const ScopePtr& scope);
  Value eval_binary(const Expr& expr, const ScopePtr& scope);
  Value eval_concat(const Expr& expr, const ScopePtr& scope);
  bool eval_compare(const Expr& expr, const ScopePtr& scope);
  Args eval_args(const Expr& expr, const ScopePtr& scope);
  bool compare(const std::string& op, const Value& a, const Value& b);
  Value slice(const Value& object, const std::optional<std::int64_t> (&parts)[3]);
  Value arithmetic(const std::string& op, const Value& a, const Value& b);
  Value integer_arithmetic(const std::string& op, std::int64_t a, std::int64_t b);
  Value repeat(const Value& sequence, std::int64_t times);

  const std::string& name_;
  int line_ = 0;
  int depth_ = 0;
  std::size_t work_ = 0;
  std::string* out_ = nullptr;
  // Namespaces and scopes that macros hold may form cycles; they are emptied at the end, so that all is freed.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<ScopePtr> captured_;
};

// Tables in files of their own.

enum class MethodKind { None, Safe, Forbidden };  ///< Forbidden: it would change the value.
/// Whether a str, list or dict has a method of that name, as Python's have.
MethodKind method_kind(const Value& self, std::string_view name);
/// Runs a method that is Safe.
Value call_method(Interpreter& interpreter, const Value& self, std::string_view name, const Args& args);
/// Python's "..." % values.
std::string format_percent(Interpreter& interpreter, const std::string& format, const Value& values);

using Filter = Value (*)(Interpreter&, const Value&, const Args&);
using Test = bool (*)(Interpreter&, const Value&, const Args&);
/// nullptr where there is none of that name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);
/// `range`, `namespace`, `dict`, `raise_exception`, `strftime_now`, …
std::vector<std::pair<std::string, Value>> globals();

/// Attribute `name` of `loop`; Undefined where there is none.
Value loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name);

}  // namespace temper::text::jinja
