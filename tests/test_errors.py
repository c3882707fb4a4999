"""Bad input to the layer functions: the right exception, a message that helps, and an untouched `out`."""

import re

import cases
import numpy as np
import oracle
import pytest

import pyconv

X = cases.integer_valued(np.random.default_rng(0), (2, 4, 8, 9), np.float32, 9)
W = cases.integer_valued(np.random.default_rng(1), (6, 2, 3, 3), np.float32, 9)
B = np.zeros(6, np.float32)
VALID = {"groups": 2}


def bad(change, error, *words, id=None):
    """A call that is valid but for `change`, the exception it must raise and words its message must have."""
    return pytest.param(change, error, words, id=id or "-".join(f"{k}={v!r}"[:40] for k, v in change.items()))


BAD_CONV2D = [
    # Ranks.
    bad({"input": X[0, 0]}, ValueError, "input", "(8, 9)", id="input-2d"),
    bad({"input": X[0, 0, 0]}, ValueError, "input", "(9,)", id="input-1d"),
    bad({"input": X[None]}, ValueError, "input", "(1, 2, 4, 8, 9)", id="input-5d"),
    bad({"input": np.float32(3)}, ValueError, "input", "()", id="input-0d"),
    bad({"weight": W[0]}, ValueError, "weight", "(2, 3, 3)", "weight[None]", id="weight-3d"),
    bad({"weight": W[0, 0]}, ValueError, "weight", "(3, 3)", id="weight-2d"),
    bad({"weight": W[None]}, ValueError, "weight", "(1, 6, 2, 3, 3)", id="weight-5d"),
    bad({"bias": np.float32(1)}, ValueError, "bias", "()", id="bias-0d"),
    bad({"bias": B[None]}, ValueError, "bias", "(1, 6)", id="bias-2d"),
    # Shapes that do not fit each other.
    bad(
        {"input": X[:, :3]},
        ValueError,
        "input",
        "groups",
        "(2, 3, 8, 9)",
        id="channels-not-divisible-by-groups",
    ),
    bad({"input": X[:, :2]}, ValueError, "(2, 2, 8, 9)", "(6, 2, 3, 3)", "weight", id="too-few-channels"),
    bad(
        {"weight": W[:, :1]},
        ValueError,
        "(2, 4, 8, 9)",
        "(6, 1, 3, 3)",
        "weight",
        id="weight-with-too-few-channels",
    ),
    bad(
        {"weight": W[:5]},
        ValueError,
        "weight",
        "groups",
        "(5, 2, 3, 3)",
        id="outputs-not-divisible-by-groups",
    ),
    bad({"bias": B[:5]}, ValueError, "bias", "(5,)", "6", id="bias-too-short"),
    bad({"bias": np.zeros(1, np.float32)}, ValueError, "bias", "(1,)", "6", id="bias-not-broadcast"),
    bad(
        {"weight": np.ones((6, 2, 0, 3), np.float32)}, ValueError, "weight", "(6, 2, 0, 3)", id="empty-kernel"
    ),
    # The kernel is larger than the padded image.
    bad(
        {"weight": np.ones((6, 2, 9, 3), np.float32)},
        ValueError,
        "weight|kernel",
        "9",
        "8",
        id="kernel-too-high",
    ),
    bad(
        {"weight": np.ones((6, 2, 3, 12), np.float32), "padding": 1}, ValueError, "weight|kernel", "12", "11"
    ),
    bad({"dilation": 4}, ValueError, "weight|kernel", "dilation", "9", "8", id="dilated-kernel-too-high"),
    bad({"input": X[..., :0]}, ValueError, "input|weight|kernel", id="empty-image"),
    bad(
        {"input": X[..., :0], "padding": 3, "padding_mode": "edge"},
        ValueError,
        "input|padding",
        id="empty-edge",
    ),
    bad(
        {"input": X[:, :, :0], "padding": 3, "padding_mode": "circular"},
        ValueError,
        "input|padding",
        id="empty-wrap",
    ),
    # Counts.
    *[bad({"groups": g}, ValueError, "groups", str(g)) for g in (0, -1, 3, 5, 2**64)],
    *[bad({"groups": g}, TypeError, "groups") for g in (2.0, "2", None, (2,))],
    *[bad({"stride": s}, ValueError, "stride") for s in (0, -1, (1, 0), (-2, 1), (1, 1, 1), ())],
    *[bad({"stride": s}, TypeError, "stride") for s in (1.0, "1", None, (1, 1.5), (1, None), ("a", "b"))],
    *[bad({"dilation": d}, ValueError, "dilation") for d in (0, -1, (1, 0), (1, 1, 1))],
    *[bad({"dilation": d}, TypeError, "dilation") for d in (1.0, None, (1, "1"))],
    *[
        bad({"padding": p}, ValueError, "padding")
        for p in (-1, (0, -1), (1, 1, 1), ((1, -1), (0, 0)), ((1, 1),))
    ],
    *[bad({"padding": p}, ValueError, "padding") for p in (((1, 2, 3), (1, 2, 3)), "some", "SAME", "")],
    *[
        bad({"padding": p}, (TypeError, ValueError), "padding")
        for p in (1.0, None, (1, None), (1, 1.5), ((1, 2), 3.0))
    ],
    # Names.
    *[
        bad({"padding_mode": m}, ValueError, "padding_mode", m, "zeros", "symmetric")
        for m in ("some", "Zeros", "")
    ],
    *[
        bad({"padding_mode": m}, (TypeError, ValueError), "padding_mode")
        for m in (None, 0, ["zeros"], b"zeros")
    ],
    *[bad({"method": m}, ValueError, "method", m, "direct", "im2col") for m in ("some", "Direct")],
    *[bad({"method": m}, (TypeError, ValueError), "method") for m in (None, 0)],
    *[bad({"overflow": m}, (TypeError, ValueError), "overflow") for m in ("ignore", None)],
    # Values.
    *[bad({"padding_value": v}, (TypeError, ValueError), "padding_value") for v in ("0", None, [1, 2], 1j)],
    bad({"workers": 0}, ValueError, "workers"),
    *[bad({"workers": n}, TypeError, "workers") for n in (1.0, "2", (1,))],
    # dtypes.
    *[
        bad({name: value.astype(dtype)}, TypeError, name, "dtype", id=f"{name}-{np.dtype(dtype)}")
        for name, value in (("input", X), ("weight", W), ("bias", B))
        for dtype in (object, "U5", "S5", "M8[s]")
    ],
    bad({"input": np.zeros(X.shape, "f4,f4")}, TypeError, "input", id="input-structured"),
    *[bad({name: None}, TypeError, name) for name in ("input", "weight")],
    *[bad({name: "text"}, (TypeError, ValueError), name) for name in ("input", "weight", "bias")],
    *[bad({name: {1: 2}}, (TypeError, ValueError), name) for name in ("input", "weight", "bias")],
    *[bad({"dtype": d}, TypeError, "dtype") for d in (object, "U5", "M8[s]", "no such thing", 3.5)],
    bad(
        {"input": X.astype(np.complex64), "dtype": np.float32},
        (TypeError, ValueError),
        "dtype",
        id="complex-to-real",
    ),
    bad(
        {"weight": W.astype(np.complex64), "dtype": np.float32},
        (TypeError, ValueError),
        "dtype",
        id="complex-weight",
    ),
]


