#include "text/jinja.h"

#include "text/jinja_interpreter.h"

namespace temper::text::jinja {

Template::Template(std::string_view source, std::string name)
    : source_(source), name_(std::move(name)), body_(parse_template(source_, name_)) {}

std::string Template::render(std::vector<std::pair<std::string, Value>> variables) const {
  return Interpreter(name_).run(body_, std::move(variables));
}

}  // namespace temper::text::jinja
