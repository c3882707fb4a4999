"""Separable filters: the engine's two passes in one trip, and kernels that are taken apart for it."""

import cases
import numpy as np
import oracle
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from pyconv import engine, ndimage
from pyconv.separable import separable_factors

# ---- the engine: the bits of two passes ----


def two_passes(x, down, along, out, nbatch, before, boundary, constant, between, pairs=(0, 0), **arithmetic):
    """engine.separable as two calls of correlate, with an array of dtype `between` between them."""
    middle = np.empty((*out.shape[:-1], x.shape[-1]), between)
    for source, w, target, axis in ((x, down[:, None], middle, 0), (middle, along[None], out, 1)):
        engine.correlate(
            np.expand_dims(source, nbatch),
            np.ascontiguousarray(w[None, None]),
            None,
            np.expand_dims(target, nbatch),
            nbatch,
            1,
            (1, 1),
            (1, 1),
            tuple(before[a] if a == axis else 0 for a in range(2)),
            tuple(boundary[a] if a == axis else engine.EDGE for a in range(2)),
            constant,
            1,
            pairs=pairs[axis],
            **arithmetic,
        )


@given(st.data())
def test_one_trip_gives_the_bits_of_two_passes(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    computed = data.draw(st.sampled_from((np.float32, np.float64)))
    dtypes = st.sampled_from(("float32", "float64", "uint8", "int16", "float16", "int32"))
    batch = data.draw(st.sampled_from(((), (2,), (3, 2))))
    size = data.draw(st.integers(1, 40)), data.draw(st.sampled_from((1, 3, 16, 17, 30, 65, 130, 300)))
    x = cases.integer_valued(rng, (*batch, *size), data.draw(dtypes), 99)
    x = cases.lay_out(x, data.draw(st.sampled_from(tuple(cases.LAYOUTS))))
    k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    down, along = (rng.standard_normal(n).astype(computed) for n in k)
    arithmetic = {"fused": data.draw(st.booleans())}
    order = data.draw(st.sampled_from(("taps", "no zeros", "pairs")))
    if order == "no zeros" or not arithmetic["fused"]:
        # (without pairs or fusion and with zeros, SciPy's order is that of correlate on an image taken twice)
        arithmetic["skip_zeros"] = True
        down[rng.random(k[0]) < 0.3] = 0
    pairs = (0, 0)
    if order == "pairs" and k[0] % 2 == k[1] % 2 == 1:
        arithmetic, pairs = {"fused": False}, tuple(data.draw(st.sampled_from((1, -1))) for _ in k)
        down, along = down + pairs[0] * down[::-1], along + pairs[1] * along[::-1]
    shape = (*batch, *(max(1, n + data.draw(st.integers(-2, 2))) for n in size))
    output = np.dtype(data.draw(dtypes))
    rounded = data.draw(st.booleans())
    before = tuple(data.draw(st.integers(-1, n)) for n in k)
    boundary = tuple(data.draw(st.sampled_from(tuple(engine.BOUNDARIES.values()))) for _ in k)
    expected = np.empty(shape, output)
    between = output if rounded else computed
    two_passes(x, down, along, expected, len(batch), before, boundary, 2.5, between, pairs, **arithmetic)
    out = cases.lay_out(np.empty(shape, output), data.draw(st.sampled_from(cases.OUT_LAYOUTS)))
    workers = data.draw(st.integers(1, 3))
    engine.separable(x, down, along, out, len(batch), before, boundary, 2.5, workers, pairs=pairs, rounded=rounded,
                     **arithmetic)  # fmt: skip
    oracle.assert_same_bits(np.ascontiguousarray(out, output), expected)


@pytest.mark.parametrize("boundary", engine.BOUNDARIES)
@pytest.mark.parametrize("k", [(3, 3), (21, 5), (2, 9), (9, 150)])
def test_rows_in_several_blocks(boundary, k, threads):
    x = cases.integer_valued(np.random.default_rng(1), (30, 2100), np.float32, 9)
    down, along = (cases.integer_valued(np.random.default_rng(n), n, np.float32, 3) for n in k)
    expected, out = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    place = (k[0] // 2, k[1] // 2), (engine.BOUNDARIES[boundary],) * 2, 3.0
    two_passes(x, down, along, expected, 0, *place, np.float32)
    engine.separable(x, down, along, out, 0, *place, threads)
    oracle.assert_same_bits(out, expected)
    sums = scipy.ndimage.correlate1d(x[:, :40].astype(np.float64), down, 0, mode="constant")
    sums = scipy.ndimage.correlate1d(sums, along, 1, mode="constant")
    inside = slice(k[0], -k[0]), slice(k[1], 40 - k[1])
    if k[1] < 20 and k[0] < 15:
        oracle.assert_same_values(out[inside], sums[inside])


@pytest.mark.parametrize("pixel", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_channels_last_images_are_filtered_where_they_lie(pixel, dtype):
    x = cases.integer_valued(np.random.default_rng(2), (21, 70, pixel), dtype, 9)
    down, along = np.float32([1, 2, 3]), np.float32([1, 0, 4, 5, 6])
    out, expected = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    for boundary in engine.BOUNDARIES.values():
        place = (1, 2), (boundary,) * 2, 2.0
        engine.separable(np.moveaxis(x, -1, 0), down, along, np.moveaxis(out, -1, 0), 1, *place, 2)
        for c in range(pixel):
            plane = np.empty(x.shape[:2], np.float32)
            engine.separable(np.ascontiguousarray(x[..., c]), down, along, plane, 0, *place, 1)
            expected[..., c] = plane
        oracle.assert_same_bits(out, expected)


@pytest.mark.parametrize("shape", [(1, 1), (5, 15), (6, 16), (9, 47), (4, 130), (40, 513)])
@pytest.mark.parametrize("side", ["start", "end"])
def test_no_load_leaves_the_image(shape, side):
    x = cases.integer_valued(np.random.default_rng(3), shape, np.float32, 9)
    for k in (3, 9):
        w = np.arange(1, k + 1, dtype=np.float32)
        out, expected = np.empty(shape, np.float32), np.empty(shape, np.float32)
        place = (k // 2,) * 2, (engine.SYMMETRIC,) * 2, 0.0
        two_passes(x, w, w, expected, 0, *place, np.float32)
        for workers in (1, 2):
            guarded = cases.guarded(np.zeros(shape, np.float32), side)
            engine.separable(cases.guarded(x, side), w, w, guarded, 0, *place, workers)
            oracle.assert_same_bits(guarded, expected)
        engine.separable(x, w, w, out, 0, *place, 1)
        oracle.assert_same_bits(out, expected)


def test_sums_are_divided_exactly_and_then_truncated():
    # Multiples of the divisor, and one less than these: the quotients that a rounded reciprocal gets wrong.
    for dtype in (np.float32, np.float64):
        for size in (3, 7, 49, 255):
            sums = np.arange(1, 60) * size
            x = np.array([sums - 1, sums, sums + 1], np.int32)
            out = np.empty_like(x)
            one = np.ones(1, dtype)
            for divisors in ((size, 0), (0, size)):
                engine.separable(x, one, one, out, 0, (0, 0), (engine.EDGE,) * 2, 0, 1, divisors=divisors)
                oracle.assert_same_values(out, x // size)


# ---- kernels taken apart ----


def outer(*factors):
    product = np.ones(())
    for factor in factors:
        product = np.multiply.outer(product, factor)
    return product


@given(st.data())
def test_factors_of_products(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from((np.float32, np.float64)))
    factors = [rng.standard_normal(n) * 10.0 ** rng.uniform(-3, 3) for n in sizes]
    for factor in factors:
        factor[1:][rng.random(factor.size - 1) < 0.2] = 0
    kernel = outer(*factors)
    found = separable_factors(kernel, dtype)
    assert [factor.shape for factor in found] == [(n,) for n in sizes]
    product = outer(*found)
    oracle.assert_same_values(product == 0, kernel == 0)
    np.testing.assert_allclose(product, kernel, rtol=2 * kernel.ndim**2 * 2**-53, atol=0)
    assert all(np.abs(factor).max() == 1 for factor in found[1:])
    if kernel.ndim > 1 and min(sizes) > 1 and np.all(kernel):
        # One weight off by more than the rounding, wherever it is.
        spoiled = kernel.copy()
        spoiled[tuple(rng.integers(0, n) for n in sizes)] += np.abs(kernel).max() * 1e-3
        assert separable_factors(spoiled, dtype) is None


@given(st.data())
def test_factors_of_integers_are_integers(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    factors = [rng.integers(-5, 6, data.draw(st.integers(2, 6))) for _ in range(data.draw(st.integers(2, 3)))]
    for factor in factors:
        factor[0] = data.draw(st.sampled_from((1, -2, 3)))
    kernel = outer(*factors).astype(data.draw(st.sampled_from((np.int64, np.float64)))) * 6
    found = separable_factors(kernel, np.float32)
    assert all(np.array_equal(factor, np.rint(factor)) for factor in found)
    oracle.assert_same_values(outer(*found), kernel)
    kernel[(-1,) * kernel.ndim] += 1
    again = separable_factors(kernel, np.float32)
    assert again is None or np.array_equal(outer(*again), kernel)


def test_kernels_without_factors():
    for kernel in (np.eye(3), np.eye(3) + 0.5, np.zeros((3, 3)), np.array([[1, 2], [2, 5]]), np.array([[2**60, 1]])):
        assert separable_factors(kernel, np.float32) is None
    for value in (np.nan, np.inf):
        kernel = np.ones((3, 3))
        kernel[1, 2] = value
        assert separable_factors(kernel, np.float64) is None
    # A product that has a zero where the kernel has none, or the reverse.
    kernel = np.full((3, 3), 1.0)
    kernel[0, 0] = 1e-30
    assert separable_factors(kernel, np.float32) is None
    kernel = np.outer([1, 1e-20, 1], [1.5, 1e-20, 1])
    kernel[1, 1] = 0
    assert separable_factors(kernel, np.float32) is None
    assert separable_factors(np.outer([1.5, 1e-30], [1.0, 1e-30]), np.float32) is None


def test_the_usual_gaussians_are_products():
    x = np.arange(-8, 9)
    squares = x**2 + x[:, None] ** 2
    for sigma in (0.8, 2, 5):
        for dtype in (np.float32, np.float64):
            assert separable_factors(np.exp(-squares / (2 * sigma**2)), dtype) is not None
        kernel = np.exp(-squares / (2 * sigma**2))
        assert separable_factors(kernel / kernel.sum(), np.float32) is not None


# ---- ndimage.correlate(method=) ----


def images(rng, dtype, size):
    """The data on which a method other than the direct one must show its accuracy."""
    impulses = np.zeros(size, dtype)
    impulses[rng.integers(0, size[0], 30), rng.integers(0, size[1], 30)] = rng.standard_normal(30)
    yield "impulses", impulses
    yield "normal", rng.standard_normal(size).astype(dtype)
    yield "uniform", rng.uniform(size=size).astype(dtype)
    yield "decades", (rng.standard_normal(size) * 10 ** rng.uniform(-6, 6, size)).astype(dtype)
    camera = pytest.importorskip("skimage.data").camera()[: size[0], 150 : 150 + size[1]]
    yield "camera", (camera / dtype(255)).astype(dtype)


def adversarial(kernel, size, dtype):
    """Samples whose signs are those of the weights of one window after the other: nothing cancels."""
    tiles = -(-np.array(size) // kernel.shape)
    return np.tile(np.where(kernel < 0, -1, 1), tiles)[: size[0], : size[1]].astype(dtype) / dtype(3)


def exact(x, kernel):
    """(sums of products, sums of their magnitudes), in extended precision."""
    reach = [(n // 2, n - 1 - n // 2) for n in kernel.shape]
    padded = np.pad(x.astype(np.longdouble), reach, mode="symmetric")
    sums, magnitudes = (np.zeros(x.shape, np.longdouble) for _ in range(2))
    for tap, weight in np.ndenumerate(kernel.astype(np.longdouble)):
        window = padded[tuple(slice(t, t + n) for t, n in zip(tap, x.shape, strict=True))]
        sums += weight * window
        magnitudes += abs(weight * window)
    return sums, magnitudes


def kernels(rng, k, dtype):
    gaussian = np.exp(-0.5 * (np.arange(k) - k // 2) ** 2 / (k / 5) ** 2)
    yield np.outer(gaussian, gaussian)
    yield np.full((k, k), 1 / k**2)
    yield np.outer(rng.standard_normal(k), rng.standard_normal(k))
    yield np.outer(gaussian, gaussian * (np.arange(k) - k // 2))
    if dtype == np.float32:
        # (rounded to float32, it is no product to sums in float64)
        yield np.outer(gaussian, gaussian[::-1] / 3).astype(np.float32).astype(float)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [5, 6, 7, 11, 21])
def test_automatic_choice_stays_below_half_of_the_direct_bound(dtype, k):
    """(n + 2) u max(|x| * |w|), at the sizes of kernels from which on "auto" takes factors."""
    rng = np.random.default_rng(k)
    u = float(np.finfo(dtype).eps) / 2
    for kernel in kernels(rng, k, dtype):
        for name, x in (*images(rng, dtype, (60, 70)), ("signs", adversarial(kernel, (60, 70), dtype))):
            sums, magnitudes = exact(x, kernel)
            automatic = ndimage.correlate(x, kernel)
            oracle.assert_same_bits(automatic, ndimage.correlate(x, kernel, method="separable"))
            error = abs(automatic - sums)
            assert error.max() < 0.5 * (kernel.size + 2) * u * magnitudes.max(), name
            # What is more, two passes with exact factors are as accurate at each single pixel.
            assert np.all(error <= (2 * k + 2 + 8) * u * (magnitudes + x.max() * abs(kernel).max() / kernel.size))


def test_automatic_choice_takes_factors_of_large_kernels_only():
    x = np.random.default_rng(4).standard_normal((50, 60)).astype(np.float32)
    for k in (3, 4, 5, 6, 9):
        kernel = np.outer(np.linspace(0.1, 0.7, k), np.linspace(0.3, 0.4, k))
        direct, apart, auto = (
            ndimage.correlate(x, kernel, method=method) for method in ("direct", "separable", "auto")
        )
        assert np.any(direct != apart)
        oracle.assert_same_bits(auto, apart if k >= 5 else direct)
    kernel = np.random.default_rng(5).standard_normal((9, 9))
    oracle.assert_same_bits(ndimage.correlate(x, kernel), ndimage.correlate(x, kernel, method="direct"))


@given(st.data())
def test_factors_of_integer_kernels_are_exact(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ndim = data.draw(st.integers(2, 4))
    x = cases.integer_valued(rng, data.draw(st.lists(st.integers(1, 12), min_size=ndim, max_size=ndim).map(tuple)),
                             data.draw(st.sampled_from(("uint8", "int16", "float32", "float64", "complex64"))), 50)
    x = cases.lay_out(x, data.draw(st.sampled_from(tuple(cases.LAYOUTS))))
    axes = sorted(data.draw(st.permutations(range(ndim)))[: data.draw(st.integers(2, ndim))])
    kernel = outer(*(rng.integers(-2, 3, data.draw(st.integers(1, 4))) for _ in axes))
    kernel.flat[0] = kernel.flat[0] or 0
    if not kernel.any():
        return
    settings = {
        "mode": data.draw(st.sampled_from(("reflect", "mirror", "nearest", "wrap"))),
        "axes": axes,
        "origin": data.draw(st.sampled_from((0, -1))) if min(kernel.shape) > 2 else 0,
    }
    # With three axes or more, the first sums stand in the output, which must have their precision.
    narrow = x.dtype.char != "d" or len(axes) == 2
    output = data.draw(st.sampled_from((np.float32, np.float64) if narrow else (np.float64,)))
    if x.dtype.kind == "c":
        output = np.complex64
    for name in ("correlate", "convolve"):
        function = getattr(ndimage, name)
        apart = function(x, kernel, output, method="separable", **settings)
        oracle.assert_same_values(apart, function(x, kernel, output, method="direct", **settings))


@pytest.mark.parametrize("name", ["correlate", "convolve"])
def test_constant_borders_with_factors(name):
    # Beyond a constant border the direct sum has the constant times all weights there: so must two passes.
    x = cases.integer_valued(np.random.default_rng(6), (12, 13), np.float32, 9)
    kernel = np.outer(np.arange(1, 8), np.arange(2, 9))
    for cval in (0, 3, -1.5):
        settings = {"mode": "constant", "cval": cval}
        direct = getattr(ndimage, name)(x, kernel, method="direct", **settings)
        oracle.assert_same_values(getattr(ndimage, name)(x, kernel, **settings), direct)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_what_it_is_directly(bad):
    x = np.random.default_rng(7).standard_normal((40, 50)).astype(np.float32)
    x[20, 25], x[20, 27], x[21, 25], x[0, 0], x[33, 1] = bad, np.inf, -np.inf, bad, -np.inf
    kernel = np.outer([1, 2, 0, 3, 0, -1, 4.5], [1, 0, 0, 2, 3, 1, 1.5])
    direct = ndimage.correlate(x, kernel, method="direct")
    apart = ndimage.correlate(x, kernel, method="separable")
    assert np.isnan(direct).any()
    assert np.isinf(direct).any()
    oracle.assert_same_class(apart, direct)
    finite = np.isfinite(direct)
    np.testing.assert_allclose(apart[finite], direct[finite], rtol=1e-4, atol=1e-4)


def test_factors_that_overflow_where_the_kernel_does_not():
    # The largest weight of the second factor stands on no pixel: all sums are small, those of one factor are not.
    x = np.zeros((9, 9), np.float32)
    x[:, 0] = 1e38
    kernel = np.outer(np.ones(7), [1e-9, 0, 0, 0, 0, 0, 1.5])
    settings = {"mode": "constant", "origin": (0, -3)}
    direct = ndimage.correlate(x, kernel, method="direct", **settings)
    assert np.isfinite(direct).all()
    apart = ndimage.correlate(x, kernel, method="separable", **settings)
    assert np.isfinite(apart).all()
    np.testing.assert_allclose(apart, direct, rtol=1e-5)


def test_errors_of_method():
    x, product = np.ones((9, 9)), np.ones((3, 3))
    with pytest.raises(ValueError, match="method must be one of 'auto', 'direct', 'separable'; got 'fft'"):
        ndimage.correlate(x, product, method="fft")
    with pytest.raises(ValueError, match="method must be one of"):
        ndimage.convolve(x, product, method=None)
    untouched = np.full((9, 9), 7.0)
    for image, kernel, output in (
        (x, np.eye(3), untouched),
        (x, np.eye(3) * 1j + 1, None),
        (x[0], np.ones(3), None),
        (x.astype(np.uint8), product / 9, None),
        (np.ones((9, 9), np.int64) << 60, np.ones((3, 3), int), None),
    ):
        with pytest.raises(ValueError, match=r"method='separable' needs .* outer product .*method='auto'"):
            ndimage.correlate(image, kernel, output, method="separable")
    assert np.all(untouched == 7)


def test_remembered_factors_follow_the_weights():
    x = np.random.default_rng(8).standard_normal((30, 30))
    kernel = np.outer(np.arange(1.5, 9), np.ones(8))
    before = ndimage.correlate(x, kernel)
    kernel *= 2
    oracle.assert_same_bits(ndimage.correlate(x, kernel), 2 * before)
