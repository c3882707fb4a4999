"""Gradients of the convolutions and of the functions around them, by hand.

With the loss's gradient dy with respect to a convolution's output given, and x[...] standing for the padded input, ::

    y[o, i]      = b[o] + sum over c, k of  w[o, c, k] * x[c, i * stride + k * dilation]

    dx[c, j]     = sum over o, i, k with i * stride + k * dilation = j of  conj(w[o, c, k]) * dy[o, i]
    dw[o, c, k]  = sum over i (and the batch) of  conj(x[c, i * stride + k * dilation]) * dy[o, i]
    db[o]        = sum over i (and the batch) of  dy[o, i]

What dx has beyond the borders is added to the samples that continue the input there (`padding_mode`), or, where a
constant does, dropped. A transposed convolution is y = dx without the conjugation, so its dx is a convolution and its
dw the one above with x and dy exchanged. The names are those of ``torch.nn.grad``; PyTorch's positional orders hold.
"""
import numpy as np

from pyconv import _check, conv, engine
from pyconv._workers import resolve_workers
from pyconv.deform import deform_conv2d_backward
from pyconv.subpixel import pixel_shuffle_input, pixel_unshuffle_input
from pyconv.unfold import _fold, _unfold, _Windows

__all__ = [
    "conv1d_backward",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d_backward",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_backward",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d_backward",
    "conv_transpose1d_bias",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d_backward",
    "conv_transpose2d_bias",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d_backward",
    "conv_transpose3d_bias",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
    "corr2d_input",
    "corr2d_kernel",
    "deform_conv2d_backward",
    "fold_input",
    "pixel_shuffle_input",
    "pixel_unshuffle_input",
    "unfold_input",
]

_INT64 = np.dtype(np.int64)


# ---- two 2-D arrays ----


def corr2d_input(x_shape, k, dy, *, stride=1, padding=0, dilation=1, padding_mode="zeros", dtype=None, out=None,
                 method="auto", workers=None):
    """Gradient of `pyconv.corr2d` with respect to x.

    Parameters
    ----------
    x_shape : (H, W)
    k : array_like, (kh, kw)
    dy : array_like, (oh, ow)
        The loss's gradient with respect to the result of corr2d.
    stride, padding, dilation, padding_mode, dtype, out, method, workers
        As in `conv2d_input`.

    Returns
    -------
    ndarray, (H, W)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.corr2d_input((3, 3), np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[ 0.,  1.,  2.],
           [ 2., 10., 10.],
           [ 6., 17., 12.]])
    """
    size = _check.shape(x_shape, "x_shape")
    k, dy = _check.numeric_array(k, "k"), _check.numeric_array(dy, "dy")
    _check.matrix_shape(size, "x_shape")
    _check.matrix_shape(k.shape, "k", empty=False)
    _check.matrix_shape(dy.shape, "dy")
    return _input_gradient(2, (1, *size), k[None, None], dy[None], stride, padding, dilation, 1, padding_mode, dtype,
                           out, method, workers, ("x_shape", "k", "dy"), added=1)


