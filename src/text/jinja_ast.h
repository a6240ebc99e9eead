// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace temper::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  Constant,   ///< value
  Name,       ///< text
  List,       ///< children
  Tuple,      ///< children
  Dict,       ///< children: key, value, key, value, …
  Attribute,  ///< children[0] . text
  Item,       ///< children[0] [ children[1] ]
  Slice,      ///< children[0] [ children[1] : children[2] : children[3] ]; absent ones are null
  Call,       ///< children[0] ( children[1…], keywords )
  Filter,     ///< children[0] | text ( children[1…], keywords ); children[0] is null in a filter block
  Test,       ///< children[0] is text ( children[1…], keywords )
  Not,        ///< children[0]
  Negate,     ///< children[0]
  Plus,       ///< children[0]
  And,        ///< children[0], children[1]
  Or,         ///< children[0], children[1]
  Binary,     ///< text: + - * / // % **
  Concat,     ///< children, joined as text
  Compare,    ///< children[0] operators[0] children[1] operators[1] …
  Condition   ///< children[0] if children[1] else children[2], which may be null
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  ///< of the tree; bounded, so that recursion over it is
  std::string text;
  Value value;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> operators;
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

enum class StmtKind {
  Data,         ///< text
  Output,       ///< value
  If,           ///< branches: conditions[i] → bodies[i]; one body more is the else
  For,          ///< target in value if conditions[0] (may be absent): bodies[0]; else bodies[1]
  Set,          ///< target = value
  SetBlock,     ///< target = bodies[0], through the filters in value (may be null)
  With,         ///< targets[i] = conditions[i] within bodies[0]
  Macro,        ///< text, parameters, bodies[0]
  CallBlock,    ///< value is the call; bodies[0] with parameters is `caller`
  FilterBlock,  ///< value is the chain of filters over bodies[0]
  Scope,        ///< bodies[0] in a scope of its own: {% generation %}
  Break,
  Continue
};

/// What is assigned to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
};

struct Parameter {
  std::string name;
  ExprPtr fallback;  ///< null: none
};

struct Stmt {
  StmtKind kind;
  int line = 0;
  std::string text;
  ExprPtr value;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> conditions;
  std::vector<Body> bodies;
  std::vector<Parameter> parameters;
};

/// Throws BadFile naming `name` and the line where `source` is no template, or nests deeper than kMaxNesting.
Body parse_template(std::string_view source, const std::string& name);

/// Greatest depth of an expression's tree, and of statements within statements.
inline constexpr int kMaxNesting = 200;

}  // namespace temper::text::jinja
