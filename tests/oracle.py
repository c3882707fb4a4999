"""The first witness: cross-correlation, its gradients and the transposed convolution by plain NumPy loops, and the
comparisons the tests are judged by.

Nothing here is fast or clever. Arrays are (N, C, *spatial), weights (O, C // groups, *kernel); the arithmetic
is done in whatever dtype the arrays have, so that float64, int64, Python integers (object arrays) and complex
all work.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

BOUNDARIES = ("constant", "edge", "symmetric", "mirror", "wrap")

# The names a layer's padding_mode= accepts for each boundary: PyTorch's and the unambiguous one.
PADDING_MODES = {
    "zeros": "constant",
    "reflect": "mirror",
    "replicate": "edge",
    "circular": "wrap",
    "constant": "constant",
    "symmetric": "symmetric",
    "mirror": "mirror",
    "edge": "edge",
    "wrap": "wrap",
}

# u is the unit roundoff and eta the smallest subnormal, by the dtype of one real component.
UNIT_ROUNDOFF = {"float16": Fraction(1, 2**11), "float32": Fraction(1, 2**24), "float64": Fraction(1, 2**53)}
SMALLEST_SUBNORMAL = {
    "float16": Fraction(1, 2**24),
    "float32": Fraction(1, 2**149),
    "float64": Fraction(1, 2**1074),
}


# ------------------------------------------------------------------------------------------------
# Geometry


def source_index(i, n, boundary):
    """The index in 0..n-1 from which position `i` of a padded axis of length `n` takes its value.

    None stands for the constant. The picture is continued one bounce or one period at a time, so any distance
    outside is right.
    """
    if 0 <= i < n:
        return i
    if boundary == "constant":
        return None
    if n == 0:
        raise ValueError("an empty axis has nothing to continue")
    if boundary == "edge":
        return 0 if i < 0 else n - 1
    if boundary == "mirror" and n == 1:
        return 0
    while not 0 <= i < n:
        if boundary == "wrap":
            i = i + n if i < 0 else i - n
        elif boundary == "symmetric":
            i = -1 - i if i < 0 else 2 * n - 1 - i
        elif boundary == "mirror":
            i = -i if i < 0 else 2 * (n - 1) - i
        else:
            raise ValueError(f"unknown boundary {boundary!r}")
    return i


def pad(x, widths, boundary="constant", cval=0):
    """`x` with its last len(widths) axes padded by `widths`, one (before, after) pair an axis."""
    for axis, (before, after) in enumerate(widths, start=x.ndim - len(widths)):
        n = x.shape[axis]
        slices = []
        for i in range(-before, n + after):
            j = source_index(i, n, boundary)
            if j is None:
                slices.append(np.full_like(x.take([0], axis) if n else x.sum(axis, keepdims=True), cval))
            else:
                slices.append(x.take([j], axis))
        x = np.concatenate(slices, axis) if slices else x
    return x


def fold_border(padded, widths, boundary="constant"):
    """The adjoint of `pad`: each padded position is added to the sample it was taken from, the constant's dropped."""
    x = padded
    for axis, (before, after) in enumerate(widths, start=padded.ndim - len(widths)):
        n = x.shape[axis] - before - after
        folded = np.zeros((*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype)
        for i in range(x.shape[axis]):
            j = source_index(i - before, n, boundary)
            if j is not None:
                folded[(slice(None),) * axis + (j,)] += x.take(i, axis)
        x = folded
    return x


def pairs(padding, size, kernel, stride, dilation):
    """`padding` in any of its forms as one (before, after) pair an axis; the other arguments are tuples."""
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0) for _ in size]
        if padding == "full":
            return [(r, r) for r in reach]
        widths = []
        for n, r, s in zip(size, reach, stride, strict=True):
            total = max((-(-n // s) - 1) * s + r + 1 - n, 0)
            small, large = total // 2, total - total // 2
            widths.append(
                {"same": (small, large), "same_upper": (small, large), "same_lower": (large, small)}[padding]
            )
        return widths
    if isinstance(padding, int):
        padding = (padding,) * len(size)
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def output_size(size, kernel, stride, widths, dilation):
    """floor((n + before + after - dilation * (k - 1) - 1) / stride) + 1 along every axis."""
    return tuple(
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, k, s, (before, after), d in zip(size, kernel, stride, widths, dilation, strict=True)
    )


def tap_slices(tap, out_size, stride, dilation):
    """The slices of the padded axes that one tap multiplies: tap * dilation + output index * stride."""
    return tuple(
        slice(t * d, t * d + (o - 1) * s + 1, s)
        for t, o, s, d in zip(tap, out_size, stride, dilation, strict=True)
    )


# ------------------------------------------------------------------------------------------------
# Correlation and its matrix form


def correlate(x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, boundary="constant", cval=0):
    """Cross-correlation of x (N, C, *spatial) with w (O, C // groups, *kernel), summed tap by tap."""
    size, kernel = x.shape[2:], w.shape[2:]
    stride = (stride,) * len(size) if isinstance(stride, int) else stride
    dilation = (dilation,) * len(size) if isinstance(dilation, int) else dilation
    widths = pairs(padding, size, kernel, stride, dilation)
    out_size = output_size(size, kernel, stride, widths, dilation)
    padded = pad(x, widths, boundary, cval)
    channels, outputs = x.shape[1] // groups, w.shape[0] // groups
    y = np.zeros((x.shape[0], w.shape[0], *out_size), np.result_type(x, w))
    for group in range(groups):
        xg = padded[:, group * channels : (group + 1) * channels]
        og = slice(group * outputs, (group + 1) * outputs)
        for tap in itertools.product(*map(range, kernel)):
            window = xg[(slice(None), slice(None), *tap_slices(tap, out_size, stride, dilation))]
            # einsum multiplies every pair; BLAS may skip weights of zero, and with them 0 * NaN.
            with np.errstate(invalid="ignore", over="ignore"):
                y[:, og] += np.einsum("oc,nc...->no...", w[og, :, *tap], window)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(size))
    return y


def convolve_full(a, b, mode="full"):
    """Convolution of two arrays in their own dtype, as long as both together, or the part that a signal's `mode` is."""
    full = np.zeros([n + k - 1 for n, k in zip(a.shape, b.shape, strict=True)], np.result_type(a, b))
    for tap in np.ndindex(b.shape):
        full[tuple(slice(t, t + n) for t, n in zip(tap, a.shape, strict=True))] += a * b[tap]
    if mode == "same":
        kept = [slice((k - 1) // 2, (k - 1) // 2 + n) for n, k in zip(a.shape, b.shape, strict=True)]
    elif mode == "valid":
        kept = [slice(min(n, k) - 1, max(n, k)) for n, k in zip(a.shape, b.shape, strict=True)]
    else:
        kept = [slice(None)] * a.ndim
    return full[tuple(kept)]


def unfold(x, kernel, *, stride=1, padding=0, dilation=1, boundary="constant", cval=0):
    """im2col of x (N, C, *spatial): (N, C * prod(kernel), L), patches in row order of their positions."""
    size = x.shape[2:]
    stride = (stride,) * len(size) if isinstance(stride, int) else stride
    dilation = (dilation,) * len(size) if isinstance(dilation, int) else dilation
    widths = pairs(padding, size, kernel, stride, dilation)
    out_size = output_size(size, kernel, stride, widths, dilation)
    padded = pad(x, widths, boundary, cval)
    columns = np.empty((x.shape[0], x.shape[1] * int(np.prod(kernel)), int(np.prod(out_size))), x.dtype)
    for position, out_index in enumerate(itertools.product(*map(range, out_size))):
        patch = padded[
            (
                slice(None),
                slice(None),
                *(
                    slice(o * s, o * s + d * (k - 1) + 1, d)
                    for o, s, d, k in zip(out_index, stride, dilation, kernel, strict=True)
                ),
            )
        ]
        columns[:, :, position] = patch.reshape(x.shape[0], columns.shape[1])
    return columns


def fold(columns, size, kernel, *, stride=1, padding=0, dilation=1, boundary="constant"):
    """col2im, the adjoint of `unfold`: every patch is added where it came from, a constant border is dropped."""
    stride = (stride,) * len(size) if isinstance(stride, int) else stride
    dilation = (dilation,) * len(size) if isinstance(dilation, int) else dilation
    widths = pairs(padding, size, kernel, stride, dilation)
    out_size = output_size(size, kernel, stride, widths, dilation)
    channels = columns.shape[1] // int(np.prod(kernel))
    blocks = columns.reshape(columns.shape[0], channels, *kernel, *out_size)
    padded_size = [n + before + after for n, (before, after) in zip(size, widths, strict=True)]
    image = np.zeros((columns.shape[0], channels, *padded_size), columns.dtype)
    for tap in itertools.product(*map(range, kernel)):
        image[(slice(None), slice(None), *tap_slices(tap, out_size, stride, dilation))] += blocks[:, :, *tap]
    return fold_border(image, widths, boundary)


# ------------------------------------------------------------------------------------------------
# Gradients of the correlation: `correlate` step by step, backwards


def dinput(size, w, g, *, stride=1, padding=0, dilation=1, groups=1, boundary="constant"):
    """Gradient of `correlate` with respect to x of spatial size `size`, from that with respect to its result."""
    kernel = w.shape[2:]
    stride = (stride,) * len(size) if isinstance(stride, int) else stride
    dilation = (dilation,) * len(size) if isinstance(dilation, int) else dilation
    widths = pairs(padding, size, kernel, stride, dilation)
    assert g.shape[2:] == output_size(size, kernel, stride, widths, dilation)
    channels, outputs = w.shape[1], w.shape[0] // groups
    padded_size = [n + before + after for n, (before, after) in zip(size, widths, strict=True)]
    dpadded = np.zeros((g.shape[0], channels * groups, *padded_size), np.result_type(w, g))
    for group in range(groups):
        dgroup = dpadded[:, group * channels : (group + 1) * channels]
        og = slice(group * outputs, (group + 1) * outputs)
        for tap in itertools.product(*map(range, kernel)):
            with np.errstate(invalid="ignore", over="ignore"):
                dgroup[(slice(None), slice(None), *tap_slices(tap, g.shape[2:], stride, dilation))] += np.einsum(
                    "oc,no...->nc...", w[og, :, *tap].conj(), g[:, og]
                )
    with np.errstate(invalid="ignore", over="ignore"):
        return fold_border(dpadded, widths, boundary)


def dweight(x, kernel, g, *, stride=1, padding=0, dilation=1, groups=1, boundary="constant", cval=0):
    """Gradient of `correlate` with respect to w of kernel size `kernel`."""
    size, out_size = x.shape[2:], g.shape[2:]
    stride = (stride,) * len(size) if isinstance(stride, int) else stride
    dilation = (dilation,) * len(size) if isinstance(dilation, int) else dilation
    widths = pairs(padding, size, kernel, stride, dilation)
    assert out_size == output_size(size, kernel, stride, widths, dilation)
    padded = pad(x, widths, boundary, cval)
    channels, outputs = x.shape[1] // groups, g.shape[1] // groups
    dw = np.zeros((g.shape[1], channels, *kernel), np.result_type(x, g))
    for group in range(groups):
        xg = padded[:, group * channels : (group + 1) * channels]
        og = slice(group * outputs, (group + 1) * outputs)
        for tap in itertools.product(*map(range, kernel)):
            window = xg[(slice(None), slice(None), *tap_slices(tap, out_size, stride, dilation))]
            dw[og, :, *tap] = _sum_over_positions(g[:, og], window.conj())
    return dw


def dbias(g):
    """Gradient of `correlate` with respect to the bias."""
    return g.sum(axis=(0, *range(2, g.ndim)))


def _sum_over_positions(a, b):
    """The sum over batch and positions of a[n, i, position] * b[n, j, position], for every i and j."""
    length = int(np.prod(a.shape[2:]))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.einsum("nil,njl->ij", a.reshape(*a.shape[:2], length), b.reshape(*b.shape[:2], length))


# ------------------------------------------------------------------------------------------------
# Transposed convolution


def transposed_size(size, kernel, stride, widths, output_padding, dilation):
    """(n - 1) * stride - before - after + dilation * (k - 1) + output_padding + 1 along every axis."""
    return tuple(
        (n - 1) * s - before - after + d * (k - 1) + extra + 1
        for n, k, s, (before, after), extra, d in zip(
            size, kernel, stride, widths, output_padding, dilation, strict=True
        )
    )


def conv_transpose(x, w, bias=None, *, stride, padding, output_padding, groups=1, dilation):
    """Transposed convolution of x (N, C, *spatial) with w (C, O // groups, *kernel): every sample of x scatters its
    kernel. Geometry: a tuple an argument, padding in pairs."""
    size, kernel = x.shape[2:], w.shape[2:]
    channels, outputs = x.shape[1] // groups, w.shape[1]
    whole_size = transposed_size(size, kernel, stride, [(0, 0)] * len(size), output_padding, dilation)
    whole = np.zeros((x.shape[0], outputs * groups, *whole_size), np.result_type(x, w))
    for group in range(groups):
        cg = slice(group * channels, (group + 1) * channels)
        yg = whole[:, group * outputs : (group + 1) * outputs]
        for tap in itertools.product(*map(range, kernel)):
            with np.errstate(invalid="ignore", over="ignore"):
                yg[(slice(None), slice(None), *tap_slices(tap, size, stride, dilation))] += np.einsum(
                    "co,nc...->no...", w[cg, :, *tap], x[:, cg]
                )
    y = fold_border(whole, padding)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(size))


def conv_transpose_dinput(size, w, g, *, stride, padding, output_padding, groups=1, dilation):
    """Gradient of `conv_transpose` with respect to x: every sample gathers what its kernel was scattered to."""
    assert g.shape[2:] == transposed_size(size, w.shape[2:], stride, padding, output_padding, dilation)
    dx = correlate(g, w.conj(), stride=stride, padding=padding, groups=groups, dilation=dilation)
    # Output padding as large as the stride makes room for positions that x does not have.
    return dx[(slice(None), slice(None), *map(slice, size))]


def conv_transpose_dweight(x, kernel, g, *, stride, padding, output_padding, groups=1, dilation):
    """Gradient of `conv_transpose` with respect to w of kernel size `kernel`."""
    size = x.shape[2:]
    assert g.shape[2:] == transposed_size(size, kernel, stride, padding, output_padding, dilation)
    channels, outputs = x.shape[1] // groups, g.shape[1] // groups
    padded = pad(g, padding)
    dw = np.zeros((x.shape[1], outputs, *kernel), np.result_type(x, g))
    for group in range(groups):
        cg = slice(group * channels, (group + 1) * channels)
        gg = padded[:, group * outputs : (group + 1) * outputs]
        for tap in itertools.product(*map(range, kernel)):
            window = gg[(slice(None), slice(None), *tap_slices(tap, size, stride, dilation))]
            dw[cg, :, *tap] = _sum_over_positions(x[:, cg].conj(), window)
    return dw


# ------------------------------------------------------------------------------------------------
# Deformable convolution


def interpolate(image, y, x):
    """(value, slope along y, slope along x) of `image` (C, H, W) at (y, x), interpolated within the cell that
    begins at (floor(y), floor(x)); pixels outside are zero, and so is a value at or beyond one pixel outside."""
    height, width = image.shape[1:]

    def pixel(i, j):
        inside = 0 <= i < height and 0 <= j < width
        return image[:, i, j] if inside else np.zeros(image.shape[0], image.dtype)

    if not (-1 <= y < height and -1 <= x < width):
        zero = np.zeros(image.shape[0], image.dtype)
        return zero, zero, zero
    i, j = int(np.floor(y)), int(np.floor(x))
    ly, lx = y - i, x - j
    upper = (1 - lx) * pixel(i, j) + lx * pixel(i, j + 1)
    lower = (1 - lx) * pixel(i + 1, j) + lx * pixel(i + 1, j + 1)
    left = (1 - ly) * pixel(i, j) + ly * pixel(i + 1, j)
    right = (1 - ly) * pixel(i, j + 1) + ly * pixel(i + 1, j + 1)
    return (1 - ly) * upper + ly * lower, lower - upper, right - left


def deform_windows(x, offset, kernel, stride, padding, dilation):
    """Every sample of a deformable convolution: (n, offset group, tap, i, j, y, x)."""
    widths = pairs(padding, x.shape[2:], kernel, stride, dilation)
    groups = offset.shape[1] // (2 * kernel[0] * kernel[1])
    # The channels of offset: for each group, for each tap (ky, kx), y and x.
    offset = offset.reshape(x.shape[0], groups, *kernel, 2, *offset.shape[2:])
    for n, group, ky, kx, i, j in np.ndindex(*offset.shape[:4], *offset.shape[5:]):
        dy, dx = offset[n, group, ky, kx, :, i, j]
        y = i * stride[0] - widths[0][0] + ky * dilation[0] + dy
        x_ = j * stride[1] - widths[1][0] + kx * dilation[1] + dx
        yield n, group, ky * kernel[1] + kx, i, j, y, x_


def deform_correlate(x, offset, w, bias=None, *, stride=(1, 1), padding=0, dilation=(1, 1), mask=None):
    """Deformable convolution of x (N, C, H, W), sample by sample."""
    y, _ = deform_columns(x, offset, w, stride, padding, dilation, mask)
    return y if bias is None else y + bias[:, None, None]


def deform_columns(x, offset, w, stride, padding, dilation, mask):
    """(the convolution without bias, the samples it takes, (N, C, taps, oh, ow))"""
    kernel = w.shape[2:]
    taps = kernel[0] * kernel[1]
    columns = np.zeros((*x.shape[:2], taps, *offset.shape[2:]), np.result_type(x, offset))
    offset_groups = offset.shape[1] // (2 * taps)
    channels = x.shape[1] // offset_groups
    for n, group, tap, i, j, y, x_ in deform_windows(x, offset, kernel, stride, padding, dilation):
        own = slice(group * channels, (group + 1) * channels)
        value = interpolate(x[n, own], y, x_)[0]
        columns[n, own, tap, i, j] = value if mask is None else value * mask[n, group * taps + tap, i, j]
    y = np.zeros((x.shape[0], w.shape[0], *offset.shape[2:]), columns.dtype)
    outputs = w.shape[0] // (x.shape[1] // w.shape[1])
    for o in range(w.shape[0]):
        first = o // outputs * w.shape[1]
        for c in range(w.shape[1]):
            for tap in range(taps):
                y[:, o] += w[o, c].reshape(-1)[tap] * columns[:, first + c, tap]
    return y, columns


def deform_gradients(x, offset, w, dy, *, stride=(1, 1), padding=0, dilation=(1, 1), mask=None):
    """(dinput, doffset, dweight, dbias, dmask) of `deform_correlate`."""
    kernel = w.shape[2:]
    taps = kernel[0] * kernel[1]
    _, columns = deform_columns(x, offset, w, stride, padding, dilation, mask)
    dcolumns, dw = np.zeros_like(columns), np.zeros((*w.shape[:2], taps))
    outputs = w.shape[0] // (x.shape[1] // w.shape[1])
    for o in range(w.shape[0]):
        first = o // outputs * w.shape[1]
        for c in range(w.shape[1]):
            for tap in range(taps):
                dcolumns[:, first + c, tap] += w[o, c].reshape(-1)[tap] * dy[:, o]
                dw[o, c, tap] = (dy[:, o] * columns[:, first + c, tap]).sum()
    dx, doffset = np.zeros_like(x), np.zeros_like(offset)
    dmask = None if mask is None else np.zeros_like(mask)
    channels = x.shape[1] // (offset.shape[1] // (2 * taps))
    for n, group, tap, i, j, y, x_ in deform_windows(x, offset, kernel, stride, padding, dilation):
        own = slice(group * channels, (group + 1) * channels)
        factor = 1.0 if mask is None else mask[n, group * taps + tap, i, j]
        gradient = dcolumns[n, own, tap, i, j]
        value, slope_y, slope_x = interpolate(x[n, own], y, x_)
        at = 2 * (group * taps + tap)
        doffset[n, at, i, j] = (gradient * slope_y).sum() * factor
        doffset[n, at + 1, i, j] = (gradient * slope_x).sum() * factor
        if mask is not None:
            dmask[n, group * taps + tap, i, j] = (gradient * value).sum()
        if not (-1 < y < x.shape[2] and -1 < x_ < x.shape[3]):
            continue
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x_)), int(np.floor(x_)) + 1):
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                    share = (1 - abs(y - row)) * (1 - abs(x_ - column))
                    dx[n, own, row, column] += share * factor * gradient
    return dx, doffset, dw.reshape(w.shape), dy.sum(axis=(0, 2, 3)), dmask


