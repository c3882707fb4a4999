"""The kernel between two images: least squares against NumPy's, descent against a hand calculation, and errors."""

import doctest
import math
import re
import sys
import warnings

import numpy as np
import oracle
import pytest
from cases import LAYOUTS, lay_out
from hypothesis import given
from hypothesis import strategies as st

import pyconv
from pyconv import fit_kernel, grad, kernels, learn, learn_kernel, ndimage

RankWarning = np.exceptions.RankWarning
EDGE = np.array([[1.0, -1.0]])


def textbook(*dark, shape=(6, 8)):
    """An image of ones with columns of zeros, and its edges."""
    image = np.ones(shape)
    image[:, list(dark)] = 0
    return image, pyconv.corr2d(image, EDGE)


@pytest.fixture(scope="module")
def camera():
    return pytest.importorskip("skimage.data").camera()


def random_pair(rng, x_shape, w_shape, dtype=np.float64, **layer):
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    return x, w, pyconv.conv2d(x, w, **layer)


def design(x, k, groups=1, **layer):
    """The unfolded matrix of each group: (windows, weights)."""
    columns = oracle.unfold(np.asarray(x, np.float64), k, **layer)
    rows = columns.shape[1] // groups
    return [
        np.concatenate([c[g * rows : (g + 1) * rows].T for c in columns]) for g in range(groups)
    ]


def lstsq(x, t, k, groups=1, bias=False, used=None, **layer):
    """(weights (O, C / groups, kh, kw), biases, sum of squares) by NumPy's least squares on the unfolded matrix."""
    each = t.shape[1] // groups
    weights, biases, loss = [], [], 0.0
    for g, matrix in enumerate(design(x, k, groups, **layer)):
        right = np.moveaxis(t[:, g * each : (g + 1) * each], 1, -1).reshape(-1, each)
        if bias:
            matrix = np.column_stack([matrix, np.ones(len(matrix))])
        if used is not None:
            root = np.sqrt(used.reshape(-1, 1).astype(float))
            matrix, right = root * matrix, root * right
        solution = np.linalg.lstsq(matrix, right, rcond=None)[0]
        loss += ((right - matrix @ solution) ** 2).sum()
        if bias:
            solution, b = solution[:-1], solution[-1]
            biases.extend(b)
        weights.append(solution.T.reshape(each, -1, *k))
    return np.concatenate(weights), np.array(biases), loss


# ------------------------------------------------------------------------------------------------
# fit_kernel


def test_examples_in_the_docstrings():
    result = doctest.testmod(learn)
    assert result.attempted >= 10 and result.failed == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_recovers_a_strided_layer_of_several_channels(dtype, tolerance):
    x, w, t = random_pair(np.random.default_rng(0), (2, 3, 64, 61), (4, 3, 5, 5), dtype, stride=2, padding=2)
    fit = fit_kernel(x, t, 5, stride=2, padding=2)
    assert fit.kernel.shape == w.shape and fit.kernel.dtype == dtype
    assert np.abs(fit.kernel - w).max() <= tolerance
    assert (fit.rank, fit.bias, fit.lr, fit.padding) == (75, None, None, ((2, 2), (2, 2)))
    assert fit.windows == 2 * 32 * 31


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_recovers_a_blur_of_camera_from_images_of_one_size(camera, dtype, bias):
    blur = kernels.gaussian(1.5, radius=4)
    image = camera.astype(dtype)
    blurred = ndimage.correlate(image.astype(float), blur) + 7 * bias
    fit = fit_kernel(image, blurred, 9, bias=bias)
    assert np.abs(fit.kernel - blur).max() <= 1e-8
    assert fit.kernel.dtype == np.float64
    assert fit.windows == 504**2
    if bias:
        assert abs(fit.bias - 7) <= 1e-8
    inside = np.s_[4:-4, 4:-4]
    assert np.abs(fit.predict(image) - blurred)[inside].max() <= 1e-6


settings_of_a_layer = st.fixed_dictionaries(
    {
        "k": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
        "padding_mode": st.sampled_from(sorted(oracle.PADDING_MODES)),
        "images": st.integers(1, 3),
        "channels": st.sampled_from([(1, 1, 1), (2, 3, 1), (1, 4, 1), (4, 2, 2), (3, 3, 3)]),
        "counts": st.sampled_from(["all", "where", "weights", "both"]),
        "bias": st.booleans(),
        "block": st.sampled_from([1, 200, 2**20]),
        "seed": st.integers(0, 2**32),
    }
)


@given(settings_of_a_layer)
def test_is_numpys_least_squares(s):
    rng = np.random.default_rng(s["seed"])
    c, o, groups = s["channels"]
    layer = {name: s[name] for name in ("stride", "dilation", "padding")}
    size = tuple(int(rng.integers(12, 20)) for _ in range(2))
    x = rng.standard_normal((s["images"], c, *size))
    positions = oracle.output_size(size, s["k"], s["stride"], s["padding"], s["dilation"])
    t = rng.standard_normal((s["images"], o, *positions)) + 1
    where = weights = None
    if s["counts"] in ("where", "both"):
        where = rng.random((s["images"], *positions)) < 0.8
    if s["counts"] in ("weights", "both"):
        weights = rng.integers(0, 4, positions) / 2
    used = np.ones((s["images"], *positions))
    used = used * (1 if where is None else where) * (1 if weights is None else weights)
    boundary = oracle.PADDING_MODES[s["padding_mode"]]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # 12 x 12 pixels at stride 3 can be too few
        patch.setattr(learn, "BLOCK", s["block"])
        patch.setattr(learn, "MATRIX_BLOCK", s["block"])
        fit = fit_kernel(x, t, s["k"], groups=groups, bias=s["bias"], where=where, weights=weights,
                         padding_mode=s["padding_mode"], workers=1, **layer)  # fmt: skip
    if not used.any():
        return
    w, b, loss = lstsq(x, t, s["k"], groups, s["bias"], used, boundary=boundary, **layer)
    assert fit.loss <= loss * (1 + 1e-6) + 1e-18
    assert fit.loss >= loss * (1 - 1e-6) - 1e-18
    assert fit.windows == np.count_nonzero(used)
    matrix = design(x, s["k"], groups, boundary=boundary, **layer)[0]
    if fit.rank == w[0].size and fit.condition < 1e6:
        np.testing.assert_allclose(fit.kernel, w, atol=1e-9)
        if s["bias"]:
            np.testing.assert_allclose(fit.bias, b, atol=1e-9)
        if groups == 1 and not s["bias"] and s["counts"] == "all":
            assert fit.condition == pytest.approx(np.linalg.cond(matrix) ** 2, rel=1e-6)


