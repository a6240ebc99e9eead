#include "recipe/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/nearest.h"
#include "recipe/docs.h"
#include "recipe/options.h"
#include "recipe/sources.h"

namespace temper::recipe {
namespace {

/// The message of the BadRecipe that `action` throws; fails the test if it throws none.
template <typename Action>
std::string refusal(Action action) {
  try {
    action();
  } catch (const BadRecipe& error) {
    EXPECT_EQ(error.exit_code(), 2);
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

std::string yaml_refusal(const std::string& text) {
  Recipe recipe;
  return refusal([&] { parse_yaml(text, "r.yaml", recipe); });
}

Recipe parsed(const std::string& text) {
  Recipe recipe;
  parse_yaml(text, "r.yaml", recipe);
  return recipe;
}

Recipe trainable() { return parsed("out: run\nmodel.path: m.gguf\ndata.path: t.jsonl\ntrain.steps: 60\n"); }

/// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "temper-recipe-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name, const std::string& text) const {
    write_file(path_ / name, text);
    return (path_ / name).string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(Table, KeysAreUniqueAndFlagsAreUniquePerVerb) {
  std::set<std::string_view> keys;
  std::set<std::pair<Verb, std::string_view>> flags;
  for (const Option& option : options()) {
    EXPECT_TRUE(keys.insert(option.key).second) << option.key;
    EXPECT_TRUE(option.flag.starts_with("--")) << option.key;
    EXPECT_NE(option.verbs, 0u) << option.key;
    EXPECT_FALSE(option.help.empty() || option.help.ends_with('.')) << option.key;
    for (const VerbInfo& verb : verbs())
      EXPECT_TRUE(!takes(option, verb.verb) || flags.emplace(verb.verb, option.flag).second) << option.key;
  }
}

TEST(Table, EveryDefaultIsAValueItsOptionAccepts) {
  const Recipe defaults;
  for (const Option& option : options()) {
    Recipe copy;
    EXPECT_NO_THROW(assign(option, copy, value_text(option, defaults), "default")) << option.key;
  }
}

TEST(Table, EveryOptionStandsInAPlaceOfItsOwn) {
  // Changing one option changes no other.
  for (const Option& option : options()) {
    const Recipe defaults;
    Recipe changed;
    std::vector<std::string_view> candidates(option.choices.begin(), option.choices.end());
    for (const char* value : {"true", "false", "1", "2", "0.5", "0.25", "text", "64"}) candidates.push_back(value);
    for (const std::string_view candidate : candidates) {
      try {
        assign(option, changed, std::string(candidate), "test");
      } catch (const BadRecipe&) {
        continue;
      }
      if (value_text(option, changed) != value_text(option, defaults)) break;
    }
    int differences = 0;
    for (const Option& other : options()) differences += value_text(other, changed) != value_text(other, defaults);
    EXPECT_EQ(differences, 1) << option.key;
  }
}

TEST(Yaml, ReadsGroupsDottedKeysAndEveryType) {
  const Recipe recipe = parsed(
      "out: runs/a\n"
      "lora: {r: 32, rslora: true, target_modules: [q_proj, v_proj]}\n"
      "optim.lr: 4e-4\n"
      "data:\n  packing: stream\n  eval_path: 'a b.jsonl'\n"
      "train:\n");
  EXPECT_EQ(recipe.out, "runs/a");
  EXPECT_EQ(recipe.lora.r, 32);
  EXPECT_TRUE(recipe.lora.rslora);
  EXPECT_EQ(recipe.lora.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(recipe.optim.lr, 4e-4);
  EXPECT_EQ(recipe.data.packing, Packing::Stream);
  EXPECT_EQ(recipe.data.eval_path, "a b.jsonl");
  EXPECT_TRUE(equal(parsed(""), Recipe{}));
}

TEST(Yaml, RoundTripsEveryOption) {
  Recipe recipe;
  recipe.out = "a \"quoted\" \\ path\nwith a line break, ümlaut and \x01";
  recipe.model.path = "true";
  recipe.data.path = "12";
  recipe.generate.prompt = "key: value # not a comment";
  recipe.optim.lr = 1.0 / 3.0;
  recipe.optim.eps = 1e-300;
  recipe.lora.alpha = 1;
  recipe.lora.target_modules = {"down_proj"};
  recipe.train.seed = 9007199254740991 / 2;
  recipe.eval.windows = Windows::LlamaPerplexity;
  recipe.data.format = DataFormat::Text;
  recipe.data.shuffle = false;
  const Recipe again = parsed(to_yaml(recipe));
  EXPECT_TRUE(equal(recipe, again));
  EXPECT_EQ(again.out, recipe.out);
  EXPECT_EQ(again.optim.lr, recipe.optim.lr);
  EXPECT_EQ(to_yaml(again), to_yaml(recipe));
  EXPECT_FALSE(equal(recipe, Recipe{}));
}

TEST(Yaml, UnknownKeysAreRefusedWithTheNearest) {
  EXPECT_EQ(yaml_refusal("out: a\nlora:\n  rnak: 3\n  alpha: 2\n"),
            "r.yaml:3: unknown option \"lora.rnak\"; did you mean \"lora.r\"?");
  EXPECT_EQ(yaml_refusal("gibberish: 3\n"), "r.yaml:1: unknown option \"gibberish\"; docs/recipe.md lists all of them");
  EXPECT_NE(yaml_refusal("lora:\n  alhpa: 3\n").find("did you mean \"lora.alpha\"?"), std::string::npos);
  EXPECT_NE(yaml_refusal("lr: 3\n").find("r.yaml:1: unknown option \"lr\"; did you mean \"optim.lr\"?"), std::string::npos);
  EXPECT_NE(yaml_refusal("train: {batchsize: 3}\n").find("did you mean \"train.batch_size\"?"), std::string::npos);
  EXPECT_NE(yaml_refusal("optim.steps: 3\n").find("did you mean \"train.steps\"?"), std::string::npos);
}

TEST(Yaml, ErrorsNameLineKeyExpectedAndFound) {
  EXPECT_EQ(yaml_refusal("out: a\n\nlora:\n  alpha: 3\n  r: many\n"),
            "r.yaml:5: lora.r: expected an integer from 1 to 4096, found \"many\"");
  EXPECT_EQ(yaml_refusal("lora.r: 0\n"), "r.yaml:1: lora.r: expected an integer from 1 to 4096, found \"0\"");
  EXPECT_EQ(yaml_refusal("lora.dropout: 1\n"), "r.yaml:1: lora.dropout: expected a number from 0 to below 1, found \"1\"");
  EXPECT_EQ(yaml_refusal("data.packing: tight\n"),
            "r.yaml:1: data.packing: expected one of packed, stream, none, found \"tight\"");
  EXPECT_EQ(yaml_refusal("lora.rslora: yes\n"), "r.yaml:1: lora.rslora: expected true or false, found \"yes\"");
  EXPECT_NE(yaml_refusal("optim.lr: nan\n").find("optim.lr: expected a number"), std::string::npos);
  EXPECT_NE(yaml_refusal("optim.lr: [1]\n").find("found a list"), std::string::npos);
  EXPECT_NE(yaml_refusal("lora: 3\n").find("lora: expected a group of options, found a single value"), std::string::npos);
  EXPECT_NE(yaml_refusal("lora.target_modules: [q_proj, head]\n").find("found \"head\""), std::string::npos);
  EXPECT_NE(yaml_refusal("- 1\n").find("r.yaml:1: expected options"), std::string::npos);
  EXPECT_NE(yaml_refusal("a: [1\nb: }").find("not valid YAML"), std::string::npos);
  EXPECT_NE(yaml_refusal("lora.r: 3\nlora: {r: 4}\n").find("r.yaml:2: lora.r: given twice"), std::string::npos);
  EXPECT_NE(yaml_refusal("train.steps: 99999999999999999999\n").find("train.steps: expected an integer"), std::string::npos);
}

TEST(Yaml, ARefusedRecipeChangesNothing) {
  Recipe recipe;
  EXPECT_THROW(parse_yaml("lora.r: 3\nnonsense: 1\n", "r.yaml", recipe), BadRecipe);
  EXPECT_TRUE(equal(recipe, Recipe{}));
}

TEST(Sources, LaterOnesWin) {
  const TemporaryFolder folder;
  const std::string file = folder.file("recipe.yaml", "lora: {r: 2, alpha: 2}\ntrain: {steps: 2, batch_size: 2}\n");
  Sources sources(Verb::Train);
  sources.add_flag(*find_option("train.steps"), "4");
  sources.add_argument("train.steps=3");
  sources.add_argument("lora.alpha=3");
  sources.add_argument(file);
  const Recipe recipe = sources.assemble();
  EXPECT_EQ(recipe.train.steps, 4);               // flag
  EXPECT_EQ(recipe.lora.alpha, 3);                // key=value
  EXPECT_EQ(recipe.lora.r, 2);                    // file
  EXPECT_EQ(recipe.optim.lr, Recipe{}.optim.lr);  // default
}

TEST(Sources, RefusesWhatItDoesNotUnderstand) {
  Sources sources(Verb::Train);
  EXPECT_NE(refusal([&] { sources.add_argument("lora.rr=3"); }).find("did you mean \"lora.r\"?"), std::string::npos);
  EXPECT_NE(refusal([&] { sources.add_argument("eval.rows=3"); }).find("not an option of `temper train`"),
            std::string::npos);
  EXPECT_NE(refusal([&] { sources.add_argument("model.gguf"); }).find("expected a recipe"), std::string::npos);
  sources.add_argument("a.yaml");
  EXPECT_NE(refusal([&] { sources.add_argument("b.yml"); }).find("one recipe at a time"), std::string::npos);
  EXPECT_THROW(sources.assemble(), BadFile);  // a.yaml does not exist

  Sources flags(Verb::Train);
  flags.add_flag(*find_option("lora.r"), "x");
  EXPECT_EQ(refusal([&] { flags.assemble(); }), "--lora-r: lora.r: expected an integer from 1 to 4096, found \"x\"");
}

TEST(Sources, ABareArgumentIsWhatTheVerbTakes) {
  Sources sources(Verb::Inspect);
  sources.add_argument("models/a.gguf");
  EXPECT_EQ(sources.assemble().model.path, "models/a.gguf");
}

TEST(Sources, AResumedRunStartsFromItsRecipe) {
  const TemporaryFolder folder;
  Recipe earlier = trainable();
  earlier.lora.r = 5;
  earlier.out = folder.path();
  folder.file(std::string(kRecipeFileName), to_yaml(earlier));
  Sources sources(Verb::Train);
  sources.add_flag(*find_option("train.resume"), folder.path());
  sources.add_flag(*find_option("train.epochs"), "2");
  const Recipe recipe = resolve(sources.assemble(), Verb::Train);
  EXPECT_EQ(recipe.lora.r, 5);
  EXPECT_EQ(recipe.out, folder.path());
  EXPECT_EQ(recipe.train.steps, 0);
  EXPECT_EQ(recipe.train.epochs, 2);
}

TEST(Resolve, FillsAndAccepts) {
  EXPECT_EQ(resolve(trainable(), Verb::Train).train.epochs, 0);
  Recipe by_epochs = trainable();
  by_epochs.train.steps = 0;
  EXPECT_EQ(resolve(by_epochs, Verb::Train).train.epochs, 1);
}

TEST(Resolve, RefusesContradictions) {
  const auto refused = [](Verb verb, const std::string& yaml) {
    Recipe recipe = verb == Verb::Train ? trainable() : Recipe{};
    parse_yaml(yaml, "r.yaml", recipe);
    return refusal([&] { resolve(recipe, verb); });
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  contains(refused(Verb::Train, "lora.dropout: 0.1\nquant.scheme: q4_0\n"), "adapter dropout contradicts a merged weight");
  contains(refused(Verb::Train, "lora.dropout: 0.1\nlora.dora: true\n"), "lora.dora with lora.dropout (0.1)");
  contains(refused(Verb::Train, "train.epochs: 1\n"), "train.steps (60) and train.epochs (1) contradict");
  contains(refused(Verb::Train, "optim.warmup_steps: 61\n"), "optim.warmup_steps (61) is more than train.steps (60)");
  contains(refused(Verb::Train, "quant: {scheme: q4_0, start_step: 60}\n"), "would never begin");
  contains(refused(Verb::Train, "quant.start_step: 3\n"), "without a scheme");
  contains(refused(Verb::Train, "train.micro_batch: 8\n"), "train.micro_batch (8) is more than train.batch_size (4)");
  contains(refused(Verb::Train, "train.eval_every: 8\n"), "give data.eval_path");
  contains(refused(Verb::Train, "train.resume: other\n"), "out (run) and train.resume (other)");
  contains(refused(Verb::Train, "model.path: ''\n"), "model.path: missing");
  contains(refused(Verb::Quantize, "{out: a, model.path: b}"), "quant.scheme: `temper quantize` needs one");
  contains(refused(Verb::Eval, "{model.path: a, model.run: b}"), "contradict each other");
  contains(refused(Verb::Eval, "{model.path: a}"), "nothing to measure");
  contains(refused(Verb::Eval, "{model.path: a, eval.text: t, eval.context: 8, eval.stride: 9}"),
           "tokens would be left out");
  contains(refused(Verb::Export, "{model.path: a, out: b, export.to: adapter}"), "has no adapter");
  contains(refused(Verb::Export, "{model.path: a, out: b, export.to: hf, quant.scheme: int4}"), "leave the scheme out");
  contains(refused(Verb::Quantize, "{model.path: a, out: b, export.to: hf, quant.bits: 4, eval.text: t}"), "with a budget");
  contains(refused(Verb::Generate, "{model.path: a}"), "generate.prompt: missing");
}

TEST(Resolve, RefusesWhatABaseLessAnAdapterDoesNotGoWith) {
  const auto resolved = [](const std::string& yaml) {
    Recipe recipe = trainable();
    recipe.lora.init = LoraInit::Pissa;
    recipe.model.base_format = "nf4";
    parse_yaml(yaml, "r.yaml", recipe);
    return resolve(recipe, Verb::Train);
  };
  const auto refused = [&](const std::string& yaml) { return refusal([&] { resolved(yaml); }); };
  const auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  EXPECT_NO_THROW(resolved(""));
  EXPECT_NO_THROW(resolved("quant.scheme: q4_0\n"));
  EXPECT_NO_THROW(resolved("lora: {init: loftq, loftq_iterations: 5}\n"));
  contains(refused("model.base_format: stored\n"), "lora.init pissa without model.base_format");
  contains(refused("lora.adapter: a\n"), "both say what adapters begin as");
  contains(refused("lora.loftq_iterations: 2\n"), "without lora.init loftq");
  contains(refused("{train.mode: quantization, quant: {scheme: q4_0, learn_scales: true}}\n"), "there are no adapters");
  contains(refused("quant: {scheme: q4_0, init: base}\n"), "leave quant.init out");
  contains(refused("train.objective: distill\n"), "give distill.teacher (");
  contains(refused("train.objective: dpo\n"), "give dpo.reference (");
  EXPECT_NO_THROW(resolved("{train.objective: distill, distill.teacher: m}\n"));
  EXPECT_NO_THROW(resolved("{train.objective: distill, lora.init: loftq}\n"));
}

TEST(Nearest, Distance) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("alpha", "alhpa"), 1u);
  EXPECT_EQ(edit_distance("same", "same"), 0u);
  EXPECT_EQ(nearest_flag(Verb::Train, "--lora-rank"), "--lora-r");
  EXPECT_EQ(nearest_flag(Verb::Train, "--learning-rate"), "");
  EXPECT_EQ(nearest_flag(Verb::Eval, "--row=3"), "--rows");
}

TEST(Docs, PageIsUpToDate) {
  const std::string page = read_file(std::string(TEMPER_TEST_DATA) + "/../../docs/recipe.md");
  EXPECT_EQ(page, options_markdown()) << "run `temper docs > docs/recipe.md`";
}

TEST(Docs, ExampleIsARecipe) {
  const std::string page = options_markdown();
  const auto begin = page.find("```yaml\n") + 8;
  EXPECT_NO_THROW(resolve(parsed(page.substr(begin, page.find("```", begin) - begin)), Verb::Train));
}

}  // namespace
}  // namespace temper::recipe
