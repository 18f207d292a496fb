/* The module models.compute.x86._kernels: the arithmetic of one pass on an AVX2 CPU.

   Weights may be stored in half precision: they are widened in registers, so that a pass reads half
   the memory, and multiplied and summed in float32. A number of a result is one sum in one order,
   whatever other rows there are: a row has the same bits in every batch.

   models/compute/x86/kernels.py checks what the addresses that its functions are given stand for. */

#include "arguments.h"

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

static PyObject *call_layer_norm(PyObject *self, PyObject *const *given, Size count) {
    Size v[5];
    if (!expect(count, 6) || !integers(given, 5, v)) return NULL;
    double eps = PyFloat_AsDouble(given[5]);
    if (PyErr_Occurred()) return NULL;
    layer_norm((int)v[0], v[1], v[2], (const char *)v[3], (float)eps, (float *)v[4]);
    Py_RETURN_NONE;
}

static PyObject *call_activate(PyObject *self, PyObject *const *given, Size count) {
    Size v[5];
    if (!expect(count, 5) || !integers(given, 5, v)) return NULL;
    activate((int)v[0], (int)v[1], v[2], (const char *)v[3], (char *)v[4]);
    Py_RETURN_NONE;
}

static PyObject *call_flow(PyObject *self, PyObject *const *given, Size count) {
    Size v[11];
    int done;
    if (!expect(count, 11) || !integers(given, 11, v)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = flow(v[0], v[1], v[2], (const double *)v[3], (const double *)v[4],
                (const double *)v[5], (const double *)v[6], v[7], (double *)v[8], (Size *)v[9],
                (int)v[10]);
    Py_END_ALLOW_THREADS
    return finished(done);
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

static PyObject *call_score(PyObject *self, PyObject *const *given, Size count) {
    Batch batch;
    Shape shape;
    Size v[6];
    Text text = {0};
    Py_buffer wanted = {0}, layers = {0};
    int done = 0;
    if (!expect(count, BATCH + SHAPE + 12)) return NULL;
    PyObject *const *rest = given + BATCH + SHAPE;
    Turn turn = {NULL, (float)PyFloat_AsDouble(rest[0])};
    float floor = (float)PyFloat_AsDouble(rest[1]);
    int valid = open_batch(given, &batch) && integers(given + BATCH, SHAPE, (Size *)&shape) &&
                !PyErr_Occurred() && integers(rest + 2, 6, v) && open_text(rest + 8, &batch, &text) &&
                open_view(rest[10], sizeof(Size), &wanted) &&
                within(&wanted, batch.nodes.nodes, "wanted") &&
                open_view(rest[11], sizeof(Size), &layers) &&
                within(&layers, ((Model *)text.model.buf)->count + 1, "layers");
    if (valid) {
        const Taps taps = {layers.buf, length_of(&layers), (char *)v[5]};
        turn.table = (const float *)v[0];
        Py_BEGIN_ALLOW_THREADS
        done = score(&shape, &batch.nodes, &turn, text.model.buf, floor, text.tokens.buf,
                     (char *)v[3], (char *)v[1], v[2], wanted.buf,
                     wanted.obj ? length_of(&wanted) : batch.nodes.nodes, (float *)v[4],
                     layers.obj ? &taps : NULL);
        Py_END_ALLOW_THREADS
    }
    close_batch(&batch);
    close_text(&text);
    PyBuffer_Release(&wanted);
    PyBuffer_Release(&layers);
    return valid ? finished(done) : NULL;
}

static PyObject *call_gumbel(PyObject *self, PyObject *const *given, Size count) {
    Py_buffer views[ARRAYS];
    Draw draw;
    Size v[2];
    if (!expect(count, DRAW + 2)) return NULL;
    int valid = open_draw(given, &draw, views) && integers(given + DRAW, 2, v);
    if (valid) {
        Py_BEGIN_ALLOW_THREADS
        gumbel(&draw, length_of(views + 2), (float *)v[0], (int)v[1]);
        Py_END_ALLOW_THREADS
    }
    for (int i = 0; i < ARRAYS; i++) PyBuffer_Release(views + i);
    return valid ? finished(1) : NULL;
}

static PyObject *call_choose(PyObject *self, PyObject *const *given, Size count) {
    Choice choice;
    Py_buffer tokens = {0};
    Size v[2];
    if (!expect(count, CHOICE + 3)) return NULL;
    PyObject *const *rest = given + CHOICE;
    int valid = open_choice(given, &choice) && integers(rest, 2, v) &&
                open_view(rest[2], sizeof(Size), &tokens) &&
                matches(length_of(&tokens), length_of(choice.views + 2), "tokens");
    if (valid) {
        Py_BEGIN_ALLOW_THREADS
        choose(&choice.draw, &choice.sampling, length_of(&tokens), (const float *)v[0], tokens.buf,
               (int)v[1]);
        Py_END_ALLOW_THREADS
    }
    close_choice(&choice);
    PyBuffer_Release(&tokens);
    return valid ? finished(1) : NULL;
}

static PyObject *call_chain(PyObject *self, PyObject *const *given, Size count) {
    Draft draft;
    Py_buffer chosen = {0};
    int done = 0;
    if (!expect(count, DRAFT + 1)) return NULL;
    int valid = open_draft(given, &draft) && open_view(given[DRAFT], sizeof(Size), &chosen);
    const Size depth = valid ? length_of(&chosen) / draft.batch.nodes.rows : 0;
    valid = valid && has_room(&draft.batch, depth - 1);
    if (valid) {
        Py_BEGIN_ALLOW_THREADS
        done = chain(&draft.by, depth, chosen.buf);
        Py_END_ALLOW_THREADS
    }
    close_draft(&draft);
    PyBuffer_Release(&chosen);
    return valid ? finished(done) : NULL;
}

static PyObject *call_trees(PyObject *self, PyObject *const *given, Size count) {
    static const char *const names[] = {"tokens", "parents", "kept", "kept parents", "kept levels"};
    enum { GIVEN = 5 };
    Draft draft;
    Py_buffer views[GIVEN] = {{0}};
    Size width;
    int done = 0;
    if (!expect(count, DRAFT + 1 + GIVEN)) return NULL;
    int valid = open_draft(given, &draft) && integers(given + DRAFT, 1, &width);
    for (int i = 0; valid && i < GIVEN; i++)
        valid = open_view(given[DRAFT + 1 + i], sizeof(Size), views + i) &&
                matches(length_of(views + i), length_of(views + (i < 2 ? 0 : 2)), names[i]);
    if (valid && (width < 1 || width > WIDEST || width > draft.choice.draw.vocabulary)) {
        PyErr_Format(PyExc_ValueError, "width: %zd; wanted: 1 to %d, at most the vocabulary", width,
                     WIDEST);
        valid = 0;
    }
    const Size rows = valid && draft.batch.nodes.rows ? draft.batch.nodes.rows : 1;
    const Size most = length_of(views) / rows, budget = length_of(views + 2) / rows;
    valid = valid && has_room(&draft.batch, most - width);
    if (valid && budget > most) {
        PyErr_Format(PyExc_ValueError, "kept: %zd of a tree; wanted: its %zd at most", budget, most);
        valid = 0;
    }
    if (valid) {
        Tree tree = {most,         budget,       views[0].buf, views[1].buf,
                     views[2].buf, views[3].buf, views[4].buf};
        Py_BEGIN_ALLOW_THREADS
        done = trees(&draft.by, width, most / width, &tree);
        Py_END_ALLOW_THREADS
    }
    close_draft(&draft);
    for (int i = 0; i < GIVEN; i++) PyBuffer_Release(views + i);
    return valid ? finished(done) : NULL;
}

#define METHOD(name, told) {#name, (PyCFunction)(void (*)(void))call_##name, METH_FASTCALL, told}
#define OF_A_BATCH                                                                        \
    "rows, counts, depths, lengths, rooms, tables, scratch, visible, shared; kind, heads, " \
    "kv_heads, width, head_stride, value_offset, threads; "

#define OF_A_MODEL "floors of heads, of x; table, cache, layer_stride, "
#define OF_A_DRAW "seeds, starts, owners, levels; fresh, purpose, vocabulary, words; "
#define OF_A_CHOICE OF_A_DRAW "noisy, inverse, top_k, top_p, min_p or None; "
#define OF_A_DRAFT OF_A_BATCH OF_A_MODEL "model, tokens; " OF_A_CHOICE

static PyMethodDef methods[] = {
    METHOD(linear, "stored, kind, result, rows, inputs, outputs, x, w, bias, y, add, threads"),
    METHOD(rms_norm, "kind, rows, width, x, weight, y, floor"),
    METHOD(layer_norm, "kind, rows, width, x, y, eps"),
    METHOD(activate, "kind, gelu, count, x, y"),
    METHOD(flow, "rows, vocabulary, width, codes, half, logs, times, count, x, tokens, threads"),
    METHOD(attend, OF_A_BATCH "qkv, norm, table, cache, y; floor"),
    METHOD(score, OF_A_BATCH OF_A_MODEL "x, logits, states; model, tokens, wanted, layers"),
    METHOD(chain, OF_A_DRAFT "chosen"),
    METHOD(trees, OF_A_DRAFT "width; tokens, parents; kept tokens, parents, levels"),
    METHOD(gumbel, OF_A_DRAW "y, threads"),
    METHOD(choose, OF_A_CHOICE "values, threads; tokens"),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
