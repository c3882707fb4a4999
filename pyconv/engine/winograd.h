/* The transforms of nested Winograd convolution (winograd.pxi tells how they are used), a vector of tiles at a time.
 *
 * F(m, r) computes m outputs of an r-tap correlation from a = m + r - 1 samples d with a multiplications:
 * y = A [(G g) * (B d)]  (S. Winograd, "Arithmetic Complexity of Computations", SIAM, 1980; for images A. Lavin and
 * S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308). By the construction of Cook and Toom,
 * for points p_i, of which the last one is infinity:
 *
 *   A[k][i] = p_i^k               G[i][k] = p_i^k / N_i,  N_i the product of all p_i - p_j, j != i
 *   B[i]    = the coefficients of the product of all x - p_j, j != i;  of all of them for infinity
 *
 * The points were searched for the least error on signs that add up the roundings (tests/test_winograd.py has the bounds).
 * All are short binary fractions, so A, B and the powers in G are exact; 1 / (N_i N_j) multiplies the weights last.
 */
#ifndef PYCONV_WINOGRAD_H
#define PYCONV_WINOGRAD_H

#include <string.h>

#include "vector.h"

/* 0, 1, -1, infinity */
static const double B_2_3[4][4] = {{-1, 0, 1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}};
static const double A_2_3[2][4] = {{1, 1, 1, 0}, {0, 1, -1, 1}};
static const double P_2_3[4] = {0, 1, -1, 0};
static const double N_2_3[4] = {-1, 2, 2, 1};

/* 0, 5/8, -5/8, 3/2, -3/2, infinity */
static const double B_4_3[6][6] = {
    {0.87890625, 0, -2.640625, 0, 1, 0},
    {0, -1.40625, -2.25, 0.625, 1, 0},
    {0, 1.40625, -2.25, -0.625, 1, 0},
    {0, -0.5859375, -0.390625, 1.5, 1, 0},
    {0, 0.5859375, -0.390625, -1.5, 1, 0},
    {0, 0.87890625, 0, -2.640625, 0, 1},
};
static const double A_4_3[4][6] = {
    {1, 1, 1, 1, 1, 0},
    {0, 0.625, -0.625, 1.5, -1.5, 0},
    {0, 0.390625, 0.390625, 2.25, 2.25, 0},
    {0, 0.244140625, -0.244140625, 3.375, -3.375, 1},
};
static const double P_4_3[6] = {0, 0.625, -0.625, 1.5, -1.5, 0};
static const double N_4_3[6] = {225 / 256., -2975 / 2048., -2975 / 2048., 1071 / 128., 1071 / 128., 1};

/* 0, 1/2, 3/2, -5/4, infinity */
static const double B_3_3[5][5] = {
    {0.9375, -1.75, -0.75, 1, 0},
    {0, -1.875, -0.25, 1, 0},
    {0, -0.625, 0.75, 1, 0},
    {0, 0.75, -2, 1, 0},
    {0, 0.9375, -1.75, -0.75, 1},
};
static const double A_3_3[3][5] = {{1, 1, 1, 1, 0}, {0, 0.5, 1.5, -1.25, 0}, {0, 0.25, 2.25, 1.5625, 1}};
static const double P_3_3[5] = {0, 0.5, 1.5, -1.25, 0};
static const double N_3_3[5] = {15 / 16., -7 / 8., 33 / 8., -385 / 64., 1};

