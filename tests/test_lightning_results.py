"""Results outlive the epoch: on the callback, in files, and as figures in every logger that takes any."""

from __future__ import annotations

import copy
import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from helpers import run_ranks
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from loops import Batch, Detector, FigureLogger, advice_of_lightning, fit, loader, make_trainer, new_metric, read_events
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = advice_of_lightning

SLACK = 5
"""Pixels of 800 by which the layout may err: the empty space around a legend."""

FILES = {"aupimos.json", "aupimos.safetensors", "curves.png", "distribution.png", "heatmaps.png"}


def worse_each_epoch(model: Detector, batch: Batch, _: int) -> Any:
    """Update with maps in which less of the defects is found in each epoch, and not in the first one only."""
    factor = (1.0, 1.5, 0.0)[model.current_epoch]
    maps = batch["scores"] + factor * batch["truth"]
    model.aupimo.update(maps, batch["truth"])
    model.log("val/aupimo", model.aupimo)


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
    """A model that logs a value in place of the metric."""

    def __init__(self, *, is_reset: bool) -> None:
        super().__init__(lambda model, batch, _: model.aupimo.update(batch["scores"], batch["truth"]))
        self.is_reset = is_reset

    def on_validation_epoch_start(self) -> None:
        """Follow the advice, or do not."""
        if self.is_reset:
            self.aupimo.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the value."""
        self.log("val/aupimo", self.aupimo.compute())


@pytest.mark.parametrize("model", [Detector(log_value_of_forward), ComputesItself(is_reset=False)])
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
    model = Detector(lambda model, batch, _: model.aupimo.update(batch["scores"], batch["truth"]))
    trainer = make_trainer(tmp_path, AUPIMOCallback(num_heatmaps=0), logger=False)
    trainer.test(model, loader(), verbose=False)
    with pytest.warns(
        UserWarning, match=r'`self.log\("test/aupimo", self.aupimo\)`, or reset it in `on_test_epoch_start`'
    ):
        trainer.test(model, loader(), verbose=False)


@pytest.mark.parametrize("model", [Detector(), ComputesItself(is_reset=True)])
def test_a_metric_that_is_reset(tmp_path: Path, model: Detector, recwarn: pytest.WarningsRecorder) -> None:
    """The remedies of the warning: each epoch has a result of its own, and nothing warns."""
    callback = AUPIMOCallback(num_heatmaps=0)
    fit(tmp_path, model, callback, max_epochs=3, logger=False)
    assert len(callback.results.popitem()[1].aupimos) == 10
    assert not [each for each in recwarn if "AUPIMO" in str(each.message)]


class ResetsInFirstStep(Detector):
    """A model that resets its metric in the first step of an epoch, whose score it does not log as an object."""

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Reset and update."""
        if batch_idx == 0:
            self.aupimo.reset()
        self.aupimo.update(batch["scores"], batch["truth"])


