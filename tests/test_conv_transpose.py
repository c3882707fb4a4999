"""conv_transpose1d, conv_transpose2d, conv_transpose3d and their gradients."""

from __future__ import annotations

import dataclasses
import math

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conv import COMPUTED, FLOATS, INTEGERS, nine, rng
from test_errors import Lazy, call_must_fail, read_only

import pyconv
from pyconv import grad

CONV_TRANSPOSE = {1: pyconv.conv_transpose1d, 2: pyconv.conv_transpose2d, 3: pyconv.conv_transpose3d}
CONV_INPUT = {1: grad.conv1d_input, 2: grad.conv2d_input, 3: grad.conv3d_input}
INPUT = {1: grad.conv_transpose1d_input, 2: grad.conv_transpose2d_input, 3: grad.conv_transpose3d_input}
WEIGHT = {1: grad.conv_transpose1d_weight, 2: grad.conv_transpose2d_weight, 3: grad.conv_transpose3d_weight}
BIAS = {1: grad.conv_transpose1d_bias, 2: grad.conv_transpose2d_bias, 3: grad.conv_transpose3d_bias}
BACKWARD = {1: grad.conv_transpose1d_backward, 2: grad.conv_transpose2d_backward, 3: grad.conv_transpose3d_backward}


# ------------------------------------------------------------------------------------------------
# Worked examples


def two_by_two(**keywords):
    x = np.array([[[0.0, 1], [2, 3]]], np.float32)
    return pyconv.conv_transpose2d(x, x[None], **keywords)


def test_two_by_two():
    expected = [[[0, 0, 1], [0, 4, 6], [4, 12, 9]]]
    oracle.assert_same_bits(two_by_two(), np.array(expected, np.float32))


def test_two_by_two_with_stride():
    expected = [[[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]]
    oracle.assert_same_bits(two_by_two(stride=2), np.array(expected, np.float32))


def test_two_by_two_with_padding():
    oracle.assert_same_bits(two_by_two(padding=1), np.array([[[4]]], np.float32))


def test_two_by_two_with_bias():
    expected = [[[10, 10, 11], [10, 14, 16], [14, 22, 19]]]
    oracle.assert_same_values(two_by_two(bias=np.array([10.0])), expected)


def test_a_single_one_leaves_the_kernel_where_it_stands():
    # Rows at 2 * 3 - 1, every second one; columns at 1 * 2 - 0, as the kernel is.
    x, w = np.zeros((1, 4, 3)), np.array([[[[1.0, 2, 3], [4, 5, 6]]]])
    x[0, 2, 1] = 10
    y = pyconv.conv_transpose2d(x, w, stride=(3, 2), padding=(1, 0), dilation=(2, 1), output_padding=(2, 1))
    expected = np.zeros((1, 12, 8))
    expected[0, 5, 2:5] = [10, 20, 30]
    expected[0, 7, 2:5] = [40, 50, 60]
    oracle.assert_same_bits(y, expected)


def test_nearest_neighbour_upsampling():
    # A kernel of ones as large as the stride repeats every sample.
    x = np.arange(6.0).reshape(1, 2, 3)
    y = pyconv.conv_transpose2d(x, np.ones((1, 1, 2, 2)), stride=2)
    oracle.assert_same_bits(y, x.repeat(2, 1).repeat(2, 2))


def test_bilinear_upsampling_of_a_ramp():
    # Weights 1/4 3/4 3/4 1/4 at stride 2 interpolate: a ramp stays one, away from the ends.
    x, w = np.arange(5.0).reshape(1, 5), np.array([[[0.25, 0.75, 0.75, 0.25]]])
    y = pyconv.conv_transpose1d(x, w, stride=2, padding=1)
    oracle.assert_same_values(y[0, 1:-1], np.arange(8) / 2 + 0.25)


def test_strides_leave_holes_that_are_written():
    x, w = np.array([[1.0, 2]]), np.array([[[3.0, 5]]])
    out = np.full((1, 9), np.nan)
    assert pyconv.conv_transpose1d(x, w, stride=4, output_padding=3, out=out) is out
    oracle.assert_same_bits(out, np.array([[3.0, 5, 0, 0, 6, 10, 0, 0, 0]]))


def test_channels_and_groups():
    x = np.array([[1.0, 2], [10, 20], [100, 200], [1000, 2000]])
    w = np.arange(1.0, 9).reshape(4, 2, 1)  # (C, O / groups, 1)
    y = pyconv.conv_transpose1d(x, w)
    oracle.assert_same_values(y, np.array([[7531.0, 15062], [8642, 17284]]))
    y = pyconv.conv_transpose1d(x, w, groups=2)
    oracle.assert_same_values(y, np.array([[31.0, 62], [42, 84], [7500, 15000], [8600, 17200]]))


def test_complex_is_not_conjugated():
    y = pyconv.conv_transpose1d(np.array([[1j, 2]]), np.array([[[1j, 1 - 1j]]]))
    oracle.assert_same_values(y, [[-1, 1j * (1 - 1j) + 2j, 2 - 2j]])


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding", "output_padding", "dilation", "expected"),
    [
        (4, 3, 1, 0, 0, 1, 6),
        (4, 3, 2, 1, 0, 1, 7),
        (4, 3, 2, 1, 1, 1, 8),
        (4, 4, 2, 1, 0, 1, 8),
        (4, 2, 3, 0, 2, 1, 13),
        (4, 3, 1, 0, 1, 2, 9),
        (1, 1, 5, 0, 4, 1, 5),
        (7, 3, 1, 4, 0, 1, 1),
    ],
)
def test_sizes(n, kernel, stride, padding, output_padding, dilation, expected):
    how = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    for ndim, conv_transpose in CONV_TRANSPOSE.items():
        y = conv_transpose(np.ones((1, *[n] * ndim)), np.ones((1, 1, *[kernel] * ndim)), **how)
        assert y.shape == (1, *[expected] * ndim)
    # output_size= is the output padding that gives it.
    how.pop("output_padding")
    y = pyconv.conv_transpose1d(np.ones((1, n)), np.ones((1, 1, kernel)), **how, output_size=(expected,))
    assert y.shape == (1, expected)


