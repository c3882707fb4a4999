"""Nested Winograd in the engine: the error it may make, who computes non-finite outputs, and bits that never change."""

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

import pyconv
from pyconv import engine, plan

POINTS = {
    (2, 3): (0, 1, -1),
    (4, 3): (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    (3, 3): (0, 1 / 2, 3 / 2, -5 / 4),
    (4, 4): (0, 7 / 8, -7 / 8, 2, -2, 1 / 4),
    (4, 5): (0, 1 / 2, -1 / 2, 1, -1, 2, -2),
    (4, 2): (0, 5 / 8, -7 / 8, 2),
    (3, 4): (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
}
WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}
BOUNDARIES = list(engine.BOUNDARIES)


def winograd(x, w, bias, variant, *, padding=((0, 0), (0, 0)), stride=(1, 1), dilation=(1, 1), groups=1,
             boundary="constant", cval=0.0, workers=1, out=None):  # fmt: skip
    size = [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, (before, after), k, s, d in zip(x.shape[-2:], padding, w.shape[2:], stride, dilation, strict=True)
    ]
    y = np.full((*x.shape[:-3], w.shape[0], *size), np.nan, w.dtype) if out is None else out
    before = tuple(before for before, _ in padding)
    u = engine.winograd_weights(w, groups, *variant, workers, stride=stride)
    codes = (engine.BOUNDARIES[boundary],) * 2
    engine.winograd(x, w, u, bias, y, x.ndim - 3, groups, before, codes, cval, workers, *variant, stride=stride,
                    dilation=dilation)  # fmt: skip
    return y


def error(actual, x, w, bias=None, **geometry):
    """max |y - exact| in units of u * max(|x| * |w| + |bias|)."""
    wide = WIDER[w.dtype]
    x, w = x.astype(wide), w.astype(wide)
    exact = oracle.correlate(x, w, None if bias is None else bias.astype(wide), **geometry)
    geometry = geometry | {"cval": abs(geometry.get("cval", 0))}
    magnitude = oracle.correlate(abs(x), abs(w), None if bias is None else abs(bias.astype(wide)), **geometry)
    return float(np.max(abs(actual - exact)) / (float(oracle.UNIT_ROUNDOFF[actual.dtype.name]) * np.max(magnitude)))


@st.composite
def problems(draw):
    variant = draw(st.sampled_from(list(POINTS)))
    m, r = variant
    # Plain, dilated or strided along each axis.
    steps = st.one_of(st.just((1, 1)), st.tuples(st.just(1), st.sampled_from([2, 2, 3, 5, 12, 17])),
                      st.tuples(st.sampled_from([2, 2, 2, 3, 4]), st.just(1)))  # fmt: skip
    stride, dilation = zip(*draw(st.one_of(st.just(((1, 1), (1, 1))), st.tuples(steps, steps))), strict=True)
    groups = draw(st.integers(1, 3))
    settings = {
        "padding": tuple(draw(st.tuples(st.integers(-1, 9), st.integers(0, 9))) for _ in range(2)),
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "boundary": draw(st.sampled_from(BOUNDARIES)),
        "cval": draw(st.sampled_from([0.0, -2.5])),
    }
    kernel = tuple(draw(st.integers(2, 3 * r if m == r else r * s)) for s in stride)
    size = [
        max(1, d * (k - 1) + 1 - sum(pair)) + draw(st.integers(0, 36))
        for k, d, pair in zip(kernel, settings["dilation"], settings["padding"], strict=True)
    ]
    shape = draw(st.integers(1, 3)), groups * draw(st.integers(1, 20)), *size
    weight = groups * draw(st.sampled_from([1, 1, 2, 5, 8, 19])), shape[1] // groups, *kernel
    return variant, shape, weight, settings


@given(problems(), st.sampled_from([np.float32, np.float64]), st.sampled_from(list(cases.LAYOUTS)),
       st.sampled_from(cases.OUT_LAYOUTS), st.booleans(), st.integers(1, 3), st.integers(0, 2**31))  # fmt: skip
def test_error_stays_within_what_is_documented(problem, dtype, layout, out_layout, biased, workers, seed):
    variant, shape, weight, settings = problem
    rng = np.random.default_rng(seed)
    x = cases.lay_out(cases.normal(rng, shape, dtype), layout)
    w = cases.normal(rng, weight, dtype)
    bias = cases.normal(rng, weight[:1], dtype) if biased else None
    contiguous = winograd(x, w, bias, variant, **settings)
    assert error(contiguous, x, w, bias, **settings) <= plan.winograd_error(variant, weight, settings["stride"])
    out = cases.lay_out(np.full_like(contiguous, np.nan), out_layout)
    winograd(x, w, bias, variant, **settings, workers=workers, out=out)
    oracle.assert_same_bits(out.astype(dtype), contiguous)


def signs(values):
    return np.where(values < 0, -1.0, 1.0)


def transforms(variant):
    """B, and the powers in G, from the points (winograd.h)."""
    m, r = variant
    a, points = m + r - 1, POINTS[variant]
    B, G = np.zeros((a, a)), np.zeros((a, r))
    for i, point in enumerate(points):
        B[i, : a - 1] = np.poly([p for p in points if p != point])[::-1]
        G[i] = [float(point) ** k for k in range(r)]
    B[-1] = np.poly(points)[::-1]
    G[-1, -1] = 1
    return B, G


def phases_joined(x, w, stride, kernel):
    """The image and weights of which x and w have the phases modulo the stride as channels."""
    s, (outputs, _, *taps), size = stride, w.shape, x.shape[2:]
    x = x.reshape(1, -1, s, s, *size).transpose(0, 1, 4, 2, 5, 3).reshape(1, -1, size[0] * s, size[1] * s)
    w = w.reshape(outputs, -1, s, s, *taps).transpose(0, 1, 4, 2, 5, 3)
    w = w.reshape(outputs, -1, taps[0] * s, taps[1] * s)[:, :, : kernel[0], : kernel[1]]
    return np.ascontiguousarray(x), np.ascontiguousarray(w)


def awkward(kind, rng, variant, channels, kernel, outputs=24):
    """An image and weights that make much of rounding errors."""
    m, r = variant
    a, n = m + r - 1, m * 8 + max(kernel) - 1
    x, w = rng.standard_normal((1, channels, n, n)), rng.standard_normal((outputs, channels, *kernel))
    if kind == "signs":              # those of the transforms: windows, and weights, all of whose terms add up
        B, G = transforms(variant)
        x, w = 1 + rng.random(x.shape) / 10, 1 + rng.random(w.shape) / 10
        step = -(-a // m) * m
        for top in range(0, n - a + 1, step):
            for left in range(0, n - a + 1, step):
                x[..., top : top + a, left : left + a] *= signs(np.outer(*B[rng.integers(a, size=2)]))
        for o in range(outputs):
            block = signs(np.outer(*G[rng.integers(a, size=2)]))
            tiled = np.tile(block, [-(-k // r) for k in kernel])
            w[o] *= tiled[: kernel[0], : kernel[1]]
    elif kind == "constant":         # all sums grow evenly, and so round alike
        x[...] = rng.uniform(1, 2)
        w[...] = rng.uniform(1, 2, (outputs, 1, 1, 1))
    elif kind == "uniform":
        x, w = rng.random(x.shape), rng.random(w.shape)
    elif kind == "impulses":
        x *= rng.random(x.shape) < 0.02
        w *= rng.random(w.shape) < 0.2
        w[:, 0, 0, 0] += 1
        x[0, :, n // 2, n // 2] += 1
    elif kind == "twelve decades":
        x = x * 10.0 ** rng.uniform(-6, 6, x.shape)
        w = w * 10.0 ** rng.uniform(-6, 6, w.shape)
    elif kind == "photograph":
        image = data.camera() / 255
        for c in range(channels):
            top, left = rng.integers(0, 512 - n, size=2)
            x[0, c] = image[top : top + n, left : left + n]
    return x.astype(np.float32), w.astype(np.float32)


# The least demanding settings for which "auto" may take each variant: the fewest terms, so the strictest bound.
# Strided: the phases of a kernel are kernels of their own.
LEAST = [((2, 3), 4, (3, 3)), ((4, 3), 16, (3, 3)), ((4, 3), 64, (3, 3)), ((3, 3), 1, (11, 11)), ((3, 3), 8, (5, 5)),
         ((3, 3), 10, (3, 3)),
         ((4, 4), 1, (24, 24)), ((4, 4), 12, (7, 7)), ((4, 4), 40, (4, 4)),
         ((4, 5), 19, (5, 5)), ((4, 5), 64, (5, 5)),
         ((4, 2), 94, (3, 3), 2), ((4, 2), 160, (3, 3), 2), ((4, 2), 12, (4, 4), 2), ((4, 2), 64, (4, 4), 2),
         ((2, 3), 2, (5, 5), 2), ((4, 3), 9, (5, 5), 2), ((4, 3), 3, (11, 11), 4), ((3, 4), 2, (7, 7), 2),
         ((3, 4), 3, (7, 7), 2), ((4, 4), 11, (7, 7), 2)]  # fmt: skip
KINDS = "signs", "constant", "uniform", "normal", "impulses", "twelve decades", "photograph"


@pytest.mark.parametrize("case", LEAST)
def test_what_auto_may_take_stays_below_half_of_the_bound_of_direct(case):
    variant, channels, kernel, stride = (*case, 1)[:4]
    weight, half = (1, channels, *kernel), (channels * kernel[0] * kernel[1] + 2) / 2
    bound = plan.winograd_error(variant, weight, (stride, stride))
    assert bound <= half
    rng = np.random.default_rng(7)
    for kind in KINDS:
        x, w = awkward(kind, rng, variant, channels * stride**2, [-(-k // stride) for k in kernel])
        x, w = phases_joined(x, w, stride, kernel)
        steps = {"stride": (stride, stride)}
        assert error(winograd(x, w, None, variant, **steps), x, w, **steps) <= bound, kind


def few_taps(rng, channels, kernel, taps, size, outputs=8):
    """Signs, and weights of which so many count."""
    x = np.where(rng.random((1, channels, size, size)) < 0.5, -1, 1).astype(np.float32)
    w = np.zeros((outputs, channels * kernel[0] * kernel[1]), np.float32)
    for o in range(outputs):
        w[o, rng.choice(w.shape[1], taps, replace=False)] = rng.choice([-1, 1], taps) * (1 + rng.random(taps))
    return x, w.reshape(outputs, channels, *kernel)


@pytest.mark.parametrize("variant", POINTS)
def test_a_kernel_of_one_tap_errs_as_documented(variant):
    rng, (m, r) = np.random.default_rng(8), variant
    stride = 2 if r in (2, 4) and m != r else 1
    for kernel in (r * stride - 1, r * stride, *((r + 1, r + 2) if m == r else ())):
        x, w = few_taps(rng, 1, (kernel, kernel), 1, 40 * m * stride)
        steps = {"stride": (stride, stride)}
        assert error(winograd(x, w, None, variant, **steps), x, w, **steps) <= plan._ONE_TAP_ERROR[variant]


@pytest.mark.parametrize("case", LEAST)
@pytest.mark.parametrize("taps", [1, 3, 10])
def test_auto_takes_weights_of_which_enough_count(case, taps):
    """Else direct, whose error is none or nearly so."""
    variant, channels, kernel, stride = (*case, 1)[:4]
    half = (channels * kernel[0] * kernel[1] + 2) / 2
    x, w = few_taps(np.random.default_rng(9), channels, kernel, taps, variant[0] * 12 * stride + max(kernel))
    steps = {"stride": (stride, stride)}
    if plan.suits(variant, w):
        assert error(winograd(x, w, None, variant, **steps), x, w, **steps) <= half
    else:
        assert plan._ONE_TAP_ERROR[variant] > half / taps**0.5
    assert plan.suits(variant, np.random.default_rng(1).standard_normal(w.shape).astype(np.float32))


def test_a_plan_and_a_call_leave_a_kernel_of_one_tap_to_direct():
    x, w = few_taps(np.random.default_rng(10), 20, (3, 3), 1, 64, outputs=64)
    dense = np.random.default_rng(11).standard_normal(w.shape).astype(np.float32)
    assert pyconv.plan_conv2d(x.shape, dense, padding=1).method == "winograd"
    plan_of_one = pyconv.plan_conv2d(x.shape, w, padding=1)
    assert plan_of_one.method == "direct" and "count" in plan_of_one.reason
    direct = pyconv.conv2d(x, w, padding=1, method="direct")
    oracle.assert_same_bits(pyconv.conv2d(x, w, padding=1), direct)
    oracle.assert_same_bits(plan_of_one(x), direct)
    dx = pyconv.grad.conv2d_input(x.shape, w, direct, padding=1)
    oracle.assert_same_bits(plan_of_one.input_gradient(direct), dx)


@given(problems(), st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans(), st.integers(0, 2**31))
def test_non_finite_outputs_are_those_of_direct(problem, value, biased, seed):
    variant, shape, weight, settings = problem
    rng = np.random.default_rng(seed)
    x, w = cases.normal(rng, shape, np.float32), cases.normal(rng, weight, np.float32)
    w[rng.random(w.shape) < 0.2] = 0          # 0 * NaN is NaN
    x.reshape(-1)[rng.integers(x.size, size=2)] = value
    bias = cases.normal(rng, weight[:1], np.float32) if biased else None
    direct = np.empty_like(y := winograd(x, w, bias, variant, **settings))
    before = tuple(before for before, _ in settings["padding"])
    engine.correlate(x, w, bias, direct, 1, settings["groups"], settings["stride"], settings["dilation"], before,
                     (engine.BOUNDARIES[settings["boundary"]],) * 2, settings["cval"], 1)  # fmt: skip
    oracle.assert_same_class(y, direct)
    finite = np.isfinite(direct)
    oracle.assert_same_values(y[~finite], direct[~finite])


@pytest.mark.parametrize("variant", POINTS)
def test_transforms_that_overflow_give_the_finite_results_of_direct(variant):
    r = variant[1]
    x, w = np.zeros((1, 2, 30, 30), np.float32), np.full((3, 2, r, r), 0.25, np.float32)
    x[:, 0, ::4, ::4], x[:, 1, ::4, ::4] = 3e38, -3e38
    x[:, :, ::3] += 1
    y = winograd(x, w, None, variant)
    assert np.isfinite(y).all()
    assert error(y, x, w) <= plan.winograd_error(variant, w.shape)


@pytest.mark.parametrize("kernel", [(3, 3), (4, 3), (5, 7), (3, 2)])
def test_phases_of_few_taps_leave_no_non_finite_output_out(kernel):
    """Each sample in turn: also those that only planes of infinity read, where such phases are left out."""
    variant = (4, 2) if max(kernel) < 5 else (3, 4)
    w = np.ones((1, 1, *kernel), np.float32)
    for y in range(12):
        for x in range(12):
            for value in np.nan, np.inf:
                image = np.zeros((1, 1, 12, 12), np.float32)
                image[0, 0, y, x] = value
                result = winograd(image, w, None, variant, padding=((1, 1), (1, 1)), stride=(2, 2))
                direct = np.empty_like(result)
                engine.correlate(image, w, None, direct, 1, 1, (2, 2), (1, 1), (1, 1), (0, 0), 0.0, 1)
                oracle.assert_same_class(result, direct)


@given(problems(), st.integers(0, 2**31))
def test_bits_depend_on_neither_threads_nor_batch(problem, seed):
    variant, shape, weight, settings = problem
    rng = np.random.default_rng(seed)
    x, w = cases.normal(rng, shape, np.float32), cases.normal(rng, weight, np.float32)
    y = winograd(x, w, None, variant, **settings)
    for workers in (2, 3, 8):
        oracle.assert_same_bits(winograd(x, w, None, variant, **settings, workers=workers), y)
    oracle.assert_same_bits(winograd(x[-1], w, None, variant, **settings), y[-1])


def test_large_maps_are_cut_into_several_units():
    rng = np.random.default_rng(1)
    for shape, weight, variant, dilation in (
        ((1, 64, 90, 250), (40, 64, 3, 3), (4, 3), (1, 1)),
        ((1, 1, 700, 900), (1, 1, 25, 13), (4, 4), (1, 1)),
        ((1, 64, 90, 250), (40, 64, 3, 3), (4, 3), (3, 2)),
    ):
        x, w = cases.normal(rng, shape, np.float32), cases.normal(rng, weight, np.float32)
        y = winograd(x, w, None, variant, dilation=dilation)
        direct = np.empty_like(y, float)
        engine.correlate(x.astype(float), w.astype(float), None, direct, 1, 1, (1, 1), dilation, (0, 0), (0, 0), 0.0, 2)
        assert np.max(abs(y - direct)) <= 1e-4 * np.max(abs(direct))
        oracle.assert_same_bits(winograd(x, w, None, variant, dilation=dilation, workers=3), y)


@pytest.mark.parametrize(("variant", "stride", "dilation"), [((4, 3), (1, 1), (6, 2)), ((4, 3), (2, 1), (1, 3)),
                                                             ((4, 2), (2, 2), (1, 1))])
def test_non_finite_outputs_of_many_units_are_each_computed_again_once(monkeypatch, variant, stride, dilation):
    rng = np.random.default_rng(2)
    x, w = cases.normal(rng, (2, 64, 90 * stride[0], 70), np.float32), cases.normal(rng, (40, 64, 3, 3), np.float32)
    x[:, 3, ::7, 5] = np.nan
    steps = {"stride": stride, "dilation": dilation}
    direct = np.empty_like(winograd(x, w, None, variant, **steps))
    engine.correlate(x, w, None, direct, 1, 1, stride, dilation, (0, 0), (0, 0), 0.0, 2)
    correlate, outputs = engine.correlate, []

    def counted(x, w, bias, out, *arguments):
        outputs.append(out.size)
        correlate(x, w, bias, out, *arguments)

    monkeypatch.setattr(engine, "correlate", counted)
    y = winograd(x, w, None, variant, **steps, workers=3)
    assert len(outputs) > 1 and direct.size <= sum(outputs) < 1.5 * direct.size
    oracle.assert_same_class(y, direct)
    finite = np.isfinite(direct)
    assert np.max(abs(y - direct), where=finite, initial=0) < 1e-4 * np.max(abs(direct), where=finite, initial=0)


@pytest.mark.parametrize("side", ["start", "end"])
def test_reads_stay_within_the_arrays(side):
    rng = np.random.default_rng(3)
    for variant in POINTS:
        for columns, dilation in ((13, 1), (64, 1), (70, 1), (13, 2), (70, 2), (64, 3), (45, 20)):
            x = cases.guarded(cases.normal(rng, (2, 3, 11, columns), np.float32), side)
            w = cases.guarded(cases.normal(rng, (4, 3, 3, 3), np.float32), side)
            for strided in {"dilation": (1 + dilation % 2, dilation)}, {"stride": (2, min(dilation, 3))}:
                if variant[1] < 3 and min(strided.get("stride", (1, 1))) == 1:
                    continue         # F(4,2) has one block: of 2 x 2 taps of a phase
                settings = {"padding": ((1, 1), (1, 1)), **strided}
                y = winograd(x, w, None, variant, **settings)
                bound = plan.winograd_error(variant, w.shape, settings.get("stride", (1, 1)))
                assert error(y, x, w, **settings) <= bound
