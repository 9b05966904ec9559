"""The metric in plain Lightning: logged as an object, over epochs, in other precisions, watched by callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import FPR_BOUNDS, MAX_ERROR, assert_same, run_ranks
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger
from loops import (
    FEW_MASKS,
    MAPS,
    MASKS,
    Batch,
    Detector,
    Step,
    advice_of_lightning,
    in_epochs,
    join_processes,
    loader,
    log_collection,
    make_trainer,
    maps_of_epoch,
    new_metric,
    scoring,
    update_and_log,
)
from torchmetrics import MetricCollection

from aupimo_torchmetrics import functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = advice_of_lightning

ORDER = [0, 2, 4, 6, 8, 9, 1, 3, 5, 7]
"""In batches of two the first batches have normal images only, and these are what Lightning's sanity check sees."""


class Notes(Detector):
    """A model that notes what is logged, and what its metric says before Lightning resets it."""

    def __init__(self, step: Step = update_and_log, **metrics: Any) -> None:
        super().__init__(in_epochs(step), **metrics)
        self.logged: list[Any] = []
        self.results: list[Any] = []

    def on_validation_epoch_end(self) -> None:
        """Ask for the full result."""
        if hasattr(self, "aupimo") and not self.trainer.sanity_checking:
            self.results.append(self.aupimo.result())

    def on_train_epoch_end(self) -> None:
        """Note what was logged."""
        self.logged.append({**self.trainer.callback_metrics})

    @property
    def logged_scores(self) -> list[float]:
        """The score of each epoch."""
        return [float(each["val/aupimo"]) for each in self.logged]


def fit(
    folder: Path, model: Detector, *callbacks: Any, order: Sequence[int] = ORDER, path: Any = None, **settings: Any
) -> Any:
    """Train for two epochs, or on from a checkpoint, and return the trainer."""
    trainer = make_trainer(folder, *callbacks, **{"logger": False, **settings})
    trainer.fit(model, loader(), loader(order), ckpt_path=path)
    return trainer


def expected_score(epoch: int, dtype: torch.dtype = torch.float32, **settings: Any) -> float:
    """Return what the function answers for the maps of an epoch."""
    maps = maps_of_epoch(MAPS[ORDER].to(dtype), epoch)
    return float(functional.aupimo(maps, MASKS[ORDER], **{"fpr_bounds": FPR_BOUNDS, **settings}))


sanity_check_warns = pytest.mark.filterwarnings("ignore:AUPIMO is undefined .NaN.. none of the 4 images is anomalous")


@sanity_check_warns
@pytest.mark.parametrize("inference_mode", [True, False])
def test_logged_object_is_right_in_each_epoch(tmp_path: Path, inference_mode: bool) -> None:
    """The logged value is the score of its epoch: nothing of the sanity check or of the epoch before is left."""
    model = Notes()
    fit(tmp_path, model, inference_mode=inference_mode)
    assert model.logged_scores == [expected_score(0), expected_score(1)]
    # the logged value is float32; the mean of the result is that before it is rounded
    assert [result.mean for result in model.results] == pytest.approx(model.logged_scores, abs=1e-7)
    assert expected_score(0) != expected_score(1)
    assert not model.aupimo.update_called


def test_sanity_check_with_normal_images_only_is_harmless(tmp_path: Path) -> None:
    """The first batches have no anomalous image: a warning says so, training goes on, and nothing is logged of them."""
    model = Notes()
    with pytest.warns(UserWarning, match="none of the 4 images is anomalous") as caught:
        fit(tmp_path, model)
    assert len([each for each in caught if "AUPIMO" in str(each.message)]) == 1
    assert all(map(math.isfinite, model.logged_scores))


@sanity_check_warns
def test_collection_is_logged_as_a_dict(tmp_path: Path) -> None:
    """`log_dict` of a collection logs each member, reset between epochs, to a logger too."""
    members = {"aupimo": new_metric(), "sampled": new_metric(num_thresholds=20_000)}
    model, logger = Notes(log_collection, metrics=MetricCollection(members, prefix="val/")), CSVLogger(tmp_path)
    fit(tmp_path, model, logger=logger)
    expected = [expected_score(0), expected_score(1)]
    assert model.logged_scores == expected
    sampled = [expected_score(epoch, num_thresholds=20_000) for epoch in (0, 1)]
    assert [float(logged["val/sampled"]) for logged in model.logged] == sampled
    rows = Path(logger.log_dir, "metrics.csv").read_text().splitlines()
    assert rows[0].split(",") == ["epoch", "step", "val/aupimo", "val/sampled"]
    assert [float(row.split(",")[2]) for row in rows[1:]] == pytest.approx(expected)


@sanity_check_warns
def test_bfloat16_training_keeps_states_exact(tmp_path: Path) -> None:
    """Under "bf16-true" the model and its default dtype are bfloat16, the states are not."""
    dtypes: list[Any] = []

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        update_and_log(model, batch, dataloader_idx)
        dtypes.append([state[-1].dtype for state in (model.aupimo.aupimo_normal_scores, model.aupimo.aupimo_num_kept)])
        dtypes.append([model.aupimo.aupimo_floor.dtype, model.aupimo.aupimo_config.dtype])

    model = Notes(step)
    fit(tmp_path, model, precision="bf16-true")
    assert model.layer.weight.dtype == torch.bfloat16
    assert dtypes == 2 * (2 + 2 * 5) * [[torch.float32, torch.int64]]
    assert model.logged_scores == [expected_score(epoch, torch.bfloat16) for epoch in (0, 1)]


