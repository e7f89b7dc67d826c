// Products by tile registers (AMX), where the compiler's target has them.
//
// Knows panels and rows, and what to leave to lanes: few rows of codes. A row's sums are those that lanes would take if they
// are of codes; bf16 goes through one kind of instruction on a machine.
#pragma once

#include "amx.h"
#include "lanes.h"
#include "rows.h"
#include "shapes.h"
#include "simd.h"
#include "team.h"

namespace dslm {

constexpr int kFew = 5;          // up to so many rows tile registers are not worth their trouble

#ifdef DSLM_AMX
// A panel as the registers want it: codes as those of 8 bits, scales and minima as numbers.
template <int bits> class Opened {
public:
    Opened(const Panel& panel, int groups, std::vector<float>& room) {
        const size_t code_bytes = bits == 4 ? static_cast<size_t>(groups) * 512 : 0;
        room.resize(static_cast<size_t>(groups) * 2 * kLanes + code_bytes / 4 + kLanes);
        float* start = room.data() + (-(reinterpret_cast<uintptr_t>(room.data()) / 4) & (kLanes - 1));
        uint8_t* unpacked = reinterpret_cast<uint8_t*>(start);
        factors_ = start + code_bytes / 4;
        codes_ = bits == 4 ? unpacked : panel.codes;
        constexpr int kBytes = bits == 4 ? 256 : 512, kStep = kBytes + (bits == 4 ? 64 : 32);
        for (int group = 0; group < groups; ++group) {
            ask_for(panel.codes + group * kStep + kAhead, kStep);
            for (int i = 0; bits == 4 && i < 4; ++i) {
                const Bytes both = load_bytes(panel.codes + group * 256 + 64 * i);
                store_codes(unpacked + group * 512 + 128 * i, low_halves(both));
                store_codes(unpacked + group * 512 + 128 * i + 64, high_halves(both));
            }
            store(factors_ + group * 2 * kLanes, halves(panel.halves_at(bits, group)));
            if (bits == 4) store(factors_ + group * 2 * kLanes + kLanes, halves(panel.halves_at(bits, group) + kLanes));
        }
    }
    const uint8_t* codes(int group) const { return codes_ + group * 512; }
    Floats scales(int group) const { return load(factors_ + group * 2 * kLanes); }
    Floats minima(int group) const { return bits == 4 ? load(factors_ + group * 2 * kLanes + kLanes) : zeros(); }

private:
    const uint8_t* codes_;
    float* factors_;
};

// One panel by up to `height` (8 or 16) tokens from `first` on, of which `count` are wanted. Tile registers
// and lanes work side by side: while one group's sums are taken, those of four groups ago are scaled.
template <int bits, int height> class TileOfCodes {
public:
    TileOfCodes(const Opened<bits>& opened, const Rows& in, int first)
        : opened_(opened), groups_(in.groups), x_(in.codes.data() + in.at(first, 0) * kGroup), scales_(in.scales.data() + in.at(first, 0)),
          sums_(in.sums.data() + in.at(first, 0)), offsets_(in.offsets.data() + in.at(first, 0)) {
        for (auto& one : total_) one = zeros();
    }
    void compute(int count, Place to, const uint8_t* later) {
        constexpr int kStep = panel_bytes(bits, 1);
        for (int group = 0; group < groups_ + kDepth; group += kDepth) {
            if (later && group < groups_) ask_for_later(later + group * kStep, kDepth * kStep);
            at<0>(group);
            at<1>(group + 1);
            at<2>(group + 2);
            at<3>(group + 3);
        }
#pragma GCC unroll 16
        for (int token = 0; token < height; ++token)
            if (token < count) store(to.out + static_cast<size_t>(token) * to.stride, total_[token]);
    }

private:
    static constexpr int kDepth = 4;
    template <int slot> void at(int group) {
        const bool is_more = group < groups_;
        if (is_more) {
            multiply_codes<slot>(x_ + group * kTile * kGroup, opened_.codes(group));
        }
        if (group >= kDepth && group - kDepth < groups_) scale(group - kDepth, found_[slot]);
        if (is_more) store_tile<slot>(found_[slot], 64);
    }
    void scale(int group, const int32_t* found) {
        const Floats scales = opened_.scales(group), minima = opened_.minima(group);
        const float *factors = scales_ + group * kTile, *sums = sums_ + group * kTile;
        const int32_t* offsets = offsets_ + group * kTile;
#pragma GCC unroll 16
        for (int i = 0; i < height; ++i) {
            Ints sum = load_ints(found + i * kLanes);
            if (bits == 8) sum = subtract(sum, all_ints(offsets[i]));
            total_[i] = add_group<bits>(total_[i], sum, factors[i], sums[i], scales, minima);
        }
    }

    const Opened<bits>& opened_;
    const int groups_;
    const int8_t* x_;
    const float *scales_, *sums_;
    const int32_t* offsets_;
    Floats total_[height];
    alignas(64) int32_t found_[kDepth][kTile * kLanes];
};

template <int tile> void put(int count, Place to) {   // the first `count` rows of a register
    if (count >= kTile) {
        store_tile<tile>(to.out, to.stride * static_cast<int>(sizeof(float)));
        return;
    }
    alignas(64) float found[kTile * kLanes];
    store_tile<tile>(found, 64);
    for (int token = 0; token < count; ++token) store(to.out + static_cast<size_t>(token) * to.stride, load(found + token * kLanes));
}

// A panel of 4 bits as one of 16.
inline void widen_panel(const Panel& panel, int groups, uint8_t* to) {
    const Floats numbers = counting();
    for (int group = 0; group < groups; ++group) {
        ask_for(panel.codes + group * panel_bytes(4, 1) + kAhead, panel_bytes(4, 1));
        const Floats scales = halves(panel.halves_at(4, group)), minima = halves(panel.halves_at(4, group) + kLanes);
        for (int i = 0; i < 4; ++i) {
            const Bytes both = load_bytes(panel.codes + group * 256 + 64 * i);
#pragma GCC unroll 4
            for (int pair = 0; pair < 4; ++pair, to += 64) {   // columns 8 i + 2 pair and the next
                const int shift = pair / 2 * 4 + pair % 2 * 16;
                const Floats even = fused(chosen(numbers, both, shift), scales, minima);
                narrow_pairs(to, even, fused(chosen(numbers, both, shift + 8), scales, minima));
            }
        }
    }
}

// `panels` (1 or 2) panels of 16 bits from `left` on by `tiles` (1 or 2) times 16 rows from `first` on. `asks` for the
// panels behind.
template <int panels, int tiles>
void tiles_of_numbers(const uint8_t* left, bool asks, const Rows& in, int first, int count, Place to) {
    const int step = panel_bytes(16, in.groups);
    const uint16_t* x = in.numbers.data() + in.at(first, 0) * kGroup;
    const uint16_t* more = in.numbers.data() + in.at(first + kTile, 0) * kGroup;
    constexpr int kBytes = kGroup * 2;
    _tile_zero(0);
    if (panels == 2) _tile_zero(1);
    if (tiles == 2) _tile_zero(2);
    if (panels == 2 && tiles == 2) _tile_zero(3);
    for (int group = 0; group < in.groups; ++group, left += 1024) {
        if (asks) {
            if (panels == 1) ask_for(left + kAhead, 1024);
            else ask_for_later(left + panels * step, 1024), ask_for_later(left + (panels + 1) * step, 1024);
        }
        _tile_loadd(4, x + group * kTile * kGroup, kBytes);
        _tile_loadd(6, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (panels == 2) {
            _tile_loadd(7, left + step, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (tiles == 2) {
            _tile_loadd(5, more + group * kTile * kGroup, kBytes);
            _tile_dpbf16ps(2, 5, 6);
            if (panels == 2) _tile_dpbf16ps(3, 5, 7);
        }
    }
    put<0>(count, to);
    if (panels == 2) put<1>(count, {to.out + kLanes, to.stride});
    if (tiles == 2) {
        const Place below{to.out + static_cast<size_t>(kTile) * to.stride, to.stride};
        put<2>(count - kTile, below);
        if (panels == 2) put<3>(count - kTile, {below.out + kLanes, to.stride});
    }
}

// Panels of 16 bits, or of 4, which are widened first and stay in the cache while all rows pass.
inline void all_numbers_by_tiles(const Matrix& matrix, Range mine, const Rows& in, const std::vector<Run>& runs, Place to) {
    static thread_local std::vector<uint8_t> room;
    const int step = panel_bytes(16, in.groups), most = most_of(runs, true);
    const auto open = [&](int panel, int panels) {
        if (matrix.bits == 16) return Panel(matrix, panel).codes;
        if (room.size() < 2u * step + 64) room.resize(2u * step + 64);
        uint8_t* start = room.data() + (-reinterpret_cast<uintptr_t>(room.data()) & 63);
        for (int i = 0; i < panels; ++i) widen_panel(Panel(matrix, panel + i), in.groups, start + i * step);
        return static_cast<const uint8_t*>(start);
    };
    use_whole_tiles(std::min(most, kTile));
    for (int panel = mine.start; panel < mine.stop;) {
        const int panels = most > kTile && panel + 2 <= mine.stop ? 2 : 1;
        const uint8_t* left = open(panel, panels);
        bool asks = matrix.bits == 16;
        for (const Run& run : runs)
            for (int done = 0; run.is_bf16 && done < run.count(); asks = false) {
                const int rest = run.count() - done, tiles = panels == 2 && rest > kTile ? 2 : 1, count = std::min(rest, tiles * kTile);
                const Place place{to.out + static_cast<size_t>(run.start + done) * to.stride + (panel - mine.start) * kLanes, to.stride};
                if (tiles == 2) tiles_of_numbers<2, 2>(left, asks, in, run.first + done, count, place);
                else if (panels == 2) tiles_of_numbers<2, 1>(left, asks, in, run.first + done, count, place);
                else tiles_of_numbers<1, 1>(left, asks, in, run.first + done, count, place);
                done += count;
            }
        panel += panels;
    }
}
template <int bits>
void panel_by_tiles(const Matrix& matrix, int index, const Rows& in, const std::vector<Run>& runs, Place to) {
    static thread_local std::vector<float> room;
    const Panel panel(matrix, index);
    const Opened<bits> opened(panel, in.groups, room);
    const uint8_t* later = panel.codes + panel_bytes(bits, in.groups);   // the next one
    for (const Run& run : runs) {
        if (run.is_bf16) continue;
        const auto at = [&](int one) { return Place{to.out + static_cast<size_t>(run.start + one) * to.stride, to.stride}; };
        int done = 0;
        for (; run.count() - done > kFew; done += kTile, later = nullptr) {
            const int count = std::min(run.count() - done, kTile);
            if (count <= 8) TileOfCodes<bits, 8>(opened, in, run.first + done).compute(count, at(done), later);
            else TileOfCodes<bits, 16>(opened, in, run.first + done).compute(count, at(done), later);
        }
        in_blocks(run.count() - done, CodesByLanes<bits>{panel, in, run.first + done, run.count() - done, at(done), nullptr});
    }
}
#endif

}  // namespace dslm
