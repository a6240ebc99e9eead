#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

TEST(Parts, PutTogetherIsTheInverseOfTakeApart) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (const Codec* codec : codecs()) {
    const ScaledCodec* scaled = as_scaled(codec);
    if (!scaled) continue;
    SCOPED_TRACE(codec->name());
    const std::int64_t rows = 5, cols = 256;
    Tensor values(DType::F32, {rows, cols});
    for (std::int64_t i = 0; i < rows * cols; ++i) values->as<float>()[i] = normal(generator);
    std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec->row_bytes(cols));
    codec->encode_rows(values, encoded);
    ScaledCodec::Parts parts = scaled->take_apart(encoded, rows, cols);
    EXPECT_TRUE(scaled->put_together(parts, rows, cols) == encoded);
    std::vector<std::int32_t> codes(static_cast<std::size_t>(cols));
    for (std::int64_t r = 0; r < rows; ++r) {
      codec->codes(std::span(encoded).subspan(static_cast<std::size_t>(r) * codec->row_bytes(cols), codec->row_bytes(cols)),
                   codes);
      for (std::int64_t i = 0; i < cols; ++i)
        ASSERT_EQ(parts.codes[static_cast<std::size_t>(r * cols + i)],
                  static_cast<std::uint8_t>(codes[static_cast<std::size_t>(i)]));
    }
    parts.codes.pop_back();
    EXPECT_THROW(scaled->put_together(parts, rows, cols), LogicError);
  }
}

}  // namespace
}  // namespace temper::quant
