"""Time AUPIMO against one read of the data, and weigh its state: `python tests/benchmarks/speed.py`.

The workload is the size of MVTec AD's category screw: 41 normal and 119 anomalous maps of 1024 x 1024 with small
defects, smooth with a heavy right tail, made from a seed and fed in batches. One read of the data is `maps.amax()` and
`masks.any()`. Both are timed in turn in one process; the ratio of the medians is what counts.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import aupimo_torchmetrics
from aupimo_torchmetrics import AUPIMO

NUM_NORMAL, NUM_ANOMALOUS, SIZE, DEFECT = 41, 119, 1024, 55

Batch = tuple[Tensor, Tensor]


def make_batches(batch_size: int, seed: int = 0) -> Iterator[Batch]:
    """Yield batches of maps (n, H, W) float32 and masks (n, H, W) bool, normal images first."""
    generator = torch.Generator().manual_seed(seed)
    is_anomalous = torch.arange(NUM_NORMAL + NUM_ANOMALOUS) >= NUM_NORMAL
    for classes in is_anomalous.split(batch_size):
        coarse = torch.randn(len(classes), 1, SIZE // 16, SIZE // 16, generator=generator)
        maps = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")[:, 0].exp()
        maps += 0.05 * torch.randn(maps.shape, generator=generator)
        masks = torch.zeros(maps.shape, dtype=torch.bool)
        for i in classes.nonzero().flatten().tolist():
            row, column = torch.randint(0, SIZE - DEFECT, (2,), generator=generator).tolist()
            masks[i, row : row + DEFECT, column : column + DEFECT] = True
        yield maps + 20 * masks * torch.rand(maps.shape, generator=generator), masks


def read_once(batches: list[Batch]) -> None:
    """Read every map and mask once."""
    for maps, masks in batches:
        maps.amax()
        masks.any()


def update(batches: list[Batch]) -> AUPIMO:
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


def state_bytes(metric: AUPIMO) -> int:
    """Bytes of all states."""
    tensors = [
        part for state in metric.metric_state.values() for part in (state if isinstance(state, list) else [state])
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main() -> None:
    """Print times as ratios to one read of the data, and the state as a share of the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    print(
        f"aupimo-torchmetrics {aupimo_torchmetrics.__version__}, torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} threads; median of {arguments.runs} runs"
    )
    for batch_size in arguments.batch_sizes:
        batches = list(make_batches(batch_size))
        metric = update(batches)
        score = float(metric.compute())
        reads, updates, computes = [], [], []
        for _ in range(arguments.runs):
            reads.append(seconds(partial(read_once, batches)))
            updates.append(seconds(partial(update, batches)))
            metric = update(batches)
            computes.append(seconds(metric.compute))
        read, updating, computing = (statistics.median(times) for times in (reads, updates, computes))
        ratios = sorted((u + c) / r for u, c, r in zip(updates, computes, reads, strict=True))
        input_bytes = sum(maps.nbytes + masks.nbytes for maps, masks in batches)
        print(
            f"batches of {batch_size}: one read {read * 1e3:.0f} ms, update {updating * 1e3:.0f} ms, "
            f"compute {computing * 1e3:.0f} ms, ratio {(updating + computing) / read:.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}); state {state_bytes(metric) / 1e6:.2f} MB, "
            f"{state_bytes(metric) / input_bytes:.2%} of the input; AUPIMO {score:.4f}"
        )


if __name__ == "__main__":
    main()