def call_must_fail(function, keywords, error, words, out):
    """Call with `out`, which must stay as it is; every word (or one of `a|b`) must be in the message."""
    before = out.copy()
    with pytest.raises(error) as caught:
        function(**keywords, out=out)
    oracle.assert_same_bits(out, before)
    # OverflowError, MemoryError and what NumPy raises by itself are no answer to a bad argument.
    assert type(caught.value) in (ValueError, TypeError) or issubclass(
        type(caught.value), (ValueError, TypeError)
    )
    message = str(caught.value)
    for word in words:
        assert any(choice in message for choice in str(word).split("|")), f"{word!r} is not in: {message}"


def test_the_call_that_the_table_spoils_is_valid():
    out = np.full((2, 6, 6, 7), 7, np.float32)
    assert pyconv.conv2d(X, W, B, **VALID, out=out) is out
    oracle.assert_same_values(out, oracle.correlate(X, W, B, groups=2))


@pytest.mark.parametrize(("change", "error", "words"), BAD_CONV2D)
def test_conv2d_refuses(change, error, words):
    keywords = {"input": X, "weight": W, "bias": B, **VALID, **change}
    call_must_fail(pyconv.conv2d, keywords, error, words, np.full((2, 6, 6, 7), 7, np.float32))


@pytest.mark.parametrize(("change", "error", "words"), BAD_CONV2D)
def test_conv2d_refuses_without_out(change, error, words):
    with pytest.raises(error):
        pyconv.conv2d(**{"input": X, "weight": W, "bias": B, **VALID, **change})


