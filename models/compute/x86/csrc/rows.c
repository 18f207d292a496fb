/* Norms and activations, a row at a time. Sums over a row have one order. */

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

void layer_norm(int kind, Size rows, Size width, const char *x, float eps, float *y) {
    const Size size = size_of(kind);
    for (Size r = 0; r < rows; r++, x += width * size, y += width) {
        __m256 sum = _mm256_setzero_ps(), squares = sum;
        for (Size i = 0; i < width; i += 8)
            sum = _mm256_add_ps(sum, load_some(kind, x + i * size, width - i));
        const __m256 mean = _mm256_set1_ps(total(sum) / (float)width);
        for (Size i = 0; i < width; i += 8) {
            __m256 part = _mm256_sub_ps(load_some(kind, x + i * size, width - i), mean);
            store_some(FLOAT32, (char *)(y + i), part, width - i);
            part = load_some(FLOAT32, (const char *)(y + i), width - i); /* 0 behind the row */
            squares = _mm256_fmadd_ps(part, part, squares);
        }
        const __m256 root = _mm256_set1_ps(sqrtf(total(squares) / (float)width + eps));
        for (Size i = 0; i < width; i += 8) {
            __m256 part = load_some(FLOAT32, (const char *)(y + i), width - i);
            store_some(FLOAT32, (char *)(y + i), _mm256_div_ps(part, root), width - i);
        }
    }
}

/* x / (1 + e^-slope) */
INLINE __m256 sigmoid_times(__m256 x, __m256 slope) {
    __m256 less = exponential(_mm256_sub_ps(_mm256_setzero_ps(), slope));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.f), less));
}

void activate(int kind, int gelu, Size count, const char *x, char *y) {
    const Size size = size_of(kind);
    for (Size i = 0; i < count; i += 8) {
        __m256 part = load_some(kind, x + i * size, count - i), slope = part;
        if (gelu) { /* tanh's form: 2 sqrt(2 / pi) (x + 0.044715 x^3) */
            __m256 cube = _mm256_mul_ps(_mm256_mul_ps(part, part), part);
            slope = _mm256_fmadd_ps(_mm256_set1_ps(0.044715f), cube, part);
            slope = _mm256_mul_ps(_mm256_set1_ps(1.59576912f), slope);
        }
        store_some(kind, y + i * size, sigmoid_times(part, slope), count - i);
    }
}

INLINE __m256 gated(__m256 gate, __m256 up) {
    return _mm256_mul_ps(sigmoid_times(gate, gate), up);
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
