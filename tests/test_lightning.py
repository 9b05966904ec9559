"""The metric in plain Lightning: logged as an object, over epochs, in other precisions, watched by callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import loops
import pytest
import torch
from helpers import FPR_BOUNDS, MAX_ERROR, assert_same, run_ranks
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger
from loops import FEW_MASKS, MAPS, MASKS, Batch, Detector, Notes, loader, maps_of_epoch, new_metric, scoring
from torchmetrics import MetricCollection

from aupimo_torchmetrics import functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [
    *loops.advice_of_lightning,
    pytest.mark.filterwarnings("ignore:AUPIMO is undefined .NaN.. none of the 4 images is anomalous"),
]

ORDER = [0, 2, 4, 6, 8, 9, 1, 3, 5, 7]
"""In batches of two the first batches have normal images only, and these are what Lightning's sanity check sees."""


def fit(
    folder: Path, model: Detector, *callbacks: Any, order: Sequence[int] = ORDER, path: Any = None, **settings: Any
) -> Any:
    """Train for two epochs, or on from a checkpoint, and return the trainer."""
    trainer = loops.make_trainer(folder, *callbacks, **{"logger": False, **settings})
    trainer.fit(model, loader(), loader(order), ckpt_path=path)
    return trainer


def expected_score(epoch: int, dtype: torch.dtype = torch.float32, **settings: Any) -> float:
    """Return what the function answers for the maps of an epoch."""
    maps = maps_of_epoch(MAPS[ORDER].to(dtype), epoch)
    return float(functional.aupimo(maps, MASKS[ORDER], **{"fpr_bounds": FPR_BOUNDS, **settings}))


def test_logged_object_is_right_in_each_epoch(tmp_path: Path) -> None:
    """The logged value is the score of its epoch: nothing of the sanity check or of the epoch before is left.

    The first batches have no anomalous image: one warning says so, and training goes on.
    """
    model = Notes()
    with pytest.warns(UserWarning, match="none of the 4 images is anomalous") as caught:
        fit(tmp_path, model)
    assert len([each for each in caught if "AUPIMO" in str(each.message)]) == 1
    assert model.logged_scores == [expected_score(0), expected_score(1)]
    # the logged value is float32; the mean of the result is that before it is rounded
    assert [result.mean for result in model.results] == pytest.approx(model.logged_scores, abs=1e-7)
    assert expected_score(0) != expected_score(1)
    assert not model.aupimo.update_called


def test_collection_is_logged_as_a_dict(tmp_path: Path) -> None:
    """`log_dict` of a collection logs each member, reset between epochs, to a logger too."""
    members = {"aupimo": new_metric(), "sampled": new_metric(num_thresholds=20_000)}
    model, logger = Notes(loops.log_collection, metrics=MetricCollection(members, prefix="val/")), CSVLogger(tmp_path)
    fit(tmp_path, model, logger=logger)
    expected = [expected_score(0), expected_score(1)]
    assert model.logged_scores == expected
    sampled = [expected_score(epoch, num_thresholds=20_000) for epoch in (0, 1)]
    assert [float(logged["val/sampled"]) for logged in model.logged] == sampled
    rows = Path(logger.log_dir, "metrics.csv").read_text().splitlines()
    assert rows[0].split(",") == ["epoch", "step", "val/aupimo", "val/sampled"]
    assert [float(row.split(",")[2]) for row in rows[1:]] == pytest.approx(expected)


def test_bfloat16_training_keeps_states_exact(tmp_path: Path) -> None:
    """Under "bf16-true" the model and its default dtype are bfloat16, the states are not."""
    dtypes: list[Any] = []

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        loops.update_and_log(model, batch, dataloader_idx)
        dtypes.append([state[-1].dtype for state in (model.aupimo.aupimo_normal_scores, model.aupimo.aupimo_num_kept)])
        dtypes.append([model.aupimo.aupimo_floor.dtype, model.aupimo.aupimo_config.dtype])

    model = Notes(step)
    fit(tmp_path, model, precision="bf16-true")
    assert model.layer.weight.dtype == torch.bfloat16
    assert dtypes == 2 * (2 + 2 * 5) * [[torch.float32, torch.int64]]
    assert model.logged_scores == [expected_score(epoch, torch.bfloat16) for epoch in (0, 1)]


def test_mixed_precision_and_accumulated_gradients(tmp_path: Path) -> None:
    """Under "bf16-mixed" the score is that of the rounded maps, whatever else is set."""

    def make(batch: Batch) -> tuple[Any, ...]:
        maps = (batch["scores"][..., None] @ torch.ones(1, 1))[..., 0]  # autocast computes a matrix product in half
        assert maps.dtype == torch.bfloat16
        return maps, batch["truth"]

    model = Notes(scoring(make))
    fit(tmp_path, model, precision="bf16-mixed", accumulate_grad_batches=2, inference_mode=False)
    maps = [maps_of_epoch(MAPS[ORDER], epoch).bfloat16() for epoch in (0, 1)]
    assert model.logged_scores == [float(functional.aupimo(each, MASKS[ORDER], fpr_bounds=FPR_BOUNDS)) for each in maps]


def test_callbacks_watch_the_score(tmp_path: Path) -> None:
    """`ModelCheckpoint` saves the better epoch, `EarlyStopping` watches, and training goes on from the checkpoint.

    That scores its own epoch, without anything of the one before.
    """
    best = callbacks.ModelCheckpoint(tmp_path, monitor="val/aupimo", mode="max")
    stop = callbacks.EarlyStopping("val/aupimo", mode="max", patience=1)
    trainer = fit(tmp_path, Notes(), best, stop, enable_checkpointing=True)
    assert trainer.current_epoch == 2
    assert float(best.best_model_score) == float(stop.best_score) == expected_score(0) > expected_score(1)
    assert not [name for name in torch.load(best.best_model_path, weights_only=True)["state_dict"] if "aupimo" in name]
    model = Notes()
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint need to be provided"):
        fit(tmp_path, model, path=best.best_model_path)
    assert model.logged_scores == [expected_score(1)]


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
    settings = loops.join_processes(rank, world_size, note)
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
