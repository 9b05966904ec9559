"""The metric in plain Lightning: logged as an object, over epochs, in other precisions, watched by callbacks."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from helpers import FPR_BOUNDS, MAX_ERROR, assert_same, make_batch, run_ranks
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMO, functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [
    # advice of Lightning on speed and on its own set-up, which a test has no use for
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]

MAPS, MASKS = make_batch("NNNNNNAANA", 0)
"""In batches of two the first batches have normal images only, and these are what Lightning's sanity check sees."""


def maps_of_epoch(maps: Tensor, epoch: int) -> Tensor:
    """Return the maps that the model gives in an epoch, others each time."""
    return maps - 0.3 * epoch * maps.roll(3, -1)


class Detector(lightning.LightningModule):
    """A model that gives the maps of its data, and logs their score as a metric object."""

    def __init__(self, *, as_collection: bool = False, dtypes: list[Any] | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.as_collection = as_collection
        self.dtypes = dtypes
        self.scores: list[Any] = []
        if as_collection:
            others = {"aupimo": AUPIMO(fpr_bounds=FPR_BOUNDS), "sampled": AUPIMO(20_000, FPR_BOUNDS)}
            self.metrics = MetricCollection(others, prefix="val/")
        else:
            self.aupimo = AUPIMO(fpr_bounds=FPR_BOUNDS)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Learn nothing."""
        return self.layer(batch[0]).sum()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Update, and log the object."""
        maps, masks, *ids = batch
        maps = maps_of_epoch(maps, self.current_epoch)
        if self.as_collection:
            self.metrics.update(maps, masks)
            self.log_dict(self.metrics)
        else:
            self.aupimo.update(maps, masks, *ids)
            self.log("val/aupimo", self.aupimo)
            if self.dtypes is not None:
                self.dtypes += [self.aupimo.aupimo_normal_scores[-1].dtype, self.aupimo.aupimo_num_kept[-1].dtype]
                self.dtypes += [self.aupimo.aupimo_floor.dtype, self.aupimo.aupimo_config.dtype]

    def on_validation_epoch_end(self) -> None:
        """Ask for the full result, which is there before Lightning resets the metric."""
        if not self.as_collection and not self.trainer.sanity_checking:
            self.scores.append(self.aupimo.result().mean)

    def on_train_epoch_end(self) -> None:
        """Note what was logged."""
        self.logged = [*getattr(self, "logged", []), {**self.trainer.callback_metrics}]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what a trainer asks for."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(
    model: Detector,
    folder: Path,
    masks: Tensor = MASKS,
    ids: Sequence[Tensor] = (),
    resume_from: str | None = None,
    **settings: Any,
) -> Any:
    """Train for two epochs, on as many maps as there are masks, and return the trainer."""
    train = DataLoader(TensorDataset(torch.zeros(2, 1)), batch_size=1)
    validation = DataLoader(TensorDataset(MAPS[: len(masks)], masks, *ids), batch_size=2)
    trainer = lightning.Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": "callbacks" in settings,
            "default_root_dir": folder,
            "log_every_n_steps": 1,
            **settings,
        }
    )
    trainer.fit(model, train, validation, ckpt_path=resume_from)
    return trainer


def expected_score(epoch: int, dtype: torch.dtype = torch.float32, **settings: Any) -> float:
    """Return what the function answers for the maps of an epoch."""
    maps = maps_of_epoch(MAPS.to(dtype), epoch)
    return float(functional.aupimo(maps, MASKS, **{"fpr_bounds": FPR_BOUNDS, **settings}))


sanity_check_warns = pytest.mark.filterwarnings("ignore:AUPIMO is undefined .NaN.. none of the 4 images is anomalous")


@sanity_check_warns
@pytest.mark.parametrize("inference_mode", [True, False])
def test_logged_object_is_right_in_each_epoch(tmp_path: Path, inference_mode: bool) -> None:
    """The logged value is the score of its epoch: nothing of the sanity check or of the epoch before is left."""
    model = Detector()
    fit(model, tmp_path, inference_mode=inference_mode)
    # the logged value is float32; the mean of the result is that before it is rounded
    assert [float(each["val/aupimo"]) for each in model.logged] == [expected_score(0), expected_score(1)]
    assert model.scores == pytest.approx([expected_score(0), expected_score(1)], abs=1e-7)
    assert expected_score(0) != expected_score(1)
    assert not model.aupimo.update_called


