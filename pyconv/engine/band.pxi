# The band: the one copy in which everything irregular happens.
#
# A band row holds consecutive samples of one padded input row, every `step`-th of them from some phase: the boundary is
# an index map, the dtype becomes the computing one, and the input's strides are followed. Nothing after it branches.

cdef enum:
    CONSTANT = 0
    EDGE = 1
    SYMMETRIC = 2
    MIRROR = 3
    WRAP = 4

ctypedef fused number:
    int8_t
    uint8_t
    int16_t
    uint16_t
    int32_t
    uint32_t
    int64_t
    uint64_t
    half
    float
    double


cdef inline int64_t floor_mod(int64_t i, int64_t n) noexcept nogil:
    i %= n
    return i + n if i < 0 else i


cdef inline int64_t boundary_index(int64_t i, int64_t n, int boundary) noexcept nogil:
    """Which sample stands at position i of an axis of n samples; -1 where the constant does."""
    if 0 <= i < n:
        return i
    if boundary == EDGE:
        return 0 if i < 0 else n - 1
    if boundary == WRAP:
        return floor_mod(i, n)
    if boundary == SYMMETRIC:
        i = floor_mod(i, 2 * n)
        return i if i < n else 2 * n - 1 - i
    if boundary == MIRROR:
        if n == 1:
            return 0
        i = floor_mod(i, 2 * n - 2)
        return i if i < n else 2 * n - 2 - i
    return -1


# ---------------------------------------------------------------- dtypes

cdef void load_as(number *tag, real *to, const char *source, int64_t step, int64_t n) noexcept nogil:
    cdef int64_t i
    if step == <int64_t> sizeof(number):
        for i in range(n):
            to[i] = <real> (<const number *> source)[i]
    else:
        for i in range(n):
            to[i] = <real> (<const number *> (source + i * step))[0]


cdef void store_as(number *tag, char *to, int64_t step, const real *source, int64_t n) noexcept nogil:
    cdef int64_t i
    if not (number is float or number is double or number is half) and all_int32(source, n):
        # The same by way of 32 bits, to which all levels convert whole vectors.
        if step == <int64_t> sizeof(number):
            for i in range(n):
                (<number *> to)[i] = <number> <int32_t> source[i]
        else:
            for i in range(n):
                (<number *> (to + i * step))[0] = <number> <int32_t> source[i]
    elif step == <int64_t> sizeof(number):
        for i in range(n):
            if number is float or number is double or number is half:
                (<number *> to)[i] = <number> source[i]
            elif number is uint64_t:
                (<number *> to)[i] = real_to_uint64(source[i])
            else:
                (<number *> to)[i] = <number> real_to_int64(source[i])
    else:
        for i in range(n):
            if number is float or number is double or number is half:
                (<number *> (to + i * step))[0] = <number> source[i]
            elif number is uint64_t:
                (<number *> (to + i * step))[0] = real_to_uint64(source[i])
            else:
                (<number *> (to + i * step))[0] = <number> real_to_int64(source[i])


cdef void load(int code, real *to, const char *source, int64_t step, int64_t n) noexcept nogil:
    """n numbers of the dtype `code` (NumPy's letter), `step` bytes apart, as reals."""
    if code == c'f':
        load_as[float](NULL, to, source, step, n)
    elif code == c'd':
        load_as[double](NULL, to, source, step, n)
    elif code == c'B' or code == c'?':
        load_as[uint8_t](NULL, to, source, step, n)
    elif code == c'b':
        load_as[int8_t](NULL, to, source, step, n)
    elif code == c'H':
        load_as[uint16_t](NULL, to, source, step, n)
    elif code == c'h':
        load_as[int16_t](NULL, to, source, step, n)
    elif code == c'I':
        load_as[uint32_t](NULL, to, source, step, n)
    elif code == c'i':
        load_as[int32_t](NULL, to, source, step, n)
    elif code == c'Q':
        load_as[uint64_t](NULL, to, source, step, n)
    elif code == c'q':
        load_as[int64_t](NULL, to, source, step, n)
    elif code == c'e':
        load_as[half](NULL, to, source, step, n)


cdef void store(int code, char *to, int64_t step, const real *source, int64_t n) noexcept nogil:
    """The inverse of load, by NumPy's casting rules."""
    cdef int64_t i
    if code == REAL_CODE and step == 2 * sizeof(real):
        store_every_second(<real *> to, source, n)
    elif code == c'f':
        store_as[float](NULL, to, step, source, n)
    elif code == c'd':
        store_as[double](NULL, to, step, source, n)
    elif code == c'B':
        store_as[uint8_t](NULL, to, step, source, n)
    elif code == c'b':
        store_as[int8_t](NULL, to, step, source, n)
    elif code == c'H':
        store_as[uint16_t](NULL, to, step, source, n)
    elif code == c'h':
        store_as[int16_t](NULL, to, step, source, n)
    elif code == c'I':
        store_as[uint32_t](NULL, to, step, source, n)
    elif code == c'i':
        store_as[int32_t](NULL, to, step, source, n)
    elif code == c'Q':
        store_as[uint64_t](NULL, to, step, source, n)
    elif code == c'q':
        store_as[int64_t](NULL, to, step, source, n)
    elif code == c'e':
        store_as[half](NULL, to, step, source, n)
    elif code == c'?':
        for i in range(n):
            to[i * step] = source[i] != 0


