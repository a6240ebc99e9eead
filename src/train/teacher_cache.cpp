#include "train/teacher_cache.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "eval/score.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "temper-teacher";
constexpr const char* kVersion = "1";
constexpr const char* kName = "teacher.safetensors";

std::size_t record_bytes(std::int64_t k) { return static_cast<std::size_t>(8 * k + 4); }

files::SafetensorsMetadata metadata_of(const TeacherCacheKey& key) {
  return {{"format", kFormat},
          {"version", kVersion},
          {"teacher", key.teacher},
          {"data", key.data},
          {"packing", key.packing},
          {"vocab", std::to_string(key.vocab)},
          {"top_k", std::to_string(key.top_k)},
          {"temperature", fmt::format("{}", key.temperature)}};
}

const std::string& text_of(const files::SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) throw BadFile("{}: no '{}' in its metadata: not a teacher's file", file.origin(), key);
  return found->second;
}

template <typename Number>
Number number_of(const files::SafetensorsFile& file, const char* key, Number low, Number high) {
  const std::string& text = text_of(file, key);
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= low && value <= high))
    throw BadFile("{}: '{}': expected a number from {} to {}, found '{}'", file.origin(), key, low, high, text);
  return value;
}

template <typename T>
T read_at(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <typename T>
void append(std::vector<std::byte>& bytes, const T& value) {
  const auto* begin = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), begin, begin + sizeof(T));
}

TeacherCacheKey key_of(const ObjectiveRun& run, const Teacher& teacher) {
  const recipe::Recipe& recipe = run.recipe;
  return {teacher.fingerprint(),
          run.data_fingerprint,
          fmt::format("{} tokens, {}", recipe.data.seq_len, static_cast<int>(recipe.data.packing)),
          run.reader.arch().vocab_size,
          std::min(recipe.distill.top_k, run.reader.arch().vocab_size),
          recipe.distill.temperature};
}

void require_same(const TeacherCacheKey& found, const TeacherCacheKey& wanted, const std::string& file) {
  const auto differs = [&](std::string_view what, const auto& was, const auto& is) {
    if (was != is)
      throw BadRecipe("distill.cache: {} was made for another {} ({}, now {}); remove it, or give another file", file, what,
                      was, is);
  };
  differs("teacher", found.teacher, wanted.teacher);
  differs("data set or tokenization", found.data, wanted.data);
  differs("packing", found.packing, wanted.packing);
  differs("vocabulary", found.vocab, wanted.vocab);
  differs("distill.top_k", found.top_k, wanted.top_k);
  differs("distill.temperature", found.temperature, wanted.temperature);
}

/// Runs the teacher over every sequence.
void make(const ExecContext& ctx, const ObjectiveRun& run, Teacher& teacher, const TeacherCacheKey& key,
          const fs::path& path) {
  const std::int64_t sequences = run.packer.size(), tokens = run.packer.report().targets;
  const auto bytes = static_cast<std::int64_t>(record_bytes(key.top_k));
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  files::SafetensorsWriter writer(path, {{"first", DType::I64, {sequences + 1}}, {"records", DType::U8, {tokens, bytes}}},
                                  metadata_of(key));
  std::vector<std::byte> first;
  std::int64_t count = 0;
  append(first, count);
  for (std::int64_t i = 0; i < sequences; ++i) append(first, count += run.packer.sequence(i).labelled);
  writer.write(first);
  Progress progress("teacher", sequences);
  std::int64_t seen = 0;
  for (std::int64_t i = 0; i < sequences; ++i) {
    if (interrupted()) throw Interrupted("stopped while the teacher was at sequence {} of {}", i, sequences);
    const eval::ModelBatch batch(run.packer.sequence(i));
    const std::vector<std::int32_t> rows = model::Transformer::labelled_rows(batch.view());
    teacher.transformer().logits(ctx, batch.view(), rows, [&](std::size_t, const TensorView& logits) {
      std::vector<std::vector<std::byte>> records(static_cast<std::size_t>(logits.rows()));
      parallel_for(logits.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r)
          append_top({logits.as<float>() + r * logits.row_stride, static_cast<std::size_t>(logits.cols())}, key.top_k,
                     key.temperature, records[static_cast<std::size_t>(r)]);
      });
      for (const auto& record : records) writer.write(record);
    });
    seen += static_cast<std::int64_t>(batch.batch().tokens.size());
    progress.update(i + 1, {.tokens = seen, .loss = std::nullopt});
  }
  writer.commit();
}

}  // namespace

void append_top(std::span<const float> logits, std::int64_t k, double temperature, std::vector<std::byte>& record) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::ranges::nth_element(order, order.begin() + (k - 1), likelier);
  std::sort(order.begin(), order.begin() + k, likelier);
  const double largest = static_cast<double>(logits[static_cast<std::size_t>(order.front())]);
  if (!std::isfinite(largest)) throw Diverged("the teacher's largest logit is {}", largest);
  const auto exponent = [&](std::int32_t id) {
    return (static_cast<double>(logits[static_cast<std::size_t>(id)]) - largest) / temperature;
  };
  double top = 0, rest = 0;
  for (std::size_t j = 0; j < order.size(); ++j)
    (j < static_cast<std::size_t>(k) ? top : rest) += std::exp(exponent(order[j]));
  const double log_total = std::log(top + rest);
  for (std::int64_t j = 0; j < k; ++j) append(record, order[static_cast<std::size_t>(j)]);
  for (std::int64_t j = 0; j < k; ++j)
    append(record, static_cast<float>(exponent(order[static_cast<std::size_t>(j)]) - log_total));
  append(record, static_cast<float>(std::log(rest) - log_total));
}