def corr2d_kernel(x, k_shape, dy, *, stride=1, padding=0, dilation=1, padding_mode="zeros", padding_value=0.0,
                  dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.corr2d` with respect to k.

    Parameters
    ----------
    x : array_like, (H, W)
    k_shape : (kh, kw)
    dy : array_like, (oh, ow)
        The loss's gradient with respect to the result of corr2d.
    stride, padding, dilation, padding_mode, padding_value, dtype, out, method, workers
        As in `conv2d_weight`.

    Returns
    -------
    ndarray, (kh, kw)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_weight`.

    Examples
    --------
    Half of the first step from a kernel of zeros towards [1, -1], by the sum of squares:

    >>> import numpy as np
    >>> import pyconv
    >>> from pyconv import grad
    >>> x = np.ones((6, 8))
    >>> x[:, 2:6] = 0
    >>> target = pyconv.corr2d(x, np.array([[1.0, -1.0]]))
    >>> grad.corr2d_kernel(x, (1, 2), -target)
    array([[-6.,  6.]])
    """
    size = _check.shape(k_shape, "k_shape")
    x, dy = _check.numeric_array(x, "x"), _check.numeric_array(dy, "dy")
    _check.matrix_shape(x.shape, "x")
    _check.matrix_shape(size, "k_shape", empty=False)
    _check.matrix_shape(dy.shape, "dy")
    return _weight_gradient(2, x[None], (1, 1, *size), dy[None], stride, padding, dilation, 1, padding_mode,
                            padding_value, dtype, out, method, workers, ("x", "k_shape", "dy"), added=1)


# ---- convolutions ----


def conv1d_input(input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                 dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv1d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int, (N, C, W) or (C, W)
    weight : array_like, (O, C / groups, kw)
    grad_output : array_like, (N, O, ow) or (O, ow)
    stride, padding, dilation, groups, padding_mode, dtype, out, method, workers
        As in `conv2d_input`.

    Returns
    -------
    ndarray, (N, C, W) or (C, W)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv1d_input((1, 4), np.ones((1, 1, 3)), np.ones((1, 4)), padding=1)
    array([[2., 3., 3., 2.]])
    """
    return _input_gradient(1, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, dtype,
                           out, method, workers)


def conv1d_weight(input, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                  padding_value=0.0, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv1d` with respect to its weight.

    Parameters
    ----------
    input : array_like, (N, C, W) or (C, W)
    weight_size : tuple of int, (O, C / groups, kw)
    grad_output : array_like, (N, O, ow) or (O, ow)
    stride, padding, dilation, groups, padding_mode, padding_value, dtype, out, method, workers
        As in `conv2d_weight`.

    Returns
    -------
    ndarray, (O, C / groups, kw)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_weight`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv1d_weight(np.arange(3.0)[None], (1, 1, 2), np.array([[1.0, 10.0]]))
    array([[[10., 21.]]])
    """
    return _weight_gradient(1, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode,
                            padding_value, dtype, out, method, workers)


def conv1d_bias(grad_output):
    """Gradient of `pyconv.conv1d` with respect to its bias: the sum of each channel.

    Parameters
    ----------
    grad_output : array_like, (N, O, ow) or (O, ow)

    Returns
    -------
    ndarray, (O,)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv1d_bias(np.ones((2, 4, 8))).shape
    (4,)
    """
    return _bias_gradient(1, grad_output)


def conv1d_backward(input, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                    padding_value=0.0, method="auto", workers=None):
    """The gradients of `pyconv.conv1d`.

    Parameters
    ----------
    input : array_like, (N, C, W) or (C, W)
    weight : array_like, (O, C / groups, kw)
    grad_output : array_like, (N, O, ow) or (O, ow)
    stride, padding, dilation, groups, padding_mode, padding_value, method, workers
        As in `conv2d_backward`.

    Returns
    -------
    dinput, dweight, dbias : ndarray

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> gradients = grad.conv1d_backward(np.ones((2, 3, 9)), np.ones((4, 3, 2)), np.ones((2, 4, 8)))
    >>> [gradient.shape for gradient in gradients]
    [(2, 3, 9), (4, 3, 2), (4,)]
    """
    return _backward(1, input, weight, grad_output, stride, padding, dilation, groups, padding_mode, padding_value,
                     method, workers)


def conv2d_input(input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                 dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv2d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int, (N, C, H, W) or (C, H, W)
        The whole shape of the input.
    weight : array_like, (O, C / groups, kh, kw)
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output. Any strides; it is never copied as a whole.
    stride, padding, dilation, groups, padding_mode
        As given to `pyconv.conv2d`: every form of padding, every boundary.
    dtype : dtype, optional
        Of the result, and computed in. By default a floating grad_output's dtype decides; float16 is computed in
        float32; integers are exact and give int64.
    out : ndarray, optional
        Filled and returned. It may overlap the other arrays.
    method : {"auto", "direct"}
        As in `pyconv.conv2d`: ``"direct"`` is exact on integer-valued arrays.
    workers : int, optional
        Threads, see `pyconv.set_workers`. Never changes a bit of the result.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)

    Raises
    ------
    ValueError
        Shapes that do not belong together, a grad_output that has not the output's shape, unknown names.
    TypeError
        Arguments of a wrong kind, lazy arrays, an `out` that cannot hold the result.
    OverflowError
        Integers whose sum could pass 2**63 or does not fit `dtype` or `out`, which is then untouched.

    See Also
    --------
    pyconv.conv_transpose2d : the same for zero borders, with a bias.

    Notes
    -----
    Complex weights are conjugated, as in PyTorch. A NaN or infinity in grad_output spoils the samples whose sum it is
    part of, and no others; one in the weights may spoil more.

    The taps that meet a sample are those of one residue modulo the stride. So this is one convolution of grad_output
    at stride 1 for every residue, with these taps, input and output channels exchanged; no zeros are put between
    anything. Accuracy is that of `conv2d`; what a border folds back counts as terms of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> dx = grad.conv2d_input((1, 4, 4), np.ones((1, 1, 3, 3)), np.ones((1, 4, 4)), padding=1)
    >>> dx[0]  # the number of windows that each pixel is in
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]])
    """
    return _input_gradient(2, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, dtype,
                           out, method, workers)


def conv2d_weight(input, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                  padding_value=0.0, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv2d` with respect to its weight.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
        Any strides; it is never copied as a whole.
    weight_size : tuple of int, (O, C / groups, kh, kw)
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.
    stride, padding, dilation, groups, padding_mode
        As given to `pyconv.conv2d`: every form of padding, every boundary.
    padding_value : number
        As given to `pyconv.conv2d`.
    dtype : dtype, optional
        Of the result, and computed in. By default a floating input's dtype decides, and an integer input gives
        ``np.result_type`` of it and grad_output; float16 is computed in float32; integers are exact and give int64.
    out : ndarray, optional
        Filled and returned. It may overlap the other arrays.
    method : {"auto", "direct"}
        As in `pyconv.conv2d`: ``"direct"`` is exact on integer-valued arrays. See Notes.
    workers : int, optional
        Threads, see `pyconv.set_workers`. Never changes a bit of the result.

    Returns
    -------
    ndarray, (O, C / groups, kh, kw)

    Raises
    ------
    ValueError
        Shapes that do not belong together, a grad_output that has not the output's shape, unknown names.
    TypeError
        Arguments of a wrong kind, lazy arrays, an `out` that cannot hold the result.
    OverflowError
        Integers whose sum could pass 2**63 or does not fit `dtype` or `out`, which is then untouched.

    Notes
    -----
    A complex input is conjugated, as in PyTorch. The border takes part: NaN times a zero of it is NaN.

    ``method="auto"`` takes, at stride 1 and with many channels, the adjoint of `conv2d`'s nested Winograd transforms in
    the weights: as accurate as a whole, ``|dw - exact| <= c * u * max(|input| * |grad_output|)`` for each pair of
    channels, the maximum over the kernel's taps and shifts that are one tile of outputs larger.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> x = np.arange(9.0).reshape(1, 3, 3)
    >>> grad.conv2d_weight(x, (1, 1, 2, 2), np.array([[[1.0, 2.0], [3.0, 4.0]]]))
    array([[[[27., 37.],
             [57., 67.]]]])
    """
    return _weight_gradient(2, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode,
                            padding_value, dtype, out, method, workers)


def conv2d_bias(grad_output):
    """Gradient of `pyconv.conv2d` with respect to its bias: the sum of each channel.

    Parameters
    ----------
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.

    Returns
    -------
    ndarray, (O,)
        Of grad_output's dtype, int64 for integers; the sums are taken in float64, those of integers exactly.

    Raises
    ------
    ValueError, TypeError
        A grad_output of another number of axes, or of a wrong kind.
    OverflowError
        Integers whose sum could pass 2**63.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv2d_bias(np.ones((2, 3, 4, 5)))
    array([40., 40., 40.])
    """
    return _bias_gradient(2, grad_output)


def conv2d_backward(input, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                    padding_value=0.0, method="auto", workers=None):
    """The gradients of `pyconv.conv2d`.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
    weight : array_like, (O, C / groups, kh, kw)
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.
    stride, padding, dilation, groups, padding_mode, padding_value
        As given to `pyconv.conv2d`.
    method : {"auto", "direct"}
        As in `pyconv.conv2d`: ``"direct"`` is exact on integer-valued arrays.
    workers : int, optional
        Threads, see `pyconv.set_workers`. Never changes a bit of the result.

    Returns
    -------
    dinput, dweight, dbias : ndarray
        What `conv2d_input`, `conv2d_weight` and `conv2d_bias` return.

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> from pyconv import grad
    >>> x, weight = np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3))
    >>> y = pyconv.conv2d(x, weight, stride=2)
    >>> [gradient.shape for gradient in grad.conv2d_backward(x, weight, np.ones_like(y), stride=2)]
    [(1, 3, 8, 8), (4, 3, 3, 3), (4,)]
    """
    return _backward(2, input, weight, grad_output, stride, padding, dilation, groups, padding_mode, padding_value,
                     method, workers)


def conv3d_input(input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                 dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv3d` with respect to its input.

    Parameters
    ----------
    input_size : tuple of int, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (O, C / groups, kd, kh, kw)
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)
    stride, padding, dilation, groups, padding_mode, dtype, out, method, workers
        As in `conv2d_input`.

    Returns
    -------
    ndarray, (N, C, D, H, W) or (C, D, H, W)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv3d_input((2, 8, 8, 8), np.ones((4, 2, 3, 3, 3)), np.ones((4, 4, 4, 4)), stride=2, padding=1).shape
    (2, 8, 8, 8)
    """
    return _input_gradient(3, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, dtype,
                           out, method, workers)


def conv3d_weight(input, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                  padding_value=0.0, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv3d` with respect to its weight.

    Parameters
    ----------
    input : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight_size : tuple of int, (O, C / groups, kd, kh, kw)
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)
    stride, padding, dilation, groups, padding_mode, padding_value, dtype, out, method, workers
        As in `conv2d_weight`.

    Returns
    -------
    ndarray, (O, C / groups, kd, kh, kw)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_weight`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv3d_weight(np.ones((2, 8, 8, 8)), (4, 2, 3, 3, 3), np.ones((4, 6, 6, 6))).shape
    (4, 2, 3, 3, 3)
    """
    return _weight_gradient(3, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode,
                            padding_value, dtype, out, method, workers)


def conv3d_bias(grad_output):
    """Gradient of `pyconv.conv3d` with respect to its bias: the sum of each channel.

    Parameters
    ----------
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)

    Returns
    -------
    ndarray, (O,)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv3d_bias(np.ones((1, 4, 8, 8, 8))).shape
    (4,)
    """
    return _bias_gradient(3, grad_output)


def conv3d_backward(input, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                    padding_value=0.0, method="auto", workers=None):
    """The gradients of `pyconv.conv3d`.

    Parameters
    ----------
    input : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (O, C / groups, kd, kh, kw)
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)
    stride, padding, dilation, groups, padding_mode, padding_value, method, workers
        As in `conv2d_backward`.

    Returns
    -------
    dinput, dweight, dbias : ndarray

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> gradients = grad.conv3d_backward(np.ones((1, 3, 9, 9, 9)), np.ones((4, 3, 2, 2, 2)), np.ones((1, 4, 8, 8, 8)))
    >>> [gradient.shape for gradient in gradients]
    [(1, 3, 9, 9, 9), (4, 3, 2, 2, 2), (4,)]
    """
    return _backward(3, input, weight, grad_output, stride, padding, dilation, groups, padding_mode, padding_value,
                     method, workers)


# ---- transposed convolutions ----


def conv_transpose1d_input(input_size, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                           dilation=1, *, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv_transpose1d` with respect to its input: a convolution of grad_output.

    Parameters
    ----------
    input_size : tuple of int, (N, C, W) or (C, W)
    weight : array_like, (C, O / groups, kw)
    grad_output : array_like, (N, O, ow) or (O, ow)
    stride, padding, output_padding, groups, dilation, dtype, out, method, workers
        As in `conv_transpose2d_input`.

    Returns
    -------
    ndarray, (N, C, W) or (C, W)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose1d_input((1, 3, 4), np.ones((3, 5, 2)), np.ones((1, 5, 8)), stride=2).shape
    (1, 3, 4)
    """
    return _transposed_input_gradient(1, input_size, weight, grad_output, stride, padding, output_padding, groups,
                                      dilation, dtype, out, method, workers)


def conv_transpose1d_weight(input, weight_size, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                            dilation=1, *, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv_transpose1d` with respect to its weight.

    Parameters
    ----------
    input : array_like, (N, C, W) or (C, W)
    weight_size : tuple of int, (C, O / groups, kw)
    grad_output : array_like, (N, O, ow) or (O, ow)
    stride, padding, output_padding, groups, dilation, dtype, out, method, workers
        As in `conv_transpose2d_weight`.

    Returns
    -------
    ndarray, (C, O / groups, kw)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_weight`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose1d_weight(np.ones((1, 3, 4)), (3, 5, 2), np.ones((1, 5, 8)), stride=2).shape
    (3, 5, 2)
    """
    return _transposed_weight_gradient(1, input, weight_size, grad_output, stride, padding, output_padding, groups,
                                       dilation, dtype, out, method, workers)


def conv_transpose1d_bias(grad_output):
    """Gradient of `pyconv.conv_transpose1d` with respect to its bias: the sum of each channel.

    Parameters
    ----------
    grad_output : array_like, (N, O, ow) or (O, ow)

    Returns
    -------
    ndarray, (O,)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose1d_bias(np.ones((1, 5, 8))).shape
    (5,)
    """
    return _bias_gradient(1, grad_output)


def conv_transpose1d_backward(input, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                              dilation=1, *, method="auto", workers=None):
    """The gradients of `pyconv.conv_transpose1d`.

    Parameters
    ----------
    input : array_like, (N, C, W) or (C, W)
    weight : array_like, (C, O / groups, kw)
    grad_output : array_like, (N, O, ow) or (O, ow)
    stride, padding, output_padding, groups, dilation, method, workers
        As in `conv_transpose2d_backward`.

    Returns
    -------
    dinput, dweight, dbias : ndarray

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> x, weight, dy = np.ones((1, 3, 4)), np.ones((3, 5, 2)), np.ones((1, 5, 8))
    >>> [gradient.shape for gradient in grad.conv_transpose1d_backward(x, weight, dy, stride=2)]
    [(1, 3, 4), (3, 5, 2), (5,)]
    """
    return _transposed_backward(1, input, weight, grad_output, stride, padding, output_padding, groups, dilation,
                                method, workers)


def conv_transpose2d_input(input_size, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                           dilation=1, *, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv_transpose2d` with respect to its input: a convolution of grad_output.

    Parameters
    ----------
    input_size : tuple of int, (N, C, H, W) or (C, H, W)
    weight : array_like, (C, O / groups, kh, kw)
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.
    stride, padding, output_padding, groups, dilation
        As given to `pyconv.conv_transpose2d`.
    dtype, out, method, workers
        As in `conv2d_input`.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)

    Raises
    ------
    ValueError
        Shapes that do not belong together, a grad_output that has not the output's shape.
    TypeError, OverflowError
        As in `conv2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose2d_input((1, 3, 4, 4), np.ones((3, 5, 2, 2)), np.ones((1, 5, 8, 8)), stride=2).shape
    (1, 3, 4, 4)
    """
    return _transposed_input_gradient(2, input_size, weight, grad_output, stride, padding, output_padding, groups,
                                      dilation, dtype, out, method, workers)


def conv_transpose2d_weight(input, weight_size, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                            dilation=1, *, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv_transpose2d` with respect to its weight.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
    weight_size : tuple of int, (C, O / groups, kh, kw)
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.
    stride, padding, output_padding, groups, dilation
        As given to `pyconv.conv_transpose2d`.
    dtype, out, method, workers
        As in `conv2d_weight`.

    Returns
    -------
    ndarray, (C, O / groups, kh, kw)

    Raises
    ------
    ValueError
        Shapes that do not belong together, a grad_output that has not the output's shape.
    TypeError, OverflowError
        As in `conv2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose2d_weight(np.ones((1, 3, 4, 4)), (3, 5, 2, 2), np.ones((1, 5, 8, 8)), stride=2).shape
    (3, 5, 2, 2)
    """
    return _transposed_weight_gradient(2, input, weight_size, grad_output, stride, padding, output_padding, groups,
                                       dilation, dtype, out, method, workers)


def conv_transpose2d_bias(grad_output):
    """Gradient of `pyconv.conv_transpose2d` with respect to its bias: the sum of each channel.

    Parameters
    ----------
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.

    Returns
    -------
    ndarray, (O,)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose2d_bias(np.ones((1, 5, 8, 8))).shape
    (5,)
    """
    return _bias_gradient(2, grad_output)


def conv_transpose2d_backward(input, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                              dilation=1, *, method="auto", workers=None):
    """The gradients of `pyconv.conv_transpose2d`.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
    weight : array_like, (C, O / groups, kh, kw)
    grad_output : array_like, (N, O, oh, ow) or (O, oh, ow)
        The loss's gradient with respect to the output.
    stride, padding, output_padding, groups, dilation
        As given to `pyconv.conv_transpose2d`.
    method : {"auto", "direct"}
        As in `pyconv.conv2d`: ``"direct"`` is exact on integer-valued arrays.
    workers : int, optional
        Threads, see `pyconv.set_workers`. Never changes a bit of the result.

    Returns
    -------
    dinput, dweight, dbias : ndarray
        What `conv_transpose2d_input`, `conv_transpose2d_weight` and `conv_transpose2d_bias` return.

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> x, weight, dy = np.ones((1, 3, 4, 4)), np.ones((3, 5, 2, 2)), np.ones((1, 5, 8, 8))
    >>> [gradient.shape for gradient in grad.conv_transpose2d_backward(x, weight, dy, stride=2)]
    [(1, 3, 4, 4), (3, 5, 2, 2), (5,)]
    """
    return _transposed_backward(2, input, weight, grad_output, stride, padding, output_padding, groups, dilation,
                                method, workers)


def conv_transpose3d_input(input_size, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                           dilation=1, *, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv_transpose3d` with respect to its input: a convolution of grad_output.

    Parameters
    ----------
    input_size : tuple of int, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (C, O / groups, kd, kh, kw)
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)
    stride, padding, output_padding, groups, dilation, dtype, out, method, workers
        As in `conv_transpose2d_input`.

    Returns
    -------
    ndarray, (N, C, D, H, W) or (C, D, H, W)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_input`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose3d_input((1, 3, 4, 4, 4), np.ones((3, 5, 2, 2, 2)), np.ones((1, 5, 8, 8, 8)), stride=2).shape
    (1, 3, 4, 4, 4)
    """
    return _transposed_input_gradient(3, input_size, weight, grad_output, stride, padding, output_padding, groups,
                                      dilation, dtype, out, method, workers)


def conv_transpose3d_weight(input, weight_size, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                            dilation=1, *, dtype=None, out=None, method="auto", workers=None):
    """Gradient of `pyconv.conv_transpose3d` with respect to its weight.

    Parameters
    ----------
    input : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight_size : tuple of int, (C, O / groups, kd, kh, kw)
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)
    stride, padding, output_padding, groups, dilation, dtype, out, method, workers
        As in `conv_transpose2d_weight`.

    Returns
    -------
    ndarray, (C, O / groups, kd, kh, kw)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_weight`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> x, dy = np.ones((1, 3, 4, 4, 4)), np.ones((1, 5, 8, 8, 8))
    >>> grad.conv_transpose3d_weight(x, (3, 5, 2, 2, 2), dy, stride=2).shape
    (3, 5, 2, 2, 2)
    """
    return _transposed_weight_gradient(3, input, weight_size, grad_output, stride, padding, output_padding, groups,
                                       dilation, dtype, out, method, workers)


def conv_transpose3d_bias(grad_output):
    """Gradient of `pyconv.conv_transpose3d` with respect to its bias: the sum of each channel.

    Parameters
    ----------
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)

    Returns
    -------
    ndarray, (O,)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.conv_transpose3d_bias(np.ones((1, 5, 8, 8, 8))).shape
    (5,)
    """
    return _bias_gradient(3, grad_output)


def conv_transpose3d_backward(input, weight, grad_output, stride=1, padding=0, output_padding=0, groups=1,
                              dilation=1, *, method="auto", workers=None):
    """The gradients of `pyconv.conv_transpose3d`.

    Parameters
    ----------
    input : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (C, O / groups, kd, kh, kw)
    grad_output : array_like, (N, O, od, oh, ow) or (O, od, oh, ow)
    stride, padding, output_padding, groups, dilation, method, workers
        As in `conv_transpose2d_backward`.

    Returns
    -------
    dinput, dweight, dbias : ndarray

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> x, weight, dy = np.ones((1, 3, 4, 4, 4)), np.ones((3, 5, 2, 2, 2)), np.ones((1, 5, 8, 8, 8))
    >>> [gradient.shape for gradient in grad.conv_transpose3d_backward(x, weight, dy, stride=2)]
    [(1, 3, 4, 4, 4), (3, 5, 2, 2, 2), (5,)]
    """
    return _transposed_backward(3, input, weight, grad_output, stride, padding, output_padding, groups, dilation,
                                method, workers)


# ---- patches ----


def unfold_input(input_size, kernel_size, grad_output, dilation=1, padding=0, stride=1, *, padding_mode="zeros"):
    """Gradient of `pyconv.unfold` with respect to its input: `pyconv.fold`, bit for bit.

    Parameters
    ----------
    input_size : tuple of int, (N, C, *spatial), (C, *spatial) or (*spatial)
        The whole shape of the input.
    kernel_size, dilation, padding, stride, padding_mode
        As given to `pyconv.unfold`.
    grad_output : array_like, (N, C * taps, L), (C * taps, L) or (taps, L)

    Returns
    -------
    ndarray, of shape `input_size`
        In the dtype that `pyconv.fold` gives.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or a kernel is larger than the padded input.
    TypeError
        If an argument is of the wrong kind, or grad_output a lazy array.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.unfold_input((3, 3), (2, 2), np.ones((4, 4)))
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    columns = _check.numeric_array(grad_output, "grad_output")
    size = _check.shape(input_size, "input_size")
    k = _check.patch_size(kernel_size)
    leading = _check.leading_shape(size, len(k), "input_size")
    windows = _Windows(size[len(leading):], k, dilation, padding, stride, padding_mode)
    _check.boundary_has_samples(windows.n, windows.sides, windows.boundary, "input_size")
    _check.gradient_shape(columns.shape, windows.matrix_shape(leading), "grad_output",
                          {"input_size": size, "kernel_size": k})
    return _fold(columns, _check.output_shape(leading), windows)


