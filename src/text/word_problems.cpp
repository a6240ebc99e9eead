#include "text/word_problems.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"

namespace temper::text {
namespace {

constexpr auto kNames = std::to_array<std::string_view>(
    {"Ada",  "Bruno",  "Chen",  "Dalia", "Emil",  "Farah", "Goran", "Hana",  "Ines",  "Jonas",
     "Kofi", "Lena",   "Mateo", "Nadia", "Omar",  "Paula", "Quinn", "Rosa",  "Sami",  "Tara",
     "Uma",  "Viktor", "Wanda", "Xenia", "Yusuf", "Zoe",   "Aisha", "Boris", "Clara", "Diego",
     "Elif", "Felix",  "Greta", "Hugo",  "Iris",  "Jamal", "Kira",  "Liam",  "Mona",  "Nils"});
constexpr auto kThings = std::to_array<std::string_view>(
    {"marbles", "stickers", "apples", "pencils", "stamps",  "shells",  "buttons", "coins",   "cards",     "plums",
     "beads",   "books",    "pears",  "walnuts", "crayons", "ribbons", "candles", "oranges", "postcards", "erasers"});
constexpr auto kHolders = std::to_array<std::string_view>({"boxes", "bags", "baskets", "jars", "crates", "drawers"});
constexpr auto kGoods = std::to_array<std::string_view>(
    {"notebook", "sandwich", "ticket", "lamp", "cake", "mug", "scarf", "plant", "poster", "melon", "brush", "kite"});
constexpr auto kJobs = std::to_array<std::string_view>({"washes cars", "walks dogs", "paints fences", "repairs bikes",
                                                        "mows lawns", "teaches chess", "bakes bread", "sorts letters"});

/// What a problem is made of, drawn anew for each.
class Draw {
 public:
  Draw(std::uint64_t seed, std::uint64_t index) : rng_(seed, index) {
    name = pick(kNames);
    do {
      other = pick(kNames);
    } while (other == name);
    thing = pick(kThings);
  }

  template <std::size_t N>
  std::string_view pick(const std::array<std::string_view, N>& list) {
    return list[rng_.below(N)];
  }
  /// Uniform in [low, high].
  int number(int low, int high) { return low + static_cast<int>(rng_.below(static_cast<std::uint32_t>(high - low + 1))); }
  bool coin() { return rng_.below(2) == 1; }

  std::string_view name, other, thing;

