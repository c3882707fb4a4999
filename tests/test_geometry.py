"""output_size: the sizes every function of the layer family gives; receptive_field: what an output sees."""

import doctest

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import geometry


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


def test_examples_in_the_docstrings():
    result = doctest.testmod(geometry)
    assert result.attempted >= 10 and result.failed == 0


# ------------------------------------------------------------------------------------------------
# Receptive fields


@pytest.mark.parametrize(
    ("layers", "size", "stride", "start"),
    [
        # One layer sees its kernel.
        ((3,), 3, 1, 0),
        ((11, 4), 11, 4, 0),
        ((3, 1, 1), 3, 1, -1),
        ((3, 1, 0, 2), 5, 1, 0),
        # Two 3x3 layers see as far as one 5x5, three as far as one 7x7, ten as far as one 21x21.
        ([(3,)] * 2, 5, 1, 0),
        ([(3,)] * 3, 7, 1, 0),
        ([(3, 1, 1)] * 10, 21, 1, -10),
        # Strides multiply the steps of all that follows.
        ([(3, 2), (3, 2)], 7, 4, 0),
        ([(3, 2), (3, 2), (3, 2)], 15, 8, 0),
        ([(2, 2)] * 5, 32, 32, 0),
        ([(1,), (1, 2)], 1, 2, 0),
        # Dilations 1, 2, 4 double the reach with every layer.
        ([(3, 1, 1, 1), (3, 1, 2, 2), (3, 1, 4, 4)], 15, 1, -7),
        # A residual network's stem and its pool, then two layers.
        ([(7, 2, 3), (3, 2, 1), (3, 1, 1), (3, 1, 1)], 27, 4, -13),
        # The first five layers and three pools of AlexNet: 195 samples, steps of 32.
        ([(11, 4, 2), (3, 2), (5, 1, 2), (3, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2)], 195, 32, -66),
        # VGG-16 up to its last pool: 212 samples.
        ([(3, 1, 1)] * 2 + [(2, 2)] + [(3, 1, 1)] * 2 + [(2, 2)] + ([(3, 1, 1)] * 3 + [(2, 2)]) * 3, 212, 32, -90),
    ],
)
def test_receptive_fields_of_the_textbooks(layers, size, stride, start):
    field = pyconv.receptive_field(layers)
    assert (field.size, field.stride, field.start) == (size, stride, start)
    assert field.slices(5) == (slice(start + 5 * stride, start + 5 * stride + size),)
    both = pyconv.receptive_field([*(layers if isinstance(layers, list) else [layers]), ((1, 1),)])
    assert (both.size, both.stride, both.start) == ((size,) * 2, (stride,) * 2, (start,) * 2)


def seen(layers, index):
    """The positions that one output element depends on, along one axis, tap by tap."""
    positions = {index}
    for kernel, stride, (before, _), dilation in reversed(layers):
        positions = {i * stride + tap * dilation - before for i in positions for tap in range(kernel)}
    return positions


