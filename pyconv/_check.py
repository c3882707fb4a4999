"""All argument checks of the package, and their errors."""

import importlib
import math
import numbers
import operator
import warnings

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

# ---- numbers ----


def integer(value, name, *, minimum=None, maximum=None):
    """`value` as an int within bounds. Booleans are refused: ``box(True)`` is a slip, not a size."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got the boolean {value}")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None
    _in_range(value, name, minimum, maximum)
    return value


def real(value, name, *, minimum=None, maximum=None):
    """`value` as a finite float within bounds."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    _in_range(value, name, minimum, maximum)
    return value


def _in_range(value, name, minimum, maximum):
    if minimum is not None and maximum is not None and not minimum <= value <= maximum:
        raise ValueError(f"{name} must be from {minimum} to {maximum}, got {value}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")


# ---- named kernels ----


def kernel_ndim(ndim):
    return integer(ndim, "ndim", minimum=1, maximum=62)


def kernel_axis(axis, ndim):
    """(axis counted from the front, ndim)"""
    ndim = kernel_ndim(ndim)
    axis = integer(axis, "axis")
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis must be from {-ndim} to {ndim - 1} for a kernel of ndim={ndim}, got {axis}")
    return axis % ndim, ndim


def kernel_shape(n, ndim):
    """Shape of a kernel whose size is given as one number or as one an axis."""
    (sizes,) = _spread({"n": n}, ndim)
    return tuple(integer(size, "n", minimum=1) for size in sizes)


def kernel_gaussian(sigma, order, truncate, radius, ndim):
    """A list of (sigma, order, radius), one an axis."""
    truncate = real(truncate, "truncate", minimum=0)
    axes = []
    for s, d, r in zip(*_spread({"sigma": sigma, "order": order, "radius": radius}, ndim), strict=True):
        s = real(s, "sigma", minimum=0)
        d = integer(d, "order", minimum=0)
        r = gaussian_radius(s, truncate, r)
        if d > 0 and s == 0:
            raise ValueError(f"sigma must be above 0 along an axis of order above 0, got sigma=0, order={d}")
        axes.append((s, d, r))
    return axes


def _spread(arguments, ndim):
    """Each argument for each of `ndim` axes, or of as many as the first sequence among them has, or of 2."""
    if ndim is None:
        lengths = [len(v) for v in arguments.values() if np.iterable(v) and not isinstance(v, str)]
        ndim = lengths[0] if lengths else 2
    ndim = kernel_ndim(ndim)
    return [one_an_axis(value, name, ndim) for name, value in arguments.items()]


# ---- image filters ----

# Every name an image filter's mode= knows, and the boundary it means.
IMAGE_BOUNDARIES = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "symmetric": "symmetric",
    "mirror": "mirror",
    "nearest": "edge",
    "edge": "edge",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
}


class FilterArgumentError(ValueError, RuntimeError):
    """What SciPy reports as a RuntimeError and the rest of pyconv as a ValueError: code for either catches it."""


class FilterTypeError(TypeError, FilterArgumentError):
    """An argument of the wrong kind, for which SciPy raises whatever it stumbles over first."""


class FilterAxisError(np.exceptions.AxisError, FilterArgumentError):
    """An axis that the image does not have: for SciPy an AxisError, or what comes of going on without it."""


class FilterAxisTypeError(FilterAxisError, TypeError):
    """An axis that is no integer: SciPy compares it before it asks for one."""


def filter_integer(value, name, error=FilterTypeError):
    """`value` as an int. Here booleans are the integers that they are to SciPy."""
    try:
        return operator.index(value)
    except TypeError:
        raise error(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None


def image(input):
    """`input` as an array of a dtype that the image filters know."""
    input = _array(input, "input")
    if input.dtype.char not in _IMAGE_DTYPES:
        error = FilterTypeError if input.ndim else FilterAxisTypeError
        raise error(f"input must be an array of numbers up to 64 bits each, got dtype {input.dtype}")
    return input


# NumPy's letters of the booleans, the integers, and the floats and complexes of up to 64 bits a component.
_IMAGE_DTYPES = "?bBhHiIlLqQefdFD"
_FLOAT64 = np.dtype(np.float64)  # the one that native arrays have


def _array(value, name):
    """`value` as an array. A lazy array is refused: making an array of it would load all of it."""
    if type(value) is np.ndarray:
        return value
    graph = getattr(value, "__dask_graph__", None)
    if graph is not None and graph() is not None:
        raise TypeError(
            f"{name} is a lazy array ({type(value).__module__}.{type(value).__qualname__}), which this function "
            f"would have to load as a whole; pass {name}.compute(), or map the function over its blocks"
        )
    return np.asarray(value)


def filter_weights(weights):
    """`weights` as an array of int64, float64 or complex128."""
    weights = _array(weights, "weights")
    if weights.dtype is _FLOAT64:
        return weights
    if weights.dtype.kind == "c":
        return weights.astype(np.complex128, copy=False)
    if weights.dtype.kind != "f" and np.can_cast(weights.dtype, np.int64):
        return weights.astype(np.int64, copy=False)
    try:
        return weights.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"weights must be numbers, got an array of dtype {weights.dtype}: {error}") from None


def filter_weights_1d(weights):
    weights = _array(weights, "weights")
    if weights.ndim == 0:
        raise FilterAxisTypeError(f"weights must be a sequence of at least one number, got {weights!r}")
    weights = filter_weights(weights)
    if weights.ndim != 1 or weights.size == 0:
        raise FilterArgumentError(
            f"weights must be a sequence of at least one number, got shape {weights.shape}; for a kernel of more "
            "axes use correlate or convolve"
        )
    return weights


def filter_kernel(shape, axes, ndim):
    """A kernel's axes must be as many as the filter's."""
    if len(shape) != len(axes) or 0 in shape:
        how = "input" if len(axes) == ndim else f"axes={axes}"
        raise FilterArgumentError(
            f"weights must have one axis, not empty, for each of the {len(axes)} axes that {how} has, got shape "
            f"{shape}; name the axes to filter with axes=, or insert axes with weights[None]"
        )


def image_axes(ndim, channel_axis):
    """The axes of an array that make up its image: all but the channel axis."""
    if channel_axis is None:
        return tuple(range(ndim))
    channel_axis = normalize_axis_index(integer(channel_axis, "channel_axis"), ndim, "channel_axis")
    return tuple(axis for axis in range(ndim) if axis != channel_axis)


def filter_axis(axis, image_axes):
    """The array's axis that the image's `axis` is."""
    axis = filter_integer(axis, "axis", FilterAxisTypeError)
    if not -len(image_axes) <= axis < len(image_axes):
        raise FilterAxisError(f"axis {axis} is out of bounds for an image of {len(image_axes)} axes")
    return image_axes[axis]


def filter_axes(axes, ndim):
    """`axes`, counted from the front of an image of `ndim` axes, in the order given."""
    if axes is None:
        return tuple(range(ndim))
    if not np.iterable(axes):
        axes = (axes,)
    axes = tuple(filter_integer(axis, "axes", FilterAxisTypeError) for axis in axes)
    if any(not -ndim <= axis < ndim for axis in axes):
        raise FilterAxisError(f"axes must be from {-ndim} to {ndim - 1} for an image of {ndim} axes, got {axes}")
    axes = tuple(axis % ndim for axis in axes)
    if len(set(axes)) < len(axes):
        raise FilterArgumentError(f"axes must be unique, got {axes}")
    return axes


def one_an_axis(value, name, count):
    """`value` for each of `count` axes: a sequence has one value an axis, anything else is repeated."""
    if isinstance(value, str) or not np.iterable(value):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise FilterArgumentError(f"{name} must be a single value or one for each of {count} axes, got {value!r}")
    return values


