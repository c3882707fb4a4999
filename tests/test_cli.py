"""The command: kernels from text, image files of every kind, how values become pixels, and how it fails."""

import doctest
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest

import pyconv
from pyconv import cli, kernels

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

MODES = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "mirror": "mirror",
    "nearest": "edge",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
}


def pattern(*shape, dtype=np.uint8):
    """Pixels from black to white, with no symmetry."""
    rng = np.random.default_rng(list(shape))
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    pixels.flat[:2] = 0, np.iinfo(dtype).max
    return pixels


@pytest.fixture
def command(capfd):
    """Run the command in this process; return its exit status, output and error output, C libraries' included."""

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def apply(command, tmp_path):
    """Filter a file and return what was printed, and the result read back."""

    def run(image, kernel, *options, output="out.npy"):
        output = tmp_path / output
        status, printed, errors = command("filter", image, f"--kernel={kernel}", "--output", output, *options)
        assert (status, errors) == (0, "")
        assert f"wrote {output}" in printed
        if output.suffix == ".npy":
            return printed, np.load(output)
        return printed, tifffile.imread(output) if output.suffix == ".tif" else np.asarray(Image.open(output))

    return run


def start(*arguments, **options):
    """The command in a process of its own, importing this very pyconv."""
    paths = [str(Path(pyconv.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        [sys.executable, "-m", "pyconv.cli", *map(str, arguments)],
        env=environment,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def test_examples_in_the_docstrings():
    result = doctest.testmod(cli)
    assert result.attempted >= 4 and result.failed == 0


# ---- kernels from text ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1,0,1", [[-1, 0, 1]]),
        ("-1;0;1", [[-1], [0], [1]]),
        ("-1,0,1;-2,0,2;-1,0,1", kernels.sobel()),
        (" 1e-1, .5 ;+2,-.25", [[0.1, 0.5], [2, -0.25]]),
        ("7", [[7]]),
        ("sobel", kernels.sobel()),
        ("sobel:axis=0", kernels.sobel(0)),
        ("sobel:0", kernels.sobel(0)),
        ("emboss:", kernels.emboss()),
        ("gaussian:sigma=2", kernels.gaussian(2)),
        ("gaussian:2, truncate=3", kernels.gaussian(2, truncate=3)),
        ("gaussian:sigma=(1,2),order=(0,1)", kernels.gaussian((1, 2), (0, 1))),
        ("box:(3,5),normalize=False", np.ones((3, 5))),
        ("derivative:2", [[1, -2, 1]]),
        ("derivative:order=1,axis=0,ndim=2", [[-1], [1]]),
        ("sharpen:amount=-0.5", kernels.sharpen(-0.5)),
    ],
)
def test_parse_kernel(text, expected):
    oracle.assert_same_bits(cli.parse_kernel(text), np.array(expected, np.float64))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4", np.int8, np.uint64, bool])
@pytest.mark.parametrize("shape", [(3, 5), (4,)])
def test_parse_kernel_from_a_file(tmp_path, dtype, shape):
    weights = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "k.npy", weights)
    oracle.assert_same_bits(cli.parse_kernel(f"{tmp_path}/k.npy"), np.atleast_2d(weights).astype(np.float64))


