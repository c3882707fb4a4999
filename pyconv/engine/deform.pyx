"""Deformable convolution and its gradients, for one computing dtype and one instruction-set level.

A sample stands between four pixels that are the same for all channels of an offset group. So the image is copied once,
channels last and with a border of zeros: a corner is then a run of channels, loaded as whole vectors, and no corner
needs a check. Forward, a unit is a panel of PANEL output pixels of one image::

    padded image, channels last         columns: (c, ky, kx) x PANEL           out
    +---------------------------+      +------------------------------+      +------------------+
    | four vectors of channels  |----->| one block of channels, turned|----->| register tiles   |
    | a sample, weighted        |      | into vectors of pixels       |      | of tile.pxi      |
    +---------------------------+      +------------------------------+      +------------------+

The sums run in the order (c, ky, kx) as in the plain convolution. Backward, a unit is one chunk of channels of one
image, with a padded copy of that chunk and of its gradient: all that it adds to is its own, in the order of the pixels,
so the bits do not depend on the number of threads. Only offsets and masks sum over several chunks; each chunk writes
its share, and the caller adds them in order.
"""
from cython.parallel cimport parallel, threadid
from libc.math cimport INFINITY, NAN
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset
cimport numpy as cnp

cnp.import_array()

include "vector.pxi"
include "memory.pxi"
include "tile.pxi"
include "threads.pxi"

cdef enum:
    COLUMN_BYTES = 262144            # a thread's columns: with the weights they feed they stay in a 1 MB L2
    IMAGES_BYTES = 16777216          # padded copies of several small images, made at once
    CHUNK = 16                       # channels of a backward unit: whole vectors at every level
    SERIAL_BELOW = 200000            # multiply-adds: less than the start of a second thread costs

cdef double LARGEST_WORKSPACE = 2.0**46


cdef struct Axis:
    int64_t n, on, k                 # input, output and kernel length
    int64_t s, d, before             # stride, dilation, padding before


cdef struct Problem:                 # all arrays are C-contiguous
    Axis H
    Axis W
    int64_t C, O
    int64_t groups, C_group, O_group
    int64_t offset_groups, C_offset  # channels of an offset group
    int64_t taps
    int64_t positions                # output pixels of an image
    int64_t row                      # pixels from row to row of a padded image
    int64_t pixels                   # of a padded image
    const real *x
    const real *offset
    const real *mask                 # or NULL
    const real *w                    # backward: (C, taps, O_group)
    const real *bias                 # or NULL
    real *y
    # forward
    int64_t image                    # reals of a padded image
    real *images                     # those of the images first_image and following
    int64_t first_image
    int64_t c_block
    # backward
    int64_t chunks                   # of an offset group
    const real *dy
    real *dx
    real *dw                         # (images, C, taps, O_group)
    real *dsamples                   # (images, offset groups, chunks, 3, taps, positions): of y, x and mask
    # the places of a thread's arrays in its workspace, in bytes
    int64_t at_samples, at_values, at_columns, at_sums
    int64_t at_image, at_dimage, at_dcolumns, at_dy, at_dy_turned
    int64_t lds                      # pitch of the backward's sums
    int64_t workspace


