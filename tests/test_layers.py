"""Conv2d, ReLU and Sequential: values, gradients, and a small network trained by them."""

import doctest

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import layers


def rng(seed=0):
    return np.random.default_rng(seed)


def test_examples_in_the_docstrings():
    result = doctest.testmod(layers)
    assert result.attempted >= 14 and result.failed == 0


# ------------------------------------------------------------------------------------------------
# The weights


@pytest.mark.parametrize(("channels", "groups", "kernel"), [(1, 1, (1, 2)), (64, 1, 3), (64, 4, (3, 5)), (8, 8, 7)])
def test_weights_are_uniform_within_pytorchs_bound(channels, groups, kernel):
    layer = pyconv.Conv2d(channels, 64, kernel, groups=groups, dtype=np.float64, rng=0)
    fan_in = layer.weight[0].size
    assert layer.weight.shape == (64, channels // groups, *np.broadcast_to(kernel, 2))
    for values in (layer.weight, layer.bias):
        values = values.ravel() * np.sqrt(fan_in)
        assert -1 <= values.min() and values.max() <= 1
        # Dvoretzky, Kiefer and Wolfowitz: the distribution is off by more than t with probability 2 exp(-2 n t^2).
        n = values.size
        off = np.abs((np.sort(values) + 1) / 2 - (np.arange(n) + 0.5) / n).max() - 0.5 / n
        assert off < np.sqrt(np.log(2 / 1e-6) / (2 * n))


def test_complex_weights_have_the_same_variance():
    layer = pyconv.Conv2d(16, 64, 3, dtype=np.complex128, rng=0)
    scaled = layer.weight * np.sqrt(layer.weight[0].size)
    assert np.abs(scaled).max() <= 1
    # The variance of a uniform number is 1/3; of the mean of n, a fourth root of 1e-6 or so away at most.
    assert abs(np.mean(np.abs(scaled) ** 2) - 1 / 3) < 5 / np.sqrt(scaled.size)
    assert abs(np.mean(scaled)) < 5 / np.sqrt(scaled.size)


def test_a_seed_repeats_the_weights_in_every_dtype():
    one = pyconv.Conv2d(3, 4, 3, dtype=np.float64, rng=7)
    for seed in (7, rng(7)):
        other = pyconv.Conv2d(3, 4, 3, rng=seed)
        assert other.weight.dtype == other.bias.dtype == other.dweight.dtype == np.float32
        oracle.assert_same_bits(other.weight, one.weight.astype(np.float32))
        oracle.assert_same_bits(other.bias, one.bias.astype(np.float32))
    generator = rng(7)
    first, second = (pyconv.Conv2d(3, 4, 3, rng=generator) for _ in range(2))
    assert (first.weight != second.weight).any()
    assert (pyconv.Conv2d(3, 4, 3).weight != pyconv.Conv2d(3, 4, 3).weight).any()


def test_arguments_are_in_pytorchs_order():
    layer = pyconv.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), 2, 2, False, "reflect", rng=0)
    assert layer.weight.shape == (6, 2, 3, 5)
    assert layer.bias is None and layer.dbias is None
    x = rng().standard_normal((2, 4, 9, 17)).astype(np.float32)
    expected = pyconv.conv2d(x, layer.weight, None, (2, 1), (1, 2), 2, 2, padding_mode="reflect")
    oracle.assert_same_bits(layer(x), expected)


def test_weights_are_plain_arrays_to_be_assigned():
    layer = pyconv.Conv2d(1, 1, (1, 2), rng=0)
    weight = np.zeros((1, 1, 1, 2), np.float32)
    layer.weight = weight
    assert layer.weight is weight
    layer.weight = [[[[1, -1]]]]
    assert layer.weight.dtype == np.float32 and layer.weight.tolist() == [[[[1, -1]]]]
    layer.weight -= 0.5 * np.ones_like(layer.weight)
    layer.bias[...] = 2
    assert layer(np.ones((1, 2))).tolist() == [[1]]
    for name, value in (("weight", [1, -1]), ("bias", [1, 2]), ("bias", None), ("weight", np.ones((1, 1, 1, 2)) * 1j)):
        with pytest.raises((ValueError, TypeError), match=name):
            setattr(layer, name, value)
    with pytest.raises(ValueError, match="bias"):
        pyconv.Conv2d(1, 1, 3, bias=False).bias = [1]


