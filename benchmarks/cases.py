"""What is timed: the layers of shapes.txt, also planned ahead, their gradients, deformable layers, image filters, very
small calls, and the memory test's cases."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

SHAPES = Path(__file__).with_name("shapes.txt")
KERNEL_SIZES = (3, 5, 7, 9, 11, 15, 21)
LARGE_KERNEL_SIZES = (31, 41, 63)  # of general kernels, over float32 images of one channel
IMAGE_SIZES = (512, 2048)
SEPARABLE = "gaussian", "box", "separable"  # kinds of filters that run along one axis after the other
BYTES_SIZES, BYTES_KERNELS = (512, 2048, 4096), (3, 5, 7, 9, 11, 15)  # of images of bytes
SIGMA, TRUNCATE = 2.0, 4.0  # the Gaussian's, which has 2 * int(TRUNCATE * SIGMA + 0.5) + 1 taps an axis
GRADIENTS = {"input_gradient": "dinput", "weight_gradient": "dweight"}  # kinds, and what their groups are called
SLOW_FLOPS = 4e9  # from here on single-threaded peers, which need seconds for one call, are left out
QUICK_KERNELS = (3, 9, 15)  # the sides of an image filter's kernels in a quick run
QUICK_FLOPS = 0.15e9  # single-threaded peers need a tenth of a second or two for this much


@dataclass(frozen=True)
class Case:
    """One problem, solved by every library that can.

    ``kind`` names the method of a library in peers.py that solves it; ``parameters`` are that method's own.
    Of a gradient the shapes are those of the layer, whose output's gradient is given.
    ``flops`` counts the multiplications and additions of the plain method, also of taps on padding.
    """

    group: str
    name: str
    kind: str
    dtype: str
    input_shape: tuple
    weight_shape: tuple
    output_shape: tuple
    flops: int
    parameters: dict = field(default_factory=dict)
    note: str = ""

    @property
    def nbytes(self):
        """Bytes that must be moved at least: input, weights, offsets and output once."""
        shapes = [self.input_shape, self.weight_shape, self.output_shape]
        if self.kind == "deform":
            shapes.append(self.offset_shape)
        elements = sum(int(np.prod(shape)) for shape in shapes) * np.dtype(self.dtype).itemsize
        wider = np.dtype(self.output_dtype).itemsize - np.dtype(self.dtype).itemsize
        return elements + wider * int(np.prod(self.output_shape))

    @property
    def output_dtype(self):
        return self.parameters.get("output_dtype", self.dtype)

    @property
    def computed(self):
        """The dtype whose multiply-adds bound the time."""
        return self.dtype if np.dtype(self.dtype).kind == "f" else "float32"

    @property
    def filters_planes(self):
        """Whether the kernels are applied plane by plane, which is slow in several peers."""
        return self.kind not in ("layer", "plan", "deform", *GRADIENTS) or self.weight_shape[1] == 1

    @property
    def offset_shape(self):
        """The offsets of a deformable layer with one offset group."""
        kh, kw = self.weight_shape[2:]
        return (self.input_shape[0], 2 * kh * kw, *self.output_shape[2:])

    def arrays(self):
        """The input and the weights, the same in every process."""
        rng = np.random.default_rng(20240229)
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            # No sum leaves uint8, where OpenCV saturates and SciPy wraps.
            return rng.integers(0, 2, self.input_shape, dtype), rng.integers(1, 3, self.weight_shape)
        return rng.standard_normal(self.input_shape, dtype), rng.standard_normal(self.weight_shape, dtype)

    def grad_output(self):
        """The gradient of a layer's output."""
        rng = np.random.default_rng(20240302)
        return rng.standard_normal(self.output_shape, np.dtype(self.dtype))

    def offsets(self):
        """The offsets of a deformable layer: a pixel or two, as trained ones are."""
        rng = np.random.default_rng(20240301)
        return rng.standard_normal(self.offset_shape, np.dtype(self.dtype))


