#include "api/results.h"

#include <algorithm>

#include "base/progress.h"
#include "eval/compare.h"
#include "eval/score.h"

namespace temper::api {
namespace {

using Kind = Contender::Kind;

eval::ResultRow row_of(const Contender& contender, eval::LoadedModel& model) {
  eval::ResultRow row;
  row.model = contender.label;
  row.bytes = contender.bytes ? contender.bytes : stored_bytes(model);
  row.bits_per_weight = contender.bits_per_weight > 0
                            ? contender.bits_per_weight
                            : 8.0 * static_cast<double>(row.bytes) / static_cast<double>(model.reader().weight_count());
  return row;
}

}  // namespace

std::vector<eval::ResultRow> score_contenders(const ExecContext& ctx, std::span<const Contender> contenders,
                                              std::span<const text::Sample> samples, const recipe::EvalOptions& options) {
  const eval::BootstrapOptions bootstrap{options.bootstrap, static_cast<std::uint64_t>(options.seed)};
  const auto tuned =
      std::find_if(contenders.begin(), contenders.end(), [](const Contender& c) { return c.kind == Kind::Tuned; });
  const auto reference = tuned == contenders.end() ? nullptr : eval::LoadedModel::open(ctx, tuned->path, tuned->scheme);
  std::vector<eval::ResultRow> rows;
  std::optional<eval::Estimate> tuned_nll;  // every comparison scores the reference too
  std::optional<eval::Comparison> ptq;
  for (const Contender& contender : contenders) {
    if (reference && contender.kind == Kind::Tuned) {
      rows.push_back(row_of(contender, *reference));
      continue;
    }
    const auto model = eval::LoadedModel::open(ctx, contender.path, contender.scheme);
    eval::ResultRow& row = rows.emplace_back(row_of(contender, *model));
    if (!reference) {
      row.nll = eval::score(ctx, model->transformer(), samples, {bootstrap, eval::kTokensPerPass, contender.label}).nll;
      continue;
    }
    eval::CompareOptions compare;
    compare.bootstrap = bootstrap;
    compare.progress = contender.label;
    const eval::Comparison comparison = eval::compare(ctx, model->transformer(), reference->transformer(), samples, compare);
    row.nll = comparison.nll;
    row.kld = comparison.kld;
    row.top1_agreement = comparison.top1_agreement;
    tuned_nll = comparison.reference_nll;
    if (contender.kind == Kind::Ptq) ptq = comparison;
    if (contender.kind == Kind::Qat && ptq) row.recovered = eval::recovered(*ptq, comparison, bootstrap);
  }
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (tuned_nll && contenders[i].kind == Kind::Tuned) rows[i].nll = *tuned_nll;
  return rows;
}

}  // namespace temper::api
