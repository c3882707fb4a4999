"""Sub-pixel convolution: channels that become pixels."""
import numpy as np

from pyconv import _check, conv


def pixel_shuffle(input, upscale_factor):
    """Channels into pixels: every r x r channels become a block of r x r pixels of one, PyTorch's ``pixel_shuffle``.

    ``output[..., c, y * r + i, x * r + j] = input[..., c * r * r + i * r + j, y, x]`` [1]_.

    Parameters
    ----------
    input : array_like, (..., C * r * r, H, W)
        Any number of axes before the channels, also none.
    upscale_factor : int
        r, at least 1.

    Returns
    -------
    ndarray, (..., C, H * r, W * r)
        A new array of the input's dtype.

    Raises
    ------
    ValueError
        Where r is below 1, its square does not divide the channels, or there are fewer than 3 axes.
    TypeError
        Arguments of a wrong kind, lazy arrays.

    See Also
    --------
    pixel_unshuffle : the way back.
    subpixel_conv2d : a convolution that stores its result shuffled.

    References
    ----------
    .. [1] W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
       convolutional neural network", CVPR, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.pixel_shuffle(np.arange(8).reshape(4, 1, 2), 2)
    array([[[0, 2, 1, 3],
            [4, 6, 5, 7]]])
    """
    return _shuffle(input, upscale_factor, "input", "upscale_factor")


def pixel_unshuffle(input, downscale_factor):
    """Pixels into channels: every block of r x r pixels becomes r x r channels, PyTorch's ``pixel_unshuffle``.

    ``output[..., c * r * r + i * r + j, y, x] = input[..., c, y * r + i, x * r + j]``.

    Parameters
    ----------
    input : array_like, (..., C, H * r, W * r)
        Any number of axes before the channels, also none.
    downscale_factor : int
        r, at least 1.

    Returns
    -------
    ndarray, (..., C * r * r, H, W)
        A new array of the input's dtype.

    Raises
    ------
    ValueError
        Where r is below 1 or does not divide height and width, or there are fewer than 3 axes.
    TypeError
        Arguments of a wrong kind, lazy arrays.

    See Also
    --------
    pixel_shuffle : the way back.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.pixel_unshuffle(np.array([[[0, 2, 1, 3], [4, 6, 5, 7]]]), 2).reshape(4, 2)
    array([[0, 1],
           [2, 3],
           [4, 5],
           [6, 7]])
    """
    return _unshuffle(input, downscale_factor, "input", "downscale_factor")


def pixel_shuffle_input(grad_output, upscale_factor):
    """Gradient of `pixel_shuffle` with respect to its input: the pixels back into their channels.

    Parameters
    ----------
    grad_output : array_like, (..., C, H * r, W * r)
    upscale_factor : int

    Returns
    -------
    ndarray, (..., C * r * r, H, W)

    Raises
    ------
    ValueError, TypeError
        As in `pixel_unshuffle`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.pixel_shuffle_input(np.ones((1, 4, 6)), 2).shape
    (4, 2, 3)
    """
    return _unshuffle(grad_output, upscale_factor, "grad_output", "upscale_factor")


def pixel_unshuffle_input(grad_output, downscale_factor):
    """Gradient of `pixel_unshuffle` with respect to its input: the channels back into their pixels.

    Parameters
    ----------
    grad_output : array_like, (..., C * r * r, H, W)
    downscale_factor : int

    Returns
    -------
    ndarray, (..., C, H * r, W * r)

    Raises
    ------
    ValueError, TypeError
        As in `pixel_shuffle`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.pixel_unshuffle_input(np.ones((4, 2, 3)), 2).shape
    (1, 4, 6)
    """
    return _shuffle(grad_output, downscale_factor, "grad_output", "downscale_factor")


def subpixel_conv2d(input, weight, upscale_factor, bias=None, stride=1, padding=0, dilation=1, groups=1, *,
                    padding_mode="zeros", padding_value=0.0, dtype=None, out=None, overflow="raise", workers=None):
    """Convolution whose result is stored as `pixel_shuffle` would arrange it, without a shuffle of its own.

    The same bits as ``pixel_shuffle(conv2d(input, weight, bias, ...), upscale_factor)``: output channel
    ``c * r * r + i * r + j`` is written straight to ``output[..., c, i::r, j::r]`` [1]_.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
    weight : array_like, (O * r * r, C / groups, kh, kw)
    upscale_factor : int
        r, at least 1.
    bias : array_like, (O * r * r,), optional
    stride, padding, dilation, groups, padding_mode, padding_value, dtype, overflow, workers
        As in `conv2d`.
    out : ndarray, (N, O, oh * r, ow * r), optional
        Filled and returned. It may overlap the input, which is then copied first.

    Returns
    -------
    ndarray, (N, O, oh * r, ow * r) or (O, oh * r, ow * r)

    Raises
    ------
    ValueError
        Where the square of r does not divide the output channels, and as in `conv2d`.
    TypeError, OverflowError
        As in `conv2d`.

    Notes
    -----
    Its gradients are those of conv2d at the unshuffled gradient:
    ``conv2d_backward(input, weight, pixel_shuffle_input(grad_output, r), ...)``.

    References
    ----------
    .. [1] W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
       convolutional neural network", CVPR, 2016.

    Examples
    --------
    Four shifted copies interleaved: the nearest-neighbour enlargement.

    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.subpixel_conv2d(np.array([[[1.0, 2.0]]]), np.ones((4, 1, 1, 1)), 2)
    array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]])
    """
    r = _check.shuffle_factor(upscale_factor, "upscale_factor")
    return conv._convolve(2, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, dtype,
                          out, "direct", overflow, workers, upscale=r)


def _shuffle(value, factor, name, factor_name):
    x = _check.numeric_array(value, name)
    r = _check.shuffle_factor(factor, factor_name)
    _check.shuffle_channels(x, r, name, factor_name)
    *leading, channels, h, w = x.shape
    y = np.empty((*leading, channels // r**2, h, r, w, r), x.dtype.newbyteorder("="))
    y[...] = np.moveaxis(x.reshape(*leading, channels // r**2, r, r, h, w), (-4, -3), (-3, -1))
    return y.reshape(*leading, channels // r**2, h * r, w * r)


def _unshuffle(value, factor, name, factor_name):
    x = _check.numeric_array(value, name)
    r = _check.shuffle_factor(factor, factor_name)
    _check.unshuffle_pixels(x, r, name, factor_name)
    *leading, channels, h, w = x.shape
    y = np.empty((*leading, channels, r, r, h // r, w // r), x.dtype.newbyteorder("="))
    y[...] = np.moveaxis(x.reshape(*leading, channels, h // r, r, w // r, r), (-3, -1), (-4, -3))
    return y.reshape(*leading, channels * r**2, h // r, w // r)
