/* Attention of new nodes over a cache, one key head of one row at a time.

   A score is one sum over a head's width in order; a result is one sum over the keys in the order of
   their slots, to which a hidden key adds exactly nothing. So a node has the same bits alone, in a
   chain and in any tree, wherever its ancestors' slots are. */

#include <math.h>
#include <stdlib.h>

#include "kernels.h"
#include "tile.h"

enum {
    LINES = 48, /* queries that share a read of the keys; whole groups of a tile */
    MOST = 192, /* queries of one node and key head: models/compute/x86/kernels.py asks for no more */
    KEYS = PAGE, /* keys turned at once into blocks */
};

/* One thread's memory. */
typedef struct {
    float *queries; /* [LINES, width] */
    float *scores;  /* [LINES, row], row a whole number of KEYS */
    float *turned;  /* [KEYS / 16, width, 16] keys, or [KEYS, padded width] values */
    float *sums;    /* [LINES, padded width] */
    char *memory;
} Room;

static Size padded(Size count, Size to) { return (count + to - 1) / to * to; }

static int open_room(Room *room, Size lines, Size width, Size keys) {
    Size wide = padded(width, BLOCK), row = padded(keys, KEYS);
    Size numbers = lines * width + lines * row + KEYS * wide + lines * wide + 64;
    room->memory = malloc(numbers * sizeof(float));
    if (!room->memory) return 0;
    room->turned = (float *)(((size_t)room->memory + 63) & ~(size_t)63);
    room->sums = room->turned + KEYS * wide;
    room->scores = room->sums + lines * wide;
    room->queries = room->scores + lines * row;
    return 1;
}

/* One head's vector in float32: normed if there is a norm, turned if there is a rotation. */
static void read_head(int kind, const char *from, Size width, const float *norm, float floor,
                      const float *rotation, float factor, float *to) {
    widen(kind, from, to, width);
    if (norm) rms_norm(FLOAT32, 1, width, (const char *)to, norm, floor, (char *)to);
    for (Size i = 0; i < width; i += 8) {
        const Size left = width - i;
        __m256 x = load_some(FLOAT32, (const char *)(to + i), left);
        if (rotation) { /* (a + ib)(c + is), a and b side by side */
            __m256 turn = load_some(FLOAT32, (const char *)(rotation + i), left);
            __m256 crossed = _mm256_mul_ps(_mm256_permute_ps(x, 0xB1), _mm256_movehdup_ps(turn));
            x = _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(turn), crossed);
        }
        x = _mm256_mul_ps(x, _mm256_set1_ps(factor));
        store_some(FLOAT32, (char *)(to + i), x, left);
    }
}

/* to = from * factor, rounded. */
static void write_row(int kind, const float *from, float factor, char *to, Size count) {
    for (Size i = 0; i < count; i += 8) {
        __m256 x = load_some(FLOAT32, (const char *)(from + i), count - i);
        store_some(kind, to + i * size_of(kind), _mm256_mul_ps(x, _mm256_set1_ps(factor)), count - i);
    }
}

/* Eight rows of eight become eight columns. */
INLINE void turn_eight(__m256 *r) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

/* `count` keys [count, width] to blocks [count / 16, width, 16], zeros where there is no key. */
INLINE void turn_keys(int kind, const char *from, Size width, Size count, float *to) {
    const Size size = size_of(kind);
    for (Size key = 0; key < padded(count, BLOCK); key += 8)
        for (Size i = 0; i < width; i += 8) {
            float *block = to + (key / BLOCK * width + i) * BLOCK + key % BLOCK;
            __m256 rows[8];
            for (int r = 0; r < 8; r++) {
                const char *at = from + ((key + r) * width + i) * size;
                _mm_prefetch(at + AHEAD, _MM_HINT_T0);
                rows[r] = key + r < count ? load_some(kind, at, width - i) : _mm256_setzero_ps();
            }
            turn_eight(rows);
            for (int d = 0; d < 8 && d < width - i; d++)
                _mm256_storeu_ps(block + d * BLOCK, rows[d]);
        }
}

