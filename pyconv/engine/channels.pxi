# Many channels: R output channels x NV vectors of columns.
#
# A unit is (image, group, outer output, block of rows x columns, block of output channels). Its band holds, for every
# input channel, every outer tap and every stride phase that occurs, one plane of rows at a common pitch, so that the
# output's rows lie one after the other and a tile may run across their ends: the few sums that belong to no output
# column are not stored.

cdef double CYCLES_TO_COPY = 0.25    # a real into the band

cdef enum:
    BAND_BYTES = 393216              # a thread's band: with its share of weights it stays in a 1 MB (or 512 KB) L2
    FEWEST_COLUMNS = 192             # in a unit, before channels are cut into blocks: each weight is used that often
    SUMS_BYTES = 1048576             # partial sums, where channels come in blocks
    SERIAL_BELOW = 200000            # multiply-adds: less than the start of a second thread costs


cdef struct ChannelPlan:
    Problem *p
    int64_t rows, row_blocks         # output rows in a block
    int64_t cols, col_blocks         # output columns in a block
    int64_t c_block, c_blocks        # input channels in the band at once
    int64_t o_block, o_blocks        # output channels in a unit
    Phases fy, fx
    int64_t band_rows                # rows of a plane
    int64_t needed                   # columns of a band row that taps reach
    int64_t pitch                    # reals from one band row to the next: fewer than `needed` where rows share ends
    int64_t plane, channel           # reals
    int64_t n_taps
    int64_t *taps                    # byte offsets within a channel
    int64_t units
    # a thread's workspace
    int64_t at_sums, at_scratch, at_maps, at_held, workspace
    int64_t lds                      # pitch of the partial sums
    bint in_place                    # one tap and evenly spaced reals: the band is the input itself


cdef int64_t shared_pitch(const Problem *p, const Phases *fx, int64_t needed) noexcept nogil:
    """Rows whose ends are both constant share them: the smallest pitch at which every tap still finds its sample."""
    cdef int64_t pitch = p.W.on, i, first, leading, last
    for i in range(fx.count):
        first = fx.residue[i] - p.W.before
        leading = ceil_div(-first, p.W.s) if first < 0 else 0
        last = (p.W.n - 1 - first) // p.W.s + 1 if p.W.n > first else 0
        pitch = max(pitch, max(last, needed - leading))
    return min(pitch, needed)


cdef double channel_reals(ChannelPlan *q, int64_t rows, int64_t cols) noexcept nogil:
    """Reals of the band a channel, for a block of rows x cols; leaves the geometry in q."""
    cdef const Problem *p = q.p
    q.rows, q.cols = rows, cols
    q.needed = cols + q.fx.reach
    q.pitch = q.needed
    if cols == p.W.on and p.W.boundary == CONSTANT:
        q.pitch = shared_pitch(p, &q.fx, q.needed)
    elif q.pitch * sizeof(real) % 1024 == 0:
        q.pitch += LINE // sizeof(real)
    q.band_rows = rows + q.fy.reach
    q.plane = q.band_rows * q.pitch + q.needed - q.pitch if q.needed > q.pitch else q.band_rows * q.pitch
    q.channel = q.plane * p.outer_taps * q.fy.count * q.fx.count
    if q.channel * sizeof(real) % 1024 == 0:
        q.channel += LINE // sizeof(real)
    return <double> q.band_rows * q.pitch * p.outer_taps * q.fy.count * q.fx.count


