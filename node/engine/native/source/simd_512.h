// Sixteen lanes in one register: AVX-512 with VNNI, and BF16 where there is that.
//
// Knows instructions only; `simd.h` says what a function of each name does.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dslm {

constexpr bool kIsWide = true;

using Floats = __m512;
using Ints = __m512i;
using Bytes = __m512i;           // 16 lanes of 4

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats load(const float* place) { return _mm512_loadu_ps(place); }
inline void store(float* place, Floats x) { _mm512_storeu_ps(place, x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }  // a * b + c
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats magnitude(Floats a) { return _mm512_abs_ps(a); }
inline Floats whole(Floats a) { return _mm512_roundscale_ps(a, 0); }
inline Floats power_of_two(Floats a, Floats n) { return _mm512_scalef_ps(a, n); }  // a * 2^n
inline float sum(Floats a) { return _mm512_reduce_add_ps(a); }
inline float largest(Floats a) { return _mm512_reduce_max_ps(a); }
inline Floats first(Floats a, int count, float rest) {  // the first lanes, `rest` in the others
    const int kept = count < 0 ? 0 : count > 16 ? 16 : count;
    return _mm512_mask_mov_ps(_mm512_set1_ps(rest), static_cast<__mmask16>((1u << kept) - 1), a);
}

inline Ints no_ints() { return _mm512_setzero_si512(); }
inline Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints load_ints(const int32_t* place) { return _mm512_loadu_si512(place); }
inline Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Floats floats(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Ints nearest(Floats a) { return _mm512_cvtps_epi32(a); }
inline int32_t sum(Ints a) { return _mm512_reduce_add_epi32(a); }
inline void store_bytes(int8_t* place, Ints a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(place), _mm512_cvtepi32_epi8(a));
}

inline Bytes load_bytes(const uint8_t* place) { return _mm512_loadu_si512(place); }
inline void store_codes(uint8_t* place, Bytes a) { _mm512_storeu_si512(place, a); }
inline Bytes low_halves(Bytes a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
inline Bytes high_halves(Bytes a) { return low_halves(_mm512_srli_epi16(a, 4)); }
// Adds the products of four unsigned codes in each lane with the four signed bytes of `x`.
inline Ints dot(Ints total, Bytes codes, int32_t x) {
    return _mm512_dpbusd_epi32(total, codes, _mm512_set1_epi32(x));
}
// The same, for codes up to 15.
inline Ints dot_small(Ints total, Bytes codes, int32_t x) { return dot(total, codes, x); }

inline Floats halves(const uint16_t* place) {  // fp16
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(place)));
}
inline Floats widen(const uint16_t* place) {   // bf16
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
}
inline void narrow(uint16_t* place, Floats a) {  // to bf16, nearest even
#ifdef __AVX512BF16__
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), (__m256i)_mm512_cvtneps_pbh(a));
#else
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(place),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
#endif
}
inline void narrow_pairs(uint8_t* place, Floats even, Floats odd) {   // both to bf16, in turns
    const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
#ifdef __AVX512BF16__
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
#else
    alignas(64) uint16_t numbers[32];
    narrow(numbers, even);
    narrow(numbers + 16, odd);
    const __m512i both = _mm512_load_si512(numbers);
#endif
    _mm512_storeu_si512(place, _mm512_permutexvar_epi16(turns, both));
}
// 16 rows of 16 times 4 bytes, turned in place.
inline void turn(uint32_t* square) {
    __m512i row[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) row[i] = _mm512_load_si512(square + 16 * i);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#pragma GCC unroll 4
    for (int half = 8; half; half /= 2) {
        const __m512i crossed = _mm512_xor_si512(lane, _mm512_set1_epi32(half)), other = _mm512_set1_epi32(16);
        const __mmask16 upper = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(half));
        const __m512i first = _mm512_mask_or_epi32(lane, upper, crossed, other), second = _mm512_mask_or_epi32(crossed, upper, lane, other);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
            if (!(i & half)) {
                const __m512i a = row[i], b = row[i | half];
                row[i] = _mm512_permutex2var_epi32(a, first, b);
                row[i | half] = _mm512_permutex2var_epi32(a, second, b);
            }
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(square + 16 * i, row[i]);
}
inline Floats counting() { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
// `table` at the four bits of each lane of `codes` from bit `shift` on.
inline Floats chosen(Floats table, Bytes codes, int shift) {
    return _mm512_permutexvar_ps(_mm512_srli_epi32(codes, static_cast<unsigned>(shift)), table);
}
// Adds, in each lane, the products of two bf16 numbers of `pairs` with the two in `x`.
inline Floats dot_pairs(Floats total, const uint16_t* pairs, uint32_t x) {
    const __m512i both = _mm512_loadu_si512(pairs);
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(total, (__m512bh)both, (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(x)));
#else
    const __m512i high = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
    const __m512i factor = _mm512_set1_epi32(static_cast<int32_t>(x));
    total = fused(_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
                  _mm512_castsi512_ps(_mm512_slli_epi32(factor, 16)), total);
    return fused(_mm512_castsi512_ps(_mm512_and_si512(both, high)),
                 _mm512_castsi512_ps(_mm512_and_si512(factor, high)), total);
#endif
}

}  // namespace dslm
