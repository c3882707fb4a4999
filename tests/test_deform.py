"""Deformable convolution and its gradients, against loops, ONNX Runtime and finite differences."""

import signal

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import engine
from pyconv.deform import deform_conv2d, deform_conv2d_backward


def problem(
    n=2, groups=1, group_channels=3, group_outputs=2, offset_groups=1, size=(5, 6), kernel=(3, 2), stride=(1, 1),
    padding=1, dilation=(1, 1), reach=3.0, masked=True, seed=0,
):  # fmt: skip
    """(x, offset, w, mask, settings) with random values."""
    rng = np.random.default_rng(seed)
    widths = oracle.pairs(padding, size, kernel, stride, dilation)
    out = oracle.output_size(size, kernel, stride, widths, dilation)
    taps = kernel[0] * kernel[1]
    x = rng.standard_normal((n, groups * group_channels, *size))
    w = rng.standard_normal((groups * group_outputs, group_channels, *kernel))
    offset = rng.uniform(-reach, reach, (n, offset_groups * 2 * taps, *out))
    mask = rng.uniform(-1, 2, (n, offset_groups * taps, *out)) if masked else None
    return x, offset, w, mask, {"stride": stride, "padding": padding, "dilation": dilation}


def integer_problem(dtype, quarter=False, **settings):
    """The same with small integers, and offsets of whole, half or quarter pixels: every sum is exact."""
    x, offset, w, mask, keywords = problem(**settings)
    parts = 4 if quarter else 1
    x, w = np.rint(3 * x).astype(dtype), np.rint(2 * w).astype(dtype)
    offset = (np.rint(parts * offset) / parts).astype(dtype)
    mask = None if mask is None else np.rint(mask).astype(dtype)
    return x, offset, w, mask, keywords


@st.composite
def problems(draw):
    groups, offset_groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    group_channels = draw(st.integers(1, 3)) * offset_groups
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    side = st.integers(0, 2)
    padding = draw(st.one_of(side, st.just("same"), st.tuples(st.tuples(side, side), st.tuples(side, side))))
    size = tuple(d * (k - 1) + draw(st.integers(1, 6)) for k, d in zip(kernel, dilation, strict=True))
    return {
        "n": draw(st.integers(1, 3)), "groups": groups, "group_channels": group_channels,
        "group_outputs": draw(st.integers(1, 5)), "offset_groups": offset_groups, "size": size, "kernel": kernel,
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), "padding": padding, "dilation": dilation,
        "reach": draw(st.sampled_from([0.4, 3.0, 9.0])), "masked": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------
# Forward


