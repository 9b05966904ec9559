"""The metric in plain Lightning: logged as an object or in a collection, in bfloat16, with one process and with two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import loops
import pytest
import torch
from helpers import FPR_BOUNDS, MAX_ERROR, assert_same, run_ranks
from lightning.pytorch.callbacks import LambdaCallback
from loops import FEW_MASKS, MAPS, MASKS, Detector, Notes, loader, maps_of_epoch, new_metric, scoring
from torchmetrics import MetricCollection

from aupimo_torchmetrics import functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [
    *loops.advice_of_lightning,
    pytest.mark.filterwarnings("ignore:AUPIMO is undefined .NaN.. none of the 4 images is anomalous"),
]

ORDER = [0, 2, 4, 6, 8, 9, 1, 3, 5, 7]
"""In batches of two the first batches have normal images only, and these are what Lightning's sanity check sees."""


def fit(folder: Path, model: Detector, *callbacks: Any, order: Sequence[int] = ORDER, **settings: Any) -> None:
    """Train for two epochs, without a logger."""
    loops.fit(folder, model, *callbacks, loaders=loader(order), logger=False, **settings)


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
    """`log_dict` of a collection logs each member, reset between epochs."""
    members = {"aupimo": new_metric(), "sampled": new_metric(num_thresholds=20_000)}
    model = Notes(loops.log_collection, metrics=MetricCollection(members, prefix="val/"))
    fit(tmp_path, model)
    assert model.logged_scores == [expected_score(0), expected_score(1)]
    sampled = [expected_score(epoch, num_thresholds=20_000) for epoch in (0, 1)]
    assert [float(logged["val/sampled"]) for logged in model.logged] == sampled


def test_bfloat16_training_keeps_states_exact(tmp_path: Path) -> None:
    """Under "bf16-true" the model and its default dtype are bfloat16, and the score is that of the rounded maps."""
    model = Notes()
    fit(tmp_path, model, precision="bf16-true")
    assert model.layer.weight.dtype == torch.bfloat16
    assert model.logged_scores == [expected_score(epoch, torch.bfloat16) for epoch in (0, 1)]


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


@pytest.mark.parametrize("has_check", [True, False])
def test_training_after_a_validation_that_was_broken_off(tmp_path: Path, has_check: bool) -> None:
    """The images before an error in validation are no part of the next score, after a sanity check or a reset."""
    model, errors = Notes(), [None, None, None, None, RuntimeError("out of luck")]
    fails = LambdaCallback(on_validation_batch_end=Mock(side_effect=errors))
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, model, fails, num_sanity_val_steps=0)
    assert model.aupimo.update_count == 5
    model.train()  # the validation left it in eval mode
    if not has_check:
        model.aupimo.reset()
    fit(tmp_path, model, num_sanity_val_steps=2 * has_check)
    assert model.logged_scores == [expected_score(0), expected_score(1)]
