// Arbitrary text as JSON, and the typed accessors over what it holds.
#include "files/json.h"
#include "fuzz_support.h"

using namespace temper;

namespace {

void visit(const files::Json& value) {
  fuzz::require(!files::describe(value).empty());
  if (!value.is_structured()) return;
  for (const auto& item : value.items()) {
    const std::string& key = item.key();
    fuzz::run([&] { files::optional_int(value, key, "fuzz", 0, 9); });
    fuzz::run([&] { files::optional_number(value, key, "fuzz", -1, 1); });
    fuzz::run([&] { files::optional_bool(value, key, "fuzz"); });
    fuzz::run([&] { files::require_string(value, key, "fuzz"); });
    fuzz::run([&] { files::require_array(value, key, "fuzz"); });
    visit(item.value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const files::Json json = files::parse_json(fuzz::text(data, size), "fuzz", {.max_bytes = 1 << 20, .max_depth = 32});
    visit(json);
    // What was read, written and read again is the same.
    fuzz::require(files::parse_json(json.dump(), "fuzz") == json);
  });
}