def test_it_gives_a_convolution_its_size_back():
    for n in range(7, 13):
        x, w = np.ones((1, n, n + 1)), np.ones((1, 1, 4, 3))
        y = pyconv.conv2d(x, w, stride=3, padding=1)
        back = pyconv.conv_transpose2d(y, w, stride=3, padding=1, output_size=x.shape[1:])
        assert back.shape == x.shape


# ------------------------------------------------------------------------------------------------
# Everything together, drawn by Hypothesis


@dataclasses.dataclass
class Problem:
    """A call of conv_transpose1d, 2d or 3d: the geometry, and how its arrays lie in memory."""

    batch: int | None
    channels: int
    outputs: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: object
    output_padding: tuple[int, ...]
    bias: bool
    seed: int
    layouts: tuple[str, ...]
    out_layout: str | None
    workers: int

    @property
    def ndim(self):
        return len(self.size)

    @property
    def x_shape(self):
        return (*(() if self.batch is None else (self.batch,)), self.channels, *self.size)

    @property
    def w_shape(self):
        return (self.channels, self.outputs // self.groups, *self.kernel)

    @property
    def widths(self):
        return oracle.pairs(self.padding, self.size, self.kernel, self.stride, self.dilation)

    @property
    def y_shape(self):
        size = oracle.transposed_size(
            self.size, self.kernel, self.stride, self.widths, self.output_padding, self.dilation
        )
        return (*self.x_shape[: -self.ndim - 1], self.outputs, *size)

    def geometry(self):
        names = ("stride", "padding", "output_padding", "groups", "dilation")
        return {name: getattr(self, name) for name in names}

    def oracle_geometry(self):
        return {**self.geometry(), "padding": self.widths}

    def arrays(self, values, dtype):
        """Input, weight, bias (or None) and gradient of the output."""
        generator = rng(self.seed)
        x, w, g = (values(generator, shape, dtype) for shape in (self.x_shape, self.w_shape, self.y_shape))
        return x, w, values(generator, (self.outputs,), dtype) if self.bias else None, g

    def batched(self, a):
        return a[None] if self.batch is None else a

    def expected(self, x, w, bias, dtype):
        x, w = self.batched(x).astype(dtype), w.astype(dtype)
        y = oracle.conv_transpose(x, w, None if bias is None else bias.astype(dtype), **self.oracle_geometry())
        return y[0] if self.batch is None else y

    def expected_dinput(self, w, g, dtype):
        g = self.batched(g).astype(dtype)
        dx = oracle.conv_transpose_dinput(self.size, w.astype(dtype), g, **self.oracle_geometry())
        return dx[0] if self.batch is None else dx

    def expected_dweight(self, x, g, dtype):
        x, g = self.batched(x).astype(dtype), self.batched(g).astype(dtype)
        return oracle.conv_transpose_dweight(x, self.kernel, g, **self.oracle_geometry())

    def call(self, functions, arguments, *, hostile=True, **keywords):
        """Call with hostile arrays; see that the function leaves them alone and fills and returns out=."""
        function, given, layouts = functions[self.ndim], arguments, iter(self.layouts)
        if hostile:
            arguments = [cases.lay_out(a, next(layouts)) if isinstance(a, np.ndarray) else a for a in given]
            keywords = {"workers": self.workers, **keywords}
        y = function(*arguments, **self.geometry(), **keywords)
        if hostile and self.out_layout is not None:
            out = cases.lay_out(cases.poison(y.shape, y.dtype), self.out_layout)
            assert function(*arguments, **self.geometry(), **keywords, out=out) is out
            oracle.assert_same_bits(out.astype(y.dtype), y)
        for before, after in zip(given, arguments, strict=True):
            if before is not None:
                oracle.assert_same_values(after, before)
        return y

    def forward(self, x, w, bias, **keywords):
        return self.call(CONV_TRANSPOSE, (x, w, bias), **keywords)

    def dinput(self, w, g, **keywords):
        return self.call(INPUT, (self.x_shape, w, g), **keywords)

    def dweight(self, x, g, **keywords):
        return self.call(WEIGHT, (x, self.w_shape, g), **keywords)


@st.composite
def problems(draw, max_ndim=3, wide=12, stride_alone=False):
    """Any legal geometry; with `stride_alone`, one whose output padding stays below the stride."""
    ndim = draw(st.integers(1, max_ndim))

    def axes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    groups = draw(st.integers(1, 3))
    kernel, stride, dilation = axes(1, 4 if ndim < 3 else 3), axes(1, 4), axes(1, 3)
    limits = [s if stride_alone else max(s, d) for s, d in zip(stride, dilation, strict=True)]
    output_padding = tuple(draw(st.integers(0, limit - 1)) for limit in limits)
    amount = st.integers(0, 4)
    padding = draw(
        st.one_of(amount, st.tuples(*[amount] * ndim), st.tuples(*[st.tuples(amount, amount)] * ndim))
    )
    size = []
    for axis, (before, after) in enumerate(oracle.pairs(padding, (1,) * ndim, kernel, stride, dilation)):
        # Large enough that something of the output is left: (n - 1) * stride + grown > before + after.
        grown = dilation[axis] * (kernel[axis] - 1) + 1 + output_padding[axis]
        smallest = 1 + max(0, -(-(before + after + 1 - grown) // stride[axis]))
        size.append(smallest + draw(st.integers(0, wide if axis == ndim - 1 else 4)))
    return Problem(
        batch=draw(st.one_of(st.none(), st.integers(0, 3))),
        channels=groups * draw(st.integers(1, 4)),
        outputs=groups * draw(st.integers(1, 3)),
        groups=groups,
        size=tuple(size),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        output_padding=output_padding,
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
        layouts=tuple(draw(st.sampled_from(sorted(cases.LAYOUTS))) for _ in range(3)),
        out_layout=draw(st.one_of(st.none(), st.sampled_from(cases.OUT_LAYOUTS))),
        workers=draw(st.integers(1, 3)),
    )


def wide(dtype):
    """The dtype in which the oracle's sums of integers of this dtype are exact."""
    return {"c": np.complex128, "f": np.float64}.get(np.dtype(dtype).kind, np.int64)


@given(problem=problems(), dtype=st.sampled_from(FLOATS[1:] + INTEGERS))
def test_integer_valued_data_is_exact(problem, dtype):
    x, w, bias, g = problem.arrays(nine, dtype)
    result = dtype if dtype in FLOATS else np.int64
    y = problem.forward(x, w, bias)
    assert y.dtype == result
    oracle.assert_same_values(y, problem.expected(x, w, bias, wide(dtype)))
    dx = problem.dinput(w, g)
    assert dx.dtype == result
    oracle.assert_same_values(dx, problem.expected_dinput(w, g, wide(dtype)))
    dw = problem.dweight(x, g)
    assert dw.dtype == result
    oracle.assert_same_values(dw, problem.expected_dweight(x, g, wide(dtype)))
    db = BIAS[problem.ndim](g)
    assert db.dtype == result
    oracle.assert_same_values(db, oracle.dbias(problem.batched(g).astype(wide(dtype))))


@given(problem=problems(), shift=st.integers(-24, 12))
def test_float16_is_the_exact_sum_rounded_once(problem, shift):
    # The sums are exact in float32; the one rounding left includes overflow to Inf and subnormals.
    x, w, _, _ = problem.arrays(nine, "float16")
    x = np.ldexp(x, shift)
    with np.errstate(over="ignore"):
        exact = problem.expected(x, w, None, np.float64).astype(np.float16)
    oracle.assert_same_values(problem.forward(x, w, None), exact)


@given(problem=problems(max_ndim=2, wide=5), dtype=st.sampled_from(FLOATS))
@settings(max_examples=25)
def test_error_stays_within_the_bound(problem, dtype):
    x, w, _, g = problem.arrays(cases.normal, dtype)
    how = {"computed": COMPUTED[dtype]}
    geometry = problem.oracle_geometry()
    x, g = problem.batched(x), problem.batched(g)

    def forward(x, w):
        return oracle.conv_transpose(x, w, **geometry)

    # Without conjugation: assert_bilinear conjugates the second array, so it gets it conjugated.
    terms = forward(np.ones(x.shape, int), np.ones(w.shape, int))
    y = problem.batched(problem.forward(x[0] if problem.batch is None else x, w, None))
    assert y.dtype == dtype
    oracle.assert_bilinear(y, forward, x, w.conj(), terms=terms, **how)

    def dinput(g, w):
        return oracle.conv_transpose_dinput(problem.size, w, g, **geometry)

    terms = math.prod(w.shape[1:])
    dx = problem.batched(problem.dinput(w, g[0] if problem.batch is None else g))
    oracle.assert_bilinear(dx, dinput, g, w, terms=terms, **how)

    def dweight(g, x):
        return oracle.conv_transpose_dweight(x, problem.kernel, g, **geometry)

    terms = x.shape[0] * math.prod(problem.size)
    given = (x[0], g[0]) if problem.batch is None else (x, g)
    oracle.assert_bilinear(problem.dweight(*given), dweight, g, x, terms=terms, **how)


@given(problem=problems(max_ndim=2, wide=20), dtype=st.sampled_from(["float32", "float64", "complex64"]))
def test_the_bias_is_added_last(problem, dtype):
    x, w, bias, _ = problem.arrays(cases.normal, dtype)
    if bias is None:
        bias = cases.normal(rng(1), (problem.outputs,), dtype)
    y = problem.forward(x, w, bias)
    oracle.assert_same_values(y, problem.forward(x, w, None) + bias.reshape(-1, *[1] * problem.ndim))


@given(problem=problems(wide=30), dtype=st.sampled_from(FLOATS + INTEGERS))
def test_memory_layout_and_threads_do_not_change_the_bits(problem, dtype):
    x, w, bias, g = problem.arrays(nine if dtype in INTEGERS else cases.normal, dtype)
    plain = {"hostile": False, "workers": 1}
    oracle.assert_same_bits(problem.forward(x, w, bias), problem.forward(x, w, bias, **plain))
    oracle.assert_same_bits(problem.dinput(w, g), problem.dinput(w, g, **plain))
    oracle.assert_same_bits(problem.dweight(x, g), problem.dweight(x, g, **plain))


@given(problem=problems(stride_alone=True, wide=30), dtype=st.sampled_from(["float16", "float32", "float64", "int16"]))
def test_it_is_the_input_gradient_bit_for_bit(problem, dtype):
    x, w, _, _ = problem.arrays(nine if dtype == "int16" else cases.normal, dtype)
    y = problem.forward(x, w, None)
    how = {name: getattr(problem, name) for name in ("stride", "padding", "dilation", "groups")}
    oracle.assert_same_bits(y, CONV_INPUT[problem.ndim](problem.y_shape, w, x, **how))


@given(problem=problems(stride_alone=True, wide=30), dtype=st.sampled_from(["complex64", "complex128"]))
@settings(max_examples=20)
def test_it_is_the_input_gradient_of_the_conjugated_weight(problem, dtype):
    x, w, _, _ = problem.arrays(cases.normal, dtype)
    how = {name: getattr(problem, name) for name in ("stride", "padding", "dilation", "groups")}
    dx = CONV_INPUT[problem.ndim](problem.y_shape, w.conj(), x, **how)
    oracle.assert_same_values(problem.forward(x, w, None), dx)


@given(problem=problems(wide=30))
def test_output_size_is_output_padding_bit_for_bit(problem):
    x, w, bias, _ = problem.arrays(cases.normal, np.float32)
    how = problem.geometry()
    how.pop("output_padding")
    conv_transpose = CONV_TRANSPOSE[problem.ndim]
    y = conv_transpose(x, w, bias, **how, output_size=problem.y_shape[-problem.ndim :])
    oracle.assert_same_bits(y, problem.forward(x, w, bias))


@given(problem=problems(wide=30), dtype=st.sampled_from(["float64", "complex128"]))
def test_adjoint_identity(problem, dtype):
    x, w, _, g = problem.arrays(cases.normal, dtype)
    left = np.vdot(problem.forward(x, w, None), g)
    scale = np.vdot(problem.expected(abs(x), abs(w), None, np.float64), abs(g))
    for a, b in ((x, problem.dinput(w, g)), (w, problem.dweight(x, g))):
        assert abs(np.vdot(a, b) - left) <= 1e-12 * scale


@given(problem=problems(max_ndim=2, wide=2))
@settings(max_examples=15)
def test_finite_differences(problem):
    x, w, _, _ = problem.arrays(nine, np.float64)
    bias = np.arange(problem.outputs, dtype=np.float64)
    conv_transpose, how = CONV_TRANSPOSE[problem.ndim], problem.geometry()

    def loss(arrays):
        return (conv_transpose(*arrays, **how, workers=1) ** 2).sum() / 2

    gradients = BACKWARD[problem.ndim](x, w, conv_transpose(x, w, bias, **how), **how)
    # Central differences with steps of one are exact for a quadratic of integers; up to ten elements an array.
    for which, gradient in enumerate(gradients):
        for at in rng(which).permutation(gradient.size)[:10]:
            losses = []
            for step in (1, -1):
                arrays = [x.copy(), w.copy(), bias.copy()]
                arrays[which].reshape(-1)[at] += step
                losses.append(loss(arrays))
            assert gradient.reshape(-1)[at] == (losses[0] - losses[1]) / 2


# ------------------------------------------------------------------------------------------------
# PyTorch


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@given(problem=problems())
@settings(max_examples=25)
def test_agrees_with_pytorch(dtype, problem):
    torch = pytest.importorskip("torch")
    # PyTorch pads both ends alike.
    padding = tuple(min(width) for width in problem.widths)
    problem = dataclasses.replace(problem, padding=padding, batch=problem.batch or None)
    x, w, bias, g = problem.arrays(nine, dtype)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, nine(rng(7), (problem.outputs,), dtype))]
    function = getattr(torch.nn.functional, f"conv_transpose{problem.ndim}d")
    positional = list(problem.geometry().values())
    expected = function(*tensors, *positional)
    bias = tensors[2].detach().numpy()
    # Integers: exact on both sides.
    oracle.assert_same_values(CONV_TRANSPOSE[problem.ndim](x, w, bias, *positional), expected.detach().numpy())
    expected.backward(torch.tensor(g))
    for actual, tensor in zip(BACKWARD[problem.ndim](x, w, g, *positional), tensors, strict=True):
        oracle.assert_same_values(actual, tensor.grad.numpy())


# ------------------------------------------------------------------------------------------------
# Larger shapes, layouts, empty arrays, dtypes


LARGER = [
    ((1, 48, 14, 14), (48, 33, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 64, 9, 11), (64, 32, 4, 4), {"stride": 2, "padding": 1}),
    ((1, 700, 4, 5), (700, 9, 2, 2), {"stride": 2}),
    ((1, 5, 20, 30), (5, 70, 2, 2), {"stride": 2}),
    ((1, 1, 100, 217), (1, 1, 5, 5), {"padding": 2}),
    ((1, 1, 60, 117), (1, 1, 3, 3), {"stride": (5, 7), "output_padding": (4, 6)}),
    ((2, 32, 20, 21), (32, 2, 3, 3), {"stride": 2, "groups": 16, "padding": (0, 1)}),
    ((1, 8, 30, 31), (8, 6, 3, 3), {"dilation": 5, "padding": 4, "output_padding": 3}),
    ((2, 6, 2000), (6, 7, 9), {"stride": 3, "padding": 4}),
    ((1, 4, 7, 8, 9), (4, 5, 3, 2, 4), {"stride": (2, 1, 3), "padding": (1, 0, 2), "dilation": (1, 3, 1)}),
]


def case_id(case):
    return "-".join("x".join(map(str, shape)) for shape in case[:2])


def tuples(keywords, ndim):
    """The geometry in the oracle's form."""
    how = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, **keywords}
    for name in ("stride", "output_padding", "dilation", "padding"):
        how[name] = (how[name],) * ndim if isinstance(how[name], int) else how[name]
    how["padding"] = [(p, p) for p in how["padding"]]
    return how


