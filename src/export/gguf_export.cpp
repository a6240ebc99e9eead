#include "export/gguf_export.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "base/checksum.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "files/gguf.h"
#include "quant/llama_mixes.h"

namespace temper::exporter {

std::vector<std::byte> to_gguf_rows(std::span<const std::byte> rows, std::int64_t count, std::int64_t heads) {
  std::vector<std::byte> out(rows.size());
  const std::size_t row_bytes = rows.size() / static_cast<std::size_t>(count);
  for (std::int64_t r = 0; r < count; ++r) {
    const std::size_t to = static_cast<std::size_t>(model::gguf_row(r, count, heads));
    std::memcpy(out.data() + to * row_bytes, rows.data() + static_cast<std::size_t>(r) * row_bytes, row_bytes);
  }
  return out;
}

namespace {

constexpr std::size_t kAlignment = 32;  // llama.cpp's default
constexpr std::int64_t kPieceElements = 1 << 20;
constexpr std::size_t kWorkspaceBytes = std::size_t{1} << 30;  // of each thread; address space only

/// Type of GGUF blocks that a codec writes; their names are the same but for case.
files::GgmlType ggml_type(const quant::Codec& codec) {
  std::string name(quant::gguf_type(codec));
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (const files::GgmlTypeInfo* info = files::find_ggml_type(name)) return info->type;
  throw Unsupported("{}: not a format of GGUF", codec.name());
}

const quant::Codec* codec_of(const GgufTarget& target, const model::TensorTable& table, std::size_t tensor) {
  if (!target.codecs.empty()) return target.codecs[tensor];
  return target.scheme ? target.scheme->codec_for(table[tensor].place, target.importance.has_value()) : nullptr;
}

std::string_view type_name(const quant::Codec* codec, const GgufTarget& target) {
  return codec ? codec->name() : dtype_name(target.plain);
}

/// Keys that this export states itself, whatever the source said.
void add_own_keys(files::GgufWriter& writer, const GgufTarget& target) {
  writer.add_u32("general.file_type", target.file_type);
  writer.add_u32("general.quantization_version", 2);
  if (!target.importance) return;
  constexpr std::size_t kLongest = 127;  // what llama.cpp keeps of a text
  const ImportanceNote& note = *target.importance;
  if (!note.file.empty()) writer.add_string("quantize.imatrix.file", note.file.substr(0, kLongest));
  if (!note.dataset.empty()) writer.add_string("quantize.imatrix.dataset", note.dataset.substr(0, kLongest));
  writer.add_u32("quantize.imatrix.entries_count", static_cast<std::uint32_t>(note.entries));
  if (note.chunks > 0) writer.add_u32("quantize.imatrix.chunks_count", static_cast<std::uint32_t>(note.chunks));
}

bool is_own_key(std::string_view key) {
  return key == "general.file_type" || key == "general.quantization_version" || key == "general.alignment" ||
         key.starts_with("split.") || key.starts_with("quantize.imatrix.");
}

void add_tokenizer(files::GgufWriter& writer, const text::GgufTokenizer& t) {
  writer.add_string("tokenizer.ggml.model", t.model);
  writer.add_string("tokenizer.ggml.pre", t.pre);
  writer.add_string_array("tokenizer.ggml.tokens", t.tokens);
  writer.add_i32_array("tokenizer.ggml.token_type", t.token_type);
  if (t.model == "gpt2") {
    writer.add_string_array("tokenizer.ggml.merges", t.merges);
  } else {
    writer.add_f32_array("tokenizer.ggml.scores", t.scores);
  }
  if (t.remove_extra_whitespaces) writer.add_bool("tokenizer.ggml.remove_extra_whitespaces", true);
  if (!t.precompiled_charsmap.empty()) {
    const auto map = std::as_bytes(std::span(t.precompiled_charsmap));
    writer.add_value("tokenizer.ggml.precompiled_charsmap", files::GgufArray{files::GgufType::U8, map.size(), map, {}});
  }
  const auto id = [&](const char* key, std::optional<std::int32_t> value) {
    if (value) writer.add_u32(key, static_cast<std::uint32_t>(*value));
  };
  id("tokenizer.ggml.bos_token_id", t.bos_id);
  id("tokenizer.ggml.eos_token_id", t.eos_id);
  id("tokenizer.ggml.eot_token_id", t.eot_id);
  id("tokenizer.ggml.eom_token_id", t.eom_id);
  id("tokenizer.ggml.unknown_token_id", t.unk_id);
  id("tokenizer.ggml.padding_token_id", t.pad_id);
  writer.add_bool("tokenizer.ggml.add_bos_token", t.add_bos);
  writer.add_bool("tokenizer.ggml.add_eos_token", t.add_eos);
  writer.add_bool("tokenizer.ggml.add_space_prefix", t.add_space_prefix);
  if (t.chat_template) writer.add_string("tokenizer.chat_template", *t.chat_template);
}

/// Divisors of the rotary frequencies, which llama.cpp reads from tensors.
std::vector<std::pair<const char*, std::vector<float>>> rope_tensors(const model::ArchSpec& a) {
  if (a.rope.kind == model::RopeKind::LongRope)
    return {{"rope_factors_long.weight", a.rope.long_factors}, {"rope_factors_short.weight", a.rope.short_factors}};
  const bool by_factors = a.rope.kind == model::RopeKind::Llama3 || !a.rope.factors.empty();
  if (!by_factors) return {};
  return {{"rope_freqs.weight", model::rope_factors(a.rope, a.rotated)}};
}

void add_metadata(files::GgufWriter& writer, const ExportSource& source, const GgufTarget& target) {
  if (const files::GgufFile* gguf = source.reader().gguf()) {
    for (const files::GgufKeyValue& kv : gguf->values())
      if (!is_own_key(kv.key)) writer.add_value(kv.key, kv.value);
  } else {
    const auto folder = std::filesystem::weakly_canonical(source.reader().path());
    model::write_gguf_arch(source.arch(), writer);
    writer.add_string("general.type", "model");
    writer.add_string("general.name", folder.filename().string());
    text::GgufTokenizer tokenizer = source.tokenizer().to_gguf();
    // Tables are often padded beyond the vocabulary; llama.cpp wants a token for every row.
    for (std::int64_t id = static_cast<std::int64_t>(tokenizer.tokens.size()); id < source.arch().vocab_size; ++id) {
      tokenizer.tokens.push_back(fmt::format("[PAD{}]", id));
      tokenizer.token_type.push_back(5);
      if (tokenizer.model != "gpt2") tokenizer.scores.push_back(-10000.0F);  // as llama.cpp's converter
    }
    add_tokenizer(writer, tokenizer);
  }
  add_own_keys(writer, target);
}

/// A plain matrix in the target's dtype.
Tensor convert(const ExecContext& ctx, const Tensor& in, DType dtype, const model::TensorInfo& info) {
  if (in->dtype == dtype) return in;
  Tensor f32(DType::F32, in->shape), out(dtype, in->shape);
  ops::convert(ctx, in, f32);
  if (dtype != DType::F16) {
    ops::convert(ctx, f32, out);
    return out;
  }
  const std::span<const float> values = f32.span<const float>();
  const std::span<f16> halves = out.span<f16>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    halves[i] = to_f16(values[i]);
    if (!std::isfinite(to_float(halves[i])))
      throw Unsupported("{}: value {} does not fit F16; export gguf:bf16 instead", info.hf_name, values[i]);
  }
  return out;
}

/// Where a tensor of the table begins in the file: in a tensor of its own, or in one with others, after these.
struct FilePlace {
  std::size_t tensor, offset;
};

/// Declares the file's tensors in the table's order, and says where each of the table begins; `declared` are there already.
/// Parts of one matrix follow one another in the table, and need one type.
std::vector<FilePlace> declare_tensors(files::GgufWriter& writer, const GgufTarget& target, const model::TensorTable& table,
                                       std::size_t declared) {
  std::vector<FilePlace> places;
  const quant::Codec* first = nullptr;  // of the matrix that parts belong to
  for (std::size_t i = 0; i < table.size(); ++i) {
    const model::TensorInfo& info = table[i];
    const quant::Codec* codec = codec_of(target, table, i);
    if (info.fused && info.fused->first_row > 0) {
      if (codec != first)
        throw BadRecipe("{}: {} for {}, {} for what comes before it: GGUF stores them as one matrix, in one type",
                        info.fused->gguf_name, type_name(codec, target), info.hf_name, type_name(first, target));
      const std::size_t row =
          codec ? codec->row_bytes(info.shape[1]) : static_cast<std::size_t>(info.shape[1]) * dtype_size(target.plain);
      places.push_back({declared - 1, static_cast<std::size_t>(info.fused->first_row) * row});
      continue;
    }
    const files::GgmlType type = info.role == quant::Role::Norm ? files::GgmlType::F32
                                 : codec                        ? ggml_type(*codec)
                                                                : *files::ggml_type_of(target.plain);
    writer.declare_tensor(info.stored_gguf_name(), type, info.stored_shape());
    places.push_back({declared++, 0});
    first = codec;
  }
  return places;
}

/// Rows [begin, end) of a tensor that are made at a time.
struct Piece {
  std::size_t tensor;
  std::int64_t begin, end;
};

/// Pieces of few rows where rows can be made apart and lie in the same order on both sides, else whole tensors; the largest
/// first, so that threads end together.
std::vector<Piece> cut(const ExportSource& source, const GgufTarget& target) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < source.table().size(); ++i) {
    const model::TensorInfo& info = source.table()[i];
    const quant::Codec* codec = codec_of(target, source.table(), i);
    const std::int64_t rows = info.shape.rank() == 2 ? info.shape[0] : 1;
    const bool apart = codec && info.permuted_heads == 0 && source.rows_apart(i, *codec);
    const std::int64_t step = apart ? std::max<std::int64_t>(1, kPieceElements / info.shape[1]) : rows;
    for (std::int64_t begin = 0; begin < rows; begin += step) pieces.push_back({i, begin, std::min(rows, begin + step)});
  }
  std::ranges::stable_sort(pieces, std::greater(), [&](const Piece& piece) {
    return (piece.end - piece.begin) * source.table()[piece.tensor].shape.numel();
  });
  return pieces;
}

