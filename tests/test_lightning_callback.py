"""The callback logs what the metric says, to the loggers that can show it, once an epoch, and disturbs nothing."""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from helpers import FPR_BOUNDS, make_batch, run_ranks
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from matplotlib import pyplot as plt
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMO, functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:AUPIMO is undefined .NaN.. none of the 4 images is anomalous"),  # sanity check
]

MAPS, MASKS = make_batch("NNNNNNAANAAAN", 0)
MASKS[9] = False
MASKS[9, 3, 4] = True
"""One mask of one pixel, which is found or not, so that the shares at 0 and 1 differ."""
IMAGES = torch.rand(len(MAPS), 3, *MAPS.shape[1:], generator=torch.Generator().manual_seed(1))
BATCH_SIZE = 2


@pytest.fixture(autouse=True)
def _no_figure_is_open() -> None:
    """Figures that other tests left open do not count."""
    plt.close("all")


def maps_of_epoch(maps: Tensor, epoch: int) -> Tensor:
    """Return the maps that the model gives in an epoch, others each time."""
    return maps - 0.3 * epoch * maps.roll(3, -1)


class Detector(pl.LightningModule):
    """A model that gives the maps of its data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.aupimo = AUPIMO(fpr_bounds=FPR_BOUNDS)
        self.unused = AUPIMO(fpr_bounds=FPR_BOUNDS)  # nothing is logged of a metric without updates

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Learn nothing."""
        return self.layer(batch[0]).sum()

    def validation_step(self, batch: list[Tensor], _: int) -> Any:
        """Score the maps, and log the score."""
        _, maps, masks, ids = batch
        maps = maps_of_epoch(maps, self.current_epoch)
        self.aupimo.update(maps, masks, ids)
        self.log(f"{'test' if self.trainer.testing else 'val'}/aupimo", self.aupimo)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what a trainer asks for."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


class ImageLogger(Logger):
    """A logger that takes images, as that of Weights & Biases does, and remembers all that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, list[Any]] = {}
        self.scalars: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "images"

    @property
    def version(self) -> int:
        """Version of the run."""
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # noqa: ARG002
        """Remember the latest values."""
        self.scalars.update(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Remember nothing."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Remember images and step."""
        self.images.setdefault(key, []).append((images, step))


def make_trainer(folder: Path, **settings: Any) -> pl.Trainer:
    """Make a trainer of two epochs that logs to TensorBoard."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": TensorBoardLogger(folder, name="", version=""),
        "callbacks": [AUPIMOCallback()],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(**{**defaults, **settings})


def loader(masks: Tensor = MASKS) -> DataLoader[Any]:
    """Return the data to validate on."""
    return DataLoader(TensorDataset(IMAGES, MAPS, masks, torch.arange(len(MAPS))), BATCH_SIZE)


def fit(folder: Path, model: pl.LightningModule | None = None, masks: Tensor = MASKS, **settings: Any) -> pl.Trainer:
    """Train for two epochs."""
    trainer = make_trainer(folder, **settings)
    trainer.fit(model or Detector(), DataLoader(TensorDataset(torch.zeros(3, 1))), loader(masks))
    return trainer


def read_events(folder: Path) -> EventAccumulator:
    """Read what TensorBoard would show."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    return events.Reload()


def expected_scores(epoch: int) -> Tensor:
    """Return the scores of the anomalous images by the function."""
    scores = functional.aupimo(maps_of_epoch(MAPS, epoch), MASKS, fpr_bounds=FPR_BOUNDS, reduction="none")
    return scores[~scores.isnan()]


def open_picture(encoded: bytes) -> Any:
    """Pixels (H, W, channels) of a PNG."""
    return np.asarray(Image.open(io.BytesIO(encoded)))


FIGURES = {"val/aupimo/distribution", "val/aupimo/curves", "val/aupimo/heatmaps"}
SHARES = {"val/aupimo/share_at_0", "val/aupimo/share_at_1"}
STEPS = [2, 5]
"""Lightning logs the scalars of a validation at the step before the one that is next: here after 3 and 6 steps."""


