"""Convolution and correlation with scipy.signal's names, signatures and results: change the import, keep the code.

Every function takes two arrays. What comes out is part of their full convolution or correlation, which has
``n + k - 1`` elements along an axis of n and k:

=========  ==============================================================================
mode       elements
=========  ==============================================================================
``full``   all of them
``same``   as many as `in1` has, the middle ones
``valid``  those that see no border: ``n - k + 1``; one array must contain the other
=========  ==============================================================================

The dtype of the result is SciPy's: ``np.result_type`` of both, but floats for `fftconvolve` and `oaconvolve`. Integers
are exact and wrap. How a result is computed follows from shapes and dtypes, and from whether all numbers are finite:
by plain sums, one axis after the other, by Winograd's method, by Fourier transforms of tiles, or by NumPy's of
everything; ``method="direct"`` takes plain sums. The error of the others is bounded by the largest sum,
``c * u * max(|in1| * |in2|)``, c below half of what plain sums of so many terms may reach, but up to 40 in the
functions that are named after Fourier transforms.

Memory: a few MB beyond arguments and result, except where both arrays are large along several axes, or nearly as large
as one another: then some arrays of the size of the result.

What differs from SciPy: a NaN or an infinity spreads no further than the windows that hold it, and so nobody warns of
it; float16 arrays of several axes are accepted, and summed in float32; integers are exact and wrap whatever `method`
is, where SciPy's transforms lose them, and booleans likewise. `workers`, as a keyword only, is the number of threads.
Long doubles and objects are handed to SciPy, where it is installed, and so are all names of scipy.signal that are not
here (``lfilter``, ``welch``, ...).
"""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyconv import _check, engine, plan
from pyconv._workers import resolve_workers
from pyconv.separable import separable_factors

__all__ = [
    "choose_conv_method",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "fftconvolve",
    "oaconvolve",
]

# A kernel is taken apart from so many weights an axis on, and where it saves so many products.
_SEPARABLE_FROM = 5
_SEPARABLE_PRODUCTS = 2**21

# So few products of 64-bit integers take less than to look through the integers for a narrower dtype.
_FEW_PRODUCTS = 2**14

# Integers may be rounded results of Fourier transforms where no sum is larger: their error, 40 * 2**-53 of the largest
# sum, is then far below a half.
_ROUNDED_BELOW = 2.0**40


# ---- the public functions ----


def correlate2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: complex = 0,
    *,
    workers: int | None = None,
) -> NDArray:
    """Cross-correlate two 2-D arrays.

    Parameters
    ----------
    in1, in2 : array_like, (H, W) and (kh, kw)
        `in2` is conjugated. In mode ``valid`` either may be the larger one.
    mode : {"full", "valid", "same"}, optional
    boundary : {"fill", "wrap", "symm"}, optional
        What lies beyond the borders of `in1`::

            fill    f f f | a b c d | f f f      f is `fillvalue`
            wrap    b c d | a b c d | a b c
            symm    c b a | a b c d | d c b

    fillvalue : scalar, optional
    workers : int, optional
        Number of threads. Default: all processors this process may use.

    Returns
    -------
    ndarray
        (H + kh - 1, W + kw - 1), (H, W), or (H - kh + 1, W - kw + 1), of dtype ``np.result_type(in1, in2)``.

    Raises
    ------
    ValueError
        Arrays that are not 2-D, unknown names, in mode ``valid`` none that contains the other.
    TypeError
        Arguments of a wrong kind; a lazy array.

    See Also
    --------
    correlate : any number of axes; with an even `in2`, "same" is elsewhere by one.
    pyconv.ndimage.correlate : output as large as the input, with more boundaries.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import signal
    >>> signal.correlate2d(np.arange(9).reshape(3, 3), [[0, 1], [2, 3]], mode="valid")
    array([[19, 25],
           [37, 43]])
    """
    if fillvalue is _ZERO and boundary == "fill" and type(mode) is str:
        # Small plain arrays, for which the checks would take longer than the sums.
        pad = 0 if mode == "valid" else _even_padding(in2, mode)
        if pad is not None:
            y = engine.small_corr2d(in1, in2, 1, pad, 1, "zeros", 0.0, None, None, "auto", "raise", workers)
            if y is not None:
                return y
    return _two_axes(in1, in2, mode, boundary, fillvalue, workers, convolution=False)


def convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: complex = 0,
    *,
    workers: int | None = None,
) -> NDArray:
    """Convolve two 2-D arrays.

    Parameters
    ----------
    in1, in2 : array_like, (H, W) and (kh, kw)
        In mode ``valid`` either may be the larger one.
    mode, boundary, fillvalue, workers
        As in `correlate2d`.

    Returns
    -------
    ndarray
        As in `correlate2d`.

    Raises
    ------
    ValueError, TypeError
        As in `correlate2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import signal
    >>> signal.convolve2d(np.eye(3, dtype=int), [[1, 2], [3, 4]], mode="same")
    array([[1, 2, 0],
           [3, 5, 2],
           [0, 3, 5]])
    """
    if fillvalue is _ZERO and boundary == "fill" and type(mode) is str and type(in2) is np.ndarray and in2.ndim == 2:
        pad = 0 if mode == "valid" else _even_padding(in2, mode)
        if pad is not None:
            flipped = in2[::-1, ::-1].copy()
            y = engine.small_corr2d(in1, flipped, 1, pad, 1, "zeros", 0.0, None, None, "auto", "raise", workers)
            if y is not None:
                return y
    return _two_axes(in1, in2, mode, boundary, fillvalue, workers, convolution=True)


def correlate(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto", *, workers: int | None = None
) -> NDArray:
    """Cross-correlate two arrays of any number of axes.

    Parameters
    ----------
    in1, in2 : array_like
        As many axes each. `in2` is conjugated. Beyond their borders are zeros.
    mode : {"full", "valid", "same"}, optional
    method : {"auto", "direct", "fft"}, optional
        ``"direct"`` takes plain sums, the others whatever is fastest and accurate enough.
    workers : int, optional
        Number of threads. Default: all processors this process may use.

    Returns
    -------
    ndarray
        Of dtype ``np.result_type(in1, in2)``.

    Raises
    ------
    ValueError
        Different numbers of axes, empty arrays, unknown names, in mode ``valid`` no array that contains the other.
    TypeError
        Arguments of a wrong kind; a lazy array.

    Examples
    --------
    >>> from pyconv import signal
    >>> signal.correlate([1, 2, 3, 4], [1, 0, -1], mode="valid")
    array([-2, -2])
    >>> signal.correlate([1, 2, 3, 4], [1, 0, -1])
    array([-1, -2, -2, -2,  3,  4])
    """
    return _any_axes("correlate", in1, in2, mode, method, workers, convolution=False)


def convolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto", *, workers: int | None = None
) -> NDArray:
    """Convolve two arrays of any number of axes.

    Parameters
    ----------
    in1, in2 : array_like
        As many axes each. Beyond their borders are zeros.
    mode, method, workers
        As in `correlate`.

    Returns
    -------
    ndarray
        Of dtype ``np.result_type(in1, in2)``.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    Examples
    --------
    >>> from pyconv import signal
    >>> signal.convolve([1, 2, 3], [0, 1, 0.5])
    array([0. , 1. , 2.5, 4. , 1.5])
    """
    return _any_axes("convolve", in1, in2, mode, method, workers, convolution=True)


def fftconvolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    axes: int | Sequence[int] | None = None,
    *,
    workers: int | None = None,
) -> NDArray:
    """Convolve two arrays of any number of axes, along all or some of them, in floating point.

    The name is SciPy's; Fourier transforms are taken where they are faster.

    Parameters
    ----------
    in1, in2 : array_like
        As many axes each. Beyond their borders are zeros.
    mode : {"full", "valid", "same"}, optional
    axes : int or sequence of int, optional
        The axes to convolve along, if not all. Along others the arrays have the same length, or one has length 1.
    workers : int, optional
        Number of threads. Default: all processors this process may use.

    Returns
    -------
    ndarray
        Floats or complex numbers; as in SciPy, the product of arrays that are of length 1 along all of `axes` keeps
        their dtype, and empty arrays give an empty one of a single axis.

    Raises
    ------
    ValueError
        Different numbers of axes, lengths that do not belong together, unknown names.
    TypeError
        Arguments of a wrong kind; a lazy array.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import signal
    >>> signal.fftconvolve(np.eye(3), [[1.0, 2.0]], axes=1)
    array([[1., 2., 0., 0.],
           [0., 1., 2., 0.],
           [0., 0., 1., 2.]])
    """
    return _some_axes("fftconvolve", in1, in2, mode, axes, workers)


def oaconvolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    axes: int | Sequence[int] | None = None,
    *,
    workers: int | None = None,
) -> NDArray:
    """Convolve two arrays of any number of axes, along all or some of them, in floating point: `fftconvolve`.

    Parameters
    ----------
    in1, in2, mode, axes, workers
        As in `fftconvolve`.

    Returns
    -------
    ndarray
        As in `fftconvolve`.

    Raises
    ------
    ValueError, TypeError
        As in `fftconvolve`.

    Examples
    --------
    >>> from pyconv import signal
    >>> signal.oaconvolve([1.0, 2.0, 3.0], [1.0, 1.0])
    array([1., 3., 5., 3.])
    """
    return _some_axes("oaconvolve", in1, in2, mode, axes, workers)