/// Rows of a tensor as the target stores them; all rows, unless rows_apart.
std::vector<std::byte> gguf_bytes(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                                  const Piece& piece) {
  const model::TensorInfo& info = source.table()[piece.tensor];
  if (info.role == quant::Role::Norm) {
    const Tensor norm = source.norm(piece.tensor);
    const auto bytes = std::as_bytes(norm.span<const float>());
    return {bytes.begin(), bytes.end()};
  }
  if (const quant::Codec* codec = codec_of(target, source.table(), piece.tensor)) {
    std::vector<std::byte> rows = source.encoded(ctx, piece.tensor, *codec, piece.begin, piece.end);
    return info.permuted_heads == 0 ? rows : to_gguf_rows(rows, info.shape[0], info.permuted_heads);
  }
  const Tensor matrix = convert(ctx, source.merged(ctx, piece.tensor), target.plain, info);
  return to_gguf_rows({static_cast<const std::byte*>(matrix->data), matrix->bytes()}, info.shape[0], info.permuted_heads);
}

}  // namespace

GgufTarget gguf_target(std::string_view name) {
  if (name == "bf16") return {"bf16", 32, DType::BF16, nullptr};
  if (name == "f16") return {"f16", 1, DType::F16, nullptr};
  std::string known = "gguf:bf16, gguf:f16";
  for (const quant::Scheme& scheme : quant::schemes()) {
    if (!scheme.mix) continue;
    if (scheme.mix->name == name) return {scheme.mix->name, scheme.mix->file_type, DType::BF16, &scheme};
    known += fmt::format(", gguf:{}", scheme.mix->name);
  }
  throw BadRecipe("gguf:{}: expected one of {}", name, known);
}