def test_a_layer_computes_in_its_dtype():
    image = rng().integers(0, 255, (1, 6, 7)).astype(np.uint8)
    for dtype in (np.float16, np.float32, np.float64, np.complex64):
        layer = pyconv.Conv2d(1, 2, 3, dtype=dtype, rng=0)
        for x in (image, image.astype(np.float64), image.astype(np.int64)):
            y = layer(x)
            assert y.dtype == dtype
            oracle.assert_same_bits(y, pyconv.conv2d(image.astype(dtype), layer.weight, layer.bias))
            dx = layer.backward(np.ones(y.shape))
            assert dx.shape == image.shape
            assert layer.dweight.dtype == layer.dbias.dtype == dtype


# ------------------------------------------------------------------------------------------------
# Gradients


def assert_gradient(loss, array, gradient):
    """`gradient` is the loss's at `array`, by central differences along random directions.

    The loss is a polynomial of degree 2 at most, of which the differences are exact but for rounding.
    """
    before = array.copy()
    for seed in range(3):
        direction = rng(seed).integers(-2, 3, array.shape).astype(array.dtype)
        array[...] = before + direction
        above = loss()
        array[...] = before - direction
        below = loss()
        array[...] = before
        slope = np.vdot(gradient, direction).real
        assert (above - below) / 2 == pytest.approx(slope, rel=1e-12, abs=1e-12 * (abs(above) + abs(below)))


@st.composite
def layer_problems(draw):
    groups = draw(st.integers(1, 2))
    channels, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 2))) for _ in range(2))
    how = {
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 2))),
        "padding": draw(st.sampled_from([0, 2, (2, 1), ((0, 3), (2, 0)), "valid", "same", "same_lower", "full"])),
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(sorted(oracle.PADDING_MODES))),
        "dtype": draw(st.sampled_from([np.float64, np.complex128])),
    }
    size = tuple(d * (k - 1) + draw(st.integers(1, 4)) for d, k in zip(dilation, kernel, strict=True))
    shape = (*draw(st.sampled_from([(), (1,), (3,)])), channels, *size)
    if channels == outputs == 1 and draw(st.booleans()):
        shape = size
    return pyconv.Conv2d(channels, outputs, kernel, **how, rng=0), shape


def complex_or_real(seed, shape, dtype):
    values = rng(seed).integers(-4, 5, (2, *shape)).astype(np.float64)
    return values[0] + 1j * values[1] if np.dtype(dtype).kind == "c" else values[0]


@given(problem=layer_problems())
def test_gradients_pass_finite_differences(problem):
    layer, shape = problem
    x = complex_or_real(0, shape, layer.dtype)
    y = layer(x)
    assert y.ndim == x.ndim
    target = complex_or_real(1, y.shape, layer.dtype)

    def loss():
        return np.square(np.abs(layer(x) - target)).sum()

    dx = layer.backward(2 * (y - target))
    assert dx.shape == x.shape and dx.dtype == layer.dtype
    assert_gradient(loss, x, dx)
    assert_gradient(loss, layer.weight, layer.dweight)
    if layer.bias is not None:
        assert_gradient(loss, layer.bias, layer.dbias)


