"""pyconv.grad: gradients of corr2d, conv1d, conv2d, conv3d, unfold, fold and the pixel shuffles."""

import math

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PADDING_MODES
from test_conv import COMPUTED, CONV, FLOATS, INTEGERS, larger_id, nine, problems, rng
from test_errors import Lazy, call_must_fail, read_only
from test_unfold import geometries

import pyconv
from pyconv import grad

CONV_INPUT = {1: grad.conv1d_input, 2: grad.conv2d_input, 3: grad.conv3d_input}
CONV_WEIGHT = {1: grad.conv1d_weight, 2: grad.conv2d_weight, 3: grad.conv3d_weight}
CONV_BIAS = {1: grad.conv1d_bias, 2: grad.conv2d_bias, 3: grad.conv3d_bias}
CONV_BACKWARD = {1: grad.conv1d_backward, 2: grad.conv2d_backward, 3: grad.conv3d_backward}


# ------------------------------------------------------------------------------------------------
# Worked examples


def test_corr2d_input_three_by_three():
    k, dy = np.array([[0.0, 1], [2, 3]], np.float32), np.array([[1.0, 2], [3, 4]], np.float32)
    expected = np.array([[0, 1, 2], [2, 10, 10], [6, 17, 12]], np.float32)
    oracle.assert_same_bits(grad.corr2d_input((3, 3), k, dy), expected)


def test_corr2d_kernel_three_by_three():
    x, dy = np.arange(9.0).reshape(3, 3), np.array([[1.0, 2], [3, 4]])
    # dy is correlated with x: 0*1 + 1*2 + 3*3 + 4*4 = 27, and 10 more with every step.
    oracle.assert_same_bits(grad.corr2d_kernel(x, (2, 2), dy), np.array([[27.0, 37], [57, 67]]))


def test_strides_leave_samples_that_no_tap_reaches():
    # Stride 3 and a kernel of 2: every third row and column, and those behind the last window, are zero.
    k, dy = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 10]])
    expected = np.array([[1.0, 2, 0, 10, 20, 0], [3, 4, 0, 30, 40, 0], [0] * 6, [0] * 6])
    out = np.full((4, 6), np.nan)
    assert grad.corr2d_input((4, 6), k, dy, stride=3, out=out) is out
    oracle.assert_same_bits(out, expected)


def test_dilation_spreads_the_kernel():
    k, dy = np.array([[1.0, 2]]), np.array([[1.0, 10, 100]])
    oracle.assert_same_values(grad.corr2d_input((1, 5), k, dy, dilation=2), [[1.0, 10, 102, 20, 200]])
    oracle.assert_same_values(
        grad.corr2d_kernel([[1.0, 2, 3, 4, 5]], (1, 2), dy, dilation=2), [[321.0, 543]]
    )


@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [
        # x = a b c under the kernel 1, 10, 100; three outputs, each with gradient 1.
        ("zeros", [11, 111, 110]),
        ("replicate", [12, 111, 210]),
        ("symmetric", [12, 111, 210]),
        ("reflect", [11, 212, 110]),
        ("circular", [111, 111, 111]),
    ],
)
def test_a_boundary_is_folded_back(padding_mode, expected):
    w, g = np.array([[[1.0, 10, 100]]]), np.ones((1, 3))
    dx = grad.conv1d_input((1, 3), w, g, padding=1, padding_mode=padding_mode)
    oracle.assert_same_values(dx, [expected])


@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [
        # x = 0 1 2 with its border left and right; the output gradients are 1, 10, 100.
        ("constant", [7 + 100, 0 + 10 + 200, 1 + 20 + 700]),
        ("edge", [100, 210, 221]),
        ("symmetric", [100, 210, 221]),
        ("mirror", [1 + 100, 210, 1 + 20 + 100]),
        ("wrap", [2 + 100, 210, 1 + 20 + 0]),
    ],
)
def test_a_boundary_takes_part_in_the_weight_gradient(padding_mode, expected):
    x, g = np.array([[0.0, 1, 2]]), np.array([[1.0, 10, 100]])
    dw = grad.conv1d_weight(x, (1, 1, 3), g, padding=1, padding_mode=padding_mode, padding_value=7)
    oracle.assert_same_values(dw, [[expected]])


def test_bias_gradient_is_the_sum_of_each_channel():
    g = np.arange(12.0).reshape(2, 3, 2)
    oracle.assert_same_bits(grad.conv1d_bias(g), np.array([0.0 + 1 + 6 + 7, 2 + 3 + 8 + 9, 4 + 5 + 10 + 11]))
    oracle.assert_same_bits(grad.conv1d_bias(g[0]), np.array([1.0, 5, 9]))
    oracle.assert_same_bits(grad.conv2d_bias(g), np.array([15.0, 51]))
    oracle.assert_same_bits(grad.conv3d_bias(g[None]), np.array([66.0]))


def test_descent_on_the_edges_of_a_dark_bar():
    x = np.ones((6, 8))
    x[:, 2:6] = 0
    target = pyconv.corr2d(x, np.array([[1.0, -1]]))
    # The sum of squares is (w - w*) A (w - w*) with A = 6 [[3, 2], [2, 3]], whose eigenvalues are 30 and 6.
    w = np.zeros((1, 2))
    dw = grad.corr2d_kernel(x, w.shape, 2 * (pyconv.corr2d(x, w) - target))
    oracle.assert_same_values(dw, [[-12.0, 12]])
    dw = grad.corr2d_kernel(x, w.shape, 2 * (pyconv.corr2d(x, w + [[2, -1]]) - target))
    oracle.assert_same_values(dw, [[36.0, 24]])


def test_complex_gradients_conjugate_the_other_factor():
    w, x, g = np.array([[[2j, 1 - 1j]]]), np.array([[1j, 2, 3j]]), np.array([[1.0, 1j]])
    oracle.assert_same_values(grad.conv1d_input((1, 3), w, g), [[-2j, 1 + 1j + 2, 1j - 1]])
    oracle.assert_same_values(grad.conv1d_weight(x, (1, 1, 2), g), [[[-1j + 2j, 2 + 3]]])
    # So that a step against the gradient makes |y|**2 smaller.
    y = pyconv.conv1d(x, w)
    dw = grad.conv1d_weight(x, w.shape, 2 * y)
    assert (abs(pyconv.conv1d(x, w - 1e-3 * dw)) ** 2).sum() < (abs(y) ** 2).sum()


def test_a_complex_padding_value_around_a_real_image():
    x, g = np.array([[1.0, 2]]), np.array([[1 + 1j, 2]])
    dw = grad.conv1d_weight(x, (1, 1, 3), g, padding=1, padding_value=1j)
    oracle.assert_same_values(dw, [[[-1j * (1 + 1j) + 2, 1 + 1j + 4, 2 * (1 + 1j) - 2j]]])


# ------------------------------------------------------------------------------------------------
# Everything together, drawn by Hypothesis


def small(max_ndim=3, **keywords):
    return problems(max_ndim=max_ndim, **{"wide": 12, **keywords})


def output_shape(problem):
    how = problem.oracle_geometry()
    size = oracle.output_size(problem.size, problem.kernel, problem.stride, how["padding"], problem.dilation)
    return (*problem.x_shape[: -problem.ndim - 1], problem.outputs, *size)


def arrays(problem, values, dtype, w_dtype=None, g_dtype=None):
    """Input, weight and gradient of the output, filled by values(rng, shape, dtype)."""
    x, w, _ = problem.arrays(values, dtype, w_dtype)
    return x, w, values(rng(problem.seed + 1000), output_shape(problem), g_dtype or dtype)


def call(problem, function, arguments, *, geometry=None, hostile=True, **keywords):
    """Call with hostile arrays; see that the function leaves them alone, and that it fills and returns out=."""
    geometry = problem.geometry() if geometry is None else geometry
    given, layouts = arguments, iter(problem.layouts)
    if hostile:
        arguments = [cases.lay_out(a, next(layouts)) if isinstance(a, np.ndarray) else a for a in given]
        keywords = {"workers": problem.workers, **keywords}
    y = function(*arguments, **geometry, **keywords)
    if hostile and problem.out_layout is not None and "out" not in keywords:
        out = cases.lay_out(cases.poison(y.shape, y.dtype), problem.out_layout)
        assert function(*arguments, **geometry, **keywords, out=out) is out
        oracle.assert_same_bits(out.astype(y.dtype), y)
    for before, after in zip(given, arguments, strict=True):
        oracle.assert_same_values(after, before)
    return y


def dinput(problem, w, g, **keywords):
    return call(problem, CONV_INPUT[problem.ndim], (problem.x_shape, w, g), **keywords)


def dweight(problem, x, g, **keywords):
    return call(problem, CONV_WEIGHT[problem.ndim], (x, problem.w_shape, g), **keywords)


def expected_dinput(problem, w, g, dtype):
    w, g = w.astype(dtype), problem.batched(g).astype(dtype)
    return problem.unbatched(oracle.dinput(problem.size, w, g, **problem.oracle_geometry()))


def expected_dweight(problem, x, g, dtype, cval=0):
    x, g = problem.batched(x).astype(dtype), problem.batched(g).astype(dtype)
    return oracle.dweight(x, problem.kernel, g, cval=cval, **problem.oracle_geometry())


def wide(dtype):
    """The dtype in which the oracle's sums of integers of this dtype are exact."""
    return {"c": np.complex128, "f": np.float64}.get(np.dtype(dtype).kind, np.int64)


@given(problem=small(), dtype=st.sampled_from(FLOATS[1:] + INTEGERS))
def test_input_gradient_of_integer_valued_data_is_exact(problem, dtype):
    _, w, g = arrays(problem, nine, dtype)
    dx = dinput(problem, w, g)
    assert dx.dtype == (dtype if dtype in FLOATS else np.int64)
    oracle.assert_same_values(dx, expected_dinput(problem, w, g, wide(dtype)))


@given(problem=small(), dtype=st.sampled_from(FLOATS[1:] + INTEGERS), padding_value=st.integers(-9, 9))
def test_weight_gradient_of_integer_valued_data_is_exact(problem, dtype, padding_value):
    x, _, g = arrays(problem, nine, dtype)
    if PADDING_MODES[problem.padding_mode] != "constant":
        padding_value = 0
    elif x.dtype.kind in "ub":
        padding_value = min(abs(padding_value), 1)
    dw = dweight(problem, x, g, padding_value=padding_value)
    assert dw.dtype == (dtype if dtype in FLOATS else np.int64)
    oracle.assert_same_values(dw, expected_dweight(problem, x, g, wide(dtype), padding_value))


@given(problem=small(), padding_value=st.sampled_from([2 - 1j, 3j, -1]))
def test_a_complex_padding_value_is_conjugated(problem, padding_value):
    x, _, g = arrays(problem, nine, "complex64")
    if PADDING_MODES[problem.padding_mode] != "constant":
        padding_value = 0
    dw = dweight(problem, x, g, padding_value=padding_value)
    oracle.assert_same_values(dw, expected_dweight(problem, x, g, complex, padding_value))