def saved(array):
    """A function that saves the array and returns its path, for a kernel or an image."""

    def save(folder):
        path = folder / "saved.npy"
        np.save(path, array, allow_pickle=True)
        return path

    return save


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("", "--kernel : unknown kernel ''"),
        ("sobell", "unknown kernel 'sobell'; did you mean sobel? Known: binomial, box,"),
        ("zzz", "unknown kernel 'zzz'; Known: binomial, box,"),
        ("__doc__", "unknown kernel '__doc__'"),
        ("np", "unknown kernel 'np'"),
        ("kernel.txt", "unknown kernel 'kernel.txt'"),
        (
            "gaussian",
            "missing a required argument: 'sigma'; gaussian takes sigma, order, truncate, radius, ndim",
        ),
        ("gaussian:sigma=2,width=3", "unexpected keyword argument 'width'; gaussian takes sigma, order,"),
        ("sobel:0,1", "too many positional arguments; sobel takes axis, ndim"),
        ("emboss:3", "too many positional arguments; emboss takes no arguments"),
        ("gaussian:sigma=two", "cannot read the arguments 'sigma=two'; write name=value"),
        ("gaussian:sigma=", "cannot read the arguments 'sigma='"),
        ("gaussian:sigma=1,sigma=2", "cannot read the arguments 'sigma=1,sigma=2'"),
        ("box:3x3", "cannot read the arguments '3x3'"),
        ("box:3)(4", "cannot read the arguments '3)(4'"),
        ("box:__import__('os').getpid()", "cannot read the arguments"),
        ("box:*[3]", "cannot read the arguments"),
        ("box:**{'n':3}", "cannot read the arguments"),
        ("box:(1,1000000000000000)", "not enough memory: Unable to allocate"),
        ("box:0", "--kernel box:0: n must be at least 1, got 0"),
        ("box:2.5", "n must be an integer, got 2.5 of type float"),
        ("gaussian:-1", "sigma must be at least 0, got -1.0"),
        ("box:3,ndim=3", "an image takes a kernel of rows and columns, got shape (3, 3, 3)"),
        ("1,2;3", "--kernel 1,2;3: rows must be of one length, got 2, 1 numbers"),
        (
            "1,,2",
            "could not convert string to float: ''; write numbers with , between columns and ; between rows",
        ),
        ("1,2;", "rows must be of one length, got 2, 1 numbers"),
        ("1 2 1", "could not convert string to float: '1 2 1'; write numbers with , between"),
        ("1,a", "could not convert string to float: 'a'"),
        ("1,nan", "weights must be finite"),
        ("1e999", "weights must be finite"),
        ("nowhere.npy", "cannot read nowhere.npy: No such file or directory"),
        (saved(np.ones((2, 2, 2))), "an image takes a kernel of rows and columns, got shape (2, 2, 2)"),
        (saved(np.ones((0, 3))), "an image takes a kernel of rows and columns, got shape (0, 3)"),
        (saved(np.array(3.0)), "an image takes a kernel of rows and columns, got shape ()"),
        (saved(np.ones((2, 2)) * 1j), "weights must be real numbers, got dtype complex128"),
        (saved(np.array([["a"]])), "weights must be real numbers, got dtype <U1"),
        (saved(np.array([[None]])), "Object arrays cannot be loaded"),
        (saved(np.array([[1.0, np.inf]])), "weights must be finite"),
    ],
)
def test_wrong_kernels_end_with_one_line(command, tmp_path, kernel, message):
    if callable(kernel):
        kernel = kernel(tmp_path)
    image = tmp_path / "image.png"
    Image.fromarray(pattern(5, 6)).save(image)
    status, printed, errors = command("filter", image, "--kernel", kernel)
    assert (status, printed) == (2, "")
    assert errors.startswith("pyconv: error: ") and errors.count("\n") == 1
    assert message in errors
    assert {path.suffix for path in tmp_path.iterdir()} <= {".png", ".npy"}
    assert not (tmp_path / "image-filtered.png").exists()


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("kernel", ["-1,0,1", "-1", "-.5;1", "-1, 0, 1", "1,-1", "gaussian:sigma=1"])
def test_kernels_that_look_like_options(command, tmp_path, kernel, bound):
    pixels = pattern(6, 7)
    np.save(tmp_path / "image.npy", pixels)
    words = [f"--kernel={kernel}"] if bound else ["--kernel", kernel]
    for arguments in (["filter", tmp_path / "image.npy", *words], ["filter", *words, tmp_path / "image.npy"]):
        assert command(*arguments)[0] == 0
        expected = expected_values(pixels, cli.parse_kernel(kernel))
        np.testing.assert_allclose(np.load(tmp_path / "image-filtered.npy"), expected, atol=1e-4)


def test_an_option_is_not_taken_for_a_kernel(command, tmp_path):
    status, _, errors = command("filter", "image.png", "--kernel", "--mode", "wrap")
    assert status == 2
    assert (
        errors == "pyconv: error: argument --kernel: expected one argument (pyconv filter --help says more)\n"
    )


# ---- filtering ----


def expected_values(pixels, kernel, boundary="symmetric", cval=0, stride=1):
    """The oracle's loops over (H, W) or (H, W, C), a channel at a time, kept every stride rows and columns."""
    pixels = np.atleast_3d(pixels).astype(np.float64)
    padding = [(k // 2, k - 1 - k // 2) for k in kernel.shape]
    channels = np.moveaxis(pixels, -1, 0)[:, None]
    values = oracle.correlate(channels, kernel[None, None], padding=padding, boundary=boundary, cval=cval)
    return np.moveaxis(values[:, 0], 0, -1)[::stride, ::stride].squeeze()


@pytest.mark.parametrize("shape", [(7, 9), (9, 7, 3), (6, 5, 2)])
@pytest.mark.parametrize(
    "kernel", ["-1,2;3,-4", "1,2,3,4,5;0,0,0,0,0;-5,4,-3,2,1", "box:(9,1),normalize=False"]
)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_values_are_the_correlation(apply, tmp_path, shape, kernel, stride):
    pixels = pattern(*shape)
    np.save(tmp_path / "image.npy", pixels)
    printed, values = apply(tmp_path / "image.npy", kernel, "--stride", stride)
    assert values.dtype == np.float32
    oracle.assert_same_values(values, expected_values(pixels, cli.parse_kernel(kernel), stride=stride))
    assert f"values {values.min():.6g}..{values.max():.6g} kept as they are" in printed
    assert f"stride {stride}" in printed


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_scipys(apply, tmp_path, mode):
    ndimage = pytest.importorskip("scipy.ndimage")
    pixels = pattern(4, 5)
    np.save(tmp_path / "image.npy", pixels)
    kernel = np.arange(7 * 13).reshape(7, 13)
    np.save(tmp_path / "kernel.npy", kernel)
    _, values = apply(tmp_path / "image.npy", tmp_path / "kernel.npy", "--mode", mode, "--cval", "-3")
    oracle.assert_same_values(values, expected_values(pixels, kernel, MODES[mode], -3))
    oracle.assert_same_values(values, ndimage.correlate(pixels.astype(float), kernel, mode=mode, cval=-3))


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (np.uint8, np.float32),
        (np.int8, np.float32),
        (np.uint16, np.float32),
        (">u2", np.float32),
        (np.int32, np.float64),
        (np.uint64, np.float64),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (">f4", np.float32),
        (np.float64, np.float64),
    ],
)
def test_dtypes_of_arrays(apply, tmp_path, dtype, result):
    pixels = np.random.default_rng(0).integers(0, 99, (5, 6)).astype(dtype)
    np.save(tmp_path / "image.npy", pixels)
    _, values = apply(tmp_path / "image.npy", "1,2,3")
    oracle.assert_same_bits(values, expected_values(pixels, np.array([[1, 2, 3]])).astype(result))