@pytest.mark.parametrize("case", LARGER, ids=map(case_id, LARGER))
def test_larger_shapes_are_exact(case):
    x_shape, w_shape, keywords = case
    ndim = len(x_shape) - 2
    how = tuples(keywords, ndim)
    x, w, bias = (
        cases.integer_valued(rng(i), shape, np.float32, 2)
        for i, shape in enumerate((x_shape, w_shape, (w_shape[1] * how["groups"],)))
    )
    exact = oracle.conv_transpose(x.astype(float), w.astype(float), bias.astype(float), **how)
    oracle.assert_same_values(CONV_TRANSPOSE[ndim](x, w, bias, **keywords), exact)
    g = cases.integer_valued(rng(3), exact.shape, np.float32, 2)
    assert 4 * g.size < 2**24
    dx = oracle.conv_transpose_dinput(x_shape[2:], w.astype(float), g.astype(float), **how)
    oracle.assert_same_values(INPUT[ndim](x_shape, w, g, **keywords), dx)
    dw = oracle.conv_transpose_dweight(x.astype(float), w_shape[2:], g.astype(float), **how)
    oracle.assert_same_values(WEIGHT[ndim](x, w_shape, g, **keywords), dw)


DETERMINISTIC = [
    ((3, 16, 20, 33), (16, 9, 4, 4), {"stride": 2, "padding": 1}),
    ((1, 1, 60, 117), (1, 1, 3, 3), {"stride": 3}),
    ((2, 300, 5, 6), (300, 8, 3, 3), {"padding": 1}),
    ((2, 12, 700), (12, 2, 7), {"stride": 2, "groups": 6, "output_padding": 1}),
    ((2, 3, 6, 7, 9), (3, 5, 3, 3, 3), {"stride": 2}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16"])
@pytest.mark.parametrize("case", DETERMINISTIC, ids=map(case_id, DETERMINISTIC))
def test_same_bits_for_any_threads_batch_and_layout(case, dtype, threads):
    x_shape, w_shape, keywords = case
    ndim = len(x_shape) - 2
    x, w = cases.normal(rng(), x_shape, dtype), cases.normal(rng(1), w_shape, dtype)
    bias = cases.normal(rng(2), (w_shape[1] * keywords.get("groups", 1),), dtype)
    conv_transpose = CONV_TRANSPOSE[ndim]
    y = conv_transpose(x, w, bias, workers=1, **keywords)
    g = cases.normal(rng(3), y.shape, dtype)
    dx, dw, db = BACKWARD[ndim](x, w, g, workers=1, **keywords)
    for n in range(len(x)):
        oracle.assert_same_bits(conv_transpose(x[n], w, bias, workers=threads, **keywords), y[n])
        oracle.assert_same_bits(INPUT[ndim](x_shape[1:], w, g[n], workers=threads, **keywords), dx[n])
    for layout in ("contiguous", "reversed", "permuted", "record"):
        laid_x, laid_g = cases.lay_out(x, layout), cases.lay_out(g, layout)
        oracle.assert_same_bits(conv_transpose(laid_x, w, bias, workers=threads, **keywords), y)
        oracle.assert_same_bits(INPUT[ndim](x_shape, w, laid_g, workers=threads, **keywords), dx)
        oracle.assert_same_bits(WEIGHT[ndim](laid_x, w_shape, laid_g, workers=threads, **keywords), dw)
    oracle.assert_same_bits(BIAS[ndim](g), db)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16", "uint8"])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout_of_a_larger_image(layout, dtype):
    x = cases.integer_valued(rng(), (2, 4, 17, 21), dtype, 3)
    w = cases.integer_valued(rng(1), (4, 3, 3, 3), dtype, 3)
    how = {"stride": 2, "padding": 1}
    expected = pyconv.conv_transpose2d(x, w, **how)
    y = pyconv.conv_transpose2d(cases.lay_out(x, layout), cases.lay_out(w, layout), **how)
    oracle.assert_same_bits(y, expected)
    if layout in cases.OUT_LAYOUTS:
        out = cases.lay_out(cases.poison(expected.shape, expected.dtype), layout)
        assert pyconv.conv_transpose2d(x, w, **how, out=out) is out
        oracle.assert_same_values(out, expected)


def test_an_output_inside_a_larger_array_leaves_its_surroundings_alone():
    x, w = cases.normal(rng(), (2, 3, 9, 11), np.float32), cases.normal(rng(1), (3, 5, 3, 3), np.float32)
    frame = np.full((4, 9, 23, 27), 7, np.float32)
    out = frame[1:-1, 2:-2, 2:-2, 2:-2]
    pyconv.conv_transpose2d(x, w, stride=2, out=out)
    oracle.assert_same_bits(out.copy(), pyconv.conv_transpose2d(x, w, stride=2))
    out[...] = 7
    assert (frame == 7).all()


def test_empty_batches_and_no_channels():
    x, w, bias = np.empty((0, 4, 8, 9)), np.ones((4, 3, 3, 3)), np.arange(3.0)
    oracle.assert_same_bits(pyconv.conv_transpose2d(x, w, bias), np.empty((0, 3, 10, 11)))
    dx, dw, db = grad.conv_transpose2d_backward(x, w, np.empty((0, 3, 10, 11)))
    oracle.assert_same_bits(dx, x)
    oracle.assert_same_bits(dw, np.zeros(w.shape))
    oracle.assert_same_bits(db, np.zeros(3))
    # A sum of nothing is zero, and the bias is added to it.
    out = np.full((2, 3, 10, 11), np.nan)
    pyconv.conv_transpose2d(np.empty((2, 0, 8, 9)), np.ones((0, 3, 3, 3)), bias, out=out)
    oracle.assert_same_values(out, np.broadcast_to(bias[:, None, None], out.shape))
    assert pyconv.conv_transpose2d(np.ones((2, 4, 8, 9)), np.ones((4, 0, 3, 3))).shape == (2, 0, 10, 11)


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "expected"),
    [
        ("float32", "float64", "float32"),
        ("float16", "float64", "float16"),
        ("float64", "float32", "float64"),
        ("complex64", "float64", "complex64"),
        ("float32", "complex64", "complex64"),
        ("uint8", "int8", "int64"),
        ("bool", "bool", "int64"),
        ("uint8", "float32", "float32"),
        ("int32", "float32", "float64"),
    ],
)
def test_result_dtypes_are_the_convolutions(x_dtype, w_dtype, expected):
    x, w = nine(rng(), (1, 2, 5, 7), x_dtype), nine(rng(1), (2, 3, 2, 2), w_dtype)
    y = pyconv.conv_transpose2d(x, w, stride=2)
    exact = oracle.conv_transpose(x.astype(complex), w.astype(complex), **tuples({"stride": 2}, 2))
    assert y.dtype == expected
    oracle.assert_same_values(y, exact if y.dtype.kind == "c" else exact.real)


