#include "files/gguf.h"

#include <cmath>
#include <limits>

#include "files/json.h"
#include "files_support.h"

namespace temper::files {
namespace {

using temper::testing::slurp;
using temper::testing::spill;
using temper::testing::TemporaryFolder;

void expect_bad(const std::string& file, const std::vector<std::string>& parts) {
  const Bytes bytes(file);
  expect_error<BadFile>([&] { GgufFile::parse(bytes.span(), "m.gguf"); }, parts);
}

std::string text(std::string_view s) { return packed(std::uint64_t{s.size()}) + std::string(s); }

std::string head(std::uint64_t tensors, std::uint64_t pairs, std::uint32_t version = 3) {
  return "GGUF" + packed(version) + packed(tensors) + packed(pairs);
}

std::string pair_u32(std::string_view key, std::uint32_t value) { return text(key) + packed(GgufType::U32) + packed(value); }

std::string tensor(std::string_view name, std::vector<std::uint64_t> ne, std::uint32_t type, std::uint64_t offset) {
  std::string out = text(name) + packed(static_cast<std::uint32_t>(ne.size()));
  for (const auto n : ne) out += packed(n);
  return out + packed(type) + packed(offset);
}

/// The parts of a file with its data, padded to 32.
std::string with_data(std::string file, std::size_t data_bytes) {
  file.resize((file.size() + 31) / 32 * 32 + data_bytes);
  return file;
}

TEST(GgmlType, TableEqualsThePackages) {
  std::size_t compared = 0;
  const Json table = read_json(fixture("ggml_types.json"));
  for (const auto& [name, row] : table.items()) {
    // The package counts an f32 scale and sum in Q8_1; in ggml itself both are f16. It is never stored in files.
    if (name == "Q8_1") continue;
    const GgmlTypeInfo* info = find_ggml_type(row[0].get<std::uint32_t>());
    ASSERT_NE(info, nullptr) << name;
    EXPECT_EQ(info->name, name);
    EXPECT_EQ(info->block_elements, row[1].get<std::int64_t>()) << name;
    EXPECT_EQ(info->block_bytes, row[2].get<std::size_t>()) << name;
    EXPECT_EQ(find_ggml_type(name), info);
    ++compared;
  }
  EXPECT_GE(compared, 33u);
}

TEST(GgmlType, Lookups) {
  EXPECT_EQ(find_ggml_type("q4_k")->type, GgmlType::Q4_K);
  EXPECT_EQ(find_ggml_type("q4"), nullptr);
  EXPECT_EQ(find_ggml_type(4u), nullptr);
  EXPECT_EQ(find_ggml_type(~0u), nullptr);
  EXPECT_EQ(ggml_row_bytes(GgmlType::Q4_0, 64), 36u);
  EXPECT_EQ(ggml_row_bytes(GgmlType::BF16, 3), 6u);
  expect_error<LogicError>([] { ggml_row_bytes(GgmlType::Q4_0, 33); }, {"33", "Q4_0"});
  EXPECT_EQ(plain_dtype(GgmlType::BF16), DType::BF16);
  EXPECT_EQ(plain_dtype(GgmlType::Q4_0), std::nullopt);
  EXPECT_EQ(ggml_type_of(DType::I64), GgmlType::I64);
  EXPECT_EQ(ggml_type_of(DType::U8), std::nullopt);
}

TEST(Gguf, ReadsTheValuesThatThePackageWrote) {
  const GgufFile file(fixture("mixed.gguf"));
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.alignment(), 32u);
  EXPECT_EQ(file.get_string("general.architecture"), "llama");
  EXPECT_EQ(file.get_u32("t.u8"), 200u);
  EXPECT_EQ(std::get<std::int8_t>(*file.find_value("t.i8")), -100);
  EXPECT_EQ(file.get_u32("t.u16"), 60000u);
  EXPECT_EQ(std::get<std::int16_t>(*file.find_value("t.i16")), -30000);
  EXPECT_EQ(file.get_u32("t.u32"), 4000000000u);
  EXPECT_EQ(std::get<std::int32_t>(*file.find_value("t.i32")), -2000000000);
  EXPECT_EQ(file.get_u64("t.u64"), std::uint64_t{1} << 63);
  EXPECT_EQ(std::get<std::int64_t>(*file.find_value("t.i64")), -(std::int64_t{1} << 62));
  EXPECT_EQ(file.get_f32("t.f32"), 0.1f);
  EXPECT_EQ(std::get<double>(*file.find_value("t.f64")), 0.1);
  EXPECT_EQ(file.get_f32("t.f64"), 0.1f);
  EXPECT_TRUE(file.get_bool("t.bool"));
  EXPECT_EQ(file.get_string("t.string"), "grüße");
  const auto strings = file.get_string_array("t.strings");
  ASSERT_EQ(strings.size(), 4u);
  EXPECT_EQ(strings[1], "");
  EXPECT_EQ(strings[2], "ĠĠ");
  EXPECT_EQ(file.get_int_array("t.ints"), (std::vector<std::int64_t>{1, -2, 3}));
  EXPECT_EQ(file.get_f32_array("t.floats"), (std::vector<float>{0.5f, -1.5f}));
  EXPECT_EQ(file.get_int_array("t.bools"), (std::vector<std::int64_t>{1, 0, 1}));
}

TEST(Gguf, ReadsTheTensorsThatThePackageWrote) {
  const GgufFile file(fixture("mixed.gguf"));
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.at("f32").shape, (Shape{3, 5}));
  const auto f = elements<float>(file.at("f32").data);
  ASSERT_EQ(f.size(), 15u);
  for (std::size_t i = 0; i < 15; ++i) EXPECT_EQ(f[i], static_cast<float>(i) - 7.0f);
  EXPECT_EQ(file.at("f16").shape, (Shape{2, 2, 3}));
  EXPECT_EQ(to_float(elements<f16>(file.at("f16").data)[11]), 5.0f);
  EXPECT_EQ(elements<std::int32_t>(file.at("i32").data), (std::vector<std::int32_t>{-2, -1, 0, 1}));
  EXPECT_EQ(file.at("q4_0").type, GgmlType::Q4_0);
  EXPECT_EQ(file.at("q4_0").shape, (Shape{3, 64}));
  EXPECT_EQ(file.at("q4_0").data.size(), 3u * 2 * 18);
  EXPECT_EQ(file.at("q8_0").data.size(), 3u * 2 * 34);
  EXPECT_EQ(file.find("zz"), nullptr);
  expect_error<BadFile>([&] { file.at("zz"); }, {"mixed.gguf", "\"zz\"", "missing"});
}

