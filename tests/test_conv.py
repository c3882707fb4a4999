"""corr2d, conv1d, conv2d and conv3d."""

from __future__ import annotations

import dataclasses

import cases
import numpy as np
import oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import PADDING_MODES

import pyconv

CONV = {1: pyconv.conv1d, 2: pyconv.conv2d, 3: pyconv.conv3d}
FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
COMPUTED = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
    "complex64": "float32",
    "complex128": "float64",
}
METHODS = ("direct", "im2col")


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------
# Worked examples of the textbooks


def test_corr2d_three_by_three():
    x = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    k = np.array([[0, 1], [2, 3]], np.float32)
    y = pyconv.corr2d(x, k)
    oracle.assert_same_bits(y, np.array([[19, 25], [37, 43]], np.float32))


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS[1:])
def test_corr2d_three_by_three_in_every_dtype(dtype):
    x, k = np.arange(9).reshape(3, 3).astype(dtype), np.array([[0, 1], [2, 3]]).astype(dtype)
    expected = np.array([[19, 25], [37, 43]], dtype if dtype in FLOATS else np.int64)
    oracle.assert_same_bits(pyconv.corr2d(x, k), expected)


def test_edges_of_a_dark_bar():
    x = np.ones((6, 8), np.float32)
    x[:, 2:6] = 0
    k = np.array([[1, -1]], np.float32)
    expected = np.zeros((6, 7), np.float32)
    expected[:, 1], expected[:, 5] = 1, -1
    oracle.assert_same_values(pyconv.corr2d(x, k), expected)
    # Transposed, the image has no horizontal neighbours that differ.
    oracle.assert_same_values(pyconv.corr2d(x.T, k), np.zeros((8, 5), np.float32))


def test_edges_of_the_diagonal():
    x, k = np.eye(8, dtype=np.float32), np.array([[1, -1]], np.float32)
    expected = np.eye(8, 7, dtype=np.float32) - np.eye(8, 7, k=-1, dtype=np.float32)
    oracle.assert_same_values(pyconv.corr2d(x, k), expected)
    oracle.assert_same_values(pyconv.corr2d(x.T, k), expected)
    oracle.assert_same_values(pyconv.corr2d(x, k.T), expected.T)


def test_two_input_channels_and_a_stack_of_kernels():
    x = np.stack([np.arange(9.0).reshape(3, 3), 1 + np.arange(9.0).reshape(3, 3)])
    k = np.array([[[0.0, 1], [2, 3]], [[1, 2], [3, 4]]])
    first = [[56, 72], [104, 120]]
    oracle.assert_same_values(pyconv.conv2d(x, k[None]), np.array([first]))
    stack = np.stack([k, k + 1, k + 2])
    expected = np.array([first, [[76, 100], [148, 172]], [[96, 128], [192, 224]]])
    oracle.assert_same_values(pyconv.conv2d(x, stack), expected)
    oracle.assert_same_values(pyconv.conv2d(x[None], stack), expected[None])


def test_matrix_form_of_one_patch():
    x = np.array([[1.0, 0, 1], [1, 0, 1]])
    columns = pyconv.unfold(x, (2, 3))
    assert columns.shape == (6, 1)
    oracle.assert_same_values(np.ones((1, 6)) @ columns, np.array([[4.0]]))
    oracle.assert_same_values(pyconv.corr2d(x, np.ones((2, 3))), np.array([[4.0]]))


def test_matrix_form_equals_corr2d_with_patches_in_row_order():
    x, k = cases.integer_valued(rng(), (5, 6), float, 9), cases.integer_valued(rng(1), (2, 3), float, 9)
    y = pyconv.corr2d(x, k)
    for row in range(4):
        for column in range(4):
            assert y[row, column] == (x[row : row + 2, column : column + 3] * k).sum()
    oracle.assert_same_values((k.reshape(1, -1) @ pyconv.unfold(x, (2, 3))).reshape(4, 4), y)


def test_one_by_one_equals_the_matrix_product():
    x, w = (
        cases.integer_valued(rng(), (3, 5, 7), np.float32, 9),
        cases.integer_valued(rng(1), (4, 3), np.float32, 9),
    )
    expected = (w @ x.reshape(3, -1)).reshape(4, 5, 7)
    oracle.assert_same_bits(pyconv.conv2d(x, w[:, :, None, None]), expected)


@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "expected"),
    [
        ((3, 3), 1, 1, (8, 8)),
        ((5, 3), (2, 1), 1, (8, 8)),
        ((3, 3), 1, 2, (4, 4)),
        ((3, 5), (0, 1), (3, 5), (2, 2)),
        ((3, 3), "same", 1, (8, 8)),
        ((2, 4), "same", 3, (3, 3)),
        ((3, 3), "valid", 1, (6, 6)),
        ((3, 2), "full", 1, (10, 9)),
        ((3, 3), ((1, 0), (0, 2)), 1, (7, 8)),
    ],
)
def test_sizes(kernel, padding, stride, expected):
    x, k = np.ones((8, 8), np.float32), np.ones(kernel, np.float32)
    assert pyconv.corr2d(x, k, padding=padding, stride=stride).shape == expected
    y = pyconv.conv2d(x[None, None], k[None, None], padding=padding, stride=stride)
    assert y.shape == (1, 1, *expected)


