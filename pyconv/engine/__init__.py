"""The engine: every convolution of pyconv ends in a call of `correlate` or, of image filters with one pass an axis,
`separable` (a small `corr2d`, or image filter, takes a shorter way in).

One idea: everything irregular goes into one copy, and the arithmetic sees only unit-stride loads ::

    input, any strides, dtype        band.pxi                       tile.pxi               output, any strides, dtype
    +------------------------+   +----------------------+   +------------------------+   +----------------------+
    | a block of rows and    |-->| the band: padded,    |-->| R x NV vectors of sums |-->| bias, dtype, ragged  |
    | columns, its channels  |   | split by stride      |   | over (c, ky, kx), in   |   | edge                 |
    |                        |   | phase, in the dtype  |   | that order, from a     |   |                      |
    +------------------------+   | computed in          |   | table of tap offsets   |   +----------------------+
                                 +----------------------+   +------------------------+

A *unit* is one such block. Units are independent, OpenMP threads take them one after the other, and a thread's band and
scratch are its workspace, taken before the parallel region from what earlier calls have left (`memory.pxi`); its size
follows the kernel's reach, not the image's. `threads.pxi` has the loop over units.
No padded image, no im2col matrix and no converted copy of the input is ever made.

Two plans cut a problem into units:

`channels.pxi`
    Several output channels. A tile is R output channels x NV vectors of columns. The rows of a band follow one another
    at one pitch, so a tile may run across their ends; what falls between two rows is not stored. A stride s splits the
    band into the phases modulo s, so that its columns too are loaded with unit stride; dilation only changes the table.
    Where many output channels share the copy, every tap may have a phase of its own: no sum is then computed in vain.
    Taps that read only zero padding are left out, strip by strip, and in blocks of columns cut where they end.
    Or vectors run over output channels, and each position of the output broadcasts the samples it reads, from the input
    itself where that is plain: no band, no padding, no sum in vain (`outputs.pxi`). A plan packs its weights for them.
`rows.pxi`
    One output channel a group: single images, depthwise layers, filters in any number of dims. A tile is R output rows
    x NV vectors of columns, and each loaded input row is used for all the output rows that it feeds. Away from the left
    and right border the input is read where it lies.

`fft.pxi`, which opens with its own picture, transforms tiles instead: large kernels of one channel at stride 1. What
comes out not finite is computed again by these plans. A long signal is a matrix of overlapping rows to it (`fft_line`).

All tiles add the products of one output in the same order into one accumulator (but for `pairs`, below), so the bits do
not depend on the plan, the number of threads, the batch or the memory layout.

Filters that run along one axis after the other have both passes in one trip through memory (`separable.pyx`, which
opens with its own picture): the sums down the columns of a few rows stay in the cache until those along the rows have
read them. The bits are those of two calls of `correlate`.

Gradients are made of the same parts. That of the input is, for each residue modulo the stride, a correlation of the
output's gradient with some of the taps, turned round (`input_gradient`); its weights have input and output channels
exchanged, in a copy (`exchange.pxi`) or as they are read. With one input channel a group all residues run in one pass,
which writes whole rows (`rows.pxi`). That of the weights (`weights.pxi`) turns the
band channels last, so that the tile sums vectors of input channels over positions; with few input channels, it is dot
products along the rows. Or it is the adjoint of nested Winograd convolution (`winograd_weights.pxi`, with its picture).

Deformable convolution (`deform.pyx`, which opens with its own picture) reads anywhere in an image, and so does make a
padded copy of it, channels last; it samples into columns, a panel of pixels at a time, and ends in the same tiles.

Images with missing samples are filtered twice, they and their mask; `missing.pyx` is what comes before and after.

The kernels (`direct.pyx`, `separable.pyx`, `deform.pyx`, `missing.pyx` and the files they include) are built once for
each computing dtype, float32, float64 and, direct only, int64, and each instruction-set level. `vector.h` defines the
two types that make one source serve all of them. This module picks the highest level that the processor has, or the one
that the environment variable PYCONV_ISA names.

Engine functions check nothing: their arguments have been through `pyconv._check`.
"""
import functools
import importlib.util
import itertools
import math
import os

import numpy as np

try:
    from . import _cpu, _recall
except ImportError as error:
    raise ImportError(f"pyconv is not compiled in {os.path.dirname(os.path.dirname(__file__)) or '.'}: run "
                      "`pip install -e .` there, or leave that folder to use an installed pyconv") from error

CONSTANT, EDGE, SYMMETRIC, MIRROR, WRAP = range(5)
BOUNDARIES = {"constant": CONSTANT, "edge": EDGE, "symmetric": SYMMETRIC, "mirror": MIRROR, "wrap": WRAP}

_LEVELS = ("baseline", "v3", "v4")
_MOST_JOINED = 8                     # residues of an axis whose samples are written together
_SLAB_ELEMENTS = 2**20               # of a border, as many of its slices as are folded back at a time


def _available_levels():
    """The levels that were built and that this processor runs, lowest first."""
    return tuple(level for level in _LEVELS[:_cpu.level() + 1]
                 if importlib.util.find_spec(f"{__name__}._direct_f32_{level}") is not None)


def _pick_level(available):
    wanted = os.environ.get("PYCONV_ISA")
    if not wanted:
        return available[-1]
    if wanted not in available:
        raise ImportError(f"PYCONV_ISA is {wanted!r}; this machine and build have {', '.join(available)}")
    return wanted


levels = _available_levels()
level = _pick_level(levels)
compiler = _cpu.compiler
openmp = _cpu.openmp
Recall = _recall.Recall

_kernels = {dtype: importlib.import_module(f"{__name__}._direct_{short}_{level}")
            for dtype, short in ((np.dtype(np.float32), "f32"), (np.dtype(np.float64), "f64"),
                                 (np.dtype(np.int64), "i64"))}
_deform_kernels = {dtype: importlib.import_module(f"{__name__}._deform_{short}_{level}")
                   for dtype, short in ((np.dtype(np.float32), "f32"), (np.dtype(np.float64), "f64"))}
SERIAL_BELOW = _kernels[np.dtype(np.float32)].serial_below()     # products: a second thread takes more than it gives
_separable_kernels = {dtype: importlib.import_module(f"{__name__}._separable_{short}_{level}")
                      for dtype, short in ((np.dtype(np.float32), "f32"), (np.dtype(np.float64), "f64"))}
