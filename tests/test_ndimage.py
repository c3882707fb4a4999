"""pyconv.ndimage against scipy.ndimage: the same calls, the same results.

Integers must agree bit for bit. Of floats each library may be off by its own rounding, so they must agree within
the sum of two error bounds of the form (n + 2) u (|x| * |w|), which SciPy itself computes from absolute values.
"""

import inspect
import itertools

import numpy as np
import pytest
import scipy.ndimage
from cases import LAYOUTS, OUT_LAYOUTS, integer_valued, lay_out, normal
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import assert_same_bits, assert_same_class, assert_same_values
from oracle import correlate as oracle_correlate

from pyconv import ndimage

MODES = ("reflect", "grid-mirror", "mirror", "nearest", "wrap", "grid-wrap", "constant", "grid-constant")
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")
FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")

FUNCTIONS = {
    "correlate": lambda m, x, **kw: m.correlate(x, np.arange(9).reshape(3, 3) - 3, **kw),
    "convolve": lambda m, x, **kw: m.convolve(x, np.arange(6).reshape(2, 3) - 3, **kw),
    "correlate1d": lambda m, x, **kw: m.correlate1d(x, [1, -2, 4], 0, **kw),
    "convolve1d": lambda m, x, **kw: m.convolve1d(x, [1, -2, 4, 0], **kw),
    "sobel": lambda m, x, **kw: m.sobel(x, **kw),
    "prewitt": lambda m, x, **kw: m.prewitt(x, 0, **kw),
    "laplace": lambda m, x, **kw: m.laplace(x, **kw),
    "gaussian_filter": lambda m, x, **kw: m.gaussian_filter(x, 0.9, **kw),
    "gaussian_filter1d": lambda m, x, **kw: m.gaussian_filter1d(x, 1.2, 0, order=1, **kw),
    "uniform_filter": lambda m, x, **kw: m.uniform_filter(x, (3, 4), **kw),
    "uniform_filter1d": lambda m, x, **kw: m.uniform_filter1d(x, 5, 0, **kw),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())


# ---- comparing with SciPy ----


def unit_roundoff(dtype):
    return float(np.finfo(dtype).eps) / 2 if np.dtype(dtype).kind in "fc" else 2.0**-53


def tolerance(magnitude, terms, dtypes, passes=1):
    """What two sums of `terms` products may differ by, rounded to the narrowest of `dtypes` in every operation."""
    rounding = max(unit_roundoff(dtype) for dtype in dtypes)
    operations = terms + 3 * passes
    smallest = max(float(np.finfo(d).smallest_subnormal) if np.dtype(d).kind in "fc" else 0 for d in dtypes)
    return 2 * operations * (rounding / (1 - operations * rounding) * magnitude + smallest)


