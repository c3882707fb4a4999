# The register tiles: all the arithmetic of the engine.
#
# A tile holds R x NV vectors of sums in registers. Every sum starts from zero (or from where the last block of channels
# left it) and takes its products in the order (c, kernel axes), so that all tiles give the same bits.
#
# The bodies are written once; R and NV are constants after inlining, which unrolls the loops over them completely and
# keeps `acc` in registers. Seen in gcc 12's assembly for 8 x 3 at x86-64-v4: three loads, eight broadcasts and
# twenty-four FMAs a tap, nothing spilled, the weights read where they lie (a packed copy measured no faster).

cdef enum:
    MAX_R = 8


# ---------------------------------------------------------------- R output channels x NV vectors of columns

ctypedef void (*ChannelTile)(const char *, int64_t, const int64_t *, int64_t, int64_t, int64_t, int64_t, int64_t,
                             const real *, int64_t, int64_t, const real *, bint, real *, int64_t) noexcept nogil


cdef inline void channel_tile(
    int R, int NV,
    const char *band,            # first column of the first strip, channel 0
    int64_t n_strips,
    const int64_t *taps,         # byte offset of each tap within a channel
    int64_t n_taps,
    int64_t row_taps, int64_t row_skip,      # weights that are left out after every row_taps ones
    int64_t n_channels,
    int64_t plane,               # bytes from channel to channel
    const real *w, int64_t ldw,  # weights of the first output channel, and the distance to the next one's
    int64_t skip,                # and between two channels
    const real *bias,            # added last; NULL: none, or not yet
    bint resume,                 # continue the sums found in `sums`
    real *sums, int64_t lds,
) noexcept nogil:
    cdef vec acc[MAX_R][MAX_NV]
    cdef vec b[MAX_NV]
    cdef const char *x
    cdef const char *channel
    cdef const real *wk
    cdef int64_t strip, c, t, row
    cdef int r, v
    for strip in range(n_strips):
        for r in range(R):
            for v in range(NV):
                acc[r][v] = vzero()
        if resume:
            for r in range(R):
                for v in range(NV):
                    acc[r][v] = (<const vec *> (sums + r * lds) + v)[0]
        wk = w
        channel = band
        if n_taps == 1:
            channel += taps[0]
            for c in range(n_channels):
                for v in range(NV):
                    b[v] = (<const vec *> channel + v)[0]
                for r in range(R):
                    for v in range(NV):
                        acc[r][v] += b[v] * wk[r * ldw]
                wk += 1 + row_skip + skip
                channel += plane
        else:
            for c in range(n_channels):
                row = 0
                while row < n_taps:
                    for t in range(row, row + row_taps):
                        x = channel + taps[t]
                        for v in range(NV):
                            b[v] = (<const vec *> x + v)[0]
                        for r in range(R):
                            for v in range(NV):
                                acc[r][v] += b[v] * wk[r * ldw]
                        wk += 1
                    wk += row_skip
                    row += row_taps
                wk += skip
                channel += plane
        if bias != NULL:
            for r in range(R):
                for v in range(NV):
                    acc[r][v] = acc[r][v] + bias[r]
        for r in range(R):
            for v in range(NV):
                (<vec *> (sums + r * lds) + v)[0] = acc[r][v]
        band += NV * sizeof(vec)
        sums += NV * LANES


