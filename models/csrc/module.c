/* The module models._kernels: the arithmetic of one pass on an AVX2 CPU.

   Weights may be stored in half precision: they are widened in registers, so that a pass reads half
   the memory, and multiplied and summed in float32. A number of a result is one sum in one order,
   whatever other rows there are: a row has the same bits in every batch. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

/* Python's side: all arguments are integers, addresses among them; models/kernels.py checks what they stand for. */

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

static PyObject *call_attend(PyObject *self, PyObject *const *given, Size count) {
    Size v[16];
    int done;
    if (count != 17) return PyErr_Format(PyExc_TypeError, "%zd arguments; wanted: 17", count);
    double floor = PyFloat_AsDouble(given[16]);
    if (!integers(given, 16, 16, v) || PyErr_Occurred()) return NULL;
    Shape shape = {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]};
    Py_BEGIN_ALLOW_THREADS
    done = attend(&shape, (const Reader *)v[9], (const char *)v[10], (const float *)v[11],
                  (float)floor, (const float *)v[12], (const Size *)v[13], (char *)v[14],
                  (char *)v[15]);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"linear", (PyCFunction)(void (*)(void))call_linear, METH_FASTCALL,
     "stored, kind, rows, inputs, outputs, x, packed, bias or 0, y, add, threads"},
    {"rms_norm", (PyCFunction)(void (*)(void))call_rms_norm, METH_FASTCALL,
     "kind, rows, width, x, weight, y, floor"},
    {"swiglu", (PyCFunction)(void (*)(void))call_swiglu, METH_FASTCALL,
     "kind, rows, width, x, y, threads"},
    {"attend", (PyCFunction)(void (*)(void))call_attend, METH_FASTCALL,
     "kind, readers, heads, kv_heads, width, row_stride, head_stride, value_offset, threads, "
     "addresses of readers, qkv, norm or 0, table or 0, positions, cache, y; floor"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