def image_boundary(mode):
    """The boundary that a single `mode` of an image filter means."""
    if isinstance(mode, str) and mode in IMAGE_BOUNDARIES:
        return IMAGE_BOUNDARIES[mode]
    if isinstance(mode, str) or not np.iterable(mode):
        raise FilterArgumentError(f"mode must be one of {', '.join(IMAGE_BOUNDARIES)}, got {mode!r}")
    raise FilterArgumentError(f"mode must be a single name, which holds for all axes, got {mode!r}")


def image_boundaries(mode, count):
    return [image_boundary(m) for m in one_an_axis(mode, "mode", count)]


def image_cval(cval, image_dtype, weights_dtype=None):
    """The constant beyond the borders: a complex number for complex images, else a float, or an int as it is."""
    if type(cval) is int or type(cval) is float:
        return cval
    if isinstance(cval, (str, bytes)):
        raise TypeError(f"cval must be a number, got {cval!r}")
    if image_dtype.kind == "c":
        return complex(cval)
    if np.iscomplexobj(cval):
        # SciPy raises a ValueError where the weights are complex, and a TypeError elsewhere.
        error = ValueError if weights_dtype is not None and weights_dtype.kind == "c" else TypeError
        raise error(f"cval must be real, since the input is ({image_dtype}), got {cval!r}")
    return float(cval)


def filter_origin(origin, k):
    """A kernel of `k` weights may be shifted as long as it covers the pixel it is for."""
    origin = filter_integer(origin, "origin")
    if not -(k // 2) <= origin <= (k - 1) // 2:
        raise FilterArgumentError(
            f"origin must be such that the kernel still covers its pixel, for {k} weights along an axis from "
            f"{-(k // 2)} to {(k - 1) // 2} (as counted by correlate; convolve turns the sign), got {origin}"
        )
    return origin


def filter_size(size):
    """The size of a box along the one axis that is filtered."""
    size = filter_integer(size, "size")
    if size < 1:
        raise FilterArgumentError(f"size must be at least 1, got {size}")
    return _countable(size)


def box_size(size):
    """The size of a box along one of its axes. As in SciPy, fractions are cut off, and all below 2 is 1."""
    try:
        return int(_countable(size)) if size > 1 else 1
    except (TypeError, ValueError) as error:
        raise type(error)(f"size must be a number, or one for each axis, got {size!r}") from None


def _countable(size):
    if size > LARGEST:
        raise OverflowError(f"size must be at most 2**62, got {size}")
    return size


def filter_precision(precision):
    """True where the sums of narrower floats are to be taken in float64."""
    if precision is None:
        return False
    if precision != "float64":
        raise ValueError(f"precision must be None or 'float64', got {precision!r}")
    return True


def not_separable(weights, image, output):
    """method="separable" was asked for, and these weights, or these dtypes, do not allow it."""
    return ValueError(
        f"method='separable' needs weights that are an outer product of one vector an axis (of integers, if they are "
        f"integers), two axes or more, and sums that are not rounded to the output's dtype in between; got weights of "
        f"shape {weights.shape} and dtype {weights.dtype} for an image of {image.dtype} and an output of "
        f"{output.dtype}. method='auto' filters directly where that does not hold"
    )


def filter_output(output, image, complex_result=False, promote=False, stacklevel=4):
    """`output` in any of SciPy's forms (array, dtype, name of a dtype, None) as the array to fill.

    With `promote`, a real dtype stands for the complex one where the result is complex, and the warning of that is for
    the caller `stacklevel` calls up. A `complex_result` of None: `filter_kind` decides later, or nobody does.
    """
    if output is None:
        dtype = image.dtype if image.dtype.isnative else image.dtype.newbyteorder("=")
        return np.empty(image.shape, np.promote_types(dtype, np.complex64) if complex_result else dtype)
    if isinstance(output, (type, np.dtype)):
        dtype = np.dtype(output)
        if promote and complex_result and dtype.kind != "c":
            warnings.warn("promoting specified output dtype to complex", stacklevel=stacklevel)
            dtype = np.promote_types(dtype, np.complex64)
    elif isinstance(output, str):
        dtype = np.dtype(output)
        if not issubclass(dtype.type, np.number):
            raise FilterArgumentError(f"output must name a numeric dtype, got {output!r}")
    else:
        given = _array(output, "output")
        if given.shape != image.shape:
            raise FilterArgumentError(f"output must have the shape of input, {image.shape}, got {given.shape}")
        if not given.flags.writeable:
            raise ValueError("output must be writable, got a read-only array")
        dtype = given.dtype
    if dtype.char not in _IMAGE_DTYPES:
        raise FilterArgumentError(f"output must have a dtype of numbers up to 64 bits each, got {dtype}")
    if complex_result is not None:
        filter_kind(dtype, complex_result)
    return given if not isinstance(output, (type, np.dtype, str)) else np.empty(image.shape, dtype)


def filter_kind(dtype, complex_result):
    """The output is complex where the result is, and nowhere else."""
    if complex_result and dtype.kind != "c":
        raise FilterArgumentError(f"output must have a complex dtype, since the result is complex, got {dtype}")
    if dtype.kind == "c" and not complex_result:
        raise FilterArgumentError(f"output must have a real dtype, since the result is real, got {dtype}")


def filter_overflow(overflow, dtype, gaps=None):
    """"saturate" or "raise" where the output's integers follow it; None where they wrap, or there are none."""
    if overflow is None:
        return None
    one_of(overflow, "overflow", ("raise", "saturate", "wrap"))
    if overflow == "wrap" or dtype.kind not in "iu":
        return None
    if gaps is not None:
        raise ValueError(
            f"overflow={overflow!r} does not go with missing samples and an output of integers; pass output=float and "
            "convert the result"
        )
    return overflow


def filter_results(fit, dtype):
    """With overflow="raise", every result must be one that the output can hold."""
    if not fit:
        raise OverflowError(
            f"overflow: some results lie outside {dtype}, or are NaN; pass output= a wider dtype, or "
            "overflow='saturate' or 'wrap'"
        )


def missing_samples(where, nan_policy, keep_nan, min_weight, return_weight):
    """These arguments as a tuple; None: no sample is missing, and nothing is asked about that."""
    if (
        where is None
        and nan_policy == "propagate"
        and keep_nan is False
        and return_weight is False
        and type(min_weight) is float
        and min_weight == 0
    ):
        return None
    one_of(nan_policy, "nan_policy", ("propagate", "omit", "raise"))
    min_weight = real(min_weight, "min_weight", minimum=0, maximum=1)
    return where, nan_policy, flag(keep_nan, "keep_nan"), min_weight, flag(return_weight, "return_weight")


def samples_used(where, image):
    """`where`, which is True where a sample is used, in the shape of the image."""
    where = _array(where, "where")
    if where.dtype != bool:
        raise TypeError(f"where must hold booleans, True where a sample is used, got dtype {where.dtype}")
    try:
        return np.broadcast_to(where, image.shape)
    except ValueError:
        hint = ""
        if image.shape[: where.ndim] == where.shape:
            hint = "; where[..., None] has one value for all channels of a pixel"
        raise ValueError(
            f"where must have the shape of input, {image.shape}, or one that broadcasts against it, got {where.shape}"
            + hint
        ) from None


def output_has_nan(output, image):
    """Where samples are missing, outputs may be NaN."""
    if output.dtype.kind not in "fc":
        raise FilterArgumentError(
            f"output must have a floating dtype where samples may be missing, since no other holds NaN, got "
            f"{output.dtype} for an image of {image.dtype}; pass output=float"
        )


def no_weight(arguments):
    """A length of gradients is no sum of weights."""
    if arguments.get("return_weight"):
        raise TypeError(
            "return_weight is not known to gaussian_gradient_magnitude, whose results are no sums of one set of weights"
        )


def nan_found(count, first):
    """nan_policy="raise", and there are some."""
    return ValueError(
        f"input has {count} NaN, the first one at index {first}; nan_policy='omit' leaves them out, 'propagate' "
        "lets them spread"
    )


class ZeroSigmaError(ValueError, ZeroDivisionError):
    """What SciPy reports as a ZeroDivisionError and the rest of pyconv as a ValueError."""


def gaussian_sigma(sigma):
    try:
        zero = float(sigma) == 0
    except (TypeError, ValueError) as error:
        raise type(error)(f"sigma must be a real number, got {sigma!r}") from None
    if zero:
        raise ZeroSigmaError("sigma must not be 0; gaussian_filter leaves an axis of sigma 0 as it is")
    return sigma


def gaussian_radius(sigma, truncate, radius):
    """Pixels on each side of the middle: `radius` where it is given."""
    if radius is None:
        radius = int(truncate * float(sigma) + 0.5)
    if not isinstance(radius, numbers.Integral) or radius < 0:
        raise ValueError(
            f"radius, or int(truncate * sigma + 0.5) in its place, must be a non-negative integer, got {radius!r}"
        )
    return int(radius)


def gaussian_order(order):
    if np.isscalar(order) and order == 0:
        return 0
    order = filter_integer(order, "order")
    if order < 0:
        raise ValueError(f"order must be at least 0, got {order}")
    return order


def name_of_scipy(module, name):
    """What SciPy's `module` calls `name`, for pyconv's module of that name, which has no such thing itself."""
    if not name.startswith("_"):
        try:
            theirs = importlib.import_module(f"scipy.{module}")
        except ImportError:
            raise AttributeError(
                f"pyconv.{module} has no {name!r} of its own, and SciPy, which may have it, is not installed"
            ) from None
        if hasattr(theirs, name):
            return getattr(theirs, name)
    raise AttributeError(f"neither pyconv.{module} nor scipy.{module} has {name!r}")


# ---- layers ----

# Every name a layer's padding_mode= knows, and the boundary it means ("reflect" is PyTorch's here).
LAYER_BOUNDARIES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "mirror",
    "mirror": "mirror",
    "replicate": "edge",
    "edge": "edge",
    "circular": "wrap",
    "wrap": "wrap",
    "symmetric": "symmetric",
}
PADDING_NAMES = {"valid": "valid", "full": "full", "same": "same", "same_upper": "same", "same_lower": "same_lower"}
LARGEST = 2**62                      # of any one number
LARGEST_PADDED = 2**61               # samples of a padded input, so that offsets stay inside 64 bits


