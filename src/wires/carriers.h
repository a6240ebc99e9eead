// Which wires carry a scheme: asked of the wires themselves, for the tables that people read and for refusals.
#pragma once

#include <string>
#include <vector>

#include "wires/wire.h"

namespace temper::wires {

/// Empty if the wire carries the scheme in a model whose rows all blocks divide (4096 × 4096, an untied head), else why not.
std::string refusal(const Wire& wire, const quant::Scheme& scheme);

/// Export targets that carry a scheme as trained: its own ("gguf:q4_0") and names of wires.
std::vector<std::string> targets_of(const quant::Scheme& scheme);

/// Names of the schemes that a target carries, in the table's order.
std::vector<std::string> schemes_of(std::string_view target);

/// Who loads what is exported to that target: "transformers, vLLM".
std::string_view readers_of(std::string_view target);

/// The matrix of docs/wires.md in Markdown: schemes down, targets across with those who read them, a mark where it carries.
std::string matrix_markdown();

}  // namespace temper::wires
