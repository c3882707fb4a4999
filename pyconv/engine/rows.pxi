# One output channel a group (single-channel images, depthwise layers, filters of any number of dims): R output rows x
# NV vectors of columns.
#
# A unit is (image, output channel, outer output, block of rows, block of columns), or several small images. A table
# names each of its input rows, once for every input channel and outer tap. Away from the left and right border of wide
# images the table points into the image itself, where that is reals without gaps; elsewhere into a band.
#
# A strided gradient of the input is one correlation for each residue modulo the stride. Here they run together: what is
# a row and a column elsewhere is a position with H x W residues, each with a list of taps, and the residues' sums are
# written into one another.

cdef enum:
    TABLE_ROWS = 16384               # entries of a unit's table of input rows
    SCRATCH_COLS = 512               # sums of an output row that are converted at a time: they stay in the L1 cache
    MASKED_COLS = 2048               # output columns of a row at stride 2 whose padding is masked
    UNIT_BYTES = 131072              # of output, in a unit: small enough to stay cached, large enough to start


cdef struct Residue:                 # of a strided gradient's samples along an axis (see engine.input_gradient)
    int64_t first, step, count       # its taps: first, first - step, ..., so many of them
    int64_t before                   # padding before the first sample that they read


cdef struct Residues:
    int64_t H, W                     # how many there are along each axis: the strides
    Residue *of                      # those along H, then those along W
    int64_t kh, kw                   # the whole kernel
    int64_t dilation_y, dilation_x   # of a residue's taps, in what they read
    int64_t height, width            # of the output
    int64_t y_row, y_column          # bytes in the output


cdef struct RowPlan:
    Problem *p
    const Residues *residues         # or NULL: every position has one output row and column, else H x W of them
    Phases fx
    int64_t n_outer                  # input channels x outer taps
    int64_t rows, row_blocks         # output rows in a block
    int64_t in_rows                  # input rows of a block
    int64_t on                       # output columns, samples of a pixel counted
    int64_t left, right              # columns left .. right read the input in place (none: left = right)
    int64_t cols, col_blocks         # columns in a block of them, and such blocks
    int64_t band_cols, band_blocks   # and those that go through the band: both borders side by side, or all columns
    int64_t pitch                    # reals from one band row to the next
    bint spill                       # output rows follow one another without gaps, in this order
    int R                            # output rows of a tile; 0: taps from a list
    bint padded                      # rows of zero padding are read in place too, and masked in registers
    mask_vec *masks                  # then: for each kernel column, of the first vector; of the last; and all lanes
    Tap *taps                        # of every output channel, one list after the other
    int64_t *first_tap               # where each channel's list begins
    int64_t images, unit_images      # (image, output channel, outer output), and how many of them a unit takes
    int64_t units
    int64_t at_band, at_table, at_scratch, at_maps, workspace


cdef bint has_zero_tap(const Problem *p, int64_t count) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        if p.w[i] == 0:
            return True
    return False


