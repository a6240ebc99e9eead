// The expression half of the template parser, and its access to tokens.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace temper::text::jinja {

class ExpressionParser {
 public:
  /// Keeps a reference to `name`, which errors give.
  ExpressionParser(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

 protected:
  /// Counts how deep the parser has recursed; throws BadFile beyond kMaxNesting.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

  [[noreturn]] void fail(const std::string& message) const;
  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next();
  const Token& expect(TokenKind kind);
  bool accept(TokenKind kind);
  bool is_name(std::initializer_list<std::string_view> names) const;
  bool accept_name(std::string_view name);
  void expect_name(std::string_view name);
  bool is_operator(std::string_view op) const { return peek().kind == TokenKind::Operator && peek().text == op; }
  bool accept_operator(std::string_view op);
  void expect_operator(std::string_view op);

  /// Expressions with commas between them are a tuple. `conditional`: a bare `x if y` may occur.
  ExprPtr parse_tuple(bool conditional, bool parenthesized = false);
  ExprPtr parse_expression(bool conditional = true);
  /// `name(args)` of a filter over `input`.
  ExprPtr parse_filter(ExprPtr input);
  /// Any number of `| filter` over `input`.
  ExprPtr parse_filters(ExprPtr input);

 private:
  ExprPtr make(ExprKind kind, std::vector<ExprPtr> children = {}, std::string text = {}) const;
  template <typename... Children>
  ExprPtr make_of(ExprKind kind, std::string text, Children... children) const {
    std::vector<ExprPtr> list;
    (list.push_back(std::move(children)), ...);
    return make(kind, std::move(list), std::move(text));
  }
  ExprPtr constant(Value value) const;
  void add_child(Expr& parent, ExprPtr child) const;

  ExprPtr parse_condition();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_primary();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters_and_tests(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_index(ExprPtr node);
  ExprPtr parse_call(ExprPtr callee);
  ExprPtr parse_test(ExprPtr node);
  void parse_arguments(Expr& call);
  bool at_tuple_end() const;

  std::vector<Token> tokens_;
  const std::string& name_;
  std::size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace temper::text::jinja
