#include "text/inspect.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/tokenizer.h"

namespace temper::text {
namespace {

constexpr const char* kReset = "\x1b[0m";

/// Tokens [begin, end) as text; a character that lies in several tokens comes out whole.
std::string piece(const Sample& sample, const Tokenizer& tokenizer, std::size_t begin, std::size_t end) {
  return tokenizer.decode(std::span(sample.ids).subspan(begin, end - begin), false,
                          begin == 0 ? TextPart::kWhole : TextPart::kContinuation);
}

/// One token on one line: control characters and quotes escaped.
std::string quoted(const std::string& bytes) {
  std::string out = "\"";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte >= 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string table(const Sample& sample, const Tokenizer& tokenizer) {
  std::string out = " index     id  loss  token\n";
  for (std::size_t i = 0; i < sample.ids.size(); ++i) {
    out += fmt::format("{:>6} {:>6}  {:>4}  {}\n", i, sample.ids[i], sample.labelled[i] ? "yes" : "-",
                       quoted(tokenizer.token_bytes(sample.ids[i])));
  }
  return out;
}

}  // namespace

std::string render_sample(const Sample& sample, const Tokenizer& tokenizer, const InspectOptions& options) {
  std::string out;
  for (std::size_t begin = 0; begin < sample.ids.size();) {
    // Runs of one colour, so that characters are not broken where the colour does not change.
    const bool labelled = sample.labelled[begin] != 0, special = options.colour && tokenizer.is_special(sample.ids[begin]);
    std::size_t end = begin + 1;
    while (end < sample.ids.size() && (sample.labelled[end] != 0) == labelled &&
           (options.colour && tokenizer.is_special(sample.ids[end])) == special) {
      ++end;
    }
    const std::string text = piece(sample, tokenizer, begin, end);
    if (options.colour) {
      out += std::string(special ? "\x1b[1m" : "") + (labelled ? "\x1b[32m" : "\x1b[90m") + text + kReset;
    } else {
      out += labelled ? "⟦" + text + "⟧" : text;
    }
    begin = end;
  }
  if (out.empty() || out.back() != '\n') out += '\n';
  if (options.ids) out += table(sample, tokenizer);
  return out;
}

std::string inspect_dataset(const Dataset& dataset, const Tokenizer& tokenizer, const InspectOptions& options) {
  std::string out = dataset.report.text();
  const auto shown = std::min(static_cast<std::size_t>(std::max<std::int64_t>(options.rows, 0)), dataset.samples.size());
  for (std::size_t i = 0; i < shown; ++i) {
    const Sample& sample = dataset.samples[i];
    out += fmt::format("\n--- line {}: {} tokens, {} labelled\n", sample.row, sample.ids.size(),
                       std::count(sample.labelled.begin(), sample.labelled.end(), 1));
    out += render_sample(sample, tokenizer, options);
  }
  return out;
}

}  // namespace temper::text
