"""docs/coming-from.md: both sides of every line of its tables are run and compared."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
SETUP, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)


def code_block(text):
    return re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL).group(1)


def lines_of_tables():
    for section in SECTIONS:
        library = section.split("\n", 1)[0]
        for row in re.findall(r"^\| `(.*?)` \| `(.*?)` \|.*\|$", section, re.MULTILINE):
            yield pytest.param(section, *row, id=f"{library}: {row[0]}")


def names(section=None):
    """What the page's first block of code defines, and a section's own for the library's side."""
    namespace = {}
    exec(code_block(SETUP), namespace)
    if section is not None:
        try:
            exec(code_block(section), namespace)
        except ImportError as error:
            pytest.skip(f"not installed: {error.name}")
    return namespace


@pytest.mark.parametrize(("section", "theirs", "ours"), list(lines_of_tables()))
def test_both_sides_agree(section, theirs, ours):
    expected = np.asarray(eval(theirs, names(section)))
    actual = np.asarray(eval(ours, names()))
    assert actual.shape == expected.shape
    if expected.dtype.kind in "iu":
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    else:
        # Sums of up to 50 products of numbers near 1, and unsharp masks of these: of the largest, in float32.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1, np.nanmax(np.abs(expected))))
    # No line may pass because nothing happens.
    assert np.nanmax(expected) - np.nanmin(expected) > 0.05


def test_every_row_is_found():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(list(lines_of_tables())) == len(rows) > 50
    libraries = [section.split("\n", 1)[0] for section in SECTIONS]
    assert libraries == ["SciPy", "OpenCV", "scikit-image", "PyTorch", "astropy"]
