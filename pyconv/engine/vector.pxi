# What the kernels use of vector.h.

cdef extern from "vector.h" nogil:
    ctypedef double real             # in C: float, double or int64_t
    ctypedef double vec              # in C: a register of reals
    ctypedef long double half        # in C: _Float16 (a type of its own for Cython too)
    ctypedef struct mask_vec:        # in C: a register of integers as wide as reals
        pass
    vec vzero()
    mask_vec first_lanes(int64_t)
    vec masked(vec, mask_vec)
    vec evens(vec, vec)
    vec odds(vec, vec)
    vec zipped_first(vec, vec)
    vec zipped_second(vec, vec)
    bint all_finite(const real *, int64_t)
    bint all_int32(const real *, int64_t)
    mask_vec lane_order(const int64_t *, int64_t)
    vec permuted(vec, mask_vec)
    mask_vec lanes_from(int)
    mask_vec one_further(mask_vec)
    mask_vec two_further(mask_vec)
    vec two_shifted(vec, vec, mask_vec)
    vec lanes_between(vec, vec)
    vec shifted(vec, vec, int)
    void store_every_second(real *, const real *, int64_t)
    void store_pairs(real *, const real *, const real *, int64_t)
    void transpose_square(vec *)
    vec sum_each(vec *)
    vec load_once(const char *)
    vec in_register(vec)
    const real *loaded_anew(const real *)
    void prefetch(const char *)
    void prefetch_row(const char *, int64_t)
    vec rounded_product(vec, real)
    int64_t real_to_int64(real)
    uint64_t real_to_uint64(real)
    void swap_bytes(char *, int64_t)
    void copy_reals(real *, const real *, int64_t)
    void copy_narrow_rows(real *, int64_t, const char *, int64_t, int64_t, int64_t, int64_t, real)
    void fill_mask(real *, int64_t, int64_t, int64_t, int64_t)
    void copy_masked(real *, const real *, const real *, int64_t, real)
    void copy_every_second(real *, const real *, int64_t, bint)
    double monotonic_seconds()
    int64_t fetch_add(int64_t *, int64_t)
    int64_t read_counter(const int64_t *)
    void sleep_briefly()
    int team_size()
    enum:
        LANES "PYCONV_LANES"
        MAX_NV "PYCONV_MAX_NV"
        PANEL "PYCONV_PANEL"
        LARGEST_R "PYCONV_MAX_R"
        NV8 "PYCONV_NV8"
        NV8_SHORT "PYCONV_NV8_SHORT"
        NV4 "PYCONV_NV4"
        NV4_SHORT "PYCONV_NV4_SHORT"
        NV2 "PYCONV_NV2"
        NV2_SHORT "PYCONV_NV2_SHORT"
        NV1 "PYCONV_NV1"
        NV1_SHORT "PYCONV_NV1_SHORT"
        ROW_NV "PYCONV_ROW_NV"
        ROW_NV_SHORT "PYCONV_ROW_NV_SHORT"
        ROW_NV_SHORTER "PYCONV_ROW_NV_SHORTER"
        DOTS4 "PYCONV_DOTS4"
        POSITIONS "PYCONV_POSITIONS"
        PAIR_POSITIONS "PYCONV_PAIR_POSITIONS"
        SHIFTS "PYCONV_SHIFTS"
        REAL_CODE "PYCONV_REAL_CODE"