def fold_input(grad_output, kernel_size, dilation=1, padding=0, stride=1, *, padding_mode="zeros"):
    """Gradient of `pyconv.fold` with respect to its input: `pyconv.unfold`, with zeros for a constant border.

    Parameters
    ----------
    grad_output : array_like, (N, C, *spatial), (C, *spatial) or (*spatial)
    kernel_size, dilation, padding, stride, padding_mode
        As given to `pyconv.fold`.

    Returns
    -------
    ndarray, (N, C * taps, L), (C * taps, L) or (taps, L)

    Raises
    ------
    ValueError, TypeError
        As in `pyconv.unfold`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import grad
    >>> grad.fold_input(np.arange(6).reshape(2, 3), (2, 2))
    array([[0, 1],
           [1, 2],
           [3, 4],
           [4, 5]])
    """
    return _unfold(grad_output, kernel_size, dilation, padding, stride, padding_mode, 0, None, "grad_output")


# ---- the sums ----


def _input_gradient(ndim, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, dtype, out,
                    method, workers, names=("input_size", "weight", "grad_output"), added=0):
    """`added`: the arguments called `names` came without this many axes for each of batch and channels."""
    size = _check.shape(input_size, names[0])
    w, g = _check.numeric_array(weight, names[1]), _check.numeric_array(grad_output, names[2])
    layer = conv._settle(ndim, size, w.shape, None, g.dtype, w.dtype, None, stride, padding, dilation, groups,
                         padding_mode, dtype, names=names[:2])
    if g.shape[added:] != layer.shape[added:]:
        _check.gradient_shape(g.shape[added:], layer.shape[added:], names[2],
                              {names[0]: size[added:], names[1]: w.shape[2 * added:]})
    if w.dtype.kind == "c":
        w = w.conj()
    return conv._adjoint(g, w, None, _check.output_shape(size), layer, out, method, workers, added)


