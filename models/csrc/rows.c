/* RMS norm and SwiGLU's gate, a row at a time. */

#include <math.h>

#include "kernels.h"

void rms_norm(int kind, Size rows, Size width, const char *x, const float *weight, float floor,
              char *y) {
    const Size size = size_of(kind);
    for (Size r = 0; r < rows; r++, x += width * size, y += width * size) {
        __m256 squares = _mm256_setzero_ps();
        for (Size i = 0; i < width; i += 8) {
            __m256 part = load_some(kind, x + i * size, width - i);
            squares = _mm256_fmadd_ps(part, part, squares);
        }
        const __m256 root = _mm256_set1_ps(sqrtf(total(squares) + floor));
        for (Size i = 0; i < width; i += 8) {
            __m256 part = _mm256_div_ps(load_some(kind, x + i * size, width - i), root);
            __m256 factor = load_some(FLOAT32, (const char *)(weight + i), width - i);
            store_some(kind, y + i * size, _mm256_mul_ps(part, factor), width - i);
        }
    }
}

INLINE __m256 gated(__m256 gate, __m256 up) {
    __m256 less = exponential(_mm256_sub_ps(_mm256_setzero_ps(), gate));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.f), less)), up);
}

void swiglu(int kind, Size rows, Size width, const char *x, char *y, int threads) {
    const Size size = size_of(kind);
#pragma omp parallel for schedule(dynamic) num_threads(rows * width < ALONE / 4 ? 1 : threads)
    for (Size r = 0; r < rows; r++) {
        const char *gate = x + r * 2 * width * size, *up = gate + width * size;
        char *to = y + r * width * size;
        for (Size i = 0; i < width; i += 8) {
            __m256 own = load_some(kind, gate + i * size, width - i);
            __m256 its = load_some(kind, up + i * size, width - i);
            store_some(kind, to + i * size, gated(own, its), width - i);
        }
    }
}
