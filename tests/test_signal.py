"""pyconv.signal: plain loops first, then scipy.signal: the same calls, the same results.

Integers must agree bit for bit, floats within 1e-13 (float32: 1e-5) of max(|in1| * |in2|).
"""

import doctest
import importlib
import inspect
import itertools
import math
import warnings
from unittest import mock

import numpy as np
import pytest
from cases import LAYOUTS, integer_valued, lay_out, normal
from hypothesis import given
from hypothesis import strategies as st
from oracle import assert_same_bits, assert_same_class, assert_same_values, convolve_full

from pyconv import engine, plan, signal

MODES = ("full", "same", "valid")
BOUNDARIES = ("fill", "wrap", "symm", "pad", "circular", "symmetric")
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64")
FLOATS = ("float32", "float64", "complex64", "complex128")
OWN = ("correlate2d", "convolve2d", "correlate", "convolve", "fftconvolve", "oaconvolve", "choose_conv_method")


# ---- comparing ----


def largest_sum(a, b):
    """max(|a| * |b|), of the full convolution."""
    a, b = (abs(x).astype(np.float64) for x in (a, b))
    if a.ndim == 1:
        return float(np.convolve(a, b).max())
    return float(convolve_full(*((a, b) if a.size > b.size else (b, a))).max())


