# Large kernels, one input and one output channel a group, stride 1: overlap-save tiles by Fourier transforms (fft.h).
#
# The output is cut into tiles. One needs an input tile larger by k - 1, size x size samples, whose circular correlation
# with the kernel is the true one but for the last k - 1 rows and columns. The kernel is real, so two input tiles are
# one complex one, x1 + i x2: of its correlation the real part is that of x1, the imaginary part that of x2.
#
#     image                                                 re: x1, im: x2
#    +--------+--------+-----  load: padding,    +-------------+   down the columns, in place, LANES at once
#    | x1 . . | . . .  |       dtype, strides    |             |   LANES rows turned into lines of vectors: along the
#    | . . . ...       |     ----------------->  | size x size |       rows, times the spectrum, and back; turned back
#    +--------+--------+-----                    |             |   down the columns, back
#    |        |  x2    |       store: scale,     +----------+--+
#    |        |        |     <-----------------  | outputs  |  |   (x1 and x2 are neighbours and overlap; here they
#                              bias, clipped     +----------+--+    are drawn apart)
#
# A unit is a pair of tiles of one image and channel. Each tile's roundings reach its partner; so which tiles are a pair
# follows from the shapes alone (an odd last one is paired with zeros), and the bits depend on nothing else.
#
# A kernel of one row needs no transform down the columns: then the rows of a tile, some vectors of them, are convolved
# each on its own, and all with one spectrum.
#
# A sample that is not finite makes all outputs of both tiles so: every number of the transform depends on it in its
# real or imaginary part, in both once multiplied by the spectrum (infinity * 0 is NaN), and every output on all these.

cdef extern from "fft.h" nogil:
    ctypedef struct Fft:
        pass
    const Fft *fft_of_size(int64_t)
    void transform(const Fft *, int, real *, real *, int64_t)
    void transform_back(const Fft *, int, real *, real *, int64_t)
    void transform_product(const Fft *, int, real *, real *, const vec *)
    void turn_rows(const real *, int64_t, int64_t, real *)
    void turn_lines(const real *, int64_t, real *, int64_t)
    void prefetch_output(const char *, int64_t)
    void finish_row(const real *, real *, int64_t, real, real, vec *)


cdef enum:
    ROWS_AHEAD = 4


cdef struct FftPlan:
    Problem *p
    const Fft *f
    int64_t size
    bint along                       # the kernel is one row: transforms along the rows alone
    int64_t height                   # rows of a tile
    int64_t pitch, plane             # of the tile: a cache line more a row, so that columns spread over the cache sets
    const real *u                    # spectra, and behind each what its sums are multiplied with
    int64_t u_group
    int64_t rows, cols               # outputs of a tile
    int64_t tiles_y, tiles_x, tiles, pairs
    char *bad                        # of each unit: 1 and 2, an output of its first or second tile is not finite
    int64_t units
    int64_t at_map, at_row, at_lines, at_planes, workspace


cdef bint plan_fft(FftPlan *q, Problem *p, const real *u, int64_t u_group, int64_t size) noexcept nogil:
    """False: out of memory."""
    memset(q, 0, sizeof(FftPlan))
    q.p, q.u, q.u_group, q.size = p, u, u_group, size
    q.f = fft_of_size(size)
    q.along = p.H.k == 1
    q.height = 4 * LANES if q.along else size
    q.rows, q.cols = q.height - p.H.k + 1, size - p.W.k + 1
    q.tiles_y, q.tiles_x = ceil_div(p.H.on, q.rows), ceil_div(p.W.on, q.cols)
    q.tiles = q.tiles_y * q.tiles_x
    q.pairs = ceil_div(q.tiles, 2)
    q.units = q.pairs * p.N * p.groups
    q.pitch = size + LINE // sizeof(real)
    q.plane = q.height * q.pitch
    q.at_map = LINE
    q.at_row = round_up(q.at_map + sizeof(ColumnMap) + size * sizeof(int64_t), LINE)
    q.at_lines = q.at_row + size * sizeof(real)
    q.at_planes = q.at_lines + 2 * size * sizeof(vec)
    q.workspace = q.at_planes + 2 * q.plane * sizeof(real)
    q.bad = <char *> malloc(max(1, q.units))
    if q.bad == NULL:
        return False
    memset(q.bad, 0, q.units)
    return True


cdef struct FftTile:
    int64_t y0, x0, rows, cols       # its outputs; rows 0: there is no such tile


