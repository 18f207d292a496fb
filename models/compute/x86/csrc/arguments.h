/* What the module's functions are given: addresses as integers, int64 arrays and masks as buffers.

   Each kind of argument is opened and closed here; what does not fit together raises. */

#ifndef PACELINE_ARGUMENTS_H
#define PACELINE_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

static int expect(Size count, Size wanted) {
    if (count != wanted) PyErr_Format(PyExc_TypeError, "%zd arguments; wanted: %zd", count, wanted);
    return count == wanted;
}

static int integers(PyObject *const *given, Size count, Size *values) {
    for (Size i = 0; i < count; i++) {
        values[i] = PyLong_AsSsize_t(given[i]);
        if (values[i] == -1 && PyErr_Occurred()) return 0;
    }
    return 1;
}

/* The elements of a contiguous array, None for none; PyBuffer_Release is the caller's. */
static int open_view(PyObject *object, Size item, Py_buffer *view) {
    memset(view, 0, sizeof *view);
    if (object == Py_None) return 1;
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS)) return 0;
    if (view->itemsize == item) return 1;
    PyErr_Format(PyExc_TypeError, "elements of %zd bytes; wanted: %zd", view->itemsize, item);
    PyBuffer_Release(view);
    view->obj = NULL;
    return 0;
}

static Size length_of(const Py_buffer *view) {
    return view->obj ? view->len / view->itemsize : 0;
}

static int matches(Size count, Size wanted, const char *name) {
    if (count != wanted) PyErr_Format(PyExc_ValueError, "%s: %zd; wanted: %zd", name, count, wanted);
    return count == wanted;
}

/* A batch as Python has it, and what the kernels are told of it. */
enum { ROWS, COUNTS, DEPTHS, LENGTHS, ROOMS, TABLES, SCRATCH, VISIBLE, SHARED, BATCH };
typedef struct {
    Nodes nodes;
    Py_buffer arrays[TABLES + 1]; /* ROWS to TABLES */
    Py_buffer *masks;    /* [rows] */
    Reader *readers;
    Size *positions;
} Batch;

static void close_batch(Batch *batch) {
    for (int i = 0; i <= TABLES; i++) PyBuffer_Release(batch->arrays + i);
    for (Size i = 0; batch->masks && i < batch->nodes.rows; i++) PyBuffer_Release(batch->masks + i);
    PyMem_Free(batch->masks);
    PyMem_Free(batch->readers);
    PyMem_Free(batch->positions);
}

static int fill_batch(Batch *batch, PyObject *visible, Size scratch, Size shared) {
    const Size *rows = batch->arrays[ROWS].buf, *counts = batch->arrays[COUNTS].buf;
    const Size *depths = batch->arrays[DEPTHS].buf, *lengths = batch->arrays[LENGTHS].buf;
    const Size *rooms = batch->arrays[ROOMS].buf, *tables = batch->arrays[TABLES].buf;
    const Size all = length_of(batch->arrays + LENGTHS);
    const Size longest = all ? length_of(batch->arrays + TABLES) / all : 0;
    Size node = 0;
    for (Size i = 0; i < batch->nodes.rows; i++) {
        const Size length = lengths[rows[i]], slot = length + scratch;
        if (!open_view(PyTuple_GET_ITEM(visible, i), 1, batch->masks + i)) return 0;
        if (slot + counts[i] > rooms[rows[i]] || node + counts[i] > batch->nodes.nodes) {
            PyErr_Format(PyExc_ValueError, "row %zd: %zd nodes behind %zd; room for %zd", rows[i],
                         counts[i], slot, rooms[rows[i]]);
            return 0;
        }
        const Size seen = shared ? length : 0;
        if (batch->masks[i].obj && batch->masks[i].len != counts[i] * (slot + counts[i] - seen)) {
            PyErr_Format(PyExc_ValueError, "row %zd: a mask of %zd", rows[i], batch->masks[i].len);
            return 0;
        }
        batch->readers[i] = (Reader){node, counts[i], tables + rows[i] * longest, slot, seen,
                                     (Size)batch->masks[i].buf};
        for (Size end = node + counts[i]; node < end; node++)
            batch->positions[node] = length + depths[node];
    }
    return matches(node, batch->nodes.nodes, "nodes of all rows");
}

static int open_batch(PyObject *const *given, Batch *batch) {
    Size scratch, shared;
    memset(batch, 0, sizeof *batch);
    if (!integers(given + SCRATCH, 1, &scratch) || !integers(given + SHARED, 1, &shared)) return 0;
    for (int i = ROWS; i <= TABLES; i++)
        if (!open_view(given[i], sizeof(Size), batch->arrays + i)) return 0;
    const Size count = batch->arrays[ROWS].len / (Size)sizeof(Size);
    if (!PyTuple_Check(given[VISIBLE]) || PyTuple_GET_SIZE(given[VISIBLE]) != count) {
        PyErr_Format(PyExc_TypeError, "visible: not a tuple of %zd", count);
        return 0;
    }
    batch->nodes.nodes = batch->arrays[DEPTHS].len / (Size)sizeof(Size);
    batch->masks = PyMem_Calloc(count, sizeof(Py_buffer));
    batch->readers = PyMem_Malloc(count * sizeof(Reader));
    batch->positions = PyMem_Malloc(batch->nodes.nodes * sizeof(Size));
    if (!batch->masks || !batch->readers || !batch->positions) return PyErr_NoMemory() != NULL;
    batch->nodes.rows = count;
    batch->nodes.readers = batch->readers;
    batch->nodes.positions = batch->positions;
    return fill_batch(batch, given[VISIBLE], scratch, shared);
}

