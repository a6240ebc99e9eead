#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <tuple>
#include <vector>

// Under AddressSanitizer, a failed allocation is to fail as it does without, and not to end the process.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace temper {
namespace {

constexpr std::int64_t kHuge = std::int64_t{1} << 60;

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

TEST(DType, NamesAndSizes) {
  for (const auto& [dtype, name, size] : {std::tuple{DType::F64, "F64", 8u},
                                          {DType::F32, "F32", 4u},
                                          {DType::BF16, "BF16", 2u},
                                          {DType::F16, "F16", 2u},
                                          {DType::I64, "I64", 8u},
                                          {DType::I32, "I32", 4u},
                                          {DType::I16, "I16", 2u},
                                          {DType::I8, "I8", 1u},
                                          {DType::U8, "U8", 1u},
                                          {DType::Bool, "BOOL", 1u}}) {
    EXPECT_EQ(dtype_name(dtype), name);
    EXPECT_EQ(dtype_size(dtype), size);
    EXPECT_EQ(dtype_from_name(name), dtype);
  }
  EXPECT_EQ(dtype_from_name("f32"), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
}

TEST(DType, DispatchTakesFloatsOnly) {
  EXPECT_EQ(with_float_type("op", DType::F32, [](auto x) { return sizeof x; }), 4u);
  EXPECT_EQ(with_float_type("op", DType::BF16, [](auto x) { return sizeof x; }), 2u);
  EXPECT_THROW(with_float_type("op", DType::I32, [](auto x) { return sizeof x; }), Unsupported);
}

TEST(Shape, ProductsAndText) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ(Shape{}.str(), "[]");
  EXPECT_EQ((Shape{2, 3, 4}).numel(), 24);
  EXPECT_EQ((Shape{2, 3}).str(), "[2, 3]");
  EXPECT_EQ((Shape{5, 0}).numel(), 0);
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
}

TEST(Shape, RefusesNegativeAndOverflowingExtents) {
  EXPECT_THROW((Shape{2, -1}), LogicError);
  EXPECT_THROW((Shape{kHuge, 2}), LogicError);
  EXPECT_EQ((Shape{kHuge}).numel(), kHuge);
  EXPECT_EQ(checked_product({3, 4}), 12);
  EXPECT_EQ(checked_product({-1}), -1);
  EXPECT_EQ(checked_product({kHuge, kHuge}), -1);
  EXPECT_EQ(checked_product({kHuge, kHuge, kHuge, kHuge}), -1);
  EXPECT_EQ(checked_product({kHuge, 0}), 0);
  EXPECT_EQ(checked_product({0, kHuge, kHuge}), 0);
  EXPECT_EQ(checked_product({}), 1);
}

TEST(TensorView, SlicesShareMemory) {
  std::vector<float> data(12);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const TensorView view(data.data(), DType::F32, Shape{3, 4});
  EXPECT_EQ(view.rows(), 3);
  EXPECT_EQ(view.cols(), 4);
  EXPECT_EQ(view.bytes(), 48u);

  const TensorView rows = view.slice_rows(1, 3);
  EXPECT_EQ(rows.shape, (Shape{2, 4}));
  EXPECT_EQ(rows.as<float>()[0], 4.0f);
  EXPECT_TRUE(rows.contiguous());

  const TensorView cols = view.slice_cols(2, 4);
  EXPECT_EQ(cols.shape, (Shape{3, 2}));
  EXPECT_EQ(cols.row_stride, 4);
  EXPECT_FALSE(cols.contiguous());
  EXPECT_EQ(cols.as<float>()[cols.row_stride + 1], 7.0f);
  EXPECT_EQ(cols.slice_rows(2, 3).as<float>()[0], 10.0f);
  EXPECT_TRUE(cols.slice_rows(2, 3).contiguous());

  EXPECT_EQ(view.reshape(Shape{2, 6}).as<float>()[6], 6.0f);
  EXPECT_EQ(view.reshape(Shape{2, 6}).row_stride, 6);
}

TEST(TensorView, RefusesWhatDoesNotFit) {
  std::vector<float> data(12);
  const TensorView view(data.data(), DType::F32, Shape{3, 4});
  EXPECT_THROW(view.slice_rows(2, 4), LogicError);
  EXPECT_THROW(view.slice_rows(-1, 2), LogicError);
  EXPECT_THROW(view.slice_rows(2, 1), LogicError);
  EXPECT_THROW(view.slice_cols(0, 5), LogicError);
  EXPECT_THROW(view.reshape(Shape{5, 2}), LogicError);
  EXPECT_THROW(view.slice_cols(0, 2).reshape(Shape{6}), LogicError);
  EXPECT_THROW(view.as<bf16>(), LogicError);
  EXPECT_THROW((TensorView(data.data(), DType::F32, Shape{12}).slice_rows(0, 1)), LogicError);
}

TEST(Tensor, OwnsAlignedMemoryUntilTheLastHandle) {
  Tensor a(DType::F32, Shape{3, 5}, true);
  EXPECT_TRUE(aligned(a->data));
  for (const float x : a.span<float>()) EXPECT_EQ(x, 0.0f);
  a.span<float>()[14] = 2.0f;
  const Tensor b = a;
  a = Tensor();
  EXPECT_FALSE(a);
  EXPECT_EQ(b.span<float>()[14], 2.0f);
  EXPECT_TRUE(Tensor(DType::U8, Shape{0}));
}

TEST(Tensor, TooLargeIsOutOfMemory) { EXPECT_THROW(Tensor(DType::F64, Shape{kHuge}), OutOfMemory); }

TEST(Arena, HandsOutAlignedPiecesAndRunsDry) {
  Arena arena(1000);  // 1024 after rounding
  const TensorView a = arena.allocate(DType::F32, Shape{3});
  const TensorView b = arena.allocate(DType::U8, Shape{65});
  EXPECT_TRUE(aligned(a.data));
  EXPECT_TRUE(aligned(b.data));
  EXPECT_EQ(static_cast<std::byte*>(b.data) - static_cast<std::byte*>(a.data), 64);
  EXPECT_EQ(arena.mark(), 192u);
  EXPECT_THROW(arena.allocate(DType::U8, Shape{833}), OutOfMemory);
  EXPECT_THROW(arena.allocate(DType::F64, Shape{kHuge}), OutOfMemory);
  EXPECT_EQ(arena.mark(), 192u);
  EXPECT_NO_THROW(arena.allocate(DType::U8, Shape{832}));
  EXPECT_EQ(arena.peak(), 1024u);
}

TEST(Arena, ScopesGiveBackAndThePeakStays) {
  Arena arena(4096);
  const void* first = nullptr;
  {
    const ArenaScope outer(arena);
    first = arena.allocate(DType::F32, Shape{16}).data;
    {
      const ArenaScope inner(arena);
      arena.allocate(DType::U8, Shape{1000});
    }
    EXPECT_EQ(arena.mark(), 64u);
  }
  EXPECT_EQ(arena.mark(), 0u);
  EXPECT_EQ(arena.peak(), 64u + 1024u);
  EXPECT_EQ(arena.allocate(DType::F32, Shape{1}).data, first);
}

TEST(Arena, DryRunCountsWhatARealOneNeeds) {
  const auto schedule = [](Arena& arena) {
    const ArenaScope scope(arena);
    arena.allocate(DType::F32, Shape{100, 7});
    for (int i = 0; i < 3; ++i) {
      const ArenaScope inner(arena);
      arena.allocate(DType::BF16, Shape{50 * (i + 1)});
    }
  };
  Arena dry;
  EXPECT_TRUE(dry.dry());
  schedule(dry);
  EXPECT_EQ(dry.peak(), 2816u + 320u);
  EXPECT_TRUE(dry.allocate(DType::F32, Shape{1}));
  Arena real(2816 + 320);
  EXPECT_FALSE(real.dry());
  schedule(real);
  EXPECT_EQ(real.peak(), 2816u + 320u);
  Arena small(2816 + 320 - 64);
  EXPECT_THROW(schedule(small), OutOfMemory);
}

}  // namespace
}  // namespace temper
