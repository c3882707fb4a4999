"""Deformable convolution, versions 1 and 2, and its gradients."""

import numpy as np

from pyconv import _check, engine, geometry
from pyconv._workers import resolve_workers

__all__ = ["deform_conv2d", "deform_conv2d_backward"]


def deform_conv2d(input, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None, *, dtype=None,
                  out=None, workers=None):
    """Deformable convolution, torchvision's ``deform_conv2d``: each tap of each output pixel looks where it is told.

    Where the plain convolution takes the pixel at (y, x) of its window, this one takes the sample at
    (y + offset_y, x + offset_x), interpolated from the four pixels around it, and multiplies it by the mask's value.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
    offset : array_like, (N, offset_groups * 2 * kh * kw, oh, ow), or without N where `input` is
        For each offset group and tap the displacement along y, then that along x, in pixels. The channels are divided
        evenly into as many offset groups as there are.
    weight : array_like, (O, C / groups, kh, kw)
        Its shape decides the number of groups.
    bias : array_like, (O,), optional
    stride, dilation : int or pair of int
    padding : int, one an axis, one (before, after) pair an axis, or str
        As in `pyconv.conv2d`; it decides where windows stand and how many there are. What lies outside is always zero.
    mask : array_like, (N, offset_groups * kh * kw, oh, ow), or without N, optional
        A factor for each sample (version 2); none is 1 everywhere (version 1).
    dtype : dtype, optional
        Of the result. Default: that of a floating `input`; of an integer one, what `input`, `weight` and `bias`
        promote to, and float64 where those are all integers. Sums are taken in float32 for a result of float16 or
        float32, else in float64, and all arguments are converted to that first.
    out : ndarray, optional
        The array to fill; returned.
    workers : int, optional
        Threads, see `set_workers`. Never changes a bit of the result.

    Returns
    -------
    ndarray, (N, O, oh, ow) or (O, oh, ow)

    Raises
    ------
    ValueError
        Shapes that do not belong together, a kernel larger than the padded input.
    TypeError
        Complex or lazy arrays, arguments of a wrong kind, an `out` that cannot hold the result.

    See Also
    --------
    deform_conv2d_backward : its gradients.
    conv2d : what it is with offsets of zero; the sums run in the same order.

    Notes
    -----
    A sample at or beyond one pixel outside (y <= -1, y >= H, x <= -1 or x >= W) is zero. Nearer to the border, pixels
    outside count as zero in the interpolation. Any offset is allowed: one of infinity is outside, and one of NaN gives
    a sample of NaN. An infinite or NaN pixel spoils every sample it has part in, also with a weight of zero.

    The method is that of Dai et al., "Deformable Convolutional Networks", 2017, and with a mask that of Zhu et al.,
    "Deformable ConvNets v2", 2019. Beyond the result it takes the memory of a padded copy of an image, and a few
    hundred kilobytes a thread.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> image = np.arange(12.0).reshape(1, 3, 4)
    >>> weight = np.ones((1, 1, 1, 1))
    >>> offset = np.zeros((2, 3, 4))
    >>> offset[1] = 0.5  # half a pixel to the right
    >>> pyconv.deform_conv2d(image, offset, weight)
    array([[[ 0.5,  1.5,  2.5,  1.5],
            [ 4.5,  5.5,  6.5,  3.5],
            [ 8.5,  9.5, 10.5,  5.5]]])
    """
    x, offset, w, bias, mask, unbatched, settings = _normalise(input, offset, weight, bias, stride, padding, dilation,
                                                               mask)
    workers = resolve_workers(workers)
    shape = _check.output_shape((x.shape[0], w.shape[0], *offset.shape[2:]))
    result = _result_dtype(x, w, bias, dtype)
    computed = _computed(result)
    if out is not None:
        _check.output_array(out, shape[1:] if unbatched else shape)
        _check.output_cast(result, out.dtype, "out")
    arrays = [_plain(a, computed) for a in (x, offset, mask, w, bias)]
    target = out[None] if out is not None and unbatched else out
    if target is None or not _is_plain(target, computed) or any(
            a is not None and np.may_share_memory(a, target) for a in arrays):
        y = np.empty(shape, computed)
    else:
        y = target
    engine.deform(*arrays, y, *settings, workers)
    if target is None:
        y = y.astype(result, copy=False)
        return y[0] if unbatched else y
    if y is not target:
        target[...] = y
    return out


