"""Kernels that are outer products: found, and taken apart."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import DTypeLike, NDArray


def separable_factors(kernel: NDArray, dtype: DTypeLike) -> tuple[NDArray, ...] | None:
    """Vectors, one an axis, whose outer product is a kernel as far as sums in `dtype` can tell; None if there are none.

    The line of weights through the largest one, along each axis, is the only candidate, up to scale. So no
    decomposition is needed, and every weight can be looked at. For d axes, n weights and the unit roundoff u, the
    product of the factors, as rounded to `dtype`, may differ by r = 2 d**2 u of the weight (so many roundings are
    between a product and what is made of it here) and by r / n of the largest weight, and is zero where the weight
    is. A sum over the products then differs from one over the kernel by at most r (|x| * |w|) + r max|x| max|w|, and
    by nothing where the weights are integers: their factors must be integers too, and the outer product exact.

    Parameters
    ----------
    kernel : ndarray
        Weights in int64 or float64, any number of axes.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    tuple of ndarray of float64, or None
        The largest weight of every factor but the first is 1, or they are integers.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv.separable import separable_factors
    >>> separable_factors(np.outer([1, 2, 1], [-2, 0, 2]), np.float32)
    (array([2., 4., 2.]), array([-1.,  0.,  1.]))
    >>> separable_factors(np.eye(2), np.float32) is None
    True
    """
    largest = np.abs(kernel).max(initial=0)
    if not 0 < largest < (2**53 if kernel.dtype.kind == "i" else np.inf):
        return None  # nothing but zeros, NaN, infinity
    kernel = kernel.astype(np.float64)
    pivot = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    lines = [kernel[(*pivot[:axis], slice(None), *pivot[axis + 1 :])] for axis in range(kernel.ndim)]
    if largest < 2**53 and np.all(np.rint(kernel) == kernel):
        lines = [line / math.gcd(*map(int, line)) for line in lines]
        scale = kernel[pivot] / math.prod(line[at] for line, at in zip(lines, pivot, strict=True))
        factors = [scale * lines[0], *lines[1:]]
        exact = scale == np.rint(scale) and np.array_equal(_outer(factors), kernel)
        return tuple(factors) if exact else None
    with np.errstate(under="ignore", over="ignore"):
        factors = [lines[0], *(line / kernel[pivot] for line in lines[1:])]
        product = _outer([factor.astype(dtype).astype(np.float64) for factor in factors])
        rounding = 2 * kernel.ndim**2 * float(np.finfo(dtype).eps) / 2
        allowed = rounding * np.abs(kernel) + rounding / kernel.size * float(largest)
        close = np.all(np.abs(product - kernel) <= allowed) and np.array_equal(product == 0, kernel.astype(dtype) == 0)
    return tuple(factors) if close else None


def _outer(factors):
    return functools.reduce(np.multiply.outer, factors)
