/* The flow map of models/sampling/flow.py in float64, a row at a time, so that a row has the same
   bits in every batch. Letters as there: V codes of width C, padded to whole blocks. */

#include <math.h>
#include <stdlib.h>

#include "kernels.h"

enum {
    LANES = 4,   /* of a vector */
    VECTORS = 4, /* that share a read of a column of x */
    BLOCK = LANES * VECTORS,
    COLUMNS = 8, /* of codes whose sums are in registers */
};

/* e^x for x from -40 to 0, to 1e-14 relatively: 2^n times a polynomial, as in vectors.h. */
INLINE __m256d power_of_e(__m256d x) {
    __m256d n = _mm256_round_pd(_mm256_mul_pd(x, _mm256_set1_pd(1.4426950408889634)),
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    x = _mm256_fnmadd_pd(n, _mm256_set1_pd(0.693147180369123816490), x); /* ln 2 in two parts */
    x = _mm256_fnmadd_pd(n, _mm256_set1_pd(1.90821492927058770002e-10), x);
    const double taylor[] = {1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320, 1. / 5040,
                             1. / 720,      1. / 120,     1. / 24,     1. / 6,     0.5,
                             1.,            1.};
    __m256d sum = _mm256_set1_pd(taylor[0]);
    for (int i = 1; i < 12; i++) sum = _mm256_fmadd_pd(sum, x, _mm256_set1_pd(taylor[i]));
    __m256i power = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n));
    power = _mm256_slli_epi64(_mm256_add_epi64(power, _mm256_set1_epi64x(1023)), 52);
    return _mm256_mul_pd(sum, _mm256_castsi256_pd(power));
}

INLINE double sum_of(__m256d x) {
    __m128d half = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

INLINE double greatest(__m256d x) {
    __m128d half = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_max_sd(half, _mm_unpackhi_pd(half, half)));
}

/* What the codes are: [C, V], and half their squares [V]. */
typedef struct {
    const double *codes, *half;
    Size vocabulary, width; /* `vocabulary` is padded */
} Codes;

/* Room for one row: of V numbers, and of V / BLOCK positions. */
typedef struct {
    double *weights;
    Size *found; /* blocks with a weight above 0 */
} Work;

/* values [V] = logs + x times the codes - shift times half their squares; returns the greatest. */
INLINE double scores(const Codes *of, const double *logs, const double *x, double shift,
                     double *values) {
    const __m256d less = _mm256_set1_pd(shift);
    __m256d most = _mm256_set1_pd(-INFINITY);
    for (Size v = 0; v < of->vocabulary; v += BLOCK) {
        __m256d sums[VECTORS];
        for (int i = 0; i < VECTORS; i++)
            sums[i] = _mm256_fnmadd_pd(less, _mm256_loadu_pd(of->half + v + i * LANES),
                                       _mm256_loadu_pd(logs + v + i * LANES));
        for (Size c = 0; c < of->width; c++) {
            const __m256d by = _mm256_broadcast_sd(x + c);
            const double *from = of->codes + c * of->vocabulary + v;
            for (int i = 0; i < VECTORS; i++)
                sums[i] = _mm256_fmadd_pd(by, _mm256_loadu_pd(from + i * LANES), sums[i]);
        }
        for (int i = 0; i < VECTORS; i++) {
            _mm256_storeu_pd(values + v + i * LANES, sums[i]);
            most = _mm256_max_pd(most, sums[i]);
        }
    }
    return greatest(most);
}

/* Scores become weights, 0 below e^-40 of the greatest, which rounding would lose; returns how many
   blocks of them are not all 0, and their sum. */
INLINE Size weigh(const Codes *of, double most, Work *work, double *total) {
    const __m256d low = _mm256_set1_pd(-40.), top = _mm256_set1_pd(most);
    __m256d sums[VECTORS];
    Size count = 0;
    for (int i = 0; i < VECTORS; i++) sums[i] = _mm256_setzero_pd();
    for (Size v = 0; v < of->vocabulary; v += BLOCK) {
        __m256d x[VECTORS], kept[VECTORS], any = _mm256_setzero_pd();
        for (int i = 0; i < VECTORS; i++) {
            x[i] = _mm256_sub_pd(_mm256_loadu_pd(work->weights + v + i * LANES), top);
            kept[i] = _mm256_cmp_pd(x[i], low, _CMP_GE_OQ);
            any = _mm256_or_pd(any, kept[i]);
        }
        if (!_mm256_movemask_pd(any)) continue;
        for (int i = 0; i < VECTORS; i++) {
            x[i] = _mm256_and_pd(kept[i], power_of_e(_mm256_max_pd(x[i], low)));
            _mm256_storeu_pd(work->weights + v + i * LANES, x[i]);
            sums[i] = _mm256_add_pd(sums[i], x[i]);
        }
        work->found[count++] = v;
    }
    for (int i = 1; i < VECTORS; i++) sums[0] = _mm256_add_pd(sums[0], sums[i]);
    *total = sum_of(sums[0]);
    return count;
}

