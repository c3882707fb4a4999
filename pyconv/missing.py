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

Sums of large kernels may be taken by transforms of tiles, whose error is one of the largest sum in reach. Divided by a
small share of the weights it would grow, so where it could pass half of what direct sums may err by, these are taken
instead.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pyconv import _check, engine

# Weights whose sum is a smaller share of the sum of their magnitudes are those of a derivative.
_CANCELLED = 0.01

# A block has about so many samples.
_BLOCK = 2**18

# How wide, at least, the parts of a block are in which some sums by transforms are taken again.
_CELL = 64

# As much memory as a thread keeps for each of a block's arrays.
_KEPT_BYTES = 2**22


class MaskWeights:
    """How a mask is filtered beside its image, and what the outcome means.

    Parameters
    ----------
    passes : sequence
        The sweeps of the image's filter, with `weights` of as many axes as the image, `before` and `boundary`.
    derivative : bool
        Whether the weights are those of a derivative whatever their sum.
    min_weight : float
    dtype : dtype
        The real dtype in which the sums of the image are taken.
    steps_of : callable
        ``steps_of(factors, by_transforms)`` are the steps of a filter with other weights, one array a pass.
    weigh : callable
        ``weigh(steps, mask, inner, output)`` fills `output` with part `inner` of a mask filtered in such steps.
    """

    def __init__(self, passes: Sequence, derivative: bool, min_weight: float, dtype: np.dtype, steps_of, weigh):
        self.dtype, ndim = dtype, passes[0].weights.ndim
        self.sides, self.boundary = [(0, 0)] * ndim, ["edge"] * ndim
        for sweep in passes:
            for axis, k in enumerate(sweep.weights.shape):
                if k > 1:
                    self.sides[axis] = sweep.before[axis], k - 1 - sweep.before[axis]
                    self.boundary[axis] = sweep.boundary[axis]
        # A constant border is there: it is laid round the mask, since a second pass would see the constant itself.
        self.border = [
            amounts if name == "constant" else (0, 0) for amounts, name in zip(self.sides, self.boundary, strict=True)
        ]
        self.framed = any(map(any, self.border))

        def share(factors, dtype, place, transforms=False):
            return _Share(steps_of(factors, transforms), weigh, self.sides, dtype, place)

        weights = [sweep.weights for sweep in passes]
        magnitudes = [np.abs(w.astype(np.result_type(w, np.float64))) for w in weights]
        sums = [complex(w.sum(dtype=np.result_type(w, np.float64))) for w in weights]
        total = math.prod(float(m.sum()) for m in magnitudes)
        regular = 0 < total < math.inf
        # What is left of the weights where they cancel.
        self.remainder = abs(math.prod(sums)) / total if regular else 0.0
        complete_only = derivative or not self.remainder >= _CANCELLED or min_weight == 1
        counts = [(w != 0).astype(np.float64) for w in weights]
        shares = [m / m.sum() for m in magnitudes] if regular else counts
        self.share = share(shares, dtype, 3)
        # Whole numbers tell a tap that is missing however small its weight is.
        self.count = share(counts, dtype, 4) if complete_only else None
        self.signed = None
        if not complete_only and not all(w.dtype.kind != "c" and (np.all(w >= 0) or np.all(w <= 0)) for w in weights):
            is_complex = any(w.dtype.kind == "c" for w in weights)
            signed = [w / (s if w.dtype.kind == "c" else s.real) for w, s in zip(weights, sums, strict=True)]
            self.signed = share(signed, np.result_type(dtype, np.complex64) if is_complex else dtype, 5)
        self._choose_transforms(passes, shares, counts, share)
        # A share of min_weight is reached within the roundings of its sum. Those of all weights differ by a few, if the
        # order of sums follows the shape of a block.
        info, full = np.finfo(dtype), float(self.share.full)
        slack = 2 * sum(w.size + 2 for w in weights) * float(info.eps)
        self.least = full * max(min_weight * (1 - slack), float(info.tiny))
        self.almost = full * (1 - 8 * float(info.eps))

    def _choose_transforms(self, passes, shares, counts, share):
        """`transformed`, what sums by transforms tell of a mask; None: they are not for this filter."""
        self.transformed, self.terms = None, sum(sweep.weights.size for sweep in passes)
        if self.signed is None and any(sweep.by_transforms for sweep in passes):
            factors, place = (shares, 3) if self.count is None else (counts, 4)
            self.transformed = share(factors, self.dtype, place, True)

    def bounds(self, error):
        """The share that is as good as all weights and the one below which sums are taken directly, if they are off by
        at most `error` roundings of the largest one; None: all are to be taken directly."""
        u, full = float(np.finfo(self.dtype).eps) / 2, self.transformed.full.item()
        if self.count is None:
            # Sum and share divided then err by half as much as direct ones may: (n + 2) roundings each.
            return full * (1 - 2 * error * u), full * min(1.0, 2 * error / (self.terms + 2))
        # Whole numbers show through smaller errors.
        return (full - 0.5, 0.0) if error * u * full < 0.5 else None

    def mask(self, shape):
        """An array for the mask of a piece and its border, and where in it the piece is."""
        mask = scratch([n + sum(amounts) for n, amounts in zip(shape, self.border, strict=True)], self.dtype, 2)
        if not self.framed:
            return mask, ...
        mask[...] = 1
        return mask, (..., *(slice(a, a + n) for n, (a, _) in zip(shape, self.border, strict=True)))

    def normalise(self, weigh, mask, inner, sums, target, weight, there, bounds=None):
        """Divide the sums of a block into `target` and fill in its weight; NaN where `there`, if it is given, is 0.

        `inner` is the block's place in the mask. Where sums were taken by transforms (`bounds`), and that was not
        accurate enough, is returned.
        """
        few = None
        if bounds is not None:
            almost, enough = bounds
            share, _ = self.transformed(weigh, mask, inner, sums.shape)
            few = share < enough if enough else None
        if self.count is not None:
            if bounds is None:
                share, almost = self.count(weigh, mask, inner, sums.shape)
            self._divide(sums, share, target, there, None, self.count.full, almost, almost, scaled=False)
            if weight is not None:
                share, full = self.share(weigh, mask, inner, sums.shape)
                np.divide(share, full, out=weight)
                if full == 0:
                    weight[...] = 1
            return few
        full = self.share.full
        if bounds is None:
            share, almost = self.share(weigh, mask, inner, sums.shape)[0], self.almost
        if self.signed is None:
            self._divide(sums, share, target, there, weight, full, almost, self.least, scaled=True)
            return few
        if weight is not None:
            np.divide(share, full, out=weight)
        of_signed, full_signed = self.signed(weigh, mask, inner, sums.shape)
        cancelled = np.abs(of_signed) * self.remainder < _CANCELLED * share
        share[cancelled] = 0
        np.divide(full_signed, of_signed, out=of_signed)
        np.multiply(sums, of_signed, out=sums, casting="same_kind")
        self._divide(sums, share, target, there, None, full, full, self.least, scaled=False)
        return None

    def _divide(self, sums, share, target, there, weight, full, almost, least, scaled):
        """sums * (full / share), or `sums` if not `scaled`, NaN where a share is below `least`, into `target`.

        The quotient is exactly 1 where nothing is missing: where a share is at least `almost`.
        """
        if sums.dtype != self.dtype:
            few = share < least if there is None else (share < least) | (there == 0)
            share[share >= almost] = full
            if scaled:
                np.multiply(sums, full / share, out=target, casting="same_kind")
            else:
                np.copyto(target, sums)
            np.copyto(target, _nan(target.dtype), where=few)
            if weight is not None:
                np.divide(share, full, out=weight)
            return
        arrays = sums, share, target if _is_in_rows(target, self.dtype) else sums, there, weight
        if sums.ndim == 0:
            arrays = tuple(None if a is None else a[np.newaxis] for a in arrays)
        engine.normalise(*arrays, full, almost, least, scaled)
        if arrays[2] is sums:
            target[...] = sums


