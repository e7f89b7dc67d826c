// Sixteen lanes in two registers: AVX2 with FMA and F16C, and VNNI where there is that.
//
// Knows instructions only; `simd.h` says what a function of each name does.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dslm {

constexpr bool kIsWide = false;

struct Floats { __m256 a, b; };
struct Ints { __m256i a, b; };
using Bytes = Ints;

inline Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats load(const float* place) { return {_mm256_loadu_ps(place), _mm256_loadu_ps(place + 8)}; }
inline void store(float* place, Floats x) {
    _mm256_storeu_ps(place, x.a);
    _mm256_storeu_ps(place + 8, x.b);
}
inline Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats subtract(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Floats times(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Floats divide(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Floats fused(Floats x, Floats y, Floats z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline Floats larger(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Floats smaller(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Floats magnitude(Floats x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline Floats whole(Floats x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
}
inline __m256 power_of_two(__m256 n) {   // of whole numbers from -126 to 127
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline Floats power_of_two(Floats x, Floats n) {
    return {_mm256_mul_ps(x.a, power_of_two(n.a)), _mm256_mul_ps(x.b, power_of_two(n.b))};
}
inline float sum(Floats x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float largest(Floats x) {
    const __m256 eight = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
inline Floats first(Floats x, int count, float rest) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), kept = _mm256_set1_epi32(count);
    const __m256 other = _mm256_set1_ps(rest);
    const __m256 a = _mm256_castsi256_ps(_mm256_cmpgt_epi32(kept, lanes));
    const __m256 b = _mm256_castsi256_ps(_mm256_cmpgt_epi32(kept, _mm256_add_epi32(lanes, _mm256_set1_epi32(8))));
    return {_mm256_blendv_ps(other, x.a, a), _mm256_blendv_ps(other, x.b, b)};
}

inline Ints no_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints all_ints(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline __m256i load_256(const void* place) { return _mm256_loadu_si256(static_cast<const __m256i*>(place)); }
inline Ints load_ints(const int32_t* place) { return {load_256(place), load_256(place + 8)}; }
inline Ints add(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline Ints subtract(Ints x, Ints y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline Floats floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline Ints nearest(Floats x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline int32_t sum(Ints x) {
    const __m256i eight = _mm256_add_epi32(x.a, x.b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
inline void store_bytes(int8_t* place, Ints x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(place),
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

inline Bytes load_bytes(const uint8_t* place) { return {load_256(place), load_256(place + 32)}; }
inline Bytes low_halves(Bytes x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
inline Bytes high_halves(Bytes x) { return low_halves({_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)}); }
#ifdef __AVXVNNI__
inline Ints dot(Ints total, Bytes codes, int32_t x) {
    const __m256i four = _mm256_set1_epi32(x);
    return {_mm256_dpbusd_avx_epi32(total.a, codes.a, four), _mm256_dpbusd_avx_epi32(total.b, codes.b, four)};
}
inline Ints dot_small(Ints total, Bytes codes, int32_t x) { return dot(total, codes, x); }
#else
// By even and odd bytes: the instruction for all four at once overflows 16 bits.
inline __m256i dot(__m256i total, __m256i codes, __m256i even, __m256i odd) {
    const __m256i low = _mm256_and_si256(codes, _mm256_set1_epi16(255)), high = _mm256_srli_epi16(codes, 8);
    total = _mm256_add_epi32(total, _mm256_madd_epi16(low, even));
    return _mm256_add_epi32(total, _mm256_madd_epi16(high, odd));
}
inline Ints dot(Ints total, Bytes codes, int32_t x) {
    const __m256i four = _mm256_set1_epi32(x);
    const __m256i odd = _mm256_srai_epi16(four, 8), even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);
    return {dot(total.a, codes.a, even, odd), dot(total.b, codes.b, even, odd)};
}
inline __m256i dot_small(__m256i total, __m256i codes, __m256i four) {
    return _mm256_add_epi32(total, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, four), _mm256_set1_epi16(1)));
}
inline Ints dot_small(Ints total, Bytes codes, int32_t x) {
    const __m256i four = _mm256_set1_epi32(x);
    return {dot_small(total.a, codes.a, four), dot_small(total.b, codes.b, four)};
}
#endif

inline Floats halves(const uint16_t* place) {
    const __m128i* eights = reinterpret_cast<const __m128i*>(place);
    return {_mm256_cvtph_ps(_mm_loadu_si128(eights)), _mm256_cvtph_ps(_mm_loadu_si128(eights + 1))};
}
inline __m256 widen(__m128i packed) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
}
inline Floats widen(const uint16_t* place) {
    const __m128i* eights = reinterpret_cast<const __m128i*>(place);
    return {widen(_mm_loadu_si128(eights)), widen(_mm_loadu_si128(eights + 1))};
}
inline __m256i narrowed(__m256 x) {      // as 32 bits
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
inline void narrow(uint16_t* place, Floats x) {
    const __m256i words = _mm256_packus_epi32(narrowed(x.a), narrowed(x.b));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), _mm256_permute4x64_epi64(words, 0xd8));
}
inline __m256 dot_pairs(__m256 total, __m256i pairs, __m256 left, __m256 right) {
    const __m256i high = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
    total = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), left, total);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(pairs, high)), right, total);
}
inline Floats dot_pairs(Floats total, const uint16_t* pairs, uint32_t x) {
    const __m256 left = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int32_t>(x << 16)));
    const __m256 right = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int32_t>(x & 0xffff0000u)));
    return {dot_pairs(total.a, load_256(pairs), left, right), dot_pairs(total.b, load_256(pairs + 16), left, right)};
}

}  // namespace dslm
