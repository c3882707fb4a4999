"""Named kernels: plain float64 arrays, for correlation.

Every function returns a new NumPy array, to be used as it is with the functions that correlate
(`pyconv.corr2d`, `pyconv.conv2d`, `pyconv.ndimage.correlate`). A strict convolution turns a kernel round, so
for `pyconv.ndimage.convolve` the signs of the odd ones (first derivatives, `emboss`) change; the symmetric
ones are the same for both.

Signs: a derivative is positive where the image rises along its axis, and a second derivative or Laplacian is
positive in a valley. The textbook's ``[1, -1]`` and ``[-1, 2, -1]`` are the negatives of ``derivative(1)`` and
``derivative(2)`` (though a strict convolution with ``[1, -1]`` is the correlation with ``derivative(1)``).

Scales: smoothing kernels sum to 1, so a flat image stays as it is; ``box(n, normalize=False)`` sums over its
window instead, the integral. `derivative`, `second_derivative` and `laplacian` are scaled to the derivative
itself, for pixels 1 apart. `sobel`, `prewitt` and `scharr` hold SciPy's whole numbers, so integer images stay
exact; each docstring names the divisor that turns its result into grey levels a pixel, and scikit-image's,
which is half of it.

===========================  ==========================================================  ================
kernel                       what it gives                                               sum of weights
===========================  ==========================================================  ================
`identity`                   the image itself                                            1
`box`                        the mean of a window, or its sum with normalize=False       1, or their number
`binomial`                   a blur of a given size                                      1
`gaussian`                   a blur of a given sigma, or a derivative of one             1, or about 0
`derivative`                 the difference of a given order d, +d! on x**d              0 (order 0: 1)
`second_derivative`          [1, -2, 1] along one axis, +2 on x**2                       0
`sobel`                      8 times the slope along one axis                            0
`prewitt`                    6 times the slope along one axis                            0
`scharr`                     32 times the slope along one axis                           0
`laplacian`                  the sum of the second derivatives, +4 on x**2 + y**2        0
`laplacian_of_gaussian`      the Laplacian of the blurred image                          about 0
`sharpen`                    the image minus its Laplacian                               1
`emboss`                     a relief, lit from one corner                               1
===========================  ==========================================================  ================
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyconv import _check

__all__ = [
    "binomial",
    "box",
    "derivative",
    "emboss",
    "gaussian",
    "identity",
    "laplacian",
    "laplacian_of_gaussian",
    "prewitt",
    "scharr",
    "second_derivative",
    "sharpen",
    "sobel",
]

Kernel = NDArray[np.float64]


def identity(n: int | Sequence[int] = 3, *, ndim: int | None = None) -> Kernel:
    """Kernel that leaves an image as it is: 1 in the middle, 0 elsewhere.

    Parameters
    ----------
    n : int or sequence of int, optional
        Size of the kernel, for all axes or one an axis.
    ndim : int, optional
        Number of axes. Default: the length of `n` where it is a sequence, else 2.

    Returns
    -------
    ndarray of float64
        Shape ``(n, n)``, or `n`. The 1 stands at ``n // 2``, which is the middle of an even kernel too for
        `pyconv.ndimage.correlate`.

    Raises
    ------
    TypeError
        If a size is not an integer.
    ValueError
        If a size is below 1, or `ndim` is not the length of `n`.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.identity(3)
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]])
    """
    shape = _check.kernel_shape(n, ndim)
    kernel = np.zeros(shape)
    kernel[tuple(size // 2 for size in shape)] = 1
    return kernel


def box(n: int | Sequence[int], normalize: bool = True, *, ndim: int | None = None) -> Kernel:
    """Kernel of equal weights: the mean of a window, or its sum.

    Parameters
    ----------
    n : int or sequence of int
        Size of the window, for all axes or one an axis.
    normalize : bool, optional
        True: weights of one over their number, for the mean. False: ones, for the sum (the integral over the
        window).
    ndim : int, optional
        Number of axes. Default: the length of `n` where it is a sequence, else 2.

    Returns
    -------
    ndarray of float64
        Shape ``(n, n)``, or `n`.

    Raises
    ------
    TypeError
        If a size is not an integer.
    ValueError
        If a size is below 1, or `ndim` is not the length of `n`.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.box((1, 4))
    array([[0.25, 0.25, 0.25, 0.25]])
    >>> kernels.box(2, normalize=False)
    array([[1., 1.],
           [1., 1.]])
    """
    shape = _check.kernel_shape(n, ndim)
    return np.full(shape, 1 / math.prod(shape) if normalize else 1.0)


def binomial(n: int | Sequence[int], *, ndim: int | None = None) -> Kernel:
    """Binomial blur: a row of Pascal's triangle along each axis, summing to 1.

    The whole-number neighbour of the Gaussian, whose variance it has along each axis when
    ``sigma**2 == (n - 1) / 4``. Multiplied by ``2**(n - 1)`` an axis, the weights are whole numbers.

    Parameters
    ----------
    n : int or sequence of int
        Size of the kernel, for all axes or one an axis.
    ndim : int, optional
        Number of axes. Default: the length of `n` where it is a sequence, else 2.

    Returns
    -------
    ndarray of float64
        Shape ``(n, n)``, or `n`.

    Raises
    ------
    TypeError
        If a size is not an integer.
    ValueError
        If a size is below 1, or `ndim` is not the length of `n`.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.binomial(3) * 16
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    # Python divides whole numbers of any length with one rounding, so long rows do not overflow.
    return _outer(
        [math.comb(size - 1, k) / 2 ** (size - 1) for k in range(size)]
        for size in _check.kernel_shape(n, ndim)
    )


