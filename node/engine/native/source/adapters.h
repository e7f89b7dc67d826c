// What low-rank adapters add to the products of a batch: out += B (A x) for the rows that have one.
//
// Knows shelves as `node.engine.adapters.shelf` lays them out and which rows have which adapter;
// must not know names or requests. A row's sums are taken in the same order whatever else is in
// the batch. A and B are bf16, everything between them is fp32.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

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

    // A x, for this thread's share of the rows of all A's. `in` is [tokens][into].
    void reduce(int place, const float* in, int rank, int size) {
        for (int s = 0; s < b.shelf_count; ++s) {
            const Shelf& shelf = b.shelves[s];
            const AdaptedProduct& product = shelf.products[place];
            const Range mine = share(static_cast<int>(runs_[s].size()) * product.rank, rank, size);
            for (int job = mine.start; job < mine.stop; ++job) {
                const Group& run = runs_[s][job / product.rank];
                const int row = job % product.rank;
                const uint16_t* a = product.a + (static_cast<size_t>(run.a) * product.rank + row) * product.into;
                in_eights(run.count, Reduce{a, in, shelf.rows + run.first, reduced(first_lane_[s] + run.first) + row, product.into, width_});
            }
        }
    }
    // The columns `mine` of out [tokens][columns], after all threads have reduced.
    void expand(int place, float* out, int columns, Range mine) const {
        for (int s = 0; s < b.shelf_count; ++s) {
            const Shelf& shelf = b.shelves[s];
            const AdaptedProduct& product = shelf.products[place];
            for (int p = 0; p < product.piece_count; ++p) {
                const Piece& piece = product.pieces[p];
                const Range part{std::max(mine.start, piece.start), std::min(mine.stop, piece.stop)};
                if (part.start >= part.stop) continue;
                const int ranks = piece.rank_stop - piece.rank_start, width = piece.stop - piece.start;
                for (int g = 0; g < shelf.group_count; ++g) {
                    const Group& group = shelf.groups[g];
                    const uint16_t* weights = piece.b + static_cast<size_t>(group.b) * ranks * width - piece.start;
                    const float* factors = reduced(first_lane_[s] + group.first) + piece.rank_start;
                    in_eights(group.count, Expand{weights, factors, shelf.rows + group.first, out, columns, ranks, width, width_, part});
                }
            }
        }
    }

private:
    float* reduced(int lane) { return reduced_.data() + static_cast<size_t>(lane) * width_; }
    const float* reduced(int lane) const { return reduced_.data() + static_cast<size_t>(lane) * width_; }

    struct Reduce {              // one row of A, times some lanes
        const uint16_t* a;
        const float* in;
        const int32_t* rows;
        float* out;
        int into, stride;
        template <int n> void at(int first) const {
            Floats total[n];
            const float* x[n];
            for (int i = 0; i < n; ++i) {
                total[i] = zeros();
                x[i] = in + static_cast<size_t>(rows[first + i]) * into;
            }
            for (int column = 0; column < into; column += kLanes) {
                const Floats weights = widen(a + column);
#pragma GCC unroll 8
                for (int i = 0; i < n; ++i) total[i] = fused(weights, load(x[i] + column), total[i]);
            }
            for (int i = 0; i < n; ++i) out[static_cast<size_t>(first + i) * stride] = sum(total[i]);
        }
    };

    struct Expand {              // some columns of B, times some lanes
        const uint16_t* weights;
        const float* factors;
        const int32_t* rows;
        float* out;
        int columns, ranks, width, stride;
        Range part;
        template <int n> void at(int first) const {
            const float* x[n];
            float* to[n];
            for (int i = 0; i < n; ++i) {
                x[i] = factors + static_cast<size_t>(first + i) * stride;
                to[i] = out + static_cast<size_t>(rows[first + i]) * columns;
            }
            for (int column = part.start; column < part.stop; column += kLanes) {
                Floats total[n];
                for (auto& one : total) one = zeros();
                const uint16_t* at = weights + column;
                for (int r = 0; r < ranks; ++r, at += width) {
                    const Floats numbers = widen(at);
#pragma GCC unroll 8
                    for (int i = 0; i < n; ++i) total[i] = fused(numbers, all(x[i][r]), total[i]);
                }
                for (int i = 0; i < n; ++i) store(to[i] + column, add(load(to[i] + column), total[i]));
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