def test_dtype_is_the_computing_and_the_output_dtype():
    x, w = np.array([[2**24, 1]], np.int32), np.array([[[1.0, 1]]])
    y = pyconv.conv_transpose1d(x, w, dtype=np.float64)
    oracle.assert_same_bits(y, np.array([[2.0**24, 2**24 + 1, 1]]))
    y = pyconv.conv_transpose1d(x, w, dtype="f4")
    assert y.dtype == np.float32
    assert abs(y[0, 1] - 2**24) <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_an_output_that_is_cropped_to_little_must_be_countable_before(run_python, dtype):
    script = """
import sys
import numpy as np
import pyconv
x, w = np.ones((1, 1, 1, 1), sys.argv[1]), np.ones((1, 5, 2, 2), sys.argv[1])
settings = {"padding": ((0, 2**43), (0, 2**58)), "dilation": (2**43 + 1, 2**58)}
for call in (lambda: pyconv.conv_transpose2d(x, w, **settings),
             lambda: pyconv.grad.conv_transpose2d_input(x.shape, w, np.ones((1, 5, 2, 1), x.dtype), **settings),
             lambda: pyconv.grad.conv_transpose2d_weight(x, w.shape, np.ones((1, 5, 2, 1), x.dtype), **settings)):
    try:
        call()
    except ValueError as error:
        assert "padded output has more samples" in str(error), error
    else:
        raise AssertionError("took it")
"""
    run_python(script, np.dtype(dtype).name)


