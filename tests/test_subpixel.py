"""pixel_shuffle, pixel_unshuffle, their gradients, and the convolution that stores its result shuffled."""

import doctest

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import grad, subpixel

DTYPES = ("bool", "uint8", "int16", "int64", "float16", "float32", "float64", "complex64", "complex128")


def rng(seed=0):
    return np.random.default_rng(seed)


def shuffle(x, r):
    """The definition, one pixel at a time."""
    *leading, channels, h, w = x.shape
    y = np.empty((*leading, channels // r**2, h * r, w * r), x.dtype)
    for c, row, column in np.ndindex(y.shape[-3:]):
        source = (c * r**2 + row % r * r + column % r, row // r, column // r)
        y[..., c, row, column] = x[(..., *source)]
    return y


def test_examples_in_the_docstrings():
    result = doctest.testmod(subpixel)
    assert result.attempted >= 10 and result.failed == 0


def test_four_channels_become_blocks_of_two_by_two():
    x = np.array([[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]])
    expected = np.array([[[1, 3, 2, 4], [5, 7, 6, 8]]])
    oracle.assert_same_bits(pyconv.pixel_shuffle(x, 2), expected)
    oracle.assert_same_bits(pyconv.pixel_unshuffle(expected, 2), x)


@given(
    leading=st.sampled_from([(), (2,), (0,), (2, 3)]),
    sizes=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)),
    r=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(cases.LAYOUTS)),
)
def test_shuffle_and_back(leading, sizes, r, dtype, layout):
    c, h, w = sizes
    x = cases.integer_valued(rng(), (*leading, c * r**2, h, w), dtype, 99)
    laid = cases.lay_out(x, layout)
    y = pyconv.pixel_shuffle(laid, r)
    oracle.assert_same_bits(y, shuffle(x, r))
    oracle.assert_same_bits(pyconv.pixel_unshuffle(cases.lay_out(y, layout), r), x)
    oracle.assert_same_bits(subpixel.pixel_shuffle_input(y, r), x)
    oracle.assert_same_bits(subpixel.pixel_unshuffle_input(x, r), y)
    assert not np.shares_memory(y, laid)


@given(sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)), r=st.integers(1, 4))
def test_the_gradients_are_the_adjoints(sizes, r):
    c, h, w = sizes
    x = cases.integer_valued(rng(), (2, c * r**2, h, w), np.float64, 99)
    y = pyconv.pixel_shuffle(x, r)
    dy = cases.integer_valued(rng(1), y.shape, np.float64, 99)
    assert (y * dy).sum() == (x * subpixel.pixel_shuffle_input(dy, r)).sum()
    dx = cases.integer_valued(rng(2), x.shape, np.float64, 99)
    assert (pyconv.pixel_unshuffle(y, r) * dx).sum() == (y * subpixel.pixel_unshuffle_input(dx, r)).sum()


def test_pytorch_shuffles_alike():
    torch = pytest.importorskip("torch")
    x = np.arange(2 * 18 * 4 * 5.0).reshape(2, 18, 4, 5)
    y = torch.nn.functional.pixel_shuffle(torch.from_numpy(x), 3)
    oracle.assert_same_bits(pyconv.pixel_shuffle(x, 3), y.numpy())
    oracle.assert_same_bits(pyconv.pixel_unshuffle(y.numpy(), 3), x)


# ------------------------------------------------------------------------------------------------
# The convolution