def workers(value, available, name="workers"):
    """A number of threads: at least 1 (more than 1024 are not used), or negative to count back from `available()`."""
    if type(value) is int and 1 <= value <= 1024:
        return value
    value = integer(value, name)
    if value == 0:
        raise ValueError(f"{name} must be at least 1, or negative to count back from all workers; got 0")
    if value < 0:
        counted = available() + 1 + value
        if counted < 1:
            raise ValueError(f"{name}={value} counts back past the {available()} threads there are")
        return counted
    return min(value, 1024)


def sizes(value, name, minimum):
    """(whether one number was given, one number an axis)"""
    if np.iterable(value) and not isinstance(value, str):
        value = tuple(value)
        if not value:
            raise ValueError(f"{name} must have one number an axis, got {value!r}")
        return False, tuple(integer(v, name, minimum=minimum, maximum=LARGEST) for v in value)
    return True, (integer(value, name, minimum=minimum, maximum=LARGEST),)


def per_axis(value, name, ndim, minimum):
    """One integer for each of ndim axes, from one for all or one an axis."""
    if type(value) is int and minimum <= value <= LARGEST:
        return (value,) * ndim
    single, values = sizes(value, name, minimum)
    if single or len(values) == 1:
        return values * ndim
    if len(values) != ndim:
        raise ValueError(f"{name} must be one number or one for each of the {ndim} spatial axes, got {value!r}")
    return values


def padding_name(padding):
    if padding not in PADDING_NAMES:
        raise ValueError(f"padding must be numbers or one of {', '.join(PADDING_NAMES)}; got {padding!r}")
    return PADDING_NAMES[padding]


def padding_amounts(padding, ndim):
    """(before, after) for each of ndim axes."""
    if type(padding) is int and 0 <= padding <= LARGEST:
        return ((padding, padding),) * ndim
    if not np.iterable(padding):
        amount = integer(padding, "padding", minimum=0, maximum=LARGEST)
        return ((amount, amount),) * ndim
    axes = list(padding)
    if len(axes) != ndim and not (len(axes) == 1 and not np.iterable(axes[0])):
        hint = f"; for one (before, after) pair pass ({tuple(axes)},)" if ndim == 1 and len(axes) == 2 else ""
        raise ValueError(f"padding must be one amount, or one amount or one (before, after) pair for each of the "
                         f"{ndim} spatial axes, got {padding!r}{hint}")
    sides = []
    for axis in axes:
        pair = tuple(axis) if np.iterable(axis) else (axis, axis)
        if len(pair) != 2:
            raise ValueError(f"padding must have a (before, after) pair an axis, got {axis!r} in {padding!r}")
        sides.append(tuple(integer(amount, "padding", minimum=0, maximum=LARGEST) for amount in pair))
    return tuple(sides) if len(axes) == ndim else tuple(sides) * ndim


def kernel_fits(n, k, sides, dilation):
    for axis, (size, taps, (before, after), d) in enumerate(zip(n, k, sides, dilation, strict=True)):
        reach = d * (taps - 1) + 1
        if size + before + after < reach:
            raise ValueError(
                f"the kernel is larger than the padded input: along spatial axis {axis} a kernel of size {taps} with "
                f"dilation {d} spans {reach}, the input of size {size} with padding ({before}, {after}) "
                f"has {size + before + after}; input {tuple(n)}, kernel {tuple(k)}; pass more padding or a smaller "
                "kernel")
    padded_samples(n, sides, "input")


def padded_samples(n, sides, what):
    """That `what`, of size n, has no more samples than can be counted when padded."""
    if math.prod(size + before + after for size, (before, after) in zip(n, sides, strict=True)) > LARGEST_PADDED:
        raise ValueError(f"the padded {what} has more samples than 64-bit offsets reach: {what} {tuple(n)}, "
                         f"padding {tuple(sides)}")


def numeric_array(value, name):
    """`value` as an array of up to 64 bits a component."""
    if type(value) is not np.ndarray:
        if value is None:
            raise TypeError(f"{name} must be an array, got None")
        value = _array(value, name)
    if value.dtype.char not in _IMAGE_DTYPES:
        raise TypeError(f"{name} must be an array of numbers of up to 64 bits, got dtype {value.dtype}")
    return value


def layer_boundary(padding_mode):
    try:
        return LAYER_BOUNDARIES[padding_mode]
    except (KeyError, TypeError):
        raise ValueError(f"padding_mode must be one of {', '.join(LAYER_BOUNDARIES)}; got {padding_mode!r}") from None