def test_flipping_the_kernel_gives_strict_convolution():
    signal = pytest.importorskip("scipy.signal")
    x, k = cases.integer_valued(rng(), (7, 9), float, 9), cases.integer_valued(rng(1), (3, 4), float, 9)
    expected = signal.convolve2d(x, k, "full")
    oracle.assert_same_values(pyconv.corr2d(x, k[::-1, ::-1], padding="full"), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_complex_padding_value_around_a_real_image(method):
    x, w = np.array([[1.0, 2]]), np.array([[[1j, 1, 2]]])
    y = pyconv.conv1d(x, w, padding=1, padding_value=1j, method=method)
    oracle.assert_same_values(y, [[-1 + 1 + 4, 1j + 2 + 2j]])


# ------------------------------------------------------------------------------------------------
# Everything together, drawn by Hypothesis


@dataclasses.dataclass
class Problem:
    """A call of conv1d, conv2d or conv3d: the geometry, and how its arrays lie in memory."""

    batch: int | None
    channels: int
    outputs: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: object
    padding_mode: str
    bias: bool
    seed: int
    scalars: bool
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
        return (self.outputs, self.channels // self.groups, *self.kernel)

    @property
    def terms(self):
        return int(np.prod(self.w_shape[1:]))

    def geometry(self):
        """The keyword arguments of the public function."""
        keywords = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        if self.scalars:
            # One integer serves all axes where they agree.
            for name in ("stride", "dilation"):
                if len(set(keywords[name])) == 1:
                    keywords[name] = keywords[name][0]
        return {**keywords, "groups": self.groups, "padding_mode": self.padding_mode}

    def oracle_geometry(self):
        """The keyword arguments of the oracle."""
        return {
            "stride": self.stride,
            "padding": oracle.pairs(self.padding, self.size, self.kernel, self.stride, self.dilation),
            "dilation": self.dilation,
            "groups": self.groups,
            "boundary": PADDING_MODES[self.padding_mode],
        }

    def arrays(self, values, x_dtype, w_dtype=None, b_dtype=None):
        """Input, weight and bias (or None) filled by values(rng, shape, dtype), in C order."""
        generator = rng(self.seed)
        w_dtype = w_dtype or x_dtype
        x = values(generator, self.x_shape, x_dtype)
        w = values(generator, self.w_shape, w_dtype)
        bias = values(generator, (self.outputs,), b_dtype or w_dtype) if self.bias else None
        return x, w, bias

    def batched(self, a):
        return a[None] if self.batch is None else a

    def unbatched(self, y):
        return y[0] if self.batch is None else y

    def expected(self, x, w, bias, dtype, cval=0):
        """The oracle's answer in the arithmetic of `dtype`."""
        x, w = np.asarray(x, dtype), np.asarray(w, dtype)
        bias = None if bias is None else np.asarray(bias, dtype)
        return self.unbatched(oracle.correlate(self.batched(x), w, bias, cval=cval, **self.oracle_geometry()))

    def call(self, x, w, bias, *, hostile=True, **keywords):
        """Call the function with hostile arrays; see that it leaves them alone and fills and returns out=."""
        arrays = [x, w, bias]
        if hostile:
            arrays = [
                None if a is None else cases.lay_out(a, layout)
                for a, layout in zip(arrays, self.layouts, strict=True)
            ]
            keywords = {"workers": self.workers, **keywords}
        y = CONV[self.ndim](*arrays, **self.geometry(), **keywords)
        if hostile and self.out_layout is not None and "out" not in keywords:
            out = cases.lay_out(cases.poison(y.shape, y.dtype), self.out_layout)
            assert CONV[self.ndim](*arrays, **self.geometry(), **keywords, out=out) is out
            oracle.assert_same_bits(out.astype(y.dtype), y)
        for before, after in zip((x, w, bias), arrays, strict=True):
            if before is not None:
                oracle.assert_same_values(after, before)
        return y


@st.composite
def problems(draw, max_ndim=3, modes=tuple(PADDING_MODES), wide=40):
    """Any legal geometry, small enough for the oracle."""
    ndim = draw(st.integers(1, max_ndim))
    groups = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 4 if ndim < 3 else 3)) for _ in range(ndim))
    stride = tuple(draw(st.integers(1, 4)) for _ in range(ndim))
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    amount = st.integers(0, 5)
    padding = draw(
        st.one_of(
            amount,
            st.tuples(*[amount] * ndim),
            st.tuples(*[st.tuples(amount, amount)] * ndim),
            st.sampled_from(["valid", "full", "same", "same_upper", "same_lower"]),
        )
    )
    size = []
    for axis in range(ndim):
        reach = dilation[axis] * (kernel[axis] - 1)
        if isinstance(padding, str):
            total = 0 if padding == "valid" else reach
        else:
            total = sum(oracle.pairs(padding, (1,) * ndim, kernel, stride, dilation)[axis])
        extra = draw(st.integers(0, wide if axis == ndim - 1 else 6))
        size.append(max(1, reach + 1 - total) + extra)
    return Problem(
        batch=draw(st.one_of(st.none(), st.integers(0, 3))),
        channels=groups * draw(st.integers(1, 3)),
        outputs=groups * draw(st.integers(1, 5)),
        groups=groups,
        size=tuple(size),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        padding_mode=draw(st.sampled_from(modes)),
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
        scalars=draw(st.booleans()),
        layouts=tuple(draw(st.sampled_from(sorted(cases.LAYOUTS))) for _ in range(3)),
        out_layout=draw(st.one_of(st.none(), st.sampled_from(cases.OUT_LAYOUTS))),
        workers=draw(st.integers(1, 3)),
    )


def nine(generator, shape, dtype):
    return cases.integer_valued(generator, shape, dtype, 9)


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems(), dtype=st.sampled_from(FLOATS[1:]), padding_value=st.integers(-9, 9))
def test_integer_valued_data_is_exact(method, problem, dtype, padding_value):
    x, w, bias = problem.arrays(nine, dtype)
    if PADDING_MODES[problem.padding_mode] != "constant":
        padding_value = 0
    y = problem.call(x, w, bias, method=method, padding_value=float(padding_value))
    exact = problem.expected(x, w, bias, np.complex128 if y.dtype.kind == "c" else np.float64, padding_value)
    assert y.dtype == dtype
    oracle.assert_same_values(y, exact)


@given(problem=problems(), shift=st.integers(-24, 12))
def test_float16_is_the_exact_sum_rounded_once(problem, shift):
    # The sums are exact in float32; the one rounding left includes overflow to Inf and subnormals.
    x, w, bias = problem.arrays(nine, "float16")
    x = np.ldexp(x, shift)
    bias = None
    y = problem.call(x, w, bias, method="direct")
    exact = problem.expected(x, w, bias, np.float64)
    with np.errstate(over="ignore"):
        oracle.assert_same_bits(y, exact.astype(np.float16))


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems(wide=20), dtype=st.sampled_from(FLOATS), padding_value=st.sampled_from([0.0, 0.375]))
def test_error_stays_within_the_bound(method, problem, dtype, padding_value):
    x, w, bias = problem.arrays(cases.normal, dtype)
    if PADDING_MODES[problem.padding_mode] != "constant":
        padding_value = 0.0
    y = problem.call(x, w, bias, method=method, padding_value=padding_value)
    assert y.dtype == dtype
    oracle.assert_correlation(
        problem.batched(y),
        problem.batched(x),
        w,
        bias,
        computed=COMPUTED[dtype],
        cval=padding_value,
        **problem.oracle_geometry(),
    )