def assert_agree(actual, expected, allowed):
    """Equal dtypes and shapes; integers and booleans equal, floats within `allowed` in each component."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind not in "fc":
        assert_same_values(actual, expected)
        return
    difference = np.maximum(abs(actual.real - expected.real), abs(actual.imag - expected.imag))
    allowed = np.broadcast_to(allowed, difference.shape)
    wrong = ~(difference <= allowed)
    assert not wrong.any(), f"{actual[wrong][0]!r}, SciPy has {expected[wrong][0]!r}, allowed {allowed[wrong][0]:.3g}"


def parts(a):
    return (a.real, a.imag) if np.iscomplexobj(a) else (a,)


def magnitude_of(function, x, weights, cval, **settings):
    """|x| * |w| in float64, the parts of complex numbers added up."""
    total = 0.0
    for xs, ws in itertools.product(parts(x), parts(weights)):
        total = total + function(abs(xs.astype(np.float64)), abs(ws.astype(np.float64)), cval=abs(cval), **settings)
    return total


def test_the_comparison_notices_a_difference():
    x = np.ones((3, 3), np.float32)
    allowed = tolerance(np.full((3, 3), 9.0), 9, ["float32"])
    assert_agree(x, x, allowed)
    assert np.all(allowed < 1e-4)
    spoiled = x.copy()
    spoiled[1, 1] += 1e-4
    with pytest.raises(AssertionError):
        assert_agree(spoiled, x, allowed)
    with pytest.raises(AssertionError):
        assert_agree(x.astype(int), x.astype(int) + 1, allowed)
    with pytest.raises(AssertionError):
        assert_agree(np.full((3, 3), np.nan, np.float32), x, allowed)


# ---- drawing images ----


def draw_image(rng, shape, dtype):
    """Values that keep sums of integers within 32 bits, where C defines how they are converted."""
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        return normal(rng, shape, dtype)
    if dtype.kind == "b":
        return integer_valued(rng, shape, dtype, 1)
    largest = min(np.iinfo(dtype).max, 2**20)
    return integer_valued(rng, shape, dtype, largest)


def draw_weights(rng, shape, kind):
    if kind == "integer":
        return rng.integers(-4, 4, shape, endpoint=True)
    if kind == "complex":
        return normal(rng, shape, np.complex128)
    weights = rng.uniform(-1, 1, shape)
    if kind == "even":
        return weights + np.flip(weights)
    if kind == "odd":
        return weights - np.flip(weights)
    return weights


def draw_output(data, complex_result, integral):
    """None or a dtype; floats are not stored in integers of fewer bits than their sums need."""
    if complex_result:
        return data.draw(st.sampled_from((None, *COMPLEX)))
    wide = ("int32", "int64", "float32", "float64")
    return data.draw(st.sampled_from((None, "bool", *INTEGERS, *FLOATS) if integral else (None, *wide)))


seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(("bool", *INTEGERS, *FLOATS, *COMPLEX))
layouts = st.sampled_from(tuple(LAYOUTS))
constants = st.sampled_from((0.0, 1, -2, 2.5, 0.3))
modes = st.sampled_from(MODES)


@given(st.data())
def test_correlate_and_convolve(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.lists(st.integers(1, 7), max_size=3).map(tuple))
    x = lay_out(draw_image(rng, shape, data.draw(dtypes)), data.draw(layouts))
    axes = None
    if data.draw(st.booleans()):
        axes = tuple(data.draw(st.permutations(range(x.ndim))))[: data.draw(st.integers(0, x.ndim))]
        axes = tuple(axis - x.ndim * data.draw(st.integers(0, 1)) for axis in axes)
    count = x.ndim if axes is None else len(axes)
    kernel = tuple(data.draw(st.lists(st.integers(1, 5), min_size=count, max_size=count)))
    weights = draw_weights(rng, kernel, data.draw(st.sampled_from(("integer", "float", "complex"))))
    smallest = min(kernel, default=1)
    settings = {
        "mode": data.draw(modes),
        "cval": data.draw(constants),
        "origin": [data.draw(st.integers(-((smallest - 1) // 2), (smallest - 1) // 2)) for _ in kernel],
        "axes": axes,
    }
    output = draw_output(data, np.iscomplexobj(x) or np.iscomplexobj(weights), x.dtype.kind in "biu")
    name = data.draw(st.sampled_from(("correlate", "convolve")))
    actual = getattr(ndimage, name)(x, weights, output and np.dtype(output), **settings)
    expected = getattr(scipy.ndimage, name)(x, weights, output and np.dtype(output), **settings)
    magnitude = magnitude_of(getattr(scipy.ndimage, name), x, weights, **settings)
    terms = 2 * weights.size if np.iscomplexobj(weights) else weights.size
    assert_agree(actual, expected, tolerance(magnitude, terms, {x.dtype, expected.dtype}))


@pytest.mark.parametrize("name", ["correlate", "convolve"])
@pytest.mark.parametrize("axes", [*itertools.permutations(range(3)), *itertools.permutations(range(-2, 1), 2)])
def test_orders_of_axes(name, axes):
    x = integer_valued(np.random.default_rng(14), (6, 7, 8), np.int32, 99)
    weights = np.arange(2 * 3 * 4).reshape(2, 3, 4) if len(axes) == 3 else np.arange(4 * 5).reshape(4, 5)
    for origin in (0, [0] * (len(axes) - 1) + [-1], [-1] + [0] * (len(axes) - 1)):
        actual = getattr(ndimage, name)(x, weights, origin=origin, axes=axes)
        assert_same_bits(actual, getattr(scipy.ndimage, name)(x, weights, origin=origin, axes=axes))


@given(st.data())
def test_correlate1d_and_convolve1d(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    x = lay_out(draw_image(rng, shape, data.draw(dtypes)), data.draw(layouts))
    kind = data.draw(st.sampled_from(("integer", "float", "even", "odd", "complex")))
    weights = draw_weights(rng, data.draw(st.integers(1, 9)), kind)
    reach = (weights.size - 1) // 2
    settings = {
        "axis": data.draw(st.integers(-x.ndim, x.ndim - 1)),
        "mode": data.draw(modes),
        "cval": data.draw(constants),
        "origin": data.draw(st.integers(-reach, reach)),
    }
    output = draw_output(data, np.iscomplexobj(x) or np.iscomplexobj(weights), x.dtype.kind in "biu")
    output = np.dtype(output or (x.dtype if x.dtype.kind == "c" or kind != "complex" else "complex128"))
    name = data.draw(st.sampled_from(("correlate1d", "convolve1d")))
    actual = getattr(ndimage, name)(x, weights, output=output.newbyteorder("="), **settings)
    expected = getattr(scipy.ndimage, name)(x, weights, output=output.newbyteorder("="), **settings)
    magnitude = magnitude_of(getattr(scipy.ndimage, name), x, weights, **settings)
    terms = 2 * weights.size if np.iscomplexobj(weights) else weights.size
    assert_agree(actual, expected, tolerance(magnitude, terms, {x.dtype, output}))


@given(st.data())
def test_slopes_and_laplacian(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    x = lay_out(draw_image(rng, shape, data.draw(dtypes)), data.draw(layouts))
    name = data.draw(st.sampled_from(("sobel", "prewitt", "laplace")))
    settings = {"mode": data.draw(modes), "cval": data.draw(constants)}
    if data.draw(st.booleans()):
        settings["mode"] = [data.draw(modes) for _ in shape]
    if name != "laplace":
        settings["axis"] = data.draw(st.integers(-x.ndim, x.ndim - 1))
    elif data.draw(st.booleans()):
        settings["axes"] = tuple(data.draw(st.permutations(range(x.ndim))))
    output = draw_output(data, x.dtype.kind == "c", x.dtype.kind in "biu")
    output = np.dtype(output or x.dtype).newbyteorder("=")
    actual = getattr(ndimage, name)(x, output=output, **settings)
    expected = getattr(scipy.ndimage, name)(x, output=output, **settings)
    # All weights of one axis have absolute values that sum to 4 at most.
    beyond = np.abs(settings["cval"]) * 4.0**x.ndim
    magnitude = x.ndim * 4.0**x.ndim * np.abs(x).max(initial=0).astype(np.float64) + beyond
    assert_agree(actual, expected, tolerance(magnitude, 3**x.ndim, {x.dtype, output}, passes=x.ndim))


@given(st.data())
def test_gaussian_filter(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    x = lay_out(draw_image(rng, shape, data.draw(dtypes)), data.draw(layouts))
    each = {"min_size": x.ndim, "max_size": x.ndim}
    settings = {
        "sigma": data.draw(st.lists(st.sampled_from((0, 0.1, 0.5, 1, 2.3)), **each)),
        "order": data.draw(st.lists(st.integers(0, 3), **each)),
        "mode": data.draw(st.lists(modes, **each)),
        "cval": data.draw(constants),
        "truncate": data.draw(st.sampled_from((4.0, 2.5))),
        "radius": data.draw(st.none() | st.lists(st.integers(0, 5), **each)),
        "axes": tuple(data.draw(st.permutations(range(x.ndim)))),
    }
    output = draw_output(data, x.dtype.kind == "c", x.dtype.kind in "biu")
    output = np.dtype(output or x.dtype).newbyteorder("=")
    actual = ndimage.gaussian_filter(x, output=output, **settings)
    expected = scipy.ndimage.gaussian_filter(x, output=output, **settings)
    cval = abs(settings["cval"])
    magnitude, terms, parity = max(float(np.abs(x).max(initial=0)), cval), 0, 0.0
    radii = settings["radius"] or [None] * x.ndim
    for sigma, order, radius in zip(settings["sigma"], settings["order"], radii, strict=True):
        if sigma > 0:
            weights = abs(gaussian_weights(ndimage, sigma, order, settings["truncate"], radius))
            # SciPy takes each pair of weights for equal that is so within an epsilon, however small they are.
            parity = parity * weights.sum() + weights.size * np.finfo(np.float64).eps * magnitude
            # Beyond a constant border the constant is there in every pass.
            magnitude = max(magnitude * weights.sum(), cval)
            terms += weights.size
            # What C converts to an integer of up to 32 bits must fit 32 bits.
            assume(output.kind in "fc" or magnitude < 2**31)
    assert_agree(actual, expected, tolerance(magnitude, terms, {x.dtype, output}, passes=x.ndim) + parity)


@given(st.data())
def test_uniform_filters(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    x = lay_out(draw_image(rng, shape, data.draw(dtypes)), data.draw(layouts))
    axes = tuple(data.draw(st.permutations(range(x.ndim))))[: data.draw(st.integers(0, x.ndim))]
    sizes = [data.draw(st.integers(0, 9)) for _ in axes]
    settings = {
        "mode": [data.draw(modes) for _ in axes],
        "cval": data.draw(st.sampled_from((0.0, 1, -2))),
        "origin": [data.draw(st.integers(-((k - 1) // 2), (k - 1) // 2)) if k > 1 else 0 for k in sizes],
        "axes": axes,
    }
    # (a truncated running sum of floats is off by what went through it before)
    output = draw_output(data, x.dtype.kind == "c", True) if x.dtype.kind in "biu" else None
    output = np.dtype(output or x.dtype).newbyteorder("=")
    actual = ndimage.uniform_filter(x, sizes, output, **settings)
    expected = scipy.ndimage.uniform_filter(x, sizes, output, **settings)
    magnitude = max(float(np.abs(x).max(initial=0)), abs(settings["cval"]))
    assert_agree(actual, expected, tolerance(2 * magnitude, 60, {x.dtype, output}, passes=x.ndim))
    if axes and x.dtype.kind in "biu":
        size = max(sizes[0], 1)
        along = {"axis": axes[0], "mode": settings["mode"][0], "cval": 3, "origin": settings["origin"][0]}
        actual = ndimage.uniform_filter1d(x, size, output=output, **along)
        expected = scipy.ndimage.uniform_filter1d(x, size, output=output, **along)
        assert_agree(actual, expected, tolerance(2 * magnitude, 60, {x.dtype, output}))


def test_a_nan_spoils_the_boxes_it_is_in():
    x = np.ones((20, 30), np.float32)
    x[7, 11] = np.nan
    expected = np.zeros(x.shape, bool)
    expected[5:10, 10:13] = True
    np.testing.assert_array_equal(np.isnan(ndimage.uniform_filter(x, (5, 3))), expected)


@given(st.data())
def test_gaussian_laplacian_and_gradient(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    x = lay_out(normal(rng, shape, data.draw(st.sampled_from(FLOATS))), data.draw(layouts))
    axes = tuple(data.draw(st.permutations(range(x.ndim))))[: data.draw(st.integers(1, x.ndim))]
    settings = {"mode": [data.draw(modes) for _ in axes], "cval": data.draw(constants), "axes": axes}
    for name, count in (("gaussian_laplace", len(axes)), ("gaussian_gradient_magnitude", x.ndim)):
        sigma = [data.draw(st.sampled_from((0.6, 1, 2.1))) for _ in range(count)]
        actual = getattr(ndimage, name)(x, sigma, truncate=3.0, **settings)
        expected = getattr(scipy.ndimage, name)(x, sigma, truncate=3.0, **settings)
        # The second derivative's weights have absolute values that sum to 4 / sigma**2 at most. A square root takes
        # the tolerance of a square for its own.
        allowed = tolerance(12.0 * x.ndim * max(abs(x).max(), 3), 40, {x.dtype}, passes=x.ndim)
        if name == "gaussian_gradient_magnitude":
            allowed = allowed * np.sqrt(x.ndim) + tolerance(expected, 1, {x.dtype})
        assert_agree(actual, expected, allowed)


def test_integers_in_gaussian_laplacian_and_gradient():
    x = integer_valued(np.random.default_rng(16), (30, 31), np.int32, 999)
    for name in ("gaussian_laplace", "gaussian_gradient_magnitude"):
        actual = getattr(ndimage, name)(x, 1.3, mode=("wrap", "reflect"))
        assert_same_bits(actual, getattr(scipy.ndimage, name)(x, 1.3, mode=("wrap", "reflect")))
        assert_same_bits(getattr(ndimage, name)(x, (), axes=()) if name == "gaussian_laplace" else x, x)


def test_generic_gradient_magnitude():
    def derivative(input, axis, output, mode, cval, scale, *, step):
        return scipy.ndimage.correlate1d(input, scale * np.array([-1, *[0] * step, 1]), axis, output, mode, cval)

    x = integer_valued(np.random.default_rng(17), (7, 8, 9), np.float64, 9)
    settings = {"mode": ["wrap", "mirror"], "extra_arguments": (2,), "extra_keywords": {"step": 1}, "axes": (2, 0)}
    actual = ndimage.generic_gradient_magnitude(x, derivative, **settings)
    assert_same_bits(actual, scipy.ndimage.generic_gradient_magnitude(x, derivative, **settings))
    assert_same_bits(ndimage.generic_gradient_magnitude(x, derivative, axes=()), x)


def gaussian_weights(module, sigma, order, truncate=4.0, radius=None):
    """The weights a Gaussian filter uses, which an impulse shows exactly."""
    reach = int(truncate * sigma + 0.5) if radius is None else radius
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1
    return module.gaussian_filter1d(impulse, sigma, order=order, truncate=truncate, radius=radius, mode="constant")


# ---- integers, bit for bit ----


@pytest.mark.parametrize("order", range(6))
def test_gaussian_weights_are_scipys_to_the_last_bit(order):
    for sigma in (0.3, 0.5, 1, 1.0, np.float32(1.3), 2.7, 8.0, 25):
        assert_same_bits(gaussian_weights(ndimage, sigma, order), gaussian_weights(scipy.ndimage, sigma, order))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32"])
@pytest.mark.parametrize("sigma", [0.5, 1, (2, 0.7), 3.3])
def test_gaussians_of_natural_images_and_of_constant_areas(dtype, sigma):
    """Where all samples are equal, the sum is an integer but for the last bit, which decides what it becomes."""
    from skimage import data

    camera = data.camera()[:160, 200:333].astype(dtype)
    for value in (1, 100, 127, 255 if dtype == "uint8" else 3001):
        flat = np.full((23, 31), value, dtype)
        assert_same_bits(ndimage.gaussian_filter(flat, sigma), scipy.ndimage.gaussian_filter(flat, sigma))
    for order in (0, 1, (0, 2)):
        for mode in ("reflect", "constant"):
            actual = ndimage.gaussian_filter(camera, sigma, order, mode=mode)
            assert_same_bits(actual, scipy.ndimage.gaussian_filter(camera, sigma, order, mode=mode))


@pytest.mark.parametrize("kind", ["float", "even", "odd"])
@pytest.mark.parametrize("size", [1, 2, 4, 5, 8, 31])
def test_float_weights_truncate_constant_areas_as_scipy_does(kind, size):
    """Weights are multiples of 0.1, so sums of equal samples come within a rounding of integers all the time."""
    rng = np.random.default_rng(size)
    weights = np.round(draw_weights(rng, size, kind), 1)
    levels = np.repeat(np.arange(100, dtype=np.int32), 40).reshape(50, 80)
    for axis in (0, 1):
        actual = ndimage.correlate1d(levels, weights, axis)
        assert_same_bits(actual, scipy.ndimage.correlate1d(levels, weights, axis))
    kernel = np.round(rng.uniform(-1, 1, (3, size)), 1)
    assert_same_bits(ndimage.correlate(levels, kernel), scipy.ndimage.correlate(levels, kernel))
    ramp = levels.astype(np.float32)
    actual = ndimage.correlate1d(ramp, weights, output=np.int32)
    assert_same_bits(actual, scipy.ndimage.correlate1d(ramp, weights, output=np.int32))


def test_weights_within_an_epsilon_of_symmetry_count_as_symmetric():
    levels = np.repeat(np.arange(200, dtype=np.int64), 40)
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        for _ in range(30):
            left = np.round(rng.uniform(0.1, 0.4, 3), 1)
            right = np.nextafter(left[::-1], rng.choice([0, 1], 3))
            weights = np.array([*left, 0.4, *(sign * right)])
            actual = ndimage.correlate1d(levels, weights)
            assert_same_bits(actual, scipy.ndimage.correlate1d(levels, weights))


# (SciPy's running sums of a box do not end where they began once a fraction has been through them.)
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "uniform" not in name])
@pytest.mark.parametrize("cval", [0.3, -2.7, 0.5])
@pytest.mark.parametrize("output", [np.int64, np.int32, np.float64])
def test_fractions_beyond_the_borders_of_integer_images(name, cval, output):
    function = FUNCTIONS[name]
    x = np.arange(-30, 12).reshape(6, 7)
    actual = function(ndimage, x, output=output, mode="constant", cval=cval)
    expected = function(scipy.ndimage, x, output=output, mode="constant", cval=cval)
    assert_agree(actual, expected, 1e-11)


def test_the_limits_of_exact_sums():
    """Odd samples times odd weights whose sums need 25 bits, 54 bits and all 64."""
    for dtype, largest, taps, weight in (
        ("uint16", 2**16 - 1, 17, 1),
        ("int32", 2**31 - 1, 3, 2**20 + 1),
        ("int64", 2**53 - 1, 3, 3),
    ):
        rng = np.random.default_rng(taps)
        x = (largest - 2 * rng.integers(0, 50, (20, 21))).astype(dtype)
        weights = weight + 2 * rng.integers(0, 2, (taps, taps))
        wide = x.astype(object)[None, None], weights.astype(object)[None, None]
        exact = oracle_correlate(*wide, padding=taps // 2, boundary="symmetric")[0, 0].astype(np.int64)
        assert_same_bits(ndimage.correlate(x, weights, np.int64), exact)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_extreme_integers(dtype):
    """The largest sums that SciPy has right: up to 2**53, wrapped into the dtype."""
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    largest = min(info.max, 2**48)
    x = rng.choice(np.array([max(info.min, -largest), 0, largest], dtype), (12, 13))
    for output in (None, np.int64, np.float64):
        if output is None and info.bits == 32:
            continue  # a sum beyond 32 bits: undefined in C, and wrapped here
        for weights in (np.ones((3, 3)), rng.integers(-3, 4, (2, 5)), [[1000, -1000]]):
            if np.abs(weights).sum() * largest > 2**31 and output is None and info.bits < 32:
                continue
            actual = ndimage.correlate(x, weights, output)
            assert_same_bits(actual, scipy.ndimage.correlate(x, weights, output))


def test_separable_sums_that_float32_cannot_hold():
    rng = np.random.default_rng(18)
    x = rng.integers(-(2**31), 2**31, (20, 21)).astype(np.int32)
    for name in ("sobel", "prewitt"):
        for output in (np.int64, np.float64):
            actual = getattr(ndimage, name)(x, 0, output)
            assert_same_bits(actual, getattr(scipy.ndimage, name)(x, 0, output))
    x = rng.integers(2**16 - 3, 2**16, (300, 301)).astype(np.uint16)
    for size in (257, 283, 299, 300):
        for axis in (0, 1):
            actual = ndimage.uniform_filter1d(x, size, axis)
            assert_same_bits(actual, scipy.ndimage.uniform_filter1d(x, size, axis))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_beyond_2_to_the_53_are_exact_and_wrap(dtype):
    rng = np.random.default_rng(1)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, (6, 7), dtype, endpoint=True)
    weights = rng.integers(-9, 9, (3, 3))
    exact = oracle_correlate(x.astype(object)[None, None], weights.astype(object)[None, None], padding=1)[0, 0]
    wrapped = np.array([[int(v) % 2**64 for v in row] for row in exact], np.uint64).view(dtype)
    assert_same_bits(ndimage.correlate(x, weights, mode="constant"), wrapped)


def test_results_outside_the_output_wrap():
    x = np.array([[2**31 - 1, -(2**31)]], np.int32)
    assert_same_values(ndimage.correlate(x, [[2]]), np.array([[-2, 0]]))
    assert_same_values(ndimage.correlate(x, [[2]], output=np.uint8), np.array([[254, 0]]))
    slope = ndimage.sobel(np.array([[9, 9, 0, 0]] * 3, np.uint8))
    assert_same_values(slope[1], [0, 220, 220, 0])


BOUNDARY_OF = {"reflect": "symmetric", "mirror": "mirror", "nearest": "edge", "wrap": "wrap", "constant": "constant"}


def exact_sums(x, weights, mode, cval):
    """The sums of an image with an odd-sized kernel in int64, which holds them."""
    wide = x.astype(np.int64)[None, None], weights.astype(np.int64)[None, None]
    before = [(k // 2, k // 2) for k in weights.shape]
    return oracle_correlate(*wide, padding=before, boundary=BOUNDARY_OF[mode], cval=cval)[0, 0]


def draw_extremes(rng, shape, dtype):
    """Mostly the least and the largest values there are."""
    info = np.iinfo(dtype)
    x = rng.choice(np.array([info.min, info.max, 0, 1], dtype), shape)
    return np.where(rng.random(shape) < 0.3, rng.integers(info.min, info.max, shape, dtype, endpoint=True), x)


@pytest.mark.parametrize("output", INTEGERS)
@pytest.mark.parametrize("dtype", INTEGERS[:-1])
def test_narrow_integers_in_rows_longer_than_a_block(dtype, output):
    """Rows of several blocks and a ragged end, kernels with and without zeros, sums that wrap."""
    rng = np.random.default_rng([ord(c) for c in dtype + output])
    for width, mode in zip((1, 70, 511, 519, 1101), BOUNDARY_OF, strict=True):
        x = draw_extremes(rng, (6, width), dtype)
        for size in (1, 3, 5, 7):
            weights = rng.integers(-9, 10, (size, size))
            weights.flat[: size * size // 3] = 0
            exact = exact_sums(x, weights, mode, 7)
            actual = ndimage.correlate(x, weights, output, mode, 7)
            assert_same_bits(actual, exact.astype(output))
            if np.iinfo(dtype).bits <= 16 and np.iinfo(output).bits <= 16:
                assert_same_bits(actual, scipy.ndimage.correlate(x, weights, output, mode, 7))
            flipped = ndimage.convolve(x, weights[::-1, ::-1], output, mode, 7)
            assert_same_bits(flipped, exact.astype(output))


@given(st.data())
def test_narrow_integers_of_any_layout(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 600))
    x = lay_out(draw_extremes(rng, shape, data.draw(st.sampled_from(INTEGERS[:-1]))), data.draw(layouts))
    output = np.dtype(data.draw(st.sampled_from(INTEGERS)))
    y = lay_out(np.zeros(shape, output), data.draw(st.sampled_from(OUT_LAYOUTS)))
    kernel = data.draw(st.sampled_from((1, 3, 5, 9))), data.draw(st.sampled_from((1, 3, 5, 7)))
    weights = rng.integers(-2, 2, kernel, endpoint=True) * data.draw(st.sampled_from((1, 100, 100_000)))
    mode = data.draw(st.sampled_from(tuple(BOUNDARY_OF)))
    ndimage.correlate(x, weights, y, mode, -3, workers=data.draw(st.sampled_from((1, 3))))
    assert_same_values(y, exact_sums(x, weights, mode, -3).astype(output))


@pytest.mark.parametrize("output", [None, np.int16])
def test_colour_images_of_bytes(output):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 256, (40, 300, 3)).astype(np.uint8)
    weights = rng.integers(-9, 10, (5, 5))
    expected = np.stack([scipy.ndimage.correlate(x[..., c], weights, output) for c in range(3)], axis=-1)
    assert_same_bits(ndimage.correlate(x, weights, output, channel_axis=-1), expected)


@pytest.mark.parametrize("output", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("cval", [np.nan, np.inf])
def test_a_weight_of_zero_is_no_tap_beyond_the_borders_of_integers(cval, output):
    x = np.arange(35).reshape(5, 7).astype(np.uint8)
    weights = np.array([[0, 1, 0], [2, 3, 0], [1, 1, 1]])
    actual, expected = (m.correlate(x, weights, output, "constant", cval) for m in (ndimage, scipy.ndimage))
    assert_same_bits(actual, expected)


@given(st.data())
def test_integer_valued_floats_with_integer_weights(data):
    rng = np.random.default_rng(data.draw(seeds))
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=2)))
    x = integer_valued(rng, shape, data.draw(st.sampled_from((*FLOATS, *COMPLEX))), 1000)
    x = lay_out(x, data.draw(layouts))
    settings = {"mode": data.draw(modes), "cval": 3}
    weights = rng.integers(-9, 10, (3, 4)) / data.draw(st.sampled_from((1, 4)))
    for run in (
        lambda m: m.correlate(x, weights, **settings),
        lambda m: m.correlate1d(x, weights[0], 0, **settings),
        lambda m: m.sobel(x, 0, **settings),
        lambda m: m.laplace(x, **settings),
    ):
        assert_same_values(run(ndimage), run(scipy.ndimage))


# ---- floats ----


def test_float32_and_float16_are_computed_in_float32():
    rng = np.random.default_rng(2)
    x = normal(rng, (30, 40), np.float16)
    weights = normal(rng, (3, 5), np.float32)
    single = ndimage.correlate(x.astype(np.float32), weights)
    assert single.dtype == np.float32
    assert_same_bits(ndimage.correlate(x, weights), single.astype(np.float16))
    assert np.any(single != ndimage.correlate(x.astype(np.float64), weights))


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_precision_takes_the_sums_in_float64(dtype):
    rng = np.random.default_rng(3)
    x = normal(rng, (30, 40), np.complex64 if dtype == "complex64" else np.float32).astype(dtype)
    weights = normal(rng, (3, 5), np.float64)
    wide = ndimage.correlate(x.astype(np.complex128 if dtype == "complex64" else np.float64), weights)
    assert_same_bits(ndimage.correlate(x, weights, precision="float64"), wide.astype(dtype))
    assert np.any(ndimage.correlate(x, weights) != wide.astype(dtype)) or dtype == "float16"
    with pytest.raises(ValueError, match="precision"):
        ndimage.correlate(x, weights, precision="float32")


def test_a_wider_output_widens_the_sums():
    x = normal(np.random.default_rng(4), (9, 9), np.float32)
    weights = np.full((3, 3), 0.1)
    actual = ndimage.correlate(x, weights, np.float64)
    assert_same_bits(actual, ndimage.correlate(x.astype(np.float64), weights))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "uniform" not in name])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_nan_and_inf_reach_the_same_pixels(name, bad, dtype):
    function = FUNCTIONS[name]
    x = integer_valued(np.random.default_rng(5), (9, 11), dtype, 9)
    x[4, 5] = bad
    x[0, 0] = bad
    with np.errstate(invalid="ignore"):
        assert_same_class(function(ndimage, x), function(scipy.ndimage, x))


def test_a_weight_of_zero_hides_a_nan_in_nd_and_not_in_1d():
    x = np.zeros((3, 5))
    x[1, 2] = np.nan
    assert np.isnan(ndimage.correlate(x, [[1, 0, 1]])).sum() == 2
    assert np.isnan(ndimage.correlate1d(x, [1, 0, 1])).sum() == 3


# ---- output ----


@every_function
def test_forms_of_output(function):
    x = integer_valued(np.random.default_rng(6), (8, 9), np.int16, 99)
    expected = function(scipy.ndimage, x, output=np.float64)
    for output in (np.float64, float, "float64", np.dtype("f8"), "d"):
        actual = function(ndimage, x, output=output)
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-10)
    for layout in OUT_LAYOUTS:
        array = lay_out(np.zeros(x.shape), layout)
        assert function(ndimage, x, output=array) is array
        assert_same_values(array, actual)
    assert function(ndimage, x).dtype == np.int16
    assert function(ndimage, x.astype(">i2")).dtype == np.dtype(np.int16)


@every_function
@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64", "bool"])
def test_input_and_output_may_overlap(function, dtype):
    x = integer_valued(np.random.default_rng(7), (40, 50), dtype, 9)
    expected = function(ndimage, x)
    same = x.copy()
    assert function(ndimage, same, output=same) is same
    assert_same_bits(same, expected)
    wide = np.empty((41, 50), dtype)
    wide[1:] = x
    function(ndimage, wide[1:], output=wide[:-1])
    assert_same_bits(wide[:-1], expected)
    reverse = x.copy()
    function(ndimage, reverse, output=reverse[::-1])
    assert_same_bits(reverse[::-1], expected)


def test_neighbouring_views_of_one_array_are_not_mixed_up():
    both = np.zeros((6, 2, 7), np.float32)
    both[:, 0] = x = normal(np.random.default_rng(8), (6, 7), np.float32)
    ndimage.gaussian_filter(both[:, 0], 1, output=both[:, 1])
    assert_same_bits(both[:, 0], x)
    assert_same_bits(both[:, 1], ndimage.gaussian_filter(x, 1))


def test_booleans_are_0_or_1():
    x = np.array([[True, True, False, True]] * 2)
    for output in (None, np.empty(x.shape, bool)):
        actual = ndimage.correlate(x, [[1, 4, 1]], output)
        assert_same_values(actual.view(np.uint8), [[1] * 4] * 2)


def test_real_dtypes_are_promoted_with_a_warning():
    x = np.ones((3, 3), np.complex64)
    with pytest.warns(UserWarning, match="promoting") as caught:
        actual = ndimage.correlate(x, np.ones((3, 3)), np.float64)
    assert actual.dtype == np.complex128
    assert caught[0].filename == __file__


@every_function
def test_empty_images(function):
    for shape in ((0, 5), (5, 0), (0, 0)):
        assert function(ndimage, np.empty(shape)).shape == shape


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("ndim", [4, 5, 6])
def test_images_of_many_axes(ndim, dtype):
    x = integer_valued(np.random.default_rng(15), tuple(range(2, 2 + ndim)), dtype, 99)
    weights = np.arange(2 * 3**2).reshape(2, *[1] * (ndim - 3), 3, 3) - 7
    for run in (
        lambda m: m.sobel(x, 2),
        lambda m: m.laplace(x, mode="wrap"),
        lambda m: m.convolve(x, weights, mode="mirror"),
        lambda m: m.correlate1d(x, [1, -2, 4, -8], 1),
    ):
        assert_same_bits(run(ndimage), run(scipy.ndimage))
    with pytest.raises(ValueError, match="weights"):
        ndimage.correlate(x, weights[0])


def test_images_of_no_axes():
    for value in (3, 2.5, 1 + 2j):
        assert_same_values(ndimage.correlate(value, 2.0), scipy.ndimage.correlate(value, 2.0))
        assert_same_values(ndimage.gaussian_filter(value, 1), scipy.ndimage.gaussian_filter(value, 1))
        assert_same_values(ndimage.laplace(value), scipy.ndimage.laplace(value))


# ---- memory ----


LARGE_FILES = """
import resource, sys
import numpy as np
from pyconv import ndimage