def test_gradients_add_up_until_zero_grad():
    layer = pyconv.Conv2d(2, 3, 3, dtype=np.float64, rng=0)
    x, dy = rng().integers(-9, 9, (2, 6, 6)), rng(1).integers(-9, 9, (3, 4, 4))
    layer(x)
    layer.backward(dy)
    dweight, dbias = layer.dweight.copy(), layer.dbias.copy()
    assert dweight.any() and dbias.any()
    layer(x)
    layer.backward(dy)
    oracle.assert_same_values(layer.dweight, 2 * dweight)
    oracle.assert_same_values(layer.dbias, 2 * dbias)
    layer.zero_grad()
    assert not layer.dweight.any() and not layer.dbias.any()


def test_a_step_goes_down_the_gradient_in_place():
    layer = pyconv.Conv2d(1, 1, 2, dtype=np.float64, rng=0)
    weight, bias = layer.weight, layer.bias
    layer.weight[...] = 1
    layer.bias[...] = 1
    layer.dweight[...] = 2
    layer.dbias[...] = 4
    layer.step(0.25)
    assert layer.weight is weight and layer.bias is bias
    assert (weight == 0.5).all() and (bias == 0).all()


def test_descent_shrinks_the_error_as_the_curvatures_say():
    # On the image of ones with zero columns 2 to 5 the errors along [1, 1] and [1, -1] shrink by -0.8 and 0.64.
    image = np.ones((6, 8))
    image[:, 2:6] = 0
    target = pyconv.corr2d(image, [[1.0, -1.0]])
    layer = pyconv.Conv2d(1, 1, (1, 2), bias=False, dtype=np.float64, rng=0)
    for _ in range(10):
        before = layer.weight.ravel() - [1, -1]
        layer.zero_grad()
        layer.backward(2 * (layer(image) - target))
        layer.step(0.03)
        after = layer.weight.ravel() - [1, -1]
        assert after.sum() == pytest.approx(-0.8 * before.sum(), abs=1e-13)
        assert after[0] - after[1] == pytest.approx(0.64 * (before[0] - before[1]), abs=1e-13)


def test_relu():
    relu = pyconv.ReLU()
    x = np.array([[-2, -0.0, 0.0, 3, np.inf, -np.inf, np.nan, 5e-324]])
    oracle.assert_same_values(relu(x), np.array([[0, 0, 0, 3, np.inf, 0, np.nan, 5e-324]]))
    dx = relu.backward(np.full((1, 8), np.nan))
    oracle.assert_same_values(dx, np.array([[0, 0, 0, *[np.nan] * 2, 0, *[np.nan] * 2]]))
    for dtype in (np.float32, np.int8, np.uint8):
        y = relu(np.array([0, 1], dtype))
        assert y.dtype == dtype and y.tolist() == [0, 1]
        assert relu.backward(np.array([3, 4], np.float32)).dtype == np.float32
    assert relu.zero_grad() is None and relu.step(0.1) is None


def test_sequential_is_its_layers_in_a_row():
    first, second = pyconv.Conv2d(1, 4, 3, dtype=np.float64, rng=0), pyconv.Conv2d(4, 2, 2, dtype=np.float64, rng=1)
    relu = pyconv.ReLU()
    net = pyconv.Sequential(pyconv.Sequential(first, relu), second)
    assert len(net) == 2 and list(net) == [net[0], second] and net.layers[-1] is second
    x = rng().standard_normal((1, 6, 6))
    y = net(x)
    oracle.assert_same_bits(y, second(relu(first(x))))
    dy = rng(1).standard_normal(y.shape)
    dx = net.backward(dy)
    gradients = [first.dweight.copy(), second.dweight.copy()]
    net.zero_grad()
    assert not first.dweight.any() and not second.dbias.any()
    oracle.assert_same_bits(dx, first.backward(relu.backward(second.backward(dy))))
    oracle.assert_same_bits(first.dweight, gradients[0])
    oracle.assert_same_bits(second.dweight, gradients[1])
    before = second.weight.copy()
    net.step(0.5)
    oracle.assert_same_bits(second.weight, before - 0.5 * gradients[1])