/* Rows of scores become probabilities times their sum, 0 where hidden; returns one over the sum. */
INLINE float soften(float *scores, Size count) {
    __m256 most = _mm256_set1_ps(-INFINITY);
    const Size whole = padded(count, 8);
    for (Size i = count; i < whole; i++) scores[i] = -INFINITY;
    for (Size i = 0; i < whole; i += 8) most = _mm256_max_ps(most, _mm256_loadu_ps(scores + i));
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    half = _mm_max_ss(half, _mm_movehdup_ps(half));
    most = _mm256_broadcastss_ps(half);
    float sum = 0;
    for (Size i = 0; i < whole; i += 8) {
        __m256 part = exponential(_mm256_sub_ps(_mm256_loadu_ps(scores + i), most));
        _mm256_storeu_ps(scores + i, part);
        for (int j = 0; j < 8; j++) sum += scores[i + j]; /* in order: a 0 more changes nothing */
    }
    return 1 / sum;
}

/* Products of `lines` rows with `blocks` blocks, in groups that fill the registers. */
INLINE void product(Size lines, const float *x, Size x_row, const float *w, Size w_block,
                    Size w_step, Size blocks, float *sums, Size sums_row, Size depth, int first) {
    const Size groups = (lines + GROUP - 1) / GROUP;
    for (Size g = 0; g < groups; g++) {
        Size from = lines * g / groups, to = lines * (g + 1) / groups;
        group(FLOAT32, to - from, x + from * x_row, x_row, (const char *)w, w_block * 4, w_step * 4,
              blocks, sums + from * sums_row, sums_row, depth, first);
    }
}

/* `lines` queries read `count` keys and values in the blocks of `table`; the results, not yet
   divided, are room->sums. */
INLINE void read_keys(int kind, const Room *room, Size lines, Size width, Size count,
                      const char *keys, const Size *table, Size scores_row) {
    for (Size key = 0; key < count; key += KEYS) {
        Size some = count - key < KEYS ? count - key : KEYS;
        const Size at = table[key / KEYS] * KEYS;
        turn_keys(kind, keys + at * width * size_of(kind), width, some, room->turned);
        product(lines, room->queries, width, room->turned, width * BLOCK, BLOCK,
                padded(some, BLOCK) / BLOCK, room->scores + key, scores_row, width, 1);
    }
}

INLINE void read_values(int kind, const Room *room, Size lines, Size width, Size count,
                        const char *values, const Size *table, Size scores_row) {
    const Size wide = padded(width, BLOCK), blocks = wide / BLOCK, size = size_of(kind);
    const int in_place = kind == FLOAT32 && wide == width;
    for (Size key = 0; key < count; key += KEYS) {
        Size some = count - key < KEYS ? count - key : KEYS;
        const Size at = table[key / KEYS] * KEYS;
        const float *from = (const float *)values + at * width;
        if (!in_place) {
            for (Size k = 0; k < some; k++) {
                float *to = room->turned + k * wide;
                widen(kind, values + (at + k) * width * size, to, width);
                memset(to + width, 0, (wide - width) * sizeof(float));
            }
            from = room->turned;
        }
        product(lines, room->scores + key, scores_row, from, BLOCK, wide, blocks, room->sums, wide,
                some, key == 0);
    }
}

/* One key head of one row. */
typedef struct {
    const Shape *shape;
    const Nodes *nodes;
    const Turn *turn;
    const Reader *reader;
    Size head;
    const char *qkv;
    const float *norm;
    char *keys, *values; /* [blocks, KEYS, width] */
} Task;

/* A node's head in float32, normed and turned. */
static void turned_head(const Task *task, Size node, Size head, float factor, float *to) {
    const Shape *s = task->shape;
    const Size width = s->width, heads = s->heads + 2 * s->kv_heads;
    const Size at = (node * heads + head) * width * size_of((int)s->kind);
    const float *table = task->turn->table;
    read_head((int)s->kind, task->qkv + at, width, task->norm ? task->norm + head * width : NULL,
              task->turn->floor, table ? table + task->nodes->positions[node] * width : NULL, factor,
              to);
}

