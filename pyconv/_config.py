"""What was built, and what of it is in use."""
from importlib import metadata

from pyconv import _workers, engine


def show_config():
    """Print the version, the instruction-set level in use and those available, compiler, OpenMP and workers.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.show_config()  # doctest: +ELLIPSIS
    pyconv ...
    """
    try:
        version = metadata.version("pyconv-cpu")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    openmp = f"yes ({engine.openmp})" if engine.openmp else "no: this build runs on one thread"
    print(f"pyconv {version}\n"
          f"instruction set  {engine.level} (available: {', '.join(engine.levels)})\n"
          f"compiler         {engine.compiler}\n"
          f"OpenMP           {openmp}\n"
          f"workers          {_workers.get_workers()}")
