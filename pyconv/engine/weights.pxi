# The gradient of the weights: dw[o, c, k] is the sum over images and positions j of g[o, j] * x[c, j * s + k * d - p].
#
# A chunk is a block of output rows x columns of one map; its input goes through a band. Chunks are summed in order, one
# split of them after the other: how many splits there are follows from the shapes alone, and so do the bits. Two plans:
#
# by lanes   Vectors over input channels. The band is turned, channels last, so that a position's channels (and those
#            of the next kernel columns, where they touch) are vectors, and the tile of tile.pxi multiplies them by the
#            gradients of R output channels, one position after the other. Its sums lie kernel first, channels last.
#            Positions where a tap reads nothing but zero padding are left out, if gradients are finite.
# by dots    Few input channels: vectors over output columns, R gradients x T taps of dot products, lanes added at the
#            end. Columns past a row's end are masked in both, since what the input holds there may be a NaN. Depthwise
#            3 x 3 layers at stride 2 read the rows where they lie, and part even and odd columns in registers.

cdef enum:
    CHUNK_BAND_BYTES = 393216
    CHUNK_COLUMNS = 1024             # by lanes: gradients of R channels stay in the L1 cache while all taps use them
    WEIGHT_SUMS_BYTES = 393216
    LANE_BYTES = 256                 # of the band, a position
    SPLITS = 8                       # as many units as this, where there are as many chunks
    DOT_SPLITS = 32
    PARTS_BYTES = 33554432           # a dw for each split, all together
    DOTS_BELOW = 12                  # input channels of a group
    QUADS_FROM = 2048                # samples of a chunk, for kernel rows by fours


cdef struct WeightPlan:
    ChannelPlan band                 # by dots: the band's geometry; by lanes: its problem and column phases
    Source gradient
    real *parts                      # one dw a split
    bint by_lanes
    int64_t rows, row_blocks, cols, col_blocks
    int64_t chunks, splits
    int64_t c_block, c_blocks, o_block, o_blocks
    int64_t lanes                    # a position's, at least c_block
    int64_t row_step, sy, col_step, sx       # samples from one band row (column) to the next; band rows an output row
    int64_t band_rows, band_cols
    int64_t slots, width             # vectors of `width` sums for each of `slots` kernel rows (or taps)
    int64_t fill_pitch
    int64_t units
    int64_t *columns                 # by lanes: byte offset of each output column
    bint strided                     # by dots, the input's rows read in place
    mask_vec *masks                  # then: for each kernel column, of the first vector of outputs; and of the last
    int64_t at_table
    int64_t at_band, at_fill, at_map, at_gradient, at_sums, workspace