_missing_kernels = {dtype: importlib.import_module(f"{__name__}._missing_{short}_{level}")
                    for dtype, short in ((np.dtype(np.float32), "f32"), (np.dtype(np.float64), "f64"))}
_small = {dtype: kernels.small_corr2d for dtype, kernels in _kernels.items() if dtype.kind == "f"}


def small_corr2d(x, k, *settings):
    """corr2d of two small plain float32 or float64 arrays, or None: the general way is needed."""
    run = _small.get(x.dtype) if type(x) is np.ndarray else None
    return None if run is None else run(x, k, *settings)


def small_correlate(w, *settings):
    """A function of x, out and constant: `correlate` of an image and w, (1, C) + kernel, with (before, boundary,
    skip_zeros, fused, pairs) as settings, without axes for batch and channels, each of which is x; all dtypes are real.
    It returns False, and nothing is done, where the general way is needed."""
    return functools.partial(_kernels[w.dtype].small_correlate, w, *settings)


def fma_gflops(dtype, workers):
    """What this machine's multiply-add units can do, in GFLOP/s: a loop on registers alone, on `workers` threads."""
    return _kernels[np.dtype(dtype)].fma_gflops(workers)


def correlate(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
              skip_zeros=False, fused=True, pairs=0, upscale=1, order=None, kept=None):
    """Cross-correlate x with w into out.

    Parameters
    ----------
    x : ndarray, batch (`nbatch` axes) + (C,) + spatial
        Any numeric dtype, strides, alignment and byte order.
    w : ndarray, (O, C // groups) + kernel
        C-contiguous; its dtype, float32, float64, int64 or a complex one, is the one computed in.
    bias : ndarray, (O,), or None
        Of w's dtype.
    out : ndarray, batch + (O,) + spatial
        Any numeric dtype and strides; shares no memory with x. Its shape decides how far the input is read.
    nbatch, groups : int
    stride, dilation, before, boundary : tuple of int
        For each spatial axis; `before` is the padding before the first sample (negative: so many samples are left
        out), `boundary` one of this module's codes.
    constant : number
        What stands outside under the boundary CONSTANT.
    workers : int
    skip_zeros : bool
        A weight of exactly zero is no tap. Honoured for one output channel a group.
    fused : bool
        Whether a product and the sum it goes into are rounded once, or each. Honoured for one output channel a group.
    pairs : int
        1 or -1: w is one-dimensional, odd-sized and even or odd about its middle; it is summed as by
        scipy.ndimage.correlate1d.
    upscale : int
        r above 1, with two spatial axes: out is batch + (O // r**2, r * oh, r * ow), and output channel
        c * r * r + i * r + j goes to out[..., c, i::r, j::r].
    order : ndarray of int64, or None
        Shaped like the kernel: w is (C, O // groups) + its own kernel, and the weight from input channel c to output
        channel o at tap t is w[c, o, order[t]] (order counts taps in one line).
    kept : dict, optional
        Where what is made of real weights is kept for other calls with the same w, groups, order and kernel.
    """
    if not (out.flags.aligned and out.dtype.isnative):
        native = np.empty(out.shape, out.dtype.newbyteorder("="))
        correlate(x, w, bias, native, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                  skip_zeros, fused, pairs, upscale, order, kept)
        out[...] = native
        return
    if "c" in (x.dtype.kind, w.dtype.kind, out.dtype.kind):
        if order is not None:
            w = _exchanged(w, groups, order)
        _correlate_complex(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                           skip_zeros, fused, pairs, upscale)
        return
    _run(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, 0.0, 1, workers, skip_zeros,
         fused, pairs, upscale, order, kept)


def _channels_last(x, out, axis):
    """Whether the batch axis `axis` counts the samples of an image's pixels: then it is an image whose columns are so
    many samples wide, and filtered without a transposed copy."""
    pixel = x.shape[axis]
    return (1 < pixel <= 16 and x.strides[axis] == x.itemsize and x.strides[-1] == pixel * x.itemsize
            and out.strides[axis] == out.itemsize and out.strides[-1] == pixel * out.itemsize)


def _run(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, constant_imag, x_parts,
         workers, skip_zeros, fused, pairs, upscale, order=None, kept=None):
    interleaved = (nbatch > 0 and x_parts == 1 and (w.shape[0] if order is None else groups * w.shape[1]) == 1
                   and stride[-1] == 1 and _channels_last(x, out, nbatch - 1))
    _kernels[w.dtype].correlate(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant,
                                constant_imag, x_parts, interleaved, workers, skip_zeros, fused, pairs, upscale, order,
                                kept)


def part_weights(w, part):
    """The real weights, (O, 2 * C // groups) + kernel, that take both parts of complex channels to one part of the
    output: 0 the real one, 1 the imaginary one."""
    both = np.empty((*w.shape[:2], 2, *w.shape[2:]), w.real.dtype)
    both[:, :, part] = w.real
    both[:, :, 1 - part] = w.imag if part else -w.imag
    return both.reshape(w.shape[0], -1, *w.shape[2:])


