"""Sizes, padding, and what an output sees of the input."""
from dataclasses import dataclass

from pyconv import _check


def output_size(input_size, kernel_size, stride=1, padding=0, dilation=1):
    """Size of a convolution's output.

    Along an axis, floor((n + before + after - dilation * (k - 1) - 1) / stride) + 1.

    Parameters
    ----------
    input_size : int or sequence of int
        The spatial size, without batch and channels.
    kernel_size, stride, dilation : int or sequence of int
        One for all axes, or one an axis.
    padding : int, sequence of int, sequence of (before, after), or str
        What is added on a side: one amount for all, one an axis, one pair an axis, or ``"valid"`` (nothing),
        ``"full"`` (dilation * (k - 1) on both sides), ``"same"`` or ``"same_upper"`` (the output is ceil(n / stride)
        large; of an odd total the larger half goes to the end), ``"same_lower"`` (to the beginning).

    Returns
    -------
    tuple of int, or int where `input_size` is one

    Raises
    ------
    ValueError
        Where a kernel is larger than the padded input.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.output_size((8, 8), (3, 5), stride=(3, 5), padding=(0, 1))
    (2, 2)
    >>> pyconv.output_size(224, 7, stride=2, padding=3)
    112
    """
    single, n = _check.sizes(input_size, "input_size", minimum=0)
    ndim = len(n)
    k = _check.per_axis(kernel_size, "kernel_size", ndim, minimum=1)
    s = _check.per_axis(stride, "stride", ndim, minimum=1)
    d = _check.per_axis(dilation, "dilation", ndim, minimum=1)
    sides = normalize_padding(padding, n, k, s, d)
    size = convolution_size(n, k, s, sides, d)
    return size[0] if single else size


def normalize_padding(padding, n, k, stride, dilation):
    """The (before, after) of each axis that `padding`, in any of its forms, means for input sizes n and kernels k."""
    if isinstance(padding, str):
        return _named_padding(_check.padding_name(padding), n, k, stride, dilation)
    return _check.padding_amounts(padding, len(n))


