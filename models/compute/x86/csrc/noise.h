/* Gumbel noise of models/sampling/noise.py: the same integers, the same two logarithms. */

#ifndef PACELINE_NOISE_H
#define PACELINE_NOISE_H

#include <math.h>
#include <stdint.h>

#include "kernels.h"

INLINE uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

INLINE __m256i mix32(__m256i x) {
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32(0x7FEB352D));
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
    x = _mm256_mullo_epi32(x, _mm256_set1_epi32((int)0x846CA68Bu));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}

/* ln x of a positive normal number, to 1e-7 relatively: x = m 2^n with m from about 0.7 to 1.4, and
   ln m = 2 artanh(s) with s = (m - 1) / (m + 1), |s| < 0.172, by five terms of its series. */
INLINE __m256 logarithm(__m256 x) {
    const __m256i low = _mm256_set1_epi32(0x3F3504F3); /* 1 / sqrt 2 */
    __m256i raw = _mm256_sub_epi32(_mm256_castps_si256(x), low);
    __m256 n = _mm256_cvtepi32_ps(_mm256_srai_epi32(raw, 23));
    __m256i rest = _mm256_and_si256(raw, _mm256_set1_epi32(0x007FFFFF));
    __m256 m = bits(_mm256_add_epi32(rest, low));
    __m256 one = _mm256_set1_ps(1.f);
    __m256 s = _mm256_div_ps(_mm256_sub_ps(m, one), _mm256_add_ps(m, one));
    __m256 z = _mm256_mul_ps(s, s), sum = _mm256_set1_ps(2.f / 9);
    sum = _mm256_fmadd_ps(sum, z, _mm256_set1_ps(2.f / 7));
    sum = _mm256_fmadd_ps(sum, z, _mm256_set1_ps(2.f / 5));
    sum = _mm256_fmadd_ps(sum, z, _mm256_set1_ps(2.f / 3));
    sum = _mm256_fmadd_ps(_mm256_mul_ps(sum, z), s, _mm256_add_ps(s, s));
    sum = _mm256_fmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), sum); /* ln 2 in two parts */
    return _mm256_fmadd_ps(n, _mm256_set1_ps(0.693359375f), sum);
}

/* -ln(1 - u), precise for small u too: 1 - u is rounded to w, which u / (1 - w) makes good. */
INLINE __m256 exponential_of(__m256 u) {
    __m256 one = _mm256_set1_ps(1.f), w = _mm256_sub_ps(one, u);
    __m256 kept = _mm256_sub_ps(one, w); /* exact */
    __m256 good = _mm256_mul_ps(logarithm(w), _mm256_div_ps(u, kept));
    __m256 tiny = _mm256_cmp_ps(kept, _mm256_setzero_ps(), _CMP_EQ_OQ);
    return _mm256_blendv_ps(_mm256_sub_ps(_mm256_setzero_ps(), good), u, tiny);
}

/* What makes one row's numbers. */
typedef struct {
    __m256i low, high;
} Key;

INLINE Key key_of(const Draw *draw, Size r) {
    const Size owner = draw->owners[r], start = draw->starts[owner];
    uint64_t counter = (uint64_t)(draw->fresh ? start : 0) << 32;
    counter ^= (uint64_t)(start + draw->levels[r]) ^ (uint64_t)draw->purpose << 60;
    uint64_t key = mix64((uint64_t)draw->seeds[owner] + 0x9E3779B97F4A7C15u) ^ mix64(counter);
    key = mix64(key);
    return (Key){_mm256_set1_epi32((int)(uint32_t)key),
                 _mm256_set1_epi32((int)((uint32_t)(key >> 32) | 1))};
}

/* Noise of the tokens v to v + 7. */
INLINE __m256 noise_at(const Draw *draw, Key key, Size v) {
    const Size left = draw->vocabulary - v;
    __m256 word = load_some(FLOAT32, (const char *)(draw->words + v), left);
    __m256i x = _mm256_xor_si256(_mm256_castps_si256(word), key.low);
    x = mix32(_mm256_mullo_epi32(x, key.high));
    __m256 u = _mm256_add_ps(_mm256_cvtepi32_ps(x), _mm256_set1_ps(0.5f));
    u = _mm256_and_ps(u, bits(_mm256_set1_epi32(0x7FFFFFFF)));
    u = _mm256_mul_ps(u, _mm256_set1_ps(0x1p-31f));
    u = _mm256_min_ps(u, _mm256_set1_ps(1.f - 0x1p-24f));
    return _mm256_sub_ps(_mm256_setzero_ps(), logarithm(exponential_of(u)));
}

#endif
