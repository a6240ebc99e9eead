// Prints what temper's tokenizer makes of a text, for check_tokenizers.py, which builds it against a build folder's
// libraries.
//
//   tokenizer_ids ids|plain|special MODEL < TEXT    ids as little-endian int32; "plain" does not parse special tokens,
//   "special"
//                                                   adds BOS and EOS as the tokenizer asks
//   tokenizer_ids decode MODEL < IDS                the text of such ids
//   tokenizer_ids hf MODEL FOLDER                   writes tokenizer.json and tokenizer_config.json into FOLDER
//   tokenizer_ids pre MODEL                         the name of the pre-tokenizer in GGUF
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "text/tokenizer.h"

using temper::text::Tokenizer;

int main(int argc, char** argv) try {
  if (argc < 3) return 2;
  const std::string verb = argv[1];
  const Tokenizer tokenizer = Tokenizer::load(argv[2]);
  if (verb == "pre") {
    std::cout << tokenizer.to_gguf().pre << "\n";
    return 0;
  }
  if (verb == "hf") {
    const std::filesystem::path folder = argv[3];
    std::ofstream(folder / "tokenizer.json") << tokenizer.to_hf_json();
    std::ofstream(folder / "tokenizer_config.json") << tokenizer.to_hf_config_json();
    return 0;
  }
  const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
  if (verb == "decode") {
    std::vector<std::int32_t> ids(input.size() / sizeof(std::int32_t));
    std::memcpy(ids.data(), input.data(), ids.size() * sizeof(std::int32_t));
    std::cout << tokenizer.decode(ids, false);
    return 0;
  }
  const auto begin = std::chrono::steady_clock::now();
  const auto ids = verb == "special" ? tokenizer.encode_with_special(input) : tokenizer.encode(input, verb == "ids");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::fprintf(stderr, "%.2f\n", static_cast<double>(input.size()) / 1e6 / seconds.count());  // MB/s
  std::fwrite(ids.data(), sizeof(std::int32_t), ids.size(), stdout);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
