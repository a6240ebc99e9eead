#include "export/verify.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checksum.h"
#include "base/parallel.h"
#include "model/peft.h"
#include "text/chat_template.h"
#include "text/word_problems.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kProbes = 16;
constexpr std::uint64_t kProbeSeed = 20260;  // any; fixed, so that figures of two exports compare

std::span<const std::byte> bytes_of(const TensorView& view) {
  return {static_cast<const std::byte*>(view.data), view.bytes()};
}

std::string name_and_problem(std::int64_t index, const text::WordProblem& problem) {
  return index % 4 == 3 ? problem.question + " — réponds en détail 🙂\n" : problem.question;
}

/// One or two turns each, some with other scripts, so that templates and pre-tokenizers are exercised.
text::Json probe_conversation(std::int64_t index) {
  static const std::vector<text::WordProblem> problems = text::make_word_problems(kProbeSeed, 2 * kProbes);
  const auto& first = problems[static_cast<std::size_t>(2 * index)];
  const auto& second = problems[static_cast<std::size_t>(2 * index + 1)];
  text::Json messages = text::Json::array();
  messages.push_back({{"role", "user"}, {"content", name_and_problem(index, first)}});
  messages.push_back({{"role", "assistant"}, {"content", first.answer}});
  if (index % 2 == 1) {
    messages.push_back({{"role", "user"}, {"content", second.question}});
    messages.push_back({{"role", "assistant"}, {"content", second.answer}});
  }
  return messages;
}

std::string render(const text::Tokenizer& tokenizer, const text::Json& messages) {
  if (!tokenizer.chat_template()) {
    std::string text;
    for (const auto& message : messages) text += message["content"].get<std::string>() + "\n";
    return text;
  }
  text::Json variables = text::Json::object();
  if (tokenizer.bos_id()) variables["bos_token"] = tokenizer.token_text(*tokenizer.bos_id());
  if (tokenizer.eos_id()) variables["eos_token"] = tokenizer.token_text(*tokenizer.eos_id());
  return text::ChatTemplate(*tokenizer.chat_template()).render(messages, false, variables);
}

/// The first `length` tokens, at least one of them labelled.
void cut(text::Sample& sample, std::size_t length) {
  if (sample.ids.size() <= length) return;
  sample.ids.resize(length);
  sample.labelled.resize(length);
  if (std::ranges::find(sample.labelled, 1) != sample.labelled.end()) return;
  std::ranges::fill(sample.labelled, 1);
  sample.labelled[0] = 0;
}

/// What GGUF has no key for follows from the architecture's name: there a reader would compute something else.
void require_same_architecture(const model::ArchSpec& made, const model::ArchSpec& read, const fs::path& path) {
  const auto refuse = [&](std::string_view what, auto here, auto there) {
    throw Unsupported(
        "{}: {}: this model has {}, a GGUF of architecture {} means {} and has no key for it; export hf instead",
        path.filename().string(), what, here, made.architecture->gguf, there);
  };
  constexpr float kScaleRoundings = 4 * std::numeric_limits<float>::epsilon();  // the same quotient made in two ways
  if (std::abs(made.attention_scale - read.attention_scale) > kScaleRoundings * made.attention_scale)
    refuse("attention scale", made.attention_scale, read.attention_scale);
  const auto rope_name = [](model::LayerRope rope) {
    return rope == model::LayerRope::None ? "none" : rope == model::LayerRope::Local ? "the local one" : "the global one";
  };
  for (std::size_t i = 0; i < made.layers.size(); ++i)
    if (made.layers[i].rope != read.layers[i].rope)
      refuse(fmt::format("rotary embedding of layer {}", i), rope_name(made.layers[i].rope), rope_name(read.layers[i].rope));
}

}  // namespace

void verify_bytes(std::span<const std::byte> expected, std::span<const std::byte> found, const fs::path& path,
                  std::string_view tensor) {
  if (expected.size() == found.size() && std::memcmp(expected.data(), found.data(), expected.size()) == 0) return;
  std::size_t at = 0;
  while (at < std::min(expected.size(), found.size()) && expected[at] == found[at]) ++at;
  throw VerifyFailed("{}: tensor {}: differs from what it was made from at byte {} of {} (found {})", path.string(), tensor,
                     at, expected.size(), found.size());
}

void verify_plain(const ExecContext& ctx, const ExportSource& source, const model::CheckpointReader& reader,
                  std::size_t index, const fs::path& folder) {
  const bool norm = source.table()[index].role == quant::Role::Norm;
  const Tensor expected = norm ? source.norm(index) : source.merged(ctx, index);
  Tensor found(expected->dtype, expected->shape);
  reader.read(index, found);
  verify_bytes(bytes_of(expected), bytes_of(found), folder, source.table()[index].hf_name);
}

