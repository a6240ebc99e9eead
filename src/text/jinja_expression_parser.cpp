#include "text/jinja_expression_parser.h"

#include <algorithm>

#include "base/error.h"

namespace temper::text::jinja {

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (parser_.nesting_ >= kMaxNesting) parser_.fail(fmt::format("nests deeper than {} levels", kMaxNesting));
  ++parser_.nesting_;
}

void ExpressionParser::fail(const std::string& message) const {
  throw BadFile("{}, line {}: {}", name_, peek().line, message);
}

const Token& ExpressionParser::next() {
  const Token& token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::accept(TokenKind kind) {
  if (peek().kind != kind) return false;
  next();
  return true;
}

const Token& ExpressionParser::expect(TokenKind kind) {
  static constexpr const char* kNames[] = {"text",   "{%",         "%}",      "{{",          "}}",     "a name",
                                           "string", "an integer", "a float", "an operator", "the end"};
  if (peek().kind != kind) {
    fail(fmt::format("expected {}, found {}{}", kNames[static_cast<int>(kind)], kNames[static_cast<int>(peek().kind)],
                     peek().text.empty() || peek().kind == TokenKind::Data ? "" : " '" + peek().text + "'"));
  }
  return next();
}

bool ExpressionParser::is_name(std::initializer_list<std::string_view> names) const {
  return peek().kind == TokenKind::Name && std::find(names.begin(), names.end(), peek().text) != names.end();
}

bool ExpressionParser::accept_name(std::string_view name) {
  if (!is_name({name})) return false;
  next();
  return true;
}

void ExpressionParser::expect_name(std::string_view name) {
  if (!accept_name(name)) fail(fmt::format("expected '{}', found '{}'", name, peek().text));
}

bool ExpressionParser::accept_operator(std::string_view op) {
  if (!is_operator(op)) return false;
  next();
  return true;
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!accept_operator(op)) fail(fmt::format("expected '{}', found '{}'", op, peek().text));
}

void ExpressionParser::add_child(Expr& parent, ExprPtr child) const {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxNesting) fail(fmt::format("an expression nests deeper than {} levels", kMaxNesting));
  parent.children.push_back(std::move(child));
}

ExprPtr ExpressionParser::make(ExprKind kind, std::vector<ExprPtr> children, std::string text) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = peek().line;
  expr->text = std::move(text);
  for (ExprPtr& child : children) {
    if (child) expr->line = std::min(expr->line, child->line);
    add_child(*expr, std::move(child));
  }
  return expr;
}

ExprPtr ExpressionParser::constant(Value value) const {
  ExprPtr expr = make(ExprKind::Constant);
  expr->value = std::move(value);
  return expr;
}

bool ExpressionParser::at_tuple_end() const {
  return peek().kind == TokenKind::VariableEnd || peek().kind == TokenKind::BlockEnd || is_operator(")") ||
         is_name({"recursive"});
}

ExprPtr ExpressionParser::parse_tuple(bool conditional, bool parenthesized) {
  const Nesting nesting(*this);
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end()) {
    items.push_back(parse_expression(conditional));
    if (!is_operator(",")) break;
    next();
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items.front());
    if (!parenthesized) fail("expected an expression");
  }
  return make(ExprKind::Tuple, std::move(items));
}

ExprPtr ExpressionParser::parse_expression(bool conditional) {
  const Nesting nesting(*this);
  return conditional ? parse_condition() : parse_or();
}

ExprPtr ExpressionParser::parse_condition() {
  ExprPtr node = parse_or();
  while (accept_name("if")) {
    ExprPtr condition = parse_or();
    ExprPtr otherwise = accept_name("else") ? parse_expression() : nullptr;
    node = make_of(ExprKind::Condition, "", std::move(node), std::move(condition), std::move(otherwise));
  }
  return node;
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr node = parse_and();
  while (accept_name("or")) node = make_of(ExprKind::Or, "", std::move(node), parse_and());
  return node;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr node = parse_not();
  while (accept_name("and")) node = make_of(ExprKind::And, "", std::move(node), parse_not());
  return node;
}

