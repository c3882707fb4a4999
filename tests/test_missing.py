"""Missing samples in the image filters: normalised convolution against plain NumPy loops over the taps.

The loops take sums of products and of weights in float64 (or complex128), from an image and a mask that `oracle.pad`
continues beyond the borders. What may differ is rounding alone: a quotient of two sums of n terms, each off by at most
n + 2 roundings of the sum of its magnitudes.
"""

import inspect
import math
import sys

import numpy as np
import oracle
import pytest
from cases import LAYOUTS, OUT_LAYOUTS, lay_out, normal, poison
from hypothesis import given
from hypothesis import strategies as st
from oracle import assert_same_bits, assert_same_class

from pyconv import engine, missing, ndimage

BOUNDARY = {
    "reflect": "symmetric",
    "mirror": "mirror",
    "nearest": "edge",
    "wrap": "wrap",
    "constant": "constant",
}
modes = st.sampled_from(tuple(BOUNDARY))
seeds = st.integers(0, 2**32 - 1)
IMAGES = ("float16", "float32", "float64", "complex64", "complex128", "bool", "uint8", "int16", "int64")

# Every filter of one set of weights, with settings that make it one of a few.
FUNCTIONS = {
    "correlate": lambda x, **kw: ndimage.correlate(x, np.arange(1.0, 10).reshape(3, 3), **kw),
    "convolve": lambda x, **kw: ndimage.convolve(x, np.arange(1.0, 7).reshape(2, 3), **kw),
    "correlate, factors": lambda x, **kw: ndimage.correlate(x, np.outer([1, 2, 3, 2, 1.5], [1, 4, 6, 4, 1]), **kw),
    "correlate, a zero": lambda x, **kw: ndimage.correlate(x, [[0, 1, 0], [1, 4, 1], [0, 1, 0]], **kw),
    "correlate, both signs": lambda x, **kw: ndimage.correlate(x, [[0, -1, 0], [-1, 5.0, -1], [0, -1, 0]], **kw),
    "correlate, complex": lambda x, **kw: ndimage.correlate(x, [[1, 2j], [3, 1 - 1j]], **kw),
    "correlate1d": lambda x, **kw: ndimage.correlate1d(x, [1, 2, 4], 0, **kw),
    "convolve1d": lambda x, **kw: ndimage.convolve1d(x, [3, 2, 4.5, 0], **kw),
    "uniform_filter": lambda x, **kw: ndimage.uniform_filter(x, (3, 4), **kw),
    "uniform_filter1d": lambda x, **kw: ndimage.uniform_filter1d(x, 5, 0, **kw),
    "gaussian_filter": lambda x, **kw: ndimage.gaussian_filter(x, (0.9, 0.5), **kw),
    "gaussian_filter1d": lambda x, **kw: ndimage.gaussian_filter1d(x, 1.2, 0, **kw),
    "gaussian_filter, order": lambda x, **kw: ndimage.gaussian_filter(x, 0.6, (2, 0), **kw),
    "gaussian_filter1d, order": lambda x, **kw: ndimage.gaussian_filter1d(x, 0.6, 1, order=2, truncate=2, **kw),
    "sobel": lambda x, **kw: ndimage.sobel(x, 0, **kw),
    "prewitt": lambda x, **kw: ndimage.prewitt(x, 1, **kw),
    "laplace": lambda x, **kw: ndimage.laplace(x, **kw),
    "gaussian_laplace": lambda x, **kw: ndimage.gaussian_laplace(x, 0.6, **kw),
}
DERIVATIVES = {"gaussian_filter, order", "gaussian_filter1d, order", "sobel", "prewitt", "laplace", "gaussian_laplace"}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


# ---- the loops ----


def taps_of(x, valid, w, before, boundary, cval):
    """For each weight w that is not 0: it, and the samples and the mask it meets."""
    widths = [(b, k - 1 - b) for b, k in zip(before, w.shape, strict=True)]
    xs = oracle.pad(np.where(valid, x, 0), widths, boundary, cval)
    ms = oracle.pad(valid.astype(int), widths, boundary, 1)
    for tap in np.ndindex(w.shape):
        if w[tap] != 0:
            window = tuple(slice(t, t + n) for t, n in zip(tap, x.shape, strict=True))
            yield w[tap], xs[window], ms[window]