TEST(Gguf, GettersNameWhatIsWrong) {
  const GgufFile file(fixture("mixed.gguf"));
  expect_error<BadFile>([&] { file.get_u32("zz"); }, {"mixed.gguf", "\"zz\"", "missing"});
  expect_error<BadFile>([&] { file.get_u32("t.u64"); }, {"\"t.u64\"", "u32", "u64 9223372036854775808"});
  expect_error<BadFile>([&] { file.get_u32("t.i32"); }, {"\"t.i32\"", "i32 -2000000000"});
  expect_error<BadFile>([&] { file.get_u32("t.bool"); }, {"bool true"});
  expect_error<BadFile>([&] { file.get_u64("t.string"); }, {"a string of 7 bytes"});
  expect_error<BadFile>([&] { file.get_f32("t.u8"); }, {"f32", "u8 200"});
  expect_error<BadFile>([&] { file.get_bool("t.u8"); }, {"bool", "u8 200"});
  expect_error<BadFile>([&] { file.get_string("t.strings"); }, {"a string", "array of 4 string"});
  expect_error<BadFile>([&] { file.get_string_array("t.ints"); }, {"an array of strings", "array of 3 i32"});
  expect_error<BadFile>([&] { file.get_int_array("t.floats"); }, {"an array of integers", "array of 2 f32"});
  expect_error<BadFile>([&] { file.optional_f32_array("t.ints"); }, {"an array of f32"});
  EXPECT_EQ(file.optional_u32("zz"), std::nullopt);
  EXPECT_EQ(file.optional_string("zz"), std::nullopt);
  EXPECT_FALSE(file.optional_string_array("zz").has_value());
  EXPECT_EQ(file.optional_bool("t.bool"), true);
}

TEST(Gguf, WritesTheBytesThatThePackageWrites) {
  TemporaryFolder folder;
  const GgufFile file(fixture("mixed.gguf"));
  for (const std::size_t piece : {1u, 7u, 100000u}) {
    GgufWriter writer(folder / "copy.gguf");
    for (const auto& [key, value] : file.values()) writer.add_value(key, value);
    for (const auto& t : file.tensors()) writer.declare_tensor(t.name, t.type, t.shape);
    std::string data;
    for (const auto& t : file.tensors()) data.append(reinterpret_cast<const char*>(t.data.data()), t.data.size());
    for (std::size_t i = 0; i < data.size(); i += piece)
      writer.write(std::as_bytes(std::span(data).subspan(i, std::min(piece, data.size() - i))));
    writer.commit();
    EXPECT_EQ(slurp(folder / "copy.gguf"), slurp(fixture("mixed.gguf"))) << piece;
  }
}

