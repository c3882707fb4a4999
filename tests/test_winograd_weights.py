"""Weight gradients by nested Winograd: their error, who computes non-finite ones, bits that never change."""

import math

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

import pyconv
from pyconv import engine, grad, plan

POINTS = {
    (4, 3): (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    (3, 3): (0, 1 / 2, 3 / 2, -5 / 4),
    (4, 4): (0, 7 / 8, -7 / 8, 2, -2, 1 / 4),
    (4, 5): (0, 1 / 2, -1 / 2, 1, -1, 2, -2),
}
VARIANTS = [*POINTS, (2, 3)]
WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}


def weight_gradient(x, dy, kernel, variant, *, padding=((0, 0), (0, 0)), groups=1, boundary="constant", cval=0.0,
                    workers=1):  # fmt: skip
    dw = np.full((dy.shape[1], x.shape[1] // groups, *kernel), np.nan, np.result_type(x, np.float32))
    codes, before = (engine.BOUNDARIES[boundary],) * 2, tuple(before for before, _ in padding)
    engine.weight_gradient(x, dy, dw, 1, groups, (1, 1), (1, 1), before, codes, cval, workers, variant)
    return dw


def error(actual, x, dy, variant, padding=((0, 0), (0, 0)), boundary="constant", cval=0.0, groups=1):
    """max |dw - exact| in units of u * max(|x| * |dy|), for each pair of channels; the maximum over the kernel's shifts
    and those a tile further."""
    wide, kernel, further = WIDER[actual.dtype], actual.shape[2:], variant[0] - 1
    x, dy = x.astype(wide), dy.astype(wide)
    padded = oracle.pad(x, padding, boundary, cval)
    exact = products(padded, dy, kernel, groups)
    wider = np.pad(abs(padded).astype(float), ((0, 0), (0, 0), (further, further), (further, further)))
    magnitude = products(wider, abs(dy).astype(float), [k + 2 * further for k in kernel], groups)
    magnitude = magnitude.max(axis=(2, 3), keepdims=True)
    wrong = abs(actual - exact)
    assert (wrong[np.broadcast_to(magnitude, wrong.shape) == 0] == 0).all()
    return float(np.max(wrong / np.maximum(magnitude, np.finfo(wide).tiny))
                 / float(oracle.UNIT_ROUNDOFF[actual.dtype.name]))  # fmt: skip


def products(x, dy, kernel, groups):
    """The exact gradient: sums over images and positions of products of shifted images."""
    oh, ow = dy.shape[2:]
    n, outputs = x.shape[0], dy.shape[1]
    x, dy = x.reshape(n, groups, -1, *x.shape[2:]), dy.reshape(n, groups, -1, oh * ow)
    sums = np.empty((groups, dy.shape[2], x.shape[2], *kernel), x.dtype)
    for i, j in np.ndindex(*kernel):
        window = x[..., i : i + oh, j : j + ow].reshape(n, groups, x.shape[2], oh * ow)
        sums[..., i, j] = sum(g @ w.swapaxes(1, 2) for g, w in zip(dy, window, strict=True))
    return sums.reshape(outputs, -1, *kernel)


@st.composite
def problems(draw):
    variant = draw(st.sampled_from(VARIANTS))
    m, r = variant
    taps = st.integers(1, 3 * r) if m == r else st.integers(1, r)
    kernel, groups = (draw(taps), draw(taps)), draw(st.integers(1, 3))
    settings = {
        "padding": tuple(draw(st.tuples(st.integers(0, 9), st.integers(0, 9))) for _ in range(2)),
        "groups": groups,
        "boundary": draw(st.sampled_from(list(engine.BOUNDARIES))),
        "cval": draw(st.sampled_from([0.0, -2.5])),
    }
    size = [draw(st.integers(max(1, k - sum(pair)), 30)) for k, pair in zip(kernel, settings["padding"], strict=True)]
    images = draw(st.integers(1, 3))
    shape = images, groups * draw(st.integers(1, 40)), *size
    on = [n + sum(pair) - k + 1 for n, pair, k in zip(size, settings["padding"], kernel, strict=True)]
    return variant, shape, (images, groups * draw(st.sampled_from([1, 2, 5, 8, 19])), *on), kernel, settings


@given(problems(), st.sampled_from([np.float32, np.float64]), st.sampled_from(list(cases.LAYOUTS)),
       st.sampled_from(list(cases.LAYOUTS)), st.integers(1, 3), st.integers(0, 2**31))  # fmt: skip
def test_error_stays_within_what_is_documented(problem, dtype, x_layout, dy_layout, workers, seed):
    variant, shape, dy_shape, kernel, settings = problem
    rng = np.random.default_rng(seed)
    x, dy = cases.normal(rng, shape, dtype), cases.normal(rng, dy_shape, dtype)
    dw = weight_gradient(x, dy, kernel, variant, **settings)
    c = plan.weight_gradient_error((4, 3) if variant == (2, 3) else variant, dy_shape[2:]) * shape[0]
    assert error(dw, x, dy, variant, **settings) <= c
    x, dy = cases.lay_out(x, x_layout), cases.lay_out(dy, dy_layout)
    oracle.assert_same_bits(weight_gradient(x, dy, kernel, variant, **settings, workers=workers), dw)


def transforms(variant):
    """B, and A, from the points (winograd.h)."""
    m, r = variant
    a, points = m + r - 1, POINTS[variant]
    B, A = np.zeros((a, a)), np.zeros((m, a))
    for i, point in enumerate(points):
        B[i, : a - 1] = np.poly([p for p in points if p != point])[::-1]
        A[:, i] = [float(point) ** k for k in range(m)]
    B[-1] = np.poly(points)[::-1]
    A[-1, -1] = 1
    return B, A


def signs(values):
    return np.where(values < 0, -1.0, 1.0)


def awkward(kind, rng, variant, kernel, size, channels=6, outputs=10):
    """An image and gradients that make much of rounding errors."""
    m, r = variant
    a, (h, w) = m + r - 1, [n + k - 1 for n, k in zip(size, kernel, strict=True)]
    x, dy = rng.standard_normal((1, channels, h, w)), rng.standard_normal((1, outputs, *size))
    if kind in ("signs", "matched signs"):   # windows, and tiles, all of whose terms add up in one plane, the same one
        B, A = transforms(variant)           # in all of them or not
        x, dy = 1 + rng.random(x.shape) / 10, 1 + rng.random(dy.shape) / 10
        planes = rng.integers(a, size=2)
        for top in range(0, size[0], m):
            for left in range(0, size[1], m):
                if kind == "signs":
                    planes = rng.integers(a, size=2)
                tile = signs(np.outer(*A.T[planes]))[: size[0] - top, : size[1] - left]
                dy[..., top : top + m, left : left + m] *= tile
                # (a window shares samples with the next one, which has the last word)
                window = x[..., top : top + a, left : left + a]
                window[...] = abs(window) * signs(np.outer(*B[planes]))[: window.shape[2], : window.shape[3]]
    elif kind == "single gradients":
        x, dy[...] = signs(x) * (1 + rng.random(x.shape) / 10), 0
        for o in range(outputs):
            dy[0, o, rng.integers(size[0]), rng.integers(size[1])] = 1 + rng.random()
    elif kind == "uniform":
        x, dy = rng.random(x.shape), rng.random(dy.shape)
    elif kind == "impulses":
        x *= rng.random(x.shape) < 0.02
        dy *= rng.random(dy.shape) < 0.05
        x[0, :, h // 2, w // 2] += 1
        dy[0, :, size[0] // 2, size[1] // 2] += 1
    elif kind == "twelve decades":
        x = x * 10.0 ** rng.uniform(-6, 6, x.shape)
        dy = dy * 10.0 ** rng.uniform(-6, 6, dy.shape)
    elif kind == "photograph":
        image = data.camera() / 255
        for c in range(channels):
            top, left = rng.integers(0, 512 - h), rng.integers(0, 512 - w)
            x[0, c] = image[top : top + h, left : left + w]
        dy = np.diff(image[: size[0] + 1, : size[1]], axis=0) * rng.standard_normal((1, outputs, 1, 1))
    return x.astype(np.float32), dy.astype(np.float32)


# The least demanding sizes of the output for which "auto" may take each variant, and larger ones.
LEAST = [((4, 3), (3, 3), (14, 14)), ((4, 3), (3, 3), (56, 56)),
         ((3, 3), (5, 5), (14, 14)), ((3, 3), (7, 7), (28, 28)), ((4, 4), (7, 7), (44, 44)), ((4, 4), (7, 7), (56, 56)),
         ((4, 5), (5, 5), (44, 44)), ((4, 5), (5, 5), (56, 56))]  # fmt: skip
KINDS = "single gradients", "signs", "matched signs", "uniform", "normal", "impulses", "twelve decades", "photograph"


@pytest.mark.parametrize(("variant", "kernel", "size"), LEAST)
def test_what_auto_may_take_stays_below_half_of_the_bound_of_direct(variant, kernel, size):
    half = (math.prod(size) + 2) / 2
    c = plan.weight_gradient_error(variant, size)
    assert c <= half
    rng = np.random.default_rng(7)
    for kind in KINDS:
        x, dy = awkward(kind, rng, variant, kernel, size, *((60, 32) if kind == "single gradients" else ()))
        assert error(weight_gradient(x, dy, kernel, variant), x, dy, variant) <= c, kind


@given(problems(), st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans(), st.integers(0, 2**31))
def test_non_finite_gradients_are_those_of_direct(problem, value, in_x, seed):
    variant, shape, dy_shape, kernel, settings = problem
    rng = np.random.default_rng(seed)
    x, dy = cases.normal(rng, shape, np.float32), cases.normal(rng, dy_shape, np.float32)
    x[rng.random(x.shape) < 0.2] = 0          # 0 * NaN is NaN
    dy[rng.random(dy.shape) < 0.2] = 0
    spoiled = x if in_x else dy
    spoiled.reshape(-1)[rng.integers(spoiled.size)] = value
    dw, direct = (weight_gradient(x, dy, kernel, v, **settings) for v in (variant, None))
    oracle.assert_same_class(dw, direct)
    finite = np.isfinite(direct)
    oracle.assert_same_values(dw[~finite], direct[~finite])


@pytest.mark.parametrize("variant", VARIANTS)
def test_transforms_that_overflow_give_the_finite_results_of_direct(variant):
    x, dy = np.zeros((1, 20, 30, 30), np.float32), np.full((1, 3, 28, 28), 0.25, np.float32)
    x[..., 12:15, 12:15] = 3e37
    dy[:, 1] = -1
    dw, direct = (weight_gradient(x, dy, (3, 3), v) for v in (variant, None))
    assert np.isfinite(direct).all()
    assert np.isfinite(dw).all()


@given(problems(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**31))
def test_bits_do_not_depend_on_threads(problem, dtype, seed):
    variant, shape, dy_shape, kernel, settings = problem
    rng = np.random.default_rng(seed)
    x, dy = cases.normal(rng, shape, dtype), cases.normal(rng, dy_shape, dtype)
    dw = weight_gradient(x, dy, kernel, variant, **settings)
    for workers in (2, 3, 8):
        oracle.assert_same_bits(weight_gradient(x, dy, kernel, variant, **settings, workers=workers), dw)


@pytest.mark.parametrize(("variant", "shape", "outputs"), [
    ((4, 3), (1, 40, 120, 96), 40),           # rows of one image at a time
    ((4, 4), (1, 33, 130, 80), 20),
    ((4, 3), (18, 64, 14, 14), 70),           # some images at a time
    ((4, 3), (1, 100, 9, 2000), 100),         # parts of a row
    ((3, 3), (2, 70, 11, 1500), 65),
])  # fmt: skip
def test_large_problems_are_cut_into_several_chunks(variant, shape, outputs):
    rng = np.random.default_rng(1)
    k = variant[1] if variant[0] != variant[1] else 2 * variant[1] - 1
    x, dy = cases.normal(rng, shape, np.float32), cases.normal(rng, (shape[0], outputs, *shape[2:]), np.float32)
    settings = {"padding": ((k // 2, k // 2),) * 2}
    direct = weight_gradient(x.astype(float), dy.astype(float), (k, k), None, **settings, workers=2)
    magnitude = weight_gradient(abs(x), abs(dy), (k, k), None, **settings, workers=2).max()
    dw = weight_gradient(x, dy, (k, k), variant, **settings)
    c = plan.weight_gradient_error(variant, shape[2:]) * shape[0]
    assert np.max(abs(dw - direct)) <= c * 2.0**-24 * magnitude
    oracle.assert_same_bits(weight_gradient(x, dy, (k, k), variant, **settings, workers=3), dw)


@pytest.mark.parametrize("side", ["start", "end"])
def test_reads_and_writes_stay_within_the_arrays(side):
    rng = np.random.default_rng(3)
    for variant in VARIANTS:
        for columns in (13, 64, 70):
            x = cases.guarded(cases.normal(rng, (2, 19, 11, columns), np.float32), side)
            dy = cases.guarded(cases.normal(rng, (2, 5, 11, columns), np.float32), side)
            dw = cases.guarded(np.empty((5, 19, 3, 3), np.float32), side)
            engine.weight_gradient(x, dy, dw, 1, 1, (1, 1), (1, 1), (1, 1), (engine.CONSTANT,) * 2, 0.0, 2, variant)
            oracle.assert_same_bits(dw, weight_gradient(x, dy, (3, 3), variant, padding=((1, 1), (1, 1))))


def test_auto_takes_it_and_direct_does_not():
    rng = np.random.default_rng(4)
    x, dy = rng.integers(-9, 10, (2, 24, 16, 18)).astype("f"), rng.integers(-9, 10, (2, 32, 16, 18)).astype("f")
    size, settings = (32, 24, 3, 3), {"padding": 1}
    exact = products(np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1))), dy.astype(float), (3, 3), 1)
    oracle.assert_same_values(grad.conv2d_weight(x, size, dy, **settings, method="direct"), exact)
    expected = weight_gradient(x, dy, (3, 3), (4, 3), padding=((1, 1), (1, 1)))
    assert (expected != exact).any()
    oracle.assert_same_bits(grad.conv2d_weight(x, size, dy, **settings), expected)
    w = np.zeros(size, np.float32)
    oracle.assert_same_bits(grad.conv2d_backward(x, w, dy, **settings)[1], expected)
    oracle.assert_same_values(grad.conv2d_backward(x, w, dy, **settings, method="direct")[1], exact)
    oracle.assert_same_bits(plan.Plan.weight_gradient(pyconv.plan_conv2d(x.shape, w, **settings), x, dy), expected)
    half = grad.conv2d_weight(x.astype(np.float16), size, dy, **settings)
    oracle.assert_same_bits(half, expected.astype(np.float16))
    # The transposed convolution's, whose input is this one's output.
    oracle.assert_same_bits(grad.conv_transpose2d_weight(dy, size, x, **settings), expected)
    assert grad.conv2d_weight(x.astype(int), size, dy.astype(int), **settings).dtype == np.int64


@pytest.mark.parametrize(("settings", "changed"), [
    ({}, False),
    ({"stride": (2, 2)}, True),
    ({"dilation": (2, 2)}, True),
    ({"dtype": np.dtype(np.complex64)}, True),
    ({"dtype": np.dtype(np.int64)}, True),
    ({"weight": (64, 64, 1, 1)}, True),
    ({"sample": (64, 10, 10)}, True),         # too few positions to be accurate
    ({"sample": (64, 2, 2)}, True),
    ({"weight": (64, 1, 3, 3), "groups": 64}, True),
])  # fmt: skip
def test_the_choice(settings, changed):
    usual = {"sample": (64, 56, 56), "weight": (64, 64, 3, 3), "dtype": np.dtype(np.float32), "stride": (1, 1),
             "sides": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}  # fmt: skip
    choice = plan.choose_weight_gradient(**usual | settings)
    assert (choice.method == "direct") == (choice.variant is None) == changed
    for candidate in choice.candidates:
        assert candidate.accurate or candidate[:2] != choice[:2]
