// What Python and this library hand each other, and the sizes that both count on.
//
// `node.engine.native.library` declares the same structures for ctypes, `packing` makes the blocks.
#pragma once

#include <cstdint>

namespace dslm {

constexpr int kGroup = 32;       // columns that share a scale
constexpr int kPage = 16;        // tokens of a page
constexpr int kSegment = 256;    // positions that attention takes together
// Chunks of so many tokens and more go through matrices of 4 bits as bf16, the matrices widened; rows of shorter ones are
// codes. So what a draft or an answer comes to does not depend on what else is in the batch.
constexpr int kWideChunk = 96;
constexpr int kVersion = 4;

// A panel is 16 rows of a matrix. Panels follow each other; each holds the codes of all its groups,
// then what belongs to the codes:
//   4 bits:  groups x 256 bytes [4][16 rows][4] (low halves columns 8i.., high halves 8i + 4..),
//            groups x [16] fp16 scales, [16] fp16 minima: scale * code + minimum
//   8 bits:  groups x 512 bytes [8][16 rows][4], groups x [16] fp16 scales: scale * (code - 128)
//   16 bits: groups x [16 pairs of columns][16 rows][2] bf16
constexpr int panel_bytes(int bits, int groups) {
    return groups * (bits == 4 ? 256 + 64 : bits == 8 ? 512 + 32 : 1024);
}

extern "C" {
struct Matrix {
    const uint8_t* panels;
    int32_t rows, columns;       // rows in sixteens, columns in groups
    int32_t bits, unused;
};
struct Layer {
    const float *attention_norm, *feed_forward_norm;
    Matrix query_key_value, output, gate_up, down;   // gate_up: 32 rows of either in turns
};
struct Model {
    const Layer* layers;
    const float *final_norm, *cosines, *sines;   // tables [positions][dimension / 2]
    Matrix embedding, head;
    int32_t layer_count, hidden, heads, kv_heads, dimension, feed_forward;
    float epsilon;
    int32_t bits;                // 16: activations are bf16; else int8 in groups
};
struct Span {                    // tokens of one sequence that go through together
    int32_t start, stop;         // rows of the batch
    int32_t position;            // of the first
    int32_t pages;               // where its block table begins in Batch.pages
};
struct Piece {                   // columns of a product that one part of an adapter changes
    const uint16_t* b;           // bf16 [slots][ranks of the piece][columns], times the scale
    int32_t start, stop, rank_start, rank_stop;
};
struct AdaptedProduct {
    const uint16_t* a;           // bf16 [slots][rank][into]
    int32_t rank, into, piece_count, unused;   // rank 0: unchanged
    Piece pieces[3];
};
struct Group {                   // lanes of one adapter: rows [first, first + count)
    int32_t a, b, first, count;
};
struct Shelf {                   // adapters that are laid out alike
    const AdaptedProduct* products;   // [layers][query_key_value, output, gate_up, down]
    const Group* groups;
    const int32_t* rows;         // of the batch
    int32_t group_count, rank_most;
};
struct Batch {
    const int32_t* tokens;
    const Span* spans;
    const int32_t* pages;
    const int32_t* logit_rows;
    float* logits;               // [logit rows][head rows]
    // One page of one head, bf16: keys [dimension / 2][16 tokens][2], values [8][dimension][2], so
    // that pairs of what is summed lie together. Both [layers][kv_heads][pages][page].
    uint16_t *keys, *values;
    const Shelf* shelves;
    int32_t token_count, span_count, logit_count, page_count, shelf_count;
};
}

}  // namespace dslm
