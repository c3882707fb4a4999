"""plan_conv2d, and the choice of a method."""

import gc
import math
import pickle
import threading
import weakref

import cases
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import PADDING_MODES

import pyconv
from pyconv import conv, engine, grad, plan

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def rng(seed=0):
    return np.random.default_rng(seed)


def random(seed, shape, dtype):
    """Normal numbers; of a complex dtype in both parts."""
    a = rng(seed).standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng(seed + 100).standard_normal(shape)
    return a.astype(dtype)


@st.composite
def layers(draw):
    """Any legal conv2d: (shape of one image, shape of the weights, settings)."""
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    amount = st.integers(0, 4)
    settings = {
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": draw(st.one_of(amount, st.tuples(amount, amount), st.sampled_from(["valid", "full", "same"]))),
        "dilation": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "groups": groups,
        "padding_mode": draw(st.sampled_from(list(PADDING_MODES))),
    }
    # As large as the kernel's reach, so that no padding is needed.
    size = [d * (k - 1) + draw(st.integers(1, 9)) for k, d in zip(kernel, settings["dilation"], strict=True)]
    channels, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return (groups * channels, *size), (groups * outputs, channels, *kernel), settings


# ------------------------------------------------------------------------------------------------
# A plan gives the bits of the plain functions


@given(layers(), st.sampled_from(["float16", "float32", "float64", "complex64"]), st.booleans(), st.data())
def test_a_plan_has_the_bits_of_plain_calls(layer, dtype, with_bias, data):
    sample, weight_shape, settings = layer
    weight, bias = random(1, weight_shape, dtype), random(2, weight_shape[:1], dtype) if with_bias else None
    workers = data.draw(st.integers(1, 3))
    planned = pyconv.plan_conv2d(sample, weight, bias, **settings, method="direct", workers=workers)
    for batch in [(), (1,), (3,), (0,)]:
        x = random(3, batch + sample, dtype)
        layout = data.draw(st.sampled_from(sorted(cases.LAYOUTS)))
        y = planned(cases.lay_out(x, layout))
        oracle.assert_same_bits(y, pyconv.conv2d(x, weight, bias, **settings, method="direct"))
        assert y.shape == batch + planned.output_shape
        dy = random(4, y.shape, dtype)
        dx = grad.conv2d_input(x.shape, weight, dy, **settings)
        oracle.assert_same_bits(planned.input_gradient(cases.lay_out(dy, layout)), dx)
        oracle.assert_same_bits(planned.input_gradient(dy), dx)       # from weights that were kept
        oracle.assert_same_bits(planned.weight_gradient(x, dy), grad.conv2d_weight(x, weight.shape, dy, **settings))


@given(layers(), st.integers(1, 2))
def test_a_plan_agrees_with_the_oracle(layer, batch):
    sample, weight_shape, settings = layer
    x, weight = (
        cases.integer_valued(rng(i), shape, "f8", 9) for i, shape in enumerate([(batch, *sample), weight_shape])
    )
    planned = pyconv.plan_conv2d(x.shape, weight, **settings)
    geometry = {
        "stride": settings["stride"],
        "padding": oracle.pairs(
            settings["padding"], sample[1:], weight_shape[2:], settings["stride"], settings["dilation"]
        ),
        "dilation": settings["dilation"],
        "groups": settings["groups"],
        "boundary": PADDING_MODES[settings["padding_mode"]],
    }
    y = oracle.correlate(x, weight, **geometry)
    oracle.assert_same_values(planned(x), y)
    dy = cases.integer_valued(rng(5), y.shape, "f8", 9)
    oracle.assert_same_values(planned.input_gradient(dy), oracle.dinput(x.shape[2:], weight, dy, **geometry))
    oracle.assert_same_values(planned.weight_gradient(x, dy), oracle.dweight(x, weight_shape[2:], dy, **geometry))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128", "float16"])
@pytest.mark.parametrize("x_dtype", ["uint8", "int64", "float16", ">f4", "float64"])
def test_inputs_are_converted_to_the_planned_dtype(dtype, x_dtype):
    x = cases.integer_valued(rng(), (2, 3, 7, 8), x_dtype, 9)
    weight = random(1, (4, 3, 3, 3), "f8")
    planned = pyconv.plan_conv2d(x.shape, weight, padding=1, dtype=dtype, method="direct")
    y = planned(x)
    assert y.dtype == planned.dtype == dtype
    oracle.assert_same_bits(y, pyconv.conv2d(x.astype(dtype), weight, padding=1, method="direct"))
    dy = cases.integer_valued(rng(2), y.shape, x_dtype, 9)
    expected = grad.conv2d_input(x.shape, weight, dy.astype(dtype), padding=1)
    oracle.assert_same_bits(planned.input_gradient(dy), expected)
    expected = grad.conv2d_weight(x.astype(dtype), weight.shape, dy.astype(dtype), padding=1)
    oracle.assert_same_bits(planned.weight_gradient(x, dy), expected)