@given(problem=small(), dtype=st.sampled_from(FLOATS[1:] + INTEGERS))
def test_bias_gradient_of_integer_valued_data_is_exact(problem, dtype):
    g = cases.lay_out(arrays(problem, nine, dtype)[2], problem.layouts[0])
    db = CONV_BIAS[problem.ndim](g)
    assert db.dtype == (dtype if dtype in FLOATS else np.int64)
    oracle.assert_same_values(db, oracle.dbias(problem.batched(g).astype(wide(dtype))))


@given(problem=small(), shift=st.integers(-24, 8))
def test_float16_is_the_exact_sum_rounded_once(problem, shift):
    # The sums are exact in float32; the one rounding left includes overflow to Inf and subnormals.
    x, w, g = arrays(problem, nine, "float16")
    g = np.ldexp(g, shift)
    with np.errstate(over="ignore"):
        exact = expected_dinput(problem, w, g, np.float64).astype(np.float16)
        oracle.assert_same_bits(dinput(problem, w, g) + np.float16(0), exact + np.float16(0))
        exact = expected_dweight(problem, x, g, np.float64).astype(np.float16)
        oracle.assert_same_bits(dweight(problem, x, g) + np.float16(0), exact + np.float16(0))
        exact = oracle.dbias(problem.batched(g).astype(np.float64)).astype(np.float16)
        oracle.assert_same_bits(CONV_BIAS[problem.ndim](g) + np.float16(0), exact + np.float16(0))


@given(problem=small(max_ndim=2, wide=8), dtype=st.sampled_from(FLOATS))
@settings(max_examples=25)
def test_error_of_the_input_gradient_stays_within_the_bound(problem, dtype):
    _, w, g = arrays(problem, cases.normal, dtype)
    dx = dinput(problem, w, g)
    assert dx.dtype == dtype

    def function(g, w):
        return oracle.dinput(problem.size, w, g, **problem.oracle_geometry())

    # Products summed into each sample: what a border folds back counts as well.
    terms = function(np.ones(problem.batched(g).shape, int), np.ones(w.shape, int))
    oracle.assert_bilinear(
        problem.batched(dx), function, problem.batched(g), w, terms=terms, computed=COMPUTED[dtype]
    )


@given(problem=small(max_ndim=2, wide=8), dtype=st.sampled_from(FLOATS))
@settings(max_examples=25)
def test_error_of_the_weight_gradient_stays_within_the_bound(problem, dtype):
    x, _, g = arrays(problem, cases.normal, dtype)
    how = problem.oracle_geometry()
    padding_value = 0.375 if how["boundary"] == "constant" else 0
    dw = dweight(problem, x, g, padding_value=padding_value)
    assert dw.dtype == dtype
    # Padded first, which rounds nothing, so that the padding value is a number like the others.
    padded = oracle.pad(problem.batched(x), how.pop("padding"), how.pop("boundary"), padding_value)
    g = problem.batched(g)

    def function(g, x):
        return oracle.dweight(x, problem.kernel, g, **how)

    terms = g.shape[0] * math.prod(g.shape[2:])
    oracle.assert_bilinear(dw, function, g, padded, terms=terms, computed=COMPUTED[dtype])


@given(problem=small(max_ndim=2, wide=30), dtype=st.sampled_from(FLOATS))
@settings(max_examples=25)
def test_error_of_the_bias_gradient_stays_within_the_bound(problem, dtype):
    g = arrays(problem, cases.normal, dtype)[2]
    db = CONV_BIAS[problem.ndim](g)
    assert db.dtype == dtype
    g = problem.batched(g)
    terms = g.shape[0] * math.prod(g.shape[2:])
    oracle.assert_bilinear(
        db, lambda g, one: oracle.dbias(g * one), g, np.ones(1), terms=terms, computed=COMPUTED[dtype]
    )


@given(problem=small(max_ndim=2, wide=6), dtype=st.sampled_from(["float32", "float64"]))
@settings(max_examples=15)
def test_error_stays_within_the_bound_over_many_decades(problem, dtype):
    def decades(generator, shape, dtype):
        return (generator.standard_normal(shape) * 10.0 ** generator.uniform(-6, 6, shape)).astype(dtype)

    x, w, g = arrays(problem, decades, dtype)
    how = problem.oracle_geometry()

    def input_gradient(g, w):
        return oracle.dinput(problem.size, w, g, **how)

    batched = problem.batched(g)
    terms = input_gradient(np.ones(batched.shape, int), np.ones(w.shape, int))
    dx = problem.batched(dinput(problem, w, g))
    oracle.assert_bilinear(dx, input_gradient, batched, w, terms=terms, computed=dtype)

    def weight_gradient(g, x):
        return oracle.dweight(x, problem.kernel, g, **how)

    terms = batched.shape[0] * math.prod(batched.shape[2:])
    dw = dweight(problem, x, g)
    oracle.assert_bilinear(dw, weight_gradient, batched, problem.batched(x), terms=terms, computed=dtype)


@given(problem=small(wide=40), dtype=st.sampled_from(FLOATS + INTEGERS))
def test_memory_layout_and_threads_do_not_change_the_bits(problem, dtype):
    x, w, g = arrays(problem, nine if dtype in INTEGERS else cases.normal, dtype)
    plain = {"hostile": False, "workers": 1}
    oracle.assert_same_bits(dinput(problem, w, g), dinput(problem, w, g, **plain))
    oracle.assert_same_bits(dweight(problem, x, g), dweight(problem, x, g, **plain))
    bias = CONV_BIAS[problem.ndim]
    oracle.assert_same_bits(bias(cases.lay_out(g, problem.layouts[2])), bias(g))


# ------------------------------------------------------------------------------------------------
# Gradients are adjoints and derivatives


def inner(a, b):
    """Sum of conj(a) * b, and of the products' magnitudes."""
    return np.vdot(a, b), np.vdot(abs(a), abs(b))


@given(problem=small(wide=40), dtype=st.sampled_from(["float64", "complex128"]))
def test_adjoint_identity(problem, dtype):
    x, w, g = arrays(problem, cases.normal, dtype)
    y = CONV[problem.ndim](x, w, **problem.geometry())
    left, _ = inner(y, g)
    # The magnitude of <y, g> is that of the products that y is made of, or cancellation would count as an error.
    scale = np.vdot(problem.expected(abs(x), abs(w), None, np.float64), abs(g))
    for a, b in ((x, dinput(problem, w, g)), (w, dweight(problem, x, g))):
        assert abs(inner(a, b)[0] - left) <= 1e-12 * scale


def derivative(f, a):
    """Central differences of f by every element of `a`, with steps of one: exact for a quadratic f of integers."""
    da = np.empty(a.shape)
    for index in np.ndindex(a.shape):
        ahead, behind = a.copy(), a.copy()
        ahead[index] += 1
        behind[index] -= 1
        da[index] = (f(ahead) - f(behind)) / 2
    return da


@given(problem=small(max_ndim=2, wide=3))
@settings(max_examples=15)
def test_finite_differences(problem):
    x, w, _ = problem.arrays(nine, np.float64)
    bias = np.arange(problem.outputs, dtype=np.float64)
    # At most 20 of the elements, the others stay.
    x_at, w_at = (rng(i).permutation(a.size)[:20] for i, a in enumerate((x, w)))

    def loss(x=x, w=w, bias=bias):
        return (CONV[problem.ndim](x, w, bias, **problem.geometry(), workers=1) ** 2).sum() / 2

    def replaced(a, at, values):
        a = a.copy()
        a.reshape(-1)[at] = values
        return a

    y = CONV[problem.ndim](x, w, bias, **problem.geometry())
    dx, dw, db = CONV_BACKWARD[problem.ndim](x, w, y, **problem.geometry())
    dx_at = derivative(lambda values: loss(x=replaced(x, x_at, values)), x.reshape(-1)[x_at])
    dw_at = derivative(lambda values: loss(w=replaced(w, w_at, values)), w.reshape(-1)[w_at])
    oracle.assert_same_values(dx.reshape(-1)[x_at], dx_at)
    oracle.assert_same_values(dw.reshape(-1)[w_at], dw_at)
    oracle.assert_same_values(db, derivative(lambda bias: loss(bias=bias), bias))


# ------------------------------------------------------------------------------------------------
# PyTorch


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two pools of threads in one process spin against each other
    yield torch
    torch.set_num_threads(before)


TORCH_MODES = ("zeros", "replicate", "circular", "reflect")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@given(problem=problems(modes=TORCH_MODES, wide=12))
@settings(max_examples=25)
def test_agrees_with_pytorchs_autograd(torch, dtype, problem):
    how = problem.oracle_geometry()
    widths = how["padding"]
    # PyTorch pads no wider than the image, and reflects and replicates no complex numbers.
    mode = problem.padding_mode
    limit = {"zeros": 99, "replicate": 99, "circular": 0, "reflect": -1}[mode]
    if any(max(width) > n + limit for width, n in zip(widths, problem.size, strict=True)) or (
        dtype == "complex128" and mode not in ("zeros", "circular")
    ):
        mode = "zeros"
    geometry = {**problem.geometry(), "padding_mode": mode}
    x, w, g = arrays(problem, nine, dtype)
    if problem.batch == 0:
        x, g = np.ones((1, *x.shape[1:]), dtype), np.ones((1, *g.shape[1:]), dtype)
    bias = nine(rng(5), (problem.outputs,), dtype)
    tensors = [torch.tensor(a, requires_grad=True) for a in (problem.batched(x), w, bias)]
    pads = [amount for width in reversed(widths) for amount in width]
    padded = torch.nn.functional.pad(tensors[0], pads, mode="constant" if mode == "zeros" else mode)
    conv = getattr(torch.nn.functional, f"conv{problem.ndim}d")
    y = conv(
        padded, *tensors[1:], stride=problem.stride, dilation=problem.dilation, groups=problem.groups
    )
    y.backward(torch.tensor(problem.batched(g)))
    gradients = CONV_BACKWARD[problem.ndim](x, w, g, **geometry)
    # Integers: exact on both sides.
    for actual, tensor in zip((problem.batched(gradients[0]), *gradients[1:]), tensors, strict=True):
        oracle.assert_same_values(actual, tensor.grad.numpy())


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_agrees_with_torch_nn_grad_argument_by_argument(torch, ndim):
    x = nine(rng(), (2, 4, 7, 8, 9)[: ndim + 2], np.float64)
    w = nine(rng(1), (6, 2, 3, 2, 3)[: ndim + 2], np.float64)
    for positional in ((2, 1, 2, 2), ((2, 3, 1)[:ndim], (1, 0, 2)[:ndim], (1, 2, 1)[:ndim], 2)):
        g = nine(rng(2), CONV[ndim](x, w, None, *positional).shape, np.float64)
        tensors = [torch.from_numpy(a) for a in (x, w, g)]
        theirs = getattr(torch.nn.grad, f"conv{ndim}d_input")(x.shape, tensors[1], tensors[2], *positional)
        oracle.assert_same_values(CONV_INPUT[ndim](x.shape, w, g, *positional), theirs.numpy())
        theirs = getattr(torch.nn.grad, f"conv{ndim}d_weight")(tensors[0], w.shape, tensors[2], *positional)
        oracle.assert_same_values(CONV_WEIGHT[ndim](x, w.shape, g, *positional), theirs.numpy())