# ------------------------------------------------------------------------------------------------
# Exact values of floating-point sums


def to_integers(a):
    """A finite float array as Python integers and an exponent e: a == integers * 2**e, exactly."""
    mantissa, exponent = np.frexp(np.asarray(a, np.float64))
    integers = (mantissa * 2.0**53).astype(np.int64)
    exponent = np.where(integers == 0, 0, exponent - 53)
    lowest = int(exponent.min(initial=0))
    shifted = [int(m) << (int(e) - lowest) for m, e in zip(integers.flat, exponent.flat, strict=True)]
    out = np.empty(integers.shape, object)
    out.reshape(-1)[:] = shifted
    return out, lowest


def to_fractions(integers, exponent):
    """integers * 2**exponent as an object array of Fractions."""
    scale = Fraction(2) ** exponent
    out = np.empty(integers.shape, object)
    out.reshape(-1)[:] = [int(i) * scale for i in integers.flat]
    return out


def exact_correlate(x, w, bias=None, *, cval=0.0, **geometry):
    """(y, |x| * |w| + |bias|) of real floating arrays as Fractions: no rounding anywhere."""
    # One exponent serves image and padding value: both are put into one array first.
    joined, ex = to_integers(np.append(np.asarray(x, np.float64).ravel(), float(cval)))
    xi, ci = joined[:-1].reshape(x.shape), joined[-1]
    wi, ew = to_integers(w)
    y = to_fractions(correlate(xi, wi, cval=ci, **geometry), ex + ew)
    magnitude = to_fractions(correlate(abs(xi), abs(wi), cval=abs(ci), **geometry), ex + ew)
    if bias is not None:
        b = to_fractions(*to_integers(bias)).reshape(-1, *[1] * (x.ndim - 2))
        y, magnitude = y + b, magnitude + abs(b)
    return y, magnitude