def test_the_dtype_is_by_default_that_of_the_weights():
    assert pyconv.plan_conv2d((1, 4, 4), np.ones((1, 1, 2, 2), ">f4")).dtype == F32
    assert pyconv.plan_conv2d((1, 4, 4), np.ones((1, 1, 2, 2), int), dtype="f4").dtype == F32
    assert pyconv.plan_conv2d((1, 4, 4), np.ones((1, 1, 2, 2)), np.ones(1), dtype="c8").dtype == np.complex64


def test_padding_with_a_value():
    x, weight = random(0, (2, 5, 5), "f4"), random(1, (3, 2, 3, 3), "f4")
    settings = {"padding": 2, "padding_value": 2.5, "method": "direct"}
    planned = pyconv.plan_conv2d(x.shape, weight, **settings)
    oracle.assert_same_bits(planned(x), pyconv.conv2d(x, weight, **settings))
    dy = planned(x)
    expected = grad.conv2d_weight(x, weight.shape, dy, padding=2, padding_value=2.5)
    oracle.assert_same_bits(planned.weight_gradient(x, dy), expected)


def test_without_channels_the_bias_is_all_there_is():
    planned = pyconv.plan_conv2d((0, 5, 5), np.ones((2, 0, 3, 3)), np.array([1.0, 2.0]))
    oracle.assert_same_values(planned(np.ones((0, 5, 5))), np.ones((2, 3, 3)) * [[[1]], [[2]]])
    assert planned.input_gradient(np.ones((4, 2, 3, 3))).shape == (4, 0, 5, 5)
    assert planned.weight_gradient(np.ones((0, 5, 5)), np.ones((2, 3, 3))).shape == (2, 0, 3, 3)
    assert planned.workspace_bytes == planned.flops == 0


@pytest.mark.parametrize("layout", [None, "strided", "misaligned", "byteswapped"])
def test_out_is_filled_and_returned(layout):
    x, weight = random(0, (2, 3, 7, 8), "f4"), random(1, (4, 3, 3, 3), "f4")
    planned = pyconv.plan_conv2d(x.shape, weight, padding=1)
    y = planned(x)
    results = [
        (planned, (x,), y),
        (planned.input_gradient, (y,), planned.input_gradient(y)),
        (planned.weight_gradient, (x, y), planned.weight_gradient(x, y)),
    ]
    for function, arguments, expected in results:
        out = cases.poison(expected.shape, expected.dtype)
        if layout is not None:
            out = cases.lay_out(out, layout)
        assert function(*arguments, out=out) is out
        oracle.assert_same_bits(out.astype(F32), expected)
        wider = np.empty(expected.shape)
        function(*arguments, wider)
        np.testing.assert_allclose(wider, expected, rtol=1e-5, atol=1e-5)


def test_out_may_overlap_the_input():
    weight = random(1, (3, 3, 3, 3), "f4")
    # So large that it is not read as a whole before the first sums are stored.
    planned = pyconv.plan_conv2d((3, 300, 400), weight, padding=1)
    for function in (planned, planned.input_gradient):
        memory = random(0, (4, 300, 400), "f4")
        x = memory[:3]
        expected = function(x.copy())
        assert np.shares_memory(function(x, out=memory[1:]), x)
        oracle.assert_same_bits(memory[1:], expected)


# ------------------------------------------------------------------------------------------------
# Snapshot, memory, threads, pickling


def test_weights_and_bias_are_a_snapshot():
    x, weight, bias = random(0, (3, 7, 8), "f4"), random(1, (4, 3, 3, 3), "f4"), random(2, (4,), "f4")
    planned = pyconv.plan_conv2d(x.shape, weight, bias, padding=1)
    before = planned(x)
    weight[...] = 0
    bias[...] = 7
    oracle.assert_same_bits(planned(x), before)
    assert planned.input_gradient(before).any()