cdef FftTile fft_tile(const FftPlan *q, int64_t tile) noexcept nogil:
    cdef FftTile t
    t.y0, t.x0 = tile // q.tiles_x * q.rows, tile % q.tiles_x * q.cols
    t.rows = min(q.rows, q.p.H.on - t.y0) if tile < q.tiles else 0
    t.cols = min(q.cols, q.p.W.on - t.x0)
    return t


cdef void load_samples(const FftPlan *q, const FftTile *t, int64_t n, int64_t channel, real *plane,
                       char *workspace) noexcept nogil:
    """The input of one tile; what no output needs is zero."""
    cdef const Problem *p = q.p
    cdef ColumnMap *map = <ColumnMap *> (workspace + q.at_map)
    cdef const char *slice
    cdef const char *ahead
    cdef int64_t y, rows = 0, cols
    if t.rows > 0:
        rows, cols = t.rows + p.H.k - 1, t.cols + p.W.k - 1
        slice = input_slice(p, n, channel, 0, 0)
        map.sample = <int64_t *> (map + 1)
        map_columns(map, t.x0 - p.W.before, 1, cols, p.W.n, p.W.boundary, 1)
        for y in range(rows):
            ahead = input_row(p, slice, t.y0 + y + ROWS_AHEAD - p.H.before)
            if ahead != NULL and p.W.x_step == p.source.size:
                prefetch_row(ahead + map.start * p.W.x_step, (map.inner_end - map.inner) * p.W.x_step)
            fill_row(&p.source, map, plane + y * q.pitch, input_row(p, slice, t.y0 + y - p.H.before), p.W.x_step,
                     p.constant[0])
            fill_constant(plane + y * q.pitch + cols, q.size - cols, 0)
    memset(plane + rows * q.pitch, 0, (q.height - rows) * q.pitch * sizeof(real))


cdef void store_sums(const FftPlan *q, const FftTile *t, int64_t n, int64_t channel, const real *plane, real *row,
                     vec *check) noexcept nogil:
    cdef const Problem *p = q.p
    cdef real scale = q.u[(channel + 1) * q.u_group - 1], bias = p.bias[channel] if p.bias != NULL else <real> 0
    cdef char *to = output_slice(p, n, channel, 0) + t.y0 * p.H.y_step + t.x0 * p.W.y_step
    cdef int64_t y
    for y in range(t.rows):
        if p.y_direct and y + ROWS_AHEAD < t.rows:
            prefetch_output(to + ROWS_AHEAD * p.H.y_step, t.cols * sizeof(real))
        finish_row(plane + y * q.pitch, row, t.cols, scale, bias, check)
        if p.y_direct:
            copy_reals(<real *> to, row, t.cols)
        else:
            store(p.y_code, to, p.W.y_step, row, t.cols)
        to += p.H.y_step


