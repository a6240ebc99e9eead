#include "export/modelfile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/atomic_file.h"
#include "files/json.h"

using namespace temper;
using exporter::ChatShape;
using text::Json;

namespace {

const Json kVariables = {{"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}};

std::optional<ChatShape> shape_of(const std::string& source) {
  return exporter::find_chat_shape(text::ChatTemplate(source), kVariables);
}

std::string real(const std::string& name) {
  return read_file(std::filesystem::path(TEMPER_TEST_DATA) / "templates" / (name + ".jinja"));
}

}  // namespace

TEST(ChatShape, OfRealTemplates) {
  const auto chatml = shape_of(real("smollm2"));
  ASSERT_TRUE(chatml);
  EXPECT_EQ(chatml->user_prefix, "<|im_start|>user\n");
  EXPECT_EQ(chatml->user_suffix, "<|im_end|>\n");
  EXPECT_EQ(chatml->generation, "<|im_start|>assistant\n");
  EXPECT_EQ(chatml->assistant_prefix, chatml->generation);
  EXPECT_EQ(chatml->system, ChatShape::System::Block);
  EXPECT_EQ(chatml->preamble,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n");

  const auto llama = shape_of(real("meta-llama-Llama-3.1-8B-Instruct"));
  ASSERT_TRUE(llama);
  EXPECT_EQ(llama->bos, "<BOS>");
  EXPECT_EQ(llama->system, ChatShape::System::Block);
  EXPECT_EQ(llama->user_suffix, "<|eot_id|>");

  const auto gemma = shape_of(real("google-gemma-2-2b-it"));
  ASSERT_TRUE(gemma);
  EXPECT_EQ(gemma->system, ChatShape::System::Refused);
  EXPECT_EQ(gemma->generation, "<start_of_turn>model\n");

  const auto nemo = shape_of(real("mistralai-Mistral-Nemo-Instruct-2407"));
  ASSERT_TRUE(nemo);
  EXPECT_EQ(nemo->system, ChatShape::System::LastUser);
  EXPECT_EQ(nemo->system_suffix, "\n\n");
  EXPECT_EQ(nemo->user_prefix, "[INST]");
  EXPECT_EQ(nemo->assistant_suffix, "<EOS>");
}

TEST(ChatShape, SystemInTheFirstTurn) {
  const auto shape = shape_of(
      "{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.index0 == 1 and messages[0].role == 'system' %}"
      "<<{{ messages[0].content }}>> {% endif %}{{ m.content }} [/INST]{% elif m.role == 'assistant' %}{{ m.content }}</s>"
      "{% endif %}{% endfor %}");
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->system, ChatShape::System::FirstUser);
  EXPECT_EQ(shape->system_prefix, "[INST] <<");
  EXPECT_EQ(shape->system_suffix, ">> ");
}

TEST(ChatShape, TemplatesThatDoMoreHaveNone) {
  EXPECT_FALSE(shape_of("{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}"));
  EXPECT_FALSE(shape_of("{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}"));
  EXPECT_FALSE(shape_of(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if messages | length > 6 %}!{% endif %}{% endfor %}"));
  EXPECT_FALSE(shape_of("nothing"));
}

/// go_templates.json holds, of each real template, the Go template that tools/oracles/check_go_templates.py rendered with
/// Go's own text/template to just what jinja2 makes of the original; null where a template has no shape. With
/// TEMPER_WRITE_GO_TEMPLATES=FILE this test writes what that script is to check.
TEST(GoTemplate, IsTheOneThatGoRenderedAlike) {
  const std::filesystem::path folder = std::filesystem::path(TEMPER_TEST_DATA) / "templates";
  Json found = Json::object();
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".jinja") paths.push_back(entry.path());
  std::ranges::sort(paths);
  for (const auto& path : paths) {
    const auto shape = shape_of(read_file(path));
    found[path.stem().string()] = shape ? Json(exporter::go_template(*shape, false)) : Json();
  }
  if (const char* to = std::getenv("TEMPER_WRITE_GO_TEMPLATES")) write_file(to, found.dump(1) + "\n");
  const Json golden = Json::parse(read_file(folder / "go_templates.json"));
  // Templates that write the day's date differ by it from day to day.
  for (const auto& [name, expected] : golden.items()) {
    if (expected != "dated") {
      EXPECT_EQ(found[name], expected) << name;
    }
  }
}
