#include "model/checkpoint_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/parallel.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "wires/wire.h"

namespace temper::model {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_weight_dtype(DType dtype) { return dtype == DType::F32 || dtype == DType::BF16 || dtype == DType::F16; }

/// Row `row` of a matrix, as f32.
void read_plain_row(const TensorView& source, std::int64_t row, std::span<float> out) {
  const std::size_t first = static_cast<std::size_t>(row) * out.size();
  const auto copy = [&](const auto* elements) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = to_float(elements[first + i]);
  };
  switch (source.dtype) {
    case DType::F32: return copy(source.as<float>());
    case DType::BF16: return copy(source.as<bf16>());
    case DType::F16: return copy(source.as<f16>());
    default: throw Unsupported("weights: expected F32, BF16 or F16, found {}", dtype_name(source.dtype));
  }
}

void write_row(std::span<const float> row, void* out, DType dtype) {
  for (std::size_t i = 0; i < row.size(); ++i) {
    switch (dtype) {
      case DType::F32: static_cast<float*>(out)[i] = row[i]; break;
      case DType::BF16: static_cast<bf16*>(out)[i] = to_bf16(row[i]); break;
      case DType::F16: static_cast<f16*>(out)[i] = to_f16(row[i]); break;
      default: throw LogicError("weights are read as F32, BF16 or F16, not {}", dtype_name(dtype));
    }
  }
}

}  // namespace

struct CheckpointReader::State {
  fs::path path;
  ArchSpec arch;
  std::optional<TensorTable> table;
  std::optional<files::GgufFile> gguf;
  std::optional<files::ShardedSafetensors> safetensors;
  std::vector<StoredTensor> tensors;
  void open_folder();
  void open_gguf();
  void release(std::span<const std::byte> bytes) const;

  std::vector<Tensor> owned;  // in memory, and copies of tensors that a safetensors file does not align
  std::vector<std::vector<std::byte>> put_together;  // encoded rows of a quantized folder

 private:
  StoredTensor plain_tensor(const TensorInfo& info, const std::string& name);
  void open_quantized(const files::Json& config, const std::string& origin, std::set<std::string_view>& known);
  void take_rows(const TensorInfo& info, const wires::Matrix& m, std::span<const std::byte> rows, std::size_t bytes);
};

CheckpointReader::CheckpointReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;

namespace {

/// Every matrix of a checkpoint in one dtype is what its merged form is stored in; blocks of a number format decode to bf16.
DType storage_dtype(const std::vector<StoredTensor>& tensors, const TensorTable& table) {
  std::set<DType> found;
  for (std::size_t i = 0; i < table.size(); ++i)
    if (table[i].role != quant::Role::Norm && tensors[i].plain)
      found.insert(tensors[i].plain.dtype);
    else if (table[i].role != quant::Role::Norm)
      found.insert(DType::BF16);
  return found.size() == 1 ? *found.begin() : found.contains(DType::BF16) ? DType::BF16 : DType::F32;
}

void check_shape(const std::string& origin, std::string_view name, const Shape& expected, const Shape& found) {
  if (expected != found)
    throw BadFile("{}: tensor {}: the config implies shape {}, found {}", origin, name, expected.str(), found.str());
}

StoredTensor gguf_tensor(const files::GgufFile& gguf, const TensorInfo& info) {
  const files::GgufTensor& tensor = gguf.at(info.stored_gguf_name());
  check_shape(gguf.origin(), info.stored_gguf_name(), info.stored_shape(), tensor.shape);
  const std::size_t row_bytes = tensor.data.size() / static_cast<std::size_t>(info.stored_shape()[0]);
  const std::span<const std::byte> data =
      info.fused ? tensor.data.subspan(static_cast<std::size_t>(info.fused->first_row) * row_bytes,
                                       static_cast<std::size_t>(info.shape[0]) * row_bytes)
                 : tensor.data;
  const files::GgmlTypeInfo& type = *files::find_ggml_type(static_cast<std::uint32_t>(tensor.type));
  StoredTensor out;
  out.permuted_heads = info.permuted_heads;
  out.format = type.name;
  out.file_bytes = data.size();
  if (const auto dtype = files::plain_dtype(tensor.type); dtype && is_weight_dtype(*dtype)) {
    out.plain = TensorView(const_cast<std::byte*>(data.data()), *dtype, info.shape);
    return out;
  }
  const quant::Codec* codec = quant::gguf_codec(lower(type.name));
  if (!codec || info.role == quant::Role::Norm)
    throw Unsupported(
        "{}: tensor {} is {}, which temper does not decode (it knows F32, F16, BF16, Q4_0 … Q8_0, Q2_K … Q6_K, IQ1 … IQ4, "
        "TQ1_0, "
        "TQ2_0, MXFP4 and NVFP4)",
        gguf.origin(), info.gguf_name, type.name);
  out.encoded = {codec, info.shape[0], info.shape[1], data};
  return out;
}

}  // namespace