def test_booleans_are_black_and_white(apply, tmp_path):
    pixels = pattern(5, 6) > 128
    np.save(tmp_path / "image.npy", pixels)
    printed, values = apply(tmp_path / "image.npy", "identity", output="out.png")
    oracle.assert_same_values(values, np.where(pixels, 255, 0))
    assert "uint8" in printed


# ---- image files ----


def png(pixels, **options):
    return lambda path: Image.fromarray(pixels).save(path, format="PNG", **options)


def tiff(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, **options)


def palette(transparent):
    def write(path):
        image = Image.new("P", (9, 8))
        image.putpalette([0, 0, 0, 255, 0, 0, 10, 20, 30, 255, 255, 255])
        image.putdata((pattern(8, 9) % 4).ravel().tolist())
        image.save(path, format="PNG", **({"transparency": 2} if transparent else {}))

    return write


COLOURS = np.array([[0, 0, 0], [255, 0, 0], [10, 20, 30], [255, 255, 255]], np.uint8)[pattern(8, 9) % 4]
BILEVEL = pattern(8, 9) > 99
FLOATS = pattern(8, 9, dtype=np.float32)

FILES = {
    "grey": (png(pattern(8, 9)), pattern(8, 9), None),
    "grey 16": (png(pattern(8, 9, dtype=np.uint16)), pattern(8, 9, dtype=np.uint16), None),
    "grey, alpha": (png(pattern(8, 9, 2)), pattern(8, 9, 2)[..., 0], pattern(8, 9, 2)[..., 1]),
    "RGB": (png(pattern(8, 9, 3)), pattern(8, 9, 3), None),
    "RGBA": (png(pattern(8, 9, 4)), pattern(8, 9, 4)[..., :3], pattern(8, 9, 4)[..., 3]),
    "bilevel": (png(BILEVEL), BILEVEL * np.uint8(255), None),
    "palette": (palette(False), COLOURS, None),
    "palette, alpha": (palette(True), COLOURS, np.where(pattern(8, 9) % 4 == 2, 0, 255).astype(np.uint8)),
    "TIFF grey": (tiff(pattern(8, 9)), pattern(8, 9), None),
    "TIFF 16": (tiff(pattern(8, 9, dtype=np.uint16)), pattern(8, 9, dtype=np.uint16), None),
    "TIFF 16, big-endian": (
        tiff(pattern(8, 9, dtype=np.uint16), byteorder=">"),
        pattern(8, 9, dtype=np.uint16),
        None,
    ),
    "TIFF RGB 16": (
        tiff(pattern(8, 9, 3, dtype=np.uint16), photometric="rgb"),
        pattern(8, 9, 3, dtype=np.uint16),
        None,
    ),
    "TIFF RGBA 16": (
        tiff(pattern(8, 9, 4, dtype=np.uint16), photometric="rgb", extrasamples=["unassalpha"]),
        pattern(8, 9, 4, dtype=np.uint16)[..., :3],
        pattern(8, 9, 4, dtype=np.uint16)[..., 3],
    ),
    "TIFF grey, alpha": (
        tiff(pattern(8, 9, 2), photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
        pattern(8, 9, 2)[..., 0],
        pattern(8, 9, 2)[..., 1],
    ),
    "TIFF planes": (
        tiff(np.moveaxis(pattern(8, 9, 3), -1, 0), photometric="rgb", planarconfig="separate"),
        pattern(8, 9, 3),
        None,
    ),
    "TIFF bands": (
        tiff(pattern(8, 9, 5), photometric="minisblack", planarconfig="contig"),
        pattern(8, 9, 5),
        None,
    ),
    "TIFF float": (tiff(FLOATS), FLOATS, None),
    "TIFF float64": (tiff(100 * FLOATS.astype(np.float64)), 100 * FLOATS.astype(np.float64), None),
    "TIFF int16": (tiff(pattern(8, 9, dtype=np.int16) - 99), pattern(8, 9, dtype=np.int16) - 99, None),
    "TIFF bilevel": (tiff(BILEVEL, photometric="minisblack"), BILEVEL * np.uint8(255), None),
    "TIFF bilevel, white is 0": (tiff(BILEVEL, photometric="miniswhite"), ~BILEVEL * np.uint8(255), None),
    "TIFF white is 0": (tiff(pattern(8, 9), photometric="miniswhite"), 255 - pattern(8, 9), None),
    "TIFF palette": (
        tiff(
            pattern(8, 9) % 4,
            photometric="palette",
            colormap=np.pad([[0, 255, 10, 255], [0, 0, 20, 255], [0, 0, 30, 255]], [(0, 0), (0, 252)]).astype(
                np.uint16
            )
            * 257,
        ),
        COLOURS,
        None,
    ),
    "TIFF zlib": (tiff(pattern(8, 9), compression="zlib", predictor=True), pattern(8, 9), None),
    "TIFF LZW": (
        lambda path: Image.fromarray(pattern(8, 9, 3)).save(path, format="TIFF", compression="tiff_lzw"),
        pattern(8, 9, 3),
        None,
    ),
    "TIFF pages": (
        tiff(np.stack([pattern(8, 9), 0 * pattern(8, 9)]), photometric="minisblack"),
        pattern(8, 9),
        None,
    ),
    "BMP": (lambda path: Image.fromarray(pattern(8, 9, 3)).save(path, format="BMP"), pattern(8, 9, 3), None),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file(apply, tmp_path, kind):
    write, colours, alpha = FILES[kind]
    write(tmp_path / "image")  # without a suffix: the content says what it is
    picture = cli.read_image(tmp_path / "image")
    oracle.assert_same_bits(picture.pixels, np.atleast_3d(colours))
    assert (picture.alpha is None) == (alpha is None)

    # Untouched by the identity, at any stride, and alpha with it.
    wanted = colours if alpha is None else np.dstack([colours, alpha])
    for stride in (1, 2):
        _, values = apply(tmp_path / "image", "identity", "--stride", stride)
        oracle.assert_same_values(values, wanted[::stride, ::stride])
    if colours.dtype in (np.uint8, np.uint16):
        printed, values = apply(tmp_path / "image", "identity", output="out.tif")
        oracle.assert_same_bits(values, wanted)
        assert "rounded to whole numbers" in printed

    # Filtered as each channel would be; alpha stays.
    kernel = np.array([[1, 0, 2], [-3, 1, 0]])
    _, values = apply(tmp_path / "image", "1,0,2;-3,1,0", "--stride", 2)
    filtered = expected_values(colours, kernel, stride=2)
    wanted = filtered if alpha is None else np.dstack([filtered, alpha[::2, ::2]])
    np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "kind", ["grey", "grey, alpha", "RGB", "RGBA", "bilevel", "palette, alpha", "TIFF grey"]
)
def test_8_bit_files_survive_the_identity_as_png(apply, tmp_path, kind):
    write, colours, alpha = FILES[kind]
    write(tmp_path / "image.png")
    _, values = apply(tmp_path / "image.png", "identity", output="out.png")
    oracle.assert_same_bits(values, colours if alpha is None else np.dstack([colours, alpha]))


def test_16_bit_grey_stays_16_bit_as_png(apply, tmp_path):
    pixels = pattern(8, 9, dtype=np.uint16)
    png(pixels)(tmp_path / "image.png")
    _, values = apply(tmp_path / "image.png", "identity", output="out.png")
    oracle.assert_same_bits(values, pixels)


def test_16_bit_colour_becomes_8_bit_as_png(apply, tmp_path):
    pixels = pattern(8, 9, 4, dtype=np.uint16)
    tiff(pixels, photometric="rgb", extrasamples=["unassalpha"])(tmp_path / "image.tif")
    printed, values = apply(tmp_path / "image.tif", "identity", output="out.png")
    oracle.assert_same_bits(values, np.rint(pixels / 257).astype(np.uint8))
    assert "values 0..65535 mapped linearly to 0..255" in printed


def test_bands_go_to_tiff_but_not_to_png(apply, command, tmp_path):
    FILES["TIFF bands"][0](tmp_path / "image.tif")
    _, values = apply(tmp_path / "image.tif", "identity", output="out.tif")
    oracle.assert_same_bits(values, pattern(8, 9, 5))
    status, _, errors = command(
        "filter", tmp_path / "image.tif", "--kernel=box:3", "--output", tmp_path / "x.png"
    )
    assert status == 2 and errors.count("\n") == 1
    assert "a PNG has 1 or 3 channels, not 5; write a .tif or .npy" in errors
    assert not (tmp_path / "x.png").exists()


def test_alpha_written_to_tiff_is_read_as_alpha(apply, tmp_path):
    for name in ("grey, alpha", "RGBA"):
        write, colours, alpha = FILES[name]
        write(tmp_path / "image.png")
        apply(tmp_path / "image.png", "identity", output="out.tif")
        picture = cli.read_image(tmp_path / "out.tif")
        oracle.assert_same_bits(picture.pixels, np.atleast_3d(colours))
        oracle.assert_same_bits(picture.alpha, alpha)


def test_a_photograph_held_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    png(pattern(8, 9), exif=exif)(tmp_path / "image.png")
    assert cli.read_image(tmp_path / "image.png").pixels.shape == (9, 8, 1)


def test_cmyk_is_read_as_rgb(tmp_path):
    Image.fromarray(pattern(8, 9, 3)).convert("CMYK").save(tmp_path / "image.jpg")
    assert cli.read_image(tmp_path / "image.jpg").pixels.shape == (8, 9, 3)


def test_what_is_lost_in_reading_is_said(apply, tmp_path):
    FILES["TIFF pages"][0](tmp_path / "image.tif")
    printed, _ = apply(tmp_path / "image.tif", "identity")
    assert "note: the first of 2 pages is taken" in printed
    frames = [Image.fromarray(pattern(8, 9)), Image.fromarray(255 - pattern(8, 9))]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    printed, _ = apply(tmp_path / "image.gif", "identity")
    assert "note: the first of 2 frames is taken" in printed


def test_16_bit_colour_that_pillow_halves_is_said(apply, tmp_path):
    import struct
    import zlib

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    pixels = pattern(4, 5, 3, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    (tmp_path / "image.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    printed, values = apply(tmp_path / "image.png", "identity")
    oracle.assert_same_values(values, pixels >> 8)
    assert "note: Pillow reads 16-bit colour as 8 bits" in printed


@pytest.mark.parametrize(
    ("image", "options", "output"),
    [
        ("a.png", [], "a-filtered.png"),
        ("a.jpg", [], "a-filtered.png"),
        ("a.tif", [], "a-filtered.tif"),
        ("a.b.TIFF", [], "a.b-filtered.tiff"),
        ("a.npy", [], "a-filtered.npy"),
        ("a.png", ["--scale=none"], "a-filtered.tif"),
    ],
)
def test_the_default_output_lies_beside_the_image(command, tmp_path, image, options, output):
    path = tmp_path / image
    if path.suffix == ".npy":
        np.save(path, pattern(5, 6))
    else:
        Image.fromarray(pattern(5, 6)).save(path)
    status, printed, _ = command("filter", path, "--kernel=box:3", *options)
    assert status == 0
    assert f"wrote {tmp_path / output}: 6 x 5, " in printed
    assert cli.read_image(tmp_path / output).pixels.shape == (5, 6, 1)


# ---- values and pixels ----


@pytest.mark.parametrize(
    ("values", "dtype", "nominal", "scale", "pixels", "sentence"),
    [
        ([3, 250.4], "uint8", (0, 255), "auto", [3, 250], "values 3..250.4 rounded to whole numbers"),
        ([-0.4, 255.4], "uint8", (0, 255), "auto", [0, 255], "values -0.4..255.4 rounded to whole numbers"),
        ([-812, 640], "uint8", (0, 255), "auto", [0, 255], "values -812..640 mapped linearly to 0..255"),
        ([0, 5, 510], "uint8", (0, 255), "auto", [0, 2, 255], "values 0..510 mapped linearly to 0..255"),
        ([0, 70000], "uint16", (0, 65535), "auto", [0, 65535], "values 0..70000 mapped linearly to 0..65535"),
        ([0.2, 1], "uint8", (0, 1), "auto", [51, 255], "values 0.2..1, 0..1 mapped linearly to 0..255"),
        ([-1, 1], "uint8", (0, 1), "auto", [0, 255], "values -1..1 mapped linearly to 0..255"),
        ([300, 300], "uint8", (0, 255), "auto", [0, 0], "values 300..300 mapped linearly to 0..255"),
        ([-8, 8], "float32", (0, 1), "auto", [-8, 8], "values -8..8 kept as they are"),
        ([-8, 8], "float32", (0, 1), "none", [-8, 8], "values -8..8 kept as they are"),
        (
            [-8, 0, 8, 9],
            "float32",
            (0, 8),
            "clip",
            [0, 0, 8, 8],
            "values -8..9 clipped to 0..8 (50% lay outside)",
        ),
        ([1, 8], "float32", (0, 8), "clip", [1, 8], "values 1..8 kept as they are"),
        (
            [-8, 0, 8, 300],
            "uint8",
            (0, 255),
            "clip",
            [0, 0, 8, 255],
            "values -8..300 clipped to 0..255 (50% lay outside) rounded to whole numbers",
        ),
        (
            [-1, 0.2, 2, 1],
            "uint8",
            (0, 1),
            "clip",
            [0, 51, 255, 255],
            "values -1..2 clipped to 0..1 (50% lay outside), 0..1 mapped linearly to 0..255",
        ),
        (
            [np.nan, 1, np.inf, -np.inf, 3],
            "uint8",
            (0, 255),
            "auto",
            [0, 1, 255, 0, 3],
            "values 1..3 rounded to whole numbers; 3 not finite",
        ),
        ([np.nan], "uint8", (0, 255), "auto", [0], "values 0..0 rounded to whole numbers; 1 not finite"),
    ],
)
def test_to_pixels(values, dtype, nominal, scale, pixels, sentence):
    result, said = cli.to_pixels(np.array(values, np.float64), np.dtype(dtype), nominal, scale)
    oracle.assert_same_bits(result, np.array(pixels, dtype))
    assert said == sentence


def test_a_blur_keeps_its_brightness_and_edges_are_stretched(apply, tmp_path):
    pixels = np.full((20, 20), 255, np.uint8)
    pixels[:, :10] = 200
    Image.fromarray(pixels).save(tmp_path / "image.png")
    printed, values = apply(tmp_path / "image.png", "gaussian:sigma=1", output="out.png")
    assert "rounded to whole numbers" in printed
    assert (values[:, 0] == 200).all() and (values[:, -1] == 255).all()
    printed, values = apply(tmp_path / "image.png", "sobel", output="out.png")
    assert "values 0..220 rounded to whole numbers" in printed
    printed, values = apply(tmp_path / "image.png", "1,0,-1", output="out.png")
    assert "values -55..0 mapped linearly to 0..255" in printed
    assert values[0, 9] == 0 and values[0, 0] == 255
    printed, values = apply(tmp_path / "image.png", "1,0,-1", "--scale=clip", output="out.png")
    assert "values -55..0 clipped to 0..255 (10% lay outside)" in printed
    assert not values.any()


def test_scale_none_keeps_every_value_in_a_tiff(apply, tmp_path):
    pixels = pattern(8, 9)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    _, values = apply(tmp_path / "image.png", "-1,0,1", "--scale=none", output="out.tif")
    oracle.assert_same_bits(values, expected_values(pixels, np.array([[-1, 0, 1]])).astype(np.float32))


# ---- failures ----


def broken(content):
    return lambda path: path.write_bytes(content)


def truncated(kind, share):
    def write(path):
        FILES[kind][0](path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return write


@pytest.mark.parametrize(
    "write",
    [
        broken(b""),
        broken(b"not an image at all\n" * 9),
        broken(b"\x89PNG\r\n\x1a\n"),
        broken(b"\x89PNG\r\n\x1a\n" + bytes(99)),
        broken(b"\xff\xd8\xff\xe0" + bytes(99)),
        broken(b"II*\0"),
        broken(b"II*\0" + b"\xff" * 99),
        broken(b"MM\0*" + bytes(99)),
        broken(b"II+\0" + bytes(99)),
        broken(b"\x93NUMPY"),
        broken(b"\x93NUMPY\1\0v\0{'descr': '<f8'"),
        truncated("RGB", 0.7),
        truncated("grey 16", 0.6),
        truncated("TIFF RGB 16", 0.7),
        truncated("TIFF LZW", 0.5),
        truncated("TIFF zlib", 0.5),
        truncated("BMP", 0.5),
        lambda path: np.save(open(path, "wb"), np.ones(5)),
        lambda path: np.save(open(path, "wb"), np.ones((2, 3, 4, 5))),
        lambda path: np.save(open(path, "wb"), np.ones((0, 5))),
        lambda path: np.save(open(path, "wb"), np.ones((4, 5)) * 1j),
        lambda path: np.save(open(path, "wb"), np.array([["a", "b"]])),
        lambda path: np.save(open(path, "wb"), np.array([[{}, None]]), allow_pickle=True),
        lambda path: tifffile.imwrite(path, np.ones((4, 5), np.complex64)),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
)
def test_a_broken_image_ends_with_one_line(command, tmp_path, write):
    image = tmp_path / "image.png"
    write(image)
    status, printed, errors = command("filter", image, "--kernel", "sobel", "--output", tmp_path / "out.png")
    assert (status, printed) == (2, "")
    assert errors.startswith(f"pyconv: error: cannot read {image}: ") and errors.count("\n") == 1
    assert len(errors) > len(f"pyconv: error: cannot read {image}: \n")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "nowhere/out.png"], "cannot write nowhere/out.png: there is no folder nowhere"),
        (["--output", "folder.png"], "cannot write folder.png: Is a directory; --output names another place"),
        (["--output", "folder.tif"], "cannot write folder.tif: Is a directory; --output names another place"),
        (["--output", "folder.npy"], "cannot write folder.npy: Is a directory; --output names another place"),
        (["--output", "image.png/out.png"], "cannot write image.png/out.png: there is no folder image.png"),
        (["--output", "x" * 300 + ".png"], ".png: File name too long; --output names another place"),
        (["--output", "out.jpg"], "--output out.jpg must end in .png, .tif, .tiff or .npy"),
        (["--output", "out"], "--output out must end in .png, .tif, .tiff or .npy"),
        (
            ["--output", "out.png", "--scale", "none"],
            "out.png cannot hold --scale none: a PNG has whole numbers",
        ),
        (["--scale", "log"], "argument --scale: invalid choice: 'log'"),
        (["--mode", "zeros"], "argument --mode: invalid choice: 'zeros'"),
        (["--stride", "0"], "argument --stride: must be a whole number from 1, got '0'"),
        (["--stride", "-1"], "argument --stride: must be a whole number from 1, got '-1'"),
        (["--stride", "1.5"], "argument --stride: must be a whole number from 1, got '1.5'"),
        (["--cval", "x"], "argument --cval: invalid float value: 'x'"),
        (["--kernell", "x"], "unrecognized arguments: --kernell x"),
        (["--out", "x.png"], "unrecognized arguments: --out x.png"),
    ],
)
def test_wrong_options_end_with_one_line(command, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pattern(5, 6)).save("image.png")
    for suffix in (".png", ".tif", ".npy"):
        Path(f"folder{suffix}").mkdir()
    before = sorted(tmp_path.iterdir())
    status, _, errors = command("filter", "image.png", "--kernel", "sobel", *options)
    assert status == 2
    assert errors.startswith("pyconv: error: ") and errors.count("\n") == 1
    assert message in errors
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: "),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (
            ["filter"],
            "the following arguments are required: IMAGE, --kernel (pyconv filter --help says more)",
        ),
        (["filter", "a.png"], "the following arguments are required: --kernel"),
        (["info", "more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_commands_end_with_one_line(command, arguments, message):
    status, printed, errors = command(*arguments)
    assert (status, printed) == (2, "")
    assert errors.startswith("pyconv: error: ") and errors.count("\n") == 1
    assert message in errors


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (
            "PIL",
            ["filter", "image.png", "--kernel=sobel"],
            "reading an image file needs Pillow, which is not",
        ),
        (
            "tifffile",
            ["filter", "image.tif", "--kernel=sobel"],
            "reading a TIFF needs tifffile, which is not",
        ),
        (
            "PIL",
            ["filter", "i.npy", "--kernel=sobel", "--output=o.png"],
            "writing a PNG needs Pillow, which is not",
        ),
        (
            "tifffile",
            ["filter", "i.npy", "--kernel=sobel", "--output=o.tif"],
            "writing a TIFF needs tifffile, which",
        ),
        ("skimage", ["demo"], "pyconv demo needs scikit-image, which is not installed"),
        ("matplotlib", ["demo"], "pyconv demo needs matplotlib, which is not installed"),
    ],
)
def test_a_missing_package_is_named(command, tmp_path, monkeypatch, module, arguments, message):
    if module == "matplotlib":
        pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pattern(5, 6)).save("image.png")
    tifffile.imwrite("image.tif", pattern(5, 6))
    np.save("i.npy", pattern(5, 6))
    before = sorted(tmp_path.iterdir())
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    status, _, errors = command(*arguments)
    assert status == 2
    assert errors.startswith("pyconv: error: ") and errors.count("\n") == 1
    assert message in errors
    assert 'pip install ".[demo]"' in errors
    assert sorted(tmp_path.iterdir()) == before


