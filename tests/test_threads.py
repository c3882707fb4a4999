"""Worker counts, concurrent calls, forks and interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import oracle
import pytest

import pyconv

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


@pytest.fixture(autouse=True)
def restore_workers():
    before = pyconv.get_workers()
    yield
    pyconv.set_workers(before)


def example(seed=0):
    x = cases.normal(np.random.default_rng(seed), (2, 8, 64, 70), np.float32)
    return x, cases.normal(np.random.default_rng(99), (9, 8, 3, 3), np.float32)


# ------------------------------------------------------------------------------------------------
# set_workers and get_workers


def test_set_workers_takes_effect_at_once():
    pyconv.set_workers(3)
    assert pyconv.get_workers() == 3
    pyconv.set_workers(1)
    assert pyconv.get_workers() == 1


def test_set_workers_restores_as_a_context_manager():
    pyconv.set_workers(2)
    with pyconv.set_workers(1):
        assert pyconv.get_workers() == 1
        with pyconv.set_workers(3):
            assert pyconv.get_workers() == 3
        assert pyconv.get_workers() == 1
    assert pyconv.get_workers() == 2
    with pytest.raises(KeyError), pyconv.set_workers(1):
        raise KeyError
    assert pyconv.get_workers() == 2


@linux
def test_negative_counts_count_back_from_all_cores():
    cores = len(os.sched_getaffinity(0))
    pyconv.set_workers(-1)
    everything = pyconv.get_workers()
    assert 1 <= everything <= cores
    if everything > 1:
        pyconv.set_workers(-2)
        assert pyconv.get_workers() == everything - 1
    x, w = example()
    oracle.assert_same_bits(pyconv.conv2d(x, w, workers=-1), pyconv.conv2d(x, w, workers=1))


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_wrong_count_is_refused_and_changes_nothing(count, error):
    pyconv.set_workers(2)
    with pytest.raises(error, match="workers"):
        pyconv.set_workers(count)
    assert pyconv.get_workers() == 2
    for function, arguments in (
        (pyconv.corr2d, (np.ones((5, 5)), np.ones((3, 3)))),
        (pyconv.conv1d, (np.ones((1, 5)), np.ones((1, 1, 3)))),
        (pyconv.conv2d, (np.ones((1, 5, 5)), np.ones((1, 1, 3, 3)))),
        (pyconv.conv3d, (np.ones((1, 5, 5, 5)), np.ones((1, 1, 3, 3, 3)))),
    ):
        with pytest.raises(error, match="workers"):
            function(*arguments, workers=count)


def test_numpy_integers_are_counts():
    x, w = example()
    pyconv.set_workers(np.int64(2))
    assert pyconv.get_workers() == 2
    oracle.assert_same_bits(pyconv.conv2d(x, w, workers=np.int32(2)), pyconv.conv2d(x, w))


COUNT = "import pyconv; print(pyconv.get_workers())"


@linux
def test_the_default_is_the_cores_this_process_may_use(run_python):
    cores = len(os.sched_getaffinity(0))
    clean = {"OMP_NUM_THREADS": None}
    assert 1 <= int(run_python(COUNT, env=clean)) <= cores
    one = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);" + COUNT
    assert int(run_python(one, env=clean)) == 1


def test_omp_num_threads_limits_the_default(run_python):
    assert int(run_python(COUNT, env={"OMP_NUM_THREADS": "1"})) == 1


THREADS_STARTED = """
import os, sys, numpy as np, pyconv
count = lambda: len(os.listdir("/proc/self/task"))
x, w = np.ones((4, 16, 200, 200), np.float32), np.ones((16, 16, 3, 3), np.float32)
before = count()
pyconv.conv2d(x, w, workers=int(sys.argv[1]))
print(count() - before)
"""


@linux
def test_one_worker_starts_no_thread(run_python):
    env = {"OPENBLAS_NUM_THREADS": "1"}
    assert int(run_python(THREADS_STARTED, 1, env=env)) == 0
    # The pool stays for the next call, or is gone; there are never more than were asked for.
    assert int(run_python(THREADS_STARTED, 3, env=env)) <= 2


# ------------------------------------------------------------------------------------------------
# Concurrent calls


def test_concurrent_calls_have_the_same_bits():
    images, w = [example(i)[0] for i in range(6)], example()[1]
    expected = [pyconv.conv2d(x, w, padding=1, workers=1) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for workers in (1, 2, None):
            results = list(
                pool.map(lambda x, n=workers: pyconv.conv2d(x, w, padding=1, workers=n), images * 4)
            )
            for i, y in enumerate(results):
                oracle.assert_same_bits(y, expected[i % len(images)])


def test_the_first_calls_may_come_from_several_threads(run_python):
    script = """