# Three widths for each R: the full one, a shorter one, and a single vector for what is left of the columns.
cdef void tile_8_full(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                      int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                      const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(8, NV8, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_8_short(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                       int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                       const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(8, NV8_SHORT, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_8_one(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                     int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                     const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(8, 1, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_4_full(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                      int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                      const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(4, NV4, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_4_short(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                       int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                       const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(4, NV4_SHORT, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_4_one(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                     int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                     const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(4, 1, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_2_full(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                      int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                      const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(2, NV2, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_2_short(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                       int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                       const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(2, NV2_SHORT, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_2_one(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                     int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                     const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(2, 1, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_1_full(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                      int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                      const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(1, NV1, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_1_short(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                       int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                       const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(1, NV1_SHORT, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef void tile_1_one(const char *band, int64_t n_strips, const int64_t *taps, int64_t n_taps, int64_t row_taps,
                     int64_t row_skip, int64_t n_channels, int64_t plane, const real *w, int64_t ldw, int64_t skip,
                     const real *bias, bint resume, real *sums, int64_t lds) noexcept nogil:
    channel_tile(1, 1, band, n_strips, taps, n_taps, row_taps, row_skip, n_channels, plane, w, ldw, skip, bias,
                 resume, sums, lds)


cdef struct ChannelTiles:            # the tiles of one R, widest first
    int R
    int NV[3]
    ChannelTile run[3]


cdef ChannelTiles CHANNEL_TILES[4]
CHANNEL_TILES[0] = ChannelTiles(8, [NV8, NV8_SHORT, 1], [tile_8_full, tile_8_short, tile_8_one])
CHANNEL_TILES[1] = ChannelTiles(4, [NV4, NV4_SHORT, 1], [tile_4_full, tile_4_short, tile_4_one])
CHANNEL_TILES[2] = ChannelTiles(2, [NV2, NV2_SHORT, 1], [tile_2_full, tile_2_short, tile_2_one])
CHANNEL_TILES[3] = ChannelTiles(1, [NV1, NV1_SHORT, 1], [tile_1_full, tile_1_short, tile_1_one])


# ---------------------------------------------------------------- R output rows x NV vectors of columns

ctypedef void (*RowTile)(const char *const *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                         const real *, const real *, bint, int64_t, int64_t, real *, int64_t) noexcept nogil


cdef inline void add_input_row(int first, int last, int NV, vec (*acc)[MAX_NV], const char *x, int64_t next_vector,
                               const real *w, int64_t kw, int64_t dx, bint fused) noexcept nogil:
    """One input row, once loaded, feeds the output rows first to last - 1; w is the kernel row of output row 0."""
    cdef vec b[MAX_NV]
    cdef vec ahead[MAX_NV]
    cdef int64_t kx
    cdef int r, v
    if SHIFTS and fused and kw == 3 and dx == sizeof(real):
        # Most loads span two cache lines, so the middle one is made of the others: 191 us become 169 (1024 x 1024).
        for v in range(NV):
            b[v] = load_once(x + v * next_vector)
            ahead[v] = load_once(x + v * next_vector + 2 * dx)
        for r in range(first, last):
            for v in range(NV):
                acc[r][v] += b[v] * w[-r * kw]
        for v in range(NV):
            b[v] = lanes_between(b[v], ahead[v])
        for r in range(first, last):
            for v in range(NV):
                acc[r][v] += b[v] * w[1 - r * kw]
        for r in range(first, last):
            for v in range(NV):
                acc[r][v] += ahead[v] * w[2 - r * kw]
        return
    w = loaded_anew(w)
    for kx in range(kw):
        for v in range(NV):
            b[v] = load_once(x + v * next_vector)
        for r in range(first, last):
            for v in range(NV):
                if fused:
                    acc[r][v] += b[v] * w[-r * kw]
                else:
                    acc[r][v] = acc[r][v] + rounded_product(b[v], w[-r * kw])
        w += 1
        x += dx


cdef inline void row_tile(
    int R, int NV, bint fused,
    int64_t next_vector,         # bytes from a vector to the next: one vector, or R band rows (see stacked tiles)
    int64_t next_sums,           # reals from a vector's sums to the next one's
    const char *const *rows,     # the input rows of the unit, those of each outer tap together
    int64_t first,               # the row that output row 0 meets first
    int64_t row_step,            # rows between kernel rows, and between output rows
    int64_t n_outer, int64_t outer_step, int64_t kh, int64_t kw,
    int64_t dx,                  # bytes between kernel columns
    const real *w, const real *bias,
    int64_t x,                   # byte offset of the first strip in every row
    int64_t n_strips,
    real *sums, int64_t lds,
) noexcept nogil:
    """Needs kh >= R. Output row r and input row i meet in kernel row i - r, so each load is used up to R times."""
    cdef vec acc[MAX_R][MAX_NV]
    cdef const char *const *row
    cdef const real *wi
    cdef int64_t strip, outer, i
    cdef int r, v
    for strip in range(n_strips):
        for r in range(R):
            for v in range(NV):
                acc[r][v] = vzero()
        wi = w
        for r in range(R):           # the rows that the next output rows need, while these are computed
            for v in range(NV):
                prefetch(rows[first + (kh + R - 1 + r) * row_step] + x + v * next_vector)
        for outer in range(n_outer):
            row = rows + outer * outer_step + first
            if R > 1:
                add_input_row(0, 1, NV, acc, row[0] + x, next_vector, wi, kw, dx, fused)
                row += row_step
                wi += kw
            if R > 2:
                add_input_row(0, 2, NV, acc, row[0] + x, next_vector, wi, kw, dx, fused)
                row += row_step
                wi += kw
            if R > 3:
                add_input_row(0, 3, NV, acc, row[0] + x, next_vector, wi, kw, dx, fused)
                row += row_step
                wi += kw
            for i in range(R - 1, kh):
                add_input_row(0, R, NV, acc, row[0] + x, next_vector, wi, kw, dx, fused)
                row += row_step
                wi += kw
            if R > 1:
                add_input_row(1, R, NV, acc, row[0] + x, next_vector, wi, kw, dx, fused)
            if R > 2:
                add_input_row(2, R, NV, acc, row[row_step] + x, next_vector, wi + kw, kw, dx, fused)
            if R > 3:
                add_input_row(3, R, NV, acc, row[2 * row_step] + x, next_vector, wi + 2 * kw, kw, dx, fused)
        if bias != NULL:
            for r in range(R):
                for v in range(NV):
                    acc[r][v] = acc[r][v] + bias[0]
        for r in range(R):
            for v in range(NV):
                (<vec *> (sums + r * lds + v * next_sums))[0] = acc[r][v]
        x += NV * sizeof(vec)
        sums += NV * LANES


# The commonest kernels know their size: with kh and kw constant a 3 x 3 tile takes 68 cycles instead of 116, with kw
# constant a 5 x 5 one 223 instead of 289 and a 7 x 7 one 439 instead of 524 (Zen 5, in the L1 cache).
cdef inline void sized_row_tile(int R, int NV, int64_t next_vector, int64_t next_sums, const char *const *rows,
                                int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step, int64_t kh,
                                int64_t kw, int64_t dx,
                                const real *w, const real *bias, bint fused, int64_t x, int64_t n_strips,
                                real *sums, int64_t lds) noexcept nogil:
    if not fused:
        row_tile(R, NV, False, next_vector, next_sums, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                 bias, x, n_strips, sums, lds)
    elif SHIFTS and kw == 3 and kh == 3 and dx == sizeof(real):
        row_tile(R, NV, True, next_vector, next_sums, rows, first, row_step, n_outer, outer_step, 3, 3, sizeof(real), w,
                 bias, x, n_strips, sums, lds)
    elif kw == 3 and kh == 3:
        row_tile(R, NV, True, next_vector, next_sums, rows, first, row_step, n_outer, outer_step, 3, 3, dx, w,
                 bias, x, n_strips, sums, lds)
    elif kw == 5:
        row_tile(R, NV, True, next_vector, next_sums, rows, first, row_step, n_outer, outer_step, kh, 5, dx, w,
                 bias, x, n_strips, sums, lds)
    elif kw == 7:
        row_tile(R, NV, True, next_vector, next_sums, rows, first, row_step, n_outer, outer_step, kh, 7, dx, w,
                 bias, x, n_strips, sums, lds)
    else:
        row_tile(R, NV, True, next_vector, next_sums, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                 bias, x, n_strips, sums, lds)


cdef void rows_4_4(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(4, ROW_NV, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_4_3(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(4, ROW_NV_SHORT, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_4_2(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(4, ROW_NV_SHORTER, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_4_1(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(4, 1, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_3_4(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(3, ROW_NV, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_3_3(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(3, ROW_NV_SHORT, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_3_2(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(3, ROW_NV_SHORTER, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_3_1(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(3, 1, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_2_4(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(2, ROW_NV, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_2_3(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(2, ROW_NV_SHORT, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_2_2(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(2, ROW_NV_SHORTER, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_2_1(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(2, 1, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_1_4(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(1, ROW_NV, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_1_3(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(1, ROW_NV_SHORT, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_1_2(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(1, ROW_NV_SHORTER, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


cdef void rows_1_1(const char *const *rows, int64_t first, int64_t row_step, int64_t n_outer, int64_t outer_step,
                   int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused, int64_t x,
                   int64_t n_strips, real *sums, int64_t lds) noexcept nogil:
    sized_row_tile(1, 1, sizeof(vec), LANES, rows, first, row_step, n_outer, outer_step, kh, kw, dx, w,
                   bias, fused, x, n_strips, sums, lds)


# Stacked tiles, for images no wider than a vector: the second vector is not the next columns but the next R output
# rows, `band_rows` bytes further down. One vector of R rows alone has too few sums in flight to hide the latency of a
# multiply-add.
ctypedef void (*StackedTile)(int64_t, const char *const *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                             const real *, const real *, bint, real *) noexcept nogil


cdef void stacked_4(int64_t band_rows, const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step,
                    int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused,
                    real *sums) noexcept nogil:
    sized_row_tile(4, ROW_NV, band_rows, 4 * LANES, rows, first, 1, n_outer, outer_step, kh, kw, dx, w, bias,
                   fused, 0, 1, sums, LANES)


cdef void stacked_3(int64_t band_rows, const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step,
                    int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused,
                    real *sums) noexcept nogil:
    sized_row_tile(4, ROW_NV_SHORT, band_rows, 4 * LANES, rows, first, 1, n_outer, outer_step, kh, kw, dx, w, bias,
                   fused, 0, 1, sums, LANES)


cdef void stacked_2(int64_t band_rows, const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step,
                    int64_t kh, int64_t kw, int64_t dx, const real *w, const real *bias, bint fused,
                    real *sums) noexcept nogil:
    sized_row_tile(4, ROW_NV_SHORTER, band_rows, 4 * LANES, rows, first, 1, n_outer, outer_step, kh, kw, dx, w, bias,
                   fused, 0, 1, sums, LANES)


cdef int ROW_WIDTHS[4]               # in vectors, widest first; those of the tap tiles for four output rows too
ROW_WIDTHS = [ROW_NV, ROW_NV_SHORT, ROW_NV_SHORTER, 1]
cdef StackedTile STACKED_TILES[3]    # by width
STACKED_TILES = [stacked_4, stacked_3, stacked_2]
cdef RowTile ROW_TILES[5][4]         # by output rows and width
ROW_TILES[4] = [rows_4_4, rows_4_3, rows_4_2, rows_4_1]
ROW_TILES[3] = [rows_3_4, rows_3_3, rows_3_2, rows_3_1]
ROW_TILES[2] = [rows_2_4, rows_2_3, rows_2_2, rows_2_1]
ROW_TILES[1] = [rows_1_4, rows_1_3, rows_1_2, rows_1_1]


# ---------------------------------------------------------------- R output rows, zero padding in registers

# The rows are read where they lie, padding and all: whatever stands beyond a row's ends is masked off as it is loaded,
# in the first vector of output columns and in the last one, which ends where the columns do and may overlap the one
# before.
# At stride 2 a pair of loaded vectors is parted into even and odd samples, and these serve two kernel columns.
ctypedef void (*PaddedTile)(const char *const *, int64_t, int64_t, int64_t, int64_t, int64_t, const real *,
                            const real *, const mask_vec *, const mask_vec *, int64_t, int64_t, real *,
                            int64_t) noexcept nogil


cdef inline void add_column(int S, int first, int last, int NV, vec (*acc)[MAX_NV], const vec *b, const real *w,
                            int64_t kw) noexcept nogil:
    cdef int r, v
    for r in range(first, last):
        for v in range(NV):
            acc[r][v] += b[v] * w[-r * S * kw]


cdef inline void add_shifted_column(int n, int first, int last, int NV, vec (*acc)[MAX_NV], const vec *a, vec end,
                                    const real *w, int64_t kw) noexcept nogil:
    cdef vec b[MAX_NV]
    cdef int v
    for v in range(NV - 1):
        b[v] = shifted(a[v], a[v + 1], n)
    b[NV - 1] = shifted(a[NV], end, n)
    add_column(1, first, last, NV, acc, b, w, kw)


cdef inline void add_padded_row(int S, bint sized, int first, int last, int NV, vec (*acc)[MAX_NV], const char *x,
                                int64_t last_vector, const real *w, int64_t kw, const mask_vec *left,
                                const mask_vec *right) noexcept nogil:
    """add_input_row, at stride S; the last vector lies `last_vector` bytes from the first one."""
    cdef vec a[MAX_NV]
    cdef vec b[MAX_NV]
    cdef vec end
    cdef mask_vec order
    cdef const char *p
    cdef int64_t kx = 0
    cdef int v
    w = loaded_anew(w)
    if S == 1 and SHIFTS:            # no more loads for the next columns: two of three would cross a cache line
        for v in range(NV):
            a[v] = load_once(x + v * sizeof(vec))
        a[0] = masked(a[0], left[0])
        b[NV - 1] = masked(load_once(x + last_vector), right[0])
        end = masked(load_once(x + last_vector + sizeof(vec)), right[kw])
        for v in range(NV - 1):
            b[v] = a[v]
        add_column(S, first, last, NV, acc, b, w, kw)
        a[NV] = b[NV - 1]
        if sized:
            if kw > 1:
                add_shifted_column(1, first, last, NV, acc, a, end, w + 1, kw)
            if kw > 2:
                add_shifted_column(2, first, last, NV, acc, a, end, w + 2, kw)
            if kw > 3:
                add_shifted_column(3, first, last, NV, acc, a, end, w + 3, kw)
            if kw > 4:
                add_shifted_column(4, first, last, NV, acc, a, end, w + 4, kw)
            if kw > 5:
                add_shifted_column(5, first, last, NV, acc, a, end, w + 5, kw)
            if kw > 6:
                add_shifted_column(6, first, last, NV, acc, a, end, w + 6, kw)
            return
        order = lanes_from(1)
        for kx in range(1, kw):
            for v in range(NV - 1):
                b[v] = two_shifted(a[v], a[v + 1], order)
            b[NV - 1] = two_shifted(a[NV], end, order)
            add_column(S, first, last, NV, acc, b, w + kx, kw)
            order = one_further(order)
        return
    if S == 1:
        for kx in range(kw):
            for v in range(NV):
                b[v] = load_once(x + (last_vector if v == NV - 1 else v * <int64_t> sizeof(vec)))
            b[0] = masked(b[0], left[kx])
            b[NV - 1] = masked(b[NV - 1], right[kx])
            add_column(S, first, last, NV, acc, b, w + kx, kw)
            x += sizeof(real)
        return
    while kx + 1 < kw:
        for v in range(NV):
            p = x + (last_vector if v == NV - 1 else 2 * v * <int64_t> sizeof(vec))
            a[v] = evens((<const vec *> p)[0], (<const vec *> p)[1])
            b[v] = odds((<const vec *> p)[0], (<const vec *> p)[1])
        a[0] = masked(a[0], left[kx])
        a[NV - 1] = masked(a[NV - 1], right[kx])
        b[0] = masked(b[0], left[kx + 1])
        b[NV - 1] = masked(b[NV - 1], right[kx + 1])
        add_column(S, first, last, NV, acc, a, w + kx, kw)
        add_column(S, first, last, NV, acc, b, w + kx + 1, kw)
        x += 2 * sizeof(real)
        kx += 2
    if kx < kw:                      # from one sample before, so that nothing is read past the last one
        for v in range(NV):
            p = x + (last_vector if v == NV - 1 else 2 * v * <int64_t> sizeof(vec)) - <int64_t> sizeof(real)
            b[v] = odds((<const vec *> p)[0], (<const vec *> p)[1])
        b[0] = masked(b[0], left[kx])
        b[NV - 1] = masked(b[NV - 1], right[kx])
        add_column(S, first, last, NV, acc, b, w + kx, kw)


cdef inline void padded_tile(
    int S, bint sized, int R, int NV,
    const char *const *rows,     # as for row_tile
    int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh, int64_t kw,
    const real *w, const real *bias,
    const mask_vec *left, const mask_vec *right,     # for each kernel column: of the first vector, and of the last
    int64_t x,                   # byte offset in every row
    int64_t last,                # columns from the first to the last vector
    real *sums, int64_t lds,
) noexcept nogil:
    """Needs kh >= (R - 1) * S, at S = 2 R = 2, and kw > 1."""
    cdef vec acc[MAX_R][MAX_NV]
    cdef const char *const *row
    cdef const real *wi
    cdef int64_t outer, i, last_vector = last * S * <int64_t> sizeof(real)
    cdef int r, v
    for r in range(R):
        for v in range(NV):
            acc[r][v] = vzero()
    for r in range(R * S):           # the rows that the next output rows need
        for v in range(NV * S):
            prefetch(rows[first + kh + (R - 1) * S + r] + x + v * <int64_t> sizeof(vec))
    wi = w
    for outer in range(n_outer):
        row = rows + outer * outer_step + first
        if (R - 1) * S > 0:
            add_padded_row(S, sized, 0, 1, NV, acc, row[0] + x, last_vector, wi, kw, left, right)
            row += 1
            wi += kw
        if (R - 1) * S > 1:
            add_padded_row(S, sized, 0, 3 - S, NV, acc, row[0] + x, last_vector, wi, kw, left, right)
            row += 1
            wi += kw
        if (R - 1) * S > 2:
            add_padded_row(S, sized, 0, 3, NV, acc, row[0] + x, last_vector, wi, kw, left, right)
            row += 1
            wi += kw
        for i in range((R - 1) * S, kh):
            add_padded_row(S, sized, 0, R, NV, acc, row[0] + x, last_vector, wi, kw, left, right)
            row += 1
            wi += kw
        if (R - 1) * S > 0:
            add_padded_row(S, sized, 1, R, NV, acc, row[0] + x, last_vector, wi, kw, left, right)
        if (R - 1) * S > 1:
            add_padded_row(S, sized, 3 - S, R, NV, acc, row[1] + x, last_vector, wi + kw, kw, left, right)
        if (R - 1) * S > 2:
            add_padded_row(S, sized, 3, R, NV, acc, row[2] + x, last_vector, wi + 2 * kw, kw, left, right)
    if bias != NULL:
        for r in range(R):
            for v in range(NV):
                acc[r][v] = acc[r][v] + bias[0]
    for r in range(R):
        for v in range(NV):
            (<vec *> (sums + r * lds + (last if v == NV - 1 else v * LANES)))[0] = acc[r][v]


cdef inline void sized_padded_tile(int S, int R, int NV, const char *const *rows, int64_t first, int64_t n_outer,
                                   int64_t outer_step, int64_t kh, int64_t kw, const real *w, const real *bias,
                                   const mask_vec *left, const mask_vec *right, int64_t x, int64_t last, real *sums,
                                   int64_t lds) noexcept nogil:
    if kh == 3 and kw == 3 and (R == 3 or S == 2):
        padded_tile(S, True, R, NV, rows, first, n_outer, outer_step, 3, 3, w, bias, left, right, x, last, sums, lds)
    elif kw == 5 and (R == 4 or S == 2):
        padded_tile(S, True, R, NV, rows, first, n_outer, outer_step, kh, 5, w, bias, left, right, x, last, sums, lds)
    elif kw == 7 and (R == 4 or S == 2):
        padded_tile(S, True, R, NV, rows, first, n_outer, outer_step, kh, 7, w, bias, left, right, x, last, sums, lds)
    else:
        padded_tile(S, False, R, NV, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right, x, last, sums, lds)


cdef void padded_4_4(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 4, ROW_NV, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_4_3(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 4, ROW_NV_SHORT, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_4_2(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 4, ROW_NV_SHORTER, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_3_4(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 3, ROW_NV, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_3_3(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 3, ROW_NV_SHORT, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_3_2(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 3, ROW_NV_SHORTER, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_2_4(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 2, ROW_NV, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_2_3(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 2, ROW_NV_SHORT, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void padded_2_2(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                     int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                     int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(1, 2, ROW_NV_SHORTER, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void strided_2_4(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                      int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                      int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(2, 2, ROW_NV, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void strided_2_3(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                      int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                      int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(2, 2, ROW_NV_SHORT, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef void strided_2_2(const char *const *rows, int64_t first, int64_t n_outer, int64_t outer_step, int64_t kh,
                      int64_t kw, const real *w, const real *bias, const mask_vec *left, const mask_vec *right,
                      int64_t x, int64_t last, real *sums, int64_t lds) noexcept nogil:
    sized_padded_tile(2, 2, ROW_NV_SHORTER, rows, first, n_outer, outer_step, kh, kw, w, bias, left, right,
                      x, last, sums, lds)


cdef PaddedTile PADDED_TILES[5][3]   # by output rows and width
PADDED_TILES[4] = [padded_4_4, padded_4_3, padded_4_2]
PADDED_TILES[3] = [padded_3_4, padded_3_3, padded_3_2]
PADDED_TILES[2] = [padded_2_4, padded_2_3, padded_2_2]
cdef PaddedTile STRIDED_TILES[3]     # at stride 2: two output rows
STRIDED_TILES = [strided_2_4, strided_2_3, strided_2_2]


# ---------------------------------------------------------------- R output rows, taps from a list

cdef struct Tap:
    int64_t row                      # which of the unit's input rows, for output row 0
    int64_t column                   # byte offset in it
    real weight


ctypedef void (*TapTile)(const char *const *, int64_t, const Tap *, int64_t, int, const real *, bint, int64_t, int64_t,
                         real *, int64_t) noexcept nogil


cdef inline void tap_tile(
    int R, int NV, bint fused,
    const char *const *rows,
    int64_t row_step,                # input rows between output rows
    const Tap *taps, int64_t n_taps,
    int pairs, const real *bias, int64_t x, int64_t n_strips, real *sums, int64_t lds,
) noexcept nogil:
    """Any taps at any stride. With pairs = 1 or -1 the kernel is one-dimensional and even or odd about its middle tap,
    and the sum is scipy.ndimage.correlate1d's: the middle first, then (x[-i] +- x[i]) * w[-i] from the far end in."""
    cdef vec acc[4][MAX_NV]
    cdef vec b
    cdef const char *p
    cdef const char *q
    cdef const char *const *tap_rows
    cdef const char *const *mirrored_rows
    cdef int64_t strip, t, u
    cdef int r, v
    for strip in range(n_strips):
        for r in range(R):
            for v in range(NV):
                acc[r][v] = vzero()
        if pairs == 0:
            for t in range(n_taps):
                tap_rows = rows + taps[t].row
                for r in range(R):
                    p = tap_rows[r * row_step] + taps[t].column + x
                    for v in range(NV):
                        if fused:
                            acc[r][v] += (<const vec *> p + v)[0] * taps[t].weight
                        else:
                            acc[r][v] = acc[r][v] + rounded_product((<const vec *> p + v)[0], taps[t].weight)
        else:
            t = n_taps // 2
            tap_rows = rows + taps[t].row
            for r in range(R):
                p = tap_rows[r * row_step] + taps[t].column + x
                for v in range(NV):
                    acc[r][v] = rounded_product((<const vec *> p + v)[0], taps[t].weight)
            for t in range(n_taps // 2):
                u = n_taps - 1 - t
                tap_rows = rows + taps[t].row
                mirrored_rows = rows + taps[u].row
                for r in range(R):
                    p = tap_rows[r * row_step] + taps[t].column + x
                    q = mirrored_rows[r * row_step] + taps[u].column + x
                    for v in range(NV):
                        if pairs > 0:
                            b = (<const vec *> p + v)[0] + (<const vec *> q + v)[0]
                        else:
                            b = (<const vec *> p + v)[0] - (<const vec *> q + v)[0]
                        acc[r][v] = acc[r][v] + rounded_product(b, taps[t].weight)
        if bias != NULL:
            for r in range(R):
                for v in range(NV):
                    acc[r][v] = acc[r][v] + bias[0]
        for r in range(R):
            for v in range(NV):
                (<vec *> (sums + r * lds) + v)[0] = acc[r][v]
        x += NV * sizeof(vec)
        sums += NV * LANES


cdef void taps_4_4(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(4, ROW_NV, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(4, ROW_NV, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_4_3(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(4, ROW_NV_SHORT, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(4, ROW_NV_SHORT, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_4_2(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(4, ROW_NV_SHORTER, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(4, ROW_NV_SHORTER, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_4_1(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(4, 1, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(4, 1, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_1_4(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(1, NV2, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(1, NV2, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_1_3(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(1, ROW_NV, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(1, ROW_NV, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_1_2(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(1, ROW_NV_SHORTER, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(1, ROW_NV_SHORTER, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef void taps_1_1(const char *const *rows, int64_t row_step, const Tap *taps, int64_t n_taps, int pairs,
                   const real *bias, bint fused, int64_t x, int64_t n_strips, real *sums,
                   int64_t lds) noexcept nogil:
    if fused:
        tap_tile(1, 1, True, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)
    else:
        tap_tile(1, 1, False, rows, row_step, taps, n_taps, pairs, bias, x, n_strips, sums, lds)


cdef int TAP_ROW_WIDTHS[4]           # those for one output row
TAP_ROW_WIDTHS = [NV2, ROW_NV, ROW_NV_SHORTER, 1]
cdef TapTile TAP_TILES[5][4]         # for 4 output rows or one, by width
TAP_TILES[4] = [taps_4_4, taps_4_3, taps_4_2, taps_4_1]
TAP_TILES[1] = [taps_1_4, taps_1_3, taps_1_2, taps_1_1]


# ---------------------------------------------------------------- two residues of a strided gradient at once

cdef inline void pair_tile(
    int R, int NV,
    const char *const *rows,
    const Tap *taps, int64_t n_taps, int64_t n_next,     # of the even output columns, and behind them of the odd ones
    const real *bias, int64_t x,
    char *out, int64_t out_row,      # bytes
) noexcept nogil:
    """Both residues along W of R rows of positions, written into one another. (Unless it is told otherwise, gcc keeps
    their sums on the stack.)"""
    cdef vec even[4][MAX_NV]
    cdef vec odd[4][MAX_NV]
    cdef const char *p
    cdef const char *const *tap_rows
    cdef int64_t t
    cdef int r, v
    for r in range(R):
        for v in range(NV):
            even[r][v] = vzero()
    for t in range(n_taps):
        tap_rows = rows + taps[t].row
        for r in range(R):
            p = tap_rows[r] + taps[t].column + x
            for v in range(NV):
                even[r][v] += (<const vec *> p + v)[0] * taps[t].weight
    for r in range(R):
        for v in range(NV):
            even[r][v] = in_register(even[r][v])
            odd[r][v] = vzero()
    taps += n_taps
    for t in range(n_next):
        tap_rows = rows + taps[t].row
        for r in range(R):
            p = tap_rows[r] + taps[t].column + x
            for v in range(NV):
                odd[r][v] += (<const vec *> p + v)[0] * taps[t].weight
    for r in range(R):
        for v in range(NV):
            odd[r][v] = in_register(odd[r][v])
            if bias != NULL:
                even[r][v] = even[r][v] + bias[0]
                odd[r][v] = odd[r][v] + bias[0]
            (<vec *> (out + r * out_row) + 2 * v)[0] = zipped_first(even[r][v], odd[r][v])
            (<vec *> (out + r * out_row) + 2 * v + 1)[0] = zipped_second(even[r][v], odd[r][v])


cdef void pairs_4(const char *const *rows, const Tap *taps, int64_t n_taps, int64_t n_next, const real *bias, int64_t x,
                  char *out, int64_t out_row) noexcept nogil:
    pair_tile(4, ROW_NV_SHORTER, rows, taps, n_taps, n_next, bias, x, out, out_row)
