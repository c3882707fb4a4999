/* The Fourier transforms of fft.pxi: lines of vectors, one transform a lane, in place, real and imaginary parts apart.
 *
 * A transform of n numbers is made of r transforms of n / r, r = 4 or 8 (J. Cooley and J. Tukey, "An Algorithm for the
 * Machine Calculation of Complex Fourier Series", Mathematics of Computation, 1965). The forward one decimates in
 * frequency: butterflies, twiddle factors, then the parts; its results stand in the order of reversed digits. The
 * inverse one decimates in time, the same steps backwards, and so takes that order back: nothing is ever sorted. It is
 * the forward one's arithmetic with real and imaginary parts exchanged, and without the factor 1 / n.
 */
#ifndef PYCONV_FFT_H
#define PYCONV_FFT_H

#include "vector.h"

#define PYCONV_LEAST_FFT 64
#define PYCONV_LARGEST_FFT 1024
#define PYCONV_FFT_STAGES 4
#define PYCONV_FFT_UNROLL _Pragma("GCC unroll 8")

typedef struct {
    int stages;                                       /* 0: not made yet */
    int64_t n[PYCONV_FFT_STAGES];                     /* the length of a transform at each stage; 8 at the last */
    int radix[PYCONV_FFT_STAGES];
    const real *twiddles[PYCONV_FFT_STAGES];          /* of the numbers j and j + m n / r: (cos, -sin) of 2 pi j m / n */
    real table[2048];
} Fft;

/* cos and sin of 2 pi / 8, 2 pi / 16, ..., 2 pi / 1024 */
static const long double fft_roots[8][2] = {
    {0.707106781186547524400844362L, 0.707106781186547524400844362L},
    {0.923879532511286756128183189L, 0.382683432365089771728459984L},
    {0.980785280403230449126182236L, 0.195090322016128267848284868L},
    {0.995184726672196886244836953L, 0.098017140329560601994195564L},
    {0.998795456205172392714771605L, 0.049067674327418014254954977L},
    {0.999698818696204220115765650L, 0.024541228522912288031734529L},
    {0.999924701839144540921646491L, 0.012271538285719926079408262L},
    {0.999981175282601142656990438L, 0.006135884649154475359640235L},
};

/* exp(2 pi i k / n), by the binary digits of k: a few roundings of long doubles, and one to `real`. */
static void root_of_unity(int64_t k, int64_t n, long double *c, long double *s) {
    long double re = 1, im = 0;
    k *= 1024 / n;
    for (int bit = 0; bit < 10; bit++) {
        if (!(k >> bit & 1)) continue;
        long double a = bit < 8 ? fft_roots[7 - bit][0] : bit == 8 ? 0 : -1;
        long double b = bit < 8 ? fft_roots[7 - bit][1] : bit == 8 ? 1 : 0;
        long double t = re * a - im * b;
        im = re * b + im * a;
        re = t;
    }
    *c = re;
    *s = im;
}

/* The tables for one size. Called with the interpreter's lock only. */
static const Fft *fft_of_size(int64_t size) {
    static Fft kept[5];
    int at = 0;
    while (PYCONV_LEAST_FFT << at < size) at++;
    Fft *f = &kept[at];
    if (f->stages) return f;
    real *t = f->table;
    int s = 0;
    int64_t n = size;
    /* The first stages by 4: eight parts so far apart, real and imaginary, would share one set of the L1 cache. */
    for (; n > 1; s++) {
        int r = n == 64 || n == 8 ? 8 : 4;
        f->n[s] = n;
        f->radix[s] = r;
        f->twiddles[s] = t;
        for (int64_t j = 0; n > r && j < n / r; j++) {
            for (int m = 1; m < r; m++) {
                long double c, sine;
                root_of_unity(j * m % n, n, &c, &sine);
                *t++ = (real)c;
                *t++ = (real)-sine;
            }
        }
        n /= r;
    }
    f->stages = s;
    return f;
}

PYCONV_INLINE void butterfly4(vec *re, vec *im) {
    vec r0 = re[0] + re[2], r1 = re[0] - re[2], r2 = re[1] + re[3], r3 = re[1] - re[3];
    vec i0 = im[0] + im[2], i1 = im[0] - im[2], i2 = im[1] + im[3], i3 = im[1] - im[3];
    re[0] = r0 + r2, im[0] = i0 + i2;
    re[1] = r1 + i3, im[1] = i1 - r3;
    re[2] = r0 - r2, im[2] = i0 - i2;
    re[3] = r1 - i3, im[3] = i1 + r3;
}

