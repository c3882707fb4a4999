"""The tests' own tools: the oracle against textbook values, NumPy, SciPy and scikit-image.

Every comparator must fail on a planted difference.
"""

import itertools
import signal
import sys
from fractions import Fraction

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

NUMPY_PAD_MODES = {
    "constant": "constant",
    "edge": "edge",
    "symmetric": "symmetric",
    "mirror": "reflect",
    "wrap": "wrap",
}
NDIMAGE_MODES = {
    "constant": "constant",
    "edge": "nearest",
    "symmetric": "reflect",
    "mirror": "mirror",
    "wrap": "wrap",
}


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------
# Padding


@pytest.mark.parametrize(
    ("boundary", "left", "right"),
    [
        ("symmetric", "dcba", "dcba"),
        ("mirror", "dcb", "cba"),
        ("edge", "aaa", "ddd"),
        ("wrap", "bcd", "abc"),
        ("constant", "kkk", "kkk"),
    ],
)
def test_pad_draws_the_pictures_of_the_docs(boundary, left, right):
    letters = np.array([ord(c) for c in "abcd"])
    padded = oracle.pad(letters, [(len(left), len(right))], boundary, cval=ord("k"))
    assert "".join(map(chr, padded)) == left + "abcd" + right


@pytest.mark.parametrize(
    ("boundary", "left", "right"),
    [
        ("symmetric", "abccbaabccba", "cbaabccbaabc"),
        ("mirror", "abcbabcb", "babcbabc"),
        ("wrap", "bcabcabc", "abcabcab"),
        ("edge", "aaaaaaaa", "cccccccc"),
    ],
)
def test_pad_continues_the_picture_when_wider_than_the_axis(boundary, left, right):
    letters = np.array([ord(c) for c in "abc"])
    padded = oracle.pad(letters, [(len(left), len(right))], boundary)
    assert "".join(map(chr, padded)) == left + "abc" + right


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    widths=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=3),
    boundary=st.sampled_from(oracle.BOUNDARIES),
)
def test_pad_agrees_with_numpy(shape, widths, boundary):
    x = np.arange(np.prod(shape)).reshape(shape)
    widths = widths[: x.ndim]
    options = {"constant_values": 77} if boundary == "constant" else {}
    expected = np.pad(x, widths, NUMPY_PAD_MODES[boundary], **options)
    oracle.assert_same_values(oracle.pad(x, widths, boundary, cval=77), expected)


def test_pad_of_an_empty_axis():
    assert oracle.pad(np.empty((2, 0)), [(1, 2)], "constant", 5.0).tolist() == [[5.0] * 3] * 2
    with pytest.raises(ValueError, match="empty"):
        oracle.pad(np.empty((2, 0)), [(1, 0)], "edge")


