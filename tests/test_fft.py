"""Overlap-save tiles by Fourier transforms: the documented bound, the bits, and what is not finite.

The bound (docs/design.md derives it) is |y - exact| <= c (u max(|x| * |w|) + eta (1 + sum |w|)), c = 40, the maximum
over every position in which the kernel meets the padded image of one channel.
"""

import math

import cases
import numpy as np
import oracle
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import engine

C = 40


def fft(x, w, bias=None, *, padding=((0, 0), (0, 0)), boundary="constant", cval=0.0, tile=None, out=None, workers=1):
    """engine.fft of x, batch + (groups, H, W), with w, (groups, 1, kh, kw)."""
    kernel = w.shape[2:]
    size = [n + sum(p) - k + 1 for n, p, k in zip(x.shape[-2:], padding, kernel, strict=True)]
    out = np.empty((*x.shape[:-2], *size), w.dtype) if out is None else out
    tile = engine.fft_tile(kernel, size, w.dtype) if tile is None else tile
    u = engine.fft_weights(w, tile, workers)
    engine.fft(x, w, u, bias, out, x.ndim - 3, w.shape[0], tuple(p for p, _ in padding),
               (engine.BOUNDARIES[boundary],) * 2, cval, workers, tile)
    return out


def direct(x, w, bias=None, *, padding=((0, 0), (0, 0)), boundary="constant", cval=0.0, dtype=None):
    return pyconv.conv2d(x, w, bias, padding=padding, padding_mode=boundary, padding_value=cval, groups=w.shape[0],
                         method="direct", dtype=dtype)


