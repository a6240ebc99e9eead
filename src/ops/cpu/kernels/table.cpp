#include "ops/cpu/kernels/local.h"

#define TEMPER_JOIN_(a, b) a##b
#define TEMPER_JOIN(a, b) TEMPER_JOIN_(a, b)

namespace temper::ops::cpu {

const Kernels& TEMPER_JOIN(TEMPER_KERNEL_NS, _kernels)() {
  namespace k = TEMPER_KERNEL_NS;
  static constexpr Kernels kTable = {
      .convert = k::convert,
      .scaled_copy = k::scaled_copy,
      .add = k::add,
      .scale = k::scale,
      .scale_columns = k::scale_columns,
      .dropout = k::dropout,
      .rmsnorm = k::rmsnorm,
      .rmsnorm_backward = k::rmsnorm_backward,
      .rmsnorm_dweight = k::rmsnorm_dweight,
      .rope = k::rope,
      .glu = k::glu,
      .glu_backward = k::glu_backward,
      .softcap = k::softcap,
      .softcap_backward = k::softcap_backward,
      .attention_rows = k::attention_rows,
      .attention_pack_rows = k::attention_pack_rows,
      .attention_pack_columns = k::attention_pack_columns,
      .attention_tile = k::attention_tile,
      .attention_backward = k::attention_backward,
      .lora_pack = k::lora_pack,
      .lora_backward = k::lora_backward,
      .cross_entropy = k::cross_entropy,
      .distill = k::distill,
      .distill_top = k::distill_top,
      .merge_lora = k::merge_lora,
      .all_finite = k::all_finite,
      .adamw = k::adamw,
      .lion = k::lion,
      .stochastic_bf16 = k::stochastic_bf16,
      .dot = k::dot,
      .few_rows_product = k::few_rows_product,
  };
  return kTable;
}

}  // namespace temper::ops::cpu
