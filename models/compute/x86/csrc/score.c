/* A pass of a pre-norm decoder with SwiGLU, from tokens to logits, as one call. */

#include <stdlib.h>

#include "kernels.h"

INLINE int multiply(const Shape *shape, const Matrix *matrix, int result, Size rows, Size inputs,
                    const char *x, char *y, int add) {
    return linear((int)matrix->stored, (int)shape->kind, result, rows, inputs, matrix->outputs, x,
                  (const char *)matrix->packed, (const float *)matrix->bias, y, add,
                  (int)shape->threads);
}

/* Keep x [nodes, width], what layer `index` reads, where that is asked for; `norm`: normed by it. */
static void take(const Taps *taps, Size index, int kind, Size nodes, Size width, const char *x,
                 const float *norm, float floor) {
    const Size line = width * size_of(kind);
    for (Size k = 0; taps && k < taps->count; k++) {
        if (taps->layers[k] != index) continue;
        for (Size i = 0; i < nodes; i++) {
            char *state = taps->states + (i * taps->count + k) * line;
            if (norm)
                rms_norm(kind, 1, width, x + i * line, norm, floor, state);
            else
                memcpy(state, x + i * line, line);
        }
    }
}

static int run_layers(const Shape *shape, const Nodes *nodes, const Turn *turn, const Model *model,
                      float floor, char *cache, Size layer_stride, char *x, const Taps *taps) {
    const int kind = (int)shape->kind;
    const Size size = size_of(kind), count = nodes->nodes, width = model->width;
    const Size read = shape->heads * shape->width, qkv = read + 2 * shape->kv_heads * shape->width;
    const Size inner = model->layers[0].gate_up.outputs / 2;
    const Size wide = width > read ? width : read, wider = qkv > 2 * inner ? qkv : 2 * inner;
    char *a = malloc(count * (wide + wider + inner) * size); /* normed, or what was read */
    char *b = a + count * wide * size;                       /* qkv, or gate and up */
    char *c = b + count * wider * size;                      /* gated */
    int done = a != NULL;
    for (Size i = 0; done && i < model->count; i++, cache += layer_stride * size) {
        const Layer *layer = model->layers + i;
        take(taps, i, kind, count, width, x, NULL, floor);
        rms_norm(kind, count, width, x, (const float *)layer->attention_norm, floor, a);
        done = multiply(shape, &layer->qkv, kind, count, width, a, b, 0) &&
               attend(shape, nodes, turn, b, (const float *)layer->qk_norm, cache, a) &&
               multiply(shape, &layer->out, kind, count, read, a, x, 1);
        rms_norm(kind, count, width, x, (const float *)layer->mlp_norm, floor, a);
        done = done && multiply(shape, &layer->gate_up, kind, count, width, a, b, 0);
        swiglu(kind, count, inner, b, c, (int)shape->threads);
        done = done && multiply(shape, &layer->down, kind, count, inner, c, x, 1);
    }
    take(taps, model->count, kind, count, width, x, (const float *)model->norm, floor);
    free(a);
    return done;
}

static int run_head(const Shape *shape, const Model *model, float floor, const char *x,
                    const Size *wanted, Size count, float *logits) {
    const int kind = (int)shape->kind;
    const Size line = model->width * size_of(kind);
    char *normed = malloc(count * line);
    int done = normed != NULL;
    for (Size i = 0; done && i < count; i++)
        rms_norm(kind, 1, model->width, x + (wanted ? wanted[i] : i) * line,
                 (const float *)model->norm, floor, normed + i * line);
    done = done && multiply(shape, &model->head, FLOAT32, count, model->width, normed,
                            (char *)logits, 0);
    free(normed);
    return done;
}

int score(const Shape *shape, const Nodes *nodes, const Turn *turn, const Model *model, float floor,
          const Size *tokens, char *x, char *cache, Size layer_stride, const Size *wanted,
          Size num_wanted, float *logits, const Taps *taps) {
    const Size line = model->width * size_of((int)shape->kind);
    char *own = NULL;
    if (!x) {
        x = own = malloc(nodes->nodes * line);
        for (Size i = 0; own && i < nodes->nodes; i++)
            memcpy(x + i * line, (const char *)model->embedding + tokens[i] * line, line);
    }
    int done = x && run_layers(shape, nodes, turn, model, floor, cache, layer_stride, x, taps);
    if (done && logits && num_wanted)
        done = run_head(shape, model, floor, x, wanted, num_wanted, logits);
    free(own);
    return done;
}