class Expected:
    """The sums over the taps of one filter."""

    def __init__(self, x, valid, w, before, boundary, cval=0.0):
        wide = np.complex128 if "c" in x.dtype.kind + w.dtype.kind else np.float64
        self.products, self.weights = np.zeros(x.shape, wide), np.zeros(x.shape, wide)
        self.magnitude, self.weight = np.zeros(x.shape), np.zeros(x.shape)
        self.complete, self.valid, self.terms = np.ones(x.shape, bool), valid, w.size
        for weight, samples, mask in taps_of(x.astype(wide), valid, w, before, boundary, cval):
            self.products += weight * samples
            self.magnitude += abs(weight) * abs(samples)
            self.weights += weight * mask
            self.weight += abs(weight) * mask
            self.complete &= mask == 1
        self.total, self.total_magnitude = w.sum(), np.abs(w).sum()

    def compare(self, result, share, *, computed, derivative=False, min_weight=0.0, keep_nan=False):
        """`result` and the `share` of its weights against these sums."""
        u = max(float(np.finfo(dtype).eps) / 2 for dtype in (computed, result.dtype))
        n = self.terms + 4
        fraction = self.weight / self.total_magnitude
        np.testing.assert_allclose(share, fraction, rtol=4 * n * float(np.finfo(computed).eps), atol=0)
        assert np.all(share[self.complete] == 1) and np.all((share >= 0) & (share <= 1))
        if derivative or abs(self.total) < 0.01 * self.total_magnitude:
            absent, undecided, expected = ~self.complete, np.zeros(fraction.shape, bool), self.products
            allowed = n * u * self.magnitude
        else:
            with np.errstate(all="ignore"):
                kept = abs(self.weights) / self.weight
                scale = self.total / self.weights
                expected = self.products * scale
                # The roundings of both sums, of the sum of all weights, and of their quotient.
                roundings = n + n / kept + n * self.total_magnitude / abs(self.total) + 4
                allowed = 1.01 * u * roundings * abs(scale) * self.magnitude
            absent = (fraction == 0) | (fraction < min_weight) | (kept < 0.01)
            undecided = (abs(fraction - min_weight) < 1e-4) & (min_weight > 0) | (abs(kept - 0.01) < 1e-4)
            undecided &= ~((fraction == 0) | self.complete)
            absent &= ~(self.complete & ~(kept < 0.01))
        if keep_nan:
            absent, undecided = absent | ~self.valid, undecided & self.valid
        judged = ~undecided
        assert np.array_equal(np.isnan(result)[judged], absent[judged])
        judged &= ~absent
        wrong = judged & ~(abs(result - expected) <= allowed + 1e-7 * (result.dtype.char == "e"))
        assert not wrong.any(), f"{result[wrong][0]!r}, not {expected[wrong][0]!r} within {allowed[wrong][0]:.3g}"


def test_the_comparison_notices_a_difference():
    x, valid = np.arange(12.0).reshape(3, 4), np.ones((3, 4), bool)
    valid[1, 2] = False
    expected = Expected(x, valid, np.ones((3, 3)), (1, 1), "edge")
    result, share = ndimage.correlate(x, np.ones((3, 3)), mode="nearest", where=valid, return_weight=True)
    expected.compare(result, share, computed=np.float64)
    for spoil in (1e-10, np.nan):
        spoiled = result.copy()
        spoiled[0, 0] += spoil
        with pytest.raises(AssertionError):
            expected.compare(spoiled, share, computed=np.float64)
    with pytest.raises(AssertionError):
        expected.compare(result, share * 0.999, computed=np.float64)
    with pytest.raises(AssertionError):
        expected.compare(result, share, computed=np.float64, min_weight=0.99)


def test_one_hole_in_a_box_is_the_mean_of_the_others():
    x = np.arange(25.0).reshape(5, 5)
    x[2, 2] = np.nan
    result = ndimage.uniform_filter(x, 3, nan_policy="omit")
    for y, x0 in ((1, 1), (2, 2), (3, 2)):
        assert abs(result[y, x0] - np.nanmean(x[y - 1 : y + 2, x0 - 1 : x0 + 2])) < 1e-13
    assert_same_bits(result, ndimage.correlate1d(ndimage.uniform_filter(x, 3, nan_policy="omit"), [1]))


# ---- images ----