ExprPtr ExpressionParser::parse_not() {
  if (!accept_name("not")) return parse_compare();
  const Nesting nesting(*this);
  return make_of(ExprKind::Not, "", parse_not());
}

ExprPtr ExpressionParser::parse_compare() {
  ExprPtr first = parse_sum();
  ExprPtr compare;
  while (true) {
    std::string op;
    if (peek().kind == TokenKind::Operator) {
      for (const char* candidate : {"==", "!=", "<", "<=", ">", ">="}) {
        if (is_operator(candidate)) op = candidate;
      }
    } else if (is_name({"in"})) {
      op = "in";
    } else if (is_name({"not"}) && peek(1).kind == TokenKind::Name && peek(1).text == "in") {
      next();
      op = "not in";
    }
    if (op.empty()) return compare ? std::move(compare) : std::move(first);
    next();
    if (!compare) compare = make_of(ExprKind::Compare, "", std::move(first));
    compare->operators.push_back(op);
    add_child(*compare, parse_sum());
  }
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr node = parse_concat();
  while (is_operator("+") || is_operator("-")) {
    std::string op = next().text;
    node = make_of(ExprKind::Binary, std::move(op), std::move(node), parse_concat());
  }
  return node;
}

ExprPtr ExpressionParser::parse_concat() {
  ExprPtr node = parse_product();
  if (!is_operator("~")) return node;
  ExprPtr concat = make_of(ExprKind::Concat, "", std::move(node));
  while (accept_operator("~")) add_child(*concat, parse_product());
  return concat;
}