/* 0, 7/8, -7/8, 2, -2, 1/4, infinity */
static const double B_4_4[7][7] = {
    {-0.765625, 3.0625, 1.19140625, -4.765625, -0.25, 1, 0},
    {0, 0.875, -2.5, -4.21875, 0.625, 1, 0},
    {0, -0.875, 4.5, -3.78125, -1.125, 1, 0},
    {0, 0.3828125, -1.33984375, -1.265625, 1.75, 1, 0},
    {0, -0.3828125, 1.72265625, -0.265625, -2.25, 1, 0},
    {0, 3.0625, 0, -4.765625, 0, 1, 0},
    {0, -0.765625, 3.0625, 1.19140625, -4.765625, -0.25, 1},
};
static const double A_4_4[4][7] = {
    {1, 1, 1, 1, 1, 1, 0},
    {0, 0.875, -0.875, 2, -2, 0.25, 0},
    {0, 0.765625, 0.765625, 4, 4, 0.0625, 0},
    {0, 0.669921875, -0.669921875, 8, -8, 0.015625, 1},
};
static const double P_4_4[7] = {0, 0.875, -0.875, 2, -2, 0.25, 0};
static const double N_4_4[7] = {-49 / 64., -50715 / 16384., 91287 / 16384., 1449 / 32., -1863 / 32., 2835 / 4096., 1};

/* 0, 1/2, -1/2, 1, -1, 2, -2, infinity */
static const double B_4_5[8][8] = {
    {-1, 0, 5.25, 0, -5.25, 0, 1, 0},
    {0, 2, 4, -2.5, -5, 0.5, 1, 0},
    {0, -2, 4, 2.5, -5, -0.5, 1, 0},
    {0, 1, 1, -4.25, -4.25, 1, 1, 0},
    {0, -1, 1, 4.25, -4.25, -1, 1, 0},
    {0, 0.5, 0.25, -2.5, -1.25, 2, 1, 0},
    {0, -0.5, 0.25, 2.5, -1.25, -2, 1, 0},
    {0, -1, 0, 5.25, 0, -5.25, 0, 1},
};
static const double A_4_5[4][8] = {
    {1, 1, 1, 1, 1, 1, 1, 0},
    {0, 0.5, -0.5, 1, -1, 2, -2, 0},
    {0, 0.25, 0.25, 1, 1, 4, 4, 0},
    {0, 0.125, -0.125, 1, -1, 8, -8, 1},
};
static const double P_4_5[8] = {0, 0.5, -0.5, 1, -1, 2, -2, 0};
static const double N_4_5[8] = {-1, 45 / 32., 45 / 32., -9 / 2., -9 / 2., 90, 90, 1};

/* 0, 5/8, -7/8, 2, infinity */
static const double B_4_2[5][5] = {
    {1.09375, -1.046875, -1.75, 1, 0},
    {0, -1.75, -1.125, 1, 0},
    {0, 1.25, -2.625, 1, 0},
    {0, -0.546875, 0.25, 1, 0},
    {0, 1.09375, -1.046875, -1.75, 1},
};
static const double A_4_2[4][5] = {
    {1, 1, 1, 1, 0},
    {0, 0.625, -0.875, 2, 0},
    {0, 0.390625, 0.765625, 4, 0},
    {0, 0.244140625, -0.669921875, 8, 1},
};
static const double P_4_2[5] = {0, 0.625, -0.875, 2, 0};
static const double N_4_2[5] = {35 / 32., -165 / 128., -483 / 128., 253 / 32., 1};

/* As F(4,3). */
#define B_3_4 B_4_3
#define P_3_4 P_4_3
#define N_3_4 N_4_3
static const double A_3_4[3][6] = {
    {1, 1, 1, 1, 1, 0}, {0, 0.625, -0.625, 1.5, -1.5, 0}, {0, 0.390625, 0.390625, 2.25, 2.25, 1}};

#define PYCONV_MAX_A 8
#define PYCONV_MAX_M 4
#define PYCONV_MAX_TAPS 25 /* r * r */
#define PYCONV_UNROLL _Pragma("GCC unroll 8")

/* out = T in; the table is constant and the loops unroll, so that zeros cost nothing. */
PYCONV_INLINE void apply_table(const double *table, int rows, int cols, const vec *in, vec *out) {
    PYCONV_UNROLL
    for (int i = 0; i < rows; i++) {
        int begun = 0;
        PYCONV_UNROLL
        for (int k = 0; k < cols; k++) {
            const real t = (real)table[i * cols + k];
            if (t == 0) continue;
            if (!begun) out[i] = in[k] * t;
            else out[i] += in[k] * t;
            begun = 1;
        }
    }
}

