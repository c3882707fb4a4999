"""What learning a kernel takes, and how near it comes: ``python -m benchmarks.learning``.

The time of `fit_kernel` beside that of five steps of `learn_kernel` on the same pair, in turn, and what the fit takes
in memory beyond the pair; then how far from the truth the kernels of noise-free pairs are.
"""

import os
import statistics
import time

# The threads of NumPy's linear algebra spin for a while after each of its calls, and would take a core from the rest.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.worker import memory_status

SIZE, KERNEL = 2048, (15, 15)
STEPS, ROUNDS = 5, 5


def timed(function, workers):
    start = time.perf_counter()
    function(workers)
    return time.perf_counter() - start


def peak(function):
    """Bytes of memory at most that it takes beyond what is there (Linux only)."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    before = memory_status("VmRSS")
    function()
    return memory_status("VmHWM") - before


def pair(dtype):
    """White noise and what a random kernel makes of it."""
    import pyconv

    rng = np.random.default_rng(20240304)
    image = rng.standard_normal((SIZE, SIZE)).astype(dtype)
    return image, pyconv.corr2d(image, rng.standard_normal(KERNEL).astype(dtype))


def fit_against_descent(dtype):
    import pyconv

    image, target = pair(dtype)

    def fit(workers=None):
        pyconv.fit_kernel(image, target, KERNEL, workers=workers)

    def descend(workers):
        pyconv.learn_kernel(image, target, KERNEL, lr=lr, momentum=0, steps=STEPS, workers=workers)

    grown = peak(fit) / 1e6
    lr = pyconv.learn_kernel(image, target, KERNEL, steps=1).lr
    for workers in (1, 2):
        times = [(timed(fit, workers), timed(descend, workers)) for _ in range(ROUNDS)]
        fitted, descended = map(statistics.median, zip(*times, strict=True))
        print(
            f"{SIZE}^2, {KERNEL[0]}x{KERNEL[1]}, {dtype}, {workers}t: fit_kernel {fitted:.3f} s, {STEPS} steps "
            f"{descended:.3f} s, {fitted / descended:.2f} of it; {grown:.1f} MB beyond the pair",
            flush=True,
        )


def recovery():
    import pyconv

    rng = np.random.default_rng(20240305)
    for dtype in ("float32", "float64"):
        x = rng.standard_normal((1, 3, 64, 64)).astype(dtype)
        weight = rng.standard_normal((4, 3, 5, 5)).astype(dtype)
        target = pyconv.conv2d(x, weight, stride=2, padding=2)
        found = pyconv.fit_kernel(x, target, (5, 5), stride=2, padding=2)
        error = abs(found.kernel - weight).max()
        print(f"3 to 4 channels, 5x5, stride 2, {dtype}: fit_kernel within {error:.1e}")
    try:
        from skimage import data
    except ImportError:
        print("scikit-image is not installed, so nothing is learnt from its photograph")
        return
    camera = data.camera() / 255
    blur = pyconv.kernels.gaussian(sigma=1.5, radius=4)
    found = pyconv.fit_kernel(camera, pyconv.ndimage.correlate(camera, blur), blur.shape)
    print(f"camera and its 9x9 blur: fit_kernel within {abs(found.kernel - blur).max():.1e}")
    kernel = rng.standard_normal((5, 5))
    found = pyconv.learn_kernel(camera, pyconv.corr2d(camera, kernel), kernel.shape)
    error = np.linalg.norm(found.kernel - kernel) / np.linalg.norm(kernel)
    print(f"camera, 5x5: learn_kernel with its own lr and momentum within {error:.2%} in {len(found.losses)} steps")


if __name__ == "__main__":
    for kind in ("float32", "float64"):
        fit_against_descent(kind)
    recovery()