def test_no_array_of_the_caller_is_kept_alive():
    arrays = [random(i, shape, "f4") for i, shape in enumerate([(3, 7, 8), (4, 3, 3, 3), (4,), (4, 7, 8)])]
    references = [weakref.ref(a) for a in arrays]
    x, weight, bias, out = arrays
    planned = pyconv.plan_conv2d(x.shape, weight, bias, padding=1)
    dy = planned(x, out=out)
    planned.input_gradient(dy)
    planned.weight_gradient(x, dy)
    pyconv.conv2d(x, weight, bias, padding=1, out=out)
    grad.conv2d_backward(x, weight, dy, padding=1)
    del arrays, x, weight, bias, out, dy
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    assert planned.output_shape == (4, 7, 8)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("outputs", [8, 40])
def test_many_threads_call_one_plan(outputs, padding_mode):
    weight = random(1, (outputs, 4, 3, 3), "f4")
    settings = {"padding": 1, "stride": 2, "padding_mode": padding_mode}
    planned = pyconv.plan_conv2d((4, 12, 13), weight, **settings, workers=1)
    inputs = [random(i, (i + 1, 4, 12, 13), "f4") for i in range(4)]
    outputs = [pyconv.conv2d(x, weight, **settings, method="direct") for x in inputs]
    gradients = [grad.conv2d_input(x.shape, weight, y, **settings) for x, y in zip(inputs, outputs, strict=True)]
    start, wrong = threading.Barrier(4), []

    def run(i):
        start.wait()
        for _ in range(30):
            dx = planned.input_gradient(outputs[i])
            if not (np.array_equal(dx, gradients[i]) and np.array_equal(planned(inputs[i]), outputs[i])):
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(data=st.data())
def test_packed_weights_serve_any_batch_and_layout(data):
    # So many output channels, and for the gradient input channels, that vectors run over them.
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups, dtype = draw(1, 2), data.draw(st.sampled_from(["float32", "float64"]))
    channels, outputs = (data.draw(st.sampled_from([3, 16, 40, 65])) for _ in range(2))
    kernel, dilation = data.draw(st.sampled_from([(1, 1), (3, 3), (2, 4)])), (1, draw(1, 3))
    sample = (groups * channels, *(d * (k - 1) + draw(1, 9) for k, d in zip(kernel, dilation, strict=True)))
    weight = random(1, (groups * outputs, channels, *kernel), dtype)
    if draw(0, 3) == 0:
        weight.flat[draw(0, weight.size - 1)] = np.inf
    settings = {"padding": draw(0, 2), "stride": draw(1, 2), "dilation": dilation, "groups": groups}
    planned = pyconv.plan_conv2d(sample, weight, **settings, method="direct", workers=draw(1, 2))
    for batch in data.draw(st.permutations([(), (1,), (2,), (9,)])):
        x = random(3, batch + sample, dtype)
        layout = data.draw(st.sampled_from(sorted(cases.LAYOUTS)))
        y = pyconv.conv2d(x, weight, **settings, method="im2col")
        oracle.assert_same_values(planned(cases.lay_out(x, layout)), y)
        dy = random(4, y.shape, dtype)
        with np.errstate(invalid="ignore"):
            dx = grad.conv2d_input(x.shape, weight, dy, **settings)
        oracle.assert_same_values(planned.input_gradient(cases.lay_out(dy, layout)), dx)


def test_weights_are_packed_once():
    weight = random(1, (64, 48, 3, 3), "f4")
    planned = pyconv.plan_conv2d((48, 3, 3), weight, padding=1, method="direct")
    x = random(0, (48, 3, 3), "f4")
    y = planned(x)
    dx = planned.input_gradient(y)
    # The plan's own weights are its own business: what they were packed into is what counts.
    planned._weight[...] = 0
    oracle.assert_same_bits(planned(x), y)
    oracle.assert_same_bits(planned.input_gradient(y), dx)


def test_the_number_of_threads_is_that_of_the_time_of_the_call(threads):
    x, weight = random(0, (2, 8, 40, 41), "f4"), random(1, (16, 8, 3, 3), "f4")
    planned, fixed = (pyconv.plan_conv2d(x.shape, weight, workers=workers) for workers in (None, threads))
    y = planned(x)
    with pyconv.set_workers(threads):
        oracle.assert_same_bits(planned(x), y)
        oracle.assert_same_bits(fixed(x), y)
        assert planned.workspace_bytes == fixed.workspace_bytes
    assert pickle.loads(pickle.dumps(fixed)).workspace_bytes == fixed.workspace_bytes


def test_a_pickled_plan_is_the_same_plan():
    x, weight = random(0, (2, 8, 7, 8), "f4"), random(1, (16, 8, 3, 3), "f4")
    planned = pyconv.plan_conv2d(x.shape, weight, random(2, (16,), "f4"), padding=1, padding_mode="wrap")
    y = planned(x)
    dx, dw = planned.input_gradient(y), planned.weight_gradient(x, y)
    copy = pickle.loads(pickle.dumps(planned))
    assert (str(copy), repr(copy)) == (str(planned), repr(planned))
    for _ in range(2):
        oracle.assert_same_bits(copy(x), y)
        oracle.assert_same_bits(copy.input_gradient(y), dx)
        oracle.assert_same_bits(copy.weight_gradient(x, y), dw)
    # What is kept for gradients is not written.
    assert len(pickle.dumps(planned)) < 1.5 * weight.nbytes + 2000


def test_input_gradients_keep_transformed_weights(monkeypatch):
    weight = random(1, (64, 64, 3, 3), "f4")
    planned = pyconv.plan_conv2d((64, 28, 28), weight, padding=1)
    dy = random(2, planned.output_shape, "f4")
    dx = planned.input_gradient(dy)

    def transformed(*arguments, **keywords):
        raise AssertionError("weights are transformed again")

    monkeypatch.setattr(engine, "winograd_weights", transformed)
    oracle.assert_same_bits(planned.input_gradient(dy), dx)
    with pytest.raises(AssertionError):
        pyconv.plan_conv2d((64, 28, 28), weight, padding=1)


# ------------------------------------------------------------------------------------------------
# What a plan says of itself


