"""What the tests of Lightning's loops share: a small data set, a model whose step is given, and a way to run it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import matplotlib as mpl
import pytest
import torch
from helpers import FPR_BOUNDS, make_batch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aupimo_torchmetrics import AUPIMO, functional

mpl.use("Agg")

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

FEW_MASKS = MASKS.clone()
FEW_MASKS[9] = False
FEW_MASKS[9, 3, 4] = True
"""One mask of one pixel, which is found or not, so that the shares at 0 and 1 differ."""

Batch = dict[str, Any]
Step = Callable[["Detector", Batch, int], Any]


def loader(indices: Sequence[int] = range(len(MAPS)), batch_size: int = 2) -> DataLoader[Batch]:
    """Return a loader of some of the images, as dictionaries."""
    images = ({"image": IMAGES[i], "scores": MAPS[i], "truth": MASKS[i], "index": i, "label": i % 2} for i in indices)
    return DataLoader([*images], batch_size)  # type: ignore[arg-type]  a list will do


def as_it_is(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return maps and masks of a batch."""
    return batch["scores"], batch["truth"]


def scoring(
    make: Callable[[Batch], tuple[Any, ...]] = as_it_is, tag: str | None = "val/aupimo", *names: str, **how: Any
) -> Step:
    """Return a step that updates `model.aupimo`, or the metrics of these names, and logs each: by tag, if there is one.

    The update is with what is made of the batch: maps, masks and perhaps ids.
    """

    def step(model: Detector, batch: Batch, _: int) -> None:
        for name in names or ("aupimo",):
            metric = getattr(model, name)
            metric.update(*make(batch))
            if tag is not None:
                model.log(tag.format(name), metric, **how)

    return step


update_and_log = scoring()


def log_collection(model: Detector, batch: Batch, _: int) -> None:
    """Update `model.metrics`, and log them as a dictionary."""
    model.metrics.update(batch["scores"], batch["truth"])
    model.log_dict(model.metrics)


def log_by_stage(model: Detector, batch: Batch, dataloader_idx: int) -> None:
    """Update `model.aupimo`, and log it under a name of its own in each stage."""
    scoring(tag="test/aupimo" if model.trainer.testing else "val/aupimo")(model, batch, dataloader_idx)


def maps_of_epoch(maps: Tensor, epoch: int) -> Tensor:
    """Return the maps that a model gives in an epoch, others each time."""
    return maps - 0.3 * epoch * maps.roll(3, -1)


def in_epochs(step: Step = update_and_log) -> Step:
    """Return a step with the maps of the epoch."""
    return lambda model, batch, dataloader_idx: step(
        model, {**batch, "scores": maps_of_epoch(batch["scores"], model.current_epoch)}, dataloader_idx
    )


class Detector(pl.LightningModule):
    """A model that learns nothing, with some metrics as attributes."""

    def __init__(self, step: Step = update_and_log, at_end: Any = None, **metrics: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.step, self.at_end = step, at_end
        for name, metric in (metrics or {"aupimo": new_metric()}).items():
            setattr(self, name, metric)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Learn nothing."""
        return self.layer(batch["image"][:, :1, 0, 0]).sum()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:  # noqa: ARG002
        """Do what was given."""
        return self.step(self, batch, dataloader_idx)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Do what was given, after the hooks of callbacks."""
        if self.at_end is not None:
            self.at_end(self)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what a trainer asks for."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Notes(Detector):
    """A model that notes what is logged in each epoch, and what its metric says before Lightning resets it."""

    def __init__(self, step: Step = update_and_log, at_end: Any = None, **metrics: Any) -> None:
        super().__init__(in_epochs(step), at_end, **metrics)
        self.logged: list[Any] = []
        self.results: list[Any] = []

    def on_validation_epoch_end(self) -> None:
        """Ask for the full result."""
        super().on_validation_epoch_end()
        if hasattr(self, "aupimo") and not self.trainer.sanity_checking:
            self.results.append(self.aupimo.result())

    def on_train_epoch_end(self) -> None:
        """Note what was logged."""
        self.logged.append({**self.trainer.callback_metrics})

    @property
    def logged_scores(self) -> list[float]:
        """The score of each epoch."""
        return [float(each["val/aupimo"]) for each in self.logged]


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
    trainer.fit(model, loader(), loaders or loader())
    return trainer


def validate(folder: Path, model: pl.LightningModule, *callbacks: Any, loaders: Any = None, **settings: Any) -> Any:
    """Validate once, and return the trainer."""
    trainer = make_trainer(folder, *callbacks, **settings)
    trainer.validate(model, loaders or loader(), verbose=False)
    return trainer


def join_processes(rank: int, world_size: int, note: Callable[[str], Any]) -> dict[str, Any]:
    """Become one of several processes that are there already, in silence; return the settings of its trainer."""
    note("Lightning")
    warnings.simplefilter("ignore")
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then starts no processes of its own
    return {"devices": world_size, "strategy": "ddp"}


def read_events(folder: Path) -> EventAccumulator:
    """Read what TensorBoard would show."""
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0}).Reload()


class FigureLogger(Logger):
    """A logger that takes figures as TensorBoard does, and keeps all that it gets."""

    name = "figures"
    version = 0

    def __init__(self) -> None:
        super().__init__()
        self.scalars: dict[str, float] = {}
        self.figures: dict[str, list[Any]] = {}
        self.steps: dict[str, list[int | None]] = {}
        """At which steps each name was logged."""

    @property
    def experiment(self) -> Any:
        """What takes the figures."""
        return self

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep the latest values."""
        self.scalars.update(metrics)
        for name in metrics:
            self.steps.setdefault(name, []).append(step)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""

    def add_figure(self, tag: str, figure: Any, step: int) -> None:
        """Keep a figure."""
        self.figures.setdefault(tag, []).append(figure)
        self.steps.setdefault(tag, []).append(step)

    def add_histogram(self, tag: str, _: Any, step: int) -> None:
        """Keep the step of a histogram."""
        self.steps.setdefault(tag, []).append(step)


class HeatMap(NamedTuple):
    """What a figure shows of an image."""

    title: str
    image: Tensor
    """(H, W) grey."""
    weights: Tensor
    """(H, W) colours, 0 where the photograph is seen."""
    has_outline: bool


def heat_maps(figure: Any) -> list[HeatMap]:
    """Return what a figure with heat maps shows: one has the heat of an image over its photograph."""
    axes = [axis for axis in figure.axes if len(axis.images) == 2]
    layers = [[torch.as_tensor(image.get_array().filled(0)) for image in axis.images] for axis in axes]
    return [
        HeatMap(axis.get_title().replace("\n", " "), *parts, has_outline=len(axis.collections) > 0)
        for axis, parts in zip(axes, layers, strict=True)
    ]


def check_heat_maps(figure: Any, result: Any, indices: Sequence[int], maps: Tensor = MAPS) -> None:
    """Check that a figure shows these images, each with its photograph, map, outline and score."""
    shown = heat_maps(figure)
    assert len(shown) == len(indices)
    for each, index in zip(shown, indices, strict=True):
        assert torch.allclose(each.image, IMAGES[index].mean(0), atol=1e-6)
        assert torch.equal(each.weights.double(), result.pixel_aupimo(maps[index]).double())
        assert each.has_outline == bool(MASKS[index].any())