# ------------------------------------------------------------------------------------------------
# Larger shapes: blocks of channels, many rows, small maps, whole vectors and ragged ends


LARGER = [
    # x shape, weight shape, keywords
    ((1, 48, 28, 28), (33, 48, 3, 3), {"padding": 1}),
    ((2, 160, 7, 7), (96, 160, 3, 3), {"padding": 1}),
    ((1, 700, 5, 6), (9, 700, 3, 3), {"padding": 1}),
    ((1, 9, 5, 6), (700, 9, 3, 3), {"padding": 1}),
    ((1, 3, 61, 67), (17, 3, 7, 7), {"padding": 3, "stride": 2}),
    ((1, 16, 33, 33), (16, 16, 3, 3), {"padding": 12, "dilation": 12}),
    ((1, 96, 21, 27), (96, 1, 5, 5), {"padding": 2, "groups": 96}),
    ((2, 96, 22, 21), (96, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 96}),
    ((1, 32, 20, 21), (64, 2, 3, 3), {"padding": 1, "groups": 16}),
    ((1, 96, 15, 17), (70, 96, 1, 1), {}),
    ((1, 96, 15, 17), (70, 96, 1, 1), {"stride": 2}),
    ((8, 20, 12, 12), (25, 20, 5, 5), {}),
    ((1, 8, 64, 64), (8, 8, 4, 4), {"padding": 1, "stride": 2}),
    ((1, 3, 64, 65), (16, 3, 4, 4), {"stride": 4}),
    ((1, 5, 50, 70), (4, 5, 2, 3), {"stride": (5, 4), "padding": 2}),
    ((1, 1, 201, 317), (1, 1, 3, 3), {"padding": 1}),
    ((1, 1, 70, 300), (1, 1, 11, 11), {"padding": 5}),
    ((1, 1, 40, 45), (1, 1, 31, 31), {"padding": 15}),
    ((1, 1, 3, 20000), (2, 1, 3, 5), {"padding": 2}),
    ((1, 1, 20000, 3), (2, 1, 5, 3), {"padding": 2}),
    ((2, 6, 3000), (7, 6, 9), {"padding": 4}),
    ((1, 1, 30000), (1, 1, 25), {"padding": "same"}),
    ((1, 4, 1000), (3, 4, 100), {"dilation": 2}),
    ((1, 8, 10, 11, 14), (9, 8, 3, 3, 3), {"padding": 1}),
    ((1, 3, 12, 13, 14), (4, 3, 3, 2, 4), {"padding": "same", "stride": (2, 1, 3), "dilation": (1, 2, 1)}),
]