def test_a_reset_in_the_first_step(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """A metric that is reset after the epoch began holds no earlier image, and is told from one that is not updated."""
    callback = AUPIMOCallback(num_heatmaps=0)
    fit(tmp_path, ResetsInFirstStep(), callback, max_epochs=3, logger=False)
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
    assert {name for name in trainer.callback_metrics if "share" in name} == {
        "val/aupimo/share_at_0",
        "val/aupimo/share_at_1",
    }


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
        pixels = np.asarray(Image.open(path))
        assert len(np.unique(pixels)) > 10


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

    def step(model: Detector, batch: Batch, _: int) -> None:
        model.aupimo.update(batch["scores"] - offset * batch["truth"], batch["truth"])
        model.log("val/aupimo", model.aupimo)

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


def test_what_is_undefined_is_not_saved(tmp_path: Path) -> None:
    """An epoch without anomalous images is a result of NaN on the callback, and leaves no file."""

    def step(model: Detector, batch: Batch, _: int) -> None:
        model.aupimo.update(batch["scores"], torch.zeros_like(batch["truth"]))
        model.log("val/aupimo", model.aupimo)

    callback = AUPIMOCallback(save_to=tmp_path / "saved")
    with pytest.warns(UserWarning, match="AUPIMO is undefined"):
        fit(tmp_path, Detector(step), callback)
    assert np.isnan(callback.results["val/aupimo"].mean)
    assert not (tmp_path / "saved").exists()


def test_files_are_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be written leaves the earlier one, and one that is not drawn again goes."""
    folder = tmp_path / "val/aupimo"

    def validate(num_heatmaps: int) -> None:
        trainer = make_trainer(tmp_path, AUPIMOCallback(save_to=tmp_path, num_heatmaps=num_heatmaps), logger=False)
        trainer.validate(Detector(), loader(), verbose=False)

    def fail(self: Figure, path: Path, **_: Any) -> None:  # noqa: ARG001
        path.write_bytes(b"half")
        raise OSError("disk full")

    validate(num_heatmaps=1)
    before = (folder / "curves.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            validate(num_heatmaps=1)
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "curves.png").read_bytes() == before
    validate(num_heatmaps=0)
    assert {path.name for path in folder.iterdir()} == FILES - {"heatmaps.png"}


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

    def step(model: Detector, batch: Batch, _: int) -> None:
        model.aupimo.update(batch["scores"], batch["truth"])
        model.log(tag, model.aupimo)

    trainer = make_trainer(tmp_path, AUPIMOCallback(save_to=tmp_path / "a/b/c", num_heatmaps=0), logger=False)
    trainer.validate(Detector(step), loader(), verbose=False)
    assert (tmp_path / "a/b/c" / folder / "aupimos.json").is_file()


def test_settings_of_saving() -> None:
    """A choice that is not known is an error; settings survive a copy."""
    with pytest.raises(ValueError, match="`save` to be 'last' or 'best', but got 'all'"):
        AUPIMOCallback(save="all")  # type: ignore[arg-type]
    callback = AUPIMOCallback("aupimo", images="photo", save_to="x", save="best")
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):  # noqa: S301
        assert type(copied) is AUPIMOCallback
        assert vars(copied) == vars(callback)


class FakeLogger(FigureLogger):
    """A logger with an experiment, as those of MLflow and Comet have."""

    def __init__(self, experiment: Any, **attributes: Any) -> None:
        super().__init__()
        self._experiment = experiment
        vars(self).update(attributes)

    @property
    def experiment(self) -> Any:
        """What takes the figures."""
        return self._experiment


class MLflow:
    """What the client of MLflow takes."""

    def __init__(self, uri: str) -> None:
        self.tracking_uri = uri
        self.calls: list[tuple[str, Any, str]] = []

    def log_figure(self, run_id: str, figure: Any, artifact_file: str, *, save_kwargs: Any = None) -> None:  # noqa: ARG002
        """Remember a figure."""
        self.calls.append((run_id, figure, artifact_file))


class Comet:
    """What an experiment of Comet takes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, Any, int | None]] = []

    def log_figure(
        self, figure_name: str | None = None, figure: Any = None, overwrite: bool = False, step: int | None = None
    ) -> None:
        """Remember a figure."""
        assert not overwrite
        self.calls.append((figure_name, figure, step))


NAMES = [f"val/aupimo/{name}" for name in ("distribution", "curves", "heatmaps")]


@pytest.mark.parametrize(
    ("uri", "separator"),
    [("https://host/x", "/"), ("sqlite:///x.db", "/"), ("databricks", "/"), ("file:/tmp/runs", "_"), ("./runs", "_")],
)
def test_mlflow_gets_figures(tmp_path: Path, uri: str, separator: str) -> None:
    """MLflow gets each figure as a file of its run and step; its file store has no names below that of the score."""
    experiment = MLflow(uri)
    logger = FakeLogger(experiment, run_id="abc")
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=logger)
    assert [file for _, _, file in experiment.calls] == [
        f"{name}/step_{step:08d}.png" for step in (4, 9) for name in NAMES
    ]
    assert {(run, type(figure)) for run, figure, _ in experiment.calls} == {("abc", Figure)}
    assert {f"val/aupimo{separator}share_at_0", f"val/aupimo{separator}share_at_1"} < set(logger.scalars)