def test_event_file_holds_what_the_metric_says(tmp_path: Path) -> None:
    """Scalars, histogram and figures of two epochs are those of a direct computation; nothing is left open."""
    fit(tmp_path)
    events = read_events(tmp_path)
    assert {"val/aupimo", *SHARES} <= set(events.Tags()["scalars"])
    assert events.Tags()["histograms"] == ["val/aupimo/scores"]
    assert set(events.Tags()["images"]) == FIGURES
    for epoch in range(2):
        scores = expected_scores(epoch)
        assert events.Scalars("val/aupimo")[epoch].value == pytest.approx(float(scores.mean()), abs=1e-7)
        assert events.Scalars("val/aupimo/share_at_0")[epoch].value == pytest.approx(
            float((scores == 0).float().mean())
        )
        assert events.Scalars("val/aupimo/share_at_1")[epoch].value == pytest.approx(
            float((scores == 1).float().mean())
        )
        histogram = events.Histograms("val/aupimo/scores")[epoch]
        assert histogram.step == events.Scalars("val/aupimo")[epoch].step
        logged = histogram.histogram_value
        assert logged.num == len(scores) == 5
        assert (logged.min, logged.max) == pytest.approx((float(scores.min()), float(scores.max())))
        assert (logged.sum, logged.sum_squares) == pytest.approx((float(scores.sum()), float(scores.square().sum())))
    for tag in ("val/aupimo", *SHARES, *FIGURES):
        kind = events.Images if tag in FIGURES else events.Scalars
        assert [event.step for event in kind(tag)] == STEPS, tag
    assert 0 < events.Scalars("val/aupimo/share_at_0")[0].value < 1
    assert events.Scalars("val/aupimo")[0].value != events.Scalars("val/aupimo")[1].value
    for tag in FIGURES:
        first, second = (open_picture(image.encoded_image_string) for image in events.Images(tag))
        assert first.shape == second.shape
        assert not np.array_equal(first, second)
    assert plt.get_fignums() == []


def test_nothing_is_logged_of_the_sanity_check(tmp_path: Path) -> None:
    """A sanity check that sees all of the data, and so has a score, leaves no trace."""
    fit(tmp_path, num_sanity_val_steps=-1)
    events = read_events(tmp_path)
    assert [event.step for event in events.Images("val/aupimo/curves")] == STEPS
    assert [event.step for event in events.Histograms("val/aupimo/scores")] == STEPS


@pytest.mark.parametrize("every", [2, 3])
def test_every_n_epochs(tmp_path: Path, every: int) -> None:
    """Of two epochs the second is logged or none; the score itself always is."""
    fit(tmp_path, callbacks=[AUPIMOCallback(every_n_epochs=every)])
    events = read_events(tmp_path)
    assert len(events.Scalars("val/aupimo")) == 2
    if every == 2:
        (image,) = events.Images("val/aupimo/curves")
        assert image.step == STEPS[1]
    else:
        assert events.Tags()["images"] == []


def test_runs_of_their_own_are_always_logged(tmp_path: Path) -> None:
    """`Trainer.validate` and `Trainer.test` log under their own names."""
    trainer = make_trainer(tmp_path, callbacks=[AUPIMOCallback(every_n_epochs=100)])
    trainer.validate(Detector(), loader(), verbose=False)
    assert set(read_events(tmp_path).Tags()["images"]) == FIGURES
    (values,) = trainer.test(Detector(), loader(), verbose=False)
    assert "test/aupimo/share_at_0" in values
    assert {tag.replace("val", "test") for tag in FIGURES} < set(read_events(tmp_path).Tags()["images"])


