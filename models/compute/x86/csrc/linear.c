/* Linear layers over packed weights.

   A packed matrix [outputs, inputs] is stored in blocks of 16 outputs, [blocks, inputs, 16], the
   last one filled up with zeros. In bfloat16 the 16 are interleaved 0, 8, 1, 9...: a shift widens
   one half of them, a mask the other. */

#include <omp.h>
#include <stdlib.h>

#include "kernels.h"
#include "tile.h"

enum {
    CHUNK = 512, /* inputs of a block that stay in the first cache for all groups of a slab */
    SLAB = 48,   /* rows whose chunk stays in the second cache for all blocks */
    PIECES = 24, /* of a thread's share, at most */
    PIECE = 4,   /* blocks of one, at least: a row's widest tile */
};

/* A thread's share of the blocks. Whoever is done with its own takes pieces of others': a thread that
   the system stops for a while would else hold up all. */
typedef struct {
    _Alignas(64) Size next; /* not shared with the next one's cache line */
    Size end, step;
} Share;

static void share_out(Size blocks, Size count, Share *shares) {
    for (Size i = 0; i < count; i++) {
        Size from = blocks * i / count, to = blocks * (i + 1) / count;
        Size pieces = (to - from) / PIECE < PIECES ? (to - from) / PIECE : PIECES;
        Size step = pieces > 1 ? (to - from + pieces - 1) / pieces : to - from;
        shares[i] = (Share){from, to, step > 0 ? (step + PIECE - 1) / PIECE * PIECE : 1};
    }
}

/* Take the next piece of a share; false: there is none. */
INLINE int take(Share *share, Size *from, Size *to) {
#pragma omp atomic capture
    {
        *from = share->next;
        share->next += share->step;
    }
    *to = *from + share->step < share->end ? *from + share->step : share->end;
    return *from < share->end;
}

/* Some blocks: few rows read all of them once, many rows one chunk of one after another. */
INLINE void span(int kind, Size rows, Size depth, const float *x, const char *w, Size blocks,
                 float *sums, Size sums_row) {
    const Size line = BLOCK * size_of(kind), groups = (rows + GROUP - 1) / GROUP;
    if (groups == 1) {
        group(kind, rows, x, depth, w, depth * line, line, blocks, sums, sums_row, depth, 1);
        return;
    }
    for (Size k = 0; k < depth; k += CHUNK)
        for (Size b = 0; b < blocks; b++)
            for (Size g = 0; g < groups; g++) {
                Size from = rows * g / groups, to = rows * (g + 1) / groups;
                group(kind, to - from, x + from * depth + k, depth, w + (b * depth + k) * line, 0,
                      line, 1, sums + from * sums_row + b * BLOCK, sums_row,
                      depth - k < CHUNK ? depth - k : CHUNK, k == 0);
            }
}

/* `span` of many rows, a slab after another. */
INLINE void slabs(int kind, Size rows, Size depth, const float *x, const char *w, Size blocks,
                  float *sums, Size sums_row) {
    const Size count = (rows + SLAB - 1) / SLAB;
    for (Size s = 0; s < count; s++) {
        Size from = rows * s / count, to = rows * (s + 1) / count;
        span(kind, to - from, depth, x + from * depth, w, blocks, sums + from * sums_row, sums_row);
    }
}

/* y[rows, from:to] = sums + bias + y, the last two if asked. */
INLINE void finish(int kind, Size rows, Size outputs, const float *sums, Size sums_row,
                   const float *bias, char *y, int add, Size from, Size to) {
    const Size size = size_of(kind);
    to = to < outputs ? to : outputs;
    for (Size r = 0; r < rows; r++)
        for (Size o = from; o < to; o += 8) {
            char *at = y + (r * outputs + o) * size;
            __m256 x = _mm256_loadu_ps(sums + r * sums_row + o);
            if (bias) x = _mm256_add_ps(x, _mm256_loadu_ps(bias + o)); /* padded as the sums are */
            if (add) x = _mm256_add_ps(x, load_some(kind, at, to - o));
            store_some(kind, at, x, to - o);
        }
}

int linear(int stored, int kind, int result, Size rows, Size inputs, Size outputs, const char *x,
           const char *w, const float *bias, char *y, int add, int threads) {
    const Size blocks = (outputs + BLOCK - 1) / BLOCK, width = blocks * BLOCK;
    const int direct = result == FLOAT32 && width == outputs && !bias && !add;
    const int narrow = kind != FLOAT32;
    Share shares[threads];
    float *room = NULL, *sums = (float *)y;
    const float *wide = (const float *)x;
    if (!direct || narrow) {
        room = malloc(sizeof(float) * rows * ((direct ? 0 : width) + (narrow ? inputs : 0)));
        if (!room) return 0;
    }
    if (!direct) sums = room;
    if (narrow) {
        float *to = room + (direct ? 0 : rows * width);
        widen(kind, x, to, rows * inputs);
        wide = to;
    }
    if (rows * inputs * outputs < ALONE) threads = 1;
    share_out(blocks, threads, shares);
#pragma omp parallel num_threads(threads)
    {
        Size own = omp_get_thread_num(), from, to;
        for (Size i = 0; i < threads; i++)
            while (take(shares + (own + i) % threads, &from, &to)) {
                const char *part = w + from * inputs * BLOCK * size_of(stored);
                float *its = sums + from * BLOCK;
                const Size some = to - from;
                if (stored == FLOAT32) slabs(FLOAT32, rows, inputs, wide, part, some, its, width);
                else if (stored == BFLOAT16)
                    slabs(BFLOAT16, rows, inputs, wide, part, some, its, width);
                else slabs(FLOAT16, rows, inputs, wide, part, some, its, width);
                if (!direct)
                    finish(result, rows, outputs, sums, width, bias, y, add, from * BLOCK,
                           to * BLOCK);
            }
    }
    free(room);
    return 1;
}