cdef void run_fft_unit(const void *plan, int64_t unit, char *workspace, Progress *progress,
                       bint calling) noexcept nogil:
    cdef const FftPlan *q = <const FftPlan *> plan
    cdef const Fft *f = q.f
    cdef int64_t pair = unit % q.pairs, n = unit // q.pairs % q.p.N, channel = unit // q.pairs // q.p.N
    cdef FftTile first = fft_tile(q, 2 * pair), second = fft_tile(q, 2 * pair + 1)
    cdef const real *u = q.u + channel * q.u_group
    cdef real *re = <real *> (workspace + q.at_planes)
    cdef real *im = re + q.plane
    cdef real *lines = <real *> (workspace + q.at_lines)
    cdef real *im_lines = lines + q.size * LANES
    cdef int64_t i, rows = LANES * q.pitch, cols = round_up(max(first.cols, second.cols), LANES)
    cdef vec check = vzero(), second_check = vzero()
    load_samples(q, &first, n, channel, re, workspace)
    load_samples(q, &second, n, channel, im, workspace)
    if not q.along:
        for i in range(q.size // LANES):
            transform(f, 0, re + i * LANES, im + i * LANES, q.pitch)
    for i in range(ceil_div(max(first.rows, second.rows), LANES) if q.along else q.size // LANES):
        turn_rows(re + i * rows, q.pitch, q.size, lines)
        turn_rows(im + i * rows, q.pitch, q.size, im_lines)
        transform_product(f, 0, lines, im_lines, <const vec *> (u if q.along else u + 2 * i * q.size * LANES))
        turn_lines(lines, cols, re + i * rows, q.pitch)
        turn_lines(im_lines, cols, im + i * rows, q.pitch)
    if not q.along:
        for i in range(cols // LANES):
            transform_back(f, 0, im + i * LANES, re + i * LANES, q.pitch)
    store_sums(q, &first, n, channel, re, <real *> (workspace + q.at_row), &check)
    store_sums(q, &second, n, channel, im, <real *> (workspace + q.at_row), &second_check)
    q.bad[unit] = any_not_zero(&check) + 2 * any_not_zero(&second_check)


# ---------------------------------------------------------------- weights

cdef void find_spectrum(const Fft *f, int64_t size, const real *w, int64_t kh, int64_t kw, real *u,
                        char *workspace) noexcept nogil:
    """The spectrum: conjugate, since the tile is correlated, and divided by `size`, as the sums will be once more where
    there are transforms down the columns. That of a kernel of one row is of a row, for LANES of them."""
    cdef int64_t pitch = size + LINE // sizeof(real), x, y, i
    cdef real *re = <real *> workspace
    cdef real *im = re + size * pitch
    cdef real *lines = im + size * pitch
    cdef real *im_lines = lines + size * LANES
    cdef real over = <real> 1.0 / size
    cdef int64_t height = LANES if kh == 1 else size
    memset(re, 0, height * pitch * sizeof(real))
    memset(im, 0, height * pitch * sizeof(real))
    for y in range(LANES if kh == 1 else kh):
        memcpy(re + y * pitch, w if kh == 1 else w + y * kw, kw * sizeof(real))
    for i in range(ceil_div(kw, LANES) if kh > 1 else 0):
        transform(f, 0, re + i * LANES, im + i * LANES, pitch)
    for y in range(height // LANES):
        turn_rows(re + y * LANES * pitch, pitch, size, lines)
        turn_rows(im + y * LANES * pitch, pitch, size, im_lines)
        transform(f, 0, lines, im_lines, LANES)
        for x in range(size):
            for i in range(LANES):
                u[i] = lines[x * LANES + i] * over
                u[LANES + i] = -im_lines[x * LANES + i] * over
            u += 2 * LANES


def fft_weights(cnp.ndarray w not None, cnp.ndarray u not None, int64_t size, int workers):
    """Fill u, (groups, more than 2 * size**2, or of one row 2 * size * LANES), from w, (groups, 1, kh, kw), both
    C-contiguous."""
    cdef const Fft *f = fft_of_size(size)
    cdef int64_t groups = w.shape[0], kh = w.shape[2], kw = w.shape[3], u_group = u.shape[1], g
    cdef int64_t bytes = 2 * size * (size + LINE // sizeof(real) + LANES) * sizeof(real)
    cdef const real *from_ = <const real *> cnp.PyArray_DATA(w)
    cdef real *to = <real *> cnp.PyArray_DATA(u)
    cdef Block workspace
    workers = <int> max(1, min(workers, groups))
    workspace = take_block(workers * bytes)
    for g in prange(groups, num_threads=workers, schedule="static", nogil=True):
        find_spectrum(f, size, from_ + g * kh * kw, kh, kw, to + g * u_group, workspace.start + threadid() * bytes)
    give_back(workspace)


def fft(cnp.ndarray x not None, cnp.ndarray w not None, cnp.ndarray u not None, cnp.ndarray bias,
        cnp.ndarray out not None, int n_batch, int64_t groups, tuple before, tuple boundary, double constant,
        int workers, int64_t size, bint run=True):
    """Correlate at stride 1. Returns the tiles, (image, channel, row, last, column, last), in which some output is not
    finite, each last one excluded; without `run`, the bytes of all workspaces."""
    cdef Problem p
    cdef FftPlan q
    cdef FftTile t
    cdef int64_t unit, taken
    cdef int i
    cdef list tiles = []
    cdef tuple one = (1, 1)
    describe_problem(&p, x, w, out, n_batch, groups, one, one, before, boundary, constant, 0.0, 1, False, 1, None)
    p.bias = <const real *> cnp.PyArray_DATA(bias) if bias is not None else NULL
    if not plan_fft(&q, &p, <const real *> cnp.PyArray_DATA(u), u.shape[1], size):
        raise MemoryError("the workspace of this convolution does not fit in memory")
    try:
        taken = execute_units(&p, run_fft_unit, &q, q.units, q.workspace, workers, run)
        if not run:
            return taken
        for unit in range(q.units):
            for i in range(2):
                if q.bad[unit] >> i & 1:
                    t = fft_tile(&q, unit % q.pairs * 2 + i)
                    tiles.append((unit // q.pairs % p.N, unit // q.pairs // p.N, t.y0, t.y0 + t.rows, t.x0,
                                  t.x0 + t.cols))
    finally:
        free(q.bad)
    return tiles
