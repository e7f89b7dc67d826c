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

constexpr int kTogether = 8;     // rows whose sums are in registers at a time

class Lowrank {                  // one batch's, through all layers
public:
    Lowrank(const Batch& batch) : b(batch) {
        int lanes = 0, rank = 0;
        for (int s = 0; s < b.shelf_count; ++s) {
            const Shelf& shelf = b.shelves[s];
            first_lane_.push_back(lanes);
            for (int g = 0; g < shelf.group_count; ++g) lanes += shelf.groups[g].count;
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
            const Range mine = share(shelf.group_count * product.rank, rank, size);
            for (int job = mine.start; job < mine.stop; ++job)
                reduce_row(shelf, product, shelf.groups[job / product.rank], job % product.rank, first_lane_[s], in);
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
                for (int g = 0; g < shelf.group_count; ++g)
                    if (part.start < part.stop) expand_group(shelf, piece, shelf.groups[g], first_lane_[s], {out, columns}, part);
            }
        }
    }

private:
    struct Target { float* out; int columns; };
    float* reduced(int lane) { return reduced_.data() + static_cast<size_t>(lane) * width_; }
    const float* reduced(int lane) const { return reduced_.data() + static_cast<size_t>(lane) * width_; }

    void reduce_row(const Shelf& shelf, const AdaptedProduct& product, const Group& group, int row, int first_lane, const float* in) {
        const uint16_t* a = product.a + (static_cast<size_t>(group.a) * product.rank + row) * product.into;
        for (int first = 0; first < group.count; first += kTogether) {
            const int here = std::min(kTogether, group.count - first);
            const int32_t* rows = shelf.rows + group.first + first;
            Floats total[kTogether];
            const float* x[kTogether];
            for (int i = 0; i < kTogether; ++i) {
                total[i] = zeros();
                x[i] = in + static_cast<size_t>(rows[std::min(i, here - 1)]) * product.into;
            }
            for (int column = 0; column < product.into; column += kLanes) {
                const Floats weights = widen(a + column);
#pragma GCC unroll 8
                for (int i = 0; i < kTogether; ++i) total[i] = fused(weights, load(x[i] + column), total[i]);
            }
            for (int i = 0; i < here; ++i) reduced(first_lane + group.first + first + i)[row] = sum(total[i]);
        }
    }

    void expand_group(const Shelf& shelf, const Piece& piece, const Group& group, int first_lane, Target to, Range part) const {
        const int ranks = piece.rank_stop - piece.rank_start, width = piece.stop - piece.start;
        const uint16_t* weights = piece.b + static_cast<size_t>(group.b) * ranks * width;
        for (int first = 0; first < group.count; first += kTogether) {
            const int here = std::min(kTogether, group.count - first);
            const float* factors[kTogether];
            for (int i = 0; i < kTogether; ++i)
                factors[i] = reduced(first_lane + group.first + first + std::min(i, here - 1)) + piece.rank_start;
            for (int column = part.start; column < part.stop; column += kLanes) {
                Floats total[kTogether];
                for (auto& one : total) one = zeros();
                const uint16_t* at = weights + column - piece.start;
                for (int r = 0; r < ranks; ++r, at += width) {
                    const Floats numbers = widen(at);
#pragma GCC unroll 8
                    for (int i = 0; i < kTogether; ++i) total[i] = fused(numbers, all(factors[i][r]), total[i]);
                }
                for (int i = 0; i < here; ++i) {
                    float* place = to.out + static_cast<size_t>(shelf.rows[group.first + first + i]) * to.columns + column;
                    store(place, add(load(place), total[i]));
                }
            }
        }
    }

    const Batch& b;
    std::vector<int> first_lane_;
    std::vector<float> reduced_;
    int width_ = 0;
};

}  // namespace dslm
