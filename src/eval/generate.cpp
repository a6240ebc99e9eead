#include "eval/generate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"

namespace temper::eval {
namespace {

constexpr std::int64_t kPrefillChunk = 512;     // tokens of a prompt that go through the model at once
constexpr std::int64_t kDefaultContext = 4096;  // a conversation's worth; a whole context of 128k would allocate gigabytes

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::int64_t context_size(const model::ArchSpec& arch, std::int64_t wanted) {
  if (wanted < 0 || (arch.max_positions > 0 && wanted > arch.max_positions))
    throw BadRecipe("context: expected 1 to {} tokens (the model's positions), found {}", arch.max_positions, wanted);
  if (wanted > 0) return wanted;
  return arch.max_positions > 0 ? std::min(arch.max_positions, kDefaultContext) : kDefaultContext;
}

text::Json turn(std::string_view role, const std::string& content) {
  return {{"role", std::string(role)}, {"content", content}};
}

text::Json system_messages(const std::string& system) {
  text::Json messages = text::Json::array();
  if (!system.empty()) messages.push_back(turn("system", system));
  return messages;
}

/// What templates may read beside the messages.
text::Json template_variables(const text::Tokenizer& tokenizer) {
  text::Json variables = text::Json::object();
  variables["bos_token"] = tokenizer.bos_id() ? tokenizer.token_text(*tokenizer.bos_id()) : "";
  variables["eos_token"] = tokenizer.eos_id() ? tokenizer.token_text(*tokenizer.eos_id()) : "";
  return variables;
}

std::vector<std::int32_t> render_ids(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat_template,
                                     const text::Json& messages) {
  return tokenizer.encode(chat_template.render(messages, /*add_generation_prompt=*/true, template_variables(tokenizer)),
                          /*parse_special=*/true);
}

const std::string& require_template(const LoadedModel& model) {
  if (!model.tokenizer().chat_template())
    throw Unsupported("{}: the model has no chat template; use `generate` with raw text, or give a model with one",
                      model.path().string());
  return *model.tokenizer().chat_template();
}

bool ends_text(const LoadedModel& model, std::int32_t id) {
  return model.tokenizer().is_eog(id) || std::ranges::find(model.arch().eos_ids, id) != model.arch().eos_ids.end();
}

}  // namespace

std::string_view stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::EndOfText: return "end of text";
    case StopReason::MaxTokens: return "token limit";
    case StopReason::ContextFull: return "context full";
    case StopReason::Interrupted: return "interrupted";
  }
  return "";
}

Generator::Generator(const ExecContext& ctx, LoadedModel& model, std::int64_t context)
    : ctx_(ctx), model_(model), cache_(model.arch(), ctx.compute, context_size(model.arch(), context)) {}

void Generator::prefill(std::span<const std::int32_t> prompt, std::span<float> logits) {
  // The last token always goes through the model: its logits are what comes next.
  const auto differs = std::ranges::mismatch(cached_, prompt).in2 - prompt.begin();
  const std::size_t kept = std::min(static_cast<std::size_t>(differs), prompt.size() - 1);
  cached_.resize(kept);
  cache_.length = static_cast<std::int64_t>(kept);
  while (cached_.size() < prompt.size()) {
    const std::size_t n = std::min(prompt.size() - cached_.size(), static_cast<std::size_t>(kPrefillChunk));
    const std::span<const std::int32_t> chunk = prompt.subspan(cached_.size(), n);
    model_.transformer().step(ctx_, cache_, chunk, logits);
    cached_.insert(cached_.end(), chunk.begin(), chunk.end());
  }
}

