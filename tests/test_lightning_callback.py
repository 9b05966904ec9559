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
from typing import Any
from unittest.mock import ANY, Mock, call

import loops
import numpy as np
import pytest
import torch
from helpers import FPR_BOUNDS, run_ranks
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from loops import FEW_MASKS, MAPS, Batch, Detector, FigureLogger, Notes, fit, loader, make_trainer, scoring, validate
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = loops.advice_of_lightning

blank = pytest.mark.usefixtures("blank_figures")

NAMES = [f"val/aupimo/{name}" for name in ("distribution", "curves", "heatmaps")]
FIGURES = set(NAMES)
FILES = {"aupimos.json", "aupimos.safetensors", "curves.png", "distribution.png", "heatmaps.png"}
SHARES = {"val/aupimo/share_at_0", "val/aupimo/share_at_1"}
update = scoring(tag=None)
STEPS = [4, 9]
"""Lightning logs the scalars of a validation at the step before the one that is next: here after 5 and 10 steps."""


def with_few_masks(model: Detector, batch: Batch, dataloader_idx: int) -> None:
    """Update with `FEW_MASKS` and names of the images."""
    names = [f"{i}.png" for i in batch["index"].tolist()]
    scoring(lambda batch: (batch["scores"], FEW_MASKS[batch["index"]], names))(model, batch, dataloader_idx)


def pictures(events: Any, tag: str) -> list[Any]:
    """Pixels (H, W, channels) of each picture that was logged."""
    return [np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) for image in events.Images(tag)]


def test_event_file_holds_what_the_metric_says(tmp_path: Path) -> None:
    """Scalars, histogram and figures of two epochs are those of a direct computation; nothing is left open."""
    plt.close("all")
    fit(tmp_path, Notes(with_few_masks, aupimo=loops.new_metric(), unused=loops.new_metric()), AUPIMOCallback())
    events = loops.read_events(tmp_path)
    assert events.Tags()["histograms"] == ["val/aupimo/scores"]
    assert set(events.Tags()["images"]) == FIGURES
    for epoch in range(2):
        scores = functional.aupimo(loops.maps_of_epoch(MAPS, epoch), FEW_MASKS, fpr_bounds=FPR_BOUNDS, reduction="none")
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


@blank
@pytest.mark.parametrize("every", [2, 3])
def test_every_n_epochs(tmp_path: Path, every: int) -> None:
    """Of two epochs the second is drawn or none, and nothing of a sanity check that sees all of the data.

    A test of its own is always drawn, under its own names.
    """
    logger, model = FigureLogger(), Detector(loops.log_by_stage)
    trainer = fit(tmp_path, model, AUPIMOCallback(every_n_epochs=every), logger=logger, num_sanity_val_steps=-1)
    numbers = {tag: len(figures) for tag, figures in logger.figures.items()}
    assert numbers == dict.fromkeys(FIGURES if every == 2 else (), 1)
    assert set(trainer.callback_metrics) >= SHARES
    logger.figures.clear()
    (values,) = trainer.test(model, loader(), verbose=False)
    assert "test/aupimo/share_at_0" in values
    assert set(logger.figures) == {tag.replace("val", "test") for tag in FIGURES}


def test_undefined_scores_are_logged_as_nan(tmp_path: Path) -> None:
    """Without anomalous images training goes on; shares and result are NaN, and nothing is drawn or saved."""
    step = scoring(lambda batch: (batch["scores"], torch.zeros_like(batch["truth"])))
    logger, callback = FigureLogger(), AUPIMOCallback(save_to=tmp_path / "saved")
    with pytest.warns(UserWarning, match="none of the 10 images is anomalous"):
        trainer = fit(tmp_path, Detector(step), callback, logger=logger, num_sanity_val_steps=0)
    assert trainer.current_epoch == 2
    assert all(math.isnan(trainer.callback_metrics[name]) for name in ("val/aupimo", *SHARES))
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


