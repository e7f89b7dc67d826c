// Tile registers (AMX), where the compiler's target has them and the system lets us.
//
// Knows the shape of the registers: C 16 x 16 numbers; A 16 rows of 64 bytes (or 32); B 16 rows of
// 64 bytes (or 8). A kernel sets the shape that it needs; every thread has registers of its own.
#pragma once

#include <cstdint>

#if defined(__AVX512VNNI__) && defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define DSLM_AMX 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dslm {

#ifdef DSLM_AMX
struct alignas(64) TileShape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
    void set(int tile, int count, int bytes) {
        rows[tile] = static_cast<uint8_t>(count);
        row_bytes[tile] = static_cast<uint16_t>(bytes);
    }
};
// 0 to 3: C. 4, 5: A and 6, 7: B. A and C have `rows` rows: a product takes a cycle for each.
inline void use_whole_tiles(int rows) {
    TileShape shape;
    for (int tile = 0; tile < 6; ++tile) shape.set(tile, rows, 64);
    for (int tile = 6; tile < 8; ++tile) shape.set(tile, 16, 64);
    _tile_loadconfig(&shape);
}
// 0 to 3: C. 4: A and 5: B, whole. 6: A of 32 bytes a row. 7: B of 8 rows.
inline void use_half_tiles(int rows) {
    TileShape shape;
    for (int tile = 0; tile < 5; ++tile) shape.set(tile, rows, 64);
    shape.set(5, 16, 64);
    shape.set(6, rows, 32);
    shape.set(7, 8, 64);
    _tile_loadconfig(&shape);
}
// 0: C of `rows` rows and `columns` columns. 4: A of `rows` rows. 6: B of `columns` columns.
inline void use_one_tile(int rows, int columns) {
    TileShape shape;
    shape.set(0, rows, 4 * columns);
    shape.set(4, rows, 64);
    shape.set(6, 16, 4 * columns);
    _tile_loadconfig(&shape);
}
inline void release_tiles() { _tile_release(); }
// The compiler wants a register's number spelled out.
#define DSLM_EACH_TILE(DO) if constexpr (tile == 0) { DO(0) } else if constexpr (tile == 1) { DO(1) } else if constexpr (tile == 2) { DO(2) } else { DO(3) }
// C `tile` = 16 or fewer rows of 32 signed codes times 8 rows of 64 unsigned ones, with half tiles.
template <int tile> inline void multiply_codes(const int8_t* x, const uint8_t* codes) {
    _tile_loadd(6, x, 32);
    _tile_loadd(7, codes, 64);
#define DSLM_MULTIPLY(n) _tile_zero(n); _tile_dpbsud(n, 6, 7);
    DSLM_EACH_TILE(DSLM_MULTIPLY)
#undef DSLM_MULTIPLY
}
template <int tile> inline void store_tile(void* place, int stride) {
#define DSLM_STORE(n) _tile_stored(n, place, stride);
    DSLM_EACH_TILE(DSLM_STORE)
#undef DSLM_STORE
}
inline bool tiles_allowed() {  // Linux gives the state out on request only, once for a process
    constexpr long kRequest = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#else
inline void release_tiles() {}
inline bool tiles_allowed() { return false; }
#endif

}  // namespace dslm
