#include "files/safetensors.h"

#include <sys/resource.h>

#include <csignal>

#include "files_support.h"

namespace temper::files {
namespace {

using temper::testing::slurp;
using temper::testing::spill;
using temper::testing::TemporaryFolder;

std::string raw(const std::string& header, std::size_t data_bytes) {
  return packed(std::uint64_t{header.size()}) + header + std::string(data_bytes, 'd');
}

void expect_bad(const std::string& file, const std::vector<std::string>& parts) {
  const Bytes bytes(file);
  expect_error<BadFile>([&] { SafetensorsFile::parse(bytes.span(), "m.safetensors"); }, parts);
}

TEST(Safetensors, ReadsWhatThePackageWrote) {
  const SafetensorsFile file(fixture("mixed.safetensors"));
  ASSERT_EQ(file.tensors().size(), 7u);
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"note", "ünï"}}));

  const auto& embed = file.at("model.embed.weight");
  EXPECT_EQ(embed.dtype, DType::F32);
  EXPECT_EQ(embed.shape, (Shape{5, 4}));
  const auto values = elements<float>(embed.data);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(values[i], static_cast<float>(i) - 10.0f);
  const auto half = elements<f16>(file.at("model.half").data);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(to_float(half[i]), static_cast<float>(i) - 3.0f);

  EXPECT_EQ(file.at("model.scalar").shape.rank(), 0u);
  EXPECT_EQ(elements<double>(file.at("model.scalar").data), std::vector{7.5});
  EXPECT_EQ(file.at("model.empty").shape, (Shape{0, 4}));
  EXPECT_TRUE(file.at("model.empty").data.empty());
  EXPECT_EQ(file.at("flags").dtype, DType::Bool);
  EXPECT_EQ(elements<std::int64_t>(file.at("ids").data), (std::vector<std::int64_t>{-1, 0, 1}));
  EXPECT_EQ(elements<std::int8_t>(file.at("bytes").data), (std::vector<std::int8_t>{-3, -2, -1, 0, 1, 2, 3}));

  EXPECT_EQ(file.find("nope"), nullptr);
  expect_error<BadFile>([&] { file.at("nope"); }, {"mixed.safetensors", "\"nope\"", "missing"});
}

TEST(Safetensors, WritesTheBytesThatThePackageWrites) {
  TemporaryFolder folder;
  const SafetensorsFile file(fixture("mixed.safetensors"));
  std::vector<SafetensorsEntry> entries;
  for (const auto& t : file.tensors()) entries.push_back({t.name, t.dtype, t.shape});
  SafetensorsWriter writer(folder / "copy.safetensors", entries, file.metadata());
  for (const auto& t : file.tensors()) writer.write(t.data);
  EXPECT_FALSE(std::filesystem::exists(folder / "copy.safetensors"));
  writer.commit();
  EXPECT_EQ(slurp(folder / "copy.safetensors"), slurp(fixture("mixed.safetensors")));
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string whole = slurp(fixture("mixed.safetensors"));
  for (std::size_t n = 0; n < whole.size(); ++n) expect_bad(whole.substr(0, n), {"m.safetensors"});
  expect_bad(whole + "x", {"bytes of data"});
}

TEST(Safetensors, NoFlippedBitEscapes) {
  const std::string whole = slurp(fixture("mixed.safetensors"));
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string file = whole;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
    const Bytes bytes(file);
    try {
      const auto parsed = SafetensorsFile::parse(bytes.span(), "m.safetensors");
      for (const auto& t : parsed.tensors())
        ASSERT_EQ(t.data.size(), static_cast<std::size_t>(t.shape.numel()) * dtype_size(t.dtype));
    } catch (const Error&) {  // BadFile or Unsupported; anything else fails the test
    }
  }
}

TEST(Safetensors, RefusesBadHeaders) {
  expect_bad("", {"too short"});
  expect_bad("1234567", {"too short"});
  expect_bad(packed(~std::uint64_t{0}), {"header of"});
  expect_bad(packed(std::uint64_t{99'999'999}) + "{}", {"header of 99999999 bytes in a file of 10"});
  expect_bad(raw("[]", 0), {"expected an object"});
  expect_bad(raw("{\"a\":", 0), {"header", "not valid JSON"});
  expect_bad(raw(R"({"__metadata__":{"a":1}})", 0), {"__metadata__", "\"a\"", "a string"});
  expect_bad(raw(R"({"__metadata__":[]})", 0), {"__metadata__", "an object"});
  expect_bad(raw(R"({"a":5})", 0), {"tensor \"a\"", "dtype"});
  EXPECT_NO_THROW(SafetensorsFile::parse(Bytes(raw("{}", 0)).span(), "m"));
}