TeacherCache::TeacherCache(files::SafetensorsFile file) : file_(std::move(file)) {
  const std::string& origin = file_.origin();
  if (text_of(file_, "format") != kFormat || text_of(file_, "version") != kVersion)
    throw BadFile("{}: expected {} version {}, found {} version {}", origin, kFormat, kVersion, text_of(file_, "format"),
                  text_of(file_, "version"));
  key_.teacher = text_of(file_, "teacher");
  key_.data = text_of(file_, "data");
  key_.packing = text_of(file_, "packing");
  key_.vocab = number_of<std::int64_t>(file_, "vocab", 1, std::int64_t{1} << 31);
  key_.top_k = number_of<std::int64_t>(file_, "top_k", 1, std::min(key_.vocab, ops::kMaxTopK));
  key_.temperature = number_of<double>(file_, "temperature", 1e-3, 1e3);
  const files::SafetensorsTensor &first = file_.at("first"), &records = file_.at("records");
  if (first.dtype != DType::I64 || first.shape.rank() != 1 || first.shape[0] < 1)
    throw BadFile("{}: 'first': expected I64 [sequences + 1], found {} {}", origin, dtype_name(first.dtype),
                  first.shape.str());
  if (records.dtype != DType::U8 || records.shape.rank() != 2 ||
      records.shape[1] != static_cast<std::int64_t>(record_bytes(key_.top_k)))
    throw BadFile("{}: 'records': expected U8 [tokens, {}], found {} {}", origin, record_bytes(key_.top_k),
                  dtype_name(records.dtype), records.shape.str());
  first_ = first.data;
  records_ = records.data;
  sequences_ = first.shape[0] - 1;
  tokens_ = records.shape[0];
  for (std::int64_t i = 0; i <= sequences_; ++i) {
    const std::int64_t from = i == 0 ? 0 : this->first(i - 1), at = this->first(i);
    const bool ok = (i > 0 || at == 0) && at >= from && at <= tokens_ && (i < sequences_ || at == tokens_);
    if (!ok) throw BadFile("{}: 'first': sequence {} begins at record {} of {}", origin, i, at, tokens_);
  }
}

TeacherCache::TeacherCache(const fs::path& path) : TeacherCache(files::SafetensorsFile(path)) {}

TeacherCache TeacherCache::parse(std::span<const std::byte> bytes, std::string origin) {
  return TeacherCache(files::SafetensorsFile::parse(bytes, std::move(origin)));
}

std::int64_t TeacherCache::first(std::int64_t sequence) const {
  return read_at<std::int64_t>(first_, static_cast<std::size_t>(sequence) * sizeof(std::int64_t));
}

TeacherCache::Rows TeacherCache::rows(std::span<const std::int64_t> sequences) const {
  const std::size_t k = static_cast<std::size_t>(key_.top_k), bytes = record_bytes(key_.top_k);
  Rows rows;
  for (const std::int64_t sequence : sequences) {
    if (sequence < 0 || sequence >= sequences_)
      throw BadFile("{}: no sequence {} among its {}", origin(), sequence, sequences_);
    for (std::int64_t token = first(sequence); token < first(sequence + 1); ++token) {
      const std::span<const std::byte> record = records_.subspan(static_cast<std::size_t>(token) * bytes, bytes);
      for (std::size_t j = 0; j < k; ++j) {
        const auto id = read_at<std::int32_t>(record, 4 * j);
        const auto log_p = read_at<float>(record, 4 * (k + j));
        // A hair above 0 is rounding.
        if (id < 0 || id >= key_.vocab || !(log_p > -1e30f && log_p < 1e-3f))
          throw BadFile("{}: record {}: id {} of {} with log p {}", origin(), token, id, key_.vocab, log_p);
        rows.ids.push_back(id);
        rows.log_probs.push_back(log_p);
      }
      rows.log_rest.push_back(read_at<float>(record, 8 * k));
      if (!(rows.log_rest.back() < 1e-3f))
        throw BadFile("{}: record {}: log p of the rest is {}", origin(), token, rows.log_rest.back());
    }
  }
  return rows;
}

std::unique_ptr<TeacherCache> TeacherCache::open_or_make(const ExecContext& ctx, const ObjectiveRun& run, Teacher& teacher) {
  const std::string& given = run.recipe.distill.cache;
  const fs::path path = given.empty() ? fs::path(run.recipe.out) / kName : fs::path(given);
  const TeacherCacheKey key = key_of(run, teacher);
  if (!fs::exists(path)) {
    make(ctx, run, teacher, key, path);
    log_info("{}: the teacher's likeliest {} of {} tokens, {:.1f} MB", path.string(), key.top_k, run.packer.report().targets,
             static_cast<double>(fs::file_size(path)) * 1e-6);
  }
  auto cache = std::make_unique<TeacherCache>(path);
  require_same(cache->key(), key, path.string());
  if (cache->sequences() != run.packer.size() || cache->tokens() != run.packer.report().targets)
    throw BadFile("{}: {} sequences with {} labelled tokens, expected {} with {}", path.string(), cache->sequences(),
                  cache->tokens(), run.packer.size(), run.packer.report().targets);
  return cache;
}

}  // namespace temper::train
