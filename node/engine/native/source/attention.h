// Attention of a tile of queries over the pages of one sequence and one key-value head.
//
// Knows pages (see shapes.h) and queries; must not know layers or who shares a page. Positions are
// taken in segments of 256: softmax within a segment, then segments are merged one after the other.
// So a query's result depends on nothing but its own positions, whoever it is computed with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "amx.h"
#include "shapes.h"
#include "simd.h"

namespace dslm {

constexpr int kQueries = 16;     // of a tile

struct Heads {                   // the pages of one layer's key-value head
    const uint16_t *keys, *values;
    const int32_t* pages;        // block table
    int dimension;
    const uint16_t* keys_of(int page) const { return keys + static_cast<size_t>(pages[page]) * kPage * dimension; }
    const uint16_t* values_of(int page) const { return values + static_cast<size_t>(pages[page]) * kPage * dimension; }
};

struct Queries {                 // bf16, already scaled
    const uint16_t* numbers;     // [16][dimension], room for all of them
    int count;
    int seen[kQueries];          // how many positions each may look at
    int most;                    // the largest of `seen`
};

// What one thread needs; `out` is [queries][dimension] when `attend` has ended.
struct AttentionRoom {
    std::vector<float> out, part;
    alignas(64) float scores[kSegment / kPage][kQueries][kPage];
    alignas(64) uint16_t weights[kSegment / kPage][kQueries][kPage];   // bf16
    float most[kQueries], total[kQueries], part_most[kQueries], part_total[kQueries];
    void fit(int dimension) {
        out.resize(static_cast<size_t>(kQueries) * dimension);
        part.resize(static_cast<size_t>(kQueries) * dimension);
    }
};

// Pages lie anywhere: what the next loops read is asked for while this one computes.
inline void ask_for_pages(const Heads& heads, int page, int last) {
    constexpr int kPagesAhead = 4;   // as many as are scored together for few queries
    const int bytes = kPage * heads.dimension * 2;
    ask_for_later(heads.values_of(page), bytes);
    if (page + kPagesAhead < last) ask_for(heads.keys_of(page + kPagesAhead), bytes);
}

inline uint32_t pair_at(const uint16_t* place) {
    uint32_t two;
    std::memcpy(&two, place, 4);
    return two;
}

// Some pages by some queries: as many sums as registers hold, so that neither keys nor latencies are waited for. Which go
// together changes no sum.
template <int pages, int count>
void score_some(const Heads& heads, const Queries& queries, int first_page, int page, int start, AttentionRoom& room) {
    const uint16_t* keys[pages];
    Floats sums[pages][count];
    for (int p = 0; p < pages; ++p) {
        keys[p] = heads.keys_of(first_page + page + p);
        for (auto& one : sums[p]) one = zeros();
    }
    const uint16_t* numbers = queries.numbers + static_cast<size_t>(start) * heads.dimension;
    for (int i = 0; i < heads.dimension / 2; ++i)
#pragma GCC unroll 8
        for (int q = 0; q < count; ++q) {   // room for 16 queries is there, whatever their count
            const uint32_t two = pair_at(numbers + static_cast<size_t>(q) * heads.dimension + 2 * i);
            for (int p = 0; p < pages; ++p) sums[p][q] = dot_pairs(sums[p][q], keys[p] + i * 2 * kPage, two);
        }
#pragma GCC unroll 8
    for (int p = 0; p < pages; ++p)
#pragma GCC unroll 8
        for (int q = 0; q < count; ++q) store(room.scores[page + p][start + q], sums[p][q]);
}

template <int count>
void score_queries(const Heads& heads, const Queries& queries, int first_page, int pages, int start, AttentionRoom& room) {
    constexpr int kTogether = kIsWide ? 16 / count : 1;
    const auto ask = [&](int page) {
        if (start == 0) ask_for_pages(heads, first_page + page, first_page + pages);
    };
    int page = 0;
    for (; page + kTogether <= pages; page += kTogether) {
        for (int p = 0; p < kTogether; ++p) ask(page + p);
        score_some<kTogether, count>(heads, queries, first_page, page, start, room);
    }
    for (; page < pages; ++page) {
        ask(page);
        score_some<1, count>(heads, queries, first_page, page, start, room);
    }
}

inline void score_plain(const Heads& heads, const Queries& queries, int first_page, int pages, AttentionRoom& room) {
    for (int start = 0; start < queries.count;) {
        const bool are_eight = kIsWide && queries.count - start > 4;
        if (are_eight) score_queries<8>(heads, queries, first_page, pages, start, room);
        else score_queries<4>(heads, queries, first_page, pages, start, room);
        start += are_eight ? 8 : 4;
    }
}

// Four queries by `blocks` times 16 columns.
template <int blocks>
void gather_some(const Heads& heads, int first_page, int pages, int column, int start, AttentionRoom& room) {
    constexpr int kTogether = 4;
    Floats sums[kTogether][blocks];
    for (auto& some : sums)
        for (auto& one : some) one = zeros();
    for (int page = 0; page < pages; ++page) {
        const uint16_t* values = heads.values_of(first_page + page) + 2 * column;
        const uint16_t* weights = room.weights[page][start];
        for (int pair = 0; pair < kPage / 2; ++pair, values += 2 * heads.dimension)
#pragma GCC unroll 8
            for (int q = 0; q < kTogether; ++q) {
                const uint32_t two = pair_at(weights + q * kPage + 2 * pair);
                for (int block = 0; block < blocks; ++block) sums[q][block] = dot_pairs(sums[q][block], values + block * 2 * kLanes, two);
            }
    }
#pragma GCC unroll 8
    for (int q = 0; q < kTogether; ++q)
#pragma GCC unroll 8
        for (int block = 0; block < blocks; ++block)
            store(room.part.data() + static_cast<size_t>(start + q) * heads.dimension + column + block * kLanes, sums[q][block]);
}

inline void gather_plain(const Heads& heads, const Queries& queries, int first_page, int pages, AttentionRoom& room) {
    constexpr int kMost = kIsWide ? 4 : 1;
    for (int start = 0; start < queries.count; start += 4) {
        int column = 0;
        for (; column + kMost * kLanes <= heads.dimension; column += kMost * kLanes)
            gather_some<kMost>(heads, first_page, pages, column, start, room);
        for (; column < heads.dimension; column += kLanes) gather_some<1>(heads, first_page, pages, column, start, room);
    }
}

#ifdef DSLM_AMX
inline void score_tiles(const Heads& heads, const Queries& queries, int first_page, int pages, AttentionRoom& room) {
    const int bytes = heads.dimension * 2;
    for (int page = 0; page < pages; page += 2) {
        const bool is_pair = page + 1 < pages;
        ask_for_pages(heads, first_page + page, first_page + pages);
        if (is_pair) ask_for_pages(heads, first_page + page + 1, first_page + pages);
        const uint16_t* left = heads.keys_of(first_page + page);
        const uint16_t* right = is_pair ? heads.keys_of(first_page + page + 1) : left;
        _tile_zero(0);
        _tile_zero(1);
        for (int column = 0; column < heads.dimension; column += kGroup) {
            _tile_loadd(4, queries.numbers + column, bytes);
            _tile_loadd(5, left + column * kPage, 64);
            _tile_dpbf16ps(0, 4, 5);
            if (is_pair) {
                _tile_loadd(5, right + column * kPage, 64);
                _tile_dpbf16ps(1, 4, 5);
            }
        }
        _tile_stored(0, room.scores[page], 64);
        if (is_pair) _tile_stored(1, room.scores[page + 1], 64);
    }
}

inline void gather_tiles(const Heads& heads, int first_page, int pages, AttentionRoom& room) {
    const int bytes = heads.dimension * 4;
    for (int column = 0; column < heads.dimension; column += 4 * kLanes) {
        const bool is_whole = column + 4 * kLanes <= heads.dimension;   // else half of it is left
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int page = 0; page < pages; ++page) {
            const uint16_t* values = heads.values_of(first_page + page) + 2 * column;
            _tile_loadd(6, room.weights[page], 32);
            _tile_loadd(7, values, bytes);
            _tile_dpbf16ps(0, 6, 7);
            _tile_loadd(7, values + 2 * kLanes, bytes);
            _tile_dpbf16ps(1, 6, 7);
            if (is_whole) {
                _tile_loadd(7, values + 4 * kLanes, bytes);
                _tile_dpbf16ps(2, 6, 7);
                _tile_loadd(7, values + 6 * kLanes, bytes);
                _tile_dpbf16ps(3, 6, 7);
            }
        }
        float* part = room.part.data() + column;
        _tile_stored(0, part, bytes);
        _tile_stored(1, part + kLanes, bytes);
        if (is_whole) {
            _tile_stored(2, part + 2 * kLanes, bytes);
            _tile_stored(3, part + 3 * kLanes, bytes);
        }
    }
}
#endif

