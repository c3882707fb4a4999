"""Which method a convolution runs by, why, and convolutions that are planned ahead.

The choice follows from shapes, dtypes and settings alone, and never from batch size, threads or caches: these may
change how the work is cut up, but not the bits of the result. Costs are cycles of one core for one image; only their
ratios matter.
"""
import functools
import math
from typing import NamedTuple

import numpy as np

from pyconv import _check, engine
from pyconv._workers import resolve_workers

METHODS = ("auto", "direct", "im2col", "winograd", "fft")

# Vectors of 512 bits, two multiply-adds a cycle: narrower vectors slow all methods down alike.
_VECTOR_BYTES = 64
_VECTORS_A_CYCLE = 2
_CYCLES_A_CALL = 1500                # Winograd: to set up and to go through its stages
_LEFT_OUT = 1.35                     # what leaving out padding saves is less: products of the true samples, times this
_TILES_OVERHEAD = 1.07               # multiply-adds between rows, and what the loops cost
_ROWS_OVERHEAD = 3                   # direct, one output channel a group: what the loops cost, in kernel columns
_BYTES_A_CYCLE = 8                   # that reach a core from where images and many weights lie
_CYCLES_A_COPY = 4                   # a vector into the band
_CYCLES_A_STRIDED_COPY = 12          # direct: the same at a stride
_CYCLES_A_TRANSFORM = 16             # Winograd: a vector of one plane, of input or output tiles
_CYCLES_A_STRIDED_TRANSFORM = 12, 5  # the same at a stride: of input, of output; there are many more of input
_CYCLES_A_RUN = 1.5                  # Winograd, dilated: a run of columns, one of each residue, or a vector of it
_CYCLES_A_WEIGHT = 12                # Winograd: a vector of one plane, of weights, and where they come in blocks
_CYCLES_A_BLOCK = 24
_WRITTEN_BYTES = 2**23               # more of them leave the caches before they are read
_CYCLES_A_FAR_WEIGHT = 28
_WEIGHT_BYTES_A_CYCLE = 16           # Winograd: transformed weights that are read beside multiply-adds
_CACHED_BYTES = 2**24                # those beyond come from further away
_UNCACHED_BYTES_A_CYCLE = 6
_KEPT_BYTES = 3 * 2**23              # memory for more transformed weights is mapped anew in each call, page by page
_CYCLES_A_MAPPED_BYTE = 1

# Winograd: |y - exact| <= c * u * max(|x| * |w|) with c this and 2 for each term of a plane's sum, 1 of F(4,2), as
# measured on signs that add up all roundings, on impulses, constants, random numbers, twelve decades and photographs
# (tests/test_winograd.py).
_ERROR = {(2, 3): 9, (4, 3): 40, (3, 3): 26, (4, 4): 180, (4, 5): 180, (4, 2): 48, (3, 4): 26}
# The same of a kernel of one tap, on signs: there is nothing that the roundings of its planes could drown in.
_ONE_TAP_ERROR = {(2, 3): 9, (4, 3): 120, (3, 3): 105, (4, 4): 1400, (4, 5): 1100, (4, 2): 95, (3, 4): 120}
# Gradients of the weights: |dw - exact| <= c * u * max(|x| * |dy|) with c this and a half for each tile of an image. A
# single gradient in a tile, which meets signs, makes the most of it (tests/test_winograd_weights.py).
_WEIGHT_ERROR = {(4, 3): 85, (3, 3): 80, (4, 4): 900, (4, 5): 800}
_CYCLES_A_WINDOW = 6                 # weight gradients, a vector of one plane: of windows, of tiles of dy, of sums
_CYCLES_A_TILE = 6
_CYCLES_A_SUM = 8
_FFT_ERROR = 40                      # the same of Fourier transforms (tests/test_fft.py)
_FFT_LINE_ERROR = 28                 # and of transforms along one axis only (tests/test_signal.py)
_CYCLES_A_NANOSECOND = 5.4           # of engine.fft_cost: with memory as busy as in whole calls
# Signals, in ns on the same machine: a product of direct sums along one axis, and an element of whole spectra by NumPy,
# for each doubling of their number.
_LINE_NS = {np.dtype(np.float32): 0.02, np.dtype(np.float64): 0.039}
_SPECTRA_NS = 1.7
_SPECTRA_CALL_NS = 30000
_LINE_TILE = {64: 0.7, 128: 0.7, 256: 0.75, 512: 0.9, 1024: 1.7}    # of `engine.fft_cost`: few tiles
_FLAT_COPY_NS = 0.3


class Candidate(NamedTuple):
    """A method that could do it."""

    method: str
    variant: tuple | None            # of Winograd, (m, r): outputs a tile and taps a block along each axis; (tile,)
    cycles: float                    # an image, on one core
    error: float                     # c in |y - exact| <= c * u * max(|x| * |w|)
    accurate: bool                   # enough for "auto"


