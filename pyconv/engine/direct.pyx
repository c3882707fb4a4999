"""The direct convolution, for one computing dtype and one instruction-set level.

setup.py builds this source once for each of them; the package's __init__ tells how the parts fit together.
"""
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
cimport numpy as cnp

cnp.import_array()

include "vector.pxi"
include "memory.pxi"
include "threads.pxi"
include "tile.pxi"
include "band.pxi"

cdef enum:
    NO_MEMORY = -1                   # what a plan can come to
    NOT_SUITED = 0
    PLANNED = 1
    UNKNOWN = -1

cdef enum:
    PAGE = 4096                      # bytes; the processor follows a row of memory by itself, but not to another page
    MAX_AXES = 64                    # NumPy's own limit

cdef double LARGEST_WORKSPACE = 2.0**46


cdef struct Axis:                    # a spatial axis
    int64_t n, on                    # input and output length
    int64_t k, s, d                  # kernel length, stride, dilation
    int64_t before                   # padding before
    int boundary
    int64_t x_step, y_step           # bytes from sample to sample, of the input and of the output


cdef struct Problem:
    # the batch, any number of axes
    int n_batch
    int64_t N
    # channels; a complex one is two parts, each a real channel here
    int64_t groups, C, O             # C and O: of one group
    int64_t x_channel, y_channel
    int64_t upscale, y_fine_row, y_fine_column   # r: r x r output channels are the pixels of one, so many bytes apart
    int64_t x_parts                  # 2: a channel is complex, each part a real channel here
    int64_t x_part                   # bytes from one part to the other
    # spatial axes: the last two are H and W, those before are the outer ones
    int n_outer
    Axis H
    Axis W
    int64_t interleave               # samples a pixel, where W runs over the samples of a channels-last image
    int64_t outer_taps, outer_size   # products over the outer axes: of k, of on
    const char *x
    char *y
    Source source
    int y_code
    bint y_direct                    # the output is reals, one after the other along W
    const real *w
    const int64_t *order             # NULL, or w is (groups * C, O, w_taps), and weight (o, c, t) is w[c, o, order[t]]
    int64_t w_taps
    const real *w_end
    const real *packed               # NULL, or the weights as vectors over output channels need them (outputs.pxi)
    bint keeps                       # what is made of the weights is there, or is made once for many calls
    int finite                       # whether all weights are finite, or UNKNOWN
    const real *bias
    real constant[2]                 # of each part
    bint fused
    int pairs
    # the long tables come last, so that clearing the rest is cheap
    int64_t batch[MAX_AXES]
    int64_t x_batch[MAX_AXES]
    int64_t y_batch[MAX_AXES]
    Axis outer[MAX_AXES]


# ---------------------------------------------------------------- where things lie

cdef inline int64_t batch_offset(const Problem *p, int64_t n, const int64_t *steps) noexcept nogil:
    cdef int64_t offset = 0
    cdef int a
    for a in range(p.n_batch - 1, -1, -1):
        offset += n % p.batch[a] * steps[a]
        n //= p.batch[a]
    return offset


cdef inline const char *input_slice(const Problem *p, int64_t n, int64_t channel, int64_t z,
                                    int64_t tap) noexcept nogil:
    """The H x W slice of image n and input channel `channel` (of all groups, parts counted) that outer tap `tap` of
    outer output z reads; NULL: it is the constant everywhere."""
    cdef const char *slice = p.x + batch_offset(p, n, p.x_batch) + channel // p.x_parts * p.x_channel \
        + channel % p.x_parts * p.x_part
    cdef int64_t i
    cdef int a
    for a in range(p.n_outer - 1, -1, -1):
        i = z % p.outer[a].on * p.outer[a].s + tap % p.outer[a].k * p.outer[a].d - p.outer[a].before
        i = boundary_index(i, p.outer[a].n, p.outer[a].boundary)
        if i < 0:
            return NULL
        slice += i * p.outer[a].x_step
        z //= p.outer[a].on
        tap //= p.outer[a].k
    return slice


