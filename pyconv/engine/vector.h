/* The vector type of the kernels.
 *
 * A kernel module is compiled once for each computing dtype (PYCONV_F32, PYCONV_F64, PYCONV_I64: setup.py defines one)
 * and each instruction-set level (the compiler's own -march macros). `real` is the computing dtype and `vec` a register
 * of them, so that `acc += b * w` in a .pyx is one multiply-add a vector. Cython is told that both are C doubles; only
 * C ever looks at their true types.
 */
#ifndef PYCONV_VECTOR_H
#define PYCONV_VECTOR_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(PYCONV_I64)
typedef int64_t real;
#define PYCONV_REAL_CODE 'q'
#elif defined(PYCONV_F64)
typedef double real;
#define PYCONV_REAL_CODE 'd'
#else
typedef float real;
#define PYCONV_REAL_CODE 'f'
#endif

#if !defined(__GNUC__) && !defined(__clang__)
#error "pyconv's kernels need the vector types of gcc 12 or clang"
#endif
#define PYCONV_INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__)
#define PYCONV_VECTOR_BYTES 64
#elif defined(__AVX__)
#define PYCONV_VECTOR_BYTES 32
#else
#define PYCONV_VECTOR_BYTES 16
#endif
/* aligned(sizeof real): every load and store is an unaligned one, which costs nothing where the address is aligned. */
typedef real vec __attribute__((vector_size(PYCONV_VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#define PYCONV_LANES ((int)(PYCONV_VECTOR_BYTES / sizeof(real)))

/* A mask is a vector of reals of all bits set or none. */
#if defined(PYCONV_F32)
typedef int32_t mask_bits;
#else
typedef int64_t mask_bits;
#endif
typedef mask_bits mask_vec __attribute__((vector_size(PYCONV_VECTOR_BYTES), aligned(sizeof(real)), may_alias));

/* Tile shapes: NVr vectors of columns for r output channels. r * NV accumulators, NV loaded vectors and one broadcast
 * weight fill the registers: 32 of AVX-512 and NEON, 16 of AVX2 and SSE2 (which needs one more for the product). */
#if defined(__AVX512F__) || defined(__aarch64__)
#define PYCONV_MAX_R 8
#define PYCONV_NV8 3
#define PYCONV_NV8_SHORT 2
#define PYCONV_NV4 6
#define PYCONV_NV4_SHORT 3
#define PYCONV_NV2 8
#define PYCONV_NV2_SHORT 4
#define PYCONV_NV1 12
#define PYCONV_NV1_SHORT 4
#define PYCONV_ROW_NV 4
#define PYCONV_ROW_NV_SHORT 3
#define PYCONV_ROW_NV_SHORTER 2
#else
#define PYCONV_MAX_R 4
#define PYCONV_NV8 1 /* needs more registers than there are: never chosen */
#define PYCONV_NV8_SHORT 1
#if defined(__AVX__)
#define PYCONV_NV4 3
#define PYCONV_NV4_SHORT 2
#define PYCONV_NV2 5
#define PYCONV_NV2_SHORT 2
#else
#define PYCONV_NV4 2
#define PYCONV_NV4_SHORT 1
#define PYCONV_NV2 4
#define PYCONV_NV2_SHORT 2
#endif
#define PYCONV_NV1 8
#define PYCONV_NV1_SHORT 4
#define PYCONV_ROW_NV 2
#define PYCONV_ROW_NV_SHORT 1
#define PYCONV_ROW_NV_SHORTER 1
#endif
#define PYCONV_MAX_NV 12
/* The same for tiles whose vectors run over output channels: two of them for so many positions, or four. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define PYCONV_POSITIONS 14
#define PYCONV_PAIR_POSITIONS 6
#elif defined(__AVX__)
#define PYCONV_POSITIONS 6
#define PYCONV_PAIR_POSITIONS 2
#else
#define PYCONV_POSITIONS 4
#define PYCONV_PAIR_POSITIONS 2
#endif
/* Taps of a tile of dot products for four output channels. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define PYCONV_DOTS4 6
#else
#define PYCONV_DOTS4 2
#endif

/* Pixels that a deformable convolution samples at once: as wide as the tile of the most output channels. */
#if PYCONV_MAX_R == 8
#define PYCONV_PANEL (PYCONV_NV8 * PYCONV_LANES)
#else
#define PYCONV_PANEL (PYCONV_NV4 * PYCONV_LANES)
#endif

PYCONV_INLINE vec vzero(void) {
    vec v = {0};
    return v;
}

PYCONV_INLINE int all_finite(const real *p, int64_t n) {
    vec sum = vzero();
    real rest = 0;
    int64_t i = 0;
    for (; i + PYCONV_LANES <= n; i += PYCONV_LANES) sum += *(const vec *)(p + i) * 0;
    for (; i < n; i++) rest += p[i] * 0;
    for (int j = 0; j < PYCONV_LANES; j++) rest += sum[j];
    return rest == 0; /* infinity * 0 is NaN */
}

/* Whether all of n reals are within the integers of 32 bits, and none is NaN. Without their sign, the bits of floats are
 * ordered like integers, so one that is too large leaves a sign in the difference. (Comparing takes thrice as long.) */
PYCONV_INLINE mask_bits beyond_int32(mask_bits bits) {
#if defined(PYCONV_I64)
    return (mask_bits)(((uint64_t)bits + (UINT64_C(1) << 31)) >> 32);
#elif defined(PYCONV_F64)
    return (INT64_C(0x41dfffffffffffff) - (bits & INT64_MAX)) & INT64_MIN;
#else
    return (INT32_C(0x4effffff) - (bits & INT32_MAX)) & INT32_MIN;
#endif
}

PYCONV_INLINE int all_int32(const real *p, int64_t n) {
    typedef mask_bits bits_of_real __attribute__((may_alias));
    mask_bits beyond = 0;
    for (int64_t i = 0; i < n; i++) beyond |= beyond_int32(((const bits_of_real *)p)[i]);
    return beyond == 0;
}

/* Some lanes of a vector: those whose bits are set. */
#if defined(__AVX512F__)
#if defined(PYCONV_F32)
#define PYCONV_LOAD_SOME(m, p) _mm512_maskz_loadu_ps((__mmask16)(m), p)
#define PYCONV_STORE_SOME(p, m, v) _mm512_mask_storeu_ps(p, (__mmask16)(m), (__m512)(v))
#else
#define PYCONV_LOAD_SOME(m, p) _mm512_maskz_loadu_pd((__mmask8)(m), p)
#define PYCONV_STORE_SOME(p, m, v) _mm512_mask_storeu_pd(p, (__mmask8)(m), (__m512d)(v))
#endif
#endif

/* memcpy for a few vectors or less, without a call. */
PYCONV_INLINE void copy_reals(real *to, const real *from, int64_t n) {
    int64_t i = 0;
    if (n >= PYCONV_LANES) {
        for (; i + PYCONV_LANES <= n; i += PYCONV_LANES) *(vec *)(to + i) = *(const vec *)(from + i);
        if (i < n) *(vec *)(to + n - PYCONV_LANES) = *(const vec *)(from + n - PYCONV_LANES);
        return;
    }
#if defined(__AVX512F__)
    uint32_t lanes = (1u << n) - 1;
    PYCONV_STORE_SOME(to, lanes, PYCONV_LOAD_SOME(lanes, from));
#else
    for (int64_t half = PYCONV_LANES / 2; half > 0; half /= 2) {
        if (n & half) {
            for (int64_t j = 0; j < half; j++) to[i + j] = from[i + j];
            i += half;
        }
    }
#endif
}

/* Every second real of two vectors, from the first or from the second. */
#if PYCONV_VECTOR_BYTES == 64 && defined(PYCONV_F32)
#define PYCONV_EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define PYCONV_ODDS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif (PYCONV_VECTOR_BYTES == 64) || (PYCONV_VECTOR_BYTES == 32 && defined(PYCONV_F32))
#define PYCONV_EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define PYCONV_ODDS 1, 3, 5, 7, 9, 11, 13, 15
#elif (PYCONV_VECTOR_BYTES == 32) || defined(PYCONV_F32)
#define PYCONV_EVENS 0, 2, 4, 6
#define PYCONV_ODDS 1, 3, 5, 7
#else
#define PYCONV_EVENS 0, 2
#define PYCONV_ODDS 1, 3
#endif
PYCONV_INLINE vec evens(vec a, vec b) { return __builtin_shufflevector(a, b, PYCONV_EVENS); }

PYCONV_INLINE vec odds(vec a, vec b) { return __builtin_shufflevector(a, b, PYCONV_ODDS); }

/* Every second real of 2 n, from the first: stride 2, by shuffles. Reads whole pairs of vectors where `beyond` lets it. */
PYCONV_INLINE void copy_every_second(real *to, const real *from, int64_t n, int beyond) {
    int64_t i = 0, end = beyond ? n : n - PYCONV_LANES;
    for (; i < end; i += PYCONV_LANES) {
        const vec *p = (const vec *)(from + 2 * i);
        *(vec *)(to + i) = evens(p[0], p[1]);
    }
    for (; i < n; i++) to[i] = from[2 * i];
}

/* The mask of a vector's first n lanes. */
PYCONV_INLINE mask_vec first_lanes(int64_t n) {
    mask_vec m = {0};
    for (int i = 0; i < PYCONV_LANES; i++) m[i] = i < n ? -1 : 0;
    return m;
}

PYCONV_INLINE vec masked(vec v, mask_vec m) { return (vec)((mask_vec)v & m); }

/* Lane i of the result is lane order[i], for the first n. */
PYCONV_INLINE mask_vec lane_order(const int64_t *order, int64_t n) {
    mask_vec m = {0};
    for (int i = 0; i < PYCONV_LANES && i < n; i++) m[i] = (mask_bits)order[i];
    return m;
}

PYCONV_INLINE vec permuted(vec v, mask_vec order) {
#if defined(__clang__)
    vec p;
    for (int i = 0; i < PYCONV_LANES; i++) p[i] = v[order[i]];
    return p;
#else
    return __builtin_shuffle(v, order);
#endif
}

/* Lanes n, n + 1, ... of two vectors that follow one another, by an order that `lanes_from` and `two_further` make. Where
 * PYCONV_SHIFTS is not set that takes longer than an unaligned load. */
PYCONV_INLINE mask_vec lanes_from(int n) {
    mask_vec m = {0};
    for (int i = 0; i < PYCONV_LANES; i++) m[i] = n + i;
    return m;
}

PYCONV_INLINE mask_vec one_further(mask_vec order) { return order + 1; }

PYCONV_INLINE mask_vec two_further(mask_vec order) { return order + 2; }

#if defined(__AVX512F__) && !defined(PYCONV_I64)
#define PYCONV_SHIFTS 1
#if defined(PYCONV_F32)
PYCONV_INLINE vec two_shifted(vec a, vec b, mask_vec order) {
    return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)order, (__m512)b);
}
#define PYCONV_SHIFT(n) (vec)_mm512_alignr_epi32((__m512i)b, (__m512i)a, n)
#else
PYCONV_INLINE vec two_shifted(vec a, vec b, mask_vec order) {
    return (vec)_mm512_permutex2var_pd((__m512d)a, (__m512i)order, (__m512d)b);
}
#define PYCONV_SHIFT(n) (vec)_mm512_alignr_epi64((__m512i)b, (__m512i)a, n)
#endif
/* The same, from lane n on, which is a constant once it is inlined. */
PYCONV_INLINE vec shifted(vec a, vec b, int n) {
    switch (n) {
    case 1: return PYCONV_SHIFT(1);
    case 2: return PYCONV_SHIFT(2);
    case 3: return PYCONV_SHIFT(3);
    case 4: return PYCONV_SHIFT(4);
    case 5: return PYCONV_SHIFT(5);
    case 6: return PYCONV_SHIFT(6);
    default: return two_shifted(a, b, lanes_from(n));
    }
}
#else
#define PYCONV_SHIFTS 0
PYCONV_INLINE vec two_shifted(vec a, vec b, mask_vec order) {
    vec v = a;
    for (int i = 0; i < PYCONV_LANES; i++) v[i] = order[i] < PYCONV_LANES ? a[order[i]] : b[order[i] - PYCONV_LANES];
    return v;
}
PYCONV_INLINE vec shifted(vec a, vec b, int n) { return two_shifted(a, b, lanes_from(n)); }
#endif

/* Of samples x, x + 1, ... and x + 2, x + 3, ...: x + 1, x + 2, ... */
PYCONV_INLINE vec lanes_between(vec a, vec b) {
    mask_vec order = lanes_from(1);
    order[PYCONV_LANES - 1] = 2 * PYCONV_LANES - 2;
    return two_shifted(a, b, order);
}

/* The mask of n reals, in periods of `period`, of which first to end - 1 are set. */
PYCONV_INLINE void fill_mask(real *mask, int64_t n, int64_t period, int64_t first, int64_t end) {
    mask_bits *bits = (mask_bits *)mask;
    for (int64_t i = 0, j = 0; i < n; i++) {
        bits[i] = j >= first && j < end ? -1 : 0;
        if (++j == period) j = 0;
    }
}

/* A row of two vectors: from[i] for first <= i < end, else the constant; then the same for the next rows. */
PYCONV_INLINE void copy_narrow_rows(real *to, int64_t pitch, const char *from, int64_t step, int64_t n_rows, int64_t first,
                                    int64_t end, real constant) {
    vec c = vzero() + constant;
    mask_vec m[2] = {{0}, {0}};
    for (int v = 0; v < 2; v++)
        for (int i = 0; i < PYCONV_LANES; i++) m[v][i] = -(v * PYCONV_LANES + i >= first && v * PYCONV_LANES + i < end);
    mask_vec c0 = (mask_vec)c & ~m[0], c1 = (mask_vec)c & ~m[1];
    for (int64_t j = 0; j < n_rows; j++) {
        const mask_vec *row = (const mask_vec *)from;
        ((mask_vec *)to)[0] = (row[0] & m[0]) | c0;
        ((mask_vec *)to)[1] = (row[1] & m[1]) | c1;
        from += step;
        to += pitch;
    }
}

/* n reals, and what is left of the last vector: from[i], or the constant where the mask is not set. */
PYCONV_INLINE void copy_masked(real *to, const real *from, const real *mask, int64_t n, real constant) {
    vec c = vzero() + constant;
    for (int64_t i = 0; i < n; i += PYCONV_LANES) {
        mask_vec m = *(const mask_vec *)(mask + i), v = *(const mask_vec *)(from + i);
        *(mask_vec *)(to + i) = (v & m) | ((mask_vec)c & ~m);
    }
}

/* n reals to every second place, those between left as they are. */
#if defined(__AVX512F__)
#if defined(PYCONV_F32)
#define PYCONV_TWICE_FIRST 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7
#define PYCONV_TWICE_SECOND 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15
#else
#define PYCONV_TWICE_FIRST 0, 0, 1, 1, 2, 2, 3, 3
#define PYCONV_TWICE_SECOND 4, 4, 5, 5, 6, 6, 7, 7
#endif
PYCONV_INLINE void store_every_second(real *to, const real *from, int64_t n) {
    for (; n > 0; n -= PYCONV_LANES, to += 2 * PYCONV_LANES, from += PYCONV_LANES) {
        uint32_t lanes = n < PYCONV_LANES ? 0x55555555u & ((1u << 2 * n) - 1) : 0x55555555u;
        vec v = *(const vec *)from;
        PYCONV_STORE_SOME(to, lanes, __builtin_shufflevector(v, v, PYCONV_TWICE_FIRST));
        PYCONV_STORE_SOME(to + PYCONV_LANES, lanes >> PYCONV_LANES, __builtin_shufflevector(v, v, PYCONV_TWICE_SECOND));
    }
}
#else
PYCONV_INLINE void store_every_second(real *to, const real *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[2 * i] = from[i];
}
#endif

/* Two vectors into one another, a0 b0 a1 b1 ...: the first halves, and the second ones. */
#if PYCONV_VECTOR_BYTES == 64 && defined(PYCONV_F32)
#define PYCONV_ZIP_FIRST 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define PYCONV_ZIP_SECOND 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif (PYCONV_VECTOR_BYTES == 64) || (PYCONV_VECTOR_BYTES == 32 && defined(PYCONV_F32))
#define PYCONV_ZIP_FIRST 0, 8, 1, 9, 2, 10, 3, 11
#define PYCONV_ZIP_SECOND 4, 12, 5, 13, 6, 14, 7, 15
#elif (PYCONV_VECTOR_BYTES == 32) || defined(PYCONV_F32)
#define PYCONV_ZIP_FIRST 0, 4, 1, 5
#define PYCONV_ZIP_SECOND 2, 6, 3, 7
#else
#define PYCONV_ZIP_FIRST 0, 2
#define PYCONV_ZIP_SECOND 1, 3
#endif

PYCONV_INLINE vec zipped_first(vec a, vec b) { return __builtin_shufflevector(a, b, PYCONV_ZIP_FIRST); }

PYCONV_INLINE vec zipped_second(vec a, vec b) { return __builtin_shufflevector(a, b, PYCONV_ZIP_SECOND); }

/* n reals: a[0], b[0], a[1], b[1], ... */
PYCONV_INLINE void store_pairs(real *to, const real *a, const real *b, int64_t n) {
    for (; n >= 2 * PYCONV_LANES; n -= 2 * PYCONV_LANES) {
        ((vec *)to)[0] = __builtin_shufflevector(*(const vec *)a, *(const vec *)b, PYCONV_ZIP_FIRST);
        ((vec *)to)[1] = __builtin_shufflevector(*(const vec *)a, *(const vec *)b, PYCONV_ZIP_SECOND);
        to += 2 * PYCONV_LANES;
        a += PYCONV_LANES;
        b += PYCONV_LANES;
    }
    if (n > 0) {
        vec v = __builtin_shufflevector(*(const vec *)a, *(const vec *)b, PYCONV_ZIP_FIRST);
        copy_reals(to, (const real *)&v, n < PYCONV_LANES ? n : PYCONV_LANES);
    }
    if (n > PYCONV_LANES) {
        vec v = __builtin_shufflevector(*(const vec *)a, *(const vec *)b, PYCONV_ZIP_SECOND);
        copy_reals(to + PYCONV_LANES, (const real *)&v, n - PYCONV_LANES);
    }
}

/* Transpose a square of reals. */
#if PYCONV_VECTOR_BYTES == 64 && defined(PYCONV_F32)
/* Quarters of four rows by shuffles within them, then the quarters: shuffles that take any lane of two vectors anywhere
 * (as below) need twice the time. */
#define PYCONV_ZIP_LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define PYCONV_ZIP_HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define PYCONV_ZIP_LOW_PAIRS 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define PYCONV_ZIP_HIGH_PAIRS 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define PYCONV_EVEN_QUARTERS 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define PYCONV_ODD_QUARTERS 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
PYCONV_INLINE void transpose_square(vec *v) {
    vec t[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        vec a = __builtin_shufflevector(v[i], v[i + 1], PYCONV_ZIP_LOW);
        vec b = __builtin_shufflevector(v[i], v[i + 1], PYCONV_ZIP_HIGH);
        vec c = __builtin_shufflevector(v[i + 2], v[i + 3], PYCONV_ZIP_LOW);
        vec d = __builtin_shufflevector(v[i + 2], v[i + 3], PYCONV_ZIP_HIGH);
        t[i] = __builtin_shufflevector(a, c, PYCONV_ZIP_LOW_PAIRS);
        t[i + 1] = __builtin_shufflevector(a, c, PYCONV_ZIP_HIGH_PAIRS);
        t[i + 2] = __builtin_shufflevector(b, d, PYCONV_ZIP_LOW_PAIRS);
        t[i + 3] = __builtin_shufflevector(b, d, PYCONV_ZIP_HIGH_PAIRS);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        vec a = __builtin_shufflevector(t[i], t[4 + i], PYCONV_EVEN_QUARTERS);
        vec b = __builtin_shufflevector(t[i], t[4 + i], PYCONV_ODD_QUARTERS);
        vec c = __builtin_shufflevector(t[8 + i], t[12 + i], PYCONV_EVEN_QUARTERS);
        vec d = __builtin_shufflevector(t[8 + i], t[12 + i], PYCONV_ODD_QUARTERS);
        v[i] = __builtin_shufflevector(a, c, PYCONV_EVEN_QUARTERS);
        v[8 + i] = __builtin_shufflevector(a, c, PYCONV_ODD_QUARTERS);
        v[4 + i] = __builtin_shufflevector(b, d, PYCONV_EVEN_QUARTERS);
        v[12 + i] = __builtin_shufflevector(b, d, PYCONV_ODD_QUARTERS);
    }
}
#else
/* A round takes the highest bit of the row's number to the end of the column's, and that of the column's to the end of
 * the row's; after log2(LANES) rounds they have changed places. */
PYCONV_INLINE void transpose_square(vec *v) {
#pragma GCC unroll 4
    for (int round = 1; round < PYCONV_LANES; round *= 2) {
        vec t[PYCONV_LANES];
#pragma GCC unroll 16
        for (int i = 0; i < PYCONV_LANES / 2; i++) {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + PYCONV_LANES / 2], PYCONV_ZIP_FIRST);
            t[2 * i + 1] = __builtin_shufflevector(v[i], v[i + PYCONV_LANES / 2], PYCONV_ZIP_SECOND);
        }
#pragma GCC unroll 16
        for (int i = 0; i < PYCONV_LANES; i++) v[i] = t[i];
    }
}
#endif

