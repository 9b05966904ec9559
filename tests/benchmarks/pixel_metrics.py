"""Time and weigh the pixel metrics against their peers: `python tests/benchmarks/pixel_metrics.py`.

Each way to compute them runs in a process of its own, several times, on 30 maps of 512 x 512 in batches of 8 (change it
by `--images`, `--size` and `--batch-size`), and once more with one hot pixel, a normal one with a score of 1000. What
counts is the lowest CPU time, for each pixel, and the highest resident memory beside the data, for each pixel. Peers
that are not installed are said to be so. `--growth` shows that time and memory are linear in the number of pixels.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC
from workloads import Workload

from aupimo_torchmetrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics.functional import aupro

HOT_SCORE = 1000.0
NAMES = ("AUPRO", "PixelAUROC", "PixelAveragePrecision", "PixelF1Max")
GOALS = {"all four, exact": (16.0, 5.0)}
"""Most nanoseconds and bytes for each pixel."""

Batches = Sequence[tuple[Tensor, Tensor]]
Values = dict[str, float]


def all_four(batches: Batches, num_bins: int | None = None) -> Values:
    """All four in a collection, whose groups are found at the first batch."""
    return _collect(
        MetricCollection([each(num_bins=num_bins) for each in (AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max)]),
        batches,
    )


def all_four_binned(batches: Batches) -> Values:
    """The same as histograms."""
    return all_four(batches, 2**18)


def all_four_grouped(batches: Batches) -> Values:
    """All four in a collection that is told that they are one group."""
    metrics = [each() for each in (AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max)]
    return _collect(MetricCollection(metrics, compute_groups=[list(NAMES)]), batches)


def only_auroc(batches: Batches) -> Values:
    """AUROC alone."""
    return _collect(MetricCollection([PixelAUROC()]), batches)


def function_aupro(batches: Batches) -> Values:
    """AUPRO by the function, of a list of all images."""
    images = [[image for batch in batches for image in batch[i]] for i in (0, 1)]
    return {"AUPRO": float(aupro(*images))}


def torchmetrics_auroc(batches: Batches) -> Values:
    """Exact AUROC by torchmetrics, of the scores as they are."""
    metric = BinaryAUROC(validate_args=False)
    for maps, masks in batches:
        metric.update(maps, masks.long())
    return {"PixelAUROC": float(metric.compute())}


def torchmetrics_binned_auroc(batches: Batches) -> Values:
    """AUROC by torchmetrics at 50 thresholds between the lowest and the highest score."""
    metric = BinaryAUROC(thresholds=50, validate_args=False)
    low, high = (
        float(torch.stack([limit(maps) for maps, _ in batches]).max()) for limit in (_negative_min, torch.amax)
    )
    for maps, masks in batches:
        metric.update((maps + low) / (high + low), masks.long())
    return {"PixelAUROC": float(metric.compute())}


def sklearn_auroc_and_ap(batches: Batches) -> Values:
    """AUROC and average precision by scikit-learn."""
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415

    scores, target = (np.concatenate([batch[i].numpy().ravel() for batch in batches]) for i in (0, 1))
    return {
        "PixelAUROC": float(roc_auc_score(target, scores)),
        "PixelAveragePrecision": float(average_precision_score(target, scores)),
    }


def adeval_all(batches: Batches) -> Values:
    """AUROC, AUPR and AUPRO by adeval, in 1,000 bins between the lowest and the highest score."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # noqa: NPY201  the package asks NumPy 2 for a name of NumPy 1
    from adeval import EvalAccumulator  # noqa: PLC0415

    low, high = (
        float(torch.stack([limit(maps) for maps, _ in batches]).max()) for limit in (_negative_min, torch.amax)
    )
    metric = EvalAccumulator(-low, high)
    metric.add_image([-low, high], [0, 1])
    metric.add_sample([-low, high], [0, 1])
    for maps, masks in batches:
        metric.add_anomap_batch(list(maps.numpy()), list(masks.numpy().astype(np.uint8)))
    found = metric.summary()
    return {"AUPRO": found["p_aupro"], "PixelAUROC": found["p_auroc"], "PixelAveragePrecision": found["p_aupr"]}