class _Share:
    """The share of some weights that a mask leaves, and what it is where nothing is missing."""

    def __init__(self, steps, weigh, sides, dtype, place):
        self.steps, self.dtype, self.place = steps, np.dtype(dtype), place
        shape = [sum(amounts) + 1 for amounts in sides]
        sums = np.empty(shape, dtype)
        weigh(steps, np.ones(shape, np.finfo(dtype).dtype), ..., sums)
        self.full = sums[tuple(before for before, _ in sides)]

    def __call__(self, weigh, mask, inner, shape):
        share = scratch(shape, self.dtype, self.place)
        weigh(self.steps, mask, inner, share)
        return share, self.full


def filter_valid(
    image: NDArray,
    output: NDArray,
    weights: MaskWeights,
    plain: Callable,
    direct: Callable,
    weigh: Callable,
    transform_error: Callable,
    settings: tuple,
):
    """Fill `output` with the filtered image; return it, or it and the share of the weights that is valid.

    Parameters
    ----------
    image, output : ndarray
        Of one shape.
    weights : MaskWeights
    plain, direct : callable
        ``plain(image, inner, output)`` fills `output` with part `inner` of a filtered image in which nothing is
        missing; ``direct`` does so with sums that depend on nothing but the samples under the kernel.
    weigh : callable
        As in `MaskWeights`.
    transform_error : callable
        ``transform_error(shape, part)`` is how many roundings of the largest sum `plain` may be off where it takes sums
        of an image of this shape, for a part of that shape, by transforms; 0: it does not.
    settings : tuple
        What `_check.missing_samples` returns.
    """
    where, nan_policy, keep_nan, _, return_weight = settings
    if where is not None:
        where = _check.samples_used(where, image)
    # Integers have no NaN.
    omit = nan_policy == "omit" and image.dtype.kind in "fc"
    if where is not None or omit:
        _check.output_has_nan(output, image)
    if nan_policy == "raise":
        _refuse_nan(image, where)
    weight = np.ones(image.shape, weights.dtype) if return_weight else None
    if where is None and not omit:
        plain(image, ..., output)
    elif output.size:
        if np.may_share_memory(image, output):
            image = image.copy()
        if where is not None and np.may_share_memory(where, output):
            where = where.copy()
        blocks = _Blocks(image, where, omit, keep_nan, output, weight, weights, plain, direct, weigh, transform_error)
        with np.errstate(all="ignore"):
            for places in _blocks(image.shape, weights.sides, weights.boundary):
                blocks.fill(*places)
    return (output, weight) if return_weight else output


