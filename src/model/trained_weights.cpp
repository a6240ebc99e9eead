#include "model/trained_weights.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "base/error.h"
#include "files/safetensors.h"

namespace temper::model {
namespace {

std::vector<Segment> segments_of(const TensorTable& table, const std::vector<std::size_t>& tensors) {
  std::vector<Segment> segments;
  for (const std::size_t i : tensors) segments.push_back({table[i].hf_name, table[i].shape, table[i].weight_decay()});
  return segments;
}

bool is_vector(const TensorInfo& info) { return info.role == quant::Role::Norm; }

/// The values of F32 `tensor` in another dtype, a piece at a time.
void write_as(const ExecContext& ctx, const TensorView& tensor, DType dtype, files::SafetensorsWriter& writer) {
  constexpr std::int64_t kPiece = 1 << 20;
  const std::int64_t count = tensor.shape.numel();
  const ArenaScope scope(*ctx.workspace);
  const TensorView piece = ctx.workspace->allocate(dtype, {std::min(count, kPiece)});
  for (std::int64_t first = 0; first < count; first += kPiece) {
    const std::int64_t n = std::min(count - first, kPiece);
    const TensorView out(piece.data, dtype, {n});
    ops::convert(ctx, TensorView(tensor.as<float>() + first, DType::F32, {n}), out);
    writer.write({static_cast<const std::byte*>(out.data), out.bytes()});
  }
}

}  // namespace

std::vector<std::size_t> all_tensors(const TensorTable& table) {
  std::vector<std::size_t> all(table.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

std::vector<std::size_t> tensors_beside(const TensorTable& table, const Adapters& adapters) {
  const LoraConfig& config = adapters.config();
  std::set<std::size_t> found;
  for (const std::string& module : config.modules_to_save) {
    if (module != "embed_tokens" && module != "lm_head")
      throw BadRecipe("lora.modules_to_save: \"{}\": expected embed_tokens or lm_head", module);
    found.insert(module == "lm_head" ? table.head() : table.embedding());
  }
  if (table.head() == table.embedding() && config.modules_to_save.size() == 1)
    throw BadRecipe(
        "lora.modules_to_save: {} alone: embeddings and head of this model are one table, which is trained as one; name "
        "both, "
        "embed_tokens and lm_head",
        config.modules_to_save[0]);
  if (config.bias == LoraBias::None) return {found.begin(), found.end()};
  bool any = false;
  for (int layer = 0; layer < table.layers(); ++layer)
    for (const auto& [linear, vector] : {std::pair{Linear::Q, BlockVector::QBias}, std::pair{Linear::K, BlockVector::KBias},
                                         std::pair{Linear::V, BlockVector::VBias}}) {
      const auto index = table.vector(layer, vector);
      if (!index || (config.bias == LoraBias::LoraOnly && !adapters.find(layer, linear))) continue;
      found.insert(*index);
      any = true;
    }
  if (!any)
    throw BadRecipe("lora.bias {}: {}; leave it out", config.bias == LoraBias::All ? "all" : "lora_only",
                    config.bias == LoraBias::All ? "this model has no biases" : "no adapted projection has a bias");
  return {found.begin(), found.end()};
}

TrainedWeights::TrainedWeights(const CheckpointReader& reader, BaseWeights& base, std::vector<std::size_t> tensors,
                               DType stored)
    : table_(reader.table()),
      base_(base),
      tensors_(std::move(tensors)),
      stored_(stored),
      array_("weights", segments_of(table_, tensors_)),
      gradients_(table_.size()) {
  for (std::size_t s = 0; s < tensors_.size(); ++s) {
    reader.read(tensors_[s], array_.parameter(s));
    base_.train(tensors_[s], array_.parameter(s));
    reader.release(tensors_[s]);
    gradients_[tensors_[s]] = array_.gradient(s);
  }
}

std::vector<TensorView> TrainedWeights::masters() const {
  std::vector<TensorView> masters(table_.size());
  for (std::size_t s = 0; s < tensors_.size(); ++s) masters[tensors_[s]] = array_.parameter(s);
  return masters;
}

void TrainedWeights::prepare(const ExecContext& ctx) { base_.masters_changed(ctx, stored_); }

void TrainedWeights::save(const ExecContext& ctx, const std::filesystem::path& path) const {
  std::vector<files::SafetensorsEntry> entries;
  for (const std::size_t i : tensors_)
    entries.push_back({table_[i].hf_name, is_vector(table_[i]) ? DType::F32 : stored_, table_[i].shape});
  files::SafetensorsWriter writer(path, entries);
  for (std::size_t s = 0; s < tensors_.size(); ++s) write_as(ctx, array_.parameter(s), entries[s].dtype, writer);
  writer.commit();
}

CheckpointReader with_trained_weights(const CheckpointReader& base, const std::filesystem::path& path) {
  const files::SafetensorsFile file(path);
  const TensorTable& table = base.table();
  ArchSpec arch = base.arch();
  for (const TensorInfo& info : table.all())
    if (const files::SafetensorsTensor* tensor = file.find(info.hf_name); tensor && !is_vector(info))
      arch.dtype = tensor->dtype;
  std::vector<Tensor> tensors(table.size());
  for (const files::SafetensorsTensor& stored : file.tensors()) {
    const auto info = std::ranges::find(table.all(), stored.name, &TensorInfo::hf_name);
    if (info == table.all().end())
      throw BadFile("{}: {} is no tensor of the base model; it belongs to another run", file.origin(), stored.name);
    const DType dtype = is_vector(*info) ? DType::F32 : arch.dtype;
    if (stored.dtype != dtype || stored.shape != info->shape)
      throw BadFile("{}: {}: expected {} {}, found {} {}; was the run trained from another base?", file.origin(),
                    stored.name, dtype_name(dtype), info->shape.str(), dtype_name(stored.dtype), stored.shape.str());
    Tensor& tensor = tensors[static_cast<std::size_t>(info - table.all().begin())] = Tensor(dtype, info->shape);
    std::memcpy(tensor.view().data, stored.data.data(), tensor->bytes());
  }
  for (std::size_t i = 0; i < table.size(); ++i)
    if (!tensors[i]) throw BadFile("{}: tensor {} is missing", file.origin(), table[i].hf_name);
  return CheckpointReader::with_weights(base, std::move(arch), std::move(tensors));
}

CheckpointReader with_masters(const ExecContext& ctx, const CheckpointReader& base, std::vector<Tensor> masters) {
  for (std::size_t i = 0; i < masters.size(); ++i) {
    if (!masters[i] || is_vector(base.table()[i])) continue;
    const Tensor rounded(base.arch().dtype, masters[i]->shape);
    ops::convert(ctx, masters[i], rounded);
    masters[i] = rounded;
  }
  return CheckpointReader::with_weights(base, base.arch(), std::move(masters));
}

}  // namespace temper::model