def test_with_noise_the_residual_is_that_of_lstsq(camera):
    rng = np.random.default_rng(1)
    image = camera[100:228, 200:340].astype(float)
    t = pyconv.corr2d(image, kernels.gaussian(1.2, radius=3)) + rng.normal(0, 2, (122, 134))
    fit = fit_kernel(image, t, 7)
    w, _, loss = lstsq(image[None, None], t[None, None], (7, 7))
    assert fit.loss == pytest.approx(loss, rel=1e-6)
    assert ((fit.predict(image) - t) ** 2).sum() == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(fit.kernel, w[0, 0], atol=1e-9)


def test_weights_are_those_of_independent_noise():
    # The estimate of least variance: twice the weight counts as seeing the pixel twice.
    rng = np.random.default_rng(2)
    x, t = rng.random((2, 1, 20, 20)), rng.random((2, 1, 18, 18))
    doubled = fit_kernel(np.concatenate([x, x[:1]]), np.concatenate([t, t[:1]]), 3)
    weighted = fit_kernel(x, t, 3, weights=np.broadcast_to(np.array([2.0, 1.0])[:, None, None], (2, 18, 18)))
    np.testing.assert_allclose(weighted.kernel, doubled.kernel, atol=1e-13)
    assert weighted.loss == pytest.approx(doubled.loss, rel=1e-12)


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_ridge_is_relative_to_the_mean_diagonal(ridge):
    rng = np.random.default_rng(3)
    x, t = 40 * rng.random((30, 30)), rng.random((28, 28))
    (matrix,) = design(x[None, None], (3, 3))
    normal = matrix.T @ matrix
    normal += ridge * np.trace(normal) / 9 * np.eye(9)
    expected = np.linalg.solve(normal, matrix.T @ t.ravel())
    fit = fit_kernel(x, t, 3, ridge=ridge)
    np.testing.assert_allclose(fit.kernel.ravel(), expected, rtol=1e-10)
    assert fit.condition == pytest.approx(np.linalg.cond(normal), rel=1e-9)
    assert fit.loss == pytest.approx(((matrix @ expected - t.ravel()) ** 2).sum(), rel=1e-12)
    assert np.allclose(fit_kernel(1000 * x, t, 3, ridge=ridge).kernel * 1000, fit.kernel)


def test_ridge_leaves_the_bias_free():
    rng = np.random.default_rng(4)
    x, t = rng.random((30, 30)), 100 + rng.random((28, 28))
    fit = fit_kernel(x, t, 3, ridge=1e6, bias=True)
    assert np.abs(fit.kernel).max() < 1e-4 and fit.bias == pytest.approx(t.mean(), abs=1e-3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("image", "rank", "rank_with_bias"),
    [
        (np.full((50, 40), 0.1), 1, 0),
        (np.full((50, 40), 2.0**40), 1, 0),
        (0.1 + 2.0**-56 * np.random.default_rng(0).integers(-1, 2, (50, 40)), 1, 0),  # constant but for rounding
        (np.full((50, 40), 1e-100), 1, 0),
        (np.zeros((50, 40)), 0, 0),
        (np.add.outer(np.arange(50.0), 0.3 * np.arange(40)), 2, 1),
        (np.sin(np.add.outer(0.1 * np.arange(50), 0.07 * np.arange(40))), 2, 2),
        (np.arange(50.0)[:, None] ** 2 + np.zeros(40), 3, 2),
    ],
)
def test_a_smooth_image_warns_and_gets_the_kernel_of_smallest_norm(image, rank, rank_with_bias, bias):
    t = pyconv.corr2d(image, kernels.gaussian(1, radius=2)) + 3 * bias
    with pytest.warns(RankWarning, match=f"only {rank_with_bias if bias else rank} of the 25 weights.*ridge="):
        fit = fit_kernel(image, t, 5, bias=bias)
    assert fit.rank == (rank_with_bias if bias else rank)
    assert fit.condition == math.inf
    (matrix,) = design(image[None, None], (5, 5))
    right = t.ravel()
    if bias:
        matrix, right = matrix - matrix.mean(axis=0), right - right.mean()
    expected = np.linalg.pinv(matrix, rcond=1e-6) @ right if fit.rank else np.zeros(25)
    np.testing.assert_allclose(fit.kernel.ravel(), expected, atol=1e-9)
    if bias:
        assert np.abs(fit.predict(image) - t).max() <= 1e-9 * np.abs(t).max()


def test_too_few_pixels_warn():
    rng = np.random.default_rng(5)
    x, w, t = random_pair(rng, (1, 1, 5, 6), (1, 1, 3, 3))
    with pytest.warns(RankWarning, match="only 6 of the 9 weights"):
        fit = fit_kernel(x, t, 3, where=np.arange(12).reshape(3, 4) < 6)
    (matrix,) = design(x, (3, 3))
    np.testing.assert_allclose(fit.kernel.ravel(), np.linalg.pinv(matrix[:6]) @ t.ravel()[:6], atol=1e-12)