def test_what_layers_print():
    assert repr(pyconv.Sequential(pyconv.Conv2d(1, 2, 3, padding=1), pyconv.ReLU())) == (
        "Sequential(Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), "
        "groups=1, bias=True, padding_mode='zeros', dtype=float32), ReLU())"
    )


# ------------------------------------------------------------------------------------------------
# A network


def network(dtype):
    generator = rng(0)
    return pyconv.Sequential(
        pyconv.Conv2d(1, 8, 5, stride=2, padding=2, dtype=dtype, rng=generator),
        pyconv.ReLU(),
        pyconv.Conv2d(8, 1, 3, padding=1, dtype=dtype, rng=generator),
    )


def photograph_and_edges():
    """A small photograph and its horizontal edges, of every second pixel; both of variance 1."""
    data = pytest.importorskip("skimage.data")
    image = data.camera()[::4, ::4].astype(np.float64)
    edges = pyconv.ndimage.sobel(image, axis=0)[::2, ::2]
    return (image - image.mean())[None] / image.std(), edges[None] / edges.std()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_two_layer_strided_network_learns(dtype):
    image, target = photograph_and_edges()
    net = network(dtype)
    losses = []
    for _ in range(300):
        error = net(image) - target
        losses.append(np.square(error).mean())
        net.zero_grad()
        net.backward(2 / error.size * error)
        net.step(0.04)
    assert losses[-1] < losses[0] / 10, losses[::50]


def test_the_networks_gradients_pass_finite_differences():
    image, target = photograph_and_edges()
    image, target = image[:, 16:40, 16:40], target[:, 8:20, 8:20]
    net = network(np.float64)

    def loss():
        return np.square(net(image) - target).sum()

    net.zero_grad()
    dx = net.backward(2 * (net(image) - target))
    passed = net[1]._passes.copy()
    gradients = [dx] + [array.copy() for layer in (net[0], net[2]) for array in (layer.dweight, layer.dbias)]
    arrays = [image] + [array for layer in (net[0], net[2]) for array in (layer.weight, layer.bias)]
    for seed, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        direction = rng(seed).standard_normal(array.shape)
        step = 1e-7 / np.abs(direction).max()
        before = array.copy()
        values = []
        for sign in (1, -1):
            array[...] = before + sign * step * direction
            values.append(loss())
            assert (net[1]._passes == passed).all()     # no ReLU turns on the way: the loss is a polynomial there
        array[...] = before
        slope = np.vdot(gradient, direction)
        # What the differences lose: the rounding of two losses over 2 * step, and the third derivative's h**2.
        rounding = 1e3 * np.finfo(np.float64).eps * values[0] / step
        assert abs((values[0] - values[1]) / (2 * step) - slope) <= rounding + 1e-9 * np.abs(gradient).sum()