rows, columns = 4096, 8192
image = np.lib.format.open_memmap("in.npy", "w+", np.float32, (rows, columns))
for start in range(0, rows, 256):
    image[start : start + 256] = np.random.default_rng(start).standard_normal((256, columns), np.float32)
result = np.lib.format.open_memmap("out.npy", "w+", np.float32, (rows, columns))
ndimage.sobel(np.zeros((64, 64), np.float32))
data = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + 32 * 2**20, data + 32 * 2**20))
try:
    image.copy()
    sys.exit("the limit does not bite")
except MemoryError:
    pass
kernel = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]]) / 36
for function in (
    lambda x, output=None, **kw: ndimage.correlate(x, kernel, output, **kw),
    lambda x, output=None, **kw: ndimage.gaussian_filter(x, 2, output=output, **kw),
    lambda x, output=None, **kw: ndimage.sobel(x, output=output, mode="constant", cval=1.0, **kw),
):
    function(image, result, workers=2)
    for edge in (slice(0, 40), slice(2000, 2040), slice(rows - 40, rows)):
        first, last = max(edge.start - 20, 0), min(edge.stop + 20, rows)
        part = function(image[first:last])[edge.start - first :][:40]
        inside = slice(10 if first else 0, 30 if last < rows else 40)
        assert np.array_equal(result[edge][inside], part[inside])
