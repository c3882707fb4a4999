"""Memory beyond input and output, files larger than memory, and reads that stay inside the arrays."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's accounts of memory")

# Every script runs in a process of its own, whose peak is its own. Input and output are written before the
# first measurement, so that all the growth there is belongs to the call.
MEASURE = """
import resource, sys
import numpy as np
import pyconv

MB = 2**20

def status(name):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(name + ":"))

def growth(call):
    # VmHWM is the peak of this program alone; getrusage would count the one that started it as well.
    before, peak = status("VmRSS"), status("VmHWM")
    # An earlier peak would hide what the call takes.
    assert peak - before < 16 * MB, (peak / MB, before / MB)
    call()
    return (status("VmHWM") - before) / MB

def normal(shape):
    a = np.empty(shape, np.float32)
    rng = np.random.default_rng(0)
    for part in a.reshape(-1, a.shape[-1]):
        rng.standard_normal(dtype=np.float32, out=part)
    return a
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_large_image_takes_no_more_than_itself(run_python, workers):
    script = """
x, out = normal((8192, 8192)), np.zeros((8192, 8192), np.float32)
out += 1
k, workers = np.ones((3, 3), np.float32), int(sys.argv[1])
grown = growth(lambda: pyconv.corr2d(x, k, padding=1, padding_mode="reflect", out=out, workers=workers))
assert abs(out[5000, 6000] - x[4999:5002, 5999:6002].sum()) < 1e-4
print(grown)
"""
    assert float(run_python(MEASURE + script, workers)) < 32


def test_the_result_of_a_large_image_is_all_that_is_allocated(run_python):
    script = """
x = normal((8192, 8192))
k = np.ones((5, 5), np.float32)
print(growth(lambda: pyconv.corr2d(x, k, padding="same")) - 256)
"""
    assert float(run_python(MEASURE + script)) < 32


@pytest.mark.parametrize("workers", [1, 2])
def test_many_channels_take_no_more_than_themselves(run_python, workers):
    script = """
x, out = normal((1, 64, 512, 512)), np.zeros((1, 64, 512, 512), np.float32)
out += 1
w = np.ones((64, 64, 3, 3), np.float32)
grown = growth(lambda: pyconv.conv2d(x, w, padding=1, out=out, workers=int(sys.argv[1])))
assert abs(out[0, 9, 300, 400] - x[0, :, 299:302, 399:402].sum(dtype=float)) < 1e-3
print(grown)
"""
    assert float(run_python(MEASURE + script, workers)) < 32


@pytest.mark.parametrize("dtype", ["uint8", "float16", ">f4", "float64"])
def test_no_converted_or_contiguous_copy_is_made(run_python, dtype):
    # The other layouts and dtypes are read as they stand, through the same few megabytes.
    script = """
dtype = np.dtype(sys.argv[1])
x, out = np.ones((4096, 8192), dtype)[:, ::-1].T, np.zeros((8192, 4096), dtype.newbyteorder("="))
out += 1
k = np.ones((3, 3), dtype.newbyteorder("="))
print(growth(lambda: pyconv.corr2d(x, k, padding=1, out=out, overflow="wrap")))
assert out[1, 1] == 9
"""
    assert float(run_python(MEASURE + script, dtype)) < 32


def test_a_file_larger_than_memory_is_filtered_into_another(run_python):
    # The process may allocate 64 MB; image and result are 128 MB each and stay in their files.
    script = """
shape = (4096, 8192)
image = np.memmap("image.raw", np.float32, "w+", shape=shape)
for row in range(0, shape[0], 256):
    image[row : row + 256] = np.random.default_rng(row).integers(-9, 9, (256, shape[1]))
image.flush()
image = np.memmap("image.raw", np.float32, "r", shape=shape)
result = np.memmap("result.raw", np.float32, "w+", shape=shape)
k = np.arange(9, dtype=np.float32).reshape(3, 3)

limit = status("VmData") + 64 * MB
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(shape, np.float32)
except MemoryError:
    print("no room for a copy")

assert pyconv.corr2d(image, k, padding=1, padding_mode="symmetric", out=result, workers=2) is result
result.flush()
del result
result = np.memmap("result.raw", np.float32, "r", shape=shape)
for row, column in ((1, 1), (2000, 8190), (4094, 17)):
    assert result[row, column] == (image[row - 1 : row + 2, column - 1 : column + 2] * k).sum()
print("filtered")
"""
    assert run_python(MEASURE + script) == "no room for a copy\nfiltered\n"