def test_attributes():
    planned = pyconv.plan_conv2d([5, 6, 20, 30], np.ones((8, 3, 3, 5), "f4"), stride=3, groups=2, workers=1)
    assert planned.input_shape == (5, 6, 20, 30)
    assert planned.output_shape == (5, 8, 6, 9)
    assert planned.flops == 2 * 8 * 6 * 9 * 3 * 3 * 5
    assert planned.method == "direct"
    assert "stride" in planned.reason
    assert isinstance(planned.workspace_bytes, int) and 0 < planned.workspace_bytes < 2**20
    assert [candidate.method for candidate in planned.candidates] == ["direct", "im2col"]
    assert all(candidate.error == 3 * 3 * 5 + 2 for candidate in planned.candidates)


def test_workspace_does_not_grow_with_the_image():
    weight = np.ones((8, 4, 3, 3), "f4")
    sizes = [pyconv.plan_conv2d((4, n, n), weight, workers=1).workspace_bytes for n in (256, 4096, 16384)]
    assert max(sizes) < 2**20


def test_printing():
    planned = pyconv.plan_conv2d((3, 8, 8), np.ones((4, 3, 3, 3), "f4"), stride=2)
    assert repr(planned) == "<Plan conv2d (3, 8, 8) to (4, 3, 3), 3x3, float32: direct>"
    first, blank, heading, *rows = str(planned).splitlines()
    assert first == f"direct: {planned.reason}" and not blank
    assert "error bound" in heading
    assert rows[0].split() == ["*", "direct", "1.00", "29"]
    assert rows[1].split()[0] == "im2col"


# ------------------------------------------------------------------------------------------------
# Errors

PLAN = {"input_shape": (4, 8, 9), "weight": np.ones((6, 2, 3, 3), "f4"), "groups": 2}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input_shape": (8, 9)}, ValueError, ["input_shape", "(8, 9)", "(1, 8, 9)"]),
        ({"input_shape": (3, 8, 9)}, ValueError, ["input_shape", "groups", "(3, 8, 9)"]),
        ({"input_shape": (4, 2, 9)}, ValueError, ["kernel", "2"]),
        ({"input_shape": (4, -8, 9)}, ValueError, ["input_shape", "-8"]),
        ({"input_shape": (4, 8.0, 9)}, TypeError, ["input_shape", "8.0"]),
        ({"input_shape": np.ones((4, 8, 9))}, TypeError, ["input_shape", ".shape"]),
        ({"input_shape": 7}, TypeError, ["input_shape", "7"]),
        ({"weight": None}, TypeError, ["weight"]),
        ({"weight": np.ones((6, 2, 3), "f4")}, ValueError, ["weight", "(6, 2, 3)"]),
        ({"weight": np.ones((6, 2, 3, 3), int)}, TypeError, ["dtype", "int64", "conv2d"]),
        ({"weight": np.ones((6, 2, 3, 3), "c8"), "dtype": "f4"}, TypeError, ["dtype", "complex"]),
        ({"bias": np.ones(5)}, ValueError, ["bias", "(5,)", "6"]),
        ({"bias": np.ones(6, "c8")}, TypeError, ["dtype", "complex64"]),
        ({"dtype": "no"}, TypeError, ["dtype", "no"]),
        ({"dtype": "i8"}, TypeError, ["dtype", "int64"]),
        ({"stride": 0}, ValueError, ["stride"]),
        ({"padding": -1}, ValueError, ["padding"]),
        ({"padding_mode": "reflected"}, ValueError, ["padding_mode", "reflected"]),
        ({"padding_value": "0"}, TypeError, ["padding_value"]),
        ({"padding_value": 1j}, TypeError, ["padding_value"]),
        ({"workers": 0}, ValueError, ["workers", "0"]),
        ({"workers": 1.5}, TypeError, ["workers"]),
        ({"method": "im2col"}, ValueError, ["method", "im2col", "direct"]),
        ({"method": None}, ValueError, ["method"]),
        ({"method": "winograd", "stride": 3}, ValueError, ["method", "winograd", "stride"]),
        ({"method": "winograd", "stride": 2, "dilation": 2}, ValueError, ["method", "winograd", "dilation"]),
    ],
)
def test_bad_plans(change, error, words):
    with pytest.raises(error) as caught:
        pyconv.plan_conv2d(**{**PLAN, **change})
    assert all(word in str(caught.value) for word in words), caught.value