def choose_conv_method(in1: ArrayLike, in2: ArrayLike, mode: str = "full", measure: bool = False):
    """Whether `convolve` sums or transforms: what ``method="auto"`` comes to for two arrays.

    Parameters
    ----------
    in1, in2 : array_like
    mode : {"full", "valid", "same"}, optional
    measure : bool, optional
        Whether to run both and to take the faster one.

    Returns
    -------
    str
        ``"direct"`` or ``"fft"``; both may take the same way.
    dict
        With `measure`, too: the seconds that each took.

    Raises
    ------
    ValueError, TypeError
        As in `convolve`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import signal
    >>> signal.choose_conv_method(np.ones(100_000), np.ones(1001))
    'fft'
    """
    in1, in2, wide = _check.signals(in1, in2)
    if wide:
        return _from_scipy("choose_conv_method", in1, in2)(in1, in2, mode, measure)
    _check.same_axes(in1, in2)
    _check.signal_mode(mode)
    if measure:
        seconds = {method: _seconds(convolve, in1, in2, mode, method) for method in ("fft", "direct")}
        return min(seconds, key=seconds.get), seconds
    if in1.size == 0 or in2.size == 0 or in1.ndim == 0:
        return "direct"
    if mode == "valid" and _check.one_contains_the_other(in1.shape, in2.shape):
        in1, in2 = in2, in1
    dtype = np.result_type(in1, in2)
    if dtype.kind in "biu":
        return "direct"
    n, k, size, before, _ = _place(in1.shape, in2.shape, mode)
    choice = plan.choose_signal(n, k, size, _sides(n, k, size, before), _real(dtype))
    return "direct" if choice.method == "direct" else "fft"


def __dir__():
    return sorted(__all__)


def __getattr__(name: str):
    """Whatever else scipy.signal has, from SciPy."""
    return _check.name_of_scipy("signal", name)


# ---- from arguments to samples, taps and padding ----

_METHODS = ("auto", "direct", "fft")
_ZERO = 0  # the default of `fillvalue`: CPython has one object for it


def _even_padding(kernel, mode):
    """The padding of the modes "full" and "same" where it is the same on all sides; else None."""
    if type(kernel) is not np.ndarray or kernel.ndim != 2:
        return None
    k = kernel.shape[0]
    if k != kernel.shape[1]:
        return None
    if mode == "full":
        return k - 1
    return k // 2 if mode == "same" and k % 2 else None


def _from_scipy(name, in1, in2):
    try:
        return getattr(importlib.import_module("scipy.signal"), name)
    except ImportError:
        raise _check.no_scipy_for(name, in1, in2) from None


def _seconds(function, *arguments):
    """The least of three runs."""
    least = math.inf
    for _ in range(3):
        start = time.perf_counter()
        function(*arguments)
        least = min(least, time.perf_counter() - start)
    return least


class _Brief(NamedTuple):
    """What follows from shapes, dtypes and names, for arrays that are soon correlated."""

    size: tuple[int, ...]
    before: tuple[int, ...]
    turn: tuple[slice, ...] | None  # of the taps
    conjugate: bool
    one: tuple[int, ...]
    codes: tuple[int, ...]
    computed: np.dtype  # of the taps
    result: np.dtype


# Checked once for each combination: else the checks of a call take longer than the sums.
@functools.lru_cache(maxsize=512)
def _settle_brief(n, k, in1, in2, mode, boundary, two_axes, convolution):
    """A `_Brief`, of shapes n and k and two dtypes; None: that needs more than direct sums, or an error message."""
    if not len(n) == len(k) > 0 or 0 in n or 0 in k or two_axes and len(n) != 2:
        return None
    if mode not in _check.SIGNAL_MODES:
        return None
    if in1.char not in _check.PLAIN_DTYPES or in2.char not in _check.PLAIN_DTYPES or in1.kind == in2.kind == "b":
        return None
    if boundary not in _check.SIGNAL_BOUNDARIES or mode == "valid" and any(a < b for a, b in zip(n, k, strict=True)):
        return None
    size, before, swapped = _place_two(n, k, mode, convolution) if two_axes else _place(n, k, mode)[2:]
    if swapped or math.prod(size) * math.prod(k) >= engine.SERIAL_BELOW:
        return None
    result = np.result_type(in1, in2)
    if in1.kind in "biu" and in2.kind in "biu":
        largest = math.prod(_check.largest_magnitude(dtype) for dtype in (in1, in2)) * math.prod(k)
        if result.kind not in "iu" or largest > 2**53 and math.prod(size) * math.prod(k) > _FEW_PRODUCTS:
            return None
        computed = _direct_dtype(largest)
    else:
        computed = _real(result)
        if in2.kind == "c":
            computed = np.result_type(computed, np.complex64)
    codes = (engine.BOUNDARIES[_check.SIGNAL_BOUNDARIES[boundary]],) * len(n)
    turn = (slice(None, None, -1),) * len(n) if convolution else None
    return _Brief(size, before, turn, not convolution and in2.kind == "c", (1,) * len(n), codes, computed, result)