def _weight_gradient(ndim, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode,
                     padding_value, dtype, out, method, workers, names=("input", "weight_size", "grad_output"),
                     added=0):
    """As `_input_gradient`."""
    x, g = _check.numeric_array(input, names[0]), _check.numeric_array(grad_output, names[2])
    size = _check.shape(weight_size, names[1])
    layer = conv._settle(ndim, x.shape, size, None, x.dtype, g.dtype, None, stride, padding, dilation, groups,
                         padding_mode, dtype, names=names[:2])
    if g.shape[added:] != layer.shape[added:]:
        _check.gradient_shape(g.shape[added:], layer.shape[added:], names[2],
                              {names[0]: x.shape[added:], names[1]: size[2 * added:]})
    return _products(x, g, size, layer, conv._padding_value(padding_value, layer), out, method, workers, added)


def _bias_gradient(ndim, grad_output):
    g = _check.numeric_array(grad_output, "grad_output")
    _check.gradient_axes(g.shape, ndim)
    channel = g.ndim - ndim - 1
    if g.dtype.kind not in "biu":
        return engine.bias_gradient(g, channel, g.dtype.newbyteorder("="))
    largest = conv._largest_sum(np.ones(1, bool), np.moveaxis(g, channel, 0), None, 0)
    return conv._exact_integers(*largest, g.shape[channel:channel + 1], _INT64, None,
                                lambda computed, out: engine.bias_gradient(g, channel, _INT64))