def layer(group, n, c, h, w, o, kh, kw, stride, padding, dilation, groups, note="", method="auto"):
    """A forward conv2d, float32."""
    oh, ow = ((size + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for size, k in ((h, kh), (w, kw)))
    settings = {"s": (stride, 1), "d": (dilation, 1), "g": (groups, 1)}
    changed = "".join(f" {letter}{value}" for letter, (value, usual) in settings.items() if value != usual)
    return Case(
        group=group,
        name=f"{n}x{c}x{h}x{w} to {o}, {kh}x{kw}{changed}",
        kind="layer",
        dtype="float32",
        input_shape=(n, c, h, w),
        weight_shape=(o, c // groups, kh, kw),
        output_shape=(n, o, oh, ow),
        flops=2 * n * o * oh * ow * (c // groups) * kh * kw,
        parameters={
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "method": method,
        },
        note=note,
    )


def layers(method):
    """The lines of shapes.txt."""
    lines = (line.split(maxsplit=12) for line in SHAPES.read_text(encoding="utf-8").splitlines())
    for words in lines:
        if words and words[0] != "#":
            yield layer(words[0], *map(int, words[1:12]), note="".join(words[12:]).strip(), method=method)


def plans(method):
    """The same with weights prepared ahead."""
    for case in layers(method):
        yield replace(case, group=f"{case.group} plan", kind="plan")


def gradients():
    """The input and the weight gradient of the layers, each as much work as the layer itself."""
    for kind, name in GRADIENTS.items():
        for case in layers(None):
            parameters = {key: value for key, value in case.parameters.items() if key != "method"}
            yield replace(case, group=f"{case.group} {name}", kind=kind, parameters=parameters)


def deformable():
    """Deformable 3x3 layers, of the sizes they have in a ResNet-50's stages 2 to 4."""
    for channels, size in ((64, 56), (128, 28), (256, 14)):
        yield Case(
            group="deform",
            name=f"1x{channels}x{size}x{size} to {channels}, 3x3",
            kind="deform",
            dtype="float32",
            input_shape=(1, channels, size, size),
            weight_shape=(channels, channels, 3, 3),
            output_shape=(1, channels, size, size),
            flops=2 * channels * size * size * channels * 9,
            parameters={"padding": 1},
        )


def image(kind, size, taps, dtype="float32", channels=1):
    """A filter over a square image, as large as its input; the border is SciPy's ``reflect``.

    ``taps`` is the kernel's side. Kind ``separable`` has two vectors of weights, and Sobel's filter six in all.
    """
    shape = (size, size) if channels == 1 else (size, size, channels)
    weight_shape = {"correlate": (taps, taps), "copy": (taps, taps), "separable": (2, taps)}.get(kind, (0,))
    sides = f"{size}^2" if channels == 1 else f"{size}^2 x {channels}"
    return Case(
        group=f"{dtype}{' RGB' if channels > 1 else ''} {kind}",
        name=f"{sides}, {taps}x{taps}",
        kind=kind,
        dtype=dtype,
        input_shape=shape,
        weight_shape=weight_shape,
        output_shape=shape,
        flops=2 * size * size * channels * (2 * taps if kind in ("sobel", *SEPARABLE) else taps * taps),
        parameters={"taps": taps},
    )


def images():
    """General kernels, which are never separable since they are random, and separable ones."""
    for dtype, channels in (("float32", 1), ("float32", 3), ("float64", 1)):
        plain = dtype == "float32" and channels == 1
        for size in IMAGE_SIZES:
            for taps in KERNEL_SIZES + LARGE_KERNEL_SIZES * plain:
                yield image("correlate", size, taps, dtype, channels)
        for taps in (3, 15) * plain:
            yield image("correlate", 4096, taps)
    for size in (2048, 4096):
        yield replace(image("copy", size, 3), group="copy")
    for dtype in ("float32", "float64"):
        for kind in ("sobel", *SEPARABLE):
            for size in IMAGE_SIZES:
                for taps in KERNEL_SIZES if kind != "sobel" else (3,):
                    yield image(kind, size, taps, dtype)


def other_arrays():
    """Volumes, signals, and the correlation of two matrices where the kernel fits in."""
    for taps in (3, 5):
        shape = (128,) * 3
        yield correlation("volume", f"128^3, {taps}x{taps}x{taps}", shape, (taps,) * 3, shape)
    for taps in (11, 101, 1001):
        yield correlation("line", f"10^6, {taps}", (10**6,), (taps,), (10**6,))
    for size in IMAGE_SIZES:
        for taps in (3, 5):
            valid = (size - taps + 1,) * 2
            yield correlation("corr2d", f"{size}^2, {taps}x{taps}", (size, size), (taps, taps), valid)


def correlation(kind, name, input_shape, weight_shape, output_shape):
    """One of a kind that is a group, too; float32."""
    flops = 2 * int(np.prod(output_shape)) * int(np.prod(weight_shape))
    return Case(kind, name, kind, "float32", input_shape, weight_shape, output_shape, flops)


def bytes_images():
    """Kernels of integers over images of bytes, into bytes and into integers of 16 bits."""
    for output_dtype in ("uint8", "int16"):
        for size in BYTES_SIZES:
            for taps in BYTES_KERNELS:
                case = image("correlate", size, taps, "uint8")
                yield replace(
                    case,
                    group=f"uint8 to {output_dtype} correlate",
                    kind="correlate_bytes",
                    parameters={"output_dtype": output_dtype, "taps": taps},
                )


def small():
    """The textbook's edge detector on a 6x8 image, and filters of small ones, where the cost of a call counts."""
    for dtype in ("float32", "float64"):
        yield Case("small", f"6x8, 1x2 {dtype}", "corr2d", dtype, (6, 8), (1, 2), (6, 7), 2 * 2 * 6 * 7)
    for size in (16, 64):
        yield replace(image("correlate", size, 3), group="small")


def memory(method):
    """What the memory test runs, each with a small case that loads and starts everything beforehand."""
    for taps in (3, 11):
        yield image("correlate", 8192, taps), image("correlate", 64, taps)
    yield (
        layer("memory", 1, 64, 512, 512, 64, 3, 3, 1, 1, 1, 1, method=method),
        layer("memory", 1, 64, 16, 16, 64, 3, 3, 1, 1, 1, 1, method=method),
    )
    for case in layers(method):
        n, c, _, _ = case.input_shape
        reach = case.parameters["dilation"] * (max(case.weight_shape[2:]) - 1) + 1
        sides = [case.parameters[name] for name in ("stride", "padding", "dilation", "groups")]
        o, _, kh, kw = case.weight_shape
        yield case, layer("memory", 1, c, reach, reach, o, kh, kw, *sides, method=method)


def for_quick(chosen):
    """The cases that a quick run has the time for: no slow ones, of plans and gradients, which are as many as the
    layers each, the first of every group, and of image filters a few sizes."""
    groups = set()
    for case in chosen:
        if case.filters_planes and case.flops > QUICK_FLOPS:
            continue
        if case.parameters.get("taps", QUICK_KERNELS[0]) not in QUICK_KERNELS:
            continue
        if case.kind not in ("plan", *GRADIENTS) or case.group not in groups:
            groups.add(case.group)
            yield case