@pytest.mark.parametrize("case", LARGER, ids=map(larger_id, LARGER))
def test_larger_shapes_are_exact(case):
    x_shape, w_shape, keywords = case
    ndim = len(x_shape) - 2
    # Steps of one element: the sums stay below 2**24, and float32 must be exact.
    x, w = (cases.integer_valued(rng(i), shape, np.float32, 2) for i, shape in enumerate((x_shape, w_shape)))
    g_shape = oracle.correlate(np.zeros((1, *x_shape[1:])), np.zeros(w_shape), **keywords).shape
    g = cases.integer_valued(rng(2), (x_shape[0], *g_shape[1:]), np.float32, 2)
    assert 4 * g.size < 2**24
    exact = [a.astype(np.float64) for a in (x, w, g)]
    # One other boundary will do: Hypothesis draws them all on small shapes.
    for boundary in ("constant", "mirror") if keywords.get("padding", 0) else ("constant",):
        dx = oracle.dinput(x_shape[2:], exact[1], exact[2], boundary=boundary, **keywords)
        y = CONV_INPUT[ndim](x_shape, w, g, padding_mode=boundary, method="direct", **keywords)
        oracle.assert_same_values(y, dx)
        # Another method may round, but stays within the bound of direct's largest output.
        y = CONV_INPUT[ndim](x_shape, w, g, padding_mode=boundary, **keywords)
        magnitude = oracle.dinput(x_shape[2:], abs(exact[1]), abs(exact[2]), boundary=boundary, **keywords).max()
        assert abs(y - dx).max() <= (w_shape[0] * np.prod(w_shape[2:]) + 2) * 2**-24 * magnitude
        dw = oracle.dweight(exact[0], w_shape[2:], exact[2], boundary=boundary, **keywords)
        y = CONV_WEIGHT[ndim](x, w_shape, g, padding_mode=boundary, method="direct", **keywords)
        oracle.assert_same_values(y, dw)
        y = CONV_WEIGHT[ndim](x, w_shape, g, padding_mode=boundary, **keywords)
        magnitude = oracle.dweight(abs(exact[0]), w_shape[2:], abs(exact[2]), boundary=boundary, **keywords).max()
        assert abs(y - dw).max() <= (g.size / w_shape[0] + 2) * 2**-24 * magnitude
    oracle.assert_same_values(CONV_BIAS[ndim](g), oracle.dbias(exact[2]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16", "uint8"])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout_of_a_larger_image(layout, dtype):
    x = cases.integer_valued(rng(), (2, 3, 25, 31), dtype, 3)
    w = cases.integer_valued(rng(1), (4, 3, 3, 3), dtype, 3)
    g = cases.integer_valued(rng(2), (2, 4, 25, 31), dtype, 1)
    laid = [cases.lay_out(a, layout) for a in (x, w, g)]
    dx = grad.conv2d_input(x.shape, w, g, padding=1)
    dw = grad.conv2d_weight(x, w.shape, g, padding=1)
    oracle.assert_same_bits(grad.conv2d_input(x.shape, laid[1], laid[2], padding=1), dx)
    oracle.assert_same_bits(grad.conv2d_weight(laid[0], w.shape, laid[2], padding=1), dw)
    oracle.assert_same_bits(grad.conv2d_bias(laid[2]), grad.conv2d_bias(g))
    if layout in cases.OUT_LAYOUTS:
        out = cases.lay_out(cases.poison(dx.shape, dx.dtype), layout)
        assert grad.conv2d_input(x.shape, w, g, padding=1, out=out) is out
        oracle.assert_same_values(out, dx)
        out = cases.lay_out(cases.poison(dw.shape, dw.dtype), layout)
        assert grad.conv2d_weight(x, w.shape, g, padding=1, out=out) is out
        oracle.assert_same_values(out, dw)


def test_an_output_inside_a_larger_array_leaves_its_surroundings_alone():
    x, w, g = (
        cases.normal(rng(i), shape, np.float32)
        for i, shape in enumerate([(2, 3, 19, 23), (5, 3, 3, 3), (2, 5, 10, 12)])
    )
    how = {"padding": 1, "stride": 2}
    frame = np.full((4, 7, 23, 27), 7, np.float32)
    out = frame[1:-1, 2:-2, 2:-2, 2:-2]
    grad.conv2d_input(x.shape, w, g, out=out, **how)
    oracle.assert_same_bits(out.copy(), grad.conv2d_input(x.shape, w, g, **how))
    out[...] = 7
    assert (frame == 7).all()
    frame = np.full((7, 7, 7, 7), 7, np.float32)
    out = frame[1:-1, 2:-2, 2:-2, 2:-2]
    grad.conv2d_weight(x, w.shape, g, out=out, **how)
    oracle.assert_same_bits(out.copy(), grad.conv2d_weight(x, w.shape, g, **how))
    out[...] = 7
    assert (frame == 7).all()


def test_a_huge_gradient_of_the_wrong_shape_is_refused_at_once():
    # 2**34 elements in one: the shapes are compared before anything is copied.
    g = cases.huge_broadcast(np.float32(0), (1, 1, 2**17, 2**17))
    k = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="grad_output"):
        grad.conv2d_input((1, 1, 8, 8), k, g)
    with pytest.raises(ValueError, match="grad_output"):
        grad.conv2d_weight(np.ones((1, 1, 8, 8), np.float32), k.shape, g)


SPECIAL = [
    # Windows side by side, with and without a rest of the image; a single one, also cut by the border and with taps
    # beyond it; taps so far apart that no two windows read a sample.
    ((2, 6, 12, 15), (8, 3, 3, 3), {"stride": 3, "groups": 2}),
    ((2, 6, 14, 16), (8, 3, 3, 3), {"stride": 3, "groups": 2}),
    ((2, 6, 5, 7), (8, 3, 5, 7), {"groups": 2}),
    ((3, 4, 3, 4), (6, 2, 4, 3), {"groups": 2, "stride": 9, "padding": (2, 1), "dilation": (2, 2)}),
    ((1, 2, 4, 4), (3, 2, 3, 3), {"padding": 9, "dilation": 9}),
    ((1, 2, 4, 5), (3, 2, 3, 2), {"padding": ((40, 37), (23, 50)), "stride": (20, 7), "dilation": (30, 1)}),
    ((2, 2, 9), (4, 1, 3), {"padding": 10**6, "stride": 2**16, "groups": 2}),
    ((1, 1, 3, 4, 5), (2, 1, 3, 1, 2), {"padding": (7, 3, 11), "stride": (1, 2, 3), "dilation": (5, 1, 2)}),
]


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int64"])
@pytest.mark.parametrize("case", SPECIAL, ids=map(larger_id, SPECIAL))
def test_windows_apart_from_each_other(case, dtype, monkeypatch):
    x_shape, w_shape, keywords = case
    ndim = len(x_shape) - 2
    how = {"stride": 1, "padding": 0, "dilation": 1, **keywords}
    g_shape = CONV[ndim](np.ones(x_shape, np.float32), np.ones(w_shape, np.float32), **how).shape
    w, g = nine(rng(), w_shape, dtype), nine(rng(1), g_shape, dtype)
    for mode in ("zeros", "edge", "mirror", "symmetric", "wrap"):
        # The sum over the patches that unfold takes, which knows where each of them is from.
        blocks = g.reshape(g_shape[0], how.get("groups", 1), -1, math.prod(g_shape[2:]))
        kernels = w.reshape(blocks.shape[1], blocks.shape[2], -1).conj()
        columns = np.einsum("gok,ngol->ngkl", kernels, blocks).reshape(g_shape[0], -1, blocks.shape[-1])
        geometry = {name: how[name] for name in ("stride", "padding", "dilation")}
        expected = pyconv.fold(columns, x_shape[2:], w_shape[2:], padding_mode=mode, **geometry)
        dx = CONV_INPUT[ndim](x_shape, w, g, padding_mode=mode, **how)
        oracle.assert_same_values(dx, expected)
        # A border too large for memory is folded back a few slices at a time.
        with monkeypatch.context() as patch:
            patch.setattr(pyconv.engine, "_SLAB_ELEMENTS", 50)
            oracle.assert_same_bits(CONV_INPUT[ndim](x_shape, w, g, padding_mode=mode, **how), dx)


# ------------------------------------------------------------------------------------------------
# Empty arrays


@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16"])
def test_an_empty_batch(dtype):
    x, w, g = np.empty((0, 3, 8, 9), dtype), np.ones((4, 3, 3, 3), dtype), np.empty((0, 4, 8, 9), dtype)
    result = np.dtype(dtype if dtype != "int16" else np.int64)
    dx, dw, db = grad.conv2d_backward(x, w, g, padding=1)
    oracle.assert_same_bits(dx, np.empty(x.shape, result))
    oracle.assert_same_bits(dw, np.zeros(w.shape, result))
    oracle.assert_same_bits(db, np.zeros(4, result))
    out = cases.poison(w.shape, result)
    grad.conv2d_weight(x, w.shape, g, padding=1, out=out)
    oracle.assert_same_bits(out, np.zeros(w.shape, result))


def test_no_channels():
    # As in the convolution, channels may be none: a sum of nothing is zero.
    out = np.full((2, 3, 6, 7), np.nan)
    grad.conv2d_input(out.shape, np.ones((0, 3, 3, 3)), np.ones((2, 0, 4, 5)), out=out)
    oracle.assert_same_bits(out, np.zeros(out.shape))
    assert grad.conv2d_input((2, 0, 6, 7), np.ones((4, 0, 3, 3)), np.ones((2, 4, 4, 5))).shape == (2, 0, 6, 7)
    assert grad.conv2d_weight(np.ones((2, 0, 6, 7)), (4, 0, 3, 3), np.ones((2, 4, 4, 5))).shape == (4, 0, 3, 3)
    assert grad.conv2d_weight(np.ones((2, 3, 6, 7)), (0, 3, 3, 3), np.ones((2, 0, 4, 5))).shape == (0, 3, 3, 3)
    assert grad.conv2d_bias(np.ones((2, 0, 4, 5))).shape == (0,)


def test_an_image_that_is_padding_only():
    # Nothing to give a gradient to; the weights see the padding value.
    dx = grad.conv1d_input((2, 0), np.ones((1, 2, 3)), np.ones((1, 2)), padding=2)
    oracle.assert_same_bits(dx, np.empty((2, 0)))
    dw = grad.conv1d_weight(np.ones((2, 0)), (1, 2, 3), np.ones((1, 2)), padding=2, padding_value=3.0)
    oracle.assert_same_bits(dw, np.full((1, 2, 3), 6.0))


# ------------------------------------------------------------------------------------------------
# dtypes


@pytest.mark.parametrize(
    ("other", "g_dtype", "expected"),
    [
        # A floating gradient's dtype decides.
        ("float64", "float32", "float32"),
        ("int64", "float32", "float32"),
        ("float64", "float16", "float16"),
        ("float32", "float64", "float64"),
        ("float64", "complex64", "complex64"),
        # Integers are exact.
        ("uint8", "uint8", "int64"),
        ("bool", "int8", "int64"),
        ("int64", "int16", "int64"),
        ("complex64", "float32", "complex64"),
        ("complex128", "float64", "complex128"),
    ],
)
def test_result_dtypes_of_the_input_gradient(other, g_dtype, expected):
    w, g = nine(rng(), (3, 2, 2, 2), other), nine(rng(1), (1, 3, 4, 6), g_dtype)
    dx = grad.conv2d_input((1, 2, 5, 7), w, g)
    exact = oracle.dinput((5, 7), w.astype(complex), g.astype(complex))
    assert dx.dtype == expected
    oracle.assert_same_values(dx, exact if dx.dtype.kind == "c" else exact.real)


@pytest.mark.parametrize(
    ("x_dtype", "g_dtype", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float16", "float16", "float16"),
        # A photograph and the gradient of a floating convolution of it.
        ("uint8", "float32", "float32"),
        ("uint8", "float64", "float64"),
        ("bool", "float32", "float32"),
        ("int64", "float64", "float64"),
        ("uint8", "complex64", "complex64"),
        ("uint8", "int16", "int64"),
        ("bool", "bool", "int64"),
        ("complex64", "float32", "complex64"),
        ("float32", "complex64", "complex64"),
        ("complex128", "float64", "complex128"),
    ],
)
def test_result_dtypes_of_the_weight_gradient(x_dtype, g_dtype, expected):
    x, g = nine(rng(), (1, 2, 5, 7), x_dtype), nine(rng(1), (1, 3, 4, 6), g_dtype)
    dw = grad.conv2d_weight(x, (3, 2, 2, 2), g)
    exact = oracle.dweight(x.astype(complex), (2, 2), g.astype(complex))
    assert dw.dtype == expected
    oracle.assert_same_values(dw, exact if dw.dtype.kind == "c" else exact.real)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("given_dtype", ["uint8", "float32", "float64"])
def test_dtype_is_the_computing_and_the_output_dtype(given_dtype, dtype):
    x = (100 * cases.normal(rng(), (1, 2, 6, 9), "float64")).astype(given_dtype)
    g = (100 * cases.normal(rng(1), (1, 3, 4, 7), "float64")).astype(given_dtype)
    w = cases.normal(rng(2), (3, 2, 3, 3), "float64")
    for computed in (grad.conv2d_input(x.shape, w, g, dtype=dtype), grad.conv2d_weight(x, w.shape, g, dtype=dtype)):
        assert computed.dtype == dtype
    how = {"computed": COMPUTED[dtype]}
    dx = grad.conv2d_input(x.shape, w, g, dtype=dtype)
    oracle.assert_bilinear(
        dx, lambda g, w: oracle.dinput((6, 9), w, g), g.astype(dtype), w.astype(dtype), terms=27, **how
    )
    dw = grad.conv2d_weight(x, w.shape, g, dtype=dtype)
    oracle.assert_bilinear(
        dw, lambda g, x: oracle.dweight(x, (3, 3), g), g.astype(dtype), x.astype(dtype), terms=28, **how
    )


def test_float16_sums_are_not_rounded_on_the_way():
    # Partial sums far beyond 65504, small results: in every block of channels, and of positions.
    g, w = np.full((1, 2000, 4, 5), 9, np.float16), np.ones((2000, 2, 3, 3), np.float16)
    w[1000:], w[7] = -1, 3
    dx = grad.conv2d_input((1, 2, 6, 7), w, g)
    exact = oracle.dinput((6, 7), w.astype(np.float32), g.astype(np.float32))
    assert abs(exact).max() == 9 * 9 * 2
    oracle.assert_same_values(dx, exact)
    x, g = np.full((1, 1, 60, 600), 9, np.float16), np.full((1, 1, 60, 600), 9, np.float16)
    g[:, :, 30:] = -9
    g[0, 0, 3, 3] = 25
    oracle.assert_same_values(grad.conv2d_weight(x, (1, 1, 1, 1), g), [[[[16 * 9]]]])
    oracle.assert_same_values(grad.conv2d_bias(g), [16])


def test_float16_folds_a_border_before_it_rounds():
    # 2049 from the border and 6 from inside are 2055, a tie that goes to 2056; 2049 rounded first is 2048.
    w, g = np.array([[[3, 0]]], np.float16), np.array([[683, 2]], np.float16)
    dx = grad.conv1d_input((1, 2), w, g, padding=((1, 0),), padding_mode="edge")
    oracle.assert_same_values(dx, [[2056, 0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormals_are_kept(dtype, threads):
    tiny = np.finfo(dtype).smallest_subnormal
    g = (cases.integer_valued(rng(), (2, 4, 13, 35), dtype, 9) * tiny).astype(dtype)
    x, w = cases.integer_valued(rng(1), (2, 3, 13, 35), dtype, 9), cases.integer_valued(rng(2), (4, 3, 3, 3), dtype, 9)
    whole = (g / tiny).astype(np.float64)
    dx = grad.conv2d_input(x.shape, w, g, padding=1, workers=threads)
    oracle.assert_same_values(dx, (oracle.dinput((13, 35), w, whole, padding=1) * float(tiny)).astype(dtype))
    dw = grad.conv2d_weight(x, w.shape, g, padding=1, workers=threads)
    oracle.assert_same_values(dw, (oracle.dweight(x, (3, 3), whole, padding=1) * float(tiny)).astype(dtype))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (grad.conv1d_input, ((1, 1), np.array([[[2**62]], [[2**62]]]), np.array([[1], [1]]))),
        (grad.conv1d_input, ((1, 1), np.array([[[2]]]), np.array([[2**63 - 1]]))),
        (grad.conv1d_weight, (np.array([[2**62, 2**62]]), (1, 1, 1), np.array([[1, 1]]))),
        (grad.conv1d_weight, (np.array([[2**63]], np.uint64), (1, 1, 1), np.array([[1]]))),
        (grad.conv1d_bias, (np.array([[2**62, 2**62]]),)),
        (grad.conv1d_bias, (np.array([[2**63]], np.uint64),)),
    ],
)
def test_a_sum_beyond_int64_is_an_error(function, arguments):
    with pytest.raises(OverflowError, match="overflow"):
        function(*arguments)
    if function is not grad.conv1d_bias:
        out = np.full((1, 1) if function is grad.conv1d_input else (1, 1, 1), 7)
        with pytest.raises(OverflowError, match="overflow"):
            function(*arguments, out=out)
        assert (out == 7).all()


def test_large_integers_are_exact():
    w, g = np.array([[[2**31 - 1, -(2**31)]]]), np.array([[2**31 - 1, 3, -(2**31) + 1]])
    dx = grad.conv1d_input((1, 4), w, g)
    exact = oracle.dinput((4,), w.astype(object), g[None].astype(object))[0]
    oracle.assert_same_values(dx, exact)
    x = np.array([[2**53 + 1, -7, 11, 2**53 - 1]])
    dw = grad.conv1d_weight(x, (1, 1, 2), np.array([[1, 2, 3]]))
    oracle.assert_same_values(dw, [[[2**53 + 1 - 14 + 33, -7 + 22 + 3 * (2**53 - 1)]]])
    oracle.assert_same_values(grad.conv1d_bias(np.array([[2**53, 1, 1]])), [2**53 + 2])


@pytest.mark.parametrize("through", ["dtype", "out"])
def test_integers_that_do_not_fit_a_narrower_result(through):
    w, g = np.array([[[1]]], np.int16), np.array([[0, 100, 300]], np.int16)

    def call(function, first, second, shape):
        if through == "dtype":
            return function(first, second, g, dtype=np.uint8)
        return function(first, second, g, out=np.zeros(shape, np.uint8))

    with pytest.raises(OverflowError):
        call(grad.conv1d_input, (1, 3), w, (1, 3))
    with pytest.raises(OverflowError):
        call(grad.conv1d_weight, np.ones((1, 3), np.int16), (1, 1, 1), (1, 1, 1))
    g[0, 2] = 50
    oracle.assert_same_bits(call(grad.conv1d_input, (1, 3), w, (1, 3)), g.astype(np.uint8))
    dw = call(grad.conv1d_weight, np.ones((1, 3), np.int16), (1, 1, 1), (1, 1, 1))
    oracle.assert_same_bits(dw, np.array([[[150]]], np.uint8))


# ------------------------------------------------------------------------------------------------
# NaN and Inf


SPOILS = st.lists(st.tuples(st.floats(0, 0.999), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=3)


def spoiled(a, spoil):
    for where, value in spoil:
        if a.size:
            a.reshape(-1)[int(where * a.size)] = value


@given(problem=small(), dtype=st.sampled_from(["float16", "float32", "float64"]), g_spoil=SPOILS, x_spoil=SPOILS)
def test_non_finite_values_spoil_the_sums_they_are_in_and_no_others(problem, dtype, g_spoil, x_spoil):
    x, w, g = arrays(problem, nine, dtype)
    spoiled(g, g_spoil)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = expected_dinput(problem, w, g, np.float64)
        oracle.assert_same_values(dinput(problem, w, g), exact.astype(dtype))
        spoiled(x, x_spoil)
        exact = expected_dweight(problem, x, g, np.float64)
        oracle.assert_same_values(dweight(problem, x, g), exact.astype(dtype))
        exact = oracle.dbias(problem.batched(g).astype(np.float64))
        oracle.assert_same_values(CONV_BIAS[problem.ndim](g), exact.astype(dtype))


@given(problem=small(), dtype=st.sampled_from(["float32", "complex128"]), spoil=SPOILS)
def test_nan_in_a_weight_spoils_every_sample_that_it_reaches(problem, dtype, spoil):
    _, w, g = arrays(problem, nine, dtype)
    spoiled(w, [(where, np.nan) for where, _ in spoil])
    must = np.isnan(expected_dinput(problem, w, g, wide(dtype)))
    assert np.isnan(dinput(problem, w, g))[must].all()


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64"])
def test_nan_in_a_larger_image(dtype):
    x, w, g = (
        cases.integer_valued(rng(i), shape, dtype, 3)
        for i, shape in enumerate([(2, 5, 30, 53), (7, 5, 3, 3), (2, 7, 30, 53)])
    )
    g[0, 4, 17, 20] = g[1, 6, 29, 52] = np.nan
    dx = np.isnan(grad.conv2d_input(x.shape, w, g, padding=1))
    expected = np.zeros(x.shape, bool)
    expected[0, :, 16:19, 19:22] = expected[1, :, 28:, 51:] = True
    oracle.assert_same_values(dx, expected)
    dw = np.isnan(grad.conv2d_weight(x, w.shape, g, padding=1))
    expected = np.zeros(w.shape, bool)
    expected[4] = expected[6] = True
    oracle.assert_same_values(dw, expected)
    g[np.isnan(g)] = 0
    # A corner is seen by four of the nine taps, an edge by six.
    x[0, 2, 0, 0] = x[1, 4, 29, 30] = np.nan
    dw = np.isnan(grad.conv2d_weight(x, w.shape, g, padding=1))
    expected = np.zeros(w.shape, bool)
    expected[:, 2, :2, :2] = expected[:, 4, 1:] = True
    oracle.assert_same_values(dw, expected)


def test_zero_times_nan_is_nan():
    g = np.ones((1, 5, 6), np.float32)
    g[0, 2, 3] = np.nan
    dx = np.isnan(grad.conv2d_input((1, 6, 7), np.zeros((1, 1, 2, 2), np.float32), g))
    expected = np.zeros((1, 6, 7), bool)
    expected[0, 2:4, 3:5] = True
    oracle.assert_same_values(dx, expected)
    assert np.isnan(grad.conv2d_weight(np.zeros((1, 6, 7), np.float32), (1, 1, 2, 2), g)).all()


def test_the_border_takes_part_in_the_weight_gradients_nan_and_not_in_the_inputs():
    # Output 0 has the border under tap 0 alone: its gradient of NaN times zero is NaN, as in the convolution.
    w, g = np.ones((1, 1, 3)), np.array([[np.nan, 1, 1, 1]])
    dw = grad.conv1d_weight(np.ones((1, 4)), w.shape, g, padding=1)
    assert np.isnan(dw).all()
    g = np.array([[1, 1, 1, np.inf]])
    oracle.assert_same_values(grad.conv1d_weight(np.ones((1, 4)), w.shape, g, padding=1), [[[np.inf, np.inf, np.nan]]])
    oracle.assert_same_values(grad.conv1d_input((1, 4), w, g, padding=1), [[2, 3, np.inf, np.inf]])


def test_samples_between_the_taps_stay_clean():
    # Stride 3 under a kernel of 2: NaN at one output reaches four samples, and not the zeros between.
    g = np.ones((1, 4, 5))
    g[0, 1, 2] = np.nan
    dx = grad.conv2d_input((1, 12, 15), np.ones((1, 1, 2, 2)), g, stride=3)
    assert np.argwhere(np.isnan(dx[0])).tolist() == [[3, 6], [3, 7], [4, 6], [4, 7]]
    assert (dx[0, 2::3] == 0).all()
    assert (dx[0, :, 2::3] == 0).all()


# ------------------------------------------------------------------------------------------------
# Determinism


DETERMINISTIC = [
    ((3, 8, 40, 43), (9, 8, 3, 3), {"padding": 1}),
    ((1, 1, 61, 217), (1, 1, 5, 5), {"padding": 2, "padding_mode": "reflect"}),
    ((3, 40, 7, 7), (66, 40, 3, 3), {"padding": 1}),
    ((3, 6, 7, 9), (600, 6, 3, 3), {"padding": 1}),
    ((3, 96, 7, 7), (66, 96, 1, 1), {}),
    ((2, 64, 7, 7), (33, 64, 5, 5), {"padding": 2}),
    ((2, 48, 20, 31), (48, 1, 3, 3), {"padding": 1, "groups": 48}),
    ((2, 33, 20, 21), (35, 33, 1, 1), {}),
    ((3, 4, 40, 41), (6, 2, 4, 3), {"stride": 2, "dilation": 2, "padding": 3, "groups": 2}),
    ((2, 3, 3000), (5, 3, 7), {"padding": "same"}),
    ((2, 3, 6, 8, 13), (5, 3, 3, 3, 3), {"padding": 1, "padding_mode": "circular"}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("case", DETERMINISTIC, ids=map(larger_id, DETERMINISTIC))
def test_same_bits_for_any_threads_batch_and_layout(case, dtype, threads):
    x_shape, w_shape, keywords = case
    ndim = len(x_shape) - 2
    x, w = (cases.normal(rng(i), shape, dtype) for i, shape in enumerate([x_shape, w_shape]))
    g = cases.normal(rng(2), CONV[ndim](x, w, **keywords).shape, dtype)
    dinput, dweight = CONV_INPUT[ndim], CONV_WEIGHT[ndim]
    dx = dinput(x_shape, w, g, workers=1, **keywords)
    dw = dweight(x, w_shape, g, workers=1, **keywords)
    oracle.assert_same_bits(dinput(x_shape, w, g, workers=threads, **keywords), dx)
    oracle.assert_same_bits(dweight(x, w_shape, g, workers=threads, **keywords), dw)
    with pyconv.set_workers(threads):
        oracle.assert_same_bits(dinput(x_shape, w, g, **keywords), dx)
        oracle.assert_same_bits(dweight(x, w_shape, g, **keywords), dw)
        backward = CONV_BACKWARD[ndim](x, w, g, **keywords)
    for actual, expected in zip(backward, (dx, dw, CONV_BIAS[ndim](g)), strict=True):
        oracle.assert_same_bits(actual, expected)
    # An image's gradient does not depend on the batch that it is in.
    for n in range(len(x)):
        oracle.assert_same_bits(dinput(x_shape[1:], w, g[n], workers=threads, **keywords), dx[n])
    for layout in ("strided", "permuted", "record"):
        laid = cases.lay_out(g, layout)
        oracle.assert_same_bits(dinput(x_shape, w, laid, workers=threads, **keywords), dx)
        laid_x = cases.lay_out(x, layout)
        oracle.assert_same_bits(dweight(laid_x, w_shape, laid, workers=threads, **keywords), dw)


# ------------------------------------------------------------------------------------------------
# Calling


def test_positional_order_is_pytorchs():
    x, w = np.arange(60.0).reshape(1, 4, 15), np.arange(12.0).reshape(2, 2, 3)
    g = np.arange(14.0).reshape(1, 2, 7)
    by_name = {"stride": 2, "padding": 3, "dilation": 4, "groups": 2}
    dx = oracle.dinput((15,), w, g, **by_name)
    dw = oracle.dweight(x, (3,), g, **by_name)
    oracle.assert_same_values(grad.conv1d_input(x.shape, w, g, 2, 3, 4, 2), dx)
    oracle.assert_same_values(grad.conv1d_input(input_size=x.shape, weight=w, grad_output=g, **by_name), dx)
    oracle.assert_same_values(grad.conv1d_weight(x, w.shape, g, 2, 3, 4, 2), dw)
    oracle.assert_same_values(grad.conv1d_weight(input=x, weight_size=w.shape, grad_output=g, **by_name), dw)
    oracle.assert_same_values(grad.conv1d_bias(grad_output=g), oracle.dbias(g))
    for gradients in (
        grad.conv1d_backward(x, w, g, 2, 3, 4, 2),
        grad.conv1d_backward(input=x, weight=w, grad_output=g, **by_name),
    ):
        assert isinstance(gradients, tuple)
        for actual, expected in zip(gradients, (dx, dw, oracle.dbias(g)), strict=True):
            oracle.assert_same_values(actual, expected)


def test_what_pytorch_does_not_have_is_keyword_only():
    x, w, g = np.ones((1, 1, 5)), np.ones((1, 1, 3)), np.ones((1, 1, 3))
    for function, arguments in (
        (grad.conv1d_input, (x.shape, w, g)),
        (grad.conv1d_weight, (x, w.shape, g)),
        (grad.conv1d_backward, (x, w, g)),
    ):
        with pytest.raises(TypeError):
            function(*arguments, 1, 0, 1, 1, "zeros")
    with pytest.raises(TypeError):
        grad.corr2d_input((3, 3), np.ones((2, 2)), np.ones((2, 2)), 1)
    with pytest.raises(TypeError):
        grad.corr2d_kernel(np.ones((3, 3)), (2, 2), np.ones((2, 2)), 1)


@given(problem=small(wide=20), dtype=st.sampled_from(["float32", "float64", "complex64", "int16"]))
def test_backward_returns_the_three_gradients(problem, dtype):
    x, w, g = arrays(problem, nine if dtype == "int16" else cases.normal, dtype)
    geometry = problem.geometry()
    extra = {"padding_value": 2} if PADDING_MODES[problem.padding_mode] == "constant" else {}
    dx, dw, db = CONV_BACKWARD[problem.ndim](x, w, g, **geometry, **extra, workers=problem.workers)
    oracle.assert_same_bits(dx, CONV_INPUT[problem.ndim](x.shape, w, g, **geometry))
    oracle.assert_same_bits(dw, CONV_WEIGHT[problem.ndim](x, w.shape, g, **geometry, **extra))
    oracle.assert_same_bits(db, CONV_BIAS[problem.ndim](g))
    oracle.assert_same_bits(dx + 0, dx)  # plain arrays, writable and of their own
    assert all(type(a) is np.ndarray and a.flags.writeable for a in (dx, dw, db))
    assert not any(np.shares_memory(a, b) for a in (dx, dw, db) for b in (x, w, g))


def test_lists_and_numpy_integers_are_accepted():
    w, g = [[[1.0, 2.0]]], [[1.0, 3.0]]
    expected = np.array([[1.0, 2, 3, 6]])
    two = np.int64(2)
    oracle.assert_same_bits(grad.conv1d_input([1, 4], w, g, stride=two, groups=np.int8(1)), expected)
    oracle.assert_same_bits(grad.conv1d_input(np.array([1, 4]), w, g, stride=[2]), expected)
    oracle.assert_same_bits(grad.conv1d_weight(expected, np.array([1, 1, 2]), g, 2), np.array([[[10.0, 20]]]))
    oracle.assert_same_bits(grad.conv1d_bias(g), np.array([4.0]))


@pytest.mark.parametrize("padding_mode", sorted(PADDING_MODES))
def test_corr2d_gradients_are_conv2ds_of_one_channel(padding_mode):
    x, k = cases.normal(rng(), (9, 11), np.float32), cases.normal(rng(1), (3, 2), np.float32)
    how = {"stride": (1, 2), "padding": ((1, 2), (0, 1)), "dilation": (2, 1), "padding_mode": padding_mode}
    dy = cases.normal(rng(2), pyconv.corr2d(x, k, **how).shape, np.float32)
    dx = grad.conv2d_input((1, 1, *x.shape), k[None, None], dy[None, None], **how)[0, 0]
    dk = grad.conv2d_weight(x[None, None], (1, 1, *k.shape), dy[None, None], **how)[0, 0]
    oracle.assert_same_bits(grad.corr2d_input(x.shape, k, dy, **how), dx)
    oracle.assert_same_bits(grad.corr2d_kernel(x, k.shape, dy, **how), dk)
    for function, arguments, expected in (
        (grad.corr2d_input, (x.shape, k, dy), dx),
        (grad.corr2d_kernel, (x, k.shape, dy), dk),
    ):
        out = np.empty(expected.shape, np.float32)
        assert function(*arguments, **how, out=out, workers=1) is out
        oracle.assert_same_bits(out, expected)
        assert function(*arguments, **how, dtype=np.float64).dtype == np.float64


def test_corr2d_kernel_sees_the_padding_value():
    x, dy = nine(rng(), (4, 5), float), nine(rng(1), (6, 7), float)
    dk = grad.corr2d_kernel(x, (3, 3), dy, padding=2, padding_mode="constant", padding_value=5)
    exact = oracle.dweight(x[None, None], (3, 3), dy[None, None], padding=2, cval=5)[0, 0]
    oracle.assert_same_values(dk, exact)


@pytest.mark.parametrize("shift", [0, 1, 13])
@pytest.mark.parametrize("padding_mode", ["zeros", "symmetric"])
def test_an_output_that_shares_memory_with_an_argument_is_refused_or_right(shift, padding_mode):
    how = {"padding": 1, "padding_mode": padding_mode}
    for which in ("dy", "k", "x"):
        memory = np.arange(200.0)
        k, dy, x = np.arange(9.0).reshape(3, 3), np.arange(120.0).reshape(10, 12), np.ones((10, 12))
        function, shape = grad.corr2d_input, (10, 12)
        if which == "dy":
            dy = memory[:120].reshape(10, 12)
        elif which == "k":
            k = memory[:9].reshape(3, 3)
        else:
            x, function, shape = memory[:120].reshape(10, 12), grad.corr2d_kernel, (3, 3)
        out = memory[shift : shift + math.prod(shape)].reshape(shape)
        arguments = ((10, 12), k, dy) if function is grad.corr2d_input else (x, (3, 3), dy)
        expected = function(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments), **how)
        before = memory.copy()
        try:
            function(*arguments, **how, out=out)
        except ValueError as error:
            assert "out" in str(error)
            oracle.assert_same_bits(memory, before)
        else:
            oracle.assert_same_bits(out, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_a_wider_out_holds_the_result(dtype):
    wider = {"float16": "float32", "float32": "float64", "complex64": "complex128"}[dtype]
    x, w, g = (cases.normal(rng(i), s, dtype) for i, s in enumerate([(1, 2, 6, 7), (3, 2, 3, 3), (1, 3, 4, 5)]))
    for function, arguments, shape in (
        (grad.conv2d_input, (x.shape, w, g), x.shape),
        (grad.conv2d_weight, (x, w.shape, g), w.shape),
    ):
        out = np.full(shape, np.nan, wider)
        assert function(*arguments, out=out) is out
        # Not less accurate than the narrow result.
        narrow = function(*arguments)
        eps = np.finfo(dtype).eps
        assert (abs(out - narrow) <= eps * abs(narrow) + np.finfo(dtype).tiny).all()


# ------------------------------------------------------------------------------------------------
# unfold, fold and the pixel shuffles


@given(
    geometry=geometries(),
    leading=st.sampled_from([(), (2,), (2, 3), (0, 2)]),
    mode=st.sampled_from(sorted(PADDING_MODES)),
    dtype=st.sampled_from(["int64", "float32", "float64", "complex64"]),
    layout=st.sampled_from(sorted(cases.LAYOUTS)),
)
def test_unfold_input_and_fold_input_agree_with_the_oracle(geometry, leading, mode, dtype, layout):
    size, kernel, how = geometry
    batch, channels = (1, 1, *leading)[-2:]
    boundary = PADDING_MODES[mode]
    x = cases.integer_valued(rng(), (batch, channels, *size), dtype, 9)
    columns = oracle.unfold(x, kernel, boundary=boundary, **how)
    g = cases.integer_valued(rng(1), columns.shape, dtype, 9)
    expected = oracle.fold(g, size, kernel, boundary=boundary, **how).reshape(*leading, *size)
    if len(leading) < 2:
        g, columns = g[0], columns[0]
    laid = cases.lay_out(g, layout)
    dx = grad.unfold_input((*leading, *size), kernel, laid, **how, padding_mode=mode)
    oracle.assert_same_bits(dx, expected)
    oracle.assert_same_values(laid, g)
    # fold is unfold's gradient, bit for bit.
    oracle.assert_same_bits(pyconv.fold(g, size, kernel, **how, padding_mode=mode), dx)
    laid = cases.lay_out(x.reshape(*leading, *size), layout)
    oracle.assert_same_bits(grad.fold_input(laid, kernel, **how, padding_mode=mode), columns)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex128"])
@pytest.mark.parametrize("mode", sorted(set(PADDING_MODES.values())))
def test_fold_equals_the_gradient_of_unfold_bit_for_bit(mode, dtype):
    how = {"dilation": (1, 2), "padding": ((2, 1), (3, 4)), "stride": (2, 1), "padding_mode": mode}
    x = cases.normal(rng(), (2, 3, 17, 19), dtype)
    g = cases.normal(rng(1), pyconv.unfold(x, (3, 4), **how).shape, dtype)
    folded = pyconv.fold(g, (17, 19), (3, 4), **how)
    oracle.assert_same_bits(grad.unfold_input(x.shape, (3, 4), g, **how), folded)
    oracle.assert_same_bits(grad.fold_input(x, (3, 4), **how), pyconv.unfold(x, (3, 4), **how))


def test_unfold_input_arguments_are_in_unfolds_order():
    g = nine(rng(), pyconv.unfold(np.ones((9, 11)), (2, 3), 2, 1, 3).shape, float)
    by_name = grad.unfold_input((9, 11), (2, 3), g, dilation=2, padding=1, stride=3)
    oracle.assert_same_bits(grad.unfold_input((9, 11), (2, 3), g, 2, 1, 3), by_name)
    x = nine(rng(1), (9, 11), float)
    oracle.assert_same_bits(grad.fold_input(x, (2, 3), 2, 1, 3), pyconv.unfold(x, (2, 3), 2, 1, 3))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "int64", "uint8"])
@pytest.mark.parametrize("leading", [(), (2,), (0,)])
def test_pixel_shuffle_gradients_undo_each_other(leading, dtype):
    # Channel c r r + i r + j of (h, w) becomes channel c of (h r + i, w r + j).
    shuffled = cases.integer_valued(rng(), (*leading, 2, 4 * 3, 5 * 3), dtype, 9)
    blocks = shuffled.reshape(*leading, 2, 4, 3, 5, 3)
    channels = np.moveaxis(blocks, (-3, -1), (-4, -3)).reshape(*leading, 18, 4, 5)
    for layout in ("contiguous", "reversed", "record", "read_only"):
        oracle.assert_same_bits(grad.pixel_shuffle_input(cases.lay_out(shuffled, layout), 3), channels)
        oracle.assert_same_bits(grad.pixel_unshuffle_input(cases.lay_out(channels, layout), 3), shuffled)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (grad.pixel_shuffle_input, (np.ones((1, 4, 6)), 3), ["grad_output", "(1, 4, 6)", "upscale_factor", "3"]),
        (grad.pixel_unshuffle_input, (np.ones((6, 4, 4)), 2), ["grad_output", "(6, 4, 4)", "downscale_factor"]),
        (grad.pixel_shuffle_input, (np.ones((1, 4, 6)), 0), ["upscale_factor"]),
        (grad.pixel_unshuffle_input, (np.ones((4, 4, 6)), -2), ["downscale_factor"]),
        (grad.pixel_shuffle_input, (np.ones((1, 4, 6)), 2.0), ["upscale_factor"]),
        (grad.pixel_shuffle_input, (np.ones((4, 6)), 2), ["grad_output", "(4, 6)"]),
        (grad.pixel_unshuffle_input, (None, 2), ["grad_output"]),
        (grad.unfold_input, ((5, 5), (2, 2), np.ones((4, 15))), ["grad_output", "(4, 15)"]),
        (grad.unfold_input, ((5, 5), (2, 2), np.ones((5, 16))), ["grad_output", "(5, 16)"]),
        (grad.unfold_input, ((2, 5, 5), (2, 2), np.ones((4, 16))), ["grad_output", "(4, 16)"]),
        (grad.unfold_input, ((3, 2, 5, 5), (2, 2), np.ones((2, 8, 16))), ["grad_output", "(2, 8, 16)"]),
        (grad.unfold_input, ((5,), (2, 2), np.ones((4, 16))), ["input_size", "(5,)"]),
        (grad.unfold_input, ((5, 0), (2, 2), np.ones((4, 16))), ["input_size|kernel"]),
        (grad.unfold_input, ((5, -5), (2, 2), np.ones((4, 16))), ["input_size"]),
        (grad.unfold_input, (None, (2, 2), np.ones((4, 16))), ["input_size"]),
        (grad.unfold_input, ((5, 5), (6, 2), np.ones((4, 16))), ["kernel"]),
        (grad.unfold_input, ((5, 5), (2, 0), np.ones((4, 16))), ["kernel_size"]),
        (grad.unfold_input, ((5, 5), (2, 2), None), ["grad_output"]),
        (grad.unfold_input, ((5, 5), (2, 2), np.ones((4, 16), object)), ["grad_output", "object"]),
        (grad.fold_input, (np.ones(5), (2, 2)), ["grad_output", "(5,)"]),
        (grad.fold_input, (np.ones((5, 5)), (6, 2)), ["kernel", "5"]),
        (grad.fold_input, (np.ones((5, 5), object), (2, 2)), ["grad_output", "object"]),
        (grad.fold_input, (None, (2, 2)), ["grad_output"]),
    ],
)
def test_rearranging_gradients_refuse_bad_input(function, arguments, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        function(*arguments)
    for word in words:
        assert any(choice in str(caught.value) for choice in word.split("|")), (word, str(caught.value))


# ------------------------------------------------------------------------------------------------
# Bad input


X = nine(rng(), (2, 4, 8, 9), np.float32)
W = nine(rng(1), (6, 2, 3, 3), np.float32)
G = nine(rng(2), (2, 6, 6, 7), np.float32)
VALID = {
    "input": {"input_size": X.shape, "weight": W, "grad_output": G, "groups": 2},
    "weight": {"input": X, "weight_size": W.shape, "grad_output": G, "groups": 2},
    "backward": {"input": X, "weight": W, "grad_output": G, "groups": 2},
}
FUNCTIONS = {"input": grad.conv2d_input, "weight": grad.conv2d_weight, "backward": grad.conv2d_backward}
BOTH = ("grad_output", "(2, 6, 6, 7)")


def bad(change, error, *words, id=None):
    """A change that spoils a valid call, the exception it must raise and words its message must have."""
    return pytest.param(change, error, words, id=id or "-".join(f"{k}={v!r}"[:40] for k, v in change.items()))


BAD_GEOMETRY = [
    # What is wrong with the gradient's shape is said with the shape it should have.
    *[
        bad({"grad_output": g}, ValueError, *BOTH, str(g.shape), id=f"grad_output-{g.shape}")
        for g in (G[..., :-1], G[:, :, :-1], G[:, :5], G[:1], G[0], G[None], G[:, :, :1, :1], np.float32(1))
        for g in (np.asarray(g),)
    ],
    bad({"grad_output": G[:, :0]}, ValueError, *BOTH, "(2, 0, 6, 7)"),
    bad({"grad_output": np.ones((2, 6, 8, 9))}, ValueError, *BOTH, "(2, 6, 8, 9)", id="as-large-as-the-input"),
    bad({"stride": 2}, ValueError, "grad_output", "(2, 6, 6, 7)", "(2, 6, 3, 4)"),
    bad({"padding": 1}, ValueError, "grad_output", "(2, 6, 6, 7)", "(2, 6, 8, 9)"),
    bad({"padding": "same"}, ValueError, "grad_output", "(2, 6, 6, 7)", "(2, 6, 8, 9)"),
    bad({"dilation": (2, 1)}, ValueError, "grad_output", "(2, 6, 6, 7)", "(2, 6, 4, 7)"),
    # A kernel larger than the padded image.
    bad({"dilation": 4}, ValueError, "weight|kernel", "9", "8"),
    # Counts.
    *[bad({"groups": n}, ValueError, "groups", str(n)) for n in (0, -1, 3, 2**64)],
    *[bad({"groups": n}, TypeError, "groups") for n in (2.0, "2", None, (2,))],
    bad({"groups": 1}, ValueError, "weight", "(6, 2, 3, 3)"),
    *[bad({"stride": s}, ValueError, "stride") for s in (0, -1, (1, 0), (1, 1, 1), ())],
    *[bad({"stride": s}, TypeError, "stride") for s in (1.0, "1", None, (1, 1.5))],
    *[bad({"dilation": d}, ValueError, "dilation") for d in (0, -1, (1, 0), (1, 1, 1))],
    *[bad({"dilation": d}, TypeError, "dilation") for d in (1.0, None, (1, "1"))],
    *[bad({"padding": p}, ValueError, "padding") for p in (-1, (0, -1), (1, 1, 1), ((1, 2, 3), (1, 2, 3)), "some")],
    *[bad({"padding": p}, (TypeError, ValueError), "padding") for p in (1.0, None, (1, None))],
    *[bad({"padding_mode": m}, ValueError, "padding_mode", m, "zeros", "symmetric") for m in ("some", "Zeros", "")],
    *[bad({"padding_mode": m}, (TypeError, ValueError), "padding_mode") for m in (None, 0, ["zeros"])],
    bad({"workers": 0}, ValueError, "workers"),
    *[bad({"workers": n}, TypeError, "workers") for n in (1.0, "2")],
    # Sizes beyond 64 bits.
    *[bad({"padding": p}, ValueError, "padding|grad_output") for p in (2**40, 2**62, 2**64 + 1)],
    *[bad({"dilation": d}, ValueError, "dilation") for d in (2**62, 2**63, 2**64 + 1)],
    *[bad({"stride": s}, ValueError, "stride|grad_output") for s in (2**62, 2**63, 2**64 + 1)],
    # Arrays.
    *[
        bad({"grad_output": G.astype(dtype)}, TypeError, "grad_output", id=f"grad_output-{np.dtype(dtype)}")
        for dtype in (object, "U5", "M8[s]")
    ],
    bad({"grad_output": None}, TypeError, "grad_output"),
    bad({"grad_output": "text"}, (TypeError, ValueError), "grad_output"),
    bad({"grad_output": {1: 2}}, (TypeError, ValueError), "grad_output"),
    bad({"grad_output": Lazy(G)}, TypeError, "grad_output", id="grad_output-lazy"),
]


@pytest.mark.parametrize("which", FUNCTIONS)
@pytest.mark.parametrize(("change", "error", "words"), BAD_GEOMETRY)
def test_conv2d_gradients_refuse(which, change, error, words):
    keywords = {**VALID[which], **change}
    if which != "backward":
        shape = {"input": X.shape, "weight": W.shape}[which]
        call_must_fail(FUNCTIONS[which], keywords, error, words, np.full(shape, 7, np.float32))
    with pytest.raises(error):
        FUNCTIONS[which](**keywords)


@pytest.mark.parametrize(
    ("which", "change", "error", "words"),
    [
        # Arrays of a wrong kind.
        *[
            pytest.param(which, {name: value.astype(dtype)}, TypeError, [name], id=f"{which}-{name}-{np.dtype(dtype)}")
            for which, name, value in (("input", "weight", W), ("weight", "input", X), ("backward", "weight", W))
            for dtype in (object, "U5", "f4,f4")
        ],
        ("input", {"weight": None}, TypeError, ["weight"]),
        ("weight", {"input": None}, TypeError, ["input"]),
        ("backward", {"input": None}, TypeError, ["input"]),
        ("input", {"weight": Lazy(W)}, TypeError, ["weight"]),
        ("weight", {"input": Lazy(X)}, TypeError, ["input"]),
        ("backward", {"input": Lazy(X)}, TypeError, ["input"]),
        # Ranks.
        ("input", {"weight": W[0]}, ValueError, ["weight", "(2, 3, 3)", "weight[None]"]),
        ("input", {"weight": W[None]}, ValueError, ["weight", "(1, 6, 2, 3, 3)"]),
        ("weight", {"input": X[0, 0]}, ValueError, ["input", "(8, 9)"]),
        ("weight", {"input": X[None]}, ValueError, ["input", "(1, 2, 4, 8, 9)"]),
        ("weight", {"weight_size": (2, 3, 3)}, ValueError, ["weight_size", "(2, 3, 3)"]),
        ("weight", {"weight_size": (1, 6, 2, 3, 3)}, ValueError, ["weight_size", "(1, 6, 2, 3, 3)"]),
        ("input", {"input_size": (8, 9)}, ValueError, ["input_size", "(8, 9)"]),
        ("input", {"input_size": (1, 2, 4, 8, 9)}, ValueError, ["input_size", "(1, 2, 4, 8, 9)"]),
        ("input", {"input_size": ()}, ValueError, ["input_size"]),
        # Sizes that do not give the gradient's shape.
        ("input", {"input_size": (2, 4, 8, 10)}, ValueError, ["input_size|grad_output", "(2, 6, 6, 7)", "8)"]),
        ("input", {"input_size": (4, 8, 9)}, ValueError, ["input_size|grad_output", "(4, 8, 9)|(6, 6, 7)"]),
        ("input", {"input_size": (3, 4, 8, 9)}, ValueError, ["input_size|grad_output", "(2, 6, 6, 7)", "(3, "]),
        ("input", {"input_size": (2, 6, 8, 9)}, ValueError, ["(2, 6, 8, 9)", "(6, 2, 3, 3)"]),
        ("input", {"input_size": (2, 3, 8, 9)}, ValueError, ["groups", "(2, 3, 8, 9)"]),
        ("input", {"input_size": (2, 4, 2, 9)}, ValueError, ["kernel|weight|input_size", "3", "2"]),
        ("input", {"input_size": (2, 4, 0, 9)}, ValueError, ["kernel|weight|input_size"]),
        ("weight", {"weight_size": (6, 2, 3, 4)}, ValueError, ["weight_size|grad_output", "(2, 6, 6, 7)", "6)"]),
        ("weight", {"weight_size": (4, 2, 3, 3)}, ValueError, ["weight_size|grad_output", "(2, 6, 6, 7)", "4, "]),
        ("weight", {"weight_size": (5, 2, 3, 3)}, ValueError, ["groups", "(5, 2, 3, 3)"]),
        ("weight", {"weight_size": (6, 4, 3, 3)}, ValueError, ["weight_size", "(6, 4, 3, 3)", "(2, 4, 8, 9)"]),
        ("weight", {"weight_size": (6, 2, 0, 3)}, ValueError, ["weight_size", "(6, 2, 0, 3)"]),
        ("weight", {"weight_size": (6, 2, 9, 3)}, ValueError, ["kernel|weight_size", "9", "8"]),
        ("input", {"weight": W[:4]}, ValueError, ["grad_output", "(2, 6, 6, 7)", "(2, 4, 6, 7)"]),
        ("input", {"weight": W[:, :, :0]}, ValueError, ["weight", "(6, 2, 0, 3)"]),
        ("weight", {"input": X[:, :2]}, ValueError, ["(2, 2, 8, 9)", "(6, 2, 3, 3)"]),
        ("weight", {"input": X[:1]}, ValueError, ["grad_output", "(2, 6, 6, 7)", "(1, 6, 6, 7)"]),
        ("backward", {"input": X[..., 1:]}, ValueError, ["grad_output", "(2, 6, 6, 7)", "(2, 6, 6, 6)"]),
        # No sizes at all.
        *[
            (which, {name: value}, (TypeError, ValueError), [name])
            for which, name in (("input", "input_size"), ("weight", "weight_size"))
            for value in (None, 5, "2489", (2, 4, 8.0, 9),
                          (2, 4, "8", 9), (2, 4, -8, 9), (2, -4, 8, 9), (2**64, 4, 8, 9))
        ],
        # Padding that no boundary can continue.
        (
            "input",
            {"input_size": (2, 4, 0, 9), "padding": (4, 0), "padding_mode": "edge"},
            ValueError,
            ["input_size|padding|input"],
        ),
        *[
            ("weight", {"padding_value": v, "padding": 0}, (TypeError, ValueError), ["padding_value"])
            for v in ("0", None, [1, 2], 1j)
        ],
        *[
            (which, {"dtype": dtype}, TypeError, ["dtype"])
            for which in ("input", "weight")
            for dtype in (object, "U5", "no such thing", np.int32)
        ],
        ("input", {"weight": W.astype(np.complex64), "dtype": np.float32}, (TypeError, ValueError), ["dtype"]),
        ("weight", {"input": X.astype(np.complex64), "dtype": np.float32}, (TypeError, ValueError), ["dtype"]),
    ],
)
def test_conv2d_gradients_refuse_arguments_of_their_own(which, change, error, words):
    keywords = {**VALID[which], **change}
    with pytest.raises(error):
        FUNCTIONS[which](**keywords)
    if which == "backward":
        with pytest.raises(error) as caught:
            FUNCTIONS[which](**keywords)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    else:
        shape = {"input": X.shape, "weight": W.shape}[which]
        call_must_fail(FUNCTIONS[which], keywords, error, words, np.full(shape, 7, np.float32))


@pytest.mark.parametrize("which", ["input", "weight"])
def test_the_calls_that_the_tables_spoil_are_valid(which):
    shape = {"input": X.shape, "weight": W.shape}[which]
    out = np.full(shape, 7, np.float32)
    assert FUNCTIONS[which](**VALID[which], out=out) is out
    exact = {
        "input": oracle.dinput(X.shape[2:], W, G, groups=2),
        "weight": oracle.dweight(X, W.shape[2:], G, groups=2),
    }
    oracle.assert_same_values(out, exact[which])
    dx, dw, db = grad.conv2d_backward(**VALID["backward"])
    oracle.assert_same_values({"input": dx, "weight": dw}[which], exact[which])
    oracle.assert_same_values(db, oracle.dbias(G))


@pytest.mark.parametrize("which", ["input", "weight"])
@pytest.mark.parametrize("spoil", ["short", "no batch", "one more axis", "0-d", "read-only", "broadcast", "object",
                                   "text", "list", "a string", "a number", "lazy", "complex to real", "float to int"])
def test_a_wrong_out_is_refused_and_untouched(which, spoil):
    keywords = dict(VALID[which])
    shape = {"input": X.shape, "weight": W.shape}[which]
    good = np.full(shape, 7, np.float32)
    words = ["out"]
    if spoil in ("short", "no batch", "one more axis", "0-d"):
        out = {"short": good[..., :-1], "no batch": good[0], "one more axis": good[None], "0-d": np.zeros(())}[spoil]
        words += [str(out.shape), str(shape)]
    elif spoil == "complex to real":
        out = good
        keywords["grad_output"] = G.astype(np.complex64)
    else:
        out = {
            "read-only": read_only(good), "broadcast": np.broadcast_to(np.float32(7), shape),
            "object": good.astype(object), "text": good.astype("U5"), "list": good.tolist(), "a string": "text",
            "a number": 3.0, "lazy": Lazy(good), "float to int": good.astype(np.int64),
        }[spoil]  # fmt: skip
    before = None if spoil == "lazy" else np.array(out)
    with pytest.raises((ValueError, TypeError)) as caught:
        FUNCTIONS[which](**keywords, out=out)
    assert before is None or (np.array(out) == before).all()
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (grad.conv1d_bias, (np.ones(4),), ["grad_output", "(4,)"]),
        (grad.conv1d_bias, (np.ones((1, 2, 3, 4)),), ["grad_output", "(1, 2, 3, 4)"]),
        (grad.conv2d_bias, (np.ones((3, 4)),), ["grad_output", "(3, 4)"]),
        (grad.conv2d_bias, (np.ones((1, 1, 2, 3, 4)),), ["grad_output", "(1, 1, 2, 3, 4)"]),
        (grad.conv3d_bias, (np.ones((2, 3, 4)),), ["grad_output", "(2, 3, 4)"]),
        (grad.conv2d_bias, (None,), ["grad_output"]),
        (grad.conv2d_bias, (np.ones((2, 3, 4), object),), ["grad_output", "object"]),
        (grad.conv2d_bias, (Lazy(np.ones((2, 3, 4))),), ["grad_output"]),
        (grad.conv1d_input, ((1, 9), np.ones((1, 1, 3)), np.ones((1, 8))), ["grad_output", "(1, 8)", "(1, 7)"]),
        (grad.conv1d_input, ((1, 1, 1, 9), np.ones((1, 1, 3)), np.ones((1, 7))), ["input_size", "(1, 1, 1, 9)"]),
        (grad.conv1d_weight, (np.ones(9), (1, 1, 3), np.ones((1, 7))), ["input", "(9,)"]),
        (grad.conv3d_weight, (np.ones((8, 9, 9)), (1, 1, 3, 3, 3), np.ones((1, 6, 7, 7))), ["input", "(8, 9, 9)"]),
        (
            grad.conv3d_input,
            ((1, 8, 9, 9), np.ones((1, 3, 3, 3)), np.ones((1, 6, 7, 7))),
            ["weight", "(1, 3, 3, 3)", "weight[None]"],
        ),
        # corr2d
        (grad.corr2d_input, ((8, 9), np.ones((3, 3)), np.ones((8, 9))), ["dy", "(8, 9)", "(6, 7)"]),
        (grad.corr2d_input, ((8, 9), np.ones((1, 3, 3)), np.ones((6, 7))), ["k", "(1, 3, 3)"]),
        (grad.corr2d_input, ((8, 9), np.ones((3, 3)), np.ones((1, 6, 7))), ["dy", "(1, 6, 7)"]),
        (grad.corr2d_input, ((1, 8, 9), np.ones((3, 3)), np.ones((6, 7))), ["x_shape", "(1, 8, 9)"]),
        (grad.corr2d_input, ((8, 2), np.ones((3, 3)), np.ones((6, 7))), ["kernel|k ", "(8, 2)"]),
        (grad.corr2d_input, (None, np.ones((3, 3)), np.ones((6, 7))), ["x_shape"]),
        (grad.corr2d_input, ((8, 9), None, np.ones((6, 7))), ["k"]),
        (grad.corr2d_input, ((8, 9), np.ones((3, 0)), np.ones((6, 7))), ["k", "(3, 0)"]),
        (grad.corr2d_input, ((8, 9), np.ones((3, 3)), None), ["dy"]),
        (grad.corr2d_input, ((8, 9), np.ones((3, 3)), Lazy(np.ones((6, 7)))), ["dy"]),
        (grad.corr2d_kernel, (np.ones((8, 9)), (3, 3), np.ones((6, 6))), ["dy", "(6, 6)", "(6, 7)"]),
        (grad.corr2d_kernel, (np.ones((1, 8, 9)), (3, 3), np.ones((6, 7))), ["x", "(1, 8, 9)"]),
        (grad.corr2d_kernel, (np.ones((8, 9)), (1, 3, 3), np.ones((6, 7))), ["k_shape", "(1, 3, 3)"]),
        (grad.corr2d_kernel, (np.ones((8, 9)), (3, 0), np.ones((6, 7))), ["k_shape"]),
        (grad.corr2d_kernel, (np.ones((8, 9)), (9, 3), np.ones((6, 7))), ["kernel|k_shape", "9", "8"]),
        (grad.corr2d_kernel, (np.ones((8, 9)), None, np.ones((6, 7))), ["k_shape"]),
        (grad.corr2d_kernel, (np.ones((8, 9), object), (3, 3), np.ones((6, 7))), ["x", "object"]),
        (grad.corr2d_kernel, (np.ones((8, 9)), (3, 3), np.ones((6, 7), object)), ["dy", "object"]),
    ],
)
def test_the_other_gradients_refuse(function, arguments, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        function(*arguments)
    assert type(caught.value) in (ValueError, TypeError)
    for word in words:
        assert any(choice in str(caught.value) for choice in word.split("|")), (word, str(caught.value))


def test_an_output_too_large_for_64_bits_is_refused():
    # The gradient's size can be counted, the input's, of 64 channels, takes more than 2**63 bytes.
    g = cases.huge_broadcast(np.float32(0), (1, 1, 2**29, 2**30))
    with pytest.raises((ValueError, MemoryError)):
        grad.conv2d_input((1, 64, 2**29, 2**30), np.ones((1, 64, 1, 1), np.float32), g)
    with pytest.raises(ValueError):
        grad.conv2d_input((2**62, 2**62, 8, 9), W, G)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_no_output_channels_give_no_gradient(run_python, mode):
    # (in a process of its own, since a division by no channels ends it)
    script = """
import sys
import numpy as np
from pyconv import grad
dx = grad.conv2d_input((1, 3, 5, 5), np.zeros((0, 3, 3, 3)), np.zeros((1, 0, 5, 5)), 1, 1, padding_mode=sys.argv[1])
assert dx.shape == (1, 3, 5, 5) and not dx.any()
"""
    run_python(script, mode)


@pytest.mark.parametrize(("channels", "far"), [(12, 2**52), (11, 2**57), (11, 2**56)])
def test_a_kernel_that_reaches_too_far_for_memory_is_refused(run_python, channels, far):
    # The padded samples can be counted in 64 bits, the bytes of a workspace for them cannot.
    script = """
import sys
import numpy as np
from pyconv import grad
channels, far = map(int, sys.argv[1:])
x, g = np.ones((1, channels, 2, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
try:
    grad.conv2d_weight(x, (1, channels, 2, 3), g, 2, ((far // 2, far // 2), (0, 7)), (far, 3))
except MemoryError as error:
    assert "reaches too far" in str(error)
else:
    raise AssertionError("took it")
"""
    run_python(script, channels, far)


def test_an_error_leaves_the_functions_usable():
    for _ in range(2):
        with pytest.raises(ValueError):
            grad.conv2d_backward(X, W, G, stride=0, groups=2)
        dx, dw, db = grad.conv2d_backward(X, W, G, groups=2)
        oracle.assert_same_values(dx, oracle.dinput(X.shape[2:], W, G, groups=2))
        oracle.assert_same_values(dw, oracle.dweight(X, W.shape[2:], G, groups=2))


def test_unknown_methods_are_refused():
    x, w, g = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.ones((1, 3, 3, 3))
    for call in (
        lambda: grad.conv2d_input(x.shape, w, g, method="im2col"),
        lambda: grad.conv2d_backward(x, w, g, method="winograd"),
        lambda: grad.corr2d_input((5, 5), w[0, 0], g[0, 0], method=None),
        lambda: grad.conv_transpose2d_input(g.shape, w, x, method="fast"),
        lambda: pyconv.conv_transpose2d(g, w, method="fast"),
    ):
        with pytest.raises(ValueError, match="method must be one of 'auto', 'direct'"):
            call()
