"""Heat maps are of the maps that were scored, whoever changes what a step returns, and guesses end no training."""

from __future__ import annotations

import gc
import logging
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import lightning.pytorch as pl
import pytest
import torch
from loops import (
    IMAGES,
    MAPS,
    MASKS,
    SCORES,
    Batch,
    Detector,
    advice_of_lightning,
    fit,
    loader,
    make_trainer,
    new_metric,
    read_events,
    unlogged,
    update_and_log,
)
from torch import Tensor

from aupimo_torchmetrics.lightning import AUPIMOCallback, _figures
from aupimo_torchmetrics.lightning._sources import guessed_pictures
from aupimo_torchmetrics.plotting import plot_heatmaps

pytestmark = [*advice_of_lightning, pytest.mark.usefixtures("blank_figures")]

MIN_MAX_ERROR = 1e-6
"""A mean of float64 pixel weights against a score that is a sum in another order, rounded to float32."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What heat maps are drawn of."""
    calls: list[dict[str, Any]] = []

    def note(images: Any, maps: Any, result: Any, masks: Any, **settings: Any) -> Any:
        calls.append({"images": images, "maps": maps, "masks": masks, "result": result, **settings})
        return plot_heatmaps(images, maps, result, masks, **settings)

    monkeypatch.setattr(_figures, "plot_heatmaps", note)
    return calls


class Changes(pl.Callback):
    """A callback that changes the maps which a step returned, so that other scores come out, and may score them."""

    def __init__(self, how: str, updates: bool) -> None:
        self.how = how
        self.updates = updates

    def on_validation_batch_end(self, _: Any, pl_module: Any, outputs: Any, batch: Batch, *__: Any) -> None:
        """Change the maps in place, or replace them."""
        changed = outputs["anomaly_map"].roll(2, -1) + 0.3 * batch["truth"]
        if self.how == "in place":
            outputs["anomaly_map"].copy_(changed)
        else:
            outputs["anomaly_map"] = changed
        if self.updates:
            pl_module.aupimo.update(outputs["anomaly_map"], batch["truth"])

    def on_validation_epoch_end(self, _: Any, pl_module: Any) -> None:
        """Log what this callback updates."""
        if self.updates:
            pl_module.log("val/aupimo", pl_module.aupimo)


def only_return(_: Detector, batch: Batch, __: int) -> Any:
    """Return maps and masks, and update nothing."""
    return {"anomaly_map": batch["scores"].clone(), "mask": batch["truth"]}


class UpdatesLate(Detector):
    """A model that updates its metric when the callbacks have had the batch."""

    def on_validation_batch_end(self, outputs: Any, batch: Batch, *_: Any) -> None:
        """Update with the maps as they are by now."""
        self.aupimo.update(outputs["anomaly_map"], batch["truth"])
        self.log("val/aupimo", self.aupimo)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("how", ["in place", "replaced"])
@pytest.mark.parametrize("scored", ["in the step", "by the callback", "by the model afterwards"])
def test_heat_maps_are_of_the_scored_maps(
    tmp_path: Path, drawn: list[dict[str, Any]], scored: str, how: str, is_first: bool
) -> None:
    """The mean of a heat map within its mask is the score of its image, wherever maps are changed and scored."""
    if scored == "in the step" and not is_first:
        pytest.skip("the maps that were scored are gone before this callback can see them")
    model = {
        "in the step": Detector(),
        "by the callback": Detector(only_return),
        "by the model afterwards": UpdatesLate(only_return),
    }[scored]
    changes = Changes(how, updates=scored == "by the callback")
    callback = AUPIMOCallback()
    fit(tmp_path, model, *((callback, changes) if is_first else (changes, callback)))
    assert len(drawn) == 2
    for call in drawn:
        assert len(call["maps"]) == 4
        for anomaly_map, mask, index in zip(call["maps"], call["masks"], call["indices"], strict=True):
            mean = float(call["result"].pixel_aupimo(anomaly_map)[mask].mean())
            assert mean == pytest.approx(float(call["result"].aupimos[index]), abs=MIN_MAX_ERROR)