def test_arrays_need_no_other_package(tmp_path, run_python):
    np.save(tmp_path / "image.npy", pattern(5, 6))
    script = """
import sys
for name in ("PIL", "tifffile", "skimage", "matplotlib", "scipy", "imageio"):
    sys.modules[name] = None
from pyconv import cli
sys.exit(cli.main(["filter", "image.npy", "--kernel", "sobel"]))
"""
    assert "wrote image-filtered.npy" in run_python(script)


# ---- in a process of its own ----


def test_a_process_of_its_own(tmp_path):
    Image.fromarray(pattern(30, 40)).save(tmp_path / "image.png")
    process = start("filter", "image.png", "--kernel", "-1,0,1;-2,0,2;-1,0,1", cwd=tmp_path)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    lines = printed.splitlines()
    assert lines[0] == "image.png: 40 x 30 pixels, 1 channel, uint8"
    assert lines[1] == "kernel -1,0,1;-2,0,2;-1,0,1: 3 x 3, mode reflect, stride 1"
    assert lines[2].startswith("filtered in ") and " ms (" in lines[2]
    assert lines[3].startswith("values -") and lines[3].endswith(" mapped linearly to 0..255")
    assert lines[4:] == ["wrote image-filtered.png: 40 x 30, uint8"]
    assert np.asarray(Image.open(tmp_path / "image-filtered.png")).shape == (30, 40)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_file_name_that_is_not_text(tmp_path):
    name = os.fsdecode(b"\xff.npy")
    np.save(tmp_path / name, pattern(5, 6))
    process = start("filter", name, "--kernel=sobel", cwd=tmp_path)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "wrote \\udcff-filtered.npy" in printed


