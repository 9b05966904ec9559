"""What tests share: seeded maps and masks, the way through the engine, metrics, and a runner of gloo ranks."""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torchvision_operators  # a rank has no conftest
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric

from aupimo_torchmetrics import (
    AUPIMO,
    AUPRO,
    PIMO,
    AUPIMOResult,
    ImageAUROC,
    ImageAveragePrecision,
    ImageF1Max,
    PixelAUROC,
    PixelAveragePrecision,
    PixelF1Max,
    functional,
)

torch.set_num_threads(1)  # tensors are small in these tests: more threads cost up to a hundred times the work

FPR_BOUNDS = (1e-3, 1e-2)
"""Bounds that one normal image of 1000 pixels resolves: its highest score lies at the lower one."""

SIZE = (25, 40)

MAX_ERROR = 1e-7
"""Sums of the same float64 terms in another order, rounded to float32: one unit in the last place of a score."""

Batch = tuple[Tensor, Tensor] | tuple[list[Tensor], list[Tensor]]


def make_batch(classes: str, seed: int, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """Maps and masks (N, H, W) for a metric, one image for each letter of `classes`: N is normal, A anomalous."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(len(classes), *size, dtype=torch.bool)
    for mask, letter in zip(masks, classes, strict=True):
        if letter == "A":
            top, left = (int(torch.randint(0, side - 8, (), generator=generator)) for side in size)
            mask[top : top + 8, left : left + 8] = True
    return torch.randn(masks.shape, generator=generator) + 2.5 * masks, masks


def make_ragged(classes: str, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Lists of maps and masks (H, W) of different sizes, otherwise like `make_batch`."""
    pairs = [make_batch(letter, 100 * seed + i, (20 + 5 * i, 47 - i)) for i, letter in enumerate(classes)]
    return [maps[0] for maps, _ in pairs], [masks[0] for _, masks in pairs]


def make_image_list(
    seed: int,
    sizes: Sequence[tuple[int, int]] = ((12, 10), (9, 9), (5, 16), (12, 10), (7, 8)),
    anomalous: Sequence[int] = (1, 3),
    decimals: int | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Lists of maps and masks (H, W): so small that the slow loops of `reference.py` can score them.

    The images at the indices in `anomalous` have a mask, in which scores are higher on average. Scores are float64
    numbers that float32 holds as well. Rounded to a few `decimals`, many of them are equal.
    """
    random = torch.Generator().manual_seed(seed)
    maps, masks = [], []
    for index, (height, width) in enumerate(sizes):
        mask = torch.zeros(height, width, dtype=torch.bool)
        if index in anomalous:
            mask[height // 4 : height // 4 + max(1, height // 3), width // 3 : width // 3 + max(1, width // 4)] = True
        scores = torch.randn(height, width, generator=random) + 1.5 * mask
        if decimals is not None:
            scores = scores.mul(10**decimals).round().div(10**decimals)
        maps.append(scores.double())
        masks.append(mask)
    return maps, masks


def make_images(
    seed: int, num_images: int = 5, size: tuple[int, int] = (12, 10), **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Maps and masks (N, H, W) of one size, otherwise like `make_image_list`."""
    maps, masks = make_image_list(seed, [size] * num_images, **kwargs)
    return torch.stack(maps), torch.stack(masks)


def as_arrays(images: Sequence[Tensor] | Tensor) -> list[NDArray[Any]]:
    """One array (H, W) an image, for the reference."""
    return [image.numpy() for image in images]


def join(batches: Sequence[Batch]) -> Batch:
    """All batches as one, a tensor if all are of one size, else a list."""
    preds, target = zip(*batches, strict=True)
    if all(isinstance(maps, Tensor) for maps in preds):
        return torch.cat(preds), torch.cat(target)
    return [image for maps in preds for image in maps], [image for masks in target for image in masks]


def keep(
    preds: Any, target: Any, *, floor: float = -math.inf, normal_buffer: int | None = 2**62, **settings: Any
) -> AUPIMO:
    """A metric that had a floor, as one that has seen much, after an update; its buffer leaves the floor as it is."""
    metric = AUPIMO(**{"fpr_bounds": (0.5, 1.0), "normal_buffer": normal_buffer, **settings})
    metric.aupimo_floor = torch.tensor(floor, dtype=torch.float32)
    metric.update(preds, target)
    return metric


@contextmanager
def caught_texts() -> Iterator[list[str]]:
    """Catch all warnings, and give the list in which their texts will stand."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(each.message) for each in caught]


def score(
    preds: Any,
    target: Any,
    fpr_bounds: tuple[float, float],
    num_thresholds: int | None = None,
    *,
    shared_fpr: str = "mean",
    floor: float = -math.inf,
) -> AUPIMOResult:
    """Score images without a warning."""
    settings = {"fpr_bounds": fpr_bounds, "num_thresholds": num_thresholds, "shared_fpr": shared_fpr}
    with caught_texts():
        return keep(preds, target, floor=floor, **settings).result()


def assert_same(actual: Any, expected: Any, atol: float = 0.0) -> None:
    """Assert equality of tensors, or sequences of them, within `atol`; NaN equals NaN."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol, equal_nan=True)


def assert_close(actual: Tensor, expected: object, atol: float) -> None:
    """Compare numbers of at most 1 by their absolute difference, in the dtype of the first; NaN equals NaN."""
    assert_same(actual, torch.as_tensor(expected, dtype=actual.dtype), atol)


make_aupimo = partial(AUPIMO, fpr_bounds=FPR_BOUNDS)
BATCHES = [make_batch("NANA", 0), make_batch("NNAA", 1), make_batch("AN", 2)]
TEXTS = ["b/000.png", "a/1.png", "a/10.png", "a/2.png", "ä.png", "Z.png", "z.png", "\udc80.png", "日本.png", "c"]
"""Names of ten images; a file name that is no UTF-8 holds a surrogate in Python."""
VARIANTS = {
    "mean": make_aupimo,
    "none": partial(make_aupimo, reduction="none"),
    "sampled": partial(make_aupimo, 20_000),
    "pruned": partial(make_aupimo, reduction="none", normal_buffer=16),
    "max": partial(make_aupimo, reduction="none", shared_fpr="max"),
    "pimo": PIMO,
    "pimo-sampled": partial(PIMO, 50),
    "pimo-max": partial(PIMO, shared_fpr="max"),
}
FUNCTIONS: dict[type[Any], Callable[..., Any]] = {
    AUPRO: functional.aupro,
    PixelAUROC: functional.pixel_auroc,
    PixelAveragePrecision: functional.pixel_average_precision,
    PixelF1Max: functional.pixel_f1_max,
    ImageAUROC: functional.image_auroc,
    ImageAveragePrecision: functional.image_average_precision,
    ImageF1Max: functional.image_f1_max,
}
"""The function of each metric beside AUPIMO and PIMO."""
RANKED: dict[str, Callable[..., Any]] = {
    **{metric_class.__name__: metric_class for metric_class in FUNCTIONS},
    "AUPRO by bins": partial(AUPRO, num_bins=2**18),
    "PixelF1Max by bins": partial(PixelF1Max, num_bins=2**18),
    "ImageAUROC of 5%": partial(ImageAUROC, "top_5%"),
}
METRICS = VARIANTS | RANKED


def two_alike(state: Tensor, group: Any) -> list[Tensor]:  # noqa: ARG001  called by torchmetrics
    """Gather as if a second process held the same."""
    return [state, state.clone()]


AS_TWO = {"dist_sync_fn": two_alike, "distributed_available_fn": lambda: True}
"""Settings of a metric that gathers as if there were two processes."""

COPIES = {"clone": Metric.clone, "deepcopy": copy.deepcopy, "pickle": lambda metric: pickle.loads(pickle.dumps(metric))}  # noqa: S301
"""Ways to copy a metric."""

MakeMetric = Callable[..., Any]

RankFunction = Callable[[int, int, Callable[[str], Any]], Any]
"""What a rank of a group runs: a function of its rank, the size of the group, and a function that takes notes."""

each_variant = pytest.mark.parametrize("make_metric", VARIANTS.values(), ids=VARIANTS.keys())
each_metric = pytest.mark.parametrize("make_metric", METRICS.values(), ids=METRICS.keys())
ignoring_uncertainty = pytest.mark.filterwarnings("ignore:.* is uncertain:UserWarning")
"""A few thousand pixels with two of them in a bin leave a metric uncertain by more than 1e-3."""


class Subclass(Tensor):
    """A tensor class of somebody else, as the masks of torchvision are."""


class Operations(TorchDispatchMode):
    """Notes the names of the operations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note its name."""
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def updated(metric: Any, batches: list[Any] = BATCHES) -> Any:
    """Return the metric after an update with each batch."""
    for preds, target in batches:
        metric.update(preds, target)
    return metric


def by_function(metric: Any, preds: Any, target: Any) -> Any:
    """Return what the stateless function answers with the settings of the metric; by bins, what one update gives."""
    if getattr(metric, "num_bins", None) is not None:
        return updated(type(metric)(num_bins=metric.num_bins), [(preds, target)]).compute()
    if type(metric) in FUNCTIONS:
        image_score = [metric.image_score] if hasattr(metric, "image_score") else []
        return FUNCTIONS[type(metric)](preds, target, *image_score)
    shared_fpr = metric.shared_fpr
    if isinstance(metric, PIMO):
        return functional.pimo(preds, target, metric.num_thresholds, shared_fpr=shared_fpr)
    settings = (metric.num_thresholds, metric.fpr_bounds)
    return functional.aupimo(preds, target, *settings, reduction=metric.reduction, shared_fpr=shared_fpr)


def states_of(metric: Metric) -> dict[str, list[Tensor]]:
    """Return all states by name, each as a list of tensors."""
    return {name: list(state) if isinstance(state, list) else [state] for name, state in metric.metric_state.items()}


def run_ranks(jobs: Sequence[tuple[RankFunction, int]], timeout: float = 240.0) -> list[list[Any]]:
    """Do each job `(function, world_size)` in a gloo group of that size, and return what each of its ranks returned.

    A rank calls `function(rank, world_size, note)`. It calls `note(text)` to say what it is at, which a failure then
    quotes. An error, an abort or a hang of a rank fails the test. All jobs are done by the same processes, one after
    the other, which are forks of one that has imported what takes longer than most work, and runs till the tests end,
    where that is possible.
    """
    with tempfile.TemporaryDirectory() as folder:
        num_processes = max(world_size for _, world_size in jobs)
        # Windows cannot fork, and what is imported before cannot be told of torchvision's operators
        can_fork = "forkserver" in multiprocessing.get_all_start_methods() and not torchvision_operators.ARE_DECLARED
        if can_fork:
            multiprocessing.set_forkserver_preload(["aupimo_torchmetrics", "lightning.pytorch", "matplotlib.pyplot"])
        how = "forkserver" if can_fork else "spawn"
        args = (jobs, folder, timeout)
        ranks = mp.start_processes(_run_rank, args, nprocs=num_processes, join=False, start_method=how)
        deadline = time.monotonic() + timeout
        try:
            while not ranks.join(timeout=max(0.1, deadline - time.monotonic())):
                if time.monotonic() > deadline:
                    pytest.fail(f"Ranks did not finish in {timeout:.0f} s: {_notes(folder)}")
        except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
            pytest.fail(f"Ranks failed: {error}\n{_notes(folder)}")
        finally:
            for process in ranks.processes:
                process.kill()
        return [
            [torch.load(Path(folder, f"{job}-{rank}.pt"), weights_only=False) for rank in range(world_size)]
            for job, (_, world_size) in enumerate(jobs)
        ]


def _run_rank(rank: int, jobs: Sequence[tuple[RankFunction, int]], folder: str, timeout: float) -> None:
    note = Path(folder, f"{rank}.note").write_text
    for job, (function, world_size) in enumerate(jobs):
        if rank >= world_size:
            continue
        note(f"the start of {world_size} ranks")
        store = Path(folder, f"{job}.store").as_uri()
        # a rank that waits in vain for another raises before the runner gives up
        dist.init_process_group("gloo", store, timedelta(seconds=timeout / 2), world_size=world_size, rank=rank)
        # a rank that leaves early closes its connections, also to one that is not yet through with the line above
        dist.barrier()
        torch.save(function(rank, world_size, note), Path(folder, f"{job}-{rank}.pt"))
        dist.destroy_process_group()


def _notes(folder: str) -> str:
    notes = [f"rank {path.stem} was at {path.read_text()!r}" for path in sorted(Path(folder).glob("*.note"))]
    return ", ".join(notes) or "no rank had begun"