@pytest.mark.filterwarnings("ignore:AUPIMO of `self.aupimo` is that of the images of 2 dataloaders")
@pytest.mark.parametrize("loaders", [2, 1])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.slow
def test_at_most_one_batch_is_held(tmp_path: Path, late: bool, loaders: int) -> None:
    """Of all that steps return, at most what one batch needs is held, and nothing after the epoch or an error."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        nonlocal most
        outputs = only_return(model, batch, 0) if late else update_and_log(model, batch, dataloader_idx)
        alive.append(weakref.ref(outputs["anomaly_map"]))
        gc.collect()
        most = max(most, sum(each() is not None for each in alive))
        if len(alive) == 12:
            raise KeyError("out of luck")
        return outputs

    model = (UpdatesLate if late else Detector)(step)
    callback = AUPIMOCallback(num_heatmaps=1, heatmap_images=[1])
    parts = [loader(range(4)), loader(range(4, 10))] if loaders == 2 else loader()
    with pytest.raises(KeyError, match="out of luck"):
        fit(tmp_path, model, callback, loaders=parts)
    assert most <= 3  # what Lightning holds of the step before, what the callback holds, and the present one
    del model
    gc.collect()
    assert callback._epoch is None
    assert not callback._scored


HOW_TO_MISGUESS: dict[str, Any] = {
    "scores of images": lambda batch: {"preds": batch["scores"].amax((1, 2)), "target": batch["label"]},
    "classes": lambda batch: {"preds": batch["truth"].long(), "target": batch["truth"].long()},
    "two channels": lambda batch: {"preds": batch["scores"][:, None].expand(-1, 2, -1, -1)},
    "flat maps": lambda batch: {"anomaly_map": batch["scores"].flatten(1)},
    "maps of one pixel": lambda batch: {"anomaly_map": batch["scores"].amax((1, 2), keepdim=True)},
    "no pixel": lambda batch: {"anomaly_map": batch["scores"][:, :0]},
    "other images": lambda batch: {"anomaly_map": batch["scores"], "image": batch["image"][:1], "images": None},
    "texts": lambda _: {"image": "a.png", "anomaly_map": "b.png"},
    "lists": lambda batch: {"anomaly_map": list(batch["scores"])},
    "nothing": lambda _: None,
    "a loss": lambda batch: batch["scores"].mean(),
    "an object that fails": lambda _: Fails(),
    "complex numbers": lambda batch: {"anomaly_map": batch["scores"].to(torch.complex64)},
}


class Fails:
    """An object whose attributes cannot be read."""

    def __getattr__(self, name: str) -> Any:
        """Fail in a way that nobody expects."""
        raise RuntimeError(f"no {name} in this state")


@pytest.mark.parametrize("case", HOW_TO_MISGUESS)
def test_a_wrong_guess_ends_no_training(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was only guessed and does not fit is passed by with one hint, and all other figures are there."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        update_and_log(model, batch, dataloader_idx)
        if case == "other images":
            del batch["image"]
            batch["image"] = IMAGES[:1]
        return HOW_TO_MISGUESS[case](batch | {"image": IMAGES[batch["index"]]})

    with caplog.at_level(logging.INFO):
        trainer = fit(tmp_path, Detector(step), AUPIMOCallback())
    assert trainer.current_epoch == 2
    assert caplog.text.count("AUPIMOCallback found no images and anomaly maps") == 1
    assert {tag.rpartition("/")[2] for tag in read_events(tmp_path).Tags()["images"]} == {"distribution", "curves"}


def test_a_label_named_target_is_no_mask(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    """A class label under the name of a mask is passed by: the maps are drawn without outlines, of anomalous images."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        update_and_log(model, batch, dataloader_idx)
        return {"anomaly_map": batch["scores"], "target": batch["label"], "preds": batch["label"].float()}

    fit(tmp_path, Detector(step), AUPIMOCallback(num_heatmaps=3))
    assert [call["masks"] for call in drawn] == [None, None]
    assert all(index % 2 == 1 for call in drawn for index in call["indices"])


