# Vectors over output channels, for maps of few positions: the 49 of a 7 x 7 map are no whole number of vectors, but
# seven times seven.
#
# The tile needs the weights output channels last. The input gradient of a 1 x 1 layer finds them so. Otherwise a block
# of them is turned in registers, a square of vectors at a time, into a few kilobytes of the thread's workspace, and
# used for all of the unit's positions. So the weights of an input gradient, whose channels are exchanged, need no
# exchanged copy.

cdef enum:
    TURNED_BYTES = 32768             # two thirds of an L1 cache
    MAX_POSITIONS = 14
    OUTPUT_NV = 2

ctypedef void (*OutputTile)(const char *, const int64_t *, int64_t, int64_t, int64_t, const real *, int64_t, bint,
                            real *) noexcept nogil


cdef inline void output_tile(
    int P, int NV,
    const char *band,            # first position, channel 0
    const int64_t *taps,         # pairs, as in channel_tile: the byte offset of each tap, and a place not used here
    int64_t n_taps, int64_t n_channels,
    int64_t plane,               # bytes from channel to channel
    const real *w,               # weights of the output channels, (c, tap) after (c, tap)
    int64_t ldw,                 # from one (c, tap) to the next
    bint resume,                 # continue the sums found in `sums`
    real *sums,                  # position after position
) noexcept nogil:
    """The same sums as channel_tile's, the two factors changed over."""
    cdef vec acc[MAX_POSITIONS][OUTPUT_NV]
    cdef vec b[OUTPUT_NV]
    cdef const real *x
    cdef int p, v
    cdef int64_t c = 0, t = 0
    if resume:
        for p in range(P):
            for v in range(NV):
                acc[p][v] = (<const vec *> sums + p * NV + v)[0]
    else:
        for p in range(P):
            for v in range(NV):
                acc[p][v] = vzero()
    while True:                      # one loop over channels and taps: of two, gcc keeps the sums on the stack between
        x = <const real *> (band + taps[2 * t])
        for v in range(NV):
            b[v] = (<const vec *> w + v)[0]
        for p in range(P):
            for v in range(NV):
                acc[p][v] += b[v] * x[p]
        w += ldw
        t += 1
        if t == n_taps:
            t = 0
            band += plane
            c += 1
            if c == n_channels:
                break
    for p in range(P):
        for v in range(NV):
            (<vec *> sums + p * NV + v)[0] = acc[p][v]


cdef void outputs_full_2(const char *band, const int64_t *taps, int64_t n_taps, int64_t n_channels, int64_t plane,
                         const real *w, int64_t ldw, bint resume, real *sums) noexcept nogil:
    output_tile(POSITIONS, 2, band, taps, n_taps, n_channels, plane, w, ldw, resume, sums)


cdef void outputs_short_2(const char *band, const int64_t *taps, int64_t n_taps, int64_t n_channels, int64_t plane,
                          const real *w, int64_t ldw, bint resume, real *sums) noexcept nogil:
    output_tile(POSITIONS_SHORT, 2, band, taps, n_taps, n_channels, plane, w, ldw, resume, sums)


cdef void outputs_full_1(const char *band, const int64_t *taps, int64_t n_taps, int64_t n_channels, int64_t plane,
                         const real *w, int64_t ldw, bint resume, real *sums) noexcept nogil:
    output_tile(POSITIONS, 1, band, taps, n_taps, n_channels, plane, w, ldw, resume, sums)


cdef void outputs_short_1(const char *band, const int64_t *taps, int64_t n_taps, int64_t n_channels, int64_t plane,
                          const real *w, int64_t ldw, bint resume, real *sums) noexcept nogil:
    output_tile(POSITIONS_SHORT, 1, band, taps, n_taps, n_channels, plane, w, ldw, resume, sums)


cdef inline int64_t turned_channels(const ChannelPlan *q) noexcept nogil:
    """Input channels whose weights are turned at once."""
    return max(1, min(q.c_block, TURNED_BYTES // (<int64_t> sizeof(real) * q.n_taps * OUTPUT_NV * LANES)))


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
                        const real *sums, int64_t vectors, int64_t at, int64_t count) noexcept nogil:
    """Turn the sums of n output channels, and write columns at .. at + count of the unit's line."""
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
            store_tile(q, u, <int> m, o + v * LANES, scratch, LANES, at + first, min(<int64_t> LANES, count - first))
        first += LANES


cdef void run_output_tiles(const ChannelPlan *q, const ChannelUnit *u, char *workspace, const char *band, int64_t plane,
                           int64_t c0, int64_t c1) noexcept nogil:
    """run_tiles, with vectors over output channels."""
    cdef const Problem *p = q.p
    cdef real *turned = <real *> (workspace + q.at_turned)
    cdef real *scratch = <real *> (workspace + q.at_scratch)
    cdef real *sums
    cdef const real *w
    cdef OutputTile full
    cdef OutputTile short_one
    cdef int64_t end = (u.maps - 1) * u.map_step + (u.rows - 1) * u.pitch + u.cols
    cdef int64_t o = u.o0, n, vectors, v, c, c_end, q0, at, ldw, positions, last, block
    cdef bint in_place
    while o < u.o1:
        n = min(<int64_t> OUTPUT_NV * LANES, u.o1 - o)
        vectors = ceil_div(n, LANES)
        full, short_one = outputs_full_1, outputs_short_1
        if vectors == OUTPUT_NV:
            full, short_one = outputs_full_2, outputs_short_2
        sums = <real *> (workspace + q.at_sums)
        if q.c_blocks > 1:
            sums += (o - u.o0) * q.slots
        in_place = p.order != NULL and p.w_taps == 1 and n == vectors * LANES
        block = turned_channels(q)
        c = c0
        last = at = 0
        while c < c1:
            c_end = min(c1, c + block)
            if in_place:
                w, ldw = p.w + (u.group * p.C + c) * p.O + o, p.O
            else:
                w, ldw = turned, vectors * LANES
                for v in range(vectors):
                    turn_weights(q, u.group, o + v * LANES, min(<int64_t> LANES, n - v * LANES), c, c_end,
                                 turned + v * LANES, ldw)
            q0 = 0
            while q0 < end:
                positions = POSITIONS if end - q0 > POSITIONS_SHORT else POSITIONS_SHORT
                if u.in_place and positions > end:
                    positions = POSITIONS_SHORT
                # In place nothing may be read past the input: the last positions are computed again.
                at = min(q0, end - positions) if u.in_place else q0
                (full if positions == POSITIONS else short_one)(
                    band + (c - c0) * plane + at * sizeof(real), u.taps, q.n_taps, c_end - c, plane, w, ldw, c > 0,
                    sums + q0 * vectors * LANES)
                last = q0
                q0 += positions
            c = c_end
        if c1 == p.C:
            store_outputs(q, u, scratch, o, n, sums, vectors, 0, last)
            store_outputs(q, u, scratch, o, n, sums + last * vectors * LANES, vectors, at, end - at)
        o += OUTPUT_NV * LANES
