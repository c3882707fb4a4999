"""`overflow=` and `channel_axis=` of the image filters, which SciPy does not have.

What saturates or raises is the result: the one that a wider output would have. So the reference is the same filter with
64-bit integers, and for those, sums in Python's integers.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from cases import lay_out
from hypothesis import given
from hypothesis import strategies as st
from oracle import assert_same_bits

from pyconv import ndimage

KERNEL = np.array([[1, -2, 0], [4, 5, -9]])
FILTERS = {
    "correlate": lambda x, **kw: ndimage.correlate(x, KERNEL, **kw),
    "correlate with fractions": lambda x, **kw: ndimage.correlate(x, KERNEL / 1.7, **kw),
    "convolve": lambda x, **kw: ndimage.convolve(x, np.ones((5, 5)), **kw),
    "correlate1d": lambda x, **kw: ndimage.correlate1d(x, [1, -2, 4], 0, **kw),
    "convolve1d": lambda x, **kw: ndimage.convolve1d(x, [0.3, -2, 1.9], **kw),
    "sobel": lambda x, **kw: ndimage.sobel(x, **kw),
    "prewitt": lambda x, **kw: ndimage.prewitt(x, 0, **kw),
    "laplace": lambda x, **kw: ndimage.laplace(x, **kw),
    "gaussian_filter": lambda x, **kw: ndimage.gaussian_filter(x, 0.9, **kw),
    "gaussian derivative": lambda x, **kw: ndimage.gaussian_filter(x, 0.9, (1, 0), axes=(1, 0), **kw),
    "gaussian_filter, sigma 0": lambda x, **kw: ndimage.gaussian_filter(x, 0, **kw),
    "gaussian_filter1d": lambda x, **kw: ndimage.gaussian_filter1d(x, 1.2, 0, order=2, **kw),
    "uniform_filter": lambda x, **kw: ndimage.uniform_filter(x, (3, 4), **kw),
    "uniform_filter1d": lambda x, **kw: ndimage.uniform_filter1d(x, 5, 0, **kw),
    "gaussian_laplace": lambda x, **kw: ndimage.gaussian_laplace(x, 0.8, **kw),
    "generic_laplace": lambda x, **kw: ndimage.generic_laplace(x, ndimage.sobel, **kw),
    "gaussian_gradient_magnitude": lambda x, **kw: ndimage.gaussian_gradient_magnitude(x, 0.8, **kw),
    "generic_gradient_magnitude": lambda x, **kw: ndimage.generic_gradient_magnitude(x, ndimage.sobel, **kw),
}
every_filter = pytest.mark.parametrize("function", FILTERS.values(), ids=FILTERS.keys())
NARROW = ("int8", "uint8", "int16", "uint16", "int32", "uint32")


def clipped(exact, dtype):
    info = np.iinfo(dtype)
    return np.array([min(max(int(v), info.min), info.max) for v in exact.flat], dtype).reshape(exact.shape)


def check(function, x, dtype, expected, layout="contiguous", **settings):
    """All three policies, given the exact results."""
    right = clipped(expected, dtype)
    assert_same_bits(function(x, output=dtype, overflow="saturate", **settings), right)
    output = lay_out(np.full(x.shape, 7, dtype), layout)
    if np.array_equal(right, expected):
        assert function(x, output=output, overflow="raise", **settings) is output
        assert_same_bits(output.astype(dtype), right)
    else:
        with pytest.raises(OverflowError, match="overflow"):
            function(x, output=output, overflow="raise", **settings)
        assert np.all(output == 7)
    wrapped = function(x, output=dtype, overflow="wrap", **settings)
    assert_same_bits(wrapped, function(x, output=dtype, **settings))


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")  # of sums of squares that wrapped
@every_filter
@given(data=st.data())
def test_results_are_those_of_a_wider_output(function, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    source = data.draw(st.sampled_from(("bool", "uint8", "int8", "uint16", "int16", "float32", "float64")))
    largest = data.draw(st.sampled_from((1, 20, 2**15)))
    x = rng.uniform(-largest, largest, shape)
    x = x.astype(source) if source[0] == "f" else x.astype(np.int64).astype(source)
    mode = data.draw(st.sampled_from(("reflect", "constant", "wrap")))
    settings = {"mode": mode, "cval": data.draw(st.sampled_from((0, 300, 0.7)))}
    x = lay_out(x, data.draw(st.sampled_from(("contiguous", "record", "reversed"))))
    dtype = data.draw(st.sampled_from(NARROW))
    layout = data.draw(st.sampled_from(("contiguous", "strided", "byteswapped")))
    check(function, x, dtype, function(x, output=np.int64, **settings), layout, **settings)


def exact_correlation(x, kernel, cval):
    """In Python's integers, beyond the borders `cval`."""
    kh, kw = kernel.shape
    padded = np.full((x.shape[0] + kh, x.shape[1] + kw), cval, object)
    padded[kh // 2 :, kw // 2 :][: x.shape[0], : x.shape[1]] = x
    total = np.zeros(x.shape, object)
    for i in range(kh):
        for j in range(kw):
            total = total + int(kernel[i, j]) * padded[i : i + x.shape[0], j : j + x.shape[1]]
    return total


@pytest.mark.parametrize("source", ["int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("dtype", [*NARROW, "int64", "uint64"])
@pytest.mark.parametrize("kernel", [np.array([[1]]), KERNEL, KERNEL * 2**29, np.array([[0, 1], [-1, 3]])], ids=range(4))
def test_sums_beyond_64_bits(source, dtype, kernel):
    info = np.iinfo(source)
    rng = np.random.default_rng(2)
    near_the_ends = [info.min, info.min + 1, info.max - 1, info.max, info.max // 2, info.max // 2 + 1, 0, 1]
    x = rng.choice(np.array(near_the_ends, source), (7, 8))
    settings = {"mode": "constant", "cval": 5}
    check(lambda x, **kw: ndimage.correlate(x, kernel, **kw), x, dtype, exact_correlation(x, kernel, 5), **settings)


@pytest.mark.parametrize("source", ["int64", "uint64"])
def test_passes_beyond_64_bits(source):
    info = np.iinfo(source)
    x = np.random.default_rng(3).choice(np.array([info.min, info.max, 0, 1], source), (6, 5))
    whole = np.outer([1, 2, 1], [-1, 0, 1])
    check(ndimage.sobel, x, source, exact_correlation(x, whole, 0), mode="constant")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
@every_filter
def test_floats_that_are_no_integers(function, dtype):
    """NaN saturates to 0; it and the infinities are refused."""
    x = np.zeros((9, 9), np.float32)
    assert_same_bits(function(x, output=dtype, overflow="raise"), np.zeros(x.shape, dtype))
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        x[4, 4] = bad
        with np.errstate(invalid="ignore", over="ignore"):
            real = function(x.astype(np.float64), output=np.float64)
            with pytest.raises(OverflowError):
                function(x, output=dtype, overflow="raise")
            actual = function(x, output=dtype, overflow="saturate")
        info = np.iinfo(dtype)
        assert np.all(actual[np.isnan(real)] == 0)
        assert np.all(actual[real > 2.0**64] == info.max)
        assert np.all(actual[real < -(2.0**64)] == info.min)
        assert np.all(actual[real == 0] == 0)


@pytest.mark.parametrize("name", ["sobel", "gaussian derivative", "correlate", "uniform_filter1d", "laplace"])
@pytest.mark.parametrize("axis", [0, 1])
def test_slab_by_slab(name, axis, monkeypatch):
    """Large images are filtered in slabs, and those are checked before the first of them is written."""
    monkeypatch.setattr(ndimage, "_SLAB_BYTES", 600)
    x = np.random.default_rng(4).integers(0, 20, (40, 30), dtype=np.uint8)
    if axis:
        x = x.T
    check(FILTERS[name], x, "uint8", FILTERS[name](x, output=np.int64))
    expected = FILTERS[name](x, overflow="saturate")
    in_place = x.copy()
    FILTERS[name](in_place, output=in_place, overflow="saturate")
    assert_same_bits(in_place, expected)
    x[-1 - axis, -1] = 255
    check(FILTERS[name], x, "int8", FILTERS[name](x, output=np.int64))


def test_in_place():
    x = np.random.default_rng(5).integers(0, 256, (20, 30), dtype=np.uint8)
    expected = ndimage.sobel(x, overflow="saturate")
    same = x.copy()
    assert ndimage.sobel(same, output=same, overflow="saturate") is same
    assert_same_bits(same, expected)


def test_images_of_no_axes_and_of_no_samples():
    assert ndimage.correlate(np.uint8(200), 2, overflow="saturate") == 255
    with pytest.raises(OverflowError):
        ndimage.correlate(np.uint8(200), 2, overflow="raise")
    assert ndimage.gaussian_filter(np.uint8(200), 1, output=np.int8, overflow="saturate") == 127
    for function in FILTERS.values():
        assert function(np.zeros((0, 3), np.uint8), overflow="raise").shape == (0, 3)


@every_filter
def test_other_outputs_do_not_overflow(function):
    x = np.random.default_rng(6).integers(0, 256, (9, 8), dtype=np.uint8)
    for dtype in (bool, np.float32, np.float64):
        assert_same_bits(function(x, output=dtype, overflow="raise"), function(x, output=dtype))
    with pytest.raises(ValueError, match="overflow must be one of 'raise', 'saturate', 'wrap'; got 'clip'"):
        function(x, overflow="clip")


@every_filter
@pytest.mark.parametrize("channel_axis", [0, 1, -1])
@pytest.mark.parametrize("overflow", [None, "saturate"])
def test_channels_are_images_of_their_own(function, channel_axis, overflow):
    x = np.random.default_rng(7).integers(0, 256, (20, 21, 3), dtype=np.uint8)
    x = np.moveaxis(x, -1, channel_axis)
    for dtype in ("uint8", "float32"):
        actual = function(x, output=dtype, channel_axis=channel_axis, overflow=overflow)
        assert actual.shape == x.shape
        for result, image in zip(np.moveaxis(actual, channel_axis, 0), np.moveaxis(x, channel_axis, 0), strict=True):
            assert_same_bits(result, function(np.ascontiguousarray(image), output=dtype, overflow=overflow))
    in_place = x.copy()
    assert function(in_place, output=in_place, channel_axis=channel_axis, overflow=overflow) is in_place
    assert_same_bits(in_place, function(x, channel_axis=channel_axis, overflow=overflow))
    with pytest.raises(np.exceptions.AxisError, match="channel_axis"):
        function(x, channel_axis=3)


def test_sequences_count_the_axes_of_the_image_without_channels():
    x = np.random.default_rng(8).standard_normal((3, 14, 15))
    for name in ("gaussian_laplace", "gaussian_gradient_magnitude"):
        function = getattr(ndimage, name)
        actual = function(x, (1, 2), mode=["wrap", "mirror"], axes=(1, 0), channel_axis=0)
        for result, image in zip(actual, x, strict=True):
            assert_same_bits(result, function(image, (1, 2), mode=["wrap", "mirror"], axes=(1, 0)))


@pytest.mark.parametrize("overflow", ["saturate", "raise"])
@pytest.mark.parametrize("name", ["sobel", "correlate with fractions", "gaussian derivative"])
def test_little_memory(name, overflow):
    """The image is 12 MB; in 64-bit integers it would be 96 MB."""
    x = np.zeros((3000, 4000), np.uint8)
    output = np.empty(x.shape, np.uint8)
    tracemalloc.start()
    try:
        FILTERS[name](x, output=output, overflow=overflow)
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()


def test_missing_samples():
    """Integers hold no NaN, so no output of integers goes with missing samples, whatever `overflow` says."""
    x = np.random.default_rng(9).integers(0, 256, (20, 21, 3), dtype=np.uint8)
    where = x > 20
    for name, function in FILTERS.items():
        if name.startswith("generic"):
            continue
        with pytest.raises(ValueError, match="missing"):
            function(x[..., 0], where=where[..., 0], overflow="saturate")
        expected = function(x[..., 0], where=where[..., 0], output=np.float64)
        actual = function(x[..., 0], where=where[..., 0], output=np.float64, overflow="raise")
        np.testing.assert_array_equal(actual, expected)
        actual = function(x, where=where, output=np.float64, channel_axis=-1)
        np.testing.assert_array_equal(actual[..., 0], expected)
