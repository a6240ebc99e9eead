// The formats' constructors; the table in codecs.cpp calls each once.
#pragma once

#include <cstdint>
#include <memory>

#include "quant/codec.h"

namespace temper::quant {

using CodecPtr = std::unique_ptr<const Codec>;

CodecPtr make_scaled(std::string_view name);  ///< Any format of scaled_format.h, or null.
CodecPtr make_q4_0();
CodecPtr make_q8_0();
CodecPtr make_q4_1();
CodecPtr make_q5_0();
CodecPtr make_q5_1();
CodecPtr make_q2_k();
CodecPtr make_q3_k();
CodecPtr make_q4_k();
CodecPtr make_q5_k();
CodecPtr make_q6_k();
CodecPtr make_iq4_nl();
CodecPtr make_iq4_xs();
CodecPtr make_tq1_0();
CodecPtr make_tq2_0();
CodecPtr make_gguf_mxfp4();
CodecPtr make_gguf_nvfp4();
std::vector<CodecPtr> make_grid_formats();  ///< iq2_xxs … iq1_m, read only.
CodecPtr make_llm_int8();                   ///< Of activations alone: no row of the table.

}  // namespace temper::quant
