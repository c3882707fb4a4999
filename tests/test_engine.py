"""The engine below the public functions: its two plans, its threads, and what once went wrong there."""

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import engine, grad


def integers(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def test_fewer_threads_than_asked_for(run_python):
    # OpenMP may grant fewer; waiting for the missing ones would never end.
    script = """
import numpy as np, pyconv
print(pyconv.conv2d(np.ones((16, 64, 64)), np.ones((16, 16, 3, 3)), workers=2).sum())
"""
    for setting in ({"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}):
        assert float(run_python(script, timeout=60, env=setting)) == 16 * 16 * 9 * 62 * 62


def test_one_by_one_kernels_honour_padding_and_stride():
    x, w = np.ones((2, 1, 64)), np.ones((2, 2, 1, 1))
    keywords = {"padding": ((1, 0), (0, 0)), "stride": (3, 1)}
    oracle.assert_same_values(pyconv.conv2d(x, w, **keywords), np.zeros((2, 1, 64)))
    x, w = integers((3, 6, 40)), integers((5, 3, 1, 1))
    keywords = {"padding": ((1, 2), (3, 0))}
    oracle.assert_same_values(pyconv.conv2d(x, w, **keywords), oracle.correlate(x[None], w, **keywords)[0])


def test_batch_inside_and_many_channels():
    # The batch runs fastest in memory and the channels are too many for one band.
    x = integers((700, 9, 9, 2)).transpose(3, 0, 1, 2)
    w = integers((1, 700, 3, 3), seed=1)
    out = np.empty((1, 9, 9, 2), np.float32).transpose(3, 0, 1, 2)
    pyconv.conv2d(x, w, padding=1, out=out)
    oracle.assert_same_values(out, pyconv.conv2d(np.ascontiguousarray(x), w, padding=1, method="im2col"))


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("reach", [2**45, 2**59, 2**61])
def test_a_kernel_that_reaches_too_far_is_refused(outputs, reach):
    x, w = np.ones((1, 1), np.float32), np.ones((outputs, 1, 2), np.float32)
    with pytest.raises((ValueError, MemoryError), match="padded input|workspace"):
        pyconv.conv1d(x, w, dilation=reach, padding=reach // 2)


def test_saturation_into_floats():
    x, w = np.array([[2**62]]), np.array([[[4]]])
    out = np.empty((1, 1))
    pyconv.conv1d(x, w, overflow="saturate", out=out)
    assert out[0, 0] == 2.0**63


@pytest.mark.parametrize("boundary", engine.BOUNDARIES)
@pytest.mark.parametrize(
    ("height", "width", "kh", "kw"), [(9, 300, 3, 3), (13, 530, 5, 4), (40, 280, 2, 9), (3, 700, 1, 31)]
)
def test_interior_in_place_and_borders_in_the_band(boundary, height, width, kh, kw):
    x, w = integers((1, 1, height, width)), integers((1, 1, kh, kw), seed=1)
    padding = (kh // 2, kh - 1 - kh // 2), (kw // 2, kw - 1 - kw // 2)
    expected = oracle.correlate(x, w, padding=padding, boundary=boundary)
    oracle.assert_same_values(pyconv.conv2d(x, w, padding=padding, padding_mode=boundary), expected)


@pytest.mark.parametrize("rows", range(1, 20))
def test_stacked_rows_of_narrow_images(rows):
    x, w = integers((2, 6, rows, 7)), integers((6, 1, 5, 3), seed=1)
    keywords = {"padding": (2, 1), "groups": 6}
    oracle.assert_same_values(pyconv.conv2d(x, w, **keywords), oracle.correlate(x, w, **keywords))


def test_negative_padding_leaves_samples_out():
    # ndimage filters slab by slab: rows from the middle of an image, every boundary counted from the whole.
    x, w = integers((1, 20, 30)), integers((1, 1, 3, 3), seed=1)
    whole, part = np.empty((1, 20, 30), np.float32), np.empty((1, 6, 30), np.float32)
    for boundary in engine.BOUNDARIES.values():
        arguments = (1, (1, 1), (1, 1))
        engine.correlate(x, w, None, whole, 0, *arguments, (1, 1), (boundary,) * 2, 0.0, 1)
        engine.correlate(x, w, None, part, 0, *arguments, (1 - 14, 1), (boundary,) * 2, 0.0, 1)
        oracle.assert_same_bits(part, whole[:, 14:])


@given(data=st.data())
def test_many_output_channels(data):
    # So many that every tap has a phase of its own in the band, and a unit holds several small maps.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    ndim = draw(1, 3)
    size = [draw(1, (40, 14, 6)[ndim - 1]) for _ in range(ndim)]
    kernel = [draw(1, 4) for _ in range(ndim)]
    dilation = [draw(1, 5) for _ in range(ndim)]
    padding = [
        (max(0, d * (k - 1) + 1 - n) + draw(0, 3), draw(0, 3)) for n, k, d in zip(size, kernel, dilation, strict=True)
    ]
    if data.draw(st.booleans()):        # an output as large as the input, whose maps are copied as one line
        padding = [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)]
    stride = data.draw(st.sampled_from([(1,) * ndim, (2,) * ndim, (1, 2, 3)[:ndim]]))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    x = integers((draw(1, 9), groups * draw(1, 5), *size), seed=draw(0, 99))
    w = integers((groups * draw(48, 70), x.shape[1] // groups, *kernel), seed=1)
    boundary = data.draw(st.sampled_from(list(engine.BOUNDARIES)))
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = oracle.correlate(x, w, np.arange(w.shape[0]), boundary=boundary, **keywords)
    if boundary == "constant" and data.draw(st.booleans()):
        x = cases.guarded(x, data.draw(st.sampled_from(["start", "end"])))
    out = np.empty(expected.shape, np.float32)
    if data.draw(st.booleans()):
        out = np.empty((*out.shape[:-1], out.shape[-1] + 1), np.float32)[..., :-1]
    convolve = (pyconv.conv1d, pyconv.conv2d, pyconv.conv3d)[ndim - 1]
    workers = draw(1, 3)
    convolve(x, w, np.arange(w.shape[0]), padding_mode=boundary, out=out, workers=workers, **keywords)
    oracle.assert_same_values(out, expected)


@pytest.mark.parametrize("boundary", ["constant", "symmetric"])
def test_maps_copied_as_one_line_stay_inside_the_input(boundary):
    x, w = integers((3, 2, 7, 7)), integers((64, 2, 3, 3), seed=1)
    expected = oracle.correlate(x, w, padding=1, boundary=boundary)
    for side in ("start", "end"):
        oracle.assert_same_values(pyconv.conv2d(cases.guarded(x, side), w, padding=1, padding_mode=boundary), expected)


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 49, 63, 65, 196, 400, 401])
@pytest.mark.parametrize("channels", [3, 700])
def test_one_by_one_kernels_in_place(columns, channels):
    # The last vectors end where the input does, over sums that were computed already.
    w = integers((11, channels, 1), seed=1)
    for n in (1, 3):
        x = integers((n, channels, columns))
        expected = oracle.correlate(x, w, np.arange(11))
        for side in ("start", "end"):
            for workers in (1, 2):
                y = pyconv.conv1d(cases.guarded(x, side), w, np.arange(11), workers=workers)
                oracle.assert_same_values(y, expected)


@pytest.mark.parametrize("value", [np.inf, np.nan, 2.0])
@pytest.mark.parametrize("outputs", [3, 60])
def test_taps_on_padding_are_left_out_only_where_nothing_shows(value, outputs):
    # Rows of zeros alone: 0 * inf is still NaN.
    x, w = integers((2, 3, 9, 20)), integers((outputs, 3, 3, 3), seed=1)
    w[1, 2, 0, 1] = value
    keywords = {"padding": 12, "dilation": 12}
    oracle.assert_same_values(pyconv.conv2d(x, w, **keywords), pyconv.conv2d(x, w, **keywords, method="im2col"))
    oracle.assert_same_values(pyconv.conv2d(x, w, **keywords), oracle.correlate(x, w, **keywords))


@given(data=st.data())
def test_columns_cut_where_taps_leave_the_image(data):
    # Blocks of columns with taps of their own; what is not finite must show as it does in the patch matrix.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    size, kernel = (draw(1, 30), draw(17, 60)), (draw(1, 4), draw(2, 4))
    dilation, stride = (draw(1, 14), draw(8, 25)), (draw(1, 2), draw(1, 2))
    padding = [
        (max(0, d * (k - 1) + 1 - n) + draw(0, 9), draw(0, 30))
        for n, k, d in zip(size, kernel, dilation, strict=True)
    ]
    x = integers((draw(1, 2), draw(1, 40), *size), seed=draw(0, 99))
    w = integers((draw(48, 60), x.shape[1], *kernel), seed=1)
    for a in (x, w):
        if data.draw(st.booleans()):
            a.flat[draw(0, a.size - 1)] = data.draw(st.sampled_from([np.inf, -np.inf, np.nan]))
    bias = np.arange(w.shape[0])
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "workers": draw(1, 3)}
    expected = pyconv.conv2d(x, w, bias, method="im2col", **keywords)
    oracle.assert_same_values(pyconv.conv2d(x, w, bias, **keywords), expected)


@given(data=st.data())
def test_input_gradients_cut_where_taps_leave_the_image(data):
    # The same with weights that are exchanged, of which a residue of the stride has some of the taps.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    size, kernel, dilation = (draw(1, 20), draw(30, 60)), (draw(1, 3), draw(2, 4)), (draw(1, 9), draw(8, 15))
    stride = (draw(1, 2), data.draw(st.sampled_from([1, 1, 2])))
    padding = [
        (draw(0, 5), max(0, d * (k - 1) + 1 - n) + draw(0, 9))
        for n, k, d in zip(size, kernel, dilation, strict=True)
    ]
    on = oracle.output_size(size, kernel, stride, padding, dilation)
    g = integers((draw(1, 2), draw(1, 20), *on), seed=draw(0, 99))
    w = integers((g.shape[1], draw(48, 60), *kernel), seed=1)
    if data.draw(st.booleans()):
        w.flat[draw(0, w.size - 1)] = data.draw(st.sampled_from([np.inf, -np.inf, np.nan]))
    dx = np.empty((len(g), w.shape[1], *size), np.float32)
    before = tuple(start for start, _ in padding)
    engine.input_gradient(g, w, None, dx, 1, 1, stride, dilation, before, (engine.CONSTANT,) * 2, draw(1, 3))
    # Each residue by itself, its weights exchanged beforehand.
    apart = np.zeros_like(dx)
    for samples, order, step, start in engine._residues(before, size, kernel, on, stride, dilation)[1]:
        engine.correlate(g, engine._exchanged(w, 1, order), None, apart[samples], 1, 1, (1, 1), step, start,
                         (engine.CONSTANT,) * 2, 0.0, 1)
    oracle.assert_same_values(dx, apart)


@given(data=st.data())
def test_weight_gradients_leave_out_padding_only_where_nothing_shows(data):
    # Twelve channels and more: vectors of them. 0 * inf is still NaN.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    size, kernel = (draw(1, 20), draw(1, 20)), (draw(1, 3), draw(1, 3))
    dilation, stride = (draw(1, 12), draw(1, 12)), (draw(1, 3), draw(1, 3))
    padding = [
        (max(0, d * (k - 1) + 1 - n) + draw(0, 9), draw(0, 9)) for n, k, d in zip(size, kernel, dilation, strict=True)
    ]
    x = integers((draw(1, 2), draw(12, 20), *size), seed=draw(0, 99))
    on = oracle.output_size(size, kernel, stride, padding, dilation)
    g = integers((x.shape[0], draw(1, 20), *on), seed=1)
    for a in (x, g):
        if data.draw(st.booleans()):
            a.flat[draw(0, a.size - 1)] = data.draw(st.sampled_from([np.inf, -np.inf, np.nan]))
    dw = np.empty((g.shape[1], x.shape[1], *kernel), np.float32)
    before = tuple(start for start, _ in padding)
    engine.weight_gradient(x, g, dw, 1, 1, stride, dilation, before, (engine.CONSTANT,) * 2, 0.0, draw(1, 3))
    with np.errstate(invalid="ignore"):
        expected = oracle.dweight(x.astype(float), kernel, g.astype(float), stride=stride, padding=padding,
                                  dilation=dilation)
    oracle.assert_same_values(dw, expected)


def _inside_nans(x, before, after):
    """x in the middle of a larger array, with NaN wherever it does not reach."""
    room = np.full((*x.shape[:-2], x.shape[-2] + 3, before + x.shape[-1] + after), np.nan, x.dtype)
    inside = room[..., 1:-2, before:before + x.shape[-1]]
    inside[...] = x
    return inside


@given(data=st.data())
def test_rows_read_in_place_with_their_padding_masked(data):
    # One output channel a group, rows that are not wide, stride 1 or 2. What is beyond a row's ends does not count.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    dtype, stride = data.draw(st.sampled_from([np.float32, np.float64])), draw(1, 2)
    size, kernel = (draw(4, 24), draw(5, 150)), (draw(2, 8), draw(2, 8))
    padding = [(draw(0, k), draw(0, k)) for k in kernel]
    groups, channels, batch = draw(1, 3), draw(1, 2), draw(1, 2)
    if any(n + sum(p) < k for n, p, k in zip(size, padding, kernel, strict=True)):
        return
    x = integers((batch, groups * channels, *size), dtype, draw(0, 99))
    w = integers((groups, channels, *kernel), dtype, 1)
    if data.draw(st.booleans()):
        x.flat[draw(0, x.size - 1)] = data.draw(st.sampled_from([np.inf, -np.inf, np.nan]))
    settings = dict(padding=padding, stride=stride, groups=groups)
    with np.errstate(invalid="ignore"):
        expected = oracle.correlate(x.astype(float), w.astype(float), **settings)
    room = np.full((*expected.shape[:-1], expected.shape[-1] + 40), 77, dtype)
    out = room[..., 20:20 + expected.shape[-1]]
    for image in (x, _inside_nans(x, draw(0, 9), draw(0, 9))):
        pyconv.conv2d(image, w, out=out, method="direct", workers=draw(1, 2), **settings)
        oracle.assert_same_values(out, expected)
        out[...] = 77
        assert (room == 77).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (5, 5), (4, 7), (7, 7)])
def test_masked_padding_has_the_bits_of_the_band(kernel, stride):
    x = np.random.default_rng(0).standard_normal((1, 3, 30, 75)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 1, *kernel)).astype(np.float32)
    settings = dict(padding=[(k // 2, k // 2) for k in kernel], stride=stride, groups=3, method="direct")
    expected = pyconv.conv2d(x, w, **settings)
    for layout in (x.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2), x.astype(">f4"), _inside_nans(x, 2, 3)):
        np.testing.assert_array_equal(pyconv.conv2d(layout, w, **settings), expected)
    apart = np.empty((*expected.shape, 2), np.float32)[..., 0]
    np.testing.assert_array_equal(pyconv.conv2d(x, w, out=apart, **settings), expected)


@given(data=st.data())
def test_strided_depthwise_weight_gradients(data):
    # 3 x 3 at stride 2: rows read in place and parted in registers, or copied; the bits do not tell which.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    size, padding = (draw(3, 24), draw(5, 150)), [(draw(0, 3), draw(0, 3)) for _ in range(2)]
    groups, batch = draw(1, 3), draw(1, 2)
    on = oracle.output_size(size, (3, 3), (2, 2), padding, (1, 1))
    before = tuple(start for start, _ in padding)

    def gradients(x, g):
        for image in (x, _inside_nans(x, draw(0, 9), draw(0, 9)), x.swapaxes(2, 3).copy().swapaxes(2, 3)):
            for dy in (g, _inside_nans(g, draw(0, 9), draw(0, 9))):
                dw = np.empty((groups, 1, 3, 3), dtype)
                engine.weight_gradient(image, dy, dw, 1, groups, (2, 2), (1, 1), before, (engine.CONSTANT,) * 2, 0.0,
                                       draw(1, 2))
                yield dw

    x, g = integers((batch, groups, *size), dtype, draw(0, 99)), integers((batch, groups, *on), dtype, 1)
    expected = oracle.dweight(x.astype(float), (3, 3), g.astype(float), stride=2, padding=padding, groups=groups)
    for dw in gradients(x, g):
        oracle.assert_same_values(dw, expected)
    first, *others = gradients(x + dtype(1) / 3, g / 3)
    for dw in others:
        np.testing.assert_array_equal(dw, first)


@given(data=st.data())
def test_strided_gradients_of_single_channels(data):
    # All residues of the stride in one pass, written together: dtypes, ragged ends, empty residues, wide rows in place.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    ndim = draw(1, 3)
    size = [draw(1, (900, 40, 8)[ndim - 1]) for _ in range(ndim)]
    if ndim == 2 and data.draw(st.booleans()):
        size = [draw(1, 12), draw(300, 700)]
    kernel = [draw(1, (9, 7, 3)[ndim - 1]) for _ in range(ndim)]
    dilation = data.draw(st.sampled_from([(1,) * ndim, (2,) * ndim, (3, 1, 2)[:ndim]]))
    stride = (*(draw(1, 4) for _ in range(ndim - 1)), data.draw(st.sampled_from([2, 2, 3, 4, 8, 9])))
    padding = [
        (max(0, d * (k - 1) + 1 - n) + draw(0, 3), draw(0, 3)) for n, k, d in zip(size, kernel, dilation, strict=True)
    ]
    groups, outputs, batch = draw(1, 5), draw(1, 3), draw(1, 2)
    on = oracle.output_size(size, kernel, stride, padding, dilation)
    g = integers((batch, groups * outputs, *on), seed=draw(0, 99))
    w = integers((groups * outputs, 1, *kernel), seed=1)
    if data.draw(st.booleans()):
        g.flat[draw(0, g.size - 1)] = data.draw(st.sampled_from([np.inf, -np.inf, np.nan]))
    with np.errstate(invalid="ignore"):
        expected = oracle.dinput(size, w.astype(float), g.astype(float), stride=stride, padding=padding,
                                 dilation=dilation, groups=groups)
    bias = np.arange(groups, dtype=np.float32) if data.draw(st.booleans()) else None
    if bias is not None:
        expected = expected + bias.reshape(-1, *(1,) * ndim)
    room = np.full((*expected.shape[:-1], 2 * expected.shape[-1] + 40), 77, data.draw(st.sampled_from("fd")))
    dx = room[..., 20:20 + expected.shape[-1]] if data.draw(st.booleans()) else room[..., 20:-20:2]
    before = tuple(start for start, _ in padding)
    engine.input_gradient(g, w, bias, dx, 1, groups, stride, dilation, before, (engine.CONSTANT,) * ndim, draw(1, 3))
    oracle.assert_same_values(dx, expected)
    dx[...] = 77
    assert (room == 77).all()


def test_strided_gradients_of_single_channels_have_the_bits_of_each_residue(monkeypatch):
    values = np.random.default_rng(0).standard_normal
    for shape, outputs, kernel, stride in [((6, 21, 45), 1, (3, 3), 2), ((2, 40, 600), 3, (5, 7), 2),
                                           ((3, 30, 31), 2, (4, 5), 3)]:
        w = values((shape[0] * outputs, 1, *kernel)).astype(np.float32)
        on = oracle.output_size(shape[1:], kernel, (stride,) * 2, [(1, 1)] * 2, (1, 1))
        g = values((1, w.shape[0], *on)).astype(np.float32)
        arguments = (1, shape[0], (stride,) * 2, (1, 1), (1, 1), (engine.CONSTANT,) * 2)
        together, apart = np.empty((1, *shape), np.float32), np.empty((1, *shape), np.float32)
        engine.input_gradient(g, w, None, together, *arguments, 2)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_joined_gradient", lambda *_: False)
            engine.input_gradient(g, w, None, apart, *arguments, 1)
            oracle.assert_same_bits(together, apart)
            w[1, 0, 2, 1] = np.inf
            engine.input_gradient(g, w, None, apart, *arguments, 1)
        engine.input_gradient(g, w, None, together, *arguments, 2)
        oracle.assert_same_values(together, apart)


@given(data=st.data())
def test_vectors_over_output_channels(data):
    # Small maps, whose weights are turned output channels last: of the input gradient's, from where they lie.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    ndim = draw(1, 2)
    size = [draw(1, (60, 9)[ndim - 1]) for _ in range(ndim)]
    kernel = data.draw(st.sampled_from([(1,) * ndim, (3,) * ndim, (5,) * ndim, (2, 4)[:ndim]]))
    dilation = draw(1, 2) if ndim == 1 else data.draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    padding = [(max(k // 2, d * (k - 1) + 1 - n), draw(0, 2))
               for n, k, d in zip(size, kernel, np.broadcast_to(dilation, ndim).tolist(), strict=True)]
    keywords = {"stride": draw(1, 2), "padding": padding, "groups": draw(1, 2), "dilation": dilation}
    groups = keywords["groups"]
    x = integers((draw(1, 9), groups * data.draw(st.sampled_from([1, 5, 16, 31, 70])), *size), seed=draw(0, 99))
    outputs = groups * data.draw(st.sampled_from([16, 17, 32, 47, 64, 100]))
    w = integers((outputs, x.shape[1] // groups, *kernel), seed=1)
    boundary = data.draw(st.sampled_from(["constant", "mirror"]))
    side = data.draw(st.sampled_from(["start", "end"]))
    workers = draw(1, 3)
    expected = oracle.correlate(x, w, np.arange(w.shape[0]), boundary=boundary, **keywords)
    guarded_w = cases.guarded(w, side)
    guarded_x = cases.guarded(x, side)
    if data.draw(st.booleans()):     # strides of every kind serve where nothing is copied
        guarded_x = cases.guarded(np.moveaxis(x, 1, -1).copy(), side)
        guarded_x = np.moveaxis(guarded_x, -1, 1)
    keywords["padding_mode"] = boundary
    y = (pyconv.conv1d, pyconv.conv2d)[ndim - 1](
        guarded_x, guarded_w, np.arange(w.shape[0]), workers=workers, **keywords)
    oracle.assert_same_values(y, expected)
    del keywords["padding_mode"]
    g = integers(y.shape, seed=2)
    dx = (grad.conv1d_input, grad.conv2d_input)[ndim - 1](
        x.shape, guarded_w, cases.guarded(g, side), workers=workers, padding_mode=boundary, **keywords)
    oracle.assert_same_values(dx, oracle.dinput(tuple(size), w, g, boundary=boundary, **keywords))


@pytest.mark.parametrize("kernel", [1, 3])
def test_partial_sums_of_output_vectors(kernel):
    # So many channels that they come in blocks; and the bits of a small batch are those of a large one.
    rng = np.random.default_rng(0)
    w = rng.standard_normal((80, 700, kernel, kernel), np.float32)
    x = rng.standard_normal((9, 700, 7, 7), np.float32)
    batch = pyconv.conv2d(x, w, padding=kernel // 2, method="im2col")
    g = rng.standard_normal(batch.shape, np.float32)
    turned = np.ascontiguousarray(np.flip(w, (2, 3)).swapaxes(0, 1))
    for workers in (1, 2):
        for n in (1, 9):
            y = pyconv.conv2d(x[:n], w, padding=kernel // 2, workers=workers, method="direct")
            oracle.assert_same_bits(y, batch[:n])
            dx = grad.conv2d_input((n, *x.shape[1:]), w, g[:n], padding=kernel // 2, workers=workers)
            oracle.assert_same_bits(dx, pyconv.conv2d(g[:n], turned, padding=kernel // 2, method="im2col"))


@pytest.mark.parametrize("channels", [12, 16, 64, 80, 128, 130, 200])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 1), (3, 3), (5, 5)])
def test_weight_gradients_of_many_channels(channels, kernel):
    # Sums that go straight to dw, and squares of them that end with its channels and taps.
    shape = (21, channels, *kernel)
    for n in (1, 3):
        x, g = integers((n, channels, 7, 6)), integers((n, 21, 8 - kernel[0], 7 - kernel[1]), seed=1)
        expected = oracle.dweight(x, kernel, g)
        for workers in (1, 2):
            dw = np.full((3, *shape), 77, np.float32)
            engine.weight_gradient(x, g, dw[1], 1, 1, (1, 1), (1, 1), (0, 0), (0, 0), 0.0, workers)
            oracle.assert_same_values(dw[1], expected)
            assert (dw[::2] == 77).all()


@pytest.mark.parametrize("output", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("computed", [np.float32, np.float64, np.int64])
def test_reals_as_integers(computed, output):
    """Floats are cut off and keep their low bits; NaN and what 64 bits do not hold become -2**63 first. One such value
    among many that 32 bits hold changes none of these."""
    rng = np.random.default_rng(3)
    values = rng.integers(-(2**23), 2**23, (3, 1201)) / (1 if computed is np.int64 else 4)
    edges = [2.0**31, 2.0**31 - 128, -(2.0**31), -(2.0**31) - 256, 2.0**32 + 512, 2.0**40, -(2.0**62), -0.5, 0.75]
    if computed is not np.int64:
        edges += [2.0**63, -(2.0**63), -(2.0**63) - 2.0**40, 1e30, np.inf, -np.inf, np.nan, -0.0]
    if computed is np.float64:
        edges += [2.0**31 - 0.5, -(2.0**31) - 0.5]
    w = np.ones((1, 1, 1, 1), computed)
    for edge in [None, *edges]:
        for column in (0, 600, 1200):
            x = values.astype(computed)
            if edge is not None:
                x[1, column] = edge
            out = np.empty((1, *x.shape), output)
            engine.correlate(x[None], w, None, out, 0, 1, (1, 1), (1, 1), (0, 0), (engine.CONSTANT,) * 2, 0.0, 1)
            cut = [int(v) if np.isfinite(v) and -(2**63) <= v < 2**63 else -(2**63) for v in x.ravel().tolist()]
            if output is np.uint64 and edge == 2.0**63:
                cut = [2**63 if v == edge else c for v, c in zip(x.ravel().tolist(), cut, strict=True)]
            bits = np.iinfo(output).bits
            expected = np.array([c % 2**bits for c in cut], np.uint64).astype(f"u{bits // 8}").view(output)
            oracle.assert_same_bits(out, expected.reshape(out.shape))
