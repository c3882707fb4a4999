# Many channels: R output channels x NV vectors of columns.
#
# A unit is (block of maps, group, block of rows x columns, block of output channels), a map being the H x W slice of an
# image and an outer output. Its band holds, for every input channel and outer tap, one plane for each phase along H and
# along W: rows at a common pitch, map after map, so that the output's rows lie one after the other and a tile runs
# across their ends; sums that belong to no output column are not stored.
#
# Along an axis the phases are the residues modulo the stride that its taps have, shared by all taps of a residue. Or
# every tap has a phase of its own: more is copied, but the band then has no row or column that only some taps read, so
# nothing is computed in vain. This pays where many output channels use the copy and rows are short or taps far apart.
#
# Where taps are so far apart that many of them read only padding, blocks of columns may end where a tap's true samples
# begin or end, each with taps of its own; the kernel rows that a tile needs are found tile by tile. (Zeros are left out
# under finite weights only: 0 * infinity must still make its NaN.)

cdef double CYCLES_TO_COPY = 0.25    # a real into the band
cdef double CYCLES_TO_COPY_FLAT = 0.2      # the same, where whole planes are copied as one line
cdef double CYCLES_A_RUN = 12        # for each row, or plane as one line, beside its reals
cdef double CYCLES_TO_PASS = 6       # a vector of partial sums on to the next block of channels
cdef double CYCLES_A_WEIGHT = 0.25
# Vectors over output channels: turning a weight (exchanged ones come in shorter runs), or reading one that a plan has
# turned, and turning an output.
cdef double CYCLES_TO_TURN = 0.4
cdef double CYCLES_TO_TURN_EXCHANGED = 0.5
cdef double CYCLES_A_TURNED_WEIGHT = 0.05
cdef double CYCLES_TO_TURN_OUTPUT = 0.6
cdef double CYCLES_A_LONE_VECTOR = 1.35    # of output channels, in halves of what two take
cdef double CYCLES_TO_SCATTER = 5    # an output, where those of all channels go to single places in the same cache sets
cdef double FOREVER = 1e300

cdef enum:
    BAND_BYTES = 393216              # a thread's band: with its share of weights it stays in a 1 MB (or 512 KB) L2
    FEWEST_COLUMNS = 192             # in a unit, before channels are cut into blocks: each weight is used that often
    ENOUGH_COLUMNS = 384             # in a unit: smaller blocks of channels for more of them do not pay
    FEWEST_PRODUCTS = 48             # a sum, in a block of channels
    MOST_MAPS = 64                   # in a unit
    MOST_CUTS = 16                   # blocks of columns with taps of their own
    NARROWEST_CUT = 8                # columns in one
    OWN_PHASES_FROM = 48             # output channels
    SUMS_BYTES = 1048576             # partial sums, where channels come in blocks
    SERIAL_BELOW = 200000            # multiply-adds: less than the start of a second thread costs
    BRIEF = 1000000000               # multiply-adds: some 10 ms
    OUTPUT_NV = 2                    # vectors of output channels (outputs.pxi)
    PAIR_NV = 4                      # and those of two blocks of them
    OUTPUT_SUMS_BYTES = 262144       # of the positions of a unit, for one tile's output channels


cdef struct OutputTap:               # in bytes
    int64_t x                        # from a position to the sample that it reads
    int64_t w                        # to the weights, from those of tap 0


cdef struct Piece:                   # of an axis: outputs that have the same taps
    int64_t first, stop              # outputs
    int64_t begin, end               # taps


cdef struct Lattice:                 # positions: maps, rows and columns of them, those with the same taps
    int64_t n[3]
    int64_t x_step[3]                # bytes from one to the next in the input, or in the band
    int64_t slot[3]                  # and in the sums, counted in positions


cdef struct ChannelPlan:
    Problem *p
    int workers
    int64_t maps, map_blocks         # maps in a unit
    int64_t rows, row_blocks         # output rows in a block
    int64_t cols, col_blocks         # output columns in a block
    int64_t c_block, c_blocks        # input channels in the band at once
    int64_t o_block, o_blocks        # output channels in a unit
    Phases phases[4]                 # shared ones along H and W, then own ones
    Phases fy, fx                    # those in use
    int64_t band_rows                # rows of a map in a plane
    int64_t needed                   # columns of a band row that taps reach
    int64_t pitch                    # reals from one band row to the next: fewer than `needed` where rows share ends
    int64_t plane, channel           # reals
    int64_t n_taps
    int64_t *taps                    # byte offsets within a channel; for each cut, those it has
    int64_t cuts                     # 0: even blocks of columns
    int64_t cut[MOST_CUTS + 1]       # where each of them begins, and the last one ends
    int64_t units
    double cycles                    # that the busiest thread is expected to take
    # a thread's workspace
    int64_t at_band, at_sums, at_scratch, at_maps, at_masks, workspace
    int64_t mask                     # reals of a mask
    int64_t lds                      # pitch of the partial sums
    bint in_place                    # one tap and evenly spaced reals: the band is the input itself
    bint flat_x                      # a map's rows are one line in the input, as long as those of the band
    bint flat_y                      # and in the output
    bint by_outputs                  # vectors run over output channels, not over columns (outputs.pxi)
    bint readable                    # then they could do without a band
    bint exact                       # and do: they read the input where it lies, each position its true samples only
    Piece *pieces_y
    Piece *pieces_x
    int64_t n_pieces_y, n_pieces_x
    int64_t x_map, x_row, x_column   # bytes from position to position
    int64_t *order                   # the place of each tap of the weights among those used, or -1
    int64_t at_turned, at_table, slots       # its turned weights, a piece's taps; positions that sums are kept for
    bint leave_out                   # taps that read nothing but zeros beyond the first or last row