cdef inline const char *input_row(const Problem *p, const char *slice, int64_t i) noexcept nogil:
    """Row i of a slice, i counted from the first true row; NULL: it is the constant everywhere."""
    if slice == NULL:
        return NULL
    i = boundary_index(i, p.H.n, p.H.boundary)
    return slice + i * p.H.x_step if i >= 0 else NULL


cdef inline void fill_constant_rows(real *band, int64_t pitch, int64_t n_rows, int64_t length,
                                    real constant) noexcept nogil:
    cdef int64_t j
    for j in range(n_rows):
        fill_constant(band + j * pitch, length, constant)


cdef void fill_rows(const Problem *p, const ColumnMap *cols, const char *slice, int64_t first, int64_t step,
                    int64_t n_rows, real *band, int64_t pitch, real constant) noexcept nogil:
    """n_rows band rows, `pitch` reals apart: the input rows first, first + step, ..."""
    cdef int64_t H = p.H.n, x_step = p.H.x_step, column_step = cols.step * p.W.x_step
    cdef int64_t inner = cols.inner, inner_end = cols.inner_end, n = inner_end - inner, length = cols.length
    cdef int64_t j, i
    cdef const char *end = p.source.end - round_up(n + LANES, LANES) * column_step
    cdef const char *first_column
    cdef const char *from_
    cdef vec v = vzero() + constant
    if (slice == NULL or cols.bordered or n == 0 or not p.source.plain or p.source.code != REAL_CODE
            or not (column_step == sizeof(real) or column_step == 2 * sizeof(real))):
        for j in range(n_rows):
            if column_step == p.source.size and x_step >= PAGE and j + 4 < n_rows:
                from_ = input_row(p, slice, first + (j + 4) * step)
                if from_ != NULL:
                    prefetch_row(from_ + cols.start * p.W.x_step, n * column_step)
            fill_row(&p.source, cols, band + j * pitch, input_row(p, slice, first + j * step), p.W.x_step, constant)
        return
    # The same for reals between constants, with all that does not change in registers: where maps are small, or strides
    # part their rows, these copies are a tenth of all the time.
    first_column = slice + cols.start * p.W.x_step
    if length <= 2 * LANES and column_step == sizeof(real) and step == 1:
        j = min(max(-first, 0), n_rows)          # rows of the constant, before and behind those of the input
        i = min(max(H - first, j), n_rows)
        from_ = first_column - inner * <int64_t> sizeof(real) + (first + j) * x_step
        if (j < i and (p.H.boundary == CONSTANT or i - j == n_rows) and x_step >= 0 and from_ >= p.x
                and from_ + (i - j - 1) * x_step + 2 * sizeof(vec) <= p.source.end):
            fill_constant_rows(band, pitch, j, length, constant)
            copy_narrow_rows(band + j * pitch, pitch, from_, x_step, i - j, inner, inner_end, constant)
            fill_constant_rows(band + i * pitch, pitch, n_rows - i, length, constant)
            return
    for j in range(n_rows):
        i = first + j * step
        if not 0 <= i < H:
            i = boundary_index(i, H, p.H.boundary)
        from_ = first_column + i * x_step
        if i < 0 or from_ > end:     # no room to read whole vectors
            fill_row(&p.source, cols, band, from_ - cols.start * p.W.x_step if i >= 0 else NULL, p.W.x_step, constant)
        else:
            i = 0
            while i < inner:
                (<vec *> (band + i))[0] = v
                i += LANES
            if column_step == sizeof(real):
                i = 0
                while i < n:
                    (<vec *> (band + inner + i))[0] = (<const vec *> (from_ + i * sizeof(real)))[0]
                    i += LANES
            else:
                copy_every_second(band + inner, <const real *> from_, n, True)
            i = inner_end
            while i < length:
                (<vec *> (band + i))[0] = v
                i += LANES
        band += pitch


