"""The command `pyconv`: ``demo``, ``filter``, ``learn`` and ``info``.

Whatever goes wrong ends the command with one line on standard error and exit status 2; Ctrl-C ends it with
status 130. Pillow, tifffile, scikit-image and matplotlib come with the extra ``demo`` and are imported only
where an image file is read, written or drawn.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import inspect
import io
import logging
import os
import re
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import pyconv
from pyconv import _check, kernels

OUTPUT_SUFFIXES = (".png", ".tif", ".tiff", ".npy")

DISTRIBUTIONS = {
    "PIL": "Pillow",
    "tifffile": "tifffile",
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
}

EPILOG = """\
a kernel K is one of
  a name with arguments   sobel  sobel:axis=0  gaussian:sigma=2  box:9
  a file                  kernel.npy
  numbers                 "-1,0,1;-2,0,2;-1,0,1"   (, between columns, ; between rows)
names:
{names}
They are described by: python -c "help('pyconv.kernels')"
Kernels are correlated with the image, not turned round first.

how values become pixels
  auto  .npy files and TIFFs of floats keep every value. Other files keep values
        that lie in the image's range; otherwise the lowest becomes black and the
        highest white.
  clip  values outside the image's range are set to its ends.
  none  every value is written as it is, as a float, to a .tif or .npy.