def test_the_first_that_fits_is_taken() -> None:
    """A name whose tensor does not fit does not hide another one that does, in the step's return or in its batch."""
    outputs = {"preds": torch.rand(4), "anomaly_map": MAPS[:4], "target": torch.tensor([0, 1, 0, 1])}
    for batch in ({"image": IMAGES[:4], "mask": MASKS[:4]}, SimpleNamespace(image=IMAGES[:4], gt_mask=MASKS[:4, None])):
        images, maps, masks = guessed_pictures(outputs, batch)
        assert torch.equal(images, IMAGES[:4])
        assert torch.equal(maps, MAPS[:4])
        assert torch.equal(masks.reshape(MASKS[:4].shape), MASKS[:4])
    nested = {"image": "path.png", "images": IMAGES[:4], "preds": MAPS[:4, None]}
    assert torch.equal(guessed_pictures(nested, {"image": IMAGES[:2]})[1], MAPS[:4, None])


WRONG: dict[str, tuple[Any, str]] = {
    "no such names": (("photo", "heat", "truth"), "found no images and no maps"),
    "no such mask": (("image", "scores", "no"), "found no masks"),
    "labels for masks": (("image", "scores", "label"), r"got .* and \(2,\) of torch.int64"),
    "integers for maps": (("image", "truth", "truth"), "floating anomaly maps .* torch.bool"),
    "two things": (
        lambda _, batch: (batch["image"], batch["scores"]),
        "images, anomaly maps and masks, or None, but got tuple of 2",
    ),
    "arrays": (lambda _, batch: (batch["image"], batch["scores"].numpy(), None), "got .* and ndarray and NoneType"),
}


@pytest.mark.parametrize("settings", [{}, {"num_sanity_val_steps": 0}], ids=["sanity check", "first validation"])
@pytest.mark.parametrize("case", WRONG)
def test_a_given_source_must_fit(tmp_path: Path, case: str, settings: dict[str, Any]) -> None:
    """A given source that does not fit is an error in the sanity check, or in the first validation, drawn or not."""
    source, message = WRONG[case]
    trainer = make_trainer(tmp_path, AUPIMOCallback(heatmap_source=source, every_n_epochs=2), **settings)
    with pytest.raises(ValueError, match=message):
        trainer.fit(Detector(), loader(), loader())
    assert (trainer.global_step == 0) == (not settings)