cdef bint fill_flat(const Problem *p, const ColumnMap *cols, const real *mask, const char *slice, int64_t first,
                    int64_t n_rows, real *band, int64_t pitch, real constant) noexcept nogil:
    """fill_rows as one line, for rows that follow one another in the input as in the band: the line lies aside by some
    columns, and the mask puts the constant where one row ends and the next begins. False: that reaches past the input.
    """
    cdef int64_t top = 0, bottom = 0, n
    cdef const char *from_ = NULL
    if slice != NULL:
        top = min(max(-first, 0), n_rows)
        bottom = min(max(p.H.n - first, top), n_rows)
    n = (bottom - top) * pitch
    if n > 0:
        from_ = slice + (first + top) * p.H.x_step + (cols.start - cols.inner) * <int64_t> sizeof(real)
        if from_ < p.x or from_ + round_up(n, LANES) * sizeof(real) > p.source.end:
            return False
    fill_constant(band, top * pitch, constant)
    if cols.inner < cols.inner_end:
        copy_masked(band + top * pitch, <const real *> from_, mask, n, constant)
    else:
        fill_constant(band + top * pitch, n, constant)
    fill_constant(band + bottom * pitch, (n_rows - bottom) * pitch, constant)
    return True


cdef inline int64_t channel_offset(const Problem *p, int64_t channel) noexcept nogil:
    """Bytes from output channel 0 to `channel`; upscaled, channel c * r * r + i * r + j begins at pixel (i, j) of c."""
    cdef int64_t r = p.upscale
    if r == 1:
        return channel * p.y_channel
    return (channel // (r * r) * p.y_channel + channel % (r * r) // r * p.y_fine_row
            + channel % r * p.y_fine_column)


cdef inline char *output_slice(const Problem *p, int64_t n, int64_t channel, int64_t z) noexcept nogil:
    cdef char *slice = p.y + batch_offset(p, n, p.y_batch) + channel_offset(p, channel)
    cdef int a
    for a in range(p.n_outer - 1, -1, -1):
        slice += z % p.outer[a].on * p.outer[a].y_step
        z //= p.outer[a].on
    return slice