PYCONV_INLINE void butterfly8(vec *re, vec *im) {
    const real h = (real)0.70710678118654752440;
    vec even_re[4], even_im[4], odd_re[4], odd_im[4];
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 4; m++) {
        even_re[m] = re[m] + re[m + 4], even_im[m] = im[m] + im[m + 4];
        odd_re[m] = re[m] - re[m + 4], odd_im[m] = im[m] - im[m + 4];
    }
    /* The odd half times exp(-2 pi i m / 8). */
    vec r1 = (odd_re[1] + odd_im[1]) * h, i1 = (odd_im[1] - odd_re[1]) * h;
    vec r3 = (odd_im[3] - odd_re[3]) * h, i3 = (odd_im[3] + odd_re[3]) * -h;
    vec r2 = odd_im[2];
    odd_im[2] = -odd_re[2], odd_re[2] = r2;
    odd_re[1] = r1, odd_im[1] = i1, odd_re[3] = r3, odd_im[3] = i3;
    butterfly4(even_re, even_im);
    butterfly4(odd_re, odd_im);
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 4; m++) {
        re[2 * m] = even_re[m], im[2 * m] = even_im[m];
        re[2 * m + 1] = odd_re[m], im[2 * m + 1] = odd_im[m];
    }
}

PYCONV_INLINE void butterfly(int r, vec *re, vec *im) {
    if (r == 4) butterfly4(re, im);
    else butterfly8(re, im);
}

PYCONV_INLINE void twiddle(int r, vec *re, vec *im, const real *t) {
    PYCONV_FFT_UNROLL
    for (int m = 1; m < r; m++) {
        const real c = t[2 * m - 2], s = t[2 * m - 1];
        vec x = re[m] * c - im[m] * s;
        im[m] = re[m] * s + im[m] * c;
        re[m] = x;
    }
}

/* One stage over n numbers, `row` reals apart: the forward one, or (backward, the parts exchanged) the inverse one. */
PYCONV_INLINE void stage(int r, int backward, real *re, real *im, int64_t row, int64_t n, const real *t) {
    int64_t part = n / r * row;
    for (int64_t j = 0; j < n / r; j++) {
        vec x[8], y[8];
        PYCONV_FFT_UNROLL
        for (int m = 0; m < r; m++) x[m] = *(const vec *)(re + m * part), y[m] = *(const vec *)(im + m * part);
        if (backward) twiddle(r, x, y, t);
        butterfly(r, x, y);
        if (!backward) twiddle(r, x, y, t);
        PYCONV_FFT_UNROLL
        for (int m = 0; m < r; m++) *(vec *)(re + m * part) = x[m], *(vec *)(im + m * part) = y[m];
        re += row, im += row;
        t += 2 * r - 2;
    }
}

static void stage4(real *re, real *im, int64_t row, int64_t n, const real *t) { stage(4, 0, re, im, row, n, t); }
static void stage8(real *re, real *im, int64_t row, int64_t n, const real *t) { stage(8, 0, re, im, row, n, t); }
static void stage4_back(real *re, real *im, int64_t row, int64_t n, const real *t) { stage(4, 1, re, im, row, n, t); }
static void stage8_back(real *re, real *im, int64_t row, int64_t n, const real *t) { stage(8, 1, re, im, row, n, t); }

/* Eight numbers, the last stage: it has no twiddle factors. */
PYCONV_INLINE void last_stage(real *re, real *im, int64_t row) {
    vec x[8], y[8];
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 8; m++) x[m] = *(const vec *)(re + m * row), y[m] = *(const vec *)(im + m * row);
    butterfly8(x, y);
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 8; m++) *(vec *)(re + m * row) = x[m], *(vec *)(im + m * row) = y[m];
}