// Softmax of each query over one segment; a query that sees nothing of it has `most` -inf.
inline void weigh(const Queries& queries, int first_page, int pages, AttentionRoom& room) {
    for (int q = 0; q < queries.count; ++q) {
        const int seen = queries.seen[q] - first_page * kPage;
        Floats most = all(-INFINITY);
        for (int page = 0; page < pages; ++page)
            most = larger(most, first(load(room.scores[page][q]), seen - page * kPage, -INFINITY));
        const float top = largest(most);
        room.part_most[q] = top;
        Floats total = zeros();
        for (int page = 0; page < pages; ++page) {
            const Floats raised = exponential(subtract(load(room.scores[page][q]), all(top)));
            const Floats weight = first(raised, seen - page * kPage, 0.0f);
            narrow(room.weights[page][q], weight);
            total = add(total, weight);
        }
        room.part_total[q] = sum(total);
    }
}

inline float exponential(float x) {
    float lanes[kLanes];
    store(lanes, exponential(all(x)));
    return lanes[0];
}

inline void merge(const Queries& queries, int dimension, AttentionRoom& room) {
    for (int q = 0; q < queries.count; ++q) {
        if (room.part_most[q] == -INFINITY) continue;
        const float most = std::max(room.most[q], room.part_most[q]);
        const float old = exponential(room.most[q] - most), now = exponential(room.part_most[q] - most);
        room.total[q] = room.total[q] * old + room.part_total[q] * now;
        room.most[q] = most;
        float* out = room.out.data() + static_cast<size_t>(q) * dimension;
        const float* part = room.part.data() + static_cast<size_t>(q) * dimension;
        for (int i = 0; i < dimension; i += kLanes)
            store(out + i, fused(load(part + i), all(now), times(load(out + i), all(old))));
    }
}

