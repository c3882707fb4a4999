"""Gradients of convolutions, as products with the patch matrix: right, and slow."""
import numpy as np

from pyconv.unfold import fold, unfold


def conv2d_input(input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                 dtype=None, out=None, workers=None):
    """Gradient of conv2d with respect to its input."""
    weight, dy = np.asarray(weight), np.asarray(grad_output)
    batched = dy if len(input_size) == 4 else dy[None]
    flat = batched.reshape(len(batched), groups, weight.shape[0] // groups, -1)
    columns = np.einsum("gok,ngol->ngkl", weight.reshape(groups, weight.shape[0] // groups, -1).conj(), flat)
    dx = fold(columns.reshape(len(batched), -1, flat.shape[-1]), input_size[-2:], weight.shape[2:], dilation, padding,
              stride, padding_mode=padding_mode)
    return dx.reshape(input_size)


def conv2d_weight(input, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                  padding_value=0.0, dtype=None, out=None, workers=None):
    """Gradient of conv2d with respect to its weight."""
    x, dy = np.asarray(input), np.asarray(grad_output)
    if x.ndim == 3:
        x, dy = x[None], dy[None]
    patches = unfold(x, weight_size[2:], dilation, padding, stride, padding_mode=padding_mode,
                     padding_value=padding_value)
    flat = dy.reshape(len(dy), groups, weight_size[0] // groups, -1)
    return np.einsum("ngol,ngkl->gok", flat, patches.reshape(len(x), groups, -1, patches.shape[-1]).conj()).reshape(
        weight_size)


def conv2d_bias(grad_output):
    """Gradient of conv2d with respect to its bias."""
    dy = np.asarray(grad_output)
    return dy.sum(axis=tuple(axis for axis in range(dy.ndim) if axis != dy.ndim - 3))


def conv2d_backward(input, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                    padding_value=0.0, workers=None):
    """Gradients of conv2d: (dinput, dweight, dbias)."""
    settings = stride, padding, dilation, groups
    return (conv2d_input(np.shape(input), weight, grad_output, *settings, padding_mode=padding_mode),
            conv2d_weight(input, np.shape(weight), grad_output, *settings, padding_mode=padding_mode,
                          padding_value=padding_value),
            conv2d_bias(grad_output))
