/* Chains of a draft model's own choices: pass, choice, pass... without a way back to Python. */

#include <stdlib.h>

#include "kernels.h"

/* What the next pass reads: each row's last choice, `level` nodes behind those of the first pass. */
static void go_on(const Nodes *first, Size level, Reader *readers, Size *positions) {
    for (Size r = 0; r < first->rows; r++) {
        const Reader *reader = first->readers + r;
        const Size slot = reader->slot + reader->count + level - 1;
        readers[r] = (Reader){r, 1, reader->row, slot, slot, 0};
        positions[r] = first->positions[reader->first + reader->count - 1] + level;
    }
}

static void divide(const Draw *draw, const Sampling *sampling, Size rows, float *values) {
    const Size size = draw->vocabulary;
    for (Size r = 0; sampling->inverse && r < rows; r++)
        for (Size v = 0; v < size; v++) values[r * size + v] *= sampling->inverse[draw->owners[r]];
}

int chain(const Shape *shape, const Nodes *nodes, const Turn *turn, const Model *model, float floor,
          const Size *tokens, char *cache, Size layer_stride, const Draw *draw,
          const Sampling *sampling, Size depth, Size *chosen) {
    const Size rows = nodes->rows;
    float *logits = malloc(rows * draw->vocabulary * sizeof(float));
    Reader *readers = malloc(rows * sizeof(Reader));
    Size *numbers = malloc(3 * rows * sizeof(Size)); /* positions, levels, last nodes */
    int done = logits && readers && numbers;
    for (Size level = 0; done && level < depth; level++) {
        const Nodes next = {readers, numbers, rows, rows};
        for (Size r = 0; r < rows; r++) {
            numbers[rows + r] = draw->levels[r] + level;
            numbers[2 * rows + r] = nodes->readers[r].first + nodes->readers[r].count - 1;
        }
        if (level) go_on(nodes, level, readers, numbers);
        done = score(shape, level ? &next : nodes, turn, model, floor,
                     level ? chosen + (level - 1) * rows : tokens, NULL, cache, layer_stride,
                     level ? NULL : numbers + 2 * rows, rows, logits);
        if (!done) break;
        divide(draw, sampling, rows, logits);
        const Draw now = {draw->seeds, draw->starts, draw->owners, numbers + rows,
                          draw->fresh, draw->purpose, draw->vocabulary, draw->words};
        choose(&now, sampling, rows, logits, chosen + level * rows, (int)shape->threads);
    }
    free(logits);
    free(readers);
    free(numbers);
    return done;
}
