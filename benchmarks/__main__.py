"""The command ``python -m benchmarks``."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import sys
import tempfile
from dataclasses import asdict
from itertools import chain

from benchmarks import cases, chart, report, roofline
from benchmarks.peers import LIBRARIES
from benchmarks.race import Worker, WorkerError, race

MINE = report.MINE
WHAT = "layers", "plans", "gradients", "deform", "images", "bytes", "small", "memory"


def arguments():
    parser = argparse.ArgumentParser("python -m benchmarks", description="Time pyconv beside its peers.")
    peers = [name for name in LIBRARIES if name != MINE]
    parser.add_argument("--what", nargs="+", choices=[*WHAT, "all"], default=["all"])
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds, under two minutes")
    parser.add_argument("--group", nargs="+", metavar="NAME", help="only these groups of cases")
    parser.add_argument("--match", metavar="REGEX", help="only cases whose name or note matches")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument(
        "--peers", nargs="+", choices=peers, default=peers, metavar="NAME", help=", ".join(peers)
    )
    parser.add_argument("--method", default="auto", help="of pyconv.conv2d and plan_conv2d (auto)")
    parser.add_argument("--rounds", type=int, help="how often each library has its turn (7; quick: 3)")
    parser.add_argument("--seconds", type=float, help="how long a turn lasts at least (0.1; quick: 0.02)")
    parser.add_argument("--budget", type=float, help="end of a library's turns (3; quick: 0.2)")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured")
    parser.add_argument("--chart", metavar="FILE.png", help="draw it: FILE-layers.png, FILE-images.png, ...")
    args = parser.parse_args()
    if "all" in args.what:
        args.what = WHAT
    args.rounds = args.rounds or (3 if args.quick else 7)
    args.seconds = args.seconds or (0.02 if args.quick else 0.1)
    args.budget = args.budget or (0.2 if args.quick else 3.0)
    return args


def say(text):
    print(text, flush=True)


def chosen_cases(args):
    every = {
        "layers": cases.layers(args.method),
        "plans": cases.plans(args.method),
        "gradients": cases.gradients(),
        "deform": cases.deformable(),
        "images": chain(cases.images(), cases.other_arrays()),
        "bytes": cases.bytes_images(),
        "small": cases.small(),
    }
    wanted = [case for what, group in every.items() if what in args.what for case in group if chosen(case, args)]
    return list(cases.for_quick(wanted)) if args.quick else wanted


def chosen(case, args):
    return (args.group is None or case.group in args.group) and (
        args.match is None or re.search(args.match, f"{case.name} {case.note}".strip()) is not None
    )


def start_workers(args):
    """A process for each library and number of threads; one for a library that has one thread only."""
    workers = []
    for library in [MINE, *args.peers]:
        try:
            for threads in args.threads if LIBRARIES[library].threaded else [1]:
                workers.append(Worker(library, threads))
                workers[-1].ask("map_memory")
        except WorkerError as error:
            if library == MINE:
                raise
            say(f"{library} is skipped: {error}")
    return workers


def time_cases(args, chosen, workers):
    """Print a line for each case and number of threads, and return their records."""
    mine = {worker.threads: worker for worker in workers if worker.library == MINE}
    fma, copy, rows, group = {}, {}, [], None
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            if case.group != group:
                group = case.group
                say(f"\n{group}")
            timings = race(case, workers, args.rounds, args.seconds, args.budget, folder, say)
            for threads, worker in mine.items():
                size = roofline.copy_size(case.nbytes)
                if (case.computed, threads) not in fma:
                    fma[case.computed, threads] = worker.ask("fma_gflops", dtype=case.computed)
                if (size, threads) not in copy:
                    copy[size, threads] = worker.ask("copy_bandwidth", nbytes=size)
                at_threads = {
                    each.library: timing
                    for each, timing in timings.items()
                    if each.threads == threads or not LIBRARIES[each.library].threaded
                }
                if MINE in at_threads:
                    limits = fma[case.computed, threads], copy[size, threads]
                    rows.append(report.record(case, threads, at_threads, *limits, worker.ask("workspace")))
                    say(report.line(rows[-1]))
    say("")
    for (dtype, threads), gflops in fma.items():
        say(f"FMA limit, {dtype}, {threads}t: {gflops:.0f} GFLOP/s")
    for (size, threads), gbytes in sorted(copy.items()):
        say(f"copying {size / 2**20:.0f} MiB, {threads}t: {gbytes:.1f} GB/s read and written")
    return rows


def measure_memory(args):
    """Print and return the peak memory of single calls, each in a new process."""
    rows = []
    for case, first in cases.memory(args.method):
        if not chosen(case, args) or args.quick and case.kind == "layer" and case.group != "memory":
            continue
        say(f"\nmemory beyond input and output ({case.nbytes / 1e6:.1f} MB): {case.name}")
        for library in [MINE] if args.quick else [MINE, *args.peers]:
            threads = max(args.threads)
            try:
                with contextlib.closing(Worker(library, threads)) as worker:
                    beyond = worker.ask("memory", case=asdict(case), first=asdict(first))
                    workspace = None if beyond is None else worker.ask("workspace")
            except WorkerError as error:
                say(f"  {library} is skipped: {error}")
                continue
            if beyond is not None:
                planned = "" if workspace is None else f", of which workspace {workspace / 1e6:.2f} MB"
                say(f"  {library:12} {beyond / 1e6:8.1f} MB{planned}")
                rows.append({"name": case.name, "library": library, "threads": threads, "bytes": beyond})
                rows[-1]["workspace_bytes"] = workspace
    return rows


def machine():
    """The processor's name."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main():
    args = arguments()
    load = os.getloadavg()[0]
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    workers = start_workers(args)
    results = {
        "machine": machine(),
        "cores": os.cpu_count(),
        "load": load,
        "isa": workers[0].ask("isa"),
        "date": date,
        "python": platform.python_version(),
        "versions": {worker.library: worker.version for worker in workers},
        "command": [f"{name}={value}" for name, value in vars(args).items() if name not in ("json", "chart")],
    }
    say(", ".join(f"{name} {version}" for name, version in results["versions"].items()))
    say(f"{results['machine']}, {results['isa']}")
    if load > 0.5:
        say(f"The machine is busy (load {load:.1f}): figures will be unsteady, above all with many threads.")
    to_time = chosen_cases(args)
    results["results"] = time_cases(args, to_time, workers)
    for worker in workers:
        worker.close()
    if results["results"]:
        say(f"\nHow many times faster pyconv is\n{report.summary(results['results'])}")
        say(report.scaling(results["results"]))
    results["memory"] = measure_memory(args) if "memory" in args.what else []
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    if args.chart:
        chart.draw(results, args.chart)
    missing = len(to_time) * len(args.threads) - len(results["results"])
    if missing:
        raise WorkerError(f"{missing} timings of pyconv are missing, for the reasons printed above")


if __name__ == "__main__":
    try:
        main()
    except WorkerError as error:
        sys.exit(f"pyconv: {error}")