def _run_brief(x, w, brief):
    size, before, turn, conjugate, one, codes, computed, result = brief
    if turn is not None:
        w = w[turn]
    elif conjugate:
        w = w.conj()
    y = np.empty(size, result)
    w = np.ascontiguousarray(w, computed)[None, None]
    engine.correlate(x[None], w, None, y[None], 0, 1, one, one, before, codes, 0.0, 1)
    return y


def _place_two(n, k, mode, convolution):
    """`_place` for `correlate2d` and `convolve2d`, whose second array is the taps: (shape, padding before, False)."""
    if mode == "full":
        return _check.full_size(n, k), (k[0] - 1, k[1] - 1), False
    if mode == "same":
        return n, (k[0] // 2, k[1] // 2) if convolution else ((k[0] - 1) // 2, (k[1] - 1) // 2), False
    return (n[0] - k[0] + 1, n[1] - k[1] + 1), (0, 0), False


def _two_axes(in1, in2, mode, boundary, fillvalue, workers, *, convolution):
    if not type(in1) is type(in2) is np.ndarray:
        in1, in2, _ = _check.signals(in1, in2)
    if fillvalue is _ZERO and workers is None and type(mode) is type(boundary) is str:
        brief = _settle_brief(in1.shape, in2.shape, in1.dtype, in2.dtype, mode, boundary, True, convolution)
        if brief is not None:
            return _run_brief(in1, in2, brief)
    name = "convolve2d" if convolution else "correlate2d"
    x, w, wide = _check.signals(in1, in2)
    if wide:
        return _from_scipy(name, x, w)(x, w, mode, boundary, fillvalue)
    _check.two_axes(x, w)
    _check.signal_mode(mode)
    boundary = _check.signal_boundary(boundary)
    _check.no_booleans(x, w, name)
    dtype = np.result_type(x, w)
    fill = _check.signal_fillvalue(fillvalue, dtype) if boundary == "constant" else 0
    # SciPy turns a swapped correlation round, but does not conjugate it.
    swapped = mode == "valid" and _check.one_contains_the_other(x.shape, w.shape)
    if swapped:
        x, w = w, x
    if workers is not None:
        resolve_workers(workers)
    n, k = x.shape, w.shape
    size, before, _ = _place_two(n, k, mode, convolution)
    if 0 in n or 0 in k or 0 in size:
        if 0 in n and 0 not in k and 0 not in size:
            _check.boundary_needs_samples(n, k, boundary)
            return np.full(size, w.sum(dtype=dtype) * dtype.type(fill), dtype)
        return np.zeros(size, dtype)
    if convolution:
        w = w[::-1, ::-1]
    elif w.dtype.kind == "c":
        w = w.conj()
    ways = _Ways(padded=True)
    out = _run(x[None], w[None, None], size, before, dtype, workers, ways, boundary=boundary, fill=fill)
    return out[::-1, ::-1] if swapped and not convolution else out


def _any_axes(name, in1, in2, mode, method, workers, *, convolution):
    if not type(in1) is type(in2) is np.ndarray:
        in1, in2, _ = _check.signals(in1, in2)
    if workers is None and type(mode) is type(method) is str and method in _METHODS:
        brief = _settle_brief(in1.shape, in2.shape, in1.dtype, in2.dtype, mode, "fill", False, convolution)
        if brief is not None:
            y = _run_brief(in1, in2, brief)
            # If a tap is not finite, no sum is, beyond the borders too: that is not so brief.
            if brief.result.kind not in "fc" or (first := y.item(0)) - first == 0:
                return y
    names = ("volume", "kernel") if convolution else ("in1", "in2")
    a, b, wide = _check.signals(in1, in2)
    if wide:
        return _from_scipy(name, a, b)(a, b, mode, method)
    if a.ndim == b.ndim == 0:
        return a * (b if convolution else b.conj())
    _check.same_axes(a, b, *names)
    empty = a.size == 0 or b.size == 0
    if not (empty and method == "fft"):
        _check.signal_mode(mode)
    _check.signal_method(method)
    if workers is not None:
        resolve_workers(workers)
    dtype = np.result_type(a, b)
    if dtype.kind == "b" and method != "fft" and a.ndim > 1:
        _check.no_booleans(a, b, name)
    if empty:
        return np.zeros(_check.not_empty(a, b, mode, method, *names), dtype)
    if mode == "valid":
        _check.one_contains_the_other(a.shape, b.shape)
    placed = _place(a.shape, b.shape, mode)
    return _swap_and_run(a, b, placed, dtype, dtype, workers, convolution, _Ways(transforms=method != "direct"))


def _some_axes(name, in1, in2, mode, axes, workers):
    a, b, wide = _check.signals(in1, in2)
    if wide:
        return _from_scipy(name, a, b)(a, b, mode, axes)
    if a.ndim == b.ndim == 0:
        return a * b
    _check.same_axes(a, b)
    if workers is not None:
        resolve_workers(workers)
    if a.size == 0 or b.size == 0:
        return np.array([])
    n, k = a.shape, b.shape
    axes = _check.signal_axes(axes, n, k)
    _check.signal_mode(mode)
    # Along an axis of length 1 a convolution is a product, and the product of a length 1 a convolution.
    convolved = [axis for axis in axes if n[axis] != 1 and k[axis] != 1]
    if mode == "valid":
        _check.one_contains_the_other([n[axis] for axis in convolved], [k[axis] for axis in convolved])
    dtype = np.result_type(a, b)
    if convolved:
        widened = [np.float64 if x.dtype.kind in "biu" else np.result_type(x, np.float32) for x in (a, b)]
        result = np.result_type(*widened)
    else:
        result = dtype
    own = [axis for axis in range(a.ndim) if axis not in axes and n[axis] == k[axis] != 1]
    if not own:
        return _swap_and_run(a, b, _place(n, k, mode), dtype, result, workers, True, _Ways(loose=True))
    # Slices of both that belong together come first, and are channels with taps of their own.
    others = [axis for axis in range(a.ndim) if axis not in own]
    order = own + others
    lengths = [n[axis] for axis in own]
    a, b = (x.transpose(order).reshape(-1, *(x.shape[axis] for axis in others)) for x in (a, b))
    if not others:
        return (a * b).astype(result, copy=False).reshape(lengths)
    placed = _place(a.shape[1:], b.shape[1:], mode)
    y = _swap_and_run(a, b, placed, dtype, result, workers, True, _Ways(loose=True), channels=True)
    return np.ascontiguousarray(y.reshape(*lengths, *y.shape[1:]).transpose(np.argsort(order)))


@functools.lru_cache(maxsize=512)
def _place(n, k, mode):
    """(shape of the samples, of the taps, of the output, padding before the samples, whether in2 is the samples).

    The larger array is the samples. The output begins so many elements into the full convolution, which begins k - 1
    samples before the first.
    """
    if mode == "full":
        size, start = tuple(a + b - 1 for a, b in zip(n, k, strict=True)), (0,) * len(n)
    elif mode == "same":
        size, start = n, tuple((b - 1) // 2 for b in k)
    else:
        size = tuple(abs(a - b) + 1 for a, b in zip(n, k, strict=True))
        start = tuple(min(a, b) - 1 for a, b in zip(n, k, strict=True))
    swapped = math.prod(k) > math.prod(n)
    if swapped:
        n, k = k, n
    return n, k, size, tuple(b - 1 - s for b, s in zip(k, start, strict=True)), swapped


def _swap_and_run(a, b, placed, dtype, result, workers, convolution, ways, channels=False):
    """The convolution or correlation of a and b, placed by `_place`; with `channels`, their first axis is left out."""
    _, _, size, before, swapped = placed
    lead = 1 if channels else 0
    turn = (slice(None),) * lead + (slice(None, None, -1),) * len(size)
    conjugated = False
    if convolution:
        x, w = (b, a[turn]) if swapped else (a, b[turn])
    elif swapped:
        # The conjugate of the correlation with both conjugated: the samples need no copy.
        conjugated = dtype.kind == "c"
        x, w = b[turn], a[turn].conj() if a.dtype.kind == "c" else a[turn]
    else:
        x, w = a, b.conj() if b.dtype.kind == "c" else b
    if not lead:
        x, w = x[None], w[None]
    y = _run(x, w[:, None], size, before, result, workers, ways, channels=channels)
    return np.conjugate(y, out=y) if conjugated else y


def _sides(n, k, size, before):
    return tuple((b, s + t - 1 - m - b) for m, t, s, b in zip(n, k, size, before, strict=True))


def _real(dtype):
    """The dtype in which floats are computed."""
    return np.dtype(np.float32 if dtype.char in "efF" else np.float64)


# ---- from samples, taps and padding to the engine ----


class _Ways(NamedTuple):
    """In which ways a correlation may be computed."""

    transforms: bool = True
    loose: bool = False  # Fourier transforms are accurate enough for any number of taps
    padded: bool = False  # what stands beyond the borders counts: zero times NaN is NaN


def _run(x, w, size, before, result, workers, ways, boundary="constant", fill=0, channels=False):
    """The correlation of samples x, (G, ...), with taps w, (G, 1, ...), as an array of dtype `result`."""
    groups, k = x.shape[0], w.shape[2:]
    shape = (groups, *size) if channels else size
    if 0 in shape:
        return np.zeros(shape, result)
    if workers is None and groups * math.prod(size) * math.prod(k) < engine.SERIAL_BELOW:
        workers = 1
    else:
        workers = resolve_workers(workers)
    codes = (engine.BOUNDARIES[boundary],) * len(size)
    if result.kind == "b":
        w = w.astype(np.int64)
        return _run(x.view(np.uint8), w, size, before, w.dtype, workers, ways, channels=channels) != 0
    if x.dtype.kind in "biu" and w.dtype.kind in "biu":
        return _integers(x, w, shape, before, result, workers, codes, fill, ways)
    dtype = _real(result)
    out = np.empty(shape, result)
    target = out if channels else out[None]
    if w.dtype.kind == "c":
        dtype_w = np.result_type(dtype, np.complex64)
    else:
        dtype_w = dtype
    w = np.ascontiguousarray(w, dtype_w)
    _floats(x, w, target, before, codes, fill, workers, dtype, ways)
    return out


def _integers(x, w, shape, before, result, workers, codes, fill, ways):
    """Integers with integers, exactly: in the narrowest dtype in which every sum is exact."""
    info = np.iinfo(x.dtype) if x.dtype.kind in "iu" else np.iinfo(np.uint8)
    limit = max(-int(info.min), int(info.max), abs(fill))
    weight = float(np.abs(w.astype(np.float64)).sum(axis=tuple(range(1, w.ndim))).max())
    if weight * limit > 2.0**24:
        # The range of the samples themselves tells more.
        limit = max(abs(int(x.min())), abs(int(x.max())), abs(fill))
    largest = weight * limit
    out = np.empty(shape, result)
    target = out if len(shape) == x.ndim else out[None]
    if result.kind in "fc" and largest > 2.0**53:
        _floats(x, np.ascontiguousarray(w, np.float64), target, before, codes, fill, workers, np.dtype(np.float64),
                ways)
        return out
    if ways.transforms and largest <= _ROUNDED_BELOW:
        dtype = np.dtype(np.float64)
        choice = _choice(x, w, target, before, codes, fill, dtype, ways.loose)
        exact = _direct_dtype(largest)
        # Direct sums of narrow integers are twice as fast as those that the choice was made by.
        if choice.method != "direct" and not (exact.itemsize == 4 and choice.method == "transformed"):
            sums = np.empty(target.shape, dtype)
            _floats(x, np.ascontiguousarray(w, dtype), sums, before, codes, fill, workers, dtype, ways)
            np.rint(sums, out=sums)
            target[...] = sums if result.kind in "fc" else sums.astype(np.int64)
            return out
    if _apart(x, w, target, before, codes, fill, workers, _direct_dtype(largest)):
        return out
    w = np.ascontiguousarray(w, _direct_dtype(largest))
    _direct(x, w, target, before, codes, fill, workers)
    return out


def _direct_dtype(largest):
    return np.dtype(np.float32 if largest <= 2.0**24 else np.float64 if largest <= 2.0**53 else np.int64)


def _direct(x, w, out, before, codes, fill, workers):
    one = (1,) * len(codes)
    engine.correlate(x, w, None, out, 0, x.shape[0], one, one, before, codes, fill, workers)


def _choice(x, w, out, before, codes, fill, dtype, loose):
    n, k, size = x.shape[1:], w.shape[2:], out.shape[1:]
    zeros = codes[0] == engine.CONSTANT and fill == 0
    return plan.choose_signal(n, k, size, _sides(n, k, size, before), dtype, x.shape[0], zeros, loose)


def _floats(x, w, out, before, codes, fill, workers, dtype, ways):
    """Correlate by the fastest way that is accurate enough, in `dtype` or its complex counterpart; w is of that."""
    finite = bool(np.isfinite(w).all())
    if not finite and not ways.padded:
        method = "spectra"  # which tell the windows that reach beyond the borders
    elif not ways.transforms or not finite or w.size == 1:
        method = "direct"
    else:
        choice = _choice(x, w, out, before, codes, fill, dtype, ways.loose)
        method = choice.method
        if method == "transformed" and w.dtype.kind != "c" and not plan.suits(choice.variant, w):
            method = "direct"
    if method != "direct" and "c" in x.dtype.kind + w.dtype.kind:
        _by_parts(x, w, out, before, codes, fill, workers, dtype, ways)
        return
    if ways.transforms and finite and _apart(x, w, out, before, codes, fill, workers, dtype):
        return
    if method == "transformed":
        engine.correlate_transformed(x, w, None, None, out, 0, x.shape[0], before, codes, fill, workers, choice.variant)
    elif method == "line":
        for samples, taps, sums in zip(x, w[:, 0], out, strict=True):
            axis = int(np.argmax(taps.shape))
            samples, sums = np.moveaxis(samples, axis, -1), np.moveaxis(sums, axis, -1)
            _line(samples, taps.ravel(), sums, before[axis], workers, dtype, ways.loose)
    elif method == "flat":
        for samples, taps, sums in zip(x, w[:, 0], out, strict=True):
            if not _flat(samples, taps, sums, before, workers, dtype, *choice.variant):
                _spectra(samples, taps, sums, before)
    elif method == "spectra":
        for samples, taps, sums in zip(x, w[:, 0], out, strict=True):
            _spectra(samples, taps, sums, before)
    else:
        _direct(x, w, out, before, codes, fill, workers)


def _by_parts(x, w, out, before, codes, fill, workers, dtype, ways):
    """A complex correlation as one of each real part with each."""
    if complex(fill).imag:
        x = x.astype(np.result_type(x, np.complex64), copy=False)
    x_parts = (x.real, x.imag) if x.dtype.kind == "c" else (x,)
    w_parts = (w.real, w.imag) if w.dtype.kind == "c" else (w,)
    fills = (complex(fill).real, complex(fill).imag)
    part, filled = None, set()
    for i, x_part in enumerate(x_parts):
        for j, w_part in enumerate(w_parts):
            sums = out.real if i == j else out.imag
            settings = before, codes, fills[i], workers, dtype, ways
            taps = np.ascontiguousarray(w_part, dtype)
            if (i == j) not in filled:
                _floats(x_part, taps, sums, *settings)
                filled.add(i == j)
                continue
            part = np.empty(out.shape, dtype) if part is None else part
            _floats(x_part, taps, part, *settings)
            with np.errstate(invalid="ignore", over="ignore"):
                (np.subtract if i == j else np.add)(sums, part, out=sums)


def _apart(x, w, out, before, codes, fill, workers, dtype):
    """One axis after the other, where taps are an outer product and that is worth while. Returns whether it was."""
    if x.shape[0] != 1 or len(codes) != 2:
        return False
    kh, kw = w.shape[2:]
    if (
        min(kh, kw) < _SEPARABLE_FROM
        or out[0].size * (kh * kw - kh - kw) < _SEPARABLE_PRODUCTS
        or dtype.kind != "f"
        or "c" in x.dtype.kind + w.dtype.kind
        or isinstance(fill, complex)
    ):
        return False
    kernel = w[0, 0].astype(np.int64 if w.dtype.kind in "biu" else np.float64)
    factors = separable_factors(kernel, dtype)
    if factors is None:
        return False
    down, along = (np.array(factor, dtype) for factor in factors)
    check = out.dtype.kind == "f"
    finite = engine.separable(
        x[0], down, along, out[0], 0, before, codes, fill, workers, check=check,
        along_constant=fill * float(factors[0].sum()),
    )
    if not finite:
        wrong = ~np.isfinite(out)
        sums = np.empty(out.shape, out.dtype)
        _direct(x, np.ascontiguousarray(w, dtype), sums, before, codes, fill, workers)
        np.copyto(out, sums, where=wrong)
    return True


def _line(x, w, out, before, workers, dtype, loose):
    """Correlate along the last axis: windows that lie within x where they are, the few others in copies with zeros."""
    n, k = x.shape[-1], w.size
    for start, stop, way in plan.line_parts(n, k, out.shape[-1], before, dtype, loose):
        first, last = start - before, stop - 1 - before + k
        samples = x[..., max(first, 0) : max(last, 0)]
        if first < 0 or last > n:
            padded = np.zeros((*x.shape[:-1], last - first), x.dtype)
            padded[..., max(-first, 0) : max(-first, 0) + samples.shape[-1]] = samples
            samples = padded
        if way is not None:
            engine.fft_line(samples, w, out[..., start:stop], workers, *way)
        else:
            engine.correlate_line(samples, w, out[..., start:stop], workers)


def _flat(x, w, out, before, workers, dtype, tile, blocks, pieces):
    """Correlate along all axes at once, as along one line: returns whether all is finite, or else `out` is not valid.

    Between two rows are as many zeros as windows reach beyond a row, on both sides together: what a window that is laid
    out too finds outside of its row are zeros.
    """
    # Samples that no window meets are left out.
    kept = tuple(
        slice(max(0, -b), min(n, m + k - 1 - b)) for b, n, m, k in zip(before, x.shape, out.shape, w.shape, strict=True)
    )
    x, before = x[kept], tuple(max(0, b) for b in before)
    rows = tuple(n + k - 1 for n, k in zip(x.shape[1:], w.shape[1:], strict=True))
    samples = np.zeros((out.shape[0] + w.shape[0], *rows), dtype)
    samples[tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))] = x
    taps = np.zeros((w.shape[0], *rows), dtype)
    taps[tuple(slice(k) for k in w.shape)] = w
    samples, taps = samples.ravel(), taps.ravel()
    taps = taps[: 1 + np.ravel_multi_index([k - 1 for k in w.shape], (w.shape[0], *rows))]
    length = -(-taps.size // pieces)
    sums = np.empty((out.shape[0], *rows), dtype)
    line, part = sums.ravel(), None
    for start in range(0, taps.size, length):
        piece = taps[start : start + length]
        here = samples[start : start + line.size + piece.size - 1]
        if part is None:
            part = line
        elif part is line:
            part = np.empty_like(line)
        engine.fft_line(here, piece, part, workers, tile, blocks, mend=False)
        if part is not line:
            with np.errstate(invalid="ignore", over="ignore"):
                line += part
    sums = sums[tuple(slice(m) for m in out.shape)]
    out[...] = sums
    return bool(np.isfinite(sums).all())


# ---- spectra of everything, by NumPy ----


def _spectra(x, w, out, before):
    """Correlate x with w by NumPy's Fourier transforms, in float64."""
    x, w = x.astype(np.float64, copy=False), np.flip(w).astype(np.float64)
    crop = tuple(slice(k - 1 - b, k - 1 - b + m) for k, b, m in zip(w.shape, before, out.shape, strict=True))
    with np.errstate(invalid="ignore", over="ignore"):
        sums = _product_of_spectra(x, w)[crop]
        if not np.isfinite(sums).all():
            sums = _finite_part(x, w, crop)
        out[...] = sums


def _product_of_spectra(x, w):
    size = [_fast_length(n + k - 1) for n, k in zip(x.shape, w.shape, strict=True)]
    axes = range(x.ndim)
    spectrum = np.fft.rfftn(x, size, axes)
    spectrum *= np.fft.rfftn(w, size, axes)
    return np.fft.irfftn(spectrum, size, axes)


def _finite_part(x, w, crop):
    """The same where not all is finite: an element that no NaN or infinity reaches is what it would be without them.

    What reaches an element is counted, by the same transforms of zeros and ones.
    """
    finite_x, finite_w = (np.where(np.isfinite(a), a, 0) for a in (x, w))
    # Powers of two keep the transforms of very large numbers finite.
    exponents = [int(np.frexp(np.abs(a).max())[1]) for a in (finite_x, finite_w)]
    sums = _product_of_spectra(np.ldexp(finite_x, -exponents[0]), np.ldexp(finite_w, -exponents[1]))
    sums = np.ldexp(sums[crop], sum(exponents))

    def reached(a, b):
        return np.rint(_product_of_spectra(a.astype(np.float64), b.astype(np.float64))[crop])

    nan = np.zeros(sums.shape, bool)
    signs, all_signs = np.zeros(sums.shape), np.zeros(sums.shape)
    for a, b in ((x, w), (w, x)):
        infinite = np.isinf(a)
        if np.isnan(a).any():
            nan |= reached(np.isnan(a), np.ones(b.shape)) > 0
        if infinite.any():
            nan |= reached(infinite, b == 0) > 0
            sign = np.where(np.isnan(b), 0, np.sign(b))
            signs += reached(np.where(infinite, np.sign(a), 0), sign)
            all_signs += reached(infinite, np.abs(sign))
    met = all_signs > 0
    sums[met] = np.where(np.abs(signs) == all_signs, np.copysign(np.inf, signs), np.nan)[met]
    sums[nan] = np.nan
    return sums


@functools.lru_cache(maxsize=1024)
def _fast_length(n):
    """The least even number from n on without prime factors above 7."""
    best = 2 ** max(1, (n - 1).bit_length())
    for a in (1, 7, 49):
        for b in (1, 5, 25, 125, 625):
            c = a * b
            while c < best:
                twos = max(1, (-(-n // c) - 1).bit_length())
                best = min(best, c * 2**twos)
                c *= 3
    return best