@pytest.mark.parametrize(
    ("n", "k", "stride", "same", "same_lower"),
    [
        (8, 3, 1, (1, 1), (1, 1)),
        (8, 2, 1, (0, 1), (1, 0)),
        (8, 3, 2, (0, 1), (1, 0)),
        (7, 3, 2, (1, 1), (1, 1)),
        (5, 1, 3, (0, 0), (0, 0)),
        (224, 7, 2, (2, 3), (3, 2)),
    ],
)
def test_same_padding_puts_the_odd_one_where_tensorflow_and_onnx_do(n, k, stride, same, same_lower):
    assert oracle.pairs("same", (n,), (k,), (stride,), (1,)) == [same]
    assert oracle.pairs("same_upper", (n,), (k,), (stride,), (1,)) == [same]
    assert oracle.pairs("same_lower", (n,), (k,), (stride,), (1,)) == [same_lower]
    assert oracle.output_size((n,), (k,), (stride,), [same], (1,)) == (-(-n // stride),)


# ------------------------------------------------------------------------------------------------
# Correlation


def test_correlate_textbook():
    x = np.arange(9).reshape(1, 1, 3, 3)
    k = np.array([[0, 1], [2, 3]])
    assert oracle.correlate(x, k[None, None]).tolist() == [[[[19, 25], [37, 43]]]]
    both = np.concatenate([x, x + 1], axis=1)
    stack = np.stack([np.stack([k, k + 1]) + i for i in range(3)])
    expected = [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]]
    assert oracle.correlate(both, stack)[0].tolist() == expected


def correlate_by_definition(x, w, bias, stride, widths, dilation, groups, boundary, cval):
    """One output element at a time, one product at a time, with no padded array."""
    size, kernel = x.shape[2:], w.shape[2:]
    out_size = oracle.output_size(size, kernel, stride, widths, dilation)
    y = np.zeros((x.shape[0], w.shape[0], *out_size), object)
    for n, o, *position in np.ndindex(y.shape):
        group = o // (w.shape[0] // groups)
        total = 0
        for c, *tap in np.ndindex(w.shape[1:]):
            where = [
                oracle.source_index(p * s + t * d - before, m, boundary)
                for p, s, t, d, (before, _), m in zip(
                    position, stride, tap, dilation, widths, size, strict=True
                )
            ]
            value = cval if None in where else x[(n, group * w.shape[1] + c, *where)]
            total += int(value) * int(w[(o, c, *tap)])
        y[(n, o, *position)] = total + int(bias[o])
    return y


@given(data=st.data())
def test_correlate_agrees_with_the_definition(data):
    draw = data.draw
    ndim, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(ndim)]
    dilation = [draw(st.integers(1, 2)) for _ in range(ndim)]
    stride = [draw(st.integers(1, 3)) for _ in range(ndim)]
    widths = [(draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(ndim)]
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - sum(width)), 6))
        for k, d, width in zip(kernel, dilation, widths, strict=True)
    ]
    boundary = draw(st.sampled_from(oracle.BOUNDARIES))
    generator = rng(draw(st.integers(0, 99)))
    x = generator.integers(-9, 9, (2, 2 * groups, *size))
    w = generator.integers(-9, 9, (groups, 2, *kernel))
    bias = generator.integers(-9, 9, groups)
    actual = oracle.correlate(
        x, w, bias, stride=stride, padding=widths, dilation=dilation, groups=groups, boundary=boundary, cval=3
    )
    expected = correlate_by_definition(x, w, bias, stride, widths, dilation, groups, boundary, 3)
    oracle.assert_same_values(actual, expected)