/* The last stage forwards, times a spectrum (a vector of real parts, one of imaginary parts, ...), and backwards. */
PYCONV_INLINE void last_stage_product(real *re, real *im, const vec *u) {
    vec x[8], y[8];
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 8; m++)
        x[m] = *(const vec *)(re + m * PYCONV_LANES), y[m] = *(const vec *)(im + m * PYCONV_LANES);
    butterfly8(x, y);
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 8; m++) {
        vec a = x[m] * u[2 * m] - y[m] * u[2 * m + 1];
        y[m] = x[m] * u[2 * m + 1] + y[m] * u[2 * m];
        x[m] = a;
    }
    butterfly8(y, x);
    PYCONV_FFT_UNROLL
    for (int m = 0; m < 8; m++)
        *(vec *)(re + m * PYCONV_LANES) = x[m], *(vec *)(im + m * PYCONV_LANES) = y[m];
}

/* Each part is finished before the next is begun, so that only the first stages leave the L1 cache. */
static void transform(const Fft *f, int s, real *re, real *im, int64_t row) {
    int r = f->radix[s];
    int64_t n = f->n[s], part = n / r * row;
    (r == 4 ? stage4 : stage8)(re, im, row, n, f->twiddles[s]);
    for (int m = 0; m < r; m++) {
        if (n == 8 * r) last_stage(re + m * part, im + m * part, row);
        else transform(f, s + 1, re + m * part, im + m * part, row);
    }
}

/* The inverse; re and im are exchanged by the caller. */
static void transform_back(const Fft *f, int s, real *re, real *im, int64_t row) {
    int r = f->radix[s];
    int64_t n = f->n[s], part = n / r * row;
    for (int m = 0; m < r; m++) {
        if (n == 8 * r) last_stage(re + m * part, im + m * part, row);
        else transform_back(f, s + 1, re + m * part, im + m * part, row);
    }
    (r == 4 ? stage4_back : stage8_back)(re, im, row, n, f->twiddles[s]);
}

/* There, times a spectrum, and back, on lines that lie a vector apart. */
static void transform_product(const Fft *f, int s, real *re, real *im, const vec *u) {
    int r = f->radix[s];
    int64_t n = f->n[s], part = n / r;
    (r == 4 ? stage4 : stage8)(re, im, PYCONV_LANES, n, f->twiddles[s]);
    for (int m = 0; m < r; m++) {
        int64_t at = m * part * PYCONV_LANES;
        if (n == 8 * r) last_stage_product(re + at, im + at, u + 2 * m * part);
        else transform_product(f, s + 1, re + at, im + at, u + 2 * m * part);
    }
    (r == 4 ? stage4_back : stage8_back)(im, re, PYCONV_LANES, n, f->twiddles[s]);
}

/* LANES rows of a tile, `pitch` apart, n columns, turned into lines of vectors; and back. */
static void turn_rows(const real *rows, int64_t pitch, int64_t n, real *lines) {
    for (int64_t x = 0; x < n; x += PYCONV_LANES) {
        vec v[PYCONV_LANES];
#pragma GCC unroll 16
        for (int i = 0; i < PYCONV_LANES; i++) v[i] = *(const vec *)(rows + x + i * pitch);
        transpose_square(v);
#pragma GCC unroll 16
        for (int i = 0; i < PYCONV_LANES; i++) *(vec *)(lines + (x + i) * PYCONV_LANES) = v[i];
    }
}

static void turn_lines(const real *lines, int64_t n, real *rows, int64_t pitch) {
    for (int64_t x = 0; x < n; x += PYCONV_LANES) {
        vec v[PYCONV_LANES];
#pragma GCC unroll 16
        for (int i = 0; i < PYCONV_LANES; i++) v[i] = *(const vec *)(lines + (x + i) * PYCONV_LANES);
        transpose_square(v);
#pragma GCC unroll 16
        for (int i = 0; i < PYCONV_LANES; i++) *(vec *)(rows + x + i * pitch) = v[i];
    }
}

PYCONV_INLINE void prefetch_output(const char *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 1);
}

/* n sums, scaled, and the bias; what is left of the last vector too. Adds 0 * y to `check`, of the n alone. */
PYCONV_INLINE void finish_row(const real *sums, real *to, int64_t n, real scale, real bias, vec *check) {
    vec sum = *check;
    int64_t i = 0;
    for (; i < n; i += PYCONV_LANES) {
        vec y = *(const vec *)(sums + i) * scale + bias;
        *(vec *)(to + i) = y;
        sum += (i + PYCONV_LANES <= n ? y : masked(y, first_lanes(n - i))) * 0;
    }
    *check = sum;
}

#endif