cdef inline int64_t ceil_div(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline int64_t round_up(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b * b


# ---------------------------------------------------------------- stride phases

cdef struct Phases:                  # the residues modulo the stride that the taps of an axis have, or one a tap
    int64_t count
    int64_t *residue                 # of each phase
    int64_t *of_tap                  # each tap's phase
    int64_t *shift                   # each tap's first sample within its phase
    int64_t reach                    # the largest shift


cdef bint find_phases(Phases *f, int64_t k, int64_t s, int64_t d, bint own) noexcept nogil:
    """own: every tap has a phase of its own."""
    cdef int64_t t, i, r
    f.residue = <int64_t *> malloc(3 * k * sizeof(int64_t))
    if f.residue == NULL:
        return False
    f.of_tap = f.residue + k
    f.shift = f.of_tap + k
    f.count = 0
    if own:
        for t in range(k):
            f.residue[t], f.of_tap[t], f.shift[t] = t * d, t, 0
        f.count, f.reach = k, 0
        return True
    for t in range(k):
        r = t * d % s
        i = 0
        while i < f.count and f.residue[i] != r:
            i += 1
        if i == f.count:
            f.residue[i] = r
            f.count += 1
        f.of_tap[t] = i
        f.shift[t] = t * d // s
    f.reach = (k - 1) * d // s
    return True


include "channels.pxi"
include "rows.pxi"
include "weights.pxi"
include "exchange.pxi"
include "winograd.pxi"
include "winograd_weights.pxi"
include "fft.pxi"


# ---------------------------------------------------------------- the call from Python

cdef int dtype_code(cnp.ndarray a) except -1:
    """NumPy's letter for the dtype, with one letter for each size of integer."""
    cdef int code = a.descr.type
    if code == c'l' or code == c'p':
        return c'q' if sizeof(long) == 8 else c'i'
    if code == c'L' or code == c'P':
        return c'Q' if sizeof(long) == 8 else c'I'
    return code


cdef const char *array_end(cnp.ndarray a):
    """The first byte behind the array."""
    cdef const char *end = <const char *> cnp.PyArray_DATA(a) + cnp.PyArray_ITEMSIZE(a)
    cdef int i
    for i in range(a.ndim):
        if a.strides[i] > 0 and a.shape[i] > 0:
            end += (a.shape[i] - 1) * a.strides[i]
    return end


cdef const char *array_start(cnp.ndarray a):
    """The first byte of the array, which has one."""
    cdef const char *start = <const char *> cnp.PyArray_DATA(a)
    cdef int i
    for i in range(a.ndim):
        if a.strides[i] < 0:
            start += (a.shape[i] - 1) * a.strides[i]
    return start


cdef void set_axis(Axis *axis, int64_t n, int64_t on, int64_t k, int64_t s, int64_t d, int64_t before, int boundary,
                   int64_t x_step, int64_t y_step) noexcept nogil:
    axis.n, axis.on, axis.k, axis.s, axis.d = n, on, k, s, d
    axis.before, axis.boundary, axis.x_step, axis.y_step = before, boundary, x_step, y_step


cdef void describe_source(Source *source, cnp.ndarray a):
    source.code = dtype_code(a)
    source.size = cnp.PyArray_ITEMSIZE(a)
    source.swapped = not cnp.PyArray_ISNOTSWAPPED(a)
    source.plain = cnp.PyArray_ISALIGNED(a) and not source.swapped
    source.end = array_end(a)


cdef void describe_problem(Problem *p, cnp.ndarray x, cnp.ndarray w, cnp.ndarray out, int n_batch, int64_t groups,
                           tuple stride, tuple dilation, tuple before, tuple boundary, double constant,
                           double constant_imag, int64_t x_parts, bint interleaved, int64_t upscale,
                           cnp.ndarray order):
    """n_batch: -1: x and out have no axis of channels either, and all of them are the image itself."""
    cdef int n_spatial = w.ndim - 2
    cdef int a, first_spatial = n_batch + 1
    cdef Axis axes[MAX_AXES]

    memset(p, 0, <char *> &p.batch - <char *> p)
    p.groups = groups
    p.C = w.shape[1]
    p.O = w.shape[0] // groups
    if order is not None:
        p.C, p.O = p.O, p.C
        p.order = <const int64_t *> cnp.PyArray_DATA(order)
        p.w_taps = cnp.PyArray_SIZE(w) // (w.shape[0] * w.shape[1])
    p.x_parts = x_parts
    if n_batch >= 0:
        p.x_channel, p.y_channel = x.strides[n_batch], out.strides[n_batch]
    p.upscale = upscale
    if upscale > 1:
        p.y_fine_row, p.y_fine_column = out.strides[out.ndim - 2], out.strides[out.ndim - 1]
    if x_parts == 2:
        p.x_part = x.strides[x.ndim - 1]
    p.interleave = 1
    if interleaved:
        n_batch -= 1
        p.interleave = x.shape[n_batch]
    p.N = 1
    p.n_batch = max(n_batch, 0)
    for a in range(n_batch):
        p.batch[a], p.x_batch[a], p.y_batch[a] = x.shape[a], x.strides[a], out.strides[a]
        p.N *= x.shape[a]

    p.x = <const char *> cnp.PyArray_DATA(x)
    p.y = <char *> cnp.PyArray_DATA(out)
    p.w = <const real *> cnp.PyArray_DATA(w)
    p.w_end = p.w + cnp.PyArray_SIZE(w)
    p.finite = UNKNOWN
    describe_source(&p.source, x)
    p.y_code = dtype_code(out)
    p.constant[0], p.constant[1] = <real> constant, <real> constant_imag

    # Spatial axes; neighbours that no kernel reaches across and that lie evenly in both arrays become one.
    cdef int used = 0
    for a in range(n_spatial):
        set_axis(&axes[used], x.shape[first_spatial + a], out.shape[first_spatial + a] // upscale,
                 w.shape[2 + a] if order is None else order.shape[a], stride[a], dilation[a], before[a], boundary[a],
                 x.strides[first_spatial + a], upscale * out.strides[first_spatial + a])
        used += 1
        if used > 1 and p.interleave == 1 and merge_axes(&axes[used - 2], &axes[used - 1]):
            used -= 1
    p.n_outer = used - 2 if used > 2 else 0
    p.outer_taps = p.outer_size = 1
    for a in range(p.n_outer):
        p.outer[a] = axes[a]
        p.outer_taps *= axes[a].k
        p.outer_size *= axes[a].on
    p.W = axes[used - 1]
    if used > 1:
        p.H = axes[used - 2]
    else:
        set_axis(&p.H, 1, 1, 1, 1, 1, 0, CONSTANT, 0, 0)
    if p.interleave > 1:
        p.W.x_step //= p.interleave
        p.W.y_step //= p.interleave
    p.y_direct = p.y_code == REAL_CODE and p.W.y_step == sizeof(real)


def correlate(cnp.ndarray x not None, cnp.ndarray w not None, cnp.ndarray bias, cnp.ndarray out not None,
              int n_batch, int64_t groups, tuple stride, tuple dilation, tuple before, tuple boundary,
              double constant, double constant_imag, int64_t x_parts, bint interleaved,
              int workers, bint skip_zeros, bint fused, int pairs, int64_t upscale, cnp.ndarray order,
              dict kept, bint run=True):
    """pyconv.engine.correlate once dtypes are settled: w and out are real and native, a complex x has its two parts on
    a last axis of length two, and with `interleaved` the last batch axis runs inside W. Returns the size of its
    workspace in bytes, without running it where `run` is false."""
    cdef Problem p
    describe_problem(&p, x, w, out, n_batch, groups, stride, dilation, before, boundary, constant, constant_imag,
                     x_parts, interleaved, upscale, order)
    p.bias = <const real *> cnp.PyArray_DATA(bias) if bias is not None else NULL
    p.fused, p.pairs = fused, pairs
    return execute(&p, skip_zeros, workers, run, kept)


def correlate_residues(cnp.ndarray x not None, cnp.ndarray w not None, cnp.ndarray bias, cnp.ndarray out not None,
                       int n_batch, int64_t groups, tuple dilation, tuple before, tuple along_H, tuple along_W,
                       int workers):
    """The correlations, at unit stride, that make up a strided gradient of the input, all in one pass; one output
    channel a group. Along H and W, which are the last two axes (or W alone), the samples of each residue modulo the
    stride have some of the taps: (first, step, count, padding before) in along_H[1] and along_W[1], with the dilation
    of these taps in along_H[0] and along_W[0]. `dilation` and `before` count for the axes before these.

    Returns False, and nothing is done, where other ways are better."""
    cdef Problem p
    cdef RowPlan q
    cdef Residues f
    cdef int64_t i
    cdef int planned
    cdef tuple residues = along_H[1] + along_W[1], boundary = (CONSTANT,) * (w.ndim - 2)
    cdef tuple stride = ((1,) * w.ndim + (2, 2))[-len(boundary):]       # so that no axis is merged with H or W
    describe_problem(&p, x, w, out, n_batch, groups, stride, dilation, before, boundary, 0.0, 0.0, 1, False, 1,
                     None)
    p.bias = <const real *> cnp.PyArray_DATA(bias) if bias is not None else NULL
    p.fused = True
    f.H, f.W = len(along_H[1]), len(along_W[1])
    f.kh, f.kw = p.H.k, p.W.k
    f.height, f.width = p.H.on, p.W.on
    f.y_row, f.y_column = p.H.y_step, p.W.y_step
    f.of = <Residue *> malloc((f.H + f.W) * sizeof(Residue))
    if f.of == NULL:
        raise MemoryError("no memory for the residues of a stride")
    try:
        for i in range(f.H + f.W):
            f.of[i].first, f.of[i].step, f.of[i].count, f.of[i].before = residues[i]
        f.dilation_y, f.dilation_x = along_H[0], along_W[0]
        join_residues(&p.H, f.of, f.H, f.dilation_y)
        join_residues(&p.W, f.of + f.H, f.W, f.dilation_x)
        planned = plan_rows(&q, &p, &f, False, workers)
        if planned != PLANNED:
            return False
        try:
            execute_units(&p, run_row_unit, &q, q.units, q.workspace, workers)
        finally:
            free_rows(&q)
    finally:
        free(f.of)
    return True


cdef void join_residues(Axis *axis, const Residue *of, int64_t count, int64_t dilation) noexcept nogil:
    """Make an axis of outputs one of positions, each with a sample of every residue, under a kernel that reaches as
    far as all of them together."""
    cdef int64_t i, reach = 0
    cdef bint found = False
    axis.before = 0
    for i in range(count):
        if of[i].count > 0:
            axis.before = max(axis.before, of[i].before) if found else of[i].before
            found = True
    for i in range(count):
        if of[i].count > 0:
            reach = max(reach, axis.before - of[i].before + (of[i].count - 1) * dilation)
    axis.on = ceil_div(axis.on, count)
    axis.y_step *= count
    axis.k, axis.s, axis.d = reach + 1, 1, 1


def weight_gradient(cnp.ndarray x not None, cnp.ndarray g not None, cnp.ndarray dw not None, int n_batch,
                    int64_t groups, tuple stride, tuple dilation, tuple before, tuple boundary, double constant,
                    int workers):
    """pyconv.engine.weight_gradient of real arrays that are not empty."""
    cdef Problem p
    cdef WeightPlan q
    cdef Block parts
    cdef int64_t size = cnp.PyArray_SIZE(dw)
    describe_problem(&p, x, dw, g, n_batch, groups, stride, dilation, before, boundary, constant, 0.0, 1, False, 1,
                     None)
    memset(&q, 0, sizeof(WeightPlan))
    describe_source(&q.gradient, g)
    try:
        if not plan_weights(&q, &p, workers):
            raise MemoryError("the workspace of this gradient does not fit in memory: its kernel reaches too far")
        q.parts = <real *> cnp.PyArray_DATA(dw)
        if q.splits == 1:
            execute_units(&p, weight_unit, &q, q.units, q.workspace, workers)
            return
        parts = take_block(q.splits * size * sizeof(real))
        try:
            q.parts = <real *> parts.start
            execute_units(&p, weight_unit, &q, q.units, q.workspace, workers)
            add_parts(<real *> cnp.PyArray_DATA(dw), q.parts, size, q.splits)
        finally:
            give_back(parts)
    finally:
        free_weights(&q)


cdef int64_t execute(Problem *p, bint skip_zeros, int workers, bint run, dict kept) except -1:
    """Plan, allocate the workspace, run; returns the workspace's size. What is made of the weights is looked for in
    `kept`, and put there: by two threads at once perhaps, to the same end."""
    cdef ChannelPlan channels
    cdef RowPlan rows
    cdef Block exchanged
    cdef int planned
    cdef bint by_rows
    cdef cnp.ndarray held = None     # so that it stays while it is used
    memset(&exchanged, 0, sizeof(exchanged))
    if kept is not None:
        p.keeps = True
        p.finite = kept.get("finite", UNKNOWN)
        held = kept.get("packed")
        if held is not None:
            p.packed = first_line(held)
    if p.order != NULL and p.O == 1:
        if kept is not None:
            held = exchange_once(p, workers, kept)
            return execute(p, skip_zeros, workers, run, None)
        exchanged = exchange(p, workers)
        try:
            return execute(p, skip_zeros, workers, run, None)
        finally:
            give_back(exchanged)
    planned = plan_rows(&rows, p, NULL, skip_zeros, workers) if p.O == 1 else NOT_SUITED
    by_rows = planned == PLANNED
    if planned == NO_MEMORY or not (by_rows or plan_channels(&channels, p, workers)):
        raise MemoryError("the workspace of this convolution does not fit in memory: its kernel reaches too far")
    try:
        if not by_rows:
            if kept is not None and p.finite != UNKNOWN:
                kept["finite"] = p.finite
            if kept is not None and channels.by_outputs and p.packed == NULL:
                held = kept["packed"] = packed_weights(&channels)
                p.packed = first_line(held)
            if not channels.by_outputs and p.order != NULL and kept is not None:
                held = exchange_once(p, workers, kept)
            elif not channels.by_outputs and p.order != NULL:
                exchanged = exchange(p, workers)
        if by_rows:
            return execute_units(p, run_row_unit, &rows, rows.units, rows.workspace, workers, run)
        return execute_units(p, run_channel_unit, &channels, channels.units, channels.workspace, workers, run)
    finally:
        if exchanged.start != NULL:
            give_back(exchanged)
        if by_rows:
            free_rows(&rows)
        else:
            free_channels(&channels)


cdef const real *first_line(cnp.ndarray a):
    """The start of the first whole cache line of an array."""
    return <const real *> round_up(<int64_t> cnp.PyArray_DATA(a), LINE)


cdef cnp.ndarray packed_weights(const ChannelPlan *q):
    """The weights turned, for each group and block of output channels, from the first whole cache line on."""
    cdef const Problem *p = q.p
    cdef int64_t width = OUTPUT_NV * LANES, terms = p.C * q.n_taps, outputs = round_up(p.O, width), g, v, o
    cdef cnp.npy_intp size = p.groups * outputs * terms + LINE // <int64_t> sizeof(real)
    cdef cnp.ndarray packed = cnp.PyArray_EMPTY(1, &size, REAL_CODE, 0)
    cdef real *to = <real *> first_line(packed)
    with nogil:
        for g in range(p.groups):
            for v in range(ceil_div(p.O, LANES)):
                o = v * LANES
                turn_weights(q, g, o, min(<int64_t> LANES, p.O - o), 0, p.C,
                             to + (g * outputs + o // width * width) * terms + o % width, width)
    return packed


cdef int64_t execute_units(Problem *p, RunUnit run_unit, const void *plan, int64_t units, int64_t size,
                           int workers, bint run=True) except -1:
    """Run a plan's units, each thread with a workspace of `size` bytes whose first ones are its header; returns what
    all workspaces take."""
    return run_units(run_unit, plan, units, size, multiply_adds(p), workers, run)


cdef int64_t run_units(RunUnit run_unit, const void *plan, int64_t units, int64_t size, double products, int workers,
                       bint run=True) except -1:
    """The same for a work of so many products."""
    cdef Progress progress
    cdef list caught = []
    cdef Block workspace
    if units == 0:
        return 0
    if products < SERIAL_BELOW or run and products < BRIEF and monotonic_seconds() < alone_until:
        workers = 1
    if workers > units:
        workers = <int> units
    size = round_up(size, LINE) + LINE
    if not run:
        return workers * size
    workspace = take_block(workers * size)
    try:
        begin(&progress, <void *> caught)
        with nogil:
            share_units(run_unit, plan, units, workspace.start, size, workers, &progress)
    finally:
        give_back(workspace)
    if caught:
        raise caught[0]
    return workers * size


cdef inline double multiply_adds(const Problem *p) noexcept nogil:
    return (<double> p.N * p.groups * p.O * p.C * p.outer_size * p.outer_taps * p.H.on * p.W.on * p.interleave
            * p.H.k * p.W.k)


def serial_below():
    """Calls of fewer multiply-adds than this use one thread."""
    return SERIAL_BELOW


def small_corr2d(x, k, stride, padding, dilation, padding_mode, padding_value, dtype, out, method, overflow, workers):
    """corr2d of two plain arrays that are soon done, without the full checks; None: something is not so plain.

    It exists because the checks of the general call take ten times as long as a 6 x 8 image's correlation."""
    cdef Problem p
    cdef cnp.ndarray a, w, y
    cdef int64_t s, pad, d, oh, ow
    cdef cnp.npy_intp shape[2]
    if (type(x) is not cnp.ndarray or type(k) is not cnp.ndarray or type(stride) is not int or type(padding) is not int
            or type(dilation) is not int or dtype is not None or out is not None or workers is not None
            or type(padding_mode) is not str or type(method) is not str or type(overflow) is not str
            or padding_mode != "zeros" or type(padding_value) is not float or padding_value != 0
            or method not in ("auto", "direct") or overflow != "raise"):
        return None
    a, w = x, k
    if (a.ndim != 2 or w.ndim != 2 or dtype_code(a) != REAL_CODE or dtype_code(w) != REAL_CODE
            or not cnp.PyArray_ISCARRAY_RO(w) or not cnp.PyArray_ISALIGNED(a) or not cnp.PyArray_ISNOTSWAPPED(a)):
        return None
    if not (0 < stride < 32768 and 0 <= padding < 32768 and 0 < dilation < 32768):
        return None
    s, pad, d = stride, padding, dilation
    if a.shape[0] > 32768 or a.shape[1] > 32768 or not 0 < w.shape[0] < 32768 or not 0 < w.shape[1] < 32768:
        return None
    oh = a.shape[0] + 2 * pad - d * (w.shape[0] - 1) - 1
    ow = a.shape[1] + 2 * pad - d * (w.shape[1] - 1) - 1
    if oh < 0 or ow < 0:
        return None
    shape[0], shape[1] = oh // s + 1, ow // s + 1
    if <double> shape[0] * shape[1] * w.shape[0] * w.shape[1] >= SERIAL_BELOW:
        return None
    y = cnp.PyArray_EMPTY(2, shape, cnp.PyArray_TYPE(a), 0)
    memset(&p, 0, <char *> &p.batch - <char *> &p)
    p.groups = p.C = p.O = p.x_parts = p.N = p.interleave = p.outer_taps = p.outer_size = p.upscale = 1
    p.x, p.y, p.w = <const char *> cnp.PyArray_DATA(a), <char *> cnp.PyArray_DATA(y), <const real *> cnp.PyArray_DATA(w)
    p.source.code = p.y_code = REAL_CODE
    p.source.size = sizeof(real)
    p.source.plain = p.y_direct = p.fused = True
    p.source.end = array_end(a)
    set_axis(&p.H, a.shape[0], shape[0], w.shape[0], s, d, pad, CONSTANT, a.strides[0], y.strides[0])
    set_axis(&p.W, a.shape[1], shape[1], w.shape[1], s, d, pad, CONSTANT, a.strides[1], y.strides[1])
    execute(&p, False, 1, True, None)
    return y


def small_correlate(cnp.ndarray w not None, tuple before, tuple boundary, bint skip_zeros, bint fused, int pairs,
                    cnp.ndarray x not None, cnp.ndarray out not None, double constant):
    """pyconv.engine.correlate of a real image with one channel, without axes for batch and channels, and with no
    strides, into an output of its shape; where w has more channels, each is that image. False, and nothing is done:
    it is no small work, or something is not so plain.

    It exists because a filter of 16 x 16 pixels takes half a microsecond, and the way to it took two."""
    cdef Problem p
    cdef tuple ones = (1,) * x.ndim
    cdef const char *x_start = array_start(x)
    cdef const char *y_start = array_start(out)
    if (not cnp.PyArray_ISBEHAVED(out) or cnp.PyArray_SIZE(out) == 0
            or <double> cnp.PyArray_SIZE(out) * cnp.PyArray_SIZE(w) >= SERIAL_BELOW
            or x_start < array_end(out) and y_start < array_end(x)):
        return False
    describe_problem(&p, x, w, out, -1, 1, ones, ones, before, boundary, constant, 0.0, 1, False, 1, None)
    p.fused, p.pairs = fused, pairs
    execute(&p, skip_zeros, 1, True, None)
    return True


cdef inline bint merge_axes(Axis *a, Axis *b) noexcept nogil:
    if a.k != 1 or b.k != 1 or a.s != 1 or b.s != 1 or a.n != a.on or b.n != b.on or a.before or b.before:
        return False
    if a.x_step != b.n * b.x_step or a.y_step != b.on * b.y_step:
        return False
    a.n, a.on, a.x_step, a.y_step = a.n * b.n, a.on * b.on, b.x_step, b.y_step
    return True


def fma_gflops(int workers, int64_t repeats=2000000):
    """Run multiply-adds that touch registers only, on each of `workers` threads; returns GFLOP/s, all together."""
    cdef double started = monotonic_seconds()
    cdef int64_t _t
    cdef real total = 0
    with nogil:
        for _t in prange(workers, num_threads=workers, schedule="static"):
            total += fma_loop(repeats, <real> (repeats > 0))
    cdef double seconds = monotonic_seconds() - started
    # (the total is used, or the compiler would remove the loop)
    return 2.0 * workers * repeats * 12 * LANES / seconds / 1e9 if total != 0 else 0.0


cdef real fma_loop(int64_t repeats, real w) noexcept nogil:
    cdef vec acc[12]
    cdef vec b = vzero() + w
    cdef int64_t _i
    cdef int v
    for v in range(12):
        acc[v] = vzero()
    for _i in range(repeats):
        for v in range(12):
            acc[v] = b + acc[v] * w
    for v in range(1, 12):
        acc[0] = acc[0] + acc[v]
    return (<real *> &acc[0])[0]