@pytest.mark.parametrize(
    ("function", "x", "w", "words"),
    [
        (pyconv.conv1d, np.ones(9), np.ones((1, 1, 3)), ["input", "(9,)", "conv1d"]),
        (pyconv.conv1d, np.ones((1, 1, 8, 9)), np.ones((1, 1, 3)), ["input", "(1, 1, 8, 9)"]),
        (pyconv.conv1d, np.ones((1, 9)), np.ones(3), ["weight", "(3,)"]),
        (pyconv.conv1d, np.ones((1, 9)), np.ones((1, 1, 3, 3)), ["weight", "(1, 1, 3, 3)"]),
        (pyconv.conv1d, np.ones((1, 9)), np.ones((1, 1, 10)), ["10", "9"]),
        (pyconv.conv3d, np.ones((8, 9, 9)), np.ones((1, 1, 3, 3, 3)), ["input", "(8, 9, 9)"]),
        (
            pyconv.conv3d,
            np.ones((1, 1, 1, 8, 9, 9)),
            np.ones((1, 1, 3, 3, 3)),
            ["input", "(1, 1, 1, 8, 9, 9)"],
        ),
        (
            pyconv.conv3d,
            np.ones((1, 8, 9, 9)),
            np.ones((1, 3, 3, 3)),
            ["weight", "(1, 3, 3, 3)", "weight[None]"],
        ),
        (pyconv.conv3d, np.ones((1, 8, 9, 9)), np.ones((1, 1, 9, 3, 3)), ["9", "8"]),
        (pyconv.conv3d, np.ones((2, 8, 9, 9)), np.ones((1, 3, 3, 3, 3)), ["(2, 8, 9, 9)", "(1, 3, 3, 3, 3)"]),
    ],
)
def test_conv1d_and_conv3d_refuse_wrong_shapes(function, x, w, words):
    with pytest.raises(ValueError) as caught:
        function(x, w)
    for word in words:
        assert word in str(caught.value) or word == function.__name__


# ------------------------------------------------------------------------------------------------
# corr2d


@pytest.mark.parametrize(("shape", "function"), [((2, 3, 8, 9), "conv2d"), ((3, 8, 9), "conv2d")])
def test_corr2d_names_the_function_for_more_axes_and_the_way_to_two(shape, function):
    for arguments in ((np.ones(shape), np.ones((3, 3))), (np.ones((8, 9)), np.ones((*shape[:-2], 3, 3)))):
        with pytest.raises(ValueError) as caught:
            pyconv.corr2d(*arguments)
        message = str(caught.value)
        assert function in message
        assert str(arguments[0].shape if arguments[0].ndim != 2 else arguments[1].shape) in message
        # How to get a 2-D array: an index such as x[0, 0].
        assert re.search(r"\[0(, 0)*\]|squeeze|reshape", message), message


@pytest.mark.parametrize("shape", [(), (9,), (1, 1, 1, 8, 9)])
def test_corr2d_refuses_any_other_rank(shape):
    with pytest.raises(ValueError) as caught:
        pyconv.corr2d(np.ones(shape), np.ones((3, 3)))
    assert str(shape) in str(caught.value)
    with pytest.raises(ValueError) as caught:
        pyconv.corr2d(np.ones((8, 9)), np.ones(shape))
    assert str(shape) in str(caught.value)