/* ---- every m-th real, and back */

#define PYCONV_FIRST_OF(u, v) __builtin_shufflevector(u, v, PYCONV_EVENS)
#define PYCONV_SECOND_OF(u, v) __builtin_shufflevector(u, v, PYCONV_ODDS)
#define PYCONV_ZIPPED(u, v) __builtin_shufflevector(u, v, PYCONV_ZIP_FIRST)
#define PYCONV_ZIPPED2(u, v) __builtin_shufflevector(u, v, PYCONV_ZIP_SECOND)

/* Every third: first those of two vectors, then those of the third one beside them. */
#if PYCONV_VECTOR_BYTES == 64 && defined(PYCONV_F32)
#define PYCONV_THIRDS_0 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0
#define PYCONV_THIRDS_0_END 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29
#define PYCONV_THIRDS_1 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0
#define PYCONV_THIRDS_1_END 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30
#define PYCONV_THIRDS_2 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0
#define PYCONV_THIRDS_2_END 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31
#define PYCONV_ZIP3_0 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5
#define PYCONV_ZIP3_0_END 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15
#define PYCONV_ZIP3_1 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26
#define PYCONV_ZIP3_1_END 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15
#define PYCONV_ZIP3_2 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0
#define PYCONV_ZIP3_2_END 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31
#elif (PYCONV_VECTOR_BYTES == 64) || (PYCONV_VECTOR_BYTES == 32 && defined(PYCONV_F32))
#define PYCONV_THIRDS_0 0, 3, 6, 9, 12, 15, 0, 0
#define PYCONV_THIRDS_0_END 0, 1, 2, 3, 4, 5, 10, 13
#define PYCONV_THIRDS_1 1, 4, 7, 10, 13, 0, 0, 0
#define PYCONV_THIRDS_1_END 0, 1, 2, 3, 4, 8, 11, 14
#define PYCONV_THIRDS_2 2, 5, 8, 11, 14, 0, 0, 0
#define PYCONV_THIRDS_2_END 0, 1, 2, 3, 4, 9, 12, 15
#define PYCONV_ZIP3_0 0, 8, 0, 1, 9, 0, 2, 10
#define PYCONV_ZIP3_0_END 0, 1, 8, 3, 4, 9, 6, 7
#define PYCONV_ZIP3_1 0, 3, 11, 0, 4, 12, 0, 5
#define PYCONV_ZIP3_1_END 10, 1, 2, 11, 4, 5, 12, 7
#define PYCONV_ZIP3_2 13, 0, 6, 14, 0, 7, 15, 0
#define PYCONV_ZIP3_2_END 0, 13, 2, 3, 14, 5, 6, 15
#endif

/* d[j] = the reals j, j + m, j + 2 m, ... of m vectors. */
PYCONV_INLINE void part_reals(int m, const real *from, vec *d) {
    const vec *v = (const vec *)from;
    if (m == 2) {
        d[0] = PYCONV_FIRST_OF(v[0], v[1]);
        d[1] = PYCONV_SECOND_OF(v[0], v[1]);
    } else if (m == 4) {
        vec e0 = PYCONV_FIRST_OF(v[0], v[1]), e1 = PYCONV_FIRST_OF(v[2], v[3]);
        vec o0 = PYCONV_SECOND_OF(v[0], v[1]), o1 = PYCONV_SECOND_OF(v[2], v[3]);
        d[0] = PYCONV_FIRST_OF(e0, e1);
        d[1] = PYCONV_FIRST_OF(o0, o1);
        d[2] = PYCONV_SECOND_OF(e0, e1);
        d[3] = PYCONV_SECOND_OF(o0, o1);
#ifdef PYCONV_THIRDS_0
    } else if (m == 3) {
        vec e0 = __builtin_shufflevector(v[0], v[1], PYCONV_THIRDS_0);
        vec e1 = __builtin_shufflevector(v[0], v[1], PYCONV_THIRDS_1);
        vec e2 = __builtin_shufflevector(v[0], v[1], PYCONV_THIRDS_2);
        d[0] = __builtin_shufflevector(e0, v[2], PYCONV_THIRDS_0_END);
        d[1] = __builtin_shufflevector(e1, v[2], PYCONV_THIRDS_1_END);
        d[2] = __builtin_shufflevector(e2, v[2], PYCONV_THIRDS_2_END);
#endif
    } else {
        for (int j = 0; j < m; j++) {
            real every[PYCONV_LANES];
            for (int i = 0; i < PYCONV_LANES; i++) every[i] = from[i * m + j];
            d[j] = *(const vec *)every;
        }
    }
}