/* mean[:columns] of the codes by their weights. */
INLINE void average(const Codes *of, const Work *work, Size count, double total, Size first,
                    int columns, double *mean) {
    __m256d sums[COLUMNS];
    for (int c = 0; c < columns; c++) sums[c] = _mm256_setzero_pd();
    for (Size i = 0; i < count; i++) {
        for (Size v = work->found[i]; v < work->found[i] + BLOCK; v += LANES) {
            const __m256d weight = _mm256_loadu_pd(work->weights + v);
            const double *from = of->codes + first * of->vocabulary + v;
            for (int c = 0; c < columns; c++)
                sums[c] = _mm256_fmadd_pd(weight, _mm256_loadu_pd(from + c * of->vocabulary), sums[c]);
        }
    }
    for (int c = 0; c < columns; c++) mean[first + c] = sum_of(sums[c]) / total;
}

/* mean [C]: the mean code given x [C] at time t. */
static void mean_code(const Codes *of, const double *logs, const double *x, double t, Work *work,
                      double *mean) {
    const double factor = (1 - t) / (t * t);
    for (Size c = 0; c < of->width; c++) mean[c] = factor * x[c];
    double total, most = scores(of, logs, mean, factor * (1 - t), work->weights);
    const Size count = weigh(of, most, work, &total);
    Size c = 0;
    for (; c + 8 <= of->width; c += 8) average(of, work, count, total, c, 8, mean);
    for (; c + 4 <= of->width; c += 4) average(of, work, count, total, c, 4, mean);
    for (; c < of->width; c++) average(of, work, count, total, c, 1, mean);
}

/* Heun's method over `times`; `room` [4 C]. */
static void solve(const Codes *of, const double *logs, const double *times, Size count, double *x,
                  Work *work, double *room) {
    const Size width = of->width;
    double *mean = room, *first = room + width, *ahead = room + 2 * width;
    for (Size k = 0; k + 1 < count; k++) {
        const double t = times[k], after = times[k + 1], step = after - t;
        mean_code(of, logs, x, t, work, mean);
        for (Size c = 0; c < width; c++) {
            first[c] = (x[c] - mean[c]) / t;
            ahead[c] = x[c] + step * first[c];
        }
        mean_code(of, logs, ahead, after, work, mean);
        for (Size c = 0; c < width; c++)
            x[c] += step / 2 * (first[c] + (ahead[c] - mean[c]) / after);
    }
}

/* The code nearest to the mean one among those of probability above 0; the first of equal ones. */
static Size nearest(const Codes *of, const double *logs, const double *mean, double *values) {
    Size best = -1;
    for (Size v = 0; v < of->vocabulary; v++) values[v] = -of->half[v];
    for (Size c = 0; c < of->width; c++)
        for (Size v = 0; v < of->vocabulary; v++)
            values[v] += mean[c] * of->codes[c * of->vocabulary + v];
    for (Size v = 0; v < of->vocabulary; v++)
        if (logs[v] != -INFINITY && (best < 0 || values[v] > values[best])) best = v;
    return best;
}

int flow(Size rows, Size vocabulary, Size width, const double *codes, const double *half,
         const double *logs, const double *times, Size count, double *x, Size *tokens,
         int threads) {
    const Codes of = {codes, half, vocabulary, width};
    int done = 1;
#pragma omp parallel for schedule(dynamic, 4) num_threads(rows < 8 ? 1 : threads)
    for (Size r = 0; r < rows; r++) {
        double *room = malloc((vocabulary + 4 * width) * sizeof(double) +
                              vocabulary / BLOCK * sizeof(Size));
        if (!room) {
            done = 0;
            continue;
        }
        double *rest = room + vocabulary, *own = x + r * width;
        Work work = {room, (Size *)(rest + 4 * width)};
        const double *law = logs + r * vocabulary;
        solve(&of, law, times, count, own, &work, rest);
        if (tokens) {
            mean_code(&of, law, own, times[count - 1], &work, rest); /* x - t * velocity */
            tokens[r] = nearest(&of, law, rest, work.weights);
        }
        free(room);
    }
    return done;
}