@given(problem=problems(wide=20), dtype=st.sampled_from(["float32", "float64"]))
def test_error_stays_within_the_bound_over_many_decades(problem, dtype):
    def decades(generator, shape, dtype):
        return (generator.standard_normal(shape) * 10.0 ** generator.uniform(-6, 6, shape)).astype(dtype)

    x, w, bias = problem.arrays(decades, dtype)
    y = problem.call(x, w, bias, method="direct")
    oracle.assert_correlation(
        problem.batched(y), problem.batched(x), w, bias, computed=dtype, **problem.oracle_geometry()
    )


@given(problem=problems(), dtype=st.sampled_from(FLOATS))
def test_direct_and_im2col_have_identical_bits(problem, dtype):
    x, w, bias = problem.arrays(cases.normal, dtype)
    oracle.assert_same_bits(
        problem.call(x, w, bias, method="im2col"), problem.call(x, w, bias, method="direct", hostile=False)
    )


@given(problem=problems(), dtype=st.sampled_from(FLOATS + INTEGERS))
def test_memory_layout_and_threads_do_not_change_the_bits(problem, dtype):
    x, w, bias = problem.arrays(nine if dtype in INTEGERS else cases.normal, dtype)
    expected = problem.call(x, w, bias, hostile=False, workers=1)
    oracle.assert_same_bits(problem.call(x, w, bias), expected)


@given(problem=problems(), dtype=st.sampled_from(FLOATS))
def test_auto_is_within_the_bound_of_the_norm(problem, dtype):
    # "auto" may take a method whose error is bounded by the largest |x| * |w| only.
    x, w, bias = problem.arrays(cases.normal, dtype)
    y = problem.call(x, w, bias)
    assume(y.size)
    wide = np.complex128 if y.dtype.kind == "c" else np.float64
    exact = problem.expected(x, w, bias, wide)
    magnitude = problem.expected(abs(x), abs(w), None if bias is None else abs(bias), np.float64).max()
    real = np.finfo(dtype).dtype.name
    terms = problem.terms * (2 if wide is np.complex128 else 1)
    bound = float(oracle.error_bound(float(magnitude), terms, COMPUTED[dtype], real))
    # The oracle's own float64 rounding is allowed once more.
    assert abs(y - exact).max() <= 2 * bound


# ------------------------------------------------------------------------------------------------
# Larger shapes: blocks of channels, many rows, flattened small maps, whole vectors and ragged ends


