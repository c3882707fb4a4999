"""The engine below the public functions: its two plans, its threads, and what once went wrong there."""

import numpy as np
import oracle
import pytest

import pyconv
from pyconv import engine


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
