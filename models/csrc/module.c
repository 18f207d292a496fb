/* The module models._kernels: the arithmetic of one pass on an AVX2 CPU.

   Weights may be stored in half precision: they are widened in registers, so that a pass reads half
   the memory, and multiplied and summed in float32. A number of a result is one sum in one order,
   whatever other rows there are: a row has the same bits in every batch.

   Its functions take addresses as integers, int64 arrays and masks as buffers; models/kernels.py
   checks what they stand for. */

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

static int matches(Size count, Size wanted, const char *name) {
    if (count != wanted) PyErr_Format(PyExc_ValueError, "%s: %zd; wanted: %zd", name, count, wanted);
    return count == wanted;
}

/* A batch as Python has it, and what the kernels are told of it. */
enum { ROWS, COUNTS, DEPTHS, LENGTHS, SCRATCH, VISIBLE, SHARED, CAPACITY, BATCH };
typedef struct {
    Nodes nodes;
    Py_buffer arrays[4]; /* ROWS to LENGTHS */
    Py_buffer *masks;    /* [rows] */
    Reader *readers;
    Size *positions;
} Batch;

static void close_batch(Batch *batch) {
    for (int i = 0; i < 4; i++) PyBuffer_Release(batch->arrays + i);
    for (Size i = 0; batch->masks && i < batch->nodes.rows; i++) PyBuffer_Release(batch->masks + i);
    PyMem_Free(batch->masks);
    PyMem_Free(batch->readers);
    PyMem_Free(batch->positions);
}

static int fill_batch(Batch *batch, PyObject *visible, Size scratch, Size shared, Size capacity) {
    const Size *rows = batch->arrays[ROWS].buf, *counts = batch->arrays[COUNTS].buf;
    const Size *depths = batch->arrays[DEPTHS].buf, *lengths = batch->arrays[LENGTHS].buf;
    Size node = 0;
    for (Size i = 0; i < batch->nodes.rows; i++) {
        const Size length = lengths[rows[i]], slot = length + scratch;
        if (!open_view(PyTuple_GET_ITEM(visible, i), 1, batch->masks + i)) return 0;
        if (slot + counts[i] > capacity || node + counts[i] > batch->nodes.nodes) {
            PyErr_Format(PyExc_ValueError, "row %zd: %zd nodes behind %zd; room for %zd", rows[i],
                         counts[i], slot, capacity);
            return 0;
        }
        const Size seen = shared ? length : 0;
        if (batch->masks[i].obj && batch->masks[i].len != counts[i] * (slot + counts[i] - seen)) {
            PyErr_Format(PyExc_ValueError, "row %zd: a mask of %zd", rows[i], batch->masks[i].len);
            return 0;
        }
        batch->readers[i] = (Reader){node, counts[i], rows[i], slot, seen,
                                     (Size)batch->masks[i].buf};
        for (Size end = node + counts[i]; node < end; node++)
            batch->positions[node] = length + depths[node];
    }
    return matches(node, batch->nodes.nodes, "nodes of all rows");
}

static int open_batch(PyObject *const *given, Batch *batch) {
    Size scratch, shared, capacity;
    memset(batch, 0, sizeof *batch);
    if (!integers(given + SCRATCH, 1, &scratch) || !integers(given + SHARED, 1, &shared) ||
        !integers(given + CAPACITY, 1, &capacity))
        return 0;
    for (int i = ROWS; i <= LENGTHS; i++)
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
    return fill_batch(batch, given[VISIBLE], scratch, shared, capacity);
}

enum { SHAPE = sizeof(Shape) / sizeof(Size) };