TEST(Safetensors, RefusesBadEntries) {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets, std::size_t data) {
    return raw(R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", data);
  };
  EXPECT_NO_THROW(SafetensorsFile::parse(Bytes(entry("\"F32\"", "[2]", "[0,8]", 8)).span(), "m"));
  expect_bad(entry("\"F33\"", "[2]", "[0,8]", 8), {"tensor \"a\"", "dtype", "F33"});
  expect_bad(entry("7", "[2]", "[0,8]", 8), {"dtype", "a string"});
  expect_bad(entry("\"F32\"", "[-2]", "[0,8]", 8), {"shape", "-2"});
  expect_bad(entry("\"F32\"", "[2.0]", "[0,8]", 8), {"shape"});
  expect_bad(entry("\"F32\"", "2", "[0,8]", 8), {"shape", "an array"});
  expect_bad(entry("\"F32\"", "[18446744073709551615]", "[0,8]", 8), {"shape"});
  expect_bad(entry("\"F32\"", "[4294967296,4294967296]", "[0,8]", 8), {"shape", "overflow"});
  expect_bad(entry("\"F32\"", "[1152921504606846977]", "[0,8]", 8), {"shape", "overflow"});  // 2^60 + 1
  expect_bad(entry("\"F32\"", "[2]", "[0,7]", 8), {"expected 2 elements", "7 bytes"});
  expect_bad(entry("\"F32\"", "[3]", "[0,8]", 8), {"expected 3 elements", "8 bytes"});
  expect_bad(entry("\"F32\"", "[2]", "[0,8]", 7), {"data_offsets [0, 8]", "7 bytes"});
  expect_bad(entry("\"F32\"", "[2]", "[8,0]", 8), {"data_offsets"});
  expect_bad(entry("\"F32\"", "[2]", "[-8,0]", 8), {"data_offsets"});
  expect_bad(entry("\"F32\"", "[2]", "[0]", 8), {"data_offsets", "two"});
  expect_bad(entry("\"F32\"", "[2]", "[18446744073709551608,18446744073709551615]", 8), {"data_offsets"});
  expect_bad(entry("\"F32\"", "[1]", "[4,8]", 8), {"offset 0", "found 4"});
  expect_bad(entry("\"F32\"", "[1]", "[0,4]", 8), {"end at offset 4 of 8"});
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "F8_E8M0"})
    EXPECT_NO_THROW(SafetensorsFile::parse(Bytes(entry('"' + std::string(dtype) + '"', "[8]", "[0,8]", 8)).span(), "m"));
  for (const char* dtype : {"F8_E4M3FNUZ", "F6_E2M3", "U16", "U32", "F4"}) {
    const Bytes bytes(entry('"' + std::string(dtype) + '"', "[8]", "[0,8]", 8));
    expect_error<Unsupported>([&] { SafetensorsFile::parse(bytes.span(), "m"); }, {"tensor \"a\"", dtype});
  }
}

TEST(Safetensors, RefusesOverlapsHolesAndDuplicates) {
  const auto two = [](const char* b_name, const char* b_offsets, std::size_t data) {
    return raw(std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},")") + b_name +
                   R"(":{"dtype":"U8","shape":[4],"data_offsets":)" + b_offsets + "}}",
               data);
  };
  EXPECT_NO_THROW(SafetensorsFile::parse(Bytes(two("b", "[4,8]", 8)).span(), "m"));
  expect_bad(two("b", "[2,6]", 6), {"tensor \"b\"", "offset 4", "found 2"});
  expect_bad(two("b", "[0,4]", 4), {"offset 4", "found 0"});
  expect_bad(two("b", "[5,9]", 9), {"offset 4", "found 5"});
  expect_bad(two("a", "[4,8]", 8), {"\"a\"", "twice"});
}

TEST(Safetensors, WriterChecksItsCaller) {
  TemporaryFolder folder;
  const std::vector<SafetensorsEntry> entries{{"a", DType::F32, Shape{2}}};
  const std::vector<std::byte> bytes(9);
  SafetensorsWriter writer(folder / "a.safetensors", entries);
  expect_error<LogicError>([&] { writer.write(bytes); }, {"1 bytes more"});
  writer.write(std::span(bytes).first(3));
  expect_error<LogicError>([&] { writer.commit(); }, {"5 declared bytes"});
  expect_error<LogicError>([&] { SafetensorsWriter(folder / "b.safetensors", {entries[0], entries[0]}); }, {"twice"});
}

TEST(Safetensors, AbandonedOrFailedWritesLeaveTheEarlierFile) {
  TemporaryFolder folder;
  const auto path = folder / "a.safetensors";
  spill(path, "earlier");
  const std::vector<SafetensorsEntry> entries{{"a", DType::U8, Shape{1 << 16}}};
  { SafetensorsWriter writer(path, entries); }
  EXPECT_EQ(slurp(path), "earlier");

  // A limit on the size of files stands in for a full disk: write(2) fails half-way.
  rlimit saved{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &saved), 0);
  const rlimit small{4096, saved.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error<IoError>(
      [&] {
        SafetensorsWriter writer(path, entries);
        writer.write(std::vector<std::byte>(1 << 16));
        writer.commit();
      },
      {"a.safetensors", "write"});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &saved), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(slurp(path), "earlier");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