TEST(Gguf, TensorsMayBeWrittenInAnyOrder) {
  TemporaryFolder folder;
  const GgufFile file(fixture("mixed.gguf"));
  GgufWriter writer(folder / "copy.gguf");
  for (const auto& [key, value] : file.values()) writer.add_value(key, value);
  for (const auto& t : file.tensors()) writer.declare_tensor(t.name, t.type, t.shape);
  const std::byte one{};
  expect_error<LogicError>([&] { writer.write_at(0, 0, {&one, 1}); }, {"before begin_data"});
  writer.begin_data();
  for (std::size_t i = file.tensors().size(); i-- > 0;) {
    const std::span<const std::byte> data = file.tensors()[i].data;
    const std::size_t half = data.size() / 2;
    writer.write_at(i, half, data.subspan(half));
    if (i == 0) expect_error<LogicError>([&] { writer.commit(); }, {"bytes were written"});
    writer.write_at(i, 0, data.first(half));
    expect_error<LogicError>([&] { writer.write_at(i, data.size(), {&one, 1}); }, {"1 bytes at"});
  }
  writer.commit();
  EXPECT_EQ(slurp(folder / "copy.gguf"), slurp(fixture("mixed.gguf")));
}

TEST(Gguf, TypedAddersRoundTrip) {
  TemporaryFolder folder;
  const std::string strings[] = {"x", "", "yy"};
  const std::int32_t ints[] = {-1, std::numeric_limits<std::int32_t>::max()};
  const std::uint32_t unsigneds[] = {0xffffffffu};
  const float floats[] = {1.5f, -0.0f};
  const bool bools[] = {false, true};
  {
    GgufWriter writer(folder / "a.gguf", 64);
    writer.add_u8("u8", 7);
    writer.add_i32("i32", -7);
    writer.add_u64("u64", ~std::uint64_t{0});
    writer.add_string("s", "t");
    writer.add_string_array("strings", strings);
    writer.add_i32_array("ints", ints);
    writer.add_u32_array("unsigneds", unsigneds);
    writer.add_f32_array("floats", floats);
    writer.add_bool_array("bools", bools);
    writer.add_string_array("none", {});
    writer.declare_tensor("empty", GgmlType::F32, Shape{0});
    writer.declare_tensor("a", GgmlType::I8, Shape{3});
    writer.declare_tensor("b", GgmlType::I8, Shape{2, 1});
    writer.write(std::as_bytes(std::span("12345", 5)));
    writer.commit();
  }
  const GgufFile file(folder / "a.gguf");
  EXPECT_EQ(file.alignment(), 64u);
  EXPECT_EQ(file.get_u64("u64"), ~std::uint64_t{0});
  EXPECT_EQ(file.get_string("s"), "t");
  EXPECT_EQ(file.get_string_array("strings")[2], "yy");
  EXPECT_EQ(file.get_int_array("ints"), (std::vector<std::int64_t>{-1, 2147483647}));
  EXPECT_EQ(file.get_int_array("unsigneds"), (std::vector<std::int64_t>{4294967295}));
  EXPECT_TRUE(std::signbit(file.get_f32_array("floats")[1]));
  EXPECT_EQ(file.get_int_array("bools"), (std::vector<std::int64_t>{0, 1}));
  EXPECT_TRUE(file.get_string_array("none").empty());
  EXPECT_EQ(elements<char>(file.at("a").data), (std::vector<char>{'1', '2', '3'}));
  EXPECT_EQ(elements<char>(file.at("b").data), (std::vector<char>{'4', '5'}));
  EXPECT_TRUE(file.at("empty").data.empty());
  EXPECT_EQ(slurp(folder / "a.gguf").size() % 64, 0u);
}