GgufTarget mixed_target(const model::TensorTable& table, std::vector<const quant::Codec*> codecs) {
  std::map<std::string_view, std::int64_t> weights;
  for (std::size_t i = 0; i < table.size(); ++i)
    if (codecs.at(i)) weights[quant::gguf_type(*codecs[i])] += table[i].shape.numel();
  const auto most = std::ranges::max_element(weights, {}, [](const auto& entry) { return entry.second; });
  GgufTarget target = gguf_target("bf16");
  // Nothing but a description: llama.cpp reads each tensor's own type.
  for (const quant::LlamaMix& mix : quant::llama_mixes())
    if (most != weights.end() && mix.base == most->first) target.file_type = mix.file_type;
  target.name = "mixed";
  target.codecs = std::move(codecs);
  return target;
}

void make_gguf_tensors(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target, std::string_view what,
                       const GgufSink& take) {
  const std::vector<Piece> pieces = cut(source, target);
  Progress progress(std::string(what), static_cast<std::int64_t>(pieces.size()));
  std::mutex progress_mutex;
  std::atomic<std::size_t> next = 0;
  std::int64_t done = 0;
  parallel_for(num_threads(), 1, [&](std::int64_t, std::int64_t) {
    Arena workspace(kWorkspaceBytes);
    ExecContext own = ctx;
    own.workspace = &workspace;
    for (std::size_t i; (i = next++) < pieces.size();) {
      try {
        const Piece& piece = pieces[i];
        const std::vector<std::byte> bytes = gguf_bytes(own, source, target, piece);
        const auto rows = static_cast<std::size_t>(piece.end - piece.begin);
        take(piece.tensor, static_cast<std::size_t>(piece.begin) * (bytes.size() / rows), bytes);
      } catch (...) {
        next = pieces.size();
        throw;
      }
      const std::lock_guard lock(progress_mutex);
      progress.update(++done);
    }
  });
}

