"""pyconv.ndimage against the installed scipy.ndimage: the same calls, drawn at large, must end the same way.

One strategy a function draws whole calls (arrays of every dtype, layout and number of axes, and all arguments of
SciPy's signature). `same_call` makes the call on both sides and compares what comes out: values, dtype and byte order,
the object that is returned, warnings, or the exception. Integer images and integer-valued sums must agree bit for
bit; other sums within 1e-13 (float64) or 1e-5 (float32) of the largest |x| * |w|, which is the same filter with all
terms made positive.
"""

from __future__ import annotations

import inspect
import warnings
from unittest import mock

import cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyconv import ndimage as ours

scipy_ndimage = pytest.importorskip("scipy.ndimage")
scipy_filters = pytest.importorskip("scipy.ndimage._filters")

NAMES = (
    "correlate", "convolve", "correlate1d", "convolve1d", "uniform_filter", "uniform_filter1d", "gaussian_filter",
    "gaussian_filter1d", "sobel", "prewitt", "laplace", "gaussian_laplace", "gaussian_gradient_magnitude",
    "generic_laplace", "generic_gradient_magnitude",
)  # fmt: skip
IMAGE = np.arange(20.0).reshape(4, 5)
MODES = ("reflect", "grid-mirror", "mirror", "nearest", "wrap", "grid-wrap", "constant", "grid-constant")
INTEGERS = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
FLOATS = ("f4", "f8")
COMPLEX = ("c8", "c16")
DTYPES = INTEGERS + FLOATS + COMPLEX
# A negative number wraps to one beyond 2**53, which SciPy's next pass rounds.
DTYPES_OF_PASSES = tuple(dtype for dtype in DTYPES if dtype != "u8")
ONE_PASS = ("correlate", "convolve", "correlate1d", "convolve1d", "uniform_filter1d")


# What a call returns, raises and warns of


class Outcome:
    """A call's result, the exception that ended it, and the warnings on the way."""

    def __init__(self, function, arguments, keywords):
        self.result = self.error = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.result = function(*arguments, **keywords)
            except Exception as error:
                self.error = error
        self.warnings = sorted({warning.category.__name__ for warning in caught})


def call_of(side, name, arguments, keywords):
    """Make the call on one side. A generic function's derivative is named, and taken from that side as well."""

    def taps(input, axis, output, mode, cval, *weights, **keywords):
        return side.correlate1d(input, weights, axis, output, mode, cval, **keywords)

    if name.startswith("generic"):
        derivative = taps if arguments[1] == "taps" else getattr(side, arguments[1])
        arguments = (arguments[0], derivative, *arguments[2:])
    return Outcome(getattr(side, name), arguments, keywords)


def bits(array):
    """Values that compare equal only where they are the same; -0 and 0 are, and so are all NaN."""
    return array.astype(array.dtype.newbyteorder("="))


def assert_same(actual, expected, tolerance, what):
    assert type(actual) is type(expected), what
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    actual, expected = bits(actual), bits(expected)
    if tolerance == 0 or actual.dtype.kind in "?biu":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
    else:
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(actual), finite, err_msg=what)
        np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
        np.testing.assert_allclose(actual[finite], expected[finite], rtol=0, atol=tolerance, err_msg=what)


def same_call(name, image, arguments, keywords, output=None):
    """Make the call on both sides. `output` makes an output array for each, or is "in place": a copy of the image."""
    sides = []
    for side in (scipy_ndimage, ours):
        # SciPy's correlate and convolve misread images with strides of 0, so SciPy gets a plain copy.
        samples = image if side is ours else image.astype(image.dtype.newbyteorder("="), order="C")
        target = output() if callable(output) else None
        if output == "in place":
            # Where several passes read the image SciPy's result in place is another one: it reads what it has written.
            target = image.copy()
            samples = target if side is ours else samples
        keywords_here = keywords if target is None else {**keywords, "output": target}
        sides.append((target, call_of(side, name, (samples, *arguments), keywords_here)))
    (their_target, theirs), (our_target, mine) = sides
    what = (
        f"{name}({image!r}, {arguments}, {keywords}, output={their_target!r})\n"
        f"SciPy: {theirs.error!r} {theirs.result!r}\npyconv: {mine.error!r} {mine.result!r}"
    )
    if theirs.error is not None:
        assert isinstance(mine.error, type(theirs.error)), what
        return
    if mine.error is not None:
        raise AssertionError(what) from mine.error
    assert mine.warnings == theirs.warnings, f"{what}\n{theirs.warnings}, {mine.warnings}"
    tolerance = tolerance_of(name, image, arguments, keywords, theirs.result)
    if isinstance(their_target, np.ndarray):
        assert (mine.result is our_target) == (theirs.result is their_target), what
        assert_same(*(on_one_side_of_the_cut(name, y) for y in (our_target, their_target)), tolerance, what)
    assert_same(*(on_one_side_of_the_cut(name, y) for y in (mine.result, theirs.result)), tolerance, what)