/* The inverse: m vectors one real of each after the other. */
PYCONV_INLINE void join_reals(int m, real *to, const vec *y) {
    vec *v = (vec *)to;
    if (m == 2) {
        v[0] = PYCONV_ZIPPED(y[0], y[1]);
        v[1] = PYCONV_ZIPPED2(y[0], y[1]);
    } else if (m == 4) {
        vec e0 = PYCONV_ZIPPED(y[0], y[2]), e1 = PYCONV_ZIPPED2(y[0], y[2]);
        vec o0 = PYCONV_ZIPPED(y[1], y[3]), o1 = PYCONV_ZIPPED2(y[1], y[3]);
        v[0] = PYCONV_ZIPPED(e0, o0);
        v[1] = PYCONV_ZIPPED2(e0, o0);
        v[2] = PYCONV_ZIPPED(e1, o1);
        v[3] = PYCONV_ZIPPED2(e1, o1);
#ifdef PYCONV_THIRDS_0
    } else if (m == 3) {
        vec e0 = __builtin_shufflevector(y[0], y[1], PYCONV_ZIP3_0);
        vec e1 = __builtin_shufflevector(y[0], y[1], PYCONV_ZIP3_1);
        vec e2 = __builtin_shufflevector(y[0], y[1], PYCONV_ZIP3_2);
        v[0] = __builtin_shufflevector(e0, y[2], PYCONV_ZIP3_0_END);
        v[1] = __builtin_shufflevector(e1, y[2], PYCONV_ZIP3_1_END);
        v[2] = __builtin_shufflevector(e2, y[2], PYCONV_ZIP3_2_END);
#endif
    } else {
        for (int j = 0; j < m; j++)
            for (int i = 0; i < PYCONV_LANES; i++) to[i * m + j] = y[j][i];
    }
}

/* ---- runs of reals: residues modulo a dilation, side by side */

/* n runs, `step` apart, one after the other; up to a vector more is written. */
PYCONV_INLINE void gather_runs(real *to, const real *from, int64_t step, int64_t run, int64_t n) {
    if (run == 2) {
        for (int64_t k = 0; k < n; k++) memcpy(to + 2 * k, from + k * step, 2 * sizeof(real));
        return;
    }
    for (int64_t k = 0; k < n; k++) {
        for (int64_t i = 0; i < run; i += PYCONV_LANES) *(vec *)(to + i) = *(const vec *)(from + i);
        to += run;
        from += step;
    }
}

/* And back, to where they lie `step` apart; nothing else is written. */
PYCONV_INLINE void scatter_runs(real *to, int64_t step, const real *from, int64_t run, int64_t n) {
    if (run == 2) {
        for (int64_t k = 0; k < n; k++) memcpy(to + k * step, from + 2 * k, 2 * sizeof(real));
        return;
    }
    for (int64_t k = 0; k < n; k++) copy_reals(to + k * step, from + k * run, run);
}

/* ---- the transforms */

/* One image row, B along it: vector v of plane j goes to to + j * plane and, unless NULL, also + j * plane. */
typedef void (*winograd_row)(const real *row, int64_t vectors, real *to, real *also, int64_t plane);
/* The same of a row whose samples j, m + j, 2 m + j, ... are line j, at row + j * line, for j up to m; those of the next
 * tile are `next` further. */
