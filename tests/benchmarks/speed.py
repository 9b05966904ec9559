"""Time and weigh AUPIMO against one read of the data and against its peers: `python tests/benchmarks/speed.py`.

Everything is timed in turn in one process and on the same tensors; what counts are the ratios of the medians. One read
of the data is `maps.amax()` and `masks.view(torch.int64).amax()`, which is as fast as memory is. `--small` times 20,000
small updates. `--peers` times other implementations too, which takes minutes; those that are not installed are said to
be so. `--growth` measures how time grows with the number of images and their size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peers import PEERS, read_once
from torch.profiler import ProfilerActivity, profile
from workloads import WORKLOADS, Batch, Workload, versions

from aupimo_torchmetrics import AUPIMO

DEFAULT_WORKLOADS = ("256", "96", "32", "screw", "visa", "mixed", "float16", "odd", "prime")
GROWTH_COUNTS = (20, 40, 80, 160)
GROWTH_SIZES = (256, 512, 1024, 2048)


def update(batches: Iterator[Batch] | Sequence[Batch]) -> AUPIMO:
    """Feed every batch to a new metric."""
    metric = AUPIMO()
    for maps, masks in batches:
        metric.update(maps, masks)
    return metric


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def num_bytes(batch: Batch) -> int:
    """Bytes of maps and masks."""
    return sum(sum(image.nbytes for image in images) for images in batch)


def state_bytes(metric: AUPIMO) -> int:
    """Bytes of all states."""
    states = (state if isinstance(state, list) else [state] for state in metric.metric_state.values())
    return sum(part.nbytes for state in states for part in state)


def peak_bytes(batches: Sequence[Batch], batch: Batch) -> int:
    """Most bytes that one more update holds at once beside its batch, by the allocations that torch makes."""
    metric = update(batches)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        metric.update(*batch)
    events = profiled.profiler.kineto_results.events()
    held, peak = 0, 0
    for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(workload: Workload, batch_size: int, runs: int) -> str:
    """Measure one workload in batches of a size, and return its line of the table."""
    batches = list(workload.batches(batch_size))
    metric = update(batches)
    score = float(metric.compute())
    num_mask_pixels = sum(int(mask.sum()) for _, masks in batches for mask in masks)
    reads, updates, computes = [], [], []
    for _ in range(runs):
        reads.append(seconds(partial(read_once, batches)))
        updates.append(seconds(partial(update, batches)))
        metric = update(batches)
        computes.append(seconds(metric.compute))
    ratios = [(u + c) / r for u, c, r in zip(updates, computes, reads, strict=True)]
    last = batches[-2] if len(batches) > 1 and len(batches[-1][0]) < batch_size else batches[-1]
    times = "  ".join(f"{1e3 * statistics.median(each):9.1f}" for each in (reads, updates, computes))
    spread = f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    state, peak = state_bytes(metric), peak_bytes(batches, last) / num_bytes(last)
    memory = f"{state / 1e6:7.2f} {state / sum(map(num_bytes, batches)):7.2%} {peak:6.0%}"
    head = f"{workload.name:<8} {batch_size:>5} {workload.num_normal + workload.num_anomalous:>6}"
    of_a_pixel = 1e9 * statistics.median(computes) / num_mask_pixels
    return f"{head}  {times}  {spread:<21} {of_a_pixel:3.0f} {memory}  {score:.4f}"


def measure_small_updates(count: int = 20_000) -> list[float]:
    """Seconds of an update of 8 maps of 64 x 64, in the first and in the last thousand of many."""
    generator = torch.Generator().manual_seed(0)
    maps, masks = torch.rand(8, 64, 64, generator=generator), torch.zeros(8, 64, 64, dtype=torch.bool)
    masks[7, :10, :10] = True
    metric = AUPIMO()

    def update_often() -> None:
        for _ in range(1000):
            metric.update(maps, masks)

    times = [seconds(update_often) / 1000 for _ in range(count // 1000)]
    return [times[0], times[-1]]


def measure_peers(workload: Workload, batch_size: int, runs: int) -> dict[str, Any]:
    """Time each peer once, after it was warmed up on a few small images, as a ratio to the median of ours."""
    batches = list(workload.batches(batch_size))
    ours = statistics.median(seconds(lambda: update(batches).compute()) for _ in range(runs))
    warm_up = list(WORKLOADS["256"]._replace(num_normal=4, num_anomalous=2).batches(2))
    found: dict[str, Any] = {"workload": workload.name, "ours_ms": 1e3 * ours}
    for name, peer in PEERS.items():
        if peer is not None:
            peer(warm_up)
        found[name] = None if peer is None else seconds(partial(peer, batches)) / ours
    return found


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the line through points in log-log: 1 for a cost that is linear."""
    points = torch.tensor([x, y], dtype=torch.float64).log()
    centred = points - points.mean(1, keepdim=True)
    return float((centred[0] * centred[1]).sum() / centred[0].square().sum())