Generation Generator::generate(std::span<const std::int32_t> prompt, const GenerationOptions& options,
                               const TextSink& sink) {
  const std::int64_t prompt_tokens = static_cast<std::int64_t>(prompt.size());
  if (prompt.empty()) throw BadData("the prompt has no tokens");
  if (prompt_tokens >= cache_.capacity)
    throw BadData(
        "the context is full: the prompt has {} tokens and the context holds {}, answer included; shorten it, or "
        "start a new conversation",
        prompt_tokens, cache_.capacity);
  const text::Tokenizer& tokenizer = model_.tokenizer();
  Sampler sampler(options.sampling, options.seed);
  std::vector<float> logits(static_cast<std::size_t>(model_.arch().vocab_size));
  // Tables padded beyond the tokenizer have logits that stand for no token.
  const std::span<const float> named =
      std::span<const float>(logits).first(std::min(logits.size(), static_cast<std::size_t>(tokenizer.vocab_size())));

  Generation result;
  result.prompt_tokens = prompt_tokens;
  auto start = std::chrono::steady_clock::now();
  prefill(prompt, logits);
  result.prompt_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  text::TextStream stream(tokenizer, /*skip_special=*/true, options.part);
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (sink && !piece.empty()) sink(piece);
  };
  while (static_cast<std::int64_t>(result.ids.size()) < options.max_tokens) {
    if (interrupted()) {
      result.stop = StopReason::Interrupted;
      break;
    }
    const std::int32_t id = sampler.sample(named);
    if (ends_text(model_, id)) {
      result.stop = StopReason::EndOfText;
      break;
    }
    result.ids.push_back(id);
    emit(stream.push(id));
    if (static_cast<std::int64_t>(result.ids.size()) == options.max_tokens) break;
    if (cache_.length == cache_.capacity) {
      result.stop = StopReason::ContextFull;
      break;
    }
    model_.transformer().step(ctx_, cache_, std::span(&id, 1), logits);
    cached_.push_back(id);
  }
  emit(stream.finish());
  result.seconds = seconds_since(start);
  return result;
}

ChatSession::ChatSession(const ExecContext& ctx, LoadedModel& model, const std::string& system, std::int64_t context)
    : generator_(ctx, model, context),
      template_(require_template(model), model.path().string()),
      system_(system_messages(system)),
      messages_(system_) {}

Generation ChatSession::say(const std::string& user, const GenerationOptions& how, const TextSink& sink) {
  GenerationOptions options = how;
  options.part = text::TextPart::kWhole;
  text::Json messages = messages_;
  messages.push_back(turn("user", user));
  Generation answer = generator_.generate(render_ids(generator_.model().tokenizer(), template_, messages), options, sink);
  messages.push_back(turn("assistant", answer.text));
  messages_ = std::move(messages);
  return answer;
}

void ChatSession::reset() { messages_ = system_; }

text::TextPart answer_part(const text::Tokenizer& tokenizer, bool raw) {
  return raw || !tokenizer.chat_template() ? text::TextPart::kContinuation : text::TextPart::kWhole;
}

std::vector<std::int32_t> prompt_ids(const text::Tokenizer& tokenizer, const std::string& prompt, const std::string& system,
                                     bool raw) {
  if (answer_part(tokenizer, raw) == text::TextPart::kContinuation) {
    std::vector<std::int32_t> ids = tokenizer.encode(prompt, /*parse_special=*/true);
    if (tokenizer.adds_bos() && tokenizer.bos_id()) ids.insert(ids.begin(), *tokenizer.bos_id());
    return ids;
  }
  text::Json messages = system_messages(system);
  messages.push_back(turn("user", prompt));
  return render_ids(tokenizer, text::ChatTemplate(*tokenizer.chat_template()), messages);
}

std::vector<std::int32_t> user_turn_ids(const text::Tokenizer& tokenizer) {
  constexpr const char* kWords = "words of the user";
  if (!tokenizer.chat_template()) return {};
  text::Json messages = text::Json::array();
  messages.push_back(turn("user", kWords));
  std::string conversation;
  try {
    conversation = text::ChatTemplate(*tokenizer.chat_template())
                       .render(messages, /*add_generation_prompt=*/false, template_variables(tokenizer));
  } catch (const Error&) {
    return {};  // a template that wants more than a user
  }
  const std::size_t begin = conversation.find(kWords);
  return begin == std::string::npos ? std::vector<std::int32_t>{}
                                    : tokenizer.encode(conversation.substr(0, begin), /*parse_special=*/true);
}

}  // namespace temper::eval
