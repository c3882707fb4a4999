# Vectors over output channels: a tile is up to 14 positions x 2 vectors of output channels, or 6 x 4. Each position's
# sample is broadcast, so the input needs no vectors. Plain reals are read where they lie, whatever the strides, a piece
# of the output after the other: the inner positions, which have all taps, then those along a border of zeros, and in
# its corners. There is no band, nothing reads padding, and no sum is computed in vain. Anything else (other dtypes and
# boundaries, weights that are not finite) goes through the band, and all its positions have all taps.
#
# The tile needs the weights output channels last. A plan keeps them so; the input gradient of a 1 x 1 layer finds them
# so. Otherwise a block of them is turned in registers, a square of vectors at a time, into a few kilobytes of the
# thread's workspace, and used for all of the unit's positions. So the weights of an input gradient, whose channels are
# exchanged, need no exchanged copy.

cdef enum:
    TURNED_BYTES = 32768             # two thirds of an L1 cache
    MAX_POSITIONS = 14


cdef inline void output_tile(
    int P, int NV,
    const char *x,               # where position 0 stands in channel 0
    int64_t step,                # bytes from position to position
    const OutputTap *taps, int64_t n_taps,
    int64_t n_channels,
    int64_t plane,               # bytes from channel to channel
    const char *w, int64_t ldw,  # weights of the output channels at tap 0, and bytes to the next input channel's
    int64_t w_pair,              # and to those of vectors 2 and 3
    bint resume,                 # continue the sums found in `sums`
    real *sums, int64_t lds,     # of position 0, and the distance to the next one's
    int64_t pair,                # and to those of vectors 2 and 3
) noexcept nogil:
    """The same sums as channel_tile's, the two factors changed over."""
    cdef vec acc[MAX_POSITIONS][PAIR_NV]
    cdef vec b[PAIR_NV]
    cdef const char *sample
    cdef int p, v
    cdef int64_t c, t
    for p in range(P):
        for v in range(NV):
            acc[p][v] = vzero()
    if resume:
        for p in range(P):
            for v in range(NV):
                acc[p][v] = (<const vec *> (sums + p * lds + v // 2 * pair) + v % 2)[0]
    if n_taps == 1:
        x += taps[0].x
        w += taps[0].w
        for c in range(n_channels):
            for v in range(NV):
                b[v] = (<const vec *> (w + v // 2 * w_pair) + v % 2)[0]
            sample = x
            for p in range(P):
                for v in range(NV):
                    acc[p][v] += b[v] * (<const real *> sample)[0]
                sample += step
            x += plane
            w += ldw
    else:
        for c in range(n_channels):
            for t in range(n_taps):
                for v in range(NV):
                    b[v] = (<const vec *> (w + taps[t].w + v // 2 * w_pair) + v % 2)[0]
                sample = x + taps[t].x
                for p in range(P):
                    for v in range(NV):
                        acc[p][v] += b[v] * (<const real *> sample)[0]
                    sample += step
            x += plane
            w += ldw
    for p in range(P):
        for v in range(NV):
            (<vec *> (sums + p * lds + v // 2 * pair) + v % 2)[0] = acc[p][v]


cdef void outputs_2(int64_t P, const char *x, int64_t step, const OutputTap *taps, int64_t n_taps, int64_t n_channels,
                    int64_t plane, const char *w, int64_t ldw, bint resume, real *sums, int64_t lds) noexcept nogil:
    if POSITIONS >= 14 and P == 14:
        output_tile(14, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 13 and P == 13:
        output_tile(13, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 12 and P == 12:
        output_tile(12, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 11 and P == 11:
        output_tile(11, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 10 and P == 10:
        output_tile(10, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 9 and P == 9:
        output_tile(9, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 8 and P == 8:
        output_tile(8, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 7 and P == 7:
        output_tile(7, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 6 and P == 6:
        output_tile(6, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 5 and P == 5:
        output_tile(5, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 4:
        output_tile(4, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 3:
        output_tile(3, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 2:
        output_tile(2, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 1:
        output_tile(1, 2, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)


cdef void outputs_4(int64_t P, const char *x, int64_t step, const OutputTap *taps, int64_t n_taps, int64_t n_channels,
                    int64_t plane, const char *w, int64_t ldw, int64_t w_pair, bint resume, real *sums, int64_t lds,
                    int64_t pair) noexcept nogil:
    if PAIR_POSITIONS >= 6 and P == 6:
        output_tile(6, PAIR_NV, x, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, sums, lds, pair)
    elif PAIR_POSITIONS >= 5 and P == 5:
        output_tile(5, PAIR_NV, x, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, sums, lds, pair)
    elif PAIR_POSITIONS >= 4 and P == 4:
        output_tile(4, PAIR_NV, x, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, sums, lds, pair)
    elif PAIR_POSITIONS >= 3 and P == 3:
        output_tile(3, PAIR_NV, x, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, sums, lds, pair)
    elif P == 2:
        output_tile(2, PAIR_NV, x, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, sums, lds, pair)
    elif P == 1:
        output_tile(1, PAIR_NV, x, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, sums, lds, pair)


cdef void outputs_1(int64_t P, const char *x, int64_t step, const OutputTap *taps, int64_t n_taps, int64_t n_channels,
                    int64_t plane, const char *w, int64_t ldw, bint resume, real *sums, int64_t lds) noexcept nogil:
    if POSITIONS >= 14 and P == 14:
        output_tile(14, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 13 and P == 13:
        output_tile(13, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 12 and P == 12:
        output_tile(12, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 11 and P == 11:
        output_tile(11, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 10 and P == 10:
        output_tile(10, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 9 and P == 9:
        output_tile(9, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 8 and P == 8:
        output_tile(8, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 7 and P == 7:
        output_tile(7, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 6 and P == 6:
        output_tile(6, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif POSITIONS >= 5 and P == 5:
        output_tile(5, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 4:
        output_tile(4, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 3:
        output_tile(3, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 2:
        output_tile(2, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)
    elif P == 1:
        output_tile(1, 1, x, step, taps, n_taps, n_channels, plane, w, ldw, 0, resume, sums, lds, 0)


cdef inline int64_t turned_channels(const ChannelPlan *q) noexcept nogil:
    """Input channels whose weights are turned, or used for all positions, at once."""
    cdef int64_t most = TURNED_BYTES // (<int64_t> sizeof(real) * q.n_taps * OUTPUT_NV * LANES)
    return ceil_div(q.c_block, ceil_div(q.c_block, max(1, most)))


cdef bint table_order(ChannelPlan *q) noexcept nogil:
    cdef const Problem *p = q.p
    cdef int64_t t
    if p.order == NULL:
        return True
    q.order = <int64_t *> malloc(p.w_taps * sizeof(int64_t))
    if q.order == NULL:
        return False
    for t in range(p.w_taps):
        q.order[t] = -1
    for t in range(q.n_taps):
        q.order[p.order[t]] = t
    return True


cdef void turn_weights(const ChannelPlan *q, int64_t group, int64_t o, int64_t n, int64_t c0, int64_t c1,
                       real *turned, int64_t width) noexcept nogil:
    """turned[c, tap, o] for n output channels, LANES at most, and the input channels c0 to c1."""
    cdef const Problem *p = q.p
    cdef const real *w
    cdef real *to
    cdef vec square[LANES]
    cdef int64_t terms = p.C * q.n_taps, count = (c1 - c0) * q.n_taps, k = 0, c, t, step, n_taps
    cdef const int64_t *order
    cdef int i
    if p.order == NULL:
        w = p.w + (group * p.O + o) * terms + c0 * q.n_taps
        if n == LANES and count >= LANES:
            while k < count:
                k = min(k, count - LANES)
                for i in range(LANES):
                    square[i] = (<const vec *> (w + i * terms + k))[0]
                transpose_square(square)
                for i in range(LANES):
                    (<vec *> (turned + (k + i) * width))[0] = square[i]
                k += LANES
            return
        for k in range(count):
            for i in range(LANES):
                turned[k * width + i] = w[i * terms + k] if i < n else 0
        return
    step = p.O * p.w_taps
    order, n_taps = q.order, p.w_taps
    w = p.w + (group * p.C + c0) * step + o * p.w_taps
    for c in range(c0, c1):
        t = 0
        if n == LANES and w + (LANES - 1) * p.w_taps + max(<int64_t> LANES, p.w_taps) <= p.w_end:
            while t < n_taps:
                if t > 0:
                    t = min(t, n_taps - LANES)
                for i in range(LANES):
                    square[i] = (<const vec *> (w + i * n_taps + t))[0]
                transpose_square(square)
                for i in range(LANES):
                    if t + i < n_taps and order[t + i] >= 0:
                        (<vec *> (turned + order[t + i] * width))[0] = square[i]
                t += LANES
        else:
            for t in range(q.n_taps):
                for i in range(LANES):
                    turned[t * width + i] = w[i * p.w_taps + p.order[t]] if i < n else 0
        w += step
        turned += q.n_taps * width


cdef void store_outputs(const ChannelPlan *q, const ChannelUnit *u, real *scratch, int64_t o, int64_t n,
                        const real *sums, int64_t vectors, int64_t count) noexcept nogil:
    """Turn the sums of n output channels, and write the unit's line of `count` positions."""
    cdef vec square[LANES]
    cdef int64_t v, m, first = 0
    cdef int i
    while first < count:
        for v in range(vectors):
            m = min(<int64_t> LANES, n - v * LANES)
            for i in range(LANES):
                square[i] = (<const vec *> sums + (first + i) * vectors + v)[0]
            transpose_square(square)
            for i in range(LANES):
                (<vec *> scratch + i)[0] = square[i]
            if u.bias != NULL:
                for i in range(<int> m):
                    (<vec *> scratch + i)[0] = (<vec *> scratch + i)[0] + u.bias[o + v * LANES + i]
            store_tile(q, u, <int> m, o + v * LANES, scratch, LANES, first, min(<int64_t> LANES, count - first))
        first += LANES


cdef inline bint clip_piece(const Piece *whole, int64_t first, int64_t count, Piece *piece) noexcept nogil:
    """What a unit of so many outputs has of a piece; False: nothing."""
    piece[0] = whole[0]
    piece.first, piece.stop = max(whole.first, first), min(whole.stop, first + count)
    return piece.first < piece.stop


cdef int64_t table_piece(const ChannelPlan *q, const Piece *rows, const Piece *cols, OutputTap *table) noexcept nogil:
    """The taps that a piece has, and how many."""
    cdef const Problem *p = q.p
    cdef int64_t kz, ky, kx, t, n = 0
    for kz in range(p.outer_taps):
        for ky in range(rows.begin, rows.end):
            for kx in range(cols.begin, cols.end):
                t = (kz * p.H.k + ky) * p.W.k + kx
                table[n].x = ky * p.H.d * p.H.x_step + kx * p.W.d * p.W.x_step if q.exact else q.taps[t]
                table[n].w = t * OUTPUT_NV * LANES * <int64_t> sizeof(real)
                n += 1
    return n


cdef void run_lines(const Lattice *g, const char *x, const OutputTap *taps, int64_t n_taps, int64_t n_channels,
                    int64_t plane, const char *w, int64_t ldw, int64_t w_pair, bint resume, int vectors, real *sums,
                    int64_t pair) noexcept nogil:
    """All positions of a lattice, along the axis whose tiles take the fewest cycles."""
    cdef int along = best_direction(g), a = (along + 1) % 3, b = (along + 2) % 3
    cdef int64_t tiles = ceil_div(g.n[along], POSITIONS), width = min(vectors, OUTPUT_NV) * LANES
    cdef int64_t step = g.x_step[along], lds = g.slot[along] * width, i, j, k, first, count
    cdef const char *position
    cdef real *to
    for i in range(g.n[a]):
        for j in range(g.n[b]):
            position = x + i * g.x_step[a] + j * g.x_step[b]
            to = sums + (i * g.slot[a] + j * g.slot[b]) * width
            if vectors == PAIR_NV and g.n[along] <= PAIR_POSITIONS:
                outputs_4(g.n[along], position, step, taps, n_taps, n_channels, plane, w, ldw, w_pair, resume, to, lds,
                          pair)
                continue
            first = 0
            for k in range(tiles):
                count = ceil_div(g.n[along] - first, tiles - k)
                if vectors == 1:
                    outputs_1(count, position, step, taps, n_taps, n_channels, plane, w, ldw, resume, to, lds)
                else:
                    outputs_2(count, position, step, taps, n_taps, n_channels, plane, w, ldw, resume, to, lds)
                if vectors == PAIR_NV:
                    outputs_2(count, position, step, taps, n_taps, n_channels, plane, w + w_pair, ldw, resume,
                              to + pair, lds)
                first += count
                position += count * step
                to += count * lds


cdef void run_output_tiles(const ChannelPlan *q, const ChannelUnit *u, char *workspace, const char *band, int64_t plane,
                           int64_t c0, int64_t c1) noexcept nogil:
    """run_tiles, with vectors over output channels: two blocks of them at once where there are so many."""
    cdef const Problem *p = q.p
    cdef real *turned = <real *> (workspace + q.at_turned)
    cdef OutputTap *table = <OutputTap *> (workspace + q.at_table)
    cdef real *sums
    cdef const real *w
    cdef int64_t o = u.o0, n, vectors, v, c, c_end, ldw, w_pair, n_taps, i, j
    cdef int64_t width = OUTPUT_NV * LANES, block = turned_channels(q), pair = q.slots * width, lds
    cdef Lattice g
    cdef Piece rows, cols
    g.x_step[0], g.x_step[1], g.x_step[2] = q.x_map, q.x_row, q.x_column
    while o < u.o1:
        n = min(width, u.o1 - o)
        if u.o1 - o >= 2 * width:
            n = 2 * width
        vectors = ceil_div(n, LANES)
        lds = min(vectors, OUTPUT_NV) * LANES
        sums = <real *> (workspace + q.at_sums)
        if q.c_blocks > 1:
            sums += (o - u.o0) * q.slots
        c = c0
        while c < c1:
            c_end = min(c1, c + block)
            ldw = q.n_taps * width
            if p.packed != NULL:
                w_pair = p.C * ldw
                w = p.packed + (u.group * round_up(p.O, width) + o) * p.C * q.n_taps + c * ldw
            elif p.order != NULL and p.w_taps == 1 and n == vectors * LANES:
                w_pair = width
                w, ldw = p.w + (u.group * p.C + c) * p.O + o, p.O
            else:
                w, w_pair = turned, (c_end - c) * ldw
                for v in range(vectors):
                    turn_weights(q, u.group, o + v * LANES, min(<int64_t> LANES, n - v * LANES), c, c_end,
                                 turned + v // OUTPUT_NV * w_pair + v % OUTPUT_NV * LANES, width)
            for i in range(q.n_pieces_y):
                if not clip_piece(&q.pieces_y[i], u.y0, u.rows, &rows):
                    continue
                for j in range(q.n_pieces_x):
                    if not clip_piece(&q.pieces_x[j], u.x0, u.cols, &cols):
                        continue
                    n_taps = table_piece(q, &rows, &cols, table)
                    g.n[0], g.n[1], g.n[2] = u.maps, rows.stop - rows.first, cols.stop - cols.first
                    g.slot[0], g.slot[1], g.slot[2] = u.rows * u.cols, u.cols, 1
                    join_lines(&g)
                    run_lines(&g, band + (c - c0) * plane + (rows.first - u.y0) * q.x_row
                              + (cols.first - u.x0) * q.x_column, table, n_taps, c_end - c, plane, <const char *> w,
                              ldw * sizeof(real), w_pair * sizeof(real), c > 0, <int> vectors,
                              sums + ((rows.first - u.y0) * u.cols + cols.first - u.x0) * lds, pair)
            c = c_end
        if c1 == p.C:
            v = 0
            while v < vectors:
                store_outputs(q, u, <real *> (workspace + q.at_scratch), o + v * LANES, min(width, n - v * LANES),
                              sums + v // OUTPUT_NV * pair, lds // LANES, u.maps * u.rows * u.cols)
                v += OUTPUT_NV
        o += n