def measure_growth(runs: int, picture: Path | None) -> dict[str, Any]:
    """Time update and compute as images grow in number and in size; draw both if a file is given."""
    found: dict[str, Any] = {}
    for axis, values in (("images", GROWTH_COUNTS), ("pixels", GROWTH_SIZES)):
        times: dict[str, list[float]] = {"update": [], "compute": []}
        for value in values:
            count, size = (value, 512) if axis == "images" else (40, value)
            workload = Workload("", count // 4, count - count // 4, ((size, size),))
            batches = list(workload.batches(8))
            update(batches).compute()
            times["update"].append(statistics.median(seconds(partial(update, batches)) for _ in range(runs)))
            metrics = [update(batches) for _ in range(runs)]
            times["compute"].append(statistics.median(seconds(metric.compute) for metric in metrics))
        x = [value if axis == "images" else value**2 for value in values]
        found[axis] = {"x": x, **times, "slopes": {name: slope(x, y) for name, y in times.items()}}
    if picture is not None:
        draw_growth(found, picture)
    return found


def draw_growth(growth: dict[str, Any], picture: Path) -> None:
    """Draw times against numbers of images and of pixels, both in log."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure((9, 3.6), layout="constrained")
    labels = {"images": "images of 512 x 512", "pixels": "pixels of each of 40 images"}
    for ax, (axis, found) in zip(figure.subplots(1, 2), growth.items(), strict=True):
        for name, color in (("update", "tab:blue"), ("compute", "tab:orange")):
            milliseconds = [1e3 * each for each in found[name]]
            ax.plot(found["x"], milliseconds, "o-", color=color, label=f"{name}, slope {found['slopes'][name]:.2f}")
        ax.set(xscale="log", yscale="log", xlabel=labels[axis], ylabel="milliseconds")
        ax.minorticks_off()
        ax.set_xticks(found["x"], [f"{value:,}" for value in found["x"]])
        ax.legend(frameon=False)
        ax.grid(color="0.9")
    figure.savefig(picture, dpi=100)


HEAD = """\
workload batch images    read ms  update ms compute ms  reads (low to high)    ns   state MB   share   peak  AUPIMO
(reads: time of update and compute over that of one read; ns: compute, for each mask pixel; share: of the state in the
data; peak: most memory of an update beside its batch, as its share)"""


def main() -> None:
    """Print a table, and what else is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), default=DEFAULT_WORKLOADS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--peers", nargs="*", choices=list(WORKLOADS), default=(), help="workloads to time peers on")
    parser.add_argument("--small", action="store_true", help="time 20,000 small updates")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--picture", type=Path, help="PNG of the growth")
    arguments = parser.parse_args()

    print(f"{versions()}, {arguments.runs} runs")
    if arguments.workloads:
        print(HEAD)
    for name in arguments.workloads:
        for batch_size in arguments.batch_sizes:
            print(measure(WORKLOADS[name], batch_size, arguments.runs), flush=True)
    if arguments.small:
        first, last = measure_small_updates()
        print(f"an update of 8 maps of 64 x 64: {1e3 * first:.2f} ms at first, {1e3 * last:.2f} ms after 20,000")
    for name in arguments.peers:
        each = measure_peers(WORKLOADS[name], arguments.batch_sizes[0], arguments.runs)
        ratios = (f"{peer} {'not installed' if each[peer] is None else f'{each[peer]:.0f} times'}" for peer in PEERS)
        print(f"{name}: ours {each['ours_ms']:.0f} ms; {', '.join(ratios)}", flush=True)
    if arguments.growth:
        for axis, each in measure_growth(arguments.runs, arguments.picture).items():
            print(f"growth with {axis}: " + ", ".join(f"{name} {s:.2f}" for name, s in each["slopes"].items()))


if __name__ == "__main__":
    main()
