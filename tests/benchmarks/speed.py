"""Time and weigh AUPIMO against one read of the data and against its peers: `python tests/benchmarks/speed.py`.

Everything is timed in turn in one process and on the same tensors; what counts are the ratios of the medians. One read
of the data is `maps.amax()` and `masks.view(torch.int64).amax()`, which is as fast as memory is. `--small` times 20,000
small updates. `--peers` times other implementations too, which takes minutes; those that are not installed are said to
be so. `--growth` measures how time grows with the number of images and their size.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from peers import PEERS, read_once
from torch.profiler import ProfilerActivity, profile
from workloads import WORKLOADS, Batch, Workload, seconds, updated, versions

from aupimo_torchmetrics import AUPIMO

DEFAULT_WORKLOADS = ("256", "96", "32", "screw", "visa", "mixed", "float16", "odd", "prime")
GROWTH_COUNTS = (20, 40, 80, 160)
GROWTH_SIZES = (256, 512, 1024, 2048)


def update(batches: Sequence[Batch]) -> AUPIMO:
    """Feed every batch to a new metric."""
    return updated(AUPIMO(), batches)


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


def print_small_updates() -> None:
    """Print the time of an update of 8 maps of 64 x 64, in the first and in the last thousand of 20,000."""
    maps, masks = torch.rand(8, 64, 64), torch.zeros(8, 64, 64, dtype=torch.bool)
    masks[7, :10, :10] = True
    metric = AUPIMO()

    def update_often() -> None:
        for _ in range(1000):
            metric.update(maps, masks)

    first, *_, last = [seconds(update_often) for _ in range(20)]  # milliseconds of one
    print(f"an update of 8 maps of 64 x 64: {first:.2f} ms at first, {last:.2f} ms after 20,000")


def print_peers(workload: Workload, batch_size: int, runs: int) -> None:
    """Print the time of each peer, after it was warmed up on a few small images, as a ratio to the median of ours."""
    batches = list(workload.batches(batch_size))
    ours = statistics.median(seconds(lambda: update(batches).compute()) for _ in range(runs))
    warm_up = list(WORKLOADS["256"]._replace(num_normal=4, num_anomalous=2).batches(2))
    print(f"{workload.name}: ours {1e3 * ours:.0f} ms", end="", flush=True)
    for name, peer in PEERS.items():
        if peer is not None:
            peer(warm_up)
        ratio = "not installed" if peer is None else f"{seconds(partial(peer, batches)) / ours:.0f} times"
        print(f", {name} {ratio}", end="", flush=True)
    print()


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the line through points in log-log: 1 for a cost that is linear."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def print_growth(runs: int) -> None:
    """Print how update and compute grow with the number of images and with their size."""
    for axis, values in (("images", GROWTH_COUNTS), ("pixels", GROWTH_SIZES)):
        times: dict[str, list[float]] = {"update": [], "compute": []}
        for value in values:
            count, size = (value, 512) if axis == "images" else (40, value)
            batches = list(Workload("", count // 4, count - count // 4, ((size, size),)).batches(8))
            update(batches).compute()
            times["update"].append(statistics.median(seconds(partial(update, batches)) for _ in range(runs)))
            metrics = [update(batches) for _ in range(runs)]
            times["compute"].append(statistics.median(seconds(metric.compute) for metric in metrics))
        x = [value if axis == "images" else value**2 for value in values]
        print(f"growth with {axis}: " + ", ".join(f"{name} {slope(x, y):.2f}" for name, y in times.items()))


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
    arguments = parser.parse_args()

    print(f"{versions()}, {arguments.runs} runs")
    if arguments.workloads:
        print(HEAD)
    for name in arguments.workloads:
        for batch_size in arguments.batch_sizes:
            print(measure(WORKLOADS[name], batch_size, arguments.runs), flush=True)
    if arguments.small:
        print_small_updates()
    for name in arguments.peers:
        print_peers(WORKLOADS[name], arguments.batch_sizes[0], arguments.runs)
    if arguments.growth:
        print_growth(arguments.runs)


if __name__ == "__main__":
    main()