/// Where a checkpoint that sees or hears, too, keeps its language model: under which names.
class LanguagePart {
 public:
  explicit LanguagePart(const files::ShardedSafetensors& folder) {
    if (folder.find("model.language_model.embed_tokens.weight"))
      model_ = "model.language_model.", rest_ = "";
    else if (folder.find("language_model.model.embed_tokens.weight"))
      model_ = "language_model.model.", rest_ = "language_model.";
  }
  /// What the checkpoint calls a tensor of the table.
  std::string name(std::string_view plain) const {
    constexpr std::string_view kModel = "model.";
    return plain.starts_with(kModel) ? model_ + std::string(plain.substr(kModel.size())) : rest_ + std::string(plain);
  }
  /// True for tensors of other parts.
  bool outside(std::string_view name) const { return model_ != "model." && !name.starts_with(model_); }

 private:
  std::string model_ = "model.", rest_;
};

/// A 16-bit tensor, or its part of a fused one, that the folder holds as `name`.
StoredTensor CheckpointReader::State::plain_tensor(const TensorInfo& info, const std::string& name) {
  const files::SafetensorsTensor& tensor = safetensors->at(name);
  check_shape(safetensors->origin(), name, info.stored_shape(), tensor.shape);
  if (!is_weight_dtype(tensor.dtype))
    throw BadFile("{}: tensor {}: expected F32, BF16 or F16, found {}", safetensors->origin(), name,
                  dtype_name(tensor.dtype));
  StoredTensor stored;
  stored.format = dtype_name(tensor.dtype);
  stored.offset = info.hf_offset;
  stored.plain = TensorView(const_cast<std::byte*>(tensor.data.data()), tensor.dtype, info.stored_shape());
  if (info.fused) stored.plain = stored.plain.slice_rows(info.fused->first_row, info.fused->first_row + info.shape[0]);
  stored.plain.shape = info.shape;
  stored.file_bytes = stored.plain.bytes();
  if (reinterpret_cast<std::uintptr_t>(tensor.data.data()) % dtype_size(tensor.dtype) != 0) {
    const TensorView unaligned = std::exchange(stored.plain, owned.emplace_back(tensor.dtype, info.shape));
    std::memcpy(stored.plain.data, unaligned.data, stored.plain.bytes());
    release({static_cast<const std::byte*>(unaligned.data), unaligned.bytes()});
  }
  return stored;
}

/// Finds each matrix as the wire that config.json names stores it, and puts its encoded rows together.
void CheckpointReader::State::open_quantized(const files::Json& config, const std::string& origin,
                                             std::set<std::string_view>& known) {
  const wires::Wire& wire = wires::wire_of(config, origin);
  put_together.resize(table->size());
  for (const std::vector<std::size_t>& parts : stored_tensors(*table)) {
    const TensorInfo& info = (*table)[parts.front()];
    std::size_t bytes = 0;
    std::vector<std::span<const std::byte>> looked_at;
    const wires::FindTensor find = [&](std::string_view name) {
      const files::SafetensorsTensor* tensor = safetensors->find(name);
      if (tensor && known.insert(tensor->name).second) {
        bytes += tensor->data.size();
        looked_at.push_back(tensor->data);
      }
      return tensor;
    };
    wires::Matrix m;
    if (info.role != quant::Role::Norm) {
      m = {info.stored_hf_name(), info.role, info.stored_shape()[0], info.shape[1]};
      wire.describe(m, config, safetensors->metadata(), find);
    }
    if (!m.codec) {
      known.insert(safetensors->at(info.stored_hf_name()).name);
      for (const std::size_t part : parts) tensors.push_back(plain_tensor((*table)[part], info.stored_hf_name()));
      continue;
    }
    const std::vector<std::byte> rows = wire.unpack(m, find);
    for (const std::span<const std::byte> stored : looked_at) release(stored);
    for (const std::size_t part : parts) take_rows((*table)[part], m, rows, bytes);
  }
}

/// The next tensor of the table: its rows of a matrix that lies in the file in so many bytes. Each row has all the
/// parameters that decode it, those of the whole matrix, too (Codec::joins_rows).
void CheckpointReader::State::take_rows(const TensorInfo& info, const wires::Matrix& m, std::span<const std::byte> rows,
                                        std::size_t bytes) {
  const auto first = static_cast<std::size_t>(info.fused ? info.fused->first_row : 0),
             end = first + static_cast<std::size_t>(info.shape[0]), all = static_cast<std::size_t>(m.rows),
             row_bytes = m.codec->row_bytes(m.cols);
  const auto own = rows.subspan(first * row_bytes, (end - first) * row_bytes);
  std::vector<std::byte>& kept = put_together[tensors.size()];
  kept.assign(own.begin(), own.end());
  StoredTensor& stored = tensors.emplace_back();
  stored.format = m.codec->name();
  stored.file_bytes = bytes * end / all - bytes * first / all;
  stored.input = m.input;
  stored.input_range = m.input_range;
  stored.output = m.output;
  stored.output_range = m.output_range;
  stored.encoded = {m.codec, info.shape[0], m.cols, kept};
}