def _backward(ndim, input, weight, grad_output, stride, padding, dilation, groups, padding_mode, padding_value,
              method, workers):
    x, w = _check.numeric_array(input, "input"), _check.numeric_array(weight, "weight")
    names = "input", "weight", "grad_output"
    return (_input_gradient(ndim, x.shape, w, grad_output, stride, padding, dilation, groups, padding_mode, None, None,
                            method, workers, names),
            _weight_gradient(ndim, x, w.shape, grad_output, stride, padding, dilation, groups, padding_mode,
                             padding_value, None, None, method, workers, names),
            _bias_gradient(ndim, grad_output))


def _transposed_input_gradient(ndim, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation,
                               dtype, out, method, workers, names=("input_size", "weight", "grad_output")):
    size = _check.shape(input_size, names[0])
    w, g = _check.numeric_array(weight, names[1]), _check.numeric_array(grad_output, names[2])
    layer = conv._settle_transposed(ndim, size, w.shape, None, g.dtype, w.dtype, None, stride, padding, output_padding,
                                    groups, dilation, None, dtype, names[:2])
    _check.gradient_shape(g.shape, layer.shape, names[2], {names[0]: size, names[1]: w.shape})
    if w.dtype.kind == "c":
        w = w.conj()
    return conv._correlation(g, w, _check.output_shape(size), layer, out, method, workers)