def anomalib_aupro(batches: Batches) -> Values:
    """AUPRO by anomalib."""
    from anomalib.metrics.aupro import _AUPRO  # noqa: PLC0415

    metric = _AUPRO()
    for maps, masks in batches:
        metric.update(maps, masks.int())
    return {"AUPRO": float(metric.compute())}


WAYS: dict[str, tuple[Callable[[Batches], Values], str]] = {
    "all four, exact": (all_four, ""),
    "all four, exact, one group given": (all_four_grouped, ""),
    "all four, 2**18 bins": (all_four_binned, ""),
    "PixelAUROC, exact": (only_auroc, ""),
    "functional.aupro": (function_aupro, ""),
    "torchmetrics AUROC, exact": (torchmetrics_auroc, ""),
    "torchmetrics AUROC, 50 bins": (torchmetrics_binned_auroc, ""),
    "scikit-learn AUROC and AP": (sklearn_auroc_and_ap, "sklearn"),
    "adeval AUROC, AUPR, AUPRO, 1,000 bins": (adeval_all, "adeval"),
    "anomalib AUPRO": (anomalib_aupro, "anomalib"),
}
"""Ways to compute, and the package that each needs."""


class Found(NamedTuple):
    """What was measured of one way."""

    nanoseconds: float
    """CPU time for each pixel."""
    num_bytes: float
    """Peak memory beside the data, for each pixel."""
    values: Values
    hot_values: Values


def _collect(collection: MetricCollection, batches: Batches) -> Values:
    for maps, masks in batches:
        collection.update(maps, masks)
    return {name: float(value) for name, value in collection.compute().items()}


def _negative_min(maps: Tensor) -> Tensor:
    return -maps.amin()


def _peak_bytes() -> int:
    """Peak resident memory of this process since it was last reset, or since its start where it cannot be."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _reset_peak() -> None:
    """Forget the peak so far, where the system can."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def measure(name: str, workload: Workload, batch_size: int, runs: int) -> Found:
    """Measure one way in this process: memory in the first run, time in all."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    way, batches = WAYS[name][0], list(workload.batches(batch_size))
    way([(maps[:, :64, :64], masks[:, :64, :64] | (torch.arange(64) < 5)) for maps, masks in batches])  # imports
    num_pixels = sum(maps.numel() for maps, _ in batches)
    _reset_peak()
    before = _peak_bytes()
    times = []
    peak = 0
    for _ in range(runs):
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
    goal = ""
    if name in GOALS:
        most_time, most_bytes = GOALS[name]
        is_met = found.nanoseconds <= most_time and found.num_bytes <= most_bytes
        goal = f"  goal {most_time:.0f} ns, {most_bytes:.0f} bytes: {'met' if is_met else 'not met'}"
    return f"{name:<38} {found.nanoseconds:8.1f} {found.num_bytes:8.2f}  {values}   {hot_values}{goal}".replace(
        "nan", " - "
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--growth", action="store_true", help="measure ours on 1, 2, 4 and 8 times as many images")
    arguments = parser.parse_args()
    factors = (1, 2, 4, 8) if arguments.growth else (1,)
    print(f"{'':<38} {'ns/pixel':>8} {'B/pixel':>8}  values of {', '.join(NAMES)}; the same with one hot pixel")
    context = multiprocessing.get_context("spawn")
    for name in arguments.ways[:3] if arguments.growth else arguments.ways:
        package = WAYS[name][1]
        if package and importlib.util.find_spec(package) is None:
            print(f"{name:<38} not installed")
            continue
        for factor in factors:
            num_images = arguments.images * factor
            workload = Workload("", num_images // 3, num_images - num_images // 3, ((arguments.size, arguments.size),))
            with context.Pool(1) as pool:
                try:
                    found = pool.apply(measure, (name, workload, arguments.batch_size, arguments.runs))
                except Exception as error:  # noqa: BLE001  a peer may fail in any way
                    print(f"{name:<38} failed: {type(error).__name__}: {error}")
                    continue
            print(row(f"{name}{f', {num_images} maps' if arguments.growth else ''}", found), flush=True)


if __name__ == "__main__":
    main()
