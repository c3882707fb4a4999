# The gradient of the weights by nested Winograd convolution: the adjoint of winograd.pxi in its weights.
#
# There, plane i of the output is a convolution of plane i of the input, V, with plane i of the weights. So plane i of
# the weights' gradient is the sum over all tiles of V, a tile further for each block of the kernel, times M, the
# output's gradient through the transposed back transform; its taps are the transposed transform of all planes.
#
#    input, turned channels last --B along both axes--> V: c_blocks x a * a planes x windows x channels
#    gradient of the output -A' along both axes-------> M: a * a planes x output channels x tiles
#                                                         | tiles of tile.pxi: sums over the windows, a plane at a time
#    dw <--turned, added-- taps <--G' along both axes-- sums of some output channels x some input channels, all planes
#
# Vectors run over input channels, so few tiles are no loss, and M's lines run over the tiles of all images. V and M are
# made for a chunk of tiles at a time, by all threads; then units are (group, block of input channels, block of output
# channels). Chunks are added to dw in order. They, and the blocks of input channels, follow from shapes alone.

cdef extern from "winograd.h" nogil:
    ctypedef struct WinogradAdjoint:
        int m, r, a
        void (*window)(const real *, int64_t, int64_t, real *, int64_t) noexcept nogil
        void (*spread)(const real *, int64_t, int64_t, real *, int64_t) noexcept nogil
        void (*gather)(const real *, int64_t, vec *) noexcept nogil
    const WinogradAdjoint *find_adjoint(int, int)

cdef enum:
    CHUNK_PLANES_BYTES = 4194304     # V and M, so that a cache holds them; more for as many tiles as this, since the
    ENOUGH_TILES = 256               # sums of each chunk are transformed
    MOST_PLANES_BYTES = 16777216
    WEIGHT_PLANE_BYTES = 393216      # the sums of a unit, or all planes of V for it
    CHANNELS_AT_ONCE = 3             # vectors of input channels, as many as a tile is wide
    WINDOW_BAND_BYTES = 131072       # of input, turned
    WINDOW_COLUMNS = 32              # tiles


cdef struct WinogradWeightPlan:
    Problem *p
    Source gradient
    real *dw
    real *kept                       # of several chunks: the taps of those before, in vectors of channels
    const WinogradAdjoint *f
    int64_t m, a, planes
    int64_t by, bx, blocks           # of the kernel
    int64_t tiles_y, tiles_x
    # a chunk, in images and tiles, and how many there are
    int64_t images, rows, cols
    int64_t image_chunks, row_chunks, col_chunks
    int64_t window_rows, window_cols         # of an image's windows in it
    int64_t c_block, c_blocks, o_block, o_blocks
    int64_t slots, width             # the sums of a plane: `slots` vectors of blocks and channels, `width` reals each
    int64_t v_plane, m_line, m_plane
    real *v
    real *gradients
    int64_t *columns                 # byte offset of each column of windows
    # what a unit of windows is
    int64_t band_rows, band_cols, row_parts, col_parts, band_pitch
    int64_t window_units
    int64_t at_map, at_fill, at_band, at_taps
    # the chunk in hand
    int64_t n0, n, y0, y, x0, x      # first, and how many, of images, tile rows and tile columns
    bint first, last
    int64_t wrong                    # units in which a gradient is not finite


