"""Figures of learnt kernels, and the canvas that all figures are drawn on. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pyconv.learn import KernelFit

BACKGROUND = "#0d1117"
TEXT = "#e6edf3"
FAINT = "#8b98a5"
ACCENT = "#ee6c2d"
# Black in the middle, so that nothing happening looks like nothing.
SIGNED = ["#a8e6ff", "#2f9be0", "#12395c", BACKGROUND, "#6b2413", "#ee6c2d", "#ffd79a"]

# All lengths are pixels of the figure, 100 to the inch; y counts down from the top.
WIDTH, MARGIN, GAP = 1600, 24, 16


class Canvas:
    """A dark figure on which axes and text are placed by pixel."""

    def __init__(self, height: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure

        self.height = height
        self.figure: Figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, facecolor=BACKGROUND)
        FigureCanvasAgg(self.figure)
        self.signed = LinearSegmentedColormap.from_list("signed", SIGNED)

    def place(self, x: float, y: float, width: float, height: float, edge=None) -> Axes:
        axes = self.figure.add_axes((x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height))
        axes.set(xticks=[], yticks=[], facecolor=BACKGROUND)
        axes.spines[:].set(visible=edge is not None, color=edge or TEXT, linewidth=1.5)
        return axes

    def write(self, x: float, y: float, text: str, size: float, **style) -> None:
        self.figure.text(x / WIDTH, 1 - y / self.height, text, fontsize=size, va="top", **{"color": TEXT, **style})

    def heading(self, text: str) -> None:
        self.write(MARGIN, 20, "pyconv", 26, weight="bold")
        self.write(MARGIN + 150, 38, text, 14, color=FAINT)

    def caption(self, x: float, y: float, title: str, text: str) -> None:
        self.write(x, y + 7, title, 13, weight="bold")
        self.write(x, y + 30, text, 11, color=FAINT)

    def image(self, x, y, width, height, image, title, text, **shown) -> None:
        self.place(x, y, width, height).imshow(image, interpolation="antialiased", **shown)
        self.caption(x, y + height, title, text)

    def kernel(self, x, y, size, kernel, limit, numbers=False) -> None:
        """A kernel in a square, nothing dark, positive orange, negative blue; with its numbers where they fit."""
        axes = self.place(x, y, size, size, edge="#30363d")
        axes.imshow(kernel, cmap=self.signed, vmin=-limit, vmax=limit, interpolation="nearest")
        if numbers and max(kernel.shape) <= 7:
            for (row, column), weight in np.ndenumerate(kernel):
                colour = BACKGROUND if abs(weight) > 0.8 * limit else TEXT
                axes.text(column, row, f"{weight:.2g}", color=colour, ha="center", va="center", fontsize=11)

    def losses(self, x, y, width, height, losses) -> Axes:
        """The loss before each step, both axes in decades."""
        axes = self.place(x + 62, y + 6, width - 68, height - 40)
        steps = np.arange(len(losses))
        axes.loglog(steps + 1, np.maximum(losses, np.finfo(float).tiny), color=ACCENT, linewidth=2)
        axes.grid(color="#21262d", linewidth=1)
        axes.tick_params(which="both", colors=FAINT, labelsize=10, length=0)
        axes.minorticks_off()
        axes.margins(x=0.02)
        return axes


def draw_fit(target: NDArray, prediction: NDArray, fit: KernelFit, name: str) -> Figure:
    """A kernel, what it predicts, what it misses, and the losses of the descent or the target.

    `target` and `prediction` are (H, W) or (H, W, 3) and of one scale; `name` says what they are.
    """
    panel = (WIDTH - 2 * MARGIN - 3 * GAP) / 4
    top = 92
    canvas = Canvas(top + panel + 62 + MARGIN)
    canvas.heading(f"the kernel learnt from {name}")
    column = [MARGIN + i * (panel + GAP) for i in range(4)]

    kernel = fit.kernel.reshape(fit.kernel.shape[-2:])
    limit = np.abs(kernel).max() or 1.0
    canvas.kernel(column[0], top, panel, kernel, limit, numbers=True)
    canvas.caption(column[0], top + panel, "The kernel", f"from {kernel.min():.4g} to {kernel.max():.4g}")

    black, white = float(target.min()), float(target.max())
    scale = (white - black) or 1.0

    def shown(image):
        return np.clip((image - black) / scale, 0, 1)

    canvas.image(column[1], top, panel, panel, shown(prediction), "The prediction",
                 "the kernel applied to the input", cmap="gray", vmin=0, vmax=1)  # fmt: skip

    error = prediction - target
    (up, down), (left, right) = fit.padding
    inside = error[up : error.shape[0] - down, left : error.shape[1] - right]
    rms = np.sqrt(np.mean(np.square(inside)))
    flat = inside if inside.ndim == 2 else inside.mean(axis=-1)
    largest = np.abs(inside).max() or 1.0
    canvas.image(column[2], top, panel, panel, flat, "The error",
                 f"root mean square {rms:.2g}, largest {np.abs(inside).max():.2g}",
                 cmap=canvas.signed, vmin=-largest, vmax=largest)  # fmt: skip

    if len(fit.losses):
        canvas.losses(column[3], top, panel, panel, [*fit.losses, fit.loss])
        canvas.caption(column[3], top + panel, "The loss",
                       f"{len(fit.losses)} steps, lr {fit.lr:.3g}, momentum {fit.momentum:.3g}")  # fmt: skip
    else:
        canvas.image(column[3], top, panel, panel, shown(target), "The target",
                     "what the prediction is compared with", cmap="gray", vmin=0, vmax=1)  # fmt: skip
    return canvas.figure


def draw_learning(photograph: NDArray, blurred: NDArray, truth: NDArray, exact: tuple[NDArray, str],
                  descent: tuple[NDArray, str], losses: Sequence[float],
                  film: Sequence[tuple[int, NDArray]]) -> Figure:  # fmt: skip
    """A photograph and its blurred copy, the kernel between them and what two solvers find, and how one got there.

    `exact` and `descent` are kernels with the text under them, `film` the descent's kernels after some steps.
    """
    photo = (WIDTH - 2 * MARGIN - GAP) / 2
    rows = photo * photograph.shape[0] / photograph.shape[1]
    panel = (WIDTH - 2 * MARGIN - 3 * GAP) / 4
    frame = (WIDTH - 2 * MARGIN - (len(film) - 1) * 10) / len(film)
    top = 92
    middle = top + rows + 62
    bottom = middle + panel + 62
    canvas = Canvas(bottom + 40 + frame + 30 + MARGIN)
    canvas.heading("two images in, the kernel between them out")

    canvas.image(MARGIN, top, photo, rows, np.clip(photograph, 0, 1), "A photograph",
                 f"{photograph.shape[1]} x {photograph.shape[0]}, three colours", aspect="auto")  # fmt: skip
    canvas.image(MARGIN + photo + GAP, top, photo, rows, np.clip(blurred, 0, 1), "Its blurred copy",
                 "an unsteady hand moved the camera during the exposure", aspect="auto")  # fmt: skip

    limit = np.abs(truth).max()
    solutions = [
        ("The kernel that blurred it", f"{truth.shape[0]} x {truth.shape[1]}; the solvers see the two images only",
         truth),
        ("fit_kernel: least squares", exact[1], exact[0]),
        ("learn_kernel: gradient descent", descent[1], descent[0]),
    ]  # fmt: skip
    for i, (title, text, kernel) in enumerate(solutions):
        x = MARGIN + i * (panel + GAP)
        canvas.kernel(x, middle, panel, kernel, limit)
        canvas.caption(x, middle + panel, title, text)
    x = MARGIN + 3 * (panel + GAP)
    axes = canvas.losses(x, middle, panel, panel, losses)
    for step, _ in film:
        axes.plot(step + 1, losses[step], "o", color="#ffd79a", markersize=6)
    canvas.caption(x, middle + panel, "The loss of the descent", "sum of squares after each step, both in decades")

    canvas.write(MARGIN, bottom + 5, "The descent", 13, weight="bold")
    canvas.write(MARGIN + 140, bottom + 7, "its kernel at the dots of the curve, from nothing", 11, color=FAINT)
    for i, (step, kernel) in enumerate(film):
        x = MARGIN + i * (frame + 10)
        canvas.kernel(x, bottom + 40, frame, kernel, limit)
        canvas.write(x, bottom + 40 + frame + 6, f"{step} step{'s' * (step != 1)}", 11, color=FAINT)
    return canvas.figure
