"""``pyconv demo``: a kernel learnt from a photograph and its blurred copy; six convolutions, a table; two figures.

The photographs are scikit-image's `camera`, `astronaut` and `coffee`, which its package holds. Each convolution is
timed beside SciPy's and scikit-image's own way of doing it, and compared with SciPy's result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import pyconv
from pyconv import kernels, ndimage
from pyconv.figures import FAINT, GAP, MARGIN, TEXT, WIDTH, Canvas, draw_learning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A hand-made detector of edges: the rows (or columns) below minus those above.
HORIZONTAL = np.array([[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
VERTICAL = HORIZONTAL.T

SIGMA = 4.0
STRIDE = 2
SHAKE = 15                           # size of the kernel that the demonstration learns
FILM = (8, 16, 32, 64, 128, 256, 512)  # steps of the descent of which the figure shows the kernel


@dataclass(frozen=True)
class Job:
    """One line of the table: the same convolution by up to three packages."""

    name: str
    pyconv: Callable[[], np.ndarray]
    scipy: Callable[[], np.ndarray]
    skimage: Callable[[], np.ndarray] | None = None


def run() -> tuple[Figure, Figure]:
    """Filter the photographs, print the table as it grows, learn a kernel; the figures of both."""
    import scipy
    import skimage
    from skimage import data

    camera = skimage.util.img_as_float32(data.camera())
    astronaut = skimage.util.img_as_float32(data.astronaut())
    bank = kernel_bank()

    print(
        f"pyconv with {pyconv.get_workers()} workers, SciPy {scipy.__version__}, "
        f"scikit-image {skimage.__version__}; float32 images of 512 x 512\n"
        "best of several runs each; ratio: how many times as long as pyconv"
    )
    print_header()
    todo = jobs(camera, astronaut, bank)
    results, differences = zip(
        *(print_row(job, camera.size, f"{i} of {len(todo)}:") for i, job in enumerate(todo, 1)), strict=True
    )
    print(f"\nlargest difference from SciPy: {max(differences):.1g} of the largest value")

    show_progress("drawing the figure ...")
    figure = draw(camera, astronaut, bank, results)
    show_progress("")
    return figure, learn(skimage.util.img_as_float32(data.coffee()))


def kernel_bank() -> np.ndarray:
    """Eight kernels of 3 colours x 11 x 11, of the kinds that networks learn in their first layer.

    Four edges in steps of 45 degrees, a bright spot, and spots and edges between opponent colours: red and
    green, blue and yellow. Each has unit length and sums to 0 in each colour.
    """
    slope_y = kernels.gaussian(1.8, order=(1, 0), radius=5)
    slope_x = kernels.gaussian(1.8, order=(0, 1), radius=5)
    spot = -kernels.laplacian_of_gaussian(1.8, radius=5)
    spot -= spot.mean()
    grey, red_green, blue_yellow = np.array([[1, 1, 1], [1, -1, 0], [-1, -1, 2]])[:, :, None, None]
    diagonal = np.sqrt(0.5)
    bank = np.stack(
        [
            grey * slope_x,
            grey * diagonal * (slope_x + slope_y),
            grey * slope_y,
            grey * diagonal * (slope_y - slope_x),
            grey * spot,
            red_green * spot,
            red_green * slope_x,
            blue_yellow * slope_y,
        ]
    )
    return bank / np.sqrt((bank**2).sum(axis=(1, 2, 3), keepdims=True))


def jobs(camera: np.ndarray, astronaut: np.ndarray, bank: np.ndarray) -> list[Job]:
    """The convolutions, each as its package's user would write it."""
    import scipy.ndimage
    import scipy.signal
    import skimage.filters

    channels = np.moveaxis(astronaut, -1, 0)
    border = [(size // 2, size // 2) for size in bank.shape[-2:]]
    padded = np.pad(channels, [(0, 0), *border], mode="symmetric")

    def sobel_magnitude(sobel):
        # In place, for otherwise NumPy's new arrays would take longer than the filters.
        squares = np.square(down := sobel(camera, axis=0), out=down)
        squares += np.square(right := sobel(camera, axis=1), out=right)
        return np.sqrt(squares, out=squares)

    def scipy_bank():
        # SciPy has neither strides nor banks; its correlate chooses between the direct way and the FFT.
        return np.stack(
            [scipy.signal.correlate(padded, kernel, mode="valid")[0, ::STRIDE, ::STRIDE] for kernel in bank32]
        )

    bank32 = bank.astype(np.float32)
    return [
        Job(
            "horizontal edges, 3 x 3",
            lambda: ndimage.correlate(camera, HORIZONTAL),
            lambda: scipy.ndimage.correlate(camera, HORIZONTAL),
        ),
        Job(
            "vertical edges, 3 x 3",
            lambda: ndimage.correlate(camera, VERTICAL),
            lambda: scipy.ndimage.correlate(camera, VERTICAL),
        ),
        Job(
            "Sobel magnitude",
            lambda: sobel_magnitude(ndimage.sobel),
            lambda: sobel_magnitude(scipy.ndimage.sobel),
            lambda: skimage.filters.sobel(camera),
        ),
        Job(
            "Laplacian",
            lambda: ndimage.laplace(camera),
            lambda: scipy.ndimage.laplace(camera),
            lambda: skimage.filters.laplace(camera),
        ),
        Job(
            f"Gaussian blur, sigma {SIGMA:.0f}, RGB",
            lambda: ndimage.gaussian_filter(astronaut, SIGMA, channel_axis=-1),
            lambda: scipy.ndimage.gaussian_filter(astronaut, (SIGMA, SIGMA, 0)),
            lambda: skimage.filters.gaussian(astronaut, SIGMA, mode="reflect", channel_axis=-1),
        ),
        Job(
            f"bank of {len(bank)} kernels 3 x 11 x 11, stride {STRIDE}",
            lambda: pyconv.conv2d(channels, bank, stride=STRIDE, padding=border, padding_mode="symmetric"),
            scipy_bank,
        ),
    ]


# ---- learning ----


def learn(photograph: np.ndarray) -> Figure:
    """Blur a photograph (H, W, 3), learn the kernel from the pair by both solvers, print and draw what they found."""
    truth = camera_shake(SHAKE)
    colours = np.ascontiguousarray(np.moveaxis(photograph, -1, 0)[:, None])
    show_progress("blurring a photograph ...")
    blurred = np.stack([ndimage.correlate(colour, truth.astype(colours.dtype)) for colour in colours[:, 0]])[:, None]

    # One kernel for all colours: they are a batch of images with one channel.
    start = time.perf_counter()
    exact = pyconv.fit_kernel(colours, blurred, SHAKE)
    exact_time = time.perf_counter() - start
    film = []

    def keep(step, loss, kernel):
        if step in FILM:
            film.append((step, kernel[0, 0]))
        if step % 100 == 0:
            show_progress(f"learning the kernel, step {step} ...")

    start = time.perf_counter()
    descent = pyconv.learn_kernel(colours, blurred, SHAKE, callback=keep)
    descent_time = time.perf_counter() - start
    film.append((len(descent.losses), descent.kernel[0, 0]))
    show_progress("drawing what was learnt ...")

    def error(fit):
        return np.abs(fit.kernel[0, 0] - truth).max() / truth.max()

    rows, columns = photograph.shape[:2]
    print(
        f"the kernel between a photograph of {columns} x {rows} and its blurred copy, {SHAKE} x {SHAKE}, "
        "largest error of the largest weight:"
    )
    print(f"  fit_kernel    {error(exact):8.1g}  in {exact_time:.2f} s")
    print(f"  learn_kernel  {error(descent):8.1g}  in {descent_time:.2f} s, {len(descent.losses)} steps", flush=True)
    figure = draw_learning(
        photograph,
        np.moveaxis(blurred[:, 0], 0, -1),
        truth,
        (exact.kernel[0, 0], f"largest error {error(exact):.1g} of the largest weight, {exact_time:.2f} s"),
        (
            descent.kernel[0, 0],
            f"largest error {error(descent):.1g}, {len(descent.losses)} steps, {descent_time:.1f} s",
        ),
        [*descent.losses, descent.loss],
        film,
    )
    show_progress("")
    return figure


def camera_shake(n: int) -> np.ndarray:
    """The path of a camera in an unsteady hand, as a blur of n x n that sums to 1."""
    t = np.linspace(0, 1, 200 * n)
    y = 0.5 + 0.36 * np.sin(2 * np.pi * (0.9 * t + 0.15)) * (1 - 0.35 * t)
    x = 0.12 + 0.76 * t + 0.1 * np.sin(2 * np.pi * 1.7 * t)
    path, _, _ = np.histogram2d(y, x, bins=n, range=((0, 1), (0, 1)))
    path = ndimage.gaussian_filter(path, 0.55)
    return path / path.sum()


# ---- the table ----


def best_times(
    functions: Sequence[Callable[[], np.ndarray]], rounds: int = 3, seconds: float = 0.1
) -> list[float]:
    """Shortest run of each, over rounds in which they take turns: what else the machine does then hits all."""
    best = [np.inf] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            end = start
            while end - start < seconds:
                before = time.perf_counter()
                function()
                end = time.perf_counter()
                best[i] = min(best[i], end - before)
    return best


def print_header() -> None:
    print(f"\n{'':38}{'pyconv':>19}{'SciPy':>19}{'scikit-image':>19}")
    print(f"{'':38}{'ms':>8}{'Mpixel/s':>11}" + f"{'ms':>10}{'ratio':>9}" * 2, flush=True)


def print_row(job: Job, pixels: int, progress: str) -> tuple[np.ndarray, float]:
    """Time one job and print its line. Returns pyconv's result and its distance from SciPy's."""
    show_progress(f"{progress} {job.name} ...")
    result, reference = job.pyconv(), job.scipy()
    difference = np.abs(result - reference).max() / np.abs(reference).max()
    peers = [peer for peer in (job.scipy, job.skimage) if peer]
    ours, *theirs = best_times([job.pyconv, *peers])
    line = f"{job.name:38}{1e3 * ours:8.2f}{pixels / ours / 1e6:11.0f}"
    for peer in theirs:
        line += f"{1e3 * peer:10.2f}{peer / ours:8.1f}x"
    if job.skimage is None:
        line += f"{'-':>10}{'-':>9}"
    show_progress("")
    print(line, flush=True)
    return result, difference


def show_progress(text: str) -> None:
    """One line that the next one overwrites, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


# ---- the figure ----

PANEL = (WIDTH - 2 * MARGIN - 3 * GAP) / 4
RESPONSE_GAP = 10
RESPONSE = (WIDTH - 2 * MARGIN - 7 * RESPONSE_GAP) / 8
HEADER, CAPTION, BANK_TITLE, INSET = 92, 62, 40, 76
HEIGHT = HEADER + 2 * (PANEL + CAPTION) + BANK_TITLE + RESPONSE + MARGIN


def draw(camera: np.ndarray, astronaut: np.ndarray, bank: np.ndarray, results: list[np.ndarray]) -> Figure:
    """Two rows of photographs and what became of them, and one of the bank's kernels with their responses."""
    from matplotlib.colors import hsv_to_rgb

    horizontal, vertical, magnitude, laplacian, blur, responses = results
    canvas = Canvas(HEIGHT)
    place, write, signed = canvas.place, canvas.write, canvas.signed

    def panel(index, image, title, caption, **shown):
        x = MARGIN + index % 4 * (PANEL + GAP)
        y = HEADER + index // 4 * (PANEL + CAPTION)
        place(x, y, PANEL, PANEL).imshow(image, interpolation="antialiased", **shown)
        write(x, y + PANEL + 7, title, 13, weight="bold")
        write(x, y + PANEL + 30, caption, 11, color=FAINT)
        return x, y

    def signed_panel(index, values, title, caption):
        limit = np.percentile(np.abs(values), 99)
        return panel(index, values, title, caption, cmap=signed, vmin=-limit, vmax=limit)

    def kernel_inset(x, y, kernel):
        axes = place(x + 8, y + PANEL - INSET - 8, INSET, INSET, edge=TEXT)
        axes.imshow(kernel, cmap=signed, vmin=-2, vmax=2)
        for (row, column), weight in np.ndenumerate(kernel):
            axes.text(column, row, f"{weight:+.0f}" if weight else "0", color=TEXT, ha="center", va="center")

    canvas.heading("convolution on the CPU, from plain NumPy arrays")

    panel(0, camera, "Camera", "512 x 512, one channel", cmap="gray")
    x, y = signed_panel(1, horizontal, "Horizontal edges", "bright below: orange, bright above: blue")
    kernel_inset(x, y, HORIZONTAL)
    x, y = signed_panel(2, vertical, "Vertical edges", "bright to the right: orange, to the left: blue")
    kernel_inset(x, y, VERTICAL)

    def compass(slope_y, slope_x, strength):
        """Hue for the direction in which the image rises, brightness for how steeply."""
        hue = np.arctan2(slope_y, slope_x) / (2 * np.pi) % 1
        return hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.75), np.clip(strength, 0, 1)], axis=-1))

    strength = (magnitude / np.percentile(magnitude, 99)) ** 0.8
    x, y = panel(
        3,
        compass(horizontal, vertical, strength),
        "Sobel magnitude",
        "brightness: how steep; hue: in which direction",
    )
    down, right = np.mgrid[-1:1:120j, -1:1:120j]
    wheel = np.dstack([compass(down, right, np.ones_like(down)), np.hypot(down, right) <= 1])
    axes = place(x + 8, y + PANEL - INSET - 8, INSET, INSET)
    axes.imshow(wheel)
    axes.set_axis_off()

    signed_panel(4, laplacian, "Laplacian", "dark spots and lines: orange, bright ones: blue")
    panel(5, astronaut, "Astronaut", "512 x 512, three channels")
    panel(6, np.clip(blur, 0, 1), "Gaussian blur", f"sigma {SIGMA:.0f}, each channel by itself")

    hues = np.arange(len(bank)) / len(bank)
    # Colours differ less than brightness in any photograph, so each response is measured by its own largest.
    limits = np.percentile(np.abs(responses), 98.5, axis=(1, 2), keepdims=True)
    relative = np.abs(responses) / limits
    strongest = relative.argmax(axis=0)
    strength = np.clip(relative.max(axis=0), 0, 1) ** 0.7
    panel(
        7,
        hsv_to_rgb(np.stack([hues[strongest], np.full_like(strength, 0.7), strength], axis=-1)),
        "The strongest kernel",
        "of the eight below, by the colour of its frame",
    )

    y = HEADER + 2 * (PANEL + CAPTION)
    _, channels, rows, columns = bank.shape
    caption = (
        f"{len(bank)} kernels of {channels} colours x {rows} x {columns}, with stride {STRIDE}, in one call"
    )
    write(MARGIN, y + 5, "A bank of kernels", 13, weight="bold")
    write(MARGIN + 190, y + 7, caption, 11, color=FAINT)
    for index, (kernel, response) in enumerate(zip(bank, responses / limits, strict=True)):
        x = MARGIN + index * (RESPONSE + RESPONSE_GAP)
        axes = place(x, y + BANK_TITLE, RESPONSE, RESPONSE)
        axes.imshow(response, cmap=signed, vmin=-1, vmax=1, interpolation="antialiased")
        colour = tuple(hsv_to_rgb((hues[index], 0.7, 1.0)))
        tile = place(x + 6, y + BANK_TITLE + RESPONSE - 62, 56, 56, edge=colour)
        tile.imshow(np.moveaxis(0.5 + 0.5 * kernel / np.abs(kernel).max(), 0, -1))
    return canvas.figure