cdef bint plan_winograd_weights(WinogradWeightPlan *q, Problem *p, int m, int r, int workers) noexcept nogil:
    """False: out of memory."""
    cdef int64_t lanes, most, i, bands, tile
    cdef bint few
    memset(q, 0, sizeof(WinogradWeightPlan))
    q.p, q.f = p, find_adjoint(m, r)
    q.m, q.a, q.planes = m, q.f.a, q.f.a * q.f.a
    q.by, q.bx = ceil_div(p.H.k, r), ceil_div(p.W.k, r)
    q.blocks = q.by * q.bx
    q.tiles_y, q.tiles_x = ceil_div(p.H.on, m), ceil_div(p.W.on, m)
    # Chunks: whole images, or else rows of tiles of one, or a part of a row.
    q.c_blocks, q.c_block = 1, round_up(p.C, LANES)
    tile = p.groups * q.planes * (q.c_block + p.O) * sizeof(real)
    most = max(<int64_t> CHUNK_PLANES_BYTES, min(<int64_t> MOST_PLANES_BYTES, ENOUGH_TILES * tile))
    most = most // <int64_t> sizeof(real) // (q.planes * p.groups)
    q.images, q.rows, q.cols = 1, q.tiles_y, q.tiles_x
    while chunk_reals(q) > most and q.rows > 1:
        q.rows -= 1
    q.rows = ceil_div(q.tiles_y, ceil_div(q.tiles_y, q.rows))
    while chunk_reals(q) > most and q.cols > LANES:
        q.cols = ceil_div(q.cols, 2)
    if q.rows == q.tiles_y and q.cols == q.tiles_x:
        q.images = min(p.N, max(1, most // chunk_reals(q)))
        q.images = ceil_div(p.N, ceil_div(p.N, q.images))
    q.image_chunks, q.row_chunks = ceil_div(p.N, q.images), ceil_div(q.tiles_y, q.rows)
    q.col_chunks = ceil_div(q.tiles_x, q.cols)
    q.window_rows, q.window_cols = q.rows + q.by - 1, q.cols + q.bx - 1
    # Blocks of channels, which change no sum: of few tiles V stays in the L2 cache, of others the sums.
    lanes = ceil_div(p.C, LANES)
    q.c_blocks = ceil_div(lanes, CHANNELS_AT_ONCE)
    q.c_block = ceil_div(lanes, q.c_blocks) * LANES
    q.c_blocks = ceil_div(p.C, q.c_block)
    q.slots, q.width = q.by, q.bx * q.c_block
    few = (q.images * q.window_rows * q.window_cols * q.planes * q.c_block * <int64_t> sizeof(real)
           <= WEIGHT_PLANE_BYTES)
    q.o_block = (WEIGHT_PLANE_BYTES // <int64_t> sizeof(real) // (q.planes * q.slots * q.width)
                 // LARGEST_R * LARGEST_R)
    q.o_block = max(q.o_block, LARGEST_R) if not few else LARGEST_R
    q.o_block = round_up(ceil_div(p.O, ceil_div(p.O, q.o_block)), LARGEST_R)
    while (q.o_block > LARGEST_R
           and p.groups * q.c_blocks * ceil_div(p.O, q.o_block) % workers != 0
           and p.groups * q.c_blocks * ceil_div(p.O, q.o_block) < 8 * workers):
        q.o_block -= LARGEST_R
    q.o_block = min(q.o_block, p.O)
    q.o_blocks = ceil_div(p.O, q.o_block)
    q.v_plane = odd_lines(q.images * q.window_rows * q.window_cols * q.c_block)
    q.m_line = odd_lines(q.images * q.rows * q.cols)
    q.m_plane = odd_lines(p.O * q.m_line)
    # The input of a block of windows goes through a band.
    q.col_parts = ceil_div(q.window_cols, WINDOW_COLUMNS)
    q.band_cols = ceil_div(q.window_cols, q.col_parts)
    q.col_parts = ceil_div(q.window_cols, q.band_cols)
    q.band_pitch = round_up(q.band_cols * m + q.a - m, LANES)
    most = WINDOW_BAND_BYTES // (q.band_pitch * <int64_t> sizeof(vec))
    bands = max(1, (most - q.a) // m + 1)
    q.row_parts = ceil_div(q.window_rows, bands)
    q.band_rows = ceil_div(q.window_rows, q.row_parts)
    q.row_parts = ceil_div(q.window_rows, q.band_rows)
    q.window_units = q.images * p.groups * q.c_blocks * (q.c_block // LANES) * q.row_parts * q.col_parts
    q.columns = <int64_t *> malloc(q.window_cols * sizeof(int64_t))
    if q.columns == NULL:
        return False
    for i in range(q.window_cols):
        q.columns[i] = i * q.c_block * sizeof(real)
    return True


cdef inline int64_t chunk_reals(const WinogradWeightPlan *q) noexcept nogil:
    """Of a plane of V and M, one group."""
    return q.images * (q.c_blocks * q.c_block * (q.rows + q.by - 1) * (q.cols + q.bx - 1) + q.p.O * q.rows * q.cols)


cdef int64_t transform_workspace(WinogradWeightPlan *q) noexcept nogil:
    """The workspace of a thread that makes V and M."""
    cdef int64_t rows = q.band_rows * q.m + q.a - q.m, gradients
    q.at_map = LINE
    q.at_fill = round_up(q.at_map + sizeof(ColumnMap) + q.band_pitch * sizeof(int64_t), LINE)
    q.at_band = q.at_fill + round_up((rows * q.band_pitch * LANES + LANES) * sizeof(real), LINE)
    gradients = q.at_fill + q.m * gradient_line(q) * sizeof(real)
    return max(q.at_band + rows * q.band_pitch * <int64_t> sizeof(vec), gradients)


cdef inline int64_t gradient_line(const WinogradWeightPlan *q) noexcept nogil:
    return odd_lines((q.images * q.rows * q.cols + LANES) * q.m)


cdef int64_t sums_workspace(WinogradWeightPlan *q) noexcept nogil:
    """The workspace of a thread that multiplies them."""
    cdef int64_t taps = q.p.H.k * q.p.W.k
    q.at_taps = LINE + round_up(q.o_block * q.planes * q.slots * q.width * sizeof(real), LINE)
    return q.at_taps + (taps + LANES) * sizeof(vec)


# ---------------------------------------------------------------- V and M

cdef void transform_chunk(const void *plan, int64_t unit, char *workspace, Progress *progress,
                          bint calling) noexcept nogil:
    cdef const WinogradWeightPlan *q = <const WinogradWeightPlan *> plan
    if unit < q.window_units:
        transform_windows(q, unit, workspace)
    else:
        transform_gradients(q, unit - q.window_units, workspace)


cdef void transform_windows(const WinogradWeightPlan *q, int64_t unit, char *workspace) noexcept nogil:
    """V of a vector of channels, some rows and columns of windows of one image."""
    cdef const Problem *p = q.p
    cdef ColumnMap *map = <ColumnMap *> (workspace + q.at_map)
    cdef real *fill = <real *> (workspace + q.at_fill)
    cdef real *band = <real *> (workspace + q.at_band)
    cdef const real *from_
    cdef real *to
    cdef vec square[LANES]
    cdef int64_t vectors = q.c_block // LANES, c, group, n, y, y_end, x, x_end, rows, cols, row, col, lane_step
    cdef int i
    x = unit % q.col_parts * q.band_cols
    unit //= q.col_parts
    y = unit % q.row_parts * q.band_rows
    unit //= q.row_parts
    c = unit % (q.c_blocks * vectors) * LANES
    unit //= q.c_blocks * vectors
    group = unit % p.groups
    n = unit // p.groups
    x_end, y_end = min(x + q.band_cols, q.x + q.bx - 1), min(y + q.band_rows, q.y + q.by - 1)
    if n >= q.n or x >= x_end or y >= y_end:
        return
    rows, cols = (y_end - y) * q.m + q.a - q.m, (x_end - x) * q.m + q.a - q.m
    map.sample = <int64_t *> (map + 1)
    map_columns(map, (q.x0 + x) * q.m - p.W.before, 1, cols, p.W.n, p.W.boundary, 1)
    lane_step = rows * q.band_pitch
    for i in range(LANES):
        if c + i < p.C:
            fill_rows(p, map, input_slice(p, q.n0 + n, group * p.C + c + i, 0, 0), (q.y0 + y) * q.m - p.H.before, 1,
                      rows, fill + i * lane_step, q.band_pitch, p.constant[0])
        else:
            fill_constant(fill + i * lane_step, lane_step, 0)
    for row in range(rows):
        col = 0
        while col < cols:
            from_ = fill + row * q.band_pitch + col
            for i in range(LANES):
                square[i] = (<const vec *> (from_ + i * lane_step))[0]
            transpose_square(square)
            to = band + (row * q.band_pitch + col) * LANES
            for i in range(LANES):
                (<vec *> (to + i * LANES))[0] = square[i]
            col += LANES
    to = q.v + ((group * q.c_blocks + c // q.c_block) * q.planes * q.v_plane
                + (n * q.window_rows * q.window_cols + x) * q.c_block + c % q.c_block)
    for row in range(y, y_end):
        for col in range(x_end - x):
            q.f.window(band + ((row - y) * q.band_pitch + col) * q.m * LANES, q.band_pitch * LANES, LANES,
                       to + (row * q.window_cols + col) * q.c_block, q.v_plane)


cdef void transform_gradients(const WinogradWeightPlan *q, int64_t channel, char *workspace) noexcept nogil:
    """M of one output channel: the rows of all tiles in m lines, with zeros where a tile reaches past the output."""
    cdef const Problem *p = q.p
    cdef real *lines = <real *> (workspace + q.at_fill)
    cdef real *to
    cdef const char *g
    cdef int64_t line = gradient_line(q), n, ty, i, y, length = q.x * q.m, at = 0
    cdef int64_t cols = min(length, p.W.on - q.x0 * q.m)
    cdef bint plain = q.gradient.plain and q.gradient.code == REAL_CODE and p.W.y_step == sizeof(real)
    for n in range(q.n):
        for ty in range(q.y):
            g = output_slice(p, q.n0 + n, channel, 0) + q.x0 * q.m * p.W.y_step
            for i in range(q.m):
                y = (q.y0 + ty) * q.m + i
                to = lines + i * line + at
                if y >= p.H.on:
                    memset(to, 0, length * sizeof(real))
                    continue
                if plain:
                    copy_reals(to, <const real *> (g + y * p.H.y_step), cols)
                else:
                    load_any(&q.gradient, to, g + y * p.H.y_step, p.W.y_step, cols)
                memset(to + cols, 0, (length - cols) * sizeof(real))
            at += length
    q.f.spread(lines, line, ceil_div(q.n * q.y * q.x, LANES),
               q.gradients + (channel // p.O * q.planes * q.m_plane + channel % p.O * q.m_line), q.m_plane)


# ---------------------------------------------------------------- their products

cdef void multiply_chunk(const void *plan, int64_t unit, char *workspace, Progress *progress,
                         bint calling) noexcept nogil:
    """The gradients of a block of weights, from their planes."""
    cdef const WinogradWeightPlan *q = <const WinogradWeightPlan *> plan
    cdef const Problem *p = q.p
    cdef real *sums = <real *> (workspace + LINE)
    cdef const char *v
    cdef const real *m
    cdef int64_t o0 = unit % q.o_blocks * q.o_block, o1 = min(p.O, o0 + q.o_block), c, group, i
    unit //= q.o_blocks
    c = unit % q.c_blocks * q.c_block
    group = unit // q.c_blocks
    v = <const char *> (q.v + unit * q.planes * q.v_plane)
    m = q.gradients + group * q.planes * q.m_plane + o0 * q.m_line
    for i in range(q.planes):
        multiply_plane(q, v, m, o1 - o0, sums + i * q.slots * q.width)
        v += q.v_plane * sizeof(real)
        m += q.m_plane
    for i in range(o0, o1):
        add_taps(q, workspace, sums, group * p.O + i, c, min(q.c_block, p.C - c))
        sums += q.planes * q.slots * q.width


cdef void multiply_plane(const WinogradWeightPlan *q, const char *v, const real *m, int64_t outputs,
                         real *sums) noexcept nogil:
    cdef const ChannelTiles *tiles
    cdef int64_t position = q.c_block * sizeof(real), row = q.window_cols * position, image = q.window_rows * row
    cdef int64_t lds = q.planes * q.slots * q.width, vectors = q.width // LANES, o = 0, slot, v0, strips, n
    # Where windows and tiles follow one another alike, all of them are one line.
    cdef bint line = q.blocks == 1 and q.x == q.window_cols and (q.y == q.window_rows or q.n == 1)
    cdef int i = 0, j
    while o < outputs:
        while CHANNEL_TILES[i].R > outputs - o or CHANNEL_TILES[i].R > LARGEST_R:
            i += 1
        tiles = &CHANNEL_TILES[i]
        for slot in range(q.slots):
            v0 = 0
            while v0 < vectors:
                j = 0
                while tiles.NV[j] > vectors - v0:
                    j += 1
                if j == 0 and vectors - v0 > tiles.NV[0] and vectors - v0 <= 2 * tiles.NV[1]:
                    j = 1
                strips = (vectors - v0) // tiles.NV[j] if j == 0 else 1
                if j == 0 and strips > 1 and 0 < (vectors - v0) % tiles.NV[0] <= 2 * tiles.NV[1] - tiles.NV[0]:
                    strips -= 1      # leave two short tiles
                if line:
                    tiles.run[j](v + v0 * sizeof(vec), strips, q.columns, 1, 1, 0, q.n * q.y * q.x, position,
                                 m + o * q.m_line, q.m_line, 0, NULL, False, sums + o * lds + v0 * LANES, lds)
                else:
                    for n in range(q.n):
                        tiles.run[j](v + n * image + slot * row + v0 * sizeof(vec), strips, q.columns, q.x, q.x, 0, q.y,
                                     row, m + o * q.m_line + n * q.y * q.x, q.m_line, 0, NULL, n > 0,
                                     sums + o * lds + slot * q.width + v0 * LANES, lds)
                v0 += strips * tiles.NV[j]
        o += tiles.R


cdef void add_taps(const WinogradWeightPlan *q, char *workspace, const real *sums, int64_t o, int64_t c,
                   int64_t channels) noexcept nogil:
    """One output channel's taps for input channels c to c + channels, from the sums of all planes."""
    cdef const Problem *p = q.p
    cdef vec *taps = <vec *> (workspace + q.at_taps)
    cdef vec *kept
    cdef vec g[MAX_TAPS]
    cdef vec check = vzero()
    cdef int64_t size = p.H.k * p.W.k, plane = q.slots * q.width, r = q.f.r, first = 0, ky, kx, i, j, b
    while first < channels:
        for b in range(q.blocks):
            ky, kx = b // q.bx * r, b % q.bx * r
            q.f.gather(sums + b * q.c_block + first, plane, g)
            for i in range(min(r, p.H.k - ky)):
                for j in range(min(r, p.W.k - kx)):
                    taps[(ky + i) * p.W.k + kx + j] = g[i * r + j]
        if q.kept != NULL:
            kept = <vec *> q.kept + (o * ceil_div(p.C, LANES) + (c + first) // LANES) * size
            for i in range(size):
                if not q.first:
                    taps[i] = kept[i] + taps[i]
                if not q.last:
                    kept[i] = taps[i]
        if q.last:
            for i in range(size):
                check += taps[i] * <real> 0
            turn_taps(<const real *> taps, LANES, size, q.dw + (o * p.C + c + first) * size, channels - first)
        first += LANES
    if any_not_zero(&check):
        fetch_add(<int64_t *> &q.wrong, 1)


def winograd_weight_gradient(cnp.ndarray x not None, cnp.ndarray g not None, cnp.ndarray dw not None, int n_batch,
                             int64_t groups, tuple before, tuple boundary, double constant, int workers, int m, int r):
    """`weight_gradient` at stride 1 by F(m, r), with one block of taps unless m == r. Whether all of it is finite."""
    cdef Problem p
    cdef WinogradWeightPlan q
    cdef Block block
    cdef tuple one = (1, 1)
    cdef int64_t size, rest, kept = 0, chunk, chunks
    cdef double products
    describe_problem(&p, x, dw, g, n_batch, groups, one, one, before, boundary, constant, 0.0, 1, False, 1, None)
    memset(&block, 0, sizeof(block))
    if not plan_winograd_weights(&q, &p, m, r, workers):
        raise MemoryError("the workspace of this gradient does not fit in memory")
    try:
        describe_source(&q.gradient, g)
        q.dw = <real *> cnp.PyArray_DATA(dw)
        chunks = q.image_chunks * q.row_chunks * q.col_chunks
        size = groups * q.planes * q.c_blocks * q.v_plane
        rest = groups * q.planes * q.m_plane
        if chunks > 1:
            kept = groups * p.O * round_up(p.C, LANES) * p.H.k * p.W.k
        block = take_block((kept + size + rest) * sizeof(real))
        q.v = <real *> block.start + kept
        q.gradients = q.v + size
        if chunks > 1:
            q.kept = <real *> block.start
        for chunk in range(chunks):
            q.first, q.last = chunk == 0, chunk == chunks - 1
            q.x0 = chunk % q.col_chunks * q.cols
            q.x = min(q.cols, q.tiles_x - q.x0)
            q.y0 = chunk // q.col_chunks % q.row_chunks * q.rows
            q.y = min(q.rows, q.tiles_y - q.y0)
            q.n0 = chunk // q.col_chunks // q.row_chunks * q.images
            q.n = min(q.images, p.N - q.n0)
            products = multiply_adds(&p) / chunks
            run_units(transform_chunk, &q, q.window_units + groups * p.O, transform_workspace(&q), products, workers)
            run_units(multiply_chunk, &q, groups * q.c_blocks * q.o_blocks, sums_workspace(&q), products, workers)
        return q.wrong == 0
    finally:
        if block.start != NULL:
            give_back(block)
        free(q.columns)