def gaussian(
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    ndim: int | None = None,
) -> Kernel:
    """Gaussian blur, or a derivative of one.

    The weights of `scipy.ndimage.gaussian_filter`, written out as one array: samples of the Gaussian, divided
    by their sum along each axis. A derivative of order d is those weights times
    ``He_d(x / sigma) / sigma**d``, ``He_d`` being the Hermite polynomial of the probabilists.

    Parameters
    ----------
    sigma : float or sequence of float
        Standard deviation in pixels, for all axes or one an axis. 0 leaves an axis unblurred.
    order : int or sequence of int, optional
        Order of the derivative along each axis: 0 for the blur itself. A single number applies to all axes,
        as in SciPy, so for one direction give a sequence: ``order=(0, 1)`` is the slope along the last axis.
    truncate : float, optional
        The kernel ends at this many standard deviations.
    radius : int or sequence of int, optional
        Pixels on each side of the middle, in place of `truncate`.
    ndim : int, optional
        Number of axes. Default: the length of the first sequence among `sigma`, `order` and `radius`, else 2.

    Returns
    -------
    ndarray of float64
        Size ``2 * radius + 1`` along each axis, with ``radius = int(truncate * sigma + 0.5)``. Order 0 sums
        to 1. Derivatives keep SciPy's sampled weights: odd orders sum to 0; even ones miss 0 by what sampling
        and truncation leave (-7e-5 for order 2 with sigma 1).

    Raises
    ------
    TypeError
        If `sigma` or `truncate` is not a real number, or `order` not an integer.
    ValueError
        If one of them is negative or not finite, `radius` is not a whole number from 0, sequences differ in
        length, or an axis with sigma 0 is to be differentiated.

    See Also
    --------
    pyconv.ndimage.gaussian_filter : the same filter, axis by axis, which is faster.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import kernels
    >>> kernels.gaussian(1.5).shape
    (13, 13)
    >>> np.round(kernels.gaussian(1.0, radius=2, ndim=1), 3)
    array([0.054, 0.244, 0.403, 0.244, 0.054])
    >>> np.round(kernels.gaussian((0, 1.0), order=(0, 1), radius=(0, 2)), 3)
    array([[-0.109, -0.244,  0.   ,  0.244,  0.109]])
    """
    return _outer(
        _gaussian_factor(*axis) for axis in _check.kernel_gaussian(sigma, order, truncate, radius, ndim)
    )