cdef int64_t shared_pitch(const Problem *p, const Phases *fx, int64_t needed) noexcept nogil:
    """Rows whose ends are both constant share them: the smallest pitch at which every tap still finds its sample."""
    cdef int64_t pitch = p.W.on, i, first, leading, last
    for i in range(fx.count):
        first = fx.residue[i] - p.W.before
        leading = ceil_div(-first, p.W.s) if first < 0 else 0
        last = (p.W.n - 1 - first) // p.W.s + 1 if p.W.n > first else 0
        pitch = max(pitch, max(last, needed - leading))
    return min(pitch, needed)


cdef void lay_out(ChannelPlan *q) noexcept nogil:
    """The band's geometry, from the block's size."""
    cdef const Problem *p = q.p
    cdef int64_t plane, channel, i
    q.needed = q.cols + q.fx.reach
    q.pitch = q.needed
    if q.cols == p.W.on and p.W.boundary == CONSTANT and q.fx.reach > 0:
        q.pitch = shared_pitch(p, &q.fx, q.needed)
    elif q.pitch * sizeof(real) % 1024 == 0 and q.rows > 1:
        q.pitch += LINE // sizeof(real)
    q.band_rows = q.rows + q.fy.reach
    q.plane = q.maps * q.band_rows * q.pitch + q.needed - min(q.needed, q.pitch)
    if q.plane * sizeof(real) % 1024 == 0:
        q.plane += LINE // sizeof(real)
    q.channel = q.plane * p.outer_taps * q.fy.count * q.fx.count
    if q.channel * sizeof(real) % 1024 == 0:
        q.channel += LINE // sizeof(real)
    if q.cuts:
        q.channel = 0
        for i in range(q.cuts):
            lay_out_cut(q, i, &plane, &channel)
            q.channel = max(q.channel, channel)
    q.in_place = (q.n_taps == q.maps == 1 and p.source.plain and p.source.code == REAL_CODE
                  and p.W.x_step == sizeof(real) and p.W.s == 1 and p.W.before == 0 and p.W.on == p.W.n
                  and p.H.before == 0 and p.x_parts == 1 and p.H.on == 1 and p.H.n == 1 and p.n_outer == 0
                  and p.W.on >= LANES and p.x_channel % 4096 != 0)
    q.flat_x = (q.fx.reach == 0 and q.pitch == q.cols == p.W.on == p.W.n and p.W.s == 1 and p.H.s == 1
                and p.W.boundary == CONSTANT and p.H.boundary == CONSTANT and p.source.plain
                and p.source.code == REAL_CODE and p.W.x_step == sizeof(real) and p.H.x_step == p.W.n * p.W.x_step)


cdef void lay_out_cut(const ChannelPlan *q, int64_t block, int64_t *plane, int64_t *channel) noexcept nogil:
    """The reals of a plane and of a channel in the band of a block of columns with taps of its own."""
    cdef const Problem *p = q.p
    cdef int64_t begin, end
    taps_inside(&p.W, q.cut[block], q.cut[block + 1] - 1, &begin, &end)
    plane[0] = q.band_rows * (q.cut[block + 1] - q.cut[block])
    if plane[0] * sizeof(real) % 1024 == 0:
        plane[0] += LINE // sizeof(real)
    channel[0] = plane[0] * p.H.k * (end - begin)
    if channel[0] * sizeof(real) % 1024 == 0:
        channel[0] += LINE // sizeof(real)


cdef int64_t line_length(const ChannelPlan *q) noexcept nogil:
    """Columns from a unit's first to its last, over rows and maps."""
    return ((q.maps - 1) * q.band_rows + q.rows - 1) * q.pitch + q.cols


cdef inline double cycles_to_exchange(const Problem *p, int64_t n_taps) noexcept nogil:
    """Weights into a copy in the usual order: by squares, by vectors or one by one, and through memory if many."""
    cdef double weights = <double> p.groups * p.O * p.C * n_taps
    cdef double cycles = 0.75 if p.w_taps == 1 else 0.5 if p.w_taps <= LANES else 1.3
    return weights * (cycles + 0.5 * (weights * sizeof(real) > 4e6))


cdef inline double line_cycles(int64_t n) noexcept nogil:
    """A tap of n positions in a line, for one block of output channels. Fewer than four in a tile would wait for each
    other; of two blocks at once it takes two."""
    cdef int64_t tiles = ceil_div(n, POSITIONS)
    return max(n, 2 * tiles) + 0.5 if n <= PAIR_POSITIONS else max(n, 4 * tiles) + tiles


cdef inline double direction_cycles(const Lattice *g, int a) noexcept nogil:
    """Of all positions, in tiles along axis a. Those down the rows read as many cache lines as they have positions."""
    return g.n[(a + 1) % 3] * g.n[(a + 2) % 3] * line_cycles(g.n[a]) * (1.25 if a == 1 else 1)


cdef int best_direction(const Lattice *g) noexcept nogil:
    cdef int best = 2
    if direction_cycles(g, 1) < direction_cycles(g, 2):
        best = 1
    return 0 if direction_cycles(g, 0) < direction_cycles(g, best) else best


cdef void join_lines(Lattice *g) noexcept nogil:
    """Lines that follow one another evenly become one."""
    cdef int a
    for a in range(1, -1, -1):
        if g.x_step[a] == g.n[2] * g.x_step[2] and g.slot[a] == g.n[2] * g.slot[2] and g.n[1] * g.n[0] > 1 \
                and (a == 1 or g.n[1] == 1):
            g.n[2] *= g.n[a]
            g.n[a] = 1