def test_bad_calls_leave_out_as_it_is():
    planned = pyconv.plan_conv2d(**PLAN)
    x, y, w = np.ones((2, 4, 8, 9), "f4"), np.ones((2, 6, 6, 7), "f4"), np.ones((6, 2, 3, 3), "f4")
    read_only = y.copy()
    read_only.flags.writeable = False
    bad = [
        (planned, (x[..., 1:],), ValueError, ["x", "(4, 8, 9)", "(2, 4, 8, 8)"]),
        (planned, (x[:, 1:],), ValueError, ["x", "(4, 8, 9)", "(2, 3, 8, 9)"]),
        (planned, (x[None],), ValueError, ["x", "(1, 2, 4, 8, 9)"]),
        (planned, (x[0, 0],), ValueError, ["x", "(8, 9)"]),
        (planned, (None,), TypeError, ["x"]),
        (planned, (x.astype(object),), TypeError, ["x", "object"]),
        (planned, (x.astype("c8"),), TypeError, ["x", "complex64"]),
        (planned, (x, y[:1]), ValueError, ["out", "(2, 6, 6, 7)", "(1, 6, 6, 7)"]),
        (planned, (x, y.astype(int)), TypeError, ["out", "int64"]),
        (planned, (x, read_only), ValueError, ["out", "read-only"]),
        (planned, (x, [1]), TypeError, ["out"]),
        (planned.input_gradient, (x,), ValueError, ["dy", "(6, 6, 7)", "(2, 4, 8, 9)"]),
        (planned.input_gradient, (y, y), ValueError, ["out", "(2, 4, 8, 9)"]),
        (planned.input_gradient, (y.astype("c8"),), TypeError, ["dy", "complex64"]),
        (planned.weight_gradient, (x, y[:1]), ValueError, ["x", "dy", "(2,)", "(1,)"]),
        (planned.weight_gradient, (x[0], y[:1]), ValueError, ["x", "dy"]),
        (planned.weight_gradient, (y, y), ValueError, ["x", "(4, 8, 9)"]),
        (planned.weight_gradient, (x, x), ValueError, ["dy", "(6, 6, 7)"]),
        (planned.weight_gradient, (x, y, w[:1]), ValueError, ["out", "(6, 2, 3, 3)"]),
    ]
    for function, arguments, error, words in bad:
        with pytest.raises(error) as caught:
            function(*arguments)
        assert all(word in str(caught.value) for word in words), caught.value
    assert (y == 1).all() and (w == 1).all()


# ------------------------------------------------------------------------------------------------
# The choice, with an engine whose Winograd is direct in disguise


def forget_choices():
    for cached in (plan.choose, conv._settle_once, conv._settle_transposed_once):
        cached.cache_clear()


@pytest.fixture
def disguised(monkeypatch):
    """Counts the calls: what the engine's Winograd computes is the correlation, from the weights that it was given as
    transformed ones."""
    calls = {"weights": 0, "runs": []}

    def winograd_weights(w, groups, m, r, workers, exchanged=False, stride=(1, 1)):
        calls["weights"] += 1
        assert w.flags.c_contiguous and w.dtype.char in "fd" and min(w.shape[2:]) >= 3
        return np.float64(2) * w

    def winograd(x, w, u, bias, out, nbatch, groups, before, boundary, constant, workers, m, r, exchanged=False,
                 skip_zeros=False, stride=(1, 1), dilation=(1, 1)):
        calls["runs"].append((m, r))
        calls["weights"] += u is None
        if u is not None:
            w = (u / 2).astype(w.dtype)
        order = np.arange(w[0, 0].size)[::-1].reshape(w.shape[2:]).copy() if exchanged else None
        engine.correlate(x, w, bias, out, nbatch, groups, stride, dilation, before, boundary, constant, workers,
                         order=order)

    def transformed_workspace_bytes(x, w, u, out, nbatch, groups, before, boundary, workers, variant, stride, dilation):
        return u.nbytes + workers

    monkeypatch.setattr(engine, "winograd_weights", winograd_weights)
    monkeypatch.setattr(engine, "transformed_workspace_bytes", transformed_workspace_bytes)
    monkeypatch.setattr(engine, "winograd", winograd)
    forget_choices()
    yield calls
    forget_choices()


@pytest.fixture
def always(disguised, monkeypatch):
    """The same, estimated to cost nothing."""
    monkeypatch.setattr(plan, "_winograd_cycles", lambda *arguments: 1.0)
    return disguised


@pytest.mark.parametrize("padding_mode", list(PADDING_MODES))
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_winograd_is_called_as_direct_is(always, padding_mode, dilation):
    x, weight, bias = random(0, (2, 32, 9, 8), "f4"), random(1, (20, 16, 3, 3), "f4"), random(2, (20,), "f4")
    settings = {"padding": ((1, 2), (0, 3)), "groups": 2, "padding_mode": padding_mode, "dilation": dilation}
    planned = pyconv.plan_conv2d(x.shape, weight, bias, **settings)
    assert planned.method == "winograd" and "faster" in planned.reason and always["weights"] == 1
    assert "Winograd F({},{})".format(*planned.variant) in repr(planned)
    assert planned.workspace_bytes > 2 * weight.nbytes
    y = planned(x)
    assert len(always["runs"]) == 1
    oracle.assert_same_bits(y, pyconv.conv2d(x, weight, bias, **settings, method="direct"))
    assert len(always["runs"]) == 1
    oracle.assert_same_bits(pyconv.conv2d(x, weight, bias, **settings), y)
    assert len(always["runs"]) == always["weights"] == 2
    dx = grad.conv2d_input(x.shape, weight, y, **settings)
    assert len(always["runs"]) == always["weights"] == 3
    for _ in range(2):
        oracle.assert_same_bits(planned.input_gradient(y), dx)
    assert len(always["runs"]) == 5 and always["weights"] == 4     # the plan transforms them once
    direct = pyconv.plan_conv2d(x.shape, weight, bias, **settings, method="direct")
    assert direct.method == "direct"
    oracle.assert_same_bits(direct(x), y)
    copy = pickle.loads(pickle.dumps(planned))
    oracle.assert_same_bits(copy(x), y)
    oracle.assert_same_bits(copy.input_gradient(y), dx)
    geometry = {"padding": settings["padding"], "groups": 2, "boundary": PADDING_MODES[padding_mode],
                "dilation": dilation}
    exact = oracle.dinput(x.shape[2:], weight.astype("f8"), y.astype("f8"), **geometry)
    np.testing.assert_allclose(dx, exact, rtol=1e-3, atol=1e-3)