cdef struct Source:                  # how the input's numbers lie in memory
    int code
    int size                         # bytes a number
    bint plain                       # aligned and in native byte order
    bint swapped
    const char *end                  # no load reaches past it


cdef void load_any(const Source *source, real *to, const char *p, int64_t step, int64_t n) noexcept nogil:
    """load, and for misaligned or byte-swapped numbers by way of a small aligned buffer."""
    cdef char buffer[1024]
    cdef int64_t i, m, size = source.size
    if source.plain:
        load(source.code, to, p, step, n)
        return
    while n > 0:
        m = min(n, 1024 // size)
        for i in range(m):
            memcpy(buffer + i * size, p + i * step, size)
            if source.swapped:
                swap_bytes(buffer + i * size, size)
        load(source.code, to, buffer, size, m)
        n -= m
        to += m
        p += m * step


# ---------------------------------------------------------------- rows

cdef struct ColumnMap:               # where the columns of a band row come from
    int64_t length
    int64_t inner                    # columns inner .. inner_end lie in the image, evenly spaced
    int64_t inner_end
    int64_t start                    # the input sample at `inner`
    int64_t step                     # samples from one column to the next
    bint bordered                    # some other column is not the constant
    int64_t *sample                  # of every other column: its input sample, or -1 for the constant


cdef inline int64_t sample_at(int64_t i, int64_t n, int boundary, int64_t interleave) noexcept nogil:
    """The input sample at position i of an axis of n pixels, `interleave` samples each; -1 for the constant."""
    cdef int64_t pixel
    if 0 <= i < n * interleave:
        return i
    pixel = i // interleave if i >= 0 else -((-i + interleave - 1) // interleave)
    i -= pixel * interleave
    pixel = boundary_index(pixel, n, boundary)
    return pixel * interleave + i if pixel >= 0 else -1


cdef void map_columns(ColumnMap *cols, int64_t first, int64_t step, int64_t length, int64_t n, int boundary,
                      int64_t interleave) noexcept nogil:
    """Fill `cols` for the positions first, first + step, ... of an axis of n pixels, `interleave` samples each."""
    cdef int64_t j, total = n * interleave
    cols.length = length
    cols.step = step
    cols.inner = min(length, (-first + step - 1) // step if first < 0 else 0)
    cols.start = first + cols.inner * step
    cols.inner_end = cols.inner
    if cols.start < total:
        cols.inner_end = min(length, cols.inner + (total - cols.start + step - 1) // step)
    cols.bordered = False
    map_border(cols, 0, cols.inner, first, step, n, boundary, interleave)
    map_border(cols, cols.inner_end, length, first, step, n, boundary, interleave)


cdef inline void map_border(ColumnMap *cols, int64_t j, int64_t end, int64_t first, int64_t step, int64_t n,
                            int boundary, int64_t interleave) noexcept nogil:
    while j < end:
        cols.sample[j] = sample_at(first + j * step, n, boundary, interleave)
        if cols.sample[j] >= 0:
            cols.bordered = True
        j += 1


cdef inline void fill_constant(real *to, int64_t n, real value) noexcept nogil:
    """n reals, and what is left of the last vector."""
    cdef vec v = vzero() + value
    cdef int64_t i = 0
    while i < n:
        (<vec *> (to + i))[0] = v
        i += LANES


cdef inline void fill_row(const Source *source, const ColumnMap *cols, real *to, const char *row, int64_t stride,
                          real constant) noexcept nogil:
    """One band row. row: the input row's first sample, or NULL where the whole row is the constant.

    It may write up to a vector past the row, so rows are filled in ascending order."""
    cdef int64_t n = cols.inner_end - cols.inner, step = cols.step * stride
    cdef const char *inner = row + cols.start * stride
    cdef real *at = to + cols.inner
    if row == NULL or n == 0:
        fill_constant(to, cols.length, constant)
        if row == NULL:
            return
    else:
        if cols.inner > 0:
            fill_constant(to, cols.inner, constant)
        if source.code != REAL_CODE or not source.plain:
            load_any(source, at, inner, step, n)
        elif step == sizeof(real):
            copy_reals(at, <const real *> inner, n)
        elif step == 2 * sizeof(real):
            copy_every_second(at, <const real *> inner, n, False)
        else:
            load_any(source, at, inner, step, n)
        if cols.inner_end < cols.length:
            fill_constant(to + cols.inner_end, cols.length - cols.inner_end, constant)
    if cols.bordered:
        fill_border(source, cols, 0, cols.inner, to, row, stride)
        fill_border(source, cols, cols.inner_end, cols.length, to, row, stride)


cdef inline void fill_border(const Source *source, const ColumnMap *cols, int64_t first, int64_t end, real *to,
                             const char *row, int64_t stride) noexcept nogil:
    cdef int64_t j, column
    for j in range(first, end):
        if cols.sample[j] >= 0:
            column = cols.sample[j] - cols.start + cols.inner
            if cols.step == 1 and cols.inner <= column < cols.inner_end:
                to[j] = to[column]   # converted already
            elif source.plain and source.code == REAL_CODE:
                to[j] = (<const real *> (row + cols.sample[j] * stride))[0]
            else:
                load_any(source, to + j, row + cols.sample[j] * stride, 0, 1)