@pytest.mark.parametrize("boundary", oracle.BOUNDARIES)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (9, 11)])
def test_correlate_agrees_with_ndimage(boundary, kernel):
    ndimage = pytest.importorskip("scipy.ndimage")
    x, w = rng().integers(-9, 9, (4, 5)).astype(float), rng(1).integers(-9, 9, kernel).astype(float)
    actual = oracle.correlate(
        x[None, None], w[None, None], padding=tuple(k // 2 for k in kernel), boundary=boundary, cval=2.0
    )
    oracle.assert_same_values(actual[0, 0], ndimage.correlate(x, w, mode=NDIMAGE_MODES[boundary], cval=2.0))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_correlate_agrees_with_signal(dtype):
    signal_ = pytest.importorskip("scipy.signal")
    x, w = cases.integer_valued(rng(), (6, 7), dtype, 9), cases.integer_valued(rng(1), (2, 3), dtype, 9)
    for mode in ("valid", "full"):
        actual = oracle.correlate(x[None, None], w[None, None], padding=mode)[0, 0]
        # scipy.signal conjugates the second array, a layer does not.
        oracle.assert_same_values(actual, signal_.correlate2d(x, w.conj(), mode))


def test_correlate_with_python_integers_is_exact():
    x = np.array([[[2**80, 1, -(2**80)]]], object)
    w = np.array([[[3, 1, 3]]], object)
    assert oracle.correlate(x, w).tolist() == [[[1]]]


# ------------------------------------------------------------------------------------------------
# Matrix form


def test_unfold_agrees_with_view_as_windows():
    util = pytest.importorskip("skimage.util")
    x = rng().integers(0, 99, (6, 7))
    expected = util.view_as_windows(x, (3, 2), step=2).reshape(-1, 6).T
    oracle.assert_same_values(oracle.unfold(x[None, None], (3, 2), stride=2)[0], expected)


@pytest.mark.parametrize("boundary", oracle.BOUNDARIES)
def test_unfold_times_weights_is_the_correlation(boundary):
    x, w = rng().integers(-9, 9, (2, 3, 5, 6)), rng(1).integers(-9, 9, (4, 3, 2, 3))
    how = {"stride": (2, 1), "padding": ((1, 2), (3, 0)), "dilation": (1, 2), "boundary": boundary, "cval": 7}
    expected = oracle.correlate(x, w, **how)
    columns = oracle.unfold(x, (2, 3), **how)
    oracle.assert_same_values((w.reshape(4, -1) @ columns).reshape(expected.shape), expected)


def test_fold_is_the_adjoint_of_unfold():
    how = {"stride": (2, 1), "padding": ((1, 2), (3, 0)), "dilation": (1, 2)}
    x = rng().integers(-9, 9, (2, 3, 5, 6))
    columns = oracle.unfold(x, (2, 3), **how)
    g = rng(1).integers(-9, 9, columns.shape)
    assert (columns * g).sum() == (x * oracle.fold(g, (5, 6), (2, 3), **how)).sum()


# ------------------------------------------------------------------------------------------------
# Gradients


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    widths=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=3),
    boundary=st.sampled_from(oracle.BOUNDARIES),
)
def test_fold_border_adds_every_padded_position_to_its_source(shape, widths, boundary):
    widths = widths[: len(shape)]
    # Padding the positions' numbers, -1 for the constant, says where every one of them comes from.
    numbers = np.arange(np.prod(shape)).reshape(shape)
    options = {"constant_values": -1} if boundary == "constant" else {}
    sources = np.pad(numbers, widths, NUMPY_PAD_MODES[boundary], **options).ravel()
    padded = rng().integers(-9, 9, sources.size)
    expected = np.zeros(numbers.size, int)
    np.add.at(expected, sources[sources >= 0], padded[sources >= 0])
    padded = padded.reshape([n + sum(width) for n, width in zip(shape, widths, strict=True)])
    oracle.assert_same_values(oracle.fold_border(padded, widths, boundary), expected.reshape(shape))