def test_integers_that_overflow_are_an_error():
    x, w = np.array([[2**62, 2**62]]), np.array([[[1, 1]]])
    with pytest.raises(OverflowError, match="overflow"):
        pyconv.conv_transpose1d(x, w)
    out = np.full((1, 3), 7)
    with pytest.raises(OverflowError, match="overflow"):
        pyconv.conv_transpose1d(x, w, out=out)
    assert (out == 7).all()
    assert pyconv.conv_transpose1d(np.array([[2**53 + 1]]), w).tolist() == [[2**53 + 1, 2**53 + 1]]
    narrow = np.full((1, 3), 7, np.uint8)
    with pytest.raises(OverflowError):
        pyconv.conv_transpose1d(np.array([[200, 100]]), w, out=narrow)
    assert (narrow == 7).all()
    pyconv.conv_transpose1d(np.array([[100, 100]]), w, out=narrow)
    assert narrow.tolist() == [[100, 200, 100]]


# ------------------------------------------------------------------------------------------------
# NaN and Inf


SPOILS = st.lists(st.tuples(st.floats(0, 0.999), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=3)


@given(problem=problems(), dtype=st.sampled_from(["float16", "float32", "float64"]), x_spoil=SPOILS, g_spoil=SPOILS)
def test_non_finite_values_spoil_the_sums_they_are_in_and_no_others(problem, dtype, x_spoil, g_spoil):
    x, w, bias, g = problem.arrays(nine, dtype)
    for a, spoil in ((x, x_spoil), (g, g_spoil)):
        for where, value in spoil:
            if a.size:
                a.reshape(-1)[int(where * a.size)] = value
    with np.errstate(invalid="ignore", over="ignore"):
        oracle.assert_same_values(
            problem.forward(x, w, bias), problem.expected(x, w, bias, np.float64).astype(dtype)
        )
        exact = problem.expected_dinput(w, g, np.float64).astype(dtype)
        oracle.assert_same_values(problem.dinput(w, g), exact)
        exact = problem.expected_dweight(x, g, np.float64).astype(dtype)
        oracle.assert_same_values(problem.dweight(x, g), exact)


def test_nan_reaches_its_kernel_and_no_further():
    x, w = np.ones((1, 20, 40), np.float32), np.zeros((1, 1, 2, 3), np.float32)
    x[0, 3, 7] = np.nan
    y = np.isnan(pyconv.conv_transpose2d(x, w, stride=4, padding=1))
    assert np.argwhere(y[0]).tolist() == [[i, j] for i in (11, 12) for j in (27, 28, 29)]


# ------------------------------------------------------------------------------------------------
# Calling


def test_positional_order_is_pytorchs():
    x, w, bias = np.arange(20.0).reshape(1, 4, 5), np.arange(24.0).reshape(4, 2, 3), np.arange(4.0)
    by_name = {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2}
    exact = oracle.conv_transpose(x, w, bias, **tuples(by_name, 1))
    oracle.assert_same_values(pyconv.conv_transpose1d(x, w, bias, 3, 1, 2, 2, 2), exact)
    oracle.assert_same_values(pyconv.conv_transpose1d(input=x, weight=w, bias=bias, **by_name), exact)
    g = nine(rng(), exact.shape, float)
    dx = oracle.conv_transpose_dinput((5,), w, g, **tuples(by_name, 1))
    dw = oracle.conv_transpose_dweight(x, (3,), g, **tuples(by_name, 1))
    oracle.assert_same_values(grad.conv_transpose1d_input(x.shape, w, g, 3, 1, 2, 2, 2), dx)
    oracle.assert_same_values(
        grad.conv_transpose1d_input(input_size=x.shape, weight=w, grad_output=g, **by_name), dx
    )
    oracle.assert_same_values(grad.conv_transpose1d_weight(x, w.shape, g, 3, 1, 2, 2, 2), dw)
    oracle.assert_same_values(
        grad.conv_transpose1d_weight(input=x, weight_size=w.shape, grad_output=g, **by_name), dw
    )
    gradients = grad.conv_transpose1d_backward(x, w, g, 3, 1, 2, 2, 2)
    for actual, expected in zip(gradients, (dx, dw, oracle.dbias(g)), strict=True):
        oracle.assert_same_values(actual, expected)
    with pytest.raises(TypeError):
        pyconv.conv_transpose1d(x, w, bias, 3, 1, 2, 2, 2, (20,))


@given(problem=problems(wide=20), dtype=st.sampled_from(["float32", "float64", "complex64", "int16"]))
def test_backward_returns_the_three_gradients(problem, dtype):
    x, w, _, g = problem.arrays(nine if dtype == "int16" else cases.normal, dtype)
    dx, dw, db = BACKWARD[problem.ndim](x, w, g, **problem.geometry(), workers=problem.workers)
    oracle.assert_same_bits(dx, problem.dinput(w, g))
    oracle.assert_same_bits(dw, problem.dweight(x, g))
    oracle.assert_same_bits(db, BIAS[problem.ndim](g))


@pytest.mark.parametrize("shift", [0, 1, 13])
def test_an_output_that_shares_memory_with_an_argument_is_refused_or_right(shift):
    memory = np.arange(200.0)
    x, w = memory[:120].reshape(1, 10, 12), memory[120:129].reshape(1, 1, 3, 3)
    out = memory[shift : shift + 120].reshape(1, 10, 12)
    expected = pyconv.conv_transpose2d(x.copy(), w.copy(), padding=1)
    before = memory.copy()
    try:
        pyconv.conv_transpose2d(x, w, padding=1, out=out)
    except ValueError as error:
        assert "out" in str(error)
        oracle.assert_same_bits(memory, before)
    else:
        oracle.assert_same_bits(out, expected)


# ------------------------------------------------------------------------------------------------
# Bad input


X = nine(rng(), (2, 4, 5, 6), np.float32)
W = nine(rng(1), (4, 3, 3, 3), np.float32)
B = np.zeros(6, np.float32)
Y_SHAPE = (2, 6, 12, 14)
VALID = {"stride": 2, "groups": 2, "output_padding": 1}


def bad(change, error, *words, id=None):
    """A call that is valid but for `change`, the exception it must raise and words its message must have."""
    return pytest.param(change, error, words, id=id or "-".join(f"{k}={v!r}"[:40] for k, v in change.items()))


BAD = [
    # Ranks and shapes.
    bad({"input": X[0, 0]}, ValueError, "input", "(5, 6)", id="input-2d"),
    bad({"input": X[None]}, ValueError, "input", "(1, 2, 4, 5, 6)", id="input-5d"),
    bad({"input": np.float32(1)}, ValueError, "input", "()", id="input-0d"),
    bad({"weight": W[0]}, ValueError, "weight", "(3, 3, 3)", id="weight-3d"),
    bad({"weight": W[None]}, ValueError, "weight", "(1, 4, 3, 3, 3)", id="weight-5d"),
    bad({"weight": W[:2]}, ValueError, "weight", "(2, 3, 3, 3)", "(2, 4, 5, 6)", id="weight-for-fewer-channels"),
    bad({"input": X[:, :2]}, ValueError, "(4, 3, 3, 3)", "(2, 2, 5, 6)", id="fewer-channels"),
    bad({"input": X[:, :3], "weight": W[:3]}, ValueError, "groups", "(2, 3, 5, 6)", id="odd-channels"),
    bad({"weight": W[:, :, :0]}, ValueError, "weight", "(4, 3, 0, 3)", id="empty-kernel"),
    bad({"input": X[..., :0]}, ValueError, "input", "(2, 4, 5, 0)", id="empty-image"),
    bad({"bias": B[:5]}, ValueError, "bias", "(5,)", "6", id="bias-too-short"),
    bad({"bias": B[:3]}, ValueError, "bias", "(3,)", "6", id="bias-of-one-group"),
    bad({"bias": B[None]}, ValueError, "bias", "(1, 6)", id="bias-2d"),
    bad({"bias": np.float32(1)}, ValueError, "bias", "()", id="bias-0d"),
    # Counts.
    *[bad({"groups": n}, ValueError, "groups", str(n)) for n in (0, -1, 3, 2**64)],
    *[bad({"groups": n}, TypeError, "groups") for n in (2.0, "2", None)],
    *[bad({"stride": s}, ValueError, "stride") for s in (0, -1, (2, 0), (2, 2, 2), ())],
    *[bad({"stride": s}, TypeError, "stride") for s in (2.0, "2", None, (2, 2.0))],
    *[bad({"dilation": d}, ValueError, "dilation") for d in (0, -1, (1, 0), (1, 1, 1))],
    *[bad({"dilation": d}, TypeError, "dilation") for d in (1.0, None)],
    *[bad({"padding": p}, ValueError, "padding") for p in (-1, (0, -1), (1, 1, 1), ((1, 2, 3), (1, 2, 3)), "some")],
    *[bad({"padding": p}, (TypeError, ValueError), "padding") for p in (1.0, None, (1, None))],
    # Padding that leaves nothing: rows 12 - 2 * 7, columns 14 - 2 * 7 + ...
    *[bad({"padding": p}, ValueError, "padding") for p in (7, (7, 0), (0, 8), ((13, 0), (0, 0)))],
    *[bad({"output_padding": p}, ValueError, "output_padding", "stride", "dilation") for p in (2, (2, 0), (0, 5))],
    bad({"output_padding": 3, "dilation": 3}, ValueError, "output_padding", "stride", "dilation"),
    *[bad({"output_padding": p}, ValueError, "output_padding") for p in (-1, (0, -1), (1, 1, 1), 2**64)],
    *[bad({"output_padding": p}, TypeError, "output_padding") for p in (1.0, None, "1", (1, 0.5))],
    # The output of 11 x 13 can grow by one.
    *[
        bad({"output_size": s, "output_padding": 0}, ValueError, "output_size")
        for s in ((10, 13), (11, 15), (13, 13), (12,), (12, 14, 14), (-12, 14), (2**64, 14))
    ],
    *[
        bad({"output_size": s, "output_padding": 0}, (TypeError, ValueError), "output_size")
        for s in ("12", (12.0, 14), (None, 14))
    ],
    bad({"workers": 0}, ValueError, "workers"),
    bad({"workers": 1.0}, TypeError, "workers"),
    # Sizes beyond 64 bits.
    *[
        bad({name: size}, ValueError, f"{name}|output")
        for name in ("stride", "dilation")
        for size in (2**40, 2**62, 2**64 + 1)
    ],
    bad({"padding": 2**62}, ValueError, "padding"),
    # Arrays.
    *[
        bad({name: value.astype(dtype)}, TypeError, name, id=f"{name}-{np.dtype(dtype)}")
        for name, value in (("input", X), ("weight", W), ("bias", B))
        for dtype in (object, "U5", "M8[s]")
    ],
    *[bad({name: None}, TypeError, name) for name in ("input", "weight")],
    *[bad({name: "text"}, (TypeError, ValueError), name) for name in ("input", "weight", "bias")],
    bad({"input": Lazy(X)}, TypeError, "input", id="input-lazy"),
    bad({"weight": Lazy(W)}, TypeError, "weight", id="weight-lazy"),
    bad({"bias": Lazy(B)}, TypeError, "bias", id="bias-lazy"),
    *[bad({"dtype": dtype}, TypeError, "dtype") for dtype in (object, "U5", "no such thing")],
    bad({"weight": W.astype(np.complex64), "dtype": np.float32}, (TypeError, ValueError), "dtype", id="complex-weight"),
]


def test_the_call_that_the_table_spoils_is_valid():
    out = np.full(Y_SHAPE, 7, np.float32)
    assert pyconv.conv_transpose2d(X, W, B, **VALID, out=out) is out
    oracle.assert_same_values(out, oracle.conv_transpose(X, W, B, **tuples(VALID, 2)))


@pytest.mark.parametrize(("change", "error", "words"), BAD)
def test_conv_transpose2d_refuses(change, error, words):
    keywords = {"input": X, "weight": W, "bias": B, **VALID, **change}
    with pytest.raises(error):
        pyconv.conv_transpose2d(**keywords)
    call_must_fail(pyconv.conv_transpose2d, keywords, error, words, np.full(Y_SHAPE, 7, np.float32))


def test_only_zeros_are_padded():
    with pytest.raises(TypeError):
        pyconv.conv_transpose2d(X, W, B, **VALID, padding_mode="reflect")


def test_output_padding_may_reach_the_dilation():
    x, w = nine(rng(), (1, 1, 4), float), nine(rng(1), (1, 1, 3), float)
    how = {"dilation": 4, "output_padding": 3}
    y = pyconv.conv_transpose1d(x, w, **how)
    oracle.assert_same_values(y, oracle.conv_transpose(x, w, **tuples(how, 1)))
    assert y.shape == (1, 1, 15)
    assert (y[..., 12:] == 0).all()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (np.zeros((2, 6, 12, 13), np.float32), ["out", "(2, 6, 12, 13)", str(Y_SHAPE)]),
        (np.zeros((2, 6, 11, 13), np.float32), ["out", "(2, 6, 11, 13)", str(Y_SHAPE)]),
        (np.zeros(Y_SHAPE[1:], np.float32), ["out", "(6, 12, 14)", str(Y_SHAPE)]),
        (read_only(np.zeros(Y_SHAPE, np.float32)), ["out"]),
        (np.broadcast_to(np.float32(0), Y_SHAPE), ["out"]),
        (np.zeros(Y_SHAPE, np.int64), ["out", "int64"]),
        (np.zeros(Y_SHAPE, object), ["out", "object"]),
        (np.zeros(Y_SHAPE).tolist(), ["out"]),
        ("text", ["out"]),
    ],
)
def test_a_wrong_out_is_refused_and_untouched(out, words):
    before = np.array(out)
    with pytest.raises((ValueError, TypeError)) as caught:
        pyconv.conv_transpose2d(X, W, B, **VALID, out=out)
    assert (np.array(out) == before).all()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (pyconv.conv_transpose1d, (np.ones(5), np.ones((1, 1, 3))), ["input", "(5,)"]),
        (pyconv.conv_transpose1d, (np.ones((1, 1, 5, 5)), np.ones((1, 1, 3))), ["input", "(1, 1, 5, 5)"]),
        (pyconv.conv_transpose1d, (np.ones((1, 5)), np.ones((1, 3))), ["weight", "(1, 3)"]),
        (pyconv.conv_transpose3d, (np.ones((4, 5, 6)), np.ones((1, 1, 3, 3, 3))), ["input", "(4, 5, 6)"]),
        (pyconv.conv_transpose3d, (np.ones((1, 4, 5, 6)), np.ones((1, 3, 3, 3))), ["weight", "(1, 3, 3, 3)"]),
    ],
)
def test_conv_transpose1d_and_3d_refuse_wrong_shapes(function, arguments, words):
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    for word in words:
        assert word in str(caught.value)


