"""Layers that hold their weights and gradients: just enough to train a small network by hand."""
import math

import numpy as np

from pyconv import _check, conv, grad


class Conv2d:
    """A convolution that holds its weights and their gradients, PyTorch's ``Conv2d``.

    Calling it runs `pyconv.conv2d`; `backward` takes the loss's gradient with respect to the result of the last call,
    adds to `dweight` and `dbias`, and returns the gradient with respect to the input.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or one an axis
    padding : int, one an axis, one (before, after) pair an axis, or str
        As in `pyconv.conv2d`.
    groups : int
        Divides both channel counts.
    bias : bool
        Whether there is one.
    padding_mode : str
        As in `pyconv.conv2d`: ``zeros``, ``reflect``, ``replicate``, ``circular``, ``symmetric``.
    dtype : dtype
        Floating or complex: of the weights, and computed in. Inputs and gradients are converted to it.
    rng : numpy.random.Generator, int or None
        Draws the weights: a generator, a seed, or None for other weights every time.

    Attributes
    ----------
    weight : ndarray, (out_channels, in_channels / groups, kh, kw)
    bias : ndarray, (out_channels,), or None
        Whatever is assigned to them must have their shape, and is converted to `dtype`.
    dweight, dbias : ndarray, of the same shapes
        Gradients, summed over all calls of `backward` since `zero_grad`.
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, dtype
        As given, sizes with one number an axis.

    Raises
    ------
    ValueError
        Sizes below 1, groups that do not divide the channels, unknown names.
    TypeError
        Arguments of a wrong kind.

    Notes
    -----
    Weights and bias begin uniform in [-b, b] with ``b = 1 / sqrt(in_channels / groups * kh * kw)``, PyTorch's default
    (He's rule [1]_ with a = sqrt(5)); complex ones have both parts uniform within b / sqrt(2). They are drawn in
    float64 and rounded, so one seed means the same weights in every dtype.

    A layer keeps a reference to its last input: change neither that array nor the weights between a call and its
    `backward`.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", ICCV, 2015.

    Examples
    --------
    Five steps of descent towards the edge detector [1, -1], on an image with a dark stripe:

    >>> import numpy as np
    >>> import pyconv
    >>> image = np.ones((6, 8), np.float32)
    >>> image[:, 2:6] = 0
    >>> edges = pyconv.corr2d(image, np.array([[1.0, -1.0]]))
    >>> layer = pyconv.Conv2d(1, 1, (1, 2), bias=False, rng=0)
    >>> losses = []
    >>> for _ in range(5):
    ...     error = layer(image) - edges
    ...     losses.append(np.square(error).sum())
    ...     layer.zero_grad()
    ...     dx = layer.backward(2 * error)
    ...     layer.step(0.03)
    >>> bool(losses[-1] < losses[0] / 5), dx.shape
    (True, (6, 8))
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
                 padding_mode="zeros", *, dtype=np.float32, rng=None):
        self.in_channels = _check.integer(in_channels, "in_channels", minimum=1)
        self.out_channels = _check.integer(out_channels, "out_channels", minimum=1)
        self.groups = _check.layer_groups(groups, self.in_channels, self.out_channels)
        self.kernel_size = _check.per_axis(kernel_size, "kernel_size", 2, minimum=1)
        self.stride = _check.per_axis(stride, "stride", 2, minimum=1)
        self.dilation = _check.per_axis(dilation, "dilation", 2, minimum=1)
        if isinstance(padding, str):
            _check.padding_name(padding)
            self.padding = padding
        else:
            self.padding = _check.padding_amounts(padding, 2)
        _check.layer_boundary(padding_mode)
        self.padding_mode = padding_mode
        self.dtype = _check.layer_dtype(dtype)
        rng = _check.generator(rng)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self._weight = _uniform(rng, bound, _check.output_shape(shape), self.dtype)
        self._bias = _uniform(rng, bound, shape[:1], self.dtype) if _check.flag(bias, "bias") else None
        self.dweight = np.zeros_like(self._weight)
        self.dbias = None if self._bias is None else np.zeros_like(self._bias)
        self._input = self._output_shape = None

    @property
    def weight(self):
        return self._weight

    @weight.setter
    def weight(self, value):
        self._weight = _check.layer_parameter(value, "weight", self._weight.shape, self.dtype)

    @property
    def bias(self):
        return self._bias

    @bias.setter
    def bias(self, value):
        if self._bias is None or value is None:
            raise ValueError("bias cannot come or go: make the layer with bias=True or bias=False")
        self._bias = _check.layer_parameter(value, "bias", self._bias.shape, self.dtype)

    def __call__(self, x):
        """Convolve.

        Parameters
        ----------
        x : array_like, (N, C, H, W) or (C, H, W), or (H, W) where both channel counts are 1

        Returns
        -------
        ndarray, (N, O, oh, ow), (O, oh, ow) or (oh, ow)

        Raises
        ------
        ValueError, TypeError
            As in `pyconv.conv2d`; complex input for a real layer.
        """
        x = _check.layer_array(x, "x", self.dtype)
        _check.layer_channels(x, self.in_channels, self.out_channels)
        x = x.astype(self.dtype, copy=False)
        y = conv.conv2d(x if x.ndim > 2 else x[None], self.weight, self.bias, self.stride, self.padding, self.dilation,
                        self.groups, padding_mode=self.padding_mode)
        if x.ndim == 2:
            y = y[0]
        self._input, self._output_shape = x, y.shape
        return y

    def backward(self, dy):
        """Gradient with respect to the input; those of the weights are added to `dweight` and `dbias`.

        Parameters
        ----------
        dy : array_like, of the shape that the last call returned
            The loss's gradient with respect to that result.

        Returns
        -------
        ndarray, of the shape of the last call's input

        Raises
        ------
        ValueError
            Where there has been no call, or `dy` is of another shape than its result.
        """
        dy = _check.layer_gradient(dy, self._output_shape, "Conv2d", self.dtype).astype(self.dtype, copy=False)
        x = self._input
        if x.ndim == 2:
            x, dy = x[None], dy[None]
        dx, dweight, dbias = grad.conv2d_backward(x, self.weight, dy, self.stride, self.padding, self.dilation,
                                                  self.groups, padding_mode=self.padding_mode)
        self.dweight += dweight
        if self.bias is not None:
            self.dbias += dbias
        return dx if self._input.ndim > 2 else dx[0]

    def zero_grad(self):
        """Set `dweight` and `dbias` to zero."""
        self.dweight[...] = 0
        if self.bias is not None:
            self.dbias[...] = 0

    def step(self, lr):
        """A step of gradient descent: take `lr` times the gradients from the weights and the bias, in place.

        Parameters
        ----------
        lr : float
            The learning rate, at least 0.
        """
        lr = _check.real(lr, "lr", minimum=0)
        self.weight -= lr * self.dweight
        if self.bias is not None:
            self.bias -= lr * self.dbias

    def __repr__(self):
        return (f"Conv2d({self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
                f"bias={self.bias is not None}, padding_mode={self.padding_mode!r}, dtype={self.dtype})")


class ReLU:
    """The larger of each element and zero; the gradient passes where the element is above zero.

    NaN passes, in both directions. Like a `Conv2d` it has `backward`, `zero_grad` and `step`, of which the last two do
    nothing, and in a receptive field it counts as 1 x 1.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> relu = pyconv.ReLU()
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    >>> relu.backward(np.array([5.0, 6.0, 7.0]))
    array([0., 0., 7.])
    """

    kernel_size = stride = dilation = 1
    padding = 0

    def __init__(self):
        self._passes = None

    def __call__(self, x):
        """The larger of x and zero, an array of x's shape and dtype."""
        x = _check.real_array(x, "x")
        self._passes = ~(x <= 0)
        return np.where(self._passes, x, x.dtype.type(0))

    def backward(self, dy):
        """dy where the last input was above zero, else zero; `dy` of another shape than that input is refused."""
        dy = _check.layer_gradient(dy, None if self._passes is None else self._passes.shape, "ReLU")
        return np.where(self._passes, dy, dy.dtype.type(0))

    def zero_grad(self):
        """Nothing: a ReLU has no weights."""

    def step(self, lr):
        """Nothing: a ReLU has no weights."""

    def __repr__(self):
        return "ReLU()"