cdef int64_t pieces_of(const Axis *axis, bint exact, Piece *pieces) noexcept nogil:
    """Cut an axis into pieces, or count them if `pieces` is NULL. Not exact: one, with all taps."""
    cdef int64_t y = 0, n = 0, begin, end, last_begin = -1, last_end = -1, reach = (axis.k - 1) * axis.d
    cdef int64_t inner = ceil_div(max(axis.before, 0), axis.s), inner_end = axis.n - 1 + axis.before - reach
    inner_end = min(inner_end // axis.s + 1, axis.on) if inner_end >= 0 else 0
    if not exact:
        if pieces != NULL:
            pieces[0].first, pieces[0].stop, pieces[0].begin, pieces[0].end = 0, axis.on, 0, axis.k
        return 1
    while y < axis.on:
        taps_inside(axis, y, y, &begin, &end)
        if n == 0 or begin != last_begin or end != last_end:
            n += 1
            if pieces != NULL:
                pieces[n - 1].first, pieces[n - 1].begin, pieces[n - 1].end = y, begin, end
            last_begin, last_end = begin, end
        y = inner_end if inner <= y < inner_end else y + 1
        if pieces != NULL:
            pieces[n - 1].stop = y
    return n


cdef bint place_pieces(ChannelPlan *q) noexcept nogil:
    """Cut both axes into pieces of outputs that have the same taps; one piece where all taps count everywhere."""
    cdef const Problem *p = q.p
    q.pieces_y = <Piece *> malloc((pieces_of(&p.H, q.exact, NULL) + pieces_of(&p.W, q.exact, NULL)) * sizeof(Piece))
    if q.pieces_y == NULL:
        return False
    q.n_pieces_y = pieces_of(&p.H, q.exact, q.pieces_y)
    q.pieces_x = q.pieces_y + q.n_pieces_y
    q.n_pieces_x = pieces_of(&p.W, q.exact, q.pieces_x)
    return True


cdef bint reads_input(Problem *p) noexcept nogil:
    """Whether each output can read its true samples where they lie, and leave out all else."""
    return (p.source.plain and p.source.code == REAL_CODE and p.x_parts == 1 and p.n_outer == 0
            and (max(max(p.H.before, p.W.before), max(padding_after(&p.H), padding_after(&p.W))) <= 0
                 or leaves_out(p) and finite_weights(p)))


cdef inline double cycles_to_turn(const Problem *p) noexcept nogil:
    if p.keeps:
        return CYCLES_A_TURNED_WEIGHT
    if p.order == NULL:
        return CYCLES_TO_TURN
    return CYCLES_TO_TURN_EXCHANGED if p.w_taps > 1 else 0


cdef void consider_exact(ChannelPlan *q, ChannelPlan *best, int64_t maps, int64_t rows, int64_t cols,
                         int64_t o_block) noexcept nogil:
    """`consider`, for vectors over output channels and positions that read the input where it lies."""
    cdef const Problem *p = q.p
    cdef int64_t i, j, of_rows, of_cols
    cdef double multiply = 0, unit, store
    cdef Lattice g
    q.by_outputs = q.exact = True
    q.maps, q.rows, q.cols = maps, rows, cols
    q.c_block, q.c_blocks = p.C, 1
    q.o_block = min(round_up(o_block, OUTPUT_NV * LANES), round_up(p.O, LANES))
    q.o_blocks = ceil_div(p.O, q.o_block)
    q.map_blocks, q.row_blocks, q.col_blocks = ceil_div(p.N, maps), ceil_div(p.H.on, rows), ceil_div(p.W.on, cols)
    q.units = q.map_blocks * p.groups * q.row_blocks * q.col_blocks * q.o_blocks
    g.n[0] = maps
    for i in range(q.n_pieces_y):
        of_rows = q.pieces_y[i].stop - q.pieces_y[i].first
        g.n[1] = min(rows, of_rows)
        for j in range(q.n_pieces_x):
            of_cols = q.pieces_x[j].stop - q.pieces_x[j].first
            g.n[2] = min(cols, of_cols)
            multiply += (direction_cycles(&g, best_direction(&g)) * of_rows * of_cols / (g.n[1] * g.n[2])
                         * (q.pieces_y[i].end - q.pieces_y[i].begin) * (q.pieces_x[j].end - q.pieces_x[j].begin))
    store = CYCLES_TO_TURN_OUTPUT
    if not p.y_direct and p.y_channel % PAGE == 0:
        store += CYCLES_TO_SCATTER
    if q.o_block <= LANES:
        multiply *= CYCLES_A_LONE_VECTOR
    unit = multiply / (q.row_blocks * q.col_blocks * OUTPUT_NV * LANES) + q.n_taps * cycles_to_turn(p)
    unit = q.o_block * (p.C * unit + maps * rows * cols * store)
    q.cycles = ceil_div(q.units, q.workers) * unit
    if q.cycles < best.cycles:
        best[0] = q[0]


cdef void consider_exact_blocks(ChannelPlan *q, ChannelPlan *best) noexcept nogil:
    """Blocks of maps, rows, columns and output channels, large ones first."""
    cdef const Problem *p = q.p
    cdef int64_t maps = 1, rows = p.H.on, cols = p.W.on, pieces
    cdef int64_t most = OUTPUT_SUMS_BYTES // (OUTPUT_NV * LANES * <int64_t> sizeof(real))
    if p.n_batch <= 1:
        maps = max(1, min(min(p.N, MOST_MAPS), most // (p.H.on * p.W.on)))
        maps = ceil_div(p.N, ceil_div(p.N, maps))
    while True:
        if maps * rows * cols <= most:
            pieces = 1
            while pieces <= 4 * q.workers and (pieces == 1 or p.O > OUTPUT_NV * LANES * (pieces // 2)):
                consider_exact(q, best, maps, rows, cols, ceil_div(p.O, pieces))
                if q.workers == 1:
                    break
                pieces *= 2
        if maps > 1:
            maps = ceil_div(maps, 2)
        elif rows * cols <= 4 * POSITIONS * POSITIONS and (q.workers == 1 or rows < p.H.on or cols < p.W.on):
            break
        elif rows > 1:
            rows = ceil_div(rows, 2)
        elif cols > 1:
            cols = ceil_div(cols, 2)
        else:
            break


cdef void consider(ChannelPlan *q, ChannelPlan *best, int64_t maps, int64_t rows, int64_t cols,
                   int64_t o_block) noexcept nogil:
    """Keep these blocks in `best` if they take fewer cycles: multiply-adds, two vectors of them a cycle, those between
    rows included; copies; partial sums and weights. Of the thread that has the most units."""
    cdef const Problem *p = q.p
    cdef int64_t i, begin, end
    cdef Lattice g
    cdef double vectors, copy, unit, lone, planes = p.outer_taps * q.fy.count * q.fx.count
    q.maps, q.rows, q.cols = maps, rows, cols
    lay_out(q)
    q.c_blocks = ceil_div(p.C, q.c_block)
    q.map_blocks = ceil_div(p.N * p.outer_size, maps)
    q.row_blocks = ceil_div(p.H.on, rows)
    q.col_blocks = q.cuts if q.cuts else ceil_div(p.W.on, cols)
    q.o_block = o_block
    if q.c_blocks > 1:
        q.o_block = min(o_block, max(LARGEST_R, SUMS_BYTES // <int64_t> sizeof(real) // line_length(q)
                                     // LARGEST_R * LARGEST_R))
    q.o_blocks = ceil_div(p.O, q.o_block)
    q.units = q.map_blocks * p.groups * q.row_blocks * q.col_blocks * q.o_blocks
    vectors = ceil_div(line_length(q), LANES)
    if q.cuts:                       # of one that has average taps and columns
        vectors = copy = 0
        for i in range(q.cuts):
            taps_inside(&p.W, q.cut[i], q.cut[i + 1] - 1, &begin, &end)
            cols = q.cut[i + 1] - q.cut[i]
            vectors += ceil_div(rows * cols, LANES) * (<double> (end - begin) / p.W.k) / q.cuts
            copy += (end - begin) * p.H.k * q.band_rows * (CYCLES_A_RUN + cols * CYCLES_TO_COPY) / q.cuts
    elif q.in_place:
        copy = 0
    elif q.flat_x:
        copy = planes * maps * (CYCLES_A_RUN + q.band_rows * q.pitch * CYCLES_TO_COPY_FLAT)
    else:
        copy = planes * maps * q.band_rows * (CYCLES_A_RUN + q.pitch * CYCLES_TO_COPY)
    unit = p.C * copy + q.o_block * (p.C * q.n_taps * (vectors * 0.5 + CYCLES_A_WEIGHT)
                                     + (q.c_blocks - 1) * vectors * CYCLES_TO_PASS)
    q.cycles = ceil_div(q.units, q.workers) * unit
    if p.order != NULL and not p.keeps:
        q.cycles += cycles_to_exchange(p, q.n_taps) / q.workers
    q.by_outputs = False
    if q.cycles < best.cycles:
        best[0] = q[0]
    if p.O < LANES or q.cuts or q.readable:
        return
    g.n[0], g.n[1], g.n[2] = maps, rows, cols
    g.x_step[0], g.x_step[1], g.x_step[2] = q.band_rows * q.pitch, q.pitch, 1
    g.slot[0], g.slot[1], g.slot[2] = rows * cols, cols, 1
    join_lines(&g)
    q.by_outputs = True
    q.o_block = round_up(q.o_block, OUTPUT_NV * LANES)
    q.o_blocks = ceil_div(p.O, q.o_block)
    q.units = q.map_blocks * p.groups * q.row_blocks * q.col_blocks * q.o_blocks
    lone = CYCLES_A_LONE_VECTOR if min(q.o_block, p.O) <= LANES else 1
    unit = p.C * copy + round_up(min(q.o_block, p.O), LANES) * (
        p.C * q.n_taps * (direction_cycles(&g, best_direction(&g)) * lone / (OUTPUT_NV * LANES) + cycles_to_turn(p))
        + maps * rows * cols * (CYCLES_TO_TURN_OUTPUT + (q.c_blocks - 1) * CYCLES_TO_PASS / LANES))
    q.cycles = ceil_div(q.units, q.workers) * unit
    if q.cycles < best.cycles:
        best[0] = q[0]


cdef void consider_pieces(ChannelPlan *q, ChannelPlan *best, int64_t maps, int64_t rows, int64_t cols) noexcept nogil:
    """These blocks, and where there are too few for all threads, what they can be cut into."""
    cdef const Problem *p = q.p
    cdef int64_t pieces, units
    consider(q, best, maps, rows, cols, p.O)
    units = q.units
    if q.cuts:
        if units % q.workers != 0 or units < 4 * q.workers:
            if rows >= 2 * q.workers:
                consider(q, best, maps, ceil_div(rows, q.workers), cols, p.O)
            if p.O >= 2 * LARGEST_R:
                consider(q, best, maps, rows, cols, min(p.O, round_up(ceil_div(p.O, q.workers), LARGEST_R)))
        return
    if units % q.workers != 0 and units < 16 * q.workers:      # as many for each thread
        if q.row_blocks > 1:
            consider(q, best, maps, ceil_div(p.H.on, round_up(q.row_blocks, q.workers)), cols, p.O)
        elif q.col_blocks > 1:
            consider(q, best, maps, rows,
                     round_up(ceil_div(p.W.on, round_up(q.col_blocks, q.workers)), LANES), p.O)
    if units >= 4 * q.workers or q.workers == 1:
        return
    pieces = ceil_div(q.workers, units)
    while pieces <= 4 * q.workers:
        if p.O >= 2 * LARGEST_R:
            consider(q, best, maps, rows, cols, min(p.O, round_up(ceil_div(p.O, pieces), LARGEST_R)))
        if maps >= pieces:
            consider(q, best, ceil_div(maps, pieces), rows, cols, p.O)
        if rows >= 2 * pieces:
            consider(q, best, maps, ceil_div(rows, pieces), cols, p.O)
        elif cols >= 2 * LANES:
            consider(q, best, maps, rows, min(cols, round_up(ceil_div(cols, pieces), LANES)), p.O)
        pieces *= 2


cdef void consider_blocks(ChannelPlan *q, ChannelPlan *best) noexcept nogil:
    """All block sizes whose band fits BAND_BYTES, with the phases that q has."""
    cdef const Problem *p = q.p
    cdef int64_t planes = p.outer_taps * q.fy.count * q.fx.count, a_row
    cdef int64_t all_maps = min(p.N * p.outer_size, MOST_MAPS)
    cdef int64_t fewest = min(FEWEST_COLUMNS, all_maps * p.H.on * p.W.on)
    cdef int64_t pieces, cols, rows, maps, budget, most
    q.c_block = p.C
    while True:
        budget = BAND_BYTES // <int64_t> sizeof(real) // (q.c_block * planes)        # reals a plane
        most = 0
        for pieces in range(1, 2 if q.cuts else 65):
            cols = widest_cut(q) if q.cuts else ceil_div(p.W.on, pieces)
            if pieces > 1:
                cols = min(p.W.on, round_up(cols, LANES))
            q.maps, q.rows, q.cols = 1, 1 if q.cuts else p.H.on, cols
            lay_out(q)
            a_row = ceil_div(q.channel, planes) if q.cuts else q.pitch       # (cuts: of what is one row here)
            rows = min(p.H.on, budget // a_row - q.fy.reach)
            if rows < 1:
                continue
            rows = ceil_div(p.H.on, ceil_div(p.H.on, rows))
            maps = 1
            if rows == p.H.on and cols == p.W.on:
                maps = max(1, min(all_maps, budget // (q.band_rows * q.pitch)))
                maps = ceil_div(all_maps, ceil_div(all_maps, maps))
            if maps * rows * cols < fewest:
                continue
            most = max(most, maps * rows * cols)
            consider_pieces(q, best, maps, rows, cols)
            if rows == p.H.on:
                break
        if most >= min(ENOUGH_COLUMNS, all_maps * p.H.on * p.W.on):
            break
        if q.c_block == 1:
            if best.cycles == FOREVER:       # even one channel is too much (a huge kernel): one strip at a time
                q.cuts = 0
                consider(q, best, 1, 1, min(p.W.on, MAX_NV * LANES), p.O)
            break
        if most > 0 and q.c_block * q.n_taps < 2 * FEWEST_PRODUCTS:
            break
        q.c_block = ceil_div(p.C, ceil_div(p.C, ceil_div(q.c_block, 2)))


cdef inline bint flat_output(const ChannelPlan *q) noexcept nogil:
    """Whether an output map's rows are one line."""
    return q.p.y_direct and q.cols == q.p.W.on and q.p.H.y_step == q.p.W.on * <int64_t> sizeof(real)


cdef bint plan_channels(ChannelPlan *q, Problem *p, int workers) noexcept nogil:
    """False: out of memory."""
    cdef ChannelPlan trial
    cdef double planes               # in 64 bits the size could wrap around
    cdef bint cut
    cdef int own
    memset(q, 0, sizeof(ChannelPlan))
    q.p = p
    q.workers = workers
    q.n_taps = p.outer_taps * p.H.k * p.W.k
    for own in range(2):
        if not (find_phases(&q.phases[2 * own], p.H.k, p.H.s, p.H.d, own)
                and find_phases(&q.phases[2 * own + 1], p.W.k, p.W.s, p.W.d, own)):
            free_channels(q)
            return False
    if p.N * p.groups * p.O * p.outer_size * p.H.on * p.W.on == 0:
        return True
    q.cycles = FOREVER
    if p.O >= LANES and reads_input(p):
        q.readable = q.exact = True
        if not place_pieces(q):
            free_channels(q)
            return False
        q.exact = False
        trial = q[0]
        trial.fy, trial.fx = trial.phases[0], trial.phases[1]
        consider_exact_blocks(&trial, q)
    trial = q[0]
    trial.by_outputs = trial.exact = False
    for own in range(3 if p.O >= OWN_PHASES_FROM and q.n_taps > 1 else 1):
        trial.fy, trial.fx = trial.phases[2 * (own == 2)], trial.phases[2 * (own > 0) + 1]
        consider_blocks(&trial, q)
    cut = p.O >= OWN_PHASES_FROM and leaves_out(p) and cut_columns(&trial) and finite_weights(p)
    if cut:
        consider_blocks(&trial, q)
    planes = 0 if q.exact else <double> q.c_block * p.outer_taps * q.fy.count * q.fx.count
    if planes * q.maps * q.band_rows * q.pitch * sizeof(real) > LARGEST_WORKSPACE:
        free_channels(q)
        return False
    if not (q.exact or table_taps(q)) or not table_order(q) or not (q.readable or place_pieces(q)):
        free_channels(q)
        return False
    if q.exact:
        q.x_map = p.x_batch[0] if p.n_batch == 1 else 0
        q.x_row, q.x_column = p.H.s * p.H.x_step, p.W.s * p.W.x_step
    else:
        q.x_column = sizeof(real)
        q.x_row = q.pitch * q.x_column
        q.x_map = q.band_rows * q.x_row
    q.leave_out = (not q.by_outputs and leaves_out(p) and p.H.k > 1 and max(p.H.before, padding_after(&p.H))
                   >= (CHANNEL_TILES[0].NV[0] * LANES - 1) // q.pitch * p.H.s + 1 and (cut or finite_weights(p)))
    q.flat_y = flat_output(q) and q.pitch == p.W.on
    q.lds = round_up(line_length(q), LANES) + MAX_NV * LANES
    q.at_band = LINE
    q.at_sums = q.at_band
    if not q.exact:
        q.at_sums += round_up(sizeof(real) * (q.c_block * q.channel + MAX_NV * LANES), LINE)
    q.at_scratch = q.at_sums
    if q.by_outputs:
        q.slots = round_up(q.maps * q.rows * q.cols, LANES)
        q.at_scratch += round_up(sizeof(real) * q.slots * (q.o_block if q.c_blocks > 1 else PAIR_NV * LANES), LINE)
    elif q.c_blocks > 1:
        q.at_scratch += round_up(sizeof(real) * q.o_block * q.lds, LINE)
    q.at_turned = q.at_scratch + sizeof(real) * MAX_R * MAX_NV * LANES
    q.at_table = q.at_turned
    if q.by_outputs and p.packed == NULL:
        q.at_table += round_up(sizeof(real) * turned_channels(q) * q.n_taps * PAIR_NV * LANES, LINE)
    q.at_maps = q.at_table
    if q.by_outputs:
        q.at_maps += round_up(q.n_taps * sizeof(OutputTap), LINE)
    if q.exact:
        q.workspace = q.at_maps
        return True
    q.at_masks = round_up(q.at_maps + q.fx.count * (sizeof(ColumnMap) + q.pitch * sizeof(int64_t)), LINE)
    q.workspace = q.at_masks
    if q.flat_x:
        q.mask = round_up(q.band_rows * q.pitch, LANES)
        q.workspace += q.fx.count * q.mask * sizeof(real)
    return True


cdef inline int64_t padding_after(const Axis *axis) noexcept nogil:
    return (axis.on - 1) * axis.s + (axis.k - 1) * axis.d + 1 - axis.n - axis.before


cdef bint leaves_out(const Problem *p) noexcept nogil:
    """Whether padding is zeros: to leave out taps that read nothing else changes no bit of a finite sum."""
    return (p.outer_taps == 1 and p.H.boundary == CONSTANT and p.W.boundary == CONSTANT and p.constant[0] == 0
            and p.constant[1] == 0)


cdef bint finite_weights(Problem *p) noexcept nogil:
    cdef int64_t n_taps = p.w_taps if p.order != NULL else p.outer_taps * p.H.k * p.W.k
    if p.finite == UNKNOWN:
        p.finite = all_finite(p.w, p.groups * p.O * p.C * n_taps)
    return p.finite


cdef void taps_inside(const Axis *axis, int64_t first, int64_t last, int64_t *begin, int64_t *end) noexcept nogil:
    """The taps that read a true sample for some of the outputs first to last."""
    cdef int64_t reach = axis.n - 1 + axis.before - first * axis.s
    begin[0] = min(axis.k, ceil_div(max(axis.before - last * axis.s, 0), axis.d))
    end[0] = max(begin[0], min(axis.k, reach // axis.d + 1)) if reach >= 0 else begin[0]


cdef bint cut_columns(ChannelPlan *q) noexcept nogil:
    """Cut columns where a tap's true samples begin or end, into no narrow pieces. False: that leaves out little."""
    cdef const Problem *p = q.p
    cdef int64_t x, left = 0, begin, end, previous_begin, previous_end
    q.cuts = 0
    q.cut[0] = 0
    if max(p.W.before, padding_after(&p.W)) < NARROWEST_CUT:
        return False
    taps_inside(&p.W, 0, 0, &previous_begin, &previous_end)
    for x in range(1, p.W.on):
        taps_inside(&p.W, x, x, &begin, &end)
        if begin == previous_begin and end == previous_end:
            continue
        previous_begin, previous_end = begin, end
        if x - q.cut[q.cuts] < NARROWEST_CUT or p.W.on - x < NARROWEST_CUT:
            continue
        q.cuts += 1
        q.cut[q.cuts] = x
        if q.cuts == MOST_CUTS:
            q.cuts = 0
            return False
    q.cuts += 1
    q.cut[q.cuts] = p.W.on
    for x in range(q.cuts):
        taps_inside(&p.W, q.cut[x], q.cut[x + 1] - 1, &begin, &end)
        left += (p.W.k - (end - begin)) * (q.cut[x + 1] - q.cut[x])
    if q.cuts == 1 or left * 16 < p.W.k * p.W.on:
        q.cuts = 0
        return False
    return True


cdef int64_t widest_cut(const ChannelPlan *q) noexcept nogil:
    cdef int64_t i, widest = 0
    for i in range(q.cuts):
        widest = max(widest, q.cut[i + 1] - q.cut[i])
    return widest


cdef bint table_taps(ChannelPlan *q) noexcept nogil:
    cdef const Problem *p = q.p
    cdef int64_t kz, ky, kx, block, begin = 0, end = p.W.k, plane = q.plane, channel
    cdef int64_t *tap
    q.taps = <int64_t *> malloc(max(q.cuts, 1) * q.n_taps * sizeof(int64_t))
    if q.taps == NULL:
        return False
    for block in range(max(q.cuts, 1)):
        tap = q.taps + block * q.n_taps
        if q.cuts:
            taps_inside(&p.W, q.cut[block], q.cut[block + 1] - 1, &begin, &end)
            lay_out_cut(q, block, &plane, &channel)
        for kz in range(p.outer_taps):
            for ky in range(p.H.k):
                for kx in range(begin, end):
                    if q.cuts:
                        tap[0] = sizeof(real) * (ky * (end - begin) + kx - begin) * plane
                    else:
                        tap[0] = sizeof(real) * (
                            ((kz * q.fy.count + q.fy.of_tap[ky]) * q.fx.count + q.fx.of_tap[kx]) * plane
                            + q.fy.shift[ky] * q.pitch + q.fx.shift[kx])
                    tap += 1
    return True


cdef void free_channels(ChannelPlan *q) noexcept nogil:
    cdef int i
    for i in range(4):
        free(q.phases[i].residue)
    free(q.taps)
    free(q.order)
    free(q.pieces_y)


cdef struct ChannelUnit:
    int64_t map, maps                # the first one, of all, and how many
    int64_t group
    int64_t channel                  # the group's first output channel, of all
    int64_t o0, o1                   # within the group
    int64_t x0, y0, rows, cols, pitch
    int64_t plane, band_channel      # reals
    int64_t kx0, kx1                 # the kernel columns that it has
    const int64_t *taps              # and the table of these
    int64_t map_step                 # columns from map to map
    int64_t run, run_step            # columns that are also one line in the output, and from one such line to the next
    char *y[MOST_MAPS]               # output channel 0 of all, first sample of the block, of each map
    const real *w                    # the group's weights
    const real *bias                 # and biases, or NULL
    bint in_place


cdef void place_columns(const ChannelPlan *q, ChannelUnit *u, int64_t block) noexcept nogil:
    """The unit's columns, and the taps that they have."""
    cdef const Problem *p = q.p
    u.kx0, u.kx1 = 0, p.W.k
    u.taps = q.taps
    u.plane, u.band_channel = q.plane, q.channel
    if q.cuts:
        lay_out_cut(q, block, &u.plane, &u.band_channel)
        u.x0 = q.cut[block]
        u.cols = u.pitch = q.cut[block + 1] - u.x0
        taps_inside(&p.W, u.x0, u.x0 + u.cols - 1, &u.kx0, &u.kx1)
        u.taps += block * q.n_taps
    else:
        u.x0 = block * q.cols
        u.cols = min(q.cols, p.W.on - u.x0)
        u.pitch = q.pitch


cdef void map_unit_columns(const ChannelPlan *q, const ChannelUnit *u, char *workspace) noexcept nogil:
    cdef const Problem *p = q.p
    cdef ColumnMap *maps = <ColumnMap *> (workspace + q.at_maps)
    cdef int64_t *samples = <int64_t *> (maps + q.fx.count)
    cdef real *mask = <real *> (workspace + q.at_masks)
    cdef int64_t i
    for i in range(q.fx.count):
        maps[i].sample = samples + i * q.pitch
        map_columns(&maps[i], u.x0 * p.W.s + q.fx.residue[i] - p.W.before, p.W.s, u.pitch, p.W.n, p.W.boundary, 1)
        if q.flat_x:
            fill_mask(mask + i * q.mask, q.mask, q.pitch, maps[i].inner, maps[i].inner_end)


cdef void fill_channel_band(const ChannelPlan *q, const ChannelUnit *u, char *workspace, int64_t c0,
                            int64_t c1) noexcept nogil:
    """Input channels c0 to c1 of the unit's group."""
    cdef const Problem *p = q.p
    cdef const ColumnMap *cols = <const ColumnMap *> (workspace + q.at_maps)
    cdef const real *masks = <const real *> (workspace + q.at_masks)
    cdef real *plane
    cdef real *band
    cdef const char *slices[MOST_MAPS]
    cdef real constant
    cdef int64_t c, kz, py, px, m, first
    for c in range(u.group * p.C + c0, u.group * p.C + c1):
        constant = p.constant[c % p.x_parts]
        plane = <real *> (workspace + q.at_band) + (c - u.group * p.C - c0) * u.band_channel
        for kz in range(p.outer_taps):
            for m in range(u.maps):
                slices[m] = input_slice(p, (u.map + m) // p.outer_size, c, (u.map + m) % p.outer_size, kz)
            for py in range(q.fy.count):
                first = u.y0 * p.H.s + q.fy.residue[py] - p.H.before
                for px in range(q.fx.count):
                    if q.cuts and not u.kx0 <= px < u.kx1:
                        continue
                    band = plane
                    for m in range(u.maps):
                        if not (q.flat_x and fill_flat(p, &cols[px], masks + px * q.mask, slices[m], first,
                                                       q.band_rows, band, q.pitch, constant)):
                            fill_rows(p, &cols[px], slices[m], first, p.H.s, q.band_rows, band, u.pitch, constant)
                        band += q.band_rows * u.pitch
                    if q.needed > q.pitch:
                        fill_constant(band, q.needed - q.pitch, constant)
                    plane += u.plane


cdef void store_tile(const ChannelPlan *q, const ChannelUnit *u, int R, int64_t o, const real *sums, int64_t lds,
                     int64_t at, int64_t count) noexcept nogil:
    """Write columns at .. at + count of the unit's line for the channels o .. o + R, output columns only."""
    cdef const Problem *p = q.p
    cdef int64_t m = at // u.map_step, row = (at - m * u.map_step) // u.run_step
    cdef int64_t column = at - m * u.map_step - row * u.run_step
    cdef int64_t n, done = 0, rows = u.rows if u.run == u.cols else 1
    cdef char *y
    cdef int r
    while done < count:
        n = min(u.run - column, count - done)
        if n > 0 and row < rows:
            y = u.y[m] + row * p.H.y_step + column * p.W.y_step
            for r in range(R):
                if p.y_direct:
                    copy_reals(<real *> (y + channel_offset(p, u.channel + o + r)), sums + r * lds + done, n)
                else:
                    store(p.y_code, y + channel_offset(p, u.channel + o + r), p.W.y_step, sums + r * lds + done, n)
        done += u.run_step - column
        column = 0
        row += 1
        if row * u.run_step == u.map_step:
            row = 0
            m += 1


cdef void run_tiles(const ChannelPlan *q, const ChannelUnit *u, char *workspace, const char *band, int64_t plane,
                    int64_t c0, int64_t c1) noexcept nogil:
    """The input channels c0 to c1 into all the unit's sums."""
    cdef const Problem *p = q.p
    cdef real *scratch = <real *> (workspace + q.at_scratch)
    cdef real *sums
    cdef const ChannelTiles *tiles
    cdef const real *bias
    cdef int64_t end = (u.maps - 1) * u.map_step + (u.rows - 1) * u.pitch + u.cols
    cdef int64_t a_row = q.n_taps // p.H.k, row_taps = p.outer_taps * (u.kx1 - u.kx0)
    cdef int64_t ldw = p.C * q.n_taps, o = u.o0, q0, at, m, row, column, step, strips, lds, left
    cdef int64_t begin, taps_end, n_taps
    cdef bint last = c1 == p.C
    cdef bint direct
    cdef int i = 0, v
    while o < u.o1:
        while CHANNEL_TILES[i].R > u.o1 - o or CHANNEL_TILES[i].R > LARGEST_R:
            i += 1
        tiles = &CHANNEL_TILES[i]
        bias = u.bias + o if last and u.bias != NULL else NULL
        q0 = 0
        while q0 < end:
            left = ceil_div(end - q0, LANES)
            v = 0
            while tiles.NV[v] > left or (u.in_place and tiles.NV[v] * LANES > end):
                v += 1
            if v == 0 and left > tiles.NV[0] and left <= 2 * tiles.NV[1]:
                v = 1                # two short tiles, rather than a full one and a rest that few registers serve
            step = tiles.NV[v] * LANES
            # In place no vector may reach past the input: the last ones compute some columns again.
            at = min(q0, end - step) if u.in_place else q0
            m = at // u.map_step
            row = (at - m * u.map_step) // u.run_step
            column = at - m * u.map_step - row * u.run_step
            strips = 1
            begin, taps_end = 0, p.H.k
            if q.leave_out and (at + step - 1) // u.map_step == m:
                taps_inside(&p.H, u.y0 + (at - m * u.map_step) // u.pitch,
                            u.y0 + min(u.rows - 1, (at + step - 1 - m * u.map_step) // u.pitch), &begin, &taps_end)
            direct = p.y_direct and q.c_blocks == 1 and column + step <= u.run and row * u.run < u.rows * u.cols
            if direct:
                if v == 0 and not q.leave_out:
                    strips = (min(u.run - column, end - at)) // step
                sums = <real *> (u.y[m] + (u.channel + o) * p.y_channel + row * p.H.y_step) + column
                lds = p.y_channel // <int64_t> sizeof(real)
            elif q.c_blocks > 1:
                sums = <real *> (workspace + q.at_sums) + (o - u.o0) * q.lds + q0
                lds = q.lds
            else:
                sums = scratch
                lds = MAX_NV * LANES
            n_taps = (taps_end - begin) * row_taps
            tiles.run[v](band + at * sizeof(real), strips, u.taps + begin * row_taps, n_taps,
                         row_taps if q.cuts else n_taps, a_row - row_taps, c1 - c0, plane,
                         u.w + o * ldw + c0 * q.n_taps + begin * a_row + u.kx0, ldw,
                         q.n_taps - (taps_end - begin) * a_row, bias, c0 > 0, sums, lds)
            if last and not direct:
                store_tile(q, u, tiles.R, o, sums, lds, at, min(step, end - at))
            q0 += strips * step
        o += tiles.R


ctypedef void (*RunTiles)(const ChannelPlan *, const ChannelUnit *, char *, const char *, int64_t, int64_t,
                          int64_t) noexcept nogil

include "outputs.pxi"


cdef void run_channel_unit(const void *plan, int64_t unit, char *workspace, Progress *progress,
                           bint calling) noexcept nogil:
    cdef const ChannelPlan *q = <const ChannelPlan *> plan
    cdef const Problem *p = q.p
    cdef ChannelUnit u
    cdef int64_t *held = <int64_t *> workspace       # whose band the workspace holds
    cdef int64_t c0, c1, m, block = unit // q.o_blocks
    cdef RunTiles run = run_output_tiles if q.by_outputs else run_tiles
    u.o0 = unit % q.o_blocks * q.o_block
    u.o1 = min(p.O, u.o0 + q.o_block)
    unit //= q.o_blocks
    place_columns(q, &u, unit % q.col_blocks)
    unit //= q.col_blocks
    u.y0 = unit % q.row_blocks * q.rows
    u.rows = min(q.rows, p.H.on - u.y0)
    unit //= q.row_blocks
    u.group = unit % p.groups
    u.map = unit // p.groups * q.maps
    u.maps = min(q.maps, p.N * p.outer_size - u.map)
    u.map_step = q.band_rows * u.pitch
    if q.flat_y:
        u.run, u.run_step = u.rows * u.cols, u.map_step
    else:
        u.run, u.run_step = u.cols, u.pitch
    u.channel = u.group * p.O
    for m in range(u.maps):
        u.y[m] = output_slice(p, (u.map + m) // p.outer_size, 0, (u.map + m) % p.outer_size) \
            + u.y0 * p.H.y_step + u.x0 * p.W.y_step
    if q.by_outputs:                 # sums lie position after position
        u.map_step = u.rows * u.cols
        u.run = u.run_step = u.map_step if flat_output(q) else u.cols
    u.w = p.w + u.channel * p.C * q.n_taps
    u.bias = p.bias + u.channel if p.bias != NULL else NULL
    if q.exact:
        run_output_tiles(q, &u, workspace, input_slice(p, u.map, u.group * p.C, 0, 0)
                         + (u.y0 * p.H.s - p.H.before) * p.H.x_step + (u.x0 * p.W.s - p.W.before) * p.W.x_step,
                         p.x_channel, 0, p.C)
        return
    u.in_place = q.in_place and u.cols >= LANES
    if not u.in_place and held[0] != block:
        map_unit_columns(q, &u, workspace)
    c0 = 0
    while c0 < p.C:
        c1 = min(p.C, c0 + q.c_block)
        if u.in_place:
            run(q, &u, workspace, input_slice(p, u.map, u.group * p.C + c0, 0, 0) + u.x0 * sizeof(real), p.x_channel,
                c0, c1)
        else:
            if q.c_blocks > 1 or held[0] != block:
                fill_channel_band(q, &u, workspace, c0, c1)
                held[0] = block
            run(q, &u, workspace, workspace + q.at_band, u.band_channel * sizeof(real), c0, c1)
        c0 = c1
