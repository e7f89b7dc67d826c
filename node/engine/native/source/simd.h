// Sixteen lanes of numbers, whatever registers they lie in.
//
// Knows instructions only. Every function has one exact meaning, so that a sum comes out the same
// wherever it is taken; the compiler is told not to merge a product and a sum on its own.
//
// `simd_512.h` and `simd_256.h` have the same functions: `fused` is a * b + c with one rounding;
// `first` keeps the first lanes and puts `rest` in the others; `power_of_two` is a * 2^n; `dot`
// adds the products of four unsigned codes in each lane with the four signed bytes of x, exactly,
// and `dot_small` too, for codes up to 15; `halves` reads fp16, `widen` bf16; `narrow` makes bf16, to nearest
// even; `dot_pairs` adds the products of two bf16 numbers in each lane with the two in x. What only kernels with tile registers
// use is in `simd_512.h` alone.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#include "simd_512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "simd_256.h"
#else
#error "AVX2, FMA and F16C are needed"
#endif

namespace dslm {

constexpr int kLanes = 16;

// Written out: GCC takes a function that only prefetches for one that does nothing, and may leave its calls out.
inline void ask_for(const void* place, int bytes) {
    const char* next = static_cast<const char*>(place);
    for (int offset = 0; offset < bytes; offset += 64) asm volatile("prefetcht0 %0" : : "m"(next[offset]));
}

inline void ask_for_later(const void* place, int bytes) {   // into the second cache
    const char* next = static_cast<const char*>(place);
    for (int offset = 0; offset < bytes; offset += 64) asm volatile("prefetcht1 %0" : : "m"(next[offset]));
}

inline Floats exponential(Floats x) {  // Cephes' expf, good to 2 units in the last place
    x = larger(smaller(x, all(88.0f)), all(-87.0f));
    const Floats n = whole(times(x, all(1.44269504f)));
    Floats r = fused(n, all(-0.693359375f), x);
    r = fused(n, all(2.12194440e-4f), r);
    Floats y = all(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        y = fused(y, r, all(c));
    return power_of_two(add(fused(times(r, r), y, r), all(1.0f)), n);
}

}  // namespace dslm
