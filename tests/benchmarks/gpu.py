"""Check and time AUPIMO on a GPU: `python tests/benchmarks/gpu.py`. Without CUDA it checks and times the CPU.

The checks: states and results lie on the device of the maps; an `update` waits for the device twice at most, whether it
is of 4 images or of 32 (CUDA only); scores are those of the function on the CPU. Then `update` and `compute` are timed
against a copy of the same maps on the device, `maps.clone()`. A failed check gives exit code 1, a long time does not.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torchmetrics
from torch import Tensor
from torch.nn.functional import interpolate
from workloads import DEFECT_SHARE, Batch

import aupimo_torchmetrics
from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.functional import aupimo

SIZE = (1024, 1024)
BATCH_SIZE = 32
MAX_COPIES, MAX_COMPUTE_MS = 4.0, 5.0
"""The goals: for `update` and `compute` together, in units of one copy of the maps, and for `compute` alone."""

CHECKED_SIZES = ((256, 256), (192, 256), (225, 175))
CHECKED_BOUNDS = (1e-3, 1e-2)
"""The normal images of these sizes are small, the smallest of 39,375 pixels."""
MAX_WAITS = 2
"""One for the facts of the batch, and one for the scores that are kept of it."""
TOLERANCE = 1e-6
"""Scores are float32, and the device adds up in another order."""


class Times(NamedTuple):
    """Milliseconds of one run."""

    copy: float
    update: float
    compute: float

    @property
    def copies(self) -> float:
        """Update and compute in units of one copy."""
        return (self.update + self.compute) / self.copy


def make_batch(num_images: int, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Maps (n, H, W) float32 and masks (n, H, W) bool on the device of the generator; each fourth image is normal."""
    height, width = size
    device = generator.device
    coarse = torch.randn(num_images, 1, height // 16, width // 16, generator=generator, device=device)
    maps = interpolate(coarse, size=size, mode="bilinear")[:, 0].exp()
    maps += 0.05 * torch.randn(maps.shape, generator=generator, device=device)

    side = round((DEFECT_SHARE * height * width) ** 0.5)
    top, left = (
        torch.randint(0, length - side, (num_images, 1, 1), generator=generator, device=device) for length in size
    )
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    masks = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    masks[::4] = False
    return maps + 20 * masks * torch.rand(maps.shape, generator=generator, device=device), masks


def make_mixed_batch(num_images: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Lists of maps (H, W) and masks (H, W), so many of each of the checked sizes."""
    batches = [make_batch(num_images, size, generator) for size in CHECKED_SIZES]
    return [each for maps, _ in batches for each in maps], [each for _, masks in batches for each in masks]


def scored(batches: list[Batch], device: torch.device, num_thresholds: int | None, shared_fpr: str) -> Tensor:
    """Scores (N,) of the metric, on its device."""
    metric = AUPIMO(num_thresholds, CHECKED_BOUNDS, reduction="none", shared_fpr=shared_fpr).to(device)
    for maps, masks in batches:
        metric.update(maps, masks)
    return metric.compute()


def scored_on_cpu(batches: list[Batch], num_thresholds: int | None, shared_fpr: str) -> Tensor:
    """Scores (N,) of the function, which gets all images at once, as lists on the CPU."""
    maps, masks = ([image.cpu() for images in each for image in images] for each in zip(*batches, strict=True))
    return aupimo(maps, masks, num_thresholds, CHECKED_BOUNDS, reduction="none", shared_fpr=shared_fpr)


def report(is_met: bool, promise: str) -> bool:
    """Print whether a promise is kept."""
    print(f"{'ok    ' if is_met else 'FAILED'}  {promise}")
    return is_met


def check_devices(generator: torch.Generator) -> bool:
    """Whether states and results lie where the maps are."""
    maps, masks = make_batch(8, CHECKED_SIZES[0], generator)
    metric = AUPIMO(fpr_bounds=CHECKED_BOUNDS).to(maps.device)
    metric.update(maps, masks)
    tensors = [aupimo(maps, masks, fpr_bounds=CHECKED_BOUNDS), metric.compute(), metric.result().aupimos]
    tensors.extend(metric.curves())
    for state in metric.metric_state.values():
        tensors.extend(state if isinstance(state, list) else [state])
    devices = {tensor.device for tensor in tensors}
    return report(devices == {maps.device}, f"states and results lie on {', '.join(map(str, devices))}, as the maps do")


def count_waits(metric: AUPIMO, batch: Batch) -> int:
    """How often the host waits for the device in one update."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        metric.update(*batch)
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(warning.message) for warning in caught)


def check_waits(generator: torch.Generator) -> bool:
    """Whether an update after the first waits only as often as it must, however many images it is of."""
    metric = AUPIMO().to(generator.device)
    metric.update(*make_batch(32, CHECKED_SIZES[0], generator))
    few, many = (count_waits(metric, make_batch(num_images, CHECKED_SIZES[0], generator)) for num_images in (4, 32))
    return report(few == many <= MAX_WAITS, f"an update waits {few} times with 4 images, {many} times with 32")


def check_scores(generator: torch.Generator) -> bool:
    """Whether the scores are those of the function on the CPU."""
    batches = [make_batch(8, CHECKED_SIZES[0], generator) for _ in range(4)]
    cases: dict[str, list[Batch]] = {
        "float32": [*batches],
        "float16": [(maps.half(), masks) for maps, masks in batches],
        "mixed sizes": [make_mixed_batch(4, generator) for _ in range(2)],
    }
    are_met = []
    for name, num_thresholds, shared_fpr in itertools.product(cases, (None, 30_000), ("mean", "max")):
        scores = scored(cases[name], generator.device, num_thresholds, shared_fpr).cpu()
        expected = scored_on_cpu(cases[name], num_thresholds, shared_fpr)
        is_same = torch.allclose(scores, expected, rtol=0, atol=TOLERANCE, equal_nan=True)
        protocol = "exact" if num_thresholds is None else f"{num_thresholds:,} thresholds"
        difference = float((scores - expected).abs().nan_to_num().amax())
        promise = f"{name}, {protocol}, {shared_fpr} FPR: scores differ by {difference:.1e} at most"
        are_met.append(report(is_same, promise))
    return all(are_met)


def copy(batches: list[tuple[Tensor, Tensor]]) -> None:
    """Copy every map once."""
    for maps, _ in batches:
        maps.clone()


def update(batches: list[tuple[Tensor, Tensor]], metric: AUPIMO) -> None:
    """Feed every batch to a metric."""
    for maps, masks in batches:
        metric.update(maps, masks)


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Time one call, by the clock of the device if it has one."""
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def time_run(batches: list[tuple[Tensor, Tensor]], device: torch.device) -> Times:
    """Time a copy, all updates and the score of a new metric."""
    metric = AUPIMO().to(device)
    calls = (partial(copy, batches), partial(update, batches, metric), metric.compute)
    return Times(*(milliseconds(call, device) for call in calls))


def median_and_spread(values: list[float], digits: int) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_times(num_images: int, num_runs: int, generator: torch.Generator) -> None:
    """Time several runs after one that warms up, and print the ratios and whether the goals are met."""
    sizes = [min(BATCH_SIZE, num_images - start) for start in range(0, num_images, BATCH_SIZE)]
    batches = [make_batch(size, SIZE, generator) for size in sizes]
    runs = [time_run(batches, generator.device) for _ in range(num_runs + 1)][1:]
    print(f"\n{num_images} float32 maps of {SIZE[0]} x {SIZE[1]} in batches of {BATCH_SIZE}; median of {num_runs} runs")
    for name in Times._fields:
        print(f"{name:8}{median_and_spread([getattr(run, name) for run in runs], 2)} ms")
    copies, computes = [run.copies for run in runs], [run.compute for run in runs]
    goals = (
        ("update + compute", copies, MAX_COPIES, "copies"),
        ("compute", computes, MAX_COMPUTE_MS, "ms"),
    )
    for name, values, goal, unit in goals:
        verdict = "met" if statistics.median(values) <= goal else "not met"
        print(f"{name}: {median_and_spread(values, 2)} {unit}; the goal of {goal:g} {unit} is {verdict}")


def describe(device: torch.device) -> str:
    """Name the device and the versions."""
    name = f"the CPU, there is no CUDA device ({platform.machine()}, {torch.get_num_threads()} threads)"
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    versions = f"torch {torch.__version__}, torchmetrics {torchmetrics.__version__}, Python {platform.python_version()}"
    return f"aupimo-torchmetrics {aupimo_torchmetrics.__version__} on {name}; {versions}"


def main() -> None:
    """Check, then time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=160 if device.type == "cuda" else 32, help="images to time")
    parser.add_argument("--runs", type=int, default=9, help="timed runs")
    arguments = parser.parse_args()

    print(describe(device))
    generator = torch.Generator(device).manual_seed(0)
    are_met = [check_devices(generator), check_scores(generator)]
    if device.type == "cuda":
        are_met.append(check_waits(generator))
    print_times(arguments.num_images, arguments.runs, generator)
    sys.exit(not all(are_met))


if __name__ == "__main__":
    main()
