"""Cross-correlation of images and feature maps, corr2d, conv1d, conv2d, conv3d, and the transposed convolutions."""
import functools
import math
from typing import NamedTuple

import numpy as np

from pyconv import _check, engine, geometry, plan
from pyconv._workers import resolve_workers
from pyconv.unfold import unfold

_GRADIENT_METHODS = ("auto", "direct")
_OVERFLOWS = ("raise", "saturate", "wrap")
_EXACT = ((np.dtype(np.float32), 2**24), (np.dtype(np.float64), 2**53))
_INT64 = np.dtype(np.int64)


def corr2d(x, k, *, stride=1, padding=0, dilation=1, padding_mode="zeros", padding_value=0.0, dtype=None, out=None,
           method="auto", overflow="raise", workers=None):
    """Cross-correlation of two 2-D arrays.

    ``y[i, j] = sum over u, v of x[i * stride + u * dilation, j * stride + v * dilation] * k[u, v]``, x continued
    beyond its borders by `padding` and `padding_mode`. The strict convolution is the correlation with the flipped
    kernel, ``k[::-1, ::-1]``.

    Parameters
    ----------
    x : array_like, (H, W)
    k : array_like, (kh, kw)
    stride, padding, dilation, padding_mode, padding_value, dtype, out, method, overflow, workers
        As in `conv2d`.

    Returns
    -------
    ndarray, (oh, ow)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.corr2d(np.arange(9.0).reshape(3, 3), np.array([[0.0, 1.0], [2.0, 3.0]]))
    array([[19., 25.],
           [37., 43.]])
    """
    y = engine.small_corr2d(x, k, stride, padding, dilation, padding_mode, padding_value, dtype, out, method,
                            overflow, workers)
    if y is not None:
        return y
    x, k = _check.matrices(x, k)
    y = _convolve(2, x[None], k[None, None], None, stride, padding, dilation, 1, padding_mode, padding_value, dtype,
                  out, method, overflow, workers, matrices=True)
    return y[0] if out is None else out


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
           padding_value=0.0, dtype=None, out=None, method="auto", overflow="raise", workers=None):
    """Multi-channel cross-correlation of signals, PyTorch's ``conv1d``.

    Parameters
    ----------
    input : array_like, (N, C, W) or (C, W)
    weight : array_like, (O, C / groups, kw)
    bias : array_like, (O,), optional
    stride, padding, dilation, groups, padding_mode, padding_value, dtype, out, method, overflow, workers
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, O, ow) or (O, ow)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.conv1d(np.array([[0.0, 1.0, 4.0, 9.0]]), np.array([[[-1.0, 1.0]]]))
    array([[1., 3., 5.]])
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, dtype,
                     out, method, overflow, workers)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
           padding_value=0.0, dtype=None, out=None, method="auto", overflow="raise", workers=None):
    """Multi-channel cross-correlation of images, PyTorch's ``conv2d``.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
        Any strides; it is never copied as a whole.
    weight : array_like, (O, C / groups, kh, kw)
    bias : array_like, (O,), optional
    stride, dilation : int or one an axis
    padding : int, one an axis, one (before, after) pair an axis, or str
        Amounts on a side. ``"valid"``: none; ``"full"``: dilation * (k - 1); ``"same"`` or ``"same_upper"``: an output
        of ceil(n / stride), the odd one at the end; ``"same_lower"``: the odd one at the beginning.
    groups : int
        Input and output channels in this many groups, each convolved on its own; as many as channels: depthwise.
    padding_mode : str
        What continues the input (the names before the picture are synonyms):

        =============================  ===============================
        ``zeros``, ``constant``        ``v v v | a b c d | v v v``      v = `padding_value`
        ``reflect``, ``mirror``        ``d c b | a b c d | c b a``
        ``replicate``, ``edge``        ``a a a | a b c d | d d d``
        ``circular``, ``wrap``         ``b c d | a b c d | a b c``
        ``symmetric``                  ``c b a | a b c d | d c b``
        =============================  ===============================

        ``reflect`` is PyTorch's here; SciPy's, in `pyconv.ndimage`, is ``symmetric``. Padding may be wider than the
        input: the picture goes on.
    padding_value : number
    dtype : dtype, optional
        Of the result, and computed in. By default a floating input's dtype decides, and the weights are cast to it
        (float16 is computed in float32); integers with integer weights are exact and give int64; integers with
        floating weights give ``np.result_type``.
    out : ndarray, optional
        Filled and returned. It may overlap the input, which is then copied first.
    method : {"auto", "direct", "im2col", "winograd", "fft"}
        ``direct`` sums as the notes say. ``im2col`` writes the patch matrix (`unfold`) and multiplies; the same bits,
        for more memory. ``winograd`` (two spatial axes, kernels from 3 x 3, float32 and float64)
        needs fewer multiplications [1]_, with an error that is bounded by the largest sum only; `plan_conv2d` shows it.
        ``fft`` (the same, with one input and one output channel a group) takes Fourier transforms of tiles, for large
        kernels.
        ``auto`` takes the fastest that is accurate enough: it looks at shapes, dtypes and settings, and whether all
        weights are finite, and integer-valued arrays are exact by ``direct``.
    overflow : {"raise", "saturate", "wrap"}
        What happens where an exact integer does not fit the result's dtype, or a sum could pass 2**63.
    workers : int, optional
        Threads, see `set_workers`. Never changes a bit of the result.

    Returns
    -------
    ndarray, (N, O, oh, ow) or (O, oh, ow)

    Raises
    ------
    ValueError
        Shapes that do not belong together, a kernel larger than the padded input, unknown names.
    TypeError
        Arguments of a wrong kind, lazy arrays, an `out` that cannot hold the result.
    OverflowError
        With ``overflow="raise"``; `out` is then untouched.

    Notes
    -----
    By ``direct`` every output is one sum in the order (c, ky, kx), bias last, and meets
    ``|y - exact| <= (n + 2) * u * (|x| * |w|) + (n + 2) * eta`` for n terms and unit roundoff u.

    References
    ----------
    .. [1] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> image = np.ones((3, 8, 8), np.float32)
    >>> weight = np.ones((4, 3, 3, 3), np.float32)
    >>> y = pyconv.conv2d(image, weight, padding=1, stride=2)
    >>> y.shape, y[0, 1, 1]
    ((4, 4, 4), np.float32(27.0))
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, dtype,
                     out, method, overflow, workers)


