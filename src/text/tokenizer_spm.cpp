#include "text/tokenizer_spm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "text/scored_bpe.h"
#include "text/unigram.h"

namespace temper::text {
namespace {

using Impl = Tokenizer::Impl;
using Step = NormalizerStep;
using Prepend = PreTokenizerStep::Prepend;

constexpr float kAddedScore = -1000.0F;  // what converters write for tokens that no score picks

const std::string kSpace = " ", kMark(kMetaspace);
const std::string kEndSpaces = R"(\A +| +\z)", kManySpaces = " {2,}";  // patterns

/// SentencePiece's normalization (src/normalizer.cc) as steps: its rules, spaces, the space before, U+2581 for spaces.
std::vector<Step> normalizer_steps(const GgufTokenizer& metadata) {
  std::vector<Step> steps;
  if (!metadata.precompiled_charsmap.empty())
    steps.push_back({.kind = Step::Kind::kCharsMap, .content = metadata.precompiled_charsmap});
  if (metadata.remove_extra_whitespaces) {
    steps.push_back({.kind = Step::Kind::kPattern, .pattern = kEndSpaces});
    steps.push_back({.kind = Step::Kind::kPattern, .pattern = kManySpaces, .content = kSpace});
  }
  if (metadata.add_space_prefix) steps.push_back({.kind = Step::Kind::kPrepend, .content = kMark});
  steps.push_back({.kind = Step::Kind::kReplace, .pattern = kSpace, .content = kMark});
  return steps;
}

/// The score that an unknown character is measured by: the lowest of the tokens that texts are made of.
double lowest_score(const Impl& impl) {
  double lowest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < impl.scores.size(); ++i) {
    if (impl.kinds[i] == Impl::Kind::kNormal) lowest = std::min(lowest, impl.scores[i]);
  }
  return std::isinf(lowest) ? 0.0 : lowest;
}

/// Scores that put tokens in the order in which `merges` make them. SentencePiece merges wherever a token results, so every
/// way to make a token must be among the merges, side by side.
std::vector<float> scores_of_merges(const Impl& impl) {
  std::vector<float> scores(impl.texts.size(), kAddedScore);
  for (std::size_t i = 0; i < impl.texts.size(); ++i) {
    if (impl.kinds[i] == Impl::Kind::kByte) scores[i] = 0.0F;
    if (impl.kinds[i] == Impl::Kind::kNormal) scores[i] = -static_cast<float>(impl.merges.size());
  }
  const auto refuse = [&](const std::string& merge, std::string_view why) {
    throw Unsupported("{}: merge \"{}\": {}; no scores order them so, which is what GGUF has for such a tokenizer",
                      impl.origin, merge, why);
  };
  float next = 0.0F;
  std::int32_t last = -1;
  std::vector<bool> made(impl.texts.size());
  for (const std::string& merge : impl.merges) {
    const std::size_t space = merge.find(' ', 1);
    const std::int32_t id = *impl.id_of(merge.substr(0, space) + merge.substr(space + 1));
    if (id == last) continue;
    const auto index = static_cast<std::size_t>(id);
    if (made[index]) refuse(merge, "merges that make the same token do not follow on each other");
    made[index] = true;
    scores[index] = next;
    next -= 1.0F;
    last = id;
  }
  return scores;
}

/// True if the text's spaces become U+2581 and nothing else is done to it but what `out` is told.
bool describe_steps(const Impl& impl, GgufTokenizer& out) {
  bool marks = false;
  const bool unigram = impl.kind_of_model == Impl::Model::kUnigram;  // llama.cpp does nothing of this with BPE
  for (const Step& step : impl.normalizer.steps()) {
    if (step.kind == Step::Kind::kPrepend && (step.content == kMark || step.content == kSpace)) {
      out.add_space_prefix = true;
    } else if (step.kind == Step::Kind::kReplace && step.pattern == kSpace && step.content == kMark) {
      marks = true;
    } else if (unigram && step.kind == Step::Kind::kCharsMap) {
      out.precompiled_charsmap = step.content;
    } else if (unigram && (step.kind == Step::Kind::kStrip || step.pattern == kEndSpaces || step.pattern == kManySpaces)) {
      out.remove_extra_whitespaces = true;
    } else {
      return false;
    }
  }
  for (const PreTokenizerStep& step : impl.pre_tokenizer->steps()) {
    if (step.kind == PreTokenizerStep::Kind::kMetaspace && step.pattern == kMark) {
      marks = true;
      if (step.prepend == Prepend::kAlways) out.add_space_prefix = true;
      if (step.prepend == Prepend::kFirst) {
        log_warning(
            "{}: GGUF cannot say that a space is put before a whole text only, not after a special token: llama.cpp "
            "will put none, which is what a chat template's texts get",
            impl.origin);
      }
    } else if (step.kind != PreTokenizerStep::Kind::kSplit ||
               (step.pattern != escaped_pattern(kMark) && step.pattern != escaped_pattern(kSpace))) {
      return false;
    }
  }
  return marks;
}

}  // namespace

