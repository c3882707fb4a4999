"""What image filters with missing samples do before and after their sums: zeros in place of missing samples, a mask,
and the quotient of two sums. One trip through each array, for one computing dtype and one instruction-set level.
"""
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint8_t, uint64_t
cimport numpy as cnp

cnp.import_array()

include "vector.pxi"

cdef enum:
    MAX_AXES = 64                    # NumPy's own limit
    MAX_ARRAYS = 5


cdef struct Rows:                    # of some arrays of one shape, along their last axis
    int n_arrays, ndim
    int64_t size[MAX_AXES]
    int64_t at[MAX_AXES]
    int64_t strides[MAX_ARRAYS][MAX_AXES]
    int64_t sample[MAX_ARRAYS]       # bytes
    char *row[MAX_ARRAYS]            # where there is no array, NULL


cdef int64_t open_rows(Rows *r, tuple arrays) except -1:
    """Stand at the first row; the number of rows. Last axes that follow one another in all arrays are one."""
    cdef cnp.ndarray a
    cdef int64_t count = 1
    cdef int i, axis, last
    cdef bint one
    a = arrays[0]
    r.n_arrays, r.ndim = len(arrays), a.ndim
    for axis in range(r.ndim):
        r.size[axis], r.at[axis] = a.shape[axis], 0
    for i in range(r.n_arrays):
        r.row[i] = NULL
        if arrays[i] is not None:
            a = arrays[i]
            r.row[i], r.sample[i] = <char *>cnp.PyArray_DATA(a), a.itemsize
            for axis in range(r.ndim):
                r.strides[i][axis] = a.strides[axis]
    last = r.ndim - 1
    while r.ndim > 1:
        axis, one = r.ndim - 2, True
        for i in range(r.n_arrays):
            if r.row[i] != NULL and r.strides[i][axis] != r.size[last] * r.sample[i]:
                one = False
        if not one:
            break
        r.size[axis] *= r.size[last]
        r.ndim, last = axis + 1, axis
    for axis in range(r.ndim - 1):
        count *= r.size[axis]
    return count


cdef void next_row(Rows *r) noexcept nogil:
    cdef int i, axis = r.ndim - 2
    cdef int64_t steps
    while axis >= 0:
        r.at[axis] += 1
        steps = 1
        if r.at[axis] == r.size[axis]:
            steps = 1 - r.size[axis]
            r.at[axis] = 0
        for i in range(r.n_arrays):
            if r.row[i] != NULL:
                r.row[i] += steps * r.strides[i][axis]
        if steps == 1:
            return
        axis -= 1


cdef inline int select_row(const real *x, const uint8_t *there, bint omit, real *filled, real *mask,
                           int64_t n) noexcept nogil:
    cdef int64_t i
    cdef int ok, missing = 0
    if there == NULL:
        for i in range(n):
            ok = x[i] == x[i]
            missing |= 1 - ok
            mask[i] = 1 if ok else 0
            filled[i] = x[i] if ok else 0
    elif omit:
        for i in range(n):
            ok = (x[i] == x[i]) & (there[i] != 0)
            missing |= 1 - ok
            mask[i] = 1 if ok else 0
            filled[i] = x[i] if ok else 0
    else:
        for i in range(n):
            ok = there[i] != 0
            missing |= 1 - ok
            mask[i] = 1 if ok else 0
            filled[i] = x[i] if ok else 0
    return missing


def select(x, there, bint omit, filled, mask) -> bool:
    """See pyconv.engine.select_valid."""
    cdef Rows r
    cdef int64_t _row, count = open_rows(&r, (x, there, filled, mask)), n = r.size[r.ndim - 1]
    cdef int missing = 0
    with nogil:
        for _row in range(count):
            missing |= select_row(<const real *>r.row[0], <const uint8_t *>r.row[1], omit, <real *>r.row[2],
                                  <real *>r.row[3], n)
            next_row(&r)
    return missing != 0


cdef inline void normalise_row(const real *sums, const real *share, real *out, int64_t n, real full, real almost,
                               real least, bint scaled) noexcept nogil:
    cdef int64_t i
    cdef real y, part
    if scaled:
        for i in range(n):
            part = full if share[i] >= almost else share[i]
            y = sums[i] * (full / part)
            out[i] = y if share[i] >= least else <real>NAN
    else:
        for i in range(n):
            out[i] = sums[i] if share[i] >= least else <real>NAN


cdef inline void divide_row(const real *share, real *weight, int64_t n, real full, real almost) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        weight[i] = 1 if share[i] >= almost else share[i] / full


cdef inline void drop_row(const real *mask, real *out, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        out[i] = out[i] if mask[i] != 0 else <real>NAN


def normalise(sums, share, out, mask, weight, double full, double almost, double least, bint scaled):
    """See pyconv.engine.normalise."""
    cdef Rows r
    cdef int64_t _row, count = open_rows(&r, (sums, share, out, mask, weight)), n = r.size[r.ndim - 1]
    with nogil:
        for _row in range(count):
            normalise_row(<const real *>r.row[0], <const real *>r.row[1], <real *>r.row[2], n, <real>full,
                          <real>almost, <real>least, scaled)
            if r.row[3] != NULL:
                drop_row(<const real *>r.row[3], <real *>r.row[2], n)
            if r.row[4] != NULL:
                divide_row(<const real *>r.row[1], <real *>r.row[4], n, <real>full, <real>almost)
            next_row(&r)
