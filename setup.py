"""Builds the kernels: one source, compiled once for each computing dtype and instruction-set level.

Everything else about the package is in pyproject.toml.
"""
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ENGINE = Path("pyconv", "engine")
STUBS = Path("build", "stubs")
DTYPES = {"f32": "PYCONV_F32", "f64": "PYCONV_F64", "i64": "PYCONV_I64"}
KERNELS = {                          # sources, and the dtypes each computes in
    "direct": ("f32", "f64", "i64"),
    "deform": ("f32", "f64"),
    "separable": ("f32", "f64"),
    "missing": ("f32", "f64"),
}

# Levels, lowest first: the flags that compile for them. pyconv/engine/__init__.py picks the highest that runs.
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS = {
        "baseline": [],
        "v3": ["-march=x86-64-v3"],
        "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
else:
    LEVELS = {"baseline": []}

FLAGS = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-g0"]
DIRECTIVES = dict(language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False,
                  embedsignature=False, binding=False)


def stub(name, source):
    """A .pyx of its own for each module, since Cython wants one file a module name: one include line."""
    path = STUBS / f"{name}.pyx"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f'include "{source}"\n'
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


def kernel_extensions():
    depends = [str(p) for p in sorted(ENGINE.glob("*.px[di]")) + sorted(ENGINE.glob("*.h"))]
    for level, flags in LEVELS.items():
        for kernel, dtype in ((kernel, dtype) for kernel, dtypes in KERNELS.items() for dtype in dtypes):
            name, source = f"_{kernel}_{dtype}_{level}", f"{kernel}.pyx"
            yield Extension(
                f"pyconv.engine.{name}", [stub(name, source)], include_dirs=[str(ENGINE), numpy.get_include()],
                define_macros=[(DTYPES[dtype], "1"), ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
                               ("CYTHON_INLINE", "inline __attribute__((always_inline))")],
                extra_compile_args=FLAGS + flags, depends=[*depends, str(ENGINE / source)])


def openmp_flags(compiler):
    """The compile and link flags for OpenMP, found by compiling; None where there is no OpenMP."""
    candidates = [(["-fopenmp"], ["-fopenmp"])]
    if sys.platform == "darwin":
        prefix = os.environ.get("LIBOMP_PREFIX", "/opt/homebrew/opt/libomp")
        candidates.append((["-Xpreprocessor", "-fopenmp", f"-I{prefix}/include"], [f"-L{prefix}/lib", "-lomp"]))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "openmp.c")
        source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
        for compile_flags, link_flags in candidates:
            command = [*compiler, str(source), *compile_flags, *link_flags, "-o", str(Path(folder, "openmp"))]
            try:
                if subprocess.run(command, capture_output=True).returncode == 0:
                    return compile_flags, link_flags
            except OSError:
                return None
    return None


class BuildKernels(build_ext):
    """build_ext that compiles in parallel and with OpenMP where there is one."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
        found = openmp_flags(compiler)
        if found is None:
            print("pyconv: this compiler has no OpenMP; the kernels are built for one thread", file=sys.stderr)
        else:
            for extension in self.extensions:
                extension.extra_compile_args += found[0]
                extension.extra_link_args += found[1]
        super().build_extensions()


def extensions():
    cpu = Extension("pyconv.engine._cpu", [str(ENGINE / "_cpu.pyx")], extra_compile_args=["-O2", "-g0"])
    recall = Extension("pyconv.engine._recall", [str(ENGINE / "_recall.pyx")], include_dirs=[numpy.get_include()],
                       define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
                       extra_compile_args=["-O2", "-g0"])
    return cythonize([cpu, recall, *kernel_extensions()], nthreads=os.cpu_count() or 1, include_path=[str(ENGINE)],
                     compiler_directives=DIRECTIVES, quiet=True)


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
