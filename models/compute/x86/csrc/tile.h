/* The matrix product that all kernels share: some rows times blocks of 16 columns, in registers. */

#ifndef PACELINE_TILE_H
#define PACELINE_TILE_H

#include "vectors.h"

enum {
    BLOCK = 16,   /* columns side by side: two registers */
    GROUP = 6,    /* rows that share a read of the weights: 12 sums in registers */
    AHEAD = 2048, /* bytes; the processor's own prefetching stops at pages */
};

typedef struct { __m256 low, high; } Pair; /* 16 numbers */

/* 16 weights of a packed block, 32-byte aligned. */
INLINE Pair widened(int kind, const char *from) {
    if (kind == FLOAT32)
        return (Pair){_mm256_load_ps((const float *)from), _mm256_load_ps((const float *)from + 8)};
    __m256i both = _mm256_load_si256((const __m256i *)from);
    if (kind == BFLOAT16)
        return (Pair){bits(_mm256_slli_epi32(both, 16)),
                      bits(_mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000)))};
    return (Pair){_mm256_cvtph_ps(_mm256_castsi256_si128(both)),
                  _mm256_cvtph_ps(_mm256_extracti128_si256(both, 1))};
}

/* sums[rows, blocks * 16] (+)= x[rows, depth] times `blocks` blocks of weights. A block is `w_block`
   bytes from the one before, its next 16 weights `w_step` bytes from these. Each sum goes through
   `depth` in order, so that it has the same bits in every tile. */
INLINE void tile(int kind, int rows, int blocks, const float *x, Size x_row, const char *w,
                 Size w_block, Size w_step, float *sums, Size sums_row, Size depth, int first) {
    Pair sum[GROUP * 2];
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++) {
            const float *from = sums + r * sums_row + b * BLOCK;
            sum[r * blocks + b] =
                first ? (Pair){_mm256_setzero_ps(), _mm256_setzero_ps()}
                      : (Pair){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
        }
    for (Size k = 0; k < depth; k++)
        for (int b = 0; b < blocks; b++) {
            const char *from = w + b * w_block + k * w_step;
            _mm_prefetch(from + AHEAD, _MM_HINT_NTA); /* leaves the program's code in the caches */
            Pair weights = widened(kind, from);
            for (int r = 0; r < rows; r++) {
                __m256 input = _mm256_broadcast_ss(x + r * x_row + k);
                Pair *own = sum + r * blocks + b;
                own->low = _mm256_fmadd_ps(input, weights.low, own->low);
                own->high = _mm256_fmadd_ps(input, weights.high, own->high);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++) {
            float *to = sums + r * sums_row + b * BLOCK;
            _mm256_storeu_ps(to, sum[r * blocks + b].low);
            _mm256_storeu_ps(to + 8, sum[r * blocks + b].high);
        }
}

/* A group of rows by `blocks` blocks, in tiles that fill the registers. */
INLINE void group(int kind, Size rows, const float *x, Size x_row, const char *w, Size w_block,
                  Size w_step, Size blocks, float *sums, Size sums_row, Size depth, int first) {
#define TILES(R, B)                                                                    \
    for (; blocks >= B; blocks -= B, w += B * w_block, sums += B * BLOCK)              \
        tile(kind, R, B, x, x_row, w, w_block, w_step, sums, sums_row, depth, first);
    switch (rows) {
    case 1: TILES(1, 4) TILES(1, 1) break;
    case 2: TILES(2, 2) TILES(2, 1) break;
    case 3: TILES(3, 1) break;
    case 4: TILES(4, 1) break;
    case 5: TILES(5, 1) break;
    case 6: TILES(6, 1) break;
    }
#undef TILES
}

#endif
