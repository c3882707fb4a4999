"""Fast convolution on the CPU from NumPy, with exact hand-written gradients and no framework."""
from pyconv import grad, kernels, ndimage, signal
from pyconv._config import show_config
from pyconv._workers import get_workers, set_workers
from pyconv.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    corr2d,
    plan_conv2d,
)
from pyconv.deform import deform_conv2d
from pyconv.geometry import output_size, receptive_field
from pyconv.layers import Conv2d, ReLU, Sequential
from pyconv.learn import KernelFit, fit_kernel, learn_kernel
from pyconv.plan import Plan
from pyconv.subpixel import pixel_shuffle, pixel_unshuffle, subpixel_conv2d
from pyconv.unfold import fold, unfold

__all__ = [
    "Conv2d",
    "KernelFit",
    "Plan",
    "ReLU",
    "Sequential",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "corr2d",
    "deform_conv2d",
    "fit_kernel",
    "fold",
    "get_workers",
    "grad",
    "kernels",
    "learn_kernel",
    "ndimage",
    "output_size",
    "pixel_shuffle",
    "pixel_unshuffle",
    "plan_conv2d",
    "receptive_field",
    "set_workers",
    "show_config",
    "signal",
    "subpixel_conv2d",
    "unfold",
]
