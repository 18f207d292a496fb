/* Eight float32 numbers at a time, read from and written to float32, bfloat16 or float16. */

#ifndef PACELINE_VECTORS_H
#define PACELINE_VECTORS_H

#include <immintrin.h>
#include <stddef.h>
#include <string.h>

typedef ptrdiff_t Size;
#define INLINE static inline __attribute__((always_inline))

enum { FLOAT32, BFLOAT16, FLOAT16 }; /* kinds of numbers in memory */

INLINE Size size_of(int kind) { return kind == FLOAT32 ? 4 : 2; }

INLINE __m256 bits(__m256i x) { return _mm256_castsi256_ps(x); }

/* Eight neighbours of an activation, from any address. */
INLINE __m256 load(int kind, const char *from) {
    if (kind == FLOAT32) return _mm256_loadu_ps((const float *)from);
    __m128i half = _mm_loadu_si128((const __m128i *)from);
    if (kind == FLOAT16) return _mm256_cvtph_ps(half);
    return bits(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* Rounds to the nearest, ties to even; a number that is none stays none. */
INLINE void store(int kind, char *to, __m256 x) {
    if (kind == FLOAT32) {
        _mm256_storeu_ps((float *)to, x);
    } else if (kind == FLOAT16) {
        _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    } else {
        __m256i raw = _mm256_castps_si256(x);
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(raw, 16), _mm256_set1_epi32(1));
        __m256i up = _mm256_add_epi32(raw, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        __m256i quiet = _mm256_or_si256(raw, _mm256_set1_epi32(0x400000));
        __m256i none = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        __m256i top = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, none), 16);
        __m256i packed = _mm256_packus_epi32(top, top); /* within each half */
        packed = _mm256_permute4x64_epi64(packed, 0x08);
        _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(packed));
    }
}

/* `load` and `store` of the first `count` numbers, of no more than eight; the others are 0. */
INLINE __m256 load_some(int kind, const char *from, Size count) {
    char room[32] = {0};
    if (count >= 8) return load(kind, from);
    memcpy(room, from, count * size_of(kind));
    return load(kind, room);
}

INLINE void store_some(int kind, char *to, __m256 x, Size count) {
    char room[32];
    if (count >= 8) {
        store(kind, to, x);
    } else {
        store(kind, room, x);
        memcpy(to, room, count * size_of(kind));
    }
}

INLINE void widen(int kind, const char *from, float *to, Size count) {
    for (Size i = 0; i < count; i += 8)
        store_some(FLOAT32, (char *)(to + i), load_some(kind, from + i * size_of(kind), count - i),
                   count - i);
}

INLINE float total(__m256 x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* e^x: 2^n times a polynomial in the rest, which lies within ±ln(2)/2; to 1e-7 relatively;
   exactly 0 below e^-87.3. */
INLINE __m256 exponential(__m256 x) {
    __m256 lost = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.3f)), _mm256_set1_ps(88.3f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    x = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x); /* ln 2 in two parts */
    x = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), x);
    const float taylor[] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f};
    __m256 sum = _mm256_set1_ps(taylor[0]);
    for (int i = 1; i < 8; i++) sum = _mm256_fmadd_ps(sum, x, _mm256_set1_ps(taylor[i]));
    __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_andnot_ps(lost, _mm256_mul_ps(sum, bits(_mm256_slli_epi32(power, 23))));
}

#endif
