"""How many threads a call uses."""
import os
from pathlib import Path

from pyconv import _check
from pyconv.engine import _cpu

_wanted = None                       # what set_workers asked for
_forked = False                      # gcc's OpenMP hangs in the forked child of a process whose threads it has started


def _cgroup_limit():
    """Whole processors that the control group at the root of this namespace grants; None: no limit is set there."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


_granted = _cgroup_limit()


def _after_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _available():
    threads = _cpu.threads()
    return threads if _granted is None else min(threads, _granted)


def resolve_workers(workers):
    """The number of threads that the argument `workers` of a public function means."""
    if workers is None:
        workers = _wanted
        if workers is None:
            return 1 if _forked else _available()
    workers = _check.workers(workers, _available)
    return 1 if _forked else workers


class set_workers:
    """Set the number of threads for all calls without a `workers` argument, at once; as a context manager, restore it.

    Parameters
    ----------
    n : int or None
        At least 1, or negative to count back from all: -1 is as many as there are, -2 one fewer. None: the default,
        all cores that this process may use (its affinity and control group, or OMP_NUM_THREADS), and at most what
        threadpoolctl has left.

    Notes
    -----
    The number of threads never changes a result. In a forked child every call uses one thread, since gcc's OpenMP
    would hang there; processes that are spawned are free.

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.set_workers(1):
    ...     pyconv.get_workers()
    1
    """

    def __init__(self, n):
        global _wanted
        self.n = wanted = n if n is None else _check.workers(n, _available, "n (workers)")
        self._before = _wanted
        _wanted = wanted

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        global _wanted
        _wanted = self._before

    def __repr__(self):
        return f"set_workers({self.n})"


def get_workers():
    """The number of threads that a call without a `workers` argument may use.

    Returns
    -------
    int

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.set_workers(2):
    ...     pyconv.get_workers()
    2
    """
    return resolve_workers(None)
