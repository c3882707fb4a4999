"""Image filters with scipy.ndimage's names, signatures and results: change the import, keep the code.

Every function returns an array as large as its input. What lies beyond the borders is continued as `mode`
says:

=====================================  ===============================  ==================
mode                                   picture                          cval
=====================================  ===============================  ==================
``reflect``, ``grid-mirror``           ``d c b a | a b c d | d c b a``
``mirror``                             ``d c b | a b c d | c b a``
``nearest``                            ``a a a | a b c d | d d d``
``wrap``, ``grid-wrap``                ``b c d | a b c d | a b c``
``constant``, ``grid-constant``        ``k k k | a b c d | k k k``      ``k``
=====================================  ===============================  ==================

The names that mean the same everywhere in pyconv, ``symmetric`` (for ``reflect``) and ``edge`` (for
``nearest``), are accepted too. `output` may be an array to fill, a dtype, or the name of one; by default the
result has the input's dtype, so a filter of a ``uint8`` image truncates and wraps as SciPy's does: ask for
``output=float`` where that hurts.

What SciPy does not have, as keywords only: `channel_axis` (each channel is filtered on its own, and all other
arguments count the axes without it), `overflow` (whether integers wrap, saturate or are an error),
``precision="float64"``, `workers`, and arguments for missing samples. What differs from SciPy 1.17:

- float32 images are summed in float32 unless ``precision="float64"``; float16 images are accepted.
- Weights are never too small to count; integers beyond 2**53 are exact; a result outside the output's integers
  always wraps, where SciPy leaves what the conversion gives to the C compiler.
- A NaN, an infinity or a huge number spreads no further than the windows it is in.
- Input and output may overlap, and images may have any strides (SciPy's `correlate` misreads some strides of 0).
- A single negative number for `axes` of `correlate` and `convolve` is an axis counted from the end, the mode names
  `symmetric` and `edge` are known, and booleans pass for integers everywhere.
- Arrays of objects are refused where SciPy has nothing to filter along, and a standard deviation of zero in
  `gaussian_filter1d` is refused in every dtype. Nothing is written before all arguments are known to be good.
  Whatever SciPy raises, an ``except`` for it catches ours; where two arguments are wrong, either may be reported.

`correlate` and `convolve` have a `method` too. Under ``"auto"``, weights of at least 5 along every axis that they reach
across, and that are an outer product of vectors (a Gaussian, a box), are applied as these vectors, one axis after the
other, which takes n1 + n2 multiplications a pixel for n1 * n2. Integer images with integer weights stay exact, and NaN
and infinities reach the same pixels. Sums of fractions have other last bits than the direct ones, and are no less
accurate. Sums that are truncated to integers keep SciPy's order, so they are always direct.

Missing samples are those where `where` is False (NumPy's meaning: True is used) and, under ``nan_policy="omit"``, NaN.
An output is the sum over the samples that are there, times the sum of all weights, divided by the sum of the weights
of these samples: a blur fills small holes, a constant image stays constant, and where nothing is missing under the
kernel the result is the usual one, to the last bit (where sums are taken by Fourier transforms: within their error).
Samples beyond the border are continued with what is missing among them; those of a constant border are there. Weights
that cancel to less than a hundredth of the sum of their magnitudes, and all derivatives of Gaussians, give NaN wherever
a sample under a weight other than zero is missing, since any other value would invent an edge; so do weights of both
signs whose valid ones cancel so far. Infinities are data. Results have to be floating: of an image of integers
with `where`, ask for ``output=float``; it is filtered in float64.

Memory: a few MB beyond input and output whatever the size of the image, so both may be a `numpy.memmap`. Filters of
several passes need at least one slice of the image, across the axis of the first pass. A further image is needed only
where input and output overlap, and for a Laplacian that truncates fractions or has more than three axes. Names of
scipy.ndimage that are not here (``label``, ``zoom``, ...) come from SciPy, if it is installed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pyconv import _check, engine, missing, plan
from pyconv._workers import resolve_workers
from pyconv.separable import separable_factors

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_filter1d",
    "gaussian_gradient_magnitude",
    "gaussian_laplace",
    "generic_gradient_magnitude",
    "generic_laplace",
    "laplace",
    "prewitt",
    "sobel",
    "uniform_filter",
    "uniform_filter1d",
]

# A last axis that no weights reach across fills a vector's lanes from this length on.
_LONG_ENOUGH = 16

METHODS = ("auto", "direct", "separable")

# Kernels of at least so many weights along each axis are taken apart by method "auto": smaller ones are no faster so,
# and have not the roundings to spare (docs/design.md).
_SEPARABLE_FROM = 5

# Fewer weights are never faster by transforms.
_TRANSFORMS_FROM = 81

# From so many weights on, the pass along rows of a pair is faster than a pass of its own, with the same bits: a line of
# 10**6 float32 samples with 101 weights takes 1.6 ms for 2.2, rows of 512 with 15 take 70 us for 132.
_LONG_LINES = {"f": 15, "d": 31}

# Filters of several passes work through the image in slabs of about this many bytes, which stay in the cache.
_SLAB_BYTES = 2**21


# ---- the public functions ----


def _document(function):
    """Put the descriptions of the arguments that the filters share into the docstring."""
    if function.__doc__:
        for name, text in _ARGUMENTS.items():
            function.__doc__ = function.__doc__.replace(f"    {{{name}}}\n", text)
    return function


_ARGUMENTS = {
    "input": """\
    input : array_like
        The image: numbers of any dtype up to 64 bits a component, any number of axes.
""",
    "output": """\
    output : ndarray, dtype or str, optional
        The array to fill, or the dtype of the one to return. Default: the dtype of `input`.
""",
    "mode": """\
    mode : str, optional
        What lies beyond the borders::

            reflect   d c b a | a b c d | d c b a      (also grid-mirror, symmetric)
            mirror      d c b | a b c d | c b a
            nearest     a a a | a b c d | d d d        (also edge)
            wrap        b c d | a b c d | a b c        (also grid-wrap)
            constant    k k k | a b c d | k k k        (also grid-constant; k is `cval`)
""",
    "modes": """\
    mode : str or sequence of str, optional
        What lies beyond the borders, for all axes or one name an axis::

            reflect   d c b a | a b c d | d c b a      (also grid-mirror, symmetric)
            mirror      d c b | a b c d | c b a
            nearest     a a a | a b c d | d d d        (also edge)
            wrap        b c d | a b c d | a b c        (also grid-wrap)
            constant    k k k | a b c d | k k k        (also grid-constant; k is `cval`)
""",
    "cval": """\
    cval : scalar, optional
        The constant of mode ``constant``.
""",
    "extra": """\
    channel_axis : int, optional
        The axis of the colour channels. Each channel is filtered on its own; all other arguments count the
        axes without this one.
    precision : {None, "float64"}, optional
        ``"float64"`` takes the sums of float16, float32 and complex64 images in double precision, as SciPy
        does.
    overflow : {None, "wrap", "saturate", "raise"}, optional
        What becomes of results that an output of integers cannot hold. They wrap, as SciPy's do; or are the nearest
        integer that it can hold; or are an OverflowError, and nothing is written. The last two look at results only:
        what is between two passes is held in 64 bits.
    workers : int, optional
        Number of threads. Default: all processors this process may use.
""",
    "missing": """\
    where : array_like of bool, optional
        True where a sample of `input` is used, False where it is missing; broadcast against `input`. Outputs are
        sums over the samples that are used, scaled as if these had the sum of all weights; if the weights cancel (those
        of a derivative do), they are NaN wherever a sample is missing. See the notes on missing samples in
        `pyconv.ndimage`.
    nan_policy : {"propagate", "omit", "raise"}, optional
        ``"omit"``: samples that are NaN are missing. ``"raise"``: they are refused. Infinities are never missing.
    keep_nan : bool, optional
        Whether outputs at missing samples are NaN, and not filled in from around them.
    min_weight : float, optional
        From 0 to 1: outputs of which a smaller share of the weights is used are NaN. With 1, all but those without
        any sample missing; with 0, those without any used.
    return_weight : bool, optional
        Whether to return that share too.
""",
    "weight": """\
    weight : ndarray, if `return_weight`
        The share of the weights (of their magnitudes) that is used, from 0 to 1: float64 where sums are taken in it,
        else float32.
""",
    "method": """\
    method : {"auto", "direct", "separable"}, optional
        ``"separable"`` filters along one axis after the other with the vectors whose outer product `weights`
        is, and is refused where it is none. ``"auto"`` does so from 5 weights an axis on, where that is faster.
        It filters floating images with other large kernels, of weights that are not all integers, by Fourier
        transforms of tiles, or by Winograd's method: with an error that is bounded by the largest sum only, below
        half of what ``"direct"`` may make there (`pyconv.plan_conv2d`). ``"direct"`` takes plain sums.
""",
    "result": """\
    ndarray
        An array of the shape of `input`; `output` itself where that is an array.
""",
    "errors": """\
    ValueError
        If an argument does not fit the image. Where SciPy raises a RuntimeError, it is both.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.
    OverflowError
        With ``overflow="raise"``; `output` is then untouched.
""",
}


@_document
def correlate(
    input: ArrayLike,
    weights: ArrayLike,
    output: NDArray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    method: str = "auto",
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Correlate an image with a kernel of any number of axes.

    Each pixel becomes the sum of its neighbourhood times `weights`, the kernel's middle (element ``n // 2``
    of ``n``) on the pixel. Complex weights are conjugated. A weight of exactly zero is no tap: a NaN under it
    is not seen.

    Parameters
    ----------
    {input}
    weights : array_like
        The kernel, with as many axes as `input`, or as `axes` names.
    {output}
    {mode}
    {cval}
    origin : int or sequence of int, optional
        How far the kernel is moved towards the start of each axis: with 1, its middle is on the pixel before.
    axes : int or sequence of int, optional
        The axes to filter, if not all. As in SciPy, the kernel's axes belong to these in ascending order,
        while a sequence of origins follows the order given.
    {method}
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    convolve : the same with the kernel turned round.
    correlate1d : along a single axis.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> ndimage.correlate(image, [[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    array([[ 5.,  4.,  4.,  3.],
           [ 1.,  0.,  0., -1.],
           [-3., -4., -4., -5.]])
    >>> picture = np.zeros((4, 5, 3))
    >>> ndimage.correlate(picture, np.ones((3, 3)) / 9, channel_axis=-1).shape
    (4, 5, 3)
    """
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = mode, cval, origin, axes, channel_axis, precision, overflow, method, workers, gaps
    return _correlate(input, weights, output, *settings, convolution=False)