/* The sum of each vector's lanes, as one vector: the same rounds, each adding the two halves. */
PYCONV_INLINE vec sum_each(vec *v) {
#pragma GCC unroll 4
    for (int half = PYCONV_LANES / 2; half > 0; half /= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < half; i++) {
            v[i] = __builtin_shufflevector(v[i], v[i + half], PYCONV_ZIP_FIRST)
                   + __builtin_shufflevector(v[i], v[i + half], PYCONV_ZIP_SECOND);
        }
    }
    return v[0];
}

/* The empty assembly makes a value opaque: the compiler forgets where it came from. */
#if defined(__x86_64__) && defined(__AVX512F__)
#define PYCONV_OPAQUE(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__)
#define PYCONV_OPAQUE(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define PYCONV_OPAQUE(v) __asm__("" : "+w"(v))
#else
#define PYCONV_OPAQUE(v) __asm__("" : "+m"(v))
#endif

/* A load that stays in its register: left alone, gcc 12 repeats it as an operand of every multiply-add, and the two
 * loads a cycle, not the multiply-adds, then bound the tile. */
PYCONV_INLINE vec load_once(const char *p) {
    vec v = *(const vec *)p;
    PYCONV_OPAQUE(v);
    return v;
}

/* A value that is in a register by now. */
PYCONV_INLINE vec in_register(vec v) {
    PYCONV_OPAQUE(v);
    return v;
}