def on_one_side_of_the_cut(name, results):
    """Complex magnitudes are roots: of a negative number, the sign of a zero beside it tells which."""
    if not name.endswith("gradient_magnitude") or results.dtype.kind != "c":
        return results
    return np.where((abs(results.real) <= 1e-3) & (results.imag < 0), -results, results).astype(results.dtype)


# Arrays and arguments


def values(rng, shape, dtype, kind):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if kind == "constant":
        return np.full(shape, 7 if dtype.kind in "iu" else 0.3, dtype)
    if kind == "extremes" and dtype.kind in "iu" and dtype.itemsize <= 2:
        # (The sums of wider extremes do not fit the output, where C leaves undefined what SciPy's conversion gives.)
        info = np.iinfo(dtype)
        return rng.choice(np.array([info.min, info.max], dtype), shape)
    if kind == "fractions" and dtype.kind in "fc":
        return cases.normal(rng, shape, dtype)
    return cases.integer_valued(rng, shape, dtype, 100)


@st.composite
def images(draw, dtypes, least=0, most=4):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = st.one_of(st.integers(1, 9), st.sampled_from((0, 1, 2, 17)))
    ndim = draw(st.sampled_from([n for n in (2, 1, 3, 2, 0, 4) if least <= n <= most]))
    shape = draw(st.lists(sides, min_size=ndim, max_size=ndim))
    if ndim == 4:
        shape = [min(n, 4) for n in shape]
    dtype = draw(st.sampled_from(dtypes))
    base = values(rng, shape, dtype, draw(st.sampled_from(("integers", "constant", "extremes", "fractions"))))
    return cases.lay_out(base, draw(st.sampled_from(tuple(cases.LAYOUTS))))


def each(draw, strategy, count):
    """One value for all axes or one an axis, as SciPy takes them."""
    if draw(st.booleans()):
        return draw(strategy)
    return draw(st.sampled_from((list, tuple)))(draw(strategy) for _ in range(count))


def axes_of(draw, ndim):
    """None, one axis or several, some of them counted from the end; and how many there are."""
    if draw(st.booleans()):
        return None, ndim
    if ndim == 0:
        return (), 0
    if draw(st.booleans()):
        # From the front: a single negative one is a bug of SciPy's correlate and convolve, which find too many axes.
        return draw(st.integers(0, ndim - 1)), 1
    order = draw(st.permutations(range(ndim)))[: draw(st.integers(0, ndim))]
    return tuple(axis - ndim * draw(st.booleans()) for axis in order), len(order)


def outputs(draw, image, dtypes):
    """None, or a function that makes one form of `output` anew: it may be written to."""
    form = draw(st.sampled_from(("none", "none", "dtype", "type", "name", "array", "array", "list", "in place")))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    if image.dtype.kind == "c" and draw(st.booleans()):
        dtype = np.dtype(draw(st.sampled_from(COMPLEX)))
    if form == "none":
        return None
    if image.size == 0 and image.dtype.kind != "c":
        # SciPy refuses complex arrays for real sums, but not in every function where there are no sums.
        dtype = np.dtype(dtype.char.lower())
    if form == "dtype":
        dtype = dtype.newbyteorder(draw(st.sampled_from("<>")))
        return lambda: dtype
    if form == "type":
        return lambda: dtype.type
    if form == "name":
        return lambda: dtype.name
    if form == "list":
        return lambda: np.zeros(image.shape, dtype).tolist()
    layout = draw(st.sampled_from(cases.OUT_LAYOUTS))
    if form == "in place":
        return "in place"
    return lambda: cases.lay_out(np.zeros(image.shape, dtype), layout)


CVALS = st.one_of(
    st.just(0.0), st.integers(-9, 9), st.floats(-9, 9), st.sampled_from((0.5, np.float32(2.5), 1e30, np.nan, np.inf))
)