class Choice(NamedTuple):
    """The method of a convolution, and those it was chosen from."""

    method: str                      # "direct", "im2col", "winograd" or "fft"
    variant: tuple | None
    reason: str                      # a sentence
    candidates: tuple


def _phase_kernel(kernel, stride):
    """The kernel of the phase with the most taps."""
    return tuple(-(-k // s) for k, s in zip(kernel, stride, strict=True))


def _winograd_variants(kernel, stride, dilation):
    """The variants (m, r) for a kernel, or phase, from 3 x 3 or 2 x 2 on: one block of taps, or several where m is r.

    For 3 x 3, F(3,3) may only serve where dilation leaves three outputs of a residue or so."""
    taps = _phase_kernel(kernel, stride)
    most, strided = max(taps), stride != (1, 1)
    return tuple((m, r) for m, r in engine.WINOGRAD_VARIANTS
                 if (m == r and most > 2 and (taps != (3, 3) or r == 3 and dilation != (1, 1)))
                 or (m != r and (r == most and (r != 4 or strided) or r == 5 and most == 4)))


def obstacle(method, weight, dtype, stride, dilation, groups):
    """Why Winograd's method, or that of Fourier transforms, does not apply, or None."""
    if len(weight) != 4:
        return f"it has {len(weight) - 2} spatial axes, not 2"
    if method == "fft" and stride != (1, 1):
        return f"its stride is {stride}, not 1"
    if method == "fft" and dilation != (1, 1):
        return f"its dilation is {dilation}, not 1"
    if method == "winograd":
        if any(s > 1 and d > 1 for s, d in zip(stride, dilation, strict=True)):
            return f"its stride is {stride} and its dilation {dilation}: an axis has both"
        if any(k < (3 if s == 1 else s + 1) for k, s in zip(weight[2:], stride, strict=True)):
            small = f"its kernel is {weight[2]} x {weight[3]}"
            return (f"{small}, smaller than 3 x 3" if stride == (1, 1) else
                    f"{small} at a stride of {stride}: too few taps meet the same samples")
    if dtype.char not in "fd":
        return f"it is computed in {dtype}, not in float32 or float64"
    if method == "fft" and (weight[1] != 1 or weight[0] != groups):
        return "a group has more than one input or output channel"
    if method == "fft" and max(weight[2:]) > engine.FFT_TILES[-1]:
        return f"its kernel is {weight[2]} x {weight[3]}, larger than {engine.FFT_TILES[-1]} along an axis"
    return None


@functools.lru_cache(maxsize=1024)
def choose(sample, weight, dtype, stride, sides, dilation, groups, prepared=False, method="auto"):
    """The `Choice` for a convolution.

    Parameters
    ----------
    sample : tuple of int, (C,) + spatial
        Of one image.
    weight : tuple of int, (O, C / groups) + kernel
    dtype : numpy.dtype
        Computed in.
    stride, dilation : tuple of int
    sides : tuple of (before, after)
        Padding; negative where samples are left out.
    groups : int
    prepared : bool
        Whether weights are transformed ahead, so that it costs nothing here.
    method : str
        One of `METHODS`; a name means that method, in its fastest variant that is accurate enough, if there is one.
    """
    kernel = weight[2:]
    size = tuple((n + before + after - d * (k - 1) - 1) // s + 1
                 for n, (before, after), k, s, d in zip(sample[1:], sides, kernel, stride, dilation, strict=True))
    terms = weight[1] * math.prod(kernel)
    cycles = _direct_cycles(sample, weight, dtype, size, stride, sides, dilation, groups)
    direct = Candidate("direct", None, cycles, terms + 2, True)
    im2col = direct._replace(method="im2col", cycles=direct.cycles + _im2col_cycles(sample, weight, dtype, size))
    why_not = {other: obstacle(other, weight, dtype, stride, dilation, groups) for other in ("winograd", "fft")}
    others = [] if why_not["winograd"] else [
        Candidate("winograd", variant,
                  _winograd_cycles(variant, sample, weight, dtype, size, stride, dilation, groups, prepared),
                  error, error <= (terms + 2) / 2)
        for variant in _winograd_variants(kernel, stride, dilation)
        for error in [winograd_error(variant, weight, stride)]]
    if not why_not["fft"]:
        others.append(_fft_candidate(weight, dtype, size, prepared))
    candidates = (direct, im2col, *others)
    if method in ("direct", "im2col"):
        return Choice(method, None, "as asked", candidates)
    others.sort(key=lambda candidate: (not candidate.accurate, candidate.cycles))
    if method != "auto":
        best = next(candidate for candidate in others if candidate.method == method)
        return Choice(method, best.variant, f"{_name(*best[:2])}, as asked", candidates)
    if not others:
        return Choice("direct", None, f"Winograd does not apply, since {why_not['winograd']}", candidates)
    best = others[0]
    if not best.accurate:
        return Choice("direct", None, "Winograd's error could pass half of what direct's bound allows", candidates)
    ratio = max(direct.cycles, best.cycles) / min(direct.cycles, best.cycles)
    by_much = f"{ratio - 1:.0%}" if ratio < 2 else f"{ratio:.1f} times"
    if best.cycles < direct.cycles:
        return Choice(best.method, best.variant, f"{_name(*best[:2])} is {by_much} faster than direct", candidates)
    name = "Winograd" if best.method == "winograd" else "FFT"
    return Choice("direct", None, f"{name} would be {by_much} slower here", candidates)


def suits(variant, weight, groups=1, exchanged=False):
    """Whether "auto" may take this variant for these weights, or an input gradient (`exchanged`): they are finite, and
    enough of them count.

    The roundings of Winograd's planes are as large for one tap as for many. Those of different taps differ, so they add
    up as the root of the weights' squares, which is at most that of the largest weight times the sum of all, and
    max(|x| * |w|) as that sum: the ratio must stay below half of what direct's bound allows.
    """
    if weight.size == 0:
        return False
    high, low = float(weight.max()), float(weight.min())
    if not (math.isfinite(high) and math.isfinite(low)):
        return False
    outputs, channels = weight.shape[:2]
    shape = (groups, outputs // groups, channels, -1) if exchanged else (outputs, 1, 1, -1)
    sums = weight.reshape(shape)
    half = (sums.shape[1] * sums.shape[3] + 2) / 2
    ratio = _ONE_TAP_ERROR.get(variant, 0) / half
    if ratio <= 1:
        return True
    least = max(high, -low) * ratio**2
    # The weights of one output tell it nearly always.
    return bool(np.abs(sums[0, :, 0]).sum() >= least or np.abs(sums).sum((1, 3)).max() >= least)


class SignalChoice(NamedTuple):
    """How a convolution of signals is computed."""

    method: str                      # "direct", "transformed" (two axes), "line" (one axis), "flat" (all axes as one),
                                     # "spectra" (of everything)
    variant: tuple | None            # of "transformed", as in `Choice`; of "line", (tile, blocks); of "flat",
                                     # (tile, blocks, pieces)


@functools.lru_cache(maxsize=1024)
def choose_signal(n, k, size, sides, dtype, groups=1, zeros=True, loose=False):
    """The `SignalChoice` for a correlation at stride 1 of samples n with taps k, shapes over all axes.

    Parameters
    ----------
    n, k, size : tuple of int
        Of the samples, the taps and the output.
    sides : tuple of (before, after)
        Padding; negative where samples are left out.
    dtype : numpy.dtype
        Computed in, real.
    groups : int
        Channels, each of which has taps of its own.
    zeros : bool
        Whether zeros stand beyond the borders. Only then whole spectra are a choice.
    loose : bool
        Whether Fourier transforms are accurate enough whatever the number of taps.
    """
    terms = math.prod(k)
    products = groups * math.prod(size) * terms
    if products < engine.SERIAL_BELOW or dtype.char not in "fd":
        return SignalChoice("direct", None)
    one = (1,) * len(k)
    sample, weight = (groups, *n), (groups, 1, *k)
    if sum(t > 1 for t in k) <= 1:
        direct = products * _LINE_NS[dtype]
    else:
        direct = _direct_cycles(sample, weight, dtype, size, one, sides, one, groups) / _CYCLES_A_NANOSECOND
    costs = {("direct", None): direct}
    accurate = loose or _FFT_ERROR <= (terms + 2) / 2
    if len(k) == 2:
        for candidate in choose(sample, weight, dtype, one, sides, one, groups).candidates:
            if candidate.variant is not None and (candidate.accurate or loose and candidate.method == "fft"):
                costs["transformed", candidate.variant] = candidate.cycles / _CYCLES_A_NANOSECOND
    if zeros and sum(t > 1 for t in k) == 1:
        along = size[k.index(max(k))]
        way, cost = line_way(max(k), along, dtype, loose)
        costs["line", way] = cost * (products // (max(k) * along))
    if zeros and accurate:
        costs.update(_flat_costs(n, k, size, dtype, groups))
        full = math.prod(a + b for a, b in zip(n, k, strict=True))
        costs["spectra", None] = groups * (_SPECTRA_CALL_NS + full * math.log2(full) * _SPECTRA_NS)
    return SignalChoice(*min(costs, key=costs.get))


def _flat_costs(n, k, size, dtype, groups):
    """Of laying samples, with zeros between the rows, out as one line, and taps as well, in some equal pieces."""
    rows = math.prod(a + b - 1 for a, b in zip(n[1:], k[1:], strict=True))
    outputs = size[0] * rows
    taps = (k[0] - 1) * rows + math.prod(k[1:])
    costs = {}
    for pieces in (1, 2, 4, 8, 16):
        way, cost = line_way(-(-taps // pieces), outputs, dtype, True)
        costs["flat", (*way, pieces)] = groups * (
            pieces * cost + _SPECTRA_CALL_NS + (outputs * (1 + pieces) + taps) * _FLAT_COPY_NS * dtype.itemsize / 4)
    return costs


@functools.lru_cache(maxsize=1024)
def line_way(k, size, dtype, loose):
    """((tile, blocks) for `engine.fft_line` of k taps, the ns that it takes: infinity, if it is not accurate enough)"""
    def cost(tile, blocks):
        if (_FFT_LINE_ERROR if blocks else _FFT_ERROR) > (k + 2) / 2 and not loose:
            return math.inf
        step = tile - k + 1 if blocks else tile // 2
        if step < 1 or not blocks and k <= step:
            return math.inf
        kernel, rows = (1, k) if blocks else (-(-k // step), step), -(-size // step)
        factor = 1 if blocks else _LINE_TILE[tile]
        return factor * engine.fft_cost(kernel, (rows, step), dtype, tile, prepared=False)

    costs = {(tile, blocks): cost(tile, blocks) for tile in engine.FFT_TILES for blocks in (True, False)}
    way = min(costs, key=costs.get)
    return way, costs[way]


@functools.lru_cache(maxsize=1024)
def line_parts(n, k, size, before, dtype, loose):
    """The parts of a line that are computed each on its own: (first output, last one + 1, (tile, blocks)
    or None for direct sums).

    Windows that lie within the n samples read them where they are; others, fewer, a copy with zeros. Where these are
    not much fewer, all windows read one copy.
    """
    def ways(size):
        way, cost = line_way(k, size, dtype, loose)
        direct = k * size * _LINE_NS[dtype]
        return (cost, way) if cost < direct else (direct, None)

    inside = min(max(before, 0), size)
    beyond = max(inside, min(size, n - k + 1 + before))
    parts = [(start, stop) for start, stop in ((0, inside), (inside, beyond), (beyond, size)) if start < stop]
    apart = sum(ways(stop - start)[0] for start, stop in parts)
    if ways(size)[0] + _FLAT_COPY_NS * dtype.itemsize / 4 * n < apart:
        parts = [(0, size)]
    return tuple((start, stop, ways(stop - start)[1]) for start, stop in parts)


def choose_gradient(sample, weight, dtype, stride, sides, dilation, groups):
    """The `Choice` for the input gradient of a convolution with these settings: at stride 1 it is a convolution too.

    It is the same whether weights are prepared or not, so that a plan's gradients have the bits of `pyconv.grad`.
    """
    reach = tuple(d * (k - 1) for k, d in zip(weight[2:], dilation, strict=True))
    size = tuple((n + sum(pair) - r - 1) // s + 1
                 for n, pair, r, s in zip(sample[1:], sides, reach, stride, strict=True))
    exchanged = (groups * weight[1], weight[0] // groups, *weight[2:])
    back = tuple((r - before, r - after) for r, (before, after) in zip(reach, sides, strict=True))
    # Where taps of two positions along an axis never meet, the engine makes a correlation for each tap.
    apart = any(n <= d for n, d in zip(size, dilation, strict=True))
    method = "direct" if stride != (1,) * len(stride) or apart else "auto"
    return choose((weight[0], *size), exchanged, dtype, stride, back, dilation, groups, False, method)


@functools.lru_cache(maxsize=1024)
def choose_weight_gradient(sample, weight, dtype, stride, sides, dilation, groups):
    """The `Choice` for the gradient of a convolution's weights: parameters as in `choose`."""
    one = (1,) * len(stride)
    size = tuple((n + sum(pair) - d * (k - 1) - 1) // s + 1
                 for n, pair, k, s, d in zip(sample[1:], sides, weight[2:], stride, dilation, strict=True))
    positions = math.prod(size)
    direct = Candidate("direct", None, _direct_weight_cycles(sample, weight, dtype, size), positions + 2, True)
    why_not = obstacle("winograd", weight, dtype, stride, dilation, groups)
    if why_not is None and not stride == dilation == one:
        why_not = f"its stride is {stride} and its dilation {dilation}, not 1"
    if why_not is None and weight[0] == groups:
        why_not = "a group has one output channel"
    if why_not is None and 0 in sample + weight + size:
        why_not = "it is empty"
    if why_not is not None:
        return Choice("direct", None, f"Winograd does not apply, since {why_not}", (direct,))
    others = []
    for variant in _winograd_variants(weight[2:], one, one):
        if variant in _WEIGHT_ERROR:
            error = weight_gradient_error(variant, size)
            others.append(Candidate("winograd", variant, _winograd_weight_cycles(variant, sample, weight, dtype, size),
                                    error, error <= (positions + 2) / 2))
    candidates = (direct, *others)
    best = min(others, key=lambda candidate: (not candidate.accurate, candidate.cycles))
    if not best.accurate:
        return Choice("direct", None, "Winograd's error could pass half of what direct's bound allows", candidates)
    if best.cycles < direct.cycles:
        return Choice("winograd", best.variant, f"{_name(*best[:2])} is faster than direct", candidates)
    return Choice("direct", None, "Winograd would be slower here", candidates)


# ---- estimates ----


def _lanes(dtype):
    return _VECTOR_BYTES // dtype.itemsize


def _memory_cycles(sample, weight, dtype, size):
    """To read and write every array once."""
    return (math.prod(sample) + weight[0] * math.prod(size) + math.prod(weight)) * dtype.itemsize / _BYTES_A_CYCLE


def _true_share(n, on, k, d, before):
    """The share of an axis's products, at stride 1, whose sample is none of the padding."""
    products = (min(on, n + before - tap * d) - max(0, before - tap * d) for tap in range(k))
    return sum(max(0, count) for count in products) / (on * k) if on else 1


def _direct_cycles(sample, weight, dtype, size, stride, sides, dilation, groups):
    """With 16 channels or more a group, calls took 0.75 to 1.35 times as long, two thirds of them within 5%
    (benchmarks/estimates.py, on the machine of docs/design.md)."""
    lanes = _lanes(dtype)
    if weight[0] == groups:
        vectors = math.prod(size[:-1]) * -(-size[-1] // lanes) * math.prod(weight)
        multiply = vectors / _VECTORS_A_CYCLE * (1 + _ROWS_OVERHEAD / weight[-1])
    else:
        multiply = math.prod(size) * math.prod(weight) / lanes / _VECTORS_A_CYCLE * _TILES_OVERHEAD
        if max(dilation) > 1:        # padding is wide, and left out where it is zeros
            shares = (_true_share(n, on, k, d, before) for n, on, k, d, (before, _)
                      in zip(sample[1:], size, weight[2:], dilation, sides, strict=True))
            multiply *= min(1, _LEFT_OUT * math.prod(shares))
        multiply += math.prod(sample) / lanes * (_CYCLES_A_COPY if max(stride) == 1 else _CYCLES_A_STRIDED_COPY)
    return max(multiply, _memory_cycles(sample, weight, dtype, size))


def _im2col_cycles(sample, weight, dtype, size):
    """To write the patch matrix and to read it."""
    return 2 * sample[0] * math.prod(weight[2:]) * math.prod(size) * dtype.itemsize / _BYTES_A_CYCLE


def _winograd_cycles(variant, sample, weight, dtype, size, stride, dilation, groups, prepared):
    m, r = variant
    lanes, planes = _lanes(dtype), (m + r - 1)**2
    by, bx = blocks = [-(-k // r) for k in _phase_kernel(weight[2:], stride)]
    along = [min(k, s) for k, s in zip(weight[2:], stride, strict=True)]
    phases = math.prod(along)
    inputs = sample[0] * phases
    tiles = [-(-on // (d * m)) for on, d in zip(size, dilation, strict=True)]
    residues = [min(on, d) for on, d in zip(size, dilation, strict=True)]
    copy = 0
    if weight[0] == groups and stride == dilation == (1, 1):
        # Whole rows of tiles, some of them computed in two blocks.
        read = (tiles[0] + by - 1) * -(-(tiles[1] + bx - 1) // lanes)
        vectors = 1.3 * tiles[0] * -(-(tiles[1] + bx - 1) // lanes)
    else:
        pitch, rows = (tiles[1] + bx - 1) * residues[1], (tiles[0] + by - 1) * residues[0]
        read = -(-rows * pitch // lanes)
        vectors = -(-((rows - by) * pitch + tiles[1] * residues[1]) // lanes)
        if phases > 1:
            copy = inputs * rows * m * pitch * m / lanes * _CYCLES_A_COPY
        if dilation[1] > 1:
            runs = sample[0] * rows * m * (m + r - 1) * (tiles[1] + bx - 1)
            runs += weight[0] * math.prod(size) // residues[1]
            copy = runs * -(-residues[1] // lanes) * _CYCLES_A_RUN
            copy += sample[0] * rows * m * dilation[1] * (pitch // residues[1] * m + r - 1) / lanes * _CYCLES_A_COPY
    weights = planes * phases * by * bx * weight[0] * weight[1]
    multiply = weights * vectors / _VECTORS_A_CYCLE * _TILES_OVERHEAD
    if phases > 1 and by == bx == 1:         # without phases of few taps in the planes of infinity
        for k, s, n in zip(weight[2:], stride, along, strict=True):
            multiply *= ((m + r - 2) * n + (k - 1) % s + 1) / ((m + r - 1) * n)
    far = max(0, weights * dtype.itemsize - _CACHED_BYTES)
    multiply += (weights * dtype.itemsize - far) / _WEIGHT_BYTES_A_CYCLE + far / _UNCACHED_BYTES_A_CYCLE
    of_input, of_output = _CYCLES_A_STRIDED_TRANSFORM if phases > 1 else (_CYCLES_A_TRANSFORM,) * 2
    transform = planes * (inputs * read * of_input + weight[0] * vectors * of_output)
    if not prepared:
        cycles = _CYCLES_A_WEIGHT if blocks == [1, 1] else _CYCLES_A_BLOCK
        if weights * dtype.itemsize > _WRITTEN_BYTES:
            cycles = _CYCLES_A_FAR_WEIGHT
        transform += weights / lanes * cycles
        if weights * dtype.itemsize > _KEPT_BYTES:
            transform += weights * dtype.itemsize * _CYCLES_A_MAPPED_BYTE
    return _CYCLES_A_CALL + max(multiply + transform + copy, _memory_cycles(sample, weight, dtype, size))


def _direct_weight_cycles(sample, weight, dtype, size):
    lanes = _lanes(dtype)
    # By lanes: vectors of channels; by dots: of columns.
    vectors = (-(-weight[1] // lanes) if weight[1] >= 12 else weight[1] / lanes) * weight[0] * math.prod(weight[2:])
    multiply = vectors * math.prod(size) / _VECTORS_A_CYCLE * _TILES_OVERHEAD
    return max(multiply + math.prod(sample) / lanes * _CYCLES_A_COPY, _memory_cycles(sample, weight, dtype, size))


def _winograd_weight_cycles(variant, sample, weight, dtype, size):
    """Of shapes with 12 channels or more, calls took 0.9 to 1.4 times as long beside direct's."""
    m, r = variant
    lanes, planes = _lanes(dtype), (m + r - 1)**2
    by, bx = (-(-k // r) for k in weight[2:])
    tiles = [-(-on // m) for on in size]
    channels = -(-weight[1] // lanes)
    sums = planes * by * bx * weight[0] * channels
    multiply = sums * math.prod(tiles) / _VECTORS_A_CYCLE * _TILES_OVERHEAD
    windows = channels * (sample[0] // weight[1]) * (tiles[0] + by - 1) * (tiles[1] + bx - 1)
    transform = planes * (windows * _CYCLES_A_WINDOW
                          + weight[0] * -(-math.prod(tiles) // lanes) * _CYCLES_A_TILE) + sums * _CYCLES_A_SUM
    return _CYCLES_A_CALL + max(multiply + transform, _memory_cycles(sample, weight, dtype, size))


def weight_gradient_error(variant, size):
    """c in |dw - exact| <= c * u * max(|x| * |dy|), for one image with outputs of this size."""
    return _WEIGHT_ERROR[variant] + math.prod(-(-on // variant[0]) for on in size) / 2


def winograd_error(variant, weight, stride=(1, 1)):
    """c in |y - exact| <= c * u * max(|x| * |w|), for weights of this shape."""
    blocks = math.prod(-(-k // variant[1]) for k in _phase_kernel(weight[2:], stride))
    phases = math.prod(min(k, s) for k, s in zip(weight[2:], stride, strict=True))
    return _ERROR[variant] + (1 if variant == (4, 2) else 2) * weight[1] * phases * blocks


def _fft_candidate(weight, dtype, size, prepared):
    tile = engine.fft_tile(weight[2:], size, dtype)
    nanoseconds = engine.fft_cost(weight[2:], size, dtype, tile, prepared)
    return Candidate("fft", (tile,), _CYCLES_A_CALL + weight[0] * nanoseconds * _CYCLES_A_NANOSECOND, _FFT_ERROR,
                     _FFT_ERROR <= (math.prod(weight[1:]) + 2) / 2)


# ---- planned ahead ----



class Plan:
    """A convolution planned ahead, as `plan_conv2d` returns it: weights and settings fixed, called with any batch.

    It may be called from several threads at once, and pickled. It holds copies of the weights and the bias, and no
    other array.

    Attributes
    ----------
    method : str
        ``"direct"``, ``"winograd"`` or ``"fft"``.
    variant : tuple or None
        Of Winograd's method: outputs a tile and taps a block of the kernel, along each axis. Of Fourier transforms: the
        samples of a tile along each axis.
    reason : str
        Why this one.
    candidates : tuple
        The methods considered, each with ``method``, ``variant``, ``cycles`` (estimated, one image on one core) and
        ``error``, the c in ``|y - exact| <= c * u * max(|x| * |w|)`` for unit roundoff u, of weights that are not
        nearly all zeros (docs/design.md, Accuracy).
    dtype : numpy.dtype
        Of the result.
    input_shape, output_shape : tuple of int
        The input's, as it was given, and the output's that follows; any number of images may be passed.
    flops : int
        Multiplications and additions of the plain method, one image.
    workspace_bytes : int
        What a call on an input of `input_shape` takes for itself, with all its threads.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> plan = pyconv.plan_conv2d((1, 8, 8), np.ones((1, 1, 3, 3)), padding=1, method="direct")
    >>> plan
    <Plan conv2d (1, 8, 8) to (1, 8, 8), 3x3, float64: direct>
    >>> plan.method, plan.output_shape, plan.flops
    ('direct', (1, 8, 8), 1152)
    """

    def __init__(self, input_shape, weight, bias, layer, value, method, workers):
        """`layer` is what conv.py settles; weight and bias are in the dtype computed in, and the plan's own."""
        self.input_shape, self.output_shape, self.dtype = input_shape, layer.shape, layer.result
        self._sample, self._size = input_shape[-3:], layer.shape[-3:]
        self._weight, self._bias, self._computed = weight, bias, layer.computed
        self._groups, self._stride, self._dilation, self._value = layer.groups, layer.stride, layer.dilation, value
        self._before, self._boundary = layer.before, layer.boundary
        self._workers = workers
        products = math.prod(self._size[1:]) * weight.size
        self._brief = (engine.SERIAL_BELOW - 1) // products if products else 0       # images too few for two threads
        self._constant = weight.size == 0        # without input channels the output is the bias alone
        choice = choose(self._sample, weight.shape, layer.computed, layer.stride, layer.sides, layer.dilation,
                        layer.groups, True, method)
        self._gradient_variant = layer.gradient.variant
        self._weight_gradient_variant = layer.weight_gradient.variant
        if self._gradient_variant is not None and not suits(self._gradient_variant, weight, layer.groups, True):
            self._gradient_variant = None
        if choice.variant is not None and method == "auto" and not suits(choice.variant, weight):
            reason = "its weights are not all finite" if not np.isfinite(weight).all() else \
                "so few of its weights count that Winograd's error could pass half of what direct's bound allows"
            choice = choice._replace(method="direct", variant=None, reason=reason)
        self.method, self.variant, self.reason, self.candidates = choice
        self._prepare()

    def _prepare(self):
        # What gradients need, or another number of images, is made when it is first asked for: by two threads at once
        # perhaps, to the same end.
        self._kept, self._packed = {}, {}
        self._transformed = None
        if self.variant is None:
            if self._weight.dtype.kind == "c":
                self._packed = None
            self._direct_workspace()         # which packs the weights
        else:
            self._transformed = engine.transformed_weights(self._weight, self._groups, self.variant,
                                                           resolve_workers(self._workers), stride=self._stride)

    def __getstate__(self):
        # How weights are laid out may differ on the machine that reads this.
        return {**self.__dict__, "_kept": None, "_packed": None, "_transformed": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._prepare()

    def __call__(self, x, out=None):
        """Convolve: `pyconv.conv2d` with the same settings, ``dtype=plan.dtype`` and ``method=plan.method``.

        Parameters
        ----------
        x : array_like, (N, C, H, W) or (C, H, W)
            Any number of images of the planned size, of any strides.
        out : ndarray, optional
            Filled and returned. It may overlap x, which is then copied first.

        Returns
        -------
        ndarray, (N, O, oh, ow) or (O, oh, ow)

        Raises
        ------
        ValueError
            Images of another size or number of channels, an `out` of the wrong shape.
        TypeError
            Arguments of a wrong kind.
        """
        x = self._planned(x, self._sample, "x")
        batch = x.shape[:-3]
        x, out = self._output(x, out, batch + self._size)
        if out.size == 0:
            return out
        workers = self._threads(batch)
        if self._constant:
            out[...] = 0 if self._bias is None else self._bias.reshape(-1, 1, 1)
        elif self.variant is None:
            engine.correlate(x, self._weight, self._bias, out, len(batch), self._groups, self._stride, self._dilation,
                             self._before, self._boundary, self._value, workers, kept=self._packed)
        else:
            engine.correlate_transformed(x, self._weight, self._transformed, self._bias, out, len(batch), self._groups,
                                         self._before, self._boundary, self._value, workers, self.variant,
                                         stride=self._stride, dilation=self._dilation)
        return out

    def input_gradient(self, dy, out=None):
        """Gradient with respect to the input: the bits of `pyconv.grad.conv2d_input` with ``dtype=plan.dtype``.

        Parameters
        ----------
        dy : array_like, (N, O, oh, ow) or (O, oh, ow)
            The loss's gradient with respect to the result.
        out : ndarray, optional
            Filled and returned. It may overlap dy, which is then copied first.

        Returns
        -------
        ndarray, (N, C, H, W) or (C, H, W)

        Raises
        ------
        ValueError, TypeError
            As in a call.
        """
        dy = self._planned(dy, self._size, "dy")
        batch = dy.shape[:-3]
        dy, out = self._output(dy, out, batch + self._sample)
        weight = self._weight if self._weight.dtype.kind != "c" else self._conjugate()
        engine.input_gradient(dy, weight, None, out, len(batch), self._groups, self._stride, self._dilation,
                              self._before, self._boundary, self._threads(batch), self._kept, self._gradient_variant)
        return out

    def weight_gradient(self, x, dy, out=None):
        """Gradient with respect to the weights: the bits of `pyconv.grad.conv2d_weight` with ``dtype=plan.dtype``.

        Parameters
        ----------
        x : array_like, (N, C, H, W) or (C, H, W)
        dy : array_like, (N, O, oh, ow) or (O, oh, ow)
            The loss's gradient with respect to the result.
        out : ndarray, optional
            Filled and returned.

        Returns
        -------
        ndarray, (O, C / groups, kh, kw)

        Raises
        ------
        ValueError, TypeError
            As in a call; x and dy with different numbers of images.
        """
        x, dy = self._planned(x, self._sample, "x"), self._planned(dy, self._size, "dy")
        batch = x.shape[:-3]
        _check.planned_batches(batch, dy.shape[:-3])
        shape = self._weight.shape
        if out is not None:
            _check.output_array(out, shape, self.dtype)
        dw = np.empty(shape, self._computed)
        engine.weight_gradient(x, dy, dw, len(batch), self._groups, self._stride, self._dilation, self._before,
                               self._boundary, self._value, self._threads(batch), self._weight_gradient_variant)
        if out is None and dw.dtype == self.dtype:
            return dw
        with np.errstate(over="ignore"):
            if out is None:
                return dw.astype(self.dtype)
            out[...] = dw
        return out

    def _planned(self, a, sample, name):
        """`a` as an array of one image of shape `sample`, or of a batch."""
        a = _check.numeric_array(a, name)
        shape = a.shape
        if shape[-3:] != sample or len(shape) > 4:
            _check.planned_shape(shape, sample, name)
        if a.dtype is not self.dtype:
            _check.planned_dtype(a.dtype, self.dtype, name)
        return a

    def _output(self, a, out, shape):
        """`a`, or a copy where `out`, which must have this shape, overlaps it; and `out`, or a new array."""
        if out is None:
            return a, np.empty(shape, self.dtype)
        _check.output_array(out, shape, self.dtype)
        return a.copy() if np.may_share_memory(out, a) else a, out

    def _threads(self, batch):
        """How many a call on this batch may use: looking that up takes as long as a very small image."""
        if self._workers is None and math.prod(batch) <= self._brief:
            return 1
        return resolve_workers(self._workers)

    def _conjugate(self):
        weight = self._kept.get("conjugate")
        return self._kept.setdefault("conjugate", self._weight.conj()) if weight is None else weight

    @property
    def flops(self):
        return 2 * math.prod(self._size) * math.prod(self._weight.shape[1:])

    @property
    def workspace_bytes(self):
        if self.variant is None:
            return self._direct_workspace()
        x, out = np.empty(self.input_shape, self._computed), np.empty(self.output_shape, self._computed)
        if out.size == 0 or self._constant:
            return 0
        return engine.transformed_workspace_bytes(x, self._weight, self._transformed, out, x.ndim - 3, self._groups,
                                                  self._before, self._boundary, self._threads(x.shape[:-3]),
                                                  self.variant, self._stride, self._dilation)

    def _direct_workspace(self):
        x, out = np.empty(self.input_shape, self._computed), np.empty(self.output_shape, self._computed)
        if out.size == 0 or self._constant:
            return 0
        return engine.workspace_bytes(x, self._weight, out, x.ndim - 3, self._groups, self._stride, self._dilation,
                                      self._before, self._boundary, self._threads(x.shape[:-3]), self._packed)

    def __repr__(self):
        kernel = "x".join(map(str, self._weight.shape[2:]))
        return (f"<Plan conv2d {self.input_shape} to {self.output_shape}, {kernel}, {self.dtype}: "
                f"{_name(self.method, self.variant)}>")

    def __str__(self):
        fastest = min(candidate.cycles for candidate in self.candidates)
        lines = [f"{self.method}: {self.reason}", "", f"  {'method':16} {'time, relative':>14} {'error bound c':>14}"]
        for candidate in self.candidates:
            mark = "*" if candidate[:2] == (self.method, self.variant) else " "
            note = "" if candidate.accurate else "  too inaccurate for method=\"auto\""
            lines.append(f"{mark} {_name(*candidate[:2]):16} {candidate.cycles / fastest:14.2f} {candidate.error:14.0f}"
                         f"{note}")
        lines += ["", "|y - exact| <= c * u * max(|x| * |w|), u the unit roundoff; times are estimates"]
        return "\n".join(lines)


def _name(method, variant):
    if variant is None:
        return method
    return "Winograd F({},{})".format(*variant) if method == "winograd" else "FFT tiles of {}".format(*variant)