ExprPtr ExpressionParser::parse_product() {
  ExprPtr node = parse_power();
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    std::string op = next().text;
    node = make_of(ExprKind::Binary, std::move(op), std::move(node), parse_power());
  }
  return node;
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr node = parse_unary(true);
  while (accept_operator("**")) node = make_of(ExprKind::Binary, "**", std::move(node), parse_unary(true));
  return node;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  const Nesting nesting(*this);
  ExprPtr node;
  if (accept_operator("-")) {
    node = make_of(ExprKind::Negate, "", parse_unary(false));
  } else if (accept_operator("+")) {
    node = make_of(ExprKind::Plus, "", parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = peek();
  switch (token.kind) {
    case TokenKind::Name:
      next();
      if (token.text == "true" || token.text == "True") return constant(true);
      if (token.text == "false" || token.text == "False") return constant(false);
      if (token.text == "none" || token.text == "None") return constant(None{});
      return make(ExprKind::Name, {}, token.text);
    case TokenKind::String: {
      std::string text = next().text;
      while (peek().kind == TokenKind::String) text += next().text;
      return constant(std::move(text));
    }
    case TokenKind::Integer: next(); return constant(token.integer);
    case TokenKind::Float: next(); return constant(token.number);
    default: break;
  }
  if (accept_operator("(")) {
    ExprPtr node = parse_tuple(true, true);
    expect_operator(")");
    return node;
  }
  if (is_operator("[")) return parse_list();
  if (is_operator("{")) return parse_dict();
  fail(fmt::format("expected an expression, found '{}'", token.text));
}

ExprPtr ExpressionParser::parse_list() {
  next();
  ExprPtr list = make(ExprKind::List);
  while (!accept_operator("]")) {
    if (!list->children.empty()) expect_operator(",");
    if (accept_operator("]")) break;
    add_child(*list, parse_expression());
  }
  return list;
}

ExprPtr ExpressionParser::parse_dict() {
  next();
  ExprPtr dict = make(ExprKind::Dict);
  while (!accept_operator("}")) {
    if (!dict->children.empty()) expect_operator(",");
    if (accept_operator("}")) break;
    add_child(*dict, parse_expression());
    expect_operator(":");
    add_child(*dict, parse_expression());
  }
  return dict;
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  while (true) {
    if (is_operator(".") || is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filters_and_tests(ExprPtr node) {
  while (true) {
    if (is_operator("|")) {
      node = parse_filters(std::move(node));
    } else if (accept_name("is")) {
      node = parse_test(std::move(node));
    } else if (is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr node) {
  if (accept_operator(".")) {
    const Token& token = next();
    if (token.kind == TokenKind::Name) return make_of(ExprKind::Attribute, token.text, std::move(node));
    if (token.kind != TokenKind::Integer) fail("expected a name after '.'");
    return make_of(ExprKind::Item, "", std::move(node), constant(token.integer));
  }
  expect_operator("[");
  return parse_index(std::move(node));
}

ExprPtr ExpressionParser::parse_index(ExprPtr node) {
  ExprPtr parts[3];
  int part = 0;
  bool slice = false;
  while (!is_operator("]")) {
    if (accept_operator(":")) {
      slice = true;
      if (++part > 2) fail("a slice has three parts at most");
    } else if (!parts[part] && !is_operator(",")) {
      parts[part] = parse_expression();
    } else {
      fail("an index is one expression or a slice");
    }
  }
  next();
  if (slice) {
    return make_of(ExprKind::Slice, "", std::move(node), std::move(parts[0]), std::move(parts[1]), std::move(parts[2]));
  }
  if (!parts[0]) fail("expected an index");
  return make_of(ExprKind::Item, "", std::move(node), std::move(parts[0]));
}

void ExpressionParser::parse_arguments(Expr& call) {
  expect_operator("(");
  bool first = true;
  while (!accept_operator(")")) {
    if (!first) expect_operator(",");
    first = false;
    if (accept_operator(")")) break;
    if (is_operator("*") || is_operator("**")) fail("arguments with * are not supported");
    if (peek().kind == TokenKind::Name && peek(1).kind == TokenKind::Operator && peek(1).text == "=") {
      std::string name = next().text;
      next();
      ExprPtr value = parse_expression();
      call.depth = std::max(call.depth, value->depth + 1);
      call.keywords.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.keywords.empty()) fail("a positional argument follows a keyword");
      add_child(call, parse_expression());
    }
  }
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  ExprPtr call = make_of(ExprKind::Call, "", std::move(callee));
  parse_arguments(*call);
  return call;
}

ExprPtr ExpressionParser::parse_filter(ExprPtr input) {
  std::string name = expect(TokenKind::Name).text;
  while (accept_operator(".")) name += '.' + expect(TokenKind::Name).text;
  ExprPtr filter = make_of(ExprKind::Filter, std::move(name), std::move(input));
  if (is_operator("(")) parse_arguments(*filter);
  return filter;
}

ExprPtr ExpressionParser::parse_filters(ExprPtr input) {
  while (accept_operator("|")) input = parse_filter(std::move(input));
  return input;
}

ExprPtr ExpressionParser::parse_test(ExprPtr node) {
  const bool negated = accept_name("not");
  std::string name = expect(TokenKind::Name).text;
  while (accept_operator(".")) name += '.' + expect(TokenKind::Name).text;
  ExprPtr test = make_of(ExprKind::Test, std::move(name), std::move(node));
  const TokenKind kind = peek().kind;
  if (is_operator("(")) {
    parse_arguments(*test);
  } else if ((kind == TokenKind::Name && !is_name({"else", "or", "and"})) || kind == TokenKind::String ||
             kind == TokenKind::Integer || kind == TokenKind::Float || is_operator("[") || is_operator("{")) {
    if (is_name({"is"})) fail("tests cannot be chained with 'is'");
    add_child(*test, parse_postfix(parse_primary()));
  }
  return negated ? make_of(ExprKind::Not, "", std::move(test)) : std::move(test);
}

}  // namespace temper::text::jinja