def test_corr2d_does_not_swap_image_and_kernel():
    with pytest.raises(ValueError, match=r"(?s)(?=.*\(3, 3\))(?=.*\(8, 9\))"):
        pyconv.corr2d(np.ones((3, 3)), np.ones((8, 9)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, ["x"]),
        ({"k": None}, ["k"]),
        ({"x": np.ones((8, 9), object)}, ["x", "object"]),
        ({"k": np.ones((3, 3), object)}, ["k", "object"]),
        ({"k": np.ones((9, 3))}, ["(9, 3)", "(8, 9)"]),
        ({"k": np.ones((0, 3))}, ["k", "(0, 3)"]),
        ({"stride": 0}, ["stride"]),
        ({"dilation": -1}, ["dilation"]),
        ({"padding": -1}, ["padding"]),
        ({"padding": (1, 2, 3)}, ["padding"]),
        ({"padding_mode": "some"}, ["padding_mode", "some"]),
        ({"method": "some"}, ["method", "some"]),
        ({"workers": 0}, ["workers"]),
    ],
)
def test_corr2d_refuses(change, words):
    keywords = {"x": np.ones((8, 9)), "k": np.ones((3, 3)), **change}
    # The first two arguments are positional here: their names in the messages are what matters.
    arguments = keywords.pop("x"), keywords.pop("k")
    out = np.full((6, 7), 7.0)
    with pytest.raises((ValueError, TypeError)) as caught:
        pyconv.corr2d(*arguments, **keywords, out=out)
    assert (out == 7).all()
    for word in words:
        assert re.search(rf"(?<!\w){re.escape(word)}", str(caught.value)), (
            f"{word!r} is not in: {caught.value}"
        )


# ------------------------------------------------------------------------------------------------
# out


def read_only(a):
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (np.zeros((2, 6, 6, 6), np.float32), ["out", "(2, 6, 6, 6)", "(2, 6, 6, 7)"]),
        (np.zeros((6, 6, 7), np.float32), ["out", "(6, 6, 7)", "(2, 6, 6, 7)"]),
        (np.zeros((1, 2, 6, 6, 7), np.float32), ["out", "(1, 2, 6, 6, 7)", "(2, 6, 6, 7)"]),
        (np.zeros((2, 6, 8, 9), np.float32), ["out", "(2, 6, 8, 9)", "(2, 6, 6, 7)"]),
        (np.zeros((), np.float32), ["out", "(2, 6, 6, 7)"]),
        (read_only(np.zeros((2, 6, 6, 7), np.float32)), ["out"]),
        (np.broadcast_to(np.float32(0), (2, 6, 6, 7)), ["out"]),
        (np.zeros((2, 6, 6, 7), object), ["out", "object"]),
        (np.zeros((2, 6, 6, 7), "U5"), ["out"]),
        (np.zeros((2, 6, 6, 7)).tolist(), ["out"]),
        ("text", ["out"]),
        (3.0, ["out"]),
    ],
)
def test_a_wrong_out_is_refused_and_untouched(out, words):
    before = np.array(out)
    with pytest.raises((ValueError, TypeError)) as caught:
        pyconv.conv2d(X, W, B, groups=2, out=out)
    assert (np.array(out) == before).all()
    for word in words:
        assert word in str(caught.value)


def test_a_real_out_is_refused_for_a_complex_result():
    out = np.full((2, 6, 6, 7), 7.0)
    with pytest.raises((ValueError, TypeError), match="out"):
        pyconv.conv2d(X.astype(np.complex64), W, groups=2, out=out)
    assert (out == 7).all()


def test_dtype_and_out_that_contradict_each_other_are_refused_or_converted():
    out = np.full((2, 6, 6, 7), 7.0, np.float32)
    try:
        pyconv.conv2d(X, W, groups=2, dtype=np.float64, out=out)
    except (ValueError, TypeError) as error:
        assert "out" in str(error)
        assert (out == 7).all()
    else:
        oracle.assert_same_values(out, oracle.correlate(X, W, groups=2))


# ------------------------------------------------------------------------------------------------
# Sizes beyond 64 bits


