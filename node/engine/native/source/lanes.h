// Products of rows with one panel or two by lanes: what every processor can that runs this.
//
// Knows panels and rows. Rows go through in blocks whose sums stay in registers, so that what is read or unpacked of
// a panel serves all of a block; how they are cut into blocks changes no row's sums.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "errand.h"
#include "rows.h"
#include "shapes.h"
#include "simd.h"

namespace dslm {

constexpr int kBlock = kIsWide ? 8 : 4;   // the most rows of a block
// Lines of an errand for each group of columns that a block takes: less than memory yields meanwhile.
constexpr int kLinesByCodes = 2, kLinesByNumbers = 6;

template <int n, class Work> void block_of(int rows, int first, const Work& work) {
    if (rows == n) work.template at<n>(first);
    else if constexpr (n > 1) block_of<n - 1>(rows, first, work);
}

// Calls work.at<n>(first) for rows 0 to `count`, in blocks that are as even as may be and do not cross a sixteen.
template <class Work> void in_blocks(int count, const Work& work) {
    for (int first = 0; first < count;) {
        const int rest = std::min(count - first, kTile - first % kTile), blocks = (rest + kBlock - 1) / kBlock;
        const int rows = (rest + blocks - 1) / blocks;
        block_of<kBlock>(rows, first, work);
        first += rows;
    }
}

// Asks, beside a block's work on one group of panels, for its share of that group of the panels behind: so memory is read
// evenly while many blocks pass, and no faster than the panels are used. Alone a block asks a little ahead of what it reads.
template <int bits> class Asks {
public:
    Asks(int start, int rows, int count, int ahead)
        : from_(start * kLines / count), lines_((start + rows) * kLines / count - from_), ahead_(ahead), is_alone_(rows == count) {}
    [[gnu::always_inline]] void operator()(const uint8_t* group) const {
        if (is_alone_) ask_for(group + kAhead, 64 * kLines);
        else ask_for_later(group + ahead_ + 64 * from_, 64 * lines_);
    }

private:
    static constexpr int kLines = (panel_bytes(bits, 1) + 63) / 64;
    const int from_, lines_, ahead_;
    const bool is_alone_;
};

// One panel of codes, times `count` rows from `first` on.
template <int bits> struct CodesByLanes {
    const Panel& panel;
    const Rows& in;
    int first, count;            // in `in`, the first of a sixteen
    Place to;
    Errand* errand;              // or none
    template <int rows> void at(int start) const {
        constexpr int kBytes = bits == 4 ? 256 : 512, kStep = panel_bytes(bits, 1);
        Floats total[rows];
#pragma GCC unroll 8
        for (auto& one : total) one = zeros();
        const Asks<bits> asks(start, rows, count, panel_bytes(bits, in.groups));
        size_t at = in.at(first + start, 0);
        for (int group = 0; group < in.groups; ++group, at += kTile) {
            asks(panel.codes + group * kStep);
            if (errand) errand->go(kLinesByCodes);
            const uint8_t* codes = panel.codes + group * kBytes;
            const int8_t* x = in.codes.data() + at * kGroup;
            Ints sums[rows];
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row) sums[row] = bits == 4 ? no_ints() : all_ints(-in.offsets[at + row]);
#pragma GCC unroll 8
            for (int i = 0; i < kBytes / 64; ++i) {
                const Bytes both = load_bytes(codes + 64 * i);
                const Bytes low = bits == 4 ? low_halves(both) : both, high = bits == 4 ? high_halves(both) : both;
#pragma GCC unroll 8
                for (int row = 0; row < rows; ++row) {
                    if (bits == 8) {
                        sums[row] = dot(sums[row], low, four_at(x + row * kGroup + 4 * i));
                    } else {
                        sums[row] = dot_small(sums[row], low, four_at(x + row * kGroup + 8 * i));
                        sums[row] = dot_small(sums[row], high, four_at(x + row * kGroup + 8 * i + 4));
                    }
                }
            }
            const Floats scales = halves(panel.halves_at(bits, group));
            const Floats minima = bits == 4 ? halves(panel.halves_at(bits, group) + kLanes) : zeros();
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row)
                total[row] = add_group<bits>(total[row], sums[row], in.scales[at + row], in.sums[at + row], scales, minima);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) store(to.out + static_cast<size_t>(start + row) * to.stride, total[row]);
    }
    static int32_t four_at(const int8_t* place) {
        int32_t four;
        std::memcpy(&four, place, 4);
        return four;
    }
};

// `panels` neighbours of 16 bits, `step` bytes each, times `count` rows from `first` on.
template <int panels> struct NumbersByLanes {
    const uint8_t* left;
    int step;
    const Rows& in;
    int first, count;            // in `in`, the first of a sixteen
    Place to;
    Errand* errand;              // or none
    template <int rows> void at(int start) const {
        Floats total[panels][rows];
        for (auto& some : total)
            for (auto& one : some) one = zeros();
        const uint16_t* x = in.numbers.data() + in.at(first + start, 0) * kGroup;
        const uint8_t* pairs = left;
        const Asks<16> asks(start, rows, count, panels * step);
        for (int group = 0; group < in.groups; ++group, x += kTile * kGroup) {
            for (int panel = 0; panel < panels; ++panel) asks(pairs + panel * step);
            if (errand) errand->go(kLinesByNumbers);
            for (int column = 0; column < kGroup; column += 2, pairs += 64) {
#pragma GCC unroll 8
                for (int row = 0; row < rows; ++row) {
                    uint32_t two;
                    std::memcpy(&two, x + row * kGroup + column, 4);
                    for (int panel = 0; panel < panels; ++panel)
                        total[panel][row] = dot_pairs(total[panel][row], reinterpret_cast<const uint16_t*>(pairs + panel * step), two);
                }
            }
        }
#pragma GCC unroll 8
        for (int panel = 0; panel < panels; ++panel)
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row)
                store(to.out + static_cast<size_t>(start + row) * to.stride + panel * kLanes, total[panel][row]);
    }
};

}  // namespace dslm