def laplacian_of_gaussian(
    sigma: float | Sequence[float],
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    ndim: int | None = None,
) -> Kernel:
    """Laplacian of Gaussian: blur, then the sum of the second derivatives, in one kernel.

    The weights of `scipy.ndimage.gaussian_laplace`: for each axis the Gaussian's second derivative along it,
    blurred along the others, and the sum of these [1]_.

    Parameters
    ----------
    sigma : float or sequence of float
        Standard deviation in pixels, for all axes or one an axis; above 0.
    truncate : float, optional
        The kernel ends at this many standard deviations.
    radius : int or sequence of int, optional
        Pixels on each side of the middle, in place of `truncate`.
    ndim : int, optional
        Number of axes. Default: the length of the first sequence among `sigma` and `radius`, else 2.

    Returns
    -------
    ndarray of float64
        Negative in the middle: the filtered image is positive in dark spots and negative in bright ones. The
        weights miss a sum of 0 by what sampling and truncation leave (-1.4e-4 for sigma 1), as SciPy's do.

    Raises
    ------
    TypeError
        If `sigma` or `truncate` is not a real number.
    ValueError
        If `sigma` is not above 0, `truncate` is negative or not finite, `radius` is not a whole number from
        0, or sequences differ in length.

    References
    ----------
    .. [1] D. Marr and E. Hildreth, "Theory of edge detection", Proceedings of the Royal Society of London
       B 207, 1980, pp. 187-217.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import kernels
    >>> np.round(kernels.laplacian_of_gaussian(1.0, radius=2), 2)
    array([[ 0.02,  0.04,  0.04,  0.04,  0.02],
           [ 0.04,  0.  , -0.1 ,  0.  ,  0.04],
           [ 0.04, -0.1 , -0.32, -0.1 ,  0.04],
           [ 0.04,  0.  , -0.1 ,  0.  ,  0.04],
           [ 0.02,  0.04,  0.04,  0.04,  0.02]])
    """
    axes = _check.kernel_gaussian(sigma, 2, truncate, radius, ndim)
    blurs = [_gaussian_factor(sigma, 0, radius) for sigma, _, radius in axes]
    curvatures = [_gaussian_factor(*axis) for axis in axes]
    return sum(_outer([*blurs[:i], curvatures[i], *blurs[i + 1 :]]) for i in range(len(axes)))


def derivative(order: int = 1, *, axis: int = -1, ndim: int = 1) -> Kernel:
    """Finite difference of a given order, of the smallest size.

    Scaled to the derivative itself: on the samples ``x**d`` the kernel of order d gives d factorial, with a
    plus sign. Textbooks that write the edge detector as ``[1, -1]`` and the second difference as
    ``[-1, 2, -1]`` mean the negatives of these kernels.

    Parameters
    ----------
    order : int, optional
        Order of the derivative, 0 to 56. (From 57 on the weights are no longer exact in float64.)
    axis : int, optional
        The axis along which to differentiate.
    ndim : int, optional
        Number of axes of the kernel. All but `axis` have size 1.

    Returns
    -------
    ndarray of float64
        Size ``order + 1`` along `axis`. An odd order has an even size, so its result lies half a pixel
        between two samples: ``derivative(1)`` gives ``x[i + 1] - x[i]`` at i where nothing is padded, and
        ``x[i] - x[i - 1]`` in `pyconv.ndimage.correlate`.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `order` is not in 0 to 56, `ndim` is below 1 or `axis` is not one of its axes.

    See Also
    --------
    gaussian : derivatives that blur as well, for noisy images.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.derivative(1)
    array([-1.,  1.])
    >>> kernels.derivative(2)
    array([ 1., -2.,  1.])
    >>> kernels.derivative(1, axis=0, ndim=2)
    array([[-1.],
           [ 1.]])
    """
    order = _check.integer(order, "order", minimum=0, maximum=56)
    axis, ndim = _check.kernel_axis(axis, ndim)
    shape = [1] * ndim
    shape[axis] = order + 1
    return np.array([(-1.0) ** (order - k) * math.comb(order, k) for k in range(order + 1)]).reshape(shape)