def test_failure_in_a_process_of_its_own(tmp_path):
    process = start("filter", "nothing.png", "--kernel=sobel", cwd=tmp_path)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, printed) == (2, "")
    assert errors == "pyconv: error: cannot read nothing.png: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["filter", "--help"], ["demo", "--help"], ["info", "--help"]]
)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert done.value.code == 0
    printed, errors = capsys.readouterr()
    assert printed.startswith("usage: pyconv") and not errors


def test_info_is_show_config(command, capfd):
    status, printed, errors = command("info")
    assert (status, errors) == (0, "")
    pyconv.show_config()
    assert printed == capfd.readouterr().out
    assert "workers" in printed.lower()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_quiet(tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    process = start("demo", cwd=tmp_path)
    process.stdout.readline()  # it is at work
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_leaves_is_no_error():
    process = start("info")
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_printed():
    with open("/dev/full", "w") as full:
        process = start("info", stdout=full)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors == "pyconv: error: cannot print: No space left on device\n"


# ---- learning ----


@pytest.fixture
def learn(command, tmp_path):
    """Save two images, learn the kernel between them; return what was printed and the kernel read back."""

    def run(image, target, *options):
        np.save(tmp_path / "image.npy", image)
        np.save(tmp_path / "target.npy", target)
        status, printed, errors = command(
            "learn", tmp_path / "image.npy", tmp_path / "target.npy", "--output", tmp_path / "k.npy", *options
        )
        assert (status, errors) == (0, "")
        assert f"wrote {tmp_path}/k.npy" in printed
        return printed, np.load(tmp_path / "k.npy")

    return run


@pytest.mark.parametrize("solver", ["exact", "descent"])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (30, 40, 2)])
def test_learn_finds_the_kernel_of_filter(learn, command, tmp_path, solver, shape):
    pixels, kernel = pattern(*shape), np.array([[1.0, -2, 3], [0.5, 0, 0]])
    np.save(tmp_path / "image.npy", pixels)
    assert command("filter", tmp_path / "image.npy", "--kernel=1,-2,3;.5,0,0", "--output", tmp_path / "f.npy")[0] == 0
    printed, found = learn(pixels, np.load(tmp_path / "f.npy"), "--size", "2x3", "--solver", solver)
    assert found.shape == (2, 3)
    assert np.abs(found - kernel).max() <= (1e-5 if solver == "exact" else 1e-2)
    assert "KernelFit: 2 x 3 kernel by " in printed and "rank 6 of 6" in printed
    status, _, _ = command("filter", tmp_path / "image.npy", "--kernel", tmp_path / "k.npy")
    assert status == 0


