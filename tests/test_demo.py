"""The demonstration: its figure, its table, its kernels, and its agreement with SciPy."""

import re

import numpy as np
import oracle
import pytest

from pyconv import cli, demo, kernels

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")
data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def photographs():
    return data.camera() / np.float32(255), data.astronaut() / np.float32(255)


@pytest.fixture
def one_run(monkeypatch):
    """Time a single run of everything, and learn a small kernel: how long it took is not looked at here."""
    monkeypatch.setattr(demo, "SHAKE", 5)
    monkeypatch.setattr(demo, "learn", lambda photograph, learn=demo.learn: learn(photograph[::2, ::2]))
    times = demo.best_times
    monkeypatch.setattr(demo, "best_times", lambda functions: times(functions, rounds=1, seconds=1e-9))


def test_demo_writes_a_figure_and_a_table(one_run, tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path / "some" / "folder")]) == 0
    printed, errors = capsys.readouterr()
    assert not errors
    for name in (
        "horizontal edges",
        "vertical edges",
        "Sobel magnitude",
        "Laplacian",
        "Gaussian blur",
        "bank of 8",
    ):
        (line,) = [line for line in printed.splitlines() if line.startswith(name)]
        assert re.search(r"\d+\.\d\d +\d+ +\d+\.\d\d +\d+\.\dx", line)
    (line,) = [line for line in printed.splitlines() if line.startswith("largest difference from SciPy: ")]
    # float32 results of sums of up to 363 terms
    assert float(line.split()[4]) <= 365 * 2.0**-24
    folder = tmp_path / "some" / "folder"
    assert printed.endswith(f"wrote {folder}/pyconv-demo.png\nwrote {folder}/pyconv-learn.png\n")
    for name in ("pyconv-demo.png", "pyconv-learn.png"):
        with Image.open(folder / name) as figure:
            assert figure.size[0] == 1600 and 1000 < figure.size[1] < 1450
            colours = np.asarray(figure.convert("RGB").resize((100, 100))).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 1000


def test_default_folder(one_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    assert (tmp_path / "pyconv-demo" / "pyconv-demo.png").exists()


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "folder"):
        assert cli.main(["demo", "--output", str(output)]) == 2
        printed, errors = capsys.readouterr()
        assert (
            errors.startswith(f"pyconv: error: cannot write {output}/pyconv-demo.png: ")
            and errors.count("\n") == 1
        )
        assert not printed


def test_both_solvers_find_the_kernel(monkeypatch, capsys):
    monkeypatch.setattr(demo, "SHAKE", 7)
    demo.learn(data.coffee()[:150, :200] / np.float32(255))
    printed = capsys.readouterr().out
    exact, descent = (float(re.search(rf"{name} +(\S+) +in", printed)[1]) for name in ("fit_kernel", "learn_kernel"))
    assert exact <= 1e-4 and descent <= 0.01
    truth = demo.camera_shake(15)
    assert truth.shape == (15, 15) and truth.min() >= 0 and truth.sum() == pytest.approx(1)


def test_the_bank_is_balanced():
    bank = demo.kernel_bank()
    assert bank.shape == (8, 3, 11, 11)
    np.testing.assert_allclose((bank**2).sum(axis=(1, 2, 3)), 1, rtol=1e-14)
    assert np.abs(bank.sum(axis=(2, 3))).max() <= 123 * 2.0**-53


def test_the_jobs_do_what_they_say(photographs):
    camera, astronaut = photographs
    camera, astronaut = camera[::16, ::16], astronaut[::16, ::16]
    bank = demo.kernel_bank()
    results = [job.pyconv() for job in demo.jobs(camera, astronaut, bank)]

    def inner(kernel):
        return oracle.correlate(camera[None, None].astype(float), np.array(kernel, float)[None, None])[0, 0]

    horizontal, vertical, magnitude, laplacian, blur, responses = results
    slopes = [inner([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]), inner([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])]
    expected = [
        inner([[-1, -1, -1], [0, 0, 0], [1, 1, 1]]),
        inner([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]),
        np.hypot(*slopes),
        inner([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    ]
    for result, wanted in zip((horizontal, vertical, magnitude, laplacian), expected, strict=True):
        assert np.abs(result[1:-1, 1:-1] - wanted).max() <= 16 * 2.0**-24 * 8
    channels = np.moveaxis(astronaut, -1, 0).astype(float)
    gaussian = kernels.gaussian(4)[None, None]
    wanted = oracle.correlate(channels[:, None], gaussian, padding=[(16, 16)] * 2, boundary="symmetric")
    assert np.abs(blur - np.moveaxis(wanted[:, 0], 0, -1)).max() <= 2 * 35 * 2.0**-24
    wanted = oracle.correlate(channels[None], bank, stride=2, padding=[(5, 5)] * 2, boundary="symmetric")[0]
    assert np.abs(responses - wanted).max() <= 365 * 2.0**-24 * np.abs(bank).sum(axis=(1, 2, 3)).max()
