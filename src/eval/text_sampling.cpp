#include "eval/text_sampling.h"

#include <algorithm>
#include <cstring>

#include "base/checksum.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "eval/generate.h"
#include "eval/sampler.h"
#include "files/safetensors.h"

namespace temper::eval {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostTexts = 32;
constexpr std::int64_t kCacheBytes = std::int64_t{512} << 20;
constexpr const char* kIds = "ids";

using Ids = std::vector<std::int32_t>;

/// How a text may begin: as a document, and as a conversation.
std::vector<Ids> beginnings(const text::Tokenizer& tokenizer) {
  const std::vector<std::int32_t>& ends = tokenizer.eog_ids();
  // What stands between documents, where none begins them.
  std::vector<Ids> all = {{tokenizer.bos_id().value_or(ends.empty() ? 0 : ends.front())}};
  if (Ids turn = user_turn_ids(tokenizer); !turn.empty()) all.push_back(std::move(turn));
  return all;
}

/// Writes the texts of one round.
class Round {
 public:
  Round(const ExecContext& ctx, LoadedModel& model, const TextSampling& options, const std::vector<Ids>& beginnings,
        std::int64_t first)
      : ctx_(ctx),
        model_(model),
        options_(options),
        beginnings_(beginnings),
        first_(first),
        ids_(static_cast<std::size_t>(options.batch * (options.length + 1))) {
    for (std::int64_t t = 0; t < options.batch; ++t) {
      // Seeds of their own: a text is the same in whatever round it is written.
      samplers_.emplace_back(SamplingOptions{.temperature = options.temperature},
                             options.seed * 0x9e3779b97f4a7c15ULL + static_cast<std::uint64_t>(first + t));
      id(t, 0) = beginning(t)[0];
    }
  }

  /// Token ids [batch, length + 1].
  const Ids& write(Progress& progress, std::int64_t tokens_before) {
    model::KvCache cache(model_.arch(), ctx_.compute, options_.batch * options_.length);
    Ids tokens(static_cast<std::size_t>(options_.batch));
    for (std::int64_t at = 0; at < options_.length; ++at) {
      if (interrupted()) throw Interrupted("stopped while text {} and those beside it were written", first_ + 1);
      for (std::int64_t t = 0; t < options_.batch; ++t) tokens[static_cast<std::size_t>(t)] = id(t, at);
      model_.transformer().step_side_by_side(
          ctx_, cache, at, tokens, [&](std::size_t first, const TensorView& logits) { draw(first, logits, at + 1); });
      const std::int64_t done = tokens_before + (at + 1) * options_.batch;
      progress.update(done, {.tokens = done, .loss = std::nullopt});
    }
    return ids_;
  }

 private:
  const Ids& beginning(std::int64_t t) const {
    return beginnings_[static_cast<std::size_t>(first_ + t) % beginnings_.size()];
  }
  std::int32_t& id(std::int64_t t, std::int64_t at) {
    return ids_[static_cast<std::size_t>(t * (options_.length + 1) + at)];
  }

  /// Token `at` of the texts from `first` on.
  void draw(std::size_t first, const TensorView& logits, std::int64_t at) {
    // Tables padded beyond the tokenizer have logits that stand for no token.
    const auto named = static_cast<std::size_t>(std::min<std::int64_t>(logits.cols(), model_.tokenizer().vocab_size()));
    parallel_for(logits.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t t = static_cast<std::int64_t>(first) + r;
        const bool given = static_cast<std::size_t>(at) < beginning(t).size();
        id(t, at) = given
                        ? beginning(t)[static_cast<std::size_t>(at)]
                        : samplers_[static_cast<std::size_t>(t)].sample({logits.as<float>() + r * logits.row_stride, named});
      }
    });
  }

  const ExecContext& ctx_;
  LoadedModel& model_;
  const TextSampling& options_;
  const std::vector<Ids>& beginnings_;
  std::int64_t first_;
  Ids ids_;
  std::vector<Sampler> samplers_;
};