def _transposed_weight_gradient(ndim, input, weight_size, grad_output, stride, padding, output_padding, groups,
                                dilation, dtype, out, method, workers, names=("input", "weight_size", "grad_output")):
    x, g = _check.numeric_array(input, names[0]), _check.numeric_array(grad_output, names[2])
    size = _check.shape(weight_size, names[1])
    layer = conv._settle_transposed(ndim, x.shape, size, None, x.dtype, g.dtype, None, stride, padding, output_padding,
                                    groups, dilation, None, dtype, names[:2])
    _check.gradient_shape(g.shape, layer.shape, names[2], {names[0]: x.shape, names[1]: size})
    return _products(g, x, size, layer, 0, out, method, workers, conjugate=True)


def _transposed_backward(ndim, input, weight, grad_output, stride, padding, output_padding, groups, dilation, method,
                         workers):
    x, w = _check.numeric_array(input, "input"), _check.numeric_array(weight, "weight")
    names = "input", "weight", "grad_output"
    return (_transposed_input_gradient(ndim, x.shape, w, grad_output, stride, padding, output_padding, groups, dilation,
                                       None, None, method, workers, names),
            _transposed_weight_gradient(ndim, x, w.shape, grad_output, stride, padding, output_padding, groups,
                                        dilation, None, None, method, workers, names),
            _bias_gradient(ndim, grad_output))


