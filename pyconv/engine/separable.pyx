"""Separable filters: weights along the rows' axis, then along the columns', in one trip through memory.

For one computing dtype and one instruction-set level. A unit is a block of rows (and of columns, where rows are long);
its thread goes down it, a few output rows at a time::

    input rows y .. y + kh + 2          four rows of sums, in the L1 cache        output rows y .. y + 3
    +----------------------------+    +------------------------------------+    +------------------------+
    | in place, or in a ring of  |--->| border | sums down the columns | b. |--->| sums along the rows,   |
    | rows in the dtype computed |    +------------------------------------+    | as their own dtype     |
    | in: each is converted once |     border: these sums by the boundary's     +------------------------+
    +----------------------------+     index map, or the constant

Both passes hold vectors along the columns: the first adds weighted rows, the second loads one row at shifted places.
Each sum takes its products in the order in which `correlate` takes them in a pass of its own, and what is between the
passes is rounded to the output's dtype where that is asked for. So the bits are those of two calls of `correlate`.
"""
from cython.parallel cimport parallel, threadid
from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
cimport numpy as cnp

cnp.import_array()

include "vector.pxi"
include "memory.pxi"
include "threads.pxi"
include "band.pxi"

cdef enum:
    FUSED = 0                        # orders of summation: as the taps come, each product and its sum rounded once,
    ROUNDED = 1                      # or each of them;
    EVEN = 2                         # scipy.ndimage.correlate1d's for weights that are even about the middle one,
    ODD = 3                          # and odd

cdef enum:
    MAX_AXES = 64                    # NumPy's own limit
    MAX_WIDTH = 8                    # vectors of a strip
    LARGEST_STEP = LARGEST_R         # rows of a step down the columns: 8 where there are 32 registers, else 4
    UNIT_BYTES = 131072              # of output, in a unit: small enough to stay cached, large enough to start
    BLOCK_BYTES = 2048              # of a row, in a unit: four such rows of sums stay in the L1 cache or nearly so
    SERIAL_BELOW = 200000            # multiply-adds: less than the start of a second thread costs
    BRIEF = 1000000000               # multiply-adds: some 10 ms

cdef double LARGEST_WORKSPACE = 2.0**46


cdef struct Weights:                 # of one pass
    int64_t k, n_taps
    int order
    int64_t *place                   # of each tap, in the order of summation, among the k
    real *w
    bint complete                    # every weight is a tap, and they come from first to last
    real divisor                     # of the sums; 0: none


cdef extern from *:
    """
    static inline void prefetch_to_write(const char *p) { __builtin_prefetch(p, 1); }
    """
    void prefetch_to_write(const char *) noexcept nogil


# ---------------------------------------------------------------- sums
#
# Two passes take turns with memory, so each asks the cache for what the other needs: the sums down the columns for the
# output's next rows, the sums along a row for the input's. At 2048 x 2048 and 3 x 3 that is 1.46 ms against 1.08.

