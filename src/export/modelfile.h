// Modelfiles for Ollama (https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx): FROM, ADAPTER, TEMPLATE (a Go
// template), SYSTEM, PARAMETER stop.
#pragma once

#include <filesystem>
#include <string>

#include "export/chat_shape.h"
#include "text/tokenizer.h"

namespace temper::exporter {

struct ModelfileOptions {
  std::string from;     ///< The model: a path as seen from the Modelfile.
  std::string adapter;  ///< A GGUF LoRA on top of it; may be empty.
  std::string system;   ///< Default system message; may be empty.
};

/// The Go template that Ollama fills with .Messages and .System, equal to `shape` for every conversation. BOS is left out
/// where the runner adds it (`adds_bos`).
std::string go_template(const ChatShape& shape, bool adds_bos);

/// The text of a Modelfile. Where the chat template has no shape, TEMPLATE is left out and a comment says so.
std::string modelfile(const text::Tokenizer& tokenizer, const ModelfileOptions& options);

/// "m.q4_0.gguf" → "m.q4_0.Modelfile", beside it.
std::filesystem::path modelfile_path(const std::filesystem::path& gguf);

}  // namespace temper::exporter