void build_sentencepiece(const GgufTokenizer& metadata, Impl& impl) {
  if (metadata.scores.size() != metadata.tokens.size()) {
    throw BadFile("{}: tokenizer.ggml.scores: expected {} entries, one per token, found {}", impl.origin,
                  metadata.tokens.size(), metadata.scores.size());
  }
  if (const auto odd = std::ranges::find_if(metadata.scores, [](float s) { return !std::isfinite(s); });
      odd != metadata.scores.end()) {
    throw BadFile("{}: tokenizer.ggml.scores[{}]: expected a number, found {}", impl.origin, odd - metadata.scores.begin(),
                  *odd);
  }
  impl.scores.assign(metadata.scores.begin(), metadata.scores.end());
  impl.strip_left = metadata.add_space_prefix ? 1 : 0;
  impl.pre_tokenizer = std::make_unique<PreTokenizer>(std::vector<PreTokenizerStep>{}, impl.origin);
  impl.normalizer = Normalizer(normalizer_steps(metadata), impl.origin);
  if (metadata.model == "llama") {
    impl.kind_of_model = Impl::Model::kBpe;
    impl.model = std::make_unique<ScoredBpe>(impl.normal_ids(), metadata.scores, impl.byte_tokens(), metadata.unk_id);
    return;
  }
  impl.kind_of_model = Impl::Model::kUnigram;
  if (!metadata.unk_id) throw BadFile("{}: tokenizer.ggml.unknown_token_id: expected one, found none", impl.origin);
  impl.model =
      std::make_unique<Unigram>(impl.normal_ids(), impl.scores, lowest_score(impl), impl.byte_tokens(), *metadata.unk_id);
}

void describe_sentencepiece(const Impl& impl, GgufTokenizer& out) {
  out.model = impl.kind_of_model == Impl::Model::kBpe ? "llama" : "t5";
  out.pre = "default";
  if (impl.ignore_merges || !describe_steps(impl, out)) {
    throw Unsupported(
        "{}: GGUF has no words for what this tokenizer does to a text before its {} model sees it; export to another format",
        impl.origin, impl.kind_of_model == Impl::Model::kBpe ? "BPE" : "unigram");
  }
}

std::vector<float> gguf_scores(const Impl& impl) {
  if (impl.scores.empty()) return scores_of_merges(impl);
  std::vector<float> scores(impl.texts.size(), kAddedScore);
  std::ranges::transform(impl.scores, scores.begin(), [](double s) { return static_cast<float>(s); });
  return scores;
}

std::vector<std::string> merges_of_scores(const Impl& impl) {
  const TokenIds normal = impl.normal_ids();
  std::vector<std::int32_t> order;
  for (const auto& [text, id] : normal) order.push_back(id);
  std::ranges::sort(order, [&](std::int32_t a, std::int32_t b) {
    const double left = impl.scores[static_cast<std::size_t>(a)], right = impl.scores[static_cast<std::size_t>(b)];
    return left != right ? left > right : a < b;
  });
  std::vector<std::string> merges;
  for (const std::int32_t id : order) {
    const std::string_view text = impl.texts[static_cast<std::size_t>(id)];
    for (std::size_t cut = 0; cut < text.size();) {
      if (cut > 0 && normal.contains(text.substr(0, cut)) && normal.contains(text.substr(cut))) {
        merges.push_back(std::string(text.substr(0, cut)) + " " + std::string(text.substr(cut)));
      }
      cut += read_utf8(text.substr(cut)).length;
    }
  }
  return merges;
}

}  // namespace temper::text
