// The number formats of a file as a scheme: for training on in the very layout that a quantized GGUF has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint_reader.h"

namespace temper::model {

/// What `quant.scheme` calls it.
inline constexpr std::string_view kFileScheme = "same";

/// The text of a scheme (quant/scheme.h) that rounds the projections `modules` ("q_proj", …) of every layer to the formats
/// in which the file holds them, and nothing else: other tensors are not trained, and stay as they are. Throws BadRecipe
/// where the file holds none of them in a number format, or one in a format that temper only reads.
std::string scheme_of_file(const CheckpointReader& reader, const std::vector<std::string>& modules);

}  // namespace temper::model