@pytest.mark.parametrize(
    ("keywords", "name"),
    [
        ({"padding": 2**62}, "padding"),
        ({"padding": 2**63 - 1}, "padding"),
        ({"padding": 2**64 + 1}, "padding"),
        ({"padding": ((2**63 - 8, 0), (0, 0))}, "padding"),
        ({"padding": ((0, 2**64), (0, 0))}, "padding"),
        # Every axis fits, their product does not.
        ({"padding": 2**40}, "padding|output"),
        ({"dilation": 2**62}, "dilation"),
        ({"dilation": 2**63}, "dilation"),
        ({"dilation": 2**64 + 1}, "dilation"),
        ({"dilation": 2**61, "padding": "full"}, "dilation|padding"),
        ({"dilation": 2**63, "padding": 2**63}, "dilation|padding"),
        ({"groups": 2**64 + 2}, "groups"),
    ],
)
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_sizes_beyond_64_bits_are_refused(keywords, name, mode):
    keywords = {"input": X, "weight": W, "bias": B, **VALID, "padding_mode": mode, **keywords}
    call_must_fail(pyconv.conv2d, keywords, ValueError, [name], np.full((2, 6, 6, 7), 7, np.float32))
    with pytest.raises(ValueError):
        pyconv.conv2d(**keywords)


@pytest.mark.parametrize("stride", [2**31, 2**62, 2**63 - 1, 2**63, 2**64 + 1])
def test_a_huge_stride_leaves_one_element_or_is_refused(stride):
    try:
        y = pyconv.conv2d(X, W, B, stride=stride, groups=2)
    except ValueError as error:
        assert stride > 2**62
        assert "stride" in str(error)
    else:
        oracle.assert_same_values(y, oracle.correlate(X, W, B, groups=2)[:, :, :1, :1])


def test_the_bytes_of_the_result_may_not_pass_64_bits_either():
    # 2**30 x 2**30 outputs are countable, but 16 channels of them take more than 2**63 bytes.
    x = cases.huge_broadcast(np.float32(1), (1, 1, 2**30, 2**30))
    with pytest.raises((ValueError, MemoryError)) as caught:
        pyconv.conv2d(x, np.ones((16, 1, 1, 1), np.float32), dtype=np.float64)
    assert str(2**30) in str(caught.value)


# ------------------------------------------------------------------------------------------------
# Lazy arrays


class Lazy:
    """What is left of a dask array when dask is not installed: it must be refused, never loaded."""

    dask = {}

    def __init__(self, a):
        self.shape, self.ndim, self.dtype = a.shape, a.ndim, a.dtype

    def __dask_graph__(self):
        return {}

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("a lazy array was loaded")

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        raise AssertionError("a lazy array was loaded")

    def __iter__(self):
        raise AssertionError("a lazy array was loaded")


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "name"),
    [
        (pyconv.corr2d, (Lazy(np.ones((5, 5))), np.ones((3, 3))), {}, "x"),
        (pyconv.corr2d, (np.ones((5, 5)), Lazy(np.ones((3, 3)))), {}, "k"),
        (pyconv.corr2d, (np.ones((5, 5)), np.ones((3, 3))), {"out": Lazy(np.ones((3, 3)))}, "out"),
        (pyconv.conv1d, (Lazy(np.ones((1, 5))), np.ones((1, 1, 3))), {}, "input"),
        (pyconv.conv2d, (Lazy(np.ones((1, 5, 5))), np.ones((1, 1, 3, 3))), {}, "input"),
        (pyconv.conv2d, (np.ones((1, 5, 5)), Lazy(np.ones((1, 1, 3, 3)))), {}, "weight"),
        (pyconv.conv2d, (np.ones((1, 5, 5)), np.ones((1, 1, 3, 3)), Lazy(np.ones(1))), {}, "bias"),
        (pyconv.conv3d, (Lazy(np.ones((1, 5, 5, 5))), np.ones((1, 1, 3, 3, 3))), {}, "input"),
        (pyconv.unfold, (Lazy(np.ones((5, 5))), (2, 2)), {}, "input"),
        (pyconv.fold, (Lazy(np.ones((1, 4, 4))), (3, 3), (2, 2)), {}, "input"),
    ],
)
def test_lazy_arrays_are_refused_and_never_loaded(function, arguments, keywords, name):
    with pytest.raises(TypeError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert re.search(rf"\b{name}\b", message), message
    assert re.search("NumPy array" if name == "out" else "dask|[Ll]azy", message), message


# ------------------------------------------------------------------------------------------------
# After an error


def test_an_error_leaves_the_functions_usable():
    for _ in range(3):
        with pytest.raises(ValueError):
            pyconv.conv2d(X, W, groups=2, stride=0)
        oracle.assert_same_values(pyconv.conv2d(X, W, groups=2), oracle.correlate(X, W, groups=2))
