// Tiny random models (tests/data/hf) with a tokenizer of their own, for tests of what reads text.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/atomic_file.h"

namespace temper::testing {

/// A chat template in the manner of ChatML, in characters that the tiny tokenizer has.
inline constexpr const char* kTinyTemplate =
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// A byte-level tokenizer of at most 80 ids: special tokens 0 to 5, space, letters, digits, a little punctuation, a few
/// merges.
inline void write_tiny_tokenizer(const std::filesystem::path& folder) {
  const nlohmann::json special = {"<pad>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"};
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array();
  int id = 0;
  for (const auto& token : special) {
    vocab[token.get<std::string>()] = id;
    added.push_back({{"id", id++},
                     {"content", token},
                     {"special", true},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  }
  vocab["\u0120"] = id++;  // a space in the byte-to-character alphabet
  vocab["\u010a"] = id++;  // a newline
  for (const char c : std::string("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM0123456789.,?!:")) vocab[std::string(1, c)] = id++;
  const nlohmann::json merges = nlohmann::json::parse(R"([["t", "h"], ["th", "e"], ["i", "n"], ["a", "n"]])");
  for (const auto& m : merges) vocab[m[0].get<std::string>() + m[1].get<std::string>()] = id++;
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"added_tokens", added},
                                    {"normalizer", nullptr},
                                    {"pre_tokenizer", byte_level},
                                    {"post_processor", nullptr},
                                    {"decoder", byte_level},
                                    {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
  write_file(folder / "tokenizer.json", tokenizer.dump());
  write_file(folder / "tokenizer_config.json", nlohmann::json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                                                              {"bos_token", "<s>"},
                                                              {"eos_token", "<|end|>"},
                                                              {"pad_token", "<pad>"},
                                                              {"chat_template", kTinyTemplate}}
                                                   .dump());
}

/// Copies a model of tests/data/hf into `folder` and gives it the tokenizer.
inline std::filesystem::path make_tiny_model(const std::string& name, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const std::filesystem::path source = std::filesystem::path(TEMPER_TEST_DATA) / "hf" / name;
  for (const char* file : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(source / file, folder / file, std::filesystem::copy_options::overwrite_existing);
  write_tiny_tokenizer(folder);
  return folder;
}

}  // namespace temper::testing