@given(problems(), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_exact_on_integers_and_quarter_pixels(settings, dtype, biased):
    x, offset, w, mask, keywords = integer_problem(dtype, quarter=True, **settings)
    bias = np.arange(w.shape[0]).astype(dtype) if biased else None
    expected = oracle.deform_correlate(x, offset, w, bias, mask=mask, **keywords)
    actual = deform_conv2d(x, offset, w, bias, mask=mask, workers=1, **keywords)
    assert actual.dtype == dtype
    oracle.assert_same_values(actual, expected)


# Channels and pixels beyond a vector, a panel and a block of columns, and what does not fill the last one.
LARGER = [
    {"n": 1, "group_channels": 37, "group_outputs": 19, "size": (9, 11), "kernel": (3, 3)},
    {"n": 2, "groups": 5, "group_channels": 9, "group_outputs": 1, "offset_groups": 3, "size": (6, 9)},
    {"n": 1, "groups": 40, "group_channels": 1, "group_outputs": 1, "offset_groups": 2, "size": (5, 5)},
    {"n": 1, "group_channels": 33, "group_outputs": 3, "size": (16, 16), "kernel": (16, 15), "padding": 0},
    {"n": 1, "groups": 2, "group_channels": 32, "offset_groups": 2, "size": (16, 12), "kernel": (1, 1), "padding": 0},
]


@pytest.mark.parametrize("settings", LARGER)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_and_their_rests(settings, dtype):
    x, offset, w, mask, keywords = integer_problem(dtype, quarter=True, **settings)
    bias = np.arange(w.shape[0]).astype(dtype)
    expected = oracle.deform_correlate(x, offset, w, bias, mask=mask, **keywords)
    oracle.assert_same_values(deform_conv2d(x, offset, w, bias, mask=mask, **keywords), expected)


@given(problems())
def test_offsets_of_zero_are_the_plain_convolution_bit_for_bit(settings):
    for dtype in (np.float32, np.float64):
        x, offset, w, _, keywords = problem(**settings)
        x, w = x.astype(dtype), w.astype(dtype)
        bias = w.reshape(w.shape[0], -1)[:, 0].copy()
        groups = x.shape[1] // w.shape[1]
        expected = pyconv.conv2d(x, w, bias, groups=groups, workers=1, **keywords)
        oracle.assert_same_bits(deform_conv2d(x, 0 * offset, w, bias, workers=1, **keywords), expected)


def rounding_bound(x, w, mask, dtype):
    """What an output may be off by, (N, O, oh, ow).

    A position is rounded once, by at most u times the larger side S, as far as it matters; the slopes are at most twice
    the largest pixel X. A corner's weight and its product take 6 roundings, the mask 1. So a sample is off by at most
    (4 S + 7) u X, and a sum of n products of samples and weights by another (n + 2) u.
    """
    u, terms = float(oracle.UNIT_ROUNDOFF[np.dtype(dtype).name]), int(np.prod(w.shape[1:]))
    by_tap = np.abs(w).sum(axis=1).reshape(w.shape[0], -1)
    weights = np.einsum("ot,ntij->noij", by_tap, np.abs(mask))
    return (4 * max(x.shape[2:]) + 7 + terms + 2) * u * np.abs(x).max() * weights


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_within_the_bound(dtype):
    x, offset, w, mask, keywords = problem(group_channels=5, size=(7, 8), reach=2.0)
    x, offset, w, mask = (a.astype(dtype) for a in (x, offset, w, mask))
    actual = deform_conv2d(x, offset, w, mask=mask, **keywords)
    wide = (a.astype(np.float64) for a in (x, offset, w))
    exact = oracle.deform_correlate(*wide, mask=mask.astype(np.float64), **keywords)
    # The loops round in float64 themselves.
    bound = rounding_bound(x, w, mask, dtype) + rounding_bound(x, w, mask, np.float64)
    assert (np.abs(actual - exact) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rule_at_the_border(dtype):
    image = np.full((1, 1, 2, 2), 8, dtype)
    weight = np.ones((1, 1, 1, 1), dtype)

    def sample(y, x):
        offset = np.full((1, 2, 2, 2), 99, dtype)
        offset[0, :, 0, 0] = y, x
        return deform_conv2d(image, offset, weight)[0, 0, 0, 0]

    assert sample(0, 0) == 8 and sample(1, 1) == 8 and sample(0.5, 0.25) == 8
    assert sample(-0.5, 0) == 4 and sample(0, -0.25) == 6 and sample(1.5, 0) == 4 and sample(1.5, 1.75) == 1
    for outside in (-1, 2, -1.5, 2.5, 1e9, -1e30, np.inf, -np.inf):
        assert sample(outside, 0) == 0 and sample(0, outside) == 0
    image[...] = np.inf
    assert sample(-1, 0) == 0 and sample(2, 0) == 0 and sample(0, -1) == 0 and sample(0, 2) == 0


def test_nan_and_huge_offsets():
    x, offset, w, mask, keywords = problem()
    plain = deform_conv2d(x, offset, w, mask=mask, **keywords)
    huge = offset.copy()
    rng = np.random.default_rng(1)
    values = [np.inf, -np.inf, 1e300, -1e300, 2.0**31, -(2.0**31), 2.0**63, 3e9, -3e9, np.finfo(float).max]
    huge.reshape(-1)[:: 3] = rng.choice(values, huge.reshape(-1)[:: 3].size)
    expected = oracle.deform_correlate(x, huge, w, mask=mask, **keywords)
    np.testing.assert_allclose(deform_conv2d(x, huge, w, mask=mask, **keywords), expected, rtol=1e-12, atol=1e-12)
    with np.errstate(over="ignore"):
        single = deform_conv2d(x.astype("f4"), huge.astype("f4"), w, mask=mask, **keywords)
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-4)
    for coordinate in (0, 1):
        spoiled = offset.copy()
        spoiled[1, 4 + coordinate, 2, 3] = np.nan
        actual = deform_conv2d(x, spoiled, w, mask=mask, **keywords)
        assert np.isnan(actual[1, :, 2, 3]).all()
        actual[1, :, 2, 3] = plain[1, :, 2, 3]
        oracle.assert_same_bits(actual, plain)
        dx, doffset, dw, dbias, dmask = deform_conv2d_backward(x, spoiled, w, plain, mask=mask, **keywords)
        assert np.isfinite(dx).all() and np.isfinite(dbias).all() and np.isnan(dw).any()
        assert np.isnan(doffset[1, 4:6, 2, 3]).all() and np.isnan(doffset).sum() == 2
        assert np.isnan(dmask[1, 2, 2, 3]) and np.isnan(dmask).sum() == 1


def test_a_pixel_of_nan_spoils_only_its_samples():
    x, offset, w, _, keywords = problem(n=1, masked=False)
    x[0, 1, 2, 3] = np.nan
    expected = oracle.deform_correlate(x, offset, w, **keywords)
    oracle.assert_same_class(deform_conv2d(x, offset, w, **keywords), expected)


def test_threads_batch_and_layout_do_not_change_a_bit():
    settings = {"n": 3, "groups": 2, "group_channels": 24, "group_outputs": 24, "offset_groups": 2, "size": (17, 19)}
    for dtype in (np.float32, np.float64):
        x, offset, w, mask, keywords = problem(**settings)
        x, offset, w, mask = (a.astype(dtype) for a in (x, offset, w, mask))
        one = deform_conv2d(x, offset, w, mask=mask, workers=1, **keywords)
        gradients = deform_conv2d_backward(x, offset, w, one, mask=mask, workers=1, **keywords)
        for workers in (2, 3):
            oracle.assert_same_bits(deform_conv2d(x, offset, w, mask=mask, workers=workers, **keywords), one)
            again = deform_conv2d_backward(x, offset, w, one, mask=mask, workers=workers, **keywords)
            for a, b in zip(again, gradients, strict=True):
                oracle.assert_same_bits(a, b)
        alone = deform_conv2d(x[1:2], offset[1:2], w, mask=mask[1:2], **keywords)
        oracle.assert_same_bits(alone, one[1:2])


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layouts(layout):
    x, offset, w, mask, keywords = problem(size=(4, 5))
    dy = deform_conv2d(x, offset, w, mask=mask, **keywords)
    gradients = deform_conv2d_backward(x, offset, w, dy, mask=mask, **keywords)
    lx, lo, lw, lm, ldy = (cases.lay_out(a, layout) for a in (x, offset, w, mask, dy))
    oracle.assert_same_bits(deform_conv2d(lx, lo, lw, mask=lm, **keywords), dy)
    again = deform_conv2d_backward(lx, lo, lw, ldy, mask=lm, **keywords)
    for a, b in zip(again, gradients, strict=True):
        oracle.assert_same_bits(a, b)


@pytest.mark.parametrize("layout", cases.OUT_LAYOUTS)
def test_out(layout):
    x, offset, w, mask, keywords = problem(size=(4, 5))
    expected = deform_conv2d(x, offset, w, mask=mask, **keywords)
    for dtype in (np.float64, np.float32, np.complex128):
        out = cases.lay_out(np.full(expected.shape, 7, dtype), layout)
        assert deform_conv2d(x, offset, w, mask=mask, out=out, **keywords) is out
        oracle.assert_same_values(out, expected.astype(dtype))


def test_out_that_is_an_argument():
    x, offset, w, _, keywords = problem(n=1, group_channels=3, group_outputs=3, kernel=(3, 3), masked=False)
    expected = deform_conv2d(x, offset, w, **keywords)
    oracle.assert_same_bits(deform_conv2d(x, offset, w, out=x, **keywords), expected)


def test_without_a_batch():
    x, offset, w, mask, keywords = problem(n=1)
    batched = deform_conv2d(x, offset, w, mask=mask, **keywords)
    single = deform_conv2d(x[0], offset[0], w, mask=mask[0], **keywords)
    oracle.assert_same_bits(single, batched[0])
    out = np.empty_like(single)
    assert deform_conv2d(x[0], offset[0], w, mask=mask[0], out=out, **keywords) is out
    oracle.assert_same_bits(out, single)
    expected = deform_conv2d_backward(x, offset, w, batched, mask=mask, **keywords)
    actual = deform_conv2d_backward(x[0], offset[0], w, single, mask=mask[0], **keywords)
    for a, e, batch in zip(actual, expected, (True, True, False, False, True), strict=True):
        oracle.assert_same_bits(a, e[0] if batch else e)


def test_dtypes():
    x, offset, w, mask, keywords = integer_problem(np.float64)
    expected = oracle.deform_correlate(x, offset, w, mask=mask, **keywords)
    for dtype in (np.int8, np.int64):
        actual = deform_conv2d(x.astype(dtype), offset.astype(dtype), w.astype(dtype), mask=mask, **keywords)
        assert actual.dtype == np.float64
        oracle.assert_same_values(actual, expected)
    for dtype in (np.float16, np.float32):
        actual = deform_conv2d(x.astype(dtype), offset, w, mask=mask, **keywords)
        assert actual.dtype == dtype
        oracle.assert_same_values(actual, expected.astype(dtype))
        gradients = deform_conv2d_backward(x.astype(dtype), offset, w, actual, mask=mask, **keywords)
        assert {d.dtype for d in gradients} == {np.dtype(dtype)}
    assert deform_conv2d(x.astype("f4"), offset, w, dtype="f8", **keywords).dtype == np.float64
    assert deform_conv2d(x.astype("i4"), offset, w.astype("f4"), **keywords).dtype == np.float64
    assert deform_conv2d(x.astype("i2"), offset, w.astype("f4"), **keywords).dtype == np.float32


def test_empty_batches_and_outputs():
    x, offset, w, mask, keywords = problem()
    dy = np.ones((2, 2, *offset.shape[2:]))
    assert deform_conv2d(x[:0], offset[:0], w, mask=mask[:0], **keywords).shape == (0, *dy.shape[1:])
    assert deform_conv2d(x, offset, w[:0], mask=mask, **keywords).shape == (2, 0, *dy.shape[2:])
    gradients = deform_conv2d_backward(x[:0], offset[:0], w, dy[:0], mask=mask[:0], **keywords)
    assert gradients[0].shape == (0, *x.shape[1:]) and not gradients[2].any() and not gradients[3].any()
    gradients = deform_conv2d_backward(x, offset, w[:0], dy[:, :0], mask=mask, **keywords)
    assert not any(d.any() for d in gradients)
    # An image without pixels has only zeros around it.
    nothing = deform_conv2d(np.ones((1, 1, 0, 4)), np.ones((1, 2, 2, 6)), np.ones((1, 1, 1, 1)), [3.0], padding=1)
    oracle.assert_same_values(nothing, np.full((1, 1, 2, 6), 3.0))


SECOND_WITNESS = [
    {"groups": 1, "offset_groups": 1, "kernel": (3, 3), "group_channels": 4},
    {"groups": 2, "offset_groups": 2, "kernel": (2, 3), "group_channels": 4, "stride": (2, 1), "dilation": (1, 2)},
    {"groups": 1, "offset_groups": 4, "kernel": (3, 3), "group_channels": 4, "masked": False},
]


@pytest.mark.parametrize("settings", SECOND_WITNESS)
def test_onnx_runtime(settings):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    x, offset, w, mask, keywords = problem(**settings)
    arrays = {"X": x, "W": w, "offset": offset, "B": np.arange(w.shape[0]), "mask": mask}
    arrays = {name: a.astype(np.float32) for name, a in arrays.items() if a is not None}
    widths = oracle.pairs(keywords["padding"], x.shape[2:], w.shape[2:], keywords["stride"], keywords["dilation"])
    node = onnx.helper.make_node(
        "DeformConv", list(arrays), ["Y"], strides=keywords["stride"], dilations=keywords["dilation"],
        pads=[before for before, _ in widths] + [after for _, after in widths], group=settings["groups"],
        offset_group=settings["offset_groups"],
    )  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    inputs = [value(name, onnx.TensorProto.FLOAT, a.shape) for name, a in arrays.items()]
    graph = onnx.helper.make_graph([node], "deform", inputs, [value("Y", onnx.TensorProto.FLOAT, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["Y"], arrays)
    a = arrays
    actual = deform_conv2d(a["X"], a["offset"], a["W"], a["B"], mask=a.get("mask"), **keywords)
    samples = np.ones((x.shape[0], offset.shape[1] // 2, *offset.shape[2:])) if mask is None else mask
    taps = w.shape[2] * w.shape[3]
    largest = np.abs(samples).reshape(x.shape[0], -1, taps, *samples.shape[2:]).max(axis=1)
    assert (np.abs(actual - expected) <= 2 * rounding_bound(x, w, largest, np.float32)).all()


# ------------------------------------------------------------------------------------------------
# Backward


def assert_close(actual, expected):
    """Both are float64 sums in different orders."""
    assert actual.shape == expected.shape
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-13 * scale)


@given(problems())
def test_gradients_exact_on_integers(settings):
    for dtype in (np.float32, np.float64):
        # Half pixels and whole ones: every product is a small multiple of 1/4, kinks and borders included.
        x, offset, w, mask, keywords = integer_problem(dtype, **settings)
        offset = offset - (np.arange(offset.size).reshape(offset.shape) % 3 == 0).astype(dtype) / 2
        y = deform_conv2d(x, offset, w, mask=mask, **keywords)
        dy = np.random.default_rng(settings["seed"]).integers(-3, 4, y.shape).astype(dtype)
        actual = deform_conv2d_backward(x, offset, w, dy, mask=mask, workers=1, **keywords)
        expected = oracle.deform_gradients(x, offset, w, dy, mask=mask, **keywords)
        assert (actual[4] is None) == (mask is None)
        for a, e in zip(actual, expected, strict=True):
            if e is not None:
                assert a.dtype == dtype
                oracle.assert_same_values(a, e)


@given(problems(), st.sampled_from([np.float32, np.float64]))
def test_gradients_at_a_distance_of_one_pixel(settings, dtype):
    # Every sample is at the border or just outside, where the slope is that of the cell below and to the right.
    settings = {**settings, "size": (1, 2), "kernel": (1, 1), "padding": 1}
    x, offset, w, mask, keywords = integer_problem(dtype, **settings)
    offset = np.clip(offset, -2, 2)
    dy = np.ones((x.shape[0], w.shape[0], *offset.shape[2:]), dtype)
    actual = deform_conv2d_backward(x, offset, w, dy, mask=mask, workers=1, **keywords)
    for a, e in zip(actual, oracle.deform_gradients(x, offset, w, dy, mask=mask, **keywords), strict=True):
        if e is not None:
            oracle.assert_same_values(a, e)


@given(problems())
def test_gradients_against_loops(settings):
    x, offset, w, mask, keywords = problem(**settings)
    dy = np.random.default_rng(1).standard_normal(deform_conv2d(x, offset, w, mask=mask, **keywords).shape)
    actual = deform_conv2d_backward(x, offset, w, dy, mask=mask, **keywords)
    expected = oracle.deform_gradients(x, offset, w, dy, mask=mask, **keywords)
    for a, e in zip(actual, expected, strict=True):
        if e is not None:
            assert_close(a, e)


@pytest.mark.parametrize("settings", LARGER)
def test_gradients_of_blocks_and_their_rests(settings):
    x, offset, w, mask, keywords = problem(**settings)
    dy = np.random.default_rng(1).standard_normal(deform_conv2d(x, offset, w, mask=mask, **keywords).shape)
    actual = deform_conv2d_backward(x, offset, w, dy, mask=mask, **keywords)
    for a, e in zip(actual, oracle.deform_gradients(x, offset, w, dy, mask=mask, **keywords), strict=True):
        assert_close(a, e)


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 2, "masked": True},
        {"n": 1, "groups": 2, "offset_groups": 2, "group_channels": 2, "stride": (2, 1), "dilation": (2, 1)},
    ],
)
def test_gradients_by_finite_differences(settings):
    x, offset, w, mask, keywords = problem(**settings)
    # A piecewise polynomial of degree one in each variable: away from the kinks central differences are exact.
    offset = np.floor(offset) + 0.25 + 0.5 * (offset - np.floor(offset))
    bias = np.ones(w.shape[0])
    rng = np.random.default_rng(2)
    dy = rng.standard_normal(deform_conv2d(x, offset, w, bias, mask=mask, **keywords).shape)
    arrays = [x, offset, w, bias, mask]

    def loss():
        return (deform_conv2d(*arrays[:4], mask=arrays[4], **keywords) * dy).sum()

    for array, gradient in zip(arrays, deform_conv2d_backward(x, offset, w, dy, mask=mask, **keywords), strict=True):
        for _ in range(20):
            index = tuple(rng.integers(array.shape))
            value, step = array[index], 0.125
            array[index] = value + step
            above = loss()
            array[index] = value - step
            below = loss()
            array[index] = value
            assert abs((above - below) / (2 * step) - gradient[index]) <= 1e-11 * np.abs(dy).sum()


def test_the_adjoint_identities():
    x, offset, w, mask, keywords = problem(n=2, groups=2, group_channels=5, offset_groups=2, size=(9, 8))
    y = deform_conv2d(x, offset, w, mask=mask, **keywords)
    dy = np.random.default_rng(3).standard_normal(y.shape)
    dx, _, dw, _, dmask = deform_conv2d_backward(x, offset, w, dy, mask=mask, **keywords)
    # Linear in each of the three.
    for gradient, array in ((dx, x), (dw, w), (dmask, mask)):
        assert abs((gradient * array).sum() - (dy * y).sum()) <= 1e-12 * np.abs(dy * y).sum()


def test_offsets_of_zero_give_the_slopes_of_the_cell_below_right():
    image = np.arange(12.0).reshape(1, 3, 4)
    _, doffset, *_ = deform_conv2d_backward(image, np.zeros((2, 3, 4)), np.ones((1, 1, 1, 1)), np.ones((1, 3, 4)))
    oracle.assert_same_values(doffset[0], np.array([[4.0] * 4, [4.0] * 4, [-8.0, -9.0, -10.0, -11.0]]))
    oracle.assert_same_values(doffset[1], np.array([[1, 1, 1, -3], [1, 1, 1, -7], [1, 1, 1, -11.0]]))


# ------------------------------------------------------------------------------------------------
# Errors


def arguments(**changes):
    x, offset, w, mask, keywords = problem()
    return {"input": x, "offset": offset, "weight": w, "mask": mask, **keywords, **changes}


WRONG = [
    ({"weight": np.ones((2, 2, 3, 2))}, ValueError, "weight .*groups.*3 channels"),
    ({"weight": np.ones((2, 1, 3, 2))}, ValueError, "weight .*outputs"),
    ({"weight": np.ones((3, 3, 2))}, ValueError, r"weight must have 4 axes.*weight\[None\]"),
    ({"weight": np.ones((2, 0, 3, 2))}, ValueError, "weight"),
    ({"weight": np.ones((2, 3, 0, 2))}, ValueError, "weight"),
    ({"weight": np.ones((2, 3, 9, 2))}, ValueError, "kernel is larger"),
    ({"input": np.ones((5, 6))}, ValueError, "input must have 4 axes"),
    ({"input": np.ones((2, 3, 5, 6)) * 1j}, TypeError, "input must be real"),
    ({"input": np.ones((3, 5, 6))}, ValueError, "offset must have shape"),
    ({"input": "text"}, TypeError, "input"),
    ({"input": np.ones((2, 0, 5, 6))}, ValueError, "channels"),
    ({"input": cases.huge_broadcast(1.0, (2, 3, 2**31, 6))}, ValueError, "2\\*\\*31"),
    ({"offset": np.ones((2, 12, 5, 6))}, ValueError, r"offset must have shape \(2, offset_groups.*kh \* kw, 5, 7"),
    ({"offset": np.ones((2, 11, 5, 7))}, ValueError, "12 channels an offset group"),
    ({"offset": np.ones((2, 0, 5, 7))}, ValueError, "offset must have shape"),
    ({"offset": np.ones((1, 12, 5, 7))}, ValueError, "offset must have shape"),
    ({"offset": np.ones((12, 5, 7))}, ValueError, "offset must have shape"),
    ({"offset": np.ones(7)}, ValueError, "offset must have shape"),
    ({"offset": np.ones((2, 24, 5, 7))}, ValueError, "offset .*divide the channels"),
    ({"offset": np.ones((2, 12, 5, 7)) * 1j}, TypeError, "offset must be real"),
    ({"mask": np.ones((2, 12, 5, 7))}, ValueError, r"mask must have shape \(2, 6, 5, 7\)"),
    ({"mask": np.ones((6, 5, 7))}, ValueError, "mask must have shape"),
    ({"mask": 1.0}, ValueError, "mask must have shape"),
    ({"stride": 0}, ValueError, "stride"),
    ({"stride": (1, 1, 1)}, ValueError, "stride"),
    ({"dilation": 0.5}, TypeError, "dilation"),
    ({"padding": -1}, ValueError, "padding"),
    ({"padding": "some"}, ValueError, "padding"),
    ({"workers": 0}, ValueError, "workers"),
]
FORWARD_ONLY = [
    ({"bias": np.ones(3)}, ValueError, "bias must have one value for each of the 2"),
    ({"bias": [1j, 1]}, TypeError, "bias must be real"),
    ({"dtype": int}, TypeError, "dtype"),
    ({"dtype": complex}, TypeError, "dtype must be real"),
    ({"dtype": "nothing"}, TypeError, "dtype"),
    ({"out": np.ones((2, 2, 5, 6))}, ValueError, r"out must have shape \(2, 2, 5, 7\)"),
    ({"out": np.ones((2, 2, 5, 7), int)}, TypeError, "out"),
    ({"out": [1]}, TypeError, "out"),
]


@pytest.mark.parametrize(("changes", "error", "message"), [*WRONG, *FORWARD_ONLY])
def test_errors(changes, error, message):
    out = changes.get("out", np.full((2, 2, 5, 7), 9.0))
    with pytest.raises(error, match=message):
        deform_conv2d(**arguments(**{"out": out, **changes}))
    if isinstance(out, np.ndarray):
        assert len(np.unique(out)) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        *WRONG,
        ({"grad_output": np.ones((2, 2, 5, 6))}, ValueError, r"grad_output must have the shape .*\(2, 2, 5, 7\)"),
        ({"grad_output": np.ones((2, 5, 7))}, ValueError, "grad_output"),
        ({"grad_output": np.ones((2, 2, 5, 7)) * 1j}, TypeError, "grad_output must be real"),
    ],
)
def test_backward_errors(changes, error, message):
    with pytest.raises(error, match=message):
        deform_conv2d_backward(**arguments(**{"grad_output": np.ones((2, 2, 5, 7)), **changes}))


