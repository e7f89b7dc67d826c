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

#include "amx.h"
#include "shapes.h"
#include "simd.h"
#include "team.h"

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

template <int bits, int tokens>
void few(const Panel& panel, const Rows& in, int first, Place to) {
    constexpr int kBytes = bits == 4 ? 256 : 512, kStep = panel_bytes(bits, 1);
    Floats total[tokens];
    for (auto& one : total) one = zeros();
    size_t at[tokens];
    for (int token = 0; token < tokens; ++token) at[token] = in.at(first + token, 0);
    for (int group = 0; group < in.groups; ++group) {
        ask_for(panel.codes + group * kStep + kAhead, kStep);
        const uint8_t* codes = panel.codes + group * kBytes;
        Ints sums[tokens];
        for (int token = 0; token < tokens; ++token)
            sums[token] = bits == 4 ? no_ints() : all_ints(-in.offsets[at[token]]);
#pragma GCC unroll 8
        for (int i = 0; i < kBytes / 64; ++i) {
            const Bytes both = load_bytes(codes + 64 * i);
            const Bytes low = bits == 4 ? low_halves(both) : both, high = bits == 4 ? high_halves(both) : both;
#pragma GCC unroll 8
            for (int token = 0; token < tokens; ++token) {
                int32_t four[2];
                std::memcpy(four, in.codes.data() + at[token] * kGroup + (bits == 4 ? 8 : 4) * i, bits == 4 ? 8 : 4);
                if (bits == 8) {
                    sums[token] = dot(sums[token], low, four[0]);
                } else {
                    sums[token] = dot_small(sums[token], low, four[0]);
                    sums[token] = dot_small(sums[token], high, four[1]);
                }
            }
        }
        const Floats scales = halves(panel.halves_at(bits, group));
        const Floats minima = bits == 4 ? halves(panel.halves_at(bits, group) + kLanes) : zeros();
#pragma GCC unroll 8
        for (int token = 0; token < tokens; ++token) {
            total[token] = add_group<bits>(total[token], sums[token], in.scales[at[token]], in.sums[at[token]], scales, minima);
            at[token] += kTile;
        }
    }
    for (int token = 0; token < tokens; ++token) store(to.out + static_cast<size_t>(token) * to.stride, total[token]);
}

template <int tokens>
void few_numbers(const Matrix& matrix, int index, const Rows& in, int first, Place to) {
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(Panel(matrix, index).codes);
    Floats total[tokens];
    for (auto& one : total) one = zeros();
    for (int group = 0; group < in.groups; ++group) {
        ask_for(pairs + kAhead / 2, 1024);
        const uint16_t* x[tokens];
        for (int token = 0; token < tokens; ++token) x[token] = in.numbers.data() + in.at(first + token, group) * kGroup;
        for (int column = 0; column < kGroup; column += 2, pairs += 2 * kLanes)
            for (int token = 0; token < tokens; ++token) {
                uint32_t two;
                std::memcpy(&two, x[token] + column, 4);
                total[token] = dot_pairs(total[token], pairs, two);
            }
    }
    for (int token = 0; token < tokens; ++token) store(to.out + static_cast<size_t>(token) * to.stride, total[token]);
}

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
#endif

// Rows `done` to `run.count()` of a run.
template <int bits>
void panel_by_few(const Panel& panel, const Rows& in, const Run& run, int done, Place to) {
    constexpr int kMost = 4;
    const auto at = [&](int one) { return Place{to.out + static_cast<size_t>(one) * to.stride, to.stride}; };
    for (; done + kMost <= run.count(); done += kMost) few<bits, kMost>(panel, in, run.first + done, at(done));
    switch (run.count() - done) {
        case 1: return few<bits, 1>(panel, in, run.first + done, at(done));
        case 2: return few<bits, 2>(panel, in, run.first + done, at(done));
        case 3: return few<bits, 3>(panel, in, run.first + done, at(done));
        default: return;
    }
}

constexpr int kFew = 5;          // up to so many rows tile registers are not worth their trouble

#ifdef DSLM_AMX
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
        if (done < run.count()) panel_by_few<bits>(panel, in, run, done, at(0));
    }
}
#endif

template <int bits>
void all_codes(const Matrix& matrix, Range mine, const Rows& in, const std::vector<Run>& runs, Place to, [[maybe_unused]] bool has_tiles) {
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
                panel_by_few<bits>(Panel(matrix, index), in, run, 0, {to.out + static_cast<size_t>(run.start) * to.stride + (index - mine.start) * kLanes, to.stride});
}

// A matrix of 16 bits, or, with tile registers, of 4.
inline void all_numbers(const Matrix& matrix, Range mine, const Rows& in, const std::vector<Run>& runs, Place to, [[maybe_unused]] bool has_tiles) {
#ifdef DSLM_AMX
    if (has_tiles) return all_numbers_by_tiles(matrix, mine, in, runs, to);
#endif
    for (int index = mine.start; index < mine.stop; ++index)
        for (const Run& run : runs) {
            const auto at = [&](int one) { return Place{to.out + static_cast<size_t>(run.start + one) * to.stride + (index - mine.start) * kLanes, to.stride}; };
            int done = 0;
            for (; done + 4 <= run.count(); done += 4) few_numbers<4>(matrix, index, in, run.first + done, at(done));
            for (; done < run.count(); ++done) few_numbers<1>(matrix, index, in, run.first + done, at(done));
        }
}

// to.out[row of the batch * to.stride] and on: the sums of the rows in the panels `mine`.
inline void product(const Matrix& matrix, const Rows& in, const std::vector<Run>& runs, Place to, Range mine, bool has_tiles) {
    constexpr int kTogether = 4;     // panels that rows of both kinds pass, one after the other, while they are warm
    const bool have_codes = most_of(runs, false) > 0, have_numbers = most_of(runs, true) > 0;
    const int each = have_codes && have_numbers ? kTogether : std::max(1, mine.stop - mine.start);
    for (int start = mine.start; start < mine.stop; start += each) {
        const Range here{start, std::min(mine.stop, start + each)};
        const Place place{to.out + (start - mine.start) * kLanes, to.stride};
        if (have_numbers) all_numbers(matrix, here, in, runs, place, has_tiles);
        if (have_codes && matrix.bits == 4) all_codes<4>(matrix, here, in, runs, place, has_tiles);
        if (have_codes && matrix.bits == 8) all_codes<8>(matrix, here, in, runs, place, has_tiles);
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
