"""The callback logs what the metric says, once an epoch, and disturbs nothing; results outlive the epoch."""

from __future__ import annotations

import copy
import io
import logging
import math
import pickle
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FPR_BOUNDS, run_ranks
from lightning.pytorch.callbacks import ModelCheckpoint
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
    log_by_stage,
    log_collection,
    make_trainer,
    maps_of_epoch,
    new_metric,
    read_events,
    scoring,
    update_and_log,
    validate,
)
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMOResult, functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = advice_of_lightning

NAMES = [f"val/aupimo/{name}" for name in ("distribution", "curves", "heatmaps")]
FIGURES = set(NAMES)
FILES = {"aupimos.json", "aupimos.safetensors", "curves.png", "distribution.png", "heatmaps.png"}
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
    trainer = make_trainer(tmp_path, AUPIMOCallback(every_n_epochs=100))
    trainer.validate(Detector(log_by_stage), loader(), verbose=False)
    assert set(read_events(tmp_path).Tags()["images"]) == FIGURES
    (values,) = trainer.test(Detector(log_by_stage), loader(), verbose=False)
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
    """Without anomalous images training goes on; shares and result are NaN, and nothing is drawn or saved."""
    step = scoring(lambda batch: (batch["scores"], torch.zeros_like(batch["truth"])))
    logger, callback = FigureLogger(), AUPIMOCallback(save_to=tmp_path / "saved")
    with pytest.warns(UserWarning, match="none of the 10 images is anomalous"):
        trainer = fit(tmp_path, Detector(step), callback, logger=logger, num_sanity_val_steps=0)
    assert trainer.current_epoch == 2
    assert all(math.isnan(trainer.callback_metrics[name]) for name in SHARES)
    assert math.isnan(callback.results["val/aupimo"].mean)
    assert logger.figures == {}
    assert not (tmp_path / "saved").exists()


class ImageLogger(FigureLogger):
    """A logger that takes images, as that of Weights & Biases does."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Remember images and step."""
        self.figures.setdefault(key, []).append((*images, step))


def test_loggers_with_log_image_get_the_figures(tmp_path: Path) -> None:
    """A logger that takes images gets each figure as pixels, with the step."""
    plt.close("all")
    images = ImageLogger()
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=images)
    assert set(images.figures) == FIGURES
    for calls in images.figures.values():
        assert [step for _, step in calls] == STEPS
        for picture, _ in calls:
            assert picture.dtype == np.uint8
            assert picture.shape[2] == 3
            assert len(np.unique(picture)) > 10
    assert set(images.scalars) >= SHARES
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
    """Images may be an array; settings survive a copy; a missing matplotlib is an error at once."""
    assert AUPIMOCallback(heatmap_images=np.array([2, 1])).heatmap_images == [2, 1]
    callback = AUPIMOCallback("aupimo", images="photo", save_to="x", save="best")
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):  # noqa: S301
        assert type(copied) is AUPIMOCallback
        assert vars(copied) == vars(callback)
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