# ------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "words"),
    [
        ((0, 1, 3), {}, ValueError, ["in_channels", "0"]),
        ((1, -1, 3), {}, ValueError, ["out_channels", "-1"]),
        ((1.0, 1, 3), {}, TypeError, ["in_channels", "1.0"]),
        ((1, 1, 0), {}, ValueError, ["kernel_size", "0"]),
        ((1, 1, (3, 0)), {}, ValueError, ["kernel_size", "0"]),
        ((1, 1, (3, 3, 3)), {}, ValueError, ["kernel_size", "(3, 3, 3)"]),
        ((1, 1, 3.0), {}, TypeError, ["kernel_size", "3.0"]),
        ((1, 1, None), {}, TypeError, ["kernel_size"]),
        ((1, 1, 3, 0), {}, ValueError, ["stride"]),
        ((1, 1, 3, 1, -1), {}, ValueError, ["padding"]),
        ((1, 1, 3, 1, "some"), {}, ValueError, ["padding", "some"]),
        ((1, 1, 3, 1, ((1, 2), (1, 2), (1, 2))), {}, ValueError, ["padding"]),
        ((1, 1, 3), {"dilation": 0}, ValueError, ["dilation"]),
        ((4, 6, 3), {"groups": 4}, ValueError, ["groups=4", "in_channels=4", "out_channels=6"]),
        ((3, 6, 3), {"groups": 2}, ValueError, ["groups=2", "in_channels=3", "out_channels=6"]),
        ((4, 4, 3), {"groups": 0}, ValueError, ["groups"]),
        ((1, 1, 3), {"bias": None}, TypeError, ["bias", "None"]),
        ((1, 1, 3), {"bias": np.ones(1)}, TypeError, ["bias"]),
        ((1, 1, 3), {"padding_mode": "some"}, ValueError, ["padding_mode", "some"]),
        ((1, 1, 3), {"dtype": np.int32}, TypeError, ["dtype", "int32"]),
        ((1, 1, 3), {"dtype": "no"}, TypeError, ["dtype"]),
        ((1, 1, 3), {"rng": "seed"}, TypeError, ["rng", "seed"]),
        ((1, 1, 3), {"rng": -1}, ValueError, ["rng", "-1"]),
        ((2**31, 2**31, 2**31), {}, ValueError, ["shape"]),
    ],
)
def test_a_layer_refuses_bad_arguments(arguments, keywords, error, words):
    with pytest.raises(error) as caught:
        pyconv.Conv2d(*arguments, **keywords)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("channels", "x", "error", "words"),
    [
        ((3, 1), np.ones((2, 8, 8)), ValueError, ["x", "(2, 8, 8)", "3"]),
        ((3, 1), np.ones((8, 8, 3)), ValueError, ["x", "(8, 8, 3)", "moveaxis"]),
        ((3, 1), np.ones((8, 8)), ValueError, ["x", "(8, 8)"]),
        ((1, 2), np.ones((8, 8)), ValueError, ["x", "(8, 8)", "x[None]"]),
        ((1, 1), np.ones(8), ValueError, ["x", "(8,)"]),
        ((1, 1), np.ones((1, 1, 1, 8, 8)), ValueError, ["x", "(1, 1, 1, 8, 8)"]),
        ((1, 1), np.ones((2, 2)), ValueError, ["kernel"]),
        ((1, 1), np.ones((8, 8)) * 1j, TypeError, ["x", "complex"]),
        ((1, 1), None, TypeError, ["x"]),
        ((1, 1), np.full((8, 8), "a"), TypeError, ["x"]),
    ],
)
def test_a_layer_refuses_bad_input(channels, x, error, words):
    with pytest.raises(error) as caught:
        pyconv.Conv2d(*channels, 3)(x)
    for word in words:
        assert word in str(caught.value)


def test_a_gradient_of_the_wrong_shape_is_refused_and_both_shapes_are_named():
    layer = pyconv.Conv2d(1, 2, 3, rng=0)
    x = np.ones((4, 1, 8, 9), np.float32)
    assert layer(x).shape == (4, 2, 6, 7)
    # All but the last would broadcast.
    for shape in ((), (1,), (7,), (6, 7), (1, 6, 7), (2, 1, 1), (1, 2, 6, 7), (4, 2, 6, 1), (4, 2, 7, 6)):
        with pytest.raises(ValueError) as caught:
            layer.backward(np.ones(shape))
        assert "dy" in str(caught.value)
        assert "(4, 2, 6, 7)" in str(caught.value) and str(shape) in str(caught.value)
        assert not layer.dweight.any() and not layer.dbias.any()
    for wrong in (None, "a", np.ones((4, 2, 6, 7)) * 1j):
        with pytest.raises(TypeError, match="dy"):
            layer.backward(wrong)
    single = pyconv.Conv2d(1, 1, 3)
    single(np.ones((5, 5)))
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(1, 3, 3\)"):
        single.backward(np.ones((1, 3, 3)))
    relu = pyconv.ReLU()
    relu(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"dy.*\(3, 4\).*\(4,\)"):
        relu.backward(np.ones(4))
    net = pyconv.Sequential(pyconv.Conv2d(1, 2, 3), pyconv.ReLU())
    net(np.ones((1, 5, 5)))
    with pytest.raises(ValueError, match=r"dy.*\(2, 3, 3\).*\(1, 3, 3\)"):
        net.backward(np.ones((1, 3, 3)))