void verify_gguf_tensors(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                         const fs::path& path) {
  const auto reader = model::CheckpointReader::open(path);
  require_same_architecture(source.arch(), reader.arch(), path);
  std::atomic<std::size_t> expected_bytes = 0;
  make_gguf_tensors(ctx, source, target, fmt::format("verify {}", path.filename().string()),
                    [&](std::size_t tensor, std::size_t offset, std::span<const std::byte> expected) {
                      const std::span<const std::byte> all = reader.stored(tensor).bytes();
                      const std::span<const std::byte> rest = all.subspan(std::min(offset, all.size()));
                      verify_bytes(expected, rest.first(std::min(expected.size(), rest.size())), path,
                                   source.table()[tensor].gguf_name);
                      expected_bytes += expected.size();
                    });
  if (expected_bytes != reader.weight_bytes())
    throw VerifyFailed("{}: {} bytes of tensors, expected {}", path.string(), reader.weight_bytes(), expected_bytes.load());
}

void verify_gguf_bytes(const ExportSource& source, std::span<const WrittenPiece> written, const fs::path& path) {
  const auto reader = model::CheckpointReader::open(path);
  require_same_architecture(source.arch(), reader.arch(), path);
  std::size_t total = 0;
  for (const WrittenPiece& piece : written) total += piece.size;
  if (total != reader.weight_bytes())
    throw VerifyFailed("{}: {} bytes of tensors, {} were written", path.string(), reader.weight_bytes(), total);
  parallel_for(static_cast<std::int64_t>(written.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (const WrittenPiece& piece :
         written.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))) {
      const std::span<const std::byte> all = reader.stored(piece.tensor).bytes();
      if (piece.offset + piece.size > all.size() || checksum_of(all.subspan(piece.offset, piece.size)) != piece.checksum)
        throw VerifyFailed("{}: tensor {}: bytes from {} on are not those that were written", path.string(),
                           source.table()[piece.tensor].gguf_name, piece.offset);
    }
  });
}

void verify_hf_tensors(const ExecContext& ctx, const ExportSource& source, const fs::path& folder) {
  const auto reader = model::CheckpointReader::open(folder);
  for (std::size_t i = 0; i < source.table().size(); ++i) verify_plain(ctx, source, reader, i, folder);
}

void require_same_adapters(const model::Adapters& expected, const model::Adapters& found, const fs::path& path) {
  if (expected.entries().size() != found.entries().size())
    throw VerifyFailed("{}: {} adapters where {} were trained", path.string(), found.entries().size(),
                       expected.entries().size());
  // Files hold alpha, from which the scale follows: it may come back rounded once.
  for (std::size_t e = 0; e < found.entries().size(); ++e) {
    const float scale = expected.entries()[e].scale, read = found.entries()[e].scale;
    if (!(std::abs(read - scale) <= std::numeric_limits<float>::epsilon() * std::abs(scale)))
      throw VerifyFailed("{}: scale {} where {} was trained", path.string(), read, scale);
  }
  verify_bytes(bytes_of(expected.parameters()), bytes_of(found.parameters()), path, "(all adapters)");
}

void verify_adapter(const model::Adapters& adapters, const model::TensorTable& table, const std::vector<Tensor>& beside,
                    const fs::path& folder) {
  std::vector<Tensor> found;
  require_same_adapters(adapters, model::load_peft(table, folder, &found), folder);
  if (found.size() != beside.size())
    throw VerifyFailed("{}: other tensors beside the adapters than were trained", folder.string());
  for (std::size_t i = 0; i < beside.size(); ++i) {
    if (static_cast<bool>(beside[i]) != static_cast<bool>(found[i]))
      throw VerifyFailed("{}: {} was {}trained", folder.string(), table[i].hf_name, beside[i] ? "" : "not ");
    if (beside[i]) verify_bytes(bytes_of(beside[i].view()), bytes_of(found[i].view()), folder, table[i].hf_name);
  }
}

void verify_token_ids(const text::Tokenizer& expected, const text::Tokenizer& found, const fs::path& path) {
  for (std::int64_t i = 0; i < kProbes; ++i) {
    const text::Json messages = probe_conversation(i);
    if (expected.encode(render(expected, messages), true) != found.encode(render(found, messages), true))
      throw VerifyFailed("{}: a rendered chat gives other token ids than the model it was made from; first turn: {}",
                         path.string(), messages[0]["content"].get<std::string>());
  }
}

std::vector<text::Sample> probe_samples(const text::Tokenizer& tokenizer, std::int64_t max_positions) {
  std::vector<text::Sample> samples;
  text::DatasetReport report;
  for (std::int64_t i = 0; i < kProbes; ++i) {
    const text::Json messages = probe_conversation(i);
    text::Json row;
    if (tokenizer.chat_template()) {
      row["messages"] = messages;
    } else {
      row["prompt"] = messages[0]["content"];
      row["completion"] = messages[1]["content"];
    }
    for (text::Sample& sample : text::make_samples(row, fmt::format("probe {}", i), tokenizer, {}, report)) {
      sample.row = i + 1;
      cut(sample, static_cast<std::size_t>(max_positions));
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

}  // namespace temper::exporter
