// The pre-tokenizers that GGUF knows by name (`tokenizer.ggml.pre`). The names and what they imply are those of llama.cpp's
// llama-vocab.cpp; the patterns are those of the models' own tokenizer.json where llama.cpp only approximates them.
#include <algorithm>

#include "base/error.h"
#include "text/pretokenizer.h"

namespace temper::text {
namespace {

constexpr std::string_view kGpt2 = R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kLlama3 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n])re"
    R"re(+|\s+(?!\S)|\s+)re";
constexpr std::string_view kQwen2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+)re"
    R"re((?!\S)|\s+)re";
constexpr std::string_view kNumber = R"re(\p{N})re";
constexpr std::string_view kUpTo3Numbers = R"re(\p{N}{1,3})re";

struct Row {
  std::vector<std::string_view> names;     // the one to write comes first
  std::vector<std::string_view> patterns;  // applied one after the other, matches and gaps kept apart
  bool ignore_merges, add_bos;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum",
        "modern-bert", "exaone4"},
       {kGpt2},
       false,
       false},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
       {kNumber, kGpt2},
       false,
       false},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
       {kLlama3},
       true,
       true},
      {{"glm4", "glm5"}, {kLlama3}, true, false},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {kLlama3}, false, false},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "megrez", "solar-open", "grok-2"},
       {kQwen2},
       false,
       false},
      {{"qwen35"},
       {R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+)re"
        R"re([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"},
       false,
       false},
      {{"tekken"},
       {R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p)re"
        R"re({N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\)re"
        R"re(r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"},
       true,
       true},
      {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
       {R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|)re"
        R"re('ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M})re"
        R"re(]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S))re"
        R"re(|\s+)re"},
       false,
       false},
      {{"deepseek-llm"},
       {R"re([\r\n])re",
        R"re(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-)re"
        R"re(ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ)re"
        R"re(-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)re",
        R"re(\s?[!-/:-~！-／：-～‘-‟　-。]+)re", R"re(\s+$)re", R"re([一-龥ࠀ-一가-퟿]+)re", R"re(\p{N}+)re"},
       false,
       false},
      {{"deepseek-coder"},
       {R"re([\r\n])re", R"re(\s?\p{L}+)re", R"re(\s?\p{P}+)re", R"re([一-龥ࠀ-一가-퟿]+)re", kNumber},
       false,
       false},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
       {kUpTo3Numbers, R"re([一-龥぀-ゟ゠-ヿ]+)re",
        R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p)re"
        R"re({P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"},
       false,
       false},
      {{"falcon"}, {R"re([\p{P}\$\+<=>\^~\|`]+)re", kGpt2, R"re([0-9][0-9][0-9])re"}, false, false},
      {{"default"}, {R"re([\p{P}\$\+<=>\^~\|]+)re", kGpt2, R"re(\p{N}+)re", R"re([0-9][0-9][0-9])re"}, false, false},
      {{"bailingmoe", "bailingmoe2", "llada-moe"},
       {R"re('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n])re"
        R"re(|\s+(?!\S)|\s+)re"},
       false,
       false},
      {{"seed-coder"},
       {R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[)re"
        R"re(\r\n]+|\s+(?!\S)|\s+)re"},
       false,
       false},
      {{"viking"}, {R"re( ?[^(\s|.,!?…。，、।۔،)]+)re", kNumber}, false, false},
      {{"bloom", "gpt3-finnish", "poro-chat"}, {R"re( ?[^(\s|.,!?…。，、।۔،)]+)re"}, false, false},
      {{"minicpm5"},
       {kUpTo3Numbers, R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*)re"
                       R"re([\r\n]+|\s+(?!\S)|\s+)re"},
       true,
       false},
  };
  return table;
}

std::vector<PreTokenizerStep> steps_of(const Row& row) {
  std::vector<PreTokenizerStep> steps;
  for (const std::string_view pattern : row.patterns) steps.push_back({.pattern = std::string(pattern)});
  return steps;
}

}  // namespace

std::string_view gpt2_pattern() { return kGpt2; }

std::optional<NamedPreTokenizer> named_pre_tokenizer(std::string_view name) {
  for (const Row& row : rows()) {
    if (std::find(row.names.begin(), row.names.end(), name) != row.names.end()) {
      return NamedPreTokenizer{steps_of(row), row.ignore_merges, row.add_bos};
    }
  }
  return std::nullopt;
}

std::optional<std::string> name_of_pre_tokenizer(const std::vector<PreTokenizerStep>& steps, bool ignore_merges) {
  for (const Row& row : rows()) {
    if (row.ignore_merges == ignore_merges && steps_of(row) == steps) return std::string(row.names.front());
  }
  return std::nullopt;
}

std::string known_pre_tokenizers() {
  std::string list;
  for (const Row& row : rows()) {
    for (const std::string_view name : row.names) list += (list.empty() ? "" : ", ") + std::string(name);
  }
  return list;
}

}  // namespace temper::text
