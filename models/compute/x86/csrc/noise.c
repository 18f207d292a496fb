/* Rows of noise. */

#include "noise.h"

void gumbel(const Draw *draw, Size rows, float *y, int threads) {
    const Size size = draw->vocabulary;
#pragma omp parallel for num_threads(rows * size < ALONE / 4 ? 1 : threads)
    for (Size r = 0; r < rows; r++) {
        const Key key = key_of(draw, r);
        for (Size v = 0; v < size; v += 8)
            store_some(FLOAT32, (char *)(y + r * size + v), noise_at(draw, key, v), size - v);
    }
}
