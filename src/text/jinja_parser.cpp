// Recursive descent over Jinja's grammar (the documentation of Jinja 3.1, "Template Designer Documentation").
#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_expression_parser.h"

namespace temper::text::jinja {
namespace {

using Words = std::initializer_list<std::string_view>;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() {
    Body body = parse_body({});
    if (peek().kind != TokenKind::End) fail("unexpected end of the template");
    return body;
  }

 private:
  std::unique_ptr<Stmt> make(StmtKind kind) const {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = peek().line;
    return stmt;
  }

  /// Statements up to one of the block names `until`, whose name token is left to be read. Without names: up to the end.
  Body parse_body(Words until) {
    const Nesting nesting(*this);
    Body body;
    while (peek().kind != TokenKind::End) {
      if (peek().kind == TokenKind::Data) {
        auto stmt = make(StmtKind::Data);
        stmt->text = next().text;
        body.push_back(std::move(stmt));
      } else if (accept(TokenKind::VariableBegin)) {
        auto stmt = make(StmtKind::Output);
        stmt->value = parse_tuple(true);
        expect(TokenKind::VariableEnd);
        body.push_back(std::move(stmt));
      } else {
        expect(TokenKind::BlockBegin);
        if (is_name(until)) return body;
        body.push_back(parse_statement());
      }
    }
    if (until.size()) fail(fmt::format("the template ends where {{% {} %}} is expected", *(until.end() - 1)));
    return body;
  }

  /// The body of a block that has begun, with the `%}` before it and the `{% end… %}` after it.
  Body parse_block(std::string_view end) {
    expect(TokenKind::BlockEnd);
    Body body = parse_body({end});
    next();
    return body;
  }

  std::unique_ptr<Stmt> parse_statement() {
    const Token& token = peek();
    if (token.kind != TokenKind::Name) fail("a block tag begins with a name");
    auto stmt = parse_named(token.text);
    expect(TokenKind::BlockEnd);
    return stmt;
  }

  std::unique_ptr<Stmt> parse_named(const std::string& word) {
    if (word == "if") return parse_if();
    if (word == "for") return parse_for();
    if (word == "set") return parse_set();
    if (word == "macro") return parse_macro();
    if (word == "call") return parse_call_block();
    if (word == "filter") return parse_filter_block();
    if (word == "with") return parse_with();
    if (word == "print") {
      next();
      auto stmt = make(StmtKind::Output);
      stmt->value = parse_tuple(true);
      return stmt;
    }
    if (word == "generation") {
      auto stmt = make(StmtKind::Scope);
      next();
      stmt->bodies.push_back(parse_block("endgeneration"));
      return stmt;
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) fail(fmt::format("{{% {} %}} outside a loop", word));
      auto stmt = make(word == "break" ? StmtKind::Break : StmtKind::Continue);
      next();
      return stmt;
    }
    fail(fmt::format("a block tag '{}' that is unknown here", word));
  }

  std::unique_ptr<Stmt> parse_if() {
    auto stmt = make(StmtKind::If);
    bool more = true;
    while (more) {
      next();  // if, elif
      stmt->conditions.push_back(parse_tuple(false));
      expect(TokenKind::BlockEnd);
      stmt->bodies.push_back(parse_body({"elif", "else", "endif"}));
      more = is_name({"elif"});
    }
    if (next().text == "else") stmt->bodies.push_back(parse_block("endif"));
    return stmt;
  }

  std::unique_ptr<Stmt> parse_for() {
    auto stmt = make(StmtKind::For);
    next();
    stmt->target = parse_target(false);
    expect_name("in");
    stmt->value = parse_tuple(false);
    if (accept_name("if")) stmt->conditions.push_back(parse_expression());
    if (is_name({"recursive"})) fail("recursive loops are not supported");
    expect(TokenKind::BlockEnd);
    ++loops_;
    stmt->bodies.push_back(parse_body({"else", "endfor"}));
    --loops_;
    if (next().text == "else") stmt->bodies.push_back(parse_block("endfor"));
    return stmt;
  }