cdef inline void sum_taps(int NV, int order, const char *const *taps, const real *w, int64_t n_taps, int64_t x,
                          const char *ahead, int64_t n_strips, real *sums) noexcept nogil:
    """n_strips times NV vectors of sums: taps[t] + x points to the first sample that tap t weights with w[t]. `ahead`
    is what will be read next."""
    cdef vec acc[MAX_WIDTH]
    cdef vec b
    cdef const char *p
    cdef const char *q
    cdef int64_t _strip, t
    cdef int v
    for _strip in range(n_strips):
        for v in range(NV):
            acc[v] = vzero()
            prefetch(ahead + x + v * sizeof(vec))
        if order == FUSED:
            for t in range(n_taps):
                p = taps[t] + x
                for v in range(NV):
                    acc[v] += (<const vec *> p + v)[0] * w[t]
        elif order == ROUNDED:
            for t in range(n_taps):
                p = taps[t] + x
                for v in range(NV):
                    acc[v] = acc[v] + rounded_product((<const vec *> p + v)[0], w[t])
        else:
            p = taps[n_taps // 2] + x
            for v in range(NV):
                acc[v] = rounded_product((<const vec *> p + v)[0], w[n_taps // 2])
            for t in range(n_taps // 2):
                p, q = taps[t] + x, taps[n_taps - 1 - t] + x
                for v in range(NV):
                    if order == EVEN:
                        b = (<const vec *> p + v)[0] + (<const vec *> q + v)[0]
                    else:
                        b = (<const vec *> p + v)[0] - (<const vec *> q + v)[0]
                    acc[v] = acc[v] + rounded_product(b, w[t])
        for v in range(NV):
            (<vec *> sums + v)[0] = acc[v]
        x += NV * sizeof(vec)
        sums += NV * LANES


cdef void sum_shifts(const char *samples, const real *w, int64_t n_taps, const char *ahead, int64_t n_strips,
                     real *sums) noexcept nogil:
    """strips_8, FUSED, of taps that are neighbouring samples. A load of all but every sixteenth (eighth) of them spans
    two cache lines, which takes twice as long, so every second tap is made of two vectors in registers instead."""
    cdef vec acc[MAX_WIDTH]
    cdef vec a[MAX_WIDTH + 1]
    cdef mask_vec order
    cdef const char *p
    cdef int64_t _strip, t, end
    cdef int v
    for _strip in range(n_strips):
        for v in range(MAX_WIDTH):
            acc[v] = vzero()
            prefetch(ahead + v * sizeof(vec))
        ahead += MAX_WIDTH * sizeof(vec)
        end = 0
        while end < n_taps:
            t = end
            end = min(t + LANES, n_taps)
            p = samples + t * sizeof(real)
            for v in range(MAX_WIDTH + 1):
                a[v] = (<const vec *> p + v)[0]
            order = lanes_from(0)
            while t + 1 < end:
                for v in range(MAX_WIDTH):
                    acc[v] += two_shifted(a[v], a[v + 1], order) * w[t]
                p += sizeof(real)
                for v in range(MAX_WIDTH):
                    acc[v] += (<const vec *> p + v)[0] * w[t + 1]
                p += sizeof(real)
                order = two_further(order)
                t += 2
            if t < end:
                for v in range(MAX_WIDTH):
                    acc[v] += (<const vec *> p + v)[0] * w[t]
        for v in range(MAX_WIDTH):
            (<vec *> sums + v)[0] = acc[v]
        samples += MAX_WIDTH * sizeof(vec)
        sums += MAX_WIDTH * LANES


cdef inline void sum_taps_in_order(int NV, int order, const char *const *taps, const real *w, int64_t n_taps, int64_t x,
                                   const char *ahead, int64_t n_strips, real *sums) noexcept nogil:
    if order == FUSED:
        sum_taps(NV, FUSED, taps, w, n_taps, x, ahead, n_strips, sums)
    elif order == ROUNDED:
        sum_taps(NV, ROUNDED, taps, w, n_taps, x, ahead, n_strips, sums)
    elif order == EVEN:
        sum_taps(NV, EVEN, taps, w, n_taps, x, ahead, n_strips, sums)
    else:
        sum_taps(NV, ODD, taps, w, n_taps, x, ahead, n_strips, sums)


ctypedef void (*Strips)(int, const char *const *, const real *, int64_t, int64_t, const char *, int64_t,
                        real *) noexcept nogil


cdef void strips_8(int order, const char *const *taps, const real *w, int64_t n_taps, int64_t x, const char *ahead,
                   int64_t n_strips, real *sums) noexcept nogil:
    sum_taps_in_order(8, order, taps, w, n_taps, x, ahead, n_strips, sums)


cdef void strips_4(int order, const char *const *taps, const real *w, int64_t n_taps, int64_t x, const char *ahead,
                   int64_t n_strips, real *sums) noexcept nogil:
    sum_taps_in_order(4, order, taps, w, n_taps, x, ahead, n_strips, sums)


cdef void strips_2(int order, const char *const *taps, const real *w, int64_t n_taps, int64_t x, const char *ahead,
                   int64_t n_strips, real *sums) noexcept nogil:
    sum_taps_in_order(2, order, taps, w, n_taps, x, ahead, n_strips, sums)


cdef void strips_1(int order, const char *const *taps, const real *w, int64_t n_taps, int64_t x, const char *ahead,
                   int64_t n_strips, real *sums) noexcept nogil:
    sum_taps_in_order(1, order, taps, w, n_taps, x, ahead, n_strips, sums)


cdef Strips STRIPS[4]
STRIPS = [strips_8, strips_4, strips_2, strips_1]


cdef void sum_row(int order, bint shifts, const char *const *taps, const real *w, int64_t n_taps, int64_t n,
                  const char *ahead, real *sums) noexcept nogil:
    """n sums; fewer than a vector are a whole one, both read and written. shifts: taps are neighbouring samples, and
    two strips more can be read."""
    cdef int64_t x = 0, wide, strips
    cdef int i
    while x < n:
        i = 0
        if n - x < MAX_WIDTH * LANES:        # what is left, in one strip
            while i < 3 and (MAX_WIDTH >> (i + 1)) * LANES >= n - x:
                i += 1
        while i < 3 and (MAX_WIDTH >> i) * LANES > n:
            i += 1
        wide = (MAX_WIDTH >> i) * LANES
        if n - x < wide <= n:                # moved back over sums already stored: it ends where the row does
            x = n - wide
        strips = max(<int64_t> 1, (n - x) // wide)
        if shifts and i == 0:
            sum_shifts(taps[0] + x * sizeof(real), w, n_taps, ahead + x * sizeof(real), strips, sums + x)
        else:
            STRIPS[i](order, taps, w, n_taps, x * sizeof(real), ahead, strips, sums + x)
        x += strips * wide


cdef inline void add_row(int first, int last, int NV, vec (*acc)[MAX_WIDTH], const char *x,
                         const real *w) noexcept nogil:
    """One row, once loaded, feeds the output rows first to last - 1; w is the weight of output row 0."""
    cdef vec b[MAX_WIDTH]
    cdef int r, v
    for v in range(NV):
        b[v] = load_once(x + v * sizeof(vec))
    for r in range(first, last):
        for v in range(NV):
            acc[r][v] += b[v] * w[-r]


cdef inline void sum_down(int R, int NV, const char *const *rows, const real *w, int64_t kh, int64_t x,
                          const char *ahead, int64_t ahead_step, int64_t n_strips, real *sums,
                          int64_t lds) noexcept nogil:
    """R rows of n_strips times NV vectors; needs kh >= R. Output row r and row i meet in weight i - r. `ahead` is where
    the output will be written."""
    cdef vec acc[LARGEST_STEP][MAX_WIDTH]
    cdef int64_t _strip, i
    cdef int r, v
    for _strip in range(n_strips):
        for r in range(R):
            for v in range(NV):
                acc[r][v] = vzero()
        for r in range(R):
            for v in range(NV):
                prefetch_to_write(ahead + r * ahead_step + x + v * sizeof(vec))
        if R > 1:
            add_row(0, 1, NV, acc, rows[0] + x, w + 0)
        if R > 2:
            add_row(0, 2, NV, acc, rows[1] + x, w + 1)
        if R > 3:
            add_row(0, 3, NV, acc, rows[2] + x, w + 2)
        if R > 4:
            add_row(0, 4, NV, acc, rows[3] + x, w + 3)
        if R > 5:
            add_row(0, 5, NV, acc, rows[4] + x, w + 4)
        if R > 6:
            add_row(0, 6, NV, acc, rows[5] + x, w + 5)
        if R > 7:
            add_row(0, 7, NV, acc, rows[6] + x, w + 6)
        for i in range(R - 1, kh):
            add_row(0, R, NV, acc, rows[i] + x, w + i)
        if R > 1:
            add_row(1, R, NV, acc, rows[kh + 0] + x, w + kh + 0)
        if R > 2:
            add_row(2, R, NV, acc, rows[kh + 1] + x, w + kh + 1)
        if R > 3:
            add_row(3, R, NV, acc, rows[kh + 2] + x, w + kh + 2)
        if R > 4:
            add_row(4, R, NV, acc, rows[kh + 3] + x, w + kh + 3)
        if R > 5:
            add_row(5, R, NV, acc, rows[kh + 4] + x, w + kh + 4)
        if R > 6:
            add_row(6, R, NV, acc, rows[kh + 5] + x, w + kh + 5)
        if R > 7:
            add_row(7, R, NV, acc, rows[kh + 6] + x, w + kh + 6)
        for r in range(R):
            for v in range(NV):
                (<vec *> (sums + r * lds) + v)[0] = acc[r][v]
        x += NV * sizeof(vec)
        sums += NV * LANES


# Rows of a step by the number of weights, and vectors of a strip: R x NV sums fill the registers.
cdef inline void sum_rows(int R, int NV3, int NV4, int NV8, const char *const *rows, const real *w, int64_t kh,
                          int64_t x, const char *ahead, int64_t ahead_step, int64_t n_strips, real *sums,
                          int64_t lds) noexcept nogil:
    if R == 3:
        sum_down(3, NV3, rows, w, 3, x, ahead, ahead_step, n_strips, sums, lds)
    elif R == 4:
        sum_down(4, NV4, rows, w, kh, x, ahead, ahead_step, n_strips, sums, lds)
    elif LARGEST_STEP == 8:
        sum_down(LARGEST_STEP, NV8, rows, w, kh, x, ahead, ahead_step, n_strips, sums, lds)


cdef void columns_wide(int R, const char *const *rows, const real *w, int64_t kh, int64_t x, const char *ahead,
                       int64_t ahead_step, int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sum_rows(R, ROW_NV, ROW_NV, NV8, rows, w, kh, x, ahead, ahead_step, n_strips, sums, lds)


cdef void columns_2(int R, const char *const *rows, const real *w, int64_t kh, int64_t x, const char *ahead,
                    int64_t ahead_step, int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sum_rows(R, 2, 2, 2, rows, w, kh, x, ahead, ahead_step, n_strips, sums, lds)


cdef void columns_1(int R, const char *const *rows, const real *w, int64_t kh, int64_t x, const char *ahead,
                    int64_t ahead_step, int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sum_rows(R, 1, 1, 1, rows, w, kh, x, ahead, ahead_step, n_strips, sums, lds)


cdef void sum_columns(int R, const char *const *rows, const real *w, int64_t kh, int64_t n, const char *ahead,
                      int64_t ahead_step, real *sums, int64_t lds) noexcept nogil:
    """R rows of n sums down the columns, R of `step_rows`, as FUSED."""
    cdef int64_t x = 0, widest = (NV8 if R == 8 else ROW_NV) * LANES, wide
    while x < n:
        wide = widest
        if n - x < wide:
            wide = LANES if n - x <= LANES else min(wide, 2 * LANES if n - x <= 2 * LANES else wide)
        if wide > n:
            wide = 2 * LANES if n >= 2 * LANES and widest >= 2 * LANES else LANES
        if n - x < wide <= n:
            x = n - wide
        if wide == widest:
            columns_wide(R, rows, w, kh, x * sizeof(real), ahead, ahead_step, (n - x) // wide, sums + x, lds)
            x += (n - x) // wide * wide
        elif wide == LANES:
            columns_1(R, rows, w, kh, x * sizeof(real), ahead, ahead_step, 1, sums + x, lds)
            x += wide
        else:
            columns_2(R, rows, w, kh, x * sizeof(real), ahead, ahead_step, 1, sums + x, lds)
            x += wide


cdef inline int step_rows(const Weights *q) noexcept nogil:
    """How many output rows share the input rows they read."""
    if not q.complete or q.k < 3:
        return 1
    return LARGEST_STEP if q.k >= LARGEST_STEP else min(4, q.k)


# ---------------------------------------------------------------- the problem

cdef struct Axis:
    int64_t n, on                    # input and output length
    int64_t before                   # padding before
    int boundary
    int64_t x_step, y_step           # bytes from sample to sample, of the input and of the output


cdef struct Problem:
    int n_batch
    int64_t N
    Axis H
    Axis W                           # its lengths and steps count samples, `interleave` a pixel
    int64_t interleave
    Weights down, along
    const char *x
    char *y
    Source source
    int y_code
    int64_t y_size
    bint y_direct                    # the output is reals, one after the other along W
    bint rounded                     # what is between the passes goes through the output's dtype
    real constant, along_constant    # beyond the ends of a column, and of a row of sums
    int64_t *seen                    # set to 1 where an output is not finite; NULL: nobody asks
    bint in_place
    int R                            # output rows of a step
    int64_t reach                    # samples along a row that an output reads, less one
    int64_t rows, row_blocks, cols, col_blocks
    int64_t ring, ring_pitch, sums_pitch, units
    int64_t at_table, at_taps, at_ring, at_constant, at_sums, at_row, at_bytes, at_border, workspace
    int64_t batch[MAX_AXES]
    int64_t x_batch[MAX_AXES]
    int64_t y_batch[MAX_AXES]


cdef inline int64_t ceil_div(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline int64_t round_up(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b * b


cdef struct Columns:                 # of a unit, in samples along a row
    int64_t x0, x1                   # of the output
    int64_t first, end               # that these read, beyond the borders too
    int64_t low, high                # of the input, that sums are taken of
    int64_t origin                   # the position of the sums' first


cdef bint sums_reach(const Problem *p, const Columns *c, int64_t first, int64_t end) noexcept nogil:
    """Whether the positions first to end - 1, beyond a border, show columns that sums are taken of."""
    cdef int64_t i, s
    for i in range(first, end):
        s = sample_at(i, p.W.n // p.interleave, p.W.boundary, p.interleave)
        if s >= 0 and not c.low <= s < c.high:
            return False
    return True


cdef void find_columns(const Problem *p, int64_t block, Columns *c) noexcept nogil:
    c.x0 = block * p.cols
    c.x1 = min(p.W.on, c.x0 + p.cols)
    c.first = c.x0 - p.W.before
    c.end = c.x1 + p.reach - p.W.before
    c.low = min(max(c.first, 0), p.W.n)
    c.high = max(c.low, min(c.end, p.W.n))
    if not (sums_reach(p, c, c.first, min(c.end, 0)) and sums_reach(p, c, max(c.first, p.W.n), c.end)):
        c.low, c.high = 0, p.W.n
    c.origin = min(c.first, c.low)


cdef int64_t map_borders(const Problem *p, const Columns *c, int64_t *from_) noexcept nogil:
    """For each position beyond the left border, then beyond the right one: which of the unit's sums stands there, or -1
    for the constant. Returns how many are on the left. (Divisions: once a unit, not once a row.)"""
    cdef int64_t i, s, left = max(<int64_t> 0, min(c.end, 0) - c.first)
    for i in range(left):
        s = sample_at(c.first + i, p.W.n // p.interleave, p.W.boundary, p.interleave)
        from_[i] = s - c.origin if s >= 0 else -1
    from_ += left
    for i in range(max(c.first, p.W.n), c.end):
        s = sample_at(i, p.W.n // p.interleave, p.W.boundary, p.interleave)
        from_[0] = s - c.origin if s >= 0 else -1
        from_ += 1
    return left


cdef inline void show_border(real *to, const real *sums, const int64_t *from_, int64_t n, real constant) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        to[i] = sums[from_[i]] if from_[i] >= 0 else constant


cdef inline void divide(real *sums, int64_t n, real divisor) noexcept nogil:
    cdef vec d = vzero() + divisor
    cdef int64_t i = 0
    if divisor != 0:
        while i < n:                 # whole vectors: there is room behind the sums
            (<vec *> (sums + i))[0] = (<vec *> (sums + i))[0] / d
            i += LANES


cdef void filter_unit(const void *problem, int64_t unit, char *workspace, Progress *progress,
                      bint calling) noexcept nogil:
    cdef const Problem *p = <const Problem *> problem
    cdef const char **table = <const char **> (workspace + p.at_table)
    cdef const char **taps = <const char **> (workspace + p.at_taps)
    cdef real *ring = <real *> (workspace + p.at_ring)
    cdef real *constant = <real *> (workspace + p.at_constant)
    cdef real *all_sums = <real *> (workspace + p.at_sums)
    cdef real *row = <real *> (workspace + p.at_row)
    cdef char *numbers = workspace + p.at_bytes
    cdef int64_t *border = <int64_t *> (workspace + p.at_border)
    cdef Columns c
    cdef const char *slice = p.x
    cdef char *out = p.y
    cdef real *sums
    cdef real *target
    cdef int64_t y0, y1, y, n_rows, n, width, i, t, r, filled = 0, rows, left, right
    cdef int a
    cdef bint shifts = SHIFTS and p.along.complete and p.interleave == 1
    find_columns(p, unit % p.col_blocks, &c)
    unit //= p.col_blocks
    y0 = unit % p.row_blocks * p.rows
    y1 = min(p.H.on, y0 + p.rows)
    unit //= p.row_blocks
    for a in range(p.n_batch - 1, -1, -1):
        slice += unit % p.batch[a] * p.x_batch[a]
        out += unit % p.batch[a] * p.y_batch[a]
        unit //= p.batch[a]
    slice += c.low * p.W.x_step
    out += c.x0 * p.W.y_step
    width = c.high - c.low
    n = c.x1 - c.x0
    n_rows = y1 - y0 + p.down.k - 1
    fill_constant(constant, width, p.constant)
    all_sums += (LANES - (c.low - c.origin) % LANES) % LANES     # so that the columns' sums are aligned
    left = map_borders(p, &c, border)
    right = max(c.first, p.W.n)
    for i in range(n_rows + p.R):
        table[i] = workspace
    y = y0
    while y < y1:
        rows = p.R if y1 - y0 >= p.R else 1
        y = min(y, y1 - rows)            # moved back: the last rows are computed again rather than one by one
        # The rows that this step reads and no earlier one did, and in place those that it asks the cache for
        while filled < min(n_rows, y - y0 + rows + p.down.k - 1 + (p.R if p.in_place else 0)):
            i = boundary_index(y0 - p.H.before + filled, p.H.n, p.H.boundary)
            if i < 0:
                table[filled] = <const char *> constant
            elif p.in_place:
                table[filled] = slice + i * p.H.x_step
            else:
                target = ring + filled % p.ring * p.ring_pitch
                load_any(&p.source, target, slice + i * p.H.x_step, p.W.x_step, width)
                table[filled] = <const char *> target
            filled += 1
        if rows > 1:
            sum_columns(p.R, table + y - y0, p.down.w, p.down.k, width, out + y * p.H.y_step, p.H.y_step,
                        all_sums + c.low - c.origin, p.sums_pitch)
        for r in range(rows):
            sums = all_sums + r * p.sums_pitch
            target = sums + c.low - c.origin
            if rows == 1:
                for t in range(p.down.n_taps):
                    taps[t] = table[y - y0 + p.down.place[t]]
                sum_row(p.down.order, False, taps, p.down.w, p.down.n_taps, width, <const char *> target, target)
            divide(target, width, p.down.divisor)
            if p.rounded:
                store(p.y_code, numbers, p.y_size, target, width)
                load(p.y_code, target, numbers, p.y_size, width)
            show_border(sums + c.first - c.origin, sums, border, left, p.along_constant)
            show_border(sums + right - c.origin, sums, border + left, c.end - right, p.along_constant)
            for t in range(p.along.n_taps):
                taps[t] = <const char *> (sums + c.first - c.origin + p.along.place[t] * p.interleave)
            # Whole vectors only: of fewer sums the rest would be written, too.
            target = row
            if p.y_direct and n >= LANES and p.along.divisor == 0:
                target = <real *> (out + (y + r) * p.H.y_step)
            sum_row(p.along.order, shifts, taps, p.along.w, p.along.n_taps, n,
                    table[y - y0 + r + p.down.k - 1 + rows], target)
            divide(target, n, p.along.divisor)
            if p.seen != NULL and not all_finite(target, n):
                p.seen[0] = 1
            if target == row:
                if p.y_direct:
                    copy_reals(<real *> (out + (y + r) * p.H.y_step), row, n)
                else:
                    store(p.y_code, out + (y + r) * p.H.y_step, p.W.y_step, row, n)
        y += rows


# ---------------------------------------------------------------- the call from Python

cdef int dtype_code(cnp.ndarray a) except -1:
    """NumPy's letter for the dtype, with one letter for each size of integer."""
    cdef int code = a.descr.type
    if code == c'l' or code == c'p':
        return c'q' if sizeof(long) == 8 else c'i'
    if code == c'L' or code == c'P':
        return c'Q' if sizeof(long) == 8 else c'I'
    return code


cdef void set_axis(Axis *axis, cnp.ndarray x, cnp.ndarray out, int a, int64_t before, int boundary, int64_t samples):
    axis.n, axis.on = x.shape[a] * samples, out.shape[a] * samples
    axis.before, axis.boundary = before * samples, boundary
    axis.x_step, axis.y_step = x.strides[a] // samples, out.strides[a] // samples


cdef void list_taps(Weights *q, cnp.ndarray w, bint skip_zeros, bint fused, int pairs, double divisor,
                    int64_t *place) noexcept:
    """The taps in the order of summation; place has room for k places, and k weights behind them."""
    cdef const real *given = <const real *> cnp.PyArray_DATA(w)
    cdef int64_t i, t
    q.k = w.shape[0]
    q.order = EVEN if pairs > 0 else ODD if pairs < 0 else FUSED if fused else ROUNDED
    q.divisor = <real> divisor
    q.place = place
    q.w = <real *> (place + q.k)
    q.n_taps = 0
    for i in range(q.k):
        # scipy.ndimage.correlate1d starts from the last weight
        t = (i + q.k - 1) % q.k if q.order == ROUNDED and not skip_zeros else i
        if not (skip_zeros and given[t] == 0):
            q.place[q.n_taps], q.w[q.n_taps] = t, given[t]
            q.n_taps += 1
    q.complete = q.order == FUSED and q.n_taps == q.k


cdef int64_t place(Problem *p, int64_t size) noexcept nogil:
    """Room for `size` bytes in each thread's workspace, from a cache line on."""
    cdef int64_t at = p.workspace
    p.workspace += round_up(size, LINE)
    return at


cdef void plan(Problem *p, int workers) noexcept nogil:
    cdef Columns c
    cdef int64_t width = 0, sums = 0, border = 0, block, wanted
    cdef bint far = p.W.boundary == WRAP
    p.reach = (p.along.k - 1) * p.interleave
    p.R = step_rows(&p.down)
    p.in_place = p.source.plain and p.source.code == REAL_CODE and p.W.x_step == sizeof(real) and p.W.n >= LANES
    p.col_blocks = 1 if far else ceil_div(p.W.on, max(BLOCK_BYTES // <int64_t> sizeof(real), 4 * p.reach))
    p.cols = round_up(ceil_div(p.W.on, p.col_blocks), LANES)
    p.col_blocks = ceil_div(p.W.on, p.cols)
    for block in range(p.col_blocks):
        find_columns(p, block, &c)
        width = max(width, c.high - c.low)
        sums = max(sums, max(c.end, c.high) - c.origin)
        border = max(border, c.end - c.first)
        p.in_place = p.in_place and c.high - c.low >= LANES
    wanted = 1 if workers == 1 else 4 * workers
    p.rows = round_up(max(UNIT_BYTES // (p.cols * <int64_t> sizeof(real)), 16, 1 if p.in_place else 4 * p.down.k), p.R)
    if p.N * p.col_blocks * ceil_div(p.H.on, p.rows) < wanted:
        p.rows = min(p.rows, max(8, round_up(ceil_div(p.H.on * p.N * p.col_blocks, wanted), p.R)))
    p.row_blocks = ceil_div(p.H.on, p.rows)
    p.rows = round_up(ceil_div(p.H.on, p.row_blocks), p.R)
    p.row_blocks = ceil_div(p.H.on, p.rows)
    p.units = p.N * p.row_blocks * p.col_blocks
    p.ring = p.down.k - 1 + p.R
    p.ring_pitch = round_up(width + MAX_WIDTH * LANES, LINE)
    p.sums_pitch = round_up(sums + LANES + 2 * MAX_WIDTH * LANES, LINE)
    p.workspace = LINE
    p.at_table = place(p, (p.rows + p.down.k + p.R) * sizeof(char *))
    p.at_taps = place(p, max(p.down.k, p.along.k) * sizeof(char *))
    p.at_constant = place(p, p.ring_pitch * sizeof(real))
    p.at_sums = place(p, p.R * p.sums_pitch * sizeof(real))
    p.at_row = place(p, (p.cols + MAX_WIDTH * LANES) * sizeof(real))
    p.at_bytes = place(p, width * 8)
    p.at_border = place(p, border * sizeof(int64_t))
    if not p.in_place:
        p.at_ring = place(p, p.ring * p.ring_pitch * sizeof(real))


def separable(cnp.ndarray x not None, cnp.ndarray out not None, int n_batch, cnp.ndarray down not None,
              cnp.ndarray along not None, tuple before, tuple boundary, double constant, double along_constant,
              bint interleaved, int workers,
              bint skip_zeros, bint fused, tuple pairs, tuple divisors, bint rounded, bint check):
    """pyconv.engine.separable of real arrays that are not empty: whether all outputs are finite, if that is asked."""
    cdef Problem p
    cdef Progress progress
    cdef Block block, taps
    cdef list caught = []
    cdef int64_t seen = 0
    cdef double work
    cdef int a, spatial = x.ndim - 2
    memset(&p, 0, sizeof(Problem))
    p.interleave = x.shape[n_batch - 1] if interleaved else 1
    set_axis(&p.H, x, out, spatial, before[0], boundary[0], 1)
    set_axis(&p.W, x, out, spatial + 1, before[1], boundary[1], p.interleave)
    p.N = 1
    p.n_batch = n_batch - interleaved
    for a in range(p.n_batch):
        p.batch[a], p.x_batch[a], p.y_batch[a] = x.shape[a], x.strides[a], out.strides[a]
        p.N *= x.shape[a]
    p.x, p.y = <const char *> cnp.PyArray_DATA(x), <char *> cnp.PyArray_DATA(out)
    p.source.code, p.source.size = dtype_code(x), cnp.PyArray_ITEMSIZE(x)
    p.source.swapped = not cnp.PyArray_ISNOTSWAPPED(x)
    p.source.plain = cnp.PyArray_ISALIGNED(x) and not p.source.swapped
    p.y_code, p.y_size = dtype_code(out), cnp.PyArray_ITEMSIZE(out)
    p.y_direct = p.y_code == REAL_CODE and p.W.y_step == sizeof(real)
    p.rounded = rounded and p.y_code != REAL_CODE
    p.constant, p.along_constant = <real> constant, <real> along_constant
    p.seen = &seen if check else NULL
    taps = take_block((down.shape[0] + along.shape[0]) * (sizeof(int64_t) + sizeof(real)) + LINE)
    try:
        list_taps(&p.down, down, skip_zeros, fused, pairs[0], divisors[0], <int64_t *> taps.start)
        list_taps(&p.along, along, skip_zeros, fused, pairs[1], divisors[1],
                  <int64_t *> (taps.start + round_up(down.shape[0] * (sizeof(int64_t) + sizeof(real)), 8)))
        if (<double> (p.down.k + 8) * (<double> p.W.n + p.W.on + p.along.k) * 64 > LARGEST_WORKSPACE):
            raise MemoryError("the workspace of this filter does not fit in memory: its kernel reaches too far")
        work = <double> p.N * p.H.on * p.W.on * (p.down.k + p.along.k)
        if work < SERIAL_BELOW or work < BRIEF and monotonic_seconds() < alone_until:
            workers = 1
        plan(&p, workers)
        if workers > p.units:
            workers = <int> p.units
        block = take_block(workers * p.workspace)
        try:
            begin(&progress, <void *> caught)
            with nogil:
                share_units(filter_unit, &p, p.units, block.start, p.workspace, workers, &progress)
        finally:
            give_back(block)
    finally:
        give_back(taps)
    if caught:
        raise caught[0]
    return seen == 0