def assert_near(actual, expected, largest, *dtypes):
    """Equal dtypes and shapes; integers equal, floats within 1e-13 of `largest`, 1e-5 where one of them is narrow."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind not in "fc":
        assert_same_values(actual, expected)
        return
    narrow = any(np.dtype(dtype).char in "fF" for dtype in (*dtypes, actual.dtype))
    allowed = (1e-5 if narrow else 1e-13) * largest
    wrong = ~(abs(actual - expected) <= allowed)
    assert not wrong.any(), f"{actual[wrong][0]!r}, should be {expected[wrong][0]!r}, allowed {allowed:.3g}"


def test_the_comparison_notices_a_difference():
    y = np.ones(5)
    assert_near(y, y + 0.9e-13, 1.0, y.dtype)
    with pytest.raises(AssertionError):
        assert_near(y, y + 1.2e-13, 1.0, y.dtype)
    with pytest.raises(AssertionError):
        assert_near(y, y.astype(np.float32), 1.0, y.dtype)
    with pytest.raises(AssertionError):
        assert_near(np.full(5, np.nan), y, 1.0, y.dtype)


def test_the_oracle_by_hand():
    assert convolve_full(np.array([1, 2, 3]), np.array([0, 1, 5])).tolist() == [0, 1, 7, 13, 15]
    assert convolve_full(np.array([1, 2, 3]), np.array([0, 1]), "same").tolist() == [0, 1, 2]
    assert convolve_full(np.array([1, 2]), np.array([1, 1, 1, 1]), "valid").tolist() == [3, 3, 3]


def turned(b):
    return np.flip(b).conj()


def draw(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        return normal(rng, shape, dtype)
    if dtype.kind == "b":
        return integer_valued(rng, shape, dtype, 1)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def draw_shapes(rng, ndim):
    most = (40, 14, 6)[ndim - 1]
    small = min(most, 6)
    return (tuple(int(n) for n in rng.integers(1, highest + 1, ndim)) for highest in (most, rng.choice([small, most])))


# ---- plain loops ----


@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.integers(1, 3),
    dtypes=st.tuples(*[st.sampled_from(INTEGERS[:-1])] * 2),
    mode=st.sampled_from(MODES),
    layouts=st.tuples(*[st.sampled_from(sorted(set(LAYOUTS) - {"broadcast"}))] * 2),
)
def test_integers_are_those_of_plain_loops(seed, ndim, dtypes, mode, layouts):
    rng = np.random.default_rng(seed)
    a, b = (draw(rng, shape, dtype) for shape, dtype in zip(draw_shapes(rng, ndim), dtypes, strict=True))
    result = np.result_type(a, b)
    if mode == "valid" and not (np.all(np.array(a.shape) >= b.shape) or np.all(np.array(a.shape) <= b.shape)):
        b = b[tuple(slice(n) for n in a.shape)]
    x, w = (lay_out(array, layout) for array, layout in zip((a, b), layouts, strict=True))
    exact_a, exact_b = a.astype(result), b.astype(result)
    for method in ("auto", "direct", "fft"):
        assert_near(signal.convolve(x, w, mode, method), convolve_full(exact_a, exact_b, mode), 0)
        assert_near(signal.correlate(x, w, mode, method), convolve_full(exact_a, turned(exact_b), mode), 0)


@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.integers(1, 3),
    dtypes=st.tuples(*[st.sampled_from(FLOATS)] * 2),
    mode=st.sampled_from(MODES),
)
def test_integer_valued_floats_are_exact(seed, ndim, dtypes, mode):
    rng = np.random.default_rng(seed)
    a, b = (integer_valued(rng, shape, dt, 15) for shape, dt in zip(draw_shapes(rng, ndim), dtypes, strict=True))
    if mode == "valid":
        b = b[tuple(slice(n) for n in a.shape)]
        a = a[tuple(slice(0, max(n, k)) for n, k in zip(a.shape, b.shape, strict=True))]
    assert_same_values(signal.convolve(a, b, mode, "direct"), convolve_full(a, b, mode))
    assert_same_values(signal.correlate(a, b, mode, "direct"), convolve_full(a, turned(b), mode))


@given(
    seed=st.integers(0, 2**32 - 1),
    dtypes=st.tuples(*[st.sampled_from(FLOATS + INTEGERS[:4])] * 2),
    mode=st.sampled_from(MODES),
)
def test_two_axes_are_those_of_plain_loops(seed, dtypes, mode):
    rng = np.random.default_rng(seed)
    a, b = (integer_valued(rng, shape, dt, 15) for shape, dt in zip(draw_shapes(rng, 2), dtypes, strict=True))
    if mode == "valid":
        b = b[: a.shape[0], : a.shape[1]]
    result = np.result_type(a, b)
    a, b = a.astype(result), b.astype(result)
    assert_same_values(signal.convolve2d(a, b, mode), convolve_full(a, b, mode))
    # In mode "same" an even kernel lies one further than `correlate`'s.
    full = convolve_full(a, turned(b))
    start = [k - 1 - (k - 1) // 2 for k in b.shape] if mode == "same" else None
    expected = convolve_full(a, turned(b), mode)
    if mode == "same":
        expected = full[tuple(slice(s, s + n) for s, n in zip(start, a.shape, strict=True))]
    assert_same_values(signal.correlate2d(a, b, mode), expected)


def test_booleans():
    a, b = np.array([True, False, False, True]), np.array([True, True])
    for method in ("auto", "direct", "fft"):
        assert signal.convolve(a, b, method=method).tolist() == [True, True, False, True, True]
        assert signal.convolve(a, b, method=method).dtype == bool
    assert signal.fftconvolve(a, b).tolist() == pytest.approx([1, 1, 0, 1, 1])
    for function in (signal.correlate2d, signal.convolve2d, signal.convolve):
        with pytest.raises(ValueError, match="booleans"):
            function(a[None], b[None])
        assert function(a[None], b[None].astype(int)).tolist() == [[1, 1, 0, 1, 1]]


@pytest.mark.parametrize("function", OWN[:-1])
def test_float16_is_summed_in_float32(function):
    rng = np.random.default_rng(0)
    a, b = normal(rng, (9, 8), "float16"), normal(rng, (3, 3), "float16")
    y = getattr(signal, function)(a, b)
    assert y.dtype == (np.float32 if "aconv" in function or "fftc" in function else np.float16)
    wide = getattr(signal, function)(a.astype(np.float32), b.astype(np.float32))
    assert_same_values(y, wide.astype(y.dtype))


# ---- SciPy ----


def same_call(name, *arguments, largest=None, **settings):
    """Call both libraries; errors must be of a class that code written for SciPy catches."""
    scipy_signal = pytest.importorskip("scipy.signal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = getattr(scipy_signal, name)(*arguments, **settings)
        except Exception as error:
            with pytest.raises(type(error)):
                getattr(signal, name)(*arguments, **settings)
            return
        actual = getattr(signal, name)(*arguments, **settings)
    assert type(actual) is type(expected)
    a, b = (np.asarray(x) for x in arguments[:2])
    largest = largest_sum(a, b) if largest is None and a.size and b.size and a.ndim else largest or 1
    assert_near(np.asarray(actual), np.asarray(expected), largest, a.dtype, b.dtype)


def fits(a, b):
    """Whether SciPy's transforms of integers are defined: no sum is beyond the dtype; booleans are not rounded."""
    dtype = np.result_type(a, b)
    return dtype.kind in "fc" or dtype.kind in "iu" and largest_sum(a, b) <= min(np.iinfo(dtype).max, 2**50)


@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.integers(1, 3),
    dtypes=st.tuples(*[st.sampled_from(("bool", *INTEGERS, *FLOATS))] * 2),
    mode=st.sampled_from(MODES),
    method=st.sampled_from(("auto", "direct", "fft")),
    layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 2),
)
def test_any_axes_agree_with_scipy(seed, ndim, dtypes, mode, method, layouts):
    rng = np.random.default_rng(seed)
    a, b = (
        lay_out(draw(rng, shape, dtype), layout)
        for shape, dtype, layout in zip(draw_shapes(rng, ndim), dtypes, layouts, strict=True)
    )
    if not fits(a, b):
        method = "direct"
    same_call("correlate", a, b, mode=mode, method=method)
    same_call("convolve", a, b, mode=mode, method=method)
    same_call("fftconvolve", a, b, mode=mode)
    same_call("oaconvolve", a, b, mode=mode)