def plan_conv2d(input_shape, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                padding_value=0.0, dtype=None, method="auto", workers=None):
    """A `conv2d` planned ahead: its method chosen and its weights prepared once, for many calls.

    Parameters
    ----------
    input_shape : tuple of int, (N, C, H, W) or (C, H, W)
        Of what will be passed. N is a usual number of images only: any may be passed, (C, H, W) too.
    weight : array_like, (O, C / groups, kh, kw)
    bias : array_like, (O,), optional
        Both are copied: what becomes of these arrays later does not matter.
    stride, padding, dilation, groups, padding_mode, padding_value
        As in `conv2d`.
    dtype : dtype, optional
        Of the result, and computed in: floating or complex. By default that of the weights. Inputs are converted to it.
    method : {"auto", "direct", "winograd", "fft"}
        As in `conv2d`; since the weights are prepared ahead, ``auto`` takes Winograd's method for more shapes.
    workers : int, optional
        Threads of each call, see `set_workers`; by default as many as are set at the time of the call.

    Returns
    -------
    Plan
        Called as ``plan(x, out=None)``; with ``plan.input_gradient(dy)`` and ``plan.weight_gradient(x, dy)``. Printing
        it shows why its method was chosen.

    Raises
    ------
    ValueError, TypeError
        As in `conv2d`; an integer dtype.

    Notes
    -----
    ``plan(x)`` is ``conv2d(x, weight, bias, ..., dtype=plan.dtype, method=plan.method)``, its gradients are those of
    `pyconv.grad` with ``dtype=plan.dtype``: bit for bit.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> plan = pyconv.plan_conv2d((3, 8, 8), np.ones((4, 3, 3, 3), np.float32), stride=2, padding=1)
    >>> plan(np.ones((3, 8, 8), np.float32)).shape, plan(np.ones((10, 3, 8, 8), np.float32)).shape
    ((4, 4, 4), (10, 4, 4, 4))
    >>> print(plan)  # doctest: +ELLIPSIS
    direct: Winograd's error could pass half of what direct's bound allows
    <BLANKLINE>
      method           time, relative  error bound c
    * direct                     1.00             29
    ...
    """
    shape = _check.shape(input_shape, "input_shape")
    w = _check.numeric_array(weight, "weight")
    bias = None if bias is None else _check.numeric_array(bias, "bias")
    dtype = _check.planned_result(dtype, w.dtype)
    layer = _settle(2, shape, w.shape, None if bias is None else bias.shape, dtype, w.dtype,
                    None if bias is None else bias.dtype, stride, padding, dilation, groups, padding_mode, dtype,
                    names=("input_shape", "weight"))
    _check.planned_method(method)
    _check.method(method, plan.METHODS, plan.obstacle, w.shape, layer.computed, layer.stride, layer.dilation,
                  layer.groups)
    if workers is not None:
        resolve_workers(workers)
    value = _padding_value(padding_value, layer)
    weights, biases = (None if a is None else _in_dtype(a, layer.computed, a) for a in (w, bias))    # copies
    return plan.Plan(shape, weights, biases, layer, value, method, workers)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
           padding_value=0.0, dtype=None, out=None, method="auto", overflow="raise", workers=None):
    """Multi-channel cross-correlation of volumes, PyTorch's ``conv3d``.

    Parameters
    ----------
    input : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (O, C / groups, kd, kh, kw)
    bias : array_like, (O,), optional
    stride, padding, dilation, groups, padding_mode, padding_value, dtype, out, method, overflow, workers
        As in `conv2d`.

    Returns
    -------
    ndarray, (N, O, od, oh, ow) or (O, od, oh, ow)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.conv3d(np.ones((1, 4, 4, 4)), np.ones((2, 1, 3, 3, 3)), padding="same").shape
    (2, 4, 4, 4)
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, dtype,
                     out, method, overflow, workers)


def conv_transpose1d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
                     output_size=None, dtype=None, out=None, method="auto", workers=None):
    """Transposed convolution of signals, PyTorch's ``conv_transpose1d``.

    Parameters
    ----------
    input : array_like, (N, C, W) or (C, W)
    weight : array_like, (C, O / groups, kw)
    bias : array_like, (O,), optional
    stride, padding, output_padding, groups, dilation, output_size, dtype, out, method, workers
        As in `conv_transpose2d`.

    Returns
    -------
    ndarray, (N, O, ow) or (O, ow)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.conv_transpose1d(np.array([[1.0, 10.0]]), np.array([[[1.0, 2.0, 3.0]]]), stride=2)
    array([[ 1.,  2., 13., 20., 30.]])
    """
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation, output_size,
                                dtype, out, method, workers)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
                     output_size=None, dtype=None, out=None, method="auto", workers=None):
    """Transposed convolution of images, PyTorch's ``conv_transpose2d``.

    Every sample of the input adds its kernel, times itself, to the output, `stride` apart from the next one's. It is
    the adjoint of `conv2d` with the same settings, and so the gradient of that with respect to its input [1]_.

    Parameters
    ----------
    input : array_like, (N, C, H, W) or (C, H, W)
        Any strides; it is never copied as a whole, and no zeros are put between its samples.
    weight : array_like, (C, O / groups, kh, kw)
    bias : array_like, (O,), optional
    stride, dilation : int or one an axis
    padding : int, one an axis, or one (before, after) pair an axis
        What is cut off the output on a side: what `conv2d` pads.
    output_padding : int or one an axis
        What is added to the output at the end, where `conv2d` gives several sizes the same one: below the larger of
        stride and dilation. Zeros, but for kernels that reach there.
    groups : int
        Input and output channels in this many groups, each convolved on its own.
    output_size : int or one an axis, optional
        The spatial size of the output, in place of `output_padding`.
    dtype : dtype, optional
        Of the result, and computed in; by default as in `conv2d`.
    out : ndarray, optional
        Filled and returned. It may overlap the input, which is then copied first.
    method : {"auto", "direct"}
        As in `conv2d`: ``"direct"`` is exact on integer-valued arrays.
    workers : int, optional
        Threads, see `set_workers`. Never changes a bit of the result.

    Returns
    -------
    ndarray, (N, O, oh, ow) or (O, oh, ow)
        Along an axis ``(n - 1) * stride - before - after + dilation * (k - 1) + 1 + output_padding``.

    Raises
    ------
    ValueError
        Shapes that do not belong together, padding that leaves nothing, output padding not below stride or dilation.
    TypeError
        Arguments of a wrong kind, lazy arrays, an `out` that cannot hold the result.
    OverflowError
        Integers whose sum could pass 2**63 or does not fit `dtype` or `out`, which is then untouched.

    See Also
    --------
    pyconv.grad.conv2d_input : the same, named as a gradient; for every boundary.

    Notes
    -----
    As many convolutions at stride 1 as there are residues modulo the stride, of the input itself, each with the taps of
    one residue and stored to every s-th sample. Accuracy as in `conv2d`, the bias added last.

    References
    ----------
    .. [1] V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> x = np.array([[[0.0, 1.0], [2.0, 3.0]]])
    >>> pyconv.conv_transpose2d(x, x[None])
    array([[[ 0.,  0.,  1.],
            [ 0.,  4.,  6.],
            [ 4., 12.,  9.]]])
    >>> pyconv.conv_transpose2d(x, np.ones((1, 1, 2, 2)), stride=2)
    array([[[0., 0., 1., 1.],
            [0., 0., 1., 1.],
            [2., 2., 3., 3.],
            [2., 2., 3., 3.]]])
    """
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation, output_size,
                                dtype, out, method, workers)


def conv_transpose3d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
                     output_size=None, dtype=None, out=None, method="auto", workers=None):
    """Transposed convolution of volumes, PyTorch's ``conv_transpose3d``.

    Parameters
    ----------
    input : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (C, O / groups, kd, kh, kw)
    bias : array_like, (O,), optional
    stride, padding, output_padding, groups, dilation, output_size, dtype, out, method, workers
        As in `conv_transpose2d`.

    Returns
    -------
    ndarray, (N, O, od, oh, ow) or (O, od, oh, ow)

    Raises
    ------
    ValueError, TypeError, OverflowError
        As in `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> pyconv.conv_transpose3d(np.ones((1, 4, 4, 4)), np.ones((1, 2, 2, 2, 2)), stride=2).shape
    (2, 8, 8, 8)
    """
    return _convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation, output_size,
                                dtype, out, method, workers)


def _convolve(ndim, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, dtype, out,
              method, overflow, workers, matrices=False, upscale=1):
    """conv{ndim}d; with `matrices`, input and weight are two 2-D arrays with the axes of one channel put before them,
    and `out` is 2-D; `upscale` (of conv2d) stores the result as pixel_shuffle arranges it."""
    x, w, bias = _layer_arrays(input, weight, bias)
    layer = _settle(ndim, x.shape, w.shape, None if bias is None else bias.shape, x.dtype, w.dtype,
                    None if bias is None else bias.dtype, stride, padding, dilation, groups, padding_mode, dtype,
                    upscale)
    shape, groups, stride, dilation, sides, nbatch, before, boundary, brief, computed, result, choice, _, _ = layer
    if method != "auto":
        _check.method(method, plan.METHODS, plan.obstacle, w.shape, computed, stride, dilation, groups)
        # The variant of Winograd's method is that of a plan, and so are the bits.
        choice = plan.choose(x.shape[-ndim - 1:], w.shape, computed, stride, sides, dilation, groups, True, method)
    if overflow != "raise":
        _check.one_of(overflow, "overflow", _OVERFLOWS)
    workers = 1 if workers is None and brief else resolve_workers(workers)
    value = _padding_value(padding_value, layer)
    given = out
    if out is not None:
        _check.output_array(out, shape[1:] if matrices else shape, result)
        if np.may_share_memory(out, x):
            x = x.copy()
        if matrices:
            out = out[None]

    def compute(computed, out):
        """The convolution in the dtype `computed`, stored into `out`."""
        weights = _in_dtype(w, computed, given)
        biases = None if bias is None else _in_dtype(bias, computed, given)
        if out.size == 0:
            return out
        if weights.shape[1] == 0:
            for phase, pixels in _phases(out, upscale):
                pixels[...] = 0 if biases is None else biases[phase].reshape(-1, *(1,) * ndim)
        elif choice.method == "im2col":
            patches = unfold(x.astype(np.result_type(computed, x) if x.dtype.kind == "c" else computed, copy=False),
                             w.shape[2:], dilation, sides, stride, padding_mode=padding_mode, padding_value=value)
            flat = np.empty((*shape[:-ndim], patches.shape[-1]), out.dtype)
            _multiply(weights, patches, biases, flat, nbatch, groups, workers)
            out[...] = flat.reshape(shape)
        elif choice.variant is not None and (method != "auto" or plan.suits(choice.variant, weights)):
            engine.correlate_transformed(x, weights, None, biases, out, nbatch, groups, before, boundary, value,
                                         workers, choice.variant, stride=stride, dilation=dilation)
        else:
            engine.correlate(x, weights, biases, out, nbatch, groups, stride, dilation, before, boundary, value,
                             workers, upscale=upscale)
        return out

    if computed == _INT64:
        largest = _largest_sum(x, w, bias, _check.integer_constant(value))
        return _exact_integers(*largest, shape, result, out, compute, overflow)
    return compute(computed, np.empty(shape, result) if out is None else out)


def _padding_value(value, layer):
    """What stands beyond the borders of a layer's input, under a constant boundary."""
    if layer.boundary[0] != engine.CONSTANT:
        return 0
    return value if type(value) is float else _check.constant(value, layer.result.kind == "c")


def _layer_arrays(input, weight, bias):
    return (_check.numeric_array(input, "input"), _check.numeric_array(weight, "weight"),
            None if bias is None else _check.numeric_array(bias, "bias"))


class _Layer(NamedTuple):
    """What follows from a layer's shapes, dtypes and settings."""

    shape: tuple                     # of the output
    groups: int
    stride: tuple
    dilation: tuple
    sides: tuple                     # of padding: (before, after) an axis
    nbatch: int                      # axes of the batch: 1 or 0
    before: tuple                    # of padding
    boundary: tuple                  # one of the engine's codes an axis
    brief: bool                      # no work for a second thread
    computed: np.dtype
    result: np.dtype
    choice: plan.Choice              # the method of the convolution
    gradient: plan.Choice            # and of its input gradient
    weight_gradient: plan.Choice


def _settle(ndim, input, weight, bias, input_dtype, weight_dtype, bias_dtype, stride, padding, dilation, groups,
            padding_mode, dtype, upscale=1, names=("input", "weight")):
    """The `_Layer` of these shapes (`input`, `weight`, `bias`), dtypes and settings; errors name the two arguments that
    the shapes are from."""
    plain = (type(stride) is type(padding) is type(dilation) is type(groups) is int
             or _plain(stride, padding, dilation, groups)) and type(padding_mode) is str
    settle = _settle_once if plain else _settle_anew
    return settle(ndim, input, weight, bias, input_dtype, weight_dtype, bias_dtype, stride, padding, dilation, groups,
                  padding_mode, None if dtype is None else _check.result_dtype(dtype), upscale, names)


def _settle_anew(ndim, input, weight, bias, input_dtype, weight_dtype, bias_dtype, stride, padding, dilation, groups,
                 padding_mode, dtype, upscale, names):
    groups = _check.convolution_shapes(input, weight, bias, ndim, groups, names)
    n, k = input[-ndim:], weight[2:]
    stride = _check.per_axis(stride, "stride", ndim, minimum=1)
    dilation = _check.per_axis(dilation, "dilation", ndim, minimum=1)
    sides = geometry.normalize_padding(padding, n, k, stride, dilation)
    boundary = _check.layer_boundary(padding_mode)
    _check.boundary_has_samples(n, sides, boundary, names[0])
    _check.upscale_channels(weight, upscale)
    size = geometry.convolution_size(n, k, stride, sides, dilation)
    shape = _check.output_shape((*input[:-ndim - 1], weight[0] // upscale**2, *(upscale * on for on in size)))
    return _layer(shape, input, (*input[:-ndim], *size), weight, groups, stride, dilation, sides, boundary,
                  _result_dtypes(input_dtype, weight_dtype, bias_dtype, dtype))


def _layer(shape, input, output, weight, groups, stride, dilation, sides, boundary, dtypes):
    """A `_Layer` whose convolution takes `input` to `output` (shapes), and whose result has `shape`."""
    ndim = len(sides)
    settings = input[-ndim - 1:], weight, dtypes[0], stride, sides, dilation, groups
    products = math.prod(output[:-ndim - 1]) * math.prod(output[-ndim:]) * math.prod(weight)
    return _Layer(shape, groups, stride, dilation, sides, len(input) - ndim - 1,
                  tuple([side[0] for side in sides]), (engine.BOUNDARIES[boundary],) * ndim,
                  products < engine.SERIAL_BELOW, *dtypes, plan.choose(*settings), plan.choose_gradient(*settings),
                  plan.choose_weight_gradient(*settings))


def _plain(*settings):
    """Whether settings are ints, names and tuples of them: True or 1.0, which are refused, would pass for a 1 that was
    checked before."""
    return all([type(value) is int or type(value) is str or type(value) is tuple and _plain(*value)
                for value in settings])


# Checked once for each combination: else the checks of a call take as long as a small image.
_settle_once = functools.lru_cache(maxsize=512)(_settle_anew)


def _convolve_transposed(ndim, input, weight, bias, stride, padding, output_padding, groups, dilation, output_size,
                         dtype, out, method, workers):
    """conv_transpose{ndim}d"""
    x, w, bias = _layer_arrays(input, weight, bias)
    layer = _settle_transposed(ndim, x.shape, w.shape, None if bias is None else bias.shape, x.dtype, w.dtype,
                               None if bias is None else bias.dtype, stride, padding, output_padding, groups, dilation,
                               output_size, dtype)
    return _adjoint(x, w, bias, layer.shape, layer, out, method, workers)


def _gradient_variant(method, choice):
    """The variant of a method by transforms by which a gradient or a transposed convolution is computed, or None."""
    _check.one_of(method, "method", _GRADIENT_METHODS)
    return choice.variant if method == "auto" else None


def _adjoint(x, w, bias, shape, layer, out, method, workers, added=0):
    """The adjoint of a layer's convolution, at x, plus bias, into an `out` of `shape`: the transposed convolution, and
    the input gradient. `out` lacks the first `added` axes."""
    variant = _gradient_variant(method, layer.gradient)
    workers = 1 if workers is None and layer.brief else resolve_workers(workers)
    target = out
    if out is not None:
        _check.output_array(out, shape[added:], layer.result)
        target = out[None] if added else out
        if np.may_share_memory(out, x):
            x = x.copy()
    given = out

    def compute(computed, out):
        """The adjoint in the dtype `computed`, stored into `out`."""
        weights = _in_dtype(w, computed, given)
        biases = None if bias is None else _in_dtype(bias, computed, given)
        engine.input_gradient(x, weights, biases, out, layer.nbatch, layer.groups, layer.stride, layer.dilation,
                              layer.before, layer.boundary, workers, None,
                              variant if variant is not None and plan.suits(variant, weights, layer.groups, True) else
                              None)
        return out

    if layer.computed == _INT64:
        outputs = w.shape[0] // layer.groups
        exchanged = w.reshape(layer.groups, outputs, *w.shape[1:]).swapaxes(1, 2)
        exchanged = exchanged.reshape(layer.groups * w.shape[1], outputs, *w.shape[2:])
        largest, non_negative = _largest_sum(x, exchanged, bias, 0)
        largest *= _copies(shape[-len(layer.sides):], layer.sides, layer.boundary[0])
        y = _exact_integers(largest, non_negative, shape, layer.result, target, compute)
    else:
        y = compute(layer.computed, np.empty(shape, layer.result) if out is None else target)
    if out is not None:
        return out
    return y[0] if added else y


def _correlation(x, w, shape, layer, out, method, workers):
    """A convolution of x whose settings are a layer's, under zero borders, into an `out` of `shape`."""
    variant = _gradient_variant(method, layer.choice)
    workers = 1 if workers is None and layer.brief else resolve_workers(workers)
    given = out
    if out is not None:
        _check.output_array(out, shape, layer.result)
        if np.may_share_memory(out, x):
            x = x.copy()

    def compute(computed, out):
        """The convolution in the dtype `computed`, stored into `out`."""
        weights = _in_dtype(w, computed, given)
        if weights.shape[1] == 0:
            out[...] = 0
        elif out.size and variant is not None and plan.suits(variant, weights):
            engine.correlate_transformed(x, weights, None, None, out, layer.nbatch, layer.groups, layer.before,
                                         layer.boundary, 0.0, workers, variant, stride=layer.stride,
                                         dilation=layer.dilation)
        elif out.size:
            engine.correlate(x, weights, None, out, layer.nbatch, layer.groups, layer.stride, layer.dilation,
                             layer.before, layer.boundary, 0.0, workers)
        return out

    if layer.computed == _INT64:
        return _exact_integers(*_largest_sum(x, w, None, 0), shape, layer.result, out, compute)
    return compute(layer.computed, np.empty(shape, layer.result) if out is None else out)


def _settle_transposed(ndim, input, weight, bias, input_dtype, weight_dtype, bias_dtype, stride, padding,
                       output_padding, groups, dilation, output_size, dtype, names=("input", "weight")):
    """`_settle` for a transposed convolution."""
    plain = ((type(stride) is type(padding) is type(output_padding) is type(dilation) is type(groups) is int
              or _plain(stride, padding, output_padding, groups, dilation))
             and (output_size is None or _plain(output_size)))
    settle = _settle_transposed_once if plain else _settle_transposed_anew
    return settle(ndim, input, weight, bias, input_dtype, weight_dtype, bias_dtype, stride, padding, output_padding,
                  groups, dilation, output_size, None if dtype is None else _check.result_dtype(dtype), names)


def _settle_transposed_anew(ndim, input, weight, bias, input_dtype, weight_dtype, bias_dtype, stride, padding,
                            output_padding, groups, dilation, output_size, dtype, names):
    groups = _check.transposed_shapes(input, weight, bias, ndim, groups, names)
    n, k = input[-ndim:], weight[2:]
    stride = _check.per_axis(stride, "stride", ndim, minimum=1)
    dilation = _check.per_axis(dilation, "dilation", ndim, minimum=1)
    sides = _check.padding_amounts(padding, ndim)
    size = geometry.transposed_size(n, k, stride, sides, output_padding, dilation, output_size)
    shape = _check.output_shape((*input[:-ndim - 1], groups * weight[1], *size))
    return _layer(shape, shape, input, weight, groups, stride, dilation, sides, "constant",
                  _result_dtypes(input_dtype, weight_dtype, bias_dtype, dtype))


_settle_transposed_once = functools.lru_cache(maxsize=512)(_settle_transposed_anew)


def _phases(out, upscale):
    """Every phase of a pixel block: (its channels before the shuffle, its pixels in `out`)."""
    if upscale == 1:
        yield slice(None), out
        return
    for i, j in np.ndindex(upscale, upscale):
        yield slice(i * upscale + j, None, upscale**2), out[..., i::upscale, j::upscale]


def _multiply(weights, patches, bias, out, nbatch, groups, workers):
    """The matrix product of weights and patches by the engine, whose order of summation is the direct method's."""
    def product(matrix, patches, bias, out):
        engine.correlate(patches, matrix.reshape(weights.shape[0], -1, 1), bias, out, nbatch, groups, (1,), (1,), (0,),
                         (engine.CONSTANT,), 0.0, workers)

    if not (patches.dtype.kind == weights.dtype.kind == "c"):
        product(weights, patches, bias, out)
        return
    # The direct method takes the real part of all taps of a channel, then the imaginary one: so must the rows here.
    taps = math.prod(weights.shape[2:])
    rows = patches.reshape(*patches.shape[:-2], -1, 1, taps, patches.shape[-1])
    rows = np.concatenate((rows.real, rows.imag), axis=-3).reshape(*patches.shape[:-2], -1, patches.shape[-1])
    product(engine.part_weights(weights, 0), rows, None if bias is None else bias.real.copy(), out.real)
    product(engine.part_weights(weights, 1), rows, None if bias is None else bias.imag.copy(), out.imag)


def _in_dtype(a, computed, out):
    """Weights or biases contiguous and in the computing dtype: its real one for real `a`, a copy where `out` is `a`."""
    if out is None and a.dtype is computed and a.flags.c_contiguous and a.flags.aligned:
        return a
    dtype = computed
    if a.dtype.kind != "c" and computed.kind == "c":
        dtype = np.dtype(computed.char.lower())
    a = np.ascontiguousarray(a, dtype=dtype)
    return a.copy() if not a.flags.aligned or out is not None and np.may_share_memory(a, out) else a


def _result_dtypes(x, w, bias, wanted):
    """(the dtype computed in, the result's), from the arguments' dtypes."""
    dtypes = (x, w) if bias is None else (x, w, bias)
    if all(dtype.kind in "biu" for dtype in dtypes):
        result = _INT64
    elif x.kind in "fc":
        result = x.newbyteorder("=")
        if result.kind == "f" and any(dtype.kind == "c" for dtype in dtypes):
            result = np.result_type(result, np.complex64)
    else:
        result = np.result_type(*dtypes)
    if wanted is not None:
        _check.output_cast(result, wanted, "dtype")
        result = wanted.newbyteorder("=")
    if result.kind in "iu":
        return _INT64, result
    return np.dtype(np.float32) if result.char == "e" else result, result


def _exact_integers(largest, non_negative, shape, result, out, compute, overflow=None):
    """Integer sums exactly: `compute` them in the narrowest dtype in which sums up to `largest` are exact; what does
    not fit follows `overflow` (None: it is an error, and there is no such argument)."""
    computed = next((dtype for dtype, limit in _EXACT if largest <= limit), _INT64)
    target = result if out is None else out.dtype
    passes_64 = largest > np.iinfo(_INT64).max
    refused = overflow in (None, "raise")
    mend = "pass" if overflow is None else "pass overflow='wrap' or 'saturate', or"
    if passes_64 and refused:
        raise OverflowError(f"overflow: a sum could pass 2**63 (its bound is {largest}); {mend} dtype=float or "
                            "arrays of floats")
    fits = not passes_64 and (
        target.kind not in "iu" or largest <= np.iinfo(target).max and (target.kind == "i" or non_negative))
    if fits or overflow == "wrap":
        return compute(computed, np.empty(shape, target) if out is None else out)
    # The narrowest integers that hold every sum: what follows takes a few passes over them.
    held = _INT64 if passes_64 else np.min_scalar_type(-1 - largest)
    exact = compute(computed, np.empty(shape, held))
    bounds = np.iinfo(target if target.kind in "iu" else _INT64)
    if refused:
        if exact.size and (exact.min() < bounds.min or exact.max() > bounds.max):
            raise OverflowError(f"overflow: results from {exact.min()} to {exact.max()} do not fit {target}; {mend} a "
                                "wider dtype")
    else:
        if passes_64:
            # exact is right modulo 2**64, and a float64 sum tells how many times it went round
            near = compute(np.dtype(np.float64), np.empty(shape, np.float64))
            turns = np.rint((near - exact.astype(np.float64)) / 2.0**64)
            limits = np.iinfo(_INT64)
            exact = np.where(turns > 0, limits.max, np.where(turns < 0, limits.min, exact))
        limits = np.iinfo(held)
        np.clip(exact, max(bounds.min, limits.min), min(bounds.max, limits.max), out=exact)
    if out is None:
        return exact.astype(target)
    out[...] = exact
    return out


def _largest_sum(x, w, bias, value):
    """(a bound of every |partial sum|, whether none can be negative), from the dtype's range or, for 64-bit integers,
    the data."""
    if x.dtype.kind == "b":
        low, high = 0, 1
    elif x.dtype.itemsize < 8:
        low, high = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
    else:
        low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
    low, high = min(low, value), max(high, value)
    # In float64 first: only a bound near 2**63 is worth Python's integers.
    weights, biases = w.astype(np.float64), None if bias is None else bias.astype(np.float64)
    largest = _bound(weights, biases, float(max(-low, high)))
    if largest > 2.0**62:
        largest = _bound(w.astype(object), None if bias is None else bias.astype(object), max(-low, high))
    non_negative = low >= 0 and not (weights < 0).any() and (bias is None or not (biases < 0).any())
    return int(largest), non_negative


def _bound(weights, biases, largest_input):
    sums = np.abs(weights).sum(axis=tuple(range(1, weights.ndim))) * largest_input
    if biases is not None:
        sums = sums + np.abs(biases)
    return max(sums.tolist(), default=0)


def _copies(n, sides, boundary):
    """How often a sample stands in the padded input at most."""
    copies = 1
    for size, (before, after) in zip(n, sides, strict=True):
        if boundary == engine.EDGE:
            copies *= 1 + before + after if size == 1 else 1 + max(before, after)
        elif boundary != engine.CONSTANT:
            period = max(size - 1, 1) if boundary == engine.MIRROR else max(size, 1)
            copies *= 1 - (-before // period) - (-after // period)
    return copies