def borders(draw, image, output, keywords, count=None):
    """mode (one, or one for each of `count` axes) and cval."""
    if draw(st.booleans()):
        modes = st.sampled_from(MODES)
        keywords["mode"] = draw(modes) if count is None else each(draw, modes, count)
    if draw(st.booleans()):
        cval = draw(CVALS)
        # What a huge number or NaN becomes in an integer is undefined in SciPy's C.
        if not (abs(cval) < 100 or image.dtype.kind in "fc" and output is None):
            cval = 3
        keywords["cval"] = cval if image.dtype.kind != "c" else cval + draw(st.sampled_from((0, 2j)))


@st.composite
def weights_of(draw, ndim, wide=5):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = st.integers(1, {0: 1, 1: wide, 2: 5, 3: 3, 4: 2}[ndim])
    shape = draw(st.lists(side, min_size=ndim, max_size=ndim))
    dtype = draw(st.sampled_from(("f8", *DTYPES)))
    whole = draw(st.booleans()) or np.dtype(dtype).kind in "?biu"
    base = cases.integer_valued(rng, shape, dtype, 5) if whole else cases.normal(rng, shape, dtype)
    shape = draw(st.sampled_from(("any", "any", "even", "odd")))
    if shape == "even":
        base = base + base[(slice(None, None, -1),) * ndim]
    elif shape == "odd" and base.dtype.kind in "ifc":
        base = base - base[(slice(None, None, -1),) * ndim]
    if draw(st.booleans()):
        return cases.lay_out(base, draw(st.sampled_from(tuple(cases.LAYOUTS))))
    return base.tolist()