@given(
    seed=st.integers(0, 2**32 - 1),
    dtypes=st.tuples(*[st.sampled_from(("bool", *INTEGERS, *FLOATS))] * 2),
    mode=st.sampled_from(MODES),
    boundary=st.sampled_from(BOUNDARIES),
    fillvalue=st.sampled_from([0, 0, 1, 2.0, -1, 1 + 2j, np.int8(3), [2]]),
    layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 2),
)
def test_two_axes_agree_with_scipy(seed, dtypes, mode, boundary, fillvalue, layouts):
    rng = np.random.default_rng(seed)
    a, b = (
        lay_out(draw(rng, shape, dtype), layout)
        for shape, dtype, layout in zip(draw_shapes(rng, 2), dtypes, layouts, strict=True)
    )
    largest = (largest_sum(a, b) + 4 * abs(b.astype(complex)).sum()) if a.dtype.kind + b.dtype.kind != "bb" else 1
    for name in ("correlate2d", "convolve2d"):
        same_call(name, a, b, largest=largest, mode=mode, boundary=boundary, fillvalue=fillvalue)


@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.integers(1, 3),
    dtypes=st.tuples(*[st.sampled_from(("bool", "uint8", "int32", *FLOATS))] * 2),
    mode=st.sampled_from(MODES),
    name=st.sampled_from(("fftconvolve", "oaconvolve")),
)
def test_some_axes_agree_with_scipy(seed, ndim, dtypes, mode, name):
    rng = np.random.default_rng(seed)
    n, k = draw_shapes(rng, ndim)
    axes = rng.permutation(ndim)[: rng.integers(1, ndim + 1)]
    k = tuple(k[i] if i in axes or rng.random() < 0.1 else int(rng.choice([1, n[i]])) for i in range(ndim))
    a, b = (draw(rng, shape, dtype) for shape, dtype in zip((n, k), dtypes, strict=True))
    axes = [int(axis) - ndim * int(rng.integers(2)) for axis in axes]
    same_call(name, a, b, mode=mode, axes=axes if len(axes) > 1 or rng.random() < 0.5 else axes[0])


@pytest.mark.parametrize("name", OWN[:-1])
@pytest.mark.parametrize("ndim", [1, 2])
def test_dtypes_are_scipys(name, ndim):
    scipy_signal = pytest.importorskip("scipy.signal")
    if ndim == 1 and name.endswith("2d"):
        pytest.skip("two axes only")
    for x in "?bBhHiIqQfdFD":
        for w in "?bBhHiIqQfdFD":
            a, b = np.ones((5,) * ndim, x), np.ones((3,) * ndim, w)
            if ndim == 1 or "fft" in name or "oa" in name or x + w != "??":
                expected = getattr(scipy_signal, name)(a, b)
                assert_near(getattr(signal, name)(a, b), expected, 9.0, a.dtype, b.dtype)


