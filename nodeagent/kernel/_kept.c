/* The fast way of nodeagent/kernel/kept.py, and no more than that: one file that is read again and again.
 *
 *     cc -O2 -fPIC -shared $(python3-config --includes) _kept.c -o _kept$(python3-config --extension-suffix)
 *
 * Optional: without it kept.py does the same. Both are held against each other in tests/unit/test_kept.py.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <unistd.h>

#define ON_STACK 8192 /* a file that is longer is read into the object that it becomes */

typedef struct {
    PyObject_HEAD
    int fd;
    Py_ssize_t size;
    PyObject *raw;  /* bytes as last read, or None */
    PyObject *last; /* what they were parsed to, or None */
} Kept;

static PyObject *changed_, *unreadable_; /* names of methods */

/* -1 with errno or a Python error, as os.pread does. */
static Py_ssize_t read_at_once(int fd, char *into, Py_ssize_t size)
{
    Py_ssize_t got;
    do {
        Py_BEGIN_ALLOW_THREADS
        got = pread(fd, into, (size_t)size, 0);
        Py_END_ALLOW_THREADS
    } while (got < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    return got;
}

static PyObject *value(Kept *self, PyObject *Py_UNUSED(none))
{
    char near[ON_STACK], *into = near;
    PyObject *raw = NULL;
    Py_ssize_t size = self->size, got;

    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "a file of a negative size");
        return NULL;
    }
    if (size > ON_STACK) {
        if ((raw = PyBytes_FromStringAndSize(NULL, size)) == NULL)
            return NULL;
        into = PyBytes_AS_STRING(raw);
    }
    got = read_at_once(self->fd, into, size);
    if (got < 0) {
        Py_XDECREF(raw);
        return PyErr_Occurred() ? NULL : PyObject_CallMethodNoArgs((PyObject *)self, unreadable_);
    }
    if (self->raw != NULL && self->last != NULL && self->last != Py_None && PyBytes_CheckExact(self->raw) &&
        PyBytes_GET_SIZE(self->raw) == got && memcmp(PyBytes_AS_STRING(self->raw), into, (size_t)got) == 0) {
        Py_XDECREF(raw);
        Py_INCREF(self->last);
        return self->last;
    }
    if (raw == NULL)
        raw = PyBytes_FromStringAndSize(near, got);
    else if (_PyBytes_Resize(&raw, got) < 0)
        return NULL;
    if (raw == NULL)
        return NULL;
    PyObject *found = PyObject_CallMethodOneArg((PyObject *)self, changed_, raw);
    Py_DECREF(raw);
    return found;
}

static PyObject *new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(named))
{
    Kept *self = (Kept *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->fd = -1;
        self->raw = Py_NewRef(Py_None);
        self->last = Py_NewRef(Py_None);
    }
    return (PyObject *)self;
}

static int traverse(Kept *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->raw);
    Py_VISIT(self->last);
    return 0;
}

static int clear(Kept *self)
{
    Py_CLEAR(self->raw);
    Py_CLEAR(self->last);
    return 0;
}

static void dealloc(Kept *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *class_getitem(PyObject *type, PyObject *item)
{
    return Py_GenericAlias(type, item);
}

static PyMethodDef methods[] = {
    {"value", (PyCFunction)value, METH_NOARGS, "What the file says now, or None."},
    {"__class_getitem__", class_getitem, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_fd", T_INT, offsetof(Kept, fd), 0, NULL},
    {"_size", T_PYSSIZET, offsetof(Kept, size), 0, NULL},
    {"_raw", T_OBJECT, offsetof(Kept, raw), 0, NULL},
    {"_last", T_OBJECT, offsetof(Kept, last), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    "nodeagent.kernel._kept.Kept", sizeof(Kept), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kept", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kept(void)
{
    PyObject *made = PyModule_Create(&module), *type = PyType_FromSpec(&spec);
    changed_ = PyUnicode_InternFromString("_changed");
    unreadable_ = PyUnicode_InternFromString("_unreadable");
    if (made == NULL || type == NULL || changed_ == NULL || unreadable_ == NULL ||
        PyModule_AddObject(made, "Kept", type) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