void save(const Ids& ids, const TextSampling& options, const fs::path& path) {
  files::SafetensorsWriter writer(path, {{kIds, DType::I32, {options.batch, options.length + 1}}});
  writer.write(std::as_bytes(std::span(ids)));
  writer.commit();
}

Ids load(const TextSampling& options, std::int64_t vocab, const fs::path& path) {
  const files::SafetensorsFile file(path);
  const files::SafetensorsTensor& tensor = file.at(kIds);
  const Shape expected{options.batch, options.length + 1};
  if (tensor.dtype != DType::I32 || tensor.shape != expected)
    throw BadFile("{}: {}: expected I32 {}, found {} {}; remove the file", path.string(), kIds, expected.str(),
                  dtype_name(tensor.dtype), tensor.shape.str());
  Ids ids(tensor.data.size() / sizeof(std::int32_t));
  std::memcpy(ids.data(), tensor.data.data(), tensor.data.size());
  for (const std::int32_t id : ids)
    if (id < 0 || id >= vocab)
      throw BadFile("{}: token {} of a vocabulary of {}; remove the file", path.string(), id, vocab);
  return ids;
}

void append(const Ids& ids, const TextSampling& options, std::vector<text::Sample>& samples) {
  const auto length = static_cast<std::size_t>(options.length + 1);
  for (std::size_t begin = 0; begin < ids.size(); begin += length) {
    text::Sample sample;
    sample.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                      ids.begin() + static_cast<std::ptrdiff_t>(begin + length));
    sample.labelled.assign(length, 1);
    sample.labelled[0] = 0;
    sample.row = static_cast<std::int64_t>(samples.size()) + 1;
    samples.push_back(std::move(sample));
  }
}

std::int64_t batch_for(const model::ArchSpec& arch, DType compute, const TextSampling& options) {
  if (options.batch > 0) return options.batch;
  const std::int64_t text_bytes =
      2 * arch.num_layers * arch.kv_size() * options.length * static_cast<std::int64_t>(dtype_size(compute));
  return std::clamp<std::int64_t>(kCacheBytes / text_bytes, 1, kMostTexts);
}

}  // namespace

std::vector<text::Sample> sample_texts(const ExecContext& ctx, LoadedModel& model, const TextSampling& asked,
                                       std::int64_t count, const std::string& fingerprint, const fs::path& folder) {
  TextSampling options = asked;
  const model::ArchSpec& arch = model.arch();
  if (arch.max_positions > 0 && options.length > arch.max_positions)
    throw BadRecipe("heal.length ({}): the model has {} positions; give at most that", options.length, arch.max_positions);
  options.batch = batch_for(arch, ctx.compute, options);
  const std::vector<Ids> starts = beginnings(model.tokenizer());
  Checksum key;
  key.add(fmt::format("{} {} {} {} {} {} {}", fingerprint, options.length, options.batch, options.temperature, options.seed,
                      dtype_name(ctx.compute), isa_name(active_isa())));
  for (const Ids& start : starts) key.add(std::as_bytes(std::span(start)));
  fs::create_directories(folder);

  const std::int64_t rounds = (count + options.batch - 1) / options.batch, tokens = options.batch * options.length;
  Progress progress("sample text", rounds * tokens);
  std::vector<text::Sample> samples;
  std::int64_t written = 0;
  for (std::int64_t round = 0; round < rounds; ++round) {
    const fs::path path = folder / fmt::format("texts-{}-{:04}.safetensors", key.hex(), round);
    if (fs::exists(path)) {
      append(load(options, arch.vocab_size, path), options, samples);
      continue;
    }
    if (written++ == 0) progress.resume_from(round * tokens, round * tokens);
    Round texts(ctx, model, options, starts, round * options.batch);
    const Ids& ids = texts.write(progress, round * tokens);
    save(ids, options, path);
    append(ids, options, samples);
  }
  log_info("{} texts of {} tokens, {} side by side; {} of {} rounds were in {}", samples.size(), options.length,
           options.batch, rounds - written, rounds, folder.string());
  samples.resize(static_cast<std::size_t>(count));
  return samples;
}

}  // namespace temper::eval