def exact_bilinear(function, a, b):
    """(function(a, b), function(|a|, |b|)) as Fractions, for a function linear in each of two real floating arrays."""
    ai, ea = to_integers(a)
    bi, eb = to_integers(b)
    return to_fractions(function(ai, bi), ea + eb), to_fractions(function(abs(ai), abs(bi)), ea + eb)


# ------------------------------------------------------------------------------------------------
# Comparisons


def error_bound(magnitude, terms, computed, returned):
    """(n + 2) u (|x| * |w|) + (n + 2) eta, and one more rounding where the result is narrower."""
    u, eta = UNIT_ROUNDOFF[computed], SMALLEST_SUBNORMAL[computed]
    bound = (terms + 2) * (u * magnitude + eta)
    if returned != computed:
        bound = bound + UNIT_ROUNDOFF[returned] * (magnitude + bound) + SMALLEST_SUBNORMAL[returned] / 2
    return bound


def assert_within(actual, exact, bound):
    """|actual - exact| <= bound at every element; `exact` and `bound` are Fractions."""
    assert actual.shape == exact.shape, f"shape {actual.shape}, should be {exact.shape}"
    bound = np.broadcast_to(bound, exact.shape)
    for index in np.ndindex(actual.shape):
        value = float(actual[index])
        assert np.isfinite(value), f"{value} at {index}, should be {float(exact[index])!r}"
        error = abs(Fraction(value) - exact[index])
        assert error <= bound[index], (
            f"{value!r} at {index}, should be {float(exact[index])!r}: "
            f"off by {float(error):.3g}, allowed {float(bound[index]):.3g}"
        )