  Target parse_single_target(bool with_namespace) {
    if (accept_operator("(")) {
      Target target = parse_target(with_namespace);
      expect_operator(")");
      return target;
    }
    Target target;
    target.name = expect(TokenKind::Name).text;
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (target.name == constant) fail(fmt::format("cannot assign to {}", constant));
    }
    if (with_namespace && accept_operator(".")) target.attribute = expect(TokenKind::Name).text;
    return target;
  }

  Target parse_target(bool with_namespace) {
    const Nesting nesting(*this);
    Target first = parse_single_target(with_namespace);
    if (!is_operator(",")) return first;
    Target tuple;
    tuple.parts.push_back(std::move(first));
    while (accept_operator(",") && (peek().kind == TokenKind::Name || is_operator("(")) && !is_name({"in"})) {
      tuple.parts.push_back(parse_single_target(with_namespace));
    }
    return tuple;
  }

  std::unique_ptr<Stmt> parse_set() {
    auto stmt = make(StmtKind::Set);
    next();
    stmt->target = parse_target(true);
    if (accept_operator("=")) {
      stmt->value = parse_tuple(true);
      return stmt;
    }
    stmt->kind = StmtKind::SetBlock;
    stmt->value = parse_filters(nullptr);
    stmt->bodies.push_back(parse_block("endset"));
    return stmt;
  }

  void parse_parameters(Stmt& stmt) {
    expect_operator("(");
    while (!accept_operator(")")) {
      if (!stmt.parameters.empty()) expect_operator(",");
      if (accept_operator(")")) break;
      Parameter parameter;
      parameter.name = expect(TokenKind::Name).text;
      if (accept_operator("=")) {
        parameter.fallback = parse_expression();
      } else if (!stmt.parameters.empty() && stmt.parameters.back().fallback) {
        fail("a parameter without a default follows one with a default");
      }
      stmt.parameters.push_back(std::move(parameter));
    }
  }

  /// The body of a macro or call block, in which an outer loop cannot be left.
  void parse_macro_body(Stmt& stmt, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    stmt.bodies.push_back(parse_block(end));
    loops_ = loops;
  }

  std::unique_ptr<Stmt> parse_macro() {
    auto stmt = make(StmtKind::Macro);
    next();
    stmt->text = expect(TokenKind::Name).text;
    parse_parameters(*stmt);
    parse_macro_body(*stmt, "endmacro");
    return stmt;
  }

  std::unique_ptr<Stmt> parse_call_block() {
    auto stmt = make(StmtKind::CallBlock);
    next();
    if (is_operator("(")) parse_parameters(*stmt);
    stmt->value = parse_expression();
    if (stmt->value->kind != ExprKind::Call) fail("{% call %} needs a call");
    parse_macro_body(*stmt, "endcall");
    return stmt;
  }

  std::unique_ptr<Stmt> parse_filter_block() {
    auto stmt = make(StmtKind::FilterBlock);
    next();
    stmt->value = parse_filters(parse_filter(nullptr));
    stmt->bodies.push_back(parse_block("endfilter"));
    return stmt;
  }

  std::unique_ptr<Stmt> parse_with() {
    auto stmt = make(StmtKind::With);
    next();
    while (peek().kind != TokenKind::BlockEnd) {
      if (!stmt->targets.empty()) expect_operator(",");
      stmt->targets.push_back(parse_single_target(false));
      expect_operator("=");
      stmt->conditions.push_back(parse_expression());
    }
    stmt->bodies.push_back(parse_block("endwith"));
    return stmt;
  }

  int loops_ = 0;
};

}  // namespace

Body parse_template(std::string_view source, const std::string& name) {
  return Parser(tokenize_template(source, name), name).run();
}

}  // namespace temper::text::jinja
