"""Fixtures and settings shared by all tests.

The instruction-set level is fixed when the process starts (PYCONV_ISA), so the whole suite runs once a level.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import pyconv

# A shell that starts the tests in the background has them ignore Ctrl-C, which the programs they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
# For a long search by hand: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_report_header(config):
    return f"pyconv: {Path(pyconv.__file__).parent}, PYCONV_ISA={os.environ.get('PYCONV_ISA', '(automatic)')}"


@pytest.fixture(params=(1, 2, 3))
def threads(request):
    """A number of threads for workers=; more than this machine has must work as well."""
    return request.param


@pytest.fixture(scope="session")
def isa():
    """The instruction-set level this process was forced to, or None where it was left to choose."""
    return os.environ.get("PYCONV_ISA") or None


@pytest.fixture
def run_python(tmp_path):
    """Run a script in a fresh interpreter that imports this very pyconv; return its standard output.

    For what cannot be tried in this process: peak memory, signals, forks, crashes, what an import brings.
    A variable of `env` that is None is removed from the environment.
    """
    package_root = Path(pyconv.__file__).resolve().parents[1]
    tests = Path(__file__).resolve().parent

    def run(script, *arguments, check=True, timeout=120, env=None):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package_root), str(tests)])}
        environment.update(env or {})
        environment = {name: value for name, value in environment.items() if value is not None}
        command = [sys.executable, "-c", script, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(
            command, **pipes, env=environment, cwd=tmp_path, start_new_session=True
        ) as child:
            try:
                output, errors = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                # The script's own children hang with it: its whole session ends here.
                os.killpg(child.pid, signal.SIGKILL)
                raise
        if not check:
            return subprocess.CompletedProcess(command, child.returncode, output, errors)
        assert child.returncode == 0, f"exit status {child.returncode}\n{output}\n{errors}"
        return output

    return run
