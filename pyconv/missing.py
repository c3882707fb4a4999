"""Missing samples of an image: linear filters that use what is there (normalised convolution).

A sample is missing where `where` is False, and, under ``nan_policy="omit"``, where it is NaN. With the weights w of a
filter, its samples x, and m = 1 where a sample is there and 0 where it is missing, all continued beyond the borders in
the same way (a constant border is there), an output becomes ::

    sum(w x m) * sum(w) / sum(w m)

which is the plain sum where nothing is missing under the kernel, to the last bit, and leaves a constant image constant.
Missing samples are replaced by 0, never multiplied by it. H. Knutsson and C.-F. Westin, Normalized and differential
convolution, CVPR 1993.

Weights that cancel to less than `_CANCELLED` of the sum of their magnitudes, those of a derivative, have no sum to
scale to: there an output is NaN wherever a tap of a weight other than zero is missing, since what stands there instead
would make an edge. The same holds where the valid taps of a kernel cancel so far, though all of them do not.

The image is filtered block by block, each with as many samples around it as the kernel reaches: the block, its mask,
and both filtered make up all the memory there is beyond input and output. A block in which nothing is missing is only
looked through, and filtered as ever.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pyconv import _check

# Weights whose sum is a smaller share of the sum of their magnitudes are those of a derivative.
_CANCELLED = 0.01

# A block has about so many samples: four arrays of them in float32 are 1 MB, half a core's cache.
_BLOCK = 2**16


def filter_valid(
    image: NDArray,
    output: NDArray,
    passes: Sequence,
    plain: Callable,
    direct: Callable,
    weigh: Callable,
    settings: tuple,
    derivative: bool,
    dtype: np.dtype,
):
    """Fill `output` with the filtered image; return it, or it and the share of the weights that is valid.

    Parameters
    ----------
    image, output : ndarray
        Of one shape.
    passes : sequence
        The sweeps of the filter, with `weights` of as many axes as the image, `before` and `boundary`.
    plain, direct : callable
        ``plain(image, output)`` filters an image in which nothing is missing, ``direct`` does so with sums that depend
        on nothing but the samples under the kernel.
    weigh : callable
        ``weigh(mask, factors, output)`` filters a mask with other weights, one array a pass.
    settings : tuple
        What `_check.missing_samples` returns.
    derivative : bool
        Whether the weights are those of a derivative whatever their sum.
    dtype : dtype
        The real dtype in which the sums of the image are taken.
    """
    where, nan_policy, keep_nan, min_weight, return_weight = settings
    if where is not None:
        where = _check.samples_used(where, image)
    # Integers have no NaN.
    omit = nan_policy == "omit" and image.dtype.kind in "fc"
    if where is not None or omit:
        _check.output_has_nan(output, image)
    sides = [[0, 0] for _ in image.shape]
    boundary = ["edge"] * image.ndim
    for sweep in passes:
        for axis, k in enumerate(sweep.weights.shape):
            if k > 1:
                sides[axis][0] += sweep.before[axis]
                sides[axis][1] += k - 1 - sweep.before[axis]
                boundary[axis] = sweep.boundary[axis]
    if nan_policy == "raise":
        _refuse_nan(image, where)
    weight = np.ones(image.shape, dtype) if return_weight else None
    if where is None and not omit:
        plain(image, output)
    elif output.size:
        if np.may_share_memory(image, output):
            image = image.copy()
        if where is not None and np.may_share_memory(where, output):
            where = where.copy()
        normalise = _Normalisation(passes, weigh, sides, boundary, derivative, min_weight, return_weight, dtype)
        with np.errstate(all="ignore"):
            _filter_blocks(image, where, omit, keep_nan, output, weight, sides, boundary, plain, direct, normalise)
    return (output, weight) if return_weight else output


def _filter_blocks(image, where, omit, keep_nan, output, weight, sides, boundary, plain, direct, normalise):
    filled, filtered = (_Scratch(dtype) for dtype in (_filled_dtype(image.dtype), output.dtype.newbyteorder("=")))
    for block, source, inner in _blocks(image.shape, sides, boundary):
        piece = _piece(image, source)
        valid = None if where is None else _piece(where, source)
        if valid is not None and valid.all():
            valid = None
        if omit and _has_nan(piece):
            there = ~np.isnan(piece)
            valid = there if valid is None else np.logical_and(valid, there, out=there)
        if valid is None:
            if piece.shape == image.shape:
                plain(piece, output)
            else:
                sums = filtered.array(piece.shape)
                plain(piece, sums)
                output[block] = sums[inner]
            continue
        x, sums = filled.array(piece.shape), filtered.array(piece.shape)
        np.copyto(x, 0)
        np.copyto(x, piece, where=valid)
        direct(x, sums)
        target = output[block]
        normalise(valid, inner, sums[inner], target, None if weight is None else weight[block])
        if keep_nan:
            np.copyto(target, _nan(target.dtype), where=~valid[inner])


class _Normalisation:
    """What the sums of a block are divided by."""

    def __init__(self, passes, weigh, sides, boundary, derivative, min_weight, return_weight, dtype):
        self.weigh, self.min_weight, self.return_weight = weigh, min_weight, return_weight
        # A constant border is there: it is laid round the mask, since a second pass would see the constant itself.
        self.border = [
            tuple(amounts) if name == "constant" else (0, 0) for amounts, name in zip(sides, boundary, strict=True)
        ]
        self.mask, self.shares = _Scratch(dtype), [_Scratch(dtype), _Scratch(dtype)]
        weights = [sweep.weights for sweep in passes]
        magnitudes = [np.abs(w.astype(np.result_type(w, np.float64))) for w in weights]
        sums = [complex(w.sum(dtype=np.result_type(w, np.float64))) for w in weights]
        total = math.prod(float(m.sum()) for m in magnitudes)
        self.counts = [(w != 0).astype(np.float64) for w in weights]
        self.magnitudes = self.counts
        if 0 < total < math.inf:
            self.magnitudes = [m / m.sum() for m in magnitudes]
        # What is left of the weights where they cancel.
        self.remainder = abs(math.prod(sums)) / total if 0 < total < math.inf else 0.0
        self.complete_only = derivative or not self.remainder >= _CANCELLED or min_weight == 1
        one_sign = all(w.dtype.kind != "c" and (np.all(w >= 0) or np.all(w <= 0)) for w in weights)
        self.signed = None
        if not self.complete_only and not one_sign:
            self.signed = [w / (s if w.dtype.kind == "c" else s.real) for w, s in zip(weights, sums, strict=True)]
            complex_weights = any(w.dtype.kind == "c" for w in weights)
            self.shares.append(_Scratch(np.result_type(dtype, np.complex64) if complex_weights else dtype))
        # A share of min_weight is reached within the roundings of its sum.
        terms = sum(w.size + 2 for w in weights)
        info = np.finfo(dtype)
        self.least = max(min_weight * (1 - 2 * terms * float(info.eps)), float(info.tiny))
        self.sides, self.full = sides, {}

    def __call__(self, valid, inner, sums, target, weight):
        """Divide the sums over the valid samples into `target`, those of a block, and fill in their weight."""
        mask = self.mask.array([n + sum(amounts) for n, amounts in zip(valid.shape, self.border, strict=True)])
        if any(map(any, self.border)):
            mask[...] = 1
        framed = tuple(slice(a, a + n) for n, (a, _) in zip(valid.shape, self.border, strict=True))
        mask[(..., *framed)] = valid
        inner = (
            ...,
            *(slice(s.start + a, s.stop + a) for s, (a, _) in zip(inner[1:], self.border, strict=True)),
        )
        nan = _nan(target.dtype)
        if self.complete_only:
            share, full = self._share(mask, 0, self.counts, inner)
            target[...] = sums
            np.copyto(target, nan, where=share != full)
            if weight is not None:
                share, full = self._share(mask, 1, self.magnitudes, inner)
                np.divide(share, full, out=weight)
                if full == 0:
                    weight[...] = 1
            return
        share, full = self._share(mask, 0, self.magnitudes, inner)
        if weight is not None:
            np.divide(share, full, out=weight)
        few = share < self.least * full
        if self.signed is not None:
            magnitude = share
            share, full = self._share(mask, 2, self.signed, inner)
            few |= np.abs(share) * self.remainder < _CANCELLED * magnitude
        # Exactly 1 where nothing is missing.
        np.divide(full, share, out=share)
        np.multiply(sums, share, out=target, casting="same_kind")
        np.copyto(target, nan, where=few)

    def _share(self, mask, i, factors, inner):
        """The share of the weights `factors` that is valid, and what it is where nothing is missing, to the last bit.

        As all sums are taken in one order, the latter is the same everywhere.
        """
        scratch = self.shares[i]
        if i not in self.full:
            shape = [sum(amounts) + 1 for amounts in self.sides]
            sums = np.empty(shape, scratch.dtype)
            self.weigh(np.ones(shape, mask.dtype), factors, sums)
            self.full[i] = sums[tuple(before for before, _ in self.sides)]
        share = scratch.array(mask.shape)
        self.weigh(mask, factors, share)
        return share[inner], self.full[i]


class _Scratch:
    """Memory for one block after the other."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self.samples = np.empty(0, self.dtype)

    def array(self, shape):
        size = math.prod(shape)
        if self.samples.size < size:
            self.samples = np.empty(size, self.dtype)
        return self.samples[:size].reshape(shape)


