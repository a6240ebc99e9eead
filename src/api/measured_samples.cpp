#include "api/measured_samples.h"

#include <fmt/format.h>

#include "base/atomic_file.h"
#include "eval/evaluate.h"

namespace temper::api {

MeasuredSamples measured_samples(const Recipe& recipe, const text::Tokenizer& tokenizer, std::int64_t default_rows) {
  const std::int64_t wanted = recipe.eval.rows > 0 ? recipe.eval.rows : default_rows;
  MeasuredSamples out;
  out.text = !recipe.eval.text.empty();
  if (out.text) {
    // Windows side by side whose second halves are scored: every token with enough before it, at the least work for each.
    eval::TextWindows windows = eval::cut_windows(read_file(recipe.eval.text), tokenizer,
                                                  {recipe::Windows::LlamaPerplexity, recipe.eval.context, 0, wanted});
    out.how = windows.how();
    out.samples = std::move(windows.samples);
    return out;
  }
  text::Dataset rows = eval::load_rows(recipe.data.path, recipe.data, tokenizer, wanted);
  out.how = fmt::format("{} rows of {}", rows.report.rows, recipe.data.path);
  out.samples = std::move(rows.samples);
  return out;
}

}  // namespace temper::api