@st.composite
def problems(draw):
    """Arrays and settings, all legal; integer-valued, so that everything is exact."""
    r, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    channels = groups * draw(st.integers(0, 3))
    # The output channels of a group need not be whole pixel blocks, and many of them go another way.
    outputs = draw(st.sampled_from([1, 2, 3, 17])) * r**2
    while outputs % groups:
        outputs += r**2
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.sampled_from([0, 1, (2, 1), ((0, 3), (2, 0)), "same", "full"]))
    batch = draw(st.sampled_from([(), (0,), (1,), (3,)]))
    size = tuple(d * (k - 1) + draw(st.integers(1, 9)) for d, k in zip(dilation, kernel, strict=True))
    how = {
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "padding_mode": draw(st.sampled_from(sorted(oracle.PADDING_MODES))),
    }
    dtype = draw(st.sampled_from(["int16", "float16", "float32", "float64", "complex64"]))
    x = cases.integer_valued(rng(), (*batch, channels, *size), dtype, 3)
    w = cases.integer_valued(rng(1), (outputs, channels // groups, *kernel), dtype, 3)
    bias = cases.integer_valued(rng(2), outputs, dtype, 9) if draw(st.booleans()) else None
    return x, w, r, bias, how


@given(problem=problems(), layout=st.sampled_from(cases.OUT_LAYOUTS))
def test_the_convolution_stored_shuffled(problem, layout):
    x, w, r, bias, how = problem
    expected = shuffle(pyconv.conv2d(x, w, bias, **how, workers=1), r)
    y = pyconv.subpixel_conv2d(x, w, r, bias, **how, workers=1)
    oracle.assert_same_bits(y, expected)
    out = cases.lay_out(cases.poison(expected.shape, expected.dtype), layout)
    assert pyconv.subpixel_conv2d(x, w, r, bias, **how, out=out, workers=1) is out
    oracle.assert_same_values(out, expected)


@pytest.mark.parametrize(("channels", "outputs", "groups"), [(1, 1, 1), (5, 2, 1), (5, 20, 1), (6, 18, 2), (6, 1, 2)])
def test_the_bits_are_those_of_the_convolution(channels, outputs, groups, threads):
    x = cases.normal(rng(), (2, channels, 19, 23), np.float32)
    w = cases.normal(rng(1), (4 * outputs, channels // groups, 3, 3), np.float32)
    bias = cases.normal(rng(2), 4 * outputs, np.float32)
    y = pyconv.subpixel_conv2d(x, w, 2, bias, padding=1, groups=groups, workers=threads)
    oracle.assert_same_bits(y, shuffle(pyconv.conv2d(x, w, bias, padding=1, groups=groups, workers=1), 2))


def test_the_convolution_against_the_oracle():
    x = cases.integer_valued(rng(), (2, 3, 7, 8), np.float64, 9)
    w = cases.integer_valued(rng(1), (18, 3, 3, 2), np.float64, 9)
    y = pyconv.subpixel_conv2d(x, w, 3, None, 2, (1, 2), 2)
    expected = oracle.correlate(x, w, stride=2, padding=(1, 2), dilation=2)
    oracle.assert_same_values(y, shuffle(expected, 3))


def test_a_padding_value():
    x = np.zeros((1, 2, 2))
    y = pyconv.subpixel_conv2d(x, np.ones((4, 1, 3, 3)), 2, padding=1, padding_value=1.0)
    oracle.assert_same_values(y, np.full((1, 4, 4), 5.0))


def test_out_may_overlap_the_input():
    memory = cases.integer_valued(rng(), (1, 8, 8), np.float32, 9)
    x, w = memory[:, :4, :4], cases.integer_valued(rng(1), (4, 1, 3, 3), np.float32, 9)
    expected = pyconv.subpixel_conv2d(x.copy(), w, 2, padding=1)
    assert pyconv.subpixel_conv2d(x, w, 2, padding=1, out=memory) is memory
    oracle.assert_same_bits(memory, expected)


def test_dtype_and_overflow():
    x, w = np.full((1, 2, 2), 100, np.uint8), np.full((4, 1, 1, 1), 2, np.uint8)
    assert pyconv.subpixel_conv2d(x, w, 2).dtype == np.int64
    out = np.full((1, 4, 4), 7, np.int8)
    with pytest.raises(OverflowError, match="int8"):
        pyconv.subpixel_conv2d(x, w, 2, out=out)
    assert (out == 7).all()
    pyconv.subpixel_conv2d(x, w, 2, out=out, overflow="saturate")
    assert (out == 127).all()
    assert pyconv.subpixel_conv2d(x, w, 2, dtype=np.float32).dtype == np.float32


def test_the_gradient_is_the_convolutions_at_the_unshuffled_gradient():
    x, w = (cases.integer_valued(rng(i), shape, np.float64, 9) for i, shape in enumerate([(2, 3, 6, 7), (8, 3, 3, 3)]))
    bias = cases.integer_valued(rng(2), 8, np.float64, 9)
    y = pyconv.subpixel_conv2d(x, w, 2, bias, padding=1)
    dy = cases.integer_valued(rng(3), y.shape, np.float64, 9)
    dx, dw, dbias = grad.conv2d_backward(x, w, subpixel.pixel_shuffle_input(dy, 2), padding=1)
    # y is linear in each of x and w, and constant in the bias.
    without = pyconv.subpixel_conv2d(x, w, 2, padding=1)
    assert (without * dy).sum() == (x * dx).sum() == (w * dw).sum()
    assert ((y - without) * dy).sum() == (bias * dbias).sum()


# ------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: pyconv.pixel_shuffle(np.ones((6, 4, 4)), 2), ValueError, ["upscale_factor=2", "4", "(6, 4, 4)"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4)), 2), ValueError, ["input", "(4, 4)"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4)), 0), ValueError, ["upscale_factor", "0"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4)), -2), ValueError, ["upscale_factor", "-2"]),
        (lambda: pyconv.pixel_shuffle(np.ones((0, 4, 4)), 2**62), ValueError, ["upscale_factor"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4)), 2.0), TypeError, ["upscale_factor", "2.0"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4)), (2, 2)), TypeError, ["upscale_factor"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4)), None), TypeError, ["upscale_factor"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4)), True), TypeError, ["upscale_factor"]),
        (lambda: pyconv.pixel_shuffle(None, 2), TypeError, ["input"]),
        (lambda: pyconv.pixel_shuffle(np.ones((4, 4, 4), object), 2), TypeError, ["input", "object"]),
        (lambda: pyconv.pixel_unshuffle(np.ones((1, 4, 5)), 2), ValueError, ["downscale_factor=2", "(1, 4, 5)"]),
        (lambda: pyconv.pixel_unshuffle(np.ones((1, 5, 4)), 2), ValueError, ["downscale_factor=2", "(5, 4)"]),
        (lambda: pyconv.pixel_unshuffle(np.ones(4), 2), ValueError, ["input", "(4,)"]),
        (lambda: pyconv.pixel_unshuffle(np.ones((1, 4, 4)), 0), ValueError, ["downscale_factor"]),
        (lambda: pyconv.pixel_unshuffle(np.ones((1, 4, 4)), "2"), TypeError, ["downscale_factor"]),
        (lambda: subpixel.pixel_shuffle_input(np.ones((1, 4, 5)), 2), ValueError, ["grad_output", "upscale_factor"]),
        (
            lambda: subpixel.pixel_unshuffle_input(np.ones((6, 4, 4)), 2),
            ValueError,
            ["grad_output", "downscale_factor"],
        ),
    ],
)
def test_shuffles_refuse_bad_input(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


X, W = np.ones((2, 3, 6, 7), np.float32), np.ones((8, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"upscale_factor": 3}, ValueError, ["upscale_factor=3", "9", "(8, 3, 3, 3)"]),
        ({"upscale_factor": 0}, ValueError, ["upscale_factor"]),
        ({"upscale_factor": 2**40}, ValueError, ["upscale_factor"]),
        ({"upscale_factor": 1.5}, TypeError, ["upscale_factor"]),
        ({"bias": np.ones(2)}, ValueError, ["bias", "(2,)"]),
        ({"weight": W[0]}, ValueError, ["weight", "(3, 3, 3)"]),
        ({"weight": np.ones((8, 3, 0, 3))}, ValueError, ["weight", "(8, 3, 0, 3)"]),
        ({"weight": np.ones((8, 3, 9, 3))}, ValueError, ["kernel"]),
        ({"stride": 0}, ValueError, ["stride"]),
        ({"groups": 2}, ValueError, ["groups"]),
        ({"padding_mode": "some"}, ValueError, ["padding_mode"]),
        ({"input": None}, TypeError, ["input"]),
        ({"out": np.ones((2, 8, 4, 5), np.float32)}, ValueError, ["out", "(2, 2, 8, 10)", "(2, 8, 4, 5)"]),
        ({"out": np.ones((2, 2, 8, 10), np.int64)}, TypeError, ["out", "int64"]),
        ({"out": np.broadcast_to(np.float32(1), (2, 2, 8, 10))}, ValueError, ["out", "read-only"]),
        ({"workers": 0}, ValueError, ["workers"]),
    ],
)
def test_the_convolution_refuses_bad_input(keywords, error, words):
    out = np.full((2, 2, 8, 10), 7, np.float32)
    with pytest.raises(error) as caught:
        pyconv.subpixel_conv2d(**{"input": X, "weight": W, "upscale_factor": 2, "out": out, **keywords})
    for word in words:
        assert word in str(caught.value)
    assert (out == 7).all()