"""


def test_files_are_filtered_in_little_memory(run_python):
    """Both files together are 256 MB, and 32 MB may be allocated."""
    run_python(LARGE_FILES)


# ---- channels ----


@every_function
@pytest.mark.parametrize("channel_axis", [0, 1, 2, -1])
def test_channels_are_filtered_apart(function, channel_axis):
    x = normal(np.random.default_rng(9), (20, 21, 3), np.float32)
    x = np.moveaxis(x, -1, channel_axis)
    actual = function(ndimage, x, channel_axis=channel_axis)
    assert actual.shape == x.shape
    for channel, image in zip(np.moveaxis(actual, channel_axis, 0), np.moveaxis(x, channel_axis, 0), strict=True):
        assert_same_bits(channel, function(ndimage, image))


def test_all_other_arguments_count_the_axes_without_the_channels():
    x = normal(np.random.default_rng(10), (3, 20, 21), np.float64)
    modes = ["wrap", "constant"]
    actual = ndimage.gaussian_filter(x, (1, 0), mode=modes, channel_axis=0)
    assert_same_bits(actual[1], ndimage.gaussian_filter(x[1], (1, 0), mode=modes))
    actual = ndimage.correlate(x, [1, 2, 4], axes=1, channel_axis=0)
    assert_same_bits(actual[2], ndimage.correlate(x[2], [1, 2, 4], axes=1))
    with pytest.raises(np.exceptions.AxisError, match="channel_axis"):
        ndimage.sobel(x, channel_axis=3)


# ---- slabs, threads ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_results_do_not_depend_on_slabs(mode, dtype, monkeypatch):
    x = integer_valued(np.random.default_rng(11), (37, 9, 150), dtype, 200)
    settings = {"mode": mode, "cval": 3.5}

    def run():
        return (
            *(ndimage.gaussian_filter(x, (1.5, 0.1, 1), axes=axes, **settings) for axes in ((0, 1, 2), (2, 0, 1))),
            *(ndimage.sobel(x, axis, **settings) for axis in range(3)),
        )

    whole = run()
    monkeypatch.setattr(ndimage, "_SLAB_BYTES", x.nbytes // 5)
    for actual, expected in zip(run(), whole, strict=True):
        assert_same_bits(actual, expected)


@every_function
@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64"])
def test_results_do_not_depend_on_threads(function, dtype, threads):
    x = integer_valued(np.random.default_rng(12), (200, 210), dtype, 200) + np.ones((), dtype)
    assert_same_bits(function(ndimage, x, workers=threads), function(ndimage, x, workers=1))


# ---- errors ----

IMAGE = np.arange(20.0).reshape(4, 5)

WRONG = {
    "kernel of too few axes": lambda m, out: m.correlate(IMAGE, np.ones(3), out),
    "kernel of too many axes": lambda m, out: m.convolve(IMAGE, np.ones((3, 3, 3)), out),
    "empty kernel": lambda m, out: m.correlate(IMAGE, np.ones((0, 3)), out),
    "kernel for fewer axes": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, axes=(0,)),
    "no weights": lambda m, out: m.correlate1d(IMAGE, [], output=out),
    "weights of two axes": lambda m, out: m.convolve1d(IMAGE, np.ones((2, 2)), output=out),
    "a single weight": lambda m, out: m.correlate1d(IMAGE, 1.0, output=out),
    "weights of letters": lambda m, out: m.correlate1d(IMAGE, ["a", "b"], output=out),
    "weights of None": lambda m, out: m.correlate(IMAGE, None, out),
    "unknown mode": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, mode="zeros"),
    "mode None": lambda m, out: m.correlate1d(IMAGE, np.ones(3), output=out, mode=None),
    "several modes": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, mode=["wrap", "wrap"]),
    "several modes in 1-D": lambda m, out: m.correlate1d(IMAGE, np.ones(3), output=out, mode=["wrap", "wrap"]),
    "too few modes": lambda m, out: m.sobel(IMAGE, output=out, mode=["wrap"]),
    "one wrong mode of two": lambda m, out: m.prewitt(IMAGE, output=out, mode=["wrap", "warp"]),
    "too many modes": lambda m, out: m.laplace(IMAGE, out, mode=["wrap"] * 3),
    "origin too large": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, origin=2),
    "origin too small": lambda m, out: m.convolve(IMAGE, np.ones((4, 4)), out, origin=-3),
    "origin of 1-D too large": lambda m, out: m.correlate1d(IMAGE, np.ones(4), output=out, origin=2),
    "origin not an integer": lambda m, out: m.correlate1d(IMAGE, np.ones(5), output=out, origin=0.5),
    "too many origins": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, origin=(0, 0, 0)),
    "axis beyond the image": lambda m, out: m.correlate1d(IMAGE, np.ones(3), 2, out),
    "axis not an integer": lambda m, out: m.sobel(IMAGE, 0.5, out),
    "sobel without an axis": lambda m, out: m.sobel(3.0),
    "correlate1d without an axis": lambda m, out: m.correlate1d(3.0, [1.0]),
    "axes beyond the image": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, axes=(0, 2)),
    "axes twice": lambda m, out: m.gaussian_filter(IMAGE, 1, output=out, axes=(1, -1)),
    "axes not integers": lambda m, out: m.laplace(IMAGE, out, axes=(0.5, 1)),
    "output of another shape": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), np.zeros((5, 4))),
    "output of another shape in 1-D": lambda m, out: m.sobel(IMAGE, output=np.zeros(20)),
    "output of objects": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), object),
    "output named bool": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), "bool"),
    "output named str": lambda m, out: m.laplace(IMAGE, "str"),
    "output of nonsense": lambda m, out: m.laplace(IMAGE, "nonsense"),
    "complex output of real sums": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), np.complex128),
    "real output of complex sums": lambda m, out: m.correlate(IMAGE * 1j, np.ones((3, 3)), out),
    "real output name of complex sums": lambda m, out: m.correlate(IMAGE, 1j * np.ones((3, 3)), "float64"),
    "real output of a complex image": lambda m, out: m.gaussian_filter(IMAGE * 1j, 1, output=np.float64),
    "read-only output": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), np.broadcast_to(0.0, IMAGE.shape)),
    "read-only output in 1-D": lambda m, out: m.sobel(IMAGE, output=np.broadcast_to(0.0, IMAGE.shape)),
    "complex constant": lambda m, out: m.correlate(IMAGE, np.ones((3, 3)), out, mode="constant", cval=1j),
    "complex constant and weights": lambda m, out: m.correlate(IMAGE, 1j * np.ones((3, 3)), cval=1j),
    "constant of letters": lambda m, out: m.sobel(IMAGE, output=out, cval="0"),
    "image of objects": lambda m, out: m.correlate(IMAGE.astype(object), np.ones((3, 3)), out),
    "image of letters": lambda m, out: m.laplace(np.array([["a", "b"]]), float),
    "no image": lambda m, out: m.correlate(None, np.ones((3, 3)), out),
    "ragged image": lambda m, out: m.correlate([[1, 2], [3]], np.ones((3, 3))),
    "image of long doubles": lambda m, out: m.correlate(IMAGE.astype(np.longdouble), np.ones((3, 3))),
    "negative size": lambda m, out: m.uniform_filter1d(IMAGE, -1, output=out),
    "size 0": lambda m, out: m.uniform_filter1d(IMAGE, 0, output=out),
    "too many sizes": lambda m, out: m.uniform_filter(IMAGE, (3, 3, 3), out),
    "origin of a box too large": lambda m, out: m.uniform_filter(IMAGE, 3, out, origin=2),
    "too many sigmas of a laplacian": lambda m, out: m.gaussian_laplace(IMAGE, (1, 1, 1), out),
    "too many sigmas of a gradient": lambda m, out: m.gaussian_gradient_magnitude(IMAGE, (1, 1, 1), out),
    "too many sigmas": lambda m, out: m.gaussian_filter(IMAGE, (1, 1, 1), output=out),
    "too few orders": lambda m, out: m.gaussian_filter(IMAGE, 1, order=(0,), output=out),
    "negative order": lambda m, out: m.gaussian_filter(IMAGE, 1, order=-1, output=out),
    "negative radius": lambda m, out: m.gaussian_filter(IMAGE, 1, output=out, radius=-1),
    "radius not an integer": lambda m, out: m.gaussian_filter1d(IMAGE, 1, output=out, radius=1.5),
    "negative sigma": lambda m, out: m.gaussian_filter1d(IMAGE, -1, output=out),
    "sigma 0": lambda m, out: m.gaussian_filter1d(IMAGE, 0, output=out),
    "sigma of letters": lambda m, out: m.gaussian_filter(IMAGE, "a", output=out),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_whoever_catches_scipys_exception_catches_ours(wrong):
    with pytest.raises(Exception) as scipys:
        wrong(scipy.ndimage, np.zeros(IMAGE.shape))
    untouched = np.full(IMAGE.shape, 7.0)
    with pytest.raises((ValueError, TypeError)) as ours:
        wrong(ndimage, untouched)
    assert isinstance(ours.value, scipys.type)
    assert str(ours.value)
    assert np.all(untouched == 7)


def test_errors_name_the_argument_the_shapes_and_the_mend():
    with pytest.raises(ValueError, match=r"weights.*2 axes.*\(3,\).*axes="):
        ndimage.correlate(IMAGE, np.ones(3))
    with pytest.raises(ValueError, match=r"output.*\(4, 5\).*\(5, 4\)"):
        ndimage.correlate(IMAGE, np.ones((3, 3)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="mode.*grid-mirror.*'zeros'"):
        ndimage.sobel(IMAGE, mode="zeros")


class Lazy:
    """What the protocol of dask's collections has."""

    shape, dtype, ndim = (4, 5), np.dtype(float), 2

    def __dask_graph__(self):
        return {"a": 1}

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("loaded")


