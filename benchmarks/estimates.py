"""How far pyconv.plan's estimates are from what is measured, on one core: ``python -m benchmarks.estimates``.

For each layer and method, the least time of a call over the estimate, cycles turned into seconds by the speed of the
multiply-add loop. Where the columns of two methods differ much, the chooser is misled.
"""

import time

import numpy as np

from benchmarks import cases, roofline

METHODS = "direct", "winograd"
FLOPS_A_CYCLE = 64  # what pyconv.plan counts: two multiply-adds of 16 float32 each
SECONDS = 0.2


def least_time(function):
    """Of the calls of some tenths of a second, in seconds of this thread."""
    function()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.thread_time_ns()
        function()
        times.append(time.thread_time_ns() - start)
    return min(times) / 1e9


def main():
    import pyconv

    cycles_a_second = roofline.fma_gflops("float32", 1) * 1e9 / FLOPS_A_CYCLE
    print(f"{'':34}" + "".join(f"{method:>20}" for method in METHODS))
    for case in cases.layers("auto"):
        x, weight = case.arrays()
        out = np.empty(case.output_shape, case.dtype)
        cells = []
        for method in METHODS:
            parameters = case.parameters | {"method": method}
            try:
                plan = pyconv.plan_conv2d(x.shape, weight, workers=1, **parameters)
            except ValueError:  # the method does not apply
                continue
            chosen = (plan.method, plan.variant)
            estimate = next(candidate.cycles for candidate in plan.candidates if candidate[:2] == chosen)
            seconds = least_time(lambda plan=plan, x=x, out=out: plan(x, out)) / len(x)
            variant = "" if plan.variant is None else " F({},{})".format(*plan.variant)
            cells.append(f"{seconds * cycles_a_second / estimate:.2f}{variant}")
        print(f"{case.name:34}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