def test_ridge_settles_what_the_images_do_not_and_nothing_warns(recwarn):
    image = np.ones((20, 20))
    fit = fit_kernel(image, image[2:, 2:], 3, ridge=1e-9)
    np.testing.assert_allclose(fit.kernel, np.full((3, 3), 1 / 9), rtol=1e-8)
    assert fit.rank == 1 and not recwarn.list


def test_a_bright_image_is_no_worse_with_a_bias():
    rng = np.random.default_rng(6)
    x, k = rng.random((64, 64)), kernels.gaussian(1, radius=1)
    conditions = []
    for brightness in (0, 1e6):
        image = x + brightness
        fit = fit_kernel(image, pyconv.corr2d(image, k) + 5, 3, bias=True)
        # The image itself is rounded to 1e-10 of its detail.
        assert np.abs(fit.kernel - k).max() <= 1e-8
        conditions.append(fit.condition)
    assert conditions[1] == pytest.approx(conditions[0], rel=1e-6)


@pytest.mark.parametrize("convention", ["correlate", "convolve"])
@pytest.mark.parametrize("size", [(3, 5), (2, 4), (1, 2), (4, 3)])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_images_of_one_size_are_aligned_as_scipys_filters_are(convention, size, step):
    rng = np.random.default_rng(7)
    image, k = rng.random((31, 33)), rng.standard_normal(size)
    t = getattr(ndimage, convention)(image, k)[::step, ::step]
    valid = tuple((n - m) // step + 1 for n, m in zip(image.shape, size, strict=True))
    if step > 1 and valid == t.shape:
        pytest.skip("both readings fit; the valid one is taken")
    fit = fit_kernel(image, t, size, convention=convention, stride=step, padding_mode="symmetric")
    np.testing.assert_allclose(fit.kernel, k, atol=1e-12)
    np.testing.assert_allclose(fit.predict(image), t, atol=1e-12)
    learnt = learn_kernel(image, t, size, convention=convention, stride=step)
    assert np.linalg.norm(learnt.kernel - k) <= 2e-3 * np.linalg.norm(k)


def test_nothing_outside_spoils_the_default():
    # Assuming zeros outside would: a target made with another boundary shows it.
    rng = np.random.default_rng(8)
    image, k = rng.random((30, 30)) + 1, rng.standard_normal((5, 5))
    t = ndimage.correlate(image, k, mode="wrap")
    assert np.abs(fit_kernel(image, t, 5).kernel - k).max() <= 1e-12
    assert np.abs(fit_kernel(image, t, 5, padding=2, padding_mode="wrap").kernel - k).max() <= 1e-12
    assert np.abs(fit_kernel(image, t, 5, padding=2).kernel - k).max() > 1e-3


@pytest.mark.parametrize("solver", [fit_kernel, learn_kernel])
def test_channel_axis_is_an_arrangement_only(solver):
    rng = np.random.default_rng(9)
    x, w, t = random_pair(rng, (1, 3, 24, 22), (2, 3, 3, 3))
    expected = solver(x, t, 3, bias=True)
    for axis, place in ((-1, 2), (0, 0), (1, 1), (-2, 1)):
        image, edges = np.moveaxis(x[0], 0, axis), np.moveaxis(t[0], 0, axis)
        fit = solver(image, edges, 3, bias=True, channel_axis=axis)
        np.testing.assert_array_equal(fit.kernel, expected.kernel)
        np.testing.assert_array_equal(fit.bias, expected.bias)
        assert fit.predict(image).shape[place] == 2
        np.testing.assert_array_equal(np.moveaxis(fit.predict(image), axis, 0), expected.predict(x)[0])
    batch = solver(np.moveaxis(x, 1, -1), np.moveaxis(t, 1, -1), 3, bias=True, channel_axis=-1)
    np.testing.assert_array_equal(batch.kernel, expected.kernel)
    assert batch.predict(np.moveaxis(x, 1, -1)).shape == (1, 22, 20, 2)
    grey = solver(np.moveaxis(x[0], 0, -1), t[0, 0], 3, channel_axis=-1)
    assert grey.kernel.shape == (1, 3, 3, 3) and grey.predict(np.moveaxis(x[0], 0, -1)).shape == (22, 20)


@pytest.mark.parametrize("solver", [fit_kernel, learn_kernel])
def test_what_is_left_out_may_be_nan(solver):
    rng = np.random.default_rng(10)
    x, w, t = random_pair(rng, (1, 2, 20, 22), (3, 2, 3, 3), padding=1)
    spoiled_x, spoiled_t = x.copy(), t.copy()
    spoiled_x[0, 1, 5, 6], spoiled_x[0, 0, 0, 0], spoiled_t[0, 2, 15, 3] = np.nan, np.inf, -np.inf
    where = np.ones((20, 22), bool)
    where[4:7, 5:8] = where[:2, :2] = where[15, 3] = False
    fit = solver(spoiled_x, spoiled_t, 3, padding=1, where=where)
    np.testing.assert_array_equal(fit.kernel, solver(x, t, 3, padding=1, where=where).kernel)
    np.testing.assert_allclose(fit.kernel, w, atol=1e-12 if solver is fit_kernel else 0.01)
    for spot in ((4, 5), (6, 7), (1, 1)):
        touching = where.copy()
        touching[spot] = True
        with pytest.raises(ValueError, match=r"input must be finite where it is compared.*where=False"):
            solver(spoiled_x, t, 3, padding=1, where=touching)
    with pytest.raises(ValueError, match="finite where"):
        solver(x, spoiled_t, 3, padding=1)
    with pytest.raises(ValueError, match="finite where"):
        solver(spoiled_x, t, 3, padding=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_memory(layout):
    rng = np.random.default_rng(11)
    base = rng.random((14, 15))
    if layout == "broadcast":
        base = np.broadcast_to(base[:, :1], base.shape).copy()
    t = rng.random((12, 13))
    used = rng.random((12, 13))
    for solver, more in ((fit_kernel, {"weights": lay_out(used, layout), "ridge": 0.1}), (learn_kernel, {"steps": 3})):
        fit = solver(lay_out(base, layout), lay_out(t, layout), 3, **more)
        if "weights" in more:
            more["weights"] = used
        np.testing.assert_array_equal(fit.kernel, solver(base, t, 3, **more).kernel)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i8", "u8", "f2", "f4", "f8", ">f4"])
def test_dtypes(dtype):
    rng = np.random.default_rng(12)
    x = rng.integers(0, 2, (16, 16)).astype(dtype)
    t = pyconv.corr2d(x.astype(float), np.array([[1.0, 2.0], [3.0, 4.0]]))
    floating = np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize < 8
    for target in (t, t.astype(np.int16), t.astype(np.float32)):
        fit = fit_kernel(x, target, 2)
        wide = target.dtype == np.float64 or (not floating and target.dtype != np.float32)
        assert fit.kernel.dtype == (np.float64 if wide or np.dtype(dtype) == np.float64 else np.float32)
        np.testing.assert_allclose(fit.kernel, [[1, 2], [3, 4]], rtol=1e-6 if fit.kernel.dtype == np.float32 else 1e-12)
    assert fit_kernel(x, t, 2, dtype=np.float32).kernel.dtype == np.float32
    assert learn_kernel(x, t, 2, steps=2, dtype=np.float32).kernel.dtype == np.float32


def test_threads_change_no_bit_of_a_descent(threads):
    rng = np.random.default_rng(13)
    x, w, t = random_pair(rng, (2, 2, 70, 80), (2, 2, 3, 3), np.float32)
    run = [learn_kernel(x, t, 3, lr=1e-5, steps=3, workers=workers) for workers in (1, threads)]
    np.testing.assert_array_equal(run[0].losses, run[1].losses)
    np.testing.assert_array_equal(run[0].kernel, run[1].kernel)


def test_memory_beyond_the_images(run_python):
    script = """
import numpy as np, tracemalloc, sys
import pyconv
n, k = 2048, 3
x = np.random.default_rng(0).random((n, n), np.float32)
t = pyconv.corr2d(x, np.ones((k, k), np.float32))
tracemalloc.start()
pyconv.fit_kernel(x, t, k, workers=1)
pyconv.fit_kernel(x, t, k, bias=True, weights=np.broadcast_to(np.float32(2), t.shape), workers=1)
print(tracemalloc.get_traced_memory()[1] / 1e6)
"""
    assert float(run_python(script)) < 64


# ------------------------------------------------------------------------------------------------
# learn_kernel


def by_hand(image, target, w, lr, steps, momentum=0.0, b=None):
    """Plain descent in float64 on a single-channel pair: losses before each step, kernel, bias."""
    w = np.array(w, np.float64)
    matrix = design(image[None, None], w.shape)[0]
    right, vector = target.ravel(), w.ravel()
    if b is not None:
        matrix, vector = np.column_stack([matrix, np.ones(len(matrix))]), np.append(vector, b)
    losses, velocity = [], np.zeros_like(vector)
    for _ in range(steps):
        r = matrix @ vector - right
        losses.append((r**2).sum())
        velocity = momentum * velocity + 2 * matrix.T @ r
        vector = vector - lr * velocity
    r = matrix @ vector - right
    return np.array(losses), (r**2).sum(), vector[: w.size].reshape(w.shape), None if b is None else vector[-1]


STARTS = [np.zeros((1, 2)), *np.random.default_rng(0).uniform(-math.sqrt(0.5), math.sqrt(0.5), (20, 1, 2))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("start", STARTS)
def test_the_textbooks_example(start, dtype):
    image, edges = textbook(2, 3, 4, 5)
    fit = learn_kernel(image.astype(dtype), edges.astype(dtype), (1, 2), lr=0.03, steps=10, init=start)
    losses, loss, kernel, _ = by_hand(image, edges, start, 0.03, 10)
    np.testing.assert_allclose(fit.losses, losses, rtol=1e-5, atol=1e-5)
    assert fit.loss == pytest.approx(loss, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(fit.kernel, kernel, atol=1e-5)
    assert (np.diff([*fit.losses, fit.loss]) < 0).all()
    assert np.abs(fit.kernel - EDGE).max() < 0.13
    assert fit.kernel.dtype == dtype and fit.lr == 0.03 and fit.momentum == 0
    slow = learn_kernel(image, edges, (1, 2), lr=0.003, steps=100, init=start)
    losses, loss, _, _ = by_hand(image, edges, start, 0.003, 100)
    np.testing.assert_allclose([*slow.losses, slow.loss], [*losses, loss], rtol=1e-5, atol=1e-12)
    assert (np.diff(slow.losses) < 0).all()


@pytest.mark.parametrize("start", [[[3.0, -8.0]], [[0.1, 0.2]], [[-100.0, 7.0]]])
def test_the_error_shrinks_by_two_factors_a_step(start):
    image, edges = textbook(2, 3, 4, 5)
    errors = []
    learn_kernel(image, edges, (1, 2), lr=0.03, steps=8, init=start,
                 callback=lambda step, loss, kernel: errors.append(kernel - EDGE))  # fmt: skip
    errors = np.array(errors)[:, 0]
    for direction, factor in (((1, 1), -0.8), ((1, -1), 0.64)):
        along = errors @ direction
        np.testing.assert_allclose(along[1:], factor * along[:-1], rtol=1e-9, atol=1e-12)


def test_beyond_the_largest_stable_step():
    image, edges = textbook(4)
    start = [[0.005, 0.004]]  # almost nothing along [1, 1], which grows by -1.112 a step
    ten = learn_kernel(image, edges, (1, 2), lr=0.016, steps=10, init=start)
    assert (np.diff([*ten.losses, ten.loss]) < 0).all()
    with pytest.raises(ValueError, match=r"lr=0.016 exceeds 0.01515, the largest stable step for this pair") as error:
        learn_kernel(image, edges, (1, 2), lr=0.016, steps=60, init=start)
    losses, loss, kernel, _ = by_hand(image, edges, start, 0.016, 60)
    first = int(np.argmax(losses > losses[0]))
    assert f"at step {first} the loss is {losses[first]:.4g}" in str(error.value)
    run_on = learn_kernel(image, edges, (1, 2), lr=0.016, steps=60, init=start, allow_unstable=True)
    np.testing.assert_allclose([*run_on.losses, run_on.loss], [*losses, loss], rtol=1e-5)
    assert 850 < run_on.loss < 950
    # Just below the limit nothing climbs, from the worst direction; just above it climbs at once.
    for lr, climbs in ((0.01515, False), (0.01516, True)):
        with pytest.raises(ValueError, match="exceeds") if climbs else warnings.catch_warnings():
            learn_kernel(image, edges, (1, 2), lr=lr, steps=50, init=[[1.5, -0.5]])


def test_a_descent_that_overflows_is_stopped_or_let_run_on(recwarn):
    image, edges = textbook(2)
    for dtype in (np.float32, np.float64):
        with pytest.raises(ValueError, match=r"lr=1e\+300 exceeds 0\.0\d+, .* at step 1 the loss is (inf|nan)"):
            learn_kernel(image.astype(dtype), edges, (1, 2), lr=1e300, steps=5, dtype=dtype)
        fit = learn_kernel(image.astype(dtype), edges, (1, 2), lr=1e300, steps=5, dtype=dtype, allow_unstable=True)
        assert len(fit.losses) == 5 and not np.isfinite(fit.loss)
    assert not recwarn.list


def test_convolve_finds_the_flipped_kernel():
    image, edges = textbook(2, 3, 4, 5)
    correlated = learn_kernel(image, edges, (1, 2), lr=0.03, steps=10, init=[[0.5, 0.2]])
    convolved = learn_kernel(image, edges, (1, 2), lr=0.03, steps=10, init=[[0.2, 0.5]], convention="convolve")
    np.testing.assert_array_equal(convolved.kernel, correlated.kernel[:, ::-1])
    np.testing.assert_array_equal(convolved.predict(image), correlated.predict(image))
    rng = np.random.default_rng(14)
    x, w, t = random_pair(rng, (1, 2, 20, 20), (2, 2, 3, 4))
    fit = fit_kernel(x, t, (3, 4), convention="convolve")
    np.testing.assert_allclose(fit.kernel, w[..., ::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(fit.predict(x), t, atol=1e-12)


@given(settings_of_a_layer)
def test_a_step_is_the_gradient_of_the_sum_of_squares(s):
    rng = np.random.default_rng(s["seed"])
    c, o, groups = s["channels"]
    layer = {name: s[name] for name in ("stride", "dilation", "padding")}
    size = tuple(int(rng.integers(10, 16)) for _ in range(2))
    positions = oracle.output_size(size, s["k"], s["stride"], s["padding"], s["dilation"])
    x, t = rng.standard_normal((s["images"], c, *size)), rng.standard_normal((s["images"], o, *positions))
    start = rng.standard_normal((o, c // groups, *s["k"]))
    where = rng.random((s["images"], *positions)) < 0.8 if s["counts"] == "where" else None
    if where is not None and not where.any():
        return
    fit = learn_kernel(x, t, s["k"], groups=groups, bias=s["bias"], where=where, lr=1e-3, steps=1, init=start,
                       padding_mode=s["padding_mode"], allow_unstable=True, workers=1, **layer)  # fmt: skip

    boundary = oracle.PADDING_MODES[s["padding_mode"]]
    r = oracle.correlate(x, start, groups=groups, boundary=boundary, **layer) - t
    r = r if where is None else np.where(where[:, None], r, 0)
    assert fit.losses[0] == pytest.approx((r**2).sum(), rel=1e-12)
    each = o // groups
    for g, matrix in enumerate(design(x, s["k"], groups, boundary=boundary, **layer)):
        part = np.moveaxis(r[:, g * each : (g + 1) * each], 1, -1).reshape(-1, each)
        expected = start[g * each : (g + 1) * each] - 1e-3 * (2 * part.T @ matrix).reshape(each, *start.shape[1:])
        np.testing.assert_allclose(fit.kernel[g * each : (g + 1) * each], expected, atol=1e-10)
    if s["bias"]:
        np.testing.assert_allclose(fit.bias, -2e-3 * r.sum(axis=(0, 2, 3)), atol=1e-12)


@pytest.mark.parametrize("b", [None, 0.0])
def test_momentum_is_the_heavy_ball(b):
    rng = np.random.default_rng(15)
    x, start = rng.random((12, 13)), rng.standard_normal((2, 3))
    t = rng.random((11, 11))
    fit = learn_kernel(x, t, (2, 3), lr=1e-3, steps=25, momentum=0.7, init=start, bias=b is not None)
    losses, loss, kernel, bias = by_hand(x, t, start, 1e-3, 25, 0.7, b)
    np.testing.assert_allclose([*fit.losses, fit.loss], [*losses, loss], rtol=1e-12)
    np.testing.assert_allclose(fit.kernel, kernel, atol=1e-12)
    assert fit.momentum == 0.7
    assert bias is None or fit.bias == pytest.approx(bias, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_own_lr_and_momentum_on_camera(camera, dtype):
    blur = kernels.gaussian(1, radius=2)
    image = camera[::2, ::2].astype(dtype)
    fit = learn_kernel(image, ndimage.correlate(image, blur.astype(dtype)), 5)
    assert np.linalg.norm(fit.kernel - blur) <= 0.02 * np.linalg.norm(blur)
    # The loss never climbs past where it began, though the plain heavy ball would.
    assert fit.losses.max() == fit.losses[0]
    exact = fit_kernel(image, ndimage.correlate(image, blur.astype(dtype)), 5)
    assert fit.condition == pytest.approx(exact.condition, rel=1e-6) and fit.rank == exact.rank == 25


@pytest.mark.parametrize("momentum", [None, 0, 0.5])
@pytest.mark.parametrize("bias", [False, True])
def test_the_chosen_numbers_are_those_of_the_spectrum(momentum, bias):
    rng = np.random.default_rng(16)
    x, w, t = random_pair(rng, (1, 1, 20, 20), (1, 1, 2, 2))
    x, t = x[0, 0], t[0, 0]
    matrix = design(x[None, None], (2, 2))[0]
    if bias:
        matrix = np.column_stack([matrix, np.ones(len(matrix))])
    curvatures = 2 * np.linalg.eigvalsh(matrix.T @ matrix)
    fit = learn_kernel(x, t, 2, momentum=momentum, bias=bias)
    low, high = math.sqrt(curvatures[0]), math.sqrt(curvatures[-1])
    beta = ((high - low) / (high + low)) ** 2 if momentum is None else momentum
    assert fit.momentum == pytest.approx(beta, rel=1e-9)
    assert fit.lr == pytest.approx(2 * (1 + beta) / (low**2 + high**2), rel=1e-9)
    assert fit.condition == pytest.approx(high**2 / low**2, rel=1e-9)
    assert np.linalg.norm(fit.kernel - w[0, 0]) <= 1e-3 * np.linalg.norm(w)
    limit = re.search(r"exceeds ([\d.e-]+),", unstable_message(x, t, 2, 10 * fit.lr, beta, bias)).group(1)
    assert float(limit) == pytest.approx(2 * (1 + beta) / high**2, rel=1e-3)


def unstable_message(x, t, k, lr, momentum, bias):
    with pytest.raises(ValueError, match="exceeds") as error:
        learn_kernel(x, t, k, lr=lr, momentum=momentum, bias=bias, steps=100)
    return str(error.value)


def test_steps_for_a_given_lr():
    image, edges = textbook(2, 3, 4, 5)
    fit = learn_kernel(image, edges, (1, 2), lr=0.03)
    assert len(fit.losses) == math.ceil(math.log(1e-3) / math.log(0.8))
    assert fit.rank == 2 and fit.condition == pytest.approx(5)
    with pytest.warns(RuntimeWarning, match="10000 are taken; pass steps=, or solve at once with fit_kernel"):
        fit = learn_kernel(image[:2, :4], edges[:2, :3], (1, 2), lr=1e-7, callback=lambda *_: True)
    assert len(fit.losses) == 0
    assert learn_kernel(image, edges, (1, 2), lr=0.03, steps=3).rank is None


def test_an_image_without_detail_gets_the_kernel_of_smallest_norm():
    image = np.ones((12, 12))
    fit = learn_kernel(image, 2 * image[2:, 2:], 3)
    np.testing.assert_allclose(fit.kernel, np.full((3, 3), 2 / 9), rtol=1e-3)
    assert fit.rank == 1 and fit.condition == math.inf
    dark = learn_kernel(0 * image, 2 * image[2:, 2:], 3)
    assert not dark.kernel.any() and dark.rank == 0


def test_starts():
    image, edges = textbook(2, 3)
    first = {}
    for name, more in {"zeros": {}, "seed": {"rng": 5}, "generator": {"rng": np.random.default_rng(5)},
                       "other": {"rng": 6}, "init": {"init": [[0.25, 0.5]]}}.items():  # fmt: skip
        learn_kernel(image, edges, (1, 2), lr=1e-3, steps=1, **more,
                     callback=lambda step, loss, kernel, name=name: first.setdefault(name, kernel))  # fmt: skip
    assert not first["zeros"].any() and np.array_equal(first["init"], [[0.25, 0.5]])
    assert np.array_equal(first["seed"], first["generator"]) and not np.array_equal(first["seed"], first["other"])
    assert 0 < np.abs(first["seed"]).max() <= math.sqrt(0.5)
    # A start that is the solution is not taken for a descent that climbs, though rounding makes losses differ.
    rng = np.random.default_rng(17)
    x, w, t = random_pair(rng, (1, 3, 30, 30), (2, 3, 5, 5), np.float32)
    t = pyconv.conv2d(x.astype(float), w.astype(float)).astype(np.float32)
    start = fit_kernel(x, t, 5).kernel
    fit = learn_kernel(x, t, 5, init=start, steps=300)
    assert fit.losses.max() > fit.losses[0]
    np.testing.assert_allclose(fit.kernel, w, atol=1e-5)


def test_callback_sees_each_step_and_can_end_the_descent():
    image, edges = textbook(2, 3, 4, 5)
    seen = []

    def callback(step, loss, kernel):
        seen.append((step, loss, kernel.shape))
        kernel[...] = 1e9  # a copy: the descent does not notice
        return step == 4

    fit = learn_kernel(image, edges, (1, 2), lr=0.03, steps=10, callback=callback)
    losses = by_hand(image, edges, [[0, 0]], 0.03, 4)
    assert [step for step, _, _ in seen] == [0, 1, 2, 3, 4] and {shape for *_, shape in seen} == {(1, 2)}
    np.testing.assert_allclose([loss for _, loss, _ in seen], [*losses[0], losses[1]], rtol=1e-12)
    np.testing.assert_allclose(fit.losses, losses[0], rtol=1e-12)
    np.testing.assert_allclose(fit.kernel, losses[2], rtol=1e-12)


def test_progress(monkeypatch):
    image, edges = textbook(2)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.warns(RuntimeWarning, match="tqdm is not installed"):
        learn_kernel(image, edges, (1, 2), lr=1e-3, steps=2, progress=True)

    class Bar:
        count, closed = 0, False

        def __init__(self, total, desc):
            assert total == 3 and desc == "learn_kernel"

        def update(self):
            Bar.count += 1

        def close(self):
            Bar.closed = True

    monkeypatch.setitem(sys.modules, "tqdm.auto", type(sys)("tqdm.auto"))
    sys.modules["tqdm.auto"].tqdm = Bar
    learn_kernel(image, edges, (1, 2), lr=1e-3, steps=3, progress=True)
    assert Bar.count == 3 and Bar.closed


def test_a_descent_walks_by_pyconvs_own_gradient(monkeypatch):
    image, edges = textbook(2)
    calls = []
    monkeypatch.setattr(grad, "conv2d_weight", lambda *a, f=grad.conv2d_weight, **k: calls.append(1) or f(*a, **k))
    learn_kernel(image, edges, (1, 2), lr=1e-3, steps=7)
    assert len(calls) == 7


# ------------------------------------------------------------------------------------------------
# The result, and errors


def test_a_fit_prints_itself():
    image, edges = textbook(2, 3, 4, 5)
    text = str(learn_kernel(image, edges, (1, 2), lr=0.03, steps=10, bias=True))
    for words in ("1 x 2 kernel by 10 steps of descent, lr 0.03", "over 42 windows", "12 before the first step",
                  "to correlate with the input", "bias"):  # fmt: skip
        assert words in text
    text = repr(fit_kernel(image, edges, (1, 2), convention="convolve"))
    for words in ("by least squares", "rank 2 of 2, condition number 5", "to convolve with", "[[-1.  1.]]"):
        assert words in text
    x, w, t = random_pair(np.random.default_rng(18), (1, 8, 40, 40), (8, 8, 5, 5))
    assert len(str(fit_kernel(x, t, 5))) < 1500


def test_images_whose_products_float32_cannot_hold():
    x, w, t = random_pair(np.random.default_rng(19), (1, 2, 20, 22), (2, 2, 3, 3), np.float32)
    for scale in map(np.float32, (1e-30, 1e30)):
        fit = fit_kernel(x * scale, t * scale, 3)
        assert fit.kernel.dtype == np.float32
        np.testing.assert_allclose(fit.kernel, w, rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="steps pass the largest number of the dtype.*dtype=np.float64"):
            learn_kernel(x * scale, t * scale, 3)
    # One output channel is enough to be looked at.
    t[:, 1] *= np.float32(1e-20)
    fit = fit_kernel(x * np.float32(1e-20), t, 3)
    np.testing.assert_allclose(fit.kernel[1], w[1], rtol=0, atol=1e-5)


IMAGE, EDGES = textbook(2, 3, 4, 5)
BATCH, FEATURES = np.ones((2, 3, 8, 8)), np.ones((2, 4, 6, 6))


@pytest.mark.parametrize("solver", [fit_kernel, learn_kernel])
@pytest.mark.parametrize(
    ("arguments", "more", "error", "words"),
    [
        ((IMAGE, EDGES, 0), {}, ValueError, "kernel_size must be from 1 to"),
        ((IMAGE, EDGES, (1, 0)), {}, ValueError, "kernel_size must be from 1 to"),
        ((IMAGE, EDGES, 2.5), {}, TypeError, "kernel_size must be an integer"),
        ((IMAGE, EDGES, (1, 2, 3)), {}, ValueError, "kernel_size must be one number or one for each of the 2"),
        ((IMAGE, EDGES, (1, 3)), {}, ValueError, r"target must have spatial size \(6, 8\) \(as large as the input\), "
         r"or \(6, 6\) .* kernel of size \(1, 3\).*got \(6, 7\)"),
        ((IMAGE, EDGES, (1, 2)), {"stride": 2}, ValueError, r"target must have spatial size \(3, 4\)"),
        ((IMAGE, EDGES, (1, 2)), {"padding": 1}, ValueError, r"spatial size \(8, 9\) with padding \(\(1, 1\), \(1, 1"),
        ((IMAGE, IMAGE, 7), {}, ValueError, r"no window of the kernel lies inside.*\(6, 8\), kernel_size \(7, 7\)"),
        ((IMAGE, EDGES, 9), {}, ValueError, r"target must have spatial size \(6, 8\)"),
        ((IMAGE, IMAGE, 9), {"padding": 0}, ValueError, "the kernel is larger than the padded input"),
        ((IMAGE[None], EDGES[None], (1, 2)), {}, ValueError, r"input must be a 2-D image or an array \(N, C, H, W\), "
         r"got shape \(1, 6, 8\).*channel_axis=0"),
        ((np.ones((9, 9, 3)), np.ones((9, 9, 3)), 3), {}, ValueError, r"got shape \(9, 9, 3\).*channel_axis=-1"),
        ((IMAGE, np.ones((6, 7, 1)), (1, 2)), {}, ValueError, r"target must be a 2-D image or an array.*\(6, 7, 1\)"),
        ((IMAGE, np.ones((1, 1, 6, 7)), (1, 2)), {}, ValueError, r"target must be a batch.*\(6, 8\).*\(1, 1, 6, 7\)"),
        ((BATCH, FEATURES[:1], 3), {}, ValueError, r"as many images as input.*\(2, 3, 8, 8\).*\(1, 4, 6, 6\)"),
        ((BATCH, FEATURES, 3), {"groups": 3}, ValueError, "groups must divide the channels of input and target, 3 and"),
        ((BATCH, FEATURES, 3), {"groups": 0}, ValueError, "groups must be at least 1"),
        ((BATCH, FEATURES, 3), {"channel_axis": 4}, ValueError, "channel_axis"),
        ((np.ones(5), np.ones(5), 3), {}, ValueError, r"input must be a 2-D image.*got shape \(5,\)"),
        ((np.ones(5), np.ones(5), 3), {"channel_axis": 0}, ValueError, r"input must have 2 axes.*\(5,\)"),
        ((BATCH[:0], FEATURES[:0], 3), {}, ValueError, "at least one"),
        ((BATCH[:, :0], FEATURES, 3), {}, ValueError, "groups must divide the channels"),
        ((IMAGE * 1j, EDGES, (1, 2)), {}, TypeError, "input must be real, got dtype complex128"),
        ((IMAGE, [["a", "b"]], (1, 2)), {}, TypeError, "target must be an array of numbers"),
        ((None, EDGES, (1, 2)), {}, TypeError, "input must be an array, got None"),
        ((IMAGE, EDGES, (1, 2)), {"convention": "flip"}, ValueError, "convention must be one of 'correlate', 'conv"),
        ((IMAGE, EDGES, (1, 2)), {"padding_mode": "around"}, ValueError, "padding_mode must be one of"),
        ((IMAGE, EDGES, (1, 2)), {"dtype": int}, TypeError, "dtype must be float32 or float64, got int64"),
        ((IMAGE, EDGES, (1, 2)), {"dtype": np.float16}, TypeError, "dtype must be float32 or float64"),
        ((IMAGE, EDGES, (1, 2)), {"where": np.ones((6, 7))}, TypeError, "where must hold booleans.*weights="),
        ((IMAGE, EDGES, (1, 2)), {"where": np.ones((6, 8), bool)}, ValueError, r"where must have one value for each "
         r"pixel of the target.*\(6, 7\).*got \(6, 8\)"),
        ((IMAGE, EDGES, (1, 2)), {"where": np.zeros((6, 7), bool)}, ValueError, "where must leave at least one pixel"),
        ((IMAGE, IMAGE, 3), {"where": IMAGE.cumsum(0) == 1}, ValueError, "that lies inside"),
        ((BATCH, FEATURES, 3), {"where": np.ones((2, 4, 6, 6), bool)}, ValueError, "the same for all channels"),
        ((IMAGE, EDGES, (1, 2)), {"workers": 0}, ValueError, "workers"),
        ((IMAGE, EDGES, (1, 2)), {"bias": [0.5]}, TypeError, "bias must be True or False"),
        ((IMAGE * np.nan, EDGES, (1, 2)), {}, ValueError, "finite where"),
        ((IMAGE, EDGES + np.inf, (1, 2)), {}, ValueError, "finite where"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(solver, arguments, more, error, words):
    with pytest.raises(error, match=words):
        solver(*arguments, **more)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"ridge": -1}, ValueError, "ridge must be at least 0"),
        ({"ridge": np.nan}, ValueError, "ridge must be finite"),
        ({"ridge": "some"}, TypeError, "ridge must be a real number"),
        ({"weights": -np.ones((6, 7))}, ValueError, "weights must be finite and not negative"),
        ({"weights": np.full((6, 7), np.nan)}, ValueError, "weights must be finite and not negative"),
        ({"weights": np.zeros((6, 7))}, ValueError, "weights must leave at least one pixel"),
        ({"weights": np.ones((6, 7)) * 1j}, TypeError, "weights must be real"),
        ({"weights": np.ones(6)}, ValueError, r"weights must have one value for each pixel.*got \(6,\)"),
    ],
)
def test_fit_kernel_refuses(more, error, words):
    with pytest.raises(error, match=words):
        fit_kernel(IMAGE, EDGES, (1, 2), **more)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"lr": 0}, ValueError, "lr must be above 0, got 0"),
        ({"lr": -1.0}, ValueError, "lr must be above 0"),
        ({"lr": np.inf}, ValueError, "lr must be finite"),
        ({"lr": "fast"}, TypeError, "lr must be a real number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 2.5}, TypeError, "steps must be an integer"),
        ({"momentum": 1}, ValueError, "momentum must be below 1"),
        ({"momentum": -0.1}, ValueError, "momentum must be at least 0"),
        ({"init": np.zeros((2, 1))}, ValueError, r"init must have the kernel's shape \(1, 2\), got \(2, 1\)"),
        ({"init": [[np.nan, 0]]}, ValueError, "init must be finite"),
        ({"init": [[1j, 0]]}, TypeError, "init must be real"),
        ({"init": [[0, 0]], "rng": 0}, ValueError, "init and rng cannot both be given"),
        ({"rng": "dice"}, TypeError, "rng must be a seed or a numpy.random.Generator"),
        ({"callback": 3}, TypeError, "callback must be a function"),
        ({"allow_unstable": "no"}, TypeError, "allow_unstable must be True or False"),
    ],
)
def test_learn_kernel_refuses(more, error, words):
    with pytest.raises(error, match=words):
        learn_kernel(IMAGE, EDGES, (1, 2), **more)


def test_predict_refuses_another_kind_of_image():
    fit = fit_kernel(IMAGE, EDGES, (1, 2))
    with pytest.raises(ValueError, match=r"image must be a 2-D image or an array"):
        fit.predict(IMAGE[None])
    with pytest.raises(ValueError, match="larger than"):
        fit.predict(IMAGE[:, :1])