cdef bint plan_weights(WeightPlan *q, Problem *p, int workers) noexcept nogil:
    """False: out of memory."""
    cdef int64_t taps = p.outer_taps * p.H.k * p.W.k, base, dots, i
    cdef double band                 # in 64 bits the size could wrap around
    q.band.p = p
    q.band.n_taps = taps
    q.by_lanes = p.C >= DOTS_BELOW
    if q.by_lanes:
        plan_lanes(q)
    elif not plan_dots(q):
        return False
    if q.by_lanes:
        band = (<double> p.outer_taps * q.lanes + LANES) * q.band_rows * q.band_cols
    else:
        band = <double> p.C * p.outer_taps * q.band.fy.count * q.band.fx.count * q.band.band_rows * q.band.pitch
    if band * sizeof(real) > LARGEST_WORKSPACE:
        return False
    q.row_blocks, q.col_blocks = ceil_div(p.H.on, q.rows), ceil_div(p.W.on, q.cols)
    q.chunks = p.N * p.outer_size * q.row_blocks * q.col_blocks
    base = p.groups * q.c_blocks
    q.splits = min(q.chunks, (SPLITS if q.by_lanes else DOT_SPLITS) // base)
    q.splits = max(1, min(q.splits, PARTS_BYTES // <int64_t> sizeof(real) // (p.groups * p.O * p.C * taps)))
    q.splits = ceil_div(q.chunks, ceil_div(q.chunks, q.splits))
    # How the output channels are shared out changes no sum, so it may depend on the threads.
    q.o_block = WEIGHT_SUMS_BYTES // (<int64_t> sizeof(real) * q.slots * q.width) // LARGEST_R * LARGEST_R
    q.o_block = max(q.o_block, LARGEST_R)
    if base * q.splits * ceil_div(p.O, q.o_block) < workers:
        q.o_block = min(q.o_block, round_up(ceil_div(p.O, ceil_div(workers, base * q.splits)), LARGEST_R))
    q.o_block = min(q.o_block, p.O)
    q.o_blocks = ceil_div(p.O, q.o_block)
    q.units = base * q.o_blocks * q.splits
    q.at_band = LINE
    if q.by_lanes:
        q.columns = <int64_t *> malloc(q.cols * sizeof(int64_t))
        if q.columns == NULL:
            return False
        for i in range(q.cols):
            q.columns[i] = i * q.sx * q.lanes * sizeof(real)
        q.at_fill = q.at_band + round_up(sizeof(real) * (p.outer_taps * q.band_rows * q.band_cols * q.lanes), LINE)
        q.at_map = q.at_fill + round_up(sizeof(real) * (LANES * q.band_rows * q.fill_pitch + MAX_NV * LANES), LINE)
        q.at_gradient = round_up(q.at_map + sizeof(ColumnMap) + q.fill_pitch * sizeof(int64_t), LINE)
        q.at_sums = q.at_gradient + round_up(sizeof(real) * q.o_block * q.rows * q.cols, LINE)
    else:
        q.at_map = q.at_band + round_up(sizeof(real) * (p.C * q.band.channel + MAX_NV * LANES), LINE)
        q.at_gradient = q.at_map + round_up(
            q.band.fx.count * (sizeof(ColumnMap) + q.band.pitch * sizeof(int64_t)), LINE)
        q.band.at_band, q.band.at_maps = q.at_band, q.at_map
        if q.strided:
            q.at_table = q.at_gradient
            q.at_gradient = round_up(q.at_table + q.band.band_rows * sizeof(char *), LINE)
        dots = q.rows * round_up(q.cols, LANES)
        q.at_sums = q.at_gradient + round_up(sizeof(real) * q.o_block * dots, LINE)
    q.workspace = q.at_sums + round_up(sizeof(real) * q.o_block * q.slots * q.width, LINE)
    if q.by_lanes:                   # whole squares of sums are read
        q.workspace += LANES * q.lanes * sizeof(real)
    return True


cdef void plan_lanes(WeightPlan *q) noexcept nogil:
    cdef const Problem *p = q.band.p
    cdef int64_t most = LANE_BYTES // sizeof(real)
    # Where there is one tap, the band holds just the samples that it reads.
    q.row_step = p.H.s if p.H.k == 1 else 1
    q.col_step = p.W.s if p.W.k == 1 else 1
    q.sy, q.sx = p.H.s // q.row_step, p.W.s // q.col_step
    while True:                      # fewer channels at once, where chunks would be too short for the sums passed on
        q.c_blocks = ceil_div(p.C, most)
        q.c_block = q.lanes = round_up(ceil_div(p.C, q.c_blocks), LANES)
        q.c_blocks = ceil_div(p.C, q.c_block)
        cut_chunks(q)
        most = q.lanes // 2
        if q.rows * q.cols >= min(ENOUGH_COLUMNS, p.H.on * p.W.on) or most < LANES:
            break
    if p.W.d == 1 or p.W.k == 1:
        q.slots, q.width = p.outer_taps * p.H.k, p.W.k * q.lanes
    else:
        q.slots, q.width = q.band.n_taps, q.lanes


cdef void cut_chunks(WeightPlan *q) noexcept nogil:
    """The largest chunks whose band fits."""
    cdef const Problem *p = q.band.p
    cdef int64_t budget = CHUNK_BAND_BYTES // <int64_t> sizeof(real) // (p.outer_taps * q.lanes), blocks
    q.cols, q.rows = p.W.on, 1
    size_lanes(q)
    while q.cols > LANES and (q.cols > CHUNK_COLUMNS or q.band_rows * q.band_cols > budget):
        q.cols = ceil_div(q.cols, 2)
        size_lanes(q)
    if q.cols == p.W.on:             # rows are one line of gradients only where they are whole
        q.rows = min(CHUNK_COLUMNS // q.cols, (budget // q.band_cols - (p.H.k - 1) * p.H.d - 1) // q.sy + 1)
        q.rows = max(1, min(q.rows, p.H.on))
        blocks = ceil_div(p.H.on, q.rows)
        if blocks > 1 and p.N * p.outer_size * p.groups * q.c_blocks == 1:
            blocks = min(p.H.on, round_up(blocks, 4))        # or a last one would find the other threads done
        q.rows = ceil_div(p.H.on, blocks)
        size_lanes(q)


cdef void size_lanes(WeightPlan *q) noexcept nogil:
    cdef const Problem *p = q.band.p
    q.band_rows = (q.rows - 1) * q.sy + (p.H.k - 1) * p.H.d + 1
    q.fill_pitch = round_up((q.cols - 1) * q.sx + (p.W.k - 1) * p.W.d + 1, LANES)
    q.band_cols = q.fill_pitch


cdef bint plan_dots(WeightPlan *q) noexcept nogil:
    cdef const Problem *p = q.band.p
    cdef ChannelPlan *band = &q.band
    cdef int64_t budget = CHUNK_BAND_BYTES // sizeof(real), planes
    if masks_strided(p):
        return plan_strided(q)
    if not (find_phases(&band.phases[0], p.H.k, p.H.s, p.H.d, False)
            and find_phases(&band.phases[1], p.W.k, p.W.s, p.W.d, False)):
        return False
    band.fy, band.fx = band.phases[0], band.phases[1]
    band.maps, band.c_block, band.c_blocks, band.rows, band.cols = 1, p.C, 1, 1, p.W.on
    planes = p.outer_taps * band.fy.count * band.fx.count * p.C
    lay_out(band)
    while band.cols > 4 * LANES and planes * band.band_rows * band.pitch > budget:
        band.cols = round_up(ceil_div(band.cols, 2), LANES)
        lay_out(band)
    band.rows = max(1, min(p.H.on, budget // (planes * band.pitch) - band.fy.reach))
    band.rows = ceil_div(p.H.on, ceil_div(p.H.on, band.rows))
    lay_out(band)
    band.flat_x = False
    q.rows, q.cols = band.rows, band.cols
    q.c_block, q.c_blocks = p.C, 1
    q.slots, q.width = p.C, band.n_taps
    return table_taps(band)


cdef bint masks_strided(const Problem *p) noexcept nogil:
    """Whether it is a depthwise 3 x 3 layer at stride 2, the padding in the first and last vector of outputs only."""
    cdef int64_t inner = (ceil_div(p.W.on, LANES) - 1) * LANES - 1       # the last column before those of the last one
    return (p.O == p.C == 1 and p.n_outer == 0 and p.H.k == p.W.k == 3 and p.H.s == p.W.s == 2 and p.H.d == p.W.d == 1
            and LANES < p.W.on <= CHUNK_COLUMNS and p.W.boundary == CONSTANT and p.constant[0] == 0
            and 0 <= p.W.before <= LANES and 2 * inner + 2 - p.W.before < p.W.n)


cdef bint plan_strided(WeightPlan *q) noexcept nogil:
    cdef const Problem *p = q.band.p
    cdef ChannelPlan *band = &q.band
    cdef int64_t vectors = ceil_div(p.W.on, LANES), last = (vectors - 1) * LANES, kx, begin, end
    q.strided = True
    band.fy.count = band.fx.count = 1
    band.pitch = 2 * vectors * LANES + LANES
    q.rows = max(1, min(p.H.on, CHUNK_BAND_BYTES // <int64_t> sizeof(real) // band.pitch // 2 - 1))
    q.rows = ceil_div(p.H.on, ceil_div(p.H.on, q.rows))
    q.cols = p.W.on
    band.band_rows = 2 * q.rows + 2                  # the first one is of zeros
    band.channel = band.band_rows * band.pitch
    q.c_block, q.c_blocks, q.slots, q.width = 1, 1, 1, 9
    q.masks = <mask_vec *> malloc(6 * sizeof(mask_vec))
    if q.masks == NULL:
        return False
    for kx in range(3):
        begin = ceil_div(max(p.W.before - kx, 0), 2)
        end = min(p.W.on, ceil_div(max(p.W.n + p.W.before - kx, 0), 2))
        fill_mask(<real *> (q.masks + kx), LANES, LANES, begin, end)
        fill_mask(<real *> (q.masks + 3 + kx), LANES, LANES, begin - last, end - last)
    return True


cdef void free_weights(WeightPlan *q) noexcept nogil:
    free_channels(&q.band)
    free(q.masks)
    free(q.columns)


cdef void add_parts(real *dw, const real *parts, int64_t size, int64_t splits) noexcept nogil:
    cdef int64_t i, j, first = 0, end
    while first < size:              # piece by piece, so that dw stays in the L1 cache
        end = min(size, first + 2048)
        for i in range(first, end):
            dw[i] = parts[i]
        for j in range(1, splits):
            for i in range(first, end):
                dw[i] += parts[j * size + i]
        first = end


cdef struct WeightUnit:
    int64_t group, c0, c1, o0, o1
    real *dw                         # of the split, first output channel of the group
    # the chunk
    int64_t n, z, y0, rows, x0, cols
    const char *g                    # gradients of channel o0, and bytes from channel to channel and from row to row
    int64_t g_channel, g_row


cdef void weight_unit(const void *plan, int64_t unit, char *workspace, Progress *progress, bint calling) noexcept nogil:
    cdef const WeightPlan *q = <const WeightPlan *> plan
    cdef const Problem *p = q.band.p
    cdef WeightUnit u
    cdef bint in_place, first
    cdef int64_t split, chunk, end, i, lds, size = p.groups * p.O * p.C * q.band.n_taps
    cdef real *sums = <real *> (workspace + q.at_sums)
    u.o0 = unit % q.o_blocks * q.o_block
    u.o1 = min(p.O, u.o0 + q.o_block)
    unit //= q.o_blocks
    u.c0 = unit % q.c_blocks * q.c_block
    u.c1 = min(p.C, u.c0 + q.c_block)
    unit //= q.c_blocks
    u.group = unit % p.groups
    split = unit // p.groups
    u.dw = q.parts + split * size + u.group * p.O * p.C * q.band.n_taps
    if not q.by_lanes:
        memset(sums, 0, (u.o1 - u.o0) * q.slots * q.width * sizeof(real))
    # One tap: sums lie in dw as in the workspace.
    in_place = q.by_lanes and q.band.n_taps == 1 and u.c1 - u.c0 == q.lanes
    lds = q.slots * q.width
    if in_place:
        sums, lds = u.dw + u.o0 * p.C + u.c0, p.C
    first = True
    chunk = split * ceil_div(q.chunks, q.splits)
    end = min(q.chunks, chunk + ceil_div(q.chunks, q.splits))
    while chunk < end and go_on(progress, calling):
        i = chunk
        u.x0 = i % q.col_blocks * q.cols
        u.cols = min(q.cols, p.W.on - u.x0)
        i //= q.col_blocks
        u.y0 = i % q.row_blocks * q.rows
        u.rows = min(q.rows, p.H.on - u.y0)
        i //= q.row_blocks
        u.z, u.n = i % p.outer_size, i // p.outer_size
        find_gradients(q, &u, workspace)
        if q.by_lanes:
            fill_turned_band(q, &u, workspace)
            add_lanes(q, &u, workspace, not first, sums, lds)
            first = False
        else:
            add_dots(q, &u, workspace, sums)
        chunk += 1
    if in_place:
        return
    if q.by_lanes:
        turn_back(q, &u, sums)
    else:
        for i in range(u.o0, u.o1):
            memcpy(u.dw + i * q.slots * q.width, sums + (i - u.o0) * q.slots * q.width,
                   q.slots * q.width * sizeof(real))


cdef void find_gradients(const WeightPlan *q, WeightUnit *u, char *workspace) noexcept nogil:
    """Where the chunk's gradients lie: in the array, or else in a copy of them."""
    cdef const Problem *p = q.band.p
    cdef const char *g = output_slice(p, u.n, u.group * p.O + u.o0, u.z) + u.y0 * p.H.y_step + u.x0 * p.W.y_step
    cdef real *copy = <real *> (workspace + q.at_gradient)
    cdef int64_t y, o, pitch = u.cols if q.by_lanes else round_up(u.cols, LANES)
    cdef bint in_place = (q.gradient.plain and q.gradient.code == REAL_CODE and p.W.y_step == sizeof(real)
                          and p.y_channel % <int64_t> sizeof(real) == 0)
    if q.by_lanes:                   # one line
        in_place = in_place and (u.rows == 1 or p.H.y_step == u.cols * <int64_t> sizeof(real))
    else:                            # whole vectors
        in_place = in_place and p.y_channel >= 0 and p.H.y_step >= 0 and (
            g + (u.o1 - u.o0 - 1) * p.y_channel + (u.rows - 1) * p.H.y_step + pitch * sizeof(real) <= q.gradient.end)
    if in_place:
        u.g, u.g_channel, u.g_row = g, p.y_channel, p.H.y_step
        return
    u.g, u.g_channel, u.g_row = <const char *> copy, u.rows * pitch * sizeof(real), pitch * sizeof(real)
    for o in range(u.o1 - u.o0):
        for y in range(u.rows):
            load_any(&q.gradient, copy, g + o * p.y_channel + y * p.H.y_step, p.W.y_step, u.cols)
            copy += pitch


# ---------------------------------------------------------------- by lanes

cdef void fill_turned_band(const WeightPlan *q, const WeightUnit *u, char *workspace) noexcept nogil:
    cdef const Problem *p = q.band.p
    cdef ColumnMap *cols = <ColumnMap *> (workspace + q.at_map)
    cdef real *fill = <real *> (workspace + q.at_fill)
    cdef real *band = <real *> (workspace + q.at_band)
    cdef real *to
    cdef const real *from_
    cdef vec square[LANES]
    cdef int64_t kz, c, row, col, n_rows = (u.rows - 1) * q.sy + (p.H.k - 1) * p.H.d + 1
    cdef int64_t n_cols = (u.cols - 1) * q.sx + (p.W.k - 1) * p.W.d + 1
    cdef int64_t lane_step = q.band_rows * q.fill_pitch
    cdef int i
    cols.sample = <int64_t *> (cols + 1)
    map_columns(cols, u.x0 * p.W.s - p.W.before, q.col_step, n_cols, p.W.n, p.W.boundary, 1)
    for kz in range(p.outer_taps):
        c = u.c0
        while c < u.c0 + q.lanes:
            for i in range(LANES):
                if c + i < u.c1:
                    fill_rows(p, cols, input_slice(p, u.n, u.group * p.C + c + i, u.z, kz), u.y0 * p.H.s - p.H.before,
                              q.row_step, n_rows, fill + i * lane_step, q.fill_pitch, p.constant[0])
                else:
                    fill_constant(fill + i * lane_step, lane_step, 0)
            for row in range(n_rows):
                col = 0
                while col < n_cols:
                    from_ = fill + row * q.fill_pitch + col
                    for i in range(LANES):
                        square[i] = (<const vec *> (from_ + i * lane_step))[0]
                    transpose_square(square)
                    to = band + (row * q.band_cols + col) * q.lanes + c - u.c0
                    for i in range(LANES):
                        (<vec *> (to + i * q.lanes))[0] = square[i]
                    col += LANES
            c += LANES
        band += q.band_rows * q.band_cols * q.lanes


cdef void outputs_inside(const Axis *axis, int64_t tap, int64_t last_tap, int64_t first, int64_t n, int64_t *begin,
                         int64_t *end) noexcept nogil:
    """Which of the n outputs from `first` on some of the taps `tap` to `last_tap` read a true sample for."""
    cdef int64_t s = axis.s
    begin[0] = min(n, max(0, ceil_div(max(axis.before - last_tap * axis.d, 0), s) - first))
    end[0] = axis.n - 1 + axis.before - tap * axis.d
    end[0] = min(n, max(begin[0], end[0] // s + 1 - first)) if end[0] >= 0 else begin[0]


cdef bint leaves_padding_out(const WeightPlan *q, const WeightUnit *u) noexcept nogil:
    """Whether positions at which a tap reads nothing but zeros are left out: no bit of a finite sum changes then, but
    gradients that are not finite must still make their NaN."""
    cdef const Problem *p = q.band.p
    cdef int64_t o
    if p.H.boundary != CONSTANT or p.W.boundary != CONSTANT or p.constant[0] != 0:
        return False
    if not (is_cut(&p.H, u.y0, u.rows) or is_cut(&p.W, u.x0, u.cols)):
        return False
    for o in range(u.o1 - u.o0):
        if not all_finite(<const real *> (u.g + o * u.g_channel), u.rows * u.cols):
            return False
    return True


cdef inline bint is_cut(const Axis *axis, int64_t first, int64_t n) noexcept nogil:
    """Whether the first tap or the last one reads padding for some of these outputs."""
    return (first * axis.s < axis.before
            or (first + n - 1) * axis.s + (axis.k - 1) * axis.d - axis.before >= axis.n)


cdef void add_lanes(const WeightPlan *q, const WeightUnit *u, char *workspace, bint resume, real *sums,
                    int64_t lds) noexcept nogil:
    """The chunk's products: those of an output channel `lds` from the next one's; with `resume`, added to `sums`."""
    cdef const Problem *p = q.band.p
    cdef const ChannelTiles *tiles
    cdef const char *band = workspace + q.at_band
    cdef const char *at
    cdef int64_t o = u.o0, slot, tap, v0, vectors = q.width // LANES, strips
    cdef int64_t position = q.lanes * sizeof(real), row = q.band_cols * position, kz, ky, kx
    cdef int64_t y0 = 0, y1 = u.rows, x0 = 0, x1 = u.cols
    cdef bint leave_out = leaves_padding_out(q, u)
    cdef int i = 0, v
    while o < u.o1:
        while CHANNEL_TILES[i].R > u.o1 - o or CHANNEL_TILES[i].R > LARGEST_R:
            i += 1
        tiles = &CHANNEL_TILES[i]
        for slot in range(q.slots):
            tap = slot if q.slots == q.band.n_taps else slot * p.W.k
            kx = tap % p.W.k
            ky = tap // p.W.k % p.H.k
            kz = tap // p.W.k // p.H.k
            if leave_out:
                outputs_inside(&p.H, ky, ky, u.y0, u.rows, &y0, &y1)
                outputs_inside(&p.W, kx, kx if q.slots == q.band.n_taps else p.W.k - 1, u.x0, u.cols, &x0, &x1)
            at = band + (kz * q.band_rows + ky * p.H.d + y0 * q.sy) * row + kx * p.W.d * position
            v0 = 0
            while v0 < vectors:
                v = 0
                while tiles.NV[v] > vectors - v0:
                    v += 1
                if v == 0 and vectors - v0 > tiles.NV[0] and vectors - v0 <= 2 * tiles.NV[1]:
                    v = 1
                strips = (vectors - v0) // tiles.NV[v] if v == 0 else 1
                if v == 0 and strips > 1 and 0 < (vectors - v0) % tiles.NV[0] <= 2 * tiles.NV[1] - tiles.NV[0]:
                    strips -= 1      # leave two short tiles
                tiles.run[v](at + v0 * sizeof(vec), strips, q.columns + x0, x1 - x0, x1 - x0, 0, y1 - y0, q.sy * row,
                             <const real *> (u.g + (o - u.o0) * u.g_channel) + y0 * u.cols + x0,
                             u.g_channel // <int64_t> sizeof(real), u.cols - (x1 - x0), NULL, resume,
                             sums + (o - u.o0) * lds + slot * q.width + v0 * LANES, lds)
                v0 += strips * tiles.NV[v]
        o += tiles.R


cdef void turn_back(const WeightPlan *q, const WeightUnit *u, const real *sums) noexcept nogil:
    """The sums, channels last, into dw, channels first: a square of taps x channels at a time."""
    cdef const Problem *p = q.band.p
    cdef int64_t taps = q.band.n_taps, channels = u.c1 - u.c0, o, c
    for o in range(u.o0, u.o1):
        c = 0
        while c < channels:          # slots of `width`, or kernel rows of them: either way, `lanes` apart
            turn_taps(sums + c, q.lanes, taps, u.dw + (o * p.C + u.c0 + c) * taps, channels - c)
            c += LANES
        sums += q.slots * q.width


cdef inline void turn_taps(const real *sums, int64_t step, int64_t taps, real *dw, int64_t channels) noexcept nogil:
    """A vector of channels for each tap, `step` reals apart, into dw, where a channel's taps are together; there are
    `channels` left, this vector's included."""
    cdef vec square[LANES]
    cdef int64_t t = 0, left
    cdef int i
    while t < taps:
        if t > 0:
            t = min(t, taps - LANES)
        for i in range(LANES):
            square[i] = (<const vec *> (sums + (t + i) * step))[0]
        transpose_square(square)
        # Whole vectors, as long as the next channels overwrite what they spill.
        left = channels * taps - t
        if (LANES - 1) * taps + LANES <= left:
            for i in range(LANES):
                (<vec *> (dw + i * taps + t))[0] = square[i]
        else:
            for i in range(LANES):
                if i * taps + LANES <= left:
                    (<vec *> (dw + i * taps + t))[0] = square[i]
                elif i < channels:
                    copy_reals(dw + i * taps + t, <const real *> &square[i], min(<int64_t> LANES, taps - t))
        t += LANES


# ---------------------------------------------------------------- by dots

ctypedef void (*DotTile)(const char *, int64_t, int64_t, const char *, const int64_t *, int64_t, int64_t, int64_t,
                         real *, int64_t) noexcept nogil


cdef inline void dot_tile(
    int R, int T,
    const char *g, int64_t g_channel, int64_t g_row,     # bytes
    const char *x, const int64_t *taps, int64_t x_row,   # bytes; T offsets
    int64_t rows, int64_t cols,
    real *sums, int64_t lds,
) noexcept nogil:
    cdef vec acc[4 * 9 + 15]         # R x T, and room for whole squares of them
    cdef vec a[4]
    cdef vec b
    cdef const char *gs[4]
    cdef const char *xs[9]
    cdef int64_t row, gi, xi, end, whole = cols // LANES * sizeof(vec)
    cdef mask_vec tail = first_lanes(cols % LANES)
    cdef int r, t, i
    for i in range(4 * 9 + 15):
        if i < (R * T + LANES - 1) // LANES * LANES:
            acc[i] = vzero()
    for r in range(R):
        gs[r] = g + r * g_channel
    for t in range(T):
        xs[t] = x + taps[t]
    for row in range(rows):
        gi = row * g_row
        xi = row * x_row
        end = gi + whole
        while gi < end:
            for r in range(R):
                a[r] = load_once(gs[r] + gi)
            for t in range(T):
                b = load_once(xs[t] + xi)
                for r in range(R):
                    acc[r * T + t] += a[r] * b
            gi += sizeof(vec)
            xi += sizeof(vec)
        if cols % LANES:
            for r in range(R):
                a[r] = masked(load_once(gs[r] + gi), tail)
            for t in range(T):
                b = masked(load_once(xs[t] + xi), tail)
                for r in range(R):
                    acc[r * T + t] += a[r] * b
    i = 0
    while i < R * T:
        acc[i] = sum_each(acc + i)
        i += LANES
    for r in range(R):
        for t in range(T):
            i = r * T + t
            sums[r * lds + t] += (<real *> &acc[i // LANES * LANES])[i % LANES]


cdef void dots_4_6(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(4, 6, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_4_5(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(4, 5, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_4_4(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(4, 4, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_4_3(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(4, 3, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_4_2(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(4, 2, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_4_1(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(4, 1, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_1_9(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(1, 9, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_1_8(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(1, 8, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_1_5(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(1, 5, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_1_3(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(1, 3, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_1_2(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(1, 2, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef void dots_1_1(const char *g, int64_t g_channel, int64_t g_row, const char *x, const int64_t *taps,
                   int64_t x_row, int64_t rows, int64_t cols, real *sums, int64_t lds) noexcept nogil:
    dot_tile(1, 1, g, g_channel, g_row, x, taps, x_row, rows, cols, sums, lds)


cdef struct DotTiles:                # the tiles of one R, most taps first
    int most                         # taps that the registers have room for
    int T[6]
    DotTile run[6]


cdef DotTiles FOUR_DOTS = DotTiles(DOTS4, [6, 5, 4, 3, 2, 1],
                                   [dots_4_6, dots_4_5, dots_4_4, dots_4_3, dots_4_2, dots_4_1])
cdef DotTiles ONE_DOTS = DotTiles(9, [9, 8, 5, 3, 2, 1], [dots_1_9, dots_1_8, dots_1_5, dots_1_3, dots_1_2, dots_1_1])


cdef void add_dots(const WeightPlan *q, const WeightUnit *u, char *workspace, real *sums) noexcept nogil:
    cdef const Problem *p = q.band.p
    cdef const ChannelPlan *band = &q.band
    cdef ChannelUnit b
    cdef const char *x
    cdef const char *g
    cdef int64_t o = u.o0, c, taps = band.n_taps
    if q.strided:
        add_strided(q, u, workspace, sums)
        return
    memset(&b, 0, <char *> &b.y - <char *> &b)
    b.map, b.maps = u.n * p.outer_size + u.z, 1
    b.group, b.x0, b.y0 = u.group, u.x0, u.y0
    b.pitch, b.plane, b.band_channel = band.pitch, band.plane, band.channel
    map_unit_columns(band, &b, workspace)
    fill_channel_band(band, &b, workspace, 0, p.C)
    while o < u.o1:
        g = u.g + (o - u.o0) * u.g_channel
        for c in range(p.C):
            x = workspace + band.at_band + c * band.channel * sizeof(real)
            if u.o1 - o >= 4:
                add_products(&FOUR_DOTS, g, u.g_channel, u.g_row, x, band.taps, taps, band.pitch * sizeof(real), u.rows,
                             u.cols, sums, q.slots * q.width)
            elif p.H.s == 1 and p.H.k >= 4 and u.rows > 6 * p.H.d and u.rows * u.cols >= QUADS_FROM:
                add_kernel_rows(q, u, g, x, sums)
            else:
                add_products(&ONE_DOTS, g, u.g_channel, u.g_row, x, band.taps, taps, band.pitch * sizeof(real), u.rows,
                             u.cols, sums, 0)
            sums += taps
        if u.o1 - o >= 4:
            sums += 3 * q.slots * q.width
            o += 3
        o += 1


cdef void add_products(const DotTiles *tiles, const char *g, int64_t g_channel, int64_t g_row, const char *x,
                       const int64_t *taps, int64_t n_taps, int64_t x_row, int64_t rows, int64_t cols, real *sums,
                       int64_t lds) noexcept nogil:
    """Products of n_taps taps by as many tiles as it takes, of nearly equal width."""
    cdef int64_t t = 0, fair
    cdef int v
    while t < n_taps:
        fair = ceil_div(n_taps - t, ceil_div(n_taps - t, tiles.most))
        v = 0
        while tiles.T[v] > fair:
            v += 1
        tiles.run[v](g, g_channel, g_row, x, taps + t, x_row, rows, cols, sums + t, lds)
        t += tiles.T[v]


cdef void add_kernel_rows(const WeightPlan *q, const WeightUnit *u, const char *g, const char *x,
                          real *sums) noexcept nogil:
    """One output channel, at stride 1: four kernel rows at a time take the place of four output channels, since an
    input row meets four rows of gradients in them. The first and last rows do not meet all four."""
    cdef const Problem *p = q.band.p
    cdef const int64_t *taps = q.band.taps
    cdef int64_t kw = p.W.k, d = p.H.d, x_row = q.band.pitch * sizeof(real), ky, r, kz
    for kz in range(p.outer_taps):
        ky = 0
        while ky + 4 <= p.H.k:
            add_products(&FOUR_DOTS, g + 3 * d * u.g_row, -d * u.g_row, u.g_row, x + 3 * d * x_row, taps, kw, x_row,
                         u.rows - 3 * d, u.cols, sums, kw)
            for r in range(4):
                if r < 3:
                    add_products(&ONE_DOTS, g, 0, u.g_row, x, taps + r * kw, kw, x_row, (3 - r) * d, u.cols,
                                 sums + r * kw, 0)
                if r > 0:
                    add_products(&ONE_DOTS, g + (u.rows - r * d) * u.g_row, 0, u.g_row, x + (u.rows - r * d) * x_row,
                                 taps + r * kw, kw, x_row, r * d, u.cols, sums + r * kw, 0)
            ky += 4
            taps += 4 * kw
            sums += 4 * kw
        add_products(&ONE_DOTS, g, 0, u.g_row, x, taps, (p.H.k - ky) * kw, x_row, u.rows, u.cols, sums, 0)
        taps += (p.H.k - ky) * kw
        sums += (p.H.k - ky) * kw


cdef inline void add_parted_row(const vec *g, vec *acc, vec *next_acc, const char *x,
                                const mask_vec *mask) noexcept nogil:
    """An input row's products with the vector g[0] of one gradient row, and with g[1] of the next one. It meets them in
    different kernel rows, or only one of them: the other sums are NULL then."""
    cdef vec b[3]
    cdef int t
    b[0] = evens((<const vec *> x)[0], (<const vec *> x)[1])
    b[1] = odds((<const vec *> x)[0], (<const vec *> x)[1])
    x += sizeof(real)
    b[2] = odds((<const vec *> x)[0], (<const vec *> x)[1])
    for t in range(3):
        if mask != NULL:
            b[t] = masked(b[t], mask[t])
        if acc != NULL:
            acc[t] += g[0] * b[t]
        if next_acc != NULL:
            next_acc[t] += g[1] * b[t]


cdef inline void add_parted_rows(int R, const vec *g, vec *acc, const char *const *rows, int64_t x,
                                 const mask_vec *mask) noexcept nogil:
    """R output rows, one or two, of which the first meets rows[0] in the first kernel row."""
    add_parted_row(g, acc, NULL, rows[0] + x, mask)
    add_parted_row(g, acc + 3, NULL, rows[1] + x, mask)
    add_parted_row(g, acc + 6, acc if R == 2 else NULL, rows[2] + x, mask)
    if R == 2:
        add_parted_row(g, NULL, acc + 3, rows[3] + x, mask)
        add_parted_row(g, NULL, acc + 6, rows[4] + x, mask)


cdef inline void add_strided_rows(int R, const char *g, int64_t g_row, vec *acc, const char *const *rows,
                                  int64_t vectors, const mask_vec *masks, mask_vec tail) noexcept nogil:
    cdef vec a[2]
    cdef int64_t v
    cdef int r
    for r in range(R):
        a[r] = load_once(g + r * g_row)
    add_parted_rows(R, a, acc, rows, 0, masks)
    for v in range(1, vectors - 1):
        for r in range(R):
            a[r] = load_once(g + r * g_row + v * sizeof(vec))
        add_parted_rows(R, a, acc, rows, 2 * v * sizeof(vec), NULL)
    v = vectors - 1
    for r in range(R):
        a[r] = masked(load_once(g + r * g_row + v * sizeof(vec)), tail)
    add_parted_rows(R, a, acc, rows, 2 * v * sizeof(vec), masks + 3)


cdef void add_strided(const WeightPlan *q, const WeightUnit *u, char *workspace, real *sums) noexcept nogil:
    """Stride 2, 3 x 3, one input and one output channel: an input row is parted once for two output rows."""
    cdef const Problem *p = q.band.p
    cdef ColumnMap *cols = <ColumnMap *> (workspace + q.at_map)
    cdef real *band = <real *> (workspace + q.at_band)
    cdef const char **table = <const char **> (workspace + q.at_table)
    cdef vec acc[9 + 15]             # and room for whole squares of them
    cdef int64_t pitch = q.band.pitch, vectors = ceil_div(u.cols, LANES), y = 0
    cdef mask_vec tail = first_lanes(u.cols - (vectors - 1) * LANES)
    cdef int i
    cols.sample = <int64_t *> (cols + 1)
    map_columns(cols, -p.W.before, 1, 2 * u.cols + 1, p.W.n, CONSTANT, 1)
    fill_constant(band, pitch, 0)
    name_padded_rows(p, input_slice(p, u.n, u.group, u.z, 0), 2 * u.y0 - p.H.before, 2 * u.rows + 1, cols,
                     pitch * sizeof(real), table, band, band + pitch, pitch)
    for i in range(9 + 15):
        acc[i] = vzero()
    while y + 2 <= u.rows:
        add_strided_rows(2, u.g + y * u.g_row, u.g_row, acc, table + 2 * y, vectors, q.masks, tail)
        y += 2
    if y < u.rows:
        add_strided_rows(1, u.g + y * u.g_row, u.g_row, acc, table + 2 * y, vectors, q.masks, tail)
    i = 0
    while i < 9:
        acc[i] = sum_each(acc + i)
        i += LANES
    for i in range(9):
        sums[i] += (<real *> &acc[i // LANES * LANES])[i % LANES]
