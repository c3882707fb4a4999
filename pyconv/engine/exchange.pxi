# Weights with input and output channels exchanged, and some of their taps in another order: the correlation that the
# gradient of the input is.

cdef void exchange_channels(const real *w, real *out, int64_t O, int64_t C, int64_t T, const int64_t *order, int64_t n,
                            int64_t c0, int64_t c1, int64_t readable) noexcept nogil:
    """out[c, o, t] = w[o, c, order[t]] for the input channels c0 to c1; w[readable - 1] is the last there is."""
    cdef vec square[LANES]
    cdef mask_vec lanes
    cdef int64_t o = 0, c, t, whole, at
    cdef int i
    if T == 1 and c1 - c0 == LANES:
        while o + LANES <= O:
            for i in range(LANES):
                square[i] = (<const vec *> (w + (o + i) * C + c0))[0]
            transpose_square(square)
            for i in range(LANES):
                (<vec *> (out + (c0 + i) * O + o))[0] = square[i]
            o += LANES
    elif T <= LANES:
        lanes = lane_order(order, n)
        # Whole vectors, as long as the next output channels overwrite what they spill.
        whole = O - (LANES + n - 1) // n
        while o < whole and (o * C + c1 - 1) * T + LANES <= readable:
            for c in range(c0, c1):
                (<vec *> (out + (c * O + o) * n))[0] = permuted((<const vec *> (w + (o * C + c) * T))[0], lanes)
            o += 1
    while o < O:
        for c in range(c0, c1):
            at = (o * C + c) * T
            for t in range(n):
                out[(c * O + o) * n + t] = w[at + order[t]]
        o += 1


cdef void exchange_weights(Problem *p, real *to, int workers) noexcept nogil:
    """Point p.w to a copy of its weights in the usual order."""
    cdef int64_t n = p.outer_taps * p.H.k * p.W.k, size = p.O * p.C * p.w_taps, blocks = ceil_div(p.O, LANES), i, g, c0
    cdef const real *w = p.w
    if p.groups * size < SERIAL_BELOW:
        workers = 1
    for i in prange(p.groups * blocks, num_threads=workers, schedule="static"):
        g = i // blocks
        c0 = i % blocks * LANES
        exchange_channels(w + g * size, to + g * p.O * p.C * n, p.C, p.O, p.w_taps, p.order, n, c0,
                          min(p.O, c0 + LANES), (p.groups - g) * size)
    p.w, p.order = to, NULL


cdef int64_t exchanged_size(const Problem *p) noexcept nogil:
    return max(<int64_t> 1, p.groups * p.O * p.C * p.outer_taps * p.H.k * p.W.k)


cdef Block exchange(Problem *p, int workers) except *:
    """The copy in a block that is given back."""
    cdef Block block = take_block(exchanged_size(p) * sizeof(real))
    with nogil:
        exchange_weights(p, <real *> block.start, workers)
    return block


cdef cnp.ndarray exchange_once(Problem *p, int workers, dict kept):
    """The copy that is kept, or is from now on; it must be held while it is used."""
    cdef cnp.npy_intp size = exchanged_size(p)
    cdef cnp.ndarray copy = kept.get("exchanged")
    if copy is None:
        copy = cnp.PyArray_EMPTY(1, &size, REAL_CODE, 0)
        with nogil:
            exchange_weights(p, <real *> cnp.PyArray_DATA(copy), workers)
        kept["exchanged"] = copy
    else:
        p.w, p.order = <const real *> cnp.PyArray_DATA(copy), NULL
    return copy