def assert_correlation(actual, x, w, bias=None, *, computed, **geometry):
    """The elementwise accuracy rule of methods "direct" and "im2col", for real and for complex arrays."""
    terms = int(np.prod(w.shape[1:]))
    if np.iscomplexobj(actual):
        returned = actual.real.dtype.name
        # A complex product is two real terms in each component.
        zero = None if bias is None else bias.imag
        cval = geometry.pop("cval", 0.0)
        parts = {}
        for a, b in itertools.product(("real", "imag"), repeat=2):
            first = (a, b) == ("real", "real")
            parts[a, b] = exact_correlate(
                getattr(x, a), getattr(w, b), bias.real if first and bias is not None else None,
                cval=getattr(complex(cval), a), **geometry,
            )  # fmt: skip
        real = parts["real", "real"][0] - parts["imag", "imag"][0]
        real_magnitude = parts["real", "real"][1] + parts["imag", "imag"][1]
        imag = parts["real", "imag"][0] + parts["imag", "real"][0]
        imag_magnitude = parts["real", "imag"][1] + parts["imag", "real"][1]
        if zero is not None:
            b = to_fractions(*to_integers(zero)).reshape(-1, *[1] * (x.ndim - 2))
            imag, imag_magnitude = imag + b, imag_magnitude + abs(b)
        assert_within(actual.real, real, error_bound(real_magnitude, 2 * terms, computed, returned))
        assert_within(actual.imag, imag, error_bound(imag_magnitude, 2 * terms, computed, returned))
    else:
        exact, magnitude = exact_correlate(x, w, bias, **geometry)
        assert_within(actual, exact, error_bound(magnitude, terms, computed, actual.dtype.name))


