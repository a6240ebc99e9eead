#include "library_product.h"

#include <cstring>
#include <dnnl.hpp>
#include <vector>

namespace temper {

using Memory = dnnl::memory;

struct LibraryProduct::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul primitive;
  Memory a, b, c;
};

LibraryProduct::LibraryProduct(DType dtype, std::int64_t m, std::int64_t n, std::int64_t k, bool transpose_b)
    : impl_(new Impl), flops_(2.0 * static_cast<double>(m * n) * static_cast<double>(k)) {
  const auto type = dtype == DType::BF16 ? Memory::data_type::bf16 : Memory::data_type::f32;
  const Memory::desc a({m, k}, type, {k, 1}), b({k, n}, type, transpose_b ? Memory::dims{1, k} : Memory::dims{n, 1});
  const Memory::desc c({m, n}, Memory::data_type::f32, {n, 1});
#if DNNL_VERSION_MAJOR >= 3
  impl_->primitive = dnnl::matmul({impl_->engine, a, b, c});
#else
  impl_->primitive = dnnl::matmul({dnnl::matmul::desc(a, b, c), impl_->engine});
#endif
  impl_->a = Memory(a, impl_->engine);
  impl_->b = Memory(b, impl_->engine);
  impl_->c = Memory(c, impl_->engine);
  // Small values of either dtype: zeros and subnormal numbers may take another time.
  for (Memory* memory : {&impl_->a, &impl_->b}) {
    auto* bytes = static_cast<unsigned char*>(memory->get_data_handle());
    for (std::size_t i = 0; i < memory->get_desc().get_size(); ++i)
      bytes[i] = static_cast<unsigned char>(i % 2 ? 0x3c : i * 37 >> 2);
  }
}

LibraryProduct::~LibraryProduct() = default;
LibraryProduct::LibraryProduct(LibraryProduct&&) noexcept = default;

void LibraryProduct::run() {
  impl_->primitive.execute(impl_->stream,
                           {{DNNL_ARG_SRC, impl_->a}, {DNNL_ARG_WEIGHTS, impl_->b}, {DNNL_ARG_DST, impl_->c}});
  impl_->stream.wait();
}

}  // namespace temper
