/* Drafts of a model's own choices: pass, choice, pass... without a way back to Python. */

#include <math.h>
#include <stdlib.h>

#include "kernels.h"

/* What all levels of a draft need besides the arguments. */
typedef struct {
    const Drafter *by;
    Size rows, width; /* guesses side by side: 1 in a chain */
    float *logits;    /* [rows * width, vocabulary] */
    Reader *readers;  /* [rows] */
    Size *positions;  /* [rows * width] */
    Size *tokens;     /* [rows * width] what the next pass reads */
    Size *levels;     /* [rows] */
    Size *last;       /* [rows] each row's last node of the first pass */
} Work;

static int open_work(Work *work, const Drafter *by, Size width) {
    const Size rows = by->nodes->rows, nodes = rows * width;
    *work = (Work){by, rows, width, NULL, NULL, NULL, NULL, NULL, NULL};
    work->logits = malloc(nodes * by->draw->vocabulary * sizeof(float));
    work->readers = malloc(rows * sizeof(Reader));
    work->positions = malloc((2 * nodes + 2 * rows) * sizeof(Size));
    if (!work->logits || !work->readers || !work->positions) return 0;
    work->tokens = work->positions + nodes;
    work->levels = work->tokens + nodes;
    work->last = work->levels + rows;
    for (Size r = 0; r < rows; r++)
        work->last[r] = by->nodes->readers[r].first + by->nodes->readers[r].count - 1;
    return 1;
}

static void close_work(Work *work) {
    free(work->logits);
    free(work->readers);
    free(work->positions);
}

/* Logits behind the batch. */
static int first_pass(Work *work) {
    const Drafter *by = work->by;
    return score(by->shape, by->nodes, by->turn, by->model, by->floor, by->tokens, NULL, by->cache,
                 by->layer_stride, work->last, work->rows, work->logits, NULL);
}

/* Logits behind work->tokens, `level` nodes behind the batch; `visible` [rows, width, level * width]
   or null: a chain. */
static int next_pass(Work *work, Size level, const unsigned char *visible) {
    const Drafter *by = work->by;
    const Size width = work->width;
    const Nodes next = {work->readers, work->positions, work->rows, work->rows * width};
    for (Size r = 0; r < work->rows; r++) {
        const Reader *before = by->nodes->readers + r;
        const Size base = before->slot + before->count, slot = base + (level - 1) * width;
        const unsigned char *own = visible ? visible + r * width * level * width : NULL;
        work->readers[r] = (Reader){r * width, width, before->table, slot, base, (Size)own};
        for (Size i = 0; i < width; i++)
            work->positions[r * width + i] = by->nodes->positions[work->last[r]] + level;
    }
    return score(by->shape, &next, by->turn, by->model, by->floor, work->tokens, NULL, by->cache,
                 by->layer_stride, NULL, next.nodes, work->logits, NULL);
}

/* Divide `each` rows of logits of every request by its temperature. */
static void divide(Work *work, Size each) {
    const Draw *draw = work->by->draw;
    const float *inverse = work->by->sampling->inverse;
    for (Size r = 0; inverse && r < work->rows; r++) {
        float *values = work->logits + r * each * draw->vocabulary;
        for (Size v = 0; v < each * draw->vocabulary; v++) values[v] *= inverse[draw->owners[r]];
    }
}

/* The random numbers of a level. */
static Draw draw_of(Work *work, Size level) {
    const Draw *draw = work->by->draw;
    for (Size r = 0; r < work->rows; r++) work->levels[r] = draw->levels[r] + level;
    return (Draw){draw->seeds, draw->starts,  draw->owners,     work->levels,
                  draw->fresh, draw->purpose, draw->vocabulary, draw->words};
}

int chain(const Drafter *by, Size depth, Size *chosen) {
    Work work;
    int done = open_work(&work, by, 1);
    for (Size level = 0; done && level < depth; level++) {
        done = level ? next_pass(&work, level, NULL) : first_pass(&work);
        if (!done) break;
        divide(&work, 1);
        const Draw draw = draw_of(&work, level);
        Size *tokens = chosen + level * work.rows;
        choose(&draw, by->sampling, work.rows, work.logits, tokens, (int)by->shape->threads);
        memcpy(work.tokens, tokens, work.rows * sizeof(Size));
    }
    close_work(&work);
    return done;
}

/* As models/drafting/draft_models/tree.py has them. */
enum { CHILDREN = 4 };
static const float SHARPNESS = 2.f;

typedef struct {
    float value;
    Size token, parent;
} Guess;

/* Put a guess into the `count` best so far, of no more than `most`; of equals the first stays. */
static Size insert(Guess *best, Size count, Size most, Guess guess) {
    if (count == most && !(guess.value > best[count - 1].value)) return count;
    Size at = count < most ? count : most - 1;
    for (; at > 0 && guess.value > best[at - 1].value; at--) best[at] = best[at - 1];
    best[at] = guess;
    return count < most ? count + 1 : count;
}

/* The `most` likeliest of softmax(sharpness * (values + noise)), with log probabilities; noise may be
   null. */