import threading, numpy as np, pyconv
x, w = np.ones((2, 8, 64, 70), np.float32), np.ones((9, 8, 3, 3), np.float32)
results = [None] * 6
gate = threading.Barrier(6)
def work(i):
    gate.wait()
    results[i] = pyconv.conv2d(x, w, workers=2)
threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
for t in threads: t.start()
for t in threads: t.join()
assert all((y == 72).all() for y in results)
print("done")
"""
    assert run_python(script, timeout=60) == "done\n"


def test_the_gil_is_released_during_a_call():
    # Another thread counts while a call runs; a held GIL would leave its counter where it was.
    x = cases.huge_broadcast(np.float32(1), (1, 512, 256, 256))
    w = np.ones((16, 512, 3, 3), np.float32)
    ticks, running = [], threading.Event()

    def count():
        running.set()
        while running.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    running.wait()
    begin = time.perf_counter()
    pyconv.conv2d(x, w, workers=1)
    end = time.perf_counter()
    running.clear()
    thread.join()
    assert sum(begin < tick < end for tick in ticks) >= 3


# ------------------------------------------------------------------------------------------------
# Forks


@posix
def test_a_forked_child_does_not_hang(run_python):
    script = """
import os, numpy as np, pyconv
x = np.random.default_rng(0).standard_normal((2, 8, 64, 70), np.float32)
w = np.random.default_rng(1).standard_normal((9, 8, 3, 3), np.float32)
expected = pyconv.conv2d(x, w, workers=2)
for round in range(3):
    child = os.fork()
    if child == 0:
        same = (pyconv.conv2d(x, w, workers=2) == expected).all() and (pyconv.conv2d(x, w) == expected).all()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The parent goes on as before.
    assert (pyconv.conv2d(x, w, workers=2) == expected).all()
print("done")
"""
    assert run_python(script, timeout=60) == "done\n"


@posix
def test_multiprocessing_by_fork_does_not_hang(run_python):
    script = """
import multiprocessing, numpy as np, pyconv
x, w = np.ones((2, 8, 64, 70), np.float32), np.ones((9, 8, 3, 3), np.float32)
def work(i):
    return float(pyconv.conv2d(x * i, w, workers=2).max())
assert work(1) == 72
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(6)) == [72.0 * i for i in range(6)]
print("done")
"""
    assert run_python(script, timeout=60) == "done\n"


# ------------------------------------------------------------------------------------------------
# Interrupts


LONG_CALL = """
import sys, numpy as np, pyconv
# Tens of TFLOP from a few KB of input: minutes of work, were it not interrupted.
x = np.broadcast_to(np.ones((1, 4096, 1, 1), np.float32), (1000, 4096, 128, 128))
w = np.ones((16, 4096, 3, 3), np.float32)
small = pyconv.conv2d(x[:1, :16, :8, :8], w[:, :16])
print("started", flush=True)
try:
    pyconv.conv2d(x, w, workers=int(sys.argv[1]))
except KeyboardInterrupt:
    again = pyconv.conv2d(x[:1, :16, :8, :8], w[:, :16], workers=2)
    print("interrupted" if (again == small).all() else "interrupted, and wrong since", flush=True)
"""


@posix
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_a_long_call(workers, tmp_path):
    package_root = os.path.dirname(os.path.dirname(os.path.abspath(pyconv.__file__)))
    child = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL, str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": package_root},
    )
    # Where nothing interrupts the call, the child ends here, and its missing answer fails the test.
    limit = threading.Timer(20, child.kill)
    limit.start()
    try:
        assert child.stdout.readline() == "started\n"
        time.sleep(0.5)
        assert child.poll() is None
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted\n"
        # A second is promised on an idle machine; this one may be busy with other tests.
        assert time.monotonic() - sent < 4
        assert child.wait(30) == 0
    finally:
        limit.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
