"""What the callback logs stands beside the score: under its name, at its step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import loops
import pytest
import torch
from helpers import FPR_BOUNDS, run_ranks
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from loops import SCORES, Batch, Detector, FigureLogger, fit, loader, make_trainer, new_metric, scoring, validate
from torch import nn
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.wrappers import BootStrapper, MinMaxMetric

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [*loops.advice_of_lightning, pytest.mark.usefixtures("blank_figures")]

update = scoring(tag=None)
SHARE_AT_0 = float((SCORES[~SCORES.isnan()] == 0).float().mean())


def names_of_figures(logger: FigureLogger) -> set[str]:
    """Beginnings of the names of all figures."""
    return {tag.rpartition("/")[0] for tag in logger.figures}


def log_late(model: Any) -> None:
    """Log the metric when the epoch ends."""
    model.log("val/late", model.aupimo)


def log_value(model: Any) -> None:
    """Log the value when the epoch ends, and reset the metric."""
    model.log("val/value", model.aupimo.compute())
    model.aupimo.reset()


class Named(AUPIMO):
    """A metric with a name, as those of anomalib have."""

    name = "pixel_AUPIMO"


class Evaluator(pl.Callback, nn.Module):
    """A callback that owns a metric of each stage, updates and logs it, as that of anomalib does."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.metrics = nn.ModuleList([Named(fpr_bounds=FPR_BOUNDS) for _ in ("validation", "test")])

    def on_validation_batch_end(self, trainer: Any, _: Any, outputs: Any, batch: Batch, *__: Any) -> None:
        """Update with the maps as they are by now."""
        self.metrics[int(trainer.testing)].update(outputs["anomaly_map"], batch["truth"])

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the metric under its name."""
        pl_module.log("pixel_AUPIMO", self.metrics[int(trainer.testing)])

    on_test_batch_end, on_test_epoch_end = on_validation_batch_end, on_validation_epoch_end


class Gan(Detector):
    """A model with two optimizers, whose steps both count in `global_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Batch, _: int) -> None:
        """Make a step with each optimizer."""
        for optimizer in self.optimizers():
            self.manual_backward(self.layer(batch["image"][:, :1, 0, 0]).sum())
            optimizer.step()

    def configure_optimizers(self) -> Any:
        """Return two optimizers."""
        return [torch.optim.SGD(self.parameters(), lr=0.0) for _ in range(2)]


def log_step(model: Any) -> None:
    """Set the step of what is logged in this validation."""
    model.log("step", float(100 * model.current_epoch))


def in_collection(**names: Any) -> Detector:
    """Return a model that logs two metrics that share their states."""
    members = {"strict": new_metric(), "other": new_metric(num_thresholds=20_000)}
    return Detector(loops.log_collection, metrics=MetricCollection(members, **names))


HOW = {"prog_bar": True, "on_step": False, "on_epoch": True, "batch_size": 2}
NO_CHECK = {"num_sanity_val_steps": 0}
CASES: dict[str, tuple[Any, list[str], list[int], dict[str, Any]]] = {
    "another name": (lambda: Detector(scoring(tag="quality of the detector")), ["quality of the detector"], [4, 9], {}),
    "all arguments": (lambda: Detector(scoring(**HOW)), ["val/aupimo"], [4, 9], NO_CHECK),
    "collection with a prefix": (lambda: in_collection(prefix="val/"), ["val/strict", "val/other"], [4, 9], {}),
    "collection with a postfix": (lambda: in_collection(postfix="_a"), ["strict_a", "other_a"], [4, 9], NO_CHECK),
    "collection without names": (in_collection, ["strict", "other"], [4, 9], {}),
    "when the epoch ends": (lambda: Detector(update, log_late), ["val/late"], [4, 9], {}),
    "when the first epoch ends": (lambda: Detector(update, log_late), ["val/late"], [4, 9], NO_CHECK),
    "as a value": (lambda: Detector(update, log_value), ["val/aupimo"], [4, 9], {}),
    "not at all": (lambda: Detector(update), ["val/aupimo"], [4, 9], NO_CHECK),
    "two validations an epoch": (Detector, ["val/aupimo"], [1, 3, 6, 8], {"val_check_interval": 0.5}),
    "accumulated gradients": (Detector, ["val/aupimo"], [2, 5], {"accumulate_grad_batches": 2}),
    "two optimizers": (Gan, ["val/aupimo"], [4, 9], {}),
    "steps of the user": (lambda: Detector(at_end=log_step), ["val/aupimo"], [0, 100], {}),
    "every second epoch": (Detector, ["val/aupimo"], [9], {"check_val_every_n_epoch": 2}),
}
"""Model, names under which it logs its metrics, steps at which it does, and settings of the trainer."""


@loops.unlogged
@pytest.mark.parametrize("case", CASES)
def test_all_is_logged_beside_the_score(tmp_path: Path, case: str) -> None:
    """Figures, shares, histogram and result have the name and the steps at which the score is logged."""
    make_model, names, steps, settings = CASES[case]
    callback, logger = AUPIMOCallback(), FigureLogger()
    trainer = fit(tmp_path, make_model(), callback, logger=logger, **settings)
    assert set(callback.results) == set(names)
    kinds = ("curves", "distribution", "heatmaps", "scores", "share_at_0", "share_at_1")
    expected = dict.fromkeys((f"{name}/{kind}" for name in names for kind in kinds), steps)
    assert {name: each for name, each in logger.steps.items() if name.endswith(kinds)} == expected
    assert {f"{name}/share_at_{score}" for name in names for score in (0, 1)} <= set(trainer.callback_metrics)
    assert all(logger.steps[name] == steps for name in names if name in logger.steps)


def test_names_in_an_evaluator(tmp_path: Path) -> None:
    """A metric that a callback owns is found, and named as it is logged, in validation and test."""
    evaluator, callback, logger = Evaluator(), AUPIMOCallback(), FigureLogger()
    model = Detector(lambda _, batch, __: {"anomaly_map": batch["scores"]}, evaluator=evaluator)
    trainer = fit(tmp_path, model, callback, evaluator, logger=logger)
    assert names_of_figures(logger) == set(callback.results) == {"pixel_AUPIMO"}
    assert "pixel_AUPIMO/share_at_0" in trainer.callback_metrics
    (values,) = trainer.test(model, loader(), verbose=False)
    assert set(values) == {"pixel_AUPIMO", "pixel_AUPIMO/share_at_0", "pixel_AUPIMO/share_at_1"}
    assert names_of_figures(logger) == {"pixel_AUPIMO"}


@pytest.mark.parametrize("name", ["aupimo", "val/aupimo"])
def test_a_metric_is_chosen_by_its_attribute_or_its_name(tmp_path: Path, name: str) -> None:
    """`metric` is the attribute or the name under which the metric is logged, and others are not drawn.

    A name is remembered in a test, where the metric has another one.
    """

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        loops.log_by_stage(model, batch, dataloader_idx)
        scoring(loops.as_it_is, "val/{}", "other")(model, batch, dataloader_idx)

    callback, logger = AUPIMOCallback(name), FigureLogger()
    trainer = fit(tmp_path, model := Detector(step, aupimo=new_metric(), other=new_metric()), callback, logger=logger)
    assert names_of_figures(logger) == set(callback.results) == {"val/aupimo"}
    trainer.test(model, loader(), verbose=False)
    assert set(callback.results) == {"val/aupimo", "test/aupimo"}


@pytest.mark.parametrize("name", ["pimo", "val/pimo"])
def test_a_name_that_is_not_there_ends_the_sanity_check(tmp_path: Path, name: str) -> None:
    """A wrong name is an error before training, which lists attributes and names."""
    model = Detector()
    with pytest.raises(ValueError, match=f"to hold the AUPIMO metric '{name}', but got aupimo, val/aupimo"):
        fit(tmp_path, model, AUPIMOCallback(name), logger=False)
    assert model.trainer.global_step == 0


def test_a_name_that_is_not_there_costs_no_scores(tmp_path: Path) -> None:
    """At the end of a run a wrong name is a warning, whose advice is right: the name of the attribute."""
    trainer = make_trainer(tmp_path, AUPIMOCallback("val/aupimo"), logger=False)
    with pytest.warns(UserWarning, match=r"does nothing in this run.* but got aupimo, test/aupimo") as caught:
        (scores,) = trainer.test(Detector(loops.log_by_stage), loader(), verbose=False)
    assert scores["test/aupimo"] == pytest.approx(float(SCORES.nanmean()))
    (advice,) = {str(each.message) for each in caught if "does nothing" in str(each.message)}
    assert 'AUPIMOCallback("aupimo")' in advice
    callback = AUPIMOCallback("aupimo")
    make_trainer(tmp_path, callback, logger=False).test(Detector(loops.log_by_stage), loader(), verbose=False)
    assert set(callback.results) == {"test/aupimo"}


def test_a_name_needs_no_index_of_a_loader(tmp_path: Path) -> None:
    """With two loaders Lightning adds an index to the name under which a metric is logged; either name will do."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        if dataloader_idx == 0:
            loops.update_and_log(model, batch, dataloader_idx)

    for name in ("val/aupimo", "val/aupimo/dataloader_idx_0"):
        callback = AUPIMOCallback(name, num_heatmaps=0)
        fit(tmp_path, Detector(step), callback, loaders=[loader(), loader(range(4))], logger=False)
        assert set(callback.results) == {"val/aupimo/dataloader_idx_0"}


def test_two_metrics_with_one_name(tmp_path: Path) -> None:
    """Metrics that say the same name of themselves are told apart by their attributes."""
    metrics = {name: Named(fpr_bounds=FPR_BOUNDS) for name in ("first", "second")}
    callback, model = AUPIMOCallback(num_heatmaps=0), Detector(scoring(loops.as_it_is, None, *metrics), **metrics)
    fit(tmp_path, model, callback, max_epochs=1, num_sanity_val_steps=0, logger=False)
    assert set(callback.results) == {"pixel_AUPIMO", "pixel_AUPIMO/second"}


@pytest.mark.parametrize(("model", "name"), [(Detector(), "val/aupimo"), (Detector(update, log_late), "val/late")])
def test_shares_are_watched(tmp_path: Path, model: Detector, name: str) -> None:
    """`EarlyStopping` and `ModelCheckpoint` find the shares in each epoch, however seldom figures are drawn."""
    stop = EarlyStopping(f"{name}/share_at_1", mode="max", patience=9)
    best = ModelCheckpoint(tmp_path / "best", monitor=f"{name}/share_at_0", mode="min")
    settings = {"enable_checkpointing": True, "num_sanity_val_steps": 0, "logger": FigureLogger()}
    trainer = fit(tmp_path, model, AUPIMOCallback(every_n_epochs=5), stop, best, **settings)
    assert trainer.current_epoch == 2
    assert settings["logger"].steps[f"{name}/share_at_1"] == [4, 9]
    assert float(best.best_model_score) == SHARE_AT_0
    assert settings["logger"].figures == {}


def test_one_metric_of_two_loaders(tmp_path: Path) -> None:
    """A metric that is updated by two loaders has the plain name, and a warning says once that the score is of both."""
    callback = AUPIMOCallback()
    told = r"AUPIMO of `self.aupimo` .* 2 dataloaders together.*Give each a metric of its own"
    with pytest.warns(UserWarning, match=told) as caught:
        fit(tmp_path, Detector(), callback, loaders=[loader(range(4)), loader(range(4, 10))], logger=False)
    assert len([each for each in caught if "dataloaders together" in str(each.message)]) == 1
    assert set(callback.results) == {"val/aupimo"}
    assert torch.equal(callback.results["val/aupimo"].aupimos.float().nan_to_num(), SCORES.nan_to_num())


@pytest.mark.parametrize("add_index", [True, False])
def test_a_metric_for_each_loader(tmp_path: Path, add_index: bool) -> None:
    """The remedy of the warning: a metric for each loader has its own score, name and heat maps, and nothing warns."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        metric = model.aupimos[dataloader_idx]
        metric.update(batch["scores"], batch["truth"], batch["index"])
        name = "val/aupimo" if add_index else f"val/aupimo_{dataloader_idx}"
        model.log(name, metric, add_dataloader_idx=add_index)

    callback, loaders, logger = AUPIMOCallback(), [loader(range(4)), loader(range(4, 10))], FigureLogger()
    model = Detector(step, aupimos=nn.ModuleList([new_metric(), new_metric()]))
    trainer = fit(tmp_path, model, callback, loaders=loaders, logger=logger)
    names = [f"val/aupimo/dataloader_idx_{i}" if add_index else f"val/aupimo_{i}" for i in range(2)]
    assert set(callback.results) == set(names)
    assert [len(result.aupimos) for result in callback.results.values()] == [4, 6]
    assert names_of_figures(logger) == set(names)
    assert {f"{name}/share_at_0" for name in names} < set(trainer.callback_metrics)


@pytest.mark.filterwarnings("ignore:The default value for `maximize`:FutureWarning")  # torchmetrics before 1.7
def test_metrics_in_wrappers_and_twice_in_a_module(tmp_path: Path) -> None:
    """Metrics in wrappers and trackers are not followed, and a metric with two attributes only once."""
    metric, tracker = new_metric(), MetricTracker(new_metric())
    tracker.increment()
    others = {
        "drawn": BootStrapper(new_metric(), num_bootstraps=2, sampling_strategy="multinomial"),
        "wrapped": MinMaxMetric(new_metric()),
        "tracked": tracker,
    }
    model = Detector(scoring(loops.as_it_is, None, "aupimo", *others), aupimo=metric, again=metric, **others)
    callback = AUPIMOCallback()
    validate(tmp_path, model, callback, logger=False)
    assert set(callback.results) == {"val/aupimo"}


def log_late_on_rank(rank: int, world_size: int, note: Any) -> Any:
    """Train as one of several processes, with a score that is logged late."""
    settings, callback, logger = loops.join_processes(rank, world_size, note), AUPIMOCallback(), FigureLogger()
    trainer = fit(Path(), Detector(update, log_late), callback, num_sanity_val_steps=0, logger=logger, **settings)
    return sorted(callback.results), float(trainer.callback_metrics["val/late/share_at_0"]), names_of_figures(logger)


def make_late_on_rank(rank: int, world_size: int, note: Any) -> Any:
    """Validate as one of several processes, of which only the first makes a metric in a step, after a batch."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        if rank == 0:
            model.late = new_metric()
            model.late.update(batch["scores"], batch["truth"])
        loops.update_and_log(model, batch, dataloader_idx)

    settings = {**loops.join_processes(rank, world_size, note), "use_distributed_sampler": False, "logger": False}
    callback, loaders = AUPIMOCallback(), loader(range(5) if rank == 0 else range(5, 10))
    validate(Path(), Detector(step), callback, loaders=loaders, **settings)
    return {name: len(result.aupimos) for name, result in callback.results.items()}


@pytest.mark.slow
def test_two_processes_know_the_same_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under DDP all ranks know a score that is logged when the epoch ends, and what only one has made stops no other.

    Rank 0 alone logs figures.
    """
    monkeypatch.chdir(tmp_path)
    (first, second), of_all = run_ranks([(log_late_on_rank, 2), (make_late_on_rank, 2)])
    assert first == (["val/late"], SHARE_AT_0, {"val/late"})
    assert second == (["val/late"], SHARE_AT_0, set())
    assert of_all == [{"val/aupimo": 10}] * 2


def test_barebones() -> None:
    """A trainer that logs nothing gets no warning, and the result is there."""
    callback = AUPIMOCallback()
    trainer = pl.Trainer(barebones=True, max_epochs=1, accelerator="cpu", devices=1, callbacks=[callback])
    trainer.validate(Detector(update), loader(), verbose=False)
    assert set(callback.results) == {"val/aupimo"}
