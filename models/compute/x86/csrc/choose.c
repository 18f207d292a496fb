/* The choice of tokens: the greatest of values and noise, among those that the filters of
   models/sampling/processing.py keep. */

#include "noise.h"

/* Eight values from v on, -inf behind the last. */
INLINE __m256 values_at(const float *values, Size size, Size v) {
    __m256 x = load_some(FLOAT32, (const char *)(values + v), size - v);
    if (size - v >= 8) return x;
    __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i behind = _mm256_cmpgt_epi32(lanes, _mm256_set1_epi32((int)(size - v - 1)));
    return _mm256_blendv_ps(x, _mm256_set1_ps(-INFINITY), bits(behind));
}

/* The first of the greatest of `size` values, `noisy` or as they are, among those above `least`; -1:
   there is none. */
INLINE Size greatest(const Draw *draw, Key key, const float *values, int noisy, float least) {
    const Size size = draw->vocabulary;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256 best = _mm256_set1_ps(-INFINITY);
    __m256i where = _mm256_set1_epi32(-1);
    for (Size v = 0; v < size; v += 8) {
        __m256 x = values_at(values, size, v);
        __m256 out = _mm256_cmp_ps(x, _mm256_set1_ps(least), _CMP_LE_OQ);
        if (noisy) x = _mm256_add_ps(x, noise_at(draw, key, v));
        x = _mm256_blendv_ps(x, _mm256_set1_ps(-INFINITY), out);
        __m256 more = _mm256_cmp_ps(x, best, _CMP_GT_OQ);
        __m256i at = _mm256_add_epi32(lanes, _mm256_set1_epi32((int)v));
        best = _mm256_blendv_ps(best, x, more);
        where = _mm256_blendv_epi8(where, at, _mm256_castps_si256(more));
    }
    float most[8];
    int32_t index[8];
    _mm256_storeu_ps(most, best);
    _mm256_storeu_si256((__m256i *)index, where);
    int found = 0;
    for (int i = 1; i < 8; i++)
        if (most[i] > most[found] || (most[i] == most[found] && index[i] < index[found])) found = i;
    return index[found];
}

static Size count_above(const float *values, Size size, float bound) {
    Size count = 0;
    for (Size v = 0; v < size; v += 8) {
        __m256 above = _mm256_cmp_ps(values_at(values, size, v), _mm256_set1_ps(bound), _CMP_GT_OQ);
        count += __builtin_popcount(_mm256_movemask_ps(above));
    }
    return count;
}

static float most_of(const float *values, Size size) {
    __m256 most = _mm256_set1_ps(-INFINITY);
    for (Size v = 0; v < size; v += 8) most = _mm256_max_ps(most, values_at(values, size, v));
    float each[8], found = -INFINITY;
    _mm256_storeu_ps(each, most);
    for (int i = 0; i < 8; i++) found = each[i] > found ? each[i] : found;
    return found;
}

/* Sum of e^(value - most) over the values above `bound`. */
static double mass_above(const float *values, Size size, float most, float bound) {
    __m256d low = _mm256_setzero_pd(), high = low;
    for (Size v = 0; v < size; v += 8) {
        __m256 x = values_at(values, size, v);
        __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(bound), _CMP_GT_OQ);
        x = _mm256_and_ps(exponential(_mm256_sub_ps(x, _mm256_set1_ps(most))), above);
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
    }
    double each[4];
    _mm256_storeu_pd(each, _mm256_add_pd(low, high));
    return each[0] + each[1] + each[2] + each[3];
}

float log_sum(const float *values, Size size) {
    const float most = most_of(values, size);
    return most + (float)log(mass_above(values, size, most, -INFINITY));
}

/* Floats as integers in the same order, and back: their own inverse. */
static int32_t ordered(int32_t raw) { return raw ^ (raw >> 31 & 0x7FFFFFFF); }

/* A bound that exactly those values are above of which fewer than k are greater. */
static float bound_of(const float *values, Size size, Size k) {
    int32_t low = ordered((int32_t)0xFF800000), high = ordered(0x7F800000); /* -inf, inf */
    while (high - (int64_t)low > 1) { /* k or more are above low, or it is -inf; fewer above high */
        int32_t middle = (int32_t)(((int64_t)low + high) >> 1), raw = ordered(middle);
        float bound;
        memcpy(&bound, &raw, sizeof bound);
        if (count_above(values, size, bound) >= k) low = middle;
        else high = middle;
    }
    float bound;
    low = ordered(low);
    memcpy(&bound, &low, sizeof bound);
    return bound;
}

/* What is known of a row for its request's filters; a value of no number or 1 is off. */
typedef struct {
    Size k;
    float p, least; /* least: the bound of min-p */
    float most;
    double mass; /* of the top k */
} Filter;

static Filter filter_of(const Sampling *sampling, Size owner, const float *values, Size size) {
    Filter f = {sampling->top_k ? sampling->top_k[owner] : 0,
                sampling->top_p ? sampling->top_p[owner] : 1, -INFINITY, 0, 0};
    if (f.p < 1 || sampling->min_p) f.most = most_of(values, size);
    if (sampling->min_p) f.least = f.most + sampling->min_p[owner];
    if (f.p < 1) {
        int some = f.k > 0 && f.k < size;
        f.mass = mass_above(values, size, f.most, some ? bound_of(values, size, f.k) : -INFINITY);
    }
    return f;
}

/* The filters keep a token if fewer than k are likelier, if those have less than p of what the top k
   have, and if it is likely enough beside the likeliest. */
static int keeps(const Filter *f, const float *values, Size size, float own) {
    if (own < f->least) return 0;
    if (f->k > 0 && count_above(values, size, own) >= f->k) return 0;
    return f->p >= 1 || mass_above(values, size, f->most, own) < f->p * f->mass;
}

static Size choose_one(const Draw *draw, const Sampling *sampling, Size r, const float *values) {
    const Size owner = draw->owners[r], size = draw->vocabulary;
    const Key key = key_of(draw, r);
    if (!sampling->noisy[owner]) {
        Size token = greatest(draw, key, values, 0, -INFINITY);
        return token < 0 ? 0 : token;
    }
    Size token = greatest(draw, key, values, 1, -INFINITY);
    if (!sampling->top_k && !sampling->top_p && !sampling->min_p) return token < 0 ? 0 : token;
    const Filter filter = filter_of(sampling, owner, values, size);
    while (token >= 0 && !keeps(&filter, values, size, values[token]))
        token = greatest(draw, key, values, 1, values[token]); /* what is not above is lost too */
    return token < 0 ? 0 : token;
}

void choose(const Draw *draw, const Sampling *sampling, Size rows, const float *values,
            Size *tokens, int threads) {
    const Size size = draw->vocabulary;
#pragma omp parallel for num_threads(rows * size < ALONE / 4 ? 1 : threads)
    for (Size r = 0; r < rows; r++)
        tokens[r] = choose_one(draw, sampling, r, values + r * size);
}