def test_backward_before_forward_is_refused():
    for layer, dy in ((pyconv.Conv2d(1, 1, 3), np.ones((3, 3))), (pyconv.ReLU(), np.ones(3))):
        with pytest.raises(ValueError, match="backward needs a call"):
            layer.backward(dy)
        with pytest.raises(ValueError, match="backward needs a call"):
            pyconv.Sequential(layer).backward(dy)


def test_a_failed_call_leaves_the_last_one():
    layer = pyconv.Conv2d(1, 1, 3, rng=0)
    y = layer(np.ones((5, 5)))
    with pytest.raises(ValueError):
        layer(np.ones((2, 2)))
    assert layer.backward(y).shape == (5, 5)


@pytest.mark.parametrize(
    ("lr", "error"), [(-0.1, ValueError), (np.nan, ValueError), ("1", TypeError), (None, TypeError)]
)
def test_bad_learning_rates(lr, error):
    layer = pyconv.Conv2d(1, 1, 3)
    for stepping in (layer, pyconv.Sequential(layer)):
        with pytest.raises(error, match="lr"):
            stepping.step(lr)
    layer.step(np.float32(0.1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([pyconv.ReLU()],), ["layer 0", "one by one"]),
        ((pyconv.ReLU(), pyconv.ReLU), ["layer 1", "ReLU(...)"]),
        ((None,), ["layer 0", "None"]),
        ((np.tanh,), ["layer 0", "backward"]),
    ],
)
def test_sequential_refuses_what_is_no_layer(arguments, words):
    with pytest.raises(TypeError) as caught:
        pyconv.Sequential(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_sequential_refuses_the_same_layer_twice():
    # The second call would replace what the first place's backward needs: a wrong gradient, and of the right shape.
    relu, layer = pyconv.ReLU(), pyconv.Conv2d(2, 2, 3, padding=1)
    with pytest.raises(ValueError, match="layer 2 is layer 0 again, ReLU"):
        pyconv.Sequential(relu, layer, relu)
    with pytest.raises(ValueError, match="layer 1.1 is layer 0.0 again"):
        pyconv.Sequential(pyconv.Sequential(layer), pyconv.Sequential(relu, layer))


def test_a_read_only_weight_is_copied():
    layer = pyconv.Conv2d(1, 1, 2)
    layer.weight = np.broadcast_to(np.float32(1), (1, 1, 2, 2))
    layer(np.ones((3, 3)))
    layer.backward(np.ones((2, 2)))
    layer.step(0.25)
    assert layer.weight.tolist() == [[[[0, 0], [0, 0]]]]


def test_relu_refuses_complex_numbers():
    with pytest.raises(TypeError, match="x must be real"):
        pyconv.ReLU()(np.ones(3) * 1j)


def test_pytorchs_layer_agrees():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), 2, 2, padding_mode="circular", dtype=torch.float64)
    ours = pyconv.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), 2, 2, padding_mode="circular", dtype=np.float64)
    ours.weight, ours.bias = theirs.weight.detach().numpy().copy(), theirs.bias.detach().numpy().copy()
    x = rng().standard_normal((2, 4, 9, 8))
    tensor = torch.tensor(x, requires_grad=True)
    y = theirs(tensor)
    dy = rng(1).standard_normal(tuple(y.shape))
    y.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(ours(x), y.detach().numpy(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(ours.backward(dy), tensor.grad.numpy(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(ours.dweight, theirs.weight.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.dbias, theirs.bias.grad.numpy(), rtol=0, atol=1e-12)