/// Reads config.json and finds every tensor of its table among the folder's weights.
void CheckpointReader::State::open_folder() {
  const fs::path config_path = path / "config.json";
  if (!fs::exists(config_path))
    throw BadFile("{}: no config.json there; expected a Hugging Face model folder or a .gguf file", path.string());
  const files::Json config = files::read_json(config_path);
  arch = arch_from_hf_config(config, config_path.string());
  table.emplace(arch);
  safetensors.emplace(path);
  const LanguagePart prefix(*safetensors);
  std::set<std::string_view> known;
  if (const files::Json* quantized = files::optional_object(config, "quantization_config", config_path.string())) {
    open_quantized(*quantized, config_path.string(), known);
  } else {
    for (const TensorInfo& info : table->all()) {
      const std::string name = prefix.name(info.stored_hf_name());
      tensors.push_back(plain_tensor(info, name));
      known.insert(safetensors->at(name).name);
    }
  }
  std::size_t left_out = 0;
  for (const files::SafetensorsTensor& tensor : safetensors->tensors()) {
    // Old checkpoints carry rotary tables, and some carry a tied head a second time.
    const bool leftover =
        tensor.name.ends_with("rotary_emb.inv_freq") || (arch.tied && tensor.name == prefix.name("lm_head.weight"));
    if (known.contains(tensor.name) || leftover) continue;
    if (!prefix.outside(tensor.name))
      throw BadFile("{}: tensor {} is not part of the architecture that config.json describes", safetensors->origin(),
                    tensor.name);
    ++left_out;
  }
  if (left_out > 0)
    log_info("{}: {} tensors of other parts than language (vision, audio) are left out", path.string(), left_out);
}

/// Where the factors of a GGUF's rotary tensor go; null for any other tensor.
std::vector<float>* rope_tensor(RopeSpec& rope, std::string_view name) {
  if (name == "rope_freqs.weight") return &rope.factors;
  if (name == "rope_factors_short.weight") return &rope.short_factors;
  return name == "rope_factors_long.weight" ? &rope.long_factors : nullptr;
}

/// Reads the metadata and finds every tensor of its table in the file.
void CheckpointReader::State::open_gguf() {
  gguf.emplace(path);
  arch = arch_from_gguf(*gguf);
  table.emplace(arch);
  std::set<std::string_view> known;
  for (const TensorInfo& info : table->all()) {
    tensors.push_back(gguf_tensor(*gguf, info));
    known.insert(info.stored_gguf_name());
  }
  for (const files::GgufTensor& tensor : gguf->tensors()) {
    if (std::vector<float>* factors = rope_tensor(arch.rope, tensor.name)) {
      if (tensor.type != files::GgmlType::F32 || tensor.shape != Shape{arch.rotated / 2})
        throw BadFile("{}: {}: expected F32 [{}]", gguf->origin(), tensor.name, arch.rotated / 2);
      factors->resize(tensor.data.size() / sizeof(float));
      std::memcpy(factors->data(), tensor.data.data(), tensor.data.size());
    } else if (!known.contains(tensor.name)) {
      throw BadFile("{}: tensor {} is not part of the {} architecture as temper knows it", gguf->origin(), tensor.name,
                    arch.architecture->gguf);
    }
  }
  if (arch.rope.short_factors.empty()) return;
  arch.rope.kind = RopeKind::LongRope;
  arch.rope.factor = static_cast<double>(arch.max_positions) / static_cast<double>(arch.rope.original_max_positions);
  arch.rope.attention_factor = gguf->optional_f32(std::string(arch.architecture->gguf) + ".rope.scaling.attn_factor")
                                   .value_or(longrope_attention_factor(arch.rope.factor, arch.rope.original_max_positions));
  complete_arch(arch, gguf->origin());
}

CheckpointReader CheckpointReader::open(const fs::path& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  fs::is_directory(path) ? state->open_folder() : state->open_gguf();
  state->arch.dtype = storage_dtype(state->tensors, *state->table);
  return CheckpointReader(std::move(state));
}