def test_transposed_convolutions_go_through_the_chooser(always):
    x, weight = random(0, (2, 16, 9, 8), "f4"), random(1, (16, 20, 3, 3), "f4")
    y = pyconv.conv_transpose2d(x, weight, padding=1)
    assert len(always["runs"]) == 1
    grad.conv_transpose2d_input(x.shape, weight, y, padding=1)
    assert len(always["runs"]) == 2
    oracle.assert_same_bits(y, grad.conv2d_input(y.shape, weight, x, padding=1))
    assert len(always["runs"]) == 3
    pyconv.subpixel_conv2d(x, np.ones((4, 16, 3, 3), "f4"), 2)               # stores shuffled: direct
    assert len(always["runs"]) == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stride": 3}, "stride"),
        ({"stride": (1, 3)}, "stride"),
        ({"stride": 2, "dilation": (1, 2)}, "dilation"),
        ({"stride": 2, "weight": np.ones((4, 16, 2, 3), "f4")}, "2 x 3"),
        ({"dtype": "c8"}, "complex64"),
        ({"weight": np.ones((4, 16, 2, 3), "f4")}, "2 x 3"),
        ({"weight": np.ones((4, 16, 1, 1), "f4")}, "1 x 1"),
    ],
)
def test_where_winograd_does_not_apply(always, change, word):
    arguments = {"weight": np.ones((4, 16, 3, 3), "f4"), **change}
    planned = pyconv.plan_conv2d((16, 12, 12), **arguments)
    assert planned.method == "direct" and word in planned.reason
    pyconv.conv2d(np.ones((16, 12, 12), "f4"), **arguments)
    assert not always["runs"]
    out = np.full(planned.output_shape, 7, planned.dtype)
    with pytest.raises(ValueError, match=word):
        pyconv.conv2d(np.ones((16, 12, 12), "f4"), **arguments, method="winograd", out=out)
    assert (out == 7).all()


def test_winograd_of_one_or_three_axes_is_refused(always):
    for function, ndim in ((pyconv.conv1d, 1), (pyconv.conv3d, 3)):
        x, weight = np.ones((1, 16, *[9] * ndim)), np.ones((4, 16, *[3] * ndim))
        function(x, weight)
        with pytest.raises(ValueError, match=rf"{ndim} spatial axes"):
            function(x, weight, method="winograd")
    with pytest.raises(ValueError, match="winograd.*int64"):
        pyconv.conv2d(np.ones((16, 9, 9), int), np.ones((4, 16, 3, 3), int), method="winograd")
    assert not always["runs"]


def test_weights_that_are_not_finite_are_direct(always):
    x, weight = random(0, (16, 12, 12), "f4"), random(1, (4, 16, 3, 3), "f4")
    weight[1, 2, 0, 1] = np.inf
    planned = pyconv.plan_conv2d(x.shape, weight)
    assert planned.method == "direct" and "finite" in planned.reason
    y = planned(x)
    planned.input_gradient(y)
    pyconv.conv2d(x, weight)
    grad.conv2d_input(x.shape, weight, y)
    pyconv.conv_transpose2d(y, weight)
    grad.conv_transpose2d_input(y.shape, weight, x)
    assert not always["runs"]
    pyconv.conv2d(x, weight, method="winograd")
    assert always["runs"]


def test_integers_are_never_left_to_winograd(always):
    pyconv.conv2d(np.ones((16, 12, 12), int), np.ones((4, 16, 3, 3), int))
    assert not always["runs"]


@pytest.mark.parametrize(("shape", "dilation", "runs"), [((3, 9), 1, 0), ((6, 9), 2, 0), ((8, 9), 3, 0),
                                                          ((9, 10), 3, 0), ((10, 10), 3, 1)])
