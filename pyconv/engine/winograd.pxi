# Nested Winograd convolution: fewer multiplications, by transforms (winograd.h has these and their source).
#
# The output is cut into tiles of m x m, the kernel into blocks of r x r. Each a x a window of the input, a = m + r - 1
# and m apart, is transformed into a * a numbers; number i of all windows is plane i, an image with a pixel for each
# tile. The weights are transformed likewise, and plane i of the output is an ordinary convolution of plane i of the
# input: over all channels, with one tap for each block of the kernel. With more than one block m = r, so that a block
# further is a tile further and all blocks share the windows. So the sums are the work of the tiles of tile.pxi.
#
#    input rows --B along rows--> row planes (i, j) --B down columns--> planes (i, j) of all channels, V
#                                                                            | tiles: one convolution a plane
#    output rows <--A along both axes, bias, clipped-- sums (i, j) of some output channels, S
#
# The tiles of a block of columns follow one another in one line, row after row and image after image (`pitch` apart;
# kernel blocks need further tiles at the ends of rows and columns). A unit is (block of output channels, span of the
# line, block of columns, group). With one output channel a group a unit is whole rows of tiles of one image, and the
# tile is that of rows. The order of every sum is fixed, so bits depend on nothing else.
#
# Dilated by d, the outputs of one residue modulo d are an ordinary convolution of samples that are d apart, along each
# axis. The residues of an image's rows follow one another like images (so `maps`), those of its columns tile by tile:
# tile 0 of every residue, tile 1 of every residue. So the samples that vectors of tiles need are runs of d neighbours.

# At stride s, the samples of one residue modulo s meet the taps of one residue, and are an ordinary convolution with
# these. Their sum over all residues, the phases, is one convolution too, in which each phase of a channel is a channel
# of its own. Where a phase has fewer taps than r, its weights in the planes of the point infinity, the last taps, are
# zero: there these channels are left out, and phases are in such an order that the others follow one another.

cdef extern from "winograd.h" nogil:
    ctypedef struct WinogradTransforms:
        int m, r, a
        void (*row)(const real *, int64_t, real *, real *, int64_t) noexcept nogil
        void (*lines)(const real *, int64_t, int64_t, int64_t, real *, real *, int64_t) noexcept nogil
        void (*columns)(const real *, int64_t, int64_t, real *, int64_t) noexcept nogil
        void (*back)(const real *, int64_t, int64_t, real, real *, int64_t, vec *) noexcept nogil
        void (*parted)(const real *, int64_t, int64_t, real, real *, int64_t, vec *) noexcept nogil
        void (*weights)(const vec *, real *, int64_t) noexcept nogil
    const WinogradTransforms *find_variant(int, int)
    int any_not_zero(const vec *)
    void gather_runs(real *, const real *, int64_t, int64_t, int64_t)
    void scatter_runs(real *, int64_t, const real *, int64_t, int64_t)
    enum:
        MAX_A "PYCONV_MAX_A"
        MAX_M "PYCONV_MAX_M"
        MAX_TAPS "PYCONV_MAX_TAPS"

cdef enum:
    PLANES_BYTES = 16777216          # V and S of all threads
    LEAST_PLANES_BYTES = 1048576     # of a thread
    ROW_PLANES_BYTES = 4194304       # the same, at most, with one output channel a group
    STORED_AT_ONCE = 8               # vectors of tiles
    LEAST_SPAN = 3                   # vectors
    COPIED_AT_ONCE = 8               # rows that are strided or dilated


cdef struct StridePhases:            # those of both axes, stride_y * stride_x of them, or as many as there are taps
    int64_t stride_y, stride_x
    int64_t along_y, along_x
    int64_t full_y, full_x           # how many of them have the most taps: the first ones


cdef StridePhases stride_phases(int64_t kh, int64_t kw, int64_t stride_y, int64_t stride_x) noexcept nogil:
    cdef StridePhases f
    f.stride_y, f.stride_x = stride_y, stride_x
    f.along_y, f.along_x = min(stride_y, kh), min(stride_x, kw)
    f.full_y, f.full_x = (kh - 1) % stride_y + 1, (kw - 1) % stride_x + 1
    return f


cdef inline int64_t phase_place(const StridePhases *f, int64_t y, int64_t x) noexcept nogil:
    """Where phase (y, x) comes: full along y only, along both axes, along x only, along none."""
    cdef int64_t part_x = f.along_x - f.full_x
    if y < f.full_y:
        return y * part_x + x - f.full_x if x >= f.full_x else f.full_y * part_x + y * f.full_x + x
    y -= f.full_y
    return (f.full_y * f.along_x + y * f.full_x + x if x < f.full_x
            else f.full_y * f.along_x + (f.along_y - f.full_y) * f.full_x + y * part_x + x - f.full_x)