TEST(Gguf, WriterChecksItsCaller) {
  TemporaryFolder folder;
  const std::vector<std::byte> bytes(9);
  spill(folder / "a.gguf", "earlier");
  {
    GgufWriter writer(folder / "a.gguf");
    writer.add_u32("k", 1);
    expect_error<LogicError>([&] { writer.add_f32("k", 1); }, {"\"k\"", "twice"});
    writer.declare_tensor("a", GgmlType::F32, Shape{2});
    expect_error<LogicError>([&] { writer.declare_tensor("a", GgmlType::F32, Shape{2}); }, {"\"a\"", "twice"});
    expect_error<LogicError>([&] { writer.declare_tensor("q", GgmlType::Q4_0, Shape{2, 33}); }, {"33"});
    expect_error<LogicError>([&] { writer.declare_tensor("r", GgmlType::F32, Shape{1, 1, 1, 1, 1}); }, {"dimensions"});
    expect_error<LogicError>([&] { writer.declare_tensor(std::string(64, 'n'), GgmlType::F32, Shape{1}); }, {"63"});
    expect_error<LogicError>([&] { writer.write(bytes); }, {"1 bytes more"});
    expect_error<LogicError>([&] { writer.add_u32("l", 1); }, {"\"l\"", "after"});
    expect_error<LogicError>([&] { writer.declare_tensor("b", GgmlType::F32, Shape{2}); }, {"\"b\"", "after"});
  }
  {
    GgufWriter writer(folder / "a.gguf");
    writer.declare_tensor("a", GgmlType::F32, Shape{2});
    writer.write(std::span(bytes).first(3));
    expect_error<LogicError>([&] { writer.commit(); }, {"\"a\"", "3 of 8"});
  }
  expect_error<LogicError>([&] { GgufWriter(folder / "b.gguf", 48); }, {"alignment 48"});
  EXPECT_EQ(slurp(folder / "a.gguf"), "earlier");
  expect_error<IoError>([&] { GgufWriter(folder / "none" / "b.gguf"); }, {"b.gguf", "create"});
}

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string whole = slurp(fixture("mixed.gguf"));
  const GgufFile file(fixture("mixed.gguf"));
  std::size_t end = whole.size();  // of the last tensor, before its padding
  while (whole[end - 1] == '\0') --end;
  for (std::size_t n = 0; n < end; ++n) expect_bad(whole.substr(0, n), {"m.gguf"});
}

TEST(Gguf, NoFlippedBitEscapes) {
  const std::string whole = slurp(fixture("mixed.gguf"));
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string file = whole;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
    const Bytes bytes(file);
    try {
      const auto parsed = GgufFile::parse(bytes.span(), "m.gguf");
      for (const auto& t : parsed.tensors()) ASSERT_LE(t.data.size(), file.size());
    } catch (const Error&) {  // BadFile or Unsupported; anything else fails the test
    }
  }
}

TEST(Gguf, RefusesBadHeads) {
  EXPECT_NO_THROW(GgufFile::parse(Bytes(head(0, 0)).span(), "m"));
  EXPECT_NO_THROW(GgufFile::parse(Bytes(head(0, 0, 2)).span(), "m"));
  expect_bad("", {"magic"});
  expect_bad("GGML" + head(0, 0).substr(4), {"GGUF"});
  expect_bad(head(0, 0, 4), {"version 2 or 3", "4"});
  expect_bad(head(0, 0, 0), {"version 2 or 3", "0"});
  expect_error<Unsupported>([] { GgufFile::parse(Bytes(head(0, 0, 1)).span(), "m"); }, {"version 1"});
  expect_error<Unsupported>([] { GgufFile::parse(Bytes(head(0, 0, 3u << 24)).span(), "m"); }, {"big-endian"});
  expect_bad(head(0, ~std::uint64_t{0}), {"18446744073709551615 keys cannot fit"});
  expect_bad(head(~std::uint64_t{0}, 0), {"18446744073709551615 tensors cannot fit"});
  expect_bad(head(1, 0), {"1 tensors cannot fit"});
}

