"""One library in a process of its own, so that thread pools of different libraries never meet.

Started as ``python -m benchmarks.worker LIBRARY THREADS``. Each line of standard input is a request in JSON,
whose ``do`` names a method of Requests and whose other members are its arguments. Each gets one line in
reply, with either a ``value`` or an ``error``. Between requests the process sleeps, waiting for a line.
"""

import contextlib
import gc
import json
import os
import statistics
import sys
import time

import numpy as np

from benchmarks import roofline
from benchmarks.cases import Case
from benchmarks.peers import LIBRARIES

BATCH_SECONDS = 1e-3  # calls are timed in batches that last about this long, longer calls one by one


class Requests:
    def __init__(self, library, threads):
        self.threads = threads
        self.library = LIBRARIES[library](threads)

    def version(self):
        return self.library.version()

    def isa(self):
        """The instruction-set level pyconv uses."""
        import pyconv.engine

        return pyconv.engine.level

    def map_memory(self):
        """Have the system map the memory outputs will take, so that even the first case finds it mapped."""
        blocks = [np.ones(2**22, "float32") for _ in range(8)]
        del blocks

    def accept(self, case):
        """Make ``run`` the function that solves a case; False if the library has none."""
        self.run = None  # arrays of the case before are released first
        # (in JSON a tuple has become a list)
        case = Case(**{name: tuple(value) if isinstance(value, list) else value for name, value in case.items()})
        solver = getattr(self.library, case.kind, None)
        self.run = solver and solver(case, *case.arrays())
        self.case = case
        return self.run is not None

    def prepare(self, case, result):
        """Solve a case once and save the result in the file named ``result``; False if it cannot be done."""
        if not self.accept(case):
            return False
        start = time.perf_counter()
        answer = self.run()
        self.call_seconds = time.perf_counter() - start
        np.save(result, self.library.as_array(self.case, answer))
        wait_until_idle()
        return True

    def workspace(self):
        """What a call takes for itself in bytes, or None."""
        return self.library.workspace(self.case, *self.case.arrays())

    def time(self, seconds):
        """The median time of one call, from calls that last ``seconds`` in all, at least one.

        A call before them warms the caches, unless a call lasts longer than ``seconds``.
        """
        if self.call_seconds < seconds:
            start = time.perf_counter()
            self.run()
            self.call_seconds = time.perf_counter() - start
        calls = max(1, int(BATCH_SECONDS / self.call_seconds))
        batches = []
        end = time.perf_counter() + seconds
        while not batches or start < end:
            start = time.perf_counter()
            for _ in range(calls):
                self.run()
            batches.append((time.perf_counter() - start) / calls)
        wait_until_idle()
        return statistics.median(batches)

    def memory(self, case, first):
        """The peak of bytes beyond input and output in a call, once calls of ``first`` started everything.

        None if the library cannot do the case.
        """
        if not self.accept(first):
            return None
        allocates = self.run() is not self.run()  # else both are the output prepared before
        self.accept(case)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the peak
        before = memory_status("VmRSS")
        answer = self.library.as_array(self.case, self.run())
        return memory_status("VmHWM") - before - (answer.nbytes if allocates else 0)

    def fma_gflops(self, dtype):
        return roofline.fma_gflops(dtype, self.threads)

    def copy_bandwidth(self, nbytes):
        return roofline.copy_bandwidth(nbytes, self.threads)


def memory_status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def wait_until_idle():
    """Sleep until the library's threads no longer spin in wait for work, which would slow other libraries.

    Spinning is not switched off in any library: it would make each slower than its users see it.
    """
    used, now = -1.0, time.process_time()
    while now - used > 5e-4:
        time.sleep(5e-3)
        used, now = now, time.process_time()


def main():
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not look like a reply
    requests = None

    def reply(**message):
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        requests = Requests(sys.argv[1], int(sys.argv[2]))
    except ImportError as error:
        reply(error=str(error))
        return
    reply(value=requests.version())
    gc.disable()
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            request = json.loads(line)
            function = getattr(requests, request.pop("do"))
            try:
                reply(value=function(**request))
            except Exception as error:  # reported by the parent, which goes on with the other libraries
                reply(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