cdef void choose_blocks(ChannelPlan *q, int workers) noexcept nogil:
    """Block sizes: the band fits BAND_BYTES; multiply-adds (two vectors of them a cycle, those between rows included)
    and copies take the fewest cycles; there are enough units for every thread."""
    cdef const Problem *p = q.p
    cdef int64_t budget = BAND_BYTES // sizeof(real)
    cdef int64_t pieces, cols, rows, best_cols = 0, best_rows = 0, fewest, vectors
    cdef int64_t spatial, wanted
    cdef double reals, cost, best = 1e300
    q.c_block = p.C
    fewest = min(FEWEST_COLUMNS, p.H.on * p.W.on)
    while True:
        for pieces in range(1, 65):
            cols = ceil_div(p.W.on, pieces)
            if pieces > 1:
                cols = min(p.W.on, round_up(cols, LANES))
            rows = p.H.on
            if q.c_block * channel_reals(q, rows, cols) > budget:
                rows = (budget // (q.c_block * q.pitch * p.outer_taps * q.fy.count * q.fx.count)) - q.fy.reach
            if rows < 1 or rows * cols < fewest:
                continue
            rows = ceil_div(p.H.on, ceil_div(p.H.on, rows))
            reals = channel_reals(q, rows, cols)
            vectors = ceil_div((rows - 1) * q.pitch + cols, LANES)
            cost = <double> ceil_div(p.H.on, rows) * ceil_div(p.W.on, cols) * (
                vectors * p.O * q.n_taps * 0.5 + reals * CYCLES_TO_COPY)
            if cost < best:
                best, best_cols, best_rows = cost, cols, rows
            if rows == p.H.on:
                break
        if best_cols:
            break
        if q.c_block == 1:           # even one channel is too much (a huge kernel): one strip at a time
            best_cols = min(p.W.on, MAX_NV * LANES)
            best_rows = 1
            break
        q.c_block = ceil_div(q.c_block, 2)
    q.c_blocks = ceil_div(p.C, q.c_block)
    q.c_block = ceil_div(p.C, q.c_blocks)
    rows, cols = best_rows, best_cols
    q.row_blocks = ceil_div(p.H.on, rows)
    rows = ceil_div(p.H.on, q.row_blocks)
    q.col_blocks = ceil_div(p.W.on, cols)
    q.o_block = p.O
    channel_reals(q, rows, cols)
    if q.c_blocks > 1:
        q.o_block = max(LARGEST_R, SUMS_BYTES // <int64_t> sizeof(real) // (rows * q.pitch) // LARGEST_R * LARGEST_R)
        q.o_block = min(q.o_block, p.O)
    q.o_blocks = ceil_div(p.O, q.o_block)
    # Too few units: cut where less is read twice, the rows' input or the weights.
    wanted = 1 if workers == 1 else 2 * workers
    spatial = p.N * p.groups * p.outer_size * q.row_blocks * q.col_blocks * q.o_blocks
    if spatial < wanted:
        pieces = ceil_div(wanted, spatial)
        if p.O * q.n_taps > 2 * p.H.on * p.W.on and p.O >= 2 * LARGEST_R:
            q.o_block = min(q.o_block, round_up(ceil_div(p.O, q.o_blocks * pieces), LARGEST_R))
            q.o_blocks = ceil_div(p.O, q.o_block)
        elif p.H.on >= 2 * pieces:
            q.row_blocks = min(p.H.on, q.row_blocks * pieces)
            rows = ceil_div(p.H.on, q.row_blocks)
        else:
            q.col_blocks = min(q.col_blocks * pieces, ceil_div(p.W.on, LANES))
            cols = min(p.W.on, round_up(ceil_div(p.W.on, q.col_blocks), LANES))
    channel_reals(q, rows, cols)
    q.row_blocks = ceil_div(p.H.on, rows)
    q.col_blocks = ceil_div(p.W.on, cols)


cdef bint plan_channels(ChannelPlan *q, Problem *p, int workers) noexcept nogil:
    """False: out of memory."""
    cdef int64_t kz, ky, kx, i = 0
    memset(q, 0, sizeof(ChannelPlan))
    q.p = p
    q.n_taps = p.outer_taps * p.H.k * p.W.k
    if not (find_phases(&q.fy, p.H.k, p.H.s, p.H.d) and find_phases(&q.fx, p.W.k, p.W.s, p.W.d)):
        free_channels(q)
        return False
    if p.N * p.groups * p.O * p.outer_size * p.H.on * p.W.on == 0:
        return True
    choose_blocks(q, workers)
    if q.c_block * channel_reals(q, q.rows, q.cols) * sizeof(real) > LARGEST_WORKSPACE:
        free_channels(q)
        return False
    q.taps = <int64_t *> malloc(q.n_taps * sizeof(int64_t))
    if q.taps == NULL:
        free_channels(q)
        return False
    for kz in range(p.outer_taps):
        for ky in range(p.H.k):
            for kx in range(p.W.k):
                q.taps[i] = sizeof(real) * (
                    ((kz * q.fy.count + q.fy.of_tap[ky]) * q.fx.count + q.fx.of_tap[kx]) * q.plane
                    + q.fy.shift[ky] * q.pitch + q.fx.shift[kx])
                i += 1
    q.in_place = (q.n_taps == 1 and p.source.plain and p.source.code == REAL_CODE and p.W.x_step == sizeof(real)
                  and p.W.s == 1 and p.W.before == 0 and p.W.on == p.W.n and p.H.before == 0 and p.x_parts == 1
                  and p.H.on == 1 and p.H.n == 1 and p.n_outer == 0 and p.x_channel % 4096 != 0)
    q.units = p.N * p.groups * p.outer_size * q.row_blocks * q.col_blocks * q.o_blocks
    q.lds = round_up(q.rows * q.pitch, LANES) + MAX_NV * LANES
    q.at_sums = round_up(sizeof(real) * (q.c_block * q.channel + MAX_NV * LANES), LINE)
    q.at_scratch = q.at_sums
    if q.c_blocks > 1:
        q.at_scratch += round_up(sizeof(real) * q.o_block * q.lds, LINE)
    q.at_maps = q.at_scratch + sizeof(real) * MAX_R * MAX_NV * LANES
    q.at_held = q.at_maps + q.fx.count * (sizeof(ColumnMap) + q.pitch * sizeof(int64_t))
    q.workspace = q.at_held + sizeof(int64_t)
    return True


cdef void free_channels(ChannelPlan *q) noexcept nogil:
    free(q.fy.residue)
    free(q.fx.residue)
    free(q.taps)


cdef void fill_channel_band(const ChannelPlan *q, char *workspace, int64_t n, int64_t z, int64_t c0, int64_t c1,
                            int64_t y0) noexcept nogil:
    """Input channels c0 to c1 (counted over all groups) for the output rows from y0 on."""
    cdef const Problem *p = q.p
    cdef ColumnMap *maps = <ColumnMap *> (workspace + q.at_maps)
    cdef real *band = <real *> workspace
    cdef real *plane
    cdef const char *slice
    cdef real constant
    cdef int64_t c, kz, py, px, first
    for c in range(c0, c1):
        constant = p.constant[c % p.x_parts]
        plane = band + (c - c0) * q.channel
        for kz in range(p.outer_taps):
            slice = input_slice(p, n, c, z, kz)
            for py in range(q.fy.count):
                first = y0 * p.H.s + q.fy.residue[py] - p.H.before
                for px in range(q.fx.count):
                    fill_rows(p, &maps[px], slice, first, p.H.s, q.band_rows, plane, q.pitch, constant)
                    if q.needed > q.pitch:
                        fill_constant(plane + q.band_rows * q.pitch, q.needed - q.pitch, constant)
                    plane += q.plane


cdef struct ChannelUnit:
    int64_t n, z
    int64_t channel                  # the group's first output channel, of all
    int64_t o0, o1                   # within the group
    int64_t x0, y0, rows, cols
    char *y                          # output channel 0 of all, first sample of the block
    const real *w                    # the group's weights
    const real *bias                 # and biases, or NULL


cdef void store_tile(const ChannelPlan *q, const ChannelUnit *u, int R, int64_t o, const real *sums, int64_t lds,
                     int64_t at, int64_t count) noexcept nogil:
    """Write columns at .. at + count of the flattened rows of the channels o .. o + R, output columns only."""
    cdef const Problem *p = q.p
    cdef int64_t row = at // q.pitch, column = at - row * q.pitch, n, done = 0
    cdef char *y
    cdef int r
    while done < count:
        n = min(u.cols - column, count - done)
        if n > 0:
            y = u.y + row * p.H.y_step + column * p.W.y_step
            for r in range(R):
                if p.y_direct:
                    copy_reals(<real *> (y + (u.channel + o + r) * p.y_channel), sums + r * lds + done, n)
                else:
                    store(p.y_code, y + (u.channel + o + r) * p.y_channel, p.W.y_step, sums + r * lds + done, n)
        done += q.pitch - column
        row += 1
        column = 0


cdef void run_tiles(const ChannelPlan *q, const ChannelUnit *u, char *workspace, const char *band, int64_t plane,
                    int64_t c0, int64_t c1, int64_t at, int64_t end) noexcept nogil:
    """The input channels c0 to c1 into all the unit's sums in the flattened columns at .. end; `band` is at `at`."""
    cdef const Problem *p = q.p
    cdef real *scratch = <real *> (workspace + q.at_scratch)
    cdef real *sums
    cdef const ChannelTiles *tiles
    cdef const real *bias
    cdef int64_t ldw = p.C * q.n_taps, o = u.o0, q0, step, strips, lds, left
    cdef bint last = c1 == p.C
    cdef bint direct
    cdef int i = 0, v
    while o < u.o1:
        while CHANNEL_TILES[i].R > u.o1 - o or CHANNEL_TILES[i].R > LARGEST_R:
            i += 1
        tiles = &CHANNEL_TILES[i]
        bias = u.bias + o if last and u.bias != NULL else NULL
        q0 = at
        while q0 < end:
            left = ceil_div(end - q0, LANES)
            v = 0
            while tiles.NV[v] > left:
                v += 1
            if v == 0 and left > tiles.NV[0] and left <= 2 * tiles.NV[1]:
                v = 1                # two short tiles, rather than a full one and a rest that few registers serve
            step = tiles.NV[v] * LANES
            strips = 1
            direct = p.y_direct and q.c_blocks == 1 and q0 % q.pitch + step <= u.cols
            if direct:
                if u.rows == 1 and v == 0:
                    strips = (end - q0) // step
                sums = <real *> (u.y + (u.channel + o) * p.y_channel + q0 // q.pitch * p.H.y_step) + q0 % q.pitch
                lds = p.y_channel // <int64_t> sizeof(real)
            elif q.c_blocks > 1:
                sums = <real *> (workspace + q.at_sums) + (o - u.o0) * q.lds + q0
                lds = q.lds
            else:
                sums = scratch
                lds = MAX_NV * LANES
            tiles.run[v](band + (q0 - at) * sizeof(real), strips, q.taps, q.n_taps, c1 - c0, plane,
                         u.w + o * ldw + c0 * q.n_taps, ldw, bias, c0 > 0, sums, lds)
            if last and not direct:
                store_tile(q, u, tiles.R, o, sums, lds, q0, min(step, end - q0))
            q0 += strips * step
        o += tiles.R


cdef void run_channel_unit(const ChannelPlan *q, int64_t unit, char *workspace) noexcept nogil:
    cdef const Problem *p = q.p
    cdef ColumnMap *maps = <ColumnMap *> (workspace + q.at_maps)
    cdef int64_t *samples = <int64_t *> (maps + q.fx.count)
    cdef ChannelUnit u
    cdef int64_t *held = <int64_t *> (workspace + q.at_held)     # whose band the workspace holds
    cdef int64_t i, c0, c1, g, end, whole, block = unit // q.o_blocks
    u.o0 = unit % q.o_blocks * q.o_block
    u.o1 = min(p.O, u.o0 + q.o_block)
    unit //= q.o_blocks
    u.x0 = unit % q.col_blocks * q.cols
    u.cols = min(q.cols, p.W.on - u.x0)
    unit //= q.col_blocks
    u.y0 = unit % q.row_blocks * q.rows
    u.rows = min(q.rows, p.H.on - u.y0)
    unit //= q.row_blocks
    u.z = unit % p.outer_size
    unit //= p.outer_size
    g = unit % p.groups
    u.n = unit // p.groups
    u.channel = g * p.O
    u.y = output_slice(p, u.n, 0, u.z) + u.y0 * p.H.y_step + u.x0 * p.W.y_step
    u.w = p.w + g * p.O * p.C * q.n_taps
    u.bias = p.bias + u.channel if p.bias != NULL else NULL

    end = (u.rows - 1) * q.pitch + u.cols
    whole = end // LANES * LANES if q.in_place else 0    # in place no vector may reach past the input
    for i in range(q.fx.count):
        maps[i].sample = samples + i * q.pitch
        map_columns(&maps[i], (u.x0 + whole) * p.W.s + q.fx.residue[i] - p.W.before, p.W.s,
                    end - whole if q.in_place else q.pitch, p.W.n, p.W.boundary, 1)
    c0 = 0
    while c0 < p.C:
        c1 = min(p.C, c0 + q.c_block)
        if whole > 0:
            run_tiles(q, &u, workspace, input_slice(p, u.n, g * p.C + c0, 0, 0) + u.x0 * sizeof(real), p.x_channel,
                      c0, c1, 0, whole)
        if whole < end:
            if q.c_blocks > 1 or held[0] != block:
                fill_channel_band(q, workspace, u.n, u.z, g * p.C + c0, g * p.C + c1, u.y0)
                held[0] = block
            run_tiles(q, &u, workspace, workspace, q.channel * sizeof(real), c0, c1, whole, end)
        c0 = c1
