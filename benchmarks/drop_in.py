"""How much faster pyconv's functions are than SciPy's of the same names: ``python -m benchmarks.drop_in``.

Both in this process, one thread, the least processor time of several calls, in turn. Then what missing samples cost,
beside the same filter without them.
"""

import time
from functools import partial

import numpy as np

SECONDS = 0.1  # of calls, for each line and library
KERNELS = (3, 5, 9, 15)
SIGMAS = (1, 2, 8)
TAPS = (11, 101, 1001)
SHARES = (0, 0.01, 0.3)


def least_time(functions):
    """Of each function, in seconds of this thread."""
    times = [float("inf")] * len(functions)
    for function in functions:
        function()
    end = time.perf_counter() + SECONDS * len(functions)
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            start = time.thread_time_ns()
            function()
            times[i] = min(times[i], (time.thread_time_ns() - start) / 1e9)
    return times


def line(name, ours, theirs):
    mine, other = least_time([ours, theirs])
    print(f"{name:44} {mine * 1e3:9.4f} ms {other * 1e3:10.4f} {other / mine:8.1f}x", flush=True)


def images(ndimage, scipy_ndimage):
    rng = np.random.default_rng(0)

    def beside(name, note, x, *arguments):
        out = np.empty_like(x)
        line(
            f"{name} {note} of {x.dtype} {x.shape[0]}^{x.ndim}",
            partial(getattr(ndimage, name), x, *arguments, output=out),
            partial(getattr(scipy_ndimage, name), x, *arguments, output=out),
        )

    for n in (16, 512, 2048):
        for dtype in ("uint8", "uint16", "float32", "float64"):
            x = (rng.random((n, n)) * (255 if dtype.startswith("u") else 1)).astype(dtype)
            for sigma in SIGMAS if n > 16 else SIGMAS[:1]:
                beside("gaussian_filter", f"sigma {sigma}", x, sigma)
            beside("uniform_filter", "size 5", x, 5)
            beside("sobel", "", x)
            beside("laplace", "", x)
            for k in KERNELS if n > 16 else KERNELS[:1]:
                beside("correlate", f"{k}x{k}", x, rng.random((k, k)))
    for dtype in ("float32", "float64"):
        x = rng.random((128,) * 3).astype(dtype)
        for k in (3, 5):
            beside("correlate", f"{k}x{k}x{k}", x, rng.random((k, k, k)))


def signals(ndimage, signal, scipy_ndimage, scipy_signal):
    rng = np.random.default_rng(1)

    def beside(ours, theirs, name, note, *arguments):
        line(
            f"{name} {note}",
            partial(getattr(ours, name), *arguments),
            partial(getattr(theirs, name), *arguments),
        )

    for dtype in ("float32", "float64"):
        x = rng.random(10**6).astype(dtype)
        for k in TAPS:
            w, note = rng.random(k).astype(dtype), f"{k} taps of {dtype} 10^6"
            beside(ndimage, scipy_ndimage, "correlate1d", note, x, w)
            beside(signal, scipy_signal, "correlate", note, x, w, "same")
            beside(signal, scipy_signal, "oaconvolve", note, x, w, "same")
        for n in (16, 512, 2048):
            x = rng.random((n, n)).astype(dtype)
            for k in (3, 5, 9):
                w = rng.random((k, k)).astype(dtype)
                beside(signal, scipy_signal, "correlate2d", f"{k}x{k} of {dtype} {n}^2", x, w, "same")


def missing(ndimage):
    rng = np.random.default_rng(2)
    print("\nmissing samples, float32: times the plain filter, with a share missing of " + ", ".join(map(str, SHARES)))
    for n in (512, 2048):
        x = rng.random((n, n), np.float32)
        settings = {"output": np.empty_like(x)}
        images = [np.where(rng.random(x.shape) < share, np.float32(np.nan), x) for share in SHARES]
        filters = [("correlate", f"{k}x{k}", rng.random((k, k))) for k in KERNELS] + [("gaussian_filter", "sigma 2", 2)]
        for name, note, argument in filters:
            function = getattr(ndimage, name)
            calls = [partial(function, x, argument, **settings)]
            calls += [partial(function, image, argument, nan_policy="omit", **settings) for image in images]
            plain, *others = least_time(calls)
            print(f"{name} {note} {n}^2".ljust(44) + "".join(f"{other / plain:8.2f}" for other in others), flush=True)


def main():
    import scipy.ndimage
    import scipy.signal

    from pyconv import ndimage, set_workers, signal

    print(f"{'':44} {'pyconv':>12} {'scipy':>10} {'faster':>9}")
    with set_workers(1):
        images(ndimage, scipy.ndimage)
        signals(ndimage, signal, scipy.ndimage, scipy.signal)
        missing(ndimage)


if __name__ == "__main__":
    main()