def test_nothing_beyond_the_arrays_is_read(run_python):
    script = """
import numpy as np, cases
from pyconv.deform import deform_conv2d, deform_conv2d_backward
rng = np.random.default_rng(0)
for dtype in ("f4", "f8"):
    for side in ("start", "end"):
        for shape, outputs, group_channels, k in (
            ((1, 3, 5, 7), 2, 3, 3), ((2, 20, 7, 18), 5, 4, 1), ((1, 33, 3, 3), 17, 33, 2)
        ):
            x = cases.guarded(rng.standard_normal(shape).astype(dtype), side)
            w = cases.guarded(rng.standard_normal((outputs, group_channels, k, k)).astype(dtype), side)
            size = shape[2] - k + 1, shape[3] - k + 1
            offset = rng.choice([0.5, -2.5, 1e30, -1e30, np.nan, np.inf, 1, -1], (shape[0], 2 * k * k, *size))
            offset = cases.guarded(offset.astype(dtype), side)
            mask = cases.guarded(rng.standard_normal((shape[0], k * k, *size)).astype(dtype), side)
            out = cases.guarded(np.zeros((shape[0], outputs, *size), dtype), side)
            deform_conv2d(x, offset, w, mask=mask, out=out)
            deform_conv2d_backward(x, offset, w, out, mask=mask)
print("done")
"""
    assert run_python(script) == "done\n"


