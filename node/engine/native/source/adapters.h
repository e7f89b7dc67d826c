// What low-rank adapters add to the products of a batch: out += B (A x) for the rows that have one.
//
// Knows shelves as `node.engine.adapters.shelf` lays them out and which rows have which adapter;
// must not know names or requests. A row's sums are taken in the same order whatever else is in
// the batch. A and B are bf16; what A is multiplied by is fp32, or with tile registers two bf16 numbers that add up to it but
// for 2^-16; all else is fp32.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "amx.h"
#include "errand.h"
#include "shapes.h"
#include "simd.h"
#include "team.h"

namespace dslm {

// Calls work.at<n>(first) for rows 0 to count: eights, and what is left in fours, twos and one. How
// many are taken together changes no sum.
template <class Work> void in_eights(int count, const Work& work) {
    int first = 0;
    for (; first + 8 <= count; first += 8) work.template at<8>(first);
    if (count - first >= 4) { work.template at<4>(first); first += 4; }
    if (count - first >= 2) { work.template at<2>(first); first += 2; }
    if (count - first >= 1) work.template at<1>(first);
}

struct Laid {                    // where columns are: in order, or, with a `half`, 32 of each half in turns
    float* out;                  // [tokens][stride]
    int stride, half;
    int at(int column) const {
        if (!half) return column;
        const int within = column % half;
        return within / kGroup * 2 * kGroup + column / half * kGroup + within % kGroup;
    }
};

class Lowrank {                  // one batch's, through all layers
public:
    Lowrank(const Batch& batch) : b(batch) {
        int lanes = 0, rank = 0;
        for (int s = 0; s < b.shelf_count; ++s) {
            const Shelf& shelf = b.shelves[s];
            first_lane_.push_back(lanes);
            runs_.emplace_back();
            for (int g = 0; g < shelf.group_count; ++g) {
                const Group& group = shelf.groups[g];
                lanes += group.count;
                auto& runs = runs_.back();
                if (runs.empty() || runs.back().a != group.a) runs.push_back(group);
                else runs.back().count += group.count;
            }
            rank = std::max(rank, shelf.rank_most);
        }
        width_ = (rank + kLanes - 1) / kLanes * kLanes;
        reduced_.resize(static_cast<size_t>(lanes) * width_);
    }
    explicit operator bool() const { return b.shelf_count > 0; }

