"""Records of what was measured, and how they are printed."""

import math

MINE, REFERENCE = "pyconv", "pytorch"
LONG_MILLISECONDS, ENOUGH_GAIN = 5, 0.9  # of one thread's calls, and the share of a gain below which they are listed


def record(case, threads, timings, fma_gflops, copy_bandwidth, workspace):
    """A JSON object for a case: ``timings`` maps libraries to Timing objects, rates are in 1e9 a second,
    ``workspace`` is pyconv's in bytes, or None."""
    mine = timings[MINE].seconds
    ratios = {library: timing.seconds / mine for library, timing in timings.items() if library != MINE}
    bound = max(case.flops / fma_gflops, case.nbytes / copy_bandwidth) / 1e9
    return {
        "group": case.group,
        "name": case.name,
        "note": case.note,
        "kind": case.kind,
        "threads": threads,
        "dtype": case.dtype,
        "flops": case.flops,
        "bytes": case.nbytes,
        "gflops": {library: case.flops / timing.seconds / 1e9 for library, timing in timings.items()},
        "milliseconds": {
            library: {
                "median": timing.seconds * 1e3,
                "least": min(timing.rounds) * 1e3,
                "most": max(timing.rounds) * 1e3,
                "rounds": len(timing.rounds),
                "spread": timing.spread,
            }
            for library, timing in timings.items()
        },
        "times_faster_than": ratios,
        "best_peer": min(ratios, key=ratios.get),
        "fma_gflops": fma_gflops,
        "copy_gbytes": copy_bandwidth,
        "roofline_gflops": case.flops / bound / 1e9,
        "share_of_roofline": bound / mine,
        "workspace_bytes": workspace,
    }


def significant(value):
    """Three significant digits without an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def duration(milliseconds):
    if milliseconds < 0.1:
        return f"{significant(milliseconds * 1e3)} us"
    return f"{significant(milliseconds)} ms"


def line(row):
    """A record as one line: pyconv, its speed, its share of the roofline and its workspace, then each peer."""

    def time(library):
        entry = row["milliseconds"][library]
        return f"{library} {duration(entry['median'])} ~{entry['spread']:.0%}"

    peers = [
        f"{time(library)} {significant(ratio)}x{'*' if library == row['best_peer'] else ''}"
        for library, ratio in row["times_faster_than"].items()
    ]
    workspace = f" {row['workspace_bytes'] / 1e6:5.2f} MB" if row["workspace_bytes"] is not None else ""
    return (
        f"  {row['threads']}t {row['name']:30} {time(MINE):24} {row['gflops'][MINE]:7.1f} GFLOP/s"
        f" {row['share_of_roofline']:4.0%}{workspace} | " + " | ".join(peers)
    )


def summary(rows):
    """For each group and number of threads: pyconv against PyTorch and against the best peer of each case."""
    lines = [f"{'':26} {'against ' + REFERENCE:>20} {'the best peer':>20} {'roofline':>16}"]
    lines.append(f"{'group, threads':26} {'least    mean':>20} {'least    mean':>20} {'least    mean':>16}")
    for group, threads in dict.fromkeys((row["group"], row["threads"]) for row in rows):
        chosen = [row for row in rows if (row["group"], row["threads"]) == (group, threads)]
        ratios = [row["times_faster_than"] for row in chosen]
        columns = [
            [each[REFERENCE] for each in ratios if REFERENCE in each],
            [min(each.values()) for each in ratios],
            [row["share_of_roofline"] for row in chosen],
        ]
        cells = [
            f"{significant(min(column))} {significant(geometric_mean(column)):>7}" if column else "-"
            for column in columns
        ]
        lines.append(f"{group + ', ' + str(threads):26} {cells[0]:>20} {cells[1]:>20} {cells[2]:>16}")
    return "\n".join(lines)


def scaling(rows):
    """What more threads gain in calls of over 5 ms, as a share of what the roofline gains with them."""
    lines = []
    alone = {(row["group"], row["name"]): row for row in rows if row["threads"] == 1}
    for threads in sorted({row["threads"] for row in rows} - {1}):
        shares = {}
        for row in rows:
            one = alone.get((row["group"], row["name"]))
            if row["threads"] == threads and one and one["milliseconds"][MINE]["median"] > LONG_MILLISECONDS:
                gain = one["milliseconds"][MINE]["median"] / row["milliseconds"][MINE]["median"]
                shares[f"{row['group']}, {row['name']}"] = gain * one["roofline_gflops"] / row["roofline_gflops"]
        if shares:
            least = min(shares, key=shares.get)
            lines.append(
                f"\n{threads} threads against one, {len(shares)} calls of over {LONG_MILLISECONDS} ms, as a share of"
                f" the roofline's gain: mean {geometric_mean(shares.values()):.2f}, least {shares[least]:.2f} ({least})"
            )
            lines += [f"  {share:.2f}  {name}" for name, share in shares.items() if share < ENOUGH_GAIN]
    return "\n".join(lines)


def geometric_mean(values):
    return math.exp(math.fsum(map(math.log, values)) / len(values))