def _filled_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of an image whose missing samples are zeros, in which it is as exact as before."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.promote_types(dtype.newbyteorder("="), np.float32)


def _nan(dtype: np.dtype):
    return complex(math.nan, math.nan) if dtype.kind == "c" else math.nan


def _has_nan(samples: NDArray) -> bool:
    """The least of some samples is NaN if one of them is; to ask so needs no array of booleans."""
    if samples.dtype.kind == "c":
        return _has_nan(samples.real) or _has_nan(samples.imag)
    return bool(np.isnan(samples.min()))


def _refuse_nan(image: NDArray, where: NDArray | None) -> None:
    """Raise a ValueError if an image, where it is used, has a NaN."""
    if image.dtype.kind not in "fc" or image.size == 0:
        return
    count, first = 0, None
    for block, _, _ in _blocks(image.shape, [(0, 0)] * image.ndim, ["edge"] * image.ndim):
        samples = image[block]
        if _has_nan(samples):
            found = np.isnan(samples)
            if where is not None:
                found &= where[block]
            places = np.argwhere(found)
            if len(places):
                place = tuple(int(i) + s.start for i, s in zip(places[0], block[1:], strict=True))
                count, first = count + len(places), place if first is None else min(first, place)
    if count:
        raise _check.nan_found(count, first)


