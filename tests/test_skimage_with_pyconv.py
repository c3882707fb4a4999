"""scikit-image on pyconv: its filters give the same pictures when pyconv's functions stand in for SciPy's.

`pyconv_in_place_of_scipy` is all that it takes. Run as a script, this file prints what each filter took on both, and
how far the pictures are apart.
"""

from __future__ import annotations

import contextlib
import sys
import time
from unittest import mock

import numpy as np
import pytest

from pyconv import ndimage

scipy_ndimage = pytest.importorskip("scipy.ndimage")
skimage = pytest.importorskip("skimage", reason="scikit-image is not installed")
from skimage import data, feature, filters, util  # noqa: E402


@contextlib.contextmanager
def pyconv_in_place_of_scipy():
    """Within this block scikit-image calls pyconv. Yields a list of the functions that were called."""
    called = []

    def stand_in(name):
        def function(*arguments, **keywords):
            called.append(name)
            return getattr(ndimage, name)(*arguments, **keywords)

        return function

    with contextlib.ExitStack() as stack:
        for name in ndimage.__all__:
            scipys, replacement = getattr(scipy_ndimage, name), stand_in(name)
            stack.enter_context(mock.patch.object(scipy_ndimage, name, replacement))
            # A module that has imported the function by name keeps it under that name.
            for module_name, module in list(sys.modules.items()):
                if module_name.startswith("skimage.") and vars(module).get(name) is scipys:
                    stack.enter_context(mock.patch.object(module, name, replacement))
        yield called


# (function, which filter it needs, the largest |x| * |w| of an image from 0 to 1)
FILTERS = {
    "gaussian": (lambda x, **kw: filters.gaussian(x, 2, **kw), "gaussian_filter", 1),
    "gaussian, wrapped": (lambda x, **kw: filters.gaussian(x, (0.7, 3), mode="wrap", **kw), "gaussian_filter", 1),
    "sobel": (lambda x, **kw: filters.sobel(x), "convolve", 1),
    "unsharp_mask": (lambda x, **kw: filters.unsharp_mask(x, 3, 2, **kw), "gaussian_filter", 5),
    "difference_of_gaussians": (lambda x, **kw: filters.difference_of_gaussians(x, 1, 4, **kw), "gaussian_filter", 2),
    # Sobel's slopes, at most 4 from white to black and 8 in |x| * |w|; their products; and a blur of these.
    "structure_tensor": (lambda x, **kw: np.stack(feature.structure_tensor(x, 1.5, order="rc")), "gaussian_filter", 64),
}
IMAGES = {
    "camera": (data.camera, {}),
    # (For -1, unsharp_mask of scikit-image 0.26 leaves most of its result unset.)
    "astronaut": (data.astronaut, {"channel_axis": 2}),
}


def picture(function, image, settings):
    """One of scikit-image's filters; those that know no channels filter each as an image of its own."""
    if settings and function in (FILTERS["structure_tensor"][0], FILTERS["sobel"][0]):
        return np.stack([function(channel) for channel in np.moveaxis(image, -1, 0)])
    return function(image, **settings)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", FILTERS)
def test_the_same_pictures(name, image, dtype):
    function, needed, largest = FILTERS[name]
    load, settings = IMAGES[image]
    x = load() if dtype == "uint8" else util.img_as_float(load()).astype(dtype)
    expected = picture(function, x, settings)
    with pyconv_in_place_of_scipy() as called:
        actual = picture(function, x, settings)
    assert needed in called
    assert actual.dtype == expected.dtype
    tolerance = 1e-5 if actual.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest)
    assert np.ptp(expected) > 0.1


def test_scipy_is_back_afterwards():
    scipys = scipy_ndimage.gaussian_filter
    with pyconv_in_place_of_scipy():
        assert scipy_ndimage.gaussian_filter is not scipys
    assert scipy_ndimage.gaussian_filter is scipys


def main():
    print(f"{'':24} {'':10} {'dtype':8} {'SciPy':>9} {'pyconv':>9}   largest difference")
    for name, (function, _, _) in FILTERS.items():
        for image, (load, settings) in IMAGES.items():
            for dtype in ("float32", "float64"):
                x = util.img_as_float(load()).astype(dtype)
                pictures, times = [], []
                for place in (contextlib.nullcontext, pyconv_in_place_of_scipy):
                    with place():
                        seconds = []
                        for _ in range(5):
                            start = time.perf_counter()
                            result = picture(function, x, settings)
                            seconds.append(time.perf_counter() - start)
                    pictures.append(result)
                    times.append(f"{1e3 * min(seconds):6.1f} ms")
                difference = np.abs(np.subtract(*pictures)).max()
                print(f"{name:24} {image:10} {dtype:8} {times[0]} {times[1]}   {difference:.1e}")


if __name__ == "__main__":
    main()
