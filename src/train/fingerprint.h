// Tells one base model, and one set of rows, from another, so that a resumed run goes on with what it was started from.
#pragma once

#include <string>
#include <vector>

#include "model/checkpoint_reader.h"
#include "text/dataset.h"

namespace temper::train {

/// XXH3-64 (hex) of every tensor's name, shape and format, and of the first and last 4 KiB of its stored bytes: cheap for
/// any size.
std::string base_fingerprint(const model::CheckpointReader& reader);

/// XXH3-64 (hex) of the token ids and labels of all samples.
std::string data_fingerprint(const std::vector<text::Sample>& samples);

}  // namespace temper::train