class Sequential:
    """Layers one after the other.

    Parameters
    ----------
    *layers
        `Conv2d`, `ReLU`, `Sequential`, or anything that can be called and has `backward`, `zero_grad` and `step`.

    Attributes
    ----------
    layers : tuple

    Raises
    ------
    TypeError
        Where something among the layers is none.
    ValueError
        Where one object is there twice: its backward would go by the last input alone.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> net = pyconv.Sequential(pyconv.Conv2d(3, 8, 3, stride=2), pyconv.ReLU(), pyconv.Conv2d(8, 1, 3))
    >>> y = net(np.zeros((3, 32, 32), np.float32))
    >>> y.shape, net.backward(np.ones_like(y)).shape
    ((1, 13, 13), (3, 32, 32))
    >>> pyconv.receptive_field(net).size
    (7, 7)
    """

    def __init__(self, *layers):
        for i, layer in enumerate(layers):
            _check.layer(layer, i)
        _check.different_layers(layers)
        self.layers = layers

    def __call__(self, x):
        """All layers, the first one first."""
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy):
        """The gradient with respect to the input; every layer adds its weights' gradients to its own."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def zero_grad(self):
        """Set the gradients of all layers to zero."""
        for layer in self.layers:
            layer.zero_grad()

    def step(self, lr):
        """A step of gradient descent in all layers."""
        lr = _check.real(lr, "lr", minimum=0)
        for layer in self.layers:
            layer.step(lr)

    def __iter__(self):
        return iter(self.layers)

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, index):
        return self.layers[index]

    def __repr__(self):
        return f"Sequential({', '.join(map(repr, self.layers))})"


def _uniform(rng, bound, shape, dtype):
    """Uniform in [-bound, bound], or in both parts of a complex number, which has the same variance."""
    if dtype.kind != "c":
        return rng.uniform(-bound, bound, shape).astype(dtype)
    real, imag = rng.uniform(-bound / math.sqrt(2), bound / math.sqrt(2), (2, *shape))
    return (real + 1j * imag).astype(dtype)