cdef struct WinogradPlan:
    Problem *p
    const WinogradTransforms *f
    int64_t m, a, planes
    const real *u                    # transformed weights: group, plane, output channel, input channel, block
    int64_t u_plane
    StridePhases phases
    int64_t C                        # input channels of a group, each phase one
    int64_t by, bx, blocks           # of a phase's kernel
    int64_t residues_y, residues_x   # modulo the dilation, that some output has
    int64_t maps                     # images, and residues of their rows
    int64_t tiles_y, tiles_x         # of one residue
    bint by_rows
    bint parted                      # columns are dilated
    int64_t stored[MAX_M]            # parted, for column j of tiles: how many of a row have it in the output
    int64_t cols, col_blocks         # tiles, of all residues of columns
    int64_t pitch, map_rows          # tiles from row to row, rows from map to map
    int64_t line                     # tiles from first to last
    int64_t span, spans              # tiles
    int64_t o_block, o_blocks
    int64_t row_plane, v_line, v_plane, s_line
    int64_t *taps
    char *bad                        # units in which an output is not finite
    int64_t units
    int64_t row_samples, sample_line  # parted: of a band row, and from line to line of its samples
    int64_t row_copy                 # reals from one copied row to the next
    int64_t map_size                 # bytes of one phase's map of columns
    int64_t at_map, at_row, at_lines, at_rows, at_planes, at_sums, at_pixels, at_table, workspace


cdef inline int64_t odd_lines(int64_t n) noexcept nogil:
    """n reals, rounded up to an odd number of cache lines: such planes do not compete for the same cache sets."""
    cdef int64_t line = LINE // sizeof(real)
    n = ceil_div(n, line)
    return (n + 1 - n % 2) * line