typedef void (*winograd_lines)(const real *row, int64_t line, int64_t next, int64_t vectors, real *to, real *also,
                               int64_t plane);
/* B down the columns of one channel: plane i * a + j of `from` to plane i * a + j of `to`, n vectors each. */
typedef void (*winograd_columns)(const real *from, int64_t from_plane, int64_t vectors, real *to, int64_t to_plane);
/* A along both axes, and the bias: row i of the tiles, as a line of pixels, to `to + i * line`; or, `parted`, their pixel
 * (i, j) to line i * m + j. Adds 0 * y to `check`. */
typedef void (*winograd_back)(const real *from, int64_t plane, int64_t vectors, real bias, real *to, int64_t line,
                              vec *check);
/* G along both axes of r x r vectors of weights, a * a vectors `plane` apart. */
typedef void (*winograd_weights)(const vec *g, real *to, int64_t plane);

PYCONV_INLINE void any_row(int m, int a, const double *B, int parted, const real *row, int64_t line, int64_t next,
                           int64_t vectors, real *to, real *also, int64_t plane) {
    for (int64_t v = 0; v < vectors; v++) {
        vec d[2 * PYCONV_MAX_M], h[PYCONV_MAX_A];
        if (parted) {
            PYCONV_UNROLL
            for (int j = 0; j < a; j++) d[j] = *(const vec *)(row + j % m * line + j / m * next);
        } else {
            part_reals(m, row, d);
            part_reals(m, row + m, d + m);
        }
        apply_table(B, a, a, d, h);
        PYCONV_UNROLL
        for (int j = 0; j < a; j++) *(vec *)(to + j * plane) = h[j];
        if (also) {
            PYCONV_UNROLL
            for (int j = 0; j < a; j++) *(vec *)(also + j * plane) = h[j];
            also += PYCONV_LANES;
        }
        row += parted ? PYCONV_LANES : m * PYCONV_LANES;
        to += PYCONV_LANES;
    }
}

PYCONV_INLINE void any_columns(int a, const double *B, const real *from, int64_t from_plane, int64_t vectors, real *to,
                               int64_t to_plane) {
    for (int j = 0; j < a; j++) {
        const real *f = from + j * from_plane;
        real *t = to + j * to_plane;
        for (int64_t v = 0; v < vectors; v++) {
            vec d[PYCONV_MAX_A], h[PYCONV_MAX_A];
            PYCONV_UNROLL
            for (int i = 0; i < a; i++) d[i] = *(const vec *)(f + i * a * from_plane);
            apply_table(B, a, a, d, h);
            PYCONV_UNROLL
            for (int i = 0; i < a; i++) *(vec *)(t + i * a * to_plane) = h[i];
            f += PYCONV_LANES;
            t += PYCONV_LANES;
        }
    }
}

PYCONV_INLINE void any_back(int m, int a, const double *A, int parted, const real *from, int64_t plane, int64_t vectors,
                            real bias, real *to, int64_t line, vec *check) {
    vec sum = *check;
    for (int64_t v = 0; v < vectors; v++) {
        vec t[PYCONV_MAX_M][PYCONV_MAX_A];
        PYCONV_UNROLL
        for (int j = 0; j < a; j++) {
            vec d[PYCONV_MAX_A], s[PYCONV_MAX_M];
            PYCONV_UNROLL
            for (int i = 0; i < a; i++) d[i] = *(const vec *)(from + (i * a + j) * plane);
            apply_table(A, m, a, d, s);
            PYCONV_UNROLL
            for (int i = 0; i < m; i++) t[i][j] = s[i];
        }
        PYCONV_UNROLL
        for (int i = 0; i < m; i++) {
            vec y[PYCONV_MAX_M];
            apply_table(A, m, a, t[i], y);
            PYCONV_UNROLL
            for (int j = 0; j < m; j++) {
                y[j] = y[j] + bias;
                sum += y[j] * 0;
                if (parted) *(vec *)(to + (i * m + j) * line) = y[j];
            }
            if (!parted) join_reals(m, to + i * line, y);
        }
        from += PYCONV_LANES;
        to += parted ? PYCONV_LANES : m * PYCONV_LANES;
    }
    *check = sum;
}