enum { SHAPE = sizeof(Shape) / sizeof(Size) };

/* Whether all are from 0 to `limit` - 1. */
static int within(const Py_buffer *numbers, Size limit, const char *name) {
    const Size *values = numbers->buf, count = length_of(numbers);
    for (Size i = 0; i < count; i++)
        if (values[i] < 0 || values[i] >= limit) {
            PyErr_Format(PyExc_IndexError, "%s: %zd; wanted: 0 to %zd", name, values[i], limit - 1);
            return 0;
        }
    return 1;
}

/* A model, and the tokens it reads. */
typedef struct {
    Py_buffer model, tokens;
} Text;

static int open_text(PyObject *const *given, const Batch *batch, Text *text) {
    return open_view(given[0], sizeof(Size), &text->model) &&
           open_view(given[1], sizeof(Size), &text->tokens) &&
           within(&text->tokens, ((Model *)text->model.buf)->inputs, "tokens") &&
           (!text->tokens.obj || matches(length_of(&text->tokens), batch->nodes.nodes, "tokens"));
}

static void close_text(Text *text) {
    PyBuffer_Release(&text->model);
    PyBuffer_Release(&text->tokens);
}

/* seeds, starts, owners, levels; fresh, purpose, vocabulary, words. */
enum { ARRAYS = 4, DRAW = 8 };

static int open_draw(PyObject *const *given, Draw *draw, Py_buffer *views) {
    Size v[DRAW - ARRAYS];
    memset(views, 0, ARRAYS * sizeof *views);
    for (int i = 0; i < ARRAYS; i++)
        if (!open_view(given[i], sizeof(Size), views + i)) return 0;
    *draw = (Draw){views[0].buf, views[1].buf, views[2].buf, views[3].buf, 0, 0, 0, NULL};
    if (!integers(given + ARRAYS, DRAW - ARRAYS, v)) return 0;
    draw->fresh = v[0], draw->purpose = v[1], draw->vocabulary = v[2];
    draw->words = (const int32_t *)v[3];
    return matches(length_of(views + 1), length_of(views), "starts") &&
           matches(length_of(views + 3), length_of(views + 2), "levels") &&
           within(views + 2, length_of(views), "owners");
}

/* A draw, and how its requests sample: noisy, inverse, top_k, top_p, min_p or None. */
enum { KNOBS = 5, CHOICE = DRAW + KNOBS };
typedef struct {
    Draw draw;
    Sampling sampling;
    Py_buffer views[ARRAYS + KNOBS];
} Choice;

static int open_choice(PyObject *const *given, Choice *choice) {
    static const Size items[KNOBS] = {1, sizeof(float), sizeof(Size), sizeof(float), sizeof(float)};
    Py_buffer *knobs = choice->views + ARRAYS;
    memset(choice, 0, sizeof *choice);
    if (!open_draw(given, &choice->draw, choice->views)) return 0;
    for (int i = 0; i < KNOBS; i++)
        if (!open_view(given[DRAW + i], items[i], knobs + i) ||
            (knobs[i].obj &&
             !matches(length_of(knobs + i), length_of(choice->views), "settings of requests")))
            return 0;
    choice->sampling = (Sampling){knobs[0].buf, knobs[1].buf, knobs[2].buf, knobs[3].buf, knobs[4].buf};
    return 1;
}

static void close_choice(Choice *choice) {
    for (int i = 0; i < ARRAYS + KNOBS; i++) PyBuffer_Release(choice->views + i);
}

/* All that a draft is made of. */
typedef struct {
    Batch batch;
    Shape shape;
    Turn turn;
    Text text;
    Choice choice;
    Drafter by;
} Draft;
enum { DRAFT = BATCH + SHAPE + CHOICE + 7 };

static int open_draft(PyObject *const *given, Draft *draft) {
    PyObject *const *rest = given + BATCH + SHAPE;
    Size v[3];
    memset(draft, 0, sizeof *draft);
    draft->turn.floor = (float)PyFloat_AsDouble(rest[0]);
    const float floor = (float)PyFloat_AsDouble(rest[1]);
    if (!open_batch(given, &draft->batch) ||
        !integers(given + BATCH, SHAPE, (Size *)&draft->shape) || PyErr_Occurred() ||
        !integers(rest + 2, 3, v) || !open_text(rest + 5, &draft->batch, &draft->text) ||
        !open_choice(rest + 7, &draft->choice))
        return 0;
    draft->turn.table = (const float *)v[0];
    draft->by = (Drafter){&draft->shape,          &draft->batch.nodes,   &draft->turn,
                          draft->text.model.buf,  floor,                 draft->text.tokens.buf,
                          (char *)v[1],           v[2],                  &draft->choice.draw,
                          &draft->choice.sampling};
    return matches(length_of(draft->choice.views + 2), draft->batch.nodes.rows, "owners") &&
           (draft->text.tokens.obj || matches(0, draft->batch.nodes.nodes, "tokens"));
}

static void close_draft(Draft *draft) {
    close_batch(&draft->batch);
    close_text(&draft->text);
    close_choice(&draft->choice);
}

/* Whether `nodes` more have room behind each row of the batch, all of them chains. */
static int has_room(const Batch *batch, Size nodes) {
    const Size *rows = batch->arrays[ROWS].buf, *rooms = batch->arrays[ROOMS].buf;
    for (Size i = 0; i < batch->nodes.rows; i++) {
        const Reader *reader = batch->readers + i;
        if (reader->visible || reader->slot + reader->count + nodes > rooms[rows[i]]) {
            PyErr_Format(PyExc_ValueError, "row %zd: no room for %zd nodes more", i, nodes);
            return 0;
        }
    }
    return 1;
}

#endif