def test_sanity_check_with_normal_images_only_is_harmless(tmp_path: Path) -> None:
    """The first batches have no anomalous image: a warning says so, training goes on, and nothing is logged of them."""
    model = Detector()
    with pytest.warns(UserWarning, match="none of the 4 images is anomalous") as caught:
        fit(model, tmp_path)
    assert len([each for each in caught if "AUPIMO" in str(each.message)]) == 1
    assert all(torch.isfinite(each["val/aupimo"]) for each in model.logged)


@sanity_check_warns
def test_collection_is_logged_as_a_dict(tmp_path: Path) -> None:
    """`log_dict` of a collection logs each member, reset between epochs, to a logger too."""
    model = Detector(as_collection=True)
    logger = CSVLogger(tmp_path)
    fit(model, tmp_path, logger=logger)
    for epoch, logged in enumerate(model.logged):
        assert float(logged["val/aupimo"]) == expected_score(epoch)
        assert float(logged["val/sampled"]) == expected_score(epoch, num_thresholds=20_000)
    rows = Path(logger.log_dir, "metrics.csv").read_text().splitlines()
    assert rows[0].split(",") == ["epoch", "step", "val/aupimo", "val/sampled"]
    assert [float(row.split(",")[2]) for row in rows[1:]] == pytest.approx([expected_score(0), expected_score(1)])


@sanity_check_warns
def test_bfloat16_training_keeps_states_exact(tmp_path: Path) -> None:
    """Under "bf16-true" the model and its default dtype are bfloat16, the states are not."""
    model = Detector(dtypes=[])
    fit(model, tmp_path, precision="bf16-true")
    assert model.layer.weight.dtype == torch.bfloat16
    assert model.dtypes == (2 + 2 * 5) * [torch.float32, torch.int64, torch.float32, torch.int64]
    expected = [expected_score(0, torch.bfloat16), expected_score(1, torch.bfloat16)]
    assert [float(each["val/aupimo"]) for each in model.logged] == expected


class MixedDetector(Detector):
    """A model whose maps come out of a matrix product, which autocast computes in half precision."""

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Update with maps in half precision."""
        maps, masks = batch
        maps = (maps_of_epoch(maps, self.current_epoch)[..., None] @ torch.ones(1, 1))[..., 0]
        assert maps.dtype == torch.bfloat16
        self.aupimo.update(maps, masks)
        self.log("val/aupimo", self.aupimo)


@sanity_check_warns
def test_mixed_precision_and_accumulated_gradients(tmp_path: Path) -> None:
    """Under "bf16-mixed" the score is that of the rounded maps, and accumulating gradients changes nothing."""
    model = MixedDetector()
    fit(model, tmp_path, precision="bf16-mixed", accumulate_grad_batches=2)
    expected = [
        float(functional.aupimo(maps_of_epoch(MAPS, epoch).bfloat16(), MASKS, fpr_bounds=FPR_BOUNDS))
        for epoch in (0, 1)
    ]
    assert [float(each["val/aupimo"]) for each in model.logged] == expected


@sanity_check_warns
def test_resumed_training_logs_the_right_score(tmp_path: Path) -> None:
    """Training that goes on from a checkpoint scores its own epoch, without anything of the one before."""
    checkpoint = callbacks.ModelCheckpoint(tmp_path, monitor="val/aupimo", mode="max")
    fit(Detector(), tmp_path, callbacks=[checkpoint], max_epochs=1)
    model = Detector()
    again = callbacks.ModelCheckpoint(tmp_path / "again", monitor="val/aupimo", mode="max")
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        fit(model, tmp_path, resume_from=checkpoint.best_model_path, callbacks=[again])
    assert [float(each["val/aupimo"]) for each in model.logged] == [expected_score(1)]


@sanity_check_warns
def test_callbacks_watch_the_score(tmp_path: Path) -> None:
    """`ModelCheckpoint` saves the better epoch and `EarlyStopping` lets an improving model go on."""
    best = callbacks.ModelCheckpoint(tmp_path, monitor="val/aupimo", mode="max")
    model = Detector()
    stop = callbacks.EarlyStopping("val/aupimo", mode="max", patience=1)
    trainer = fit(model, tmp_path, callbacks=[best, stop])
    assert trainer.current_epoch == 2
    assert float(best.best_model_score) == max(expected_score(0), expected_score(1))
    assert not [name for name in torch.load(best.best_model_path, weights_only=True)["state_dict"] if "aupimo" in name]


def test_callbacks_survive_nan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without anomalous images the score is NaN: the warning names the cause before `EarlyStopping` stops on it."""
    best = callbacks.ModelCheckpoint(tmp_path, monitor="val/aupimo", mode="max")
    stop = callbacks.EarlyStopping("val/aupimo", mode="max", check_finite=True, verbose=True)
    with pytest.warns(UserWarning, match="none of the 10 images is anomalous"), pytest.warns(match="4 images"):
        trainer = fit(Detector(), tmp_path, masks=torch.zeros_like(MASKS), callbacks=[best, stop])
    assert trainer.current_epoch == 1
    assert math.isnan(trainer.callback_metrics["val/aupimo"])
    assert "not finite" in caplog.text