def second_derivative(*, axis: int = -1, ndim: int = 1) -> Kernel:
    """Second difference ``[1, -2, 1]`` along one axis: ``derivative(2)`` by its own name.

    Positive in a valley, negative on a ridge, 2 on the samples ``x**2``. Odd in size, so its result lies on
    the samples. The textbook's ``[-1, 2, -1]`` is its negative.

    Parameters
    ----------
    axis : int, optional
        The axis along which to differentiate.
    ndim : int, optional
        Number of axes of the kernel. All but `axis` have size 1.

    Returns
    -------
    ndarray of float64
        Size 3 along `axis`.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `ndim` is below 1 or `axis` is not one of its axes.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.second_derivative(ndim=2)
    array([[ 1., -2.,  1.]])
    """
    return derivative(2, axis=axis, ndim=ndim)


def sobel(axis: int = -1, *, ndim: int = 2) -> Kernel:
    """Sobel's slope along one axis [1]_: ``[-1, 0, 1]`` along it, ``[1, 2, 1]`` along the others.

    SciPy's weights and sign. Divide by 8 in two dimensions (``2 * 4**(ndim - 1)``) for grey levels a pixel.
    `skimage.filters.sobel` divides by 4 (``4**(ndim - 1)``), so that a sharp step gives its height, and its
    magnitude in addition by ``sqrt(ndim)``.

    Parameters
    ----------
    axis : int, optional
        The axis along which the image is to rise for a positive result: 0 (down) answers to horizontal edges,
        -1 or 1 (to the right) to vertical ones.
    ndim : int, optional
        Number of axes of the kernel.

    Returns
    -------
    ndarray of float64
        Size 3 along each axis.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `ndim` is below 1 or `axis` is not one of its axes.

    References
    ----------
    .. [1] I. Sobel, "An isotropic 3x3x3 volume gradient operator", Hewlett-Packard Laboratories, 1995, which
       recounts the talk of 1968 about the one in two dimensions.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.sobel()
    array([[-1.,  0.,  1.],
           [-2.,  0.,  2.],
           [-1.,  0.,  1.]])
    >>> kernels.sobel(axis=0)
    array([[-1., -2., -1.],
           [ 0.,  0.,  0.],
           [ 1.,  2.,  1.]])
    """
    return _slope([1, 2, 1], axis, ndim)


def prewitt(axis: int = -1, *, ndim: int = 2) -> Kernel:
    """Prewitt's slope along one axis [1]_: ``[-1, 0, 1]`` along it, ``[1, 1, 1]`` along the others.

    SciPy's weights and sign. Divide by 6 in two dimensions (``2 * 3**(ndim - 1)``) for grey levels a pixel.
    `skimage.filters.prewitt` divides by 3 (``3**(ndim - 1)``), so that a sharp step gives its height.

    Parameters
    ----------
    axis : int, optional
        The axis along which the image is to rise for a positive result.
    ndim : int, optional
        Number of axes of the kernel.

    Returns
    -------
    ndarray of float64
        Size 3 along each axis.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `ndim` is below 1 or `axis` is not one of its axes.

    References
    ----------
    .. [1] J. M. S. Prewitt, "Object enhancement and extraction", in Picture Processing and Psychopictorics,
       Academic Press, 1970, pp. 75-149.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.prewitt()
    array([[-1.,  0.,  1.],
           [-1.,  0.,  1.],
           [-1.,  0.,  1.]])
    """
    return _slope([1, 1, 1], axis, ndim)


def scharr(axis: int = -1, *, ndim: int = 2) -> Kernel:
    """Scharr's slope along one axis [1]_: ``[-1, 0, 1]`` along it, ``[3, 10, 3]`` along the others.

    Of the 3x3 slopes, the one whose size depends least on the direction of the edge. Divide by 32 in two
    dimensions (``2 * 16**(ndim - 1)``) for grey levels a pixel. `skimage.filters.scharr` divides by 16
    (``16**(ndim - 1)``), so that a sharp step gives its height.

    Parameters
    ----------
    axis : int, optional
        The axis along which the image is to rise for a positive result.
    ndim : int, optional
        Number of axes of the kernel.

    Returns
    -------
    ndarray of float64
        Size 3 along each axis.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `ndim` is below 1 or `axis` is not one of its axes.

    References
    ----------
    .. [1] H. Scharr, "Optimale Operatoren in der digitalen Bildverarbeitung", doctoral thesis, University of
       Heidelberg, 2000.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.scharr()
    array([[ -3.,   0.,   3.],
           [-10.,   0.,  10.],
           [ -3.,   0.,   3.]])
    """
    return _slope([3, 10, 3], axis, ndim)