def test_learn_from_a_valid_target_with_a_bias(learn):
    pixels = pattern(20, 25)
    target = pyconv.corr2d(pixels.astype(float), np.array([[1.0, -1.0]])) + 7
    printed, found = learn(pixels, target, "--size", "1x2", "--bias")
    np.testing.assert_allclose(found, [[1, -1]], atol=1e-12)
    assert re.search(r"bias \[7\.?", printed)
    printed, found = learn(pixels, target - 7, "--size", "1x2", "--solver", "descent", "--lr", "1e-8", "--steps", "3")
    assert "by 3 steps of descent, lr 1e-08" in printed


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
@pytest.mark.parametrize("solver", ["exact", "descent"])
def test_learn_plots(learn, tmp_path, shape, solver):
    pytest.importorskip("matplotlib")
    pixels = pattern(*shape)
    target = np.stack([pyconv.corr2d(c, kernels.box(3)) for c in np.moveaxis(np.atleast_3d(pixels), -1, 0)], -1)
    printed, _ = learn(pixels, target, "--size", "3", "--solver", solver, "--plot", tmp_path / "plot.png")
    assert f"wrote {tmp_path}/plot.png" in printed
    with Image.open(tmp_path / "plot.png") as figure:
        assert figure.size[0] == 1600
        assert len(np.unique(np.asarray(figure.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_learn_notes_what_the_images_leave_open(learn):
    printed, found = learn(np.ones((9, 9)), np.ones((9, 9)), "--size", "3x3")
    assert "note: the images determine only 1 of the 9 weights" in printed
    np.testing.assert_allclose(found, np.full((3, 3), 1 / 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "3y3"], "argument --size: must be rows x columns from 1, like 3x3, got '3y3'"),
        (["--size", "0x3"], "argument --size: must be rows x columns"),
        (["--size", "3x3x3"], "argument --size: must be rows x columns"),
        ([], "the following arguments are required: --size"),
        (["--size", "30"], "cannot learn: no window of the kernel lies inside"),
        (["--size", "3", "--lr", "1"], "--lr and --steps are for --solver descent"),
        (["--size", "3", "--solver", "descent", "--lr", "-1"], "cannot learn: lr must be above 0"),
        (["--size", "3", "--solver", "descent", "--lr", "1"], "cannot learn: lr=1 exceeds "),
        (["--size", "3", "--solver", "magic"], "argument --solver: invalid choice: 'magic'"),
        (["--size", "3", "--output", "k.txt"], "--output k.txt must end in .npy"),
        (["--size", "3", "--plot", "p.pdf"], "--plot p.pdf must end in .png"),
        (["--size", "3", "--plot", "nowhere/p.png"], "cannot write nowhere/p.png: there is no folder nowhere"),
    ],
)
def test_wrong_learning_ends_with_one_line(command, tmp_path, options, message):
    np.save(tmp_path / "image.npy", pattern(12, 13))
    status, printed, errors = command("learn", tmp_path / "image.npy", tmp_path / "image.npy", *options)
    assert status == 2
    assert errors.startswith("pyconv: error: ") and errors.count("\n") == 1 and message in errors


def test_learn_refuses_images_of_different_channels_or_no_image(command, tmp_path):
    np.save(tmp_path / "grey.npy", pattern(12, 13))
    np.save(tmp_path / "colour.npy", pattern(12, 13, 3))
    status, _, errors = command("learn", tmp_path / "colour.npy", tmp_path / "grey.npy", "--size", "3")
    assert status == 2 and "must have as many channels, got 3 and 1" in errors
    status, _, errors = command("learn", tmp_path / "grey.npy", tmp_path / "none.npy", "--size", "3")
    assert status == 2 and "cannot read" in errors