def one_of(value, name, choices):
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def shape(value, name):
    """A shape, as a tuple of ints."""
    if type(value) is tuple and all([type(n) is int and 0 <= n <= LARGEST for n in value]):
        return value
    if isinstance(value, np.ndarray) and value.ndim > 1:
        raise TypeError(f"{name} must be a shape, a tuple of integers, got an array of shape {value.shape}: pass its "
                        ".shape")
    if isinstance(value, (str, bytes)) or not np.iterable(value):
        raise TypeError(f"{name} must be a shape, a tuple of integers, got {value!r} of type {type(value).__name__}")
    return tuple(integer(n, name, minimum=0, maximum=LARGEST) for n in value)


def convolution_shapes(input, weight, bias, ndim, groups, names=("input", "weight")):
    """That these shapes, of the arguments called `names`, belong together; returns groups."""
    input_name, weight_name = names
    _layer_axes(input, weight, ndim, names, "conv", "out_channels, in_channels / groups", "output")
    groups = integer(groups, "groups", minimum=1)
    channels = input[-ndim - 1]
    if channels % groups or weight[0] % groups:
        raise ValueError(f"groups must divide the channels of {input_name} and {weight_name}: groups={groups}, "
                         f"{input_name} has {channels} channels (shape {input}), {weight_name} {weight[0]} (shape "
                         f"{weight})")
    if channels != weight[1] * groups:
        raise ValueError(f"{weight_name} must have as many input channels as {input_name}: {weight_name} of shape "
                         f"{weight} with groups={groups} takes {weight[1] * groups} channels, {input_name} of shape "
                         f"{input} has {channels}")
    _kernel_and_bias(weight, weight_name, bias, weight[0])
    return groups


def transposed_shapes(input, weight, bias, ndim, groups, names=("input", "weight")):
    """`convolution_shapes` for a transposed convolution, whose weights are (C, O / groups) + kernel."""
    input_name, weight_name = names
    _layer_axes(input, weight, ndim, names, "conv_transpose", "in_channels, out_channels / groups", "input")
    groups = integer(groups, "groups", minimum=1)
    channels = input[-ndim - 1]
    if channels % groups:
        raise ValueError(f"groups must divide the channels of {input_name}: groups={groups}, {input_name} has "
                         f"{channels} channels (shape {input})")
    if channels != weight[0]:
        raise ValueError(f"{weight_name} must have as many input channels as {input_name}: {weight_name} of shape "
                         f"{weight} takes {weight[0]} channels, {input_name} of shape {input} has {channels}")
    if 0 in input[-ndim:]:
        raise ValueError(f"{input_name} must have no empty spatial axis, got shape {input}")
    _kernel_and_bias(weight, weight_name, bias, groups * weight[1])
    return groups


def _layer_axes(input, weight, ndim, names, function, channels, first):
    letters = "DHW"[-ndim:]
    input_name, weight_name = names
    if len(weight) != ndim + 2:
        kernel = " x ".join(f"k{c}".lower() for c in letters)
        hint = ""
        if len(weight) == ndim + 1:
            hint = f"; for one {first} channel pass {_with_axes(weight_name, weight, 1)}"
        elif len(weight) == ndim:
            hint = f"; for one input and one output channel pass {_with_axes(weight_name, weight, 2)}"
        raise ValueError(f"{weight_name} must have {ndim + 2} axes ({channels}, {kernel}), got shape {weight}{hint}")
    if len(input) not in (ndim + 1, ndim + 2):
        hint = ""
        if len(input) == ndim:
            hint = f"; for one channel pass {_with_axes(input_name, input, 1)}"
        elif 3 <= len(input) <= 5:
            hint = f"; {function}{len(input) - 2}d takes {len(input)} axes"
        raise ValueError(f"{input_name} must have {ndim + 2} axes (N, C, {', '.join(letters)}), or {ndim + 1} without "
                         f"the batch, got shape {input}{hint}")


def _is_shape(name):
    """Whether the argument of this name is the shape of an array, not an array."""
    return name.endswith(("_size", "_shape"))


def _with_axes(name, shape, count):
    """How to write an argument with axes of length 1 put before its own."""
    if _is_shape(name):
        return f"{name}={(1,) * count + tuple(shape)}"
    return f"{name}[{', '.join(['None'] * count)}]"


def _kernel_and_bias(weight, weight_name, bias, outputs):
    if 0 in weight[2:]:
        raise ValueError(f"{weight_name} must have no empty kernel axis, got shape {weight}")
    if bias is not None and bias != (outputs,):
        raise ValueError(f"bias must have one value for each of the {outputs} output channels, got shape {bias} for "
                         f"{weight_name} of shape {weight}")


def output_padding(amounts, output_size, smallest, stride, dilation):
    """What is added to each axis of a transposed convolution's output, of the `smallest` size."""
    ndim = len(smallest)
    limits = tuple(max(s, d) for s, d in zip(stride, dilation, strict=True))
    extra = per_axis(amounts, "output_padding", ndim, minimum=0)
    if output_size is None:
        if any(more >= limit for more, limit in zip(extra, limits, strict=True)):
            raise ValueError(f"output_padding must be below the larger of stride and dilation along every axis, below "
                             f"{limits} for stride {stride} and dilation {dilation}, got {amounts!r}")
        return extra
    single, size = sizes(output_size, "output_size", minimum=1)
    size = size * ndim if single else size
    if any(extra):
        raise ValueError(f"output_size and output_padding say the same: pass one of them, got "
                         f"output_size={output_size!r} and output_padding={amounts!r}")
    extra = tuple(n - least for n, least in zip(size, smallest, strict=False))
    if len(size) != ndim or not all(0 <= more < limit for more, limit in zip(extra, limits, strict=True)):
        largest = tuple(least + limit - 1 for least, limit in zip(smallest, limits, strict=True))
        raise ValueError(f"output_size must have one number for each of the {ndim} spatial axes, here from {smallest} "
                         f"to {largest}, got {output_size!r}")
    return extra


def something_is_left(size, n, k, stride, sides, dilation):
    if any(length < 1 for length in size):
        raise ValueError(f"padding must leave something of the output: padding {tuple(sides)} of an input of size "
                         f"{tuple(n)} under a kernel of size {tuple(k)}, stride {stride} and dilation {dilation}, "
                         f"makes it {size}")


def gradient_shape(gradient, output, name, shapes):
    """That a gradient of shape `gradient` has the output's; `shapes` are what that follows from, by name."""
    if gradient != output:
        given = " and ".join(f"{of} {value}" if _is_shape(of) else f"{of} of shape {value}"
                             for of, value in shapes.items())
        raise ValueError(f"{name} must have the shape of the output, {output}, as it follows from {given} and the "
                         f"other settings, got {gradient}")


def gradient_axes(gradient, ndim):
    if len(gradient) not in (ndim + 1, ndim + 2):
        raise ValueError(f"grad_output must have {ndim + 2} axes (N, O, {', '.join('o' + c for c in 'dhw'[-ndim:])}), "
                         f"or {ndim + 1} without the batch, got shape {gradient}")


def matrices(x, k):
    """Two plain 2-D arrays."""
    x, k = numeric_array(x, "x"), numeric_array(k, "k")
    matrix_shape(x.shape, "x")
    matrix_shape(k.shape, "k", empty=False)
    return x, k


def matrix_shape(shape, name, empty=True):
    if len(shape) != 2:
        hint = ""
        if len(shape) > 2 and not _is_shape(name):
            index = ", ".join("0" * (len(shape) - 2))
            hint = (f"; for images with channels or batches use conv2d, for one 2-D image of these pass "
                    f"{name}[{index}]")
        raise ValueError(f"{name} must be {'two numbers' if _is_shape(name) else 'a 2-D array'}, got shape "
                         f"{shape}{hint}")
    if not empty and 0 in shape:
        raise ValueError(f"{name} must not be empty, got shape {shape}")