@every_function
def test_lazy_arrays_are_refused(function):
    with pytest.raises(TypeError, match="lazy"):
        function(ndimage, Lazy())
    with pytest.raises(TypeError, match="output is a lazy"):
        function(ndimage, IMAGE, output=Lazy())


# ---- the module ----


@pytest.mark.parametrize("name", ndimage.__all__)
def test_signatures_are_scipys_and_more_keywords(name):
    ours = inspect.signature(getattr(ndimage, name)).parameters
    scipys = inspect.signature(getattr(scipy.ndimage, name)).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()][: len(scipys)] == [
        (p.name, p.default, p.kind) for p in scipys.values()
    ]
    assert all(p.kind == p.KEYWORD_ONLY for p in list(ours.values())[len(scipys) :])


def test_other_names_come_from_scipy():
    assert ndimage.label is scipy.ndimage.label
    with pytest.raises(AttributeError, match="no_such_filter"):
        ndimage.no_such_filter  # noqa: B018


def test_other_names_without_scipy(run_python):
    script = """
import sys
from pyconv import ndimage
assert not any(name.split(".")[0] == "scipy" for name in sys.modules)
sys.modules["scipy"] = None
ndimage.sobel([[1.0]])
try:
    ndimage.label
except AttributeError as error:
    print(error)
"""
    printed = run_python(script)
    assert "'label'" in printed
    assert "SciPy" in printed


