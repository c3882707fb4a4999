"""unfold (im2col) and fold (col2im)."""

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import PADDING_MODES

import pyconv

CONV = {1: pyconv.conv1d, 2: pyconv.conv2d, 3: pyconv.conv3d}
DTYPES = (
    "bool",
    "uint8",
    "int16",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)


def rng(seed=0):
    return np.random.default_rng(seed)


@st.composite
def geometries(draw):
    """Image size, kernel size and the keyword arguments, all legal."""
    ndim = draw(st.integers(1, 3))

    def axes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    kernel, stride, dilation = axes(1, 3), axes(1, 3), axes(1, 3)
    padding = draw(
        st.one_of(
            st.integers(0, 4),
            st.tuples(*[st.integers(0, 4)] * ndim),
            st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * ndim),
            st.sampled_from(["valid", "full", "same", "same_upper", "same_lower"]),
        )
    )
    widths = (0, 0)
    size = []
    for axis in range(ndim):
        reach = dilation[axis] * (kernel[axis] - 1)
        if not isinstance(padding, str):
            widths = oracle.pairs(padding, (1,) * ndim, kernel, stride, dilation)[axis]
        elif padding != "valid":
            widths = (reach, 0)
        size.append(max(1, reach + 1 - sum(widths)) + draw(st.integers(0, 6)))
    return tuple(size), kernel, {"dilation": dilation, "padding": padding, "stride": stride}


def test_patches_are_columns_in_row_order():
    x = np.arange(12.0).reshape(3, 4)
    expected = [[0, 1, 2, 4, 5, 6], [1, 2, 3, 5, 6, 7], [4, 5, 6, 8, 9, 10], [5, 6, 7, 9, 10, 11]]
    oracle.assert_same_bits(pyconv.unfold(x, (2, 2)), np.array(expected, float))


def test_channels_come_before_the_kernel_axes():
    x = np.stack([np.arange(6).reshape(2, 3), 10 + np.arange(6).reshape(2, 3)])
    expected = np.array([[0, 1], [1, 2], [3, 4], [4, 5], [10, 11], [11, 12], [13, 14], [14, 15]])
    oracle.assert_same_bits(pyconv.unfold(x, (2, 2)), expected)
    oracle.assert_same_bits(pyconv.unfold(x[None], (2, 2)), expected[None])


def test_the_length_of_kernel_size_counts_the_spatial_axes():
    x = np.arange(24.0).reshape(2, 3, 4)
    assert pyconv.unfold(x, (2,)).shape == (2, 6, 3)
    assert pyconv.unfold(x, (2, 2)).shape == (8, 6)
    assert pyconv.unfold(x, (2, 2, 2)).shape == (8, 6)
    oracle.assert_same_values(pyconv.unfold(x, (2, 2, 2)), oracle.unfold(x[None, None], (2, 2, 2))[0])


@given(
    geometry=geometries(),
    leading=st.sampled_from([(), (2,), (2, 3), (0, 2)]),
    mode=st.sampled_from(sorted(PADDING_MODES)),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(cases.LAYOUTS)),
)
def test_unfold_agrees_with_the_oracle(geometry, leading, mode, dtype, layout):
    size, kernel, how = geometry
    x = cases.integer_valued(rng(), (*leading, *size), dtype, 99)
    batch, channels = (1, 1, *leading)[-2:]
    expected = oracle.unfold(x.reshape(batch, channels, *size), kernel, boundary=PADDING_MODES[mode], **how)
    laid = cases.lay_out(x, layout)
    y = pyconv.unfold(laid, kernel, **how, padding_mode=mode)
    oracle.assert_same_bits(y, expected if len(leading) == 2 else expected[0])
    oracle.assert_same_values(laid, x)


def test_unfold_pads_with_the_padding_value():
    x = np.arange(6.0).reshape(2, 3)
    y = pyconv.unfold(x, (2, 2), padding=1, padding_mode="constant", padding_value=7.0)
    oracle.assert_same_values(y, oracle.unfold(x[None, None], (2, 2), padding=1, cval=7.0)[0])


