"""Time and weigh the pixel metrics against their peers: `python tests/benchmarks/pixel_metrics.py`.

Each way to compute them runs in a process of its own, three times, on 30 maps of 512 x 512 in batches of 8, and once
more with one hot pixel, a normal one with a score of 1000. What counts is the lowest CPU time, for each pixel, and the
highest resident memory beside the data, for each pixel.
"""

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC
from workloads import Workload, updated

from aupimo_torchmetrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max

HOT_SCORE = 1000.0
WORKLOAD = Workload("", 10, 20, ((512, 512),))
METRICS = (AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max)
NAMES = tuple(each.__name__ for each in METRICS)

Batches = Sequence[tuple[Tensor, Tensor]]
Values = dict[str, float]


def all_four(batches: Batches, num_bins: int | None = None) -> Values:
    """All four in a collection, whose groups are found at the first batch."""
    collection = updated(MetricCollection([each(num_bins=num_bins) for each in METRICS]), batches)
    return {name: float(value) for name, value in collection.compute().items()}


def torchmetrics_auroc(batches: Batches, thresholds: int | None = None) -> Values:
    """AUROC by torchmetrics, of the scores as they are, or at thresholds between the lowest and the highest score."""
    metric = BinaryAUROC(thresholds=thresholds, validate_args=False)
    if thresholds is not None:
        low, high = min(float(maps.amin()) for maps, _ in batches), max(float(maps.amax()) for maps, _ in batches)
    for maps, masks in batches:
        metric.update(maps if thresholds is None else (maps - low) / (high - low), masks.long())
    return {"PixelAUROC": float(metric.compute())}


WAYS: dict[str, Callable[[Batches], Values]] = {
    "all four, exact": all_four,
    "all four, 2**18 bins": partial(all_four, num_bins=2**18),
    "torchmetrics AUROC, exact": torchmetrics_auroc,
    "torchmetrics AUROC, 50 bins": partial(torchmetrics_auroc, thresholds=50),
}


class Found(NamedTuple):
    """What was measured of one way."""

    nanoseconds: float
    """CPU time for each pixel."""
    num_bytes: float
    """Peak memory beside the data, for each pixel."""
    values: Values
    hot_values: Values


def _peak_bytes() -> int:
    """Peak resident memory of this process since it was last reset. Linux tells it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(name: str) -> Found:
    """Measure one way in this process: memory in the first run, time in all."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    way, batches = WAYS[name], list(WORKLOAD.batches(8))
    way([(maps[:, :64, :64], masks[:, :64, :64] | (torch.arange(64) < 5)) for maps, masks in batches])  # imports
    num_pixels = sum(maps.numel() for maps, _ in batches)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before, peak, times = _peak_bytes(), 0, []
    for _ in range(3):
        start = time.process_time()
        values = way(batches)
        times.append(time.process_time() - start)
        peak = peak or _peak_bytes()
    maps, masks = batches[0]
    maps.view(-1)[int((~masks).view(-1).nonzero()[0])] = HOT_SCORE
    return Found(1e9 * min(times) / num_pixels, (peak - before) / num_pixels, values, way(batches))


def row(name: str, found: Found) -> str:
    """Line of the table."""
    values = " ".join(f"{found.values.get(each, float('nan')):9.6f}" for each in NAMES)
    hot_values = " ".join(f"{found.hot_values.get(each, float('nan')):9.6f}" for each in NAMES)
    line = f"{name:<28} {found.nanoseconds:8.1f} {found.num_bytes:8.2f}  {values}   {hot_values}"
    return line.replace("nan", " - ")


def main() -> None:
    """Print a table."""
    print(f"{'':<28} {'ns/pixel':>8} {'B/pixel':>8}  values of {', '.join(NAMES)}; the same with one hot pixel")
    for name in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (name,))
        print(row(name, found), flush=True)


if __name__ == "__main__":
    main()