def worse_each_epoch(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
    """Update with maps in which less of the defects is found in each epoch, and not in the first one only."""
    factor = (1.0, 1.5, 0.0)[model.current_epoch]
    update_and_log(model, {**batch, "scores": batch["scores"] + factor * batch["truth"]}, dataloader_idx)


class Notes(Detector):
    """A model that notes the score of each epoch."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.means: list[float] = []

    def on_validation_end(self) -> None:
        """Note the result, which is there until Lightning resets the metric."""
        if not self.trainer.sanity_checking:
            self.means.append(self.aupimo.result().mean)


def test_results_hold_the_last_epoch(tmp_path: Path) -> None:
    """The callback has the last result of each metric when Lightning has reset the metric, drawn or not."""
    model, callback = Notes(worse_each_epoch), AUPIMOCallback(every_n_epochs=2)
    fit(tmp_path, model, callback, max_epochs=3, logger=False)
    assert not model.aupimo.update_called
    assert list(callback.results) == ["val/aupimo"]
    assert callback.results["val/aupimo"].mean == model.means[2]
    assert len(callback.results["val/aupimo"].curves().per_image_tprs) == 10


def log_value_of_forward(model: Detector, batch: Batch, _: int) -> None:
    """Log the score of each batch, of which Lightning takes the mean."""
    model.log("val/aupimo", model.aupimo(batch["scores"], batch["truth"]), batch_size=2)


class ComputesItself(Detector):
    """A model that logs a value in place of the metric, and resets it where the advice says, or in a step, or not."""

    def __init__(self, reset_in: str) -> None:
        super().__init__(scoring(tag=None))
        self.reset_in = reset_in

    def on_validation_epoch_start(self) -> None:
        """Follow the advice, or do not."""
        if self.reset_in == "hook":
            self.aupimo.reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Reset in the first step of an epoch, or do not."""
        if self.reset_in == "step" and batch_idx == 0:
            self.aupimo.reset()
        super().validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the value."""
        self.log("val/aupimo", self.aupimo.compute())


@pytest.mark.parametrize("model", [Detector(log_value_of_forward), ComputesItself("nowhere")])
def test_a_metric_that_nobody_resets(tmp_path: Path, model: Detector) -> None:
    """A warning says once that a result holds earlier images, and what to do about it."""
    callback = AUPIMOCallback(num_heatmaps=0)
    with pytest.warns(UserWarning, match="AUPIMO of `self.aupimo` is not that of this epoch alone") as caught:
        fit(tmp_path, model, callback, max_epochs=3, logger=False)
    (advice,) = [str(each.message) for each in caught if "this epoch alone" in str(each.message)]
    assert '`self.log("val/aupimo", self.aupimo)`' in advice
    assert "in `on_validation_epoch_start`, `self.aupimo.reset()`" in advice
    assert len(callback.results.popitem()[1].aupimos) == 4 + 3 * 10


def test_a_metric_that_nobody_resets_in_a_test(tmp_path: Path) -> None:
    """The advice names the hook of a test."""
    model = Detector(scoring(tag=None))
    trainer = make_trainer(tmp_path, AUPIMOCallback(num_heatmaps=0), logger=False)
    trainer.test(model, loader(), verbose=False)
    advice = r'`self.log\("test/aupimo", self.aupimo\)`, or reset it in `on_test_epoch_start`'
    with pytest.warns(UserWarning, match=advice):
        trainer.test(model, loader(), verbose=False)


@pytest.mark.parametrize("model", [Detector(), ComputesItself("hook"), ComputesItself("step")])
def test_a_metric_that_is_reset(tmp_path: Path, model: Detector, recwarn: pytest.WarningsRecorder) -> None:
    """The remedies of the warning, or a reset in the first step: each epoch has its own result, and nothing warns."""
    callback = AUPIMOCallback(num_heatmaps=0)
    fit(tmp_path, model, callback, max_epochs=3, logger=False)
    assert len(callback.results["val/aupimo"].aupimos) == 10
    assert not [each for each in recwarn if "AUPIMO" in str(each.message)]


class Trains(Detector):
    """A model with a metric of its training, which is logged where the training epoch ends."""

    def __init__(self) -> None:
        super().__init__(aupimo=new_metric(), train_aupimo=new_metric())

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """Update the metric of the training."""
        self.train_aupimo.update(batch["scores"], batch["truth"])
        self.log("train/aupimo", self.train_aupimo, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


def test_a_metric_of_the_training_is_none_of_the_validation(tmp_path: Path) -> None:
    """A metric that was updated before a validation, and not in it, has no result, also between training steps."""
    callback = AUPIMOCallback(num_heatmaps=0)
    trainer = fit(tmp_path, Trains(), callback, val_check_interval=2)
    assert set(callback.results) == {"val/aupimo"}
    shares = {name for name in trainer.callback_metrics if "share" in name}
    assert shares == {"val/aupimo/share_at_0", "val/aupimo/share_at_1"}


def test_the_sanity_check_has_no_result(tmp_path: Path) -> None:
    """What the sanity check sees is no result."""
    callback = AUPIMOCallback()
    fit(tmp_path, Detector(), callback, limit_val_batches=2, max_epochs=0)
    assert callback.results == {}


@pytest.mark.parametrize(("save", "epoch"), [("last", 2), ("best", 1)])
def test_an_epoch_is_saved_with_pictures(tmp_path: Path, save: Any, epoch: int) -> None:
    """The last or the best result is saved in a folder named like the score, with its pictures, and nothing else."""
    model, callback = Notes(worse_each_epoch), AUPIMOCallback(save_to=tmp_path / "saved", save=save)
    fit(tmp_path, model, callback, max_epochs=3, logger=False)
    folder = tmp_path / "saved/val/aupimo"
    assert {path.name for path in folder.iterdir()} == FILES
    assert AUPIMOResult.load(folder / "aupimos.json").mean == model.means[epoch]
    for path in folder.glob("*.png"):
        assert len(np.unique(np.asarray(Image.open(path)))) > 10


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_best_is_remembered_in_a_checkpoint(tmp_path: Path) -> None:
    """Training that goes on from a checkpoint does not replace a better result by a worse one."""
    make_callback = partial(AUPIMOCallback, save_to=tmp_path / "saved", save="best")
    model, checkpoint = Notes(worse_each_epoch), ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    fit(tmp_path, model, make_callback(), checkpoint, enable_checkpointing=True, logger=False)
    callbacks = [make_callback(), ModelCheckpoint(tmp_path / "checkpoints")]
    trainer = make_trainer(tmp_path, *callbacks, max_epochs=3, logger=False, enable_checkpointing=True)
    trainer.fit(Notes(worse_each_epoch), loader(), loader(), ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert trainer.current_epoch == 3
    assert AUPIMOResult.load(tmp_path / "saved/val/aupimo/aupimos.json").mean == model.means[1]


def test_the_best_of_another_training_is_forgotten(tmp_path: Path) -> None:
    """A callback that is used again saves the best of the new training, though the old one was better."""
    callback, offset = AUPIMOCallback(save_to=tmp_path, save="best", num_heatmaps=0), 1.0
    step = scoring(lambda batch: (batch["scores"] - offset * batch["truth"], batch["truth"]))
    fit(tmp_path, Detector(), callback, logger=False)
    better = callback.results["val/aupimo"].mean
    trainer = fit(tmp_path, Detector(step), callback, logger=False)
    saved = AUPIMOResult.load(tmp_path / "val/aupimo/aupimos.json").mean
    assert saved == callback.results["val/aupimo"].mean < better
    offset = 2.0
    trainer.fit_loop.max_epochs = 3  # the same training goes on, and gets worse
    trainer.fit(trainer.lightning_module, loader(), loader())
    assert trainer.current_epoch == 3
    assert callback.results["val/aupimo"].mean < saved
    assert AUPIMOResult.load(tmp_path / "val/aupimo/aupimos.json").mean == saved


def test_two_callbacks_in_a_trainer(tmp_path: Path) -> None:
    """Callbacks that save different things stand side by side, and a checkpoint has both."""
    callbacks = [AUPIMOCallback(save_to=tmp_path / save, save=save, num_heatmaps=0) for save in ("last", "best")]
    fit(tmp_path, Detector(), *callbacks, ModelCheckpoint(tmp_path), enable_checkpointing=True, logger=False)
    assert all((tmp_path / save / "val/aupimo/aupimos.json").is_file() for save in ("last", "best"))


def test_files_are_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be written leaves the earlier one, and one that is not drawn again goes."""
    folder = tmp_path / "val/aupimo"

    def draw(num_heatmaps: int) -> set[str]:
        validate(tmp_path, Detector(), AUPIMOCallback(save_to=tmp_path, num_heatmaps=num_heatmaps), logger=False)
        return {path.name for path in folder.iterdir()}

    def fail(self: Figure, path: Path, **_: Any) -> None:  # noqa: ARG001
        path.write_bytes(b"half")
        raise OSError("disk full")

    assert draw(num_heatmaps=1) == FILES
    before = (folder / "curves.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            draw(num_heatmaps=1)
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "curves.png").read_bytes() == before
    assert draw(num_heatmaps=0) == FILES - {"heatmaps.png"}


@pytest.mark.parametrize(
    ("tag", "folder"),
    [
        ("val/aupimo", "val/aupimo"),
        ("AUPIMO", "AUPIMO"),
        ("../../etc", "%2E%2E/%2E%2E/etc"),
        ("a b: c*?", "a b%3A c%2A%3F"),
        ("mäßig/日本", "mäßig/日本"),
        ("/root", "root"),
        ("back\\slash", "back%5Cslash"),
        ("50%", "50%25"),
    ],
)
@pytest.mark.usefixtures("blank_figures")
def test_folders_are_named_by_tags(tmp_path: Path, tag: str, folder: str) -> None:
    """A name of a score is a path within the folder, whatever it holds."""
    callback = AUPIMOCallback(save_to=tmp_path / "a/b/c", num_heatmaps=0)
    validate(tmp_path, Detector(scoring(tag=tag)), callback, logger=False)
    assert (tmp_path / "a/b/c" / folder / "aupimos.json").is_file()


class OtherLogger(FigureLogger):
    """A logger whose experiment takes figures in another way: what those of MLflow and Comet take alike."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        vars(self).update(attributes)

    @property
    def experiment(self) -> Any:
        """What takes the figures."""
        return SimpleNamespace(log_figure=self.log_figure, **self.of_experiment)


class MLflow(OtherLogger):
    """A logger whose experiment takes what the client of MLflow takes."""

    def log_figure(self, run_id: str, figure: Any, artifact_file: str, *, save_kwargs: Any = None) -> None:  # noqa: ARG002
        """Remember a figure."""
        self.calls.append((run_id, type(figure), artifact_file))


class Comet(OtherLogger):
    """A logger whose experiment takes what that of Comet takes."""

    def log_figure(
        self, figure_name: str | None = None, figure: Any = None, overwrite: bool = False, step: int | None = None
    ) -> None:
        """Remember a figure."""
        self.calls.append((figure_name, type(figure), overwrite, step))


@pytest.mark.parametrize(
    ("uri", "separator"),
    [("https://host/x", "/"), ("sqlite:///x.db", "/"), ("databricks", "/"), ("file:/tmp/runs", "_"), ("./runs", "_")],
)
def test_mlflow_gets_figures(tmp_path: Path, uri: str, separator: str) -> None:
    """MLflow gets each figure as a file of its run and step; its file store has no names below that of the score."""
    logger = MLflow(run_id="abc", of_experiment={"tracking_uri": uri})
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=logger)
    files = [f"{name}/step_{step:08d}.png" for step in (4, 9) for name in NAMES]
    assert logger.calls == [("abc", Figure, file) for file in files]
    assert {f"val/aupimo{separator}share_at_0", f"val/aupimo{separator}share_at_1"} < set(logger.scalars)


def test_comet_gets_figures(tmp_path: Path) -> None:
    """Comet gets each figure with its name and step."""
    logger = Comet(of_experiment={})
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=logger)
    assert logger.calls == [(name, Figure, False, step) for step in (4, 9) for name in NAMES]


def test_a_logger_without_figures_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One message says that a logger takes no figures, unless they are saved, and scalars are logged all the same."""
    for save_to, num_messages in ((None, 1), (tmp_path / "saved", 0)):
        caplog.clear()
        rows = CSVLogger(tmp_path)
        with caplog.at_level(logging.INFO):
            fit(tmp_path, Detector(), AUPIMOCallback(save_to=save_to), logger=rows)
        assert caplog.text.count("AUPIMOCallback draws figures, but CSVLogger cannot take any") == num_messages
        assert "val/aupimo/share_at_0" in Path(rows.log_dir, "metrics.csv").read_text()


def test_fast_dev_run_and_no_logger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that tries one batch, and one without logger, end well and are told nothing of figures."""
    with caplog.at_level(logging.INFO):
        fit(tmp_path, Detector(), AUPIMOCallback(), fast_dev_run=True)
        fit(tmp_path, Detector(), AUPIMOCallback(), logger=False)
    assert "figures" not in caplog.text


def test_text_is_legible_in_a_small_card(tmp_path: Path) -> None:
    """In a card of 300 pixels, text is 7 pixels high or more, and lies within the picture."""
    names = [f"test/crack/00{i}_image.png" for i in range(10)]
    step = scoring(lambda batch: (batch["scores"], batch["truth"], [names[i] for i in batch["index"]]))
    logger, slack = FigureLogger(), 5  # pixels of 800: the empty space around a legend
    validate(tmp_path, Detector(step), AUPIMOCallback(), logger=logger)
    assert set(logger.figures) == FIGURES
    for (figure,) in logger.figures.values():
        FigureCanvasAgg(figure).draw()
        width, height = figure.canvas.get_width_height()
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() / 72 * figure.dpi * 300 / width >= 7, text
        for axis in figure.axes:
            box = axis.get_tightbbox()
            assert -slack <= box.x0 <= box.x1 <= width + slack, axis
            assert -slack <= box.y0 <= box.y1 <= height + slack, axis


def save_on_rank(folder: Path, rank: int, world_size: int, note: Any) -> Any:
    """Train as one of several processes."""
    settings = join_processes(rank, world_size, note)
    step = scoring(lambda batch: (batch["scores"], batch["truth"], [f"{i}.png" for i in batch["index"].tolist()]))
    callback = AUPIMOCallback(save_to=folder / "saved", save="best")
    order = [0, 1, 3, 2, 4, 5, 7, 6, 8]  # images of both classes on each rank
    fit(folder, Detector(step), callback, loaders=loader(order), **settings)
    return {tag: [result.mean, result.paths] for tag, result in callback.results.items()}


@pytest.mark.slow
def test_two_processes_have_one_result(tmp_path: Path) -> None:
    """Under DDP every rank has the result of all images, and rank 0 alone saves and logs."""
    first, second = run_ranks([(partial(save_on_rank, tmp_path), 2)])[0]
    assert first == second
    assert first["val/aupimo"][1] == [f"{i}.png" for i in range(9)]
    assert {path.name for path in (tmp_path / "saved/val/aupimo").iterdir()} == FILES
    assert AUPIMOResult.load(tmp_path / "saved/val/aupimo/aupimos.json").mean == first["val/aupimo"][0]
    assert len(read_events(tmp_path).Images("val/aupimo/heatmaps")) == 2