@sanity_check_warns
def test_mixed_precision_and_accumulated_gradients(tmp_path: Path) -> None:
    """Under "bf16-mixed" the score is that of the rounded maps, and accumulating gradients changes nothing."""

    def make(batch: Batch) -> tuple[Any, ...]:
        maps = (batch["scores"][..., None] @ torch.ones(1, 1))[..., 0]  # autocast computes a matrix product in half
        assert maps.dtype == torch.bfloat16
        return maps, batch["truth"]

    model = Notes(scoring(make))
    fit(tmp_path, model, precision="bf16-mixed", accumulate_grad_batches=2)
    maps = [maps_of_epoch(MAPS[ORDER], epoch).bfloat16() for epoch in (0, 1)]
    assert model.logged_scores == [float(functional.aupimo(each, MASKS[ORDER], fpr_bounds=FPR_BOUNDS)) for each in maps]


def best_of(folder: Path) -> callbacks.ModelCheckpoint:
    """Return a callback that saves the epoch with the best score."""
    return callbacks.ModelCheckpoint(folder, monitor="val/aupimo", mode="max")


@sanity_check_warns
def test_resumed_training_logs_the_right_score(tmp_path: Path) -> None:
    """Training that goes on from a checkpoint scores its own epoch, without anything of the one before."""
    model, checkpoint = Notes(), best_of(tmp_path)
    fit(tmp_path, Notes(), checkpoint, max_epochs=1, enable_checkpointing=True)
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        fit(tmp_path, model, best_of(tmp_path / "b"), path=checkpoint.best_model_path, enable_checkpointing=True)
    assert model.logged_scores == [expected_score(1)]


@sanity_check_warns
def test_callbacks_watch_the_score(tmp_path: Path) -> None:
    """`ModelCheckpoint` saves the better epoch and `EarlyStopping` lets an improving model go on."""
    best, stop = best_of(tmp_path), callbacks.EarlyStopping("val/aupimo", mode="max", patience=1)
    trainer = fit(tmp_path, Notes(), best, stop, enable_checkpointing=True)
    assert trainer.current_epoch == 2
    assert float(best.best_model_score) == max(expected_score(0), expected_score(1))
    assert not [name for name in torch.load(best.best_model_path, weights_only=True)["state_dict"] if "aupimo" in name]


def test_callbacks_survive_nan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without anomalous images the score is NaN: the warning names the cause before `EarlyStopping` stops on it."""
    model = Notes(scoring(lambda batch: (batch["scores"], torch.zeros_like(batch["truth"]))))
    stop = callbacks.EarlyStopping("val/aupimo", mode="max", check_finite=True, verbose=True)
    with pytest.warns(UserWarning, match="none of the 10 images is anomalous"), pytest.warns(match="4 images"):
        trainer = fit(tmp_path, model, best_of(tmp_path), stop, enable_checkpointing=True)
    assert trainer.current_epoch == 1
    assert math.isnan(trainer.callback_metrics["val/aupimo"])
    assert "not finite" in caplog.text


def test_validation_before_any_training(tmp_path: Path) -> None:
    """`Trainer.validate` returns the score."""
    trainer = make_trainer(tmp_path, logger=False)
    assert trainer.validate(Detector(), loader(ORDER, 4), verbose=False) == [{"val/aupimo": expected_score(0)}]


def fit_with_ids(folder: Path, num_images: int, **settings: Any) -> list[Any]:
    """Train on some of the images, and return what was logged and what a module was told, epoch by epoch."""
    model = Notes(scoring(lambda batch: (batch["scores"], FEW_MASKS[batch["index"]], batch["index"] + 100)))
    callback = AUPIMOCallback(num_heatmaps=0)
    fit(folder, model, callback, order=ORDER[:num_images], num_sanity_val_steps=0, **settings)
    names = ("val/aupimo", "val/aupimo/share_at_0", "val/aupimo/share_at_1")
    logged = [[each[name] for name in names] for each in model.logged]
    return [logged, [[result.aupimos, result.image_ids] for result in model.results]]


def fit_on_rank(folder: Path, rank: int, world_size: int, note: Callable[[str], Any]) -> list[list[Any]]:
    """Train as one of several processes, with images that fill them evenly and that do not."""
    settings = join_processes(rank, world_size, note)
    return [fit_with_ids(folder, num_images, **settings) for num_images in (10, 9)]


def test_two_processes_log_and_answer_what_one_does(tmp_path: Path) -> None:
    """Under DDP both ranks log the score of all images and tell it to modules, an image dealt out twice only once."""
    for notes in run_ranks([(partial(fit_on_rank, tmp_path), 2)])[0]:
        for (logged, results), num_images in zip(notes, (10, 9), strict=True):
            expected_logged, expected_results = fit_with_ids(tmp_path, num_images)
            assert_same(logged, expected_logged, atol=MAX_ERROR)
            assert_same(results, expected_results, atol=MAX_ERROR)
            assert logged[0][1:] != [0, 0]
            assert results[0][1].tolist() == [100 + index for index in sorted(ORDER[:num_images])]
            assert not torch.equal(results[0][0].nan_to_num(), results[1][0].nan_to_num())


@sanity_check_warns
@pytest.mark.parametrize("how", ["sanity check", "reset"])
def test_training_after_a_validation_that_was_broken_off(tmp_path: Path, how: str) -> None:
    """The images before an error in validation are no part of the next score, after a sanity check or a reset."""
    broken = [True]

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        update_and_log(model, batch, dataloader_idx)
        if broken and int(batch["index"][0]) == ORDER[6]:
            raise RuntimeError("out of luck")

    model = Notes(step)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, model, num_sanity_val_steps=0)
    assert model.aupimo.update_count == 4
    broken.clear()
    model.train()  # the validation left it in eval mode
    if how == "reset":
        model.aupimo.reset()
    fit(tmp_path, model, num_sanity_val_steps=2 if how == "sanity check" else 0)
    assert model.logged_scores == [expected_score(0), expected_score(1)]