def test_gradients_of_rows_whose_taps_do_not_meet_are_direct(always, shape, dilation, runs):
    weight = random(1, (16, 16, 3, 3), "f4")
    x = random(0, (16, *shape), "f4")
    dy = random(2, (16, *(n - 2 * dilation for n in shape)), "f4")
    dx = grad.conv2d_input(x.shape, weight, dy, dilation=dilation)
    assert len(always["runs"]) == runs
    exact = oracle.dinput(shape, weight, dy[None], dilation=(dilation,) * 2)[0]
    np.testing.assert_allclose(dx, exact, rtol=1e-4, atol=1e-4)


def test_dilated_layers():
    """The real engine: plans, plain calls and gradients."""
    x, weight = random(0, (2, 64, 33, 40), "f4"), random(1, (64, 64, 3, 3), "f4")
    for dilation in (2, (3, 1), (1, 3), 5):
        settings = {"padding": dilation, "dilation": dilation, "padding_mode": "symmetric"}
        planned = pyconv.plan_conv2d(x.shape, weight, **settings)
        assert planned.method == "winograd" and 0 < planned.workspace_bytes < 2**25
        y = planned(x)
        oracle.assert_same_bits(pyconv.conv2d(x, weight, **settings), y)
        oracle.assert_same_bits(pickle.loads(pickle.dumps(planned))(x[1:]), y[1:])
        direct = pyconv.conv2d(x.astype("f8"), weight, **settings, dtype="f8", method="direct")
        assert abs(y - direct).max() < 1e-4 * abs(direct).max()
        dx = planned.input_gradient(y)
        oracle.assert_same_bits(grad.conv2d_input(x.shape, weight, y, **settings), dx)
        direct = grad.conv2d_input(x.shape, weight.astype("f8"), y.astype("f8"), **settings)
        assert abs(dx - direct).max() < 1e-4 * abs(direct).max()


@pytest.mark.parametrize(("kernel", "stride", "groups"), [((4, 4), 2, 1), ((3, 3), (2, 1), 2), ((7, 5), (2, 2), 1)])
def test_strided_layers(kernel, stride, groups):
    """The real engine."""
    x, weight = random(0, (2, 64, 34, 41), "f4"), random(1, (48, 64 // groups, *kernel), "f4")
    settings = {"padding": 1, "stride": stride, "groups": groups, "padding_mode": "circular"}
    planned = pyconv.plan_conv2d(x.shape, weight, **settings, method="winograd")
    assert planned.method == "winograd" and 0 < planned.workspace_bytes < 2**25
    y = planned(x)
    oracle.assert_same_bits(pyconv.conv2d(x, weight, **settings, method="winograd"), y)
    oracle.assert_same_bits(pickle.loads(pickle.dumps(planned))(x[1:]), y[1:])
    exact = pyconv.conv2d(x.astype("f8"), weight, **settings, dtype="f8", method="direct")
    assert abs(y - exact).max() < 1e-4 * abs(exact).max()
    exact = grad.conv2d_input(x.shape, weight.astype("f8"), y.astype("f8"), **settings)
    assert abs(planned.input_gradient(y) - exact).max() < 1e-4 * abs(exact).max()


def choose(channels, outputs, n, kernel, *, dtype=F32, groups=1, prepared=False, method="auto"):
    """The choice for an n x n image with a square kernel and an output as large."""
    side = ((kernel - 1) // 2, kernel // 2)
    return plan.choose((channels, n, n), (outputs, channels // groups, kernel, kernel), dtype, (1, 1), (side, side),
                       (1, 1), groups, prepared, method)


@pytest.mark.parametrize("kernel", [3, 4, 5, 7, 9, 15, 31, 63])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 15, 16, 64, 256])
def test_auto_takes_only_what_stays_below_half_of_the_bound(always, channels, kernel):
    choice = choose(channels, 8, 70, kernel)
    bound = channels * kernel * kernel + 2
    for candidate in choice.candidates:
        if candidate.method == "winograd":
            m, r = candidate.variant
            assert r == 3 != m if kernel == 3 else m == r or kernel <= r
            assert candidate.accurate == (candidate.error <= bound / 2)
            fewest = {(2, 3): 4, (4, 3): 16}.get(candidate.variant, 1)
            assert channels >= fewest or not candidate.accurate
        elif candidate.method == "fft":
            raise AssertionError("a group has 8 output channels")
        else:
            assert candidate.error == bound and candidate.accurate
    chosen = [c for c in choice.candidates if c[:2] == choice[:2]]
    assert len(chosen) == 1 and chosen[0].accurate
    assert choice.method == "winograd" or not any(c.accurate for c in choice.candidates if c.method == "winograd")
    assert choose(channels, 8, 70, kernel, method="winograd").method == "winograd"
    assert choose(channels, 8, 70, kernel, method="direct")[:2] == ("direct", None)


def test_known_shapes(disguised):
    # What Winograd was made for, and what it cannot gain.
    assert choose(256, 256, 56, 3, prepared=True).variant == (4, 3)
    assert choose(256, 256, 56, 3).variant == (4, 3)
    assert choose(1, 1, 2048, 3).method == "direct"
    assert choose(1, 1, 2048, 31)[:2] == ("fft", (256,))
    assert choose(1, 1, 2048, 9).method == "direct"
    assert choose(64, 64, 112, 31, groups=64).method == "fft"
    assert choose(64, 64, 56, 5, groups=64).method == "direct"
    assert choose(64, 64, 56, 31).variant == (4, 4)
    assert choose(16, 1, 6, 3).method == "direct"
    # Strided and dilated ones; of 3 x 3 at a stride, few channels allow too small an error.
    one, two, twelve = (1, 1), (2, 2), (12, 12)
    for sample, weight, stride, side, dilation, variant in (
        ((64, 128, 128), (128, 64, 4, 4), two, 1, one, (4, 2)), ((3, 224, 224), (64, 3, 7, 7), two, 3, one, (3, 4)),
        ((64, 112, 112), (128, 64, 3, 3), two, 1, one, None), ((64, 64, 64), (64, 64, 3, 3), one, 2, two, (4, 3)),
        ((256, 33, 33), (256, 256, 3, 3), one, 12, twelve, (3, 3)),
        ((256, 33, 33), (256, 256, 3, 3), one, 24, (24, 24), None),
    ):  # fmt: skip
        choice = plan.choose(sample, weight, F32, stride, ((side, side),) * 2, dilation, 1, True)
        assert choice.variant == variant
    slower = choose(16, 2, 6, 3)
    assert slower.method == "direct" and "slower here" in slower.reason


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 300), st.integers(1, 40), st.booleans())
def test_estimates_are_positive_and_the_choice_is_the_cheapest(channels, outputs, n, kernel, prepared):
    choice = choose(channels, outputs, n, kernel, prepared=prepared)
    assert all(candidate.cycles > 0 and math.isfinite(candidate.cycles) for candidate in choice.candidates)
    allowed = [c for c in choice.candidates if c.accurate and c.method != "im2col"]
    assert min(allowed, key=lambda c: c.cycles)[:2] == choice[:2]