static Size likeliest(float *values, const float *noise, Size size, Size most, Guess *best) {
    Size count = 0;
    for (Size v = 0; v < size; v++) values[v] = SHARPNESS * (noise ? values[v] + noise[v] : values[v]);
    for (Size v = 0; v < size; v += 8) { /* few blocks hold one */
        __m256 x = load_some(FLOAT32, (const char *)(values + v), size - v);
        __m256 bound = _mm256_set1_ps(count < most ? -INFINITY : best[count - 1].value);
        if (count == most && !_mm256_movemask_ps(_mm256_cmp_ps(x, bound, _CMP_GT_OQ))) continue;
        for (Size i = v; i < v + 8 && i < size; i++)
            count = insert(best, count, most, (Guess){values[i], i, 0});
    }
    const float sum = log_sum(values, size);
    for (Size i = 0; i < count; i++) best[i].value -= sum;
    return count;
}

/* One level of one row's tree: the likeliest children of its last `nodes` nodes. `scores` [most] are
   the logarithms of the nodes' chances. */
static void grow(const Work *work, Size row, Size nodes, Size size, const float *noise, float *scores,
                 Tree *tree) {
    const Size width = work->width, vocabulary = work->by->draw->vocabulary, most = tree->most;
    const Size fan = nodes == 1 || width < CHILDREN ? width : CHILDREN;
    Size *tokens = tree->tokens + row * most, *parents = tree->parents + row * most;
    Guess best[WIDEST], own[WIDEST];
    Size count = 0;
    for (Size i = 0; i < nodes; i++) {
        const Size parent = size ? size - nodes + i : -1;
        float *values = work->logits + (row * nodes + i) * vocabulary;
        const Size found = likeliest(values, noise, vocabulary, fan, own);
        for (Size j = 0; j < found; j++) {
            const float before = size ? scores[parent] : 0.f;
            count = insert(best, count, width, (Guess){own[j].value + before, own[j].token, parent});
        }
    }
    for (Size i = 0; i < width; i++) {
        const Guess guess = best[i < count ? i : count - 1];
        tokens[size + i] = guess.token;
        parents[size + i] = guess.parent;
        scores[size + i] = guess.value;
    }
}

/* Which of a row's nodes its last `width` ones see: [width, size]. */
static void see(const Tree *tree, Size row, Size width, Size size, unsigned char *visible) {
    const Size *parents = tree->parents + row * tree->most;
    memset(visible, 0, width * size);
    for (Size i = 0; i < width; i++)
        for (Size node = size - width + i; node >= 0; node = parents[node])
            visible[i * size + node] = 1;
}

/* Keep a row's `budget` likeliest nodes, of equals the first: none beats its parent. No more, even of
   scores that are no numbers. `place` [most]: where a node went, or -1. */
static void keep_best(const Tree *tree, Size row, Size width, const float *scores, Size *place) {
    const Size most = tree->most, *parents = tree->parents + row * most;
    Size count = 0;
    for (Size i = 0; i < most; i++) {
        Size better = 0;
        for (Size j = 0; j < most; j++)
            better += scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
        place[i] = better < tree->budget && count < tree->budget ? count++ : -1;
        if (place[i] < 0) continue;
        const Size at = row * tree->budget + place[i];
        tree->kept_tokens[at] = tree->tokens[row * most + i];
        tree->kept_parents[at] = parents[i] < 0 ? -1 : place[parents[i]];
        tree->kept_levels[at] = i / width + 1;
    }
}

int trees(const Drafter *by, Size width, Size depth, Tree *tree) {
    Work work;
    int done = open_work(&work, by, width);
    const Size rows = work.rows, vocabulary = by->draw->vocabulary, most = tree->most;
    unsigned char *visible = malloc(rows * width * width * depth);
    float *noise = malloc(rows * vocabulary * sizeof(float));
    float *scores = malloc(rows * most * sizeof(float));
    Size *place = malloc(most * sizeof(Size));
    done = done && visible && noise && scores && place;
    for (Size level = 0, size = 0; done && level < depth; level++, size += width) {
        for (Size r = 0; level && r < rows; r++) {
            see(tree, r, width, size, visible + r * width * size);
            memcpy(work.tokens + r * width, tree->tokens + r * most + size - width,
                   width * sizeof(Size));
        }
        done = level ? next_pass(&work, level, visible) : first_pass(&work);
        if (!done) break;
        divide(&work, level ? width : 1);
        const Draw draw = draw_of(&work, level);
        int any = 0;
        for (Size r = 0; r < rows; r++) any |= by->sampling->noisy[draw.owners[r]];
        if (any) gumbel(&draw, rows, noise, (int)by->shape->threads);
        for (Size r = 0; r < rows; r++) {
            const int noisy = by->sampling->noisy[draw.owners[r]];
            grow(&work, r, level ? width : 1, size, noisy ? noise + r * vocabulary : NULL,
                 scores + r * most, tree);
        }
    }
    for (Size r = 0; done && r < rows; r++) keep_best(tree, r, width, scores + r * most, place);
    free(visible);
    free(noise);
    free(scores);
    free(place);
    close_work(&work);
    return done;
}
