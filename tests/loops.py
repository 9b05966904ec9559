"""What the tests of Lightning's loops share: a small data set, a model whose step is given, and a way to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from helpers import FPR_BOUNDS, make_batch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from aupimo_torchmetrics import AUPIMO, functional

advice_of_lightning = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]
"""Marks of a module: what Lightning says of speed and of itself, which a test has no use for."""

unlogged = pytest.mark.filterwarnings("ignore:AUPIMO of .* is not that of this epoch alone")
"""Mark of a test in which nobody resets a metric: it is not logged as an object."""

MAPS, MASKS = make_batch("NANANANANA", 3)
"""Each batch has a normal and an anomalous image, so that a sanity check has a score, too."""
IMAGES = torch.rand(len(MAPS), 3, *MAPS.shape[1:], generator=torch.Generator().manual_seed(1))
SCORES = functional.aupimo(MAPS, MASKS, fpr_bounds=FPR_BOUNDS, reduction="none")

Batch = dict[str, Any]
Step = Callable[["Detector", Batch, int], Any]


class Images(Dataset[Batch]):
    """Images as dictionaries; the names of maps and masks are none that the callback looks for."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def __getitem__(self, place: int) -> Batch:
        """Return an image with its map and mask."""
        i = self.indices[place]
        return {"image": IMAGES[i], "scores": MAPS[i], "truth": MASKS[i], "index": i, "label": int(i % 2)}


def loader(indices: Sequence[int] = range(len(MAPS)), batch_size: int = 2) -> DataLoader[Batch]:
    """Return a loader of some of the images."""
    return DataLoader(Images(indices), batch_size)


def update_and_log(model: Detector, batch: Batch, dataloader_idx: int) -> Any:  # noqa: ARG001
    """Update `model.aupimo`, log it, and return what heat maps need."""
    model.aupimo.update(batch["scores"], batch["truth"])
    model.log("val/aupimo", model.aupimo)
    return {"anomaly_map": batch["scores"].clone(), "mask": batch["truth"]}


class Detector(pl.LightningModule):
    """A model that learns nothing, with some metrics as attributes."""

    def __init__(self, step: Step = update_and_log, **metrics: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.step = step
        for name, metric in (metrics or {"aupimo": new_metric()}).items():
            setattr(self, name, metric)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Learn nothing."""
        return self.layer(batch["image"][:, :1, 0, 0]).sum()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:  # noqa: ARG002
        """Do what was given."""
        return self.step(self, batch, dataloader_idx)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what a trainer asks for."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


def new_metric(**settings: Any) -> AUPIMO:
    """Return a metric with bounds that fit the data."""
    return AUPIMO(**{"fpr_bounds": FPR_BOUNDS, **settings})


def make_trainer(folder: Path, *callbacks: Any, **settings: Any) -> pl.Trainer:
    """Make a trainer of two epochs, which logs to TensorBoard."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": TensorBoardLogger(folder, name="", version=""),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**defaults, **settings})


def fit(folder: Path, model: pl.LightningModule, *callbacks: Any, loaders: Any = None, **settings: Any) -> pl.Trainer:
    """Train for two epochs of five steps."""
    trainer = make_trainer(folder, *callbacks, **settings)
    trainer.fit(model, loader(), loader() if loaders is None else loaders)
    return trainer


def read_events(folder: Path) -> EventAccumulator:
    """Read what TensorBoard would show."""
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0}).Reload()
