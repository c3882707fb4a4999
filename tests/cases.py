"""One generator of hostile arrays for all tests.

`lay_out(base, layout)` returns an array equal in value to `base` whose memory is arranged in an awkward way;
what lies between and around its elements is poison (NaN, or the largest integer), so that reading a wrong
element shows. `bases(dtype)` yields small arrays with awkward values or shapes. `guarded(base, side)` puts an
array right beside memory that may not be touched; reading past it ends the process, so it belongs into a
subprocess.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
from numpy.lib.stride_tricks import as_strided


def poison(shape, dtype, order="C"):
    """An array filled with a value that spoils every sum it gets into."""
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        value = np.nan
    elif dtype.kind == "b":
        value = True
    else:
        value = np.iinfo(dtype).max
    return np.full(shape, value, dtype, order)


def _contiguous(base):
    return base.copy()


def _strided(base):
    wide = poison([2 * n + 1 for n in base.shape], base.dtype)
    view = wide[(..., *(slice(1, 2 * n + 1, 2) for n in base.shape))]
    view[...] = base
    return view


def _reversed(base):
    backwards = (..., *[slice(None, None, -1)] * base.ndim)
    return base[backwards].copy()[backwards]


def _reversed_last(base):
    if base.ndim == 0:
        return base.copy()
    return base[..., ::-1].copy()[..., ::-1]


def _fortran(base):
    return base.copy(order="F")


def _inner(base):
    """The inside of a larger array: rows are contiguous, what surrounds them is poison."""
    wide = poison([n + 4 for n in base.shape], base.dtype)
    view = wide[(..., *[slice(2, -2)] * base.ndim)]
    view[...] = base
    return view


def _permuted(base):
    """The first axis is the fastest in memory, as in an image stored (..., channel)."""
    return np.moveaxis(np.moveaxis(base, 0, -1).copy(), -1, 0) if base.ndim else base.copy()


def _read_only(base):
    view = base.copy()
    view.flags.writeable = False
    return view


def _misaligned(base):
    buffer = np.full(base.nbytes + 1, 0xFF, np.uint8)
    view = buffer[1:].view(base.dtype).reshape(base.shape)
    view[...] = base
    return view


def _byteswapped(base):
    return base.astype(base.dtype.newbyteorder())


def _misaligned_byteswapped_strided(base):
    """Everything at once, as a field of a packed big-endian record has it."""
    record = np.dtype([("flag", "u1"), ("value", base.dtype.newbyteorder())])
    table = np.full(base.shape, np.array((255, poison((), base.dtype)[()]), record))
    table["value"] = base
    return table["value"]


def _odd_strides(base):
    """Axes of size 1 get strides that make no sense; they may never be followed."""
    copy = base.copy()
    strides = [7919 if n == 1 else s for n, s in zip(copy.shape, copy.strides, strict=True)]
    return as_strided(copy, copy.shape, strides)


def _broadcast(base):
    """Axes along which all values are the same get stride 0."""
    view = base
    for axis in range(base.ndim):
        first = view.take([0], axis) if view.shape[axis] else view
        if view.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, view.shape), view, equal_nan=True):
            view = first
    return np.broadcast_to(view.copy(), base.shape)


LAYOUTS = {
    "contiguous": _contiguous,
    "strided": _strided,
    "reversed": _reversed,
    "reversed_last": _reversed_last,
    "fortran": _fortran,
    "inner": _inner,
    "permuted": _permuted,
    "read_only": _read_only,
    "misaligned": _misaligned,
    "byteswapped": _byteswapped,
    "record": _misaligned_byteswapped_strided,
    "odd_strides": _odd_strides,
    "broadcast": _broadcast,
}

# The layouts an output array can have: writable, and no two elements at one address.
OUT_LAYOUTS = tuple(name for name in LAYOUTS if name not in ("read_only", "broadcast"))


def lay_out(base, layout):
    """An array equal to `base`, arranged in memory as `layout` says."""
    return LAYOUTS[layout](np.asarray(base))


def layouts(base):
    """Every layout of `base`: pairs (name, array)."""
    for name in LAYOUTS:
        yield name, lay_out(base, name)


def integer_valued(rng, shape, dtype, largest):
    """Integers from -largest to largest in any dtype; from 0 where the dtype has no sign."""
    dtype = np.dtype(dtype)
    low = 0 if dtype.kind in "ub" else -largest
    if dtype.kind == "b":
        largest = 1
    values = rng.integers(low, largest, size=shape, endpoint=True)
    if dtype.kind == "c":
        values = values + 1j * rng.integers(low, largest, size=shape, endpoint=True)
    return values.astype(dtype)


def normal(rng, shape, dtype):
    """Standard normal values in a floating or complex dtype."""
    dtype = np.dtype(dtype)
    values = rng.standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def bases(dtype, shape=(5, 7)):
    """Awkward arrays of one dtype: pairs (name, array). The first two fit no function that needs an image."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(dtype)
    yield "0-d", np.ones((), dtype)
    yield "empty", np.empty((0,) * len(shape), dtype)
    yield "size 1", np.full((1,) * len(shape), 3, dtype)
    yield "one row", integer_valued(rng, (*(1 for _ in shape[1:]), shape[-1]), dtype, 9)
    yield "one column", integer_valued(rng, (shape[0], *(1 for _ in shape[1:])), dtype, 9)
    yield "constant", np.full(shape, 3, dtype)
    yield "integers", integer_valued(rng, shape, dtype, 9)
    if dtype.kind not in "fc":
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            yield "extremes", rng.choice(np.array([info.min, info.max], dtype), shape)
        return
    yield "normal", normal(rng, shape, dtype)
    info = np.finfo(dtype)
    yield "subnormal", (integer_valued(rng, shape, dtype, 9) * info.smallest_subnormal).astype(dtype)
    decades = 2 if info.bits == 16 else 6
    yield (
        "many decades",
        (normal(rng, shape, dtype) * 10.0 ** rng.uniform(-decades, decades, shape)).astype(dtype),
    )
    yield "negative zeros", np.full(shape, -0.0, dtype)
    for name, value in (("NaN", np.nan), ("Inf", np.inf), ("-Inf", -np.inf)):
        spoiled = integer_valued(rng, shape, dtype, 9)
        spoiled[(shape[0] // 2,) + (shape[-1] // 3,) * (len(shape) - 1)] = value
        yield name, spoiled


def huge_broadcast(value, shape):
    """A view of one element that claims to be an array of any size: read-only, all strides 0."""
    return np.broadcast_to(value, shape)


def guarded(base, side):
    """A copy of `base` that ends right before ("end") or starts right behind ("start") an unreadable page.

    Linux and macOS only. The pages stay mapped as long as the process lives.
    """
    page = mmap.PAGESIZE
    pages = -(-base.nbytes // page)
    area = mmap.mmap(-1, (pages + 2) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    offset = page if side == "start" else (pages + 1) * page - base.nbytes
    view = np.frombuffer(area, np.uint8, base.nbytes, offset).view(base.dtype).reshape(base.shape)
    view[...] = base
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for guard in (address, address + (pages + 1) * page):
        if protect(guard, page, mmap.PROT_READ & ~mmap.PROT_READ) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return view