BY_LEVEL = """
import numpy as np
from pyconv.deform import deform_conv2d, deform_conv2d_backward
rng = np.random.default_rng(0)
for dtype in ("f4", "f8"):
    x, w = rng.integers(-3, 4, (2, 37, 9, 11)).astype(dtype), rng.integers(-3, 4, (19, 37, 3, 3)).astype(dtype)
    offset = rng.integers(-8, 9, (2, 18, 9, 11)).astype(dtype) / 4
    mask = rng.integers(0, 3, (2, 9, 9, 11)).astype(dtype)
    y = deform_conv2d(x, offset, w, mask=mask, padding=1, workers=2)
    dy = rng.integers(-3, 4, y.shape).astype(dtype)
    gradients = deform_conv2d_backward(x, offset, w, dy, mask=mask, padding=1, workers=2)
    for a in (y, *gradients):
        weights = np.arange(a.size, dtype="f8").reshape(a.shape) % 17
        print(a.dtype, (a * weights).sum(dtype="f8"))
"""


def test_every_level_gives_the_same_integers(run_python):
    answers = {run_python(BY_LEVEL, env={"PYCONV_ISA": level}) for level in engine.levels}
    assert len(answers) == 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
@pytest.mark.parametrize("function", ["deform_conv2d(x, offset, w", "deform_conv2d_backward(x, offset, w, dy"])
def test_ctrl_c_ends_a_long_call(function, run_python):
    # 130 GFLOP forward and twice that backward, all of it one unit.
    script = f"""
import signal, threading
import numpy as np
from pyconv.deform import deform_conv2d, deform_conv2d_backward
x, w = np.ones((1, 16, 94, 94), "f4"), np.ones((1024, 16, 31, 31), "f4")
offset, dy = np.zeros((1, 2 * 31 * 31, 64, 64), "f4"), np.ones((1, 1024, 64, 64), "f4")
try:
    threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    {function}, workers=1)
    print("finished")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_python(script, timeout=60) == "interrupted\n"
