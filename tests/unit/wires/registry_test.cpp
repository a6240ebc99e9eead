#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "wires/wire.h"

namespace temper::wires {
namespace {

TEST(Registry, NamesAreUniqueAndFound) {
  std::set<std::string_view> names;
  for (const Wire* wire : wires()) {
    EXPECT_TRUE(names.insert(wire->name()).second) << wire->name();
    EXPECT_EQ(find_wire(wire->name()), wire);
    EXPECT_FALSE(wire->readers().empty());
  }
  EXPECT_EQ(find_wire("no such wire"), nullptr);
}

TEST(Registry, ForeignMethodsAreNamed) {
  try {
    wire_of({{"quant_method", "hqq"}}, "config.json");
    FAIL() << "no exception";
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("\"hqq\""), std::string::npos) << error.what();
  }
  EXPECT_THROW(wire_of(nlohmann::json::object(), "config.json"), BadFile);
}

}  // namespace
}  // namespace temper::wires