class _Blocks:
    """An image and its output, filtered block by block."""

    def __init__(self, image, where, omit, keep_nan, output, weight, weights, plain, direct, weigh, transform_error):
        self.image, self.where, self.omit, self.keep_nan = image, where, omit, keep_nan
        self.output, self.weight, self.weights = output, weight, weights
        self.plain, self.direct, self.weigh, self.transform_error = plain, direct, weigh, transform_error
        self.filtered = output.dtype.newbyteorder("=")
        self.filled = np.result_type(weights.dtype, np.complex64) if image.dtype.kind == "c" else weights.dtype

    def fill(self, block, source, inner, transforms=True):
        """One block of the output, from a piece of the image: see `_blocks`. Without `transforms`, by direct sums."""
        weights, target = self.weights, self.output[block]
        piece = _piece(self.image, source)
        there = None if self.where is None else _piece(self.where, source)
        x, sums = scratch(piece.shape, self.filled, 0), scratch(target.shape, self.filtered, 1)
        mask, framed = weights.mask(piece.shape)
        if not _select(piece, there, self.omit, x, mask[framed]):
            # (an image that is one block, itself, so that what is summed as integers still is)
            self.plain(piece if piece.shape == self.image.shape else x, inner, target)
            return
        weight = None if self.weight is None else self.weight[block]
        if weights.transformed is not None and not mask.any():
            target[...] = _nan(target.dtype)
            if weight is not None:
                weight[...] = 0
            return
        bounds = None
        if transforms and weights.transformed is not None:
            error = max(self.transform_error(shape, target.shape) for shape in (piece.shape, mask.shape))
            bounds = weights.bounds(error) if error else None
        (self.direct if bounds is None else self.plain)(x, inner, sums)
        kept = mask[framed][inner] if self.keep_nan else None
        in_mask = inner
        if weights.framed:
            shifts = [before for before, _ in weights.border]
            in_mask = (..., *(slice(s.start + a, s.stop + a) for s, a in zip(inner[1:], shifts, strict=True)))
        few = weights.normalise(self.weigh, mask, in_mask, sums, target, weight, kept, bounds)
        if few is not None and few.any():
            for cell, *needed in _blocks(self.image.shape, weights.sides, weights.boundary, block[1:]):
                at = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(cell[1:], block[1:], strict=True))
                if few[at].any():
                    self.fill(cell, *needed, False)