def test_comet_gets_figures(tmp_path: Path) -> None:
    """Comet gets each figure with its name and step."""
    experiment = Comet()
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=FakeLogger(experiment))
    assert [(name, step) for name, _, step in experiment.calls] == [(name, step) for step in (4, 9) for name in NAMES]
    assert {type(figure) for _, figure, _ in experiment.calls} == {Figure}


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

    def step(model: Detector, batch: Batch, _: int) -> Any:
        model.aupimo.update(batch["scores"], batch["truth"], [f"test/crack/00{i}_image.png" for i in batch["index"]])

    logger = FigureLogger()
    make_trainer(tmp_path, AUPIMOCallback(), logger=logger).validate(Detector(step), loader(), verbose=False)
    assert set(logger.figures) == set(NAMES)
    for (figure,) in logger.figures.values():
        FigureCanvasAgg(figure).draw()
        width, height = figure.canvas.get_width_height()
        for text in figure.findobj(mpl.text.Text):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() / 72 * figure.dpi * 300 / width >= 7, text
        for axis in figure.axes:
            box = axis.get_tightbbox()
            assert box.x0 >= -SLACK, axis
            assert box.y0 >= -SLACK, axis
            assert box.x1 <= width + SLACK, axis
            assert box.y1 <= height + SLACK, axis


def fit_on_rank(folder: str, rank: int, world_size: int, note: Any) -> Any:
    """Train as one of several processes that are there already."""
    import os  # noqa: PLC0415
    import warnings  # noqa: PLC0415

    warnings.simplefilter("ignore")
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then starts no processes of its own
    note("training")

    def step(model: Detector, batch: Batch, _: int) -> Any:
        model.aupimo.update(batch["scores"], batch["truth"], [f"{i}.png" for i in batch["index"].tolist()])
        model.log("val/aupimo", model.aupimo)

    callback = AUPIMOCallback(save_to=Path(folder, "saved"), save="best")
    order = [0, 1, 3, 2, 4, 5, 7, 6, 8]  # images of both classes on each rank
    fit(Path(folder), Detector(step), callback, devices=world_size, strategy="ddp", loaders=loader(order))
    return {tag: [result.mean, result.paths] for tag, result in callback.results.items()}


@pytest.mark.slow
def test_two_processes_have_one_result(tmp_path: Path) -> None:
    """Under DDP every rank has the result of all images, and rank 0 alone saves and logs."""
    first, second = run_ranks([(partial(fit_on_rank, str(tmp_path)), 2)])[0]
    assert first == second
    assert first["val/aupimo"][1] == [f"{i}.png" for i in range(9)]
    assert {path.name for path in (tmp_path / "saved/val/aupimo").iterdir()} == FILES
    assert AUPIMOResult.load(tmp_path / "saved/val/aupimo/aupimos.json").mean == first["val/aupimo"][0]
    assert len(read_events(tmp_path).Images("val/aupimo/heatmaps")) == 2


def test_results_of_many_metrics(tmp_path: Path) -> None:
    """Each metric has its own result."""

    def step(model: Detector, batch: Batch, _: int) -> None:
        for name in ("first", "second"):
            getattr(model, name).update(batch["scores"], batch["truth"])
            model.log(f"val/{name}", getattr(model, name))

    callback = AUPIMOCallback()
    metrics = {"first": new_metric(), "second": new_metric(num_thresholds=20_000)}
    fit(tmp_path, Detector(step, **metrics), callback, logger=False)
    assert [result.num_thresholds for result in callback.results.values()] == [None, 20_000]
