"""Time `vad_metrics` against its most expensive parts, and `PerCategory`: `python tests/benchmarks/unified.py`.

Everything runs in turn in one process, on the same tensors, several times; medians count, of the updates and `compute`
together. AUPIMO and AUPRO are the most expensive metrics that share no state.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from workloads import WORKLOADS, Batch, seconds, updated

from aupimo_torchmetrics import AUPIMO, AUPRO, ImageAUROC, PerCategory, PixelAUROC, vad_metrics

NUM_RUNS = 5
CATEGORIES = [f"category {index}" for index in range(15)]
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"num_bins": 2**18}, {"image_score": "top_1%"})


def seconds_of(make: Callable[[], Any], batches: Sequence[Batch]) -> float:
    """Time of all updates and `compute` of a new metric."""
    metric = make()
    return seconds(lambda: updated(metric, batches).compute())


def seconds_by_category(batches: Sequence[Batch]) -> float:
    """Time of `PerCategory` of all categories, of which each batch holds some."""
    metric = PerCategory(vad_metrics(), CATEGORIES)
    start = time.perf_counter()
    for maps, masks in batches:
        metric.update(maps, masks, categories=[CATEGORIES[index % 5] for index in range(len(maps))])
    metric.compute()
    return time.perf_counter() - start


def medians(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median time of each way, all in turn."""
    times = [{name: measure() for name, measure in ways.items()} for _ in range(NUM_RUNS)]
    return {name: statistics.median(each[name] for each in times) for name in ways}


def main() -> None:
    """Print a line for each workload and setting, and what five categories cost."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # threads of other work would disturb what is compared
    print("vad_metrics; AUPIMO, AUPRO, PixelAUROC and ImageAUROC alone; ratio to the first two, and to the largest two")
    for name in ("96", "32"):
        batches = [*WORKLOADS[name].batches(8)]
        for settings in SETTINGS:
            bins, score = {"num_bins": settings.get("num_bins")}, settings.get("image_score", "max")
            makes: dict[str, Callable[[], Any]] = {
                "vad_metrics": partial(vad_metrics, **settings),
                "AUPIMO": AUPIMO,
                "AUPRO": partial(AUPRO, **bins),
                "PixelAUROC": partial(PixelAUROC, **bins),
                "ImageAUROC": partial(ImageAUROC, score),
            }
            found = medians({each: partial(seconds_of, make, batches) for each, make in makes.items()})
            whole, *alone = found.values()
            shown = ", ".join(f"{1e3 * each:.1f}" for each in alone)
            ratios = f"{whole / sum(alone[:2]):.2f}, {whole / sum(sorted(alone)[-2:]):.2f}"
            print(f"{name}, {settings or 'default'}: {1e3 * whole:.1f} ms; {shown} ms; {ratios}")
    batches = [*WORKLOADS["96"].batches(24)]
    found = medians({"one": partial(seconds_of, vad_metrics, batches), "five": partial(seconds_by_category, batches)})
    print(f"96 images of one category {1e3 * found['one']:.1f} ms, of five mixed ones {1e3 * found['five']:.1f} ms")


if __name__ == "__main__":
    main()