@st.composite
def correlations(draw):
    """x, w, and the geometry of a correlation of theirs, all small."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(ndim)]
    dilation = [draw(st.integers(1, 2)) for _ in range(ndim)]
    stride = [draw(st.integers(1, 4)) for _ in range(ndim)]
    widths = [(draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(ndim)]
    size = [
        max(1, d * (k - 1) + 1 - sum(width)) + draw(st.integers(0, 2))
        for k, d, width in zip(kernel, dilation, widths, strict=True)
    ]
    generator = rng(draw(st.integers(0, 99)))
    x = cases.integer_valued(generator, (2, 2 * groups, *size), complex, 9)
    w = cases.integer_valued(generator, (2 * groups, 2, *kernel), complex, 9)
    how = {"stride": stride, "padding": widths, "dilation": dilation, "groups": groups}
    return x, w, how, draw(st.sampled_from(oracle.BOUNDARIES))


def gradients_by_definition(x, w, g, boundary, cval, stride, padding, dilation, groups):
    """Every product of `correlate_by_definition` gives one to dinput[source] and one to dweight[tap]."""
    dx, dw = np.zeros(x.shape, complex), np.zeros(w.shape, complex)
    for n, o, *position in np.ndindex(g.shape):
        group = o // (w.shape[0] // groups)
        for c, *tap in np.ndindex(w.shape[1:]):
            where = [
                oracle.source_index(p * s + t * d - before, m, boundary)
                for p, s, t, d, (before, _), m in zip(
                    position, stride, tap, dilation, padding, x.shape[2:], strict=True
                )
            ]
            source = (n, group * w.shape[1] + c, *where)
            product = g[(n, o, *position)]
            if None in where:
                dw[(o, c, *tap)] += product * np.conj(cval)
            else:
                dx[source] += product * np.conj(w[(o, c, *tap)])
                dw[(o, c, *tap)] += product * np.conj(x[source])
    return dx, dw


@given(correlation=correlations())
def test_gradients_agree_with_the_definition(correlation):
    x, w, how, boundary = correlation
    cval = 3 - 2j if boundary == "constant" else 0
    y = oracle.correlate(x, w, boundary=boundary, cval=cval, **how)
    g = cases.integer_valued(rng(1), y.shape, complex, 9)
    dx, dw = gradients_by_definition(x, w, g, boundary, cval, **how)
    oracle.assert_same_values(oracle.dinput(x.shape[2:], w, g, boundary=boundary, **how), dx)
    oracle.assert_same_values(oracle.dweight(x, w.shape[2:], g, boundary=boundary, cval=cval, **how), dw)


@given(correlation=correlations())
def test_gradients_are_the_adjoints_of_the_correlation(correlation):
    x, w, how, boundary = correlation
    y = oracle.correlate(x, w, boundary=boundary, **how)
    g = cases.integer_valued(rng(1), y.shape, complex, 9)
    inner = np.vdot(y, g)
    assert np.vdot(x, oracle.dinput(x.shape[2:], w, g, boundary=boundary, **how)) == inner
    assert np.vdot(w, oracle.dweight(x, w.shape[2:], g, boundary=boundary, **how)) == inner
    assert oracle.dbias(g).tolist() == [g[:, o].sum() for o in range(g.shape[1])]


def test_folding_back_a_boundary_by_hand():
    w, g = np.array([[[1, 10, 100]]]), np.ones((1, 1, 3), int)
    expected = {
        "constant": [11, 111, 110],
        "edge": [12, 111, 210],
        "symmetric": [12, 111, 210],
        "mirror": [11, 212, 110],
        "wrap": [111, 111, 111],
    }
    for boundary, dx in expected.items():
        assert oracle.dinput((3,), w, g, padding=1, boundary=boundary).tolist() == [[dx]], boundary


@pytest.mark.parametrize("boundary", oracle.BOUNDARIES)
def test_fold_is_the_adjoint_of_unfold_at_every_boundary(boundary):
    how = {"stride": (2, 1), "padding": ((1, 7), (3, 0)), "dilation": (1, 2), "boundary": boundary}
    x = rng().integers(-9, 9, (2, 3, 5, 6))
    columns = oracle.unfold(x, (2, 3), **how)
    g = rng(1).integers(-9, 9, columns.shape)
    assert (columns * g).sum() == (x * oracle.fold(g, (5, 6), (2, 3), **how)).sum()


def conv_transpose_by_definition(x, w, stride, padding, output_padding, dilation, groups):
    """One product at a time, added to where it belongs or dropped in the padding."""
    size = oracle.transposed_size(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation)
    y = np.zeros((x.shape[0], w.shape[1] * groups, *size), complex)
    for n, c, *position in np.ndindex(x.shape):
        group = c // (x.shape[1] // groups)
        for o, *tap in np.ndindex(w.shape[1:]):
            where = [
                p * s + t * d - before
                for p, s, t, d, (before, _) in zip(position, stride, tap, dilation, padding, strict=True)
            ]
            if all(0 <= i < m for i, m in zip(where, size, strict=True)):
                y[(n, group * w.shape[1] + o, *where)] += x[(n, c, *position)] * w[(c, o, *tap)]
    return y


@given(data=st.data())
def test_conv_transpose_agrees_with_the_definition_and_its_gradients_are_the_adjoints(data):
    draw = data.draw
    ndim, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))

    def axes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    kernel, stride, dilation = axes(1, 3), axes(1, 3), axes(1, 3)
    output_padding = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    padding = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(ndim)]
    size = [n + sum(p) for n, p in zip(axes(1, 2), padding, strict=True)]
    how = dict(stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups)
    generator = rng(draw(st.integers(0, 99)))
    x = cases.integer_valued(generator, (2, 2 * groups, *size), complex, 9)
    w = cases.integer_valued(generator, (2 * groups, 2, *kernel), complex, 9)
    y = oracle.conv_transpose(x, w, **how)
    oracle.assert_same_values(y, conv_transpose_by_definition(x, w, **how))
    g = cases.integer_valued(rng(1), y.shape, complex, 9)
    inner = np.vdot(y, g)
    assert np.vdot(x, oracle.conv_transpose_dinput(size, w, g, **how)) == inner
    assert np.vdot(w, oracle.conv_transpose_dweight(x, kernel, g, **how)) == inner


def test_conv_transpose_is_the_gradient_of_the_correlation():
    x = rng().integers(-9, 9, (2, 4, 3, 5))
    w = rng(1).integers(-9, 9, (4, 3, 2, 3))
    how = {"stride": (2, 3), "padding": [(1, 0), (0, 2)], "dilation": (2, 1), "groups": 2}
    y = oracle.conv_transpose(x, w, output_padding=(1, 2), **how)
    oracle.assert_same_values(oracle.dinput(y.shape[2:], w, x, **how), y)


def test_conv_transpose_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    x, w = rng().integers(-9, 9, (2, 4, 3, 5)), rng(1).integers(-9, 9, (4, 3, 2, 3))
    y = oracle.conv_transpose(
        x, w, stride=(2, 3), padding=[(1, 1), (0, 0)], output_padding=(2, 0), dilation=(3, 1), groups=2
    )
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x).double(), torch.from_numpy(w).double(),
        stride=(2, 3), padding=(1, 0), output_padding=(2, 0), dilation=(3, 1), groups=2,
    )  # fmt: skip
    oracle.assert_same_values(y, expected.numpy())


# ------------------------------------------------------------------------------------------------
# Exact values


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_to_integers_loses_nothing(dtype):
    for name, base in cases.bases(dtype):
        if base.size and np.isfinite(base).all():
            integers, exponent = oracle.to_integers(base)
            back = oracle.to_fractions(integers, exponent)
            assert all(b == Fraction(float(a)) for a, b in zip(base.flat, back.flat, strict=True)), name


def test_exact_correlate_is_the_sum_of_fractions():
    x, w, bias = (
        rng().standard_normal((1, 2, 4)),
        rng(1).standard_normal((1, 2, 3)),
        rng(2).standard_normal(1),
    )
    x[0, 0, 1] = 5e-324
    exact, magnitude = oracle.exact_correlate(x, w, bias, padding=1, cval=0.1)
    padded = oracle.pad(x, [(1, 1)], "constant", 0.1)
    for i in range(4):
        terms = [Fraction(padded[0, c, i + t]) * Fraction(w[0, c, t]) for c in range(2) for t in range(3)]
        assert exact[0, 0, i] == sum(terms) + Fraction(bias[0])
        assert magnitude[0, 0, i] == sum(map(abs, terms)) + abs(Fraction(bias[0]))


def test_exact_bilinear_is_the_sum_of_fractions():
    x, g = rng().standard_normal((1, 1, 5)), rng(1).standard_normal((1, 1, 3))
    x[0, 0, 2] = 5e-324
    exact, magnitude = oracle.exact_bilinear(lambda g, x: oracle.dweight(x, (3,), g), g, x)
    for t in range(3):
        terms = [Fraction(g[0, 0, i]) * Fraction(x[0, 0, i + t]) for i in range(3)]
        assert exact[0, 0, t] == sum(terms)
        assert magnitude[0, 0, t] == sum(map(abs, terms))


# ------------------------------------------------------------------------------------------------
# Comparators: each must fail on a planted difference


def one_wrong(a, value):
    a = a.copy()
    a[(-1,) * a.ndim] = value
    return a


def test_assert_same_values_fails_on_a_difference():
    a = np.array([[1.0, np.nan], [np.inf, 0.0]])
    oracle.assert_same_values(a, a.copy())
    oracle.assert_same_values(np.array([2**60]), np.array([2**60], object))
    for wrong in (one_wrong(a, 1e-300), one_wrong(a, np.nan), a[:1], a.T):
        with pytest.raises(AssertionError):
            oracle.assert_same_values(wrong, a)
    with pytest.raises(AssertionError):
        oracle.assert_same_values(np.array([2**60 + 1]), np.array([2**60], object))


def test_assert_same_bits_fails_on_a_difference():
    a = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
    oracle.assert_same_bits(a, np.asfortranarray(a))
    for wrong in (one_wrong(a, -0.0), one_wrong(a, 1e-45), a.astype(np.float64), a[:1], a.view(np.int32)):
        with pytest.raises(AssertionError):
            oracle.assert_same_bits(wrong, a)


def test_assert_same_class_fails_on_a_difference():
    a = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    oracle.assert_same_class(a * 3, a)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(AssertionError):
            oracle.assert_same_class(one_wrong(a, value), a)
    with pytest.raises(AssertionError):
        oracle.assert_same_class(-a, a)
    with pytest.raises(AssertionError):
        oracle.assert_same_class(one_wrong(a + 0j, complex(0, np.nan)), a + 0j)


def test_assert_within_fails_just_beyond_the_bound():
    exact = np.array([Fraction(1), Fraction(2)], object)
    bound = np.array([Fraction(1, 8), Fraction(1, 4)], object)
    oracle.assert_within(np.array([1.125, 1.75]), exact, bound)
    for wrong in (np.array([1.125, np.nextafter(1.75, 0)]), np.array([1.0, np.nan]), np.array([1.0, np.inf])):
        with pytest.raises(AssertionError):
            oracle.assert_within(wrong, exact, bound)
    with pytest.raises(AssertionError):
        oracle.assert_within(np.ones(3), exact, bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_assert_correlation_accepts_honest_rounding_and_nothing_more(dtype):
    x, w, bias = (
        cases.normal(rng(i), shape, dtype) for i, shape in enumerate([(2, 3, 6, 7), (4, 3, 3, 3), (4,)])
    )
    real = np.finfo(dtype).dtype
    y = oracle.correlate(x, w, bias, padding=1)
    assert y.dtype == dtype
    oracle.assert_correlation(y, x, w, bias, padding=1, computed=real.name)
    allowed = 31 * np.finfo(real).eps * float(np.abs(x).max() * np.abs(w).max()) * 27
    spoiled = [one_wrong(y, y[-1, -1, -1, -1] + 2 * allowed)]
    if np.iscomplexobj(y):
        spoiled.append(one_wrong(y, y[-1, -1, -1, -1] + 2j * allowed))
        spoiled.append(oracle.correlate(x, w.conj(), bias, padding=1))
    for wrong in spoiled:
        with pytest.raises(AssertionError):
            oracle.assert_correlation(wrong, x, w, bias, padding=1, computed=real.name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
def test_assert_bilinear_accepts_honest_rounding_and_nothing_more(dtype):
    g, w = cases.normal(rng(), (2, 4, 5, 6), dtype), cases.normal(rng(1), (4, 3, 3, 3), dtype)
    wide = np.promote_types(dtype, np.float32)
    how = {"terms": 36, "computed": wide.char.lower().replace("f", "float32").replace("d", "float64")}

    def function(g, w):
        return oracle.dinput((7, 8), w, g)

    dx = function(g.astype(wide), w.astype(wide)).astype(dtype)
    oracle.assert_bilinear(dx, function, g, w, **how)
    allowed = 2 * 38 * np.finfo(dtype).eps * float(np.abs(g).max() * np.abs(w).max()) * 36
    spoiled = [
        one_wrong(dx, dx[-1, -1, -1, -1] + 2 * allowed),
        one_wrong(dx, np.nan),
        dx[:1],
        function(g.astype(wide), w[:, :, ::-1].astype(wide)).astype(dtype),
    ]
    if np.iscomplexobj(dx):
        spoiled += [one_wrong(dx, dx[-1, -1, -1, -1] + 2j * allowed), function(g, w.conj()), dx.conj()]
    if dtype == np.float16:
        spoiled.append(function(g, w))
    for wrong in spoiled:
        with pytest.raises(AssertionError):
            oracle.assert_bilinear(wrong, function, g, w, **how)


def test_assert_bilinear_takes_terms_an_element():
    ones, eps = np.ones((1, 1, 2)), 2.0**-52

    def function(g, w):
        return oracle.dinput((3,), w, g)

    # 1, 2 and 1 products: 3, 4 and 3 roundings of half an eps are allowed, of 1, 2 and 1.
    for dx in ([1 + eps, 2 + 4 * eps, 1 - eps], [1 - 1.5 * eps, 2, 1]):
        oracle.assert_bilinear(np.array([[dx]]), function, ones, ones, terms=[1, 2, 1], computed="float64")
    for dx in ([1 + 2 * eps, 2, 1], [1, 2 + 6 * eps, 1], [1, 2, 1 - 2 * eps]):
        with pytest.raises(AssertionError):
            oracle.assert_bilinear(np.array([[dx]]), function, ones, ones, terms=[1, 2, 1], computed="float64")


def test_assert_correlation_notices_sums_in_a_narrower_dtype():
    x, w = cases.normal(rng(), (1, 8, 9, 9), np.float64), cases.normal(rng(1), (2, 8, 3, 3), np.float64)
    y = oracle.correlate(x.astype(np.float32), w.astype(np.float32)).astype(np.float64)
    with pytest.raises(AssertionError):
        oracle.assert_correlation(y, x, w, computed="float64")


def test_assert_correlation_allows_float16_one_more_rounding():
    x, w = cases.normal(rng(), (1, 2, 9, 9), np.float16), cases.normal(rng(1), (2, 2, 3, 3), np.float16)
    sums = oracle.correlate(x.astype(np.float32), w.astype(np.float32))
    oracle.assert_correlation(sums.astype(np.float16), x, w, computed="float32")
    with pytest.raises(AssertionError):
        oracle.assert_correlation(oracle.correlate(x, w), x, w, computed="float32")


# ------------------------------------------------------------------------------------------------
# The hostile arrays


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_layouts_equal_their_base(dtype):
    for (name, base), layout in itertools.product(cases.bases(dtype), cases.LAYOUTS):
        oracle.assert_same_values(cases.lay_out(base, layout), base)
        assert cases.lay_out(base, layout).shape == base.shape, (name, layout)


def test_layouts_are_what_they_are_called():
    base = rng().standard_normal((3, 4)).astype(np.float32)
    laid = dict(cases.layouts(base))
    assert laid["contiguous"].flags.c_contiguous
    assert laid["strided"].strides == (72, 8)
    assert laid["reversed"].strides == (-16, -4)
    assert laid["reversed_last"].strides == (16, -4)
    assert laid["fortran"].strides == (4, 12)
    assert laid["permuted"].strides == (4, 12)
    assert laid["inner"].strides == (32, 4)
    assert not laid["read_only"].flags.writeable
    assert not laid["misaligned"].flags.aligned
    assert not laid["byteswapped"].dtype.isnative
    assert laid["record"].strides == (20, 5)
    assert not laid["record"].flags.aligned
    assert not laid["record"].dtype.isnative
    assert cases.lay_out(base[:1], "odd_strides").strides == (7919, 4)
    assert cases.lay_out(np.ones((3, 4)), "broadcast").strides == (0, 0)
    assert cases.lay_out(base[:1].repeat(3, 0), "broadcast").strides == (0, 4)
    assert all(laid[name].flags.writeable for name in cases.OUT_LAYOUTS)


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs mprotect")
def test_reading_past_a_guarded_array_ends_the_process(run_python):
    script = """
import ctypes, sys
import numpy as np
import cases
base = np.arange(35, dtype=np.float32).reshape(5, 7)
a = cases.guarded(base, sys.argv[1])
assert (a == base).all()
print("inside is fine", flush=True)
ctypes.string_at(a.ctypes.data + (a.nbytes if sys.argv[1] == "end" else -1), 1)
print("so is outside")
"""
    for side in ("start", "end"):
        done = run_python(script, side, check=False)
        assert done.stdout == "inside is fine\n"
        assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