def _blocks(shape, sides, boundary) -> Iterator[tuple[tuple, tuple, tuple]]:
    """Blocks that cover an array: the indices of the block, of what the filter needs to fill it, and of it in that.

    The latter ends where the array does: as the filter continues it there, so does it a block. Around the array, under
    the boundary "wrap", the indices of an axis are an array.
    """
    extents, left = list(shape), math.prod(shape)
    reach = [max(amounts) for amounts in sides]
    for axis, n in enumerate(shape):
        if left <= _BLOCK:
            break
        rest = left // n
        extents[axis] = min(n, max(_BLOCK // rest, 4 * reach[axis], 1))
        left = rest * extents[axis]
    axes = [
        [_span(start, min(start + extent, n), r, n, name == "wrap") for start in range(0, n, extent)]
        for n, extent, r, name in zip(shape, extents, reach, boundary, strict=True)
    ]
    for spans in itertools.product(*axes):
        # (an ellipsis keeps an array without axes an array)
        yield tuple((..., *indices) for indices in zip(*spans, strict=True)) if spans else ((...,),) * 3


def _span(start, stop, reach, n, wrap):
    """The part of one axis of a block, of what it needs, and of it in that."""
    first, last = start - reach, stop + reach
    if wrap and stop - start < n and (first < 0 or last > n):
        return slice(start, stop), np.arange(first, last) % n, slice(reach, reach + stop - start)
    first, last = max(first, 0), min(last, n)
    return slice(start, stop), slice(first, last), slice(start - first, stop - first)


def _piece(array: NDArray, source: tuple) -> NDArray:
    """Part of an array."""
    piece = array[tuple(slice(None) if isinstance(s, np.ndarray) else s for s in source)]
    for axis, s in enumerate(source[1:]):
        if isinstance(s, np.ndarray):
            piece = piece.take(s, axis)
    return piece
