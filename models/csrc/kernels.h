/* What the module offers; addresses are as Python gives them, `kind` one of vectors.h. */

#ifndef PACELINE_KERNELS_H
#define PACELINE_KERNELS_H

#include "vectors.h"

enum { ALONE = 1 << 16 }; /* products below which a second thread costs more than it saves */

/* y [rows, outputs] (+)= x [rows, inputs] times the packed matrix, + bias if there is one. x and y
   are of `kind`, the matrix of the kind `stored`, bias is float32 and filled up to whole blocks.
   False: no memory. */
int linear(int stored, int kind, Size rows, Size inputs, Size outputs, const char *x, const char *w,
           const float *bias, char *y, int add, int threads);

/* y [rows, width] = x / sqrt(sum of x² + floor) * weight. */
void rms_norm(int kind, Size rows, Size width, const char *x, const float *weight, float floor,
              char *y);

/* y [rows, width] = silu(x[:, :width]) * x[:, width:]. */
void swiglu(int kind, Size rows, Size width, const char *x, char *y, int threads);

/* A row of the cache and its nodes; in int64, as Python fills it. */
typedef struct {
    Size first;   /* of its nodes among all */
    Size count;   /* of its nodes */
    Size row;     /* of the cache */
    Size slot;    /* of its first node; the others follow */
    Size shared;  /* keys 0 to this that all its nodes see */
    Size visible; /* address of [count, slot + count - shared] bytes: which others; 0: those before */
} Reader;

/* One layer's attention, all sizes in numbers. */
typedef struct {
    Size kind, readers, heads, kv_heads, width;
    Size row_stride, head_stride, value_offset; /* of the cache */
    Size threads;
} Shape;

/* Turn the nodes' queries and keys, put keys and values into the cache, and let every node read.

   qkv [nodes, heads + 2 kv_heads, width], its query heads in the order [group, kv head]; `norm`
   [heads + kv_heads, width] or null; `table` [positions, width / 2] complex or null, `positions`
   [nodes]; `cache`: the layer's keys; y [nodes, heads * width]. False: no memory. */
int attend(const Shape *shape, const Reader *readers, const char *qkv, const float *norm,
           float floor, const float *table, const Size *positions, char *cache, char *y);

#endif
