"""The kernel between two images: exactly, by least squares (`fit_kernel`), or by gradient descent (`learn_kernel`)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from pyconv import _check, geometry, grad
from pyconv._workers import resolve_workers
from pyconv.conv import conv2d

__all__ = ["KernelFit", "fit_kernel", "learn_kernel"]

BLOCK = 2**20                        # samples of a padded block in float64, 8 MB
MATRIX_BLOCK = 2**19                 # elements of an unfolded one
ROUNDOFF = 2.0**-53
WELL_CONDITIONED = 1e6               # condition number below which a float32 kernel needs no sums in float64 but A's
UNDERFLOW = 1e-30                    # size of a sum of products below which float32 may have lost some of them
CONVENTIONS = ("correlate", "convolve")

# A descent that chooses its own number of steps takes as many as shrink the slowest error to this, at most this many.
SHRINK = 1e-3
MOST_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class KernelFit:
    """The kernel between two images, and how well it was determined: what `fit_kernel` and `learn_kernel` return.

    Attributes
    ----------
    kernel : ndarray, (kh, kw) or (O, C / groups, kh, kw)
        In the chosen convention.
    bias : float, ndarray of shape (O,), or None
        None where none was asked for.
    loss : float
        The sum of squares over the windows compared, (weighted) target minus prediction. `fit_kernel`'s is that of
        the solution in float64, before it is rounded to the kernel's dtype.
    losses : ndarray, (steps,)
        The loss before each step of the descent; empty after `fit_kernel`.
    rank : int or None
        How many of the C / groups * kh * kw weights of an output channel the data determine, in the group that
        determines fewest. None after a descent that was told its lr and steps, and so did not look.
    condition : float or None
        The largest curvature of the loss divided by the smallest: the condition number of the normal matrix, which is
        the square of the unfolded image's. Infinite where the data leave weights undetermined.
    lr, momentum : float or None
        Of the descent; None after `fit_kernel`.
    padding : tuple of (int, int)
        What `predict` adds (before, after) each axis.
    padding_mode, stride, dilation, groups, convention, channel_axis
        As they were given, stride and dilation one an axis.
    windows : int
        How many positions of the kernel were compared.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> image = np.ones((6, 8))
    >>> image[:, 2:6] = 0
    >>> fit = pyconv.fit_kernel(image, pyconv.corr2d(image, np.array([[1.0, -1.0]])), (1, 2))
    >>> fit.rank, fit.kernel.round(12)
    (2, array([[ 1., -1.]]))
    """

    kernel: NDArray
    bias: float | NDArray | None
    loss: float
    losses: NDArray
    rank: int | None
    condition: float | None
    lr: float | None
    momentum: float | None
    padding: tuple[tuple[int, int], ...]
    padding_mode: str
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    convention: str
    channel_axis: int | None
    windows: int
    _target_ndim: int = field(repr=False)

    def predict(self, image: ArrayLike, *, workers: int | None = None) -> NDArray:
        """What the kernel, and the bias, make of an image.

        Parameters
        ----------
        image : array_like
            Laid out as the input of the fit; of any size.
        workers : int, optional
            Threads, see `set_workers`.

        Returns
        -------
        ndarray
            Laid out as the target of the fit. Where the fit compared interior windows only, the result is still as
            large as the image: what its rim shows is the choice of `padding_mode`, not of the fit.
        """
        x = _check.learning_image(image, "image", self.channel_axis)
        weight = self.kernel if self.kernel.ndim == 4 else self.kernel[None, None]
        bias = None if self.bias is None else np.reshape(self.bias, weight.shape[:1]).astype(weight.dtype)
        y = conv2d(x, _turned(weight, self.convention), bias, self.stride, self.padding, self.dilation, self.groups,
                   padding_mode=self.padding_mode, workers=workers)
        if self._target_ndim == 2:
            return y[0, 0]
        if self.channel_axis is None:
            return y
        return np.moveaxis(y[0], 0, self.channel_axis) if self._target_ndim == 3 else np.moveaxis(
            y, 1, self.channel_axis)

    def __repr__(self):
        how = "by least squares" if self.lr is None else (
            f"by {len(self.losses)} steps of descent, lr {self.lr:.4g}"
            + (f", momentum {self.momentum:.4g}" if self.momentum else ""))
        kernel = np.array2string(self.kernel, precision=4, suppress_small=True, threshold=256,
                                 edgeitems=3 if self.kernel.ndim == 2 else 1)
        *outer, rows, columns = self.kernel.shape
        lines = [f"KernelFit: {' x '.join(map(str, (*outer, rows, columns)))} kernel {how}",
                 f"loss {self.loss:.4g} over {self.windows} windows (root mean square error {self._rms():.3g})"]
        if len(self.losses):
            lines[-1] += f", {self.losses[0]:.4g} before the first step"
        if self.rank is not None:
            weights = self.kernel[0].size if self.kernel.ndim == 4 else self.kernel.size
            lines.append(f"rank {self.rank} of {weights}, condition number {self.condition:.3g}")
        lines.append(f"kernel, to {self.convention} with the input:\n{kernel}")
        if self.bias is not None:
            lines.append(f"bias {np.array2string(np.asarray(self.bias), precision=4)}")
        return "\n".join(lines)

    def _rms(self):
        outputs = self.kernel.shape[0] if self.kernel.ndim == 4 else 1
        return math.sqrt(self.loss / (self.windows * outputs))


def fit_kernel(input: ArrayLike, target: ArrayLike, kernel_size: int | Sequence[int], *,
               padding: int | Sequence | str | None = None, padding_mode: str = "zeros",
               stride: int | Sequence[int] = 1, dilation: int | Sequence[int] = 1, groups: int = 1,
               bias: bool = False, convention: str = "correlate", channel_axis: int | None = None,
               where: ArrayLike | None = None, weights: ArrayLike | None = None, ridge: float = 0.0,
               dtype=None, workers: int | None = None) -> KernelFit:
    """The kernel that turns one image into another, exactly: linear least squares.

    Finds the kernel w, and the bias b where one is asked for, that minimise ``sum((conv2d(input, w, b) - target)**2)``
    over all kernels of that size.

    Parameters
    ----------
    input, target : array_like
        Two 2-D images, or two arrays (N, C, H, W) and (N, O, oh, ow). With `channel_axis` also two images whose
        channels are along that axis (one with a single channel may lack it), or batches of such.
    kernel_size : int or (int, int)
    padding : int, sequence of int, sequence of (before, after), str or None
        How the target was made, as in `conv2d`. With None the shapes decide. A target that is as large as the input
        (with a stride: as every stride-th pixel of it) is taken to have been made as `pyconv.ndimage.correlate` (or
        ``convolve``) does, the kernel's element k // 2 over the pixel, and is compared only where the kernel stays
        inside the input: assuming anything beyond its borders would spoil the kernel. A smaller one is taken for
        what ``padding=0`` gives, and compared everywhere; where a stride leaves both possible, this is chosen.
    padding_mode : str
        What continues the input, as in `conv2d`. With ``padding=None`` it serves `KernelFit.predict` alone.
    stride, dilation, groups
        As in `conv2d`; ``groups=C`` finds a kernel for each channel.
    bias : bool
        Whether a constant is added, one an output channel.
    convention : {"correlate", "convolve"}
        ``convolve`` gives the kernel of a strict convolution, which is the other one turned round, ``[::-1, ::-1]``.
    channel_axis : int, optional
        The axis of both arrays along which their channels are.
    where : array_like of bool, optional
        The pixels of the target that are compared, (oh, ow), or (N, oh, ow) for each image its own. What is left out
        may be NaN, and so may all of the input that no window compared touches.
    weights : array_like, optional
        What each square counts, shaped as `where`: 1 / variance, for independent noise.
    ridge : float
        Adds ``ridge * mean diagonal of the normal matrix * sum(w**2)`` to the loss, so it does not depend on the
        brightness or the size of the images. The bias is left free.
    dtype : {float32, float64}, optional
        Of the kernel. Default: that of the images where they are floats (float32 for float16), else float64. The
        fit itself is always computed in float64.
    workers : int, optional
        Threads, see `set_workers`. The linear algebra of NumPy has threads of its own.

    Returns
    -------
    KernelFit

    Raises
    ------
    ValueError
        Shapes that do not belong together, a kernel larger than the input, values that are not finite in a window
        that is compared.
    TypeError
        Arguments of a wrong kind, complex images.

    Warns
    -----
    numpy.exceptions.RankWarning
        Where the images leave weights undetermined, and `ridge` does not decide (a constant or smooth image has no
        detail to tell them by; a tiny one has too few pixels). The kernel is then that of smallest norm among the
        best.

    See Also
    --------
    learn_kernel : the same by gradient descent.

    Notes
    -----
    The normal equations A w = c (A. M. Legendre, 1805) of the unfolded image, solved by eigen-decomposition. The matrix
    A[u, v] is the sum of x[i + u] * x[i + v] over all windows i. Where all windows count alike and are next to each
    other, it depends on v - u but for the borders: along u, one row (or column) of products leaves the sum and another
    enters. So A takes two weight gradients of the image by itself and a few products of its border rows, instead of a
    product for each pair of weights. Elsewhere (strides, weights) unfolded blocks of a few megabytes are multiplied.
    With a bias, the image's mean is taken off first and the bias is eliminated: a bright image is then as well
    conditioned as a dark one.

    One step of iterative refinement follows (A. Bjorck, 1967), whose residual comes from the image itself.
    Rounding then leaves an error in the kernel of about ``condition**0.5`` units in the last place of float64, as if
    the unfolded matrix itself had been factorised. That holds up to the condition number at which rank is lost:
    eigenvalues of A below ``n * sqrt(windows) * 2**-53`` of the largest, for n weights (5e-11 for a 15 x 15 kernel on
    a 2048 x 2048 image), are what rounding makes of such sums, and `rank` counts those above. Where the kernel is to
    be float32 and `condition` is below 1e6, both right-hand sides are summed in float32: the first is refined anyway,
    and the second is 0 for the best kernel, so what its rounding adds is far below what noise in the target does.

    Time grows with the square of the channels a group, and with n**3 for the decomposition; memory beyond the images
    and the n x n matrices is some tens of megabytes, whatever the size of the images.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> blurred = pyconv.ndimage.gaussian_filter(image, 1, radius=2)
    >>> fit = pyconv.fit_kernel(image, blurred, 5)
    >>> float(abs(fit.kernel - pyconv.kernels.gaussian(1, radius=2)).max()) < 1e-14
    True
    >>> fit.rank
    25
    """
    setup = _Setup(input, target, kernel_size, padding, padding_mode, stride, dilation, groups, bias, convention,
                   channel_axis, where, weights, dtype, workers)
    ridge = _check.real(ridge, "ridge", minimum=0)
    pair, workers = setup.pair, setup.workers
    shift = _means(pair.x) if bias else np.zeros(pair.x.shape[1])

    pair, normal = _normal_equations(pair, shift, bias, workers)
    solve = _Solver(normal, ridge, bias, shift)
    dtype = setup.dtype if solve.condition < WELL_CONDITIONED else np.dtype(np.float64)
    # What is left of the target by no kernel at all: the right-hand side itself.
    right, right_bias, _ = _residual(pair, shift, None, None, dtype, workers)
    finite = np.isfinite(right).all()
    if not finite or dtype == np.float32 and abs(right).max(axis=2).min() < UNDERFLOW:
        pair, dtype = pair if finite else replace(pair, spoiled=True), np.dtype(np.float64)
        right, right_bias, _ = _residual(pair, shift, None, None, dtype, workers)
    w, b = solve(right, right_bias)
    right, right_bias, loss = _residual(pair, shift, w, b, dtype, workers)
    penalty = solve.ridge[:, None, None] * w.reshape(right.shape)
    dw, db = solve(right - penalty, right_bias)
    loss += normal.change_of_loss(dw, db, right, right_bias)
    w, b = w + dw, b + db

    if solve.rank < normal.size and not ridge:
        warnings.warn(
            f"the images determine only {solve.rank} of the {normal.size} weights of the kernel: too few pixels, or "
            "too smooth; the rest is chosen so that the sum of squares of the weights is smallest. A smaller "
            "kernel_size, an input with more detail or ridge= would settle it", np.exceptions.RankWarning, stacklevel=2)
    b = b - (w.reshape(pair.groups, -1, *w.shape[1:]).sum(axis=(3, 4))
             @ shift.reshape(pair.groups, -1, 1)).reshape(b.shape)
    return setup.result(w, b if bias else None, max(loss, 0.0), np.empty(0), solve.rank, solve.condition, None, None)


def learn_kernel(input: ArrayLike, target: ArrayLike, kernel_size: int | Sequence[int], *,
                 padding: int | Sequence | str | None = None, padding_mode: str = "zeros",
                 stride: int | Sequence[int] = 1, dilation: int | Sequence[int] = 1, groups: int = 1,
                 bias: bool = False, convention: str = "correlate", channel_axis: int | None = None,
                 where: ArrayLike | None = None, lr: float | None = None, steps: int | None = None,
                 momentum: float | None = None, init: ArrayLike | None = None, rng=None,
                 callback: Callable[[int, float, NDArray], object] | None = None, allow_unstable: bool = False,
                 progress: bool = False, dtype=None, workers: int | None = None) -> KernelFit:
    """The kernel that turns one image into another, by gradient descent on the sum of squares.

    Each step takes the gradient over the whole pair: ``r = conv2d(input, w, b) - target``, the loss ``sum(r**2)``, and
    ``w -= lr * 2 * conv2d_weight(input, w.shape, r)``. `fit_kernel` finds in one go what this converges to.

    Parameters
    ----------
    input, target, kernel_size, padding, padding_mode, stride, dilation, groups, bias, convention, channel_axis, where
        As in `fit_kernel`.
    lr : float, optional
        The step. Descent is stable below ``2 * (1 + momentum) / (largest curvature)``. By default the largest and
        the smallest curvature L and l of this pair are computed and lr is ``2 * (1 + momentum) / (L + l)``, at which
        the slowest error shrinks fastest.
    steps : int, optional
        How many. By default as many as shrink the slowest error to a thousandth, at most 10000.
    momentum : float, optional
        From 0 to below 1; the velocity ``v = momentum * v + gradient`` is what is stepped along. By default 0 where lr
        is given, else the best, ``((sqrt(L) - sqrt(l)) / (sqrt(L) + sqrt(l)))**2``.
    init : array_like, optional
        The kernel to start from, in the chosen convention; the bias starts at 0. Default: zeros.
    rng : seed or numpy.random.Generator, optional
        Draws the start as PyTorch does, uniformly up to ``1 / sqrt(C / groups * kh * kw)`` in size.
    callback : function of (step, loss, kernel), optional
        Called before each step with a copy of the kernel; if it returns True, the descent ends there.
    allow_unstable : bool
        Whether a loss that climbs past where it began is let run on.
    progress : bool
        Whether tqdm, where it is installed, shows a bar.
    dtype : {float32, float64}, optional
        Of the kernel and of the arithmetic, the losses excepted, which are summed in float64. Default: that of the
        images where they are floats (float32 for float16), else float64.
    workers : int, optional
        Threads, see `set_workers`. Never changes a bit of a descent whose lr and steps are given.

    Returns
    -------
    KernelFit
        With ``losses``, the loss before each step; ``loss`` is that after the last.

    Raises
    ------
    ValueError
        As in `fit_kernel`, and where the loss climbs past where it began or is no number any more: the message names
        the step, the loss and the largest stable lr.
    TypeError
        As in `fit_kernel`.

    Warns
    -----
    RuntimeWarning
        Where 10000 steps are fewer than the pair needs.

    Notes
    -----
    Momentum is B. T. Polyak's heavy ball (1964). With lr chosen here its first step is divided by ``1 + momentum``,
    which makes it the second-order Richardson iteration (G. H. Golub and R. S. Varga, 1961), whose error never grows
    on the way; the plain heavy ball first multiplies it by up to about ``sqrt(L / l) / e``.

    Examples
    --------
    The example of the textbooks: an image with an edge on each side of a dark band, and its edges.

    >>> import numpy as np
    >>> import pyconv
    >>> image = np.ones((6, 8))
    >>> image[:, 2:6] = 0
    >>> edges = pyconv.corr2d(image, np.array([[1.0, -1.0]]))
    >>> fit = pyconv.learn_kernel(image, edges, (1, 2), lr=0.03, steps=10)
    >>> fit.kernel.round(2), round(fit.loss, 4)
    (array([[ 0.99, -0.99]]), 0.0016)
    """
    setup = _Setup(input, target, kernel_size, padding, padding_mode, stride, dilation, groups, bias, convention,
                   channel_axis, where, None, dtype, workers)
    lr, steps, momentum = _check.descent_numbers(lr, steps, momentum)
    allow_unstable, progress = _check.flag(allow_unstable, "allow_unstable"), _check.flag(progress, "progress")
    init, rng = _check.initial_kernel(init, rng, setup.kernel_shape)
    _check.callback_function(callback)
    pair = setup.pair
    curvature = None if lr is not None and steps is not None else _Curvature(pair, bias, setup.workers)

    chosen = lr is None
    if momentum is None:
        momentum = curvature.best_momentum() if chosen else 0.0
    if chosen:
        lr = curvature.best_lr(momentum)
    if steps is None:
        steps = curvature.steps(lr, momentum, damped=chosen)
        if steps > MOST_STEPS:
            warnings.warn(f"the condition number {curvature.condition:.2g} of this pair asks for {steps:.3g} steps, "
                          f"{MOST_STEPS} are taken; pass steps=, or solve at once with fit_kernel", RuntimeWarning,
                          stacklevel=2)
            steps = MOST_STEPS

    descent = _Descent(pair, bias, setup.start(init, rng), setup.dtype, setup.workers)
    losses = []
    with _progress(steps, progress) as bar, np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps + 1):
            losses.append(descent.loss())
            if not math.isfinite(losses[0]):
                raise ValueError("input, target and start must be finite where they are compared, and their squares "
                                 f"too: the loss before the first step is {losses[0]}; leave pixels of the target out "
                                 "with where=False")
            if not (allow_unstable or losses[-1] <= losses[0] + descent.rounding):
                curvature = curvature or _Curvature(pair, bias, setup.workers)
                raise ValueError(_unstable(step, losses, lr, momentum, curvature.largest_stable_lr(momentum)))
            if step == steps or callback is not None and callback(
                    step, losses[-1], setup.shaped(descent.w.copy())) is True:
                break
            descent.step(lr, momentum, damped=chosen)
            bar.update()
    rank, condition = (None, None) if curvature is None else (curvature.rank, curvature.condition)
    return setup.result(descent.w, descent.b, losses[-1], np.array(losses[:-1]), rank, condition, lr, momentum)


# ---- the pair, in one form ----


@dataclass(frozen=True, eq=False)
class _Pair:
    """Every argument in one form.

    t[n, o, i] is compared with the sum of w[o, c, u] * x[n, c, i * stride + u * dilation], x padded by `sides`, and
    counts used[n, i], or 1 where that is None.
    """

    x: NDArray                       # (N, C, H, W)
    t: NDArray                       # (N, O, oh, ow)
    used: NDArray | None             # (N, oh, ow), of bool or numbers
    k: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    sides: tuple
    boundary: str
    spoiled: bool = False            # whether something is not finite, so that every block is searched for it

    @property
    def weight_shape(self):
        return self.t.shape[1], self.x.shape[1] // self.groups, *self.k

    @property
    def reach(self):
        return tuple(d * (k - 1) for k, d in zip(self.k, self.dilation, strict=True))


class _Setup:
    """The arguments that `fit_kernel` and `learn_kernel` share, checked and brought into one form."""

    def __init__(self, input, target, kernel_size, padding, padding_mode, stride, dilation, groups, bias, convention,
                 channel_axis, where, weights, dtype, workers):
        x, t, groups = _check.learning_pair(input, target, channel_axis, groups)
        k = _check.per_axis(kernel_size, "kernel_size", 2, minimum=1)
        stride = _check.per_axis(stride, "stride", 2, minimum=1)
        dilation = _check.per_axis(dilation, "dilation", 2, minimum=1)
        boundary = _check.layer_boundary(padding_mode)
        _check.one_of(convention, "convention", CONVENTIONS)
        _check.flag(bias, "bias")
        self.dtype = _check.learning_dtype(dtype, x, t)
        self.workers = resolve_workers(workers)
        used = _check.pixel_weights(where, weights, t)
        n = x.shape[2:]
        if padding is None:
            self.padding, inside = _padding_by_shape(n, t, k, stride, dilation, convention)
        else:
            self.padding, inside = geometry.normalize_padding(padding, n, k, stride, dilation), None
            size = geometry.convolution_size(n, k, stride, self.padding, dilation)
            if t.shape[2:] != size:
                raise _check.no_such_target(t, n, k, stride, dilation, f"{size} with padding {self.padding}")
            _check.boundary_has_samples(n, self.padding, boundary, "input")
        sides = self.padding
        if inside is not None:
            (xi, xj), (ti, tj) = inside
            x, t = x[:, :, xi:, xj:], t[:, :, ti, tj]
            used = used if used is None else used[:, ti, tj]
            sides = ((0, 0), (0, 0))
            if used is not None and not used.any():
                raise ValueError("where and weights must leave at least one pixel of the target to compare that lies "
                                 "inside, where the kernel does not reach beyond the input")
        self.pair = _Pair(x, t, used, k, stride, dilation, groups, sides, boundary)
        self.planar = np.ndim(input) == np.ndim(target) == 2
        self.kernel_shape = k if self.planar else self.pair.weight_shape
        self.convention, self.channel_axis, self.padding_mode = convention, channel_axis, padding_mode
        self.target_ndim = np.ndim(target)

    def shaped(self, w):
        """A kernel (O, C / groups, kh, kw), to correlate with, as the caller sees it."""
        return _turned(w, self.convention).reshape(self.kernel_shape)

    def start(self, init, rng):
        """The kernel, to correlate with, that a descent starts from."""
        shape = self.pair.weight_shape
        if rng is not None:
            limit = 1 / math.sqrt(math.prod(shape[1:]))
            init = rng.uniform(-limit, limit, self.kernel_shape)
        return np.zeros(shape) if init is None else _turned(init.reshape(shape), self.convention)

    def result(self, w, b, loss, losses, rank, condition, lr, momentum):
        pair = self.pair
        if b is not None:
            b = b.astype(self.dtype)
            b = float(b[0]) if self.planar else b
        windows = math.prod((pair.t.shape[0], *pair.t.shape[2:]))
        if pair.used is not None:
            windows = int(np.count_nonzero(pair.used))
        return KernelFit(np.ascontiguousarray(self.shaped(w), self.dtype), b, float(loss), losses, rank, condition, lr,
                         momentum, self.padding, self.padding_mode, pair.stride, pair.dilation, pair.groups,
                         self.convention, self.channel_axis, windows, self.target_ndim)


def _turned(weight, convention):
    """A kernel to correlate with as one to convolve with, or the other way round."""
    return weight[..., ::-1, ::-1] if convention == "convolve" else weight


def _padding_by_shape(n, t, k, stride, dilation, convention):
    """(padding, None) for a target of "valid" size, (padding, (where x begins, slices of t)) for one as large as x."""
    size = t.shape[2:]
    reach = [d * (taps - 1) for taps, d in zip(k, dilation, strict=True)]
    valid = tuple((m - r - 1) // s + 1 for m, r, s in zip(n, reach, stride, strict=True))
    same = tuple(-(-m // s) for m, s in zip(n, stride, strict=True))
    if size == valid and min(valid) > 0:
        return ((0, 0), (0, 0)), None
    if size != same:
        what = f"{same} (as large as the input), or {valid} (as padding=0 gives)" if min(valid) > 0 else f"{same}"
        raise _check.no_such_target(t, n, k, stride, dilation, f"{what}; pass padding= for any other")
    # The element k // 2 lies over the pixel, in a kernel turned round as in one that is not.
    sides = []
    for taps, r, d in zip(k, reach, dilation, strict=True):
        middle = d * (taps // 2)
        sides.append((middle, r - middle) if convention == "correlate" else (r - middle, middle))
    starts, slices = [], []
    for m, s, (before, after) in zip(n, stride, sides, strict=True):
        first, end = -(-before // s), (m - 1 - after) // s + 1
        if end <= first:
            raise _check.no_interior_window(n, k, dilation)
        starts.append(first * s - before)
        slices.append(slice(first, end))
    return tuple(sides), (starts, slices)


# ---- blocks ----


@dataclass(frozen=True, eq=False)
class _Block:
    """Some rows of some images, x padded; where everything counts as it is, views of the pair."""

    x: NDArray                       # (n, C, rows of x, columns of x)
    t: NDArray                       # (n, O, rows, ow), 0 for what does not count
    used: NDArray | None             # (n, 1, rows, ow)
    first: bool                      # whether it holds the first, and the last, output row
    last: bool


def _blocks(pair: _Pair, shift: NDArray, workers: int) -> Iterator[_Block]:
    """The pair in blocks of about `BLOCK` samples, `shift` taken off each channel of x."""
    images, channels, *n = pair.x.shape
    outputs, oh, ow = pair.t.shape[1:]
    source = []
    for m, size, s, r, sides in zip(n, (oh, ow), pair.stride, pair.reach, pair.sides, strict=True):
        source.append(_source(m, sides, pair.boundary)[:(size - 1) * s + r + 1])
    s, reach = pair.stride[0], pair.reach[0]
    row = max(channels * len(source[1]) * s, outputs * ow)
    rows = min(oh, max(1, BLOCK // row))
    together = max(1, BLOCK // (row * oh)) if rows == oh else 1
    for i in range(0, images, together):
        for top in range(0, oh, rows):
            bottom = min(oh, top + rows)
            x = _padded(pair.x[i:i + together], source[0][top * s:(bottom - 1) * s + reach + 1], source[1])
            if shift.any():
                x = x - shift[:, None, None]
            t = pair.t[i:i + together, :, top:bottom]
            x, t = (a if a.dtype.kind == "f" else a.astype(np.float64) for a in (x, t))
            used = pair.used if pair.used is None else pair.used[i:i + together, None, top:bottom]
            if used is not None:
                t = np.where(used == 0, 0, t)
            if pair.spoiled:
                x = _without_unused(x, used, pair, workers)
                if not np.isfinite(t).all():
                    raise ValueError("target must be finite where it is compared; leave NaN and Inf out with "
                                     "where=np.isfinite(target)")
            yield _Block(x, t, used, top == 0, bottom == oh)


def _source(n, sides, boundary):
    """Where the samples of a padded axis come from: indices, -1 for the constant."""
    mode = "reflect" if boundary == "mirror" else boundary
    more = {"constant_values": -1} if boundary == "constant" else {}
    return np.pad(np.arange(n), sides, mode, **more)


def _padded(x, rows, columns):
    """The given rows and columns of x, 0 for those of index -1; a view where they follow one another."""
    for axis, index in ((2, rows), (3, columns)):
        if index[0] >= 0 and (np.diff(index) == 1).all():
            x = x[(slice(None),) * axis + (slice(index[0], index[-1] + 1),)]
        else:
            x = x.take(index, axis)
            x[(slice(None),) * axis + (index < 0,)] = 0
    return x


def _without_unused(x, used, pair, workers):
    """A block x with 0 for what is not finite, which no window compared may touch."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return x
    touched = conv2d(bad.any(axis=1, keepdims=True), np.ones((1, 1, *pair.k), np.int64), None, pair.stride, 0,
                     pair.dilation, workers=workers) > 0
    if (touched if used is None else touched & (used != 0)).any():
        raise ValueError("input must be finite where it is compared; leave out with where=False every pixel of the "
                         "target whose window touches a NaN or Inf")
    return np.where(bad, 0, x)