def boundary_has_samples(n, sides, boundary, name):
    if boundary != "constant" and any(size == 0 and any(side) for size, side in zip(n, sides, strict=True)):
        raise ValueError(f"{name} has an axis of size 0, spatial size {tuple(n)}, which padding cannot continue with a "
                         f"boundary of {boundary!r}")


def output_shape(shape):
    """A shape whose bytes can be counted in 64 bits."""
    if math.prod(shape) * 16 > 2**63 - 1:
        raise ValueError(f"the output would have shape {shape}, more than 64 bits can count")
    return shape


def output_array(out, shape, result=None):
    """`out`, for a result of `shape`, and of a dtype `result`."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if out.dtype.char not in _IMAGE_DTYPES:
        raise TypeError(f"out must be an array of numbers of up to 64 bits, got dtype {out.dtype}")
    if result is not None and out.dtype != result:
        output_cast(result, out.dtype, "out")


def output_cast(result, dtype, name):
    """A result is stored as its own kind of number or a more general one; integers also in narrower integers."""
    fits = np.can_cast(result, dtype, "same_kind") or (result.kind in "iu" and dtype.kind in "iu")
    if dtype.char not in _IMAGE_DTYPES or dtype.kind == "b" or not fits:
        raise TypeError(f"{name} of dtype {dtype} cannot hold a result of dtype {result}: convert the arguments, or "
                        f"the result, with astype")


def result_dtype(dtype):
    try:
        return np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype must be a NumPy dtype, got {dtype!r}: {error}") from None


def constant(value, complex_too):
    if type(value) in (int, float):
        return value
    if isinstance(value, (str, bytes)) or np.ndim(value) != 0:
        raise TypeError(f"padding_value must be a number, got {value!r}")
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        if not complex_too:
            raise TypeError(f"padding_value must be real where input and weight are, got {value!r}")
        return complex(value)
    if not isinstance(value, numbers.Real) and not isinstance(value, np.ndarray):
        raise TypeError(f"padding_value must be a number, got {value!r}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def integer_constant(value):
    if not math.isfinite(value) or value != int(value):
        raise TypeError(f"padding_value must be an integer where input and weight are, got {value!r}")
    return int(value)


def method(value, methods, obstacle, weight, dtype, stride, dilation, groups):
    """A method's name; `obstacle` says why one by transforms does not apply to a settled layer, or None."""
    one_of(value, "method", methods)
    if value in ("winograd", "fft"):
        why_not = obstacle(value, weight, dtype, stride, dilation, groups)
        if why_not is not None:
            raise ValueError(f"method {value!r} does not apply to this convolution, since {why_not} (weight has shape "
                             f"{weight}); pass method='auto' or 'direct'")


# ---- plans ----


def planned_method(value):
    one_of(value, "method", ("auto", "direct", "winograd", "fft"))


def planned_result(dtype, weight_dtype):
    """The dtype that a plan computes in and returns: `dtype`, or that of the weights."""
    dtype = weight_dtype if dtype is None else result_dtype(dtype)
    if dtype.kind not in "fc":
        raise TypeError(f"dtype must be floating or complex for a plan, and is {dtype}: pass dtype=np.float32, say, or "
                        "call conv2d, which has exact integers")
    return dtype.newbyteorder("=")


def planned_shape(shape, sample, name):
    """That an array of `shape` is one image, or a batch, of the shape that was planned."""
    if shape[-3:] != sample or len(shape) > 4:
        raise ValueError(f"{name} must have shape {sample} or (N, {', '.join(map(str, sample))}), as planned, got "
                         f"{shape}; for other sizes make another plan")


def planned_dtype(dtype, planned, name):
    if dtype.kind == "c" and planned.kind != "c":
        raise TypeError(f"{name} must be real, since the plan is for {planned}, got dtype {dtype}")


def planned_batches(x, dy):
    if x != dy:
        raise ValueError(f"x and dy must have as many images, got batches of shape {x} and {dy}")


# ---- patches ----


def patch_size(kernel_size):
    """One number a spatial axis; a single number means two axes."""
    single, k = sizes(kernel_size, "kernel_size", minimum=1)
    return k * 2 if single else k


def leading_shape(shape, ndim, name):
    """The axes of a shape before its spatial ones: (), (C,) or (N, C)."""
    if not ndim <= len(shape) <= ndim + 2:
        raise ValueError(f"{name} must have the {ndim} spatial axes that kernel_size has numbers for (a single number "
                         f"means 2), and may have channels, or a batch and channels, before them; got shape "
                         f"{shape}")
    return shape[:-ndim]


def folded_size(output_size, ndim):
    """The spatial size of a folded image."""
    single, n = sizes(output_size, "output_size", minimum=1)
    if single:
        return n * ndim
    if len(n) != ndim:
        raise ValueError(f"output_size must have one number for each of the {ndim} spatial axes that kernel_size has, "
                         f"got {output_size!r}")
    return n


def folded_leading_shape(columns, k, positions):
    """The axes before the spatial ones, of the image that `columns` are patches of: (), (C,) or (N, C)."""
    taps, count = math.prod(k), math.prod(positions)
    if columns.ndim not in (2, 3) or columns.shape[-2] % taps or columns.shape[-1] != count:
        raise ValueError(f"input must be a matrix, or a batch of them, with a multiple of {taps} rows (patches of size "
                         f"{tuple(k)}) and {count} columns (positions, {tuple(positions)}), got shape {columns.shape}")
    channels = columns.shape[-2] // taps
    if columns.ndim == 2:
        return () if columns.shape[0] == taps else (channels,)
    return columns.shape[0], channels


# ---- deformable convolution ----

LARGEST_PLANE = 2**31 - 1            # pixels of a padded image, which the engine counts in 32 bits