/// Writes tensors a (8 bytes), b (8), c (4), e (0) as shards of up to `limit` bytes, in pieces of 3.
void write_shards(const std::filesystem::path& folder, std::size_t limit) {
  ShardedSafetensorsWriter writer(
      folder,
      {{"a", DType::F32, Shape{2}}, {"b", DType::I64, Shape{1}}, {"c", DType::U8, Shape{4}}, {"e", DType::U8, Shape{0}}},
      {{"format", "pt"}}, limit);
  const std::string data = "aaaaAAAAbbbbBBBBcccc";
  for (std::size_t i = 0; i < data.size(); i += 3)
    writer.write(std::as_bytes(std::span(data).subspan(i, std::min<std::size_t>(3, data.size() - i))));
  writer.commit();
}

TEST(ShardedSafetensors, RoundTrip) {
  TemporaryFolder folder;
  for (const std::size_t limit : {1u, 8u, 12u, 16u, 100u}) {
    write_shards(folder.path(), limit);
    const ShardedSafetensors model(folder.path());
    ASSERT_EQ(model.tensors().size(), 4u) << limit;
    EXPECT_EQ(elements<char>(model.at("a").data), (std::vector<char>{'a', 'a', 'a', 'a', 'A', 'A', 'A', 'A'}));
    EXPECT_EQ(elements<char>(model.at("b").data), (std::vector<char>{'b', 'b', 'b', 'b', 'B', 'B', 'B', 'B'}));
    EXPECT_EQ(elements<char>(model.at("c").data), (std::vector<char>{'c', 'c', 'c', 'c'}));
    EXPECT_EQ(model.at("e").shape, (Shape{0}));
    EXPECT_EQ(model.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
    EXPECT_EQ(std::filesystem::exists(folder / "model.safetensors"), limit == 100) << limit;
    EXPECT_EQ(std::filesystem::exists(folder / "model.safetensors.index.json"), limit != 100) << limit;
  }
}

TEST(ShardedSafetensors, AWriterWithoutItsBytesWritesNothing) {
  TemporaryFolder folder;
  ShardedSafetensorsWriter writer(folder.path(), {{"a", DType::U8, Shape{4}}, {"b", DType::U8, Shape{4}}}, {}, 4);
  writer.write(std::vector<std::byte>(4));
  expect_error<LogicError>([&] { writer.commit(); }, {"model-00002-of-00002.safetensors", "not written"});
  EXPECT_FALSE(std::filesystem::exists(folder / "model-00001-of-00002.safetensors"));
  writer.write(std::vector<std::byte>(4));
  expect_error<LogicError>([&] { writer.write(std::vector<std::byte>(1)); }, {"1 bytes more"});
  writer.commit();
  EXPECT_EQ(ShardedSafetensors(folder.path()).tensors().size(), 2u);
}

TEST(ShardedSafetensors, RefusesBadFolders) {
  TemporaryFolder folder;
  expect_error<BadFile>([&] { ShardedSafetensors model(folder.path()); }, {"neither model.safetensors nor"});
  write_shards(folder.path(), 8);
  const auto index = folder / "model.safetensors.index.json";
  const std::string good = slurp(index);
  const auto with_index = [&](const std::string& text, const std::vector<std::string>& parts) {
    spill(index, text);
    expect_error<BadFile>([&] { ShardedSafetensors model(folder.path()); }, parts);
  };
  with_index("{}", {"index.json", "weight_map"});
  with_index(R"({"weight_map": {"a": 3}})", {"weight_map", "a string"});
  for (const char* name : {"../model.safetensors", "/etc/passwd", "x/y.safetensors", "..", "", "a\\u0000b"})
    with_index(std::string(R"({"weight_map": {"a": ")") + name + "\"}}", {"in the same folder"});
  with_index(R"({"weight_map": {"a": "model-00009-of-00003.safetensors"}})", {"model-00009-of-00003.safetensors"});
  with_index(R"({"weight_map": {"zz": "model-00001-of-00003.safetensors"}})", {"\"zz\"", "missing"});

  spill(index, good);
  std::filesystem::copy_file(folder / "model-00001-of-00003.safetensors", folder / "copy.safetensors");
  with_index(
      R"({"weight_map": {"a": "copy.safetensors", "b": "model-00002-of-00003.safetensors", "c": "model-00001-of-00003.safetensors"}})",
      {"\"c\"", "missing"});
  spill(folder / "empty.safetensors",
        raw(R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
            0));
  with_index(R"({"weight_map": {"a": "model-00001-of-00003.safetensors", "x": "empty.safetensors"}})",
             {"\"a\"", "two shards"});
}

}  // namespace
}  // namespace temper::files
