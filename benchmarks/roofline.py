"""What the machine can do at most: multiply-adds a second, and bytes copied a second."""

import math
import threading
import time

import numpy as np

FMA_REPEATS, COPY_REPEATS = 20, 5  # the best counts: a limit is what is reached undisturbed
COPY_SECONDS = 0.02


def fma_gflops(dtype, threads):
    """The rate of fused multiply-adds on registers, two operations each, in 1e9 operations a second."""
    from pyconv import engine

    return max(engine.fma_gflops(dtype, threads) for _ in range(FMA_REPEATS))


def copy_size(nbytes):
    """The power of two from 1 MiB to 512 MiB near ``nbytes``; bandwidth depends on the cache used."""
    return min(max(2 ** round(math.log2(nbytes)), 2**20), 2**29)


def copy_bandwidth(nbytes, threads):
    """Bytes that ``numpy.copyto`` reads and writes a second, in 1e9 bytes.

    Source and target take ``nbytes`` together, and each thread copies its own part.
    """
    shape = nbytes // 8 // 2 // threads
    pairs = [(np.zeros(shape), np.ones(shape)) for _ in range(threads)]
    return max(copy_once(pairs) for _ in range(COPY_REPEATS))


def copy_once(pairs):
    """The bandwidth of threads that all copy at once, each its pair's second array to the first."""
    nbytes = pairs[0][0].nbytes * 2
    barrier = threading.Barrier(len(pairs))
    rates = [0.0] * len(pairs)

    def copy(index):
        target, source = pairs[index]
        barrier.wait()
        start = now = time.perf_counter()
        copies = 0
        while now - start < COPY_SECONDS:
            np.copyto(target, source)
            copies += 1
            now = time.perf_counter()
        rates[index] = copies * nbytes / (now - start) / 1e9

    threads = [threading.Thread(target=copy, args=(index,)) for index in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)