PYCONV_INLINE void any_weights(int r, int a, const double *P, const double *N, const vec *g, real *to, int64_t plane) {
    vec t[PYCONV_MAX_A][5]; /* r */
    PYCONV_UNROLL
    for (int k = 0; k < r; k++) {
        PYCONV_UNROLL
        for (int i = 0; i < a - 1; i++) {
            vec s = g[(r - 1) * r + k];
            PYCONV_UNROLL
            for (int l = r - 2; l >= 0; l--) s = s * (real)P[i] + g[l * r + k];
            t[i][k] = s;
        }
        t[a - 1][k] = g[(r - 1) * r + k];
    }
    PYCONV_UNROLL
    for (int i = 0; i < a; i++) {
        PYCONV_UNROLL
        for (int j = 0; j < a; j++) {
            vec s = t[i][r - 1];
            if (j < a - 1) {
                PYCONV_UNROLL
                for (int l = r - 2; l >= 0; l--) s = s * (real)P[j] + t[i][l];
            }
            *(vec *)(to + (i * a + j) * plane) = s * (real)(1 / (N[i] * N[j]));
        }
    }
}

#define PYCONV_WINOGRAD(m, r)                                                                                          \
    static void row_##m##_##r(const real *row, int64_t vectors, real *to, real *also, int64_t plane) {                 \
        any_row(m, m + r - 1, &B_##m##_##r[0][0], 0, row, 0, 0, vectors, to, also, plane);                             \
    }                                                                                                                  \
    static void lines_##m##_##r(const real *row, int64_t line, int64_t next, int64_t vectors, real *to, real *also,    \
                                int64_t plane) {                                                                       \
        any_row(m, m + r - 1, &B_##m##_##r[0][0], 1, row, line, next, vectors, to, also, plane);                       \
    }                                                                                                                  \
    static void columns_##m##_##r(const real *from, int64_t from_plane, int64_t vectors, real *to, int64_t to_plane) { \
        any_columns(m + r - 1, &B_##m##_##r[0][0], from, from_plane, vectors, to, to_plane);                           \
    }                                                                                                                  \
    static void back_##m##_##r(const real *from, int64_t plane, int64_t vectors, real bias, real *to, int64_t line,    \
                               vec *check) {                                                                           \
        any_back(m, m + r - 1, &A_##m##_##r[0][0], 0, from, plane, vectors, bias, to, line, check);                    \
    }                                                                                                                  \
    static void parted_##m##_##r(const real *from, int64_t plane, int64_t vectors, real bias, real *to, int64_t line,  \
                                 vec *check) {                                                                         \
        any_back(m, m + r - 1, &A_##m##_##r[0][0], 1, from, plane, vectors, bias, to, line, check);                    \
    }                                                                                                                  \
    static void weights_##m##_##r(const vec *g, real *to, int64_t plane) {                                             \
        any_weights(r, m + r - 1, P_##m##_##r, N_##m##_##r, g, to, plane);                                             \
    }
PYCONV_WINOGRAD(2, 3)
PYCONV_WINOGRAD(4, 3)
PYCONV_WINOGRAD(3, 3)
PYCONV_WINOGRAD(4, 4)
PYCONV_WINOGRAD(4, 5)
PYCONV_WINOGRAD(4, 2)
PYCONV_WINOGRAD(3, 4)

typedef struct {
    int m, r, a;
    winograd_row row;
    winograd_lines lines;
    winograd_columns columns;
    winograd_back back, parted;
    winograd_weights weights;
} WinogradTransforms;

#define PYCONV_VARIANT(m, r)                                                                                           \
    {m, r, m + r - 1, row_##m##_##r, lines_##m##_##r, columns_##m##_##r, back_##m##_##r, parted_##m##_##r,             \
     weights_##m##_##r}
static const WinogradTransforms winograd_variants[] = {
    PYCONV_VARIANT(2, 3), PYCONV_VARIANT(4, 3), PYCONV_VARIANT(3, 3), PYCONV_VARIANT(4, 4), PYCONV_VARIANT(4, 5),
    PYCONV_VARIANT(4, 2), PYCONV_VARIANT(3, 4),
};

PYCONV_INLINE int any_not_zero(const vec *v) {
    int found = 0;
    for (int i = 0; i < PYCONV_LANES; i++) found |= !((*v)[i] == 0);
    return found;
}

PYCONV_INLINE const WinogradTransforms *find_variant(int m, int r) {
    for (unsigned i = 0; i < sizeof(winograd_variants) / sizeof(winograd_variants[0]); i++)
        if (winograd_variants[i].m == m && winograd_variants[i].r == r) return &winograd_variants[i];
    return NULL;
}

/* ---- the adjoint transforms, for the gradient of the weights (winograd_weights.pxi tells how they are used) */

/* A window of a x a vectors, rows `row` and columns `column` reals apart, B along both axes: a * a vectors `plane` apart. */
typedef void (*winograd_window)(const real *x, int64_t row, int64_t column, real *to, int64_t plane);
/* Tiles of m x m pixels, row i of them as a line of pixels at y + i * line, A's transpose along both axes. */
typedef void (*winograd_spread)(const real *y, int64_t line, int64_t vectors, real *to, int64_t plane);
/* G's transpose along both axes of a * a vectors, `plane` apart: r x r vectors. */
typedef void (*winograd_gather)(const real *from, int64_t plane, vec *g);

PYCONV_INLINE void any_window(int a, const double *B, const real *x, int64_t row, int64_t column, real *to,
                              int64_t plane) {
    vec t[PYCONV_MAX_A][PYCONV_MAX_A];
    PYCONV_UNROLL
    for (int j = 0; j < a; j++) {
        vec d[PYCONV_MAX_A], h[PYCONV_MAX_A];
        PYCONV_UNROLL
        for (int i = 0; i < a; i++) d[i] = *(const vec *)(x + i * row + j * column);
        apply_table(B, a, a, d, h);
        PYCONV_UNROLL
        for (int i = 0; i < a; i++) t[i][j] = h[i];
    }
    PYCONV_UNROLL
    for (int i = 0; i < a; i++) {
        vec h[PYCONV_MAX_A];
        apply_table(B, a, a, t[i], h);
        PYCONV_UNROLL
        for (int j = 0; j < a; j++) *(vec *)(to + (i * a + j) * plane) = h[j];
    }
}

/* out = A' in, of A's m rows and a columns. */
PYCONV_INLINE void apply_transposed(const double *A, int m, int a, const vec *in, vec *out) {
    PYCONV_UNROLL
    for (int i = 0; i < a; i++) {
        int begun = 0;
        PYCONV_UNROLL
        for (int k = 0; k < m; k++) {
            const real t = (real)A[k * a + i];
            if (t == 0) continue;
            if (!begun) out[i] = in[k] * t;
            else out[i] += in[k] * t;
            begun = 1;
        }
    }
}

PYCONV_INLINE void any_spread(int m, int a, const double *A, const real *y, int64_t line, int64_t vectors, real *to,
                              int64_t plane) {
    for (int64_t v = 0; v < vectors; v++) {
        vec t[PYCONV_MAX_M][PYCONV_MAX_A];
        PYCONV_UNROLL
        for (int i = 0; i < m; i++) {
            vec d[PYCONV_MAX_M];
            part_reals(m, y + i * line, d);
            apply_transposed(A, m, a, d, t[i]);
        }
        PYCONV_UNROLL
        for (int j = 0; j < a; j++) {
            vec d[PYCONV_MAX_M], h[PYCONV_MAX_A];
            PYCONV_UNROLL
            for (int i = 0; i < m; i++) d[i] = t[i][j];
            apply_transposed(A, m, a, d, h);
            PYCONV_UNROLL
            for (int i = 0; i < a; i++) *(vec *)(to + (i * a + j) * plane) = h[i];
        }
        y += m * PYCONV_LANES;
        to += PYCONV_LANES;
    }
}

/* out[l] = the sum of p_i^l / N_i in[i] over all points but infinity, which has its part in the last one alone. */
PYCONV_INLINE void apply_powers(const double *P, const double *N, int r, int a, const vec *in, vec *out) {
    PYCONV_UNROLL
    for (int l = 0; l < r; l++) {
        int begun = 0;
        PYCONV_UNROLL
        for (int i = 0; i < a; i++) {
            double power = (i < a - 1 || l == r - 1) / N[i];
            if (i < a - 1) {
                PYCONV_UNROLL
                for (int n = 0; n < l; n++) power *= P[i];
            }
            const real t = (real)power;
            if (t == 0) continue;
            if (!begun) out[l] = in[i] * t;
            else out[l] += in[i] * t;
            begun = 1;
        }
        if (!begun) out[l] = vzero(); /* integers have no fractions, and no use for this */
    }
}

PYCONV_INLINE void any_gather(int r, int a, const double *P, const double *N, const real *from, int64_t plane, vec *g) {
    vec t[5][PYCONV_MAX_A]; /* r */
    PYCONV_UNROLL
    for (int j = 0; j < a; j++) {
        vec d[PYCONV_MAX_A], s[5];
        PYCONV_UNROLL
        for (int i = 0; i < a; i++) d[i] = *(const vec *)(from + (i * a + j) * plane);
        apply_powers(P, N, r, a, d, s);
        PYCONV_UNROLL
        for (int l = 0; l < r; l++) t[l][j] = s[l];
    }
    PYCONV_UNROLL
    for (int l = 0; l < r; l++) apply_powers(P, N, r, a, t[l], g + l * r);
}

#define PYCONV_ADJOINT(m, r)                                                                                         \
    static void window_##m##_##r(const real *x, int64_t row, int64_t column, real *to, int64_t plane) {              \
        any_window(m + r - 1, &B_##m##_##r[0][0], x, row, column, to, plane);                                        \
    }                                                                                                                \
    static void spread_##m##_##r(const real *y, int64_t line, int64_t vectors, real *to, int64_t plane) {            \
        any_spread(m, m + r - 1, &A_##m##_##r[0][0], y, line, vectors, to, plane);                                   \
    }                                                                                                                \
    static void gather_##m##_##r(const real *from, int64_t plane, vec *g) {                                          \
        any_gather(r, m + r - 1, P_##m##_##r, N_##m##_##r, from, plane, g);                                          \
    }
PYCONV_ADJOINT(2, 3)
PYCONV_ADJOINT(4, 3)
PYCONV_ADJOINT(3, 3)
PYCONV_ADJOINT(4, 4)
PYCONV_ADJOINT(4, 5)

typedef struct {
    int m, r, a;
    winograd_window window;
    winograd_spread spread;
    winograd_gather gather;
} WinogradAdjoint;

#define PYCONV_ADJOINT_VARIANT(m, r) {m, r, m + r - 1, window_##m##_##r, spread_##m##_##r, gather_##m##_##r}
static const WinogradAdjoint winograd_adjoints[] = {
    PYCONV_ADJOINT_VARIANT(2, 3), PYCONV_ADJOINT_VARIANT(4, 3), PYCONV_ADJOINT_VARIANT(3, 3),
    PYCONV_ADJOINT_VARIANT(4, 4), PYCONV_ADJOINT_VARIANT(4, 5),
};

PYCONV_INLINE const WinogradAdjoint *find_adjoint(int m, int r) {
    for (unsigned i = 0; i < sizeof(winograd_adjoints) / sizeof(winograd_adjoints[0]); i++)
        if (winograd_adjoints[i].m == m && winograd_adjoints[i].r == r) return &winograd_adjoints[i];
    return NULL;
}

#endif