def test_the_choice_does_not_know_the_batch_or_the_threads(disguised):
    weight = random(1, (64, 64, 3, 3), "f4")
    shapes = [(64, 28, 28), (50, 64, 28, 28)]
    plans = [pyconv.plan_conv2d(shape, weight, padding=1, workers=n) for shape in shapes for n in (1, 3)]
    assert len({(p.method, p.reason, p.candidates) for p in plans}) == 1


@pytest.mark.parametrize("groups", [1, 3])
def test_fft_of_plain_calls_plans_and_gradients(groups):
    x, weight = random(0, (2, groups, 90, 101), "f4"), random(1, (groups, 1, 21, 17), "f4")
    settings = {"padding": (3, 8), "groups": groups, "padding_mode": "symmetric"}
    exact = oracle.correlate(x.astype("f8"), weight.astype("f8"), padding=(3, 8), groups=groups, boundary="symmetric")
    magnitude = oracle.correlate(abs(x), abs(weight), padding=(3, 8), groups=groups, boundary="symmetric").max()
    planned = pyconv.plan_conv2d(x.shape, weight, **settings, method="fft")
    assert planned.method == "fft" and planned.workspace_bytes > 0 and "FFT tiles" in str(planned)
    y = planned(x)
    assert abs(y - exact).max() <= 40 * 2**-24 * magnitude
    oracle.assert_same_bits(pyconv.conv2d(x, weight, **settings, method="fft"), y)
    oracle.assert_same_bits(pickle.loads(pickle.dumps(planned))(x), y)
    dx = planned.input_gradient(y)
    oracle.assert_same_bits(grad.conv2d_input(x.shape, weight, y, **settings), dx)
    exact = oracle.dinput((90, 101), weight.astype("f8"), y.astype("f8"), padding=(3, 8), groups=groups,
                          boundary="symmetric")
    magnitude = oracle.dinput((90, 101), abs(weight), abs(y), padding=(3, 8), groups=groups, boundary="symmetric").max()
    assert abs(dx - exact).max() <= 100 * 2**-24 * magnitude
    auto = plan.choose((1, 2000, 2000), (1, 1, 21, 21), F32, (1, 1), ((0, 0),) * 2, (1, 1), 1)
    assert auto.method == "fft" and "faster than direct" in auto.reason


def test_where_fft_does_not_apply():
    x, weight = np.ones((2, 9, 9), "f4"), np.ones((2, 2, 3, 3), "f4")
    for arguments, word in (((x, weight), "more than one input or output channel"),
                            ((x, weight[:, :1], None, 2), "stride"),
                            ((x, weight[:, :1], None, 1, 0, 2), "dilation"), ((x.astype("c8"), weight), "complex64")):
        groups = arguments[1].shape[0] if arguments[1].shape[1] == 1 else 1
        with pytest.raises(ValueError, match=word):
            pyconv.conv2d(*arguments, groups=groups, method="fft")
    with pytest.raises(ValueError, match="spatial axes"):
        pyconv.conv1d(x[0], weight[:1, :1, 0].repeat(9, 1), method="fft")
