"""The short way for image filters of small arrays that come with settings seen before."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from libc.string cimport memcpy
cimport numpy as cnp

cnp.import_array()

cdef enum:
    MOST_KEPT = 512
    MOST_AXES = 8
    MOST_SETTINGS = 16
    WEIGHT_BYTES = 8192              # the weights are part of what is looked up
    PIXELS = 200000                  # beyond that, the checks take no time that counts


cdef class Recall:
    """Remembers, for calls that have passed all checks, the function that fills an output.

    What is remembered belongs to the weights' values, to the settings with their types, and to what else the choice of
    that function depends on: the dtypes, the number of axes, and whether the last one is short."""

    cdef dict fill
    cdef Py_ssize_t short_axis

    def __init__(self, Py_ssize_t short_axis):
        self.fill = {}
        self.short_axis = short_axis

    def run(self, x, weights, output, cval, tuple settings):
        """The filtered image, or None: such a call is not remembered, or an array is not so plain. No argument of
        settings has been looked at, and weights and output may be None."""
        cdef tuple key
        cdef void *fill
        cdef cnp.ndarray image, out
        cdef int axis
        if not self.fill:
            return None
        key = self.key(x, weights, output, settings)
        if key is None:
            return None
        fill = PyDict_GetItem(self.fill, key)
        if fill == NULL:
            return None
        image = x
        if output is None:
            out = cnp.PyArray_EMPTY(image.ndim, image.shape, cnp.PyArray_TYPE(image), 0)
        else:
            out = output
            if out.ndim != image.ndim:
                return None
            for axis in range(image.ndim):
                if out.shape[axis] != image.shape[axis]:
                    return None
        return out if (<object> fill)(image, out, cval) else None

    def keep(self, x, weights, output, tuple settings, fill):
        """Remember fill(image, out, cval), which returns whether it did it, for a call that has passed all checks."""
        cdef tuple key = self.key(x, weights, output, settings)
        if key is not None:
            if len(self.fill) >= MOST_KEPT:
                self.fill = {}
            self.fill[key] = fill

    cdef tuple key(self, x, weights, output, tuple settings):
        cdef char letters[6 + 2 * MOST_AXES + MOST_SETTINGS]
        cdef cnp.ndarray image, out, w = None
        cdef Py_ssize_t n = 6, size = 0
        cdef int axis
        cdef bytes values
        if type(x) is not cnp.ndarray or not (output is None or type(output) is cnp.ndarray):
            return None
        image = x
        out = image if output is None else output
        if (image.ndim == 0 or image.ndim > MOST_AXES or cnp.PyArray_SIZE(image) > PIXELS
                or len(settings) > MOST_SETTINGS or not cnp.PyArray_ISNOTSWAPPED(image)
                or output is not None and not cnp.PyArray_ISBEHAVED(out)):
            return None
        letters[0], letters[1] = image.ndim, image.shape[image.ndim - 1] < self.short_axis
        letters[2], letters[3], letters[4], letters[5] = image.descr.type, out.descr.type, 0, 0
        if weights is not None:
            if type(weights) is not cnp.ndarray:
                return None
            w = weights
            size = cnp.PyArray_NBYTES(w)
            if w.ndim > MOST_AXES or size > WEIGHT_BYTES or not cnp.PyArray_ISCARRAY_RO(w):
                return None
            letters[4], letters[5] = w.descr.type, w.ndim
            for axis in range(w.ndim):
                letters[n], letters[n + 1] = w.shape[axis] & 255, w.shape[axis] >> 8 & 255
                n += 2
        for value in settings:
            # True or 1.0, which may be refused, must not pass for a 1 that was checked before.
            if value is None:
                letters[n] = c"n"
            elif type(value) is str:
                letters[n] = c"s"
            elif type(value) is int:
                letters[n] = c"i"
            elif type(value) is float:
                letters[n] = c"f"
            elif type(value) is bool:
                letters[n] = c"b"
            else:
                return None
            n += 1
        values = PyBytes_FromStringAndSize(NULL, n + size)
        memcpy(PyBytes_AS_STRING(values), letters, n)
        if size > 0:
            memcpy(PyBytes_AS_STRING(values) + n, cnp.PyArray_DATA(w), size)
        return values, settings