def laplacian(ndim: int = 2, *, connectivity: int = 1) -> Kernel:
    """Laplacian: each neighbour counts 1, the middle minus their number.

    Positive in dark spots, negative in bright ones; the sign of `scipy.ndimage.laplace`, and the opposite of
    `skimage.filters.laplace`.

    Parameters
    ----------
    ndim : int, optional
        Number of axes of the kernel.
    connectivity : int, optional
        Which pixels are neighbours: those at most this many steps along axes away, each axis taken once. In
        two dimensions 1 means the 4 nearest, and the result is the sum of the second derivatives; 2 means all
        8, and the result is 3 times that sum on a quadratic image. In three dimensions 1, 2 and 3 mean 6, 18
        and 26 neighbours and 1, 5 and 9 times the sum.

    Returns
    -------
    ndarray of float64
        Size 3 along each axis.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `ndim` is below 1 or `connectivity` is not in 1 to `ndim`.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.laplacian()
    array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]])
    >>> kernels.laplacian(connectivity=2)
    array([[ 1.,  1.,  1.],
           [ 1., -8.,  1.],
           [ 1.,  1.,  1.]])
    """
    ndim = _check.kernel_ndim(ndim)
    connectivity = _check.integer(connectivity, "connectivity", minimum=1, maximum=ndim)
    steps = np.abs(np.indices((3,) * ndim) - 1).sum(axis=0)
    kernel = (steps <= connectivity).astype(np.float64)
    kernel[(1,) * ndim] -= kernel.sum()
    return kernel


def sharpen(amount: float = 1.0, *, ndim: int = 2) -> Kernel:
    """Sharpening: the image minus its Laplacian, weights summing to 1.

    Parameters
    ----------
    amount : float, optional
        How much of the Laplacian is taken away. 0 changes nothing; below 0 the kernel blurs.
    ndim : int, optional
        Number of axes of the kernel.

    Returns
    -------
    ndarray of float64
        Size 3 along each axis. The result may leave the image's range on both sides of an edge.

    Raises
    ------
    TypeError
        If `amount` is not a real number or `ndim` not an integer.
    ValueError
        If `amount` is not finite or `ndim` is below 1.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.sharpen()
    array([[ 0., -1.,  0.],
           [-1.,  5., -1.],
           [ 0., -1.,  0.]])
    """
    amount = _check.real(amount, "amount")
    ndim = _check.kernel_ndim(ndim)
    return identity(3, ndim=ndim) - amount * laplacian(ndim)


def emboss() -> Kernel:
    """Relief: surfaces that rise towards the lower right look lit, the others in shadow.

    The image plus its slope along the diagonal, so a flat image stays as it is.

    Returns
    -------
    ndarray of float64
        Shape ``(3, 3)``, summing to 1.

    Examples
    --------
    >>> from pyconv import kernels
    >>> kernels.emboss()
    array([[-2., -1.,  0.],
           [-1.,  1.,  1.],
           [ 0.,  1.,  2.]])
    """
    return identity(3) + np.add.outer([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0])


def _outer(factors) -> Kernel:
    """Product of one-dimensional weights, one an axis."""
    return functools.reduce(np.multiply.outer, (np.asarray(factor, np.float64) for factor in factors))


def _slope(smoothing: list[int], axis: int, ndim: int) -> Kernel:
    axis, ndim = _check.kernel_axis(axis, ndim)
    factors = [smoothing] * ndim
    factors[axis] = [-1, 0, 1]
    return _outer(factors)


def _gaussian_factor(sigma: float, order: int, radius: int) -> Kernel:
    """Weights along one axis. For correlation the derivative's sign is already right."""
    x = np.arange(-radius, radius + 1)
    if sigma == 0:  # the limit: all weight in the middle
        return (x == 0).astype(np.float64)
    t = x / sigma
    weights = np.exp(-0.5 * t * t)
    weights /= weights.sum()
    return weights * np.polynomial.hermite_e.hermeval(t, [0] * order + [1]) / sigma**order