def origins(k):
    """From one too small to one too large, most of the time 0."""
    return st.one_of(st.just(0), st.integers(-(k // 2) - 1, k // 2 + 1))


@st.composite
def calls(draw, name):
    """(image, further positional arguments, keywords, output) of one call."""
    dtypes = DTYPES if name in ONE_PASS else DTYPES_OF_PASSES
    image = draw(images(dtypes, least=1 if name.endswith("1d") and draw(st.booleans()) else 0))
    arguments, keywords = (), {}
    ndim = image.ndim
    # Where two arguments are wrong, either is reported: of images without axes only this one.
    output = None if ndim == 0 and name in ("sobel", "prewitt") else outputs(draw, image, dtypes)
    axis = draw(st.integers(-max(ndim, 1), max(ndim, 1) - 1))
    if name in ("correlate", "convolve"):
        axes, count = axes_of(draw, ndim)
        if axes is not None:
            keywords["axes"] = axes
        weights = draw(weights_of(count))
        arguments = (weights,)
        borders(draw, image, output, keywords)
        if draw(st.booleans()):
            keywords["origin"] = [draw(origins(k)) for k in np.shape(weights)] if draw(st.booleans()) else draw(
                origins(min(np.shape(weights), default=1))
            )
    elif name in ("correlate1d", "convolve1d"):
        weights = draw(weights_of(1, 12))
        arguments = (weights,) if draw(st.booleans()) else (weights, axis)
        borders(draw, image, output, keywords)
        if draw(st.booleans()):
            keywords["origin"] = draw(origins(len(weights)))
    elif name == "uniform_filter1d":
        size = draw(st.integers(1, 12))
        arguments = (size,) if draw(st.booleans()) else (size, axis)
        borders(draw, image, output, keywords)
        if draw(st.booleans()):
            keywords["origin"] = draw(origins(size))
    elif name == "uniform_filter":
        axes, count = axes_of(draw, ndim)
        if axes is not None:
            keywords["axes"] = axes
        if draw(st.booleans()):
            arguments = (each(draw, st.integers(0, 6), count),)
        borders(draw, image, output, keywords, count)
        if draw(st.booleans()):
            keywords["origin"] = each(draw, st.sampled_from((0, 0, -1, 1)), count)
    elif name == "gaussian_filter1d":
        # (None so small that all weights of a derivative are below an epsilon, where SciPy takes odd for even.)
        arguments = (draw(st.sampled_from((0.5, 1, 1.7, np.float32(2.5), 0.2))),)
        arguments += () if draw(st.booleans()) else (axis, draw(st.integers(0, 4)))
        borders(draw, image, output, keywords)
        gaussian_reach(draw, keywords)
    elif name == "gaussian_filter":
        axes, count = axes_of(draw, ndim)
        if axes is not None:
            keywords["axes"] = axes
        arguments = (each(draw, st.sampled_from((0.6, 1, 2.3, 0)), count),)
        if draw(st.booleans()):
            arguments += (each(draw, st.integers(0, 3), count),)
        borders(draw, image, output, keywords, count)
        gaussian_reach(draw, keywords, count)
    elif name in ("sobel", "prewitt"):
        arguments = () if draw(st.booleans()) else (axis,)
        borders(draw, image, output, keywords, ndim)
    else:
        axes, count = axes_of(draw, ndim)
        if axes is not None:
            keywords["axes"] = axes
        borders(draw, image, output, keywords, count)
        if name.startswith("gaussian"):
            arguments = (each(draw, st.sampled_from((0.6, 1, 2.3)), count),)
            gaussian_reach(draw, keywords)
        elif name.startswith("generic"):
            arguments = (draw(st.sampled_from(("sobel", "prewitt", "taps"))),)
            if arguments == ("taps",):
                keywords["extra_arguments"] = draw(st.sampled_from(((1, -2, 1), (0.5, 0, -0.5), [3, 1])))
                if draw(st.booleans()):
                    keywords["extra_keywords"] = {"origin": draw(st.sampled_from((0, -1)))}
    if name.startswith("uniform") and "cval" in keywords:
        # SciPy's running sums keep the roundings of fractions, and NaN and what is huge, to the end of the row.
        cval = keywords["cval"] if abs(keywords["cval"]) < 100 else 3
        keywords["cval"] = complex(round(cval.real), cval.imag) if np.iscomplexobj(cval) else round(cval)
    return image, arguments, keywords, output


def gaussian_reach(draw, keywords, count=None):
    if draw(st.booleans()):
        keywords["truncate"] = draw(st.sampled_from((1.5, 4.0, 2)))
    if draw(st.booleans()):
        radius = st.integers(0, 6)
        keywords["radius"] = draw(radius) if count is None else each(draw, radius, count)


# The bound of a difference


def largest_sum(name, image, arguments, keywords):
    """max(|x| * |w|): what SciPy's function gives where every sample, weight and constant is made positive."""
    correlate1d = scipy_filters.correlate1d

    def positive(input, weights, *rest, **others):
        return correlate1d(input, np.abs(weights), *rest, **others)

    keywords = {**keywords, "cval": abs(keywords.get("cval", 0.0))}
    if name in ("correlate", "convolve"):
        arguments = (np.abs(np.array(arguments[0])),)
    with mock.patch.object(scipy_filters, "correlate1d", positive), mock.patch.object(
        scipy_ndimage, "correlate1d", positive
    ):
        outcome = call_of(scipy_ndimage, name, (np.abs(image.astype(complex)), *arguments), keywords)
    if outcome.error is not None:
        return 0.0
    return float(np.max(outcome.result, initial=0.0, where=np.isfinite(outcome.result)))


def whole(*numbers):
    return all(np.all(np.isfinite(array) & (np.round(array) == array)) for array in map(np.asarray, numbers))


def tolerance_of(name, image, arguments, keywords, result):
    """0 where sums are exact: integer images that stay integers, or integers throughout."""
    if result.dtype.kind in "?biu":
        return 0.0
    largest = largest_sum(name, image, arguments, keywords)
    single = {image.dtype.str[1:], result.dtype.str[1:]} & {"f4", "c8"}
    exact = name in ("correlate", "convolve", "correlate1d", "convolve1d", "sobel", "prewitt", "laplace")
    if exact and largest <= (2**24 if single else 2**53):
        weights = arguments[:1] if name.startswith("co") else ()
        if whole(image, *weights, keywords.get("cval", 0)):
            return 0.0
    return (1e-5 if single else 1e-13) * largest


# Tests


@pytest.mark.parametrize("name", NAMES)
def test_same_results(name):
    @given(calls(name))
    def run(call):
        image, arguments, keywords, output = call
        same_call(name, image, arguments, keywords, output)

    run()


# One argument of each kind that a caller may get wrong, or may spell in another way, for every parameter

ODD = (
    None, True, False, 0, 1, -1, 2, 3, 5, -5, 10**30, 0.0, 0.5, 1.0, 2.5, 3.0, -1.0, np.nan, np.inf, 1j, "a", "wrap",
    "warp", [], (), [1], [1, 1], (0, 1), (1, 0), (-1, -1), [True, False], [1.0, 2.5], [0.5, 0.5], (1, 2, 3), ["wrap"],
    ["wrap", "warp"], ("mirror", "nearest"), [None, None], ["a", "b"], np.int8(1), np.float32(1), np.array([1, 1]),
    np.array(1.5), float, complex, bool, object, "float32", "bool", "complex64", "U3", "longdouble", np.dtype(">f4"),
    np.zeros((4, 5)), np.zeros((5, 4)), np.zeros((4, 5), int), np.zeros((4, 5), complex), np.zeros((4, 5), object),
    {}, {"a": 1}, object(),
)  # fmt: skip
REQUIRED = {
    "correlate": {"weights": np.ones((3, 3))}, "convolve": {"weights": np.ones((3, 3))},
    "correlate1d": {"weights": [1.0, 2, 3]}, "convolve1d": {"weights": [1.0, 2, 3]},
    "uniform_filter1d": {"size": 3}, "gaussian_filter": {"sigma": 1.0}, "gaussian_filter1d": {"sigma": 1.0},
    "gaussian_laplace": {"sigma": 1.0}, "gaussian_gradient_magnitude": {"sigma": 1.0},
    "generic_laplace": {"derivative2": None}, "generic_gradient_magnitude": {"derivative": None},
}  # fmt: skip


def differs_on_purpose(name, parameter, value):
    if parameter == "cval" and name.startswith("uniform"):
        # SciPy's running sums carry a huge number, NaN or infinity to the end of the row.
        return isinstance(value, (int, float)) and not abs(value) < 100
    # Elsewhere SciPy takes booleans for the integers that they are.
    boolean = any(value is one or isinstance(value, list) and one in value for one in (True, False))
    return boolean and (name, parameter) in BOOLEANS_REFUSED


BOOLEANS_REFUSED = (("correlate", "origin"), ("gaussian_filter", "order"), ("gaussian_filter1d", "order"))


@pytest.mark.parametrize("name", NAMES)
def test_odd_arguments(name):
    """Whatever SciPy raises is caught by the same `except`, and what it takes is taken."""
    for parameter in (*inspect.signature(getattr(scipy_ndimage, name)).parameters, "truncate", "radius"):
        if parameter in ("input", "kwargs"):
            continue
        for value in ODD:
            if differs_on_purpose(name, parameter, value):
                continue
            keywords = {**REQUIRED.get(name, {}), parameter: value}
            sides = []
            for side in (scipy_ndimage, ours):
                here = {key: v.copy() if isinstance(v, np.ndarray) else v for key, v in keywords.items()}
                if parameter == "cval":
                    here["mode"] = "constant"
                if name.startswith("generic") and not parameter.startswith("derivative"):
                    here["derivative2" if "laplace" in name else "derivative"] = side.sobel
                sides.append(Outcome(getattr(side, name), (IMAGE,), here))
            theirs, mine = sides
            what = f"{name}(image, {keywords})\nSciPy: {theirs.error!r}\npyconv: {mine.error!r}"
            if theirs.error is not None:
                assert isinstance(mine.error, catchable(theirs.error)), what
                continue
            assert mine.error is None, what
            assert mine.warnings == theirs.warnings, what
            largest = np.max(np.abs(theirs.result), initial=20, where=np.isfinite(theirs.result))
            assert_same(mine.result, theirs.result, 1e-13 * float(largest), what)


def catchable(error):
    """The class by which callers know a SciPy error: Python's own, or NumPy's AxisError."""
    return next(c for c in type(error).__mro__ if c.__module__ == "builtins" or c is np.exceptions.AxisError)


NO_NUMBERS = (
    None, "a", b"x", {}, object(), ["a", "b"], [None, 1], [[1, 2], [3]], [10**30], np.ones((3, 3), object),
    np.ones((3, 3), np.longdouble), np.ones((3, 3), np.clongdouble), np.ones((3, 3), "U3"),
    np.zeros(3, [("a", int)]), np.array([1, 2], "M8[s]"), np.array([1, 2], "m8[s]"),
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_images_that_are_no_numbers(name):
    """SciPy returns a single object as it is where there is nothing to filter along; that is refused here as well."""
    for value in NO_NUMBERS:
        ndim = 1 if isinstance(value, list) else np.ndim(value)
        errors = []
        for side in (scipy_ndimage, ours):
            keywords = dict(REQUIRED.get(name, {}))
            if name.startswith("generic"):
                keywords["derivative2" if "laplace" in name else "derivative"] = side.sobel
            if name in ("correlate", "convolve"):
                keywords = {"weights": np.ones((3,) * ndim)}
            errors.append(Outcome(getattr(side, name), (value,), keywords).error)
        theirs, mine = errors
        if theirs is None:
            assert ndim == 0
            assert isinstance(mine, TypeError)
        else:
            assert isinstance(mine, catchable(theirs)), f"{value!r}\nSciPy: {theirs!r}\npyconv: {mine!r}"