TEST(Gguf, RefusesBadValues) {
  const auto value = [](GgufType type, const std::string& payload) {
    return head(0, 1) + text("k") + packed(type) + payload;
  };
  expect_bad(value(static_cast<GgufType>(13), "12345678"), {"\"k\"", "13"});
  expect_bad(value(GgufType::Bool, "\2"), {"\"k\"", "0 or 1", "2"});
  expect_bad(value(GgufType::String, packed(~std::uint64_t{0}) + "x"), {"k of 18446744073709551615 bytes"});
  expect_bad(value(GgufType::Array, packed(GgufType::U32) + packed(~std::uint64_t{0})),
             {"\"k\"", "an array of 18446744073709551615 u32"});
  expect_bad(value(GgufType::Array, packed(GgufType::U64) + packed(std::uint64_t{1} << 61) + "12345678"), {"cannot fit"});
  expect_bad(value(GgufType::Array, packed(GgufType::String) + packed(std::uint64_t{2}) + text("a")), {"cannot fit"});
  expect_bad(value(GgufType::Array, packed(GgufType::Bool) + packed(std::uint64_t{2}) + "\1\3"), {"0 or 1", "3"});
  const Bytes nested(value(GgufType::Array, packed(GgufType::Array) + packed(std::uint64_t{0})));
  expect_error<Unsupported>([&] { GgufFile::parse(nested.span(), "m"); }, {"\"k\"", "array of arrays"});
  expect_bad(head(0, 1) + text("") + packed(GgufType::U32) + packed(1u), {"a key of 0 bytes"});
  expect_bad(head(0, 1) + pair_u32(std::string(70000, 'k'), 1), {"a key of 70000 bytes"});
  expect_bad(head(0, 2) + pair_u32("k", 1) + pair_u32("k", 2), {"\"k\"", "twice"});
  for (const std::uint32_t alignment : {0u, 3u, 33u, 1u << 31}) {
    expect_bad(head(0, 1) + pair_u32("general.alignment", alignment),
               {"general.alignment", "power of two", std::to_string(alignment)});
  }
  expect_bad(head(0, 1) + text("general.alignment") + packed(GgufType::F32) + packed(32.0f),
             {"general.alignment", "f32 32"});
}

TEST(Gguf, RefusesBadTensors) {
  const auto one = [](const std::string& info, std::size_t data) { return with_data(head(1, 0) + info, data); };
  const std::uint64_t huge = std::uint64_t{1} << 40, f32 = 0;
  EXPECT_NO_THROW(GgufFile::parse(Bytes(one(tensor("a", {2, 3}, f32, 0), 24)).span(), "m"));
  EXPECT_NO_THROW(GgufFile::parse(Bytes(one(tensor("a", {}, f32, 0), 4)).span(), "m"));
  expect_bad(one(tensor("a", {1, 1, 1, 1, 1}, f32, 0), 4), {"\"a\"", "at most 4", "5"});
  expect_bad(one(text("a") + packed(~0u), 64), {"\"a\"", "at most 4"});
  expect_bad(one(tensor("a", {huge, huge}, f32, 0), 4), {"\"a\"", "overflow"});
  expect_bad(one(tensor("a", {~std::uint64_t{0}}, f32, 0), 4), {"\"a\"", "negative"});
  expect_bad(one(tensor("a", {std::uint64_t{1} << 60}, f32, 0), 64), {"\"a\"", "cannot fit"});
  expect_bad(one(tensor("a", {huge}, f32, 0), 4), {"\"a\"", "cannot fit"});
  expect_bad(one(tensor("a", {48, 2}, 2, 0), 64), {"\"a\"", "rows of 48", "Q4_0", "32"});
  expect_bad(one(tensor("a", {2}, 4, 0), 8), {"\"a\"", "unknown ggml type 4"});
  expect_bad(one(tensor("a", {2}, 99, 0), 8), {"\"a\"", "unknown ggml type 99"});
  expect_bad(one(tensor("a", {2}, f32, 0), 7), {"\"a\"", "8 bytes at offset 0", "7 bytes", "truncated"});
  expect_bad(one(tensor("a", {2}, f32, 16), 64), {"\"a\"", "multiple of 32", "16"});
  expect_bad(one(tensor("a", {2}, f32, 32), 39), {"\"a\"", "8 bytes at offset 32"});
  expect_bad(one(tensor("a", {2}, f32, ~std::uint64_t{31}), 64), {"\"a\"", "offset 18446744073709551584"});
  const auto two = [](const char* name, std::uint64_t offset) {
    return with_data(head(2, 0) + tensor("a", {10}, 0, 32) + tensor(name, {10}, 0, offset), 160);
  };
  EXPECT_NO_THROW(GgufFile::parse(Bytes(two("b", 96)).span(), "m"));
  expect_bad(two("b", 32), {"\"a\"", "\"b\"", "overlap"});
  expect_bad(two("b", 64), {"\"a\"", "\"b\"", "overlap"});
  expect_bad(two("b", 0), {"\"a\"", "\"b\"", "overlap"});
  expect_bad(two("a", 96), {"\"a\"", "twice"});
}

}  // namespace
}  // namespace temper::files