static PyObject *finished(int done) {
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *call_linear(PyObject *self, PyObject *const *given, Size count) {
    Size v[12];
    int done;
    if (!expect(count, 12) || !integers(given, 12, v)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = linear((int)v[0], (int)v[1], (int)v[2], v[3], v[4], v[5], (const char *)v[6],
                  (const char *)v[7], (const float *)v[8], (char *)v[9], (int)v[10], (int)v[11]);
    Py_END_ALLOW_THREADS
    return finished(done);
}

static PyObject *call_rms_norm(PyObject *self, PyObject *const *given, Size count) {
    Size v[6];
    if (!expect(count, 7) || !integers(given, 6, v)) return NULL;
    double floor = PyFloat_AsDouble(given[6]);
    if (PyErr_Occurred()) return NULL;
    rms_norm((int)v[0], v[1], v[2], (const char *)v[3], (const float *)v[4], (float)floor,
             (char *)v[5]);
    Py_RETURN_NONE;
}

static PyObject *call_attend(PyObject *self, PyObject *const *given, Size count) {
    Batch batch;
    Shape shape;
    Size v[5];
    int done = 0;
    if (!expect(count, BATCH + SHAPE + 6)) return NULL;
    PyObject *const *rest = given + BATCH + SHAPE;
    Turn turn = {NULL, (float)PyFloat_AsDouble(rest[5])};
    int valid = open_batch(given, &batch) && integers(given + BATCH, SHAPE, (Size *)&shape) &&
                integers(rest, 5, v) && !PyErr_Occurred();
    if (valid) {
        turn.table = (const float *)v[2];
        Py_BEGIN_ALLOW_THREADS
        done = attend(&shape, &batch.nodes, &turn, (const char *)v[0], (const float *)v[1],
                      (char *)v[3], (char *)v[4]);
        Py_END_ALLOW_THREADS
    }
    close_batch(&batch);
    return valid ? finished(done) : NULL;
}

/* Whether all are from 0 to `limit` - 1. */
static int within(const Py_buffer *numbers, Size limit, const char *name) {
    const Size *values = numbers->buf, count = numbers->len / (Size)sizeof(Size);
    for (Size i = 0; i < count; i++)
        if (values[i] < 0 || values[i] >= limit) {
            PyErr_Format(PyExc_IndexError, "%s: %zd; wanted: 0 to %zd", name, values[i], limit - 1);
            return 0;
        }
    return 1;
}

static PyObject *call_score(PyObject *self, PyObject *const *given, Size count) {
    Batch batch;
    Shape shape;
    Size v[5];
    Py_buffer model = {0}, tokens = {0}, wanted = {0};
    int done = 0;
    if (!expect(count, BATCH + SHAPE + 10)) return NULL;
    PyObject *const *rest = given + BATCH + SHAPE;
    Turn turn = {NULL, (float)PyFloat_AsDouble(rest[8])};
    float floor = (float)PyFloat_AsDouble(rest[9]);
    int valid = open_batch(given, &batch) && integers(given + BATCH, SHAPE, (Size *)&shape) &&
                integers(rest, 5, v) && open_view(rest[5], sizeof(Size), &model) &&
                open_view(rest[6], sizeof(Size), &tokens) &&
                open_view(rest[7], sizeof(Size), &wanted) && !PyErr_Occurred();
    const Size all = batch.nodes.nodes;
    valid = valid && within(&tokens, ((Model *)model.buf)->inputs, "tokens") &&
            within(&wanted, all, "wanted") &&
            (!tokens.obj || matches(tokens.len / (Size)sizeof(Size), all, "tokens"));
    if (valid) {
        turn.table = (const float *)v[0];
        Py_BEGIN_ALLOW_THREADS
        done = score(&shape, &batch.nodes, &turn, model.buf, floor, tokens.buf, (char *)v[1],
                     (char *)v[2], v[3], wanted.buf,
                     wanted.obj ? wanted.len / (Size)sizeof(Size) : all, (float *)v[4]);
        Py_END_ALLOW_THREADS
    }
    close_batch(&batch);
    PyBuffer_Release(&model);
    PyBuffer_Release(&tokens);
    PyBuffer_Release(&wanted);
    return valid ? finished(done) : NULL;
}

/* seeds, positions, rounds or None; purpose, vocabulary, words: the first arguments of both. */
enum { DRAW = 6 };

static int open_draw(PyObject *const *given, Draw *draw, Py_buffer *views) {
    Size v[3];
    memset(views, 0, 3 * sizeof *views);
    for (int i = 0; i < 3; i++)
        if (!open_view(given[i], sizeof(Size), views + i)) return 0;
    if (!integers(given + 3, 3, v)) return 0;
    if (views[0].len != views[1].len || (views[2].obj && views[2].len != views[0].len)) {
        PyErr_SetString(PyExc_ValueError, "seeds, positions and rounds differ in length");
        return 0;
    }
    *draw = (Draw){views[0].buf, views[1].buf, views[2].buf, v[0], v[1], (const int32_t *)v[2]};
    return 1;
}

static PyObject *call_gumbel(PyObject *self, PyObject *const *given, Size count) {
    Py_buffer views[3];
    Draw draw;
    Size v[2];
    if (!expect(count, DRAW + 2)) return NULL;
    int valid = open_draw(given, &draw, views) && integers(given + DRAW, 2, v);
    if (valid) {
        Py_BEGIN_ALLOW_THREADS
        gumbel(&draw, views[0].len / (Size)sizeof(Size), (float *)v[0], (int)v[1]);
        Py_END_ALLOW_THREADS
    }
    for (int i = 0; i < 3; i++) PyBuffer_Release(views + i);
    return valid ? finished(1) : NULL;
}

static PyObject *call_choose(PyObject *self, PyObject *const *given, Size count) {
    Py_buffer views[3], noisy = {0}, tokens = {0};
    Draw draw;
    Size v[2];
    if (!expect(count, DRAW + 4)) return NULL;
    int valid = open_draw(given, &draw, views) && integers(given + DRAW, 2, v) &&
                open_view(given[DRAW + 2], 1, &noisy) &&
                open_view(given[DRAW + 3], sizeof(Size), &tokens);
    const Size rows = views[0].len / (Size)sizeof(Size);
    if (valid && (noisy.len != rows || tokens.len != views[0].len)) {
        PyErr_SetString(PyExc_ValueError, "seeds, noisy and tokens differ in length");
        valid = 0;
    }
    if (valid) {
        Py_BEGIN_ALLOW_THREADS
        choose(&draw, rows, (const float *)v[0], noisy.buf, tokens.buf, (int)v[1]);
        Py_END_ALLOW_THREADS
    }
    for (int i = 0; i < 3; i++) PyBuffer_Release(views + i);
    PyBuffer_Release(&noisy);
    PyBuffer_Release(&tokens);
    return valid ? finished(1) : NULL;
}

#define METHOD(name, told) {#name, (PyCFunction)(void (*)(void))call_##name, METH_FASTCALL, told}
#define OF_A_BATCH                                                                        \
    "rows, counts, depths, lengths, scratch, visible, shared, capacity; kind, heads, "    \
    "kv_heads, width, row_stride, head_stride, value_offset, threads; "

static PyMethodDef methods[] = {
    METHOD(linear, "stored, kind, result, rows, inputs, outputs, x, w, bias, y, add, threads"),
    METHOD(rms_norm, "kind, rows, width, x, weight, y, floor"),
    METHOD(attend, OF_A_BATCH "qkv, norm, table, cache, y; floor"),
    METHOD(score, OF_A_BATCH "table, x, cache, layer_stride, logits; model, tokens, wanted; floors "
                             "of heads, of x"),
    METHOD(gumbel, "seeds, positions, rounds or None; purpose, vocabulary, words; y, threads"),
    METHOD(choose, "seeds, positions, rounds or None; purpose, vocabulary, words; values, threads; "
                   "noisy, tokens"),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