def _correlate_complex(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                       skip_zeros, fused, pairs, upscale):
    """A complex problem is one real problem for each part of the output, over both parts of the input as channels."""
    constant = complex(constant)
    if constant.imag and x.dtype.kind != "c":
        x = x.astype(np.result_type(x, np.complex64))
    settings = nbatch, groups, stride, dilation, before, boundary
    if x.dtype.kind == "c" and w.dtype.kind == "c":
        parts = np.lib.stride_tricks.as_strided(x.real, (*x.shape, 2), (*x.strides, x.itemsize // 2))
    for part, out_part in enumerate((out.real, out.imag) if out.dtype.kind == "c" else (out,)):
        bias_part = None if bias is None else np.ascontiguousarray((bias.real, bias.imag)[part])
        if x.dtype.kind == "c" and w.dtype.kind == "c":
            w_part = part_weights(w, part)
            _run(parts, w_part, bias_part, out_part, *settings, constant.real, constant.imag, 2, workers, skip_zeros,
                 fused, pairs, upscale)
        elif w.dtype.kind == "c":
            w_part = np.ascontiguousarray((w.real, w.imag)[part])
            _run(x, w_part, bias_part, out_part, *settings, constant.real, 0.0, 1, workers, skip_zeros, fused, pairs,
                 upscale)
        else:
            x_part, constant_part = (x.real, constant.real) if part == 0 else (x.imag, constant.imag)
            _run(x_part, w, bias_part, out_part, *settings, constant_part, 0.0, 1, workers, skip_zeros, fused, pairs,
                 upscale)


# F(m, r): m x m outputs at a time of r x r taps.
WINOGRAD_VARIANTS = ((2, 3), (4, 3), (3, 3), (4, 4), (4, 5), (4, 2), (3, 4))


def winograd_weights(w, groups, m, r, workers, exchanged=False, stride=(1, 1)):
    """The weights of `winograd`, transformed: a new array."""
    kernels = _kernels[w.dtype]
    u = np.empty(kernels.winograd_size(w, groups, stride, m, r, exchanged), w.dtype)
    kernels.winograd_weights(w, u, groups, stride, m, r, exchanged, workers)
    return u


def winograd(x, w, u, bias, out, nbatch, groups, before, boundary, constant, workers, m, r, exchanged=False,
             skip_zeros=False, stride=(1, 1), dilation=(1, 1)):
    """`correlate` with two spatial axes, none of them strided and dilated, by F(m, r), and with one block of taps, of
    every phase modulo the stride, unless m == r.

    Parameters
    ----------
    u : ndarray, or None
        What `winograd_weights` made of w, which is finite, float32 or float64.
    m, r : int
        One of `WINOGRAD_VARIANTS`.
    exchanged : bool
        w is (C, O // groups) + kernel, and its taps are taken from last to first.
    skip_zeros : bool
        As in `correlate`.

    Others as there. Outputs that are not finite are computed again as by `correlate`.
    """
    if not (out.flags.aligned and out.dtype.isnative):
        native = np.empty(out.shape, out.dtype.newbyteorder("="))
        winograd(x, w, u, bias, native, nbatch, groups, before, boundary, constant, workers, m, r, exchanged,
                 skip_zeros, stride, dilation)
        out[...] = native
        return
    order = np.arange(w[0, 0].size)[::-1].reshape(w.shape[2:]) if exchanged else None
    blocks = _kernels[w.dtype].winograd(x, w, u, bias, out, nbatch, groups, stride, dilation, before, boundary,
                                        constant, workers, m, r,
                                        None if order is None else np.ascontiguousarray(order))
    if blocks and exchanged:
        w = _exchanged(w, groups, order)
    outputs = w.shape[0] // groups
    for n, group, o0, o1, rows, columns in blocks:
        _mend(x, w, bias, out, nbatch, n, group, group * outputs + o0, group * outputs + o1, rows, columns, stride,
              dilation, before, boundary, constant, workers, skip_zeros)


def _mend(x, w, bias, out, nbatch, n, group, o0, o1, rows, columns, stride, dilation, before, boundary, constant,
          workers, skip_zeros):
    """Compute again, by `correlate`, what is not finite in a window of image n and the output channels o0 to o1: in
    every `rows.step`-th of some rows, and in some columns."""
    image = np.unravel_index(n, x.shape[:nbatch]) if nbatch else ()
    block = out[(*image, slice(o0, o1), rows, columns)]
    # An integer does not tell what it was before.
    wrong = ~np.isfinite(block) if block.dtype.kind == "f" else np.ones(block.shape, bool)
    if wrong.any():
        direct = np.empty(block.shape, block.dtype)
        correlate(x[(*image, slice(group * w.shape[1], (group + 1) * w.shape[1]))], w[o0:o1],
                  None if bias is None else bias[o0:o1], direct, 0, 1, (stride[0] * (rows.step or 1), stride[1]),
                  dilation, (before[0] - stride[0] * rows.start, before[1] - stride[1] * columns.start), boundary,
                  constant, workers, skip_zeros)
        np.copyto(block, direct, where=wrong)


def transformed_weights(w, groups, variant, workers, exchanged=False, stride=(1, 1)):
    """What `winograd_weights` or `fft_weights` makes of w, by the method that `variant` belongs to."""
    if len(variant) == 2:
        return winograd_weights(w, groups, *variant, workers, exchanged, stride)
    return fft_weights(_turned_round(w, exchanged), *variant, workers)


def correlate_transformed(x, w, u, bias, out, nbatch, groups, before, boundary, constant, workers, variant,
                          exchanged=False, skip_zeros=False, stride=(1, 1), dilation=(1, 1)):
    """`correlate` by `winograd`, if `variant` is (m, r), or by `fft`, if it is (tile,)."""
    settings = nbatch, groups, before, boundary, constant, workers, *variant
    if len(variant) == 2:
        winograd(x, w, u, bias, out, *settings, exchanged, skip_zeros, stride, dilation)
    else:
        fft(x, _turned_round(w, exchanged), u, bias, out, *settings, skip_zeros)


def transformed_workspace_bytes(x, w, u, out, nbatch, groups, before, boundary, workers, variant, stride=(1, 1),
                                dilation=(1, 1)):
    """What `correlate_transformed` of such arrays takes for itself, all threads together."""
    settings = before, boundary, 0.0, workers, *variant
    if len(variant) == 2:
        return _kernels[w.dtype].winograd(x, w, u, None, out, nbatch, groups, stride, dilation, *settings, None,
                                         False)
    settings = nbatch, groups, *settings
    return _kernels[w.dtype].fft(x, w, u, None, out, *settings, False)


def _turned_round(w, exchanged):
    """Weights of one input and one output channel a group, their taps from last to first if they are exchanged."""
    return np.ascontiguousarray(w[:, :, ::-1, ::-1]) if exchanged else w


def separable(x, down, along, out, nbatch, before, boundary, constant, workers, skip_zeros=False, fused=True,
              pairs=(0, 0), divisors=(0, 0), rounded=False, check=False, along_constant=None):
    """Cross-correlate x with `down` along its last axis but one, and the result with `along` along its last axis.

    The bits are those of two calls of `correlate`, with an array of out's dtype (`rounded`) or of the dtype computed in
    between them.

    Parameters
    ----------
    x : ndarray, batch (`nbatch` axes) + (H, W)
        Any numeric dtype, strides, alignment and byte order.
    down, along : ndarray, (kh,) and (kw,)
        Contiguous, of one dtype: that computed in, float32 or float64.
    out : ndarray, batch + (oh, ow)
        Any numeric dtype and strides, complex where x is; shares no memory with x.
    nbatch, workers : int
    before, boundary : tuple of int
        For both axes, as in `correlate`. Beyond the ends of a row are the sums down the columns that the boundary shows
        there, or the constant itself.
    constant : number
    skip_zeros : bool
        A weight of exactly zero is no tap.
    fused : bool
        Whether a product and the sum it goes into are rounded once, or each; without `skip_zeros` the sum then starts
        from the last weight.
    pairs : tuple of int
        For each pass, as in `correlate`.
    divisors : tuple of number
        What the sums of each pass are divided by; 0: nothing.
    rounded : bool
        Whether what is between the passes goes through out's dtype.
    check : bool
        Whether to look for outputs that are not finite.
    along_constant : number, optional
        What stands beyond the ends of a row of sums under the boundary CONSTANT, if not `constant`.

    Returns
    -------
    bool
        Whether all outputs are finite, as they are computed; True where `check` is not set.
    """
    if out.size == 0:
        return True
    if not (out.flags.aligned and out.dtype.isnative):
        native = np.empty(out.shape, out.dtype.newbyteorder("="))
        finite = separable(x, down, along, native, nbatch, before, boundary, constant, workers, skip_zeros, fused,
                           pairs, divisors, rounded, check, along_constant)
        out[...] = native
        return finite
    if along_constant is None:
        along_constant = constant
    if out.dtype.kind == "c":
        constant, along_constant = complex(constant), complex(along_constant)
        parts = ((x.real, out.real, constant.real, along_constant.real),
                 (x.imag, out.imag, constant.imag, along_constant.imag))
    else:
        parts = (x, out, constant, along_constant),
    finite = True
    for x_part, out_part, *constants in parts:
        interleaved = nbatch > 0 and _channels_last(x_part, out_part, nbatch - 1)
        finite &= _separable_kernels[down.dtype].separable(
            x_part, out_part, nbatch, down, along, before, boundary, *constants, interleaved, workers, skip_zeros,
            fused, pairs, divisors, rounded, check)
    return finite


# Tiles of overlap-save convolution, and what a sample of one costs, in ns on a core of 3.7 GHz with AVX-512; then what
# an output costs besides.
FFT_TILES = (64, 128, 256, 512, 1024)
_FFT_NS = {np.dtype(np.float32): ((0.5, 0.58, 0.61, 0.75, 0.85), 0.3),
           np.dtype(np.float64): ((0.9, 1.1, 1.2, 1.45, 1.9), 0.6)}
_FFT_ALONG = 0.36                    # of that, what a kernel of one row takes
_SPECTRA_BYTES = 2**23               # of spectra that no plan keeps


def fft_cost(kernel, size, dtype, tile, prepared=True):
    """How long `fft` takes for one channel of one image, in ns on the machine of `_FFT_NS`; infinity: the kernel does
    not fit. Where weights are not prepared, `fft_weights` takes half as long as a pair of tiles, and 12 us.

    kernel and size are those of the weights and the output, two spatial axes each."""
    steps = [tile - k + 1 for k in kernel]
    if min(steps) < 1:
        return math.inf
    tiles = math.prod(-(-n // step) for n, step in zip(size, steps, strict=True))
    sample, output = _FFT_NS[np.dtype(dtype)]
    own = tile**2 * sample[FFT_TILES.index(tile)]
    if kernel[0] == 1:               # transforms along rows alone, 64 a tile, 16 of one together with 16 of another
        tiles = -(-size[1] // steps[1]) * 2 * (size[0] // 128 * 4 + -(-min(size[0] % 128, 64) // 16))
        own *= 16 / tile * _FFT_ALONG
    return 2 * -(-tiles // 2) * own + math.prod(size) * output + (0 if prepared else own + 12000)


def fft_tile(kernel, size, dtype):
    """The tile that costs least; None: the kernel does not fit in any."""
    tile = min(FFT_TILES, key=lambda tile: fft_cost(kernel, size, dtype, tile))
    return tile if max(kernel) <= tile else None


def fft_weights(w, tile, workers):
    """The weights of `fft`: their spectra, each of them a row, which ends in what the sums are multiplied with.

    That is a power of two near the largest weight over `tile` (not divided, where there are no transforms down the
    columns), and the spectra have the rest, so that neither small weights nor small samples become subnormal on the
    way."""
    limits = np.finfo(w.dtype)
    exponent = np.frexp(np.abs(w).max(axis=(1, 2, 3), initial=0))[1]
    exponent = np.clip(exponent, limits.minexp + 16, limits.maxexp) - 1
    along, line = w.shape[2] == 1, 64 // w.itemsize
    spectrum = 2 * tile * (line if along else tile)
    u = np.empty((w.shape[0], spectrum + line), w.dtype)
    u[:, spectrum:] = np.ldexp(w.dtype.type(1 if along else 1 / tile), exponent)[:, None]
    _kernels[w.dtype].fft_weights(np.ldexp(w, -exponent[:, None, None, None]), u, tile, workers)
    return u


def fft(x, w, u, bias, out, nbatch, groups, before, boundary, constant, workers, tile, skip_zeros=False):
    """`correlate` at stride and dilation 1 with two spatial axes and one input and one output channel a group, by
    Fourier transforms of tiles.

    Parameters
    ----------
    u : ndarray, or None
        What `fft_weights` made of w, which is float32 or float64. None: it is made here, of some channels at a time.
    tile : int
        One of `FFT_TILES`, no smaller than the kernel.

    Others as there. Outputs that are not finite are computed again as by `correlate`.
    """
    if u is None:
        count = max(workers, _SPECTRA_BYTES // (2 * tile**2 * w.itemsize))
        for first in range(0, groups, count):
            part = slice(first, min(first + count, groups))
            channels = (slice(None),) * nbatch + (part,)
            fft(x[channels], w[part], fft_weights(w[part], tile, workers), None if bias is None else bias[part],
                out[channels], nbatch, part.stop - first, before, boundary, constant, workers, tile, skip_zeros)
        return
    if not (out.flags.aligned and out.dtype.isnative):
        native = np.empty(out.shape, out.dtype.newbyteorder("="))
        fft(x, w, u, bias, native, nbatch, groups, before, boundary, constant, workers, tile, skip_zeros)
        out[...] = native
        return
    tiles = _kernels[w.dtype].fft(x, w, u, bias, out, nbatch, groups, before, boundary, constant, workers, tile)
    for n, channel, y0, y1, x0, x1 in tiles:
        _mend(x, w, bias, out, nbatch, n, channel, channel, channel + 1, slice(y0, y1), slice(x0, x1), (1, 1),
              (1, 1), before, boundary, constant, workers, skip_zeros)


def fft_line(x, w, out, workers, tile, blocks=False, mend=True):
    """Cross-correlate x with w along the last axis, without padding, by Fourier transforms of the rows of a matrix.

    Row r of that matrix is x from sample r * step on, where it lies: rows overlap, and no copy is made. In `blocks`,
    rows are a tile wide, and each is correlated with w. Else w is a matrix of `step` taps a row, half a tile, and rows
    are as wide as these need, 2 * step - 1 samples ::

        out[r * step + c]  =  sum over j, i of  x[(r + j) * step + c + i] * w[j * step + i]

    Parameters
    ----------
    x : ndarray, batch + (n,)
        Any numeric dtype, strides, alignment and byte order.
    w : ndarray, (k,)
        Contiguous, finite, float32 or float64: its dtype is the one computed in.
    out : ndarray, batch + (m,)
        m <= n - k + 1; any numeric dtype and strides, aligned and in native byte order.
    workers : int
    tile : int
        One of `FFT_TILES`; w fits in it (`blocks`), or in half of it times all of it.
    blocks : bool
    mend : bool
        Whether outputs that are not finite are computed again as by `correlate`.
    """
    k, m, nbatch = w.size, out.shape[-1], x.ndim - 1
    step = tile - k + 1 if blocks else tile // 2
    down, width = (1, tile) if blocks else (-(-k // step), 2 * step - 1)
    rows = max(0, min(m // step, (x.shape[-1] - width) // step + 2 - down))
    if rows and out.size:
        taps = np.zeros((1, 1, down, k if blocks else step), w.dtype)
        taps.reshape(-1)[:k] = w

        def matrix(a, height, width):
            return np.lib.stride_tricks.as_strided(a, (*a.shape[:-1], 1, height, width),
                                                   (*a.strides[:-1], 0, step * a.strides[-1], a.strides[-1]))

        tiles = _kernels[w.dtype].fft(matrix(x, rows + down - 1, width), taps, fft_weights(taps, tile, workers), None,
                                      matrix(out, rows, step), nbatch, 1, (0, 0), (CONSTANT,) * 2, 0.0, workers, tile)
        for n, _, y0, y1, _, _ in tiles if mend else ():
            signal = np.unravel_index(n, x.shape[:-1]) if nbatch else ()
            block = out[(*signal, slice(y0 * step, y1 * step))]
            wrong = ~np.isfinite(block)
            if wrong.any():
                direct = np.empty(block.shape, block.dtype)
                correlate_line(x[(*signal, slice(y0 * step, None))], w, direct, workers)
                np.copyto(block, direct, where=wrong)
    if rows * step < m:
        correlate_line(x[..., rows * step:], w, out[..., rows * step:], workers)


def correlate_line(x, w, out, workers):
    """`fft_line` without transforms."""
    correlate(x[..., None, :], w[None, None], None, out[..., None, :], x.ndim - 1, 1, (1,), (1,), (0,), (CONSTANT,),
              0.0, workers)


def source_index(positions, n, boundary):
    """The samples of an axis of length n that stand at `positions`, under a boundary other than CONSTANT."""
    if boundary == EDGE:
        return np.clip(positions, 0, n - 1)
    if boundary == WRAP:
        return positions % n
    # There and back again: symmetric repeats the last sample before it turns, mirror does not.
    back = 2 * n - 1 if boundary == SYMMETRIC else max(2 * n - 2, 1)
    there = positions % (2 * n if boundary == SYMMETRIC else back)
    return np.minimum(there, back - there)


def workspace_bytes(x, w, out, nbatch, groups, stride, dilation, before, boundary, workers, kept=None):
    """What `correlate` of such arrays takes for itself, all threads together; only w's elements are looked at, and what
    is kept of them is made."""
    return _kernels[w.real.dtype].correlate(x, w.real, None, out, nbatch, groups, stride, dilation, before, boundary,
                                            0.0, 0.0, 1, False, workers, False, True, 0, 1, None, kept, False)


def input_gradient(g, w, bias, dx, nbatch, groups, stride, dilation, before, boundary, workers, kept=None,
                   variant=None):
    """The adjoint of `correlate` in x, which is the transposed convolution too: dx = adjoint(g) + bias.

    Parameters
    ----------
    g : ndarray, batch (`nbatch` axes) + (O,) + positions
        Any numeric dtype, strides, alignment and byte order.
    w : ndarray, (O, C // groups) + kernel
        Its dtype is the one computed in; not conjugated.
    bias : ndarray, (C,), or None
        Of w's dtype; under boundaries CONSTANT only.
    dx : ndarray, batch + (C,) + spatial
        Any numeric dtype and strides; shares no memory with the others.
    nbatch, groups, stride, dilation, before, boundary, workers
        As in `correlate`.
    kept : dict, optional
        Where what is made of the weights is kept for other calls with the same w, groups and settings.
    variant : tuple, optional
        At stride 1, for outputs of more positions along each axis than the dilation: by `correlate_transformed`.
    """
    if w.shape[0] == 0 or boundary.count(CONSTANT) == len(boundary):
        _padded_gradient(g, w, bias, dx, nbatch, groups, stride, dilation, before, workers, kept, variant)
    elif dx.size:
        # A border is folded back in the dtype computed in, and rounded to dx's together with what it is added to.
        summed = np.result_type(w.dtype, np.complex64) if dx.dtype.kind == "c" else w.dtype
        sums = dx if dx.dtype == summed and dx.flags.aligned else np.empty(dx.shape, summed)
        _padded_gradient(g, w, bias, sums, nbatch, groups, stride, dilation, before, workers, kept, variant)
        _fold_borders(g, w, sums, nbatch, groups, stride, dilation, before, boundary, workers)
        if sums is not dx:
            dx[...] = sums


def _fold_borders(g, w, dx, nbatch, groups, stride, dilation, before, boundary, workers):
    """Add what the gradient is beyond the borders to the samples that stand there."""
    n, k, on, lead = dx.shape[nbatch + 1:], w.shape[2:], g.shape[nbatch + 1:], dx.shape[:nbatch + 1]
    axes = range(len(n))
    zero_border = (CONSTANT,) * len(n)
    seen = [(0, n[a]) if boundary[a] == CONSTANT
            else (-before[a], max(n[a], (on[a] - 1) * stride[a] + (k[a] - 1) * dilation[a] + 1 - before[a]))
            for a in axes]
    # Every position outside lies outside along one axis first: along those before it is inside.
    for a in axes:
        for side in ((seen[a][0], 0), (n[a], seen[a][1])):
            window = [*((0, size) for size in n[:a]), side, *seen[a + 1:]]
            _, residues = _residues(tuple(before[b] + window[b][0] for b in axes),
                                    tuple(stop - start for start, stop in window), k, on, stride, dilation)
            for samples, order, step, padding in residues:
                places = [range(*window[b])[samples[1 + b]] for b in axes]
                sizes = [len(place) for place in places]
                slab = max(1, _SLAB_ELEMENTS * sizes[a] // math.prod((*lead, *sizes)))
                for first in range(0, sizes[a], slab):
                    place = places[a][first:first + slab]
                    border = np.empty((*lead, *sizes[:a], len(place), *sizes[a + 1:]), dx.dtype)
                    correlate(g, w, None, border, nbatch, groups, (1,) * len(n), step,
                              (*padding[:a], padding[a] - first, *padding[a + 1:]), zero_border, 0.0, workers,
                              order=order)
                    for b in reversed(axes[a + 1:]):
                        border = _folded(border, len(lead) + b, places[b], n[b], boundary[b])
                    sums = dx[(*(slice(None),) * len(lead), *samples[1:1 + a])]
                    _add_border(sums, border, len(lead) + a, place, boundary[a])


def _folded(padded, axis, place, n, boundary):
    """The n samples of an axis to which the slices of `padded`, which stand at the positions `place`, add up."""
    samples = np.zeros((*padded.shape[:axis], n, *padded.shape[axis + 1:]), padded.dtype)
    along = (slice(None),) * axis
    start, stop = (min(max(-((place.start - end) // place.step), 0), len(place)) for end in (0, n))
    inside = place[start:stop]
    samples[(*along, slice(inside.start, inside.stop, inside.step))] = padded[(*along, slice(start, stop))]
    for part in (slice(start), slice(stop, None)):
        _add_border(samples, padded[(*along, part)], axis, place[part], boundary)
    return samples


def _add_border(samples, border, axis, place, boundary):
    """Add the slices of `border` along an axis, which stand at the positions `place`, to their samples."""
    samples, border = np.moveaxis(samples, axis, 0), np.moveaxis(border, axis, 0)
    if len(place):
        with np.errstate(invalid="ignore", over="ignore"):
            for source, values in zip(source_index(np.array(place), len(samples), boundary), border, strict=True):
                samples[source] += values


def _padded_gradient(g, w, bias, dx, nbatch, groups, stride, dilation, before, workers, kept, variant):
    """input_gradient under zero borders."""
    one, zero_border = (1,) * len(before), (CONSTANT,) * len(before)
    n, on, outputs, s = dx.shape[nbatch + 1:], g.shape[nbatch + 1:], w.shape[0] // groups, stride[-1]
    complete, residues = _residues(before, n, w.shape[2:], on, stride, dilation)
    # Windows side by side: the residues differ in their output channels only, and are one correlation.
    blocks = (s > 1 and w.shape[2:] == stride == (s, s) and dilation == (1, 1) and before == (0, 0)
              and n[0] >= s * on[0] and n[1] >= s * on[1])
    if outputs == 0 or not complete or blocks and n != (s * on[0], s * on[1]):
        dx[...] = 0 if bias is None else bias.reshape(-1, *one)
    if outputs == 0 or dx.size == 0:
        return
    if on == one:
        _single_window_gradient(g, w, bias, dx, nbatch, groups, dilation, before, workers)
        return
    if variant is not None:
        ((samples, _, step, padding),) = residues
        _transformed_gradient(g, w, bias, dx[samples], nbatch, groups, step, padding, workers, kept, variant)
        return
    if blocks:
        flat = w.reshape(w.shape[0], w.shape[1] * s * s, 1, 1)
        correlate(g, flat, None if bias is None else bias.repeat(s * s), dx[..., :s * on[0], :s * on[1]], nbatch,
                  groups, one, one, (0, 0), zero_border, 0.0, workers, upscale=s, order=np.zeros(one, np.int64),
                  kept=None if kept is None else kept.setdefault(0, {}))
        return
    if s > 1 and w.shape[1] == 1 and _joined_gradient(g, w, bias, dx, nbatch, groups, stride, dilation, before,
                                                      workers):
        return
    for i, (samples, order, step, padding) in enumerate(residues):
        correlate(g, w, bias, dx[samples], nbatch, groups, one, step, padding, zero_border, 0.0, workers, order=order,
                  kept=None if kept is None else kept.setdefault(i, {}))


def _joined_gradient(g, w, bias, dx, nbatch, groups, stride, dilation, before, workers):
    """_padded_gradient with one input channel a group: all residues along the last two axes in one pass, so that whole
    rows are written. False, and nothing is done, where that does not serve."""
    n, k, on = dx.shape[nbatch + 1:], w.shape[2:], g.shape[nbatch + 1:]
    if "c" in (g.dtype.kind, w.dtype.kind, dx.dtype.kind):
        return False
    joined = [_joined_residues(*axis) for axis in zip(before, n, k, on, stride, dilation, strict=True)][-2:]
    if None in joined:
        return False
    if not (dx.flags.aligned and dx.dtype.isnative):
        return False
    lead = len(n) - len(joined)
    outer = [((...,), None, (), ())]
    if lead:
        _, outer = _residues(before[:lead], n[:lead], k[:lead], on[:lead], stride[:lead], dilation[:lead])
    along_H = joined[0] if len(joined) == 2 else (1, ((0, 1, 1, 0),))
    every = (slice(None),) * len(joined)
    for samples, order, step, padding in outer:
        weights = w.reshape(groups, w.shape[0] // groups, math.prod(k[:lead]), *k[lead:])
        weights = weights.take(order, axis=2) if lead else weights[:, :, 0]
        if not _kernels[w.dtype].correlate_residues(g, weights, bias, dx[(*samples, *every)], nbatch, groups,
                                                    (*step, *(1,) * len(joined)), (*padding, *(0,) * len(joined)),
                                                    along_H, joined[-1], workers):
            return False
    return True


def _single_window_gradient(g, w, bias, dx, nbatch, groups, dilation, before, workers):
    """input_gradient of one window, where its taps stand: a correlation of the weights, read where they lie, with g."""
    summed = np.result_type(w.dtype, np.complex64) if dx.dtype.kind == "c" else w.dtype
    batch, n, k = dx.shape[:nbatch], dx.shape[nbatch + 1:], w.shape[2:]
    images, outputs = math.prod(batch), w.shape[0] // groups
    factors = np.ascontiguousarray(g.reshape(images, groups, outputs).swapaxes(0, 1),
                                   summed if g.dtype.kind == "c" else w.dtype)
    sums = np.empty((groups * images, math.prod(w.shape[1:])), summed)
    correlate(w.reshape(w.shape[0], -1), factors.reshape(-1, outputs, 1), None, sums, 0, groups, (1,), (1,), (0,),
              (CONSTANT,), 0.0, workers)
    sums = sums.reshape(groups, images, w.shape[1], *k).swapaxes(0, 1).reshape(*batch, groups * w.shape[1], *k)
    if bias is not None:
        sums += bias.reshape(-1, *(1,) * len(k))
    taps, samples = [], []
    for size, count, d, p in zip(n, k, dilation, before, strict=True):
        start, stop = -(-p // d), max(min(count, (size - 1 + p) // d + 1), -(-p // d))
        taps.append(slice(start, stop))
        samples.append(slice(start * d - p, stop * d - p, d))
    dx[(..., *samples)] = sums[(..., *taps)]


def _transformed_gradient(g, w, bias, dx, nbatch, groups, dilation, padding, workers, kept, variant):
    """input_gradient at stride 1 by transforms; `kept` holds the transformed weights from call to call."""
    transformed = None if kept is None else kept.get(variant)
    if transformed is None and kept is not None:
        transformed = kept[variant] = transformed_weights(w, groups, variant, workers, exchanged=True)
    correlate_transformed(g, w, transformed, bias, dx, nbatch, groups, padding, (CONSTANT,) * len(padding), 0.0,
                          workers, variant, exchanged=True, dilation=dilation)


def _exchanged(w, groups, order):
    """Weights in the usual order, for `correlate`'s w with an order."""
    inputs, outputs = w.shape[0] // groups, w.shape[1]
    taps = w.reshape(groups, inputs, outputs, -1)[..., order.ravel()]
    return np.ascontiguousarray(taps.swapaxes(1, 2)).reshape(groups * outputs, inputs, *order.shape)


@functools.lru_cache(maxsize=512)
def _residues(first, n, kernel, on, stride, dilation):
    """The correlations that make up the gradient of a padded input's n samples from `first` on.

    Sample i is read by the taps k with k * d = i (mod s) only, in the windows (i - k * d) / s. So the samples of one
    residue modulo s are a correlation of g at unit stride with these taps, from last to first, input and output
    channels exchanged: as many small correlations as there are residues, together of the size of the forward one.

    Returns
    -------
    complete : bool
        Whether they reach every sample.
    residues : list of tuple
        For each one: the samples, as an index; the taps' numbers; their dilation in g; the padding before g.
    """
    axes = [list(_residues_of_axis(*axis)) for axis in zip(first, n, kernel, on, stride, dilation, strict=True)]
    complete = all(sum(len(range(size)[samples]) for samples, *_ in residues) == size
                   for residues, size in zip(axes, n, strict=True))
    found = [tuple(zip(*residue, strict=True)) for residue in itertools.product(*axes)]
    numbers = np.arange(math.prod(kernel)).reshape(kernel)
    return complete, [((..., *samples), np.ascontiguousarray(numbers[taps], np.int64), step, padding)
                      for samples, taps, step, padding in found]


@functools.lru_cache(maxsize=512)
def _joined_residues(first, n, k, on, s, d):
    """For each residue of an axis the first tap, the step down to the next one, how many there are, and the padding
    before g; and the dilation of these taps in g. None where taps share no sample, or where residues are many."""
    step = s // math.gcd(s, d)
    d_g = d // math.gcd(s, d)
    if s > _MOST_JOINED or d_g >= on:
        return None
    found = [(0, step, 0, 0)] * s
    for samples, taps, _, padding in _residues_of_axis(first, n, k, on, s, d):
        count = len(range(k)[taps])
        found[samples.start] = taps.start, step, count, padding
    return d_g, tuple(found)


def _residues_of_axis(first, n, k, on, s, d):
    shared = math.gcd(s, d)
    step, d_g = s // shared, d // shared
    if d_g >= on:
        # The taps reach so far apart that no sample is read by two of them, and many in between by none.
        for tap in range(k):
            start = max(-((tap * d - first) // s), 0)
            stop = min((first + n - 1 - tap * d) // s + 1, on)
            if start < stop:
                at = tap * d - first + start * s
                yield slice(at, at + (stop - start - 1) * s + 1, s), slice(tap, tap + 1), 1, -start
        return
    for tap in range(min(k, step)):
        offset = (tap * d - first) % s
        if offset < n:
            reach = (k - 1 - tap) // step
            yield (slice(offset, None, s), slice(tap + reach * step, None, -step), d_g,
                   tap * d // s + reach * d_g - (first + offset) // s)


def weight_gradient(x, g, dw, nbatch, groups, stride, dilation, before, boundary, constant, workers, variant=None):
    """The gradient of `correlate` in w: the sum of conj(x) * g over the batch and all positions.

    Parameters
    ----------
    x : ndarray, batch (`nbatch` axes) + (C,) + spatial
    g : ndarray, batch + (O,) + positions
        Both of any numeric dtype, strides, alignment and byte order.
    dw : ndarray, (O, C // groups) + kernel
        C-contiguous; its dtype, float32, float64, int64 or a complex one, is the one computed in.
    nbatch, groups, stride, dilation, before, boundary, constant, workers
        As in `correlate`.
    variant : tuple, optional
        One of `WINOGRAD_VARIANTS`, as in `winograd`, at stride and dilation 1 with two spatial axes and a real dw of
        floats: by the adjoint of that. Gradients that are not finite are computed again without.
    """
    run = _kernels[dw.real.dtype].weight_gradient

    def products(x, g, constant):
        sums = np.empty(dw.shape, dw.real.dtype)
        run(x, g, sums, nbatch, groups, stride, dilation, before, boundary, constant, workers)
        return sums

    if g.size == 0 or dw.size == 0:
        dw[...] = 0
        return
    if variant is not None:
        if not _kernels[dw.dtype].winograd_weight_gradient(x, g, dw, nbatch, groups, before, boundary, constant,
                                                           workers, *variant):
            np.copyto(dw, products(x, g, constant), where=~np.isfinite(dw))
        return
    if dw.dtype.kind != "c":
        run(x, g, dw, nbatch, groups, stride, dilation, before, boundary, constant, workers)
        return
    constant = complex(constant)
    if constant.imag and x.dtype.kind != "c":
        x = x.astype(np.result_type(x, np.complex64))
    real, imag = dw.real, dw.imag
    with np.errstate(invalid="ignore", over="ignore"):
        real[...] = products(x.real, g.real, constant.real)
        imag[...] = products(x.real, g.imag, constant.real) if g.dtype.kind == "c" else 0
        if x.dtype.kind == "c":
            if g.dtype.kind == "c":
                real += products(x.imag, g.imag, constant.imag)
            imag -= products(x.imag, g.real, constant.imag)


def bias_gradient(g, nbatch, dtype):
    """The sums of g's channels over the batch and all positions: in float64, and rounded once to dtype, or in int64."""
    summed = {"c": np.complex128, "f": np.float64}.get(g.dtype.kind, np.int64)
    db = np.zeros(g.shape[nbatch], summed)
    batch, shape = g.shape[:nbatch], (len(db), math.prod(g.shape[nbatch + 1:]))
    # NumPy's order of summation depends on strides: these are always the same ones.
    if g.flags.c_contiguous and g.flags.aligned and g.dtype.isnative:
        images = g.reshape(math.prod(batch), *shape)
    else:
        images = (np.require(g[i], g.dtype.newbyteorder("="), "CA").reshape(shape) for i in np.ndindex(batch))
    with np.errstate(invalid="ignore", over="ignore"):
        for channels in images:
            db += np.add.reduce(channels, axis=1, dtype=summed)
        return db.astype(dtype)


def select_valid(x, there, omit, filled, mask):
    """Samples as they are in `filled` and 1 in `mask`, or 0 in both where they are missing; whether some are.

    Parameters
    ----------
    x, filled, mask : ndarray
        Of one shape with at least one axis, and one dtype, float32 or float64; x may be filled. The last axis of all
        these arrays has neighbours in memory.
    there : ndarray of bool, or None
        False where a sample is missing.
    omit : bool
        Whether NaN are missing. True where `there` is None.
    """
    return _missing_kernels[mask.dtype].select(x, there, omit, filled, mask)


def normalise(sums, share, out, mask, weight, full, almost, least, scaled):
    """Fill `out` with sums * (full / share), or the sums as they are if not `scaled`, and NaN where share < least or
    mask is 0; fill `weight` with share / full. A share of at least `almost` is taken for `full`.

    All arrays have one shape with at least one axis, one dtype, float32 or float64, and neighbours in memory along the
    last axis; out may be sums, mask and weight may be None.
    """
    _missing_kernels[sums.dtype].normalise(sums, share, out, mask, weight, full, almost, least, scaled)


def deform(x, offset, mask, w, bias, out, stride, dilation, before, workers):
    """Deformable convolution of x (N, C, H, W) with w (O, C // groups, kh, kw) into out (N, O, oh, ow).

    All arrays are C-contiguous and aligned, of one dtype, float32 or float64; mask and bias may be None. `out` shares
    no memory with the others. `stride`, `dilation` and `before` are pairs.
    """
    _deform_kernels[w.dtype].deform(x, offset, mask, w, bias, out, stride, dilation, before, workers)


def deform_backward(x, offset, mask, w, dy, dx, doffset, dmask, dw, stride, dilation, before, workers):
    """The gradients of `deform` into dx, doffset, dmask (None without mask) and dw, from that of its output, dy.

    Arrays as there; dx, doffset and dmask are shaped like x, offset and mask, and dw like w.
    """
    kernels = _deform_kernels[w.dtype]
    batch, channels = x.shape[:2]
    outputs, group_channels, kh, kw = w.shape
    groups, taps, positions = channels // group_channels, kh * kw, dy.shape[2] * dy.shape[3]
    offset_groups = offset.shape[1] // (2 * taps)
    chunks = kernels.chunks(channels // offset_groups)
    by_group = (groups, outputs // groups, group_channels * taps)
    turned = kernels.turned(w.reshape(by_group))
    sums = np.zeros_like(turned)
    images = max(1, min(batch, -(-2 * workers // (offset_groups * chunks)))) if workers > 1 else 1
    for n in range(0, batch, images):
        part = slice(n, min(n + images, batch))
        count = part.stop - n
        dsamples = np.empty((count, offset_groups, chunks, 3, taps, positions), w.dtype)
        shares = np.empty((count, *sums.shape), w.dtype)
        kernels.deform_backward(x[part], offset[part], None if mask is None else mask[part], turned, dy[part], dx[part],
                                shares, dsamples, groups, (kh, kw), stride, dilation, before, workers)
        # Image after image and chunk after chunk, however many there were at once.
        for share in shares:
            sums += share
        for chunk in range(1, chunks):
            dsamples[:, :, 0] += dsamples[:, :, chunk]
        offset_pairs = doffset[part].reshape(count, offset_groups, taps, 2, positions)
        offset_pairs[...] = dsamples[:, :, 0, :2].swapaxes(2, 3)
        if mask is not None:
            dmask[part] = dsamples[:, :, 0, 2].reshape(dmask[part].shape)
    dw[...] = kernels.turned(sums).reshape(dw.shape)
