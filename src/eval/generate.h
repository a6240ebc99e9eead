// Generating text with a KV cache: continuations and conversations.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/loaded_model.h"
#include "eval/sampler.h"
#include "text/chat_template.h"
#include "text/text_part.h"

namespace temper::eval {

struct GenerationOptions {
  SamplingOptions sampling;
  std::uint64_t seed = 0;
  std::int64_t max_tokens = 256;  ///< New tokens at most.
  /// Whether the new text goes on the prompt, or is a text of its own (a turn), from which a tokenizer's leading space is
  /// taken away.
  text::TextPart part = text::TextPart::kContinuation;
};

enum class StopReason { EndOfText, MaxTokens, ContextFull, Interrupted };
std::string_view stop_reason_name(StopReason reason);  ///< "end of text", "token limit", "context full", "interrupted"

struct Generation {
  std::vector<std::int32_t> ids;  ///< New tokens, without the one that ended the text.
  std::string text;               ///< Their text; special tokens left out.
  StopReason stop = StopReason::MaxTokens;
  std::int64_t prompt_tokens = 0;          ///< Of the whole prompt; those still in the cache were not computed again.
  double prompt_seconds = 0, seconds = 0;  ///< Reading the prompt; making new tokens.
};

/// Receives text as it comes, in whole UTF-8 characters.
using TextSink = std::function<void(std::string_view piece)>;

/// A token sequence and its cache.
class Generator {
 public:
  /// `context`: tokens of prompt and answer together; 0: the model's positions, but at most 4096. The cache is allocated at
  /// once.
  Generator(const ExecContext& ctx, LoadedModel& model, std::int64_t context = 0);

  /// Continues `prompt`. What it shares with the sequence in the cache is not computed again. Throws BadData if the prompt
  /// is empty or leaves no room for an answer (the context is full), naming both numbers.
  Generation generate(std::span<const std::int32_t> prompt, const GenerationOptions& options, const TextSink& sink = {});

  std::int64_t context() const { return cache_.capacity; }
  const LoadedModel& model() const { return model_; }

 private:
  void prefill(std::span<const std::int32_t> prompt, std::span<float> logits);

  ExecContext ctx_;
  LoadedModel& model_;
  model::KvCache cache_;
  std::vector<std::int32_t> cached_;  // ids whose keys and values are in the cache
};

/// A conversation, rendered through the model's own chat template at each turn.
class ChatSession {
 public:
  /// `system` empty: what the template says without a system message. Throws Unsupported if the model has no chat template.
  ChatSession(const ExecContext& ctx, LoadedModel& model, const std::string& system = "", std::int64_t context = 0);

  /// Adds the user's turn, generates the answer and adds it. If it throws (context full), the conversation is as before.
  Generation say(const std::string& user, const GenerationOptions& options, const TextSink& sink = {});

  const text::Json& messages() const { return messages_; }
  /// Forgets all turns but the system message.
  void reset();

 private:
  Generator generator_;
  text::ChatTemplate template_;
  text::Json system_, messages_;
};

/// What a conversation begins with, up to the user's first words, by the chat template; empty where there is no template, or
/// none that shows a user's words as they are.
std::vector<std::int32_t> user_turn_ids(const text::Tokenizer& tokenizer);

/// Ids of a prompt for generate(): through the chat template as one user turn (after `system`, if not empty), or as it
/// stands with BOS if the tokenizer adds one (`raw`, or a model without a template).
std::vector<std::int32_t> prompt_ids(const text::Tokenizer& tokenizer, const std::string& prompt, const std::string& system,
                                     bool raw);
/// What is generated after such a prompt: a turn, or more of the prompt's text.
text::TextPart answer_part(const text::Tokenizer& tokenizer, bool raw);

}  // namespace temper::eval