def test_generic_laplace():
    def derivative(input, axis, output, mode, cval, step, *, scale):
        return scipy.ndimage.correlate1d(
            input, scale * np.array([1, *[0] * step, -2, *[0] * step, 1]), axis, output, mode, cval
        )

    x = integer_valued(np.random.default_rng(13), (7, 8, 9), np.int32, 99)
    settings = {
        "mode": ["wrap", "mirror"],
        "extra_arguments": (1,),
        "extra_keywords": {"scale": 3},
        "axes": (2, 0),
    }
    actual = ndimage.generic_laplace(x, derivative, **settings)
    assert_same_bits(actual, scipy.ndimage.generic_laplace(x, derivative, **settings))
    assert_same_bits(ndimage.generic_laplace(x, derivative, axes=()), x)


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (17, 3), (16, 16), (40, 40), (5, 6, 7), (9,), (4, 0)])
@pytest.mark.parametrize("layout", [lambda a: a, lambda a: a[::-1], lambda a: a.T, lambda a: a.astype(">f8")])
def test_small_images_take_the_same_way_in_any_layout(shape, layout):
    rng = np.random.default_rng(0)
    image = layout(rng.integers(-9, 9, shape).astype(float))
    weights = rng.integers(-3, 4, (3,) * image.ndim)
    expected = scipy.ndimage.correlate(np.ascontiguousarray(image), weights) if image.size else image
    np.testing.assert_array_equal(ndimage.correlate(image, weights), expected)
    output = layout(np.full(shape, np.nan))
    assert ndimage.correlate(image, weights, output) is output
    np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("start", [-300, -1, 0, 1, 300, 301])
