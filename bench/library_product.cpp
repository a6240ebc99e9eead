#include "library_product.h"

#include <dnnl.hpp>

namespace temper::bench {
namespace {

using Memory = dnnl::memory;

Memory::data_type type_of(DType dtype) {
  if (dtype == DType::U8) return Memory::data_type::u8;
  return dtype == DType::BF16 ? Memory::data_type::bf16 : Memory::data_type::f32;
}

/// Bytes that are small values in either dtype: zeros and subnormal numbers may take another time.
void fill(Memory& memory) {
  auto* bytes = static_cast<unsigned char*>(memory.get_data_handle());
  for (std::size_t i = 0; i < memory.get_desc().get_size(); ++i)
    bytes[i] = static_cast<unsigned char>(i % 2 ? 0x3c : i * 37 >> 2);
}

}  // namespace

struct LibraryProduct::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul primitive;
  Memory a, b, c;
};

LibraryProduct::LibraryProduct(const ProductShape& s) : impl_(new Impl) {
  const Memory::desc a({s.m, s.k}, type_of(s.in), s.transpose_a ? Memory::dims{1, s.m} : Memory::dims{s.k, 1});
  const bool bytes = s.in == DType::U8;
  const Memory::desc b({s.k, s.n}, bytes ? Memory::data_type::s8 : type_of(s.in),
                       s.transpose_b ? Memory::dims{1, s.k} : Memory::dims{s.n, 1});
  const Memory::desc c({s.m, s.n}, bytes ? Memory::data_type::s32 : type_of(s.out), {s.n, 1});
#if DNNL_VERSION_MAJOR >= 3
  impl_->primitive = dnnl::matmul({impl_->engine, a, b, c});
#else
  impl_->primitive = dnnl::matmul({dnnl::matmul::desc(a, b, c), impl_->engine});
#endif
  impl_->a = Memory(a, impl_->engine);
  impl_->b = Memory(b, impl_->engine);
  impl_->c = Memory(c, impl_->engine);
  fill(impl_->a);
  fill(impl_->b);
}

LibraryProduct::~LibraryProduct() = default;
LibraryProduct::LibraryProduct(LibraryProduct&&) noexcept = default;

void LibraryProduct::run() {
  impl_->primitive.execute(impl_->stream,
                           {{DNNL_ARG_SRC, impl_->a}, {DNNL_ARG_WEIGHTS, impl_->b}, {DNNL_ARG_DST, impl_->c}});
  impl_->stream.wait();
}

}  // namespace temper::bench
