"""Check and time AUPIMO on a GPU: `python tests/benchmarks/gpu.py`. Without CUDA it checks and times the CPU.

The checks: states and results lie on the device of the maps; an `update` waits for the device twice at most, whether it
is of 4 images or of 32 (CUDA only); scores are those of the function on the CPU. Then `update` and `compute` are timed
against a copy of the same maps on the device, `maps.clone()`. A failed check gives exit code 1, a long time does not.
"""

import itertools
import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from workloads import Batch, Workload, seconds, updated, versions

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.functional import aupimo

SIZE = (1024, 1024)
BATCH_SIZE = 32
NUM_RUNS = 9

CHECKED_SIZES = ((256, 256), (192, 256), (225, 175))
CHECKED_BOUNDS = (1e-3, 1e-2)
"""The normal images of these sizes are small, the smallest of 39,375 pixels."""
MAX_WAITS = 2
"""One for the facts of the batch, and one for the scores that are kept of it."""
TOLERANCE = 1e-6
"""Scores are float32, and the device adds up in another order."""
CHECKED = Workload("float32", 8, 24, CHECKED_SIZES[:1])


def make_batches(workload: Workload, batch_size: int, device: torch.device) -> list[Batch]:
    """Batches of a workload on a device, as tensors or as lists."""
    return [tuple(move(images, device) for images in batch) for batch in workload.batches(batch_size)]


def move(images: Tensor | list[Tensor], device: torch.device) -> Any:
    """Images on a device."""
    return images.to(device) if isinstance(images, Tensor) else [image.to(device) for image in images]


def scored(batches: list[Batch], device: torch.device, num_thresholds: int | None, shared_fpr: str) -> Tensor:
    """Scores (N,) of the metric, on its device."""
    metric = AUPIMO(num_thresholds, CHECKED_BOUNDS, reduction="none", shared_fpr=shared_fpr).to(device)
    return updated(metric, batches).compute()


def report(is_met: bool, promise: str) -> bool:
    """Print whether a promise is kept."""
    print(f"{'ok    ' if is_met else 'FAILED'}  {promise}")
    return is_met


def check_devices(device: torch.device) -> bool:
    """Whether states and results lie where the maps are."""
    ((maps, masks),) = make_batches(CHECKED, 32, device)
    metric = AUPIMO(fpr_bounds=CHECKED_BOUNDS).to(device)
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


def check_waits(device: torch.device) -> bool:
    """Whether an update after the first waits only as often as it must, however many images it is of."""
    metric = AUPIMO().to(device)
    ((maps, masks),) = make_batches(CHECKED, 32, device)
    metric.update(maps, masks)
    few, many = (count_waits(metric, (maps[:number], masks[:number])) for number in (4, 32))
    return report(few == many <= MAX_WAITS, f"an update waits {few} times with 4 images, {many} times with 32")


def check_scores(device: torch.device) -> bool:
    """Whether the scores are those of the function on the CPU, which gets all images at once, as lists."""
    workloads = [CHECKED, CHECKED._replace(name="float16", dtype=torch.float16)]
    workloads.append(CHECKED._replace(name="mixed sizes", sizes=CHECKED_SIZES))
    cases = {workload.name: make_batches(workload, 8, device) for workload in workloads}
    are_met = []
    for name, num_thresholds, shared_fpr in itertools.product(cases, (None, 30_000), ("mean", "max")):
        scores = scored(cases[name], device, num_thresholds, shared_fpr).cpu()
        maps, masks = ([image.cpu() for images in each for image in images] for each in zip(*cases[name], strict=True))
        expected = aupimo(maps, masks, num_thresholds, CHECKED_BOUNDS, reduction="none", shared_fpr=shared_fpr)
        is_same = torch.allclose(scores, expected, rtol=0, atol=TOLERANCE, equal_nan=True)
        protocol = "exact" if num_thresholds is None else f"{num_thresholds:,} thresholds"
        difference = float((scores - expected).abs().nan_to_num().amax())
        promise = f"{name}, {protocol}, {shared_fpr} FPR: scores differ by {difference:.1e} at most"
        are_met.append(report(is_same, promise))
    return all(are_met)


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Time one call, by the clock of the device if it has one."""
    if device.type != "cuda":
        return seconds(call) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def print_times(num_images: int, device: torch.device) -> None:
    """Time several runs after one that warms up, and print the times and their ratio to a copy."""
    batches = make_batches(Workload("", num_images // 4, num_images - num_images // 4, (SIZE,)), BATCH_SIZE, device)
    times: dict[str, list[float]] = {"copy": [], "update": [], "compute": [], "update + compute, in copies": []}
    for _ in range(NUM_RUNS + 1):
        metric = AUPIMO().to(device)
        copy = milliseconds(lambda: [maps.clone() for maps, _ in batches], device)
        update = milliseconds(lambda metric=metric: updated(metric, batches), device)
        compute = milliseconds(metric.compute, device)
        for each, time_of_run in zip(times.values(), (copy, update, compute, (update + compute) / copy), strict=True):
            each.append(time_of_run)
    print(f"\n{num_images} maps of {SIZE[0]} x {SIZE[1]} by {BATCH_SIZE}; median of {NUM_RUNS} runs, ms")
    for name, (_, *runs) in times.items():
        print(f"{name:28}{statistics.median(runs):.2f} ({min(runs):.2f} to {max(runs):.2f})")


def main() -> None:
    """Check, then time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_cuda = device.type == "cuda"
    name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if is_cuda else "the CPU, without CUDA"
    print(f"{versions()}; on {name}")
    are_met = [check_devices(device), check_scores(device)]
    if is_cuda:
        are_met.append(check_waits(device))
    print_times(160 if is_cuda else 32, device)
    sys.exit(not all(are_met))


if __name__ == "__main__":
    main()
