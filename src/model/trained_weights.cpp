#include "model/trained_weights.h"

#include <algorithm>
#include <cstring>
#include <numeric>

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

}  // namespace

std::vector<std::size_t> all_tensors(const TensorTable& table) {
  std::vector<std::size_t> all(table.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
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
    gradients_[tensors_[s]] = array_.gradient(s);
  }
}

void TrainedWeights::prepare(const ExecContext& ctx) { base_.masters_changed(ctx, stored_); }

void TrainedWeights::save(const ExecContext& ctx, const std::filesystem::path& path) const {
  std::vector<files::SafetensorsEntry> entries;
  for (const std::size_t i : tensors_)
    entries.push_back({table_[i].hf_name, is_vector(table_[i]) ? DType::F32 : stored_, table_[i].shape});
  files::SafetensorsWriter writer(path, entries);
  for (std::size_t s = 0; s < tensors_.size(); ++s) {
    const Tensor tensor(entries[s].dtype, entries[s].shape);
    ops::convert(ctx, array_.parameter(s), tensor);
    writer.write({static_cast<const std::byte*>(tensor->data), tensor->bytes()});
  }
  writer.commit();
}

CheckpointReader with_trained_weights(const CheckpointReader& base, const std::filesystem::path& path) {
  const files::SafetensorsFile file(path);
  const TensorTable& table = base.table();
  ArchSpec arch = base.arch();
  for (std::size_t i = 0; i < table.size(); ++i)
    if (const files::SafetensorsTensor* tensor = file.find(table[i].hf_name); tensor && !is_vector(table[i]))
      arch.dtype = tensor->dtype;
  std::vector<Tensor> tensors;
  std::size_t found = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    Tensor& tensor = tensors.emplace_back(is_vector(table[i]) ? DType::F32 : arch.dtype, table[i].shape);
    const files::SafetensorsTensor* stored = file.find(table[i].hf_name);
    if (!stored) {
      base.read(i, tensor);
      continue;
    }
    if (stored->dtype != tensor->dtype || stored->shape != tensor->shape)
      throw BadFile("{}: {}: expected {} {}, found {} {}; was the run trained from another base?", file.origin(),
                    stored->name, dtype_name(tensor->dtype), tensor->shape.str(), dtype_name(stored->dtype),
                    stored->shape.str());
    std::memcpy(tensor.view().data, stored->data.data(), tensor->bytes());
    ++found;
  }
  for (const files::SafetensorsTensor& tensor : file.tensors())
    if (std::ranges::find(table.all(), tensor.name, &TensorInfo::hf_name) == table.all().end())
      throw BadFile("{}: {} is no tensor of the base model; it belongs to another run", file.origin(), tensor.name);
  if (found == 0) throw BadFile("{}: holds no tensor of the base model", file.origin());
  return CheckpointReader::with_weights(base, std::move(arch), std::move(tensors));
}

}  // namespace temper::model