The image's range is 0..255 or 0..65535 for 8 or 16 bits, 0..1 for floats within it,
and from its own lowest to its own highest value for all others.
"""


class CommandError(Exception):
    """Ends the command with this message and exit status 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the command's name. Default: those of this process.

    Returns
    -------
    int
        The exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        arguments = _parser().parse_args(bind_kernel(sys.argv[1:] if argv is None else argv))
        arguments.run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory: {error}")
    except OSError as error:  # of standard output itself; files have their own messages
        # Python flushes once more at exit, and must not complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if isinstance(error, BrokenPipeError) else _fail(f"cannot print: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(message: str) -> int:
    # Messages of other packages may span lines; the command's own is always one.
    print(f"pyconv: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise CommandError(f"{message} ({self.prog} --help says more)")


def _parser() -> _Parser:
    parser = _Parser(
        prog="pyconv", description="Convolutions of images, fast, on the CPU.", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="{demo,filter,learn,info}", required=True, dest="command")

    demo = commands.add_parser(
        "demo",
        help="filter photographs, learn a kernel, draw it, and time it all",
        description="Filters two photographs that scikit-image brings, learns the kernel between a third and its "
        "blurred copy, draws a figure of each, and prints what ran and how fast, beside SciPy and scikit-image.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("pyconv-demo"),
        metavar="DIR",
        help="folder for the figures (%(default)s)",
    )
    demo.set_defaults(run=_run_demo)

    filter_ = commands.add_parser(
        "filter",
        help="filter an image file with a kernel",
        description="Filters an image file with a kernel. Colour channels are filtered one by one; an alpha "
        "channel is left alone.",
        epilog=EPILOG.format(
            names=textwrap.fill(", ".join(kernels.__all__), 80, initial_indent="  ", subsequent_indent="  ")
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    filter_.add_argument(
        "image", type=Path, metavar="IMAGE", help="PNG, JPEG, TIFF, .npy or what else Pillow reads"
    )
    filter_.add_argument(
        "--kernel", required=True, metavar="K", help="a name, a .npy file or numbers (see below)"
    )
    filter_.add_argument(
        "--mode",
        choices=_check.IMAGE_BOUNDARIES,
        default="reflect",
        metavar="MODE",
        help=f"what lies beyond the border: {', '.join(_check.IMAGE_BOUNDARIES)} (%(default)s, as in SciPy)",
    )
    filter_.add_argument(
        "--cval", type=float, default=0.0, help="value beyond the border for --mode constant (0)"
    )
    filter_.add_argument(
        "--stride", type=_stride, default=1, metavar="N", help="keep every N-th row and column only (1)"
    )
    filter_.add_argument(
        "--scale",
        choices=("auto", "clip", "none"),
        default="auto",
        help="how values become pixels (see below)",
    )
    filter_.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="a .png, .tif or .npy file (default: beside IMAGE, its name with -filtered)",
    )
    filter_.set_defaults(run=_run_filter)

    learn = commands.add_parser(
        "learn",
        help="find the kernel that turns one image file into another",
        description="Finds the kernel that turns INPUT into TARGET and prints it. Colour channels share one kernel; an "
        "alpha channel is left alone. A TARGET as large as INPUT is compared where the kernel stays inside, a smaller "
        "one where padding by nothing puts it. The kernel is one to correlate with, as `pyconv filter` does.",
        allow_abbrev=False,
    )
    learn.add_argument("input", type=Path, metavar="INPUT", help="an image file, as `pyconv filter` reads it")
    learn.add_argument("target", type=Path, metavar="TARGET", help="what the kernel is to make of it")
    learn.add_argument("--size", required=True, type=_size, metavar="KHxKW", help="rows x columns of the kernel: 3x3")
    learn.add_argument(
        "--solver",
        choices=("exact", "descent"),
        default="exact",
        help="least squares, or gradient descent (%(default)s)",
    )
    learn.add_argument("--bias", action="store_true", help="look for a constant too")
    learn.add_argument("--lr", type=float, metavar="LR", help="step of the descent (from the images)")
    learn.add_argument("--steps", type=int, metavar="N", help="number of its steps (from the images)")
    learn.add_argument("--output", type=Path, metavar="OUT", help="a .npy file for the kernel, for --kernel of filter")
    learn.add_argument("--plot", type=Path, metavar="PLOT", help="a .png of kernel, prediction, error and losses")
    learn.set_defaults(run=_run_learn)

    info = commands.add_parser(
        "info", help="version, instruction sets, compiler, OpenMP, workers", allow_abbrev=False
    )
    info.set_defaults(run=_run_info)
    return parser


def bind_kernel(argv: Sequence[str]) -> list[str]:
    """Join ``--kernel`` to a value like ``-1,0,1``, which argparse would take for an option.

    >>> bind_kernel(["filter", "a.png", "--kernel", "-1,0,1"])
    ['filter', 'a.png', '--kernel=-1,0,1']
    """
    bound: list[str] = []
    for word in argv:
        if bound and bound[-1] == "--kernel" and re.match(r"\s*-[\d.]", word):
            bound[-1] = f"--kernel={word}"
        else:
            bound.append(word)
    return bound


def _stride(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """
    >>> _size("3x5"), _size("7")
    ((3, 5), (7, 7))
    """
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"must be rows x columns from 1, like 3x3, got {text!r}")
    return int(numbers[0]), int(numbers[-1])


def _run_info(arguments: argparse.Namespace) -> None:
    pyconv.show_config()


def _run_demo(arguments: argparse.Namespace) -> None:
    for module in ("skimage", "matplotlib"):
        need(module, "pyconv demo")
    from pyconv import demo

    path = arguments.output / "pyconv-demo.png"
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
    for figure, name in zip(demo.run(), ("pyconv-demo.png", "pyconv-learn.png"), strict=True):
        _save_figure(figure, arguments.output / name)


def _save_figure(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # matplotlib does not know every suffix
        raise CommandError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    print(f"wrote {path}")


def _run_filter(arguments: argparse.Namespace) -> None:
    kernel = parse_kernel(arguments.kernel)
    picture = read_image(arguments.image)
    output = arguments.output or _default_output(arguments.image, arguments.scale)
    suffix = output.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise CommandError(
            f"--output {output} must end in {', '.join(OUTPUT_SUFFIXES[:-1])} or {OUTPUT_SUFFIXES[-1]}"
        )
    if suffix == ".png" and arguments.scale == "none":
        raise CommandError(
            f"{output} cannot hold --scale none: a PNG has whole numbers only; write a .tif or .npy"
        )
    if not output.parent.is_dir():
        raise CommandError(f"cannot write {output}: there is no folder {output.parent}")

    for note in (picture.description(arguments.image.name), *picture.notes):
        print(note)
    start = time.perf_counter()
    values = _correlate(picture.pixels, kernel, arguments.mode, arguments.cval, arguments.stride)
    elapsed = time.perf_counter() - start
    rows, columns = kernel.shape
    print(f"kernel {arguments.kernel}: {columns} x {rows}, mode {arguments.mode}, stride {arguments.stride}")
    speed = picture.pixels.size / elapsed / 1e6
    print(f"filtered in {1e3 * elapsed:.1f} ms ({speed:.0f} million values a second)")

    alpha = picture.alpha
    if alpha is not None:
        alpha = alpha[:: arguments.stride, :: arguments.stride]
    dtype = _pixel_dtype(suffix, picture, values.dtype, arguments.scale)
    pixels, sentence = to_pixels(values, dtype, _nominal_range(picture.pixels), arguments.scale)
    print(sentence)
    if alpha is not None:
        pixels = np.concatenate([pixels, _convert_alpha(alpha, dtype)[..., None]], axis=-1)
    write_image(output, pixels, has_alpha=alpha is not None)
    print(f"wrote {output}: {pixels.shape[1]} x {pixels.shape[0]}, {dtype}")


def _correlate(pixels: np.ndarray, kernel: np.ndarray, mode: str, cval: float, stride: int) -> np.ndarray:
    """Every stride-th row and column of the correlation as large as the image, each channel by itself."""
    padding = [(size // 2, size - 1 - size // 2) for size in kernel.shape]
    try:
        values = pyconv.conv2d(
            np.moveaxis(pixels, -1, 0)[:, None],
            kernel[None, None],
            stride=stride,
            padding=padding,
            padding_mode=_check.IMAGE_BOUNDARIES[mode],
            padding_value=cval,
            dtype=np.result_type(pixels.dtype, np.float32),
        )
    except (ValueError, TypeError) as error:
        raise CommandError(f"cannot filter: {error}") from error
    return np.moveaxis(values[:, 0], 0, -1)


def _run_learn(arguments: argparse.Namespace) -> None:
    for path, name, suffix in ((arguments.output, "--output", ".npy"), (arguments.plot, "--plot", ".png")):
        if path is not None and path.suffix.lower() != suffix:
            raise CommandError(f"{name} {path} must end in {suffix}")
        if path is not None and not path.parent.is_dir():
            raise CommandError(f"cannot write {path}: there is no folder {path.parent}")
    if arguments.solver == "exact" and (arguments.lr is not None or arguments.steps is not None):
        raise CommandError("--lr and --steps are for --solver descent")
    if arguments.plot is not None:
        need("matplotlib", "--plot")
    pictures = read_image(arguments.input), read_image(arguments.target)
    for picture, path in zip(pictures, (arguments.input, arguments.target), strict=True):
        for note in (picture.description(path.name), *picture.notes):
            print(note)
    channels = [picture.pixels.shape[-1] for picture in pictures]
    if channels[0] != channels[1]:
        raise CommandError(f"the images must have as many channels, got {channels[0]} and {channels[1]}")

    # One kernel for all channels: they are a batch of images with one channel.
    image, target = (np.moveaxis(picture.pixels, -1, 0)[:, None] for picture in pictures)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if arguments.solver == "exact":
                fit = pyconv.fit_kernel(image, target, arguments.size, bias=arguments.bias)
            else:
                fit = pyconv.learn_kernel(
                    image, target, arguments.size, bias=arguments.bias, lr=arguments.lr, steps=arguments.steps
                )
    except (ValueError, TypeError) as error:
        raise CommandError(f"cannot learn: {error}") from error
    elapsed = time.perf_counter() - start
    kernel = fit.kernel[0, 0]
    print(replace(fit, kernel=kernel))
    print(f"found in {elapsed:.2g} s")
    for warning in caught:
        print(f"note: {warning.message}")
    if arguments.output is not None:
        try:
            np.save(arguments.output, kernel)
        except OSError as error:
            raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
        print(f"wrote {arguments.output}")
    if arguments.plot is not None:
        from pyconv import figures

        target, predicted = (
            images[0, 0] if len(images) < 3 else np.moveaxis(images[:3, 0], 0, -1)
            for images in (target, fit.predict(image))
        )
        name = f"{arguments.input.name} and {arguments.target.name}"
        _save_figure(figures.draw_fit(target, predicted, fit, name), arguments.plot)


def need(module: str, what: str) -> ModuleType:
    """The module, or an error that says where it comes from."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CommandError(
            f"{what} needs {DISTRIBUTIONS[module.partition('.')[0]]}, which is not installed "
            f'({error}); in the clone of pyconv: pip install ".[demo]"'
        ) from error


# ---- kernels ----


def parse_kernel(text: str) -> np.ndarray:
    """A kernel from the command line.

    Parameters
    ----------
    text : str
        A name of `pyconv.kernels` with arguments after a colon, the path of a .npy file, or numbers with
        ``,`` between columns and ``;`` between rows.

    Returns
    -------
    ndarray of float64, shape (rows, columns)

    Raises
    ------
    CommandError
        If the text is none of these, or the kernel is not a finite real array of one or two axes.

    Examples
    --------
    >>> parse_kernel("-1,0,1;-2,0,2;-1,0,1")
    array([[-1.,  0.,  1.],
           [-2.,  0.,  2.],
           [-1.,  0.,  1.]])
    >>> parse_kernel("derivative:2")
    array([[ 1., -2.,  1.]])
    """
    text = text.strip()
    if text.lower().endswith(".npy"):
        kernel = _guarded(_read_npy, Path(text))
    elif re.match(r"[-+.,;\d]", text):
        kernel = _kernel_from_numbers(text)
    else:
        kernel = _kernel_from_name(text)
    if kernel.dtype.kind not in "buif":
        raise CommandError(f"--kernel {text}: weights must be real numbers, got dtype {kernel.dtype}")
    if kernel.ndim not in (1, 2) or not kernel.size:
        raise CommandError(
            f"--kernel {text}: an image takes a kernel of rows and columns, got shape {kernel.shape}"
        )
    if not np.isfinite(kernel).all():
        raise CommandError(f"--kernel {text}: weights must be finite")
    return np.atleast_2d(kernel).astype(np.float64)


def _kernel_from_numbers(text: str) -> np.ndarray:
    rows = [row.split(",") for row in text.split(";")]
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        raise CommandError(
            f"--kernel {text}: rows must be of one length, got {', '.join(map(str, lengths))} numbers"
        )
    try:
        return np.array([[float(number) for number in row] for row in rows])
    except ValueError as error:
        raise CommandError(
            f"--kernel {text}: {error}; write numbers with , between columns and ; between rows"
        ) from error


def _kernel_from_name(text: str) -> np.ndarray:
    name, _, arguments = text.partition(":")
    if name not in kernels.__all__:
        close = difflib.get_close_matches(name, kernels.__all__, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        raise CommandError(
            f"--kernel {text}: unknown kernel {name!r}; {guess}Known: {', '.join(kernels.__all__)}; "
            'a .npy file or numbers like "-1,0,1;-2,0,2;-1,0,1" will do too'
        )
    function = getattr(kernels, name)
    positional, named = _parse_arguments(text, arguments)
    signature = inspect.signature(function)
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise CommandError(f"--kernel {text}: {error}; {name} takes {takes}") from error
    try:
        return function(*positional, **named)
    except (ValueError, TypeError, OverflowError) as error:
        raise CommandError(f"--kernel {text}: {error}") from error


def _parse_arguments(text: str, arguments: str) -> tuple[list, dict]:
    """Literals as Python writes them, by position or by name; nothing is evaluated."""
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        positional = [ast.literal_eval(value) for value in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if None in named or len(named) < len(call.keywords):  # **mapping, or a name twice
            raise ValueError
    except (SyntaxError, ValueError) as error:
        raise CommandError(
            f"--kernel {text}: cannot read the arguments {arguments!r}; write name=value with commas "
            "between, for example gaussian:sigma=2,truncate=3"
        ) from error
    return positional, named


# ---- image files ----


@dataclass(frozen=True)
class Picture:
    """An image file's content: pixels of shape (H, W, C), alpha of shape (H, W) where the file has one."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def description(self, name: str) -> str:
        height, width, channels = self.pixels.shape
        plural = "" if channels == 1 else "s"
        alpha = "" if self.alpha is None else " and alpha"
        return f"{name}: {width} x {height} pixels, {channels} channel{plural}{alpha}, {self.pixels.dtype}"


def read_image(path: Path) -> Picture:
    """Read an image file; what it is, its first bytes say, not its name.

    Parameters
    ----------
    path : Path
        A .npy file of shape (H, W) or (H, W, C), a TIFF, or any file that Pillow reads. Of several pages or
        frames the first is taken. Bilevel images become 0 and 255, palettes their colours.

    Returns
    -------
    Picture

    Raises
    ------
    CommandError
        If the file cannot be opened, is broken, or holds no image of real numbers.
    """
    for decoder in ("PIL", "tifffile"):  # they log what they then raise
        logging.getLogger(decoder).setLevel(logging.CRITICAL)
    start = _guarded(_first_bytes, path)
    if start.startswith(b"\x93NUMPY"):
        picture = _picture_from_array(_guarded(_read_npy, path), path)
    elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        picture = _read_tiff(path)
    else:
        picture = _guarded(_read_with_pillow, path)
    pixels = picture.pixels
    if pixels.dtype.kind not in "buif":
        raise CommandError(f"cannot read {path}: pixels must be real numbers, got dtype {pixels.dtype}")
    if not pixels.size:
        raise CommandError(f"cannot read {path}: it has no pixels (shape {pixels.shape})")
    alpha = picture.alpha
    return replace(picture, pixels=_plain(pixels), alpha=None if alpha is None else _plain(alpha))


def _plain(pixels: np.ndarray) -> np.ndarray:
    """Native numbers: 0 and 255 for booleans."""
    if pixels.dtype.kind == "b":
        return pixels * np.uint8(255)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _guarded(read: Callable[[Path], Any], path: Path) -> Any:
    """What `read` makes of the file, or one error for whatever it raises."""
    # A damaged file makes the decoders raise almost anything: struct.error, SyntaxError, zlib.error.
    try:
        return read(path)
    except CommandError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CommandError(f"cannot read {path}: {reason}") from error


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


def _read_npy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _picture_from_array(pixels: np.ndarray, path: Path) -> Picture:
    if pixels.ndim not in (2, 3):
        raise CommandError(f"cannot read {path}: an image has shape (H, W) or (H, W, C), got {pixels.shape}")
    return Picture(pixels if pixels.ndim == 3 else pixels[..., None])


def _read_tiff(path: Path) -> Picture:
    need("tifffile", "reading a TIFF")
    try:
        return _guarded(_read_with_tifffile, path)
    except CommandError as error:
        # LZW, JPEG and fax compression, CMYK and YCbCr: Pillow has these, tifffile the bit depths.
        try:
            with _silent_stderr():
                return _read_with_pillow(path)
        except Exception:
            raise error from None


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep libtiff, which is written in C, from printing its own messages beside ours."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _read_with_tifffile(path: Path) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        notes = _first_of(len(file.pages), "pages")
        if page.nbytes > 10_000 * path.stat().st_size:  # more than any compression gains: a damaged header
            raise CommandError(f"cannot read {path}: its header promises {page.nbytes} bytes of pixels")
        pixels = page.asarray()
        if page.axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        photometric = tifffile.PHOTOMETRIC(page.photometric).name
        if photometric == "MINISWHITE" and pixels.dtype.kind in "bu":
            pixels = ~pixels
        elif photometric == "PALETTE":
            pixels = (np.moveaxis(page.colormap, 0, -1) >> 8).astype(np.uint8)[pixels]
        elif photometric not in ("MINISBLACK", "MINISWHITE", "RGB"):
            raise CommandError(
                f"cannot read {path}: pixels are {photometric}, not grey, RGB or palette colours"
            )
        says_alpha = any(sample in (1, 2) for sample in page.extrasamples[-1:])
    pixels = _picture_from_array(pixels, path).pixels
    channels = pixels.shape[-1]
    # Many programs leave it unsaid what the sample after red, green and blue is.
    if channels > 1 and (says_alpha or (photometric == "RGB" and channels == 4)):
        return Picture(pixels[..., :-1], pixels[..., -1], notes)
    return Picture(pixels, None, notes)


def _read_with_pillow(path: Path) -> Picture:
    Image = need("PIL.Image", "reading an image file")
    from PIL import ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large or slightly odd files are no concern of the user's here
        with Image.open(path) as image:
            notes = _first_of(getattr(image, "n_frames", 1), "frames")
            if len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile):
                notes += ("note: Pillow reads 16-bit colour as 8 bits; a TIFF would keep all 16",)
            image = ImageOps.exif_transpose(image)
            transparent = image.has_transparency_data
            if image.mode in ("1", "L", "LA", "La"):
                image = image.convert("LA" if transparent else "L")
            elif not image.mode.startswith(("I", "F")):
                image = image.convert("RGBA" if transparent else "RGB")
            pixels = np.atleast_3d(np.asarray(image))
    if image.mode in ("LA", "RGBA"):
        return Picture(pixels[..., :-1], pixels[..., -1], notes)
    return Picture(pixels, None, notes)


def _first_of(count: int, what: str) -> tuple[str, ...]:
    return () if count == 1 else (f"note: the first of {count} {what} is taken",)


def _default_output(image: Path, scale: str) -> Path:
    suffix = image.suffix.lower()
    if suffix not in (".tif", ".tiff", ".npy"):
        suffix = ".tif" if scale == "none" else ".png"
    return image.with_name(f"{image.stem}-filtered{suffix}")


def write_image(path: Path, pixels: np.ndarray, has_alpha: bool) -> None:
    """Write pixels of shape (H, W, C), the last channel being alpha or not, as the path's suffix says.

    Raises
    ------
    CommandError
        If the format cannot hold as many channels, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    channels = pixels.shape[-1]
    if channels == 1:
        pixels = pixels[..., 0]
    pixels = np.ascontiguousarray(pixels)
    colours = channels - has_alpha
    try:
        if suffix == ".npy":
            with open(path, "wb") as file:
                np.save(file, pixels)
        elif suffix == ".png":
            if colours not in (1, 3):
                raise CommandError(
                    f"cannot write {path}: a PNG has 1 or 3 channels, not {colours}; write a .tif or .npy"
                )
            need("PIL.Image", "writing a PNG").fromarray(pixels).save(path, format="PNG")
        else:
            need("tifffile", "writing a TIFF").imwrite(
                path,
                pixels,
                photometric="rgb" if colours == 3 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=["unspecified"] * (0 if colours == 3 else colours - 1)
                + ["unassalpha"] * has_alpha,
                metadata=None,
            )
    except OSError as error:
        raise CommandError(
            f"cannot write {path}: {error.strerror or error}; --output names another place"
        ) from error


# ---- values and pixels ----


def _nominal_range(pixels: np.ndarray) -> tuple[float, float]:
    """The range from black to white that the image's numbers are meant in."""
    if pixels.dtype in (np.uint8, np.uint16):
        return 0.0, float(np.iinfo(pixels.dtype).max)
    low, high, _ = _extremes(pixels)
    if pixels.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def _pixel_dtype(suffix: str, picture: Picture, computed: np.dtype, scale: str) -> np.dtype:
    """What the file's pixels are: 8 or 16 bits where the image has them and the format can, else floats."""
    source = picture.pixels.dtype
    if suffix == ".npy" or scale == "none":
        return computed
    if suffix == ".png":
        # Pillow writes 16 bits for grey alone.
        grey = picture.pixels.shape[-1] == 1 and picture.alpha is None
        return np.dtype(np.uint16 if source == np.uint16 and grey else np.uint8)
    return source if source in (np.uint8, np.uint16) else computed


def to_pixels(
    values: np.ndarray, dtype: np.dtype, nominal: tuple[float, float], scale: str
) -> tuple[np.ndarray, str]:
    """Turn filtered values into pixels.

    Parameters
    ----------
    values : ndarray of float
    dtype : dtype
        Of the pixels: uint8, uint16 or a float.
    nominal : (float, float)
        The range that the values of the unfiltered image are meant in, from black to white.
    scale : {"auto", "clip", "none"}
        ``"auto"`` keeps `nominal` where all values lie in it (for floats always), else stretches their own
        range to the whole of the pixels'; ``"clip"`` cuts at `nominal`; ``"none"`` keeps every value.

    Returns
    -------
    ndarray of dtype
    str
        What was done, in one sentence.

    Examples
    --------
    >>> to_pixels(np.array([-812.0, 640.0]), np.dtype("uint8"), (0, 255), "auto")
    (array([  0, 255], dtype=uint8), 'values -812..640 mapped linearly to 0..255')
    """
    low, high, not_finite = _extremes(values)
    top = 0 if dtype.kind == "f" else np.iinfo(dtype).max
    # What rounds to a pixel of the range lies in it: a blur may pass white by a rounding.
    slack = (nominal[1] - nominal[0]) / (2 * top) if top else 0
    inside = nominal[0] - slack <= low and high <= nominal[1] + slack
    sentence = f"values {low:.6g}..{high:.6g}"
    if scale == "clip" and not inside:
        share = 100 * np.mean((values < nominal[0]) | (values > nominal[1]))
        values = np.clip(values, *nominal)
        sentence += f" clipped to {nominal[0]:.6g}..{nominal[1]:.6g} ({share:.2g}% lay outside)"
    elif not top:
        sentence += " kept as they are"
    if not top:
        return values.astype(dtype, copy=False), sentence

    black, white = nominal if inside or scale == "clip" else (low, high)
    if (black, white) == (0, top):
        sentence += " rounded to whole numbers"
    elif (black, white) == (low, high):
        sentence += f" mapped linearly to 0..{top}"
    else:
        sentence += f", {black:.6g}..{white:.6g} mapped linearly to 0..{top}"
    if not_finite:
        sentence += f"; {not_finite} not finite"
    pixels = values.astype(np.float64)
    pixels -= black
    pixels *= top / ((white - black) or 1)
    np.nan_to_num(pixels, copy=False, nan=0, posinf=top, neginf=0)
    np.clip(pixels, 0, top, out=pixels)
    return np.rint(pixels, out=pixels).astype(dtype), sentence


def _extremes(values: np.ndarray) -> tuple[float, float, int]:
    """Lowest and highest finite value (0 and 0 where there is none), and how many are not finite."""
    finite = np.isfinite(values)
    not_finite = values.size - int(np.count_nonzero(finite))
    if not_finite:
        values = values[finite]
    if not values.size:
        return 0.0, 0.0, not_finite
    return float(values.min()), float(values.max()), not_finite


def _convert_alpha(alpha: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Alpha as it is, or rescaled from the full range of its type to that of whole-numbered pixels."""
    if dtype.kind == "f":
        return alpha.astype(dtype)
    opaque = 1.0 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    top = np.iinfo(dtype).max
    return np.rint(np.clip(alpha * (top / opaque), 0, top)).astype(dtype)


if __name__ == "__main__":
    sys.exit(main())
