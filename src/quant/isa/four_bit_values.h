// Values of the 4-bit formats whose codes stand for no integers (scaled_format.h).
#pragma once

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

constexpr float kThird = 0x1.555556p-2f;
alignas(64) constexpr float kNf4Values[16] = {-1.0f,           -0x1.647362p-1f, -0x1.0cd66p-1f,  -0x1.94654p-2f,
                                              -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f,
                                              0x1.45f5fep-4f,  0x1.4995c6p-3f,  0x1.f809bap-3f,  0x1.5a0674p-2f,
                                              0x1.c3497p-2f,   0x1.200f56p-1f,  0x1.722766p-1f,  1.0f};
alignas(64) constexpr float kFp4Values[16] = {0.0f, kThird / 64,  2 * kThird,  1.0f,  kThird,  0.5f,  kThird / 2,  0.25f,
                                              0.0f, -kThird / 64, -2 * kThird, -1.0f, -kThird, -0.5f, -kThird / 2, -0.25f};
alignas(64) constexpr float kE2M1Values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                               -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