cdef inline int64_t ceil_div(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline int64_t round_up(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b * b


cdef inline int64_t place(Problem *p, int64_t reals) noexcept nogil:
    """Room for so many reals, and whole vectors behind them, in the workspace."""
    cdef int64_t at = p.workspace
    p.workspace += round_up((reals + LANES) * sizeof(real), LINE)
    return at


# ---------------------------------------------------------------- samples

cdef struct Samples:                 # of one tap, for the pixels of a panel
    real row[PANEL]                  # where the window begins, on the image's own grid
    real column[PANEL]
    real y[PANEL]                    # the tap's offset, then the sample's position
    real x[PANEL]
    real mask[PANEL]
    int32_t inside[PANEL]            # all bits or none
    real spoil[PANEL]                # NaN where the position is, else 0: an unknown position has an unknown value
    int32_t pixel[PANEL]             # the upper left corner in the padded image
    real ly[PANEL]                   # how far below and to the right of it the sample stands, and the rests to one
    real lx[PANEL]
    real hy[PANEL]
    real hx[PANEL]
    real w1[PANEL]                   # the weights of the corners: upper left and right, lower left and right
    real w2[PANEL]
    real w3[PANEL]
    real w4[PANEL]


cdef void place_windows(const Problem *p, int64_t first, int64_t count, Samples *s) noexcept nogil:
    """The windows of the output pixels first to first + count; those missing to a whole panel are far outside."""
    cdef int64_t i = first // p.W.on, j = first - i * p.W.on, q
    for q in range(PANEL):
        if q < count:
            s.row[q] = <real> (i * p.H.s - p.H.before)
            s.column[q] = <real> (j * p.W.s - p.W.before)
            j += 1
            if j == p.W.on:
                j = 0
                i += 1
        else:
            s.row[q] = s.column[q] = <real> -INFINITY
            s.y[q] = s.x[q] = s.mask[q] = 0


cdef void find_samples(const Problem *p, int64_t n, int64_t group, int64_t tap, int64_t first, int64_t count,
                       bint closed, Samples *s) noexcept nogil:
    """The samples that a tap takes for the pixels of a panel.

    A sample a pixel or more outside stands in the padded image's last two rows, which are zero. With `closed` one that
    is exactly a pixel outside to the top or left still belongs to the cell there: its value is zero, its slope is not.
    """
    cdef const real *offset = p.offset + ((n * p.offset_groups + group) * p.taps + tap) * 2 * p.positions + first
    cdef real dy = <real> (tap // p.W.k * p.H.d), dx = <real> (tap % p.W.k * p.W.d)
    cdef real H = <real> p.H.n, W = <real> p.W.n, y, x, zero = 0, one = 1, nan = <real> NAN
    cdef int32_t row = <int32_t> p.row, outside = <int32_t> (p.H.n + 1) * row, iy, ix
    cdef int q
    copy_reals(s.y, offset, count)
    copy_reals(s.x, offset + p.positions, count)
    if p.mask != NULL:
        copy_reals(s.mask, p.mask + ((n * p.offset_groups + group) * p.taps + tap) * p.positions + first, count)
    else:
        for q in range(PANEL):
            s.mask[q] = one
    # Loops without branches over arrays of one structure, which the compiler turns into vectors.
    for q in range(PANEL):
        y = s.row[q] + dy + s.y[q]
        x = s.column[q] + dx + s.x[q]
        s.inside[q] = -(((y > -one) | (y == -one) & closed) & (y < H) & ((x > -one) | (x == -one) & closed) & (x < W))
        s.spoil[q] = nan if (y != y) | (x != x) else zero
        y = y if y > -one else -one  # what now fits an integer; NaN too
        x = x if x > -one else -one
        s.y[q] = y if y < H else H
        s.x[q] = x if x < W else W
    for q in range(PANEL):
        y = s.y[q]
        x = s.x[q]
        iy = <int32_t> y
        ix = <int32_t> x
        iy = iy - (y < <real> iy)
        ix = ix - (x < <real> ix)
        y = y - <real> iy + s.spoil[q]
        x = x - <real> ix + s.spoil[q]
        s.pixel[q] = (((iy + 1) * row + ix + 1) & s.inside[q]) | (outside & ~s.inside[q])
        s.ly[q] = y
        s.lx[q] = x
        s.hy[q] = one - y
        s.hx[q] = one - x
        s.w1[q] = (one - y) * (one - x)
        s.w2[q] = (one - y) * x
        s.w3[q] = y * (one - x)
        s.w4[q] = y * x


# ---------------------------------------------------------------- channels last and back

cdef void turn(const real *from_, int64_t from_row, real *to, int64_t to_row, int64_t rows,
               int64_t columns) noexcept nogil:
    """to[j, i] = from[i, j], for whole arrays of rows x columns with these distances from row to row."""
    cdef int64_t i = 0, j, a, b
    cdef vec square[LANES]
    while i < rows:
        j = 0
        while j < columns:
            if i + LANES <= rows and j + LANES <= columns:
                for a in range(LANES):
                    square[a] = (<const vec *> (from_ + (i + a) * from_row + j))[0]
                transpose_square(square)
                for a in range(LANES):
                    (<vec *> (to + (j + a) * to_row + i))[0] = square[a]
            else:
                for b in range(j, min(j + LANES, columns)):
                    for a in range(i, min(i + LANES, rows)):
                        to[b * to_row + a] = from_[a * from_row + b]
            j += LANES
        i += LANES


cdef void pad_row(const Problem *p, const real *x, int64_t channels, int64_t pixel, int64_t i,
                  real *image) noexcept nogil:
    """Row i, counted from the border of zeros, of a padded image with `pixel` reals from pixel to pixel, of which the
    first `channels` come from x."""
    cdef real *row = image + i * p.row * pixel
    if i == 0 or i > p.H.n:
        memset(row, 0, p.row * pixel * sizeof(real))
        return
    if pixel > channels:             # all lanes of a chunk are summed
        memset(row, 0, p.row * pixel * sizeof(real))
    else:
        memset(row, 0, pixel * sizeof(real))
        memset(row + (p.W.n + 1) * pixel, 0, pixel * sizeof(real))
    turn(x + (i - 1) * p.W.n, p.H.n * p.W.n, row + pixel, pixel, channels, p.W.n)


# ---------------------------------------------------------------- products

cdef void multiply(const real *w, int64_t ldw, const real *bias, int64_t rows, const real *band, int64_t plane,
                   int64_t terms, bint resume, int64_t vectors, real *sums, int64_t lds) noexcept nogil:
    """sums = w (rows x terms) times band (terms x whole vectors): the tiles of one tap."""
    cdef int64_t r = 0, at
    cdef int64_t tap[2]
    cdef const ChannelTiles *tiles
    cdef int i = 0, v
    tap[0] = tap[1] = 0
    while r < rows:
        while CHANNEL_TILES[i].R > rows - r or CHANNEL_TILES[i].R > LARGEST_R:
            i += 1
        tiles = &CHANNEL_TILES[i]
        at = 0
        while at < vectors:
            v = 0
            while tiles.NV[v] > vectors - at:
                v += 1
            if v == 0 and vectors - at > tiles.NV[0] and vectors - at <= 2 * tiles.NV[1]:
                v = 1                # two short tiles, rather than a full one and a rest that few registers serve
            tiles.run[v](<const char *> (band + at * LANES), 1, tap, 1, terms, plane * sizeof(real), w + r * ldw, ldw,
                         0, bias + r if bias != NULL else NULL, resume, sums + r * lds + at * LANES, lds)
            at += tiles.NV[v]
        r += tiles.R


# ---------------------------------------------------------------- forward

cdef void pad_unit(const void *problem, int64_t unit, char *workspace, Progress *progress,
                   bint calling) noexcept nogil:
    """One row of one padded image."""
    cdef const Problem *p = <const Problem *> problem
    cdef int64_t rows = p.H.n + 3, n = unit // rows
    pad_row(p, p.x + (p.first_image + n) * p.C * p.H.n * p.W.n, p.C, p.C, unit - n * rows, p.images + n * p.image)


cdef void fill_columns(const Problem *p, const real *image, int64_t n, int64_t c0, int64_t c1, int64_t first,
                       int64_t count, char *workspace) noexcept nogil:
    """The columns of the channels c0 to c1: a row of PANEL pixels for each (c, ky, kx)."""
    cdef Samples *s = <Samples *> (workspace + p.at_samples)
    cdef real *values = <real *> (workspace + p.at_values)       # LANES pixels x channels
    cdef real *columns = <real *> (workspace + p.at_columns)
    cdef int64_t below = p.row * p.C, ld = round_up(p.c_block, LANES), group, tap, a, b, c, i, j, q
    cdef const real *corner
    cdef real *value
    cdef vec v
    cdef vec square[LANES]
    for group in range(c0 // p.C_offset, (c1 - 1) // p.C_offset + 1):
        a = max(c0, group * p.C_offset)
        b = min(c1, (group + 1) * p.C_offset)
        for tap in range(p.taps):
            find_samples(p, n, group, tap, first, count, False, s)
            q = 0
            while q < count:
                for j in range(q, q + LANES):
                    corner = image + s.pixel[j] * p.C + a
                    value = values + (j - q) * ld
                    c = 0
                    while c < b - a:
                        v = (<const vec *> (corner + c))[0] * s.w1[j]
                        v += (<const vec *> (corner + p.C + c))[0] * s.w2[j]
                        v += (<const vec *> (corner + below + c))[0] * s.w3[j]
                        v += (<const vec *> (corner + below + p.C + c))[0] * s.w4[j]
                        (<vec *> (value + c))[0] = v * s.mask[j]
                        c += LANES
                c = a
                while c < b:
                    for i in range(LANES):
                        square[i] = (<const vec *> (values + i * ld + c - a))[0]
                    transpose_square(square)
                    if c + LANES <= b:
                        for i in range(LANES):
                            (<vec *> (columns + ((c - c0 + i) * p.taps + tap) * PANEL + q))[0] = square[i]
                    else:
                        for i in range(b - c):
                            (<vec *> (columns + ((c - c0 + i) * p.taps + tap) * PANEL + q))[0] = square[i]
                    c += LANES
                q += LANES


cdef void forward_unit(const void *problem, int64_t unit, char *workspace, Progress *progress,
                       bint calling) noexcept nogil:
    """A panel of output pixels of one image."""
    cdef const Problem *p = <const Problem *> problem
    cdef const real *columns = <const real *> (workspace + p.at_columns)
    cdef real *sums
    cdef real *y
    cdef const real *bias
    cdef int64_t panels = ceil_div(p.positions, PANEL), n = unit // panels, first = (unit - n * panels) * PANEL
    cdef int64_t count = min(PANEL, p.positions - first), vectors = ceil_div(count, LANES)
    cdef int64_t c0 = 0, c1, a, b, g, o, lds, terms = p.C_group * p.taps
    cdef bint whole = count % LANES == 0, resume
    place_windows(p, first, count, <Samples *> (workspace + p.at_samples))
    while c0 < p.C:
        c1 = min(p.C, c0 + p.c_block)
        fill_columns(p, p.images + n * p.image, p.first_image + n, c0, c1, first, count, workspace)
        for g in range(c0 // p.C_group, (c1 - 1) // p.C_group + 1):
            a = max(c0, g * p.C_group)
            b = min(c1, (g + 1) * p.C_group)
            resume = a > g * p.C_group
            bias = p.bias + g * p.O_group if p.bias != NULL and b == (g + 1) * p.C_group else NULL
            y = p.y + ((p.first_image + n) * p.O + g * p.O_group) * p.positions + first
            sums, lds = y, p.positions
            if not whole:            # whole vectors would reach into the next channel
                sums, lds = <real *> (workspace + p.at_sums), PANEL
                if resume:
                    for o in range(p.O_group):
                        copy_reals(sums + o * lds, y + o * p.positions, count)
            multiply(p.w + g * p.O_group * terms + (a - g * p.C_group) * p.taps, terms, bias, p.O_group,
                     columns + (a - c0) * p.taps * PANEL, PANEL, (b - a) * p.taps, resume, vectors, sums, lds)
            if not whole:
                for o in range(p.O_group):
                    copy_reals(y + o * p.positions, sums + o * lds, count)
        c0 = c1


# ---------------------------------------------------------------- backward

cdef void turn_gradient(const Problem *p, int64_t at, int64_t g, char *workspace) noexcept nogil:
    """The panel of output gradients of group g, pixels first; `at` is where it lies in the panels."""
    turn(<const real *> (workspace + p.at_dy) + at * PANEL, PANEL, <real *> (workspace + p.at_dy_turned), p.lds,
         p.O_group, PANEL)


cdef void spread_samples(const Problem *p, int64_t tap, int64_t first, int64_t count, int64_t channels, real *dsamples,
                         char *workspace) noexcept nogil:
    """What a tap's samples did: the gradient of each goes to its four pixels, its offset and its mask, and its value
    into the columns."""
    cdef const Samples *s = <const Samples *> (workspace + p.at_samples)
    cdef real *values = <real *> (workspace + p.at_values)       # LANES pixels x CHUNK
    cdef real *gradients = values + LANES * CHUNK                # the same
    cdef real *columns = <real *> (workspace + p.at_columns)
    cdef const real *dcolumns = <const real *> (workspace + p.at_dcolumns)
    cdef const real *image = <const real *> (workspace + p.at_image)
    cdef real *dimage = <real *> (workspace + p.at_dimage)
    cdef int64_t plane = p.taps * p.positions, below = p.row * CHUNK, q = 0, i, j, c, n
    cdef const real *corner
    cdef real *dcorner
    cdef real m1, m2, m3, m4
    cdef vec g, x1, x2, x3, x4, a1, a2, a3, a4, m
    cdef vec square[LANES]
    cdef vec dots[4][LANES]          # products of gradient and pixels at each corner
    while q < count:
        c = 0
        while c < CHUNK:
            for i in range(LANES):
                square[i] = (<const vec *> (dcolumns + ((c + i) * p.taps + tap) * PANEL + q))[0]
            transpose_square(square)
            for i in range(LANES):
                (<vec *> (gradients + i * CHUNK + c))[0] = square[i]
            c += LANES
        for i in range(LANES):
            j = q + i
            corner = image + <int64_t> s.pixel[j] * CHUNK
            dcorner = dimage + <int64_t> s.pixel[j] * CHUNK
            m1, m2 = s.w1[j] * s.mask[j], s.w2[j] * s.mask[j]
            m3, m4 = s.w3[j] * s.mask[j], s.w4[j] * s.mask[j]
            a1 = a2 = a3 = a4 = vzero()
            c = 0
            while c < CHUNK:
                g = (<const vec *> (gradients + i * CHUNK + c))[0]
                x1 = (<const vec *> (corner + c))[0]
                x2 = (<const vec *> (corner + CHUNK + c))[0]
                x3 = (<const vec *> (corner + below + c))[0]
                x4 = (<const vec *> (corner + below + CHUNK + c))[0]
                a1 += g * x1
                a2 += g * x2
                a3 += g * x3
                a4 += g * x4
                (<vec *> (values + i * CHUNK + c))[0] = (
                    x1 * s.w1[j] + x2 * s.w2[j] + x3 * s.w3[j] + x4 * s.w4[j]) * s.mask[j]
                (<vec *> (dcorner + c))[0] += g * m1
                (<vec *> (dcorner + CHUNK + c))[0] += g * m2
                (<vec *> (dcorner + below + c))[0] += g * m3
                (<vec *> (dcorner + below + CHUNK + c))[0] += g * m4
                c += LANES
            dots[0][i] = a1
            dots[1][i] = a2
            dots[2][i] = a3
            dots[3][i] = a4
        c = 0
        while c < channels:
            for i in range(LANES):
                square[i] = (<const vec *> (values + i * CHUNK + c))[0]
            transpose_square(square)
            for i in range(min(<int64_t> LANES, channels - c)):
                (<vec *> (columns + ((c + i) * p.taps + tap) * PANEL + q))[0] = square[i]
            c += LANES
        a1 = sum_each(dots[0])
        a2 = sum_each(dots[1])
        a3 = sum_each(dots[2])
        a4 = sum_each(dots[3])
        m = (<const vec *> &s.mask[q])[0]
        square[0] = m * ((a3 - a1) * (<const vec *> &s.hx[q])[0] + (a4 - a2) * (<const vec *> &s.lx[q])[0])
        n = min(<int64_t> LANES, count - q)
        copy_reals(dsamples + tap * p.positions + first + q, <const real *> square, n)
        square[0] = m * ((a2 - a1) * (<const vec *> &s.hy[q])[0] + (a4 - a3) * (<const vec *> &s.ly[q])[0])
        copy_reals(dsamples + plane + tap * p.positions + first + q, <const real *> square, n)
        square[0] = (a1 * (<const vec *> &s.w1[q])[0] + a2 * (<const vec *> &s.w2[q])[0]
                     + a3 * (<const vec *> &s.w3[q])[0] + a4 * (<const vec *> &s.w4[q])[0])
        copy_reals(dsamples + 2 * plane + tap * p.positions + first + q, <const real *> square, n)
        q += LANES


cdef void backward_unit(const void *problem, int64_t unit, char *workspace, Progress *progress,
                        bint calling) noexcept nogil:
    """A chunk of channels of one image, over all its output pixels."""
    cdef const Problem *p = <const Problem *> problem
    cdef int64_t n = unit // (p.offset_groups * p.chunks), chunk = unit - n * p.offset_groups * p.chunks
    cdef int64_t offset_group = chunk // p.chunks, plane = p.H.n * p.W.n
    cdef int64_t c0 = offset_group * p.C_offset + (chunk - offset_group * p.chunks) * CHUNK
    cdef int64_t c1 = min(c0 + CHUNK, (offset_group + 1) * p.C_offset), channels = c1 - c0
    cdef int64_t g0 = c0 // p.C_group, g1 = (c1 - 1) // p.C_group + 1
    cdef int64_t first = 0, count, g, a, b, o, i, tap
    cdef Samples *s = <Samples *> (workspace + p.at_samples)
    cdef real *columns = <real *> (workspace + p.at_columns)
    cdef real *dcolumns = <real *> (workspace + p.at_dcolumns)
    cdef real *dy = <real *> (workspace + p.at_dy)
    cdef real *dy_turned = <real *> (workspace + p.at_dy_turned)
    cdef real *sums = <real *> (workspace + p.at_sums)           # of the weight gradient: (channels, taps) x O_group
    cdef real *image = <real *> (workspace + p.at_image)
    cdef real *dimage = <real *> (workspace + p.at_dimage)
    cdef real *dsamples = p.dsamples + unit * 3 * p.taps * p.positions
    for i in range(p.H.n + 3):
        pad_row(p, p.x + (n * p.C + c0) * plane, channels, CHUNK, i, image)
    memset(dimage, 0, p.pixels * CHUNK * sizeof(real))
    memset(dcolumns, 0, CHUNK * p.taps * PANEL * sizeof(real))   # a short chunk fills some rows only
    memset(sums, 0, CHUNK * p.taps * p.lds * sizeof(real))
    memset(dy_turned, 0, PANEL * p.lds * sizeof(real))           # whole vectors of it are read
    while first < p.positions and go_on(progress, calling):
        count = min(<int64_t> PANEL, p.positions - first)
        place_windows(p, first, count, s)
        for o in range((g1 - g0) * p.O_group):
            if count < PANEL:
                memset(dy + o * PANEL, 0, PANEL * sizeof(real))
            copy_reals(dy + o * PANEL, p.dy + (n * p.O + g0 * p.O_group + o) * p.positions + first, count)
        for g in range(g0, g1):
            a, b = max(c0, g * p.C_group), min(c1, (g + 1) * p.C_group)
            multiply(p.w + a * p.taps * p.O_group, p.O_group, NULL, (b - a) * p.taps,
                     dy + (g - g0) * p.O_group * PANEL, PANEL, p.O_group, False, ceil_div(count, LANES),
                     dcolumns + (a - c0) * p.taps * PANEL, PANEL)
        for tap in range(p.taps):
            find_samples(p, n, offset_group, tap, first, count, True, s)
            spread_samples(p, tap, first, count, channels, dsamples, workspace)
        for g in range(g0, g1):
            a, b = max(c0, g * p.C_group), min(c1, (g + 1) * p.C_group)
            turn_gradient(p, (g - g0) * p.O_group, g, workspace)
            multiply(columns + (a - c0) * p.taps * PANEL, PANEL, NULL, (b - a) * p.taps, dy_turned, p.lds, count, True,
                     p.lds // LANES, sums + (a - c0) * p.taps * p.lds, p.lds)
        first += PANEL
    for i in range(channels * p.taps):
        copy_reals(p.dw + ((n * p.C + c0) * p.taps + i) * p.O_group, sums + i * p.lds, p.O_group)
    for i in range(p.H.n):
        turn(dimage + ((i + 1) * p.row + 1) * CHUNK, CHUNK, p.dx + (n * p.C + c0) * plane + i * p.W.n, plane, p.W.n,
             channels)


# ---------------------------------------------------------------- the calls from Python

cdef const real *data(cnp.ndarray a):
    return <const real *> cnp.PyArray_DATA(a) if a is not None else NULL


cdef void set_axis(Axis *axis, int64_t n, int64_t on, int64_t k, int64_t s, int64_t d, int64_t before) noexcept nogil:
    axis.n, axis.on, axis.k, axis.s, axis.d, axis.before = n, on, k, s, d, before


cdef int describe(Problem *p, cnp.ndarray x, cnp.ndarray offset, cnp.ndarray mask, int64_t groups, int64_t O,
                  tuple kernel, tuple stride, tuple dilation, tuple before) except -1:
    memset(p, 0, sizeof(Problem))
    set_axis(&p.H, x.shape[2], offset.shape[2], kernel[0], stride[0], dilation[0], before[0])
    set_axis(&p.W, x.shape[3], offset.shape[3], kernel[1], stride[1], dilation[1], before[1])
    p.C, p.O, p.groups = x.shape[1], O, groups
    p.C_group, p.O_group = p.C // groups, O // groups
    p.taps = p.H.k * p.W.k
    p.offset_groups = offset.shape[1] // (2 * p.taps)
    p.C_offset = p.C // p.offset_groups
    p.positions = p.H.on * p.W.on
    p.row = p.W.n + 2
    p.pixels = (p.H.n + 3) * p.row
    p.x, p.offset, p.mask = data(x), data(offset), data(mask)
    p.at_samples = place(p, sizeof(Samples) // sizeof(real) + 1)
    return 0


cdef int execute(Problem *p, RunUnit run, int64_t units, int64_t images, int64_t images_at_once,
                 int workers) except -1:
    """All units; those of a forward call a few images at a time, each of which is copied and padded first."""
    cdef list caught = []
    cdef Progress progress
    cdef double size
    cdef Block block
    cdef char *workspace
    cdef int64_t n = 0, step
    if workers > units * images:
        workers = <int> (units * images)
    size = <double> p.workspace * workers + <double> p.image * images_at_once * sizeof(real)
    if size >= LARGEST_WORKSPACE:
        raise MemoryError(f"no memory for the workspace of {size:.0f} bytes")
    block = take_block(<int64_t> size)
    workspace = block.start
    p.images = <real *> (workspace + p.workspace * workers)
    try:
        with nogil:
            begin(&progress, <void *> caught)
            if p.image == 0:
                share_units(run, p, units * images, workspace, p.workspace, workers, &progress)
            while n < images and p.image and not progress.cancelled:
                step = min(images_at_once, images - n)
                p.first_image = n
                share_units(pad_unit, p, step * (p.H.n + 3), workspace, p.workspace, workers, &progress)
                if not progress.cancelled:
                    share_units(run, p, step * units, workspace, p.workspace, workers, &progress)
                n += step
    finally:
        give_back(block)
    if caught:
        raise caught[0]
    return 0


cdef inline int useful_workers(const Problem *p, int64_t images, int workers) noexcept nogil:
    return 1 if <double> images * p.O * p.C_group * p.taps * p.positions < SERIAL_BELOW else workers


def deform(cnp.ndarray x not None, cnp.ndarray offset not None, cnp.ndarray mask, cnp.ndarray w not None,
           cnp.ndarray bias, cnp.ndarray out not None, tuple stride, tuple dilation, tuple before, int workers):
    """pyconv.engine.deform, for reals."""
    cdef Problem p
    cdef int64_t images, N = x.shape[0], blocks
    describe(&p, x, offset, mask, x.shape[1] // w.shape[1], w.shape[0], (w.shape[2], w.shape[3]), stride, dilation,
             before)
    if out.size == 0:
        return
    p.w, p.bias, p.y = data(w), data(bias), <real *> cnp.PyArray_DATA(out)
    if <double> p.pixels * p.C * sizeof(real) > LARGEST_WORKSPACE:
        raise MemoryError("no memory for a padded copy of an image")
    p.image = round_up(p.pixels * p.C + LANES, LINE)             # reals, and so whole lines too
    p.c_block = min(p.C, max(<int64_t> 1, COLUMN_BYTES // <int64_t> sizeof(real) // (p.taps * PANEL)))
    if LANES < p.c_block < p.C:
        blocks = ceil_div(p.C, p.c_block // LANES * LANES)
        p.c_block = round_up(ceil_div(p.C, blocks), LANES)
    p.at_values = place(&p, LANES * round_up(p.c_block, LANES))
    p.at_columns = place(&p, p.c_block * p.taps * PANEL)
    p.at_sums = place(&p, p.O_group * PANEL)
    images = min(N, max(<int64_t> 1, IMAGES_BYTES // <int64_t> sizeof(real) // p.image))
    execute(&p, forward_unit, ceil_div(p.positions, PANEL), N, images, useful_workers(&p, N, workers))


def chunks(int64_t channels):
    """The backward's units an image and offset group of so many channels."""
    return ceil_div(channels, CHUNK)


def turned(cnp.ndarray a not None):
    """The matrices of a (count, rows, columns), transposed."""
    cdef cnp.npy_intp[3] shape = [a.shape[0], a.shape[2], a.shape[1]]
    cdef cnp.ndarray to = cnp.PyArray_EMPTY(3, shape, a.descr.type_num, 0)
    cdef int64_t i, size = a.shape[1] * a.shape[2]
    for i in range(a.shape[0]):
        turn(data(a) + i * size, a.shape[2], <real *> cnp.PyArray_DATA(to) + i * size, a.shape[1], a.shape[1],
             a.shape[2])
    return to


def deform_backward(cnp.ndarray x not None, cnp.ndarray offset not None, cnp.ndarray mask, cnp.ndarray w not None,
                    cnp.ndarray dy not None, cnp.ndarray dx not None, cnp.ndarray dw not None,
                    cnp.ndarray dsamples not None, int64_t groups, tuple kernel, tuple stride, tuple dilation,
                    tuple before, int workers):
    """The shares of some images in the gradients, each in the place of its own that `Problem` names."""
    cdef Problem p
    cdef int64_t N = x.shape[0]
    describe(&p, x, offset, mask, groups, dy.shape[1], kernel, stride, dilation, before)
    if N == 0:
        return
    p.w, p.dy = data(w), data(dy)
    p.dx, p.dw = <real *> cnp.PyArray_DATA(dx), <real *> cnp.PyArray_DATA(dw)
    p.dsamples = <real *> cnp.PyArray_DATA(dsamples)
    p.chunks = chunks(p.C_offset)
    p.lds = round_up(p.O_group, LANES)
    if <double> p.pixels * CHUNK * sizeof(real) > LARGEST_WORKSPACE:
        raise MemoryError("no memory for a padded copy of an image")
    p.at_values = place(&p, 2 * LANES * CHUNK)
    p.at_columns = place(&p, CHUNK * p.taps * PANEL)
    p.at_dcolumns = place(&p, CHUNK * p.taps * PANEL)
    p.at_sums = place(&p, CHUNK * p.taps * p.lds)
    p.at_dy = place(&p, p.O * PANEL)
    p.at_dy_turned = place(&p, PANEL * p.lds)
    p.at_image = place(&p, p.pixels * CHUNK)
    p.at_dimage = place(&p, p.pixels * CHUNK)
    execute(&p, backward_unit, p.offset_groups * p.chunks, N, 0, useful_workers(&p, N, workers))
