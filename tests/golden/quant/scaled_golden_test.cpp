// Integers and small floats against the packages that store them (tools/oracles/make_scaled_goldens.py): codes, scales, zero
// points and tensor-wide numbers, by the scalar definition and by the fast path of every instruction set, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>

#include "arrays.h"
#include "quant/double_quant.h"
#include "quant/formats.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

const std::map<std::string, Array>& goldens() {
  static const std::map<std::string, Array> arrays = read_arrays("scaled.bin");
  return arrays;
}

struct Weights {
  std::int64_t rows, cols;
  std::vector<float> values;
};

/// The input of a format's golden, in the type that the peer was given.
Weights weights_of(const std::string& name) {
  const bool tall = name.find("b128") != std::string::npos;
  const Array& array = goldens().at(tall ? "tall" : name == "nf4-dq" ? "many" : "w");
  Weights w{array.rows, array.row_size() / 2, {}};
  if (name.starts_with("fp8-e4m3-b128")) w.rows = 128;
  for (std::int64_t i = 0; i < w.rows * w.cols; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, array.bytes.data() + i * 2, sizeof(bits));
    const float x = to_float(bf16{bits});
    w.values.push_back(name.ends_with("-f16") ? to_float(to_f16(x)) : x);
  }
  // torchao makes NaN of rows of zeros in fp8 by rows; its golden has ones there.
  for (std::int64_t r = 0; r < w.rows && (name.starts_with("fp8-") && !tall && name.find("tensor") == std::string::npos &&
                                          name.find("-ct") == std::string::npos);
       ++r) {
    const auto row = std::span(w.values).subspan(r * w.cols, w.cols);
    if (std::ranges::all_of(row, [](float x) { return x == 0.0f; })) std::ranges::fill(row, 1.0f);
  }
  return w;
}

std::vector<std::byte> encode(const Codec& codec, Weights& w) {
  const std::size_t bytes = codec.row_bytes(w.cols);
  const auto per_row = static_cast<std::size_t>(codec.params_per_row(w.cols)), n = static_cast<std::size_t>(w.cols);
  std::vector<float> params(static_cast<std::size_t>(w.rows) * per_row);
  std::vector<std::byte> encoded(static_cast<std::size_t>(w.rows) * bytes);
  for (std::size_t r = 0; r < static_cast<std::size_t>(w.rows); ++r)
    codec.fit(std::span(w.values).subspan(r * n, n), std::span(params).subspan(r * per_row, per_row));
  codec.join(params, w.rows, w.cols);
  for (std::size_t r = 0; r < static_cast<std::size_t>(w.rows); ++r)
    codec.round(std::span(w.values).subspan(r * n, n), std::span(params).subspan(r * per_row, per_row),
                std::span(encoded).subspan(r * bytes, bytes));
  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    std::vector<std::byte> fast(encoded.size());
    codec.encode_rows(TensorView(w.values.data(), DType::F32, {w.rows, w.cols}), fast);
    expect_same_bytes(fast, encoded, bytes, fmt::format("{} on {}", codec.name(), isa_name(isa)));
  }
  set_row_kernels(active_isa());
  return encoded;
}

/// Element i of a golden's codes: a byte, or a nibble with its sign where integers have one.
std::int32_t golden_code(const Array& codes, std::int64_t cols, bool integer, std::int64_t r, std::int64_t i) {
  if (codes.row_size() == cols) {
    const auto byte = static_cast<std::uint8_t>(codes.row(r)[i]);
    return integer ? static_cast<std::int8_t>(byte) : byte;
  }
  const int nibble = static_cast<int>(codes.row(r)[i / 2]) >> (i % 2 * 4) & 15;
  return integer && nibble > 7 ? nibble - 16 : nibble;
}

class ScaledGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(ScaledGolden, EqualsThePeer) {
  const std::string key = GetParam(), name = key.starts_with("ct.") ? key.substr(3) : key;
  const CodecPtr codec = make_scaled(name);
  ASSERT_TRUE(codec);
  const auto& scaled = dynamic_cast<const ScaledCodec&>(*codec);
  Weights w = weights_of(name);
  const std::vector<std::byte> encoded = encode(*codec, w);
  const Array& codes = goldens().at(key + ".codes");
  const Array& scales = goldens().at(key + ".scales");
  const auto find = [&](const char* kind) {
    const auto found = goldens().find(key + kind);
    return found == goldens().end() ? nullptr : &found->second;
  };
  const Array *zeros = find(".zeros"), *tensor = find(".tensor"), *dq = find(".dq");
  ASSERT_EQ(codes.rows, w.rows);
  std::vector<std::int32_t> found(static_cast<std::size_t>(w.cols));
  std::vector<float> decoded(static_cast<std::size_t>(w.cols));
  for (std::int64_t r = 0; r < w.rows; ++r) {
    const auto row = std::span(encoded).subspan(r * codec->row_bytes(w.cols), codec->row_bytes(w.cols));
    const auto stored = scaled.stored(row, w.cols);
    const std::int64_t scale_row = scales.rows == w.rows ? r : scales.rows == 1 ? 0 : r / 128;
    const bool bytes = scaled.format().scale_bytes() == 1;
    for (std::size_t g = 0; g < stored.scales.size(); ++g) {
      const auto at = scales.row(scale_row);
      if (bytes) {
        ASSERT_EQ(stored.scale_bytes[g], static_cast<std::uint8_t>(at[g])) << key << ": scale of row " << r << ", " << g;
      } else {
        float scale;
        std::memcpy(&scale, at.data() + g * sizeof(float), sizeof(float));
        ASSERT_EQ(stored.scales[g], scale) << key << ": scale of row " << r << ", " << g;
      }
      if (!zeros) continue;
      if (zeros->row_size() == static_cast<std::int64_t>(stored.scales.size())) {
        ASSERT_EQ(stored.zeros[g], static_cast<std::int8_t>(zeros->row(r)[g])) << key << ": zero of row " << r << ", " << g;
      } else {
        float zero;
        std::memcpy(&zero, zeros->row(r).data() + g * sizeof(float), sizeof(float));
        ASSERT_EQ(stored.shifts[g], zero) << key << ": zero of row " << r << ", " << g;
      }
    }
    if (tensor) {
      float found_tensor;
      std::memcpy(&found_tensor, stored.header.data(), sizeof(float));
      ASSERT_EQ(found_tensor, tensor->floats()[0]) << key;
    }
    codec->codes(row, found);
    for (std::int64_t i = 0; i < w.cols; ++i)
      ASSERT_EQ(found[i], golden_code(codes, w.cols, scaled.format().integer(), r, i))
          << key << ": row " << r << ", column " << i << ": " << w.values[r * w.cols + i];
    if (!dq || r >= dq->rows) continue;
    codec->decode(row, decoded);
    const std::vector<float> expected = dq->floats();
    for (std::int64_t i = 0; i < w.cols; ++i) {
      const float x = decoded[i];  // peers give the type of their weights
      const float rounded = name.ends_with("-bf16")  ? to_float(to_bf16(x))
                            : name.ends_with("-f16") ? to_float(to_f16(x))
                                                     : x;
      ASSERT_EQ(rounded, expected[r * w.cols + i]) << key << ": decoded row " << r << ", column " << i;
    }
  }
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& [key, array] : goldens())
    if (key.ends_with(".codes")) names.push_back(key.substr(0, key.size() - 6));
  return names;
}

INSTANTIATE_TEST_SUITE_P(Formats, ScaledGolden, ::testing::ValuesIn(golden_names()), [](const auto& param_info) {
  std::string name = param_info.param;
  std::ranges::replace_if(
      name, [](char c) { return c == '-' || c == '.'; }, '_');
  return name;
});

TEST(ScaledGolden, SymfullFollowsFp8AsInTorchaosFakeQuantizer) {
  for (const std::string name : {"int4-symfull-g128", "int4-symfull-g128-bf16"}) {
    const Array& in = goldens().at(name + ".in");
    Weights w{in.rows, in.row_size() / 4, in.floats()};
    const CodecPtr codec = make_scaled(name);
    const std::vector<std::byte> encoded = encode(*codec, w);
    const std::vector<float> expected = goldens().at(name + ".fq").floats();
    std::vector<float> decoded(w.values.size());
    codec->decode_rows(encoded, TensorView(decoded.data(), DType::F32, {w.rows, w.cols}));
    for (std::size_t i = 0; i < decoded.size(); ++i)
      ASSERT_EQ(name.ends_with("bf16") ? to_float(to_bf16(decoded[i])) : decoded[i], expected[i]) << name << ": " << i;
  }
}

TEST(ScaledGolden, DoubleQuantization) {
  const std::vector<float> map = goldens().at("dynamic").floats();
  EXPECT_TRUE(std::ranges::equal(map, signed_dynamic_map().values()));
  const CodecPtr codec = make_scaled("nf4-dq");
  Weights w = weights_of("nf4-dq");
  const std::vector<std::byte> encoded = encode(*codec, w);
  const auto header =
      dynamic_cast<const ScaledCodec&>(*codec).stored(std::span(encoded).first(codec->row_bytes(576)), 576).header;
  float numbers[2];
  std::memcpy(numbers, header.data(), sizeof(numbers));
  EXPECT_EQ(numbers[0], goldens().at("nf4-dq.offset").floats()[0]);
  EXPECT_EQ(numbers[1], goldens().at("nf4-dq.nested").floats()[0]);
}

TEST(ScaledGolden, ValuesOfEveryCode) {
  const std::pair<const char*, SmallFloat> kinds[] = {
      {"e4m3", kE4M3}, {"e5m2", kE5M2}, {"e2m3", kE2M3}, {"e3m2", kE3M2}, {"e2m1", kE2M1}};
  for (const auto& [name, format] : kinds) {
    const std::vector<float> expected = goldens().at(std::string(name) + ".values").floats();
    ASSERT_EQ(expected.size(), std::size_t{1} << format.bits());
    std::vector<float> found;
    for (unsigned code = 0; code < expected.size(); ++code) {
      found.push_back(to_float(format, code));
      if (std::isfinite(expected[code])) {
        EXPECT_EQ(to_small(format, expected[code]), code) << name;
      }
    }
    expect_same_floats(found, expected, 16, std::string(name));
  }
}

}  // namespace
}  // namespace temper::quant