def assert_bilinear(actual, function, a, b, *, terms, computed):
    """The elementwise accuracy rule for sums of products a * conj(b): `terms` of them, a number or one an element.

    `function(a, b)` takes real arrays, for which it is linear in both.
    """
    terms = np.asarray(terms).astype(object)
    if not np.iscomplexobj(actual):
        exact, magnitude = exact_bilinear(function, a, b)
        assert_within(actual, exact, error_bound(magnitude, terms, computed, actual.dtype.name))
        return
    returned = actual.real.dtype.name
    parts = {
        (p, q): exact_bilinear(function, getattr(a, p), getattr(b, q))
        for p, q in itertools.product(("real", "imag"), repeat=2)
    }
    (rr, rr_magnitude), (ii, ii_magnitude) = parts["real", "real"], parts["imag", "imag"]
    (ir, ir_magnitude), (ri, ri_magnitude) = parts["imag", "real"], parts["real", "imag"]
    # A complex product is two real terms in each component.
    real_bound = error_bound(rr_magnitude + ii_magnitude, 2 * terms, computed, returned)
    imag_bound = error_bound(ir_magnitude + ri_magnitude, 2 * terms, computed, returned)
    assert_within(actual.real, rr + ii, real_bound)
    assert_within(actual.imag, ir - ri, imag_bound)