def deformable_arrays(input, offset, weight, bias, mask):
    """input (N, C, H, W), offset, weight, bias and mask as real arrays, and whether input came without a batch."""
    names = ("input", "offset", "weight", "bias", "mask")
    arrays = [None if value is None and name in ("bias", "mask") else numeric_array(value, name)
              for name, value in zip(names, (input, offset, weight, bias, mask), strict=True)]
    for name, array in zip(names, arrays, strict=True):
        if array is not None and array.dtype.kind == "c":
            raise TypeError(f"{name} must be real, got dtype {array.dtype}: deformable convolution has no complex form")
    input, offset, weight, bias, mask = arrays
    if weight.ndim != 4:
        hint = "; for one output channel pass weight[None]" if weight.ndim == 3 else ""
        raise ValueError(f"weight must have 4 axes (out_channels, in_channels / groups, kh, kw), got shape "
                         f"{weight.shape}{hint}")
    if 0 in weight.shape[1:]:
        raise ValueError(f"weight must have an input channel and no empty kernel axis, got shape {weight.shape}")
    if input.ndim not in (3, 4):
        hint = "; for one channel pass input[None]" if input.ndim == 2 else ""
        raise ValueError(f"input must have 4 axes (N, C, H, W), or 3 without the batch, got shape {input.shape}{hint}")
    unbatched = input.ndim == 3
    if unbatched:
        input = input[None]
    channels, outputs = input.shape[1], weight.shape[0]
    if channels == 0 or channels % weight.shape[1] or outputs % (channels // weight.shape[1]):
        raise ValueError(f"weight must divide the channels of input into groups, and its outputs by as many: input of "
                         f"shape {input.shape} has {channels} channels, weight of shape {weight.shape} takes "
                         f"{weight.shape[1]} a group and has {outputs} outputs")
    if (input.shape[2] + 3) * (input.shape[3] + 2) > LARGEST_PLANE:
        raise ValueError(f"input must have fewer than 2**31 pixels a channel, its border counted, got shape "
                         f"{input.shape}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"bias must have one value for each of the {outputs} output channels, got shape {bias.shape} "
                         f"for weight of shape {weight.shape}")
    return input, offset, weight, bias, mask, unbatched


def deformable_samples(offset, mask, input, weight, size, unbatched):
    """offset and mask with a batch axis, for outputs of spatial `size`: 2 and 1 values a tap and offset group."""
    taps, batch = math.prod(weight.shape[2:]), input.shape[:1]
    rule = (f"for a weight of shape {weight.shape}, an input of shape {input.shape[1:] if unbatched else input.shape} "
            f"and an output of size {size}")
    leading = () if unbatched else batch
    groups, rest = divmod(offset.shape[-3], 2 * taps) if offset.ndim >= 3 else (0, 0)
    if groups == 0 or rest or offset.shape != (*leading, offset.shape[-3], *size):
        wanted = ", ".join(map(str, (*leading, "offset_groups * 2 * kh * kw", *size)))
        raise ValueError(f"offset must have shape ({wanted}), {2 * taps} channels an offset group, a pair (y, x) a "
                         f"tap, {rule}; got shape {offset.shape}")
    if input.shape[1] % groups:
        raise ValueError(f"offset must have offset groups that divide the channels of input: offset of shape "
                         f"{offset.shape} has {groups} of {2 * taps} channels, input {input.shape[1]} channels")
    if mask is not None and mask.shape != (*leading, groups * taps, *size):
        raise ValueError(f"mask must have shape {(*leading, groups * taps, *size)}, a value a tap, {rule}, "
                         f"with an offset of shape {offset.shape}, got shape {mask.shape}")
    if unbatched:
        offset, mask = offset[None], None if mask is None else mask[None]
    return offset, mask


def deformable_gradient(grad_output, shape, unbatched):
    """grad_output with a batch axis, for an output of `shape`."""
    grad_output = numeric_array(grad_output, "grad_output")
    if grad_output.dtype.kind == "c":
        raise TypeError(f"grad_output must be real, got dtype {grad_output.dtype}: deformable convolution has no "
                        "complex form")
    wanted = shape[1:] if unbatched else shape
    if grad_output.shape != wanted:
        raise ValueError(f"grad_output must have the shape of the output, {wanted}, got {grad_output.shape}")
    return grad_output[None] if unbatched else grad_output


# ---- sub-pixels ----


def shuffle_factor(value, name):
    return integer(value, name, minimum=1, maximum=2**20)


def shuffle_channels(x, r, name, factor_name):
    _image_axes(x, name)
    if x.shape[-3] % r**2:
        raise ValueError(f"{factor_name} squared must divide the channels of {name}: {factor_name}={r} makes one of "
                         f"every {r**2} channels, {name} has {x.shape[-3]} (shape {x.shape})")


def unshuffle_pixels(x, r, name, factor_name):
    _image_axes(x, name)
    if x.shape[-2] % r or x.shape[-1] % r:
        raise ValueError(f"{factor_name} must divide height and width of {name}: {factor_name}={r} does not divide "
                         f"{x.shape[-2:]} (shape {x.shape}); crop or pad {name} first")


def _image_axes(x, name):
    if x.ndim < 3:
        raise ValueError(f"{name} must have channels, height and width, (C, H, W), with any axes before them; got "
                         f"shape {x.shape}")


def upscale_channels(weight, r):
    if weight[0] % r**2:
        raise ValueError(f"upscale_factor squared must divide the output channels: upscale_factor={r} makes one of "
                         f"every {r**2} channels, weight has {weight[0]} (shape {weight})")


# ---- layers that hold weights ----


def flag(value, name):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def generator(rng):
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng must be a numpy.random.Generator, a seed or None, got {rng!r}: {error}") from None


def layer_groups(groups, in_channels, out_channels):
    groups = integer(groups, "groups", minimum=1)
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"groups must divide in_channels and out_channels, got groups={groups}, "
                         f"in_channels={in_channels}, out_channels={out_channels}")
    return groups


def layer_dtype(dtype):
    dtype = result_dtype(dtype).newbyteorder("=")
    if dtype.char not in _IMAGE_DTYPES or dtype.kind not in "fc":
        raise TypeError(f"dtype must be a floating or complex dtype of up to 64 bits a component, got {dtype}")
    return dtype


def layer_array(value, name, dtype):
    """`value` as an array that a layer of `dtype` can compute with."""
    value = numeric_array(value, name)
    if value.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(f"{name} must be real, since the layer is ({dtype}), got dtype {value.dtype}; make the layer "
                        "with dtype=np.complex64")
    return value


def real_array(value, name):
    value = numeric_array(value, name)
    if value.dtype.kind == "c":
        raise TypeError(f"{name} must be real, complex numbers have no order; got dtype {value.dtype}")
    return value


def layer_channels(x, in_channels, out_channels):
    if x.ndim == 2 and in_channels == out_channels == 1 or x.ndim in (3, 4) and x.shape[-3] == in_channels:
        return
    hint = ""
    if x.ndim == 2:
        hint = ("; for one channel pass x[None]" if in_channels == 1
                else "; a 2-D image fits a layer whose channel counts are both 1")
    elif x.ndim in (3, 4) and x.shape[-1] == in_channels:
        hint = "; for channels on the last axis pass np.moveaxis(x, -1, -3)"
    raise ValueError(f"x must have shape (N, {in_channels}, H, W) or ({in_channels}, H, W) for a layer of "
                     f"{in_channels} input channels, got shape {x.shape}{hint}")


def layer_gradient(dy, output_shape, layer, dtype=None):
    """`dy` as an array of exactly the shape that the layer's last call returned."""
    if output_shape is None:
        raise ValueError(f"{layer}.backward needs a call of the layer before it: the gradient depends on the input")
    dy = numeric_array(dy, "dy") if dtype is None else layer_array(dy, "dy", dtype)
    if dy.shape != output_shape:
        raise ValueError(f"dy must have the shape of what the last call of this {layer} returned, {output_shape}, got "
                         f"{dy.shape}; NumPy's broadcasting is not applied to gradients")
    return dy


def layer_parameter(value, name, shape, dtype):
    """A new weight or bias for a layer, in its dtype."""
    value = layer_array(value, name, dtype)
    if value.shape != shape:
        raise ValueError(f"{name} must keep its shape, {shape}, got {value.shape}")
    return value.astype(dtype, copy=not value.flags.writeable)


def layer(value, i):
    missing = [name for name in ("backward", "zero_grad", "step") if not callable(getattr(value, name, None))]
    if isinstance(value, type) or not callable(value) or missing:
        hint = ""
        if isinstance(value, (list, tuple)):
            hint = "; pass layers one by one: Sequential(*layers)"
        elif isinstance(value, type):
            hint = f"; {value.__name__} is a class, make one: {value.__name__}(...)"
        raise TypeError(f"layers must be callable and have backward, zero_grad and step, layer {i} is {value!r}{hint}")


def different_layers(layers):
    """Every call of a layer replaces the input that its backward goes by, so a layer has one place only."""
    names = {}

    def visit(layers, prefix):
        for i, layer in enumerate(layers):
            name = f"{prefix}{i}"
            if names.setdefault(id(layer), name) != name:
                raise ValueError(f"layers must be different objects, layer {name} is layer {names[id(layer)]} again, "
                                 f"{layer!r}: a layer remembers one input for its backward, so make another one")
            if hasattr(layer, "layers"):
                visit(layer.layers, f"{name}.")

    visit(layers, "")


# ---- receptive fields ----

_WINDOW = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}


