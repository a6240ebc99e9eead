// The kernels of one instruction set, as the table needs them. See kernels.h for what each does.
#pragma once

#include "ops/cpu/kernels.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

void convert(Rows in, Rows out, Index rows, Index cols);
void scaled_copy(const float* in, Index in_stride, Rows out, Index rows, Index cols, float alpha, bool accumulate);
void add(Rows a, Rows b, Rows out, Index rows, Index cols);
void scale(float* x, Index n, float factor);
void scale_columns(Rows x, const float* row, Rows out, Index rows, Index cols);
void dropout(Rows x, Rows out, Index rows, Index cols, const Dropout& d);
void rmsnorm(Rows x, const float* weight, float eps, Rows y, float* rstd, Index rows, Index cols);
void rmsnorm_backward(Rows dy, Rows x, const float* weight, const float* rstd, Rows dx, Index rows, Index cols);
void rmsnorm_dweight(Rows dy, Rows x, const float* rstd, float* dweight, Index rows, Index cols);
void rope(Rows x, Index heads, Index head_dim, Index half, const std::int32_t* positions, Rows cos, Rows sin, bool inverse,
          Index rows);
void glu(Gate kind, Rows gate, Rows up, Rows out, Index rows, Index cols);
void glu_backward(Gate kind, Rows gate, Rows up, Rows dout, Rows dgate, Rows dup, Index rows, Index cols);
void softcap(float* x, Index n, float factor, float cap);
void softcap_backward(Rows y, float cap, Rows grad, Index rows, Index cols);
void attention_rows(const AttentionTask& task, Index query_begin, Index query_end);
void attention_pack_rows(Rows x, Index rows, Index head_dim, float* out);
void attention_pack_columns(Rows x, Index rows, Index head_dim, float* out);
void attention_tile(const AttentionTask& task, const AttentionPacked& packed, Index query_tile, float* scratch);
void attention_backward(const AttentionGradTask& task);
void lora_pack(Rows a, Rows b, Index in, Index out, Index rank, float* packed_a, float* packed_b);
void lora_backward(const LoraTask& task, Index begin, Index end);
void cross_entropy(Rows logits, const std::int32_t* targets, float grad_scale, float* nll, Rows dlogits, Index rows,
                   Index cols);
void distill(Rows logits, Rows teacher, const std::int32_t* targets, const DistillFactors& f, float* nll, float* kl,
             Rows dlogits, Index rows, Index cols);
void distill_top(Rows logits, const TopRows& teacher, const std::int32_t* targets, const DistillFactors& f, float* nll,
                 float* kl, Rows dlogits, Index rows, Index cols);
void merge_lora(Rows base, const float* a, Index a_stride, const float* b, Index b_stride, Index rank, float scale,
                const float* gain, Rows out, Index rows, Index cols);
bool all_finite(Rows x, Index rows, Index cols);
void adamw(float* param, const float* grad, float* m, float* v, Index n, const AdamWFactors& f);
void lion(float* param, const float* grad, float* m, Index n, const LionFactors& f);
void stochastic_bf16(const float* in, std::uint16_t* out, Index n, std::uint64_t seed, std::uint64_t stream,
                     std::uint64_t first);
double dot(const float* x, const float* y, Index n);
void few_rows_product(Rows a, Rows b, Rows c, Index m, Index k, float alpha, bool accumulate, Index begin, Index end);

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
