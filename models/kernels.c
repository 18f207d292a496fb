/* The arithmetic of one pass on an AVX2 CPU: linear layers, RMS norm and SwiGLU's gate.

   Weights may be stored in half precision: they are widened in registers, so that a pass reads half
   the memory, and multiplied and summed in float32. A number of a result is one sum in one order,
   whatever other rows there are: a row has the same bits in every batch.

   A packed matrix [outputs, inputs] is stored in blocks of 16 outputs, [blocks, inputs, 16], the
   last one filled up with zeros. In bfloat16 the 16 are interleaved 0, 8, 1, 9...: a shift widens
   one half of them, a mask the other. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <immintrin.h>
#include <omp.h>
#include <stdint.h>

enum { FLOAT32, BFLOAT16, FLOAT16 };
enum {
    BLOCK = 16,        /* outputs side by side: two registers */
    GROUP = 6,         /* rows that share a read of the weights: 12 sums in registers */
    CHUNK = 512,       /* inputs of a block that stay in the first cache for all groups */
    AHEAD = 2048,      /* bytes; the processor's own prefetching stops at pages */
    ALONE = 1 << 16,   /* products below which a second thread costs more than it saves */
};
#define INLINE static inline __attribute__((always_inline))

typedef Py_ssize_t Size;
typedef struct { __m256 low, high; } Pair; /* 16 numbers */

INLINE Size size_of(int kind) { return kind == FLOAT32 ? 4 : 2; }

INLINE __m256 bits(__m256i x) { return _mm256_castsi256_ps(x); }

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

/* `load` and `store` of the last `count` < 8 numbers of a row. */
INLINE __m256 load_some(int kind, const char *from, Size count) {
    char room[32] = {0};
    memcpy(room, from, count * size_of(kind));
    return load(kind, room);
}

INLINE void store_some(int kind, char *to, __m256 x, Size count) {
    char room[32];
    store(kind, room, x);
    memcpy(to, room, count * size_of(kind));
}

/* sums[rows, blocks * 16] (+)= x[rows, depth] times `blocks` packed blocks. */
INLINE void tile(int kind, int rows, int blocks, const float *x, Size x_row, const char *w,
                 Size w_block, float *sums, Size sums_row, Size depth, int first) {
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
            const char *from = w + b * w_block + k * BLOCK * size_of(kind);
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
                  Size blocks, float *sums, Size sums_row, Size depth, int first) {
#define TILES(R, B)                                                                    \
    for (; blocks >= B; blocks -= B, w += B * w_block, sums += B * BLOCK)              \
        tile(kind, R, B, x, x_row, w, w_block, sums, sums_row, depth, first);
    switch (rows) {
    case 1: TILES(1, 4) TILES(1, 1) break;
    case 2: TILES(2, 3) TILES(2, 1) break;
    case 3: TILES(3, 2) TILES(3, 1) break;
    case 4: TILES(4, 1) break;
    case 5: TILES(5, 1) break;
    case 6: TILES(6, 1) break;
    }
#undef TILES
}

/* One thread's blocks: few rows read all of them once, many rows one chunk of one after another. */
INLINE void span(int kind, Size rows, Size depth, const float *x, const char *w, Size blocks,
                 float *sums, Size sums_row) {
    const Size line = BLOCK * size_of(kind), groups = (rows + GROUP - 1) / GROUP;
    if (groups == 1) {
        group(kind, rows, x, depth, w, depth * line, blocks, sums, sums_row, depth, 1);
        return;
    }
    for (Size b = 0; b < blocks; b++, w += depth * line, sums += BLOCK)
        for (Size k = 0; k < depth; k += CHUNK)
            for (Size g = 0; g < groups; g++) {
                Size from = rows * g / groups, to = rows * (g + 1) / groups;
                group(kind, to - from, x + from * depth + k, depth, w + k * line, 0, 1,
                      sums + from * sums_row, sums_row, depth - k < CHUNK ? depth - k : CHUNK,
                      k == 0);
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
            if (to - o >= 8) {
                if (add) x = _mm256_add_ps(x, load(kind, at));
                store(kind, at, x);
            } else {
                if (add) x = _mm256_add_ps(x, load_some(kind, at, to - o));
                store_some(kind, at, x, to - o);
            }
        }
}

static void widen_rows(int kind, const char *from, float *to, Size count) {
    Size i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, load(kind, from + i * size_of(kind)));
    if (i < count)
        store_some(FLOAT32, (char *)(to + i), load_some(kind, from + i * size_of(kind), count - i),
                   count - i);
}

/* y [rows, outputs] (+)= x [rows, inputs] times the packed matrix, + bias; x and y are of `kind`.
   False: no memory. */
static int linear(int stored, int kind, Size rows, Size inputs, Size outputs, const char *x,
                  const char *w, const float *bias, char *y, int add, int threads) {
    const Size blocks = (outputs + BLOCK - 1) / BLOCK, width = blocks * BLOCK;
    const int direct = kind == FLOAT32 && width == outputs && !bias && !add;
    const int widen = kind != FLOAT32;
    float *room = NULL, *sums = (float *)y;
    const float *wide = (const float *)x;
    if (!direct || widen) {
        room = malloc(sizeof(float) * rows * (width + (widen ? inputs : 0)));
        if (!room) return 0;
        sums = room;
    }
    if (widen) {
        widen_rows(kind, x, room + rows * width, rows * inputs);
        wide = room + rows * width;
    }
    if (rows * inputs * outputs < ALONE) threads = 1;
#pragma omp parallel num_threads(threads)
    {
        Size count = omp_get_num_threads(), own = omp_get_thread_num();
        Size from = blocks * own / count, to = blocks * (own + 1) / count;
        const char *part = w + from * inputs * BLOCK * size_of(stored);
        float *its = sums + from * BLOCK;
        if (stored == FLOAT32) span(FLOAT32, rows, inputs, wide, part, to - from, its, width);
        else if (stored == BFLOAT16) span(BFLOAT16, rows, inputs, wide, part, to - from, its, width);
        else span(FLOAT16, rows, inputs, wide, part, to - from, its, width);
        if (!direct)
            finish(kind, rows, outputs, sums, width, bias, y, add, from * BLOCK, to * BLOCK);
    }
    free(room);
    return 1;
}