/* Weights whose address is opaque. A kernel row meets several input rows: left alone, gcc keeps its weights from one to
 * the next, on the stack for want of registers, and sums with them. */
PYCONV_INLINE const real *loaded_anew(const real *w) {
    __asm__("" : "+r"(w));
    return w;
}

PYCONV_INLINE void prefetch(const char *p) { __builtin_prefetch(p); }

/* A row's cache lines, some rows before it is read or written: the processor's own prefetch ends with each row. */
PYCONV_INLINE void prefetch_row(const char *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

/* A product that the compiler may not fuse with the sum that follows. */
PYCONV_INLINE vec rounded_product(vec a, real b) {
    vec p = a * b;
    PYCONV_OPAQUE(p);
    return p;
}

/* Conversions between the computing dtype and an array's. A float outside the integers' range goes through int64, as
 * NumPy and SciPy do, and an integer keeps its low bits. */
typedef _Float16 half;

PYCONV_INLINE int64_t real_to_int64(real v) {
#if defined(PYCONV_I64)
    return v;
#else
    return (v >= (real)-9223372036854775808.0 && v < (real)9223372036854775808.0) ? (int64_t)v : INT64_MIN;
#endif
}

PYCONV_INLINE uint64_t real_to_uint64(real v) {
#if defined(PYCONV_I64)
    return (uint64_t)v;
#else
    return v >= (real)9223372036854775808.0 && v < (real)18446744073709551616.0 ? (uint64_t)v
                                                                                 : (uint64_t)real_to_int64(v);
#endif
}

/* The next of a loop's indices that threads share, and how many threads are through. */
PYCONV_INLINE int64_t fetch_add(int64_t *counter, int64_t n) {
    return __atomic_fetch_add(counter, n, __ATOMIC_ACQ_REL);
}

PYCONV_INLINE int64_t read_counter(const int64_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }

PYCONV_INLINE void sleep_briefly(void) {
    struct timespec t = {0, 20000};
    nanosleep(&t, NULL);
}

/* The threads of this parallel region: OpenMP may grant fewer than were asked for. */
PYCONV_INLINE int team_size(void) {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

PYCONV_INLINE double monotonic_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

PYCONV_INLINE void swap_bytes(char *p, int64_t size) {
    for (int64_t i = 0; i < size / 2; i++) {
        char t = p[i];
        p[i] = p[size - 1 - i];
        p[size - 1 - i] = t;
    }
}

#endif