@pytest.mark.parametrize("name", OWN)
def test_signatures_are_scipys(name):
    scipy_signal = pytest.importorskip("scipy.signal")
    ours = inspect.signature(getattr(signal, name)).parameters
    theirs = inspect.signature(getattr(scipy_signal, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert [ours[p].default for p in theirs] == [theirs[p].default for p in theirs]
    assert all(ours[p].kind is inspect.Parameter.KEYWORD_ONLY for p in list(ours)[len(theirs) :])


def ones(*shape, dtype="f8"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("mode", [*MODES, "bad"])
@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
@pytest.mark.parametrize(
    "shapes",
    [
        *(((0,), (3,)), ((3,), (0,)), ((0,), (0,)), ((0, 3), (2, 2)), ((0, 3), (1, 2)), ((2, 2), (0, 3))),
        *(((3, 3), (0, 0)), ((3, 3), (0, 2)), ((0, 3), (0, 2)), ((), ()), ((3,), ()), ((3,), (2, 2))),
    ],
    ids=str,
)
def test_empty_arrays_and_scalars(shapes, mode, method):
    a, b = (ones(*shape) for shape in shapes)
    same_call("fftconvolve", a, b, mode=mode)
    same_call("oaconvolve", a, b, mode=mode)
    if a.size == 0 and a.ndim == 1 and mode == "same" and method == "direct":
        return  # SciPy's two functions differ here
    if a.size == 0 and shapes[0][-1] and mode == "full" and 1 in shapes[1]:
        return  # SciPy happens to find nothing to do; in all other such cases it refuses
    same_call("correlate", a, b, mode=mode, method=method)
    same_call("convolve", a, b, mode=mode, method=method)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shapes", [((0, 3), (2, 2)), ((2, 2), (0, 3)), ((3, 3), (0, 0)), ((0, 0), (0, 0)), ((0, 0), (2, 2))], ids=str
)
def test_empty_arrays_of_two_axes(shapes, mode):
    for name in ("correlate2d", "convolve2d"):
        same_call(name, *(ones(*shape) for shape in shapes), mode=mode)
        # (SciPy would divide by zero, and end the process, where something must be continued that is not there.)
    with pytest.raises(ValueError, match="empty"):
        signal.correlate2d(ones(0, 3), ones(2, 2), boundary="wrap")


BAD_CALLS = {
    "mode": lambda m, f: getattr(m, f)(ones(3, 3), ones(2, 2), mode="bad"),
    "mode number": lambda m, f: getattr(m, f)(ones(3, 3), ones(2, 2), mode=1),
    "mode list": lambda m, f: getattr(m, f)(ones(3, 3), ones(2, 2), mode=["full"]),
    "neither contains the other": lambda m, f: getattr(m, f)(ones(3, 2), ones(2, 3), mode="valid"),
    "axes differ": lambda m, f: getattr(m, f)(ones(3, 3), ones(3)),
    "strings": lambda m, f: getattr(m, f)([["ab"]], [["c"]]),
    "dates": lambda m, f: getattr(m, f)(np.array([["2020"]], "M8[Y]"), ones(1, 1)),
    "records": lambda m, f: getattr(m, f)(np.zeros((2, 2), [("a", "f8")]), ones(1, 1)),
    "ragged": lambda m, f: getattr(m, f)([[1, 2], [3]], ones(1, 1)),
    "nothing": lambda m, f: getattr(m, f)(None, None),
    "one nothing": lambda m, f: getattr(m, f)(ones(3, 3), None),
    "too many": lambda m, f: getattr(m, f)(ones(3, 3), ones(2, 2), "full", "fill", 0, None, None),
}
for name in ("method", "boundary", "axes"):
    for value in ("bad", None, ["fft"], 7, [0, 0], [], 2, -3, 0.5, [0.5], True):
        BAD_CALLS[f"{name}={value!r}"] = lambda m, f, name=name, value=value: getattr(m, f)(
            ones(3, 4), ones(2, 3), **{name: value}
        )
for value in (1j, "a", None, [1, 2], np.array([]), np.nan, 300, -1, 2**70, 1.7, np.inf):
    for dtype in ("u1", "f8"):
        BAD_CALLS[f"fillvalue={value!r} {dtype}"] = lambda m, f, value=value, dtype=dtype: getattr(m, f)(
            ones(3, 3, dtype=dtype), ones(2, 2, dtype=dtype), fillvalue=value
        )


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
@pytest.mark.parametrize("function", OWN[:-1])
def test_what_scipy_refuses_is_refused(function, call):
    scipy_signal = pytest.importorskip("scipy.signal")
    parameters = inspect.signature(getattr(signal, function)).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = call(scipy_signal, function)
        except Exception as error:
            with pytest.raises(type(error)) if "unexpected keyword" in str(error) else pytest.raises(
                tuple(c for c in type(error).__mro__ if c in (ValueError, TypeError, IndexError, RuntimeError))
            ):
                call(signal, function)
            return
        assert parameters
        assert_same_class(call(signal, function), expected)


def test_messages_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"in1 and in2 .* number of axes.*\(3,\) and \(2, 2\)"):
        signal.correlate(ones(3), ones(2, 2))
    with pytest.raises(ValueError, match=r"2-D.*\(3,\)"):
        signal.correlate2d(ones(3), ones(3))
    with pytest.raises(ValueError, match=r"mode must be 'full'.*'ful'"):
        signal.convolve2d(ones(3, 3), ones(2, 2), "ful")
    with pytest.raises(ValueError, match="fillvalue must fit uint8.*300"):
        signal.convolve2d(ones(3, 3, dtype="u1"), ones(2, 2, dtype="u1"), fillvalue=300)
    with pytest.raises(TypeError, match="workers"):
        signal.correlate(ones(3), ones(2), workers="two")
    with pytest.raises(TypeError, match="lazy"):
        signal.correlate(Lazy(), ones(2))


class Lazy:
    """What the protocol of dask's collections has."""

    def __dask_graph__(self):
        return {"a": 1}


# ---- the ways of computing ----

# Shapes for which each way is chosen, of arrays that one way serves in full mode.
WAYS = {
    "line in blocks": ((100000,), (101,)),
    "line in rows": ((30000,), (300,)),
    "flat": ((60, 60, 60), (11, 11, 11)),
    "flat in pieces": ((40, 40, 40), (30, 30, 30)),
    "spectra": ((18, 18, 18, 18), (16, 16, 16, 16)),  # in float64; float32 takes them for larger ones only
    "transformed": ((256, 256), (33, 33)),
}
every_way = pytest.mark.parametrize("way", WAYS)
DTYPES = ("float32", "float64")


def chosen(n, k, dtype, loose=True):
    size = tuple(a + b - 1 for a, b in zip(n, k, strict=True))
    sides = tuple((b - 1, b - 1) for b in k)
    return plan.choose_signal(n, k, size, sides, np.dtype(dtype), 1, True, loose)


def exact_enough(a, b):
    """The full convolution in float64, by NumPy's transforms or sums."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if a.ndim == 1:
        return np.convolve(a, b)
    size = [n + k - 1 for n, k in zip(a.shape, b.shape, strict=True)]
    axes = range(a.ndim)
    return np.fft.irfftn(np.fft.rfftn(a, size, axes) * np.fft.rfftn(b, size, axes), size, axes)


@every_way
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_way_is_taken(way, dtype):
    for loose in (True, False):
        n, k = WAYS[way] if way != "spectra" else ((22,) * 4, (22,) * 4)
        choice = chosen(n, k, dtype, loose)
        assert choice.method == way.split()[0]
        if choice.method == "line":
            assert choice.variant[1] == (way == "line in blocks")
        if choice.method == "flat":
            assert (choice.variant[2] > 1) == (way == "flat in pieces")


def hard_signals(rng, shape):
    """Signals, and what each is: those by which transforms err most."""
    size = math.prod(shape)
    yield "normal", rng.standard_normal(shape)
    yield "constant", np.ones(shape)
    yield "signs", rng.choice([-1.0, 1.0], shape)
    impulses = np.zeros(size)
    impulses[rng.integers(0, size, 5)] = 1e3
    yield "impulses", impulses.reshape(shape)
    yield "twelve decades", rng.standard_normal(shape) * 10 ** rng.uniform(-12, 0, shape)
    yield "a wave", np.sin(np.arange(size) * 0.7).reshape(shape)


@every_way
@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_stay_below_the_documented_bound(way, dtype):
    # The reference is in float64 too, so that there the bound holds for both together: its own share is not larger.
    n, k = WAYS[way]
    rng = np.random.default_rng(3)
    unit = float(np.finfo(dtype).eps) / 2
    pairs = zip(hard_signals(rng, n), hard_signals(rng, k), strict=True)
    if len(n) == 1:
        pairs = itertools.product(hard_signals(rng, n), list(hard_signals(rng, k)))
    for (name_a, a), (name_b, b) in pairs:
        a, b = a.astype(dtype), b.astype(dtype)
        actual = signal.fftconvolve(a, b)
        largest = exact_enough(abs(a), abs(b)).max()
        error = abs(actual - exact_enough(a, b)).max() / (unit * largest)
        assert error <= (28 if way == "line in blocks" else 40), f"{name_a} with {name_b}"


@every_way
@pytest.mark.parametrize("mode", ["same", "valid"])
@pytest.mark.parametrize("swapped", [False, True])
def test_modes_of_each_way(way, mode, swapped):
    rng = np.random.default_rng(4)
    a, b = (normal(rng, shape, "float64") for shape in WAYS[way])
    if swapped:
        a, b = b, a
    full, largest = exact_enough(a, b), exact_enough(abs(a), abs(b)).max()
    if mode == "same":
        window = [slice((k - 1) // 2, (k - 1) // 2 + n) for n, k in zip(a.shape, b.shape, strict=True)]
    else:
        window = [slice(min(n, k) - 1, max(n, k)) for n, k in zip(a.shape, b.shape, strict=True)]
    assert_near(signal.fftconvolve(a, b, mode), full[tuple(window)], largest)
    assert_near(signal.correlate(a, turned(b), mode), full[tuple(window)], largest)


@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.integers(1, 3),
    mode=st.sampled_from(MODES),
    dtypes=st.tuples(*[st.sampled_from(("int16", *FLOATS))] * 2),
    way=st.sampled_from([("flat", (64, False, 1)), ("flat", (64, False, 3)), ("spectra", None)]),
    finite=st.booleans(),
)
def test_ways_of_large_arrays_serve_small_ones(seed, ndim, mode, dtypes, way, finite):
    rng = np.random.default_rng(seed)
    a, b = (integer_valued(rng, shape, dtype, 9) for shape, dtype in zip(draw_shapes(rng, ndim), dtypes, strict=True))
    if mode == "valid":
        b = b[tuple(slice(n) for n in a.shape)]
    if not finite:
        for x in (a, b):
            if x.dtype.kind == "f":
                x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
    wide = np.result_type(a, b, np.float64)
    with np.errstate(invalid="ignore"):
        expected = convolve_full(a.astype(wide), b.astype(wide), mode)
    with mock.patch.object(plan, "choose_signal", lambda *_: plan.SignalChoice(*way)):
        results = [signal.fftconvolve(a, b, mode, workers=1)]
        if mode != "same":
            results.append(signal.fftconvolve(b, a, mode, workers=1))
    known = np.isfinite(expected)
    for y in results:
        if wide.kind != "c":
            assert_same_class(y, expected)
        assert abs(y[known] - expected[known]).max(initial=0) <= 1e-5 * 2 * 81 * min(a.size, b.size)


@pytest.mark.parametrize("blocks", [True, False])
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(FLOATS),
    rows=st.integers(1, 3),
    finite=st.booleans(),
)
def test_lines_of_any_length(blocks, seed, mode, dtype, rows, finite):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 700)), int(rng.integers(2, 65))
    a, b = integer_valued(rng, (rows, n), dtype, 9), integer_valued(rng, (1, min(n, k)), dtype, 9)
    if not finite and a.dtype.kind == "f":
        a[rng.integers(rows), rng.integers(n)] = rng.choice([np.nan, np.inf])
    with np.errstate(invalid="ignore"):
        expected = np.stack([convolve_full(row, b[0], mode) for row in a])
    with (
        mock.patch.object(plan, "choose_signal", lambda *_: plan.SignalChoice("line", None)),
        mock.patch.object(plan, "line_way", lambda *_: ((64, blocks), 0.0)),
        mock.patch.object(plan, "line_parts", plan.line_parts.__wrapped__),
    ):
        y = signal.fftconvolve(a, b, mode, axes=1, workers=1)
    assert_same_class(y, expected)
    known = np.isfinite(expected)
    assert abs(y[known] - expected[known]).max(initial=0) <= (1e-5 if y.dtype.char in "fF" else 1e-13) * 81 * 64 * 2


@every_way
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_reach_their_windows_only(way, dtype):
    n, k = WAYS[way]
    rng = np.random.default_rng(5)
    a, b = normal(rng, n, dtype), normal(rng, k, dtype)
    b.flat[7] = 0
    flat = a.reshape(-1)
    for at, value in ((3, np.nan), (flat.size // 3, np.inf), (flat.size // 3 + 5, -np.inf), (flat.size - 1, np.inf)):
        flat[at] = value
    if a.ndim > 1:  # direct sums of all would take long
        a = a[tuple(slice(size) for size in (40, 40, 12, 12)[: a.ndim])]
        b = b[tuple(slice(size) for size in (9, 9, 5, 5)[: b.ndim])]
        small = signal.convolve(a, b, "full", "direct")
        taken = np.zeros(small.shape, dtype)
        before = tuple(k - 1 for k in b.shape)
        x, w = a[None], np.flip(b)[None, None]
        codes = (engine.CONSTANT,) * a.ndim
        if way == "transformed":
            engine.correlate_transformed(x, np.ascontiguousarray(w), None, None, taken[None], 0, 1, before, codes, 0.0,
                                         1, (64,))
        else:
            pieces = 4 if way == "flat in pieces" else 1
            if way != "spectra":
                assert not signal._flat(a, w[0, 0], taken, before, 1, np.dtype(dtype), 1024, False, pieces)
            signal._spectra(a, w[0, 0], taken, before)
    else:
        small, taken = signal.convolve(a, b, "full", "direct"), signal.convolve(a, b)
    assert not np.isfinite(small).all()
    assert_same_class(taken, small)
    finite = np.isfinite(small)
    scale = abs(a[np.isfinite(a)]).max() * abs(b).sum()
    assert np.all(abs(taken[finite] - small[finite]) <= 1e-5 * scale)


def test_a_kernel_that_is_not_finite():
    rng = np.random.default_rng(6)
    for n, k in (((3000,), (200,)), ((3000,), (2900,)), ((90, 90), (13, 13))):
        a, b = normal(rng, n, "float64"), normal(rng, k, "float64")
        a.flat[500], b.flat[17], b.flat[20], a.flat[80] = np.inf, np.nan, -np.inf, 0
        with np.errstate(invalid="ignore"):
            expected = convolve_full(a, b)
        assert not np.isfinite(expected).all() and (a.ndim > 1 or np.isfinite(expected).any())
        for function in (signal.convolve, signal.fftconvolve):
            assert_same_class(function(a, b), expected)
            assert_same_class(function(a, b[..., :5]), function(a.tolist(), b[..., :5].tolist()))
    for n, k in (((9,), (4,)), ((5, 6), (3, 2))):
        a, b = normal(rng, n, "complex64"), normal(rng, k, "complex64")
        b.flat[2] = np.inf
        for dtype in ("float32", "complex64"):
            with np.errstate(invalid="ignore"):
                x, w = (c.real.astype(dtype) if dtype == "float32" else c for c in (a, b))
                expected = np.isfinite(convolve_full(x, w))
            assert np.isfinite(signal.convolve(x, w)).tolist() == expected.tolist()
            assert np.isfinite(signal.convolve(x, w, method="direct")).tolist() == expected.tolist()


def test_spectra_do_not_overflow_before_the_sums_do():
    a, b = np.full((40, 40), 1e200), np.full((30, 30), 1e105)
    out = np.empty((69, 69))
    signal._spectra(a, b, out, (29, 29))
    np.testing.assert_allclose(out, convolve_full(a * 1e-200, b * 1e-105) * 1e305, rtol=1e-12, atol=1e293)


@every_way
def test_integers_by_each_way_are_exact(way):
    n, k = WAYS[way]
    rng = np.random.default_rng(7)
    a, b = rng.integers(-100, 100, n, "i2"), rng.integers(-9, 9, k, "i4")
    exact = np.rint(exact_enough(a, b)).astype("i4") if a.ndim > 1 else np.convolve(a.astype("i4"), b)
    assert_same_bits(signal.convolve(a, b), exact)
    narrow = b.astype("i2")
    assert_same_bits(signal.convolve(a, narrow), exact.astype("i2"))


def test_integers_beyond_what_transforms_can_tell_are_exact():
    rng = np.random.default_rng(8)
    a, b = rng.integers(-(2**62), 2**62, 3000), rng.integers(-(2**62), 2**62, 500)
    assert_same_bits(signal.convolve(a, b), np.convolve(a, b))
    a, b = a.astype(np.uint64), b.astype(np.uint64)
    assert_same_bits(signal.convolve(a, b), np.convolve(a, b))


def test_integers_wrap():
    a, b = np.full(9, 200, np.uint8), np.full(3, 7, np.uint8)
    assert_same_bits(signal.convolve(a, b, "valid"), np.full(7, 4200 % 256, np.uint8))
    assert_same_bits(signal.correlate2d(a[None], b[None], "valid"), np.full((1, 7), 4200 % 256, np.uint8))


@pytest.mark.parametrize("boundary", ["fill", "wrap", "symm"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_kernels_that_are_outer_products(boundary, mode, dtype, monkeypatch):
    rng = np.random.default_rng(9)
    a, column, row = (integer_valued(rng, n, dtype, 9) for n in ((70, 90), (7, 1), (1, 8)))
    b = (column * row).astype(dtype)
    called = []
    separable = engine.separable
    monkeypatch.setattr(engine, "separable", lambda *a, **kw: called.append(1) or separable(*a, **kw))
    monkeypatch.setattr(signal, "_SEPARABLE_PRODUCTS", 0)
    for function in (signal.correlate2d, signal.convolve2d):
        y = function(a, b, mode, boundary, 3 if boundary == "fill" else 0)
        assert called
        called.clear()
        monkeypatch.setattr(signal, "_apart", lambda *a: False)
        assert_same_values(y, function(a, b, mode, boundary, 3 if boundary == "fill" else 0))
        monkeypatch.undo()
        monkeypatch.setattr(engine, "separable", lambda *a, **kw: called.append(1) or separable(*a, **kw))
        monkeypatch.setattr(signal, "_SEPARABLE_PRODUCTS", 0)


def test_outer_products_with_nan(monkeypatch):
    monkeypatch.setattr(signal, "_SEPARABLE_PRODUCTS", 0)
    rng = np.random.default_rng(10)
    a, b = normal(rng, (70, 80), "float32"), np.outer(np.arange(-3.0, 4), np.arange(1.0, 8)).astype("float32")
    a[3, 4], a[30, 31], a[33, 31], a[69, 79] = np.nan, np.inf, -np.inf, np.inf
    direct = signal.convolve(a, b, "same", "direct")
    assert_same_class(signal.convolve2d(a, b, "same"), direct)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@every_way
def test_complex_by_each_way(way, dtype):
    n, k = WAYS[way]
    rng = np.random.default_rng(11)
    a, b = normal(rng, n, dtype), normal(rng, k, dtype)
    wide = a.astype(complex), b.astype(complex)
    full = [exact_enough(x, y) for x in (wide[0].real, wide[0].imag) for y in (wide[1].real, wide[1].imag)]
    expected = (full[0] - full[3]) + 1j * (full[1] + full[2])
    assert_near(signal.fftconvolve(a, b), expected.astype(dtype), exact_enough(abs(wide[0]), abs(wide[1])).max())
    assert_near(signal.correlate(b, turned(a)), expected.astype(dtype), exact_enough(abs(wide[0]), abs(wide[1])).max())
    real = signal.fftconvolve(a, b.real)
    assert_near(real, (full[0] + 1j * full[2]).astype(dtype), exact_enough(abs(wide[0]), abs(wide[1])).max())


# ---- promises ----


@every_way
def test_threads_and_layouts_change_no_bit(way, threads):
    rng = np.random.default_rng(12)
    a, b = (normal(rng, shape, "float32") for shape in WAYS[way])
    expected = signal.fftconvolve(a, b, workers=1)
    assert_same_bits(signal.fftconvolve(a, b, workers=threads), expected)
    for layout in ("reversed", "fortran", "byteswapped", "misaligned"):
        assert_same_bits(signal.fftconvolve(lay_out(a, layout), lay_out(b, layout), workers=threads), expected)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_small_arrays_have_the_bits_of_large_ones(dtype):
    # Small plain arrays take a shorter way in; other layouts, and a number of threads, the general one.
    rng = np.random.default_rng(13)
    a, b = (integer_valued(rng, n, dtype, 11) if dtype in INTEGERS else normal(rng, n, dtype) for n in ((9, 8), (3, 3)))
    for name, mode in ((name, mode) for name in OWN[:4] for mode in MODES):
        function = getattr(signal, name)
        expected = function(a, b, mode)
        assert_same_bits(function(a, b, mode, workers=1), expected)
        assert_same_bits(function(a.tolist(), b.tolist(), mode).astype(a.dtype), expected) if dtype in (
            "int64", "float64", "complex128") else None
        assert_same_bits(function(lay_out(a, "record"), lay_out(b, "record"), mode), expected)


def test_nothing_is_written_to_the_arguments():
    rng = np.random.default_rng(14)
    for n, k in WAYS.values():
        a, b = normal(rng, n, "float64"), normal(rng, k, "float64")
        copies = a.copy(), b.copy()
        a.flags.writeable = b.flags.writeable = False
        signal.correlate(a, b, "same")
        assert_same_bits(a, copies[0])
        assert_same_bits(b, copies[1])


def test_the_way_looks_at_shapes_and_dtypes():
    assert signal.choose_conv_method(ones(10**5), ones(1001)) == "fft"
    assert signal.choose_conv_method(ones(10**5), ones(3)) == "direct"
    assert signal.choose_conv_method(ones(5), ones(3), mode="valid") == "direct"
    method, seconds = signal.choose_conv_method(ones(500), ones(30), measure=True)
    assert method == min(seconds, key=seconds.get) and set(seconds) == {"fft", "direct"}
    with pytest.raises(ValueError, match="mode"):
        signal.choose_conv_method(ones(5), ones(3), mode="bad")


# ---- what comes from SciPy ----


def test_other_names_come_from_scipy():
    scipy_signal = pytest.importorskip("scipy.signal")
    assert signal.lfilter is scipy_signal.lfilter
    assert signal.windows is scipy_signal.windows
    with pytest.raises(AttributeError, match="no_such_filter"):
        _ = signal.no_such_filter
    assert not hasattr(signal, "_no_such_name")
    assert set(dir(signal)) == set(OWN)


def test_wide_numbers_go_to_scipy():
    pytest.importorskip("scipy.signal")
    a, b = np.arange(5, dtype=np.longdouble), np.arange(3)
    assert signal.correlate(a, b).dtype == np.longdouble
    assert signal.oaconvolve(a, b, axes=0).dtype == np.longdouble
    assert signal.correlate2d(a[None], b[None]).dtype == np.longdouble
    fractions = signal.convolve(a.astype(object), b.astype(object), "full", "direct")
    assert fractions.dtype == object and fractions.tolist() == [0, 0, 1, 4, 7, 10, 8]


def test_without_scipy(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(AttributeError, match="lfilter.*SciPy"):
        _ = signal.lfilter
    with pytest.raises(TypeError, match=r"convolve.*object.*SciPy"):
        signal.convolve(np.array([1], object), [1])
    with pytest.raises(ValueError, match="SciPy"):
        signal.correlate2d(np.ones((2, 2), np.longdouble), [[1]])
    assert signal.convolve([1, 2], [1, 1]).tolist() == [1, 3, 2]


def test_docstrings_run():
    result = doctest.testmod(signal)
    assert result.attempted > 8 and result.failed == 0