def test_unfold_keeps_every_bit():
    for dtype in ("float16", "float32", "float64"):
        for name, x in cases.bases(dtype):
            if x.ndim == 2 and x.size:
                y = pyconv.unfold(x, (1, 1))
                assert y.tobytes() == x.tobytes(), (dtype, name)
    x = np.array([[2**63 - 1, 2**53 + 1], [-(2**63), -1]])
    oracle.assert_same_bits(pyconv.unfold(x, (1, 1)), x.reshape(1, 4))


def test_unfold_arguments_are_in_pytorchs_order():
    x = np.arange(99.0).reshape(9, 11)
    by_name = pyconv.unfold(x, (2, 3), dilation=2, padding=1, stride=3)
    oracle.assert_same_bits(pyconv.unfold(x, (2, 3), 2, 1, 3), by_name)
    oracle.assert_same_values(
        by_name, oracle.unfold(x[None, None], (2, 3), dilation=2, padding=1, stride=3)[0]
    )


@given(geometry=geometries(), mode=st.sampled_from(sorted(PADDING_MODES)))
def test_weights_times_columns_is_the_convolution(geometry, mode):
    size, kernel, how = geometry
    x = cases.integer_valued(rng(), (2, 3, *size), np.float64, 9)
    w = cases.integer_valued(rng(1), (4, 3, *kernel), np.float64, 9)
    columns = pyconv.unfold(x, kernel, **how, padding_mode=mode)
    for method in ("direct", "im2col"):
        y = CONV[len(size)](x, w, **how, padding_mode=mode, method=method)
        oracle.assert_same_values((w.reshape(4, -1) @ columns).reshape(y.shape), y)


# ------------------------------------------------------------------------------------------------
# fold


def test_fold_sums_the_patches_that_overlap():
    columns = pyconv.unfold(np.ones((1, 1, 3, 3)), (2, 2))
    expected = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1.0]])[None, None]
    oracle.assert_same_bits(pyconv.fold(columns, (3, 3), (2, 2)), expected)


def test_patches_that_do_not_overlap_come_back():
    x = cases.normal(rng(), (2, 3, 6, 8), np.float32)
    columns = pyconv.unfold(x, (2, 4), stride=(2, 4))
    oracle.assert_same_bits(pyconv.fold(columns, (6, 8), (2, 4), stride=(2, 4)), x)


@given(
    geometry=geometries(),
    batch=st.sampled_from([None, 0, 1, 3]),
    dtype=st.sampled_from(["int64", "float32", "float64", "complex64", "complex128"]),
    layout=st.sampled_from(sorted(cases.LAYOUTS)),
)
def test_fold_agrees_with_the_oracle(geometry, batch, dtype, layout):
    size, kernel, how = geometry
    widths = oracle.pairs(how["padding"], size, kernel, how["stride"], how["dilation"])
    positions = oracle.output_size(size, kernel, how["stride"], widths, how["dilation"])
    shape = (2 * int(np.prod(kernel)), int(np.prod(positions)))
    columns = cases.integer_valued(rng(), shape if batch is None else (batch, *shape), dtype, 99)
    expected = oracle.fold(columns[None] if batch is None else columns, size, kernel, **how)
    laid = cases.lay_out(columns, layout)
    image = pyconv.fold(laid, size, kernel, **how)
    oracle.assert_same_bits(image, expected[0] if batch is None else expected)
    oracle.assert_same_values(laid, columns)


@given(geometry=geometries())
def test_fold_is_the_adjoint_of_unfold(geometry):
    size, kernel, how = geometry
    x = cases.integer_valued(rng(), (2, 3, *size), np.float64, 9)
    columns = pyconv.unfold(x, kernel, **how)
    g = cases.integer_valued(rng(1), columns.shape, np.float64, 9)
    assert (columns * g).sum() == (x * pyconv.fold(g, size, kernel, **how)).sum()