def same(w):
    return tuple((k // 2, k - 1 - k // 2) for k in w.shape[2:])


def bound(x, w, *, padding, boundary="constant", cval=0.0):
    """For each image and channel."""
    dtype = np.dtype(w.dtype).name
    u, eta = float(oracle.UNIT_ROUNDOFF[dtype]), float(oracle.SMALLEST_SUBNORMAL[dtype])
    padded, w = oracle.pad(np.abs(x.astype(np.float64)), padding, boundary, abs(cval)), np.abs(w.astype(np.float64))
    met = pyconv.conv2d(padded, w, padding="full", groups=w.shape[0], method="direct").max(axis=(-2, -1))
    return (C * (u * met + eta * (1 + w.sum(axis=(1, 2, 3)))))[..., None, None]


def images(w, n, rng):
    """One image of each kind on which errors add up, or one sample outweighs all others."""
    kh, kw = w.shape[2:]
    impulse, bright, halves = np.zeros((n, n)), rng.standard_normal((n, n)), rng.standard_normal((n, n))
    impulse[n // 2, n // 3], bright[n // 2 + 5, n // 2] = 1, 1e6
    halves[:, n // 2:] *= 1e6
    t = np.arange(n)
    signs = np.sign(rng.standard_normal((n, n)))
    return np.stack([
        signs,
        np.tile(np.where(w[0, 0] < 0, -1, 1), (n // kh + 1, n // kw + 1))[:n, :n],      # the most that a sum can reach
        impulse, bright, halves,
        rng.standard_normal((n, n)), rng.random((n, n)), np.ones((n, n)),
        np.cos(2 * np.pi * (37 * t[:, None] + 5 * t) / 256),                            # one bin of a tile
        skimage.data.camera()[100:100 + n, 200:200 + n] / 255,
        signs * 10 ** rng.uniform(-6, 6, (n, n)),
    ])[:, None]


def kernels(k, rng):
    single, corner, bright = np.zeros((k, k)), np.zeros((k, k)), rng.standard_normal((k, k))
    single[k // 3, k // 2], corner[0, 0], bright[k // 2, k // 2] = 1, 1, 1e6
    gaussian = np.exp(-18 * ((np.arange(k) - k // 2) / k) ** 2)
    signs = np.sign(rng.standard_normal((k, k)))
    return [a[None, None] for a in (rng.standard_normal((k, k)), signs, single, corner, bright, np.ones((k, k)) / k**2,
                                    np.outer(gaussian, gaussian), signs * 10 ** rng.uniform(-6, 6, (k, k)))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [9, 11, 31, 41, 63, 101])
def test_error_against_that_of_direct(k, dtype):
    # "auto" may use a method that stays below half of direct's bound: from 9 x 9 on, 40 does.
    rng = np.random.default_rng(k)
    u = float(oracle.UNIT_ROUNDOFF[np.dtype(dtype).name])
    assert C <= (k * k + 2) / 2
    for w in kernels(k, rng):
        x = images(w, 150, rng)
        if dtype == np.float64:      # integers, so that the witness is exact
            x, w = np.rint(x * 2.0**20 / np.abs(x).max()), np.rint(w * 2.0**18 / np.abs(w).max())
        x, w = x.astype(dtype), w.astype(dtype)
        exact = direct(x, w, padding=same(w), dtype=np.float64)
        largest = direct(np.abs(x), np.abs(w), padding=same(w), dtype=np.float64).max(axis=(1, 2, 3))
        error = np.abs(fft(x, w, padding=same(w)) - exact).max(axis=(1, 2, 3))
        assert (error <= C * u * largest).all(), error / (u * largest)


@given(data=st.data())
def test_any_setting(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    rng = np.random.default_rng(draw(0, 999))
    kernel, n = (draw(1, 30), draw(1, 30)), (draw(1, 80), draw(1, 150))
    padding = tuple((max(0, k - size) + draw(0, 20), draw(0, 20)) for k, size in zip(kernel, n, strict=True))
    groups, boundary, cval = draw(1, 3), data.draw(st.sampled_from(oracle.BOUNDARIES)), draw(-3, 3)
    lead = (groups,) if data.draw(st.booleans()) else (draw(1, 3), groups)
    x_dtype = data.draw(st.sampled_from([np.float32, np.float64, np.float16, np.uint8, np.int16, bool]))
    x = cases.integer_valued(rng, (*lead, *n), x_dtype, 9)
    w = cases.integer_valued(rng, (groups, 1, *kernel), data.draw(st.sampled_from([np.float32, np.float64])), 9)
    bias = rng.integers(-9, 10, groups).astype(w.dtype) if data.draw(st.booleans()) else None
    tile = data.draw(st.sampled_from([None, 64, 128, 256]))
    settings = {"padding": padding, "boundary": boundary, "cval": cval}
    as_batch = x.reshape(-1, *x.shape[-3:]).astype(np.float64)
    exact = oracle.correlate(as_batch, w.astype(np.float64), None if bias is None else bias.astype(np.float64),
                             groups=groups, **settings).reshape(*lead, *(m + sum(p) - k + 1 for m, p, k in
                                                                         zip(n, padding, kernel, strict=True)))
    limit = bound(as_batch, w, **settings).reshape(*lead, 1, 1)
    out = cases.lay_out(np.empty(exact.shape, data.draw(st.sampled_from([w.dtype, np.float64, np.float16, np.int32]))),
                        data.draw(st.sampled_from(cases.OUT_LAYOUTS)))
    laid_out = cases.lay_out(x, data.draw(st.sampled_from(list(cases.LAYOUTS))))
    fft(laid_out, w, bias, tile=tile, out=out, workers=draw(1, 3), **settings)
    plain = fft(x, w, bias, tile=tile, **settings)
    assert (np.abs(plain - exact) <= limit + float(oracle.UNIT_ROUNDOFF[w.dtype.name]) * np.abs(exact)).all()
    oracle.assert_same_bits(np.array(out), plain.astype(out.dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_batch_and_number_of_threads(dtype, threads):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 2, 170, 210)).astype(dtype), rng.standard_normal((2, 1, 21, 33)).astype(dtype)
    together = fft(x, w, padding=same(w), tile=64, workers=threads)
    for n in range(3):
        oracle.assert_same_bits(together[n], fft(x[n], w, padding=same(w), tile=64))
    made_here = np.empty_like(together)
    engine.fft(x, w, None, None, made_here, 1, 2, (10, 16), (0, 0), 0.0, threads, 64)
    oracle.assert_same_bits(made_here, together)
    for group in range(2):           # a channel's bits are its own
        alone = fft(x[:, group:group + 1], w[group:group + 1], padding=same(w), tile=64)
        oracle.assert_same_bits(np.ascontiguousarray(together[:, group:group + 1]), alone)


def test_spectra_of_many_channels_are_not_all_there_at_once(threads):
    x, w = np.ones((150, 20, 20), np.float32), np.ones((150, 1, 9, 9), np.float32)
    x[77, 3, 4], w[149] = 5, 2
    out, bias = np.empty((150, 12, 12), np.float32), np.arange(150, dtype=np.float32)
    assert 2 * 128**2 * 4 * 150 > engine._SPECTRA_BYTES
    engine.fft(x, w, None, bias, out, 0, 150, (0, 0), (0, 0), 0.0, threads, 128)
    oracle.assert_same_bits(out, fft(x, w, bias, tile=128))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tile", engine.FFT_TILES)
def test_every_tile(tile, dtype):
    # Several tiles each way, an odd number of them, the last ones cut; a kernel as large as the tile allows.
    x = cases.integer_valued(np.random.default_rng(0), (1, 2 * tile // 3 + 40, 3 * tile // 2), dtype, 9)
    for kernel in ((tile // 2, 5), (3, tile // 2 + 1), (min(tile, x.shape[1]), tile)):
        w = cases.integer_valued(np.random.default_rng(1), (1, 1, *kernel), dtype, 1)
        if kernel[0] * kernel[1] > 20000:
            w[..., 3:-3, 3:-3] = 0   # (the witness would take long)
            exact = sum_of_shifts(x[0].astype(np.float64), w[0, 0])
        else:
            exact = direct(x, w, dtype=np.float64)[0]
        limit = C * float(oracle.UNIT_ROUNDOFF[np.dtype(dtype).name]) * 9 * np.abs(w).sum()
        assert (np.abs(fft(x, w, tile=tile)[0] - exact) <= limit).all()


def sum_of_shifts(x, w):
    oh, ow = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    y = np.zeros((oh, ow))
    for i, j in np.argwhere(w):
        y += w[i, j] * x[i:i + oh, j:j + ow]
    return y


def test_choice_of_the_tile():
    for kernel in ((1, 1), (31, 31), (64, 3), (65, 3), (513, 7), (1024, 1024)):
        tile = engine.fft_tile(kernel, (2048, 2048), np.float32)
        assert tile in engine.FFT_TILES and tile >= max(kernel)
        assert all(engine.fft_cost(kernel, (2048, 2048), np.float32, tile)
                   <= engine.fft_cost(kernel, (2048, 2048), np.float32, other) for other in engine.FFT_TILES)
    assert engine.fft_tile((1025, 1), (9, 9), np.float64) is None
    assert engine.fft_tile((5, 5), (9, 9), np.float32) == 64
    assert math.isinf(engine.fft_cost((65, 1), (9, 9), np.float32, 64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_that_of_direct(value, dtype):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((2, 1, 11, 13)).astype(dtype)
    w[:, :, 2:4, 5] = 0              # 0 * inf is NaN
    x = rng.standard_normal((2, 2, 130, 150)).astype(dtype)
    limit = bound(x, w, padding=same(w))
    for places in ([(0, 0, 0, 0)], [(0, 1, 60, 70), (0, 1, 63, 71)], [(1, 0, 129, 149), (1, 1, 40, 140)]):
        spoilt = x.copy()
        for i, place in enumerate(places):
            spoilt[place] = value * (-1) ** i
        exact = direct(spoilt, w, np.ones(2, dtype), padding=same(w), dtype=dtype)
        y = fft(spoilt, w, np.ones(2, dtype), padding=same(w), tile=64)
        finite = np.isfinite(exact)
        assert 0 < finite.sum() < exact.size
        oracle.assert_same_values(y[~finite], exact[~finite])
        assert (np.abs(np.where(finite, y, 0) - np.where(finite, exact, 0)) <= 5 * limit).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 90, 90)).astype(np.float32), rng.standard_normal((2, 1, 9, 9)).astype(np.float32)
    w[1, 0, 3, 4] = value
    y = fft(x, w, tile=64)
    oracle.assert_same_bits(y[1], direct(x, w)[1])
    assert np.isfinite(y[0]).all()


@pytest.mark.parametrize(("large", "weight"), [(3e38, 1e-3), (1e35, 1.0), (1e32, 1e5), (1e32, 1e6), (1e18, 1e20)])
def test_overflow_on_the_way_and_true_overflow(large, weight):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 150, 130)).clip(-1, 1).astype(np.float32)
    x[0, 70:75, 30:40] *= np.float32(large)
    w = (weight * rng.standard_normal((1, 1, 9, 15))).astype(np.float32)
    exact = direct(x, w, padding=same(w), dtype=np.float64)
    met = direct(np.abs(x), np.abs(w), padding=same(w), dtype=np.float64)
    y, largest = fft(x, w, padding=same(w), tile=64), float(np.finfo(np.float32).max)
    below = met < largest
    assert below.any() and np.isfinite(y[below]).all()
    assert not np.isfinite(y[np.abs(exact) > 1.001 * largest]).any()
    if not below.all():              # then some tile is not finite, and is computed again
        oracle.assert_same_values(y[~np.isfinite(y)], direct(x, w, padding=same(w))[~np.isfinite(y)])


def test_integers_do_not_keep_what_is_not_finite():
    x, w = np.ones((1, 100, 100), np.float32), np.ones((1, 1, 11, 11), np.float32) / 8
    x[0, 50, 50] = np.nan
    out, exact = np.zeros((1, 90, 90), np.int32), np.zeros((1, 90, 90), np.int32)
    engine.correlate(x, w, None, exact, 0, 1, (1, 1), (1, 1), (0, 0), (0, 0), 0.0, 1)
    oracle.assert_same_values(fft(x, w, tile=64, out=out), exact)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weight", [2.0**-140, 2.0**-20, 1.0, 2.0**20])
def test_subnormal_samples_and_weights(weight, dtype):
    rng = np.random.default_rng(0)
    u, eta = (float(a[np.dtype(dtype).name]) for a in (oracle.UNIT_ROUNDOFF, oracle.SMALLEST_SUBNORMAL))
    x, w = rng.integers(-1000, 1001, (1, 90, 120)), rng.integers(-500, 501, (1, 1, 13, 11))
    sums = direct(x.astype(np.float64), w.astype(np.float64), padding=same(w))
    met = direct(np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), padding=same(w)).max()
    w, norm = (w * weight).astype(dtype), np.abs(w).sum() * weight
    y = fft((x * eta).astype(dtype), w, padding=same(w), tile=64)
    assert (np.abs(y - sums * weight * eta) <= C * (u * met * weight * eta + eta * (1 + norm))).all()
    # The weights alone: nothing is lost but in the last rounding.
    y = fft(x.astype(dtype), w, padding=same(w), tile=64)
    assert (np.abs(y - sums * weight) <= C * u * met * weight + eta).all()


def test_nothing_outside_the_arrays_is_touched(run_python):
    script = """
import cases, numpy as np, oracle
from test_fft import fft, same
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    x, w = rng.standard_normal((2, 2, 97, 131)).astype(dtype), rng.standard_normal((2, 1, 9, 17)).astype(dtype)
    b = np.ones(2, dtype)
    for padding in (same(w), ((0, 0), (0, 0))):
        expected = fft(x, w, b, padding=padding)
        for side in ("start", "end"):
            out = cases.guarded(cases.poison(expected.shape, dtype), side)
            fft(*(cases.guarded(a, side) for a in (x, w, b)), padding=padding, out=out)
            oracle.assert_same_bits(out, expected)
print("done")
"""
    assert run_python(script).strip() == "done"


@pytest.mark.parametrize("shape", [(0, 2, 40, 40), (3, 2, 8, 40), (3, 2, 40, 8)])
def test_empty_outputs(shape):
    x, w = np.ones(shape, np.float32), np.ones((2, 1, 9, 9), np.float32)
    assert fft(x, w, tile=64).shape == (shape[0], 2, shape[2] - 8, shape[3] - 8)