LARGER = [
    # x shape, weight shape, keywords
    ((1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    ((1, 256, 14, 14), (48, 256, 3, 3), {"padding": 1}),
    ((2, 512, 7, 7), (96, 512, 3, 3), {"padding": 1}),
    ((1, 1500, 9, 11), (5, 1500, 3, 3), {"padding": 1}),
    ((1, 3, 61, 67), (17, 3, 7, 7), {"padding": 3, "stride": 2}),
    ((1, 64, 33, 33), (32, 64, 3, 3), {"padding": 12, "dilation": 12}),
    ((1, 96, 31, 37), (96, 1, 5, 5), {"padding": 2, "groups": 96}),
    ((2, 96, 32, 31), (96, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 96}),
    ((1, 32, 19, 23), (64, 1, 3, 3), {"padding": 1, "groups": 32}),
    ((1, 64, 20, 21), (64, 2, 3, 3), {"padding": 1, "groups": 32}),
    ((1, 96, 25, 27), (70, 96, 1, 1), {}),
    ((1, 96, 25, 27), (70, 96, 1, 1), {"stride": 2}),
    ((8, 20, 12, 12), (50, 20, 5, 5), {}),
    ((1, 8, 64, 64), (8, 8, 4, 4), {"padding": 1, "stride": 2}),
    ((1, 1, 301, 517), (1, 1, 3, 3), {"padding": 1}),
    ((1, 1, 130, 1031), (1, 1, 11, 11), {"padding": 5}),
    ((1, 1, 90, 100), (1, 1, 31, 31), {"padding": 15}),
    ((1, 1, 70, 75), (1, 1, 63, 63), {"padding": "same"}),
    ((1, 1, 3, 70000), (2, 1, 3, 5), {"padding": 2}),
    ((1, 1, 70000, 3), (2, 1, 5, 3), {"padding": 2}),
    ((1, 3, 200, 210), (8, 3, 5, 5), {"padding": 2}),
    ((2, 6, 5000), (7, 6, 9), {"padding": 4}),
    ((1, 1, 100000), (1, 1, 25), {"padding": "same"}),
    ((1, 4, 1000), (3, 4, 300), {"dilation": 2}),
    ((1, 8, 12, 13, 14), (9, 8, 3, 3, 3), {"padding": 1}),
    ((1, 3, 16, 17, 18), (4, 3, 3, 2, 4), {"padding": "same", "stride": (2, 1, 3), "dilation": (1, 2, 1)}),
]


def larger_id(case):
    return "-".join(["x".join(map(str, case[0])), "x".join(map(str, case[1]))])


@pytest.mark.parametrize("case", LARGER, ids=map(larger_id, LARGER))
def test_larger_shapes_are_exact(case):
    x_shape, w_shape, keywords = case
    # The sums stay below 2**24: float32 must be exact.
    largest = 3
    assert largest**2 * np.prod(w_shape[1:]) < 2**24
    x = cases.integer_valued(rng(), x_shape, np.float32, largest)
    w = cases.integer_valued(rng(1), w_shape, np.float32, largest)
    bias = cases.integer_valued(rng(2), w_shape[0], np.float32, 9)
    conv = CONV[len(x_shape) - 2]
    boundaries = ("constant",) if keywords.get("padding", 0) == 0 else ("constant", "mirror", "wrap")
    for boundary in boundaries:
        exact = oracle.correlate(
            x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64), boundary=boundary, **keywords
        )
        y = conv(x, w, bias, padding_mode=boundary, method="direct", **keywords)
        oracle.assert_same_bits(y, exact.astype(np.float32))
    y = conv(x, w, bias, padding_mode=boundary, method="im2col", **keywords)
    oracle.assert_same_bits(y, exact.astype(np.float32))


@pytest.mark.parametrize("dtype", FLOATS + ("uint8", "int64"))
@pytest.mark.parametrize(
    "case",
    [
        ((2, 9, 21, 35), (11, 9, 3, 3), {"padding": 1}),
        ((1, 1, 61, 75), (1, 1, 5, 5), {"padding": 2}),
        ((1, 20, 17, 19), (20, 1, 3, 3), {"padding": 1, "groups": 20}),
        ((1, 2, 31, 33), (3, 2, 4, 3), {"padding": 1, "stride": 2, "dilation": 2}),
        ((2, 70, 6, 7), (40, 70, 3, 3), {"padding": 1}),
    ],
    ids=larger_id,
)
def test_every_dtype_is_exact_on_integer_valued_data(case, dtype):
    x_shape, w_shape, keywords = case
    x, w = cases.integer_valued(rng(), x_shape, dtype, 2), cases.integer_valued(rng(1), w_shape, dtype, 2)
    wide = {"c": np.complex128, "f": np.float64}.get(x.dtype.kind, np.int64)
    exact = oracle.correlate(x.astype(wide), w.astype(wide), **keywords)
    expected = exact.astype(dtype if dtype in FLOATS else np.int64)
    for method in METHODS:
        oracle.assert_same_bits(pyconv.conv2d(x, w, method=method, **keywords), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16", "uint8"])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout_of_a_larger_image(layout, dtype):
    x, w = (
        cases.integer_valued(rng(), (2, 3, 37, 41), dtype, 3),
        cases.integer_valued(rng(1), (4, 3, 3, 3), dtype, 3),
    )
    expected = pyconv.conv2d(x, w, padding=1, method="direct")
    y = pyconv.conv2d(cases.lay_out(x, layout), cases.lay_out(w, layout), padding=1, method="direct")
    oracle.assert_same_bits(y, expected)
    one = pyconv.corr2d(cases.lay_out(x[0, 0], layout), cases.lay_out(w[0, 0], layout))
    oracle.assert_same_bits(one, pyconv.corr2d(x[0, 0], w[0, 0]))
    if layout in cases.OUT_LAYOUTS:
        out = cases.lay_out(cases.poison(expected.shape, expected.dtype), layout)
        assert pyconv.conv2d(x, w, padding=1, method="direct", out=out) is out
        oracle.assert_same_values(out, expected)


def test_an_output_inside_a_larger_array_leaves_its_surroundings_alone():
    x, w = cases.normal(rng(), (2, 3, 19, 23), np.float32), cases.normal(rng(1), (5, 3, 3, 3), np.float32)
    frame = np.full((4, 9, 23, 27), 7, np.float32)
    out = frame[1:-1, 2:-2, 2:-2, 2:-2]
    pyconv.conv2d(x, w, padding=1, out=out)
    oracle.assert_same_bits(out.copy(), pyconv.conv2d(x, w, padding=1))
    out[...] = 7
    assert (frame == 7).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64"])
def test_hostile_values(dtype):
    k = np.array([[1, 0, 2], [0, 1, 1]], dtype)
    for name, x in cases.bases(dtype):
        if x.ndim != 2 or 0 in x.shape or (name == "extremes" and dtype == "int64"):
            continue
        for layout in cases.LAYOUTS:
            y = pyconv.corr2d(cases.lay_out(x, layout), k, padding=((1, 1), (1, 1)), padding_mode="edge")
            with np.errstate(over="ignore", invalid="ignore"):
                oracle.assert_same_bits(y, pyconv.corr2d(x, k, padding=1, padding_mode="replicate"))
                if name not in ("normal", "many decades"):
                    wide = np.float64 if y.dtype.kind == "f" else np.int64
                    exact = oracle.correlate(
                        x[None, None].astype(wide), k[None, None].astype(wide), padding=1, boundary="edge"
                    )[0, 0]
                    oracle.assert_same_values(y, exact.astype(y.dtype))


def test_size_one_axes():
    x, w = np.full((1, 1, 1, 1), 3.0), np.full((1, 1, 1, 1), 2.0)
    assert pyconv.conv2d(cases.lay_out(x, "odd_strides"), cases.lay_out(w, "odd_strides")).tolist() == [
        [[[6.0]]]
    ]
    x = np.arange(6.0).reshape(1, 1, 1, 6)
    for mode, boundary in PADDING_MODES.items():
        # A mirror on a size-1 axis repeats the element.
        y = pyconv.conv2d(
            cases.lay_out(x, "odd_strides"), np.ones((1, 1, 3, 3)), padding=(4, 9), padding_mode=mode
        )
        oracle.assert_same_values(
            y, oracle.correlate(x, np.ones((1, 1, 3, 3)), padding=(4, 9), boundary=boundary)
        )


def test_an_empty_batch_gives_an_empty_result():
    y = pyconv.conv2d(np.empty((0, 3, 8, 9), np.float32), np.ones((4, 3, 3, 3), np.float32), padding=1)
    assert y.shape == (0, 4, 8, 9)
    assert y.dtype == np.float32


def test_huge_broadcast_image_with_a_stride_as_huge():
    # 2**40 elements in one: index arithmetic in 64 bits, and no copy of the image.
    x = cases.huge_broadcast(np.float32(1), (2**20, 2**20))
    y = pyconv.corr2d(x, np.ones((3, 3), np.float32), stride=2**18)
    oracle.assert_same_values(y, np.full((4, 4), 9, np.float32))
    y = pyconv.corr2d(x, np.ones((2, 2), np.float32), stride=2**18, dilation=2**19)
    oracle.assert_same_values(y, np.full((2, 2), 4, np.float32))


# ------------------------------------------------------------------------------------------------
# Boundaries against SciPy


@pytest.mark.parametrize(
    ("padding_mode", "scipy_mode"),
    [
        ("zeros", "constant"),
        ("replicate", "nearest"),
        ("symmetric", "reflect"),
        ("reflect", "mirror"),
        ("wrap", "wrap"),
    ],
)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 1), (11, 13)])
@pytest.mark.parametrize("size", [(4, 5), (17, 40)])
def test_boundaries_agree_with_ndimage(padding_mode, scipy_mode, kernel, size):
    ndimage = pytest.importorskip("scipy.ndimage")
    x, k = cases.integer_valued(rng(), size, float, 9), cases.integer_valued(rng(1), kernel, float, 9)
    y = pyconv.corr2d(x, k, padding="same", padding_mode=padding_mode)
    oracle.assert_same_values(y, ndimage.correlate(x, k, mode=scipy_mode))


def test_padding_value_agrees_with_ndimage():
    ndimage = pytest.importorskip("scipy.ndimage")
    x, k = cases.integer_valued(rng(), (9, 8), float, 9), cases.integer_valued(rng(1), (3, 5), float, 9)
    y = pyconv.corr2d(x, k, padding="same", padding_mode="constant", padding_value=2.5)
    oracle.assert_same_values(y, ndimage.correlate(x, k, mode="constant", cval=2.5))