CheckpointReader CheckpointReader::with_weights(const CheckpointReader& source, ArchSpec arch, std::vector<Tensor> tensors) {
  auto state = std::make_unique<State>();
  state->path = source.path();
  state->arch = std::move(arch);
  state->table.emplace(state->arch);
  for (std::size_t i = 0; i < state->table->size(); ++i) {
    const TensorInfo& info = (*state->table)[i];
    if (i < tensors.size() && !tensors[i]) {
      state->tensors.push_back(source.stored(i));
      continue;
    }
    const DType dtype = info.role == quant::Role::Norm ? DType::F32 : state->arch.dtype;
    if (i >= tensors.size() || tensors[i]->shape != info.shape || tensors[i]->dtype != dtype)
      throw LogicError("weights in memory: {} is not {} {}", info.hf_name, dtype_name(dtype), info.shape.str());
    StoredTensor& stored = state->tensors.emplace_back();
    stored.format = dtype_name(dtype);
    stored.plain = tensors[i];
    stored.file_bytes = tensors[i]->bytes();
  }
  state->owned = std::move(tensors);
  return CheckpointReader(std::move(state));
}

CheckpointReader CheckpointReader::with_codes(CheckpointReader source, std::vector<HeldCodes> codes) {
  State& state = *source.state_;
  state.put_together.resize(state.tensors.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const quant::Codec* codec = codes[i].codec;
    if (!codec) continue;
    const TensorInfo& info = (*state.table)[i];
    if (codes[i].bytes.size() != static_cast<std::size_t>(info.shape[0]) * codec->row_bytes(info.shape[1]))
      throw LogicError("codes of {}: {} bytes of {}", info.hf_name, codes[i].bytes.size(), codec->name());
    state.put_together[i] = std::move(codes[i].bytes);
    StoredTensor stored;
    stored.format = codec->name();
    stored.file_bytes = state.put_together[i].size();
    stored.encoded = {codec, info.shape[0], info.shape[1], state.put_together[i]};
    state.tensors[i] = std::move(stored);
  }
  return source;
}

void CheckpointReader::State::release(std::span<const std::byte> bytes) const {
  if (gguf) gguf->release(bytes);
  if (safetensors) safetensors->release(bytes);
}

void CheckpointReader::release(std::size_t index) const { state_->release(stored(index).bytes()); }

const fs::path& CheckpointReader::path() const { return state_->path; }
const ArchSpec& CheckpointReader::arch() const { return state_->arch; }
const TensorTable& CheckpointReader::table() const { return *state_->table; }
StoredTensor CheckpointReader::stored(std::size_t index) const { return state_->tensors.at(index); }
const files::GgufFile* CheckpointReader::gguf() const { return state_->gguf ? &*state_->gguf : nullptr; }

void CheckpointReader::read(std::size_t index, const TensorView& out) const {
  const StoredTensor& stored = state_->tensors.at(index);
  const std::int64_t rows = out.rows(), cols = out.cols();
  if (out.shape != state_->table->all()[index].shape || !out.contiguous())
    throw LogicError("read of {} into {}", index, out.shape.str());
  const std::size_t out_row_bytes = static_cast<std::size_t>(cols) * dtype_size(out.dtype);
  parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t from = gguf_row(r, rows, stored.permuted_heads);
      std::byte* to = static_cast<std::byte*>(out.data) + static_cast<std::size_t>(r) * out_row_bytes;
      if (stored.plain && stored.plain.dtype == out.dtype && stored.offset == 0.0f) {
        std::memcpy(to, static_cast<const std::byte*>(stored.plain.data) + static_cast<std::size_t>(from) * out_row_bytes,
                    out_row_bytes);
        continue;
      }
      if (stored.plain) {
        read_plain_row(stored.plain, from, row);
      } else {
        stored.encoded.codec->decode_rows(stored.encoded.row_range(from, from + 1),
                                          TensorView(row.data(), DType::F32, {1, cols}));
      }
      if (stored.offset != 0.0f)  // adding 0 would lose the sign of -0
        for (float& x : row) x += stored.offset;
      write_row(row, to, out.dtype);
    }
  });
  // Who has copied a tensor keeps the copy: all those of a large file would fill the memory twice.
  if (state_->gguf && !stored.plain) state_->release(stored.encoded.bytes);
}

std::string CheckpointReader::formats() const {
  std::set<std::string> names;
  for (std::size_t i = 0; i < state_->tensors.size(); ++i)
    if (table()[i].role == quant::Role::Linear) names.insert(state_->tensors[i].format);
  return fmt::format("{} {}", fmt::join(names, "/"), gguf() ? "GGUF" : "safetensors");
}

std::size_t CheckpointReader::weight_bytes() const {
  std::size_t sum = 0;
  for (const StoredTensor& t : state_->tensors) sum += t.file_bytes;
  return sum;
}

std::int64_t CheckpointReader::weight_count() const {
  std::int64_t sum = 0;
  for (const TensorInfo& info : table().all()) sum += info.shape.numel();
  return sum;
}

}  // namespace temper::model
