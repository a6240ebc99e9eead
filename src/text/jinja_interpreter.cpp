// Statements and scopes; expressions are in jinja_expressions.cpp.
#include "text/jinja_interpreter.h"

#include <algorithm>

namespace temper::text::jinja {

void Scope::set(const std::string& name, Value value) {
  for (auto& [key, slot] : variables) {
    if (key == name) {
      slot = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

namespace {

ScopePtr inner(const ScopePtr& parent) { return std::make_shared<Scope>(Scope{parent, {}}); }

}  // namespace

Interpreter::~Interpreter() {
  for (auto& ns : namespaces_) ns->items.clear();
  for (auto& scope : captured_) scope->variables.clear();
}

std::string Interpreter::run(const Body& body, std::vector<std::pair<std::string, Value>> variables) {
  auto scope = std::make_shared<Scope>(Scope{std::make_shared<Scope>(Scope{nullptr, globals()}), std::move(variables)});
  captured_.push_back(scope);
  std::string out;
  out_ = &out;
  exec_body(body, scope);
  return out;
}

void Interpreter::fail(const std::string& message) const { throw BadData("{}, line {}: {}", name_, line_, message); }

void Interpreter::charge(std::size_t work) {
  work_ += work;
  if (work_ > kMaxWork) {
    throw OutOfMemory("{}, line {}: rendering takes more than {} units of work; the template may never end", name_, line_,
                      kMaxWork);
  }
}

std::string Interpreter::text_of(const Value& value) {
  charge(weight_of(value));
  return str(value);
}

void Interpreter::emit(std::string_view text) {
  charge(text.size());
  *out_ += text;
}

/// Counts nested evaluations.
class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    if (interpreter_.depth_ >= kMaxEvaluationDepth) {
      throw OutOfMemory("{}, line {}: macros or expressions nest deeper than {} levels", interpreter_.name_,
                        interpreter_.line_, kMaxEvaluationDepth);
    }
    ++interpreter_.depth_;
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

Value Interpreter::eval(const Expr& expr, const ScopePtr& scope, const Value* block) {
  const Depth depth(*this);
  line_ = expr.line;
  charge(kStepCost);
  return eval_node(expr, scope, block);
}

Interpreter::Flow Interpreter::exec_body(const Body& body, const ScopePtr& scope) {
  const Depth depth(*this);
  for (const auto& stmt : body) {
    line_ = stmt->line;
    charge(kStepCost);
    if (const Flow flow = exec(*stmt, scope); flow != Flow::Next) return flow;
  }
  return Flow::Next;
}

std::string Interpreter::capture(const Body& body, const ScopePtr& scope) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  try {
    exec_body(body, scope);
  } catch (...) {
    out_ = outer;
    throw;
  }
  out_ = outer;
  return text;
}

Interpreter::Flow Interpreter::exec(const Stmt& stmt, const ScopePtr& scope) {
  switch (stmt.kind) {
    case StmtKind::Data: emit(stmt.text); break;
    case StmtKind::Output: emit(text_of(eval(*stmt.value, scope))); break;
    case StmtKind::If: return exec_if(stmt, scope);
    case StmtKind::For: return exec_for(stmt, scope);
    case StmtKind::Set: assign(stmt.target, eval(*stmt.value, scope), scope); break;
    case StmtKind::Macro: scope->set(stmt.text, make_macro(stmt, scope)); break;
    case StmtKind::Break: return Flow::Break;
    case StmtKind::Continue: return Flow::Continue;
    case StmtKind::Scope: return exec_body(stmt.bodies[0], inner(scope));
    default: exec_block(stmt, scope);
  }
  return Flow::Next;
}

void Interpreter::exec_block(const Stmt& stmt, const ScopePtr& scope) {
  if (stmt.kind == StmtKind::CallBlock) {
    Args extra;
    extra.keyword.emplace_back("caller", make_macro(stmt, scope));
    emit(text_of(eval_call(*stmt.value, scope, std::move(extra))));
    return;
  }
  const ScopePtr block = inner(scope);
  if (stmt.kind == StmtKind::With) {
    for (std::size_t i = 0; i < stmt.targets.size(); ++i) assign(stmt.targets[i], eval(*stmt.conditions[i], scope), block);
    emit(capture(stmt.bodies[0], block));
    return;
  }
  Value text = capture(stmt.bodies[0], block);
  if (stmt.value) text = eval(*stmt.value, scope, &text);
  if (stmt.kind == StmtKind::SetBlock) {
    assign(stmt.target, text, scope);
  } else {
    emit(text_of(text));
  }
}

Interpreter::Flow Interpreter::exec_if(const Stmt& stmt, const ScopePtr& scope) {
  for (std::size_t i = 0; i < stmt.conditions.size(); ++i) {
    if (truth(eval(*stmt.conditions[i], scope))) return exec_body(stmt.bodies[i], scope);
  }
  return stmt.bodies.size() > stmt.conditions.size() ? exec_body(stmt.bodies.back(), scope) : Flow::Next;
}

Interpreter::Flow Interpreter::exec_for(const Stmt& stmt, const ScopePtr& scope) {
  std::vector<Value> items = iterate(eval(*stmt.value, scope));
  if (!stmt.conditions.empty()) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const ScopePtr filter = inner(scope);
      assign(stmt.target, item, filter);
      if (truth(eval(*stmt.conditions[0], filter))) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  auto loop = std::make_shared<Loop>();
  for (const Value& item : items) loop->depth = std::max(loop->depth, depth_of(item) + 1);
  loop->items = std::move(items);
  for (std::size_t i = 0; i < loop->items.size(); ++i) {
    charge(kStepCost);
    loop->index = i;
    const ScopePtr body = inner(scope);
    body->set("loop", loop);
    assign(stmt.target, loop->items[i], body);
    if (exec_body(stmt.bodies[0], body) == Flow::Break) break;
  }
  if (loop->items.empty() && stmt.bodies.size() > 1) return exec_body(stmt.bodies[1], inner(scope));
  return Flow::Next;
}

void Interpreter::assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (!target.parts.empty()) {
    const std::vector<Value> values = iterate(value);
    if (values.size() != target.parts.size()) {
      fail(fmt::format("{} values for {} names", values.size(), target.parts.size()));
    }
    for (std::size_t i = 0; i < values.size(); ++i) assign(target.parts[i], values[i], scope);
    return;
  }
  if (target.attribute.empty()) {
    scope->set(target.name, value);
    return;
  }
  const Value* object = scope->find(target.name);
  const auto* ns = object ? object->as<std::shared_ptr<Namespace>>() : nullptr;
  if (!ns)
    fail(fmt::format("cannot assign to '{}.{}': only a namespace's attributes can be set", target.name, target.attribute));
  for (auto& [key, slot] : (*ns)->items) {
    if (key == target.attribute) {
      slot = value;
      return;
    }
  }
  (*ns)->items.emplace_back(target.attribute, value);
}

Value Interpreter::make_namespace(const Args& args) {
  auto ns = std::make_shared<Namespace>();
  if (args.positional.size() == 1 && args.positional[0].is_dict()) {
    for (const auto& [key, value] : args.positional[0].dict().items) ns->items.emplace_back(text_of(key), value);
  } else if (!args.positional.empty()) {
    fail("namespace() takes keywords, or one dict");
  }
  for (const auto& item : args.keyword) ns->items.push_back(item);
  namespaces_.push_back(ns);
  return ns;
}

Value Interpreter::make_macro(const Stmt& stmt, const ScopePtr& scope) {
  charge(kStepCost);
  captured_.push_back(scope);
  // The scope is not owned by the macro that lies in it; captured_ keeps it for as long as anything runs.
  auto macro = std::make_shared<Callable>();
  macro->name = stmt.text.empty() ? "caller" : stmt.text;
  macro->call = [&stmt, where = std::weak_ptr<Scope>(scope)](Interpreter& interpreter, const Args& args) {
    return interpreter.call_macro(stmt, where.lock(), args);
  };
  return std::shared_ptr<const Callable>(std::move(macro));
}

Value Interpreter::call_macro(const Stmt& stmt, const ScopePtr& scope, const Args& args) {
  const Depth depth(*this);
  const ScopePtr frame = inner(scope);
  const auto& parameters = stmt.parameters;
  if (args.positional.size() > parameters.size()) {
    fail(fmt::format("macro '{}' takes {} arguments at most, found {}", stmt.text, parameters.size(),
                     args.positional.size()));
  }
  for (const auto& [name, value] : args.keyword) {
    const bool known =
        std::any_of(parameters.begin(), parameters.end(), [&name = name](const Parameter& p) { return p.name == name; });
    if (!known && name != "caller") fail(fmt::format("macro '{}' has no parameter '{}'", stmt.text, name));
    if (!known) frame->set(name, value);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    if (const Value* given = args.get(i, parameter.name)) {
      frame->set(parameter.name, *given);
    } else if (parameter.fallback) {
      frame->set(parameter.name, eval(*parameter.fallback, frame));
    } else {
      frame->set(parameter.name, Undefined{std::make_shared<const std::string>(parameter.name)});
    }
  }
  return capture(stmt.bodies[0], frame);
}

}  // namespace temper::text::jinja