def test_a_given_source_may_be_filled_by_another_callback(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    """Names that another callback adds after the step are found."""

    class Adds(pl.Callback):
        def on_validation_batch_end(self, _: Any, __: Any, outputs: Any, batch: Batch, *___: Any) -> None:
            outputs["heat"] = batch["scores"]

    fit(tmp_path, Detector(), AUPIMOCallback(heatmap_source=["image", "heat", "truth"]), Adds())
    assert len(drawn) == 2


@pytest.mark.parametrize("source", ["image", ("image", "map"), (1, 2, 3), 5])
def test_a_source_is_three_names_or_a_function(source: Any) -> None:
    """Anything else is an error at once."""
    with pytest.raises(ValueError, match="`heatmap_source` to be a function or three names"):
        AUPIMOCallback(heatmap_source=source)


@pytest.mark.parametrize("order", [range(10), range(9, -1, -1), [3, 8, 1, 0, 9, 2, 5, 4, 7, 6]])
@pytest.mark.parametrize("kind", ["paths", "integers", "none"])
@pytest.mark.slow
def test_heat_maps_are_titled_by_their_image(
    tmp_path: Path, drawn: list[dict[str, Any]], kind: str, order: Any
) -> None:
    """The index of a heat map is that of its image in the result, whatever the order of the data, by path or by id."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        ids = {
            "paths": [f"test/bad/{9 - i}.png" for i in batch["index"].tolist()],
            "integers": 100 - batch["index"],
            "none": None,
        }[kind]
        model.aupimo.update(batch["scores"], batch["truth"], ids)
        model.log("val/aupimo", model.aupimo)
        return only_return(model, batch, dataloader_idx)

    fit(tmp_path, Detector(step), AUPIMOCallback(), loaders=loader(order))
    for call in drawn:
        assert len(call["indices"]) == 4
        for index, anomaly_map in zip(call["indices"], call["maps"], strict=True):
            image = next(i for i in range(10) if torch.equal(MAPS[i], anomaly_map))
            assert float(call["result"].aupimos[index]) == pytest.approx(float(SCORES[image]), abs=MIN_MAX_ERROR)
            if kind == "paths":
                assert call["result"].paths[index] == f"test/bad/{9 - image}.png"


def test_images_that_the_metric_did_not_get_have_no_index(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    """A metric that gets only a part of each batch gives no wrong index: the image is named by its number."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        keep = batch["index"] != 3
        model.aupimo.update(batch["scores"][keep], batch["truth"][keep])
        model.log("val/aupimo", model.aupimo)
        return only_return(model, batch, dataloader_idx)

    fit(tmp_path, Detector(step), AUPIMOCallback())
    assert [call["indices"] for call in drawn] == [None, None]
    assert drawn[0]["captions"] == [f"image {i}" for i in (1, 3, 7, 9)]


class CollectsAll(Detector):
    """A model that updates its metric once, when the epoch ends."""

    def __init__(self) -> None:
        super().__init__(lambda model, batch, _: model.collect(batch))
        self.batches: list[Batch] = []

    def collect(self, batch: Batch) -> Any:
        """Keep a batch."""
        self.batches.append(batch)
        return {"anomaly_map": batch["scores"], "mask": batch["truth"]}

    def on_validation_epoch_end(self) -> None:
        """Update with all."""
        for batch in self.batches:
            self.aupimo.update(batch["scores"], batch["truth"])
        self.batches = []
        self.log("val/aupimo", self.aupimo)


def test_a_metric_that_is_updated_when_the_epoch_ends(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    """A metric that no batch updates has its heat maps, too."""
    callback = AUPIMOCallback()
    fit(tmp_path, CollectsAll(), callback, num_sanity_val_steps=0)
    assert [call["indices"] for call in drawn] == [(1, 3, 7, 9)] * 2
    assert set(callback.results) == {"val/aupimo"}


@unlogged
@pytest.mark.slow
def test_each_metric_has_the_heat_maps_of_its_images(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    """Of two metrics that get different batches, each is drawn with its own."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        metric = model.low if int(batch["index"][0]) < 5 else model.high
        metric.update(batch["scores"], batch["truth"])
        return only_return(model, batch, dataloader_idx)

    fit(tmp_path, Detector(step, low=new_metric(), high=new_metric()), AUPIMOCallback(), num_sanity_val_steps=0)
    shown = [[int(next(i for i in range(10) if torch.equal(MAPS[i], each))) for each in call["maps"]] for call in drawn]
    assert shown == [[1, 3, 5], [7, 9]] * 2
    # nothing is logged as an object, so Lightning resets nothing: only the first epoch begins with the first image
    assert [call["indices"] for call in drawn[:2]] == [(1, 3, 5), (1, 3)]


@pytest.mark.slow
def test_many_images_stand_in_rows(tmp_path: Path) -> None:
    """Images beyond those that fit beside each other stand in further rows, all in one figure."""
    fit(tmp_path, Detector(), AUPIMOCallback(heatmap_images=range(9)))
    images = read_events(tmp_path).Images("val/aupimo/heatmaps")
    assert len(images) == 2
    assert images[0].height > 1.5 * images[0].width


@unlogged
@pytest.mark.slow
def test_metrics_that_come_go_or_are_reset_end_no_training(tmp_path: Path) -> None:
    """A metric that is made or reset within an epoch is drawn as far as possible, and is no error."""

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        if not hasattr(model, "late"):
            model.late = new_metric()
        model.late.update(batch["scores"], batch["truth"])
        if int(batch["index"][0]) == 6:
            model.aupimo.reset()
        model.aupimo.update(batch["scores"], batch["truth"])
        return only_return(model, batch, dataloader_idx)

    callback = AUPIMOCallback()
    trainer = fit(tmp_path, Detector(step), callback, num_sanity_val_steps=0)
    assert trainer.current_epoch == 2
    assert set(callback.results) == {"val/aupimo", "val/late"}
