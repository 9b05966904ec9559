"""The callback logs what the metric says, to the loggers that can show it, once an epoch, and disturbs nothing."""

from __future__ import annotations

import io
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FPR_BOUNDS, run_ranks
from lightning.pytorch.loggers import CSVLogger
from loops import (
    FEW_MASKS,
    MAPS,
    MASKS,
    Batch,
    Detector,
    FigureLogger,
    advice_of_lightning,
    fit,
    in_epochs,
    join_processes,
    loader,
    log_collection,
    make_trainer,
    maps_of_epoch,
    new_metric,
    read_events,
    scoring,
)
from matplotlib import pyplot as plt
from PIL import Image
from torchmetrics import MetricCollection

from aupimo_torchmetrics import functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = advice_of_lightning

FIGURES = {"val/aupimo/distribution", "val/aupimo/curves", "val/aupimo/heatmaps"}
SHARES = {"val/aupimo/share_at_0", "val/aupimo/share_at_1"}
STEPS = [4, 9]
"""Lightning logs the scalars of a validation at the step before the one that is next: here after 5 and 10 steps."""

others_each_epoch = in_epochs(scoring(lambda batch: (batch["scores"], FEW_MASKS[batch["index"]], batch["index"])))


def pictures(events: Any, tag: str) -> list[Any]:
    """Pixels (H, W, channels) of each picture that was logged."""
    return [np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) for image in events.Images(tag)]


def test_event_file_holds_what_the_metric_says(tmp_path: Path) -> None:
    """Scalars, histogram and figures of two epochs are those of a direct computation; nothing is left open."""
    plt.close("all")
    fit(tmp_path, Detector(others_each_epoch, aupimo=new_metric(), unused=new_metric()), AUPIMOCallback())
    events = read_events(tmp_path)
    assert events.Tags()["histograms"] == ["val/aupimo/scores"]
    assert set(events.Tags()["images"]) == FIGURES
    for epoch in range(2):
        scores = functional.aupimo(maps_of_epoch(MAPS, epoch), FEW_MASKS, fpr_bounds=FPR_BOUNDS, reduction="none")
        scores = scores[~scores.isnan()]
        for tag, expected in (
            ("val/aupimo", scores.mean()),
            ("val/aupimo/share_at_0", (scores == 0).float().mean()),
            ("val/aupimo/share_at_1", (scores == 1).float().mean()),
        ):
            assert events.Scalars(tag)[epoch].value == pytest.approx(float(expected), abs=1e-7)
        logged = events.Histograms("val/aupimo/scores")[epoch].histogram_value
        assert logged.num == len(scores) == 5
        assert (logged.min, logged.max) == pytest.approx((float(scores.min()), float(scores.max())))
        assert (logged.sum, logged.sum_squares) == pytest.approx((float(scores.sum()), float(scores.square().sum())))
    for tag in ("val/aupimo", *SHARES, *FIGURES, "val/aupimo/scores"):
        kind = events.Images if tag in FIGURES else events.Histograms if "scores" in tag else events.Scalars
        assert [event.step for event in kind(tag)] == STEPS, tag
    assert max(events.Scalars(tag)[0].value for tag in SHARES) > 0
    for tag in FIGURES:
        first, second = pictures(events, tag)
        assert first.shape == second.shape
        assert not np.array_equal(first, second)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("every", [2, 3])
def test_every_n_epochs(tmp_path: Path, every: int) -> None:
    """Of two epochs the second is drawn or none, and nothing of a sanity check that sees all of the data."""
    logger = FigureLogger()
    trainer = fit(tmp_path, Detector(), AUPIMOCallback(every_n_epochs=every), logger=logger, num_sanity_val_steps=-1)
    numbers = {tag: len(figures) for tag, figures in logger.figures.items()}
    assert numbers == dict.fromkeys(FIGURES if every == 2 else (), 1)
    assert set(trainer.callback_metrics) >= SHARES


