/* What the module offers; addresses are as Python gives them, `kind` one of vectors.h. */

#ifndef PACELINE_KERNELS_H
#define PACELINE_KERNELS_H

#include <stdint.h>

#include "vectors.h"

enum {
    PAGE = 64,       /* entries of one block of the cache */
    WIDEST = 8,      /* guesses of one level of a tree */
    ALONE = 1 << 16, /* products below which a second thread costs more than it saves */
};

/* y [rows, outputs] (+)= x [rows, inputs] times the packed matrix, + bias if there is one. x is of
   `kind`, y of the kind `result`, the matrix of the kind `stored`, bias is float32 and filled up to
   whole blocks. False: no memory. */
int linear(int stored, int kind, int result, Size rows, Size inputs, Size outputs, const char *x,
           const char *w, const float *bias, char *y, int add, int threads);

/* y [rows, width] = x / sqrt(sum of x² + floor) * weight. */
void rms_norm(int kind, Size rows, Size width, const char *x, const float *weight, float floor,
              char *y);

/* y [rows, width] float32 = (x - mean) / sqrt(variance + eps). */
void layer_norm(int kind, Size rows, Size width, const char *x, float eps, float *y);

/* y [count] = silu(x), or gelu(x) in tanh's form. */
void activate(int kind, int gelu, Size count, const char *x, char *y);

/* y [rows, width] = silu(x[:, :width]) * x[:, width:]. */
void swiglu(int kind, Size rows, Size width, const char *x, char *y, int threads);

/* A row of the cache and its nodes. */
typedef struct {
    Size first;        /* of its nodes among all */
    Size count;        /* of its nodes */
    const Size *table; /* the blocks of its entries */
    Size slot;         /* of its first node; the others follow */
    Size shared;       /* keys 0 to this that all its nodes see */
    Size visible; /* address of [count, slot + count - shared] bytes: which others; 0: those before */
} Reader;

/* Where an entry of a row is in the pool. */
static inline Size place(const Size *table, Size slot) {
    return table[slot / PAGE] * PAGE + slot % PAGE;
}

/* One layer's attention, all sizes in numbers. */
typedef struct {
    Size kind, heads, kv_heads, width;
    Size head_stride, value_offset; /* of the cache */
    Size threads;
} Shape;

/* What is scored. */
typedef struct {
    const Reader *readers;
    const Size *positions; /* [nodes] */
    Size rows, nodes;
} Nodes;

/* How queries and keys are normed and turned. */
typedef struct {
    const float *table; /* [positions, width / 2] complex; null: not turned */
    float floor;        /* beside squared norms */
} Turn;

/* Turn the nodes' queries and keys, put keys and values into the cache, and let every node read.

   qkv [nodes, heads + 2 kv_heads, width], its query heads in the order [group, kv head]; `norm`
   [heads + kv_heads, width] or null; `cache`: the layer's keys; y [nodes, heads * width]. False: no
   memory. */
int attend(const Shape *shape, const Nodes *nodes, const Turn *turn, const char *qkv,
           const float *norm, char *cache, char *y);

/* Solve the flow of models/sampling/flow.py for x [rows, width] over `times` [count], in float64;
   tokens [rows]: the codes at its end, or null. codes [width, vocabulary] and half [vocabulary], of
   their squares, are padded with zeros to whole blocks of 16, logs [rows, vocabulary] with -inf.
   False: no memory. */
int flow(Size rows, Size vocabulary, Size width, const double *codes, const double *half,
         const double *logs, const double *times, Size count, double *x, Size *tokens,
         int threads);

/* Which random numbers: one row of them for a position `levels` behind the end `starts` of a request
   `owners`; for `purpose`, and if `fresh` for the round that began at that end. `words` [vocabulary]
   are the tokens' hashes. */
typedef struct {
    const Size *seeds, *starts;  /* [requests] */
    const Size *owners, *levels; /* [rows] */
    Size fresh, purpose, vocabulary;
    const int32_t *words;
} Draw;

/* How the requests sample, [requests]; null where none of them does so. */
typedef struct {
    const unsigned char *noisy;
    const float *inverse; /* 1 / temperature, 1 where it is 0 */
    const Size *top_k;    /* 0: all */
    const float *top_p;
    const float *min_p; /* its logarithm */
} Sampling;

/* y [rows, vocabulary] = Gumbel noise. */
void gumbel(const Draw *draw, Size rows, float *y, int threads);

/* tokens [rows]: the greatest of values [rows, vocabulary], with noise where its request is `noisy`,
   among those that the filters keep. `values` have been divided by the temperature. */
void choose(const Draw *draw, const Sampling *sampling, Size rows, const float *values,
            Size *tokens, int threads);

/* ln of the sum of e^value. */
float log_sum(const float *values, Size size);

typedef struct {
    Size stored, outputs, packed, bias; /* the last two are addresses, or no bias: 0 */
} Matrix;

typedef struct {
    Size attention_norm, qk_norm, mlp_norm; /* addresses; qk_norm may be 0 */
    Matrix qkv, out, gate_up, down;
} Layer;

/* A decoder, in int64 as Python fills it. */
typedef struct {
    Size width, inputs, embedding, norm; /* embedding [inputs, width] and norm are addresses */
    Matrix head;
    Size count; /* of layers */
    Layer layers[];
} Model;

/* Hidden states to keep: states [nodes, count, width] of `layers` [count]. 0 is the first layer's input,
   j the output of the j-th layer, and the number of layers stands for the last output, normed. */
typedef struct {
    const Size *layers;
    Size count;
    char *states;
} Taps;

/* One pass. x [nodes, width] is the first layer's input, which becomes the last one's output; or
   null, then `tokens` [nodes] are read. logits [wanted, vocabulary] float32 of the nodes `wanted`, of
   all if that is null; or null. `taps`: which hidden states to keep, or null. `floor` stands beside
   squared norms; `cache` is the first layer's. False: no memory. */
int score(const Shape *shape, const Nodes *nodes, const Turn *turn, const Model *model, float floor,
          const Size *tokens, char *x, char *cache, Size layer_stride, const Size *wanted,
          Size num_wanted, float *logits, const Taps *taps);

/* A draft model, a batch of chains for it to read, and how it chooses behind each row's end: for the
   first pass's arguments see `score`, for one position of each row `choose`. */
typedef struct {
    const Shape *shape;
    const Nodes *nodes;
    const Turn *turn;
    const Model *model;
    float floor;
    const Size *tokens; /* [nodes] */
    char *cache;
    Size layer_stride;
    const Draw *draw;
    const Sampling *sampling;
} Drafter;

/* chosen [depth, rows]: tokens that the model chooses one after another. False: no memory. */
int chain(const Drafter *by, Size depth, Size *chosen);

/* Trees [rows, most] that grow by some nodes a level: their tokens and their parents or -1. And what
   is kept of them [rows, budget]: the likeliest nodes, in the same order, and their depths. */
typedef struct {
    Size most, budget;
    Size *tokens, *parents;
    Size *kept_tokens, *kept_parents, *kept_levels;
} Tree;

/* Of all children of a level's nodes the `width` likeliest, `depth` times: a child's chance is its
   parent's times softmax(sharpness * (values + noise)), see models/drafting/draft_models/tree.py. False: no
   memory. */
int trees(const Drafter *by, Size width, Size depth, Tree *tree);

#endif
