"""The named kernels: values, signs, scales, and agreement with what SciPy and scikit-image filter with."""

import doctest
import math
import re
from decimal import Decimal, getcontext

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import kernels

getcontext().prec = 50

U = 2.0**-53


def correlate(image, kernel):
    """Every inner position, by the loops of the oracle."""
    return oracle.correlate(np.asarray(image)[None, None], kernel[None, None])[0, 0]


def test_examples_in_the_docstrings():
    result = doctest.testmod(kernels)
    assert result.attempted > 30 and result.failed == 0


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (kernels.identity(), [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        (kernels.identity((1, 4)), [[0, 0, 1, 0]]),
        (kernels.identity(1, ndim=3), [[[1]]]),
        (kernels.box(2), [[0.25, 0.25], [0.25, 0.25]]),
        (kernels.box(2, normalize=False), [[1, 1], [1, 1]]),
        (kernels.box((1, 2), False), [[1, 1]]),
        (kernels.box(4, ndim=1), [0.25, 0.25, 0.25, 0.25]),
        (kernels.binomial(3) * 16, [[1, 2, 1], [2, 4, 2], [1, 2, 1]]),
        (kernels.binomial((5,)) * 16, [1, 4, 6, 4, 1]),
        (kernels.derivative(0), [1]),
        (kernels.derivative(), [-1, 1]),
        (kernels.derivative(2), [1, -2, 1]),
        (kernels.derivative(3), [-1, 3, -3, 1]),
        (kernels.derivative(1, ndim=2), [[-1, 1]]),
        (kernels.derivative(1, axis=0, ndim=2), [[-1], [1]]),
        (kernels.second_derivative(), [1, -2, 1]),
        (kernels.second_derivative(axis=0, ndim=2), [[1], [-2], [1]]),
        (kernels.sobel(), [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
        (kernels.sobel(0), [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
        (kernels.sobel(ndim=1), [-1, 0, 1]),
        (kernels.prewitt(1), [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]),
        (kernels.prewitt(axis=-2), [[-1, -1, -1], [0, 0, 0], [1, 1, 1]]),
        (kernels.scharr(), [[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]),
        (kernels.scharr(axis=0), [[-3, -10, -3], [0, 0, 0], [3, 10, 3]]),
        (kernels.laplacian(), [[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
        (kernels.laplacian(connectivity=2), [[1, 1, 1], [1, -8, 1], [1, 1, 1]]),
        (kernels.laplacian(1), [1, -2, 1]),
        (kernels.sharpen(), [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
        (kernels.sharpen(0.5, ndim=1), [-0.5, 2, -0.5]),
        (kernels.sharpen(0), [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        (kernels.emboss(), [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]),
        (kernels.gaussian(0), [[1]]),
        (kernels.gaussian((0, 5), radius=(1, 0)), [[0], [1], [0]]),
    ],
)
def test_values(kernel, expected):
    oracle.assert_same_bits(kernel, np.array(expected, np.float64))


EVERY_KERNEL = {
    "binomial": (5,),
    "box": (3,),
    "derivative": (2,),
    "emboss": (),
    "gaussian": (1.5,),
    "identity": (),
    "laplacian": (),
    "laplacian_of_gaussian": (1.5,),
    "prewitt": (),
    "scharr": (),
    "second_derivative": (),
    "sharpen": (),
    "sobel": (),
}


def test_every_kernel_is_tried_below():
    assert sorted(EVERY_KERNEL) == sorted(kernels.__all__)


@pytest.mark.parametrize("name", EVERY_KERNEL)
def test_a_plain_new_array(name):
    make = getattr(kernels, name)
    kernel = make(*EVERY_KERNEL[name])
    assert type(kernel) is np.ndarray
    assert kernel.dtype == np.float64
    assert kernel.flags.c_contiguous and kernel.flags.writeable
    before = kernel.copy()
    kernel += 1
    oracle.assert_same_bits(make(*EVERY_KERNEL[name]), before)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_identity_leaves_an_image_as_it_is(n):
    image = np.random.default_rng(0).normal(size=(9, 7))
    oracle.assert_same_bits(pyconv.ndimage.correlate(image, kernels.identity(n)), image)


# ---- differences ----


@pytest.mark.parametrize("order", range(13))
@pytest.mark.parametrize("degree", range(13))
def test_derivative_gives_plus_d_factorial_on_x_to_the_d(order, degree):
    if degree > order:
        return
    x = np.array([int(i) ** degree for i in range(-9, 10)], object)
    weights = np.array([int(weight) for weight in kernels.derivative(order)], object)
    differences = [int(x[i : i + order + 1] @ weights) for i in range(x.size - order)]
    assert differences == [math.factorial(order) if degree == order else 0] * (x.size - order)


def test_derivative_is_the_repeated_first_one_and_exact_to_the_last_order():
    expected = [1]
    for order in range(57):
        assert [int(weight) for weight in kernels.derivative(order)] == expected
        expected = [a - b for a, b in zip([0, *expected], [*expected, 0], strict=True)]


def test_the_textbooks_signs_are_the_negatives():
    # On ones with a dark stripe [1, -1] gives +1 where the stripe begins, ours -1.
    image = np.ones((6, 8))
    image[:, 2:6] = 0
    edges = pyconv.corr2d(image, kernels.derivative(1, ndim=2))
    oracle.assert_same_values(edges, -pyconv.corr2d(image, [[1.0, -1.0]]))
    assert edges[0].tolist() == [0, -1, 0, 0, 0, 1, 0]
    oracle.assert_same_values(kernels.second_derivative(), -np.array([-1, 2, -1]))
    # A strict convolution turns [1, -1] round, which makes it ours; [-1, 2, -1] stays as it is.
    line = np.arange(9.0) ** 2
    oracle.assert_same_values(pyconv.ndimage.convolve1d(line, [1, -1]),
                              pyconv.ndimage.correlate1d(line, kernels.derivative(1), origin=-1))
    oracle.assert_same_values(pyconv.ndimage.convolve1d(line, [-1, 2, -1]),
                              -pyconv.ndimage.correlate1d(line, kernels.second_derivative()))


@pytest.mark.parametrize("n", [(1, 1), (3, 3), (2, 5)])
def test_a_box_that_is_not_normalized_is_the_integral(n):
    image = np.random.default_rng(0).integers(-9, 9, (8, 9)).astype(np.float64)
    sums = np.pad(image, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    h, w = n
    expected = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    oracle.assert_same_values(pyconv.corr2d(image, kernels.box(n, normalize=False)), expected)


def documented_sums():
    """The sums of weights that the module's table gives."""
    rows = [line.split("  ") for line in kernels.__doc__.splitlines() if re.match("`.*  ", line)]
    return {name: row[-1].strip() for row in rows for name in row[0].strip().replace("`", "").split(", ")}


def test_the_table_of_sums_holds():
    documented = documented_sums()
    assert sorted(documented) == sorted(kernels.__all__)
    for name, words in documented.items():
        total = getattr(kernels, name)(*EVERY_KERNEL[name]).sum()
        if words.startswith("about 0"):
            assert abs(total) < 1e-3
        else:
            assert total == pytest.approx(float(words[0]), abs=1e-15)


def test_second_derivatives_have_the_documented_scales():
    y, x = np.indices((5, 6)).astype(np.float64)
    assert (pyconv.corr2d(x**2, kernels.second_derivative(ndim=2)) == 2).all()
    assert (pyconv.corr2d(y**2, kernels.second_derivative(axis=0, ndim=2)) == 2).all()
    assert (pyconv.corr2d(x**2 + y**2, kernels.laplacian()) == 4).all()
    assert (pyconv.corr2d(x**3, kernels.derivative(3, ndim=2)) == 6).all()


@pytest.mark.parametrize(
    ("kernel", "divisor"),
    [
        (kernels.sobel, lambda ndim: 2 * 4 ** (ndim - 1)),
        (kernels.prewitt, lambda ndim: 2 * 3 ** (ndim - 1)),
        (kernels.scharr, lambda ndim: 2 * 16 ** (ndim - 1)),
    ],
)
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_slopes_have_the_documented_divisor(kernel, divisor, ndim):
    slopes = 3 + np.arange(ndim)
    ramp = np.tensordot(slopes, np.indices((4,) * ndim), 1).astype(np.float64)
    for axis in range(-ndim, ndim):
        result = correlate(ramp, kernel(axis, ndim=ndim))
        assert (result == divisor(ndim) * slopes[axis]).all()


@pytest.mark.parametrize(("ndim", "scales"), [(1, [1]), (2, [1, 3]), (3, [1, 5, 9]), (4, [1, 7, 19, 27])])
def test_laplacian_has_the_documented_scale(ndim, scales):
    grid = np.indices((5,) * ndim)
    curvatures = 1 + np.arange(ndim)
    image = np.tensordot(curvatures, grid**2, 1) - 4 * grid[0] + 7
    for connectivity, scale in enumerate(scales, 1):
        result = correlate(image.astype(np.float64), kernels.laplacian(ndim, connectivity=connectivity))
        assert (result == scale * 2 * curvatures.sum()).all()


def test_laplacians_are_positive_in_dark_spots():
    spot = np.ones((9, 9))
    spot[4, 4] = 0
    for kernel in (
        kernels.laplacian(),
        kernels.laplacian(connectivity=2),
        kernels.laplacian_of_gaussian(0.8),
    ):
        assert pyconv.ndimage.correlate(spot, kernel)[4, 4] > 0


def test_sharpening_takes_the_laplacian_away():
    image = np.random.default_rng(1).integers(-99, 99, (8, 9)).astype(np.float64)
    inner = image[1:-1, 1:-1]
    for amount in (1, 0.5, -2):
        expected = inner - amount * correlate(image, kernels.laplacian())
        oracle.assert_same_values(correlate(image, kernels.sharpen(amount)), expected)


def test_emboss_lights_what_rises_to_the_lower_right():
    down, right = np.indices((5, 5), dtype=np.float64)
    assert (correlate(down + right, kernels.emboss()) > (down + right)[1:-1, 1:-1]).all()
    oracle.assert_same_values(correlate(down - right, kernels.emboss()), (down - right)[1:-1, 1:-1])


# ---- smoothing ----


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_binomial_is_the_repeated_sum_of_two_neighbours(n):
    row = np.ones(1)
    for _ in range(n - 1):
        row = np.convolve(row, [0.5, 0.5])
    oracle.assert_same_bits(kernels.binomial(n, ndim=1), row)


def test_a_long_binomial_neither_overflows_nor_drifts():
    row = kernels.binomial(3001, ndim=1)
    assert math.fsum(row) == pytest.approx(1, abs=3001 * U)
    x = np.arange(3001) - 1500
    assert math.fsum(row * x**2) == pytest.approx(750, abs=3001 * U * 750)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.booleans())
def test_sizes_one_an_axis(sizes, normalize):
    box = kernels.box(sizes, normalize)
    assert box.shape == tuple(sizes)
    assert (box == (1 / math.prod(sizes) if normalize else 1)).all()
    assert kernels.identity(sizes).shape == kernels.binomial(np.array(sizes)).shape == tuple(sizes)
    n = sizes[0]
    assert kernels.box(n, ndim=len(sizes)).shape == (n,) * len(sizes)


def exact_gaussian(sigma, order, radius):
    """Weights of one axis to 50 digits, and the size of the terms that cancel in them.

    He_d by its recurrence He_{d+1}(t) = t He_d(t) - d He_{d-1}(t); the size has all signs positive.
    """
    sigma = Decimal(sigma)
    t = [Decimal(x) / sigma for x in range(-radius, radius + 1)]
    blur = [(-x * x / 2).exp() for x in t]
    total = sum(blur)
    weights, size = [], []
    for x, weight in zip(t, blur, strict=True):
        hermite, previous = Decimal(1), Decimal(0)
        terms, previous_terms = Decimal(1), Decimal(0)
        for d in range(order):
            hermite, previous = x * hermite - d * previous, hermite
            terms, previous_terms = abs(x) * terms + d * previous_terms, terms
        weights.append(weight / total * hermite / sigma**order)
        size.append(weight / total * terms / sigma**order)
    return weights, size


def gaussian_bound(sigma, order, radius, size):
    """What roundings may do: t*t/2 carries 3 of them, the sum one a term, He_d and sigma**d a few a step."""
    t = np.arange(-radius, radius + 1) / sigma
    largest = 1.5 * t**2
    return (largest + largest.max() + (2 * radius + 1) + 8 + 8 * order) * U * np.array(size, float)


@given(st.floats(0.3, 8), st.integers(0, 5), st.integers(0, 12))
def test_gaussian_against_fifty_digits(sigma, order, radius):
    weights, size = exact_gaussian(sigma, order, radius)
    kernel = kernels.gaussian(sigma, order, radius=radius, ndim=1)
    errors = np.array([float(abs(Decimal(float(a)) - b)) for a, b in zip(kernel, weights, strict=True)])
    assert (errors <= gaussian_bound(sigma, order, radius, size)).all()


@given(
    st.lists(st.tuples(st.floats(0.4, 3), st.integers(0, 3)), min_size=1, max_size=3),
    st.floats(1, 5),
)
def test_gaussian_of_several_axes_is_the_product(axes, truncate):
    sigmas, orders = zip(*axes, strict=True)
    expected = np.ones(())
    for sigma, order in axes:
        expected = np.multiply.outer(expected, kernels.gaussian(sigma, order, truncate, ndim=1))
    oracle.assert_same_bits(kernels.gaussian(sigmas, orders, truncate), expected)


@pytest.mark.parametrize(
    ("sigma", "truncate", "size"), [(1, 4, 9), (1.5, 4, 13), (2, 3, 13), (0.1, 4, 1), (3, 0, 1)]
)
def test_gaussian_size(sigma, truncate, size):
    assert kernels.gaussian(sigma, truncate=truncate).shape == (size, size)
    assert kernels.gaussian(sigma, truncate=truncate, radius=2).shape == (5, 5)
    assert kernels.gaussian(sigma, radius=(1, 2)).shape == (3, 5)


# ---- the second witnesses ----


def impulse_response(filter_, radius, **arguments):
    """The kernel that a filter correlates with, read off an image of one bright pixel."""
    shape = [2 * r + 1 for r in radius]
    image = np.zeros(shape)
    image[tuple(radius)] = 1
    return np.flip(filter_(image, mode="constant", **arguments))


@pytest.mark.parametrize("order", [0, 1, 2, 3, (0, 1), (2, 1)])
@pytest.mark.parametrize("sigma", [0.7, 1, 2.3, (1.2, 3)])
def test_gaussian_is_scipys(sigma, order):
    ndimage = pytest.importorskip("scipy.ndimage")
    sigmas, orders = np.broadcast_to(sigma, 2), np.broadcast_to(order, 2)
    radius = [int(4 * s + 0.5) for s in sigmas]
    theirs = impulse_response(ndimage.gaussian_filter, radius, sigma=sigma, order=order)
    # Relative errors of two factors add, in ours and in SciPy's.
    relative, size = 0.0, np.ones(())
    for s, d, r in zip(sigmas, orders, radius, strict=True):
        terms = np.array(exact_gaussian(float(s), int(d), r)[1], float)
        relative = np.add.outer(relative, gaussian_bound(s, d, r, np.ones(2 * r + 1)))
        size = np.multiply.outer(size, terms)
    assert (np.abs(kernels.gaussian(sigma, order) - theirs) <= 2 * relative * size).all()


@pytest.mark.parametrize("sigma", [0.7, 1, 2.3, (1.2, 3)])
def test_laplacian_of_gaussian_is_scipys(sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    sigmas = np.broadcast_to(sigma, 2)
    radius = [int(4 * s + 0.5) for s in sigmas]
    theirs = impulse_response(ndimage.gaussian_laplace, radius, sigma=sigma)
    bound = 0.0
    for second in range(2):
        relative, size = 0.0, np.ones(())
        for axis, (s, r) in enumerate(zip(sigmas, radius, strict=True)):
            terms = np.array(exact_gaussian(float(s), 2 * (axis == second), r)[1], float)
            relative = np.add.outer(relative, gaussian_bound(s, 2, r, np.ones(2 * r + 1)))
            size = np.multiply.outer(size, terms)
        bound = bound + relative * size
    assert (np.abs(kernels.laplacian_of_gaussian(sigma) - theirs) <= 2 * bound).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", ["sobel", "prewitt"])
def test_slopes_are_scipys(name, ndim):
    ndimage = pytest.importorskip("scipy.ndimage")
    for axis in range(ndim):
        theirs = impulse_response(getattr(ndimage, name), [1] * ndim, axis=axis)
        oracle.assert_same_values(getattr(kernels, name)(axis, ndim=ndim), theirs)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_laplacian_is_scipys(ndim):
    ndimage = pytest.importorskip("scipy.ndimage")
    oracle.assert_same_values(kernels.laplacian(ndim), impulse_response(ndimage.laplace, [1] * ndim))


@pytest.mark.parametrize(("name", "divisor"), [("sobel", 4), ("prewitt", 3), ("scharr", 16)])
def test_slopes_divided_are_scikit_images(name, divisor):
    filters = pytest.importorskip("skimage.filters")
    image = np.random.default_rng(2).integers(-200, 200, (12, 11)).astype(np.float64)
    slopes = []
    for axis in (0, 1):
        kernel = getattr(kernels, name)(axis)
        slopes.append(correlate(image, kernel) / divisor)
        theirs = getattr(filters, name)(image, axis=axis)[1:-1, 1:-1]
        bound = (9 + 2) * U * correlate(np.abs(image), np.abs(kernel)) / divisor
        assert (np.abs(slopes[-1] - theirs) <= bound).all()
    magnitude = np.sqrt((slopes[0] ** 2 + slopes[1] ** 2) / 2)
    # Squares and a root: slopes that cancel to almost nothing must not be asked for their last digits.
    assert np.abs(getattr(filters, name)(image)[1:-1, 1:-1] - magnitude).max() <= 32 * U * magnitude.max()


def test_laplacian_is_minus_scikit_images():
    filters = pytest.importorskip("skimage.filters")
    image = np.random.default_rng(3).integers(-200, 200, (12, 11)).astype(np.float64)
    ours = correlate(image, kernels.laplacian())
    oracle.assert_same_values(ours, -filters.laplace(image)[1:-1, 1:-1])


# ---- errors ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.box(0), ValueError, "n must be at least 1, got 0"),
        (lambda: kernels.box(-3), ValueError, "n must be at least 1, got -3"),
        (lambda: kernels.box(2.0), TypeError, "n must be an integer, got 2.0 of type float"),
        (lambda: kernels.box(True), TypeError, "n must be an integer, got the boolean True"),
        (lambda: kernels.box("3"), TypeError, "n must be an integer, got '3' of type str"),
        (lambda: kernels.box(None), TypeError, "n must be an integer, got None of type NoneType"),
        (lambda: kernels.box((3, 0)), ValueError, "n must be at least 1, got 0"),
        (lambda: kernels.box(()), ValueError, "ndim must be from 1 to 62, got 0"),
        (
            lambda: kernels.box((3, 5), ndim=3),
            ValueError,
            "n must be a single value or one for each of 3 axes, got (3, 5)",
        ),
        (lambda: kernels.identity(3, ndim=0), ValueError, "ndim must be from 1 to 62, got 0"),
        (lambda: kernels.identity(3, ndim=1.0), TypeError, "ndim must be an integer, got 1.0 of type float"),
        (lambda: kernels.binomial(0), ValueError, "n must be at least 1, got 0"),
        (lambda: kernels.gaussian(-1), ValueError, "sigma must be at least 0, got -1.0"),
        (lambda: kernels.gaussian(math.nan), ValueError, "sigma must be finite, got nan"),
        (lambda: kernels.gaussian(math.inf), ValueError, "sigma must be finite, got inf"),
        (lambda: kernels.gaussian("1"), TypeError, "sigma must be a real number, got '1' of type str"),
        (lambda: kernels.gaussian(1j), TypeError, "sigma must be a real number, got 1j of type complex"),
        (lambda: kernels.gaussian(1, -1), ValueError, "order must be at least 0, got -1"),
        (lambda: kernels.gaussian(1, 0.5), TypeError, "order must be an integer, got 0.5 of type float"),
        (lambda: kernels.gaussian(0, 1), ValueError, "sigma must be above 0 along an axis of order above 0"),
        (lambda: kernels.gaussian(1, truncate=-1), ValueError, "truncate must be at least 0, got -1.0"),
        (lambda: kernels.gaussian(1, radius=-1), ValueError, "must be a non-negative integer, got -1"),
        (lambda: kernels.gaussian(1, radius=1.5), ValueError, "must be a non-negative integer, got 1.5"),
        (
            lambda: kernels.gaussian((1, 2), (0, 0, 1)),
            ValueError,
            "order must be a single value or one for each of 2 axes, got (0, 0, 1)",
        ),
        (lambda: kernels.laplacian_of_gaussian(0), ValueError, "sigma must be above 0 along an axis"),
        (lambda: kernels.derivative(-1), ValueError, "order must be from 0 to 56, got -1"),
        (lambda: kernels.derivative(57), ValueError, "order must be from 0 to 56, got 57"),
        (lambda: kernels.derivative(1.0), TypeError, "order must be an integer, got 1.0 of type float"),
        (
            lambda: kernels.derivative(axis=1),
            ValueError,
            "axis must be from -1 to 0 for a kernel of ndim=1, got 1",
        ),
        (lambda: kernels.second_derivative(ndim=0), ValueError, "ndim must be from 1 to 62, got 0"),
        (lambda: kernels.sobel(2), ValueError, "axis must be from -2 to 1 for a kernel of ndim=2, got 2"),
        (lambda: kernels.prewitt(-3), ValueError, "axis must be from -2 to 1 for a kernel of ndim=2, got -3"),
        (lambda: kernels.scharr(0.0), TypeError, "axis must be an integer, got 0.0 of type float"),
        (lambda: kernels.laplacian(0), ValueError, "ndim must be from 1 to 62, got 0"),
        (lambda: kernels.laplacian(2, connectivity=3), ValueError, "connectivity must be from 1 to 2, got 3"),
        (lambda: kernels.laplacian(connectivity=0), ValueError, "connectivity must be from 1 to 2, got 0"),
        (lambda: kernels.sharpen("much"), TypeError, "amount must be a real number, got 'much' of type str"),
        (lambda: kernels.sharpen(math.inf), ValueError, "amount must be finite, got inf"),
    ],
)
def test_errors_name_the_argument_and_the_rule(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