@pytest.mark.usefixtures("blank_figures")
def test_runs_of_their_own_are_always_logged(tmp_path: Path) -> None:
    """`Trainer.validate` and `Trainer.test` log under their own names."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        scoring(tag="test/aupimo" if model.trainer.testing else "val/aupimo")(model, batch, dataloader_idx)

    trainer = make_trainer(tmp_path, AUPIMOCallback(every_n_epochs=100))
    trainer.validate(Detector(step), loader(), verbose=False)
    assert set(read_events(tmp_path).Tags()["images"]) == FIGURES
    (values,) = trainer.test(Detector(step), loader(), verbose=False)
    assert "test/aupimo/share_at_0" in values
    assert {tag.replace("val", "test") for tag in FIGURES} < set(read_events(tmp_path).Tags()["images"])


@pytest.mark.filterwarnings("ignore:AUPIMO is uncertain", "ignore:.*The FPR bounds")
@pytest.mark.parametrize(("metric", "names"), [(None, ("strict", "wide")), ("metrics.strict", ("strict",))])
def test_members_of_a_collection(tmp_path: Path, metric: Any, names: tuple[str, ...]) -> None:
    """Each metric of a collection, or one of them, is logged under its name, with its own scores of shared states."""
    lower = {"strict": FPR_BOUNDS[0], "wide": 1e-4}
    members = {name: new_metric(fpr_bounds=(lower[name], FPR_BOUNDS[1])) for name in lower}
    model = Detector(log_collection, metrics=MetricCollection(members, prefix="val/"))
    fit(tmp_path, model, AUPIMOCallback(metric, num_heatmaps=0))
    events = read_events(tmp_path)
    assert set(events.Tags()["histograms"]) == {f"val/{name}/scores" for name in names}
    for name in names:
        scores = functional.aupimo(MAPS, MASKS, fpr_bounds=(lower[name], FPR_BOUNDS[1]), reduction="none")
        logged = events.Histograms(f"val/{name}/scores")[0].histogram_value
        assert logged.sum == pytest.approx(float(scores.nansum()))


def test_missing_metrics_are_named_before_training(tmp_path: Path) -> None:
    """A module without the metric is a ValueError that lists those that it has."""
    with pytest.raises(ValueError, match="to hold the AUPIMO metric 'pimo', but got aupimo"):
        fit(tmp_path, Detector(), AUPIMOCallback("pimo"))
    model = Detector()
    del model.aupimo
    with pytest.raises(ValueError, match="Expected Detector to hold an AUPIMO metric, but got none"):
        fit(tmp_path, model, AUPIMOCallback())


def test_undefined_scores_are_logged_as_nan(tmp_path: Path) -> None:
    """Without anomalous images training goes on; shares are NaN and nothing is drawn."""
    step = scoring(lambda batch: (batch["scores"], torch.zeros_like(batch["truth"])))
    logger = FigureLogger()
    with pytest.warns(UserWarning, match="none of the 10 images is anomalous"):
        trainer = fit(tmp_path, Detector(step), AUPIMOCallback(), logger=logger, num_sanity_val_steps=0)
    assert trainer.current_epoch == 2
    assert all(math.isnan(trainer.callback_metrics[name]) for name in SHARES)
    assert logger.figures == {}


class ImageLogger(FigureLogger):
    """A logger that takes images, as that of Weights & Biases does."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Remember images and step."""
        self.figures.setdefault(key, []).append((*images, step))


def test_loggers_with_log_image_get_the_figures(tmp_path: Path) -> None:
    """A logger that takes images gets each figure as pixels, with the step, and one that does not only scalars."""
    plt.close("all")
    images, rows = ImageLogger(), CSVLogger(tmp_path)
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=[images, rows])
    assert set(images.figures) == FIGURES
    for calls in images.figures.values():
        assert [step for _, step in calls] == STEPS
        for picture, _ in calls:
            assert picture.dtype == np.uint8
            assert picture.shape[2] == 3
            assert len(np.unique(picture)) > 10
    assert set(images.scalars) >= SHARES
    assert "val/aupimo/share_at_0" in Path(rows.log_dir, "metrics.csv").read_text().splitlines()[0]
    assert plt.get_fignums() == []


INTEGERS = r"`heatmap_images` to be a list of integers, such as `\[0, 5\]`, but got"
PLACE = "`images` to be a name in the batch or a function"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"every_n_epochs": 0}, ValueError, "`every_n_epochs` to be at least 1, but got 0"),
        ({"num_heatmaps": -1}, ValueError, "`num_heatmaps` to be at least 0, but got -1"),
        ({"heatmap_images": [2, -1]}, ValueError, "`heatmap_images` to be 0 or more, but got -1"),
        *(({"heatmap_images": images}, TypeError, INTEGERS) for images in (3, [0, 1.5], "first")),
        *(({"images": images}, TypeError, PLACE) for images in (5, ["image"], ("image", "anomaly_map", "mask"))),
        ({"save": "all"}, ValueError, "`save` to be 'last' or 'best', but got 'all'"),
    ],
)
def test_settings_out_of_range(settings: Any, error: Any, message: str) -> None:
    """A setting out of range is an error at construction, which names it."""
    with pytest.raises(error, match=message):
        AUPIMOCallback(**settings)


def test_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images may be an array; a missing matplotlib is an error at once."""
    assert AUPIMOCallback(heatmap_images=np.array([2, 1])).heatmap_images == [2, 1]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="expects `matplotlib` to be installed"):
        AUPIMOCallback()


def fit_in(folder: Path, **settings: Any) -> None:
    """Train with nine images, so that two processes have one twice."""
    fit(folder, Detector(others_each_epoch), AUPIMOCallback(), loaders=loader(range(1, 10)), **settings)


def fit_on_rank(folder: Path, rank: int, world_size: int, note: Any) -> None:
    """Train as one of several processes."""
    fit_in(folder, num_sanity_val_steps=0, **join_processes(rank, world_size, note))


@pytest.mark.slow  # test_lightning.py has two processes in the default part
def test_two_processes_log_what_one_logs(tmp_path: Path) -> None:
    """Under DDP rank 0 logs the scores of all ranks, one image of which is dealt out twice, as one process does."""
    fit_in(tmp_path / "one", num_sanity_val_steps=0)
    run_ranks([(partial(fit_on_rank, tmp_path / "two"), 2)])
    one, two = read_events(tmp_path / "one"), read_events(tmp_path / "two")
    assert set(one.Tags()["images"]) == set(two.Tags()["images"]) == FIGURES
    for tag in ("val/aupimo", *SHARES):
        values = [[event.value for event in events.Scalars(tag)] for events in (one, two)]
        assert values[1] == pytest.approx(values[0], abs=1e-7)
    for of_one, of_two in zip(one.Histograms("val/aupimo/scores"), two.Histograms("val/aupimo/scores"), strict=True):
        assert of_two.histogram_value == of_one.histogram_value
    for tag in FIGURES - {"val/aupimo/heatmaps"}:  # heat maps are of the images of rank 0
        for of_one, of_two in zip(pictures(one, tag), pictures(two, tag), strict=True):
            assert np.array_equal(of_one, of_two)
