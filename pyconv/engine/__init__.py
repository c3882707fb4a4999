"""The engine: every convolution of pyconv ends in a call of `correlate` (a small `corr2d` takes a shorter way in).

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
`rows.pxi`
    One output channel a group: single images, depthwise layers, filters in any number of dims. A tile is R output rows
    x NV vectors of columns, and each loaded input row is used for all the output rows that it feeds. Away from the left
    and right border the input is read where it lies.

All tiles add the products of one output in the same order into one accumulator (but for `pairs`, below), so the bits do
not depend on the plan, the number of threads, the batch or the memory layout.

Gradients are made of the same parts. That of the input is, for each residue modulo the stride, a correlation of the
output's gradient with some of the taps, turned round (`input_gradient`). That of the weights (`weights.pxi`) turns the
band channels last, so that the tile sums vectors of input channels over positions; with few input channels, it is dot
products along the rows.

Deformable convolution (`deform.pyx`, which opens with its own picture) reads anywhere in an image, and so does make a
padded copy of it, channels last; it samples into columns, a panel of pixels at a time, and ends in the same tiles.

The kernels (`direct.pyx`, `deform.pyx` and the files they include) are built once for each computing dtype, float32,
float64 and, direct only, int64, and each instruction-set level. `vector.h` defines the two types that make one source
serve all of them. This module picks the highest level that the processor has, or the one that the environment variable
PYCONV_ISA names.

Engine functions check nothing: their arguments have been through `pyconv._check`.
"""
import importlib.util
import os

import numpy as np

try:
    from . import _cpu
except ImportError as error:
    raise ImportError(f"pyconv is not compiled in {os.path.dirname(os.path.dirname(__file__)) or '.'}: run "
                      "`pip install -e .` there, or leave that folder to use an installed pyconv") from error

CONSTANT, EDGE, SYMMETRIC, MIRROR, WRAP = range(5)
BOUNDARIES = {"constant": CONSTANT, "edge": EDGE, "symmetric": SYMMETRIC, "mirror": MIRROR, "wrap": WRAP}

_LEVELS = ("baseline", "v3", "v4")


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

_kernels = {dtype: importlib.import_module(f"{__name__}._direct_{short}_{level}")
            for dtype, short in ((np.dtype(np.float32), "f32"), (np.dtype(np.float64), "f64"),
                                 (np.dtype(np.int64), "i64"))}
_deform_kernels = {dtype: importlib.import_module(f"{__name__}._deform_{short}_{level}")
                   for dtype, short in ((np.dtype(np.float32), "f32"), (np.dtype(np.float64), "f64"))}
_small = {dtype: kernels.small_corr2d for dtype, kernels in _kernels.items() if dtype.kind == "f"}


def small_corr2d(x, k, *settings):
    """corr2d of two small plain float32 or float64 arrays, or None: the general way is needed."""
    run = _small.get(x.dtype) if type(x) is np.ndarray else None
    return None if run is None else run(x, k, *settings)


def fma_gflops(dtype, workers):
    """What this machine's multiply-add units can do, in GFLOP/s: a loop on registers alone, on `workers` threads."""
    return _kernels[np.dtype(dtype)].fma_gflops(workers)


def correlate(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
              skip_zeros=False, fused=True, pairs=0, upscale=1):
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
    """
    if not (out.flags.aligned and out.dtype.isnative):
        native = np.empty(out.shape, out.dtype.newbyteorder("="))
        correlate(x, w, bias, native, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                  skip_zeros, fused, pairs, upscale)
        out[...] = native
        return
    if "c" in (x.dtype.kind, w.dtype.kind, out.dtype.kind):
        _correlate_complex(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                           skip_zeros, fused, pairs, upscale)
        return
    _run(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, 0.0, 1, workers, skip_zeros,
         fused, pairs, upscale)


def _run(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, constant_imag, x_parts,
         workers, skip_zeros, fused, pairs, upscale):
    # A channels-last image is one whose columns are `pixel` samples wide: filtered without a transposed copy.
    interleaved = False
    if nbatch and x_parts == 1 and w.shape[0] == 1:
        pixel = x.shape[nbatch - 1]
        interleaved = (1 < pixel <= 16 and stride[-1] == 1
                       and x.strides[nbatch - 1] == x.itemsize and x.strides[-1] == pixel * x.itemsize
                       and out.strides[nbatch - 1] == out.itemsize and out.strides[-1] == pixel * out.itemsize)
    _kernels[w.dtype].correlate(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant,
                                constant_imag, x_parts, interleaved, workers, skip_zeros, fused, pairs, upscale)


def weight_gradient(x, g, dw, nbatch, groups, stride, dilation, before, boundary, constant, workers):
    """The gradient of `correlate`'s weights into dw, given x and the gradient g of its output."""
    if g.size == 0 or dw.size == 0:
        dw[...] = 0
        return
    _kernels[dw.dtype].weight_gradient(x, g, dw, nbatch, groups, stride, dilation, before, boundary, constant, workers)


def part_weights(w, part):
    """The real weights, (O, 2 * C // groups) + kernel, that take both parts of complex channels to one part of the
    output: 0 the real one, 1 the imaginary one."""
    both = (w.real, -w.imag) if part == 0 else (w.imag, w.real)
    return np.stack(both, axis=2).reshape(w.shape[0], -1, *w.shape[2:])


def _correlate_complex(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                       skip_zeros, fused, pairs, upscale):
    """A complex problem is one real problem for each part of the output, over both parts of the input as channels."""
    constant = complex(constant)
    settings = nbatch, groups, stride, dilation, before, boundary
    for part, out_part in enumerate((out.real, out.imag) if out.dtype.kind == "c" else (out,)):
        bias_part = None if bias is None else np.ascontiguousarray((bias.real, bias.imag)[part])
        if x.dtype.kind == "c" and w.dtype.kind == "c":
            w_part = part_weights(w, part)
            parts = np.lib.stride_tricks.as_strided(x.real, (*x.shape, 2), (*x.strides, x.itemsize // 2))
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