inline void attend(const Heads& heads, const Queries& queries, AttentionRoom& room, [[maybe_unused]] bool has_tiles) {
    const int dimension = heads.dimension;
    for (int q = 0; q < queries.count; ++q) {
        room.most[q] = -INFINITY;
        room.total[q] = 0;
    }
    std::fill_n(room.out.data(), static_cast<size_t>(queries.count) * dimension, 0.0f);
    const int pages = (queries.most + kPage - 1) / kPage, each = kSegment / kPage;
    for (int first_page = 0; first_page < pages; first_page += each) {
        const int here = std::min(each, pages - first_page);
#ifdef DSLM_AMX
        if (has_tiles) score_tiles(heads, queries, first_page, here, room);
        else
#endif
            score_plain(heads, queries, first_page, here, room);
        weigh(queries, first_page, here, room);
#ifdef DSLM_AMX
        if (has_tiles) gather_tiles(heads, first_page, here, room);
        else
#endif
            gather_plain(heads, queries, first_page, here, room);
        merge(queries, dimension, room);
    }
    for (int q = 0; q < queries.count; ++q) {
        const Floats share_of = all(1.0f / room.total[q]);
        float* out = room.out.data() + static_cast<size_t>(q) * dimension;
        for (int i = 0; i < dimension; i += kLanes) store(out + i, times(load(out + i), share_of));
    }
}

}  // namespace dslm
