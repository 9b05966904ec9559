"""In Lightning, values of several categories are logged in one line, and the callback names them by category."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import loops
import pytest
import torch
from helpers import FPR_BOUNDS, caught_texts, run_ranks
from loops import MAPS, MASKS, Batch, Detector, FigureLogger, Notes, check_heat_maps, fit, loader, validate
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, PerCategory, PixelAUROC, vad_metrics
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [*loops.advice_of_lightning, pytest.mark.usefixtures("only_heat_maps")]

CATEGORIES = ("bottle", "cable", "wood")
OF = [CATEGORIES[index // 2 % 3] for index in range(len(MAPS))]
"""Category of each image: pairs of a normal and an anomalous one."""


def new_metrics(**names: Any) -> PerCategory:
    """Return all metrics of all categories."""
    return PerCategory(vad_metrics(fpr_bounds=FPR_BOUNDS, **names), CATEGORIES)


def expected(metrics: PerCategory, maps: Tensor = MAPS) -> dict[str, float]:
    """Values of all images."""
    metrics = metrics.clone()
    metrics.reset()
    metrics.update(maps, MASKS, categories=OF)
    return {name: float(value) for name, value in metrics.compute().items()}


def update(model: Detector, batch: Batch, _: int) -> None:
    """Update `model.metrics`."""
    model.metrics.update(batch["scores"], batch["truth"], categories=[OF[index] for index in batch["index"]])


def update_and_log(model: Detector, batch: Batch, _: int) -> None:
    """Update `model.metrics`, and log all."""
    update(model, batch, _)
    model.log_dict(model.metrics)


def log_means(model: Detector, batch: Batch, _: int) -> None:
    """Update `model.metrics`, and log the means only."""
    update(model, batch, _)
    model.log_dict({f"val/{name}": each for name, each in model.metrics.items() if name.startswith("mean/")})


def log_values(model: Any) -> None:
    """Log the values, and reset the metrics."""
    model.log_dict(model.metrics.compute())
    model.metrics.reset()


WAYS: dict[str, Callable[[], Notes]] = {
    "in the step": lambda: Notes(update_and_log, metrics=new_metrics(prefix="val/")),
    "objects when the epoch ends": lambda: Notes(
        update, lambda model: model.log_dict(model.metrics), metrics=new_metrics(prefix="val/")
    ),
    "values when the epoch ends": lambda: Notes(update, log_values, metrics=new_metrics(prefix="val/")),
    "means only": lambda: Notes(log_means, metrics=new_metrics()),
}


def values_of(model: Notes) -> list[dict[str, float]]:
    """Values of each epoch."""
    return [{name: float(value) for name, value in each.items() if "/" in name} for each in model.logged]


@pytest.mark.parametrize("way", WAYS)
def test_each_epoch_has_its_own_values(tmp_path: Path, way: str) -> None:
    """However it is logged, each epoch has its own values; the sanity check says once what is missing."""
    model = WAYS[way]()
    with pytest.warns(UserWarning, match="PerCategory has no score") as caught:
        trainer = fit(tmp_path, model, loaders=loader(batch_size=3), num_sanity_val_steps=1)
    texts = [str(each.message) for each in caught if "(NaN)" in str(each.message)]
    assert [text.partition(";")[0] for text in texts] == ["PerCategory has no score (NaN) for cable, wood"]
    for epoch, values in enumerate(values_of(model)):
        wanted = expected(model.metrics, loops.maps_of_epoch(MAPS, epoch))
        if way == "means only":
            wanted = {f"val/{name}": value for name, value in wanted.items() if name.startswith("mean/")}
        assert values == pytest.approx(wanted, abs=1e-6)
    assert len(model.logged) == trainer.max_epochs == 2


@pytest.mark.parametrize("way", WAYS)
def test_the_callback_tags_by_category(tmp_path: Path, way: str) -> None:
    """Results, shares and figures have the names of the values, and heat maps are those of the category."""
    logger, callback = FigureLogger(), AUPIMOCallback(num_heatmaps=8)
    settings = {"logger": logger, "max_epochs": 1, "num_sanity_val_steps": 0}
    fit(tmp_path, WAYS[way](), callback, loaders=loader(batch_size=3), **settings)
    prefix = "" if way == "means only" else "val/"
    names = [f"{prefix}{category}/AUPIMO" for category in CATEGORIES]
    assert list(callback.results) == names
    for category, name in zip(CATEGORIES, names, strict=True):
        chosen = [index for index, each in enumerate(OF) if each == category]
        result = callback.results[name]
        metric = AUPIMO(fpr_bounds=FPR_BOUNDS)
        metric.update(MAPS[chosen], MASKS[chosen])
        assert torch.equal(result.aupimos.nan_to_num(), metric.result().aupimos.nan_to_num())
        assert {f"{name}/{kind}" for kind in ("curves", "distribution", "heatmaps")} <= {*logger.figures}
        assert logger.scalars[f"{name}/share_at_0"] == pytest.approx(
            float((result.aupimos == 0).sum()) / (len(chosen) / 2)
        )
        anomalous = [index for index in chosen if MASKS[index].any()]
        (figure,) = logger.figures[f"{name}/heatmaps"]
        check_heat_maps(figure, result, anomalous)
    logger, one = FigureLogger(), AUPIMOCallback(names[1], num_heatmaps=0)
    validate(tmp_path, WAYS[way](), one, loaders=loader(batch_size=3), logger=logger)
    assert list(one.results) == names[1:2]


def score_on_rank(rank: int, world_size: int, note: Callable[[str], Any]) -> list[dict[str, float]]:
    """Values of two epochs on a rank, which sees images of some categories only."""
    settings = {**loops.join_processes(rank, world_size, note), "use_distributed_sampler": False, "logger": False}
    model, callback = Notes(update_and_log, metrics=new_metrics()), AUPIMOCallback(num_heatmaps=0)
    indices = [index for index, each in enumerate(OF) if (each == "wood") == bool(rank)]
    fit(Path(), model, callback, loaders=loader(indices, batch_size=3 if rank == 0 else 1), **settings)
    return values_of(model)


@pytest.mark.slow
def test_two_processes_log_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process logs the values of all images, though it sees only some of the categories."""
    monkeypatch.chdir(tmp_path)
    (ranks,) = run_ranks([(score_on_rank, 2)])
    for values in ranks:
        for epoch, of_epoch in enumerate(values):
            wanted = expected(new_metrics(), loops.maps_of_epoch(MAPS, epoch))
            assert {name: of_epoch[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)


def test_one_metric_of_each_category(tmp_path: Path) -> None:
    """A single metric is logged by category, too, and its undefined values are NaN."""
    model = Detector(update_and_log, metrics=PerCategory(PixelAUROC(), [*CATEGORIES, "tile"]))
    with caught_texts() as texts:
        trainer = validate(tmp_path, model)
    (text,) = [each for each in texts if "PerCategory" in each]
    assert text.startswith("PerCategory has no score (NaN) for tile; ")
    values = trainer.callback_metrics
    assert list(values) == [f"{name}/PixelAUROC" for name in (*CATEGORIES, "tile", "mean")]
    assert values["tile/PixelAUROC"].isnan()
    assert 0 < values["mean/PixelAUROC"] < 1