def test_a_broadcast_view_is_never_written_out(run_python):
    # 2**60 elements in one. The limit keeps a wrong implementation from taking the machine's memory.
    script = """
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
x = np.broadcast_to(np.float32(1), (2**30, 2**30))
y = pyconv.corr2d(x, np.ones((3, 3), np.float32), stride=2**28)
assert y.shape == (4, 4) and (y == 9).all()
x = np.broadcast_to(np.float32(1), (64, 3, 4096, 4096))
y = pyconv.conv2d(x, np.ones((2, 3, 3, 3), np.float32), stride=512)
assert y.shape == (64, 2, 8, 8) and (y == 27).all()
print("done")
"""
    assert run_python(MEASURE + script) == "done\n"


GUARDED = """
import itertools
import numpy as np
import cases, oracle, pyconv

conv = {1: pyconv.conv1d, 2: pyconv.conv2d, 3: pyconv.conv3d}
shapes = [
    # x, w, keywords
    ((1, 1, 5, 7), (1, 1, 3, 3), {}),
    ((1, 1, 5, 7), (1, 1, 3, 3), {"padding": 1}),
    ((2, 3, 16, 16), (4, 3, 3, 3), {}),
    ((2, 3, 17, 33), (5, 3, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    ((1, 2, 1, 100), (3, 2, 1, 5), {}),
    ((1, 2, 100, 1), (3, 2, 5, 1), {}),
    ((1, 4, 31, 65), (8, 4, 4, 4), {"stride": 2, "padding": 1}),
    ((1, 4, 30, 64), (8, 4, 3, 3), {"stride": 3}),
    ((1, 6, 19, 47), (6, 1, 5, 5), {"groups": 6, "padding": 2}),
    ((1, 7, 15, 15), (9, 7, 1, 1), {}),
    ((1, 7, 15, 15), (9, 7, 1, 1), {"stride": 2}),
    ((1, 40, 7, 7), (33, 40, 3, 3), {"padding": 1}),
    ((1, 1, 70, 200), (1, 1, 3, 3), {"padding": 1, "padding_mode": "edge"}),
    ((1, 1, 70, 200), (1, 1, 11, 11), {}),
    ((2, 3, 129), (4, 3, 7), {"dilation": 2}),
    ((1, 2, 5, 6, 17), (3, 2, 3, 3, 3), {"padding": 1}),
]
for (x_shape, w_shape, keywords), dtype, side in itertools.product(
    shapes, ("float32", "float64", "float16", "uint8", "complex64"), ("start", "end")
):
    x = cases.integer_valued(np.random.default_rng(0), x_shape, dtype, 2)
    w = cases.integer_valued(np.random.default_rng(1), w_shape, dtype, 2)
    b = cases.integer_valued(np.random.default_rng(2), w_shape[:1], dtype, 2)
    print(x_shape, w_shape, keywords, dtype, side, flush=True)
    for method in ("direct", "im2col"):
        expected = conv[len(x_shape) - 2](x, w, b, method=method, **keywords)
        out = cases.guarded(cases.poison(expected.shape, expected.dtype), side)
        guarded = [cases.guarded(a, side) for a in (x, w, b)]
        conv[len(x_shape) - 2](*guarded, out=out, method=method, **keywords)
        oracle.assert_same_bits(out, expected)
print("done")
"""


def test_nothing_outside_the_arrays_is_touched(run_python):
    done = run_python(GUARDED, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "done", f"{done.returncode} at {lines[-1:]}\n{done.stderr}"


def test_a_weight_gradient_takes_no_multiple_of_itself(run_python):
    # As in a dense layer: the kernel is as large as the image, and many images are summed.
    script = """
x, g, dw = normal((32, 16, 64, 64)), normal((32, 128, 1, 1)), np.ones((128, 16, 64, 64), np.float32)
print(growth(lambda: pyconv.grad.conv2d_weight(x, dw.shape, g, out=dw, workers=1)) - dw.nbytes / MB)
assert abs(dw[3, 2, 1, 0] - (x[:, 2, 1, 0] * g[:, 3, 0, 0]).sum()) < 1e-4
"""
    assert float(run_python(MEASURE + script)) < 48
