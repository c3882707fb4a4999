"""The patch matrix of a convolution (im2col), and the sum of overlapping patches (col2im)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyconv import _check, engine, geometry

__all__ = ["fold", "unfold"]


def unfold(
    input: ArrayLike,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence | str = 0,
    stride: int | Sequence[int] = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: complex = 0.0,
    out: NDArray | None = None,
) -> NDArray:
    """Patches of an image as the columns of a matrix: im2col.

    A convolution is a product of matrices: ``weight.reshape(O, -1) @ unfold(input, ...)`` has one row an
    output channel and one column a position.

    Parameters
    ----------
    input : array_like, (N, C, *spatial), (C, *spatial) or (*spatial)
        The images, as many spatial axes as `kernel_size` has numbers.
    kernel_size : int or sequence of int
        Size of a patch along each spatial axis; a single number means two axes of that size, as in PyTorch.
    dilation, stride : int or sequence of int, optional
        Distance between the samples of a patch, and from patch to patch; one for all axes, or one an axis.
    padding : int, one an axis, one (before, after) pair an axis, or str, optional
        As in `pyconv.conv2d`: amounts on a side, ``"valid"``, ``"full"``, ``"same"``, ``"same_upper"`` or
        ``"same_lower"``.
    padding_mode : str, optional
        What continues the input::

            zeros, constant       v v v | a b c d | v v v      v is `padding_value`
            reflect, mirror       d c b | a b c d | c b a
            replicate, edge       a a a | a b c d | d d d
            circular, wrap        b c d | a b c d | a b c
            symmetric             c b a | a b c d | d c b
    padding_value : number, optional
        The constant of mode ``constant``.
    out : ndarray, optional
        The array to fill.

    Returns
    -------
    ndarray, (N, C * taps, L), (C * taps, L) or (taps, L)
        One column for each of the L positions, in the order of an output image; in a column the C patches one
        after the other, each in the order of the kernel (``c, ky, kx``). In the dtype of `input`.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a kernel is larger than the padded input.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.

    See Also
    --------
    fold : the adjoint.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> image = np.arange(9).reshape(3, 3)
    >>> pyconv.unfold(image, (2, 2))
    array([[0, 1, 3, 4],
           [1, 2, 4, 5],
           [3, 4, 6, 7],
           [4, 5, 7, 8]])
    >>> np.array([0, 1, 2, 3]) @ pyconv.unfold(image, (2, 2))
    array([19, 25, 37, 43])
    """
    return _unfold(input, kernel_size, dilation, padding, stride, padding_mode, padding_value, out, "input")


def _unfold(input, kernel_size, dilation, padding, stride, padding_mode, padding_value, out, name):
    x = _check.numeric_array(input, name)
    k = _check.patch_size(kernel_size)
    leading = _check.leading_shape(x.shape, len(k), name)
    n = x.shape[len(leading) :]
    windows = _Windows(n, k, dilation, padding, stride, padding_mode)
    _check.boundary_has_samples(n, windows.sides, windows.boundary, name)
    value = _check.constant(padding_value, x.dtype.kind == "c")
    if windows.boundary == "constant" and x.dtype.kind in "biu":
        value = _check.integer_constant(value)
    shape = _check.output_shape(windows.matrix_shape(leading))
    if out is None:
        out = np.empty(shape, x.dtype.newbyteorder("="))
    else:
        _check.output_array(out, shape)
        _check.output_cast(x.dtype, out.dtype, "out")
        if np.may_share_memory(x, out):
            x = x.copy()
    columns = out.reshape(*leading, *k, *windows.size)
    for tap in np.ndindex(*k):
        patch = columns[(..., *tap, *(slice(None),) * len(k))]
        for target, source in windows.reads(tap):
            patch[(..., *target)] = value if source is None else x[(..., *source)]
    return out


def fold(
    input: ArrayLike,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence | str = 0,
    stride: int | Sequence[int] = 1,
    *,
    padding_mode: str = "zeros",
) -> NDArray:
    """Sum of overlapping patches: col2im, the adjoint of `unfold`.

    Each sample of a patch is added to the pixel that `unfold` took it from; what it took from a constant
    border is dropped. So ``fold(unfold(x))`` is x times the number of patches that each pixel is in.

    Parameters
    ----------
    input : array_like, (N, C * taps, L), (C * taps, L) or (taps, L)
        Patches as `unfold` returns them. A matrix with as many rows as a patch has samples is one image
        without channels.
    output_size : int or sequence of int
        Size of the image along each spatial axis.
    kernel_size : int or sequence of int
        Size of a patch along each spatial axis; a single number means two axes of that size, as in PyTorch.
    dilation, padding, stride, padding_mode
        As in `unfold`.

    Returns
    -------
    ndarray, (N, C, *output_size), (C, *output_size) or output_size
        In the dtype of `input`; sums of integers are taken and returned in int64 (uint64 of uint64).

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a kernel is larger than the padded image.
    TypeError
        If an argument is of the wrong kind, or `input` is a lazy array.

    See Also
    --------
    unfold : the matrix of patches.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> columns = pyconv.unfold(np.ones((3, 3)), (2, 2))
    >>> pyconv.fold(columns, (3, 3), (2, 2))
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    columns = _check.numeric_array(input, "input")
    k = _check.patch_size(kernel_size)
    n = _check.folded_size(output_size, len(k))
    windows = _Windows(n, k, dilation, padding, stride, padding_mode)
    leading = _check.folded_leading_shape(columns, k, windows.size)
    return _fold(columns, leading, windows)


