"""Times libraries against each other: each in its own process, in turns, over several rounds."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.cases import SLOW_FLOPS
from benchmarks.peers import LIBRARIES

THREAD_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
# The C library keeps the memory of freed outputs for the next call, as in a program that has run for a while.
# Else it would depend on the cases timed before whether an output's pages must be mapped anew.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "uint8": 0}  # of the greatest magnitude in a result of random signs


class WorkerError(Exception):
    """What went wrong in a library's process."""


class Worker:
    """A library's process, with a number of threads."""

    def __init__(self, library, threads):
        command = [sys.executable, "-m", "benchmarks.worker", library, str(threads)]
        environment = os.environ | KEEP_MEMORY | dict.fromkeys(THREAD_VARIABLES, str(threads))
        self.library, self.threads = library, threads
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.version = self.reply()
        except WorkerError:
            self.close()
            raise

    def ask(self, do, **arguments):
        with contextlib.suppress(BrokenPipeError):  # that the process has ended is said by reply
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        return self.reply()

    def reply(self):
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"its process ended with status {self.process.wait()}")
        message = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message["value"]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


@dataclass
class Timing:
    """The median time of a call in each round, in seconds."""

    rounds: list

    @property
    def seconds(self):
        return statistics.median(self.rounds)

    @property
    def spread(self):
        """From the fastest round to the slowest, as a share of the median."""
        return (max(self.rounds) - min(self.rounds)) / self.seconds


def check(result, expected, case):
    """Raise WorkerError unless two results agree as far as the arithmetic of the case's dtype allows."""
    if result.shape != expected.shape or result.dtype != expected.dtype:
        raise WorkerError(
            f"result is {result.shape} {result.dtype}, where {expected.shape} {expected.dtype} is expected"
        )
    if result.dtype.kind in "iu":
        result, expected = result.astype(np.float64), expected.astype(np.float64)
    difference = np.abs(result - expected).max() / np.abs(expected).max()
    if not difference <= TOLERANCE[case.dtype]:  # NaN is wrong, too
        raise WorkerError(f"result is wrong: it differs by {difference:.1e} of the greatest magnitude")


def prepare(case, workers, folder, say):
    """Have each worker solve a case, and return those whose answer is right.

    Answers are compared with that of the first peer that has one; without a peer nothing is right.
    """
    right, expected = [], None
    for worker in sorted(workers, key=lambda worker: worker.library == "pyconv"):  # pyconv last
        if case.flops > SLOW_FLOPS and case.filters_planes and not LIBRARIES[worker.library].threaded:
            continue
        path = os.path.join(folder, "result.npy")
        try:
            if not worker.ask("prepare", case=asdict(case), result=path):
                continue
            result = np.load(path)
            if expected is None:
                if worker.library == "pyconv":
                    raise WorkerError("no peer to check its result against")
                expected = result
            check(result, expected, case)
        except WorkerError as error:
            say(f"  {worker.threads}t {case.name} {worker.library}: {error}")
        else:
            right.append(worker)
    return right


def race(case, workers, rounds, seconds, budget, folder, say):
    """Time a case in all workers that solve it correctly: a dict from worker to Timing.

    A turn lasts ``seconds``, or a call if that takes longer. The order is turned around every other round. A
    worker whose turns took over ``budget`` seconds gets no more of them.
    """
    timings = {worker: Timing([]) for worker in prepare(case, workers, folder, say)}
    spent = dict.fromkeys(timings, 0.0)
    for number in range(rounds):
        for worker in list(timings)[:: -1 if number % 2 else 1]:
            if spent[worker] < budget:
                start = time.perf_counter()
                timings[worker].rounds.append(worker.ask("time", seconds=seconds))
                spent[worker] += time.perf_counter() - start
    return timings