def _means(x):
    """The mean of each channel's finite samples."""
    means = x.mean(axis=(0, 2, 3), dtype=np.float64)
    for c in np.flatnonzero(~np.isfinite(means)):
        finite = x[:, c][np.isfinite(x[:, c])]
        means[c] = finite.mean(dtype=np.float64) if finite.size else 0
    return means


# ---- normal equations ----


class _Normal:
    """The normal matrix of each group, (g, n, n), and what a bias adds to it."""

    def __init__(self, pair: _Pair):
        self.weight_shape = pair.weight_shape
        self.size = math.prod(pair.weight_shape[1:])
        self.matrix = np.zeros((pair.groups, self.size, self.size))
        self.sums = np.zeros((pair.groups, self.size))       # of the samples under each weight
        self.count = 0.0                                     # of windows, weighted
        self.windows = 0

    def change_of_loss(self, dw, db, right, right_bias):
        """What a step (dw, db) adds to the loss, whose negative half gradient is (right, right_bias)."""
        d, e = dw.reshape(right.shape), db.reshape(right.shape[:2])
        return float((d * (d @ self.matrix - 2 * right)).sum() + 2 * (e * (d * self.sums[:, None]).sum(axis=2)).sum()
                     + self.count * (e * e).sum() - 2 * (db * right_bias).sum())