def _fold(columns, leading, windows):
    """The sum of patches, an image whose axes before the spatial ones are `leading`."""
    k, n = windows.k, windows.n
    columns = columns.reshape(*leading, *k, *windows.size)
    summed = columns.dtype.newbyteorder("=")
    if summed.kind in "bi" or (summed.kind == "u" and summed.itemsize < 8):
        summed = np.dtype(np.int64)
    elif summed == np.float16:
        summed = np.dtype(np.float32)
    image = np.zeros((*leading, *n), summed)
    for tap in np.ndindex(*k):
        patch = columns[(..., *tap, *(slice(None),) * len(k))]
        for target, source in windows.reads(tap):
            if source is None:
                continue
            pixels = (*(slice(None),) * len(leading), *source)
            if isinstance(source[0], slice):
                image[pixels] += patch[(..., *target)]
            else:
                np.add.at(image, pixels, patch[(..., *target)])  # a border may read a pixel more than once
    return image.astype(np.float16) if columns.dtype == np.float16 else image


class _Windows:
    """The windows that a kernel sees: for each of its taps, which pixels the output positions read."""

    def __init__(self, n, k, dilation, padding, stride, padding_mode):
        self.n, self.k = n, k
        self.dilation = _check.per_axis(dilation, "dilation", len(k), minimum=1)
        self.stride = _check.per_axis(stride, "stride", len(k), minimum=1)
        self.sides = geometry.normalize_padding(padding, n, k, self.stride, self.dilation)
        self.size = geometry.convolution_size(n, k, self.stride, self.sides, self.dilation)
        self.boundary = _check.layer_boundary(padding_mode)

    def matrix_shape(self, leading):
        """Shape of the patch matrix: C patches to a column."""
        rows = math.prod(leading[-1:]) * math.prod(self.k)
        return (*leading[:-1], rows, math.prod(self.size))

    def reads(self, tap) -> Iterator[tuple]:
        """Blocks of output positions, each with the index of the pixels that `tap` reads there; None: the constant.

        First the positions that read inside the image, as slices; then, axis by axis, those before and
        behind.
        """
        firsts = [t * d - before for t, d, (before, _) in zip(tap, self.dilation, self.sides, strict=True)]
        inside, pixels = [], []
        for first, n, size, s in zip(firsts, self.n, self.size, self.stride, strict=True):
            start = min(max(-(first // s), 0), size)
            stop = max(min((n - 1 - first) // s + 1, size), start)
            inside.append(slice(start, stop))
            pixels.append(slice(first + start * s, first + stop * s, s))
        yield tuple(inside), tuple(pixels)
        everywhere = [slice(size) for size in self.size]
        for axis, (within, size) in enumerate(zip(inside, self.size, strict=True)):
            for border in (slice(within.start), slice(within.stop, size)):
                block = (*inside[:axis], border, *everywhere[axis + 1 :])
                if any(b.stop <= (b.start or 0) for b in block):
                    continue
                if self.boundary == "constant":
                    yield block, None
                    continue
                indices = [
                    engine.source_index(
                        first + s * np.arange(b.start or 0, b.stop), n, engine.BOUNDARIES[self.boundary]
                    )
                    for first, s, b, n in zip(firsts, self.stride, block, self.n, strict=True)
                ]
                yield block, np.ix_(*indices)