def assert_same_values(actual, expected):
    """Equal shapes and equal values, NaN equal to NaN; the dtypes may differ."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, should be {expected.shape}"
    same = (actual == expected) | ((actual != actual) & (expected != expected))
    if not same.all():
        index = tuple(int(i) for i in np.argwhere(~same)[0])
        count = int((~same).sum())
        raise AssertionError(
            f"{actual[index]!r} at {index}, should be {expected[index]!r}; {count} elements differ"
        )


def assert_same_bits(actual, expected):
    """Equal dtypes, shapes and bits: -0.0 is not 0.0."""
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, should be {expected.dtype}"
    assert actual.shape == expected.shape, f"shape {actual.shape}, should be {expected.shape}"
    size = actual.dtype.itemsize
    a = np.frombuffer(actual.tobytes(), np.uint8).reshape(-1, size)
    b = np.frombuffer(expected.tobytes(), np.uint8).reshape(-1, size)
    different = (a != b).any(axis=1)
    if different.any():
        index = tuple(int(i) for i in np.unravel_index(int(different.argmax()), actual.shape))
        raise AssertionError(
            f"{actual[index]!r} at {index}, should be {expected[index]!r} bit for bit; "
            f"{int(different.sum())} elements differ"
        )


def assert_same_class(actual, expected):
    """NaN, +Inf and -Inf at the same places, real and imaginary parts apart."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, should be {expected.shape}"
    if np.iscomplexobj(actual) or np.iscomplexobj(expected):
        assert_same_class(actual.real, expected.real)
        assert_same_class(actual.imag, expected.imag)
        return
    for what, test in (("NaN", np.isnan), ("+Inf", np.isposinf), ("-Inf", np.isneginf)):
        wrong = test(actual) != test(expected)
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(
                f"{actual[index]!r} at {index}, should be {expected[index]!r}: {what} is misplaced"
            )