def is_single_layer(value):
    """A tuple is one layer, (kernel_size, stride, padding, dilation), unless it begins with a layer."""
    return hasattr(value, "kernel_size") or (
        isinstance(value, tuple) and len(value) > 0 and not hasattr(value[0], "kernel_size"))


def layer_window(layer, name):
    """(kernel_size, stride, padding, dilation) of a layer in either form, not looked at yet."""
    if not isinstance(layer, tuple):
        return tuple(getattr(layer, name, default) for name, default in _WINDOW.items())
    if len(layer) > len(_WINDOW):
        raise ValueError(f"{name} must be (kernel_size, stride, padding, dilation) or begin so, got {len(layer)} "
                         f"values: {layer!r}; a tuple is one layer, several come in a list")
    return layer + tuple(_WINDOW.values())[len(layer):]


def layer_sequence(layers, name):
    if isinstance(layers, (str, bytes)) or not np.iterable(layers):
        raise TypeError(f"{name} must be a layer (with kernel_size, stride, padding and dilation), a tuple of these "
                        f"four, or a sequence of layers; got {layers!r} of type {type(layers).__name__}")
    return layers


def common_axes(windows, input_size):
    """(whether no one says how many axes there are, how many): one number for all axes may stand beside any count."""
    counts = {}
    for name, window in windows:
        for what, value in zip(_WINDOW, window, strict=True):
            if np.iterable(value) and not isinstance(value, str):
                counts.setdefault(len(list(value)), f"{name}: {what}={value!r}")
    if np.iterable(input_size) and not isinstance(input_size, str):
        counts.setdefault(len(list(input_size)), f"input_size={input_size!r}")
    if len(counts) > 1:
        raise ValueError(f"all layers must have the same number of axes, got {' and '.join(counts.values())}")
    return not counts, next(iter(counts), 1)


def output_index(index, ndim, output_size):
    """An output element's position, one number an axis; `output_size` is None where it is not known."""
    single, values = sizes(index, "output_index", 0)
    if len(values) != ndim:
        raise ValueError(f"output_index must have one number for each of the {ndim} axes, got {index!r}")
    if output_size is not None and any(i >= n for i, n in zip(values, output_size, strict=True)):
        raise ValueError(f"output_index must lie in the output, which has size {output_size}, got {index!r}")
    return values


# ---- learning ----


def learning_image(value, name, channel_axis):
    """`value` as (N, C, H, W): a 2-D image, an array that is so, or one whose channels are along `channel_axis`."""
    a = numeric_array(value, name)
    if a.dtype.kind == "c":
        raise TypeError(f"{name} must be real, got dtype {a.dtype}; real and imaginary part can be two channels")
    if a.ndim == 2:
        return a[None, None]
    if channel_axis is None:
        if a.ndim == 4:
            return a
        hint = (f"; for an image with channels say which axis they are, channel_axis="
                f"{0 if a.shape[0] < a.shape[2] else -1}" if a.ndim == 3 else "")
        raise ValueError(f"{name} must be a 2-D image or an array (N, C, H, W), got shape {a.shape}{hint}")
    if a.ndim not in (3, 4):
        raise ValueError(f"{name} must have 2 axes, or 3 or 4 with channel_axis={channel_axis}, got shape {a.shape}")
    axis = normalize_axis_index(integer(channel_axis, "channel_axis"), a.ndim, "channel_axis")
    return np.moveaxis(a, axis, 0)[None] if a.ndim == 3 else np.moveaxis(a, axis, 1)


def learning_pair(input, target, channel_axis, groups):
    """(input and target as (N, C, H, W) and (N, O, oh, ow), groups)"""
    x, t = learning_image(input, "input", channel_axis), learning_image(target, "target", channel_axis)
    shapes = f"input of shape {np.shape(input)}, target of shape {np.shape(target)}"
    if np.ndim(input) != np.ndim(target) and 4 in (np.ndim(input), np.ndim(target)):
        raise ValueError(f"target must be a batch (N, C, H, W) where input is one, and a single image where it is: "
                         f"{shapes}")
    if x.shape[0] != t.shape[0]:
        raise ValueError(f"target must have as many images as input: {shapes}")
    if not x.shape[0]:
        raise ValueError(f"input and target must have at least one image: {shapes}")
    groups = integer(groups, "groups", minimum=1)
    if x.shape[1] % groups or t.shape[1] % groups or not x.shape[1] or not t.shape[1]:
        raise ValueError(f"groups must divide the channels of input and target, {x.shape[1]} and {t.shape[1]}, got "
                         f"groups={groups}: {shapes}")
    return x, t, groups


def learning_dtype(dtype, input, target):
    """The kernel's dtype: by default float32 where the images are no wider floats, else float64."""
    if dtype is None:
        floats = [a.dtype for a in (input, target) if a.dtype.kind == "f"]
        return np.result_type(np.float32, *floats) if floats else np.dtype(np.float64)
    dtype = result_dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def no_such_target(t, n, k, stride, dilation, expected):
    """`expected`: what the target's spatial size could be, in words."""
    return ValueError(f"target must have spatial size {expected}, for an input of size {tuple(n)} and a kernel of "
                      f"size {tuple(k)} with stride {tuple(stride)}, dilation {tuple(dilation)}; got {t.shape[2:]}")


def no_interior_window(n, k, dilation):
    return ValueError(f"no window of the kernel lies inside the input: input of size {tuple(n)}, kernel_size "
                      f"{tuple(k)}, dilation {tuple(dilation)}; pass a smaller kernel_size, or padding= to go beyond "
                      f"the borders")


def pixel_weights(where, weights, t):
    """What each pixel of a target (N, O, oh, ow) counts, as booleans or numbers (N, oh, ow), or None for all 1."""
    if where is not None:
        where = _one_a_pixel(where, "where", t)
        if where.dtype != bool:
            raise TypeError(f"where must hold booleans, True where the target is used, got dtype {where.dtype}; "
                            "pass numbers as weights=")
    if weights is not None:
        weights = _one_a_pixel(weights, "weights", t)
        if weights.dtype.kind == "c":
            raise TypeError(f"weights must be real, got dtype {weights.dtype}")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError("weights must be finite and not negative; where=False leaves pixels out")
    used = weights if where is None else where if weights is None else where * weights
    if used is not None and not used.any():
        names = " and ".join(name for name, a in (("where", where), ("weights", weights)) if a is not None)
        raise ValueError(f"{names} must leave at least one pixel of the target to compare")
    return used


def _one_a_pixel(value, name, t):
    a = numeric_array(value, name)
    images, _, *size = t.shape
    flat = a[:, 0] if a.ndim == 4 and a.shape[1] == 1 else a[None] if a.ndim == 2 else a
    if flat.ndim != 3 or list(flat.shape[1:]) != size or flat.shape[0] not in (1, images):
        raise ValueError(f"{name} must have one value for each pixel of the target, the same for all channels: shape "
                         f"{tuple(size)}, or {(images, *size)} for each image its own; got {a.shape}")
    return np.broadcast_to(flat, (images, *size))


def descent_numbers(lr, steps, momentum):
    if lr is not None:
        lr = real(lr, "lr")
        if lr <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
    if steps is not None:
        steps = integer(steps, "steps", minimum=1)
    if momentum is not None:
        momentum = real(momentum, "momentum", minimum=0)
        if momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {momentum}")
    return lr, steps, momentum