def deform_conv2d_backward(input, offset, weight, grad_output, stride=1, padding=0, dilation=1, mask=None, *,
                           workers=None):
    """Gradients of `deform_conv2d`.

    Parameters
    ----------
    input, offset, weight, stride, padding, dilation, mask
        As in `deform_conv2d`.
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.
    workers : int, optional
        Threads, see `set_workers`. Never changes a bit of the result.

    Returns
    -------
    dinput, doffset, dweight, dbias, dmask : ndarray
        Each shaped like what it belongs to, dbias (O,), dmask None without a mask. In the dtype of `deform_conv2d`'s
        result, which is also computed in (float16 in float32).

    Raises
    ------
    ValueError
        Shapes that do not belong together, a kernel larger than the padded input.
    TypeError
        Complex or lazy arrays, arguments of a wrong kind.

    Notes
    -----
    Interpolation has a kink wherever a sample meets the pixel grid. There, doffset is the slope of the cell to the
    lower right, the one that begins at (floor(y), floor(x)), as in torchvision. A sample at an offset of NaN adds
    nothing to dinput, and the gradients of its own offset and mask, and of the weights, are NaN.

    Beyond the results it takes a gradient of the offsets for every 16 channels of an image, and two padded copies of 16
    channels a thread.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv.grad import deform_conv2d_backward
    >>> image = np.arange(12.0).reshape(1, 3, 4)
    >>> offset = np.zeros((2, 3, 4))
    >>> dinput, doffset, *_ = deform_conv2d_backward(image, offset, np.ones((1, 1, 1, 1)), np.ones((1, 3, 4)))
    >>> doffset[0, 0], doffset[1, 0]  # the slopes of the image along y and x
    (array([4., 4., 4., 4.]), array([ 1.,  1.,  1., -3.]))
    """
    x, offset, w, _, mask, unbatched, settings = _normalise(input, offset, weight, None, stride, padding, dilation,
                                                            mask)
    workers = resolve_workers(workers)
    dy = _check.deformable_gradient(grad_output, (x.shape[0], w.shape[0], *offset.shape[2:]), unbatched)
    result = _result_dtype(x, w, None, None)
    computed = _computed(result)
    x, offset, mask, w, dy = (_plain(a, computed) for a in (x, offset, mask, w, dy))
    dx, doffset, dw = np.empty_like(x), np.empty_like(offset), np.empty_like(w)
    dmask = None if mask is None else np.empty_like(mask)
    engine.deform_backward(x, offset, mask, w, dy, dx, doffset, dmask, dw, *settings, workers)
    dbias = dy.sum(axis=(0, 2, 3))
    if unbatched:
        dx, doffset, dmask = dx[0], doffset[0], None if mask is None else dmask[0]
    return tuple(None if d is None else d.astype(result, copy=False) for d in (dx, doffset, dw, dbias, dmask))


def _normalise(input, offset, weight, bias, stride, padding, dilation, mask):
    """The checked arrays, with a batch axis; whether that was missing; (stride, dilation, padding before)."""
    x, offset, w, bias, mask, unbatched = _check.deformable_arrays(input, offset, weight, bias, mask)
    n, k = x.shape[2:], w.shape[2:]
    stride = _check.per_axis(stride, "stride", 2, minimum=1)
    dilation = _check.per_axis(dilation, "dilation", 2, minimum=1)
    sides = geometry.normalize_padding(padding, n, k, stride, dilation)
    size = geometry.convolution_size(n, k, stride, sides, dilation)
    offset, mask = _check.deformable_samples(offset, mask, x, w, size, unbatched)
    return x, offset, w, bias, mask, unbatched, (stride, dilation, tuple(before for before, _ in sides))


def _result_dtype(x, w, bias, dtype):
    if x.dtype.kind == "f":
        result = x.dtype.newbyteorder("=")
    else:
        result = np.result_type(*(a.dtype for a in (x, w, bias) if a is not None))
        if result.kind != "f":
            result = np.dtype(np.float64)
    if dtype is None:
        return result
    wanted = _check.result_dtype(dtype)
    _check.output_cast(result, wanted, "dtype")
    if wanted.kind == "c":
        raise TypeError(f"dtype must be real, got {wanted}: deformable convolution has no complex form")
    return wanted.newbyteorder("=")


def _computed(result):
    return np.dtype(np.float32) if result.char == "e" else result


def _plain(a, computed):
    """`a` as the engine takes arrays."""
    if a is None:
        return None
    a = np.ascontiguousarray(a, dtype=computed)
    return a if a.flags.aligned else a.copy()


def _is_plain(a, computed):
    return type(a) is np.ndarray and a.dtype == computed and a.flags.c_contiguous and a.flags.aligned