def _select(piece, there, omit, filled, mask) -> bool:
    """Fill `filled` with the samples that are there and 0, `mask` with 1 and 0; whether some are missing."""
    if piece.ndim == 0:
        piece, filled, mask = piece[np.newaxis], filled[np.newaxis], mask[np.newaxis]
        there = None if there is None else there[np.newaxis]
    if there is not None:
        there = _in_rows(there, there.dtype)
    if mask.dtype != filled.dtype:
        # Complex numbers, of which either part may be NaN.
        valid = ~np.isnan(piece) if omit else there
        if omit and there is not None:
            valid &= there
        np.copyto(filled, 0)
        np.copyto(filled, piece, where=valid)
        np.copyto(mask, valid)
        return not valid.all()
    if not _is_in_rows(piece, mask.dtype):
        np.copyto(filled, piece)
        piece = filled
    return engine.select_valid(piece, there, omit, filled, mask)


_kept = threading.local()


def scratch(shape, dtype, place):
    """Memory for one block after the other, which the next call finds again: anew, it would have to be mapped."""
    size = math.prod(shape) * dtype.itemsize
    memory = _kept.__dict__.get(place, _NOTHING)
    if memory.size < size:
        memory = np.empty(size, np.uint8)
        if size <= _KEPT_BYTES:
            _kept.__dict__[place] = memory
    return memory[:size].view(dtype).reshape(shape)


_NOTHING = np.empty(0, np.uint8)


def _is_in_rows(array: NDArray, dtype: np.dtype) -> bool:
    """Whether an array is of a dtype, native, and its samples are neighbours in memory along the last axis."""
    if array.dtype != dtype or not array.flags.aligned:
        return False
    return array.ndim == 0 or array.shape[-1] <= 1 or array.strides[-1] == array.itemsize


def _in_rows(array: NDArray, dtype: np.dtype) -> NDArray:
    return array if _is_in_rows(array, dtype) else np.ascontiguousarray(array)


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


def _blocks(shape, sides, boundary, within=None) -> Iterator[tuple[tuple, tuple, tuple]]:
    """Blocks that cover an array, or cells that cover what is `within` some slices of it.

    Of each, the indices of the block, of what the filter needs to fill it, and of it in that. The second ends where the
    array does: as the filter continues it there, so does it a block. Around the array, under the boundary "wrap", the
    indices of an axis are an array.
    """
    reach = [max(amounts) for amounts in sides]
    size, least = (_BLOCK, [4 * r for r in reach]) if within is None else (_CELL**2, [max(_CELL, r) for r in reach])
    within = [slice(0, n) for n in shape] if within is None else within
    extents = [s.stop - s.start for s in within]
    left = math.prod(extents)
    for axis, n in enumerate(extents):
        if left <= size:
            break
        rest = left // n
        extents[axis] = min(n, max(size // rest, least[axis], 1))
        left = rest * extents[axis]
    axes = [
        [_span(start, min(start + extent, s.stop), r, n, name == "wrap") for start in range(s.start, s.stop, extent)]
        for s, n, extent, r, name in zip(within, shape, extents, reach, boundary, strict=True)
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