cdef int plan_rows(RowPlan *q, Problem *p, const Residues *residues, bint skip_zeros, int workers) noexcept nogil:
    """NOT_SUITED: so many input channels are better summed block by block, as the other plan does."""
    cdef int64_t per_channel = p.C * p.outer_taps * p.H.k * p.W.k, total = per_channel * p.groups
    cdef int64_t budget = BAND_BYTES // sizeof(real), reach_y = (p.H.k - 1) * p.H.d
    cdef int64_t reach_x, wanted, spatial, cols, phases, tile_rows
    cdef int64_t size = sizeof(real) * (residues.H * residues.W if residues != NULL else 1)      # of a position
    cdef double band
    cdef bint whole
    memset(q, 0, sizeof(RowPlan))
    q.p = p
    q.residues = residues
    q.n_outer = p.C * p.outer_taps
    if not find_phases(&q.fx, p.W.k, p.W.s, p.W.d * p.interleave, False):
        return NO_MEMORY
    if p.N * p.groups * p.outer_size * p.H.on * p.W.on == 0:
        return PLANNED
    q.on = p.W.on * p.interleave
    phases = q.fx.count
    reach_x = q.fx.reach
    q.R = <int> min(4, p.H.k) if p.H.s == 1 and p.W.s == 1 and p.H.k > 1 else 0
    if p.pairs or residues != NULL or (skip_zeros and has_zero_tap(p, total)):
        q.R = 0

    tile_rows = q.R * p.H.d if q.R else 4

    q.padded = (residues == NULL and not p.pairs and not (skip_zeros and has_zero_tap(p, total))
                and masks_padding(p))

    # Columns
    q.left = q.right = 0
    if q.padded:
        q.R = <int> min(4, p.H.k) if p.H.s == 1 else 2
        tile_rows = q.R
        q.fx.count, q.fx.reach, q.fx.residue[0] = 1, p.W.k - 1, 0
        phases, reach_x = 1, (p.W.s - 1) * (p.W.on - 1) + p.W.k - 1
    elif p.source.plain and p.source.code == REAL_CODE and p.W.x_step == sizeof(real) and p.W.s == 1:
        q.left = max(0, min(q.on, p.W.before * p.interleave))
        q.right = min(q.on, (p.W.n + p.W.before) * p.interleave - reach_x)
        if q.right - q.left < 16 * LANES or q.right - q.left < q.on // 2:
            q.left = q.right = 0         # narrow: two borders by way of the band cost more than all columns
    whole = q.right > q.left
    if whole:
        # A band row of the borders: what the left one reads, then the right one. The `reach` sums between are not kept.
        q.band_blocks = 1 if q.left > 0 or q.right < q.on else 0
        q.band_cols = q.left + reach_x + q.on - q.right
        cols = q.right - q.left
        # the input rows of a tile stay in the L2 cache while the strips above one another use them
        q.col_blocks = ceil_div(cols, max(16 * LANES, BAND_BYTES // <int64_t> sizeof(real) // 2
                                          // (q.n_outer * (p.H.k + 3))))
        q.cols = min(cols, round_up(ceil_div(cols, q.col_blocks), LANES))
        q.col_blocks = cols // q.cols        # the last one takes what is left, so none is narrower than a vector
    else:
        q.left = q.right = q.on
        q.band_cols = min(q.on, 2048)
        while (not q.padded and q.band_cols > LANES
               and q.n_outer * (p.H.k + 3) * phases * (q.band_cols + reach_x) > budget):
            q.band_cols = round_up(ceil_div(q.band_cols, 2), LANES)
        q.band_blocks = ceil_div(q.on, q.band_cols)
    q.pitch = round_up(max(q.band_cols, LANES) + reach_x, LANES)
    if q.pitch * sizeof(real) % 1024 == 0:
        q.pitch += LANES

    # Rows
    cols = q.cols if whole else q.band_cols
    # Whole tiles, and enough of them that the rows shared with the next unit hardly count.
    q.rows = round_up(max(UNIT_BYTES // (cols * size), 24 // (residues.H if residues != NULL else 1), p.H.k), tile_rows)
    q.rows = min(q.rows, p.H.on)
    wanted = 1 if workers == 1 else 4 * workers
    spatial = p.N * p.groups * p.outer_size * (q.col_blocks if whole else q.band_blocks)
    if spatial * ceil_div(p.H.on, q.rows) < wanted:
        q.rows = max(min(8, p.H.on), min(q.rows, round_up(p.H.on // ceil_div(wanted, spatial), tile_rows)))
    while q.rows > 1 and (q.n_outer * ((q.rows - 1) * p.H.s + reach_y + 1) > TABLE_ROWS
                          or q.n_outer * ((q.rows - 1) * p.H.s + reach_y + 1) * q.pitch * phases > 2 * budget):
        q.rows = ceil_div(q.rows, 2)
    q.row_blocks = ceil_div(p.H.on, q.rows)
    q.rows = min(q.rows, round_up(ceil_div(p.H.on, q.row_blocks), tile_rows))
    q.row_blocks = ceil_div(p.H.on, q.rows)
    if q.padded:                     # whole tiles, the last of which may overlap the one before
        while p.H.on - (q.row_blocks - 1) * q.rows < q.R:
            q.rows += 1
            q.row_blocks = ceil_div(p.H.on, q.rows)
    q.in_rows = (q.rows - 1) * p.H.s + reach_y + 1
    band = <double> q.n_outer * q.in_rows * q.pitch * phases
    if band > 8 * budget and p.C > 1 and p.interleave == 1 and p.fused and not (skip_zeros or p.pairs):
        free_rows(q)
        return NOT_SUITED
    if (band * sizeof(real) > LARGEST_WORKSPACE
            or residues != NULL and not list_residues(q)
            or q.padded and not table_masks(q)
            or residues == NULL and q.R == 0 and not list_taps(q, per_channel, skip_zeros)):
        free_rows(q)
        return NO_MEMORY
    q.images = p.N * p.groups * p.outer_size
    q.unit_images = max(1, min(UNIT_BYTES // size // (q.rows * cols),
                               q.images * q.row_blocks // wanted))
    q.spill = (not whole and not q.padded and q.band_blocks == 1 and p.H.y_step == q.on * <int64_t> sizeof(real)
               and (q.R == 0 or p.H.d == 1))
    q.units = ceil_div(q.images, q.unit_images) * q.row_blocks * (q.col_blocks + q.band_blocks)
    q.at_band = LINE
    q.at_table = sizeof(real) * ((q.n_outer * q.in_rows + 1 + 4 * ROW_NV) * q.pitch * phases + 2 * MAX_NV * LANES)
    q.at_table = q.at_band + round_up(max(q.at_table, <int64_t> sizeof(real) * (2 * q.cols + reach_x + LANES)), LINE)
    q.at_scratch = round_up(q.at_table + (q.n_outer * q.in_rows + 4 * p.H.d) * sizeof(char *), LINE)
    q.at_maps = q.at_scratch + sizeof(real) * MAX_R * max(
        MAX_NV * LANES * (residues.W if residues != NULL else 1), SCRATCH_COLS)
    q.workspace = q.at_maps + phases * (sizeof(ColumnMap) + q.pitch * sizeof(int64_t))
    return PLANNED


cdef bint masks_padding(const Problem *p) noexcept nogil:
    """Whether tiles may read the rows in place and mask what is padding: the first and the last vector meet it only."""
    cdef int64_t inner = (ceil_div(p.W.on, LANES) - 1) * LANES - 1       # the last column before those of the last one
    return (p.H.s == p.W.s and p.W.s <= 2 and p.H.d == p.W.d == 1 and p.interleave == 1 and p.fused
            and p.source.plain and p.source.code == REAL_CODE and p.W.x_step == sizeof(real) and p.y_direct
            and p.W.boundary == CONSTANT and p.x_parts == 1 and p.constant[0] == 0
            and p.H.k > 1 and p.W.k > 1 and (p.W.k <= LANES or p.W.s > 1) and p.H.on >= 4
            and LANES < p.W.on <= (16 * LANES if p.W.s == 1 else MASKED_COLS)
            and 0 <= p.W.before <= LANES * p.W.s and inner * p.W.s + p.W.k - 1 - p.W.before < p.W.n)


cdef bint table_masks(RowPlan *q) noexcept nogil:
    cdef const Problem *p = q.p
    cdef int64_t kx, i, begin, end, last = q.on - LANES
    q.masks = <mask_vec *> malloc(3 * (p.W.k + 1) * sizeof(mask_vec))
    if q.masks == NULL:
        return False
    for i in range(p.W.k + 1):
        kx = i if i < p.W.k else LANES * p.W.s                   # behind those of the columns, that of the next vector
        begin = ceil_div(max(p.W.before - kx, 0), p.W.s)         # the outputs for which the tap reads a true sample
        end = ceil_div(max(p.W.n + p.W.before - kx, 0), p.W.s)
        fill_mask(<real *> (q.masks + i), LANES, LANES, begin, end)
        fill_mask(<real *> (q.masks + p.W.k + 1 + i), LANES, LANES, begin - last, end - last)
        fill_mask(<real *> (q.masks + 2 * (p.W.k + 1) + i), LANES, LANES, 0, LANES)
    return True


cdef bint list_taps(RowPlan *q, int64_t per_channel, bint skip_zeros) noexcept nogil:
    cdef const Problem *p = q.p
    cdef const real *w = p.w
    cdef Tap *tap
    cdef int64_t g, outer, ky, kx
    q.taps = <Tap *> malloc(max(per_channel * p.groups, 1) * sizeof(Tap))
    q.first_tap = <int64_t *> malloc((p.groups + 1) * sizeof(int64_t))
    if q.taps == NULL or q.first_tap == NULL:
        return False
    tap = q.taps
    for g in range(p.groups):
        q.first_tap[g] = tap - q.taps
        for outer in range(q.n_outer):
            for ky in range(p.H.k):
                for kx in range(p.W.k):
                    if not (skip_zeros and w[0] == 0):
                        tap.row = outer * q.in_rows + ky * p.H.d
                        tap.column = sizeof(real) * (q.fx.of_tap[kx] * q.in_rows * q.pitch + q.fx.shift[kx])
                        tap.weight = w[0]
                        tap += 1
                    w += 1
    q.first_tap[p.groups] = tap - q.taps
    return True


cdef bint list_residues(RowPlan *q) noexcept nogil:
    """The taps of every output channel, residue along H and residue along W. The band begins as far before the image as
    the residue that needs most (p.H.before, p.W.before); the weights lie as in the whole kernel."""
    cdef const Problem *p = q.p
    cdef const Residues *f = q.residues
    cdef const Residue *ry
    cdef const Residue *rx
    cdef Tap *tap
    cdef int64_t g, outer, y, x, ky, kx, i = 0
    q.taps = <Tap *> malloc(max(p.groups * q.n_outer * f.kh * f.kw, 1) * sizeof(Tap))
    q.first_tap = <int64_t *> malloc((p.groups * f.H * f.W + 1) * sizeof(int64_t))
    if q.taps == NULL or q.first_tap == NULL:
        return False
    tap = q.taps
    for g in range(p.groups):
        for y in range(f.H):
            ry = &f.of[y]
            for x in range(f.W):
                rx = &f.of[f.H + x]
                q.first_tap[i] = tap - q.taps
                i += 1
                for outer in range(g * q.n_outer, (g + 1) * q.n_outer):
                    for ky in range(ry.count):
                        for kx in range(rx.count):
                            tap.row = (outer - g * q.n_outer) * q.in_rows + p.H.before - ry.before + ky * f.dilation_y
                            tap.column = sizeof(real) * (p.W.before - rx.before + kx * f.dilation_x)
                            tap.weight = p.w[(outer * f.kh + ry.first - ky * ry.step) * f.kw + rx.first - kx * rx.step]
                            tap += 1
    q.first_tap[i] = tap - q.taps
    return True


cdef void free_rows(RowPlan *q) noexcept nogil:
    free(q.fx.residue)
    free(q.taps)
    free(q.first_tap)
    free(q.masks)


cdef struct RowUnit:
    int64_t n, channel, z
    int64_t y0, rows
    int64_t x0, cols                 # counted in samples, as everything along W here
    bint in_place, borders
    char *y                          # the block's first output sample
    const char *const *table
    const real *bias


cdef void map_unit(const RowPlan *q, const RowUnit *u, char *workspace) noexcept nogil:
    """What all images of a unit share: the map of its columns, or a row of the constant."""
    cdef const Problem *p = q.p
    cdef ColumnMap *maps = <ColumnMap *> (workspace + q.at_maps)
    cdef int64_t *samples = <int64_t *> (maps + q.fx.count)
    cdef int64_t px, i, j
    if q.padded:                     # a row of zeros, and a map for rows that have no room before or behind
        maps.sample = samples
        map_columns(maps, -p.W.before, 1, (u.cols - 1) * p.W.s + p.W.k, p.W.n, CONSTANT, 1)
        fill_constant(<real *> (workspace + q.at_band), maps.length, 0)
        return
    if u.in_place:                   # so there is one part, and one constant
        fill_constant(<real *> (workspace + q.at_band), u.cols + q.fx.reach, p.constant[0])
        return
    if u.borders:
        maps.sample = samples
        maps.length = u.cols + q.fx.reach
        maps.inner = maps.inner_end = maps.start = 0
        maps.step = 1
        maps.bordered = True
        for j in range(maps.length):
            i = j if j < q.left + q.fx.reach else j - q.left - q.fx.reach + q.right
            samples[j] = sample_at(i - p.W.before * p.interleave, p.W.n, p.W.boundary, p.interleave)
        return
    for px in range(q.fx.count):
        maps[px].sample = samples + px * q.pitch
        map_columns(&maps[px], u.x0 * p.W.s + q.fx.residue[px] - p.W.before * p.interleave, p.W.s,
                    u.cols + q.fx.reach, p.W.n, p.W.boundary, p.interleave)


cdef void name_rows(const RowPlan *q, const RowUnit *u, char *workspace) noexcept nogil:
    """The table of input rows, every row starting where column x0's first tap reads."""
    cdef const Problem *p = q.p
    cdef const char **table = <const char **> (workspace + q.at_table)
    cdef const ColumnMap *maps = <const ColumnMap *> (workspace + q.at_maps)
    cdef real *band = <real *> (workspace + q.at_band)
    cdef const char *slice
    cdef const char *row
    cdef int64_t c, kz, j, px, n_rows = (u.rows - 1) * p.H.s + (p.H.k - 1) * p.H.d + 1
    cdef int64_t first = u.y0 * p.H.s - p.H.before
    cdef int64_t shift = (u.x0 - p.W.before * p.interleave) * sizeof(real)
    for c in range(u.channel * p.C, (u.channel + 1) * p.C):
        for kz in range(p.outer_taps):
            slice = input_slice(p, u.n, c, u.z, kz)
            if q.padded:
                name_padded_rows(p, slice, first, n_rows, maps, (maps.length + LANES) * sizeof(real), table,
                                 <const real *> (workspace + q.at_band), band + q.pitch, q.pitch)
                band += q.in_rows * q.pitch
            elif u.in_place:
                for j in range(n_rows):
                    row = input_row(p, slice, first + j)
                    table[j] = row + shift if row != NULL else <const char *> band
            else:
                for j in range(n_rows):
                    table[j] = <const char *> (band + j * q.pitch)
                for px in range(q.fx.count):
                    fill_rows(p, &maps[px], slice, first, 1, n_rows, band, q.pitch, p.constant[c % p.x_parts])
                    band += q.in_rows * q.pitch
            table += q.in_rows
    for j in range(4 * p.H.d):       # tiles prefetch rows that lie this far ahead
        table[j] = (table - 1)[0] + (j + 1) * p.H.x_step if q.padded else workspace


cdef void name_padded_rows(const Problem *p, const char *slice, int64_t first, int64_t n_rows, const ColumnMap *cols,
                           int64_t length, const char **table, const real *zeros, real *band,
                           int64_t pitch) noexcept nogil:
    """Rows where they lie, padding and all, `length` bytes of each. Those that would reach out of the array are copied;
    of reals without gaps that is as a rule none but the very first one and the last one."""
    cdef bint plain = p.source.plain and p.source.code == REAL_CODE and p.W.x_step == sizeof(real)
    cdef const char *row
    cdef const char *inner = slice - p.W.before * <int64_t> sizeof(real)
    cdef int64_t top = min(max(-first, 0), n_rows), bottom = min(max(p.H.n - first, top), n_rows)
    cdef int64_t x_step = p.H.x_step, j
    inner += (first + top) * x_step
    if (slice == NULL or not plain or x_step < 0 or inner < p.x
            or inner + (bottom - top - 1) * x_step + length > p.source.end):
        bottom = top = 0
    for j in range(top, bottom):
        table[j] = inner + (j - top) * x_step
    for j in range(n_rows):
        if top <= j < bottom:
            continue
        row = input_row(p, slice, first + j)
        if row == NULL:
            table[j] = <const char *> zeros
            continue
        inner = row - p.W.before * <int64_t> sizeof(real)
        if not plain or inner < p.x or inner + length > p.source.end:
            fill_row(&p.source, cols, band + j * pitch, row, p.W.x_step, 0)
            inner = <const char *> (band + j * pitch)
        table[j] = inner


cdef void run_padded(const RowPlan *q, const RowUnit *u, int64_t y) noexcept nogil:
    """R output rows of a unit whose padding is masked."""
    cdef const Problem *p = q.p
    cdef const PaddedTile *tiles = &PADDED_TILES[q.R][0] if p.H.s == 1 else &STRIDED_TILES[0]
    cdef const mask_vec *left = q.masks
    cdef const mask_vec *every = q.masks + 2 * (p.W.k + 1)
    cdef const mask_vec *right = every
    cdef real *out = <real *> (u.y + y * p.H.y_step)
    cdef int64_t x = 0, vectors = ceil_div(q.on, LANES), count = ceil_div(vectors, ROW_NV), nv, last
    while count > 0:                 # tiles of nearly equal width
        nv = ceil_div(vectors, count)
        last = (nv - 1) * LANES
        if count == 1:
            last = q.on - LANES - x
            right = q.masks + p.W.k + 1
        tiles[ROW_NV - nv](u.table, y * p.H.s, q.n_outer, q.in_rows, p.H.k, p.W.k,
                           p.w + u.channel * q.n_outer * p.H.k * p.W.k, u.bias, left, right,
                           x * p.W.s * sizeof(real), last, out + x, p.H.y_step // <int64_t> sizeof(real))
        left = every
        x += nv * LANES
        vectors -= nv
        count -= 1


cdef void run_rows(const RowPlan *q, const RowUnit *u, int R, int64_t y, char *workspace) noexcept nogil:
    """R output rows of the unit: y, y + d, ..., or y, y + 1, ... where taps come from a list."""
    cdef const Problem *p = q.p
    cdef real *scratch = <real *> (workspace + q.at_scratch)
    cdef const int *widths = &TAP_ROW_WIDTHS[0] if q.R == 0 and R == 1 else &ROW_WIDTHS[0]
    cdef int64_t y_step = (p.H.d if q.R else 1) * p.H.y_step
    cdef int64_t x = 0, n, wide, strips, lds
    cdef char *out = u.y + y * p.H.y_step
    cdef bint direct
    cdef real *sums
    cdef int r, v
    while x < u.cols:
        n = u.cols - x
        v = 0
        if n < widths[0] * LANES:    # what is left, in one tile
            while v < 3 and widths[v + 1] * LANES >= n:
                v += 1
        wide = widths[v] * LANES
        if n < wide <= u.cols:       # moved back over sums already stored: it ends where the columns do
            x = u.cols - wide
            n = wide
        # A row that falls short of its vectors may spill into the next one, which is stored later.
        direct = p.y_direct and not u.borders and (n >= wide or (
            q.spill and y + R < u.rows and x + wide <= 2 * u.cols))
        strips = max((n if direct else min(n, SCRATCH_COLS)) // wide, 1)
        n = min(n, strips * wide)
        sums = <real *> out + x if direct else scratch
        lds = y_step // <int64_t> sizeof(real) if direct else strips * wide
        if not direct and not u.borders and y_step >= PAGE and 0 < p.W.y_step < <int64_t> sizeof(real):
            for r in range(R):
                prefetch_row(out + r * y_step + x * p.W.y_step, n * p.W.y_step)
        if q.R:
            ROW_TILES[R][v](u.table, y * p.H.s, p.H.d, q.n_outer, q.in_rows, p.H.k, p.W.k,
                            p.W.d * p.interleave * sizeof(real), p.w + u.channel * q.n_outer * p.H.k * p.W.k, u.bias,
                            p.fused, x * sizeof(real), strips, sums, lds)
        else:
            TAP_TILES[R][v](u.table + y * p.H.s, p.H.s, q.taps + q.first_tap[u.channel],
                            q.first_tap[u.channel + 1] - q.first_tap[u.channel], p.pairs, u.bias, p.fused,
                            x * sizeof(real), strips, sums, lds)
        if not direct:
            for r in range(R):
                store_row(q, u, out + r * y_step, x, x + n, scratch + r * lds)
        x += n


cdef void run_residues(const RowPlan *q, const RowUnit *u, int R, int64_t y, char *workspace) noexcept nogil:
    """The output rows of R positions from y on, each residue's sums side by side before they go to their places."""
    cdef const Problem *p = q.p
    cdef const Residues *f = q.residues
    cdef real *scratch = <real *> (workspace + q.at_scratch)
    cdef const int *widths = &TAP_ROW_WIDTHS[0] if R == 1 else &ROW_WIDTHS[0]
    cdef const int64_t *first_tap = q.first_tap + u.channel * f.H * f.W
    cdef int64_t seam = q.left + q.fx.reach, i, x, n, wide, line = R * MAX_NV * LANES
    cdef int64_t below = min(R * f.H, f.height - (u.y0 + y) * f.H)       # output rows of these positions
    cdef char *out = u.y + y * p.H.y_step
    cdef int rx, v
    # Whole rows of pairs can be written as they are made.
    cdef bint pairs = (R == 4 and f.W == 2 and p.y_direct and not u.borders and below == R * f.H
                       and u.cols >= ROW_NV_SHORTER * LANES and 2 * (u.x0 + u.cols) <= f.width)
    for i in range(f.H):
        x = 0
        while pairs and x < u.cols:
            x = min(x, u.cols - ROW_NV_SHORTER * LANES)
            pairs_4(u.table + y, q.taps + first_tap[0], first_tap[1] - first_tap[0], first_tap[2] - first_tap[1],
                    u.bias, x * sizeof(real), out + i * f.y_row + 2 * (u.x0 + x) * <int64_t> sizeof(real),
                    f.H * f.y_row)
            x += ROW_NV_SHORTER * LANES
        while x < u.cols:
            n = u.cols - x
            v = 0
            while v < 3 and widths[v + 1] * LANES >= n:
                v += 1
            wide = widths[v] * LANES
            if n < wide <= u.cols:   # moved back, as in run_rows
                x = u.cols - wide
                n = wide
            n = min(n, wide)
            for rx in range(f.W):
                TAP_TILES[R][v](u.table + y, 1, q.taps + first_tap[rx], first_tap[rx + 1] - first_tap[rx], 0, u.bias,
                                p.fused, x * sizeof(real), 1, scratch + rx * line, wide)
            if not u.borders:
                store_residues(q, out, i, below, u.x0 + x, u.x0 + x + n, scratch, wide, line)
            else:
                if x < q.left:
                    store_residues(q, out, i, below, x, min(x + n, q.left), scratch, wide, line)
                if x + n > seam:
                    store_residues(q, out, i, below, max(x, seam) - seam + q.right, x + n - seam + q.right,
                                   scratch + max(x, seam) - x, wide, line)
            x += n
        first_tap += f.W


cdef inline void store_residues(const RowPlan *q, char *out, int64_t first_row, int64_t end_row, int64_t first,
                                int64_t end, const real *sums, int64_t lds, int64_t line) noexcept nogil:
    """Positions first to end of every H-th output row from first_row on. out: where position 0 of the unit's columns
    has its first row."""
    cdef const Residues *f = q.residues
    cdef int64_t row = first_row, rx, count
    while row < end_row:
        count = min(end * f.W, f.width) - first * f.W
        if f.W == 2 and q.p.y_direct:
            store_pairs(<real *> (out + row * f.y_row) + 2 * first, sums, sums + line, count)
        else:
            for rx in range(f.W):
                store(q.p.y_code, out + row * f.y_row + (first * f.W + rx) * f.y_column, f.W * f.y_column,
                      sums + rx * line, ceil_div(count - rx, f.W))
        row += f.H
        sums += lds


cdef inline void store_row(const RowPlan *q, const RowUnit *u, char *row, int64_t first, int64_t end,
                           const real *sums) noexcept nogil:
    """The sums of the block's columns first to end; of the borders' block, those of either border."""
    cdef int64_t seam = q.left + q.fx.reach, i
    if not u.borders:
        store_columns(q.p, row, first, end, sums)
        return
    if first < q.left:
        store_columns(q.p, row, first, min(end, q.left), sums)
    i = max(first, seam)
    if i < end:
        store_columns(q.p, row, i - seam + q.right, end - seam + q.right, sums + i - first)


cdef inline void store_columns(const Problem *p, char *row, int64_t first, int64_t end,
                               const real *sums) noexcept nogil:
    """The sums of the columns first to end of an output row."""
    if p.y_direct:
        copy_reals(<real *> row + first, sums, end - first)
    else:
        store(p.y_code, row + first * p.W.y_step, p.W.y_step, sums, end - first)


cdef void run_row_unit(const void *plan, int64_t unit, char *workspace, Progress *progress,
                       bint calling) noexcept nogil:
    cdef const RowPlan *q = <const RowPlan *> plan
    cdef const Problem *p = q.p
    cdef RowUnit u
    cdef int64_t blocks = q.col_blocks + q.band_blocks
    cdef int64_t block = unit % blocks, image
    unit //= blocks
    u.y0 = unit % q.row_blocks * q.rows
    u.rows = min(q.rows, p.H.on - u.y0)
    unit //= q.row_blocks
    u.in_place = block < q.col_blocks
    u.borders = not u.in_place and q.col_blocks > 0
    if u.in_place:
        u.x0 = q.left + block * q.cols
        u.cols = q.cols if block + 1 < q.col_blocks else q.right - u.x0
    elif u.borders:
        u.x0 = 0
        u.cols = q.band_cols
    else:
        u.x0 = block * q.band_cols
        u.cols = min(q.band_cols, q.on - u.x0)
    u.table = <const char *const *> (workspace + q.at_table)
    map_unit(q, &u, workspace)
    for image in range(unit * q.unit_images, min(q.images, (unit + 1) * q.unit_images)):
        u.z = image % p.outer_size
        u.channel = image // p.outer_size % p.groups
        u.n = image // p.outer_size // p.groups
        u.y = output_slice(p, u.n, u.channel, u.z) + u.y0 * p.H.y_step
        if q.residues == NULL:       # (else columns are counted from the row's first one)
            u.y += u.x0 * p.W.y_step
        u.bias = p.bias + u.channel if p.bias != NULL else NULL
        name_rows(q, &u, workspace)
        run_image(q, &u, workspace)


cdef int64_t run_stacked(const RowPlan *q, const RowUnit *u, int64_t y, char *workspace) noexcept nogil:
    """The output rows from y on of an image no wider than a vector; returns how many. Some may lie below the unit's
    last: these are computed from what the band holds there, and dropped."""
    cdef const Problem *p = q.p
    cdef real *scratch = <real *> (workspace + q.at_scratch)
    cdef char *out
    cdef int64_t n, r
    cdef int v = 0
    while v < 2 and 4 * ROW_WIDTHS[v + 1] >= u.rows - y:
        v += 1
    n = min(4 * ROW_WIDTHS[v], u.rows - y)
    STACKED_TILES[v](4 * q.pitch * sizeof(real), u.table, y, q.n_outer, q.in_rows, p.H.k, p.W.k,
                     p.W.d * p.interleave * sizeof(real), p.w + u.channel * q.n_outer * p.H.k * p.W.k, u.bias, p.fused,
                     scratch)
    out = u.y + y * p.H.y_step
    r = 0
    if q.spill and p.y_direct:       # whole vectors, as long as later rows overwrite what they spill
        while r < n and (u.rows - y - r) * u.cols >= LANES:
            (<vec *> out)[0] = (<vec *> (scratch + r * LANES))[0]
            out += p.H.y_step
            r += 1
    while r < n:
        store_row(q, u, out, 0, u.cols, scratch + r * LANES)
        out += p.H.y_step
        r += 1
    return n


cdef void run_image(const RowPlan *q, const RowUnit *u, char *workspace) noexcept nogil:
    cdef const Problem *p = q.p
    cdef int64_t d, y = 0
    cdef int rows
    if q.padded:
        while y < u.rows:
            run_padded(q, u, min(y, u.rows - q.R))
            y += q.R
        return
    if q.R == 0:
        while y < u.rows:
            rows = 4 if u.rows - y >= 4 else 1
            if q.residues != NULL:
                run_residues(q, u, rows, y, workspace)
            else:
                run_rows(q, u, rows, y, workspace)
            y += rows
        return
    if q.R == 4 and p.H.d == 1 and not u.in_place and u.cols <= LANES:
        while u.rows - y > 4:
            y += run_stacked(q, u, y, workspace)
    for d in range(min(p.H.d, u.rows)):
        if d > 0:
            y = d
        while y < u.rows:
            rows = <int> min(q.R, ceil_div(u.rows - y, p.H.d))
            run_rows(q, u, rows, y, workspace)
            y += rows * p.H.d