def test_construction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images may be an array; settings survive a copy; a missing matplotlib is an error, and so is a missing metric."""
    model = Detector()
    del model.aupimo
    with pytest.raises(ValueError, match="Expected Detector to hold an AUPIMO metric, but got none"):
        fit(tmp_path, model, AUPIMOCallback())
    assert AUPIMOCallback(heatmap_images=np.array([2, 1])).heatmap_images == [2, 1]
    callback = AUPIMOCallback("aupimo", images="photo", save_to="x", save="best")
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):  # noqa: S301
        assert type(copied) is AUPIMOCallback
        assert vars(copied) == vars(callback)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="expects `matplotlib` to be installed"):
        AUPIMOCallback()


def worse_each_epoch(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
    """Update with maps in which less of the defects is found in each epoch, and not in the first one only."""
    factor = (1.0, 2.5, 0.0)[model.current_epoch]
    loops.update_and_log(model, {**batch, "scores": batch["scores"] + factor * batch["truth"]}, dataloader_idx)


def log_value(model: Any) -> None:
    """Log the value in place of the metric."""
    model.log("val/aupimo", model.aupimo.compute())


class ResetsItself(Detector):
    """A model that resets its metric where the advice says."""

    def on_validation_epoch_start(self) -> None:
        """Follow the advice."""
        self.aupimo.reset()


class Trains(Detector):
    """A model whose training updates a metric: that of the validation, or one that is logged where its epoch ends."""

    def __init__(self, name: str) -> None:
        super().__init__(**{each: loops.new_metric() for each in ("aupimo", name)})
        self.name = name

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """Update the metric of the training."""
        getattr(self, self.name).update(batch["scores"], batch["truth"])
        if self.name != "aupimo":
            self.log("train/aupimo", getattr(self, self.name), on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("model", "num_held", "num_images"), [(Detector(update, log_value), 4, 34), (Trains("aupimo"), 10, 20)]
)
def test_a_metric_that_nobody_resets(tmp_path: Path, model: Detector, num_held: int, num_images: int) -> None:
    """A warning says once that a result holds images of a sanity check or of a training, and what to do about it."""
    callback = AUPIMOCallback(num_heatmaps=0)
    with pytest.warns(UserWarning, match="AUPIMO of `self.aupimo` is not that of this epoch alone") as caught:
        fit(tmp_path, model, callback, max_epochs=3, logger=False)
    (advice,) = [str(each.message) for each in caught if "this epoch alone" in str(each.message)]
    assert f"held {num_held} images of training steps" in advice
    assert "Training needs a metric of its own" in advice
    assert '`self.log("val/aupimo", self.aupimo)`' in advice
    assert "in `on_validation_epoch_start`, `self.aupimo.reset()`" in advice
    assert [len(result.aupimos) for result in callback.results.values()] == [num_images]


def test_a_metric_that_nobody_resets_in_a_test(tmp_path: Path) -> None:
    """The advice names the hook of a test."""
    model = Detector(update)
    trainer = make_trainer(tmp_path, AUPIMOCallback(num_heatmaps=0), logger=False)
    trainer.test(model, loader(), verbose=False)
    advice = r'`self.log\("test/aupimo", self.aupimo\)`, or reset it in `on_test_epoch_start`'
    with pytest.warns(UserWarning, match=advice):
        trainer.test(model, loader(), verbose=False)


@pytest.mark.parametrize("model", [Detector(), ResetsItself(update, log_value)])
def test_a_metric_that_is_reset(tmp_path: Path, model: Detector, recwarn: pytest.WarningsRecorder) -> None:
    """The remedies of the warning: each epoch has its own result, and nothing warns."""
    callback = AUPIMOCallback(num_heatmaps=0)
    fit(tmp_path, model, callback, max_epochs=0, limit_val_batches=2, logger=False)
    assert callback.results == {}  # of the sanity check
    fit(tmp_path, model, callback, max_epochs=3, logger=False)
    assert len(callback.results["val/aupimo"].aupimos) == 10
    assert not [each for each in recwarn if "AUPIMO" in str(each.message)]


def test_a_metric_of_the_training_is_none_of_the_validation(tmp_path: Path) -> None:
    """A metric that was updated before a validation, and not in it, has no result, also between training steps."""
    callback = AUPIMOCallback(num_heatmaps=0)
    trainer = fit(tmp_path, Trains("train_aupimo"), callback, val_check_interval=2, logger=False)
    assert set(callback.results) == {"val/aupimo"}
    shares = {name for name in trainer.callback_metrics if "share" in name}
    assert shares == {"val/aupimo/share_at_0", "val/aupimo/share_at_1"}


@blank
def test_the_last_and_the_best_epoch_are_saved(tmp_path: Path) -> None:
    """A callback saves the last result, another the best, in a folder named like the score; both have the last one.

    Training that goes on from a checkpoint does not replace a better result by a worse one.
    """

    def train(**settings: Any) -> list[float]:
        callbacks = [AUPIMOCallback(save_to=tmp_path / save, save=save) for save in ("last", "best")]
        model, checkpoint = Notes(worse_each_epoch), ModelCheckpoint(tmp_path, save_last=True)
        trainer = make_trainer(tmp_path, *callbacks, checkpoint, enable_checkpointing=True, logger=False, **settings)
        trainer.fit(model, loader(), loader(), ckpt_path=tmp_path / "last.ckpt" if settings else None)
        assert not model.aupimo.update_called
        for callback in callbacks:
            assert list(callback.results) == ["val/aupimo"]
            assert callback.results["val/aupimo"].mean == model.results[-1].mean
            assert len(callback.results["val/aupimo"].curves().per_image_tprs) == 10
        return [result.mean for result in model.results]

    means = train()
    with pytest.warns(UserWarning, match="Checkpoint directory .* exists and is not empty"):
        means += train(max_epochs=3)
    assert max(means) == means[1]
    for save, mean in (("last", means[2]), ("best", means[1])):
        assert {path.name for path in (tmp_path / save / "val/aupimo").iterdir()} == FILES
        assert AUPIMOResult.load(tmp_path / save / "val/aupimo/aupimos.json").mean == mean


@blank
def test_the_best_of_another_training_is_forgotten(tmp_path: Path) -> None:
    """A callback that is used again saves the best of the new training, though the old one was better."""
    callback, offset = AUPIMOCallback(save_to=tmp_path, save="best", num_heatmaps=0), 0.0
    model = Detector(scoring(lambda batch: (batch["scores"] - offset * batch["truth"], batch["truth"])))
    means, saved = [], []
    for offset in (0.0, 1.0, 2.0):
        if offset < 2:
            trainer = make_trainer(tmp_path, callback, logger=False)
        trainer.fit_loop.max_epochs = 2 + (offset == 2)  # at last the same training goes on, and gets worse
        trainer.fit(model, loader(), loader())
        means.append(callback.results["val/aupimo"].mean)
        saved.append(AUPIMOResult.load(tmp_path / "val/aupimo/aupimos.json").mean)
    assert means[0] > means[1] > means[2]
    assert saved == [means[0], means[1], means[1]]


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
    assert all(len(np.unique(np.asarray(Image.open(path)))) > 10 for path in folder.glob("*.png"))
    before = (folder / "curves.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            draw(num_heatmaps=1)
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "curves.png").read_bytes() == before
    assert draw(num_heatmaps=0) == FILES - {"heatmaps.png"}


TAGS = {
    "val/aupimo": "val/aupimo",
    "../../etc": "%2E%2E/%2E%2E/etc",
    "a b: c*?": "a b%3A c%2A%3F",
    "mäßig/日本": "mäßig/日本",
    "/root": "root",
    "back\\slash": "back%5Cslash",
    "50%": "50%25",
}


@blank
def test_folders_are_named_by_tags(tmp_path: Path) -> None:
    """A name of a score is a path within the folder, whatever it holds."""
    metrics = {f"metric_{index}": loops.new_metric() for index in range(len(TAGS))}

    def step(model: Detector, batch: Batch, _: int) -> None:
        for name, tag in zip(metrics, TAGS, strict=True):
            scoring(loops.as_it_is, tag, name)(model, batch, 0)

    validate(tmp_path, Detector(step, **metrics), AUPIMOCallback(save_to=tmp_path / "a/b/c"), logger=False)
    written = tmp_path.rglob("aupimos.json")
    assert {path.parent.relative_to(tmp_path / "a/b/c").as_posix() for path in written} == {*TAGS.values()}


class OtherLogger(FigureLogger):
    """A logger whose experiment takes figures in another way."""

    experiment = None

    def __init__(self, experiment: Any, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes, experiment=experiment)


@blank
@pytest.mark.parametrize(
    ("uri", "separator"),
    [("https://host/x", "/"), ("sqlite:///x.db", "/"), ("databricks", "/"), ("file:/tmp/runs", "_"), ("./runs", "_")],
)
def test_mlflow_gets_figures(tmp_path: Path, uri: str, separator: str) -> None:
    """MLflow gets each figure as a file of its run and step; its file store has no names below that of the score."""
    client = Mock(spec=["log_figure", "tracking_uri"], tracking_uri=uri)
    logger = OtherLogger(client, run_id="abc")
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=logger)
    files = [f"{name}/step_{step:08d}.png" for step in STEPS for name in NAMES]
    assert client.log_figure.mock_calls == [call("abc", ANY, file) for file in files]
    assert isinstance(client.log_figure.call_args.args[1], Figure)
    assert {f"val/aupimo{separator}share_at_0", f"val/aupimo{separator}share_at_1"} < set(logger.scalars)


@blank
def test_comet_gets_figures(tmp_path: Path) -> None:
    """Comet gets each figure with its name and step."""
    experiment = Mock(spec=["log_figure"])
    fit(tmp_path, Detector(), AUPIMOCallback(), logger=OtherLogger(experiment))
    expected = [call(figure_name=name, figure=ANY, step=step) for step in STEPS for name in NAMES]
    assert experiment.log_figure.mock_calls == expected
    assert isinstance(experiment.log_figure.call_args.kwargs["figure"], Figure)


@blank
def test_a_logger_without_figures_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One message says that a logger takes no figures, unless they are saved or none is there; scalars are logged."""
    with caplog.at_level(logging.INFO):
        fit(tmp_path, Detector(), AUPIMOCallback(), fast_dev_run=True)
        fit(tmp_path, Detector(), AUPIMOCallback(), logger=False)
        fit(tmp_path, Detector(), AUPIMOCallback(save_to=tmp_path / "saved"), logger=CSVLogger(tmp_path))
        assert "figures" not in caplog.text
        fit(tmp_path, Detector(), AUPIMOCallback(), logger=(rows := CSVLogger(tmp_path)))
    assert caplog.text.count("AUPIMOCallback draws figures, but CSVLogger cannot take any") == 1
    assert "val/aupimo/share_at_0" in Path(rows.log_dir, "metrics.csv").read_text()


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