    // A x, this thread's share of it. `in` is [tokens][into].
    void reduce(int place, const float* in, int rank, int size, [[maybe_unused]] bool has_tiles) {
#ifdef DSLM_AMX
        if (has_tiles) return reduce_by_tiles(place, in, rank, size);
#endif
        constexpr int kTogether = 4;     // lanes; all of A for some of them, for a thread made most of its own lanes' input
        for (int s = 0; s < b.shelf_count; ++s) {
            const Shelf& shelf = b.shelves[s];
            const AdaptedProduct& product = shelf.products[place];
            int jobs = 0, job = 0;
            for (const Group& run : runs_[s]) jobs += (run.count + kTogether - 1) / kTogether * product.rank;
            const Range mine = share(jobs, rank, size);
            for (const Group& run : runs_[s])
                for (int lane = 0; lane < run.count; lane += kTogether, job += product.rank) {
                    const int count = std::min(kTogether, run.count - lane), stop = std::min(product.rank, mine.stop - job);
                    for (int row = std::max(0, mine.start - job); row < stop;) {
                        const uint16_t* a = product.a + (static_cast<size_t>(run.a) * product.rank + row) * product.into;
                        const Reduce work{a, in, shelf.rows + run.first + lane, reduced(first_lane_[s] + run.first + lane) + row, product.into, width_};
                        if (stop - row >= 4) work.all<4>(count), row += 4;
                        else work.all<1>(count), row += 1;
                    }
                }
        }
    }
    // The columns `mine`, after all threads have reduced.
    void expand(int place, Laid to, Range mine) const {
        each_part(place, mine, [&](int s, const Group& group, const Piece& piece, Range part, const uint16_t* weights) {
            const int width = piece.stop - piece.start;
            const float* factors = reduced(first_lane_[s] + group.first) + piece.rank_start;
            in_eights(group.count, Expand{weights - piece.start, factors, b.shelves[s].rows + group.first, to, piece.rank_stop - piece.rank_start, width, width_, part});
        });
    }
    // What `expand` will read of B.
    void foretell(int place, Range mine, Errand& errand) const {
        each_part(place, mine, [&](int, const Group&, const Piece& piece, Range part, const uint16_t* weights) {
            errand.add(weights + part.start - piece.start, (part.stop - part.start) * 2, static_cast<size_t>(piece.stop - piece.start) * 2, piece.rank_stop - piece.rank_start);
        });
    }

private:
    // Calls work(shelf, group, piece, its columns of `mine`, its B) for each group of rows.
    template <class Work> void each_part(int place, Range mine, const Work& work) const {
        for (int s = 0; s < b.shelf_count; ++s) {
            const Shelf& shelf = b.shelves[s];
            const AdaptedProduct& product = shelf.products[place];
            for (int p = 0; p < product.piece_count; ++p) {
                const Piece& piece = product.pieces[p];
                const Range part{std::max(mine.start, piece.start), std::min(mine.stop, piece.stop)};
                if (part.start >= part.stop) continue;
                const size_t size = static_cast<size_t>(piece.rank_stop - piece.rank_start) * (piece.stop - piece.start);
                for (int g = 0; g < shelf.group_count; ++g) work(s, shelf.groups[g], piece, part, piece.b + shelf.groups[g].b * size);
            }
        }
    }
#ifdef DSLM_AMX
    // Sixteen lanes of a run at a time, as bf16 and what that leaves of them, are turned, which suits A as it lies in the shelf.
    void reduce_by_tiles(int place, const float* in, int rank, int size) {
        for (int s = 0; s < b.shelf_count; ++s) {
            const AdaptedProduct& product = b.shelves[s].products[place];
            const int blocks = (product.rank + kLanes - 1) / kLanes;
            int jobs = 0;
            for (const Group& run : runs_[s]) jobs += (run.count + kLanes - 1) / kLanes * blocks;
            const Range mine = share(jobs, rank, size);
            int job = 0;
            for (const Group& run : runs_[s])
                for (int first = run.first; first < run.first + run.count; first += kLanes, job += blocks) {
                    const Range here{std::max(0, mine.start - job), std::min(blocks, mine.stop - job)};
                    if (here.start < here.stop)
                        reduce_lanes(product, run.a, in, b.shelves[s].rows + first, std::min(kLanes, run.first + run.count - first), reduced(first_lane_[s] + first), here);
                }
        }
    }
    void reduce_lanes(const AdaptedProduct& product, int a, const float* in, const int32_t* rows, int count, float* out, Range blocks) {
        static thread_local std::vector<uint32_t> room;
        const int squares = product.into / kGroup;
        if (room.size() < static_cast<size_t>(squares) * 512 + 16) room.resize(static_cast<size_t>(squares) * 512 + 16);
        uint32_t* turned = room.data() + (-(reinterpret_cast<uintptr_t>(room.data()) / 4) & 15);
        for (int square = 0; square < squares; ++square) {
            uint16_t *most = reinterpret_cast<uint16_t*>(turned + square * 512), *rest = most + 512;
            for (int lane = 0; lane < count; ++lane) {   // what other lanes come to nobody reads
                const float* x = in + static_cast<size_t>(rows[lane]) * product.into + square * kGroup;
                for (int i = lane * kGroup; i < (lane + 1) * kGroup; i += kLanes, x += kLanes) {
                    narrow(most + i, load(x));
                    narrow(rest + i, subtract(load(x), widen(most + i)));
                }
            }
            turn(turned + square * 512);
            turn(turned + square * 512 + 256);
        }
        for (int block = blocks.start; block < blocks.stop; ++block) {
            const int first = block * kLanes, ranks = std::min(kLanes, product.rank - first);
            const uint16_t* weights = product.a + (static_cast<size_t>(a) * product.rank + first) * product.into;
            use_one_tile(ranks, count);
            _tile_zero(0);
            for (int square = 0; square < squares; ++square) {
                _tile_loadd(4, weights + square * kGroup, product.into * 2);
                _tile_loadd(6, turned + square * 512, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(6, turned + square * 512 + 256, 64);
                _tile_dpbf16ps(0, 4, 6);
            }
            alignas(64) float found[kLanes * kLanes];
            _tile_stored(0, found, 64);
            for (int r = 0; r < ranks; ++r)
                for (int lane = 0; lane < count; ++lane) out[static_cast<size_t>(lane) * width_ + first + r] = found[r * kLanes + lane];
        }
    }
#endif
    float* reduced(int lane) { return reduced_.data() + static_cast<size_t>(lane) * width_; }
    const float* reduced(int lane) const { return reduced_.data() + static_cast<size_t>(lane) * width_; }

    struct Reduce {              // one row of A or several, times some lanes
        const uint16_t* a;
        const float* in;
        const int32_t* rows;
        float* out;
        int into, stride;
        template <int ranks> void all(int count) const {
            int first = 0;
            for (; first + 4 <= count; first += 4) some<ranks, 4>(first);
            for (; first < count; ++first) some<ranks, 1>(first);
        }
        template <int ranks, int n> void some(int first) const {
            Floats total[ranks][n];
            const float* x[n];
            for (int i = 0; i < n; ++i) {
                for (auto& one : total) one[i] = zeros();
                x[i] = in + static_cast<size_t>(rows[first + i]) * into;
            }
            for (int column = 0; column < into; column += kLanes) {
                Floats values[n];
                for (int i = 0; i < n; ++i) values[i] = load(x[i] + column);
#pragma GCC unroll 4
                for (int r = 0; r < ranks; ++r) {
                    const Floats weights = widen(a + static_cast<size_t>(r) * into + column);
#pragma GCC unroll 4
                    for (int i = 0; i < n; ++i) total[r][i] = fused(weights, values[i], total[r][i]);
                }
            }
            for (int r = 0; r < ranks; ++r)
                for (int i = 0; i < n; ++i) out[static_cast<size_t>(first + i) * stride + r] = sum(total[r][i]);
        }
    };

    struct Expand {              // some columns of B, times some lanes
        const uint16_t* weights;
        const float* factors;
        const int32_t* rows;
        Laid laid;
        int ranks, width, stride;
        Range part;
        template <int n> void at(int first) const {
            constexpr int kMost = n <= 2 ? 8 : n <= 4 ? 4 : 2;   // columns at a time, in sixteens: B is read in long pieces
            int column = part.start;
            for (; column + kMost * kLanes <= part.stop; column += kMost * kLanes) some<n, kMost>(first, column);
            for (; column < part.stop; column += kLanes) some<n, 1>(first, column);
        }
        template <int n, int blocks> void some(int first, int column) const {
            Floats total[n][blocks];
#pragma GCC unroll 8
            for (auto& one : total)
#pragma GCC unroll 8
                for (auto& lanes : one) lanes = zeros();
            const float* x = factors + static_cast<size_t>(first) * stride;
            const uint16_t* at = weights + column;
            for (int r = 0; r < ranks; ++r, at += width) {
                ask_for(at + blocks * kLanes, blocks * kLanes * 2);
                Floats numbers[blocks];
                for (int block = 0; block < blocks; ++block) numbers[block] = widen(at + block * kLanes);
#pragma GCC unroll 8
                for (int i = 0; i < n; ++i) {
                    const Floats factor = all(x[static_cast<size_t>(i) * stride + r]);
#pragma GCC unroll 8
                    for (int block = 0; block < blocks; ++block) total[i][block] = fused(numbers[block], factor, total[i][block]);
                }
            }
            int places[blocks];
            for (int block = 0; block < blocks; ++block) places[block] = laid.at(column + block * kLanes);
#pragma GCC unroll 8
            for (int i = 0; i < n; ++i) {   // unrolled, or the sums would be kept in memory throughout
                float* to = laid.out + static_cast<size_t>(rows[first + i]) * laid.stride;
#pragma GCC unroll 8
                for (int block = 0; block < blocks; ++block)
                    store(to + places[block], add(load(to + places[block]), total[i][block]));
            }
        }
    };

    const Batch& b;
    std::vector<int> first_lane_;
    std::vector<std::vector<Group>> runs_;   // of each shelf: neighbours with one and the same A
    std::vector<float> reduced_;
    int width_ = 0;
};

}  // namespace dslm