def _products(x, g, shape, layer, value, out, method, workers, added=0, conjugate=False):
    """The sums of conj(x) * g that are the weight gradient of a layer's convolution of x; or their conjugates."""
    variant = conv._gradient_variant(method, layer.weight_gradient)
    workers = 1 if workers is None and layer.brief else resolve_workers(workers)
    if out is not None:
        _check.output_array(out, shape[2 * added:], layer.result)
    target = out[None, None] if added and out is not None else out

    def compute(computed, out):
        """The sums in the dtype `computed`, stored into `out`, or as a new array."""
        dw = np.empty(shape, computed)
        engine.weight_gradient(x, g, dw, layer.nbatch, layer.groups, layer.stride, layer.dilation, layer.before,
                               layer.boundary, value, workers, variant)
        if conjugate and computed.kind == "c":
            np.conjugate(dw, out=dw)
        if out is None and computed == layer.result:
            return dw
        out = np.empty(shape, layer.result) if out is None else out
        with np.errstate(over="ignore"):
            out[...] = dw
        return out

    if layer.computed == _INT64:
        largest = conv._largest_sum(x, np.moveaxis(g, layer.nbatch, 0), None, _check.integer_constant(value))
        dw = conv._exact_integers(*largest, shape, layer.result, target, compute)
    else:
        dw = compute(layer.computed, target)
    if out is not None:
        return out
    return dw[0, 0] if added else dw
