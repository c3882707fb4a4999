"""Sizes and padding."""
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