def _named_padding(name, n, k, stride, dilation):
    if name == "valid":
        return ((0, 0),) * len(n)
    reach = tuple(d * (size - 1) for d, size in zip(dilation, k, strict=True))
    if name == "full":
        return tuple((r, r) for r in reach)
    sides = []
    for size, r, s in zip(n, reach, stride, strict=True):
        total = max((-(-size // s) - 1) * s + r + 1 - size, 0)
        small = total // 2
        sides.append((total - small, small) if name == "same_lower" else (small, total - small))
    return tuple(sides)


def convolution_size(n, k, stride, sides, dilation):
    """The output's spatial size, from one number an axis of everything."""
    _check.kernel_fits(n, k, sides, dilation)
    return tuple((size + before + after - d * (taps - 1) - 1) // s + 1
                 for size, taps, s, (before, after), d in zip(n, k, stride, sides, dilation, strict=True))


def transposed_size(n, k, stride, sides, output_padding, dilation, output_size=None):
    """The spatial size of a transposed convolution's output, n, k, stride, (before, after) and dilation one an axis."""
    smallest = tuple((size - 1) * s - before - after + d * (taps - 1) + 1
                     for size, taps, s, (before, after), d in zip(n, k, stride, sides, dilation, strict=True))
    extra = _check.output_padding(output_padding, output_size, smallest, stride, dilation)
    size = tuple(least + more for least, more in zip(smallest, extra, strict=True))
    _check.something_is_left(size, n, k, stride, sides, dilation)
    _check.padded_samples(size, sides, "output")
    return size


@dataclass(frozen=True)
class ReceptiveField:
    """What an output element of a stack of layers sees of the input, as `receptive_field` returns it.

    Attributes
    ----------
    size : tuple of int, or int
        Input samples from the first to the last one seen, along each axis.
    stride : tuple of int, or int
        Input samples from one output element's field to the next one's.
    start : tuple of int, or int
        Where output element 0's field begins. Negative where it begins in the padding.
    input_size, output_size : tuple of int, int, or None
        The input's size, where it was given, and the output's that follows.
    """

    size: tuple[int, ...] | int
    stride: tuple[int, ...] | int
    start: tuple[int, ...] | int
    input_size: tuple[int, ...] | int | None = None
    output_size: tuple[int, ...] | int | None = None

    def slices(self, output_index):
        """The part of the input that one output element sees.

        Parameters
        ----------
        output_index : int or sequence of int
            The element's position, one number an axis.

        Returns
        -------
        tuple of slice
            One an axis: ``input[(..., *slices)]``. With the input's size known they end at its borders; without it
            they reach as far as the field does, and a negative start, which indexing would count from the end, means
            so many samples of padding.

        Raises
        ------
        ValueError
            For an index below 0, one beyond the output where its size is known, or of another number of axes.

        Examples
        --------
        >>> import pyconv
        >>> pyconv.receptive_field((3, 2, 1)).slices(0)
        (slice(-1, 2, None),)
        >>> pyconv.receptive_field((3, 2, 1), input_size=8).slices(0)
        (slice(0, 2, None),)
        """
        size, stride, start = (_axes(value) for value in (self.size, self.stride, self.start))
        index = _check.output_index(output_index, len(size), _axes(self.output_size))
        starts = [first + i * s for first, i, s in zip(start, index, stride, strict=True)]
        stops = [first + n for first, n in zip(starts, size, strict=True)]
        if self.input_size is not None:
            ends = _axes(self.input_size)
            starts = [min(max(first, 0), end) for first, end in zip(starts, ends, strict=True)]
            stops = [min(max(stop, 0), end) for stop, end in zip(stops, ends, strict=True)]
        return tuple(slice(*ends) for ends in zip(starts, stops, strict=True))


def receptive_field(layers, input_size=None):
    """What an output element of a layer, or of several in a row, sees of the input.

    Every layer adds (kernel size - 1) times its dilation, in steps as large as the strides before it multiply to [1]_.

    Parameters
    ----------
    layers : a layer, or a sequence of them
        A layer is an object with ``kernel_size``, ``stride``, ``padding`` and ``dilation`` (`pyconv.Conv2d`; a
        `pyconv.ReLU` is 1 x 1), or a tuple of these in this order, of which all but the first may be left out:
        ``(3,)``, ``(3, 2)``, ``((3, 5), 2, 1)``. Each is one number for all axes or one an axis; padding has any form
        that `pyconv.conv2d` takes. So a tuple of numbers is one layer; a list or a `pyconv.Sequential` holds several,
        first one first.
    input_size : int or sequence of int, optional
        The input's spatial size. With it the slices end at the input's borders; padding ``"same"`` with a stride
        above 1 depends on it.

    Returns
    -------
    ReceptiveField
        With `size`, `stride`, `start` and `slices`. One number an axis; plain numbers where no layer says how many
        axes there are, and `input_size` does not either.

    Raises
    ------
    ValueError
        Where a size, stride or dilation is below 1, layers have different numbers of axes, there are no layers, or a
        kernel is larger than its padded input.
    TypeError
        Where something among the layers is none.

    Notes
    -----
    The field is what may matter: with dilation, samples between the taps do not. What the padding puts beyond the
    borders by the picture (``reflect``, ``circular``, ...) is not counted as seen.

    References
    ----------
    .. [1] A. Araujo, W. Norris and J. Sim, "Computing receptive fields of convolutional neural networks",
       Distill, 2019.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.receptive_field([(3,), (3,), (3,)]).size
    7
    >>> field = pyconv.receptive_field([(7, 2, 3), (3, 2, 1)], input_size=(224, 224))
    >>> field.size, field.stride, field.start
    ((11, 11), (4, 4), (-5, -5))
    >>> field.slices((0, 10))
    (slice(0, 6, None), slice(35, 46, None))
    """
    windows = [(name, _check.layer_window(layer, name)) for name, layer in _flattened(layers, "layers")]
    if not windows:
        raise ValueError("layers must hold at least one layer, got none")
    single, ndim = _check.common_axes(windows, input_size)
    n = None if input_size is None else _check.per_axis(input_size, "input_size", ndim, minimum=0)
    given = n
    size, step, start = (1,) * ndim, (1,) * ndim, (0,) * ndim
    for name, (kernel_size, stride, padding, dilation) in windows:
        try:
            k = _check.per_axis(kernel_size, "kernel_size", ndim, minimum=1)
            s = _check.per_axis(stride, "stride", ndim, minimum=1)
            d = _check.per_axis(dilation, "dilation", ndim, minimum=1)
            sides = normalize_padding(padding, _padded_alike(padding, n, s), k, s, d)
            n = n and convolution_size(n, k, s, sides, d)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None
        start = tuple(first - before * j for first, (before, _), j in zip(start, sides, step, strict=True))
        size = tuple(f + (taps - 1) * dil * j for f, taps, dil, j in zip(size, k, d, step, strict=True))
        step = tuple(j * stride for j, stride in zip(step, s, strict=True))
    return ReceptiveField(*(value[0] if single and value is not None else value
                            for value in (size, step, start, given, n)))


def _axes(value):
    return (value,) if isinstance(value, int) else value


def _flattened(layers, name):
    """(name for errors, layer) of every single layer."""
    if _check.is_single_layer(layers):
        yield name, layers
        return
    for i, layer in enumerate(_check.layer_sequence(layers, name)):
        yield from _flattened(layer, f"{name}[{i}]")


def _padded_alike(padding, n, stride):
    """The input size n or, where it is not known, one that is padded as any other."""
    if n is None and isinstance(padding, str) and padding.startswith("same") and any(s > 1 for s in stride):
        raise ValueError(f"padding {padding!r} with stride {stride} depends on the input's size: pass input_size=")
    return (1,) * len(stride) if n is None else n