G = nine(rng(2), Y_SHAPE, np.float32)
GRADIENTS = {
    "input": (grad.conv_transpose2d_input, {"input_size": X.shape, "weight": W, "grad_output": G}, X.shape),
    "weight": (grad.conv_transpose2d_weight, {"input": X, "weight_size": W.shape, "grad_output": G}, W.shape),
    "backward": (grad.conv_transpose2d_backward, {"input": X, "weight": W, "grad_output": G}, None),
}


@pytest.mark.parametrize("which", GRADIENTS)
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        *[
            bad({"grad_output": g}, ValueError, "grad_output", str(Y_SHAPE), str(g.shape), id=f"grad_output-{g.shape}")
            for g in (G[..., :-1], G[:, :, :-1], G[:, :5], G[:1], G[0], G[None], G[:, :, :1, :1])
        ],
        bad({"stride": 1, "output_padding": 0}, ValueError, "grad_output", str(Y_SHAPE), "(2, 6, 7, 8)"),
        bad({"padding": 1}, ValueError, "grad_output", str(Y_SHAPE), "(2, 6, 10, 12)"),
        bad({"output_padding": 0}, ValueError, "grad_output", str(Y_SHAPE), "(2, 6, 11, 13)"),
        bad({"output_padding": 2}, ValueError, "output_padding"),
        bad({"padding": 7}, ValueError, "padding"),
        bad({"groups": 3}, ValueError, "groups"),
        bad({"groups": 1}, ValueError, "grad_output", str(Y_SHAPE), "(2, 3, 12, 14)"),
        bad({"stride": 0}, ValueError, "stride"),
        bad({"dilation": 0}, ValueError, "dilation"),
        bad({"workers": 0}, ValueError, "workers"),
        bad({"stride": 2**62}, ValueError, "stride|output"),
        bad({"grad_output": None}, TypeError, "grad_output"),
        bad({"grad_output": G.astype(object)}, TypeError, "grad_output", id="grad_output-object"),
        bad({"grad_output": Lazy(G)}, TypeError, "grad_output", id="grad_output-lazy"),
    ],
)
def test_gradients_refuse(which, change, error, words):
    function, valid, shape = GRADIENTS[which]
    keywords = {**valid, **VALID, **change}
    with pytest.raises(error):
        function(**keywords)
    if shape is not None:
        call_must_fail(function, keywords, error, words, np.full(shape, 7, np.float32))


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        ("input", {"input_size": (4, 5, 6)}, ["input_size|grad_output"]),
        ("input", {"input_size": (2, 4, 5, 7)}, ["input_size|grad_output", str(Y_SHAPE), "16)"]),
        ("input", {"input_size": (2, 6, 5, 6)}, ["(2, 6, 5, 6)", "(4, 3, 3, 3)"]),
        ("input", {"input_size": (5, 6)}, ["input_size", "(5, 6)"]),
        ("input", {"input_size": (2, 4, 5, 0)}, ["input_size", "(2, 4, 5, 0)"]),
        ("input", {"input_size": None}, ["input_size"]),
        ("input", {"weight": None}, ["weight"]),
        ("input", {"weight": W[0]}, ["weight", "(3, 3, 3)"]),
        ("weight", {"weight_size": (4, 3, 3, 4)}, ["weight_size|grad_output", str(Y_SHAPE), "15)"]),
        ("weight", {"weight_size": (4, 2, 3, 3)}, ["weight_size|grad_output", str(Y_SHAPE), "(2, 4, 12, 14)"]),
        ("weight", {"weight_size": (6, 3, 3, 3)}, ["(6, 3, 3, 3)", "(2, 4, 5, 6)"]),
        ("weight", {"weight_size": (4, 3, 0, 3)}, ["weight_size", "(4, 3, 0, 3)"]),
        ("weight", {"weight_size": 3}, ["weight_size"]),
        ("weight", {"input": X[0, 0]}, ["input", "(5, 6)"]),
        ("weight", {"input": None}, ["input"]),
    ],
)
def test_gradients_refuse_sizes_that_do_not_belong_together(which, change, words):
    function, valid, shape = GRADIENTS[which]
    keywords = {**valid, **VALID, **change}
    call_must_fail(function, keywords, (ValueError, TypeError), words, np.full(shape, 7, np.float32))


@pytest.mark.parametrize("g", [np.ones(4), np.ones((3, 4)), np.ones((1, 1, 2, 3, 4)), None, np.ones((1, 2, 3), object)])
def test_bias_gradient_refuses(g):
    with pytest.raises((ValueError, TypeError), match="grad_output"):
        grad.conv_transpose2d_bias(g)


def test_an_error_leaves_the_functions_usable():
    for _ in range(2):
        with pytest.raises(ValueError):
            pyconv.conv_transpose2d(X, W, B, stride=2, groups=2, output_padding=2)
        y = pyconv.conv_transpose2d(X, W, B, **VALID)
        oracle.assert_same_values(y, oracle.conv_transpose(X, W, B, **tuples(VALID, 2)))
