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
def test_vectors_over_output_channels(data):
    # Small maps, whose weights are turned output channels last: of the input gradient's, from where they lie.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    ndim = draw(1, 2)
    size = [draw(1, (60, 9)[ndim - 1]) for _ in range(ndim)]
    kernel = data.draw(st.sampled_from([(1,) * ndim, (3,) * ndim, (5,) * ndim, (2, 4)[:ndim]]))
    padding = [(max(k // 2, k - n), draw(0, 2)) for n, k in zip(size, kernel, strict=True)]
    keywords = {"stride": draw(1, 2), "padding": padding, "groups": draw(1, 2)}
    groups = keywords["groups"]
    x = integers((draw(1, 3), groups * data.draw(st.sampled_from([1, 5, 16, 31, 70])), *size), seed=draw(0, 99))
    outputs = groups * data.draw(st.sampled_from([16, 17, 32, 47, 64, 100]))
    w = integers((outputs, x.shape[1] // groups, *kernel), seed=1)
    boundary = data.draw(st.sampled_from(["constant", "mirror"]))
    side = data.draw(st.sampled_from(["start", "end"]))
    workers = draw(1, 3)
    expected = oracle.correlate(x, w, np.arange(w.shape[0]), boundary=boundary, **keywords)
    guarded_w = cases.guarded(w, side)
    guarded_x = cases.guarded(x, side)
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