def test_fold_arguments_are_in_pytorchs_order():
    columns = pyconv.unfold(np.arange(99.0).reshape(1, 9, 11), (2, 3), 2, 1, 3)
    by_name = pyconv.fold(columns, (9, 11), (2, 3), dilation=2, padding=1, stride=3)
    oracle.assert_same_bits(pyconv.fold(columns, (9, 11), (2, 3), 2, 1, 3), by_name)


# ------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ((np.ones(5), (2, 2)), {}, ["input", "(5,)"]),
        ((np.ones((1, 1, 1, 5, 5)), (2, 2)), {}, ["input", "(1, 1, 1, 5, 5)"]),
        ((np.ones((5, 5)), ()), {}, ["kernel_size"]),
        ((np.ones((5, 5)), (0, 2)), {}, ["kernel_size"]),
        ((np.ones((5, 5)), (-1, 2)), {}, ["kernel_size"]),
        ((np.ones((5, 5)), (2.0, 2)), {}, ["kernel_size"]),
        ((np.ones((5, 5)), None), {}, ["kernel_size"]),
        ((np.ones((5, 5)), (6, 2)), {}, ["kernel", "5"]),
        ((np.ones((5, 5)), (2, 2)), {"stride": 0}, ["stride"]),
        ((np.ones((5, 5)), (2, 2)), {"stride": (1, 1, 1)}, ["stride"]),
        ((np.ones((5, 5)), (2, 2)), {"dilation": -1}, ["dilation"]),
        ((np.ones((5, 5)), (2, 2)), {"padding": -1}, ["padding"]),
        ((np.ones((5, 5)), (2, 2)), {"padding": "some"}, ["padding"]),
        ((np.ones((5, 5)), (2, 2)), {"padding_mode": "some"}, ["padding_mode", "some"]),
        ((np.array([[None]]), (1, 1)), {}, ["input", "object"]),
        ((None, (1, 1)), {}, ["input"]),
        ((np.array([["a"]]), (1, 1)), {}, ["input"]),
    ],
)
def test_unfold_refuses_bad_input(arguments, keywords, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        pyconv.unfold(*arguments, **keywords)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ((np.ones(4), (3, 3), (2, 2)), {}, ["input", "(4,)"]),
        ((np.ones((1, 1, 4, 4)), (3, 3), (2, 2)), {}, ["input", "(1, 1, 4, 4)"]),
        ((np.ones((1, 5, 4)), (3, 3), (2, 2)), {}, ["input", "(1, 5, 4)"]),  # 5 rows are no multiple of 2 * 2
        ((np.ones((1, 4, 5)), (3, 3), (2, 2)), {}, ["input", "(1, 4, 5)", "4"]),  # 4 positions, not 5
        ((np.ones((1, 4, 4)), (3,), (2, 2)), {}, ["output_size"]),
        ((np.ones((1, 4, 4)), (0, 3), (2, 2)), {}, ["output_size"]),
        ((np.ones((1, 4, 4)), (3, 3), (0, 2)), {}, ["kernel_size"]),
        ((np.ones((1, 4, 4)), (1, 1), (2, 2)), {}, ["kernel"]),
        ((np.ones((1, 4, 4)), (3, 3), (2, 2)), {"stride": 0}, ["stride"]),
        ((np.ones((1, 4, 4)), (3, 3), (2, 2)), {"dilation": 0}, ["dilation"]),
        ((np.ones((1, 4, 4)), (3, 3), (2, 2)), {"padding": -1}, ["padding"]),
        ((np.ones((1, 4, 4), object), (3, 3), (2, 2)), {}, ["input", "object"]),
        ((None, (3, 3), (2, 2)), {}, ["input"]),
    ],
)
def test_fold_refuses_bad_input(arguments, keywords, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        pyconv.fold(*arguments, **keywords)
    for word in words:
        assert word in str(caught.value)
