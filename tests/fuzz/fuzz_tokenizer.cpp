// A tokenizer from arbitrary bytes (GGUF metadata, or tokenizer.json, where they begin like one, else tokenizer.model), put
// to use if it loads.
#include <cstdint>
#include <vector>

#include "files/gguf.h"
#include "fuzz_support.h"
#include "text/tokenizer.h"

using namespace temper;

namespace {

text::Tokenizer load(const std::uint8_t* data, std::size_t size) {
  if (fuzz::text(data, size).starts_with("GGUF")) {
    return text::Tokenizer::from_gguf(files::GgufFile::parse(fuzz::bytes(data, size), "fuzz"));
  }
  text::Tokenizer::HfTexts texts;
  const bool json = fuzz::text(data, size).starts_with('{');
  (json ? texts.tokenizer_json : texts.tokenizer_model) = fuzz::text(data, size);
  return text::Tokenizer::from_hf_texts(texts);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const text::Tokenizer tokenizer = load(data, size);
    constexpr std::string_view kText = "Hello  world 12345\n\t<s>naïve 漢字 🙂 don't\xff</s>";
    for (const bool special : {false, true}) {
      std::vector<std::int32_t> ids;
      try {
        ids = tokenizer.encode(kText, special);
      } catch (const BadData&) {  // a pattern out of the file that gives up
        return;
      }
      for (const std::int32_t id : ids) fuzz::require(id >= 0 && id < tokenizer.vocab_size());
      fuzz::require(text::is_valid_utf8(tokenizer.decode(ids, special)));
    }
    for (std::int32_t id = 0; id < tokenizer.vocab_size() && id < 1000; ++id) tokenizer.token_bytes(id);
    fuzz::require(!tokenizer.to_hf_json().empty() && !tokenizer.to_hf_config_json().empty());
    tokenizer.to_gguf();
  });
}
