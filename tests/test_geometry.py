"""output_size: the sizes every function of the layer family gives."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv


@pytest.mark.parametrize(
    ("size", "kernel", "keywords", "expected"),
    [
        ((8, 8), (3, 3), {"padding": 1}, (8, 8)),
        ((8, 8), (5, 3), {"padding": (2, 1)}, (8, 8)),
        ((8, 8), (3, 3), {"padding": 1, "stride": 2}, (4, 4)),
        ((8, 8), (3, 5), {"padding": (0, 1), "stride": (3, 5)}, (2, 2)),
        ((224, 224), (7, 7), {"padding": 3, "stride": 2}, (112, 112)),
        ((33, 33), (3, 3), {"padding": 12, "dilation": 12}, (33, 33)),
        ((10, 10), (3, 4), {"padding": "valid"}, (8, 7)),
        ((10, 10), (3, 4), {"padding": "full"}, (12, 13)),
        ((10, 11), (3, 4), {"padding": "same", "stride": 3}, (4, 4)),
        ((10, 11), (3, 4), {"padding": "same_lower", "stride": 3}, (4, 4)),
        ((10, 11), (2, 2), {"padding": ((1, 0), (0, 3)), "dilation": (2, 3)}, (9, 11)),
        ((7,), (3,), {"stride": 2}, (3,)),
        ((5, 6, 7), (2, 3, 4), {}, (4, 4, 4)),
        ((5, 5), (5, 5), {}, (1, 1)),
        ((10**9, 10**9), (3, 3), {"stride": 10**9 - 2}, (1, 1)),
    ],
)
def test_output_size(size, kernel, keywords, expected):
    result = pyconv.output_size(size, kernel, **keywords)
    assert tuple(result) == expected
    assert all(type(n) is int for n in result)


def test_output_size_positional_order():
    assert tuple(pyconv.output_size((20, 20), (3, 3), 2, 1, 4)) == (7, 7)


def test_one_kernel_size_serves_all_axes():
    assert tuple(pyconv.output_size((8, 9), 3)) == (6, 7)


@st.composite
def geometries(draw):
    """Size, kernel and the other arguments; the kernel may be larger than the padded image."""
    ndim = draw(st.integers(1, 3))

    def axes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    size, kernel, stride, dilation = axes(1, 9), axes(1, 4), axes(1, 4), axes(1, 3)
    padding = draw(
        st.one_of(
            st.integers(0, 4),
            st.tuples(*[st.integers(0, 4)] * ndim),
            st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * ndim),
            st.sampled_from(["valid", "full", "same", "same_upper", "same_lower"]),
        )
    )
    return size, kernel, stride, padding, dilation


@given(geometry=geometries())
def test_output_size_follows_the_formula_and_the_functions_follow_it(geometry):
    size, kernel, stride, padding, dilation = geometry
    widths = oracle.pairs(padding, size, kernel, stride, dilation)
    expected = oracle.output_size(size, kernel, stride, widths, dilation)
    conv = {1: pyconv.conv1d, 2: pyconv.conv2d, 3: pyconv.conv3d}[len(size)]
    x, w = np.ones((1, *size), np.float32), np.ones((1, 1, *kernel), np.float32)
    if min(expected) < 1:
        with pytest.raises(ValueError, match="kernel"):
            pyconv.output_size(size, kernel, stride, padding, dilation)
        with pytest.raises(ValueError, match="kernel|weight"):
            conv(x, w, None, stride, padding, dilation)
        return
    assert tuple(pyconv.output_size(size, kernel, stride, padding, dilation)) == expected
    assert conv(x, w, None, stride, padding, dilation).shape == (1, *expected)
    columns = pyconv.unfold(x, kernel, dilation, padding, stride)
    assert columns.shape == (np.prod(kernel), np.prod(expected))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (((8, 8), (3, 3), 0), "stride"),
        (((8, 8), (3, 3), -1), "stride"),
        (((8, 8), (3, 3), (1, 1, 1)), "stride"),
        (((8, 8), (3, 3), 1.5), "stride"),
        (((8, 8), (3, 3), 1, -1), "padding"),
        (((8, 8), (3, 3), 1, "some"), "padding"),
        (((8, 8), (3, 3), 1, 0, 0), "dilation"),
        (((8, 8), (0, 3)), "kernel_size"),
        (((8, 8), (3, 3, 3)), "kernel_size"),
        (((8, 8), 2.5), "kernel_size"),
        (((-1, 8), (3, 3)), "input_size"),
        ((None, (3, 3)), "input_size"),
    ],
)
def test_output_size_refuses_what_has_no_meaning(arguments, name):
    with pytest.raises((ValueError, TypeError), match=name):
        pyconv.output_size(*arguments)
