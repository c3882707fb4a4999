"""The libraries, each solving the cases it can in the way its own users would.

A library is a class. Its constructor imports the library and sets its number of threads. A method named
after a case's kind takes the case and its arrays, and returns a function of no arguments that does the work
and returns the result in the library's own type, or None if the library cannot do this case. What can be
prepared ahead (tensors, sessions, outputs) is prepared outside that function. ``as_array`` makes the
result a NumPy array.

Image filters write into an array given to them in every library that can. Layers allocate their output in
every library that can. A plan is a layer whose weights are prepared ahead, again outside that function.
"""

import importlib.metadata
from functools import partial

import numpy as np


def empty_output(case):
    """An output that is in memory already, and full of NaN, or of the largest integer, so that elements never written
    are noticed."""
    dtype = np.dtype(case.output_dtype)
    return np.full(case.output_shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max, dtype)


def gaussian_shape(case):
    """(sigma, radius) of a Gaussian whose weights end at three standard deviations."""
    taps = case.parameters["taps"]
    return taps / 6, taps // 2


def odd_kernel_on_planes(case):
    """Whether a layer is an image filter on each of a few planes, with an output as large as the input."""
    o, c, kh, kw = case.weight_shape
    p = case.parameters
    return (
        case.input_shape[:2] == (1, o)
        and o <= 3
        and c == p["stride"] == p["dilation"] == 1
        and kh == kw == 2 * p["padding"] + 1
    )


def each_plane(function, x, weight, out):
    """A function that filters the planes of a (1, C, H, W) image, each with its kernel of a weight."""
    planes = list(zip(x[0], weight[:, 0], out[0], strict=True))

    def run():
        for plane, kernel, output in planes:
            function(plane, kernel, output)
        return out

    return run