def test_a_photograph_agrees_with_ndimage():
    data, ndimage = pytest.importorskip("skimage.data"), pytest.importorskip("scipy.ndimage")
    x = data.camera()
    k = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    expected = ndimage.correlate(x.astype(np.int64), k, mode="mirror")
    oracle.assert_same_bits(pyconv.corr2d(x, k, padding=1, padding_mode="reflect"), expected)
    y = pyconv.corr2d(x.astype(np.float32), k, padding=1, padding_mode="reflect")
    oracle.assert_same_bits(y, expected.astype(np.float32))


# ------------------------------------------------------------------------------------------------
# dtypes


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "expected"),
    [
        # A floating input's dtype decides.
        ("float32", "float64", "float32"),
        ("float32", "int64", "float32"),
        ("float32", "float16", "float32"),
        ("float32", "uint8", "float32"),
        ("float64", "float32", "float64"),
        ("float16", "float64", "float16"),
        ("complex64", "float64", "complex64"),
        ("complex128", "float32", "complex128"),
        # Integers with integers are exact.
        ("uint8", "int8", "int64"),
        ("int16", "int64", "int64"),
        ("uint8", "uint8", "int64"),
        ("bool", "int64", "int64"),
        ("bool", "bool", "int64"),
        ("uint64", "uint64", "int64"),
        # Integers with floats follow NumPy.
        ("uint8", "float32", "float32"),
        ("uint8", "float16", "float16"),
        ("int16", "float32", "float32"),
        ("int32", "float32", "float64"),
        ("int64", "float32", "float64"),
        ("uint8", "float64", "float64"),
        ("int32", "complex64", "complex128"),
        ("uint8", "complex64", "complex64"),
        # Complex weights make the result complex.
        ("float32", "complex64", "complex64"),
        ("float64", "complex128", "complex128"),
    ],
)
@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_result_dtypes(x_dtype, w_dtype, expected, method):
    x, w = (
        cases.integer_valued(rng(), (2, 5, 7), x_dtype, 5),
        cases.integer_valued(rng(1), (3, 2, 2, 2), w_dtype, 5),
    )
    y = pyconv.conv2d(x, w, method=method)
    exact = oracle.correlate(x[None].astype(complex), w.astype(complex))[0]
    assert y.dtype == expected
    oracle.assert_same_values(y, exact if y.dtype.kind == "c" else exact.real)