def _normal_equations(pair: _Pair, shift: NDArray, bias: bool, workers: int) -> tuple[_Pair, _Normal]:
    """The normal equations; the pair comes back marked as spoiled where it has to be searched for NaN and Inf."""
    with np.errstate(over="ignore", invalid="ignore"):
        # They hold the square of every sample compared, so nothing is overlooked.
        normal = _sum_products(pair, shift, bias, workers)
        if not np.isfinite(normal.matrix).all():
            pair = replace(pair, spoiled=True)
            normal = _sum_products(pair, shift, bias, workers)
    if not np.isfinite(normal.matrix).all():
        raise ValueError("input must be small enough for sums of the squares of its values in float64")
    return pair, normal


def _sum_products(pair, shift, bias, workers):
    normal = _Normal(pair)
    # The border products of `_Lags` cost as much as those of 2 * reach rows would.
    by_lags = pair.used is None and pair.stride == (1, 1) and pair.t.shape[2] > 2 * pair.reach[0]
    lags = [_Lags(pair, workers) for _ in range(pair.groups)] if by_lags else None
    channels = pair.weight_shape[1]
    for block in _blocks(pair, shift, workers):
        shape = len(block.t), 1, *block.t.shape[2:]
        counts = np.broadcast_to(1.0, shape) if block.used is None else block.used
        normal.windows += math.prod(shape) if block.used is None else np.count_nonzero(counts)
        normal.count += math.prod(shape) if block.used is None else float(counts.sum(dtype=np.float64))
        for g in range(pair.groups):
            x = block.x[:, g * channels:(g + 1) * channels]
            if by_lags:
                lags[g].add(x, block.first, block.last)
            else:
                _add_products(_windows(x, pair), normal.matrix[g], block.used)
            if bias:
                normal.sums[g] += _weight_gradient(x, counts, pair, workers, groups=1).ravel()
    if by_lags:
        normal.matrix = np.stack([each.matrix() for each in lags])
    return normal


