// The rows of a batch as they go into a product, and where the product goes.
//
// Knows rows rounded to match panels (see shapes.h); must not know how they are multiplied. Whether
// a row is codes or bf16 is not decided here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "shapes.h"
#include "simd.h"

namespace dslm {

constexpr int kTile = 16;        // rows of a tile register
constexpr int kAhead = 4096;     // bytes between what is used and what is asked for

// Neighbours of a batch that are multiplied in one way. In `Rows` they begin a sixteen, `first`.
struct Run {
    int start, stop;             // rows of the batch
    int first;
    bool is_bf16;
    int count() const { return stop - start; }
};

// Rows of the longest run of one kind, 0 if there is none.
inline int most_of(const std::vector<Run>& runs, bool is_bf16) {
    int most = 0;
    for (const Run& run : runs)
        if (run.is_bf16 == is_bf16) most = std::max(most, run.count());
    return most;
}

// What goes into a product: int8 codes in groups, or bf16. Rows lie in sixteens, and of those
// the same group together: [rows / 16][groups][16 rows][32 columns], as tile registers load
// them. What belongs to a group of codes has the same order. Room for whole tiles is kept.
struct Rows {
    int groups = 0;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<float> sums;         // scale times the sum of the codes
    std::vector<int32_t> offsets;    // 128 times the sum of the codes
    std::vector<uint16_t> numbers;   // bf16

    void fit(int count, int columns, bool have_codes, bool have_numbers) {
        groups = columns / kGroup;
        const size_t room = at((count + 2 * kTile - 1) / kTile * kTile + kTile, 0);
        if (have_numbers) grow(numbers, room * kGroup);
        if (!have_codes) return;
        grow(codes, room * kGroup);
        grow(scales, room);
        grow(sums, room);
        grow(offsets, room);
    }
    size_t at(int row, int group) const {
        return (static_cast<size_t>(row / kTile) * groups + group) * kTile + row % kTile;
    }
    // Columns `start` to `start + count` of a row, both in whole groups.
    void set(int row, bool is_bf16, int start, int count, const float* values) {
        for (int group = start / kGroup; group < (start + count) / kGroup; ++group, values += kGroup) {
            const Floats low = load(values), high = load(values + kLanes);
            if (is_bf16) {
                uint16_t* place = numbers.data() + at(row, group) * kGroup;
                narrow(place, low);
                narrow(place + kLanes, high);
            } else {
                round(at(row, group), low, high);
            }
        }
    }

private:
    template <class T> static void grow(std::vector<T>& vector, size_t size) {
        if (vector.size() < size) vector.resize(size);
    }
    void round(size_t place, Floats low, Floats high) {
        const float most = largest(larger(magnitude(low), magnitude(high)));
        const Floats factor = all(most > 0 ? 127.0f / most : 0.0f);
        const Ints a = nearest(times(low, factor)), b = nearest(times(high, factor));
        store_bytes(codes.data() + place * kGroup, a);
        store_bytes(codes.data() + place * kGroup + kLanes, b);
        const int32_t total = sum(add(a, b));
        scales[place] = most / 127.0f;
        sums[place] = scales[place] * static_cast<float>(total);
        offsets[place] = 128 * total;
    }
};

struct Panel {                   // 16 rows of a matrix
    const uint8_t *codes, *rest;
    Panel(const Matrix& matrix, int index) {
        const int groups = matrix.columns / kGroup;
        codes = matrix.panels + static_cast<size_t>(index) * panel_bytes(matrix.bits, groups);
        rest = codes + groups * (matrix.bits == 4 ? 256 : 512);
    }
    const uint16_t* halves_at(int bits, int group) const {
        return reinterpret_cast<const uint16_t*>(rest) + group * (bits == 4 ? 32 : 16);
    }
};

struct Place {                   // where a product goes: out[token * stride]
    float* out;
    int stride;
};

// total += scale * code sums, the one way in which groups are added up.
template <int bits>
inline Floats add_group(Floats total, Ints sum, float factor, float codes, Floats scales, Floats minima) {
    total = fused(times(floats(sum), all(factor)), scales, total);
    return bits == 4 ? fused(minima, all(codes), total) : total;
}

}  // namespace dslm