def test_float64_weights_do_not_widen_a_float32_image():
    x = rng().standard_normal((1, 1, 6, 7)).astype(np.float32)
    w = np.ones((1, 1, 3, 3)) / 9
    y = pyconv.conv2d(x, w, method="direct")
    assert y.dtype == np.float32
    oracle.assert_same_bits(y, pyconv.conv2d(x, w.astype(np.float32), method="direct"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("x_dtype", ["uint8", "float32", "float64"])
def test_dtype_is_the_computing_and_the_output_dtype(x_dtype, dtype):
    x = (100 * cases.normal(rng(), (2, 6, 9), "float64")).astype(x_dtype)
    w = cases.normal(rng(1), (3, 2, 3, 3), "float64")
    bias = cases.normal(rng(2), (3,), "float64")
    y = pyconv.conv2d(x, w, bias, dtype=dtype, method="direct")
    assert y.dtype == dtype
    oracle.assert_correlation(
        y[None], x[None].astype(dtype), w.astype(dtype), bias.astype(dtype), computed=COMPUTED[dtype]
    )


def test_dtype_accepts_every_way_to_name_it():
    x = np.ones((4, 4), np.float32)
    for dtype in (np.float64, "float64", "f8", np.dtype("float64"), float):
        assert pyconv.corr2d(x, np.ones((2, 2)), dtype=dtype).dtype == np.float64


def test_float16_sums_are_not_rounded_on_the_way():
    # Partial sums far beyond 2048 and beyond 65504, a small result: only float32 accumulators get there, and
    # they must survive every block of channels.
    channels = 3000
    x = np.full((1, channels, 6, 7), 9, np.float16)
    w = np.ones((2, channels, 3, 3), np.float16)
    w[:, channels // 2 :] = -1
    w[:, 7] = 3
    for method in METHODS:
        y = pyconv.conv2d(x, w, method=method)
        oracle.assert_same_bits(y, np.full((1, 2, 4, 5), 9 * 9 * 2, np.float16))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2048, 1], 2048),  # a tie goes to even
        ([2050, 1], 2052),
        ([60000, 60000], np.inf),
        ([-60000, -60000], -np.inf),
        ([65504, 15], 65504),
        ([65504, 16], np.inf),
        ([2.0**-24, 2.0**-24], 2.0**-23),
    ],
)
def test_float16_rounds_to_nearest_even(values, expected):
    y = pyconv.conv1d(np.array([values], np.float16), np.ones((1, 1, 2), np.float16))
    oracle.assert_same_bits(y, np.array([[expected]], np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormals_are_kept(dtype, threads):
    tiny = np.finfo(dtype).smallest_subnormal
    x = (cases.integer_valued(rng(), (2, 8, 33, 35), dtype, 9) * tiny).astype(dtype)
    w = cases.integer_valued(rng(1), (4, 8, 3, 3), dtype, 9)
    exact = oracle.correlate((x / tiny).astype(dtype), w, padding=1) * tiny
    for method in METHODS:
        y = pyconv.conv2d(x, w, padding=1, workers=threads, method=method)
        oracle.assert_same_values(y, exact)
    # The process's own arithmetic is left alone as well.
    assert np.dtype(dtype).type(tiny) * np.dtype(dtype).type(1) == tiny


def test_complex_is_not_conjugated():
    x, w = np.array([[1j, 2, 3j]]), np.array([[[1j, 1 - 1j]]])
    oracle.assert_same_values(pyconv.conv1d(x, w), np.array([[1 - 2j, 2j + 3j + 3]]))


# ------------------------------------------------------------------------------------------------
# Exact integers


@pytest.mark.parametrize("method", METHODS)
@given(
    problem=problems(wide=20),
    x_dtype=st.sampled_from(INTEGERS),
    w_dtype=st.sampled_from(INTEGERS),
    data=st.data(),
)
def test_integers_are_exact_up_to_int64(method, problem, x_dtype, w_dtype, data):
    # Extremes of both dtypes, scaled down only so far that no sum could pass 2**63, whatever values an image
    # of up to 32 bits a pixel has.
    def extremes(generator, shape, dtype):
        if dtype == "bool":
            return generator.integers(0, 1, shape, endpoint=True).astype(bool)
        info = np.iinfo(dtype)
        low, high = -min(-info.min, limit), min(info.max, limit)
        values = generator.integers(low, high, shape, endpoint=True)
        return np.where(generator.random(shape) < 0.5, generator.choice([low, high], shape), values).astype(
            dtype
        )

    limit = data.draw(st.sampled_from([2**62 // problem.terms, 2**30, 2**12 + 1, 100]))
    generator = rng(problem.seed)
    x = extremes(generator, problem.x_shape, x_dtype)
    largest = int(abs(x.astype(object)).max(initial=1))
    if x.dtype.kind in "iu" and x.dtype.itemsize <= 4:
        largest = max(np.iinfo(x_dtype).max, -np.iinfo(x_dtype).min)
    limit = max(1, 2**62 // problem.terms // max(1, largest))
    w = extremes(generator, problem.w_shape, w_dtype)
    limit = 2**61
    bias = extremes(generator, (problem.outputs,), "int64") if problem.bias else None
    y = problem.call(x, w, bias, method=method)
    exact = problem.expected(x, w, bias, object)
    assert y.dtype == np.int64
    oracle.assert_same_values(y, exact.astype(np.int64))


@pytest.mark.parametrize("x_dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
@pytest.mark.parametrize("bits", [24, 53])
def test_integers_are_exact_on_both_sides_of_a_floating_tile(x_dtype, bits):
    # sum(|w|) * range(x) just below and just above what float32 or float64 hold exactly, with odd sums.
    info = np.iinfo(x_dtype)
    largest = max(info.max, -info.min)
    for total in (
        2**bits // largest - 1,
        2**bits // largest,
        2**bits // largest + 1,
        3 * (2**bits // largest),
    ):
        w = np.array([[[total - total // 2 - 1, 1, total // 2]]], np.int64)
        x = np.full((1, 40), info.max, x_dtype)
        x[0, ::3] = info.max - 1
        if info.min:
            x[0, ::2] = info.min
        exact = oracle.correlate(x[None].astype(object), w.astype(object))[0]
        for bias in (None, np.array([1]), np.array([2**bits + 1])):
            expected = (exact if bias is None else exact + int(bias[0])).astype(np.int64)
            oracle.assert_same_bits(pyconv.conv1d(x, w, bias), expected)


@pytest.mark.parametrize("padding_value", [1, -1, 255, 256, -5, 2**24 + 1, 2**40 + 1])
def test_an_integer_padding_value_is_exact_or_refused(padding_value):
    # A value that the image's dtype cannot hold must not be wrapped into it, nor spoil the exactness.
    x, w = np.arange(9, dtype=np.uint8).reshape(3, 3), np.array([[1, 1, 2], [3, 5, 7], [11, 13, 1]], np.int64)
    try:
        y = pyconv.corr2d(x, w, padding=2, padding_mode="constant", padding_value=padding_value)
    except (ValueError, TypeError) as error:
        assert not 0 <= padding_value <= 255
        assert "padding_value" in str(error)
        return
    exact = oracle.correlate(x[None, None].astype(np.int64), w[None, None], padding=2, cval=padding_value)[
        0, 0
    ]
    oracle.assert_same_bits(y, exact)


NARROW = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
OVERFLOWS = [
    # x, w, the true sums
    ([2**62], [2], [2**63]),
    ([2**62, 2**62], [1, 1], [2**63]),
    ([-(2**63), -1], [1, 1], [-(2**63) - 1]),
    ([-(2**63)], [-1], [2**63]),
    ([2**62 + 12345], [-7], [-7 * (2**62 + 12345)]),
    ([2**63 - 1] * 5, [2**63 - 1] * 5, [5 * (2**63 - 1) ** 2]),
    ([2**63 - 1, 5], [1], [2**63 - 1, 5]),
    ([-(2**63) + 1, 5], [1], [-(2**63) + 1, 5]),
]


def saturated(values, dtype):
    info = np.iinfo(dtype)
    return np.array([min(max(v, info.min), info.max) for v in values], dtype)


def wrapped(values, dtype):
    info = np.iinfo(dtype)
    return np.array([(v - info.min) % 2**info.bits + info.min for v in values], object).astype(dtype)


@pytest.mark.parametrize(("x", "w", "sums"), OVERFLOWS)
def test_overflow_of_int64(x, w, sums):
    x, w = np.array([x], np.int64), np.array([[w]], np.int64)
    fits = all(-(2**63) <= v < 2**63 for v in sums)
    for keywords in ({}, {"overflow": "raise"}):
        if fits:
            oracle.assert_same_values(pyconv.conv1d(x, w, **keywords)[0], np.array(sums))
        else:
            with pytest.raises(OverflowError, match="overflow"):
                pyconv.conv1d(x, w, **keywords)
    oracle.assert_same_bits(pyconv.conv1d(x, w, overflow="saturate")[0], saturated(sums, np.int64))
    oracle.assert_same_bits(pyconv.conv1d(x, w, overflow="wrap")[0], wrapped(sums, np.int64))


def test_overflow_on_the_way_to_a_sum_that_fits():
    x, w = np.full((1, 3), 2**62), np.array([[[1, 1, -1]]])
    try:
        # The sum could pass 2**63, so an error is right too; a wrong number is not.
        assert pyconv.conv1d(x, w).tolist() == [[2**62]]
    except OverflowError:
        pass
    assert pyconv.conv1d(x, w, overflow="saturate").tolist() == [[2**62]]
    assert pyconv.conv1d(x, w, overflow="wrap").tolist() == [[2**62]]


def test_overflow_through_the_bias():
    x, w, bias = np.array([[2**62]]), np.array([[[1]]]), np.array([2**62])
    with pytest.raises(OverflowError):
        pyconv.conv1d(x, w, bias)
    assert pyconv.conv1d(x, w, bias, overflow="saturate").tolist() == [[2**63 - 1]]
    assert pyconv.conv1d(x, w, bias, overflow="wrap").tolist() == [[-(2**63)]]


def test_overflow_of_uint64_input():
    x, w = np.array([[2**64 - 1, 2**63, 7]], np.uint64), np.array([[[1]]])
    with pytest.raises(OverflowError):
        pyconv.conv1d(x, w)
    assert pyconv.conv1d(x, w, overflow="saturate").tolist() == [[2**63 - 1, 2**63 - 1, 7]]
    assert pyconv.conv1d(x, w, overflow="wrap").tolist() == [[-1, -(2**63), 7]]
    x = np.array([[2**63 - 1, 7]], np.uint64)
    assert pyconv.conv1d(x, w).tolist() == [[2**63 - 1, 7]]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "uint64"])
@pytest.mark.parametrize("through", ["dtype", "out"])
def test_overflow_of_a_narrower_result(dtype, through):
    x, w = np.array([[0, 100, 27, -100, 3 * 10**9, -(2**40) - 1]]), np.array([[[1]]])

    def call(x, **keywords):
        if through == "dtype":
            return pyconv.conv1d(x, w, dtype=dtype, **keywords)
        return pyconv.conv1d(x, w, out=np.zeros(x.shape, dtype), **keywords)

    with pytest.raises(OverflowError):
        call(x)
    values = x[0].tolist()
    oracle.assert_same_bits(call(x, overflow="saturate")[0], saturated(values, dtype))
    oracle.assert_same_bits(call(x, overflow="wrap")[0], wrapped(values, dtype))
    # What fits is not refused.
    oracle.assert_same_bits(call(x[:, :3]), x[:, :3].astype(dtype))


@given(
    x=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=9),
    w=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
    shift=st.integers(0, 62),
)
def test_overflow_rules_on_any_int64(x, w, shift):
    w = [v >> shift for v in w]
    x, w = np.array([[x]], object), np.array([[w]], object)
    exact, largest = oracle.correlate(x, w)[0, 0], abs(x).max() * abs(w).sum()
    x, w = x[0].astype(np.int64), w.astype(np.int64)
    try:
        y = pyconv.conv1d(x, w)
    except OverflowError:
        assert largest >= 2**63
    else:
        oracle.assert_same_values(y[0], exact)
    oracle.assert_same_bits(pyconv.conv1d(x, w, overflow="saturate")[0], saturated(exact, np.int64))
    oracle.assert_same_bits(pyconv.conv1d(x, w, overflow="wrap")[0], wrapped(exact, np.int64))


@given(data=st.data())
def test_overflow_rules_on_narrow_integers(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype, target = (np.dtype(data.draw(st.sampled_from(NARROW))) for _ in range(2))
    info, limits = np.iinfo(dtype), np.iinfo(target)
    x = rng.choice(np.array([info.min, info.max, 0, 1], dtype), (9, data.draw(st.integers(9, 600))))
    largest = data.draw(st.sampled_from((1, 20, 2**15, 2**40 if info.bits < 16 else 2**20)))
    w = rng.integers(-largest if data.draw(st.booleans()) else 0, largest, (3, 3), endpoint=True)
    exact = oracle.correlate(x.astype(object)[None, None], w.astype(object)[None, None], padding=1)[0, 0]
    fits = limits.min <= exact.min() and exact.max() <= limits.max
    for settings in ({"dtype": target}, {"out": np.full(x.shape, 7, target)}):
        if fits:
            oracle.assert_same_bits(pyconv.corr2d(x, w, padding=1, **settings), exact.astype(target))
        else:
            with pytest.raises(OverflowError, match="do not fit"):
                pyconv.corr2d(x, w, padding=1, **settings)
            assert np.all(settings.get("out", 7) == 7)
        clipped = pyconv.corr2d(x, w, padding=1, overflow="saturate", **settings)
        oracle.assert_same_bits(clipped, np.clip(exact, limits.min, limits.max).astype(target))
        around = pyconv.corr2d(x, w, padding=1, overflow="wrap", **settings)
        oracle.assert_same_bits(around.ravel(), wrapped(exact.ravel().tolist(), target))


def test_out_is_untouched_when_a_sum_overflows():
    # The sum that overflows is the last of many.
    x, w = np.ones((40, 3000), np.int64), np.ones((2, 2), np.int64)
    x[-1, -1] = 2**63 - 1
    out = np.full((39, 2999), 7)
    with pytest.raises(OverflowError):
        pyconv.corr2d(x, w, out=out)
    assert (out == 7).all()
    narrow = np.full((39, 2999), 7, np.uint8)
    with pytest.raises(OverflowError):
        pyconv.corr2d(np.where(x > 1, 255, x), w, out=narrow)
    assert (narrow == 7).all()


# ------------------------------------------------------------------------------------------------
# NaN and Inf


@pytest.mark.parametrize("method", ["auto", *METHODS])
@given(
    problem=problems(),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    spoil=st.lists(st.tuples(st.floats(0, 0.999), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=4),
)
def test_non_finite_inputs_spoil_their_windows_and_no_others(method, problem, dtype, spoil):
    x, w, bias = problem.arrays(nine, dtype)
    for where, value in spoil:
        if x.size:
            x.reshape(-1)[int(where * x.size)] = value
    y = problem.call(x, w, bias, method=method)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = problem.expected(x, w, bias, np.float64)
    oracle.assert_same_class(y, exact)
    if method != "auto":
        oracle.assert_same_values(y, exact.astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
@pytest.mark.parametrize("method", METHODS)
def test_nan_in_a_larger_image(dtype, method):
    x, w = (
        cases.integer_valued(rng(), (2, 9, 40, 53), dtype, 5),
        cases.integer_valued(rng(1), (7, 9, 3, 3), dtype, 5),
    )
    x[0, 4, 17, 20] = x[1, 8, 39, 52] = np.nan
    y = pyconv.conv2d(x, w, padding=1, method=method)
    exact = oracle.correlate(x, w, padding=1)
    oracle.assert_same_class(y, exact)
    spoiled = np.isnan(y).any(axis=1)
    assert spoiled[0, 16:19, 19:22].all()
    assert spoiled[1, 38:, 51:].all()
    assert spoiled.sum() == 13


def test_zero_times_nan_is_nan():
    x = np.ones((5, 6), np.float32)
    x[2, 3] = np.nan
    x[4, 0] = np.inf
    y = pyconv.corr2d(x, np.zeros((2, 2), np.float32))
    expected = np.zeros((4, 5), bool)
    expected[1:3, 2:4] = True
    expected[3, 0] = True
    oracle.assert_same_values(np.isnan(y), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_non_finite_weights_and_bias(value, method):
    x, w = (
        cases.integer_valued(rng(), (3, 9, 21), np.float32, 5),
        cases.integer_valued(rng(1), (4, 3, 3, 3), np.float32, 5),
    )
    w[1, 2, 0, 1] = value
    with np.errstate(invalid="ignore"):
        exact = oracle.correlate(x[None], w)[0]
        y = pyconv.conv2d(x, w, method=method)
        oracle.assert_same_values(y, exact)
        bias = np.array([0, 1, value, 2], np.float32)
        oracle.assert_same_values(pyconv.conv2d(x, w, bias, method=method), exact + bias[:, None, None])


def test_nan_padding_value():
    y = pyconv.corr2d(
        np.ones((4, 5)), np.ones((3, 3)), padding=1, padding_mode="constant", padding_value=np.nan
    )
    expected = np.full((4, 5), np.nan)
    expected[1:-1, 1:-1] = 9
    oracle.assert_same_values(y, expected)


# ------------------------------------------------------------------------------------------------
# Determinism


DETERMINISTIC = [
    ((3, 8, 64, 67), (9, 8, 3, 3), {"padding": 1}),
    ((1, 1, 301, 517), (1, 1, 5, 5), {"padding": 2, "padding_mode": "reflect"}),
    ((5, 70, 7, 7), (66, 70, 3, 3), {"padding": 1}),
    ((3, 1200, 7, 9), (8, 1200, 3, 3), {"padding": 1}),
    ((2, 48, 30, 31), (48, 1, 3, 3), {"padding": 1, "groups": 48}),
    ((2, 33, 40, 41), (35, 33, 1, 1), {}),
    ((3, 4, 40, 41), (6, 2, 4, 3), {"stride": 2, "dilation": 2, "padding": 3, "groups": 2}),
    ((2, 3, 4000), (5, 3, 7), {"padding": "same"}),
    ((2, 3, 11, 12, 13), (5, 3, 3, 3, 3), {"padding": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16"])
@pytest.mark.parametrize("case", DETERMINISTIC, ids=map(larger_id, DETERMINISTIC))
def test_same_bits_for_any_threads_batch_and_layout(case, dtype, threads):
    x_shape, w_shape, keywords = case
    x, w, bias = (
        cases.normal(rng(i), shape, dtype) for i, shape in enumerate([x_shape, w_shape, w_shape[:1]])
    )
    conv = CONV[len(x_shape) - 2]
    expected = conv(x, w, bias, workers=1, **keywords)
    oracle.assert_same_bits(conv(x, w, bias, workers=threads, **keywords), expected)
    with pyconv.set_workers(threads):
        oracle.assert_same_bits(conv(x, w, bias, **keywords), expected)
    for n in range(len(x)):
        oracle.assert_same_bits(conv(x[n], w, bias, workers=threads, **keywords), expected[n])
        oracle.assert_same_bits(conv(x[n : n + 1], w, bias, workers=threads, **keywords), expected[n : n + 1])
    doubled = conv(np.concatenate([x, x]), w, bias, workers=threads, **keywords)
    oracle.assert_same_bits(doubled[len(x) :], expected)
    for layout in ("strided", "reversed", "permuted", "record"):
        oracle.assert_same_bits(
            conv(cases.lay_out(x, layout), w, bias, workers=threads, **keywords), expected
        )


# ------------------------------------------------------------------------------------------------
# Calling


def test_positional_order_is_pytorchs():
    x, w, bias = np.arange(60.0).reshape(1, 4, 15), np.ones((2, 2, 3)), np.array([1.0, 2])
    by_name = pyconv.conv1d(x, w, bias=bias, stride=2, padding=3, dilation=4, groups=2)
    oracle.assert_same_bits(pyconv.conv1d(x, w, bias, 2, 3, 4, 2), by_name)
    oracle.assert_same_values(
        by_name, oracle.correlate(x, w, bias, stride=2, padding=3, dilation=4, groups=2)
    )
    oracle.assert_same_bits(
        pyconv.conv1d(input=x, weight=w, bias=bias, stride=2, padding=3, dilation=4, groups=2), by_name
    )


def test_what_pytorch_does_not_have_is_keyword_only():
    x, w = np.ones((1, 1, 5)), np.ones((1, 1, 3))
    with pytest.raises(TypeError):
        pyconv.conv1d(x, w, None, 1, 0, 1, 1, "zeros")
    with pytest.raises(TypeError):
        pyconv.corr2d(np.ones((3, 3)), np.ones((2, 2)), 2)


def test_numpy_integers_are_integers():
    x, w = np.arange(20.0).reshape(1, 1, 20), np.ones((1, 1, 3))
    one, two = np.int64(1), np.uint8(2)
    y = pyconv.conv1d(x, w, stride=two, padding=np.array([1]), dilation=[two], groups=one)
    oracle.assert_same_bits(y, pyconv.conv1d(x, w, stride=2, padding=1, dilation=2))


def test_corr2d_is_conv2d_of_one_channel():
    x, k = cases.normal(rng(), (9, 11), np.float32), cases.normal(rng(1), (3, 2), np.float32)
    keywords = {"stride": (1, 2), "padding": ((1, 2), (0, 1)), "dilation": (2, 1), "padding_mode": "circular"}
    expected = pyconv.conv2d(x[None, None], k[None, None], **keywords)[0, 0]
    oracle.assert_same_bits(pyconv.corr2d(x, k, **keywords), expected)
    out = np.empty(expected.shape, np.float32)
    assert pyconv.corr2d(x, k, **keywords, out=out, workers=1, method="direct") is out
    assert pyconv.corr2d(x, k, **keywords, dtype=np.float64).dtype == np.float64


def test_the_result_is_a_new_array():
    x = np.arange(12.0).reshape(3, 4)
    y = pyconv.corr2d(x, np.ones((1, 1)))
    assert not np.shares_memory(x, y)
    assert y.flags.writeable
    oracle.assert_same_bits(y, x)


@pytest.mark.parametrize("shift", [0, 1, 5])
def test_an_output_that_shares_memory_with_the_input_is_refused_or_right(shift):
    memory = np.arange(130.0)
    x, out = memory[:120].reshape(10, 12), memory[shift : shift + 120].reshape(10, 12)
    before, k = x.copy(), np.ones((3, 3))
    expected = pyconv.corr2d(before, k, padding=1)
    try:
        pyconv.corr2d(x, k, padding=1, out=out)
    except ValueError as error:
        assert "out" in str(error)
        oracle.assert_same_bits(x, before)
    else:
        oracle.assert_same_bits(out, expected)


def test_an_output_that_shares_memory_with_weight_or_bias_is_refused_or_right():
    x, memory = np.arange(36.0).reshape(1, 6, 6), np.arange(16.0)
    w, out = memory[:9].reshape(1, 1, 3, 3), memory.reshape(1, 4, 4)
    expected = pyconv.conv2d(x, w.copy())
    try:
        pyconv.conv2d(x, w, out=out)
    except ValueError as error:
        assert "out" in str(error)
    else:
        oracle.assert_same_bits(out, expected)