def train_with_files(folder: Path, **settings: Any) -> Any:
    """Train with nine images, so that two processes have one twice, and images of both classes."""
    callback, order = AUPIMOCallback(save_to=folder / "saved", save="best"), [0, 1, 3, 2, 4, 5, 7, 6, 9]
    fit(folder, Notes(with_few_masks), callback, loaders=loader(order), num_sanity_val_steps=0, **settings)
    return {tag: [result.mean, result.paths] for tag, result in callback.results.items()}


def train_on_rank(folder: Path, rank: int, world_size: int, note: Any) -> Any:
    """Train as one of several processes."""
    return train_with_files(folder, **loops.join_processes(rank, world_size, note))


@pytest.mark.slow  # test_lightning.py has two processes in the default part
def test_two_processes_log_and_save_what_one_does(tmp_path: Path) -> None:
    """Under DDP every rank has the result of all images, and rank 0 alone logs and saves it, as one process does."""
    expected = train_with_files(tmp_path / "one")
    assert run_ranks([(partial(train_on_rank, tmp_path / "two"), 2)])[0] == [expected] * 2
    assert expected["val/aupimo"][1] == [f"{i}.png" for i in (*range(8), 9)]
    one, two = loops.read_events(tmp_path / "one"), loops.read_events(tmp_path / "two")
    assert set(one.Tags()["images"]) == set(two.Tags()["images"]) == FIGURES
    for tag in ("val/aupimo", *SHARES):
        values = [[event.value for event in events.Scalars(tag)] for events in (one, two)]
        assert values[1] == pytest.approx(values[0], abs=1e-7)
    for of_one, of_two in zip(one.Histograms("val/aupimo/scores"), two.Histograms("val/aupimo/scores"), strict=True):
        assert of_two.histogram_value == of_one.histogram_value
    for tag in FIGURES:
        for of_one, of_two in zip(pictures(one, tag), pictures(two, tag), strict=True):
            # heat maps are of the images of rank 0
            assert np.array_equal(of_one, of_two) == (tag != "val/aupimo/heatmaps")
    assert {path.name for path in (tmp_path / "two/saved/val/aupimo").iterdir()} == FILES
    saved = [AUPIMOResult.load(tmp_path / name / "saved/val/aupimo/aupimos.json").mean for name in ("one", "two")]
    assert saved[0] == saved[1] > expected["val/aupimo"][0]  # the better epoch, which is the first