@_document
def convolve(
    input: ArrayLike,
    weights: ArrayLike,
    output: NDArray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    method: str = "auto",
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Convolve an image with a kernel of any number of axes.

    The correlation with the kernel turned round in every axis. Complex weights are not conjugated. A weight
    of exactly zero is no tap: a NaN under it is not seen.

    Parameters
    ----------
    {input}
    weights : array_like
        The kernel, with as many axes as `input`, or as `axes` names.
    {output}
    {mode}
    {cval}
    origin : int or sequence of int, optional
        How far the kernel is moved towards the end of each axis: the opposite direction of `correlate`'s.
    axes : int or sequence of int, optional
        The axes to filter, if not all. As in SciPy, the kernel's axes belong to these in ascending order,
        while a sequence of origins follows the order given.
    {method}
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    correlate : the same without turning the kernel.
    convolve1d : along a single axis.

    Examples
    --------
    An impulse returns the kernel itself:

    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> impulse = np.zeros((3, 4), int)
    >>> impulse[1, 1] = 1
    >>> ndimage.convolve(impulse, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    array([[1, 2, 3, 0],
           [4, 5, 6, 0],
           [7, 8, 9, 0]])
    """
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = mode, cval, origin, axes, channel_axis, precision, overflow, method, workers, gaps
    return _correlate(input, weights, output, *settings, convolution=True)


@_document
def correlate1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: NDArray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Correlate an image with weights along one axis.

    Complex weights are conjugated. Unlike in `correlate`, a weight of zero is a tap: zero times NaN is NaN.

    Parameters
    ----------
    {input}
    weights : array_like
        The weights, a sequence of at least one number.
    axis : int, optional
        The axis to filter along.
    {output}
    {mode}
    {cval}
    origin : int, optional
        How far the weights are moved towards the start of the axis.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    Examples
    --------
    >>> from pyconv import ndimage
    >>> ndimage.correlate1d([1, 2, 4, 8], [-1, 1])
    array([0, 1, 2, 4])
    """
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = mode, cval, origin, channel_axis, precision, overflow, workers, gaps
    return _correlate1d(input, weights, axis, output, *settings, convolution=False)


@_document
def convolve1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: NDArray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Convolve an image with weights along one axis.

    The correlation with the weights in reverse order. Complex weights are not conjugated. Unlike in
    `convolve`, a weight of zero is a tap: zero times NaN is NaN.

    Parameters
    ----------
    {input}
    weights : array_like
        The weights, a sequence of at least one number.
    axis : int, optional
        The axis to filter along.
    {output}
    {mode}
    {cval}
    origin : int, optional
        How far the weights are moved towards the end of the axis.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    Examples
    --------
    >>> from pyconv import ndimage
    >>> ndimage.convolve1d([0, 0, 1, 0, 0], [1, 2, 3])
    array([0, 1, 2, 3, 0])
    """
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = mode, cval, origin, channel_axis, precision, overflow, workers, gaps
    return _correlate1d(input, weights, axis, output, *settings, convolution=True)


@_document
def sobel(
    input: ArrayLike,
    axis: int = -1,
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    *,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Sobel's derivative along one axis.

    Weights -1, 0, 1 along `axis` and 1, 2, 1 along every other one: in an image of two axes, 8 times the
    slope.

    Parameters
    ----------
    {input}
    axis : int, optional
        The axis along which the slope is taken.
    {output}
    {modes}
    {cval}
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    prewitt : the same with weights 1, 1, 1 across.
    pyconv.kernels.sobel : the kernel, and where it comes from.

    Examples
    --------
    The result has the dtype of the image, so the slopes of a ``uint8`` image wrap, as in SciPy:

    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.array([[9, 9, 0, 0]] * 3, np.uint8)
    >>> ndimage.sobel(image)[1]
    array([  0, 220, 220,   0], dtype=uint8)
    >>> ndimage.sobel(image, output=float)[1]
    array([  0., -36., -36.,   0.])
    >>> ndimage.sobel(image, overflow="saturate")[1]
    array([0, 0, 0, 0], dtype=uint8)
    """
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    return _slope(input, axis, 2, output, mode, cval, channel_axis, precision, overflow, workers, gaps)


@_document
def prewitt(
    input: ArrayLike,
    axis: int = -1,
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    *,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Prewitt's derivative along one axis.

    Weights -1, 0, 1 along `axis` and 1, 1, 1 along every other one: in an image of two axes, 6 times the
    slope.

    Parameters
    ----------
    {input}
    axis : int, optional
        The axis along which the slope is taken.
    {output}
    {modes}
    {cval}
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    sobel : the same with weights 1, 2, 1 across; its example shows how unsigned integers wrap.
    pyconv.kernels.prewitt : the kernel, and where it comes from.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.array([[9, 9, 0, 0]] * 3)
    >>> ndimage.prewitt(image)[1]
    array([  0, -27, -27,   0])
    """
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    return _slope(input, axis, 1, output, mode, cval, channel_axis, precision, overflow, workers, gaps)


@_document
def laplace(
    input: ArrayLike,
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    *,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Laplacian: the sum of the second differences, weights 1, -2, 1, along the axes.

    Parameters
    ----------
    {input}
    {output}
    {modes}
    {cval}
    axes : int or sequence of int, optional
        The axes to take differences along, if not all; a sequence of modes has one for each of them.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    generic_laplace : the same with second derivatives of your own.
    pyconv.kernels.laplacian : the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.zeros((3, 3), int)
    >>> image[1, 1] = 1
    >>> ndimage.laplace(image)
    array([[ 0,  1,  0],
           [ 1, -4,  1],
           [ 0,  1,  0]])
    """
    image = _check.image(input)
    cval = _check.image_cval(cval, image.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    filtered, boundaries = _lines_of_axes(image.ndim, mode, axes, channel_axis)
    output = _check.filter_output(output, image, image.dtype.kind == "c" if filtered else None)
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    overflow = _check.filter_overflow(overflow, output.dtype, gaps)
    settings = mode, cval, axes, channel_axis, gaps is not None
    steps = _steps(_laplace_steps, image, output, widen, *settings)
    if steps is not None and overflow:
        return _guarded(image, cval, output, overflow, workers, _laplace_steps, *settings)
    if steps is not None:
        return _filter(image, steps, cval, output, workers, gaps, widen=widen)

    def second_difference(input, axis, output, mode, cval):
        return correlate1d(input, [1, -2, 1], axis, output, mode, cval, precision=precision, workers=workers)

    return generic_laplace(image, second_difference, output, boundaries, cval, axes=filtered, overflow=overflow)


def generic_laplace(
    input: ArrayLike,
    derivative2: Callable[..., NDArray],
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    extra_arguments: tuple = (),
    extra_keywords: dict | None = None,
    *,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    overflow: str | None = None,
) -> NDArray:
    """Sum of second derivatives along the axes, each taken by a function of yours.

    Parameters
    ----------
    input : array_like
        The image.
    derivative2 : callable
        Called as ``derivative2(input, axis, output, mode, cval, *extra_arguments, **extra_keywords)``.
        `output` is the array to fill for the first axis, and a dtype for all further ones, where an array is
        to be returned.
    output : ndarray, dtype or str, optional
        The array to fill, or the dtype of the one to return. Default: the dtype of `input`.
    mode : str or sequence of str, optional
        Handed to `derivative2`; a sequence has one name an axis.
    cval : scalar, optional
        Handed to `derivative2`.
    extra_arguments : tuple, optional
        Further arguments of `derivative2`.
    extra_keywords : dict, optional
        Further keyword arguments of `derivative2`.
    axes : int or sequence of int, optional
        The axes to take derivatives along, if not all.
    channel_axis : int, optional
        The axis of the colour channels. Each channel is an image of its own, and all other arguments, those of
        the derivative included, count the axes without this one.
    overflow : {None, "wrap", "saturate", "raise"}, optional
        As in `correlate`. All but ``"wrap"`` take the derivatives in 64 bits, in arrays as large as the image.

    Returns
    -------
    ndarray
        An array of the shape of `input`; `output` itself where that is an array.

    Raises
    ------
    ValueError
        If an argument does not fit the image. Where SciPy raises a RuntimeError, it is both.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> def wide_difference(input, axis, output, mode, cval):
    ...     return ndimage.correlate1d(input, [1, 0, -2, 0, 1], axis, output, mode, cval)
    >>> ndimage.generic_laplace([[0, 0, 1, 0, 0]] * 5, wide_difference)[2]
    array([ 1,  0, -2,  0,  1])
    """
    image = _check.image(input)
    if channel_axis is not None or overflow is not None:

        def plain(image, output):
            settings = mode, cval, extra_arguments, extra_keywords
            return generic_laplace(image, derivative2, output, *settings, axes=axes)

        return _guarded_derivatives(plain, image, output, channel_axis, overflow, 2**53)
    axes = _check.filter_axes(axes, image.ndim)
    modes = _check.one_an_axis(mode, "mode", len(axes))
    output = _check.filter_output(output, image, complex_result=None)
    extra_keywords = {} if extra_keywords is None else extra_keywords
    if np.may_share_memory(image, output):
        image = image.copy()
    if not axes:
        output[...] = image
    for i, (axis, axis_mode) in enumerate(zip(axes, modes, strict=True)):
        target = output if i == 0 else output.dtype
        derivative = derivative2(image, axis, target, axis_mode, cval, *extra_arguments, **extra_keywords)
        if i > 0:
            output += derivative
    return output


@_document
def gaussian_filter(
    input: ArrayLike,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Blur with a Gaussian, or take a derivative of the blurred image.

    One pass an axis, in the order of `axes`. What is between two passes has the dtype of the result, so for
    an image of integers each pass truncates; ``output=float`` avoids that.

    Parameters
    ----------
    {input}
    sigma : float or sequence of float
        Standard deviation in pixels, for all axes or one an axis. 0 leaves an axis as it is.
    order : int or sequence of int, optional
        Order of the derivative, for all axes or one an axis; 0 for the blur itself.
    {output}
    {modes}
    {cval}
    truncate : float, optional
        The weights end at this many standard deviations.
    radius : int or sequence of int, optional
        Pixels on each side of the middle, for all axes or one an axis, in place of `truncate`.
    axes : int or sequence of int, optional
        The axes to filter, if not all; sequences among the other arguments have one value for each of them.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    gaussian_filter1d : along a single axis.
    pyconv.kernels.gaussian : the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.zeros((5, 5))
    >>> image[2, 2] = 1
    >>> np.round(ndimage.gaussian_filter(image, sigma=0.8)[2], 2)
    array([0.01, 0.11, 0.25, 0.11, 0.01])
    """
    image = _check.image(input)
    cval = _check.image_cval(cval, image.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    output = _check.filter_output(output, image, complex_result=None)
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = sigma, order, mode, cval, truncate, radius, axes, channel_axis
    steps = _steps(_gaussian_steps, image, output, widen, *settings)
    if not steps and gaps is None:
        return _copied(image, output, overflow, workers)
    _check.filter_kind(output.dtype, image.dtype.kind == "c")
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        return _guarded(image, cval, output, overflow, workers, _gaussian_steps, *settings)
    derivative = gaps is not None and bool(np.any(order))
    return _filter(image, steps, cval, output, workers, gaps, derivative, widen)


@_document
def gaussian_filter1d(
    input: ArrayLike,
    sigma: float,
    axis: int = -1,
    order: int = 0,
    output: NDArray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | None = None,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Blur with a Gaussian along one axis, or take a derivative of the blurred image.

    Parameters
    ----------
    {input}
    sigma : float
        Standard deviation in pixels.
    axis : int, optional
        The axis to filter along.
    order : int, optional
        Order of the derivative; 0 for the blur itself.
    {output}
    {mode}
    {cval}
    truncate : float, optional
        The weights end at this many standard deviations.
    radius : int, optional
        Pixels on each side of the middle, in place of `truncate`.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> np.round(ndimage.gaussian_filter1d([1.0, 2.0, 3.0, 4.0, 5.0], 1), 3)
    array([1.427, 2.068, 3.   , 3.932, 4.573])
    """
    image = _check.image(input)
    cval = _check.image_cval(cval, image.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    _check.filter_axis(axis, _check.image_axes(image.ndim, channel_axis))
    output = _check.filter_output(output, image, image.dtype.kind == "c", promote=True)
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = sigma, axis, order, mode, cval, truncate, radius, channel_axis
    steps = _steps(_gaussian_line, image, output, widen, *settings)
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        return _guarded(image, cval, output, overflow, workers, _gaussian_line, *settings)
    return _filter(image, steps, cval, output, workers, gaps, gaps is not None and order > 0, widen)


@_document
def uniform_filter(
    input: ArrayLike,
    size: int | Sequence[int] = 3,
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Mean over a box around each pixel.

    One pass an axis, in the order of `axes`. What is between two passes has the dtype of the result, so for
    an image of integers each pass truncates; ``output=float`` avoids that. Each mean is a sum of its own, so
    a NaN spreads no further than the box reaches, where SciPy's running sums carry it to the end of the row,
    and integer means are truncated from exact sums, also beyond a constant border that is no integer.

    Parameters
    ----------
    {input}
    size : int or sequence of int, optional
        The box's size in pixels, for all axes or one an axis. 0 or 1 leaves an axis as it is.
    {output}
    {modes}
    {cval}
    origin : int or sequence of int, optional
        How far the box is moved towards the start of each axis.
    axes : int or sequence of int, optional
        The axes to filter, if not all; sequences among the other arguments have one value for each of them.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    See Also
    --------
    uniform_filter1d : along a single axis.
    pyconv.kernels.box : the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.zeros((3, 4))
    >>> image[1, 1] = 9
    >>> ndimage.uniform_filter(image, 3)
    array([[1., 1., 1., 0.],
           [1., 1., 1., 0.],
           [1., 1., 1., 0.]])

    The mean of what is there, and how much that is:

    >>> image[1, 1] = np.nan
    >>> means, weight = ndimage.uniform_filter(image, 3, nan_policy="omit", return_weight=True)
    >>> means[0], np.round(weight[0], 2)
    (array([0., 0., 0., 0.]), array([0.89, 0.89, 0.89, 1.  ]))
    """
    image = _check.image(input)
    cval = _check.image_cval(cval, image.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    complex_result = image.dtype.kind == "c"
    output = _check.filter_output(output, image, complex_result or None, promote=True, stacklevel=3)
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    settings = size, mode, cval, origin, axes, channel_axis
    steps = _steps(_uniform_steps, image, output, widen, *settings)
    if not steps and gaps is None:
        return _copied(image, output, overflow, workers)
    _check.filter_kind(output.dtype, complex_result)
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        return _guarded(image, cval, output, overflow, workers, _uniform_steps, *settings)
    return _filter(image, steps, cval, output, workers, gaps, widen=widen)


@_document
def uniform_filter1d(
    input: ArrayLike,
    size: int,
    axis: int = -1,
    output: NDArray | DTypeLike | None = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    channel_axis: int | None = None,
    precision: str | None = None,
    overflow: str | None = None,
    workers: int | None = None,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    keep_nan: bool = False,
    min_weight: float = 0.0,
    return_weight: bool = False,
) -> NDArray | tuple[NDArray, NDArray]:
    """Mean over `size` pixels along one axis.

    Parameters
    ----------
    {input}
    size : int
        How many pixels the mean is taken of, at least 1.
    axis : int, optional
        The axis to filter along.
    {output}
    {mode}
    {cval}
    origin : int, optional
        How far these pixels are moved towards the start of the axis.
    {extra}
    {missing}

    Returns
    -------
    {result}
    {weight}

    Raises
    ------
    {errors}

    Examples
    --------
    >>> from pyconv import ndimage
    >>> ndimage.uniform_filter1d([0, 0, 9, 0, 0, 3], 3)
    array([0, 3, 3, 3, 1, 2])
    """
    settings = size, axis, mode, cval, origin, channel_axis
    known = *settings, precision, overflow, workers
    gaps = _check.missing_samples(where, nan_policy, keep_nan, min_weight, return_weight)
    filtered = _small_means.run(input, None, output, cval, known) if gaps is None else None
    if filtered is not None:
        return filtered
    given, asked = (input, None, output, known), workers
    image = _check.image(input)
    cval = _check.image_cval(cval, image.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    _check.filter_axis(axis, _check.image_axes(image.ndim, channel_axis))
    output = _check.filter_output(output, image, image.dtype.kind == "c", promote=True, stacklevel=3)
    steps = _steps(_mean_steps, image, output, widen, *settings)
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        return _guarded(image, cval, output, overflow, workers, _mean_steps, *settings)
    if gaps is None:
        _keep(_small_means, given, asked, steps)
    return _filter(image, steps, cval, output, workers, gaps, widen=widen)


def generic_gradient_magnitude(
    input: ArrayLike,
    derivative: Callable[..., NDArray],
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    extra_arguments: tuple = (),
    extra_keywords: dict | None = None,
    *,
    axes: int | Sequence[int] | None = None,
    channel_axis: int | None = None,
    overflow: str | None = None,
) -> NDArray:
    """Length of the gradient, whose components are taken by a function of yours.

    Parameters
    ----------
    input : array_like
        The image.
    derivative : callable
        Called as ``derivative(input, axis, output, mode, cval, *extra_arguments, **extra_keywords)``.
        `output` is the array to fill for the first axis, and a dtype for all further ones, where an array is
        to be returned.
    output : ndarray, dtype or str, optional
        The array to fill, or the dtype of the one to return. Default: the dtype of `input`.
    mode : str or sequence of str, optional
        Handed to `derivative`; a sequence has one name an axis.
    cval : scalar, optional
        Handed to `derivative`.
    extra_arguments : tuple, optional
        Further arguments of `derivative`.
    extra_keywords : dict, optional
        Further keyword arguments of `derivative`.
    axes : int or sequence of int, optional
        The axes to take derivatives along, if not all.
    channel_axis : int, optional
        The axis of the colour channels. Each channel is an image of its own, and all other arguments, those of
        the derivative included, count the axes without this one.
    overflow : {None, "wrap", "saturate", "raise"}, optional
        As in `correlate`. All but ``"wrap"`` take the derivatives in 64 bits, in arrays as large as the image.

    Returns
    -------
    ndarray
        An array of the shape of `input`; `output` itself where that is an array.

    Raises
    ------
    ValueError
        If an argument does not fit the image. Where SciPy raises a RuntimeError, it is both.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.

    See Also
    --------
    gaussian_gradient_magnitude : the same with derivatives of a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> ramp = 3.0 * np.arange(5) + 4.0 * np.arange(4)[:, np.newaxis]
    >>> ndimage.generic_gradient_magnitude(ramp, ndimage.sobel)[1:-1, 1:-1]
    array([[40., 40., 40.],
           [40., 40., 40.]])
    """
    image = _check.image(input)
    if channel_axis is not None or overflow is not None:

        def plain(image, output):
            settings = mode, cval, extra_arguments, extra_keywords
            return generic_gradient_magnitude(image, derivative, output, *settings, axes=axes)

        return _guarded_derivatives(plain, image, output, channel_axis, overflow, 2**17)
    axes = _check.filter_axes(axes, image.ndim)
    modes = _check.one_an_axis(mode, "mode", len(axes))
    output = _check.filter_output(output, image, complex_result=None)
    extra_keywords = {} if extra_keywords is None else extra_keywords
    if np.may_share_memory(image, output):
        image = image.copy()
    if not axes:
        output[...] = image
        return output
    for i, (axis, axis_mode) in enumerate(zip(axes, modes, strict=True)):
        target = output if i == 0 else output.dtype
        slope = derivative(image, axis, target, axis_mode, cval, *extra_arguments, **extra_keywords)
        if i == 0:
            np.multiply(output, output, out=output)
        else:
            np.multiply(slope, slope, out=slope)
            output += slope
    np.sqrt(output, out=output, casting="unsafe")
    return output


def gaussian_laplace(
    input: ArrayLike,
    sigma: float | Sequence[float],
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    *,
    axes: int | Sequence[int] | None = None,
    **kwargs,
) -> NDArray | tuple[NDArray, NDArray]:
    """Laplacian of the image blurred with a Gaussian: the sum of the Gaussian's second derivatives.

    Parameters
    ----------
    input : array_like
        The image: numbers of any dtype up to 64 bits a component, any number of axes.
    sigma : float or sequence of float
        Standard deviation in pixels, for all of `axes` or one for each of them; for the image's axes in ascending
        order, as in SciPy, where `axes` names them all.
    output : ndarray, dtype or str, optional
        The array to fill, or the dtype of the one to return. Default: the dtype of `input`.
    mode : str or sequence of str, optional
        What lies beyond the borders, as in `gaussian_filter`. As in SciPy, of a sequence each derivative uses
        the one name, along all axes, that belongs to its own axis.
    cval : scalar, optional
        The constant of mode ``constant``.
    axes : int or sequence of int, optional
        The axes to take derivatives along, if not all; others are not blurred.
    **kwargs
        Further arguments of `gaussian_filter`: ``truncate``, ``radius``, ``precision``, ``workers``, and for missing
        samples ``where``, ``nan_policy``, ``keep_nan``, ``return_weight``; and ``channel_axis`` and
        ``overflow``, as in `generic_laplace`.

    Returns
    -------
    ndarray
        An array of the shape of `input`; `output` itself where that is an array.
    weight : ndarray, if `return_weight`
        The share of the Gaussian's weights that is used.

    Raises
    ------
    ValueError
        If an argument does not fit the image. Where SciPy raises a RuntimeError, it is both.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.

    See Also
    --------
    laplace : without the blur.
    pyconv.kernels.laplacian_of_gaussian : the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> image = np.zeros((5, 5))
    >>> image[2, 2] = 1
    >>> np.round(ndimage.gaussian_laplace(image, 1)[2], 2)
    array([ 0.06, -0.1 , -0.32, -0.1 ,  0.06])
    """
    image = _check.image(input)
    overflow = kwargs.pop("overflow", None)
    image_axes = _check.image_axes(image.ndim, kwargs.get("channel_axis"))
    ndim = len(image_axes)
    axes = _check.filter_axes(axes, ndim)
    sigmas = _check.one_an_axis(sigma, "sigma", len(axes))
    # An axis that is left out is not blurred. (Where none is, SciPy takes sigmas in the order of the image's axes.)
    axes_of_sigmas = range(ndim) if len(axes) == ndim else axes
    blur = [0] * ndim
    for axis, axis_sigma in zip(axes_of_sigmas, sigmas, strict=True):
        blur[axis] = axis_sigma
    weight = None
    if _check.flag(kwargs.pop("return_weight", False), "return_weight"):
        modes = ["reflect"] * ndim
        for axis, axis_mode in zip(axes, _check.one_an_axis(mode, "mode", len(axes)), strict=True):
            modes[axis] = axis_mode
        blurred = np.result_type(image.dtype, np.float16)
        _, weight = gaussian_filter(image, blur, 0, blurred, modes, cval, return_weight=True, **kwargs)
    derivative = functools.partial(_gaussian_derivative, sigma=tuple(blur), order=2, **kwargs)
    axes = [image_axes[axis] for axis in axes]
    result = generic_laplace(image, derivative, output, mode, cval, axes=axes, overflow=overflow)
    return result if weight is None else (result, weight)


def gaussian_gradient_magnitude(
    input: ArrayLike,
    sigma: float | Sequence[float],
    output: NDArray | DTypeLike | None = None,
    mode: str | Sequence[str] = "reflect",
    cval: complex = 0.0,
    *,
    axes: int | Sequence[int] | None = None,
    **kwargs,
) -> NDArray:
    """Length of the gradient of the image blurred with a Gaussian.

    Parameters
    ----------
    input : array_like
        The image: numbers of any dtype up to 64 bits a component, any number of axes.
    sigma : float or sequence of float
        Standard deviation in pixels, for all axes of the image or one for each of them, whatever `axes` says.
    output : ndarray, dtype or str, optional
        The array to fill, or the dtype of the one to return. Default: the dtype of `input`.
    mode : str or sequence of str, optional
        What lies beyond the borders, as in `gaussian_filter`. As in SciPy, of a sequence each derivative uses
        the one name, along all axes, that belongs to its own axis.
    cval : scalar, optional
        The constant of mode ``constant``.
    axes : int or sequence of int, optional
        The axes to take derivatives along, if not all; all are blurred.
    **kwargs
        Further arguments of `gaussian_filter`: ``truncate``, ``radius``, ``precision``, ``workers``, and for missing
        samples ``where``, ``nan_policy``, ``keep_nan``; and ``channel_axis`` and
        ``overflow``, as in `generic_gradient_magnitude`.

    Returns
    -------
    ndarray
        An array of the shape of `input`; `output` itself where that is an array.

    Raises
    ------
    ValueError
        If an argument does not fit the image. Where SciPy raises a RuntimeError, it is both.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.

    See Also
    --------
    generic_gradient_magnitude : the same with derivatives of your own.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import ndimage
    >>> ramp = 3.0 * np.arange(30) + 4.0 * np.arange(30)[:, np.newaxis]
    >>> np.round(ndimage.gaussian_gradient_magnitude(ramp, 1)[15, 15], 2)
    np.float64(5.0)
    """
    _check.no_weight(kwargs)
    image = _check.image(input)
    overflow = kwargs.pop("overflow", None)
    image_axes = _check.image_axes(image.ndim, kwargs.get("channel_axis"))
    axes = [image_axes[axis] for axis in _check.filter_axes(axes, len(image_axes))]
    derivative = functools.partial(_gaussian_derivative, sigma=sigma, order=1, **kwargs)
    return generic_gradient_magnitude(image, derivative, output, mode, cval, axes=axes, overflow=overflow)


def _gaussian_derivative(input, axis, output, mode, cval, *, sigma, order, channel_axis=None, **kwargs):
    orders = tuple(order * (a == axis) for a in _check.image_axes(input.ndim, channel_axis))
    return gaussian_filter(input, sigma, orders, output, mode, cval, channel_axis=channel_axis, **kwargs)


def __getattr__(name: str):
    """Whatever else scipy.ndimage has, from SciPy."""
    return _check.name_of_scipy("ndimage", name)


# ---- from arguments to passes ----

# Calls that have passed all checks, and that one pass of the engine does: the same on another small image goes straight
# there. Every argument besides the arrays and `cval` has its place in the settings by which a call is known again.
_small_kernels, _small_lines, _small_means = (engine.Recall(_LONG_ENOUGH) for _ in range(3))


def _keep(recall, given, asked, steps):
    """Remember a call, but for workers counted back, of which there may be too few another time."""
    if len(steps) == 1 and steps[0].small is not None and (asked is None or asked > 0):
        recall.keep(*given, steps[0].small)


class _Pass(NamedTuple):
    """One sweep of a filter over the image."""

    weights: NDArray  # as many axes as the image, of length 1 where nothing is filtered
    before: tuple[int, ...]  # padding before, an axis
    boundary: tuple[str, ...]  # an axis
    one_dimensional: bool  # summed by the rules of SciPy's correlate1d, not by those of its correlate
    axis: int | None = None  # the filtered one of a pass along one axis
    divisor: int = 0  # of its sums; 0: none
    by_transforms: bool = False  # where that is faster: of weights that are not integers


class _Form(NamedTuple):
    """What the steps of a filter depend on besides its settings."""

    ndim: int
    few_channels: bool  # whether the last axis is too short to fill vectors
    source: str  # NumPy's letters of the image's and of the output's dtype
    output: str
    widen: bool
    kernel: tuple[bytes, str, tuple[int, ...]] | None  # weights that are an argument: their data, dtype and shape


def _asked_workers(workers):
    """The number of threads asked for; None: as many as there are."""
    return None if workers is None else resolve_workers(workers)


def _steps(build, image, output, widen, *settings, weights=None):
    """The steps that `build` makes of settings, once for each of them; lists and rarer types are not remembered."""
    ndim, types = image.ndim, None
    few_channels = ndim > 0 and image.shape[-1] < _LONG_ENOUGH
    kernel = None if weights is None else (weights.tobytes(), weights.dtype.char, weights.shape)
    form = ndim, few_channels, image.dtype.char, output.dtype.char, widen, kernel
    if not _PLAIN.issuperset(map(type, settings)):
        types = tuple([tuple(map(type, value)) if type(value) is tuple else type(value) for value in settings])
        if not all([_PLAIN.issuperset(kind) if type(kind) is tuple else kind in _PLAIN for kind in types]):
            return _build(build, form, types, *settings)
    large = weights is not None and weights.nbytes > _FEW_BYTES
    return (_remembered_large if large else _remembered)(build, form, types, *settings)


def _build(build, form, types, *settings):
    return build(_Form(*form), *settings)


# True or 1.0, which may be refused, must not pass for a 1 that was checked before: types count, those in tuples too.
_PLAIN = frozenset((int, float, str, bool, type(None)))
_FEW_BYTES = 2**13  # of weights, which are kept several times over
_remembered = functools.lru_cache(maxsize=512, typed=True)(_build)
_remembered_large = functools.lru_cache(maxsize=16, typed=True)(_build)


class _Sweep(NamedTuple):
    """One pass as the engine takes it."""

    axis: int | None  # the filtered one of a pass along one axis
    weights: NDArray  # in the dtype computed in, (1, 1) + kernel; (1, 2) + kernel: the last in its own channel
    before: tuple[int, ...]
    codes: tuple[int, ...]  # of the boundary, an axis
    reach: tuple[bool, ...]  # whether weights reach across an axis
    skip_zeros: bool
    fused: bool
    pairs: int
    by_transforms: bool
    taps: int  # products a pixel
    small: Callable[..., bool] | None  # does it for a small image: (image, output, cval); False: another way is needed


class _Pair(NamedTuple):
    """Two passes along different axes, the first of which comes first, that the engine does in one trip."""

    axis: int  # of the first pass that does something
    axes: tuple[int, ...] | None  # the order of the array's axes in which these are the last two; None: as they are
    weights: tuple[NDArray, NDArray]  # in the dtype computed in
    before: tuple[int, int]
    boundary: tuple[int, int]  # the engine's codes
    divisors: tuple[int, int]  # of the sums; 0: none
    fused: bool
    pairs: tuple[int, int]
    rounded: bool  # whether what is between them goes through the output's dtype
    down_sum: float  # of the first pass's weights
    whole: _Sweep | None  # of the factors of a kernel: that kernel, of which a weight of zero is no tap
    taps: int  # products a pixel
    small: Callable[..., bool] | None = None  # as of a _Sweep
    leading: int = 0  # which of them runs along `axis`: 1 where the first does nothing
    in_a_row: bool = False  # and that is along an axis of length 1 that comes before all others


def _join(first: _Pass, second: _Pass, dtype, ordered=False, rounded=False, whole=None) -> _Pair:
    """Two passes as one step; `ordered`: summed in SciPy's order."""
    ndim, both = len(first.before), (first, second)
    axes = (*(axis for axis in range(ndim) if axis not in (first.axis, second.axis)), first.axis, second.axis)
    return _Pair(
        first.axis,
        None if axes == tuple(range(ndim)) else axes,
        tuple(np.array(sweep.weights.ravel(), dtype) for sweep in both),
        tuple(sweep.before[sweep.axis] for sweep in both),
        tuple(engine.BOUNDARIES[sweep.boundary[sweep.axis]] for sweep in both),
        tuple(sweep.divisor for sweep in both),
        not ordered,
        tuple(_parity(sweep.weights) for sweep in both) if ordered else (0, 0),
        rounded,
        float(first.weights.sum()),
        whole,
        first.weights.size + second.weights.size,
    )


def _correlate(
    input, weights, output, mode, cval, origin, axes, channel_axis, precision, overflow, method, workers, gaps, *,
    convolution,
):
    settings = mode, cval, origin, axes, channel_axis, precision, overflow, method, workers, convolution
    filtered = _small_kernels.run(input, weights, output, cval, settings) if gaps is None else None
    if filtered is not None:
        return filtered
    given, asked = (input, weights, output, settings), workers
    image = _check.image(input)
    weights = _check.filter_weights(weights)
    cval = _check.image_cval(cval, image.dtype, weights.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    if axes is not None:
        _check.filter_axes(axes, len(_check.image_axes(image.ndim, channel_axis)))
    output = _check.filter_output(output, image, "c" in image.dtype.kind + weights.dtype.kind, promote=True)
    settings = mode, cval, origin, axes, channel_axis, method, convolution
    steps = _steps(_kernel_steps, image, output, widen, *settings, weights=weights)
    if steps is None:
        raise _check.not_separable(weights, image, output)
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        settings = mode, cval, origin, axes, channel_axis, "direct", convolution
        return _guarded(image, cval, output, overflow, workers, _kernel_steps, *settings, weights=weights)
    if gaps is None:
        _keep(_small_kernels, given, asked, steps)
    return _filter(image, steps, cval, output, workers, gaps, widen=widen)


def _weights(form: _Form) -> NDArray:
    """A copy of the weights."""
    weights, code, shape = form.kernel
    return np.frombuffer(weights, code).reshape(shape)


def _kernel_steps(form: _Form, mode, cval, origin, axes, channel_axis, method, convolution):
    """None: the method is "separable", and the kernel has no factors."""
    weights = _weights(form)
    shape, before, boundary = _place_kernel(form.ndim, weights.shape, mode, origin, axes, channel_axis, convolution)
    _check.one_of(method, "method", METHODS)
    if convolution:
        weights = np.flip(weights)
    elif weights.dtype.kind == "c":
        weights = weights.conj()
    sweep = _Pass(weights.reshape(shape), before, boundary, one_dimensional=False)
    if method == "separable" or method == "auto" and weights.size >= _SEPARABLE_FROM**2 and weights.dtype.kind != "c":
        steps = _factorised(form, method, cval, sweep)
        if steps is not None or method == "separable":
            return steps
    if method == "auto" and weights.size >= _TRANSFORMS_FROM and not _integral(weights):
        sweep = sweep._replace(by_transforms=True)
    return (_ready(form, sweep, cval),)


def _factorised(form: _Form, method: str, cval, sweep: _Pass):
    """The steps that filter with the factors of a kernel; None: it has none, or they are not worth it."""
    _, before, boundary, *_ = sweep
    shape = sweep.weights.shape
    axes = [axis for axis, k in enumerate(shape) if k > 1]
    if method == "auto" and not (len(axes) > 1 and min(shape[axis] for axis in axes) >= _SEPARABLE_FROM):
        return None
    axes += [axis for axis in range(form.ndim - 1, -1, -1) if axis not in axes][: max(0, 2 - len(axes))]
    axes.sort()
    output = np.dtype(form.output)
    dtype, ordered = _arithmetic(np.dtype(form.source), sweep, cval, output, form.widen)
    # Passes before the last two leave their sums in the output, and see the constant itself beyond the borders.
    if len(axes) > 2 and output.kind in "fc" and not (cval != 0 and "constant" in boundary):
        dtype = np.promote_types(dtype, np.finfo(output).dtype)
        roomy = np.finfo(output).dtype == dtype
    else:
        roomy = len(axes) == 2
    if ordered or dtype.kind != "f" or not roomy:
        return None
    factors = separable_factors(sweep.weights.reshape([shape[axis] for axis in axes]), dtype)
    if factors is None:
        return None
    lines = [
        _Pass(
            factor.reshape(_only(axis, shape, 1)),
            _only(axis, before, 0),
            _only(axis, boundary, "edge"),
            one_dimensional=False,
            axis=axis,
        )
        for axis, factor in zip(axes, factors, strict=True)
    ]
    whole = _ready(form, sweep, cval)._replace(axis=0)
    return (*_in_pairs(form, lines[:-2], cval, joining=False), _join(*lines[-2:], dtype, whole=whole))


def _only(axis, values, other):
    """The tuple `values` in one place, `other` elsewhere."""
    return tuple(value if a == axis else other for a, value in enumerate(values))


def _place_kernel(ndim, kernel, mode, origin, axes, channel_axis, convolution):
    """The shape that a kernel of shape `kernel` has over all axes of the array, and its padding and boundaries."""
    image_axes = _check.image_axes(ndim, channel_axis)
    axes = _check.filter_axes(axes, len(image_axes))
    _check.filter_kernel(kernel, axes, len(image_axes))
    origins = _check.one_an_axis(origin, "origin", len(axes))
    boundary = _check.image_boundary(mode)
    # SciPy lays the kernel's axes along the image's in ascending order, also where `axes` has another one;
    # origins follow `axes`, but only where it leaves an axis out.
    ascending = sorted(axes)
    if len(axes) < len(image_axes):
        origins = [origins[axes.index(axis)] for axis in ascending]
    before, shape = [0] * ndim, [1] * ndim
    for axis, k, axis_origin in zip(ascending, kernel, origins, strict=True):
        if convolution:
            # The middle of the turned kernel: one further for an even number of weights.
            axis_origin = -_check.filter_integer(axis_origin, "origin") - (k % 2 == 0)
        before[image_axes[axis]] = k // 2 + _check.filter_origin(axis_origin, k)
        shape[image_axes[axis]] = k
    return tuple(shape), tuple(before), (boundary,) * ndim


def _correlate1d(
    input, weights, axis, output, mode, cval, origin, channel_axis, precision, overflow, workers, gaps, *,
    convolution,
):
    settings = axis, mode, cval, origin, channel_axis, precision, overflow, workers, convolution
    filtered = _small_lines.run(input, weights, output, cval, settings) if gaps is None else None
    if filtered is not None:
        return filtered
    given, asked = (input, weights, output, settings), workers
    image = _check.image(input)
    weights = _check.filter_weights_1d(weights)
    cval = _check.image_cval(cval, image.dtype, weights.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    _check.filter_axis(axis, _check.image_axes(image.ndim, channel_axis))
    output = _check.filter_output(output, image, "c" in image.dtype.kind + weights.dtype.kind, promote=True)
    settings = axis, mode, cval, origin, channel_axis, convolution
    steps = _steps(_line_steps, image, output, widen, *settings, weights=weights)
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        return _guarded(image, cval, output, overflow, workers, _line_steps, *settings, weights=weights)
    if gaps is None:
        _keep(_small_lines, given, asked, steps)
    return _filter(image, steps, cval, output, workers, gaps, widen=widen)


def _line_steps(form: _Form, axis, mode, cval, origin, channel_axis, convolution):
    axis = _check.filter_axis(axis, _check.image_axes(form.ndim, channel_axis))
    weights = _weights(form)
    if convolution:
        weights = weights[::-1]
        origin = -_check.filter_integer(origin, "origin") - (weights.size % 2 == 0)
    elif weights.dtype.kind == "c":
        weights = weights.conj()
    origin = _check.filter_origin(origin, weights.size)
    boundary = _check.image_boundary(mode)
    return _in_pairs(form, [_line(form.ndim, axis, boundary, weights, origin)], cval)


def _slope(input, axis, across, output, mode, cval, channel_axis, precision, overflow, workers, gaps):
    image = _check.image(input)
    cval = _check.image_cval(cval, image.dtype)
    widen = _check.filter_precision(precision)
    workers = _asked_workers(workers)
    output = _check.filter_output(output, image, complex_result=image.dtype.kind == "c")
    settings = axis, across, mode, cval, channel_axis
    steps = _steps(_slope_steps, image, output, widen, *settings)
    if overflow is not None and _check.filter_overflow(overflow, output.dtype, gaps):
        return _guarded(image, cval, output, overflow, workers, _slope_steps, *settings)
    return _filter(image, steps, cval, output, workers, gaps, widen=widen)


def _slope_steps(form: _Form, axis, middle: int, mode, cval, channel_axis):
    """middle: the weight between two of 1 along the axes across."""
    image_axes = _check.image_axes(form.ndim, channel_axis)
    axis = _check.filter_axis(axis, image_axes)
    boundaries = _check.image_boundaries(mode, len(image_axes))
    lines = dict(zip(image_axes, boundaries, strict=True))
    passes = [_line(form.ndim, axis, lines.pop(axis), [-1, 0, 1])]
    passes += [_line(form.ndim, other, boundary, [1, middle, 1]) for other, boundary in lines.items()]
    # Beyond a constant border the second pass sees the constant itself, not its differences: then the order counts,
    # and no single kernel does what two passes do.
    if _mergeable(form, passes, boundaries, cval) and (cval == 0 or "constant" not in boundaries):
        passes.sort(key=lambda line: line.axis)
        if len(passes) != 2 or _pair(form, *passes, cval) is None:
            kernel = np.ones((1,) * form.ndim, np.int64)
            for line in passes:
                kernel = kernel * line.weights
            # The zeros in [-1, 0, 1] stay taps, as they are in SciPy's passes.
            passes = [_merge(passes, kernel, one_dimensional=True)]
    return _in_pairs(form, passes, cval)


def _lines_of_axes(ndim, mode, axes, channel_axis):
    """The array's axes to filter, and the boundary of each."""
    image_axes = _check.image_axes(ndim, channel_axis)
    filtered = [image_axes[axis] for axis in _check.filter_axes(axes, len(image_axes))]
    return filtered, _check.image_boundaries(mode, len(filtered))


def _laplace_steps(form: _Form, mode, cval, axes, channel_axis, merged=False):
    """None: no single kernel does it; with `merged`, one does in any case."""
    filtered, boundaries = _lines_of_axes(form.ndim, mode, axes, channel_axis)
    passes = [_line(form.ndim, *line, [1, -2, 1]) for line in zip(filtered, boundaries, strict=True)]
    if not (merged or _mergeable(form, passes, boundaries, cval)):
        return None
    cross = np.zeros([3 if axis in filtered else 1 for axis in range(form.ndim)], np.int64)
    for line in passes:
        middle = [slice(None) if axis == line.axis else slice(k // 2, k // 2 + 1) for axis, k in enumerate(cross.shape)]
        cross[tuple(middle)] += line.weights
    return (_ready(form, _merge(passes, cross, one_dimensional=False), cval),)


def _line(ndim: int, axis: int, boundary: str, weights, origin: int = 0) -> _Pass:
    """A pass along one axis."""
    weights = np.asarray(weights)

    def spread(along, across):
        return tuple(along if a == axis else across for a in range(ndim))

    return _Pass(
        weights.reshape(spread(weights.size, 1)),
        spread(weights.size // 2 + origin, 0),
        spread(boundary, "edge"),
        one_dimensional=True,
        axis=axis,
    )


def _mean(ndim: int, axis: int, boundary: str, size: int, origin: int, output: str) -> _Pass:
    """The mean of `size` neighbours. Where quotients are truncated, sums are exact and divided, as SciPy does it."""
    if np.dtype(output).kind in "fc":
        return _line(ndim, axis, boundary, np.full(size, 1 / size), origin)
    return _line(ndim, axis, boundary, np.ones(size, np.int64), origin)._replace(divisor=size)


def _merge(passes: list[_Pass], weights: NDArray, one_dimensional: bool) -> _Pass:
    """The single pass that several ones along different axes amount to, given its weights."""
    boundary = list(passes[0].boundary)
    for line in passes:
        boundary[line.axis] = line.boundary[line.axis]
    before = np.sum([line.before for line in passes], axis=0)
    return _Pass(weights, tuple(before.tolist()), tuple(boundary), one_dimensional)


def _mergeable(form: _Form, passes: list[_Pass], boundaries: list[str], cval) -> bool:
    """Whether passes of integer weights may and should be one.

    They may where no pass truncates a fraction, as wrapping once is as good as wrapping after each. They should as long
    as 3**n weights cost less than n passes.
    """
    if not 0 < len(passes) <= 3:
        return False
    output = np.dtype(form.output).kind
    if output in "fc":
        return True
    return np.dtype(form.source).kind in "biu" and output in "iu" and _all_integers(boundaries, cval)


def _all_integers(boundaries, cval) -> bool:
    """Whether what lies beyond the borders of an image of integers is an exact integer too."""
    return "constant" not in boundaries or (abs(cval) <= 2**53 and cval == int(cval))


def _gaussian_steps(form: _Form, sigma, order, mode, cval, truncate, radius, axes, channel_axis):
    image_axes = _check.image_axes(form.ndim, channel_axis)
    filtered = [image_axes[axis] for axis in _check.filter_axes(axes, len(image_axes))]
    sigmas = _check.one_an_axis(sigma, "sigma", len(filtered))
    orders = _check.one_an_axis(order, "order", len(filtered))
    radii = _check.one_an_axis(radius, "radius", len(filtered))
    boundaries = _check.image_boundaries(mode, len(filtered))
    passes = [
        _line(form.ndim, axis, boundary, _gaussian_weights(sigma, order, truncate, radius))
        for axis, boundary, sigma, order, radius in zip(filtered, boundaries, sigmas, orders, radii, strict=True)
        if sigma > 1e-15
    ]
    return _in_pairs(form, passes, cval)


def _uniform_steps(form: _Form, size, mode, cval, origin, axes, channel_axis):
    image_axes = _check.image_axes(form.ndim, channel_axis)
    filtered = [image_axes[axis] for axis in _check.filter_axes(axes, len(image_axes))]
    sizes = [_check.box_size(k) for k in _check.one_an_axis(size, "size", len(filtered))]
    origins = _check.one_an_axis(origin, "origin", len(filtered))
    boundaries = _check.image_boundaries(mode, len(filtered))
    passes = [
        _mean(form.ndim, axis, boundary, k, _check.filter_origin(origin, k), form.output)
        for axis, boundary, k, origin in zip(filtered, boundaries, sizes, origins, strict=True)
        if k > 1
    ]
    return _in_pairs(form, passes, cval)


def _gaussian_line(form: _Form, sigma, axis, order, mode, cval, truncate, radius, channel_axis):
    weights = _gaussian_weights(sigma, order, truncate, radius)
    axis = _check.filter_axis(axis, _check.image_axes(form.ndim, channel_axis))
    return _in_pairs(form, [_line(form.ndim, axis, _check.image_boundary(mode), weights)], cval)


def _mean_steps(form: _Form, size, axis, mode, cval, origin, channel_axis):
    axis = _check.filter_axis(axis, _check.image_axes(form.ndim, channel_axis))
    size = _check.filter_size(size)
    origin = _check.filter_origin(origin, size)
    return _in_pairs(form, [_mean(form.ndim, axis, _check.image_boundary(mode), size, origin, form.output)], cval)


def _gaussian_weights(sigma: float, order: int, truncate: float, radius: int | None) -> NDArray[np.float64]:
    """Weights for correlation, in the arithmetic of SciPy, whose last bits decide where an integer is truncated.

    A derivative of a polynomial q times the Gaussian is (q' - x q / sigma**2) times the Gaussian.
    """
    sigma = _check.gaussian_sigma(sigma)
    order = _check.gaussian_order(order)
    radius = _check.gaussian_radius(sigma, truncate, radius)
    variance = sigma * sigma
    x = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / variance * x**2)
    weights = weights / weights.sum()
    if order > 0:
        powers = np.arange(order + 1)
        differentiate = np.diag(powers[1:], 1) + np.diag(np.ones(order) / -variance, -1)
        q = (powers == 0).astype(np.float64)
        for _ in range(order):
            q = differentiate @ q
        weights = (x[:, np.newaxis] ** powers) @ q * weights
    return weights[::-1]


# ---- from passes to the engine ----


def _filter(
    image, steps: Sequence[_Sweep | _Pair], cval, output, workers: int | None, gaps=None, derivative=False, widen=False
) -> NDArray | tuple[NDArray, NDArray]:
    """Fill `output` with `image` after all steps; return it. Where samples are missing (`gaps`): `_filter_valid`."""
    if gaps is not None:
        return _filter_valid(image, steps, cval, output, widen, workers, gaps, derivative)
    if len(steps) == 1 and steps[0].small is not None and steps[0].small(image, output, cval) or output.size == 0:
        return output
    if workers is None:  # (how many there are is asked of the system: not for what one does sooner)
        taps = sum([step.taps for step in steps])
        workers = 1 if image.size * taps < engine.SERIAL_BELOW else resolve_workers(None)
    if np.may_share_memory(image, output):
        image = image.copy()
    # Booleans are bytes to SciPy: sums truncate to 0..255 between passes, and what is not 0 in the end is true.
    source = image.view(np.uint8) if image.dtype == bool else image
    target = output.view(np.uint8) if output.dtype == bool else output
    finite = _sweep(source, steps, cval, target, workers)
    if not finite:
        _mend(source, steps[-1].whole, cval, target, workers)
    if output.dtype == bool:
        np.minimum(target, 1, out=target)
    return output


def _copied(image, output, overflow, workers: int) -> NDArray:
    """Fill `output` with an image that nothing filters."""
    if overflow is not None and _check.filter_overflow(overflow, output.dtype) and image.dtype.kind != "c":
        return _guarded(image, 0, output, overflow, workers, _identity_steps)
    output[...] = image
    return output


def _identity_steps(form: _Form):
    ndim = form.ndim
    as_it_is = _Pass(np.ones((1,) * ndim, np.int64), (0,) * ndim, ("edge",) * ndim, one_dimensional=False)
    return (_ready(form, as_it_is, 0),)


def _guarded(image, cval, output, overflow: str, workers: int | None, build, *settings, weights=None) -> NDArray:
    """`_filter` for an output of integers that do not wrap: they saturate, or are an error before anything is written.

    `build` and its settings make the steps. Results come in the narrowest integers that surely hold them and what is
    between passes. Where 64 bits may not, a single pass, or several of whole numbers, are right modulo 2**64, and the
    same sums in float64 tell how many times they went round; of several passes that truncate, float64 is all there is.
    """
    if output.size == 0:
        return output

    def steps_into(dtype):
        return _steps(build, image, np.broadcast_to(dtype.type(0), output.shape), True, *settings, weights=weights)

    source = image.view(np.uint8) if image.dtype == bool else image
    extremes, steps = _extremes(source), steps_into(output.dtype)
    if all(_holds(output.dtype, *ends) for ends in _ranges(extremes, steps, cval)):
        return _filter(image, steps, cval, output, workers)
    if np.may_share_memory(image, output):
        source = source.copy()
    workers = resolve_workers(workers)
    for dtype in map(np.dtype, (np.int16, np.int32, np.int64)):
        steps = steps_into(dtype)
        narrow = all(_holds(dtype, *ends) for ends in _ranges(extremes, steps, cval))
        if narrow:
            break
    whole = source.dtype.kind in "iu" and all(
        _integral(weights) and not divisor and _all_integers(boundary, cval)
        for weights, boundary, divisor in _lines(steps)
    )
    exactly = narrow or whole or len(steps) == 1 and isinstance(steps[0], _Sweep)
    nearly = None if narrow else steps_into(np.dtype(np.float64))
    axis = 0 if steps[0].axis is None and output.ndim else steps[0].axis
    slabs = _slabs(output, axis)

    # Nothing may be written before all results are known to fit: more than one slab is computed twice.
    for write in (False, True) if overflow == "raise" and len(slabs) > 1 else (True,):
        for slab in slabs:
            target = output[(*slab, ...)]
            exact = near = None
            if exactly:
                exact = _slab_of(source, steps, slab, axis, cval, np.empty(target.shape, dtype), workers)
            if nearly:
                near = _slab_of(source, nearly, slab, axis, cval, np.empty(target.shape, np.float64), workers)
            clipped, fit = _clipped(exact, near, whole, output.dtype)
            if overflow == "raise":
                _check.filter_results(fit, output.dtype)
            if write:
                target[...] = clipped
    return output


def _slab_of(image, steps, slab, axis: int | None, cval, results, workers: int) -> NDArray:
    """Fill `results` with a slab, along an axis, of the image after all steps; return them."""
    if slab:
        first = steps[0] if steps[0].axis == axis else steps[0]._replace(axis=axis)
        steps = [_from(first, slab[-1].start), *steps[1:]]
    _sweep(image, steps, cval, results, workers)
    return results


def _guarded_derivatives(run, image, output, channel_axis, overflow, largest: int) -> NDArray:
    """`run(image, output)`, a generic function, for each channel, and for integers that do not wrap.

    The derivatives are truncated to int64, as they are to the output's integers elsewhere, where no sample is above
    `largest`, and are float64 where squares or sums of such integers might wrap as well.
    """
    axes = _check.image_axes(image.ndim, channel_axis)
    output = _check.filter_output(output, image, complex_result=None)
    overflow = _check.filter_overflow(overflow, output.dtype)
    results = output
    if overflow:
        wide = image.dtype.kind != "c" and not np.abs(_extremes(image)).max() <= largest
        results = np.empty(output.shape, np.float64 if wide else np.int64)
    if np.may_share_memory(image, results):
        image = image.copy()
    if len(axes) == image.ndim:
        run(image, results)
    else:
        x, y = np.moveaxis(image, channel_axis, 0), np.moveaxis(results, channel_axis, 0)
        for channel in range(len(x)):
            run(x[channel, ...], y[channel, ...])
    if overflow:
        exact, near = (None, results) if wide else (results, None)
        clipped, fit = _clipped(exact, near, False, output.dtype)
        if overflow == "raise":
            _check.filter_results(fit, output.dtype)
        output[...] = clipped
    return output


def _slabs(output, axis: int | None) -> list[tuple[slice, ...]]:
    """Slices of an array along an axis, for about `_SLAB_BYTES` of int64."""
    if axis is None:
        return [()]
    n = output.shape[axis]
    step = max(1, _SLAB_BYTES * n // (8 * output.size))
    return [(*(slice(None),) * axis, slice(start, min(start + step, n))) for start in range(0, n, step)]


def _lines(steps: Sequence[_Sweep | _Pair]):
    """(weights, boundary names, divisor) of each pass."""
    names = {code: name for name, code in engine.BOUNDARIES.items()}
    for step in steps:
        if isinstance(step, _Pair):
            boundaries = ((names[code],) for code in step.boundary)
            yield from zip(step.weights, boundaries, step.divisors, strict=True)
        else:
            yield step.weights, tuple(names[code] for code in step.codes), 0


def _extremes(image) -> tuple[float, float]:
    """The lowest and the highest sample: what the dtype allows, or of wide ones what there is. NaN where one is."""
    if image.dtype.kind == "b":
        return 0.0, 1.0
    if image.dtype.kind in "iu" and image.dtype.itemsize < 8:
        return float(np.iinfo(image.dtype).min), float(np.iinfo(image.dtype).max)
    return float(image.min(initial=0)), float(image.max(initial=0))


def _ranges(extremes: tuple[float, float], steps: Sequence[_Sweep | _Pair], cval):
    """(lowest, highest) that each pass can give of an image; infinite where that is not known."""
    low, high = extremes
    for weights, boundary, divisor in _lines(steps):
        if not np.isfinite([low, high, cval if "constant" in boundary else 0]).all():
            low, high = -np.inf, np.inf
            yield low, high
            continue
        if "constant" in boundary:
            low, high = min(low, cval), max(high, cval)
        weights = weights.astype(np.float64)
        rising, falling = weights[weights > 0].sum(), weights[weights < 0].sum()
        ends = low * rising + high * falling, high * rising + low * falling
        low, high = (end / max(divisor, 1) for end in ends)
        yield low, high


def _holds(dtype: np.dtype, low: float, high: float) -> bool:
    """Whether integers of this dtype hold all numbers of a range, truncated; with a margin for roundings."""
    info = np.iinfo(dtype)
    return low * (1 + 1e-12) > info.min - 1 and high * (1 + 1e-12) < info.max + 1


def _clipped(exact, near, whole: bool, dtype) -> tuple[NDArray, bool]:
    """Results as integers of a dtype: those outside are the nearest one, NaN is 0. And whether all were inside.

    exact: integers, right modulo 2**64 if `whole`; None: `near` is all there is. near: the same in float64, or None
    where `exact` is right as it is.
    """
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if near is None:
        held = np.iinfo(exact.dtype)
        fit = exact.size == 0 or (exact.min() >= low and exact.max() <= high)
        return np.clip(exact, max(low, held.min), min(high, held.max)), fit
    if whole:
        turns = np.rint((near - exact.astype(np.float64)) / 2.0**64)
        last = int(high == 2**64 - 1)
        below = (turns < 0) | (turns == 0) & (exact < low)
        above = (turns > last) | (turns == last) & ((exact >= 0) if last else (exact > high))
    else:
        near = np.trunc(near)
        below, above = near < float(low), near >= float(high) + 1
        held = np.where(below | above | np.isnan(near), 0, near)
        if exact is not None:
            # The last bits are those of SciPy's sum, as long as it fits 64 bits with room to spare.
            close = np.abs(near) < 2.0**62
            below, above = np.where(close, exact < low, below), np.where(close, exact > high, above)
            exact = np.where(close, exact, held.astype(dtype).astype(np.int64))
        else:
            exact = held.astype(dtype)
    clipped = np.where(below, dtype.type(low), np.where(above, dtype.type(high), exact.astype(dtype)))
    return clipped, not (below.any() or above.any() or np.isnan(near).any())


def _filter_valid(image, steps, cval, output, widen: bool, workers: int | None, gaps, derivative: bool):
    """`_filter` of an image with missing samples (`pyconv.missing`)."""
    ndim, workers = image.ndim, resolve_workers(workers)
    dtype = np.dtype(np.float64) if widen or image.dtype.kind in "biu" else _floating(image.dtype, output.dtype)
    few_channels = ndim > 0 and image.shape[-1] < _LONG_ENOUGH
    form = _Form(ndim, few_channels, dtype.char, dtype.char, widen=False, kernel=None)
    if not steps:
        nothing = _Pass(np.ones((1,) * ndim), (0,) * ndim, ("edge",) * ndim, one_dimensional=False)
        steps = (_ready(form._replace(source=image.dtype.char, output=output.dtype.char, widen=widen), nothing, 0),)
    sums = tuple(step._replace(by_transforms=False) if isinstance(step, _Sweep) else step for step in steps)
    *_, min_weight, _ = gaps
    weights = _mask_weights(_Known(steps), form, dtype, derivative, min_weight)

    def plain(piece, inner, target):
        _filter_part(piece, steps, cval, inner, target, workers)

    def direct(piece, inner, target):
        _filter_part(piece, sums, cval, inner, target, workers)

    def weigh(steps, mask, inner, target):
        _filter_part(mask, steps, 0, inner, target, workers)

    def transform_error(shape, part):
        _, w, before, *_ = steps[0]
        sides = tuple((b, out + k - 1 - n - b) for b, k, n, out in zip(before, w.shape[2:4], shape, part, strict=False))
        choice = plan.choose((1, *shape[:2]), w.shape[:4], dtype, (1, 1), sides, (1, 1), 1)
        return next(c.error for c in choice.candidates if c.variant == choice.variant) if choice.variant else 0

    return missing.filter_valid(image, output, weights, plain, direct, weigh, transform_error, gaps)


def _filter_part(image, steps, cval, inner, output, workers: int) -> None:
    """Fill `output` with the part `inner` of what `_filter` makes of an image: each step leaves that part alone."""
    if output.shape == image.shape:
        _filter(image, steps, cval, output, workers)
        return
    starts = [s.start for s in inner[1:]]
    source, shape, whole_axes = image, list(image.shape), set(range(image.ndim))
    for i, step in enumerate(steps, 1):
        last = i == len(steps)
        now = whole_axes if last else whole_axes.intersection(_axes(step, image.ndim))
        for axis in now:
            shape[axis] = output.shape[axis]
        target = output if last else missing.scratch(shape, output.dtype.newbyteorder("="), f"between {i % 2}")
        further = _further(step, [start if axis in now else 0 for axis, start in enumerate(starts)])
        finite = _apply(source, further, cval, target, workers)
        source, whole_axes = target, whole_axes - now
    if not finite:
        _mend(image, _further(steps[-1].whole, starts), cval, output, workers)


def _axes(step: _Sweep | _Pair, ndim: int) -> tuple[int, ...]:
    """The axes that a step of several filters; -1: one that it puts before all others."""
    if isinstance(step, _Sweep):
        return (step.axis,)
    if step.in_a_row:
        return -1, 0
    return (ndim - 2, ndim - 1) if step.axes is None else step.axes[-2:]


def _further(step: _Sweep | _Pair, starts: Sequence[int]) -> _Sweep | _Pair:
    """The same filter of an output that starts so far along each axis."""
    if isinstance(step, _Sweep):
        return step._replace(before=tuple(b - start for b, start in zip(step.before, starts, strict=True)))
    along = [starts[axis] if axis >= 0 else 0 for axis in _axes(step, len(starts))]
    return step._replace(
        before=tuple(b - start for b, start in zip(step.before, along, strict=True)),
        whole=None if step.whole is None else _further(step.whole, starts),
    )


class _Known:
    """Steps as a key: they are the same where all their numbers are."""

    def __init__(self, steps):
        self.steps, self.key = steps, _hashable(steps)

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.key)


def _hashable(value):
    if isinstance(value, np.ndarray):
        return value.tobytes(), value.dtype.char, value.shape
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    return None if callable(value) else value


# What is remembered are copies of the weights, not the caller's array.
@functools.lru_cache(maxsize=64)
def _mask_weights(known: _Known, form: _Form, dtype, derivative: bool, min_weight: float) -> missing.MaskWeights:
    passes = [sweep for step in known.steps for sweep in _passes(step, form.ndim)]

    def steps_of(factors, by_transforms):
        sweeps = [
            sweep._replace(weights=weights, by_transforms=by_transforms)
            for sweep, weights in zip(passes, factors, strict=True)
        ]
        return _in_pairs(form, sweeps, 0)

    def weigh(steps, mask, inner, target):
        _filter_part(mask, steps, 0, inner, target, 1)

    return missing.MaskWeights(passes, derivative, min_weight, dtype, steps_of, weigh)


def _passes(step: _Sweep | _Pair, ndim: int) -> list[_Pass]:
    """The passes of a step."""
    names = list(engine.BOUNDARIES)
    if isinstance(step, _Sweep):
        # (of two channels, each weight is in one)
        kernel, boundary = step.weights.sum(axis=1)[0], tuple(names[code] for code in step.codes)
        if ndim == 0:
            kernel, boundary = kernel.reshape(()), ()
        return [_Pass(kernel, step.before[:ndim], boundary, False, step.axis, by_transforms=step.by_transforms)]
    return [
        _line(ndim, axis, names[code], weights, before - weights.size // 2)
        for axis, weights, before, code in zip(_axes(step, ndim), step.weights, step.before, step.boundary, strict=True)
        if axis >= 0
    ]


def _sweep(image, steps: Sequence[_Sweep | _Pair], cval, output, workers: int) -> bool:
    """All steps, slab by slab along the axis of the first. Returns what the last one does.

    Only that step looks beyond the borders of a slab, and it reads the image itself. The others stay within, so they
    alternate between the slab and a scratch array.
    """
    if len(steps) == 1:
        return _apply(image, steps[0], cval, output, workers)
    axis, n = steps[0].axis, output.shape[steps[0].axis]
    step = max(1, _SLAB_BYTES * n // output.nbytes)
    if axis == image.ndim - 1:
        step = max(step, _LONG_ENOUGH)
    scratch = np.empty([min(step, n) if a == axis else output.shape[a] for a in range(image.ndim)], output.dtype)
    whole, finite = (slice(None),) * axis, True
    for start in range(0, n, step):
        slab = output[(*whole, slice(start, start + step))]
        targets = [slab, scratch[(*whole, slice(slab.shape[axis]))]]
        source = image
        for left, sweep in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            if source is image:
                sweep = _from(sweep, start)
            done = _apply(source, sweep, cval, targets[left % 2], workers)
            source = targets[left % 2]
        finite = finite and done
    return finite


def _mend(image, whole: _Sweep, cval, output, workers: int) -> None:
    """Take the sums again, of a whole kernel, that are not finite with its factors: so each is what it is directly.

    Only the sums of a factor that overflow where the kernel's would not make a difference.
    """
    step = max(1, _SLAB_BYTES * len(output) // output.nbytes)
    for start in range(0, len(output), step):
        slab = output[start : start + step]
        wrong = ~np.isfinite(slab)
        if wrong.any():
            sums = np.empty(slab.shape, slab.dtype)
            _apply(image, _from(whole, start), cval, sums, workers)
            np.copyto(slab, sums, where=wrong)


def _from(sweep: _Sweep | _Pair, start: int) -> _Sweep | _Pair:
    """The same filter of the slab that begins so far along its axis."""
    if isinstance(sweep, _Pair):
        return sweep._replace(before=tuple(b - start * (i == sweep.leading) for i, b in enumerate(sweep.before)))
    return sweep._replace(before=tuple(b - start * (a == sweep.axis) for a, b in enumerate(sweep.before)))


def _in_pairs(form: _Form, passes: Sequence[_Pass], cval, joining=True) -> tuple[_Sweep | _Pair, ...]:
    """The steps of the engine for some passes: two at once where that can be."""
    steps, left, plain = [], list(passes), "?" not in form.source + form.output
    while left:
        pair = _pair(form, *left[:2], cval) if joining and len(left) > 1 else None
        steps.append(pair or _ready(form, left[0], cval))
        del left[: 2 if pair else 1]
        form = form._replace(source=form.output)
    if plain and len(steps) == 1 and steps[0].small is None and type(steps[0]) is _Pair:
        steps[0] = steps[0]._replace(small=functools.partial(_small_pair, steps[0]))
    return tuple(steps)


def _dtypes(form: _Form) -> tuple[np.dtype, np.dtype]:
    """Those of image and output; booleans are bytes to SciPy."""
    source, output = (np.dtype("B" if letter == "?" else letter) for letter in (form.source, form.output))
    return source, output


def _pair(form: _Form, first: _Pass, second: _Pass, cval) -> _Pair | None:
    """Two passes as one step, with the bits of two; None: they are none.

    Where an image of integers becomes one of floats, both passes are computed in float64, as in SciPy, even if the
    floats between them are narrower.
    """
    source, output = _dtypes(form)
    # The second axis must be the last one, or the one before a few channels.
    behind = form.ndim - 1 - second.axis
    if first.axis > second.axis or behind > form.few_channels:
        return None
    if "c" in first.weights.dtype.kind + second.weights.dtype.kind:
        return None
    if first.divisor:
        return _join(first, second, _exact_dtype(source, output, (first, second), cval), rounded=True)
    if source.kind in "iu" and all(_integral(p.weights) and _all_integers(p.boundary, cval) for p in (first, second)):
        # Nothing is truncated, and wrapping once is as good as wrapping after each pass.
        largest = _largest(source, first, cval) * _weight(first)
        largest = max(largest, abs(cval) if "constant" in second.boundary else 0) * _weight(second)
        if largest <= 2**53:
            return _join(first, second, np.dtype(np.float32 if largest <= 2**24 else np.float64))
    if output.kind in "iu":
        # A pass of integer weights is exact and may be summed in any order, if there are bits enough.
        for sweep, dtype in ((first, source), (second, output)):
            integral = dtype.kind in "iu" and _integral(sweep.weights)
            if integral and _largest(dtype, sweep, cval) * _weight(sweep) > 2**53:
                return None
        return _join(first, second, np.dtype(np.float64), ordered=True, rounded=True)
    dtype = np.dtype(np.float64) if source.kind in "iu" or form.widen else _floating(source, output)
    return _join(first, second, dtype, rounded=True)


def _largest(image: np.dtype, sweep: _Pass, cval) -> float:
    """The largest magnitude of an integer that a pass reads."""
    info = np.iinfo(image)
    return float(max(-info.min, info.max, abs(cval) if "constant" in sweep.boundary else 0))


def _weight(sweep: _Pass) -> float:
    """How many times larger a sum of a pass can be."""
    return float(np.abs(sweep.weights.astype(np.float64)).sum())


def _exact_dtype(source: np.dtype, output: np.dtype, sweeps: Sequence[_Pass], cval) -> np.dtype:
    """The dtype in which sums of integers that are divided afterwards are taken.

    Below 2**24 a quotient just below an integer is not rounded up to it in float32 either: it lies 1 / size away.
    """
    exact = all(dtype.kind in "iu" for dtype in (source, output)) and all(
        _all_integers(sweep.boundary, cval)
        and max(_largest(source, sweep, cval), _largest(output, sweep, cval)) * _weight(sweep) <= 2**24
        for sweep in sweeps
    )
    return np.dtype(np.float32 if exact else np.float64)


def _ready(form: _Form, sweep: _Pass, cval) -> _Sweep | _Pair:
    """A pass as the engine takes it: sums that are divided, and long lines of weights along rows, in a pair."""
    if sweep.divisor:
        return _beside_nothing(form, sweep, _exact_dtype(*_dtypes(form), [sweep], cval))
    source, output = _dtypes(form)
    weights, before, boundary = sweep.weights, sweep.before, sweep.boundary
    dtype, ordered = _arithmetic(source, sweep, cval, output, form.widen)
    if form.ndim == 0:
        weights, before, boundary = weights[np.newaxis], (0,), ("edge",)
    pairs = _parity(weights) if ordered and sweep.one_dimensional and weights.size > 1 else 0
    w = np.array(weights[np.newaxis, np.newaxis], dtype, order="C")
    if ordered and sweep.one_dimensional and w.size > 1 and pairs == 0:
        # SciPy starts from the last weight. So does the engine where that is in a channel of its own.
        is_last = np.arange(w.size).reshape(w.shape) == w.size - 1
        w = np.concatenate([np.where(is_last, w, 0), np.where(is_last, 0, w)], axis=1)
    codes = tuple(engine.BOUNDARIES[name] for name in boundary)
    sums = not sweep.one_dimensional and _zeros_matter(source, sweep, cval), not ordered, pairs
    by_transforms = sweep.by_transforms and not ordered and "f" == source.kind == output.kind and _all_finite(w)
    plain = not by_transforms and form.ndim > 0 and "?" not in form.source + form.output
    if "c" in source.kind + output.kind + dtype.kind or form.few_channels and weights.shape[-1] == 1:
        plain = False
    small = engine.small_correlate(w, before, codes, *sums) if plain else None
    along_rows = sweep.one_dimensional and sweep.axis == form.ndim - 1 and not (ordered or form.few_channels)
    # (under "wrap" a row cannot be cut into blocks there)
    if along_rows and boundary[-1] != "wrap" and w.size >= _LONG_LINES.get(dtype.char, np.inf):
        return _beside_nothing(form, sweep, dtype)._replace(small=small)
    return _Sweep(
        sweep.axis,
        w,
        before,
        codes,
        tuple(k > 1 for k in weights.shape),
        *sums,
        by_transforms,
        w.size,
        small,
    )


def _apply(image, step: _Sweep | _Pair, cval, output, workers: int) -> bool:
    """One step by the engine. False: that was one of a kernel's factors, and some sums are not finite."""
    if type(step) is _Pair:
        return _apply_pair(image, step, cval, output, workers)
    _, w, before, codes, reach, skip_zeros, fused, pairs, by_transforms, *_ = step
    if image.ndim == 0:
        image, output = image[np.newaxis], output[np.newaxis]
    elif (fused or sum(reach) == 1) and reach[-1] and image.shape[-1] < _LONG_ENOUGH <= max(image.shape):
        # Weights that reach across a short last axis: short axes go first, and rows are long again.
        order = sorted(range(image.ndim), key=lambda axis: image.shape[axis] >= _LONG_ENOUGH)
        image, output = image.transpose(order), output.transpose(order)
        w = np.ascontiguousarray(w.transpose(0, 1, *(2 + axis for axis in order)))
        before, codes, reach = (tuple(values[axis] for axis in order) for values in (before, codes, reach))
    # Short last axes that no weights reach across (the channels of a picture) go to the front as a batch; all
    # others are spatial.
    ndim = spatial = image.ndim
    while (
        spatial > 1 and not reach[spatial - 1] and image.shape[spatial - 1] == output.shape[spatial - 1] < _LONG_ENOUGH
    ):
        spatial -= 1
    batch = ndim - spatial
    if batch == 0:
        x, y = image[np.newaxis], output[np.newaxis]
    else:
        axes = (*range(spatial, ndim), *range(spatial))
        one_channel = (*(slice(None),) * batch, np.newaxis)
        x, y = image.transpose(axes)[one_channel], output.transpose(axes)[one_channel]
        w, before, codes = w.reshape(w.shape[: spatial + 2]), before[:spatial], codes[:spatial]
    if w.shape[1] == 2:
        # The image twice, as two channels of the same memory
        x = np.broadcast_to(x, (*x.shape[:batch], 2, *x.shape[batch + 1 :]))
    if by_transforms and spatial == 2:
        sides = tuple(
            (b, out + k - 1 - n - b)
            for b, k, n, out in zip(before, w.shape[2:], x.shape[-2:], y.shape[-2:], strict=True)
        )
        choice = plan.choose((1, *x.shape[-2:]), w.shape, w.dtype, (1, 1), sides, (1, 1), 1)
        if choice.variant is not None and plan.suits(choice.variant, w):
            engine.correlate_transformed(
                x, w, None, None, y, batch, 1, before, codes, cval, workers, choice.variant, skip_zeros=True
            )
            return True
    ones = (1,) * spatial
    engine.correlate(x, w, None, y, batch, 1, ones, ones, before, codes, cval, workers, skip_zeros, fused, pairs)
    return True


def _apply_pair(image, pair: _Pair, cval, output, workers: int) -> bool:
    """Two passes in one trip. Returns whether all results are finite, where they are those of a kernel's factors."""
    if pair.in_a_row:
        image, output = image[np.newaxis], output[np.newaxis]
    if pair.axes is not None:
        image, output = image.transpose(pair.axes), output.transpose(pair.axes)
    return engine.separable(
        image,
        *pair.weights,
        output,
        image.ndim - 2,
        pair.before,
        pair.boundary,
        cval,
        workers,
        pair.whole is not None,
        pair.fused,
        pair.pairs,
        pair.divisors,
        pair.rounded,
        pair.whole is not None,
        None if pair.whole is None else cval * pair.down_sum,
    )


def _small_pair(pair: _Pair, image, output, cval) -> bool:
    """The pair as the only step, for a small image."""
    if output.size == 0 or output.size * pair.taps >= engine.SERIAL_BELOW or np.may_share_memory(image, output):
        return False
    return _apply_pair(image, pair, cval, output, 1)


def _beside_nothing(form: _Form, sweep: _Pass, dtype: np.dtype) -> _Pair:
    """A pass and one that does nothing."""
    last = form.ndim - 1 - (form.ndim > 1 and form.few_channels)
    if sweep.axis < last:
        return _join(sweep, _line(form.ndim, last, "edge", [1]), dtype)
    if sweep.axis > 0:
        return _join(_line(form.ndim, sweep.axis - 1, "edge", [1]), sweep, dtype)._replace(axis=sweep.axis, leading=1)
    moved = sweep._replace(
        weights=sweep.weights[np.newaxis],
        before=(0, *sweep.before),
        boundary=("edge", *sweep.boundary),
        axis=1,
    )
    return _join(_line(form.ndim + 1, 0, "edge", [1]), moved, dtype)._replace(axis=0, leading=1, in_a_row=True)


def _arithmetic(image: np.dtype, sweep: _Pass, cval, output: np.dtype, widen: bool) -> tuple[np.dtype, bool]:
    """The dtype to compute in, complex where the weights are; and whether to sum in SciPy's order."""
    if image.kind in "iu" and _integral(sweep.weights) and _all_integers(sweep.boundary, cval):
        # Exact in any order as long as no partial sum needs more bits than the computing dtype has.
        bound = _weight(sweep) * _largest(image, sweep, cval)
        if bound <= 2**24:
            return np.dtype(np.float32), False
        if bound <= 2**53:
            return np.dtype(np.float64), False
        if output.kind in "iu":
            return np.dtype(np.int64), False
    if output.kind in "iu":
        return np.dtype(np.float64), True
    if image.kind in "iu" or widen:
        dtype = np.dtype(np.float64)
    else:
        dtype = _floating(image, output)
    if sweep.weights.dtype.kind == "c":
        dtype = np.promote_types(dtype, np.complex64)
    return dtype, False


def _zeros_matter(image: np.dtype, sweep: _Pass, cval) -> bool:
    """Whether weights of zero should be no taps: where NaN is possible, and where most are (dense taps are twice as
    fast)."""
    if image.kind not in "iu" or "constant" in sweep.boundary and not np.isfinite(cval):
        return True
    return 2 * np.count_nonzero(sweep.weights) < sweep.weights.size


@functools.cache
def _floating(image: np.dtype, output: np.dtype) -> np.dtype:
    """The real dtype in which sums of an image are taken that are no integers."""
    return np.finfo(np.promote_types(np.promote_types(image, output), np.float32)).dtype


def _all_finite(weights: NDArray) -> bool:
    return bool(np.isfinite(weights).all())


def _integral(weights: NDArray) -> bool:
    """Whether all weights are integers of 64 bits."""
    if weights.dtype.kind == "f":
        return bool(np.all(np.rint(weights) == weights) and np.all(np.abs(weights) < 2.0**63))
    return weights.dtype.kind == "i"


def _parity(weights: NDArray) -> int:
    """1 for weights that are even about their middle, -1 for odd ones, by SciPy's criterion; 0 for others.

    SciPy's correlate1d adds or subtracts the samples of a pair before it multiplies them by the left weight.
    """
    weights = weights.ravel()
    half = weights.size // 2
    left, right = weights[:half][::-1], weights[half + 1 :]
    if left.size == right.size:
        epsilon = np.finfo(np.float64).eps
        if not np.any(np.abs(right - left) > epsilon):
            return 1
        if not np.any(np.abs(right + left) > epsilon):
            return -1
    return 0