def draw_image(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        return normal(rng, shape, dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)


def draw_holes(data, rng, x, share):
    """The image with NaN strewn in, `where`, and which samples are valid under nan_policy="omit"."""
    if x.dtype.kind in "fc":
        x = x.copy()
        x[rng.random(x.shape) < share] = np.nan
        if x.dtype.kind == "c":
            x.imag[rng.random(x.shape) < share / 4] = np.nan
    where = None
    if x.dtype.kind not in "fc" or data.draw(st.booleans(), "where"):
        cut = data.draw(st.integers(0, x.ndim), "axes that where lacks")
        shape = [n if rng.random() < 0.8 else 1 for n in x.shape[cut:]]
        where = rng.random(shape) >= share
    valid = ~np.isnan(x)
    return x, where, valid if where is None else valid & where


def draw_weights(rng, shape, kind):
    if kind == "integers":
        return rng.integers(0, 5, shape)
    if kind == "negative":
        return -rng.uniform(0.1, 1, shape)
    if kind == "derivative":
        w = rng.uniform(-1, 1, shape)
        return w - np.flip(w)
    if kind == "both signs":
        return rng.uniform(-1, 1, shape) + 0.3
    if kind == "complex":
        return normal(rng, shape, np.complex128)
    return rng.uniform(0.01, 1, shape)


def computed_in(x, output):
    """The real dtype of the sums."""
    if x.dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.finfo(np.promote_types(np.promote_types(x.dtype, output), np.float32)).dtype


@given(st.data())
def test_kernels_of_any_number_of_axes(data):
    rng = np.random.default_rng(data.draw(seeds))
    ndim = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, (20, 8, 5)[ndim - 1])) for _ in range(ndim))
    kernel = tuple(data.draw(st.integers(1, (9, 5, 3)[ndim - 1])) for _ in range(ndim))
    w = draw_weights(rng, kernel, data.draw(st.sampled_from(
        ("positive", "positive", "integers", "negative", "derivative", "both signs", "complex"))))
    dtype = data.draw(st.sampled_from(IMAGES))
    share = data.draw(st.sampled_from((0.0, 0.05, 0.3, 0.8, 1.0)))
    x, where, valid = draw_holes(data, rng, draw_image(rng, shape, dtype), share)
    mode, cval = data.draw(modes), data.draw(st.sampled_from((0.0, 2.5)))
    origin = [data.draw(st.integers(-(k // 2), (k - 1) // 2)) for k in kernel]
    min_weight, keep_nan = data.draw(st.sampled_from((0.0, 0.3, 0.75, 1.0))), data.draw(st.booleans())
    result_kind = "c" if "c" in x.dtype.kind + w.dtype.kind else "f"
    output = np.dtype(data.draw(st.sampled_from(("complex64", "complex128") if result_kind == "c" else ("f4", "f8"))))
    if data.draw(st.booleans(), "an array to fill"):
        output = lay_out(poison(shape, output), data.draw(st.sampled_from(OUT_LAYOUTS)))
    kernel_is_turned = data.draw(st.booleans())
    if not np.any(w):
        return
    settings = dict(mode=mode, cval=cval, where=where, nan_policy="omit", keep_nan=keep_nan, min_weight=min_weight)
    if kernel_is_turned:
        turned = np.flip(w)
        origins = [-o - (k % 2 == 0) for o, k in zip(origin, kernel, strict=True)]
        if any(not -(k // 2) <= o <= (k - 1) // 2 for o, k in zip(origins, kernel, strict=True)):
            return
        function, conjugated = ndimage.convolve, w
    else:
        turned, origins, function, conjugated = w, origin, ndimage.correlate, w.conj()
    laid = lay_out(x, data.draw(st.sampled_from(tuple(LAYOUTS))))
    result, weight = function(laid, turned, output, origin=origins, return_weight=True, **settings)
    if isinstance(output, np.ndarray):
        assert result is output
    computed = computed_in(x, result.dtype)
    assert weight.dtype == computed
    before = [k // 2 + o for k, o in zip(kernel, origin, strict=True)]
    expected = Expected(np.nan_to_num(x, nan=0), valid, conjugated, before, BOUNDARY[mode], cval)
    expected.compare(result, weight, computed=computed, derivative=min_weight == 1, min_weight=min_weight,
                     keep_nan=keep_nan)
    # Nothing changes for what is asked besides.
    native = result.dtype.newbyteorder("=")
    assert_same_bits(function(laid, turned, native, origin=origins, **settings), result.astype(native))


@given(st.data())
def test_filters_of_several_passes(data):
    rng = np.random.default_rng(data.draw(seeds))
    ndim = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, (20, 8, 5)[ndim - 1])) for _ in range(ndim))
    name = data.draw(st.sampled_from(
        ("gaussian_filter", "order", "uniform_filter", "sobel", "prewitt", "laplace", "gaussian_laplace")))
    radius = data.draw(st.integers(0, 3))
    sizes = [data.draw(st.integers(0, 5)) for _ in range(ndim)]
    axis = data.draw(st.integers(0, ndim - 1))
    order = [data.draw(st.integers(1, 2)) * (a == axis) for a in range(ndim)]
    function = {
        "gaussian_filter": lambda x, **kw: ndimage.gaussian_filter(x, 1.1, radius=radius, **kw),
        "order": lambda x, **kw: ndimage.gaussian_filter(x, 0.8, order, radius=radius, **kw),
        "uniform_filter": lambda x, **kw: ndimage.uniform_filter(x, sizes, **kw),
        "sobel": lambda x, **kw: ndimage.sobel(x, axis, **kw),
        "prewitt": lambda x, **kw: ndimage.prewitt(x, axis, **kw),
        "laplace": lambda x, **kw: ndimage.laplace(x, **kw),
        "gaussian_laplace": lambda x, **kw: ndimage.gaussian_laplace(x, 0.8, radius=radius, **kw),
    }[name]
    # What an impulse becomes is the kernel turned round; the impulse of 1 keeps its bits.
    impulse = np.zeros((13,) * ndim)
    impulse[(6,) * ndim] = 1
    w = np.flip(function(impulse, mode="constant"))
    dtype = np.dtype(data.draw(st.sampled_from(("float32", "float64", "complex64", "uint8"))))
    share = data.draw(st.sampled_from((0.0, 0.05, 0.3, 0.8, 1.0)))
    x, where, valid = draw_holes(data, rng, draw_image(rng, shape, dtype), share)
    mode, keep_nan = data.draw(modes), data.draw(st.booleans())
    derivative = name not in ("gaussian_filter", "uniform_filter")
    min_weight = data.draw(st.sampled_from((0.0, 0.5)))
    settings = dict(mode=mode, where=where, nan_policy="omit", keep_nan=keep_nan, min_weight=min_weight)
    output = dtype if dtype.kind in "fc" else np.dtype(np.float64)
    laid = lay_out(x, data.draw(st.sampled_from(tuple(LAYOUTS))))
    result, weight = function(laid, output=output, return_weight=True, **settings)
    expected = Expected(np.nan_to_num(x, nan=0), valid, w, (6,) * ndim, BOUNDARY[mode])
    if name == "gaussian_laplace":
        # Its weight is that of the Gaussian; what is missing under a weight that cancels to 0 counts.
        _, blurred = ndimage.gaussian_filter(
            laid, 0.8, 0, output, mode, radius=radius, where=where, nan_policy="omit", return_weight=True)
        assert_same_bits(weight, blurred)
        absent = (weight != 1) | (~valid if keep_nan else False)
        assert np.array_equal(np.isnan(result), absent)
        u = float(np.finfo(computed_in(x, output)).eps)
        assert np.all(abs(result - expected.products)[~absent] <= 200 * u * (1 + 100 * (dtype.kind == "u")) * 20)
        return
    if name == "order" and radius == 0 and order[axis] == 1:
        assert np.all(result[~np.isnan(result)] == 0)           # no weight but 0: no tap
        return
    if name == "order":
        # The magnitudes of a product are products of the factors' magnitudes.
        expected.terms += 2 * sum(w.shape)
    expected.compare(result, weight, computed=computed_in(x, output), derivative=derivative, min_weight=min_weight,
                     keep_nan=keep_nan)


# ---- what does not change ----


@every_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", BOUNDARY)
def test_where_nothing_is_missing_the_bits_are_the_plain_ones(name, dtype, mode):
    rng = np.random.default_rng(0)
    function, settings = FUNCTIONS[name], dict(mode=mode, cval=1.75)
    if name == "correlate, complex":
        settings["output"] = np.result_type(dtype, np.complex64)
    x = rng.standard_normal((29, 31)).astype(dtype)
    plain = function(x, **settings)
    assert_same_bits(function(x, nan_policy="omit", **settings), plain)
    assert_same_bits(function(x, where=True, keep_nan=True, **settings), plain)
    assert_same_bits(function(x, nan_policy="raise", **settings), plain)
    y = x.copy()
    y[5:9, 7:9] = y[20, 0] = y[28, 30] = np.nan
    result, weight = function(y, nan_policy="omit", return_weight=True, **settings)
    # (a weight that is small enough is lost in the roundings of the others)
    complete = ~np.isnan(function(y, nan_policy="omit", min_weight=1.0, **settings))
    assert 500 < np.count_nonzero(complete) <= np.count_nonzero(weight == 1) < 899
    assert_same_bits(result[complete], plain[complete])
    if name in DERIVATIVES:
        assert np.array_equal(np.isnan(result), ~complete)
    else:
        assert not np.isnan(result[weight > 0]).any() or name == "correlate, complex"
    # Another hole, or what is where it is, changes no other window.
    z = y.copy()
    z[5:9, 7:9] = 1e30
    where = ~np.isnan(y)
    assert_same_bits(function(z, where=where, **settings), result)


@every_function
def test_small_blocks_give_the_same_bits(name, monkeypatch):
    rng = np.random.default_rng(1)
    for mode in BOUNDARY:
        settings = dict(mode=mode, nan_policy="omit", return_weight=True, cval=-0.5)
        if name == "correlate, complex":
            settings["output"] = np.complex128
        x = rng.standard_normal((33, 40))
        x[rng.random(x.shape) < 0.1] = np.nan
        x[:18, :25] = np.nan_to_num(x[:18, :25])
        x[[6, 27], 30] = np.inf
        with monkeypatch.context() as small, np.errstate(invalid="ignore"):
            expected = FUNCTIONS[name](x, **settings)
            small.setattr(missing, "_BLOCK", 60)
            for result, whole in zip(FUNCTIONS[name](x, **settings), expected, strict=True):
                assert_same_class(result, whole)
                assert_same_bits(result[np.isfinite(whole)], whole[np.isfinite(whole)])


@given(st.data())
def test_blocks_of_any_image(data):
    rng = np.random.default_rng(data.draw(seeds))
    ndim = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, (60, 20, 9)[ndim - 1])) for _ in range(ndim))
    kernel = tuple(data.draw(st.integers(1, 6)) for _ in range(ndim))
    origin = [data.draw(st.integers(-(k // 2), (k - 1) // 2)) for k in kernel]
    x = rng.standard_normal(shape)
    x[rng.random(shape) < data.draw(st.sampled_from((0.02, 0.3)))] = np.nan
    w = rng.uniform(0.1, 1, kernel)
    settings = dict(mode=data.draw(modes), cval=3.0, origin=origin, nan_policy="omit")
    expected = ndimage.correlate(x, w, method="direct", **settings)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(missing, "_BLOCK", data.draw(st.integers(1, 100)))
        result = ndimage.correlate(x, w, method="direct", **settings)
    # Sums over axes of which the last is short are taken in another order: in a block too.
    assert_same_class(result, expected)
    scale = max(3.0, np.nanmax(abs(x), initial=0)) * w.sum()
    assert np.all(abs(result - expected)[~np.isnan(expected)] <= 4 * (w.size + 2) * 2.0**-53 * scale)


@pytest.mark.parametrize("kind", ["positive", "derivative", "both signs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [0.002, 0.3, 0.9])
def test_large_kernels(kind, dtype, share, monkeypatch):
    # From about 13 x 13 on sums are taken by transforms of tiles, near small shares of the weights directly.
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((230, 240)).astype(dtype), draw_weights(rng, (25, 23), kind)
    x[rng.random(x.shape) < share] = np.nan
    x[20:70, 30:90] = np.nan
    monkeypatch.setattr(missing, "_BLOCK", 240 * 120)
    settings = dict(nan_policy="omit", return_weight=True)
    for mode in ("mirror", "constant", "wrap"):
        result, weight = ndimage.correlate(x, w, mode=mode, **settings)
        direct, direct_weight = ndimage.correlate(x, w, mode=mode, method="direct", **settings)
        u, n = float(np.finfo(dtype).eps) / 2, w.size
        assert np.array_equal(np.isnan(result), np.isnan(direct)) and np.isnan(direct).any()
        assert np.array_equal(weight == 1, direct_weight == 1) and np.array_equal(weight == 0, direct_weight == 0)
        assert np.all(abs(weight - direct_weight) <= (n + 2) * u)
        there = ~np.isnan(direct)
        # The sums by transforms may err by half as much as direct ones: a quotient of two, so by (n + 2) of 2 (n + 2).
        largest = np.abs(w).sum() * np.nanmax(abs(x))
        assert np.all(abs(result - direct)[there] <= 3 * (n + 2) * u * largest)
        low = there & (direct_weight < 0.99 * 2 * 40 / (n + 2))
        assert_same_bits(result[low], direct[low])
        assert low.any() == (kind != "derivative")


def test_transforms_are_in_use_where_they_are_for_whole_images(monkeypatch):
    taken = []
    transformed = engine.correlate_transformed

    def count(x, *arguments, **settings):
        taken.append(x.shape)
        return transformed(x, *arguments, **settings)

    monkeypatch.setattr(engine, "correlate_transformed", count)
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((256, 256)), rng.uniform(0.1, 1, (17, 17))
    x[rng.random(x.shape) < 0.01] = np.nan
    ndimage.correlate(x, w, nan_policy="omit")
    assert len(taken) == 2
    ndimage.correlate(x, w, nan_policy="omit", method="direct")
    # Integers and complex numbers are summed directly, with and without missing samples.
    integers, where = rng.integers(0, 255, x.shape), ~np.isnan(x)
    where[100:, :] = True
    result = ndimage.correlate(integers, w, float, where=where)
    assert_same_bits(result[120:-20], ndimage.correlate(integers, w, float)[120:-20])
    assert len(taken) == 2


@every_function
def test_threads_change_no_bit(name, threads):
    x = np.random.default_rng(3).standard_normal((300, 310)).astype(np.float32)
    x[np.random.default_rng(4).random(x.shape) < 0.02] = np.nan
    settings = {"output": np.complex64} if name == "correlate, complex" else {}
    one = FUNCTIONS[name](x, nan_policy="omit", workers=1, **settings)
    assert_same_bits(FUNCTIONS[name](x, nan_policy="omit", workers=threads, **settings), one)


@every_function
def test_constant_images_stay_constant(name):
    if name in DERIVATIVES:
        return
    x = np.full((20, 22), 3.0)
    plain = FUNCTIONS[name](x, **({"output": complex} if name == "correlate, complex" else {}))
    rng = np.random.default_rng(5)
    x[rng.random(x.shape) < 0.2] = np.nan
    result = FUNCTIONS[name](x, nan_policy="omit", **({"output": complex} if name == "correlate, complex" else {}))
    there = ~np.isnan(result)
    assert there.mean() > 0.7
    assert np.allclose(result[there], plain[there], rtol=1e-13, atol=0)


# ---- meanings ----


def test_infinity_is_data():
    x = np.ones((7, 7), np.float32)
    x[3, 3], x[0, 6] = np.inf, np.nan
    result = ndimage.uniform_filter(x, 3, nan_policy="omit")
    assert np.isinf(result[2:5, 2:5]).all() and np.isfinite(result).sum() == 49 - 9
    slopes = ndimage.sobel(x, nan_policy="omit")
    assert np.isinf(slopes[3, 2]) and np.isnan(slopes[0, 5]) and slopes[0, 0] == 0
    # A missing infinity has no part in anything.
    assert np.isfinite(ndimage.uniform_filter(x, 3, where=np.isfinite(x))).all()


def test_a_nan_that_is_used_spreads():
    x = np.ones((5, 6))
    x[2, 2] = np.nan
    where = np.ones(x.shape, bool)
    where[0, 5] = False
    result = ndimage.uniform_filter(x, 3, where=where)
    assert np.isnan(result).sum() == 9 and np.isnan(result[1:4, 1:4]).all()
    where[2, 2] = False
    assert not np.isnan(ndimage.uniform_filter(x, 3, where=where)).any()


def test_the_border_of_a_constant_is_there_and_others_continue_the_mask():
    x = np.array([np.nan, 1.0, 2.0, 3.0])
    box = [1.0, 1.0, 1.0]
    result, weight = ndimage.correlate1d(x, box, mode="constant", cval=5.0, nan_policy="omit", return_weight=True)
    assert np.allclose(weight, [2 / 3, 2 / 3, 1, 1]) and np.allclose(result, [9, 4.5, 6, 10])
    for mode, first in (("reflect", 1 / 3), ("nearest", 1 / 3), ("mirror", 2 / 3), ("wrap", 2 / 3)):
        _, weight = ndimage.correlate1d(x, box, mode=mode, nan_policy="omit", return_weight=True)
        assert abs(weight[0] - first) < 1e-15


def test_keep_nan():
    x = np.ones((6, 7))
    x[2, 3] = np.nan
    where = np.ones(x.shape, bool)
    where[5, 5] = False
    filled = ndimage.gaussian_filter(x, 1, nan_policy="omit", where=where)
    assert np.allclose(filled, 1)
    kept = ndimage.gaussian_filter(x, 1, nan_policy="omit", where=where, keep_nan=True)
    assert np.array_equal(np.isnan(kept), np.isnan(x) | ~where)
    assert np.array_equal(kept[~np.isnan(kept)], filled[~np.isnan(kept)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_share_of_min_weight_is_enough(dtype):
    # 1, 2, ... of 9 taps are there.
    for there in range(10):
        x = np.full((3, 3), np.nan, dtype)
        x.flat[:there] = 2
        for least in range(1, 10):
            result = ndimage.correlate(x, np.ones((3, 3)) / 9, nan_policy="omit", mode="wrap", min_weight=least / 9)
            assert np.isnan(result[1, 1]) == (there < least), (there, least)
        assert np.isnan(ndimage.uniform_filter(x, 3, nan_policy="omit", mode="wrap")[1, 1]) == (there == 0)


def test_min_weight_1_is_complete_however_small_the_weight():
    x = np.ones(9, np.float32)
    x[0] = np.nan
    w = [1e-12, 1.0, 1.0]
    assert np.isnan(ndimage.correlate1d(x, w, nan_policy="omit", min_weight=1)[1])
    assert not np.isnan(ndimage.correlate1d(x, w, nan_policy="omit", min_weight=0.999)[1])


def test_small_weights_fill_holes_accurately():
    # The only sample within reach has a weight of 1e-9 of all: its value comes out nevertheless.
    x = np.full(61, np.nan, np.float32)
    x[30] = 7
    result, weight = ndimage.gaussian_filter1d(x, 3, radius=18, nan_policy="omit", return_weight=True)
    assert 0 < weight[12] < 1e-7
    assert np.allclose(result[12:49], 7, rtol=1e-6, atol=0) and np.isnan(result[:12]).all()


def test_derivatives_invent_no_edge():
    ramp = np.arange(30.0).reshape(5, 6)
    ramp[2, 2] = np.nan
    slopes = ndimage.sobel(ramp, nan_policy="omit")
    # Sobel's middle column has no weight.
    expected = np.zeros(ramp.shape, bool)
    expected[1:4, [1, 3]] = True
    assert np.array_equal(np.isnan(slopes), expected)
    inside = slopes[1:-1, 1:-1]
    assert np.all(inside[~np.isnan(inside)] == 8)
    assert np.isnan(ndimage.laplace(ramp, nan_policy="omit")).sum() == 5
    assert np.isnan(ndimage.gaussian_gradient_magnitude(ramp, 0.5, nan_policy="omit", radius=1)).sum() == 8
    # So is a kernel that cancels to less than a hundredth.
    w = np.array([[-1, -1, -1], [-1, 8.1, -1], [-1, -1, -1]])
    assert np.isnan(ndimage.correlate(ramp, w, nan_policy="omit")).sum() == 9


def test_weights_of_both_signs_are_scaled_until_they_cancel():
    x = np.array([5.0, np.nan, 1.0, 2.0, 4.0, 8.0])
    result, weight = ndimage.correlate1d(x, [-1, 3, -1], nan_policy="omit", return_weight=True)
    assert abs(result[1] - 3.0) < 1e-14 and abs(weight[1] - 0.4) < 1e-15
    assert abs(result[2] - 0.5) < 1e-14 and abs(weight[2] - 0.8) < 1e-15
    # Where 1 is missing the others cancel.
    result, weight = ndimage.correlate1d(x, [1, -2, 2], nan_policy="omit", return_weight=True)
    assert np.isnan(result[2]) and abs(weight[2] - 0.8) < 1e-15
    assert abs(result[1] - (5 + 2) / 3) < 1e-14


def test_order_makes_a_derivative_whatever_the_sum_of_its_weights():
    x = np.arange(20.0)
    x[10] = np.nan
    for order, width in ((1, 2), (2, 3)):
        result = ndimage.gaussian_filter(x, 0.7, order, radius=1, nan_policy="omit")
        assert np.isnan(result).sum() == width
        same = ndimage.gaussian_filter1d(x, 0.7, order=order, radius=1, nan_policy="omit")
        assert_same_bits(result, same)


def test_channels():
    rng = np.random.default_rng(6)
    picture = rng.standard_normal((17, 18, 3))
    picture[rng.random(picture.shape) < 0.1] = np.nan
    where = rng.random((17, 18)) < 0.9
    for filter_, settings in (
        (ndimage.gaussian_filter, dict(sigma=1)),
        (ndimage.uniform_filter, dict(size=3)),
        (ndimage.correlate, dict(weights=np.arange(1, 10).reshape(3, 3))),
        (ndimage.sobel, dict(axis=0)),
        (ndimage.laplace, {}),
    ):
        settings = dict(settings, nan_policy="omit", return_weight=True)
        both = filter_(picture, channel_axis=-1, where=where[..., None], **settings)
        first = filter_(np.moveaxis(picture, -1, 0), channel_axis=0, where=where, **settings)
        for c in range(3):
            alone = filter_(picture[..., c].copy(), where=where, **settings)
            for a, b, single in zip(both, first, alone, strict=True):
                assert_same_bits(a[..., c], single)
                assert_same_bits(b[c], single)


def test_axes_and_1d_filters_of_images_with_more_axes():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((6, 7, 8))
    x[rng.random(x.shape) < 0.2] = np.nan
    for axis in range(3):
        one = ndimage.gaussian_filter1d(x, 1, axis, nan_policy="omit")
        assert_same_bits(ndimage.gaussian_filter(x, 1, axes=axis, nan_policy="omit"), one)
    flat = ndimage.uniform_filter(x, 3, axes=(1, 2), nan_policy="omit", return_weight=True)
    for i in range(6):
        for a, b in zip(flat, ndimage.uniform_filter(x[i], 3, nan_policy="omit", return_weight=True), strict=True):
            assert_same_bits(a[i], b)


def test_four_axes():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((4, 5, 4, 6))
    x[1, 2, 3, 4] = np.nan
    assert np.isnan(ndimage.laplace(x, nan_policy="omit")).sum() == 1 + 7
    plain = ndimage.laplace(np.nan_to_num(x))
    result = ndimage.laplace(x, nan_policy="omit")
    assert np.allclose(result[~np.isnan(result)], plain[~np.isnan(result)], atol=1e-12)
    assert np.isnan(ndimage.gaussian_filter(x, 1, nan_policy="omit")).sum() == 0


def test_all_or_none_missing():
    x = np.full((5, 6), np.nan, np.float32)
    for name, function in FUNCTIONS.items():
        settings = {"output": np.complex64} if name == "correlate, complex" else {}
        result, weight = function(x, nan_policy="omit", return_weight=True, **settings)
        assert np.isnan(result).all() and np.all(weight == 0)
        result, weight = function(np.ones((5, 6), np.float32), where=False, return_weight=True, **settings)
        assert np.isnan(result).all() and np.all(weight == 0)
        result, weight = function(np.ones((5, 6), np.float32), return_weight=True, **settings)
        assert weight.dtype == np.float32 and np.all(weight == 1)


def test_empty_and_single_samples():
    for shape in ((0,), (0, 4), (3, 0)):
        result, weight = ndimage.gaussian_filter(np.empty(shape), 1, nan_policy="omit", return_weight=True)
        assert result.shape == weight.shape == shape
    for value in (np.nan, 3.0):
        x = np.array(value)
        result, weight = ndimage.gaussian_filter(x, 1, nan_policy="omit", return_weight=True)
        assert result.shape == weight.shape == () and np.array_equal(result, value, equal_nan=True)
        assert weight == (not np.isnan(value))
        assert np.array_equal(ndimage.correlate(x, np.array(2.0), nan_policy="omit"), 2 * value, equal_nan=True)
    x = np.array([1.0, np.nan, 3.0])
    # Filters that leave the image as it is.
    assert np.array_equal(ndimage.gaussian_filter(x, 0, nan_policy="omit"), x, equal_nan=True)
    assert np.array_equal(ndimage.uniform_filter(x, 1, nan_policy="omit"), x, equal_nan=True)
    assert np.array_equal(ndimage.correlate1d(x, [0.0], nan_policy="omit"), [0, 0, 0])


def test_integers():
    x = np.arange(20, dtype=np.uint8).reshape(4, 5)
    where = np.ones(x.shape, bool)
    where[1, 1] = False
    wide = ndimage.uniform_filter(x.astype(float), 3, where=where)
    assert_same_bits(ndimage.uniform_filter(x, 3, float, where=where), wide)
    narrow, weight = ndimage.uniform_filter(x, 3, np.float32, where=where, return_weight=True)
    assert narrow.dtype == np.float32 and weight.dtype == np.float64
    assert np.allclose(narrow, wide, rtol=3e-7)
    # No integer is NaN, so nothing can be missing.
    for policy in ("omit", "raise"):
        assert_same_bits(ndimage.uniform_filter(x, 3, nan_policy=policy), ndimage.uniform_filter(x, 3))
    result, weight = ndimage.sobel(x, nan_policy="omit", return_weight=True)
    assert_same_bits(result, ndimage.sobel(x))
    assert weight.dtype == np.float64 and np.all(weight == 1)


def test_precision():
    rng = np.random.default_rng(9)
    x = rng.standard_normal((20, 20)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    result, weight = ndimage.gaussian_filter(x, 2, nan_policy="omit", precision="float64", return_weight=True)
    exact = ndimage.gaussian_filter(x.astype(float), 2, nan_policy="omit")
    assert result.dtype == np.float32 and weight.dtype == np.float64
    assert np.all(abs(result - exact) <= 4 * 2.0**-24 * ndimage.gaussian_filter(abs(x), 2, nan_policy="omit").max())


def test_output_may_overlap_input_and_where(monkeypatch):
    monkeypatch.setattr(missing, "_BLOCK", 1000)
    rng = np.random.default_rng(10)
    x = rng.standard_normal((300, 300))
    x[rng.random(x.shape) < 0.1] = np.nan
    expected = ndimage.uniform_filter(x, 5, nan_policy="omit")
    assert ndimage.uniform_filter(x, 5, x, nan_policy="omit") is x
    assert_same_bits(x, expected)
    memory = np.zeros((90, 100))
    where = memory.view(bool)[:, :100]
    where[...] = rng.random(where.shape) < 0.5
    expected = ndimage.uniform_filter(np.ones((90, 100)), 5, where=where.copy())
    ndimage.uniform_filter(np.ones((90, 100)), 5, memory, where=where)
    assert_same_bits(memory, expected)


# ---- errors ----


def test_nan_policy_raise_names_the_nans():
    x = np.zeros((400, 300), np.float32)
    x[250, 7] = x[3, 200] = x[399, 299] = np.nan
    output = np.full_like(x, 7)
    for function in FUNCTIONS.values():
        settings = {} if function is FUNCTIONS["correlate, complex"] else {"output": output}
        with pytest.raises(ValueError, match=r"3 NaN.*\(3, 200\)"):
            function(x, nan_policy="raise", **settings)
    assert np.all(output == 7)
    where = np.ones(x.shape, bool)
    where[3] = False
    with pytest.raises(ValueError, match=r"2 NaN.*\(250, 7\)"):
        ndimage.sobel(x, nan_policy="raise", where=where)
    where[[250, 399]] = False
    ndimage.sobel(x, nan_policy="raise", where=where)
    with pytest.raises(ValueError, match=r"1 NaN.*\(\)"):
        ndimage.gaussian_filter(np.array(np.nan), 1, nan_policy="raise")


@every_function
def test_bad_arguments(name):
    function, x = FUNCTIONS[name], np.ones((5, 6))
    output = np.full((5, 6), 9.0 if name != "correlate, complex" else 9j)
    for error, settings in (
        (ValueError, dict(nan_policy="ignore")),
        (ValueError, dict(nan_policy=None)),
        (TypeError, dict(where=np.ones((5, 6)))),
        (TypeError, dict(where=1)),
        (ValueError, dict(where=np.ones((6, 5), bool))),
        (ValueError, dict(where=np.ones((1, 5, 6), bool))),
        (TypeError, dict(keep_nan=1)),
        (TypeError, dict(return_weight="yes")),
        (ValueError, dict(min_weight=1.5)),
        (ValueError, dict(min_weight=-0.1)),
        (ValueError, dict(min_weight=np.nan)),
        (TypeError, dict(min_weight="half")),
        (TypeError, dict(min_weight=True)),
    ):
        with pytest.raises(error, match=next(iter(settings))):
            function(x, output=output, **settings)
    assert np.all(output == output[0, 0])


def test_integers_hold_no_nan():
    image = np.arange(12).reshape(3, 4)
    for settings in (dict(where=True), dict(where=image > 2)):
        with pytest.raises(ValueError, match=r"output must have a floating dtype.*int64.*output=float"):
            ndimage.uniform_filter(image, 3, **settings)
    for dtype in (np.uint8, bool):
        with pytest.raises(ValueError, match="output must have a floating dtype"):
            ndimage.sobel(image.astype(float), output=dtype, nan_policy="omit")


def test_where_for_all_channels_is_named():
    with pytest.raises(ValueError, match=r"\(5, 6, 3\).*\(5, 6\).*where\[\.\.\., None\]"):
        ndimage.gaussian_filter(np.ones((5, 6, 3)), 1, channel_axis=-1, where=np.ones((5, 6), bool))


def test_a_length_of_gradients_has_no_weight():
    with pytest.raises(TypeError, match="return_weight"):
        ndimage.gaussian_gradient_magnitude(np.ones((5, 6)), 1, return_weight=True)


def test_the_arguments_are_keywords():
    for name in ndimage.__all__:
        parameters = inspect.signature(getattr(ndimage, name)).parameters
        for argument in ("where", "nan_policy", "keep_nan", "min_weight", "return_weight"):
            if argument in parameters:
                assert parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY


# ---- memory ----


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's accounts of memory")
def test_files_are_filtered_in_a_few_megabytes(run_python):
    script = """
import resource
import numpy as np
from pyconv import ndimage

def status(name):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(name + ":"))

shape = (4096, 4096)
image = np.memmap("image.raw", np.float32, "w+", shape=shape)
where = np.memmap("where.raw", bool, "w+", shape=shape)
for row in range(0, shape[0], 256):
    rng = np.random.default_rng(row)
    image[row : row + 256] = rng.integers(-9, 9, (256, shape[1]))
    where[row : row + 256] = rng.random((256, shape[1]), np.float32) < 0.9
    image[row, ::7] = np.nan
result = np.memmap("result.raw", np.float32, "w+", shape=shape)
small = np.ones((64, 64), np.float32)
small[3, 3] = np.nan
ndimage.uniform_filter(small, 3, nan_policy="omit", workers=2)
limit = status("VmData") + 24 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
ndimage.uniform_filter(image, 3, result, nan_policy="omit", where=where, workers=2)
for row, column in ((256, 700), (1, 1), (2000, 4094), (4094, 17)):
    window = slice(row - 1, row + 2), slice(column - 1, column + 2)
    samples = image[window][where[window]]
    assert abs(result[row, column] - np.nanmean(samples)) < 1e-5
print("filtered")
"""
    assert run_python(script) == "filtered\n"


def test_blocks_cover_an_image_once_and_stay_small():
    for shape, sides in (
        ((2000, 3000), [(1, 1), (1, 1)]),
        ((3, 1000, 2000), [(0, 0), (2, 3), (2, 2)]),
        ((300, 300, 300), [(2, 2)] * 3),
        ((10**6,), [(10, 10)]),
        ((7, 5, 1, 4), [(0, 0)] * 4),
    ):
        seen = np.zeros(shape, np.uint8)
        for block, source, inner in missing._blocks(shape, sides, ["symmetric"] * len(shape)):
            seen[block] += 1
            needed = [s.stop - s.start for s in source[1:]]
            assert math.prod(needed) <= 8 * missing._BLOCK
            assert [s.stop - s.start for s in inner[1:]] == [s.stop - s.start for s in block[1:]]
        assert np.all(seen == 1)


# ---- astropy ----


@pytest.mark.parametrize("seed", range(3))
def test_astropy_interpolates_alike(seed):
    convolution = pytest.importorskip("astropy.convolution")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, 31))
    x[rng.random(x.shape) < 0.2] = np.nan
    w = rng.uniform(0.1, 1, (5, 7))
    for boundary, mode in (("extend", "nearest"), ("wrap", "wrap"), ("fill", "constant")):
        expected = convolution.convolve(x, w / w.sum(), boundary, fill_value=0.0, nan_treatment="interpolate")
        result = ndimage.convolve(x, w / w.sum(), mode=mode, nan_policy="omit")
        assert np.allclose(result, expected, rtol=1e-12, atol=1e-12)
        kept = ndimage.convolve(x, w / w.sum(), mode=mode, nan_policy="omit", keep_nan=True)
        preserved = convolution.convolve(x, w / w.sum(), boundary, preserve_nan=True)
        assert np.array_equal(np.isnan(kept), np.isnan(preserved))