class InGroup(Detector):
    """A model whose metrics share their states in a group of the collection."""

    def __init__(self) -> None:
        super().__init__()
        del self.aupimo
        members = {"strict": AUPIMO(fpr_bounds=FPR_BOUNDS), "wide": AUPIMO(fpr_bounds=(1e-4, FPR_BOUNDS[1]))}
        self.metrics = MetricCollection(members, prefix="val/")

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Update the collection and log it."""
        _, maps, masks, _ = batch
        self.metrics.update(maps, masks)
        self.log_dict(self.metrics)


@pytest.mark.filterwarnings("ignore:AUPIMO is uncertain")
def test_members_of_a_collection_are_found(tmp_path: Path) -> None:
    """Each metric of a collection is logged under its name, with its own scores, though they share states."""
    fit(tmp_path, InGroup(), callbacks=[AUPIMOCallback()])
    events = read_events(tmp_path)
    assert set(events.Tags()["histograms"]) == {"val/strict/scores", "val/wide/scores"}
    for name, lower in (("strict", FPR_BOUNDS[0]), ("wide", 1e-4)):
        scores = functional.aupimo(MAPS, MASKS, fpr_bounds=(lower, FPR_BOUNDS[1]), reduction="none")
        logged = events.Histograms(f"val/{name}/scores")[0].histogram_value
        assert logged.sum == pytest.approx(float(scores.nansum()))


def test_a_metric_may_be_named(tmp_path: Path) -> None:
    """Only the named metric is logged."""
    with pytest.warns(UserWarning, match="The FPR bounds"):
        fit(tmp_path, InGroup(), callbacks=[AUPIMOCallback("metrics.strict")])
    assert read_events(tmp_path).Tags()["histograms"] == ["val/strict/scores"]


def test_missing_metrics_are_named_before_training(tmp_path: Path) -> None:
    """A module without the metric is a ValueError that lists those that it has."""
    with pytest.raises(ValueError, match="to hold the AUPIMO metric 'pimo', but got aupimo, unused"):
        fit(tmp_path, callbacks=[AUPIMOCallback("pimo")])
    model = Detector()
    del model.aupimo, model.unused
    with pytest.raises(ValueError, match="Expected Detector to hold an AUPIMO metric, but got none"):
        fit(tmp_path, model)


def test_undefined_scores_are_logged_as_nan(tmp_path: Path) -> None:
    """Without anomalous images training goes on; shares are NaN and nothing is drawn."""
    with pytest.warns(UserWarning, match="none of the 13 images is anomalous"):
        trainer = fit(tmp_path, masks=torch.zeros_like(MASKS))
    assert trainer.current_epoch == 2
    assert all(math.isnan(trainer.callback_metrics[name]) for name in SHARES)
    assert read_events(tmp_path).Tags()["images"] == []


def test_loggers_with_log_image_get_the_figures(tmp_path: Path) -> None:
    """A logger that takes images gets each figure as pixels, with the step, and one that does not only scalars."""
    images, rows = ImageLogger(), CSVLogger(tmp_path)
    fit(tmp_path, logger=[images, rows])
    assert set(images.images) == FIGURES
    for calls in images.images.values():
        assert [step for _, step in calls] == STEPS
        for (picture,), _ in calls:
            assert picture.dtype == np.uint8
            assert picture.shape[2] == 3
            assert len(np.unique(picture)) > 10
    assert set(images.scalars) >= SHARES
    assert "val/aupimo/share_at_0" in Path(rows.log_dir, "metrics.csv").read_text().splitlines()[0]
    assert plt.get_fignums() == []


def test_no_logger(tmp_path: Path) -> None:
    """Without a logger the shares can still be monitored."""
    trainer = fit(tmp_path, logger=False)
    assert set(trainer.callback_metrics) >= SHARES


def test_settings_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers out of range and a missing matplotlib are errors at construction."""
    with pytest.raises(ValueError, match="`every_n_epochs` to be at least 1, but got 0"):
        AUPIMOCallback(every_n_epochs=0)
    with pytest.raises(ValueError, match="`num_heatmaps` to be at least 0, but got -1"):
        AUPIMOCallback(num_heatmaps=-1)
    for images in (3, [0, 1.5], "first"):
        with pytest.raises(TypeError, match=r"`heatmap_images` to be a list of integers, such as `\[0, 5\]`, but got"):
            AUPIMOCallback(heatmap_images=images)
    with pytest.raises(ValueError, match="`heatmap_images` to be 0 or more, but got -1"):
        AUPIMOCallback(heatmap_images=[2, -1])
    assert AUPIMOCallback(heatmap_images=np.array([2, 1])).heatmap_images == [2, 1]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="expects `matplotlib` to be installed"):
        AUPIMOCallback()


def fit_on_rank(folder: Path, rank: int, world_size: int, note: Callable[[str], Any]) -> None:
    """Train as one of several processes that are there already."""
    note("training")
    warnings.simplefilter("ignore")
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then starts no processes of its own
    fit(folder, num_sanity_val_steps=0, devices=world_size, strategy="ddp")


@pytest.mark.slow  # test_lightning.py has two processes in the default part
def test_two_processes_log_what_one_logs(tmp_path: Path) -> None:
    """Under DDP rank 0 logs the scores of all ranks, one image of which is dealt out twice, as one process does."""
    fit(tmp_path / "one", num_sanity_val_steps=0)
    run_ranks([(partial(fit_on_rank, tmp_path / "two"), 2)])
    one, two = read_events(tmp_path / "one"), read_events(tmp_path / "two")
    assert set(one.Tags()["images"]) == set(two.Tags()["images"]) == FIGURES
    for tag in ("val/aupimo", *SHARES):
        values = [[event.value for event in events.Scalars(tag)] for events in (one, two)]
        assert values[1] == pytest.approx(values[0], abs=1e-7)
    for of_one, of_two in zip(one.Histograms("val/aupimo/scores"), two.Histograms("val/aupimo/scores"), strict=True):
        assert of_two.histogram_value == of_one.histogram_value
    for tag in FIGURES - {"val/aupimo/heatmaps"}:  # heat maps are of the images of rank 0
        for of_one, of_two in zip(one.Images(tag), two.Images(tag), strict=True):
            assert np.array_equal(open_picture(of_one.encoded_image_string), open_picture(of_two.encoded_image_string))