def _weight_gradient(x, dy, pair, workers, groups=None, dtype=np.float64):
    """Of a block, in `dtype`, whatever the block's."""
    groups = pair.groups if groups is None else groups
    return grad.conv2d_weight(x, (dy.shape[1], x.shape[1] // groups, *pair.k), dy, pair.stride, 0, pair.dilation,
                              groups, dtype=dtype, method="direct", workers=workers)


def _windows(x, pair):
    """All windows of a block x, as a view (C, kh, kw, n, rows, columns)."""
    size = tuple(r + 1 for r in pair.reach)
    (sy, sx), (dy, dx) = pair.stride, pair.dilation
    return sliding_window_view(x, size, axis=(2, 3))[:, :, ::sy, ::sx, ::dy, ::dx].transpose(1, 4, 5, 0, 2, 3)


def _add_products(windows, matrix, used=None):
    """Add to `matrix` the products of all pairs of weights' samples, unfolding at most `MATRIX_BLOCK` elements."""
    n = len(matrix)
    images, rows, columns = windows.shape[3:]
    width = min(columns, max(1, MATRIX_BLOCK // n))
    height = max(1, MATRIX_BLOCK // (n * columns))
    for i in range(images):
        for top in range(0, rows, height):
            for left in range(0, columns, width):
                place = i, slice(top, top + height), slice(left, left + width)
                if used is None:
                    unfolded = windows[:, :, :, *place].reshape(n, -1).astype(np.float64, copy=False)
                else:
                    weights = used[i, 0, place[1], place[2]]
                    keep = np.nonzero(weights)
                    unfolded = windows[:, :, :, *place][:, :, :, *keep].reshape(n, -1)
                    unfolded = unfolded.astype(np.float64, copy=False)
                    if weights.dtype != bool:
                        unfolded *= np.sqrt(weights[keep], dtype=np.float64)
                matrix += unfolded @ unfolded.T


class _Lags:
    """The normal matrix of windows at stride 1 that all count 1, from their lags and the border rows and columns.

    The sum over all windows i of x[i + u] * x[i + v] changes from (u, v) to (u + 1, v + 1) by the row of products that
    enters at the bottom less the one that leaves at the top; the lag v - u stays the same. So only pairs with u = 0 are
    summed over the whole image (those with v = 0 follow by symmetry), and likewise along the columns, where pairs with
    u = 0 and with u = kw - 1 are summed.
    """

    def __init__(self, pair: _Pair, workers: int):
        self.pair, self.workers = pair, workers
        channels, (kh, kw) = pair.weight_shape[1], pair.k
        # Products with the samples under the first weight (0, 0) and under (0, kw - 1): [its c, second c, u, v]
        self.left = np.zeros((channels, channels, kh, kw))
        self.right = np.zeros((channels, channels, kh, kw))
        # Products of the border columns, right less left: [rows apart, c, u, second c, v]
        self.columns = np.zeros((kh, channels, kw - 1, channels, kw - 1))
        # Products of the border rows, under all columns of weights: [(c, u, kw), (c, u, kw)]
        self.top = np.zeros((channels * (kh - 1) * kw,) * 2)
        self.bottom = np.zeros_like(self.top)

    def add(self, x, first, last):
        """Add a block x, (n, C, rows + reach, columns + reach)."""
        pair = self.pair
        (dy, dx), (reach, across), (kh, kw) = pair.dilation, pair.reach, pair.k
        rows, columns = x.shape[2] - reach, x.shape[3] - across
        for lags, start in ((self.left, 0), (self.right, across)):
            lags += _weight_gradient(x, x[:, :, :rows, start:start + columns], pair, self.workers, groups=1)
        for strip, sign in ((x[..., :across], -1), (x[..., columns:], 1)):
            if kw > 1:
                strip = strip.reshape(*strip.shape[:3], kw - 1, dx).astype(np.float64)
                strip = np.ascontiguousarray(np.moveaxis(strip, (1, 3), (0, 1)))
                flat = strip.shape[0] * (kw - 1), -1     # from (C, u, n, rows of x, dx)
                first_row = strip[:, :, :, :rows].reshape(flat)
                for apart in range(kh):
                    later = strip[:, :, :, apart * dy:apart * dy + rows].reshape(flat)
                    self.columns[apart] += sign * (first_row @ later.T).reshape(self.columns.shape[1:])
        for strip, there, products in ((x[:, :, :reach], first, self.top), (x[:, :, rows:], last, self.bottom)):
            if kh > 1 and there:
                strip = strip.reshape(*strip.shape[:2], kh - 1, dy, -1)
                windows = sliding_window_view(strip, across + 1, axis=4)[..., ::dx]
                _add_products(windows.transpose(1, 2, 5, 0, 3, 4), products)

    def matrix(self):
        channels, (kh, kw) = len(self.left), self.pair.k
        apart = np.empty((kh, channels, kw, channels, kw))   # the pairs with u = 0 along the rows
        apart[:, :, 0] = self.left.transpose(2, 0, 1, 3)
        apart[:, :, -1] = self.right.transpose(2, 0, 1, 3)
        for u in range(1, kw):
            apart[:, :, u, :, u:] = apart[:, :, u - 1, :, u - 1:-1] + self.columns[:, :, u - 1, :, u - 1:]
        for u in range(kw - 2, -1, -1):
            apart[:, :, u, :, :u] = apart[:, :, u + 1, :, 1:u + 1] - self.columns[:, :, u, :, :u]
        rows = (self.bottom - self.top).reshape(channels, kh - 1, kw, channels, kh - 1, kw)
        matrix = np.empty((channels, kh, kw, channels, kh, kw))
        matrix[:, 0] = np.moveaxis(apart, 0, 3)
        for u in range(1, kh):
            matrix[:, u, :, :, u:] = matrix[:, u - 1, :, :, u - 1:-1] + rows[:, u - 1, :, :, u - 1:]
        for u in range(kh):
            for v in range(u):
                matrix[:, u, :, :, v] = matrix[:, v, :, :, u].transpose(2, 3, 0, 1)
        n = channels * kh * kw
        return matrix.reshape(n, n)


class _Solver:
    """Solves the normal equations of every group, as far as they determine anything; else with the smallest norm."""

    def __init__(self, normal: _Normal, ridge: float, bias: bool, shift: NDArray):
        self.normal, self.bias = normal, bias
        matrix = normal.matrix
        if bias:                     # eliminated: what is left is the covariance of the samples
            matrix = matrix - normal.sums[:, :, None] * normal.sums[:, None] / normal.count
        values, self.vectors = np.linalg.eigh(matrix)
        largest = values[:, -1:].clip(min=0)
        self.ridge = ridge * values.mean(axis=1).clip(min=0)
        # A shift is rounded, and leaves as much of a constant image.
        floor = normal.size * normal.count * (8 * ROUNDOFF * np.abs(shift).max()) ** 2
        kept = values > np.maximum(_tolerance(normal) * largest, floor)
        self.rank = int(kept.sum(axis=1).min())
        self.inverse = np.divide(1, values + self.ridge[:, None], out=np.zeros_like(values), where=kept)
        smallest = values[:, 0] * kept[:, 0] + self.ridge
        with np.errstate(divide="ignore", invalid="ignore"):
            self.condition = float(np.where(smallest > 0, (largest[:, 0] + self.ridge) / smallest, np.inf).max())

    def __call__(self, right, right_bias):
        """(w, b) for a right-hand side (g, O / g, n) and (O,)."""
        normal = self.normal
        right_bias = right_bias.reshape(right.shape[:2]) / normal.count
        if self.bias:
            right = right - right_bias[:, :, None] * normal.sums[:, None]
        w = ((right @ self.vectors) * self.inverse[:, None]) @ self.vectors.transpose(0, 2, 1)
        b = right_bias - (w * normal.sums[:, None]).sum(axis=2) / normal.count if self.bias else 0 * right_bias
        return w.reshape(normal.weight_shape), b.ravel()


def _tolerance(normal):
    """Eigenvalues below this share of the largest are rounding errors.

    A sum of L products in float64 is off by about sqrt(L) roundings, and errors of a share e in the elements of an
    n x n matrix move its eigenvalues by at most n * e of the largest element.
    """
    return normal.size * math.sqrt(normal.windows) * ROUNDOFF


def _residual(pair, shift, w, b, dtype, workers):
    """(right, right_bias, loss): the right-hand side of the normal equations for what (w, b) leave of the target.

    Without w, of the target as it is, and no loss. The weight gradient is computed in `dtype`, the residual in float64.
    """
    right, right_bias, loss = 0.0, 0.0, 0.0
    for block in _blocks(pair, shift, workers):
        r = block.t
        if w is not None:
            r = conv2d(block.x, w, b, pair.stride, 0, pair.dilation, pair.groups, dtype=np.float64, workers=workers)
            np.subtract(block.t, r, out=r)
        weighted = r if block.used is None else np.multiply(r, block.used, dtype=np.float64)
        if w is not None:
            loss += float(np.vdot(r, weighted))
        right = right + _weight_gradient(block.x, weighted, pair, workers, dtype=dtype).astype(np.float64)
        right_bias = right_bias + weighted.sum(axis=(0, 2, 3), dtype=np.float64)
    return right.reshape(pair.groups, pair.t.shape[1] // pair.groups, -1), right_bias, loss


# ---- descent ----


class _Curvature:
    """The extreme curvatures of the sum of squares: twice the extreme eigenvalues of the normal matrix."""

    def __init__(self, pair: _Pair, bias: bool, workers: int):
        _, normal = _normal_equations(pair, np.zeros(pair.x.shape[1]), bias, workers)
        matrix = normal.matrix
        if bias:
            count = np.full((pair.groups, 1, 1), normal.count)
            matrix = np.block([[matrix, normal.sums[:, :, None]], [normal.sums[:, None], count]])
        values = np.linalg.eigvalsh(matrix)
        kept = values > _tolerance(normal) * values[:, -1:]
        self.rank = min(int(kept.sum(axis=1).min()), normal.size)
        self.largest = 2 * max(float(values.max()), 0.0)
        self.smallest = 2 * float(values[kept].min()) if kept.any() else 0.0
        self.condition = float(self.largest / self.smallest) if kept.all() else math.inf

    def largest_stable_lr(self, momentum):
        return 2 * (1 + momentum) / self.largest if self.largest else math.inf

    def best_momentum(self):
        high, low = math.sqrt(self.largest), math.sqrt(self.smallest)
        return ((high - low) / (high + low)) ** 2 if high else 0.0

    def best_lr(self, momentum):
        return 2 * (1 + momentum) / (self.largest + self.smallest) if self.largest else 1.0

    def steps(self, lr, momentum, damped):
        """How many shrink every error to `SHRINK`; infinitely many where some do not shrink."""
        rates = []
        for curvature in (self.smallest, self.largest):
            # An error follows e' = (1 + momentum - lr * curvature) * e - momentum * (the e before).
            middle = (1 + momentum - lr * curvature) / 2
            root = math.sqrt(max(middle**2 - momentum, 0))
            rates.append(max(abs(middle) + root, math.sqrt(momentum)))
        rate = max(rates)
        if rate >= 1:
            return math.inf if self.largest else 1
        if rate == 0:
            return 1
        steps = math.log(SHRINK) / math.log(rate)
        # With momentum both roots are nearly the same, and the error is rate**k * (1 + k * (1 - rate**2) / ...).
        if momentum:
            for _ in range(8):
                steps = math.log(SHRINK / (1 + steps * (1 - rate**2) / (1 + rate**2))) / math.log(rate)
        return math.ceil(steps)


class _Descent:
    """A kernel and a bias on their way down."""

    def __init__(self, pair: _Pair, bias: bool, w: NDArray, dtype: np.dtype, workers: int):
        self.pair, self.workers, self.dtype = pair, workers, dtype
        self.w = np.ascontiguousarray(w, dtype)
        self.b = np.zeros(len(w), dtype) if bias else None
        self.velocity = None
        self.x = self._finite_input()
        self.unused = None if pair.used is None else np.broadcast_to(~pair.used[:, None], pair.t.shape)
        self.r = np.empty(pair.t.shape, dtype)
        # The loss of a kernel that fits perfectly is still this, by the rounding of each prediction.
        n = math.prod(w.shape[1:])
        brightest = max(abs(float(self.x.min())), abs(float(self.x.max())))
        self.rounding = self.r.size * float(n * np.finfo(dtype).eps * brightest * np.abs(self.w).sum()) ** 2

    def _finite_input(self):
        x = self.pair.x
        if x.dtype.kind != "f" or math.isfinite(x.sum(dtype=np.float64)):
            return x
        pair = self.pair
        top, left = (side[0] for side in pair.sides)
        copy = x.copy()
        for i, image in enumerate(x):
            rows, columns = (_source(m, sides, pair.boundary) for m, sides in zip(x.shape[2:], pair.sides, strict=True))
            padded = _without_unused(_padded(image[None], rows, columns),
                                     None if pair.used is None else pair.used[i:i + 1, None], pair, self.workers)
            copy[i] = padded[0, :, top:top + x.shape[2], left:left + x.shape[3]]
        return copy

    def loss(self):
        pair = self.pair
        r = conv2d(self.x, self.w, self.b, pair.stride, pair.sides, pair.dilation, pair.groups,
                   padding_mode=pair.boundary, dtype=self.dtype, out=self.r, workers=self.workers)
        r -= pair.t
        if self.unused is not None:
            np.copyto(r, 0, where=self.unused)
        return _sum_of_squares(r)

    def step(self, lr, momentum, damped):
        pair = self.pair
        gradient = [2 * grad.conv2d_weight(self.x, self.w.shape, self.r, pair.stride, pair.sides, pair.dilation,
                                           pair.groups, padding_mode=pair.boundary, dtype=self.dtype,
                                           workers=self.workers)]
        if self.b is not None:
            gradient.append(2 * self.r.sum(axis=(0, 2, 3), dtype=np.float64))
        if self.velocity is None:
            self.velocity = [g / (1 + momentum) if damped else g for g in gradient]
        else:
            self.velocity = [momentum * v + g for v, g in zip(self.velocity, gradient, strict=True)]
        for parameter, velocity in zip((self.w, self.b), self.velocity, strict=False):
            parameter -= (lr * velocity).astype(self.dtype)


def _sum_of_squares(r):
    flat = r.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, 2**16):
        part = flat[start:start + 2**16].astype(np.float64)
        total += float(part @ part)
    return total


def _unstable(step, losses, lr, momentum, largest):
    """Why a descent was stopped."""
    what = f"at step {step} the loss is {losses[-1]:.4g}, past the {losses[0]:.4g} that it began with"
    mend = "pass a smaller lr, leave lr out to have it chosen, or let it run on with allow_unstable=True"
    limit = f"{largest:.4g}, the largest stable step for this pair" + (
        f" with momentum {momentum:.4g}" if momentum else "")
    if lr > largest:
        return f"lr={lr:.4g} exceeds {limit}: {what}; {mend}"
    if not math.isfinite(losses[-1]):
        return (f"{what}, though lr={lr:.4g} does not exceed {limit}: the steps pass the largest number of the dtype; "
                "scale the images, or pass dtype=np.float64")
    return f"{what}, though lr={lr:.4g} does not exceed {limit}: momentum overshoots at first; {mend}"


class _progress:
    """A bar of tqdm's, or nothing."""

    def __init__(self, steps, wanted):
        self.bar = None
        if wanted:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                warnings.warn("progress=True shows nothing, since tqdm is not installed", RuntimeWarning, stacklevel=4)
            else:
                self.bar = tqdm(total=steps, desc="learn_kernel")

    def __enter__(self):
        return self

    def update(self):
        if self.bar is not None:
            self.bar.update()

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()