INLINE float total(__m256 x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* y [rows, width] = x / sqrt(sum of x² + floor) * weight. */
static void rms_norm(int kind, Size rows, Size width, const char *x, const float *weight,
                     float floor, char *y) {
    const Size size = size_of(kind);
    for (Size r = 0; r < rows; r++, x += width * size, y += width * size) {
        __m256 squares = _mm256_setzero_ps();
        Size i = 0;
        for (; i + 8 <= width; i += 8) {
            __m256 part = load(kind, x + i * size);
            squares = _mm256_fmadd_ps(part, part, squares);
        }
        if (i < width) {
            __m256 part = load_some(kind, x + i * size, width - i);
            squares = _mm256_fmadd_ps(part, part, squares);
        }
        __m256 root = _mm256_set1_ps(sqrtf(total(squares) + floor));
        for (i = 0; i + 8 <= width; i += 8) {
            __m256 part = _mm256_div_ps(load(kind, x + i * size), root);
            store(kind, y + i * size, _mm256_mul_ps(part, _mm256_loadu_ps(weight + i)));
        }
        if (i < width) {
            __m256 part = _mm256_div_ps(load_some(kind, x + i * size, width - i), root);
            __m256 factor = load_some(FLOAT32, (const char *)(weight + i), width - i);
            store_some(kind, y + i * size, _mm256_mul_ps(part, factor), width - i);
        }
    }
}

/* e^x: 2^n times a polynomial in the rest, which lies within ±ln(2)/2; to 1e-7 relatively. */
INLINE __m256 exponential(__m256 x) {
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.3f)), _mm256_set1_ps(88.3f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    x = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x); /* ln 2 in two parts */
    x = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), x);
    const float taylor[] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f};
    __m256 sum = _mm256_set1_ps(taylor[0]);
    for (int i = 1; i < 8; i++) sum = _mm256_fmadd_ps(sum, x, _mm256_set1_ps(taylor[i]));
    __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(sum, bits(_mm256_slli_epi32(power, 23)));
}

INLINE __m256 gated(__m256 gate, __m256 up) {
    __m256 one = _mm256_set1_ps(1.f);
    __m256 less = exponential(_mm256_sub_ps(_mm256_setzero_ps(), gate));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(one, less)), up);
}

/* y [rows, width] = silu(x[:, :width]) * x[:, width:]. */
static void swiglu(int kind, Size rows, Size width, const char *x, char *y, int threads) {
    const Size size = size_of(kind);
#pragma omp parallel for num_threads(rows * width < ALONE / 4 ? 1 : threads)
    for (Size r = 0; r < rows; r++) {
        const char *gate = x + r * 2 * width * size, *up = gate + width * size;
        char *to = y + r * width * size;
        Size i = 0;
        for (; i + 8 <= width; i += 8)
            store(kind, to + i * size, gated(load(kind, gate + i * size), load(kind, up + i * size)));
        if (i < width)
            store_some(kind, to + i * size,
                       gated(load_some(kind, gate + i * size, width - i),
                             load_some(kind, up + i * size, width - i)),
                       width - i);
    }
}

/* Python's side: all arguments are integers, addresses among them; models/kernels.py checks them. */

static int integers(PyObject *const *given, Size count, Size wanted, Size *values) {
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments; wanted: %zd", count, wanted);
        return 0;
    }
    for (Size i = 0; i < count; i++) {
        values[i] = PyLong_AsSsize_t(given[i]);
        if (values[i] == -1 && PyErr_Occurred()) return 0;
    }
    return 1;
}

static PyObject *call_linear(PyObject *self, PyObject *const *given, Size count) {
    Size v[11];
    int done;
    if (!integers(given, count, 11, v)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = linear((int)v[0], (int)v[1], v[2], v[3], v[4], (const char *)v[5], (const char *)v[6],
                  (const float *)v[7], (char *)v[8], (int)v[9], (int)v[10]);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *call_rms_norm(PyObject *self, PyObject *const *given, Size count) {
    Size v[6];
    if (count != 7) return PyErr_Format(PyExc_TypeError, "%zd arguments; wanted: 7", count);
    double floor = PyFloat_AsDouble(given[6]);
    if (!integers(given, 6, 6, v) || PyErr_Occurred()) return NULL;
    rms_norm((int)v[0], v[1], v[2], (const char *)v[3], (const float *)v[4], (float)floor,
             (char *)v[5]);
    Py_RETURN_NONE;
}

static PyObject *call_swiglu(PyObject *self, PyObject *const *given, Size count) {
    Size v[6];
    if (!integers(given, count, 6, v)) return NULL;
    swiglu((int)v[0], v[1], v[2], (const char *)v[3], (char *)v[4], (int)v[5]);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"linear", (PyCFunction)(void (*)(void))call_linear, METH_FASTCALL,
     "stored, kind, rows, inputs, outputs, x, packed, bias or 0, y, add, threads"},
    {"rms_norm", (PyCFunction)(void (*)(void))call_rms_norm, METH_FASTCALL,
     "kind, rows, width, x, weight, y, floor"},
    {"swiglu", (PyCFunction)(void (*)(void))call_swiglu, METH_FASTCALL,
     "kind, rows, width, x, y, threads"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