def test_small_outputs_may_overlap_the_image(start):
    # Rows of such a length are read where they lie.
    memory = np.random.default_rng(0).standard_normal(24 * 300)
    image, output = memory[600:6600].reshape(20, 300), memory[600 + start : 6600 + start].reshape(20, 300)
    weights = np.arange(9.0).reshape(3, 3)
    expected = ndimage.correlate(image.copy(), weights)
    ndimage.correlate(image, weights, output=output)
    assert_same_bits(output, expected)


def test_remembered_settings_do_not_pass_for_others():
    image = np.arange(12.0).reshape(3, 4)
    weights = np.arange(3.0)
    ndimage.correlate1d(image, weights, 1)
    for axis in (1.0, "1"):
        with pytest.raises(TypeError):
            ndimage.correlate1d(image, weights, axis)
    ndimage.gaussian_filter(image, (1.0, 2.0), (1, 0))
    with pytest.raises(TypeError):
        ndimage.gaussian_filter(image, (1.0, 2.0), (1.0, 0))
    before = ndimage.correlate1d(image, weights, 1)
    weights[:] = 1
    np.testing.assert_array_equal(ndimage.correlate1d(image, weights, 1), scipy.ndimage.correlate1d(image, weights, 1))
    assert not np.array_equal(ndimage.correlate1d(image, weights, 1), before)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("mode", ["reflect", "constant", "wrap"])
def test_long_lines_have_the_bits_of_kernels(dtype, mode):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(33)
    for shape in ((20_000,), (3, 5000), (2, 40, 300)):
        image = rng.standard_normal(shape).astype(dtype)
        kernel = weights.reshape((1,) * (image.ndim - 1) + (-1,))
        line = ndimage.correlate1d(image, weights, mode=mode, cval=2.0)
        assert_same_bits(line, ndimage.correlate(image, kernel, mode=mode, cval=2.0, method="direct"))


def test_slabs_along_rows():
    image = np.random.default_rng(0).standard_normal((300, 5000))
    filtered = ndimage.gaussian_filter(image, 5, axes=(1, 0))
    np.testing.assert_allclose(filtered, scipy.ndimage.gaussian_filter(image, 5, axes=(1, 0)), atol=1e-12)
    boxes = (1000 * image).astype(np.int16)
    expected = scipy.ndimage.uniform_filter(boxes, 5, axes=(1, 0))
    np.testing.assert_array_equal(ndimage.uniform_filter(boxes, 5, axes=(1, 0)), expected)