def initial_kernel(init, rng, shape):
    """`init` in float64, or None; `rng` as a generator, or None."""
    if init is not None and rng is not None:
        raise ValueError("init and rng cannot both be given: init says where to start, rng draws it")
    if rng is not None:
        try:
            rng = np.random.default_rng(rng)
        except (TypeError, ValueError) as error:
            raise type(error)(f"rng must be a seed or a numpy.random.Generator, got {rng!r}: {error}") from None
    if init is not None:
        init = numeric_array(init, "init")
        if init.dtype.kind == "c":
            raise TypeError(f"init must be real, got dtype {init.dtype}")
        if init.shape != shape:
            raise ValueError(f"init must have the kernel's shape {shape}, got {init.shape}")
        init = init.astype(np.float64)
        if not np.isfinite(init).all():
            raise ValueError("init must be finite")
    return init, rng


def callback_function(callback):
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of (step, loss, kernel), got {type(callback).__name__}")


# ---- signals ----


class SignalArgumentError(ValueError, TypeError):
    """What SciPy reports as the one or the other, depending on the way a call takes: code for either catches it."""


class EmptySignalError(ValueError, IndexError):
    """SciPy raises an IndexError where its Fourier transforms find nothing to transform, else a ValueError."""


# Of these SciPy takes care, where it is installed: long doubles and Python's objects.
_WIDE_DTYPES = "gGO"

SIGNAL_MODES = ("full", "valid", "same")

# Every name that boundary= knows, and the boundary it means.
SIGNAL_BOUNDARIES = {
    "fill": "constant",
    "pad": "constant",
    "wrap": "wrap",
    "circular": "wrap",
    "symm": "symmetric",
    "symmetric": "symmetric",
}


PLAIN_DTYPES = frozenset(_IMAGE_DTYPES)


def largest_magnitude(dtype):
    """Of the integers of a dtype, booleans among them."""
    return 1 if dtype.kind == "b" else max(-int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def signals(in1, in2, name1="in1", name2="in2"):
    """Both as arrays; True where only SciPy knows their dtype."""
    in1, in2 = _array(in1, name1), _array(in2, name2)
    if in1.dtype.char in _WIDE_DTYPES or in2.dtype.char in _WIDE_DTYPES:
        return in1, in2, True
    for value, name in ((in1, name1), (in2, name2)):
        if value.dtype.char not in _IMAGE_DTYPES:
            raise SignalArgumentError(f"{name} must be an array of numbers, got dtype {value.dtype}")
    return in1, in2, False


def no_scipy_for(function, in1, in2):
    return SignalArgumentError(
        f"{function} takes numbers of up to 64 bits a component, got dtypes {in1.dtype} and {in2.dtype}; SciPy, which "
        "would take these, is not installed"
    )


def same_axes(in1, in2, name1="in1", name2="in2"):
    if in1.ndim != in2.ndim:
        raise ValueError(
            f"{name1} and {name2} must have the same number of axes, got shapes {in1.shape} and {in2.shape}; insert "
            "axes of length 1 with None"
        )


def two_axes(in1, in2):
    if not in1.ndim == in2.ndim == 2:
        raise ValueError(f"in1 and in2 must be 2-D, got shapes {in1.shape} and {in2.shape}")


def signal_mode(mode):
    if not isinstance(mode, str) or mode not in SIGNAL_MODES:
        error = ValueError if isinstance(mode, str) else SignalArgumentError
        raise error(f"mode must be 'full', 'valid' or 'same', got {mode!r}")


def signal_method(method):
    if not isinstance(method, str) or method not in ("auto", "direct", "fft"):
        raise ValueError(f"method must be 'auto', 'direct' or 'fft', got {method!r}")


def one_contains_the_other(n, k):
    """In mode "valid": whether the second is the larger one."""
    if all(a >= b for a, b in zip(n, k, strict=True)):
        return False
    if all(a <= b for a, b in zip(n, k, strict=True)):
        return True
    raise ValueError(f"in mode 'valid' one array must be at least as large as the other along every axis, got shapes "
                     f"{n} and {k}")


def signal_boundary(boundary):
    if isinstance(boundary, str) and boundary in SIGNAL_BOUNDARIES:
        return SIGNAL_BOUNDARIES[boundary]
    error = ValueError if isinstance(boundary, str) else SignalArgumentError
    raise error(f"boundary must be one of {', '.join(SIGNAL_BOUNDARIES)}; got {boundary!r}")


def signal_fillvalue(fillvalue, dtype):
    """What stands beyond the borders, as a Python number that `dtype` can hold."""
    if type(fillvalue) is int and fillvalue == 0:
        return 0
    value = np.asarray(fillvalue if type(fillvalue) is not int or dtype.kind in "iu" else float(fillvalue))
    if value.size != 1 or value.dtype.kind not in "biufc":
        if fillvalue is None and dtype.kind in "fc":
            return math.nan
        raise SignalArgumentError(f"fillvalue must be a number, got {fillvalue!r}")
    number = value.reshape(()).item() if value.dtype.char not in "gG" else complex(value.reshape(()))
    if isinstance(number, complex) and dtype.kind != "c":
        if number.imag:
            raise ValueError(f"fillvalue must be real, since the arrays are ({dtype}), got {fillvalue!r}")
        number = number.real
    if dtype.kind in "iu":
        if not math.isfinite(number) or not np.iinfo(dtype).min <= int(number) <= np.iinfo(dtype).max:
            raise ValueError(f"fillvalue must fit {dtype}, the dtype of the result, got {fillvalue!r}")
        return int(number)
    return complex(number) if dtype.kind == "c" else float(number)


def boundary_needs_samples(n, k, boundary):
    if boundary != "constant":
        raise ValueError(f"in1 must not be empty under boundary {boundary!r}, got shapes {n} and {k}")


def full_size(n, k):
    """The shape of the full convolution of two arrays, either of which may be empty."""
    size = tuple(a + b - 1 for a, b in zip(n, k, strict=True))
    if min(size, default=0) < 0:
        raise ValueError(f"in1 and in2 must not both be empty along an axis, got shapes {n} and {k}")
    return size


def not_empty(in1, in2, mode, method, name1="in1", name2="in2"):
    """The shape of the zeros that SciPy makes of empty arrays; most it refuses."""
    n, k = in1.shape, in2.shape
    if method != "fft" and in1.ndim > 1 or mode == "same" and method == "auto":
        if mode == "same" and in2.size and all(k):
            return n
        if mode == "valid":
            one_contains_the_other(n, k)
            return tuple(abs(a - b) + 1 for a, b in zip(n, k, strict=True))
    raise EmptySignalError(f"{name1} and {name2} must not be empty, got shapes {n} and {k}")


def no_booleans(in1, in2, function):
    if in1.dtype.kind == in2.dtype.kind == "b":
        raise ValueError(f"{function} of two arrays of booleans is not defined; convert one of them with astype(int)")


def signal_axes(axes, n, k):
    """The axes to convolve along, counted from the front, whether they are named or not; others must agree."""
    ndim = len(n)
    if axes is None:
        return tuple(range(ndim))
    given = axes
    try:
        axes = tuple(operator.index(axis) for axis in (axes if np.iterable(axes) else (axes,)))
    except TypeError:
        raise SignalArgumentError(f"axes must be an integer or a sequence of integers, got {given!r}") from None
    if not axes:
        raise ValueError("axes must name at least one axis, got none; None names all")
    if any(not -ndim <= axis < ndim for axis in axes):
        raise ValueError(f"axes must be from {-ndim} to {ndim - 1} for arrays of {ndim} axes, got {given!r}")
    axes = tuple(axis % ndim for axis in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axes must be unique, got {given!r}")
    if any(axis not in axes and n[axis] != k[axis] and 1 not in (n[axis], k[axis]) for axis in range(ndim)):
        raise ValueError(f"in1 and in2 must have the same length, or length 1, along axes that are not convolved, got "
                         f"shapes {n} and {k} and axes={given!r}")
    return axes
