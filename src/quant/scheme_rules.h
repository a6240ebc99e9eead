// Rules by which single tensors differ from the rest of a scheme.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/codec.h"

namespace temper::quant {

struct TensorPlace;

/// "INPUTS" or "INPUTS/OUTPUTS": what stands behind a format's first slash.
struct ActivationNames {
  std::string_view input, output;  ///< Without blanks around them; `output` is empty where there is none.

  const Codec* input_codec() const;   ///< nullptr of "none"; BadRecipe of unknown names.
  const Codec* output_codec() const;  ///< The same; BadRecipe of formats without a static range.
};
ActivationNames split_activations(std::string_view text);

/// "SELECTOR: FORMAT", "SELECTOR: FORMAT/ACTIVATIONS" or "SELECTOR: FORMAT/ACTIVATIONS/OUTPUTS". A tensor is selected if
/// every part of the selector, apart by spaces, selects it; a part is a list of alternatives, apart by commas, of one of
/// these:
///     linear, embedding, head             by what the tensor is for; a tied table is both embedding and head
///     q_proj, o_proj, down_proj, …        by projection
///     layers 0-3,20,28-                   by layer, the first is 0
///     *.down_proj, model.layers.?.mlp.*   by name, with or without ".weight"; * is any text, ? any character
/// FORMAT is a codec's name, or none (16 bit); ACTIVATIONS a name of activation_formats(), or none; OUTPUTS one of those
/// with a static range, or none. Without ACTIVATIONS or OUTPUTS, the scheme's own hold.
class TensorRule {
 public:
  /// Throws BadRecipe naming the rule and what was expected, the nearest of known names suggested.
  static TensorRule parse(std::string_view text);

  bool selects(const TensorPlace& place) const;
  /// As the rule says, whether or not its blocks divide a tensor's rows; nullptr: 16 bit.
  const Codec* weights() const { return weights_; }
  bool sets_input() const { return sets_input_; }
  const Codec* input() const { return input_; }
  bool sets_output() const { return sets_output_; }
  const Codec* output() const { return output_; }
  /// The rule as it is written in a scheme's name: one space between parts, none elsewhere but after the colon.
  const std::string& text() const { return text_; }

 private:
  struct Part {
    bool layers = false;
    std::vector<std::string> alternatives;
  };
  static bool matches(const Part& part, const TensorPlace& place);

  std::string text_;
  std::vector<Part> parts_;
  const Codec* weights_ = nullptr;
  const Codec* input_ = nullptr;
  const Codec* output_ = nullptr;
  bool sets_input_ = false, sets_output_ = false;
};

}  // namespace temper::quant