cdef bint plan_winograd(WinogradPlan *q, Problem *p, int64_t u_plane, int m, int r, int workers) noexcept nogil:
    """False: out of memory."""
    cdef int64_t budget, reach, vectors, samples, i
    memset(q, 0, sizeof(WinogradPlan))
    q.p, q.u_plane = p, u_plane
    q.f = find_variant(m, r)
    q.m, q.a, q.planes = m, q.f.a, q.f.a * q.f.a
    q.phases = stride_phases(p.H.k, p.W.k, p.H.s, p.W.s)
    q.C = p.C * q.phases.along_y * q.phases.along_x
    q.by, q.bx = ceil_div(ceil_div(p.H.k, p.H.s), r), ceil_div(ceil_div(p.W.k, p.W.s), r)
    q.blocks = q.by * q.bx
    q.residues_y, q.residues_x = min(p.H.d, p.H.on), min(p.W.d, p.W.on)
    q.maps = p.N * q.residues_y
    q.tiles_y, q.tiles_x = ceil_div(ceil_div(p.H.on, p.H.d), m), ceil_div(ceil_div(p.W.on, p.W.d), m)
    q.map_rows = q.tiles_y + q.by - 1
    q.parted = p.W.d > 1
    q.by_rows = p.O == 1 and p.H.d == p.W.d == p.H.s == p.W.s == 1
    q.o_block, q.o_blocks = p.O, 1
    if p.N * p.groups * p.O * q.tiles_y * q.tiles_x == 0:
        return True
    if q.parted and <double> p.W.d * (q.tiles_x + q.bx + 2) * m * sizeof(int64_t) > LARGEST_WORKSPACE:
        return False
    q.taps = <int64_t *> malloc(q.blocks * sizeof(int64_t))
    if q.taps == NULL:
        return False
    budget = max(PLANES_BYTES // workers, LEAST_PLANES_BYTES)
    if q.by_rows:
        budget = min(budget, ROW_PLANES_BYTES)
    budget //= <int64_t> sizeof(real)
    budget = budget // (q.planes * (q.C + p.O))
    if q.by_rows:
        size_rows(q, budget, workers)
    else:
        size_spans(q, budget, workers)
    for i in range(q.blocks):
        q.taps[i] = (i // q.bx * q.pitch + i % q.bx * q.residues_x) * sizeof(real)
    reach = line_reach(q)
    samples = (q.pitch + 2 * LANES) * m + 2 * LANES
    if q.parted:
        for i in range(m):
            q.stored[i] = tiles_with_column(q, i)
        q.row_samples = p.W.d * (q.tiles_x + q.bx) * m
        q.sample_line = round_up(q.pitch + q.residues_x + LANES, LANES)
        samples = q.row_samples + 2 * LANES
    q.row_copy = round_up(samples, LANES)
    vectors = ceil_div(q.span, LANES)
    q.v_line = round_up(vectors * LANES + reach, LANES)
    q.v_plane = odd_lines(q.C * q.v_line + MAX_NV * LANES)
    q.s_line = odd_lines((vectors + ROW_NV) * LANES)
    q.row_plane = odd_lines((ceil_div(q.span + reach, q.pitch) + 2) * q.pitch + 4 * LANES)
    q.at_map = LINE
    q.map_size = sizeof(ColumnMap) + samples * sizeof(int64_t)
    q.at_row = round_up(q.at_map + q.phases.along_x * q.map_size, LINE)
    q.at_lines = round_up(q.at_row + COPIED_AT_ONCE * q.row_copy * sizeof(real), LINE)
    q.at_rows = q.at_lines + m * q.sample_line * sizeof(real)
    q.at_planes = q.at_rows + q.planes * q.row_plane * sizeof(real)
    q.at_sums = q.at_planes + q.planes * q.v_plane * sizeof(real)
    q.at_pixels = q.at_sums + q.o_block * q.planes * q.s_line * sizeof(real)
    q.at_table = q.at_pixels + m * m * STORED_AT_ONCE * sizeof(vec)
    q.workspace = q.at_table + (q.span // q.pitch + q.by + 8) * q.C * sizeof(void *)
    q.bad = <char *> malloc(q.units)
    if q.bad == NULL:
        free_winograd(q)
        return False
    memset(q.bad, 0, q.units)
    return True


cdef inline int64_t line_reach(const WinogradPlan *q) noexcept nogil:
    """How far behind a tile of the line those that blocks of its kernel read lie."""
    return (q.by - 1) * q.pitch + (q.bx - 1) * q.residues_x


cdef int64_t tiles_with_column(const WinogradPlan *q, int64_t j) noexcept nogil:
    """How many tiles of a row, counted from the first, have their column j in the output; columns are dilated."""
    cdef int64_t d = q.p.W.d, columns = max(q.p.W.on - d * j, 0), whole = columns // (d * q.m)
    return whole * q.residues_x + min(columns - whole * d * q.m, q.residues_x)


cdef void size_spans(WinogradPlan *q, int64_t budget, int workers) noexcept nogil:
    cdef const Problem *p = q.p
    cdef int64_t vectors, units, most = max(LEAST_SPAN, budget // LANES)
    q.cols, q.col_blocks = q.tiles_x * q.residues_x, 1
    q.pitch = q.cols + (q.bx - 1) * q.residues_x
    q.line = ((q.maps - 1) * q.map_rows + q.tiles_y - 1) * q.pitch + q.cols
    vectors = ceil_div(q.line, LANES)
    q.spans = ceil_div(vectors, most)
    units = q.spans * p.groups
    if units % workers != 0 and units < 16 * workers and vectors >= 2 * workers:
        q.spans = ceil_div(round_up(units, workers), p.groups)
    q.span = ceil_div(vectors, q.spans) * LANES
    q.spans = ceil_div(q.line, q.span)
    units = q.spans * p.groups
    if units < workers:
        q.o_block = round_up(ceil_div(p.O, ceil_div(workers, units)), LARGEST_R)
        q.o_blocks = ceil_div(p.O, q.o_block)
        q.o_block = min(q.o_block, p.O)
    q.units = units * q.o_blocks


cdef void size_rows(WinogradPlan *q, int64_t budget, int workers) noexcept nogil:
    """Blocks of rows x columns of tiles, in which as few tiles as can be are computed twice."""
    cdef const Problem *p = q.p
    cdef int64_t cols, rows, best_rows = 1, pieces
    cdef double cost, best = FOREVER
    pieces = 1
    while True:
        cols = ceil_div(q.tiles_x, pieces)
        if pieces > 1:
            cols = round_up(cols + q.bx - 1, LANES) - q.bx + 1
        q.pitch = round_up(cols + q.bx - 1, LANES)
        rows = min(q.tiles_y, budget // q.pitch - q.by + 1)
        if rows >= 1 or cols <= 2 * LANES:
            rows = max(rows, 1)
            rows = ceil_div(q.tiles_y, ceil_div(q.tiles_y, rows))
            cost = (<double> (rows + q.by - 1) * q.pitch * ceil_div(q.tiles_y, rows) * ceil_div(q.tiles_x, cols))
            if cost < best:
                best, q.cols, best_rows = cost, cols, rows
        if cols <= 2 * LANES:
            break
        pieces += 1
    q.pitch = round_up(q.cols + q.bx - 1, LANES)
    q.col_blocks = ceil_div(q.tiles_x, q.cols)
    rows = best_rows
    if p.N * p.groups * q.col_blocks * ceil_div(q.tiles_y, rows) < 4 * workers:
        pieces = workers if workers == 1 else 2 * workers
        rows = ceil_div(q.tiles_y, max(1, ceil_div(pieces, p.N * p.groups * q.col_blocks)))
        rows = max(1, min(rows, best_rows))
    q.span = rows * q.pitch
    q.spans = ceil_div(q.tiles_y, rows) * p.N
    q.units = q.spans * q.col_blocks * p.groups


cdef void free_winograd(WinogradPlan *q) noexcept nogil:
    free(q.taps)
    free(q.bad)


cdef struct WinogradUnit:
    int64_t o0, o1, group
    int64_t x0, cols                 # tiles
    int64_t first, tiles             # the span, in tiles of the line


cdef WinogradUnit winograd_unit(const WinogradPlan *q, int64_t unit) noexcept nogil:
    cdef WinogradUnit u
    cdef int64_t rows, spans
    u.o0 = unit % q.o_blocks * q.o_block
    u.o1 = min(q.p.O, u.o0 + q.o_block)
    unit //= q.o_blocks
    if q.by_rows:                    # whole rows, within one image
        rows = q.span // q.pitch
        spans = ceil_div(q.tiles_y, rows)
        u.first = (unit % q.spans // spans * q.map_rows + unit % spans * rows) * q.pitch
        u.tiles = min(q.span, (q.tiles_y - unit % spans * rows) * q.pitch)
    else:
        u.first = unit % q.spans * q.span
        u.tiles = min(q.span, q.line - u.first)
    unit //= q.spans
    u.x0 = unit % q.col_blocks * q.cols
    u.cols = min(q.cols, q.tiles_x * q.residues_x - u.x0)
    u.group = unit // q.col_blocks
    return u


cdef void transform_input(const WinogradPlan *q, const WinogradUnit *u, char *workspace) noexcept nogil:
    """V of all input channels."""
    cdef const Problem *p = q.p
    cdef const WinogradTransforms *f = q.f
    cdef ColumnMap *map
    cdef real *row_copy = <real *> (workspace + q.at_row)
    cdef real *lines = <real *> (workspace + q.at_lines)
    cdef real *rows = <real *> (workspace + q.at_rows)
    cdef real *planes = <real *> (workspace + q.at_planes)
    cdef real *to
    cdef real *also
    cdef const real *row = row_copy
    cdef const char *slice
    cdef const char *from_
    cdef int64_t reach = line_reach(q)
    cdef int64_t first_row = u.first // q.pitch, last_row = (u.first + u.tiles - 1 + reach) // q.pitch
    cdef int64_t vectors = ceil_div(q.pitch, LANES), length = (u.cols + q.bx - 1) * q.m + q.a - q.m
    cdef int64_t read = (vectors * q.m * LANES + q.m) * sizeof(real)
    cdef int64_t c, g, l, y, y_tile, end, ty, first, step, rows_left, copied, i, j, phase_y, phase_x
    cdef bint plain = p.source.plain and p.source.code == REAL_CODE and p.W.x_step == sizeof(real) and p.W.s == 1
    if q.parted:
        length, read = q.row_samples, (q.row_samples + LANES) * sizeof(real)
    for phase_x in range(q.phases.along_x):
        map = <ColumnMap *> (workspace + q.at_map + phase_x * q.map_size)
        map.sample = <int64_t *> (map + 1)
        map_columns(map, u.x0 * q.m * p.W.s + phase_x - p.W.before, p.W.s, length, p.W.n, p.W.boundary, 1)
        plain = plain and map.inner == 0 and map.inner_end == length
    for i in range(p.C * q.phases.along_y * q.phases.along_x):
        phase_x, phase_y = i % q.phases.along_x, i // q.phases.along_x % q.phases.along_y
        c = i // (q.phases.along_x * q.phases.along_y)
        map = <ColumnMap *> (workspace + q.at_map + phase_x * q.map_size)
        l = first_row
        while l <= last_row:         # the rows of one map
            g = l // q.map_rows
            if g >= q.maps:
                break
            ty = l - g * q.map_rows
            end = min(q.map_rows, ty + last_row - l + 1)
            slice = input_slice(p, g // q.residues_y, u.group * p.C + c, 0, 0)
            first = g % q.residues_y + phase_y - p.H.before
            y, y_tile = 0, ty        # row y of the tiles in row y_tile
            step = p.H.d * p.H.s
            rows_left = (end - 1 - ty) * q.m + q.a
            first += ty * q.m * step
            copied = 0
            while rows_left > 0:
                from_ = input_row(p, slice, first) if plain else NULL
                if from_ != NULL and from_ + map.start * sizeof(real) + read <= p.source.end:
                    row = <const real *> from_ + map.start
                elif plain:
                    fill_row(&p.source, map, row_copy, from_, p.W.x_step, p.constant[c % p.x_parts])
                    row = row_copy
                else:
                    if copied == 0:
                        copied = min(rows_left, COPIED_AT_ONCE)
                        fill_rows(p, map, slice, first, step, copied, row_copy, q.row_copy, p.constant[c % p.x_parts])
                        row = row_copy
                    copied -= 1
                to = also = NULL
                if y_tile < end:
                    to = rows + y * q.a * q.row_plane + (l + y_tile - ty - first_row) * q.pitch
                if y_tile > ty and y + q.m < q.a:
                    also = rows + (y + q.m) * q.a * q.row_plane + (l + y_tile - 1 - ty - first_row) * q.pitch
                if to == NULL:
                    to, also = also, NULL
                if q.parted:
                    for j in range(q.m):
                        gather_runs(lines + j * q.sample_line, row + j * p.W.d, p.W.d * q.m, q.residues_x,
                                    q.tiles_x + q.bx)
                    f.lines(lines, q.sample_line, q.residues_x, vectors, to, also, q.row_plane)
                else:
                    f.row(row, vectors, to, also, q.row_plane)
                row += q.row_copy    # the next one, if it is copied
                first += step
                rows_left -= 1
                y += 1
                if y == q.m:
                    y = 0
                    y_tile += 1
            l += end - ty
        to = planes + (phase_place(&q.phases, phase_y, phase_x) * p.C + c) * q.v_line
        f.columns(rows + u.first - first_row * q.pitch, q.row_plane, q.v_line // LANES, to, q.v_plane)


cdef void sum_channels(const WinogradPlan *q, const WinogradUnit *u, char *workspace) noexcept nogil:
    """S: in each plane, a convolution of V."""
    cdef const Problem *p = q.p
    cdef const char *planes = workspace + q.at_planes
    cdef real *sums = <real *> (workspace + q.at_sums)
    cdef const ChannelTiles *tiles
    cdef int64_t i, o, at, left, strips, vectors = ceil_div(u.tiles, LANES), ldw = q.C * q.blocks
    cdef int64_t lds = q.planes * q.s_line, c, channels
    cdef int64_t full_x_first = 0, full_x_end = q.C, full_y_end = q.C
    cdef const real *w
    cdef int k, v
    if q.blocks == 1 and q.C > p.C:
        full_x_first = p.C * q.phases.full_y * (q.phases.along_x - q.phases.full_x)
        full_x_end = full_x_first + p.C * q.phases.along_y * q.phases.full_x
        full_y_end = p.C * q.phases.full_y * q.phases.along_x
    for i in range(q.planes):
        c, channels = 0, q.C
        if i % q.a == q.a - 1:
            c, channels = full_x_first, full_x_end
        if i // q.a == q.a - 1:
            channels = min(channels, full_y_end)
        channels -= c
        w = q.u + (u.group * q.planes + i) * q.u_plane + c * q.blocks
        o = u.o0
        k = 0
        while o < u.o1:
            while CHANNEL_TILES[k].R > u.o1 - o or CHANNEL_TILES[k].R > LARGEST_R:
                k += 1
            tiles = &CHANNEL_TILES[k]
            at = 0
            while at < vectors:
                left = vectors - at
                v = 0
                while tiles.NV[v] > left:
                    v += 1
                if v == 0 and left > tiles.NV[0] and left <= 2 * tiles.NV[1]:
                    v = 1
                strips = left // tiles.NV[0] if v == 0 else 1
                if v == 0 and left % tiles.NV[0] != 0 and strips > 1:
                    strips -= 1
                tiles.run[v](planes + (i * q.v_plane + c * q.v_line + at * LANES) * sizeof(real), strips, q.taps,
                             q.blocks, q.blocks, 0, channels, q.v_line * sizeof(real), w + o * ldw, ldw, 0, NULL, False,
                             sums + ((o - u.o0) * q.planes + i) * q.s_line + at * LANES, lds)
                at += strips * tiles.NV[v]
            o += tiles.R


cdef void sum_rows(const WinogradPlan *q, const WinogradUnit *u, char *workspace) noexcept nogil:
    """S of one output channel: each row of V, once loaded, feeds several rows of sums."""
    cdef const Problem *p = q.p
    cdef const real *planes = <const real *> (workspace + q.at_planes)
    cdef real *sums = <real *> (workspace + q.at_sums)
    cdef const char **table = <const char **> (workspace + q.at_table)
    cdef int64_t rows = u.tiles // q.pitch, in_rows = rows + q.by - 1 + 8
    cdef int64_t i, c, l, y, x, vectors = q.pitch // LANES, n
    cdef int R, best, k
    best = 4 if q.by >= 4 else 2 if q.by >= 2 else 1
    for i in range(q.planes):
        for c in range(p.C):
            for l in range(in_rows):
                table[c * in_rows + l] = <const char *> (planes + i * q.v_plane + c * q.v_line
                                                         + min(l, rows + q.by - 2) * q.pitch)
        y = 0
        while y < rows:
            R = best
            while R > rows - y:
                R //= 2
            x = 0
            while x < vectors:
                k = 0
                while ROW_WIDTHS[k] > vectors - x:
                    k += 1
                n = (vectors - x) // ROW_WIDTHS[k] if k == 0 else 1
                ROW_TILES[R][k](table, y, 1, p.C, in_rows, q.by, q.bx, sizeof(real),
                                q.u + (u.group * q.planes + i) * q.u_plane, NULL, True, x * sizeof(vec), n,
                                sums + i * q.s_line + y * q.pitch + x * LANES, q.pitch)
                x += n * ROW_WIDTHS[k]
            y += R


cdef void store_pixels(const WinogradPlan *q, const WinogradUnit *u, int64_t o, const real *pixels, int64_t first,
                       int64_t tiles) noexcept nogil:
    """Tiles first to first + tiles of the line, m lines of pixels, to where they stand in the output."""
    cdef const Problem *p = q.p
    cdef int64_t l = first // q.pitch, x = first - l * q.pitch, g, ty, count, i, residue
    cdef int64_t done = 0, line = q.m * STORED_AT_ONCE * LANES
    cdef char *y
    while done < tiles:
        g = l // q.map_rows
        ty = l - g * q.map_rows
        if q.parted:
            if ty < q.tiles_y:
                store_parted(q, u, o, pixels + done - x, g, ty, x, min(u.cols, x + tiles - done))
            done += q.pitch - x
            x = 0
            l += 1
            continue
        count = min(min(u.cols - x, tiles - done) * q.m, p.W.on - (u.x0 + x) * q.m)
        if count > 0 and ty < q.tiles_y:
            residue = g % q.residues_y
            y = (output_slice(p, g // q.residues_y, u.group * p.O + o, 0) + (residue + ty * q.m * p.H.d) * p.H.y_step
                 + (u.x0 + x) * q.m * p.W.y_step)
            for i in range(min(q.m, ceil_div(p.H.on - residue, p.H.d) - ty * q.m)):
                if p.y_direct:
                    copy_reals(<real *> y, pixels + i * line + done * q.m, count)
                else:
                    store(p.y_code, y, p.W.y_step, pixels + i * line + done * q.m, count)
                y += p.H.d * p.H.y_step
        done += q.pitch - x
        x = 0
        l += 1


cdef void store_parted(const WinogradPlan *q, const WinogradUnit *u, int64_t o, const real *pixels, int64_t g,
                       int64_t ty, int64_t x, int64_t end) noexcept nogil:
    """The same of tiles x to end of one row of map g, a line for each pixel of theirs, where columns are dilated."""
    cdef const Problem *p = q.p
    cdef int64_t d = p.W.d, run = q.residues_x, i, j, k, last, tile, count
    cdef int64_t row = g % q.residues_y + ty * q.m * p.H.d
    cdef char *y = output_slice(p, g // q.residues_y, u.group * p.O + o, 0) + row * p.H.y_step
    cdef char *to
    cdef const real *line
    for i in range(min(q.m, ceil_div(p.H.on - row, p.H.d))):
        for j in range(q.m):
            line = pixels + (i * q.m + j) * STORED_AT_ONCE * LANES
            last = min(end, q.stored[j])
            k = x
            while k < last:
                tile = k // run
                to = y + ((tile * q.m + j) * d + k - tile * run) * p.W.y_step
                count = min(last, (tile + 1) * run) - k
                if not p.y_direct:
                    store(p.y_code, to, p.W.y_step, line + k, count)
                elif count == run:
                    count = (last - k) // run
                    scatter_runs(<real *> to, d * q.m, line + k, run, count)
                    count *= run
                else:
                    copy_reals(<real *> to, line + k, count)
                k += count
        y += p.H.d * p.H.y_step


cdef void run_winograd_unit(const void *plan, int64_t unit, char *workspace, Progress *progress,
                            bint calling) noexcept nogil:
    cdef const WinogradPlan *q = <const WinogradPlan *> plan
    cdef const Problem *p = q.p
    cdef WinogradUnit u = winograd_unit(q, unit)
    cdef int64_t *held = <int64_t *> workspace       # whose V the workspace holds
    cdef real *pixels = <real *> (workspace + q.at_pixels)
    cdef const real *sums = <const real *> (workspace + q.at_sums)
    cdef int64_t o, at, n, vectors = ceil_div(u.tiles, LANES)
    cdef vec check = vzero()
    cdef real bias
    if held[0] == NOTHING_HELD:      # what lies between rows goes through the sums: it must not be NaN by chance
        memset(workspace + q.at_row, 0, q.at_planes - q.at_row)
    if held[0] != unit // q.o_blocks:
        transform_input(q, &u, workspace)
        held[0] = unit // q.o_blocks
    if q.by_rows:
        sum_rows(q, &u, workspace)
    else:
        sum_channels(q, &u, workspace)
    for o in range(u.o0, u.o1):
        bias = p.bias[u.group * p.O + o] if p.bias != NULL else <real> 0
        at = 0
        while at < vectors:
            n = min(vectors - at, STORED_AT_ONCE)
            if q.parted:
                q.f.parted(sums + (o - u.o0) * q.planes * q.s_line + at * LANES, q.s_line, n, bias, pixels,
                           STORED_AT_ONCE * LANES, &check)
            else:
                q.f.back(sums + (o - u.o0) * q.planes * q.s_line + at * LANES, q.s_line, n, bias, pixels,
                         q.m * STORED_AT_ONCE * LANES, &check)
            store_pixels(q, &u, o, pixels, u.first + at * LANES, min(n * LANES, u.tiles - at * LANES))
            at += n
    q.bad[unit] = any_not_zero(&check)


# ---------------------------------------------------------------- weights

cdef struct WeightTransform:
    const WinogradTransforms *f
    const real *w
    real *u
    StridePhases phases
    int64_t O, C, kh, kw             # O and C: of one group
    int64_t by, bx                   # blocks of a phase's kernel
    int64_t outputs                  # of all groups
    int64_t o_step, c_step           # reals from channel to channel of w
    bint flipped                     # taps from last to first
    int64_t plane                    # reals from plane to plane of u


cdef void describe_weights(WeightTransform *q, cnp.ndarray w, int64_t groups, tuple stride, int m, int r,
                           bint exchanged):
    q.f = find_variant(m, r)
    q.w = <const real *> cnp.PyArray_DATA(w)
    q.O, q.C, q.kh, q.kw = w.shape[0] // groups, w.shape[1], w.shape[2], w.shape[3]
    q.o_step, q.c_step, q.flipped = q.C * q.kh * q.kw, q.kh * q.kw, exchanged
    if exchanged:
        q.O, q.C, q.o_step, q.c_step = q.C, q.O, q.c_step, q.o_step
    q.outputs = groups * q.O
    q.phases = stride_phases(q.kh, q.kw, stride[0], stride[1])
    q.by = ceil_div(ceil_div(q.kh, q.phases.stride_y), r)
    q.bx = ceil_div(ceil_div(q.kw, q.phases.stride_x), r)
    q.plane = odd_lines(q.O * q.C * q.phases.along_y * q.phases.along_x * q.by * q.bx)


cdef void transform_weights(const void *plan, int64_t unit, char *workspace, Progress *progress,
                            bint calling) noexcept nogil:
    """The weights of one output channel."""
    cdef const WeightTransform *q = <const WeightTransform *> plan
    cdef const StridePhases *phases = &q.phases
    cdef int64_t y, x
    for y in range(phases.along_y):
        for x in range(phases.along_x):
            transform_phase(q, unit, y, x)


cdef void transform_phase(const WeightTransform *q, int64_t unit, int64_t phase_y, int64_t phase_x) noexcept nogil:
    """Those of one phase, vectors of input channels at a time."""
    cdef const WinogradTransforms *f = q.f
    cdef const StridePhases *phases = &q.phases
    cdef int64_t size = q.kh * q.kw, blocks = q.by * q.bx
    cdef int64_t first = unit // q.O * q.O * q.C * size + unit % q.O * q.o_step, end = q.outputs * q.C * size
    cdef const real *w = q.w + first
    cdef real *u = q.u + (unit // q.O * f.a * f.a * q.plane
                          + (unit % q.O * phases.along_y * phases.along_x + phase_place(phases, phase_y, phase_x))
                          * q.C * blocks)
    cdef vec taps[LANES]
    cdef vec g[MAX_TAPS]
    cdef real transformed[MAX_A * MAX_A * LANES]
    cdef int64_t c = 0, ky, kx, i, j, k, n, b, at
    cdef bint turned
    while c < q.C:
        turned = size <= LANES and first + (c + LANES - 1) * q.c_step + LANES <= end and c + LANES <= q.C
        if turned:
            for i in range(LANES):
                taps[i] = (<const vec *> (w + (c + i) * q.c_step))[0]
            transpose_square(taps)
        for b in range(blocks):
            for i in range(f.r):
                for j in range(f.r):
                    k = i * f.r + j
                    ky = (b // q.bx * f.r + i) * phases.stride_y + phase_y
                    kx = (b % q.bx * f.r + j) * phases.stride_x + phase_x
                    at = ky * q.kw + kx
                    if q.flipped:
                        at = size - 1 - at
                    if turned and ky < q.kh and kx < q.kw:
                        g[k] = taps[at]
                        continue
                    g[k] = vzero()
                    if ky < q.kh and kx < q.kw:
                        for n in range(min(LANES, q.C - c)):
                            (<real *> &g[k])[n] = w[(c + n) * q.c_step + at]
            if blocks == 1 and c + LANES <= q.C:
                f.weights(g, u + c, q.plane)
                continue
            f.weights(g, transformed, LANES)
            for i in range(f.a * f.a):
                for j in range(min(LANES, q.C - c)):
                    u[i * q.plane + (c + j) * blocks + b] = transformed[i * LANES + j]
        c += LANES


def winograd_size(cnp.ndarray w not None, int64_t groups, tuple stride, int m, int r, bint exchanged):
    """The shape of transformed weights: a plane a row, padded."""
    cdef WeightTransform q
    describe_weights(&q, w, groups, stride, m, r, exchanged)
    return groups * q.f.a * q.f.a, q.plane


def winograd_weights(cnp.ndarray w not None, cnp.ndarray u not None, int64_t groups, tuple stride, int m, int r,
                     bint exchanged, int workers):
    """Fill u, of `winograd_size`, from w, (O, C // groups, kh, kw); both are C-contiguous."""
    cdef WeightTransform q
    describe_weights(&q, w, groups, stride, m, r, exchanged)
    q.u = <real *> cnp.PyArray_DATA(u)
    run_units(transform_weights, &q, q.outputs, 0, <double> cnp.PyArray_SIZE(u), workers)


def winograd(cnp.ndarray x not None, cnp.ndarray w not None, cnp.ndarray u, cnp.ndarray bias,
             cnp.ndarray out not None, int n_batch, int64_t groups, tuple stride, tuple dilation, tuple before,
             tuple boundary, double constant, int workers, int m, int r, cnp.ndarray order, bint run=True):
    """Correlate, with weights that are exchanged where there is an order. Without u they are transformed
    first. Returns the blocks, (image, group, first channel, last, rows, columns), in which some output is not finite,
    the last channel excluded; without `run`, the bytes of all workspaces."""
    cdef Problem p
    cdef WinogradPlan q
    cdef WeightTransform weights
    cdef Block block
    cdef int64_t size
    describe_problem(&p, x, w, out, n_batch, groups, stride, dilation, before, boundary, constant, 0.0, 1, False, 1,
                     order)
    p.bias = <const real *> cnp.PyArray_DATA(bias) if bias is not None else NULL
    describe_weights(&weights, w, groups, stride, m, r, order is not None)
    memset(&block, 0, sizeof(block))
    if not plan_winograd(&q, &p, weights.plane, m, r, workers):
        raise MemoryError("the workspace of this convolution does not fit in memory")
    try:
        if u is None and run:
            size = groups * q.planes * weights.plane
            size = max(<int64_t> 1, size)
            # Not the block that was, and will be, the workspace: two of them in turn do not stay in the caches.
            block = take_block(size * sizeof(real), 2 * size * sizeof(real))
            weights.u = <real *> block.start
            run_units(transform_weights, &weights, weights.outputs, 0, size, workers)
        q.u = weights.u
        if u is not None:
            q.u = <const real *> cnp.PyArray_DATA(u)
        size = execute_units(&p, run_winograd_unit, &q, q.units, q.workspace, workers, run)
        return bad_blocks(&q) if run else size
    finally:
        if block.start != NULL:
            give_back(block)
        free_winograd(&q)


cdef list bad_blocks(const WinogradPlan *q):
    cdef const Problem *p = q.p
    cdef WinogradUnit t
    cdef int64_t unit, first, last, g, top, end, d = p.H.d
    cdef list blocks = []
    for unit in range(q.units):
        if q.bad[unit]:
            t = winograd_unit(q, unit)
            first, last = t.first // q.pitch, (t.first + t.tiles - 1) // q.pitch
            columns = slice(t.x0 * q.m, min((t.x0 + t.cols) * q.m, p.W.on))
            for g in range(first // q.map_rows, min(last // q.map_rows + 1, q.maps)):
                top = max(first - g * q.map_rows, 0) * q.m * d + g % q.residues_y
                end = min(((last - g * q.map_rows + 1) * q.m - 1) * d + g % q.residues_y + 1, p.H.on)
                if top < end:
                    blocks.append((g // q.residues_y, t.group, t.o0, t.o1, slice(top, end, d), columns))
    return blocks
