// Products of the batch's rows with packed matrices.
//
// Knows panels (see shapes.h) and rows rounded to match them. A row's sums are taken in the same
// order whatever the number of rows and whichever instructions take them: sums of integers are
// exact, and their scaling is the same everywhere; bf16 rows go through one kind of instruction.
// Whether a row is codes or bf16 is not decided here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "rows.h"
#include "shapes.h"
#include "simd.h"
#include "team.h"
#include "tiles.h"

namespace dslm {

template <int bits>
void all_codes(const Matrix& matrix, Range mine, const Rows& in, const std::vector<Run>& runs, Place to, [[maybe_unused]] bool has_tiles, Errand* errand) {
    int index = mine.start;
#ifdef DSLM_AMX
    const int most = most_of(runs, false);
    if (has_tiles && most > kFew) {
        use_half_tiles(std::min(most, kTile));
        for (; index < mine.stop; ++index) panel_by_tiles<bits>(matrix, index, in, runs, {to.out + (index - mine.start) * kLanes, to.stride});
    }
#endif
    for (; index < mine.stop; ++index)
        for (const Run& run : runs)
            if (!run.is_bf16)
                in_blocks(run.count(), CodesByLanes<bits>{Panel(matrix, index), in, run.first, run.count(), {to.out + static_cast<size_t>(run.start) * to.stride + (index - mine.start) * kLanes, to.stride}, errand});
}

// A matrix of 16 bits, or, with tile registers, of 4.
inline void all_numbers(const Matrix& matrix, Range mine, const Rows& in, const std::vector<Run>& runs, Place to, [[maybe_unused]] bool has_tiles, Errand* errand) {
#ifdef DSLM_AMX
    if (has_tiles) return all_numbers_by_tiles(matrix, mine, in, runs, to);
#endif
    const int step = panel_bytes(16, in.groups);
    for (int index = mine.start; index < mine.stop;) {
        const bool are_two = kIsWide && index + 2 <= mine.stop && most_of(runs, true) > kBlock;
        for (const Run& run : runs) {
            const uint8_t* left = Panel(matrix, index).codes;
            const Place place{to.out + static_cast<size_t>(run.start) * to.stride + (index - mine.start) * kLanes, to.stride};
            if (are_two) in_blocks(run.count(), NumbersByLanes<2>{left, step, in, run.first, run.count(), place, errand});
            else in_blocks(run.count(), NumbersByLanes<1>{left, step, in, run.first, run.count(), place, errand});
        }
        index += are_two ? 2 : 1;
    }
}

// to.out[row of the batch * to.stride] and on: the sums of the rows in the panels `mine`. Lanes run the `errand`, if there is one.
inline void product(const Matrix& matrix, const Rows& in, const std::vector<Run>& runs, Place to, Range mine, bool has_tiles, Errand* errand = nullptr) {
    constexpr int kTogether = 4;     // panels that rows of both kinds pass, one after the other, while they are warm
    const bool have_codes = most_of(runs, false) > 0, have_numbers = most_of(runs, true) > 0;
    const int each = have_codes && have_numbers ? kTogether : std::max(1, mine.stop - mine.start);
    for (int start = mine.start; start < mine.stop; start += each) {
        const Range here{start, std::min(mine.stop, start + each)};
        const Place place{to.out + (start - mine.start) * kLanes, to.stride};
        if (have_numbers) all_numbers(matrix, here, in, runs, place, has_tiles, errand);
        if (have_codes && matrix.bits == 4) all_codes<4>(matrix, here, in, runs, place, has_tiles, errand);
        if (have_codes && matrix.bits == 8) all_codes<8>(matrix, here, in, runs, place, has_tiles, errand);
    }
}

// One row of a matrix of 8 or 16 bits, as numbers.
inline void look_up(const Matrix& matrix, int row, float* out) {
    const Panel panel(matrix, row / kLanes);
    const int lane = row % kLanes;
    if (matrix.bits == 16) {
        const uint16_t* pairs = reinterpret_cast<const uint16_t*>(panel.codes) + 2 * lane;
        for (int column = 0; column < matrix.columns; ++column) {
            const uint32_t bits = static_cast<uint32_t>(pairs[column / 2 * 2 * kLanes + column % 2]) << 16;
            std::memcpy(out + column, &bits, 4);
        }
        return;
    }
    for (int column = 0; column < matrix.columns; ++column) {
        const int group = column / kGroup, within = column % kGroup;
        const uint8_t code = panel.codes[group * 512 + within / 4 * 64 + lane * 4 + within % 4];
        const float scale = _cvtsh_ss(panel.halves_at(8, group)[lane]);
        out[column] = scale * static_cast<float>(code - 128);
    }
}

}  // namespace dslm