def test_validation_before_any_training(tmp_path: Path) -> None:
    """`Trainer.validate` returns the score."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(TensorDataset(MAPS, MASKS), batch_size=4)
    assert trainer.validate(Detector(), loader, verbose=False) == [{"val/aupimo": expected_score(0)}]


class NoteResult(lightning.Callback):
    """A callback that asks for the result of each validation epoch."""

    def __init__(self) -> None:
        self.results: list[list[Tensor | None]] = []

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Note scores and ids of all images."""
        result = pl_module.aupimo.result()
        self.results.append([result.aupimos, result.image_ids])


LOGGED = ("val/aupimo", "val/aupimo/share_at_0", "val/aupimo/share_at_1")


def fit_with_ids(folder: Path, num_images: int, **settings: Any) -> list[Any]:
    """Train on some of the images, and return what was logged and what a callback was told, epoch by epoch."""
    note, model = NoteResult(), Detector()
    settings = {
        "callbacks": [note, AUPIMOCallback(num_heatmaps=0)],
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        **settings,
    }
    masks = MASKS[:num_images].clone()
    masks[7] = False
    masks[7, 3, 4] = True  # a mask of one pixel is found or not, so that one of the shares is above 0
    fit(model, folder, masks, [torch.arange(num_images) + 100], **settings)
    return [[[logged[name] for name in LOGGED] for logged in model.logged], note.results]


def fit_on_rank(folder: Path, rank: int, world_size: int, note: Callable[[str], Any]) -> list[list[Any]]:
    """Train as one of several processes that are there already, with images that fill them evenly and that do not."""
    warnings.simplefilter("ignore")
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then starts no processes of its own
    notes = []
    for num_images in (10, 9):
        note(f"{num_images} images")
        notes.append(fit_with_ids(folder, num_images, devices=world_size, strategy="ddp"))
    return notes


def test_two_processes_log_and_answer_what_one_does(tmp_path: Path) -> None:
    """Under DDP both ranks log the score of all images and tell it to callbacks, an image dealt out twice only once."""
    for notes in run_ranks([(partial(fit_on_rank, tmp_path), 2)])[0]:
        for (logged, results), num_images in zip(notes, (10, 9), strict=True):
            expected_logged, expected_results = fit_with_ids(tmp_path, num_images)
            assert_same(logged, expected_logged, atol=MAX_ERROR)
            assert_same(results, expected_results, atol=MAX_ERROR)
            assert logged[0][1:] != [0, 0]
            assert torch.equal(results[0][1], torch.arange(num_images) + 100)
            assert not torch.equal(results[0][0].nan_to_num(), results[1][0].nan_to_num())


class FragileDetector(Detector):
    """A model that fails in its fourth step, until it is repaired."""

    is_broken = True

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Update, and fail."""
        super().validation_step(batch, batch_idx)
        if self.is_broken and batch_idx == 3:
            raise RuntimeError("out of luck")


@sanity_check_warns
@pytest.mark.parametrize("how", ["sanity check", "reset"])
def test_training_after_a_validation_that_was_broken_off(tmp_path: Path, how: str) -> None:
    """The images before an error in validation are no part of the next score, after a sanity check or a reset."""
    model = FragileDetector()
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(model, tmp_path, num_sanity_val_steps=0)
    assert model.aupimo.update_count == 4
    model.train().is_broken = False  # the validation left it in eval mode
    if how == "reset":
        model.aupimo.reset()
    fit(model, tmp_path, num_sanity_val_steps=2 if how == "sanity check" else 0)
    assert [float(each["val/aupimo"]) for each in model.logged] == [expected_score(0), expected_score(1)]
