"""What an import brings along, in which direction modules import each other, the instruction-set levels."""

import ast
import importlib.metadata
import re
import shutil
from pathlib import Path

import pytest

import pyconv

PACKAGE = Path(__file__).resolve().parents[1] / "pyconv"
FUNCTIONS = [
    *("corr2d", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("deform_conv2d", "plan_conv2d", "Plan", "unfold", "fold", "output_size"),
    *("pixel_shuffle", "pixel_unshuffle", "subpixel_conv2d", "Conv2d", "ReLU", "Sequential", "receptive_field"),
    *("set_workers", "get_workers", "show_config", "grad", "ndimage", "signal", "kernels"),
    *("KernelFit", "fit_kernel", "learn_kernel"),
]


# ------------------------------------------------------------------------------------------------
# Importing pyconv


def test_import_brings_nothing_but_numpy(run_python):
    script = """
import sys
import numpy
before = set(sys.modules)
import pyconv
brought = {name.partition(".")[0] for name in set(sys.modules) - before}
# A module without a specification is a name of Cython's own run time, not a package.
foreign = {n for n in brought if getattr(sys.modules.get(n), "__spec__", None) is not None}
print(sorted(foreign - set(sys.stdlib_module_names) - {"numpy", "pyconv"}))
"""
    assert run_python(script) == "[]\n"


def test_import_sets_no_environment_variable(run_python):
    script = """
import os, numpy
before = dict(os.environ)
import pyconv
assert dict(os.environ) == before
"""
    run_python(script)


def test_import_does_not_touch_subnormals(run_python):
    # A library linked with -ffast-math flushes them in the whole process.
    script = """
import numpy, pyconv
pyconv.corr2d(numpy.ones((9, 9), "f4"), numpy.ones((3, 3), "f4"))
assert 5e-324 / 1 == 5e-324 and 1e-310 * 0.1 > 0
assert numpy.float32(1e-45) * numpy.float32(1) > 0
"""
    run_python(script)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_names(name):
    assert name in dir(pyconv)
    assert getattr(pyconv, name).__doc__


def test_all_names_the_public_names():
    assert set(FUNCTIONS) <= set(pyconv.__all__)
    assert not [name for name in pyconv.__all__ if name.startswith("_")]
    assert all(hasattr(pyconv, name) for name in pyconv.__all__)


def test_star_import(run_python):
    run_python("from pyconv import *; corr2d, conv2d, unfold")


def test_importing_the_uncompiled_folder_says_in_one_line_what_to_do(run_python, tmp_path):
    # A clone without its compiled modules, as Python finds it in the working directory.
    bare = tmp_path / "clone" / "pyconv"
    for source in PACKAGE.rglob("*.py"):
        target = bare / source.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    done = run_python("import pyconv", check=False, env={"PYTHONPATH": str(bare.parent)})
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert "pip install" in message
    assert "pip install pyconv" not in message


# ------------------------------------------------------------------------------------------------
# Import directions: public module -> _check -> plan -> engine


def module_name(path):
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(name):
    """The modules of the package that one module imports, at its top or inside a function."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{anchor}.{base}" if base else anchor
            wanted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in wanted:
            while target and target not in MODULES:
                target = target.rpartition(".")[0]
            if target:
                found.add(target)
    return found - {name}


def test_imports_of_finds_all_forms(tmp_path, monkeypatch):
    source = tmp_path / "conv.py"
    source.write_text(
        "import numpy\nimport pyconv.plan\nfrom . import engine\nfrom ._check import x\n"
        "def f():\n    from pyconv.geometry import y\n"
    )
    names = ("pyconv", "pyconv.plan", "pyconv.engine", "pyconv._check", "pyconv.geometry")
    fake = {**dict.fromkeys(names, tmp_path / "__init__.py"), "pyconv.conv": source}
    monkeypatch.setattr("test_imports.MODULES", fake)
    assert imports_of("pyconv.conv") == {"pyconv.plan", "pyconv.engine", "pyconv._check", "pyconv.geometry"}


def test_the_engine_imports_no_module_of_ours():
    for name in MODULES:
        if name.startswith("pyconv.engine"):
            assert all(target.startswith("pyconv.engine") for target in imports_of(name)), name
    outside = re.compile(r"^\s*(?:from|import|cimport)\s+(?:pyconv(?!\.engine\b)|\.\.)", re.MULTILINE)
    assert outside.search("from pyconv import x") and outside.search("    from ..conv cimport x")
    assert not outside.search("from pyconv.engine cimport x")
    for pattern in ("*.pyx", "*.pxd", "*.pxi"):
        for path in (PACKAGE / "engine").rglob(pattern):
            assert not outside.search(path.read_text()), path.name


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("pyconv._workers", {"pyconv._check", "pyconv.engine"}),
        ("pyconv.plan", {"pyconv.engine", "pyconv._workers", "pyconv._check", "pyconv.geometry"}),
        ("pyconv._check", {"pyconv.engine"}),
        ("pyconv.missing", {"pyconv.engine", "pyconv._check"}),
    ],
)
def test_lower_modules_do_not_import_upper_ones(name, allowed):
    if name not in MODULES:
        pytest.skip(f"there is no {name} yet")
    targets = {target for target in imports_of(name) if not target.startswith("pyconv.engine.")}
    # The package itself stands for nothing but its version.
    assert targets - {"pyconv"} <= allowed


def test_no_module_is_imported_in_a_circle():
    graph = {name: {t for t in imports_of(name) if t != "pyconv"} for name in MODULES if name != "pyconv"}
    done = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in graph[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_gradients_stand_on_functions_and_layers_on_both():
    for name in ("conv", "unfold", "subpixel", "geometry", "kernels"):
        assert not imports_of(f"pyconv.{name}") & {"pyconv.grad", "pyconv.layers"}, name
    assert "pyconv.layers" not in imports_of("pyconv.grad")


def test_nothing_imports_the_command():
    assert not [name for name in MODULES if "pyconv.cli" in imports_of(name) and name != "pyconv.__main__"]


def test_no_module_is_named_for_nothing():
    meaningless = re.compile(r"util|helper|misc|common|impl\d")
    assert not [name for name in MODULES if meaningless.search(name)]


# ------------------------------------------------------------------------------------------------
# Instruction-set levels


INTEGERS_BY_LEVEL = """
import numpy as np, pyconv
rng = np.random.default_rng(0)
pyconv.show_config()
print("----")
for dtype in ("f4", "f8", "c8", "f2", "i8", "u1"):
    x, w = (rng.integers(0, 5, shape).astype(dtype) for shape in ((2, 9, 33, 35), (11, 9, 3, 3)))
    y = pyconv.conv2d(x, w, padding=1, workers=2)
    z = pyconv.corr2d(x[0, 0], w[0, 0], stride=2)
    print(y.dtype, *(complex(a.sum(dtype="c16")) for a in (y, y * y, z)))
"""


def test_every_level_gives_the_same_integers(run_python):
    answers = {}
    config = run_python("import pyconv; pyconv.show_config()", env={"PYCONV_ISA": None})
    available = set(re.findall(r"baseline|(?:x86-64-)?\bv\d", config))
    assert "baseline" in available
    for level in available:
        config, _, answers[level] = run_python(INTEGERS_BY_LEVEL, env={"PYCONV_ISA": level}).partition("----")
        in_use = next(line for line in config.splitlines() if "available" in line)
        assert re.search(rf"\b{level}\b", in_use.partition("available")[0])
    assert len(set(answers.values())) == 1


def test_an_unknown_level_is_refused(run_python):
    done = run_python("import pyconv", check=False, env={"PYCONV_ISA": "avx9000"})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "PYCONV_ISA" in last and "avx9000" in last and "baseline" in last


def test_show_config_prints_what_is_in_use(capsys, isa):
    pyconv.show_config()
    text = capsys.readouterr().out
    try:
        assert importlib.metadata.version("pyconv-cpu") in text
    except importlib.metadata.PackageNotFoundError:
        pass  # built in place, without an installation that has a version
    assert isa is None or isa in text
    assert "baseline" in text
    assert re.search(r"(?i)openmp", text)
    assert re.search(r"(?i)workers", text)
    assert re.search(r"(?i)compiler|gcc|clang", text)
