#include "train/fingerprint.h"

#include <algorithm>
#include <span>

#include "base/checksum.h"

namespace temper::train {
namespace {

constexpr std::size_t kProbe = 4096;  // bytes looked at, at each end of a tensor

}  // namespace

std::string base_fingerprint(const model::CheckpointReader& reader) {
  Checksum checksum;
  for (std::size_t i = 0; i < reader.table().size(); ++i) {
    const model::StoredTensor tensor = reader.stored(i);
    const model::TensorInfo& info = reader.table()[i];
    checksum.add(fmt::format("{} {} {}\n", info.hf_name, info.shape.str(), tensor.format));
    const std::span<const std::byte> bytes = tensor.bytes();
    const std::size_t probe = std::min(kProbe, bytes.size());
    checksum.add(bytes.first(probe));
    checksum.add(bytes.last(probe));
  }
  return checksum.hex();
}

std::string data_fingerprint(const std::vector<text::Sample>& samples) {
  Checksum checksum;
  for (const text::Sample& sample : samples) {
    checksum.add(fmt::format("{}\n", sample.ids.size()));
    checksum.add(std::as_bytes(std::span(sample.ids)));
    checksum.add(std::as_bytes(std::span(sample.labelled)));
  }
  return checksum.hex();
}

}  // namespace temper::train