def nearly_nothing(weight):
    """A kernel of no zeros that changes an image by less than what results may differ by."""
    weight = np.full_like(weight, 1e-8)
    weight[tuple(k // 2 for k in weight.shape)] = 1
    return weight


def each_channel(function, x, out):
    """A function that filters the channels of an (H, W) or (H, W, C) image one by one."""
    pairs = [(x[..., c], out[..., c]) for c in range(x.shape[2])] if x.ndim == 3 else [(x, out)]

    def run():
        for channel, output in pairs:
            function(channel, output)
        return out

    return run


class Library:
    threaded = True  # False for libraries that use one thread whatever they are told

    def version(self):
        return importlib.metadata.version(self.distribution)

    def as_array(self, case, result):
        return result

    def workspace(self, case, x, weight):
        """Bytes that a layer or a plan takes for itself, or None if the library does not say."""
        return None


class Pyconv(Library):
    def __init__(self, threads):
        import pyconv.ndimage

        self.pyconv = pyconv
        self.workers = threads

    def version(self):
        try:
            return importlib.metadata.version("pyconv-cpu")
        except importlib.metadata.PackageNotFoundError:
            return "(built in place)"

    def layer(self, case, x, weight):
        return partial(self.pyconv.conv2d, x, weight, workers=self.workers, **case.parameters)

    def plan(self, case, x, weight):
        return partial(self.pyconv.plan_conv2d(x.shape, weight, workers=self.workers, **case.parameters), x)

    def workspace(self, case, x, weight):
        if case.kind not in ("layer", "plan") or case.parameters["method"] == "im2col":
            return None
        return self.pyconv.plan_conv2d(x.shape, weight, workers=self.workers, **case.parameters).workspace_bytes

    def input_gradient(self, case, x, weight):
        options = {"workers": self.workers, **case.parameters}
        return partial(self.pyconv.grad.conv2d_input, x.shape, weight, case.grad_output(), **options)

    def weight_gradient(self, case, x, weight):
        options = {"workers": self.workers, **case.parameters}
        return partial(self.pyconv.grad.conv2d_weight, x, weight.shape, case.grad_output(), **options)

    def deform(self, case, x, weight):
        options = {"workers": self.workers, **case.parameters}
        return partial(self.pyconv.deform_conv2d, x, case.offsets(), weight, **options)

    def image_options(self, case):
        channel_axis = -1 if len(case.input_shape) == 3 else None
        return {
            "output": empty_output(case),
            "mode": "reflect",
            "channel_axis": channel_axis,
            "workers": self.workers,
        }

    def correlate(self, case, x, weight, **options):
        return partial(self.pyconv.ndimage.correlate, x, weight, **self.image_options(case) | options)

    correlate_bytes = correlate

    def sobel(self, case, x, weight):
        return partial(self.pyconv.ndimage.sobel, x, axis=0, **self.image_options(case))

    def gaussian(self, case, x, weight):
        sigma, radius = gaussian_shape(case)
        return partial(self.pyconv.ndimage.gaussian_filter, x, sigma, radius=radius, **self.image_options(case))

    def box(self, case, x, weight):
        return partial(self.pyconv.ndimage.uniform_filter, x, case.parameters["taps"], **self.image_options(case))

    def separable(self, case, x, weight):
        kernel = np.outer(*weight.astype("float64"))
        return partial(self.pyconv.ndimage.correlate, x, kernel, **self.image_options(case))

    def corr2d(self, case, x, weight):
        return partial(self.pyconv.corr2d, x, weight)

    def copy(self, case, x, weight):
        return self.correlate(case, x, nearly_nothing(weight))

    def volume(self, case, x, weight):
        return self.correlate(case, x, weight, channel_axis=None)

    def line(self, case, x, weight):
        options = {"output": empty_output(case), "mode": "constant", "workers": self.workers}
        return partial(self.pyconv.ndimage.correlate1d, x, weight, **options)


class NumPy(Library):
    distribution = "numpy"
    threaded = False

    def __init__(self, threads):
        pass

    def copy(self, case, x, weight):
        out = empty_output(case)

        def run():
            np.copyto(out, x)
            return out

        return run


class PyTorch(Library):
    distribution = "torch"

    def __init__(self, threads):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        torch.inference_mode().__enter__()  # for the life of the process

    def layer(self, case, x, weight):
        p = case.parameters
        x, weight = self.torch.from_numpy(x), self.torch.from_numpy(weight)
        conv2d = self.torch.nn.functional.conv2d
        return partial(conv2d, x, weight, None, p["stride"], p["padding"], p["dilation"], p["groups"])

    def plan(self, case, x, weight):
        # Weights in the order of oneDNN's kernel, once for all: what torch.compile with freezing makes of a layer. Of
        # the ways there are in PyTorch 2.13 it is the fastest nearly everywhere. torch.utils.mkldnn and
        # torch.jit.optimize_for_inference make mkldnn tensors of the weights, but not in that order, and gain less
        # (512 x 7 x 7, 3 x 3: 1.6 to 2.1 ms, the plain call 1.6 ms, this 0.73 ms). The output is channels last.
        p = case.parameters
        x, weight = self.torch.from_numpy(x), self.torch.from_numpy(weight)
        sides = [p["padding"]] * 2, [p["stride"]] * 2, [p["dilation"]] * 2, p["groups"]
        packed = self.torch.ops.mkldnn._reorder_convolution_weight(weight, *sides, list(x.shape))
        return partial(self.torch.ops.mkldnn._convolution_pointwise, x, packed, None, *sides, "none", [], "")

    def input_gradient(self, case, x, weight):
        return self.gradient(case, x, weight, (True, False, False))

    def weight_gradient(self, case, x, weight):
        return self.gradient(case, x, weight, (False, True, False))

    def gradient(self, case, x, weight, wanted):
        """A function that returns one of the gradients (input, weight, bias)."""
        p = case.parameters
        arrays = [self.torch.from_numpy(a) for a in (case.grad_output(), x, weight)]
        sides = [p["stride"]] * 2, [p["padding"]] * 2, [p["dilation"]] * 2
        backward = self.torch.ops.aten.convolution_backward
        index = wanted.index(True)

        def run():
            return backward(*arrays, None, *sides, False, [0, 0], p["groups"], wanted)[index]

        return run

    def as_array(self, case, result):
        return result.numpy()


class OnnxRuntime(Library):
    distribution = "onnxruntime"

    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx = onnx
        self.onnxruntime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1

    def layer(self, case, x, weight):
        p = case.parameters
        node = self.onnx.helper.make_node(
            "Conv",
            ["x", "weight"],
            ["y"],
            strides=[p["stride"]] * 2,
            pads=[p["padding"]] * 4,
            dilations=[p["dilation"]] * 2,
            group=p["groups"],
        )
        return self.session(case, node, {"x": x}, weight)

    plan = layer

    def deform(self, case, x, weight):
        pads = [case.parameters["padding"]] * 4
        node = self.onnx.helper.make_node("DeformConv", ["x", "weight", "offset"], ["y"], pads=pads)
        return self.session(case, node, {"x": x, "offset": case.offsets()}, weight)

    def session(self, case, node, inputs, weight):
        """A function that runs a model of one node with a constant weight, which the session packs when it is made."""
        helper = self.onnx.helper

        def value(name, shape):
            return helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            [node],
            "convolution",
            [value(name, array.shape) for name, array in inputs.items()],
            [value("y", case.output_shape)],
            [self.onnx.numpy_helper.from_array(weight, "weight")],
        )
        # The versions are older than the library's newest, so that any recent ONNX Runtime reads the model.
        opset = 19 if node.op_type == "DeformConv" else 17
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        session = self.onnxruntime.InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )
        values = {name: self.onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        return partial(session.run_with_ort_values, ["y"], values)

    def as_array(self, case, result):
        return result[0].numpy()


class SciPyNdimage(Library):
    distribution = "scipy"
    threaded = False

    def __init__(self, threads):
        import scipy.ndimage

        self.ndimage = scipy.ndimage

    def layer(self, case, x, weight):
        if not odd_kernel_on_planes(case):
            return None
        correlate = partial(self.ndimage.correlate, mode="constant")
        return each_plane(correlate, x, weight, empty_output(case))

    def correlate(self, case, x, weight):
        def function(channel, output):
            self.ndimage.correlate(channel, weight, output, mode="reflect")

        return each_channel(function, x, empty_output(case))

    correlate_bytes = correlate

    def sobel(self, case, x, weight):
        return partial(self.ndimage.sobel, x, axis=0, output=empty_output(case), mode="reflect")

    def gaussian(self, case, x, weight):
        sigma, radius = gaussian_shape(case)
        return partial(self.ndimage.gaussian_filter, x, sigma, output=empty_output(case), radius=radius)

    def box(self, case, x, weight):
        return partial(self.ndimage.uniform_filter, x, case.parameters["taps"], output=empty_output(case))

    def separable(self, case, x, weight):
        out = empty_output(case)

        def run():
            self.ndimage.correlate1d(x, weight[0], 0, out)
            self.ndimage.correlate1d(out, weight[1], 1, out)
            return out

        return run

    def volume(self, case, x, weight):
        return partial(self.ndimage.correlate, x, weight, empty_output(case), mode="reflect")

    def line(self, case, x, weight):
        return partial(self.ndimage.correlate1d, x, weight, output=empty_output(case), mode="constant")


class SciPySignal(Library):
    distribution = "scipy"
    threaded = False

    def __init__(self, threads):
        import scipy.signal

        self.correlate2d = scipy.signal.correlate2d
        self.oaconvolve = scipy.signal.oaconvolve  # what is fastest there for long signals

    def line(self, case, x, weight):
        return partial(self.oaconvolve, x, weight[::-1], mode="same")

    # correlate2d has no output argument: of several planes or channels, each result is copied to its place.

    def layer(self, case, x, weight):
        if not odd_kernel_on_planes(case):
            return None

        def function(plane, kernel, output):
            output[:] = self.correlate2d(plane, kernel, mode="same", boundary="fill")

        return each_plane(function, x, weight, empty_output(case))

    def correlate(self, case, x, weight):
        correlate2d = partial(self.correlate2d, in2=weight, mode="same", boundary="symm")
        if x.ndim == 2:
            return partial(correlate2d, x)

        def function(channel, output):
            output[:] = correlate2d(channel)

        return each_channel(function, x, empty_output(case))

    def corr2d(self, case, x, weight):
        return partial(self.correlate2d, x, weight, mode="valid")


class ScikitImage(Library):
    distribution = "scikit-image"
    threaded = False

    def __init__(self, threads):
        import skimage.filters

        self.filters = skimage.filters

    def correlate(self, case, x, weight):
        if x.ndim != 2:
            return None
        return partial(self.filters.correlate_sparse, x, weight, mode="reflect")

    def sobel(self, case, x, weight):
        return partial(self.filters.sobel_h, x)

    def gaussian(self, case, x, weight):
        sigma, radius = gaussian_shape(case)
        out = empty_output(case)
        options = {"mode": "reflect", "truncate": radius / sigma, "preserve_range": True, "out": out}
        return partial(self.filters.gaussian, x, sigma, **options)

    def as_array(self, case, result):
        return 4 * result if case.kind == "sobel" else result  # its Sobel kernel is divided by 4


class OpenCV(Library):
    def __init__(self, threads):
        import cv2

        self.cv2 = cv2
        cv2.setNumThreads(threads)

    def version(self):
        return self.cv2.__version__  # it comes in distributions of several names

    def layer(self, case, x, weight):
        if not odd_kernel_on_planes(case):
            return None

        def function(plane, kernel, output):
            self.cv2.filter2D(plane, -1, kernel, dst=output, borderType=self.cv2.BORDER_CONSTANT)

        return each_plane(function, x, weight, empty_output(case))

    def correlate(self, case, x, weight):
        out = empty_output(case)
        return partial(self.cv2.filter2D, x, -1, weight, dst=out, borderType=self.cv2.BORDER_REFLECT)

    def correlate_bytes(self, case, x, weight):
        depth = self.cv2.CV_16S if case.output_dtype == "int16" else -1
        options = {"dst": empty_output(case), "borderType": self.cv2.BORDER_REFLECT}
        return partial(self.cv2.filter2D, x, depth, weight.astype(np.float32), **options)

    def sobel(self, case, x, weight):
        options = {"ksize": 3, "dst": empty_output(case), "borderType": self.cv2.BORDER_REFLECT}
        return partial(self.cv2.Sobel, x, -1, 0, 1, **options)

    def gaussian(self, case, x, weight):
        taps = case.parameters["taps"]
        options = {"dst": empty_output(case), "borderType": self.cv2.BORDER_REFLECT}
        return partial(self.cv2.GaussianBlur, x, (taps, taps), gaussian_shape(case)[0], **options)

    def box(self, case, x, weight):
        taps = case.parameters["taps"]
        options = {"dst": empty_output(case), "borderType": self.cv2.BORDER_REFLECT}
        return partial(self.cv2.boxFilter, x, -1, (taps, taps), **options)

    def separable(self, case, x, weight):
        options = {"dst": empty_output(case), "borderType": self.cv2.BORDER_REFLECT}
        return partial(self.cv2.sepFilter2D, x, -1, weight[1], weight[0], **options)


# In the order of the report. The first peer that can do a case is the one that others are checked against.
LIBRARIES = {
    "pyconv": Pyconv,
    "numpy": NumPy,
    "pytorch": PyTorch,
    "onnxruntime": OnnxRuntime,
    "ndimage": SciPyNdimage,
    "signal": SciPySignal,
    "skimage": ScikitImage,
    "opencv": OpenCV,
}