static void write_entries(const Task *task, float *room) {
    const Shape *s = task->shape;
    const Size line = s->width * size_of((int)s->kind), heads = s->heads + 2 * s->kv_heads;
    for (Size i = 0; i < task->reader->count; i++) {
        const Size node = task->reader->first + i;
        const Size at = place(task->reader->table, task->reader->slot + i) * line;
        turned_head(task, node, s->heads + task->head, 1.f, room);
        write_row((int)s->kind, room, 1.f, task->keys + at, s->width);
        const Size value = node * heads + s->heads + s->kv_heads + task->head;
        memcpy(task->values + at, task->qkv + value * line, line);
    }
}

/* Hide what a node does not see from its scores. */
static void hide(const Reader *reader, Size node, Size count, float *scores) {
    const Size others = reader->slot + reader->count - reader->shared;
    const unsigned char *visible = (const unsigned char *)reader->visible;
    for (Size key = reader->shared; key < count; key++) {
        int seen = visible ? visible[node * others + key - reader->shared]
                           : key <= reader->slot + node;
        if (!seen) scores[key] = -INFINITY;
    }
}

/* Nodes `first` to `last` - 1 of the row read; `kind` is that of the cache. */
INLINE void read_all(int kind, const Task *task, const Room *room, Size first, Size last,
                     Size scores_row, char *y) {
    const Shape *s = task->shape;
    const Reader *reader = task->reader;
    const Size width = s->width, fan = s->heads / s->kv_heads, lines = (last - first) * fan;
    const Size count = reader->slot + (reader->visible ? reader->count : last);
    float over[MOST];
    for (Size i = 0; i < lines; i++)
        turned_head(task, reader->first + first + i / fan, i % fan * s->kv_heads + task->head,
                    1 / sqrtf((float)width), room->queries + i * width);
    read_keys(kind, room, lines, width, count, task->keys, reader->table, scores_row);
    for (Size i = 0; i < lines; i++) {
        hide(reader, first + i / fan, count, room->scores + i * scores_row);
        over[i] = soften(room->scores + i * scores_row, count);
    }
    read_values(kind, room, lines, width, count, task->values, reader->table, scores_row);
    for (Size i = 0; i < lines; i++) {
        const Size node = reader->first + first + i / fan;
        const Size query = node * s->heads + i % fan * s->kv_heads + task->head;
        write_row(kind, room->sums + i * padded(width, BLOCK), over[i],
                  y + query * width * size_of(kind), width);
    }
}

static int run(const Task *task, char *y) {
    const Reader *reader = task->reader;
    const Size fan = task->shape->heads / task->shape->kv_heads, count = reader->count;
    const Size most = reader->slot + count, tile = fan < LINES ? LINES / fan : 1; /* nodes */
    Room room;
    if (!open_room(&room, fan * (tile < count ? tile : count), task->shape->width, most)) return 0;
    write_entries(task, room.queries);
    for (Size first = 0; first < count; first += tile) {
        const Size last = first + tile < count ? first + tile : count, row = padded(most, KEYS);
        switch (task->shape->kind) {
        case FLOAT32: read_all(FLOAT32, task, &room, first, last, row, y); break;
        case BFLOAT16: read_all(BFLOAT16, task, &room, first, last, row, y); break;
        case FLOAT16: read_all(FLOAT16, task, &room, first, last, row, y); break;
        }
    }
    free(room.memory);
    return 1;
}

int attend(const Shape *shape, const Nodes *nodes, const Turn *turn, const char *qkv,
           const float *norm, char *cache, char *y) {
    const Size tasks = nodes->rows * shape->kv_heads;
    Size threads = shape->threads, work = 0; /* one or all: a pool that shrinks ends its threads */
    int done = 1;
    for (Size i = 0; i < nodes->rows; i++)
        work += nodes->readers[i].count * (nodes->readers[i].slot + nodes->readers[i].count);
    if (work * shape->heads * shape->width < ALONE) threads = 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (Size i = 0; i < tasks; i++) {
        const Reader *reader = nodes->readers + i / shape->kv_heads;
        const Size head = i % shape->kv_heads, size = size_of((int)shape->kind);
        char *keys = cache + head * shape->head_stride * size;
        const Task task = {shape, nodes, turn, reader, head, qkv, norm,
                           keys,  keys + shape->value_offset * size};
        if (!run(&task, y)) done = 0;
    }
    return done;
}