WrittenGguf write_gguf(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                       const std::filesystem::path& path, std::uint64_t split_bytes) {
  const model::TensorTable& table = source.table();
  if (target.scheme) model::require_fit(table, *target.scheme);
  const model::ArchSpec& arch = source.arch();
  // Gemma's files state their windows.
  if (!arch.architecture->post_norms && arch.sliding_window > 0 && arch.sliding_window < arch.max_positions)
    log_warning("llama.cpp's {} architecture has no sliding window ({} here): beyond it, the GGUF answers differently",
                arch.architecture->gguf, arch.sliding_window);
  files::GgufWriter writer(path, kAlignment, split_bytes);
  add_metadata(writer, source, target);
  const auto rope = rope_tensors(arch);
  for (const auto& [name, factors] : rope)
    writer.declare_tensor(name, files::GgmlType::F32, {static_cast<std::int64_t>(factors.size())});
  const std::vector<FilePlace> places = declare_tensors(writer, target, table, rope.size());
  writer.begin_data();
  for (std::size_t i = 0; i < rope.size(); ++i) writer.write_at(i, 0, std::as_bytes(std::span(rope[i].second)));
  std::vector<WrittenPiece> written;
  std::mutex written_mutex;
  make_gguf_tensors(ctx, source, target, fmt::format("write {}", path.filename().string()),
                    [&](std::size_t tensor, std::size_t offset, std::span<const std::byte> bytes) {
                      writer.write_at(places[tensor].tensor, places[tensor].offset + offset, bytes);
                      WrittenPiece piece{tensor, offset, bytes.size(), checksum_of(bytes)};
                      const std::lock_guard lock(written_mutex);
                      written.push_back(std::move(piece));
                    });
  writer.commit();
  return {writer.paths().front(), std::move(written)};
}

}  // namespace temper::exporter