@st.composite
def stacks(draw):
    """Layers of one to three axes, every number given for each axis."""
    ndim = draw(st.integers(1, 3))

    def axes(values):
        return draw(st.tuples(*[values] * ndim))

    layer = st.tuples(
        *(st.tuples(*[values] * ndim) for values in (
            st.integers(1, 4), st.integers(1, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(1, 3)
        ))
    )  # fmt: skip
    return draw(st.lists(layer, min_size=1, max_size=4)), axes(st.integers(0, 20))


@given(stack=stacks(), room=st.integers(0, 9))
def test_receptive_fields_tap_by_tap(stack, room):
    layers, index = stack
    field = pyconv.receptive_field(layers)
    for axis, part in enumerate(field.slices(index)):
        one_axis = [tuple(values[axis] for values in layer) for layer in layers]
        positions = seen(one_axis, index[axis])
        assert (part.start, part.stop) == (min(positions), max(positions) + 1)
        assert field.start[axis] == min(seen(one_axis, 0))
        assert field.stride[axis] == min(seen(one_axis, 1)) - min(seen(one_axis, 0))
        assert field.size[axis] == part.stop - part.start
    # With a size the parts are the same, up to the borders.
    n = tuple(start + size + room for start, size in zip(field.start, field.size, strict=True))
    if min(n) < 1:
        return
    try:
        sized = pyconv.receptive_field(layers, n)
    except ValueError as error:
        assert "layers[" in str(error) and "kernel" in str(error)
        return
    assert (sized.size, sized.stride, sized.start) == (field.size, field.stride, field.start)
    size = n
    for kernel, stride, padding, dilation in layers:
        size = pyconv.output_size(size, kernel, stride, padding, dilation)
    assert sized.output_size == size and sized.input_size == n
    last = tuple(m - 1 for m in size)
    for index in ((0,) * len(n), last):
        for part, whole, end in zip(sized.slices(index), field.slices(index), n, strict=True):
            assert list(range(part.start, part.stop)) == [i for i in range(whole.start, whole.stop) if 0 <= i < end]
            assert 0 <= part.start <= part.stop <= end


@pytest.mark.parametrize("padding", [0, 1, ((2, 0), (0, 1)), "same", "full"])
def test_the_gradient_reaches_what_the_field_says(padding):
    net = pyconv.Sequential(
        pyconv.Conv2d(1, 2, (3, 4), (2, 1), padding, rng=0),
        pyconv.ReLU(),
        pyconv.Sequential(pyconv.Conv2d(2, 1, 3, 1, padding, 2, rng=0), pyconv.ReLU()),
        pyconv.Conv2d(1, 1, 2, 2, rng=0),
    )
    for layer in (net[0], net[2][0], net[3]):
        layer.weight[...] = 1       # nothing cancels, and every ReLU passes
        layer.bias[...] = 1
    image = np.ones((1, 24, 21), np.float32)
    y = net(image)
    field = pyconv.receptive_field(net, image.shape[1:])
    assert field.output_size == y.shape[1:]
    inside = 0
    for index in np.ndindex(y.shape[1:]):
        dy = np.zeros_like(y)
        dy[0, *index] = 1
        rows, columns = np.nonzero(net.backward(dy)[0])
        (top, bottom), (left, right) = ((part.start, part.stop) for part in field.slices(index))
        assert top <= rows.min() and rows.max() < bottom and left <= columns.min() and columns.max() < right
        if (bottom - top, right - left) == field.size:
            # Away from the borders the corners are seen: the field is no larger than it must be.
            assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (top, bottom, left, right)
            inside += 1
    assert inside


def test_a_layer_in_every_form():
    layer = pyconv.Conv2d(3, 4, (3, 5), (2, 1), ((1, 0), (2, 3)), (1, 2))
    field = pyconv.receptive_field(layer)
    assert (field.size, field.stride, field.start) == ((3, 9), (2, 1), (-1, -2))
    window = ((3, 5), (2, 1), ((1, 0), (2, 3)), (1, 2))
    for same in (
        [layer],
        (layer,),
        iter([layer]),
        pyconv.Sequential(layer),
        [[pyconv.ReLU(), layer], pyconv.ReLU()],
        (pyconv.ReLU(), layer),
        window,
        [(1,), window],
    ):
        assert pyconv.receptive_field(same) == field
    relu = pyconv.receptive_field(pyconv.ReLU())
    assert (relu.size, relu.stride, relu.start) == (1, 1, 0)

    class Pool:
        kernel_size = stride = 2

    assert pyconv.receptive_field([layer, Pool()]).size == (5, 10)


def test_input_size_says_how_many_axes_there_are():
    field = pyconv.receptive_field((3, 2, 1), (8, 9, 10))
    assert field.size == (3, 3, 3) and field.output_size == (4, 5, 5)
    field = pyconv.receptive_field((3, 2, 1), 8)
    assert field.size == 3 and field.input_size == 8 and field.output_size == 4


def test_named_paddings():
    for name, start in (("valid", 0), ("full", -4), ("same", -2), ("same_lower", -2)):
        assert pyconv.receptive_field((3, 1, name, 2)).start == start
    assert pyconv.receptive_field((4, 1, "same")).start == -1
    assert pyconv.receptive_field((4, 1, "same_lower")).start == -2
    # With a stride the padding depends on the size.
    with pytest.raises(ValueError, match="input_size"):
        pyconv.receptive_field((3, 2, "same"))
    assert pyconv.receptive_field((3, 2, "same"), 8).start == 0
    assert pyconv.receptive_field((3, 2, "same"), 9).start == -1
    assert pyconv.receptive_field([(3, 2, "same"), (3, 2, "same")], 9).start == -3


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([], ValueError, ["layers", "none"]),
        (pyconv.Sequential(), ValueError, ["layers", "none"]),
        ((), ValueError, ["layers", "none"]),
        (None, TypeError, ["layers", "None"]),
        (3, TypeError, ["layers", "3"]),
        ("conv", TypeError, ["layers", "conv"]),
        ([3, 3], TypeError, ["layers[0]", "3"]),
        ([(3,), None], TypeError, ["layers[1]", "None"]),
        ((0,), ValueError, ["kernel_size", "0"]),
        ([(3,), (0,)], ValueError, ["layers[1]", "kernel_size", "0"]),
        ((3, 0), ValueError, ["stride", "0"]),
        ((3, 1, -1), ValueError, ["padding", "-1"]),
        ([(3,), (3, 1, -1)], ValueError, ["layers[1]", "padding", "-1"]),
        ((3, 1, "some"), ValueError, ["padding", "some"]),
        ((3, 1, 0, 0), ValueError, ["dilation", "0"]),
        ((3, 1, 0, 1, 1), ValueError, ["layers", "5", "list"]),
        ((3.0,), TypeError, ["kernel_size", "3.0"]),
        ([((3, 3),), ((3, 3, 3),)], ValueError, ["layers[0]", "layers[1]", "(3, 3)", "(3, 3, 3)"]),
        (((3, 3), (2, 2, 2)), ValueError, ["stride", "(2, 2, 2)"]),
    ],
)
def test_receptive_field_refuses_what_has_no_meaning(layers, error, words):
    with pytest.raises(error) as caught:
        pyconv.receptive_field(layers)
    for word in words:
        assert word in str(caught.value)


def test_a_kernel_larger_than_its_input_names_the_layer():
    with pytest.raises(ValueError, match=r"layers\[1\].*kernel is larger"):
        pyconv.receptive_field([(3,), (5,)], 6)
    with pytest.raises(ValueError, match="input_size"):
        pyconv.receptive_field((3,), -1)
    with pytest.raises(ValueError, match=r"input_size=\(8, 8, 8\)"):
        pyconv.receptive_field(((3, 3),), (8, 8, 8))


@pytest.mark.parametrize(
    ("index", "error"),
    [(-1, ValueError), (4, ValueError), ((0, 0), ValueError), ((), ValueError), (1.0, TypeError), (None, TypeError)],
)
def test_slices_refuse_what_is_no_output_element(index, error):
    with pytest.raises(error, match="output_index"):
        pyconv.receptive_field((3, 2, 1), 8).slices(index)
    if index != 4:
        with pytest.raises(error, match="output_index"):
            pyconv.receptive_field((3, 2, 1)).slices(index)
