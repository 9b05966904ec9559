"""How far sampled AUPIMO lies from the exact score, and at which cost: `python tests/benchmarks/accuracy.py`.

The paper's protocol samples K thresholds evenly from the lowest to the highest normal score, however few of them lie
between the FPR bounds. Its scores are compared with the exact ones on two sizes of data, each as it is and under two
stresses; the official package is measured alike if it is installed. The exact score itself is compared with a slow
integration from the definition, `tests/reference.py`, by the test suite.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import json
import logging
import platform
import statistics
import textwrap
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from workloads import WORKLOADS, Workload

import aupimo_torchmetrics
from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics._warnings import MIN_SAMPLED_POINTS

BATCH_SIZE = 32
NUMBERS_OF_THRESHOLDS = (3_000, 30_000, 300_000)

HAS_OFFICIAL = importlib.util.find_spec("aupimo") is not None

Bounds = tuple[float, float]
Data = tuple[Tensor, Tensor, Bounds]
"""Maps (N, H, W), masks (N, H, W) and FPR bounds."""


class Answer(NamedTuple):
    """What one method says of a data set."""

    scores: Tensor
    """(N,) float64, NaN for normal images."""
    num_points: int | None
    """Thresholds between the bounds; None if all that there are count."""


class Row(NamedTuple):
    """One method on one data set, compared with the exact scores."""

    method: str
    largest_difference: float | None = None
    mean_difference: float | None = None
    num_points: int | None = None
    milliseconds: float | None = None
    """From the maps to the scores."""
    remark: str = ""


class Table(NamedTuple):
    """All methods on one data set under one stress."""

    workload: str
    fpr_bounds: Bounds
    stress: str
    exact_mean: float
    rows: list[Row]


Method = Callable[[Tensor, Tensor, Bounds], Answer]

DATA: tuple[tuple[Workload, Bounds], ...] = (
    (WORKLOADS["256"], (1e-4, 1e-3)),
    (Workload("screw, 8 + 8", 8, 8, ((1024, 1024),)), (1e-5, 1e-4)),
)
"""Bounds that the normal pixels resolve: at the lower one lie 131 and 84 of them."""


def with_outlier(maps: Tensor, masks: Tensor) -> Tensor:
    """Give one normal pixel 1,000 times the largest score."""
    first_normal = int((~masks.flatten(1).any(1)).long().argmax())
    maps = maps.clone()
    maps[first_normal, 0, 0] = 1000 * maps.amax()
    return maps


STRESSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as it is": lambda maps, _: maps,
    "one normal pixel at 1,000 times the largest score: the grid is stretched, few thresholds in range": with_outlier,
    "scores * 1e-3 + 100 in float32: many scores are equal, and fine grids repeat thresholds": (
        lambda maps, _: maps * 1e-3 + 100
    ),
}
"""What is done to the data, and what that does to the thresholds."""


def score(num_thresholds: int | None, maps: Tensor, masks: Tensor, fpr_bounds: Bounds) -> Answer:
    """Score by this library."""
    metric = AUPIMO(num_thresholds, fpr_bounds)
    for batch in zip(maps.split(BATCH_SIZE), masks.split(BATCH_SIZE), strict=True):
        metric.update(*batch)
    result = metric.result()
    return Answer(result.aupimos, result.num_points)


def score_officially(num_thresholds: int, maps: Tensor, masks: Tensor, fpr_bounds: Bounds) -> Answer:
    """Score by the official package, https://github.com/jpcbertoldo/aupimo."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # noqa: NPY201 - numpy 2 has renamed it
    package = importlib.import_module("aupimo")
    logging.getLogger("aupimo").setLevel(logging.ERROR)  # it warns by the log, too
    _, result = package.aupimo_scores(maps, masks, num_threshs=num_thresholds, fpr_bounds=fpr_bounds)
    return Answer(result.aupimos.double(), result.num_threshs)


def methods() -> dict[str, Method]:
    """Every method by its name in the table."""
    found: dict[str, Method] = {"exact": partial(score, None)}
    found |= {f"{number:,} thresholds": partial(score, number) for number in NUMBERS_OF_THRESHOLDS}
    if HAS_OFFICIAL:
        found |= {f"official, {number:,}": partial(score_officially, number) for number in NUMBERS_OF_THRESHOLDS}
    return found


def measure(name: str, method: Method, data: Data, exact: Tensor, num_runs: int) -> Row:
    """Score, and compare with the exact scores; the time is the median of the runs."""
    times = []
    for _ in range(num_runs):
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the table shows what they warn of
                answer = method(*data)
        except (RuntimeError, TypeError, ValueError) as error:
            return Row(name, remark=textwrap.shorten(f"raises: {error}", 80))
        times.append((time.perf_counter() - begin) * 1e3)
    differences = (answer.scores - exact)[~exact.isnan()].abs()
    is_coarse = answer.num_points is not None and answer.num_points < MIN_SAMPLED_POINTS
    return Row(
        method=name,
        largest_difference=float(differences.amax()),
        mean_difference=float(differences.mean()),
        num_points=answer.num_points,
        milliseconds=statistics.median(times),
        remark="too few thresholds in range" if is_coarse else "",
    )


def make_table(workload: Workload, fpr_bounds: Bounds, stress: str, num_runs: int) -> Table:
    """Measure every method on one data set under one stress."""
    maps, masks = next(workload.batches(workload.num_normal + workload.num_anomalous))
    if not (isinstance(maps, Tensor) and isinstance(masks, Tensor)):
        raise TypeError(f"Expected images of one size, but got those of the workload {workload.name!r}.")
    data = STRESSES[stress](maps, masks), masks, fpr_bounds
    exact = score(None, *data).scores
    rows = [measure(name, method, data, exact, num_runs) for name, method in methods().items()]
    if not HAS_OFFICIAL:
        rows.append(Row("official", remark="not installed"))
    return Table(workload.name, fpr_bounds, stress, float(exact.nanmean()), rows)


def print_table(table: Table) -> None:
    """Print one line a method."""
    lower, upper = table.fpr_bounds
    print(f"\n{table.workload}, {table.stress}")
    print(f"FPR {lower:g} to {upper:g}, mean of the exact scores {table.exact_mean:.4f}")
    print(f"{'':20}{'largest':>10}{'mean':>10}{'thresholds':>13}")
    print(f"{'':20}{'error':>10}{'error':>10}{'in range':>13}{'ms':>8}")
    for row in table.rows:
        if row.milliseconds is None:
            print(f"{row.method:20}  {row.remark}")
            continue
        num_points = "all" if row.num_points is None else f"{row.num_points:,}"
        errors = f"{row.largest_difference:>10.1e}{row.mean_difference:>10.1e}"
        print(f"{row.method:20}{errors}{num_points:>13}{row.milliseconds:>8.0f}  {row.remark}".rstrip())


def versions() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "aupimo-torchmetrics": aupimo_torchmetrics.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def main() -> None:
    """Print a table for each data set under each stress, and write them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="timed runs")
    parser.add_argument("--json", type=Path, help="file to write the tables to")
    arguments = parser.parse_args()

    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    tables = []
    for (workload, fpr_bounds), stress in itertools.product(DATA, STRESSES):
        tables.append(make_table(workload, fpr_bounds, stress, arguments.runs))
        print_table(tables[-1])
    if arguments.json:
        contents = [{**table._asdict(), "rows": [row._asdict() for row in table.rows]} for table in tables]
        arguments.json.write_text(json.dumps({"versions": versions(), "tables": contents}, indent=2))


if __name__ == "__main__":
    main()