 private:
  Rng rng_;
};

WordProblem solved(std::string question, std::string steps, int answer) {
  return {std::move(question), std::move(steps) + fmt::format("\nAnswer: {}", answer)};
}

WordProblem gain(Draw& d) {
  const int a = d.number(5, 95), b = d.number(3, 60);
  const std::string ask = d.coin() ? fmt::format("How many {} does {} have now?", d.thing, d.name)
                                   : fmt::format("How many {} is that in all?", d.thing);
  return solved(fmt::format("{} has {} {}. {} gives {} {} more. {}", d.name, a, d.thing, d.other, d.name, b, ask),
                fmt::format("{} starts with {} and gets {}: {} + {} = {}.", d.name, a, b, a, b, a + b), a + b);
}

WordProblem loss(Draw& d) {
  const int a = d.number(20, 99), b = d.number(3, 19);
  const std::string verb = d.coin() ? fmt::format("gives {} of them to {}", b, d.other) : fmt::format("loses {} of them", b);
  return solved(fmt::format("{} had {} {} and {}. How many {} are left?", d.name, a, d.thing, verb, d.thing),
                fmt::format("From {} we take {}: {} - {} = {}.", a, b, a, b, a - b), a - b);
}

WordProblem packs(Draw& d) {
  const int n = d.number(2, 12), per = d.number(3, 15), loose = d.coin() ? d.number(1, 20) : 0;
  const auto holder = d.pick(kHolders);
  const std::string extra = loose > 0 ? fmt::format(" and {} loose ones", loose) : "";
  std::string steps = fmt::format("The {} hold {} * {} = {} {}.", holder, n, per, n * per, d.thing);
  if (loose > 0) steps += fmt::format("\nWith the loose ones: {} + {} = {}.", n * per, loose, n * per + loose);
  return solved(fmt::format("{} keeps {} {} in each of {} {}{}. How many {} does {} have?", d.name, per, d.thing, n, holder,
                            extra, d.thing, d.name),
                std::move(steps), n * per + loose);
}

WordProblem share(Draw& d) {
  const int friends = d.number(2, 9), each = d.number(2, 15), kept = d.coin() ? d.number(1, 9) : 0;
  const int total = friends * each + kept;
  std::string question = fmt::format("{} has {} {}", d.name, total, d.thing);
  std::string steps;
  if (kept > 0) {
    question += fmt::format(", keeps {}", kept);
    steps = fmt::format("To share: {} - {} = {}.\n", total, kept, total - kept);
  }
  question += fmt::format(" and shares {} equally among {} friends. How many does each friend get?",
                          kept > 0 ? "the rest" : "them", friends);
  return solved(std::move(question), steps + fmt::format("Each friend gets {} / {} = {}.", total - kept, friends, each),
                each);
}

WordProblem gain_and_loss(Draw& d) {
  const int a = d.number(10, 80), b = d.number(5, 40), c = d.number(2, a);
  return solved(
      fmt::format("{} collects {} {} in the morning and {} in the afternoon, then gives {} to {}. How many {} remain?",
                  d.name, a, d.thing, b, c, d.other, d.thing),
      fmt::format("Collected: {} + {} = {}.\nAfter giving: {} - {} = {}.", a, b, a + b, a + b, c, a + b - c), a + b - c);
}

WordProblem shopping(Draw& d) {
  const int price = d.number(2, 19), n = d.number(2, 9), cost = price * n;
  const int paid = (cost / 50 + 1) * 50;
  const auto good = d.pick(kGoods);
  return solved(
      fmt::format("A {} costs {} dollars. {} buys {} of that kind and pays with {} dollars. How much change does {} get?",
                  good, price, d.name, n, paid, d.name),
      fmt::format("The cost: {} * {} = {} dollars.\nThe change: {} - {} = {} dollars.", n, price, cost, paid, cost,
                  paid - cost),
      paid - cost);
}

WordProblem journey(Draw& d) {
  const int v1 = d.number(3, 12) * 5, t1 = d.number(2, 5), v2 = d.number(3, 12) * 5, t2 = d.number(2, 5);
  const std::string_view how = d.coin() ? "drives" : "travels by train";
  return solved(
      fmt::format(
          "{} {} for {} hours at {} km per hour and then for {} hours at {} km per hour. How many km is the whole way?",
          d.name, how, t1, v1, t2, v2),
      fmt::format("First part: {} * {} = {} km.\nSecond part: {} * {} = {} km.\nTogether: {} + {} = {} km.", t1, v1, t1 * v1,
                  t2, v2, t2 * v2, t1 * v1, t2 * v2, t1 * v1 + t2 * v2),
      t1 * v1 + t2 * v2);
}

WordProblem times_as_many(Draw& d) {
  static constexpr std::array<std::string_view, 4> kTimes = {"twice", "three times", "four times", "five times"};
  const int k = d.number(2, 5), a = d.number(4, 30);
  return solved(fmt::format("{} has {} {}. {} has {} as many. How many {} do they have together?", d.name, a, d.thing,
                            d.other, kTimes[static_cast<std::size_t>(k - 2)], d.thing),
                fmt::format("{} has {} * {} = {}.\nTogether: {} + {} = {}.", d.other, k, a, k * a, a, k * a, a + k * a),
                a + k * a);
}

WordProblem fence(Draw& d) {
  const int w = d.number(3, 25), l = w + d.number(1, 20);
  if (d.coin()) {
    return solved(fmt::format("{}'s garden is {} m long and {} m wide. How many square metres does it cover?", d.name, l, w),
                  fmt::format("The area: {} * {} = {}.", l, w, l * w), l * w);
  }
  return solved(fmt::format("{}'s garden is {} m long and {} m wide. How many metres of fence go around it?", d.name, l, w),
                fmt::format("Length and width: {} + {} = {}.\nAll around: 2 * {} = {}.", l, w, l + w, l + w, 2 * (l + w)),
                2 * (l + w));
}

WordProblem baking(Draw& d) {
  const int per = d.number(3, 8), bags = d.number(3, 9), trays = d.number(2, 6);
  const int eaten_base = per * bags;  // what is left after eating fills the bags exactly
  const int each = eaten_base / trays + d.number(1, 6), total = trays * each, eaten = total - eaten_base;
  return solved(
      fmt::format(
          "{} bakes {} trays with {} biscuits each. {} biscuits are eaten, and the rest go into bags of {}. How many bags "
          "are filled?",
          d.name, trays, each, eaten, per),
      fmt::format("Baked: {} * {} = {}.\nLeft: {} - {} = {}.\nBags: {} / {} = {}.", trays, each, total, total, eaten,
                  eaten_base, eaten_base, per, bags),
      bags);
}

WordProblem saving(Draw& d) {
  const int weekly = d.number(3, 25), weeks = d.number(3, 12), saved = weekly * weeks, spent = d.number(2, saved - 1);
  return solved(
      fmt::format("{} saves {} dollars a week for {} weeks and then spends {} dollars on a {}. How many dollars are left?",
                  d.name, weekly, weeks, spent, d.pick(kGoods)),
      fmt::format("Saved: {} * {} = {}.\nLeft: {} - {} = {}.", weeks, weekly, saved, saved, spent, saved - spent),
      saved - spent);
}

WordProblem ages(Draw& d) {
  const int a = d.number(5, 40), older = d.number(2, 30), later = d.number(2, 15), b = a + older;
  return solved(
      fmt::format("{} is {} years old, and {} is {} years older. How old will {} be in {} years?", d.name, a, d.other, older,
                  d.other, later),
      fmt::format("{} is {} + {} = {} now.\nIn {} years: {} + {} = {}.", d.other, a, older, b, later, b, later, b + later),
      b + later);
}

WordProblem half(Draw& d) {
  const int h = d.number(6, 60), sold = d.number(1, h - 1);
  return solved(
      fmt::format(
          "{} takes {} {} to the market, sells half of them before noon and {} more after it. How many {} go back home?",
          d.name, 2 * h, d.thing, sold, d.thing),
      fmt::format("Half of {} is {} / 2 = {}.\nThen {} - {} = {} are left.", 2 * h, 2 * h, h, h, sold, h - sold), h - sold);
}

WordProblem wages(Draw& d) {
  const int hours = d.number(3, 9), rate = d.number(8, 25), tip = d.number(2, 30), fare = d.number(2, 12),
            pay = hours * rate;
  return solved(
      fmt::format(
          "{} {} for {} hours at {} dollars an hour, gets {} dollars on top and pays {} dollars for the bus. How many "
          "dollars are kept?",
          d.name, d.pick(kJobs), hours, rate, tip, fare),
      fmt::format("Pay: {} * {} = {}.\nWith the extra: {} + {} = {}.\nAfter the bus: {} - {} = {}.", hours, rate, pay, pay,
                  tip, pay + tip, pay + tip, fare, pay + tip - fare),
      pay + tip - fare);
}

constexpr WordProblem (*kKinds[])(Draw&) = {gain,          loss,  packs,  share,  gain_and_loss, shopping, journey,
                                            times_as_many, fence, baking, saving, ages,          half,     wages};

void write_rows(const std::filesystem::path& path, const std::vector<WordProblem>& problems, std::size_t begin,
                std::size_t end) {
  std::string out;
  for (std::size_t i = begin; i < end; ++i) {
    const nlohmann::ordered_json row = {
        {"messages",
         {{{"role", "user"}, {"content", problems[i].question}}, {{"role", "assistant"}, {"content", problems[i].answer}}}}};
    out += row.dump() + '\n';
  }
  write_file(path, out);
}

}  // namespace

std::vector<WordProblem> make_word_problems(std::uint64_t seed, std::int64_t count) {
  if (count < 0 || count > 1'000'000) throw BadRecipe("word problems: expected 0 to 1000000, found {}", count);
  std::vector<WordProblem> problems;
  std::unordered_set<std::string> seen;
  for (std::uint64_t index = 0; static_cast<std::int64_t>(problems.size()) < count; ++index) {
    Draw draw(seed, index);
    WordProblem problem = kKinds[static_cast<std::size_t>(draw.number(0, static_cast<int>(std::size(kKinds)) - 1))](draw);
    if (seen.insert(problem.question).second) problems.push_back(std::move(problem));
  }
  return problems;
}

void write_word_problems(const std::string& folder, std::uint64_t seed, std::int64_t n_train, std::int64_t n_test) {
  if (n_train < 0 || n_test < 0)
    throw BadRecipe("word problems: expected counts of 0 or more, found {} and {}", n_train, n_test);
  // One list without repeats, cut in two: no question can be on both sides.
  const std::vector<WordProblem> problems = make_word_problems(seed, n_train + n_test);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError("{}: cannot make the folder: {}", folder, error.message());
  write_rows(std::filesystem::path(folder) / "train.jsonl", problems, 0, static_cast<std::size_t>(n_train));
  write_rows(std::filesystem::path(folder) / "test.jsonl", problems, static_cast<std::size_t>(n_train), problems.size());
}

}  // namespace temper::text
