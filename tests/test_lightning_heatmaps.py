"""Heat maps are of the maps that were scored, over the photographs of their batch, and guesses end no training."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import loops
import numpy as np
import pytest
import torch
from helpers import MAX_ERROR, assert_same, make_batch
from lightning.pytorch.callbacks import LambdaCallback
from loops import MAPS, MASKS, Batch, Detector, FigureLogger, check_heat_maps, heat_maps, loader, new_metric, scoring
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMO, PIMO, functional
from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = [*loops.advice_of_lightning, pytest.mark.usefixtures("only_heat_maps")]

TAG = "val/aupimo/heatmaps"
NO_PHOTOGRAPHS = "AUPIMOCallback draws no heat maps where it finds no photographs"


def run(
    folder: Path, model: pl.LightningModule, *others: Any, loaders: Any = None, **settings: Any
) -> tuple[FigureLogger, AUPIMOCallback]:
    """Validate, with a callback of these settings, which draws two heat maps, and others behind it."""
    logger, callback = FigureLogger(), AUPIMOCallback(**{"num_heatmaps": 2, **settings})
    loops.validate(folder, model, callback, *others, loaders=loaders, logger=logger, inference_mode=False)
    return logger, callback


def check(ran: tuple[FigureLogger, AUPIMOCallback], indices: Sequence[int], maps: Tensor = MAPS) -> list[str]:
    """Check the one figure of `run`; return its titles."""
    (figure,) = ran[0].figures[TAG]
    check_heat_maps(figure, ran[1].results["val/aupimo"], indices, maps)
    return [each.title for each in heat_maps(figure)]


def return_maps(_: Detector, batch: Batch, __: int) -> Any:
    """Return maps, and update nothing."""
    return {"anomaly_map": batch["scores"].clone()}


def update_and_return(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
    """Return maps that are scored."""
    outputs = return_maps(model, batch, dataloader_idx)
    scoring(lambda _: (outputs["anomaly_map"], batch["truth"]))(model, batch, dataloader_idx)
    return outputs


class UpdatesLate(Detector):
    """A model that updates its metric when the callbacks have had the batch."""

    def on_validation_batch_end(self, outputs: Any, batch: Batch, *_: Any) -> None:
        """Update with the maps as they are by now."""
        scoring(lambda _: (outputs["anomaly_map"], batch["truth"]))(self, batch, 0)


@pytest.mark.parametrize("scores", ["the step", "a callback before", "a callback behind"])
def test_heat_maps_are_of_the_scored_maps(tmp_path: Path, scores: str) -> None:
    """A heat map is of the map that was scored, wherever a callback changes it, and whoever scores it."""

    def change(_: Any, model: Any, outputs: Any, batch: Batch, *__: Any) -> None:
        outputs["anomaly_map"].copy_(outputs["anomaly_map"].roll(2, -1) + 0.3 * batch["truth"])
        if scores != "the step":
            model.aupimo.update(outputs["anomaly_map"], batch["truth"])

    changes, callback, logger = LambdaCallback(on_validation_batch_end=change), AUPIMOCallback(), FigureLogger()
    model = Detector(update_and_return if scores == "the step" else return_maps)
    callbacks = (changes, callback) if scores == "a callback before" else (callback, changes)
    loops.validate(tmp_path, model, *callbacks, logger=logger)
    check((logger, callback), (1, 3, 7, 9), MAPS if scores == "the step" else MAPS.roll(2, -1) + 0.3 * MASKS)


PLACES: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "images": (lambda images: {"images": images, "image": None}, None),
    "attribute": (lambda images: SimpleNamespace(image=images), None),
    "behind labels": (lambda images: [torch.zeros(len(images)), images], None),
    "tensor": (lambda images: images, None),
    "list": (lambda images: {"image": [*images]}, None),
    "grey": (lambda images: {"image": images.mean(1)}, None),
    "texts before": (lambda images: {"image": ["a.png"] * len(images), "images": images}, None),
    "given name": (lambda images: {"image": images * 0, "photo": images}, "photo"),
    "given attribute": (lambda images: SimpleNamespace(photo=images), "photo"),
    "function": (lambda images: ({"photo": [images]}, 5), lambda batch: batch[0]["photo"][0]),
    "function of a list": (lambda images: {"a": images}, lambda batch: [image.mean(0) for image in batch["a"]]),
}


class Replaces(Detector):
    """A model whose batch is another object than that of the loader: what is made of its photographs."""

    def __init__(self, make_batch: Callable[[Tensor], Any]) -> None:
        super().__init__(lambda model, _, loader: loops.update_and_log(model, model.held, loader))
        self.make_batch = make_batch

    def on_after_batch_transfer(self, batch: Batch, _: int) -> Any:
        """Give the step what it is to find."""
        self.held = batch
        return self.make_batch(batch["image"])


@pytest.mark.parametrize("place", PLACES)
def test_photographs_are_found(tmp_path: Path, place: str) -> None:
    """Photographs are taken from where they usually are, or from where `images` says."""
    make, images = PLACES[place]
    check(run(tmp_path, Replaces(make), images=images), (1, 9))


def test_photographs_of_another_size_are_resized(tmp_path: Path) -> None:
    """A photograph is brought to the size of its map."""
    logger, _ = run(tmp_path, Replaces(lambda _: {"image": torch.ones(2, 3, 70, 50, dtype=torch.uint8)}))
    assert {each.image.shape for each in heat_maps(logger.figures[TAG][0])} == {MAPS.shape[1:]}


def test_photographs_are_looked_up_at_the_update(tmp_path: Path) -> None:
    """What a hook puts into the batch when it starts is drawn, as anomalib's pre-processor does."""
    prepares = LambdaCallback(on_validation_batch_start=lambda _, __, batch, *___: batch.update(image=batch["raw"]))
    raw = Replaces(lambda images: {"raw": images, "image": images * 0})
    check(run(tmp_path, raw, prepares), (1, 9))


def by_id(batch: Batch) -> dict[Any, Tensor]:
    """Photographs by path."""
    return {Path(f"{i}.png"): image for i, image in zip(batch["index"].tolist(), batch["image"], strict=True)}


def in_parts(batch: Batch, parts: list[Any]) -> list[tuple[Tensor, Tensor, list[str]]]:
    """Maps, masks and paths of parts of a batch."""
    return [(batch["scores"][p], batch["truth"][p], [f"{i}.png" for i in batch["index"][p].tolist()]) for p in parts]


@pytest.mark.parametrize(("parts", "call"), [([[1, 0]], "update"), ([[1], [0]], "forward")])
@pytest.mark.filterwarnings("ignore:.*single batch")
def test_images_by_id(tmp_path: Path, parts: list[Any], call: str, caplog: pytest.LogCaptureFixture) -> None:
    """A step that reorders its batch or scores image by image is right with photographs by id, skipped without ids."""

    def step(model: Detector, batch: Batch, _: int) -> None:
        for maps, masks, ids in in_parts(batch, parts):
            getattr(model.aupimo, call)(maps, masks, ids)
        model.log("val/aupimo", model.aupimo)

    assert check(run(tmp_path, Detector(step), images=by_id), (1, 9))[0].startswith("1 · ")
    for images in (None, "image") if len(parts) == 2 else ():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            logger, callback = run(tmp_path, Detector(step), images=images)
        assert TAG not in logger.figures
        assert caplog.text.count(NO_PHOTOGRAPHS) == 1
        assert "got 2 for 1 maps" in caplog.text
        assert len(callback.results["val/aupimo"].paths or ()) == 10


def test_a_part_of_a_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a batch that was scored in part nothing is drawn, with one hint, and all else is right; by id it is drawn."""
    step = scoring(lambda batch: in_parts(batch, [batch["index"] != 2])[0])
    with caplog.at_level(logging.INFO):
        logger, _ = run(tmp_path, Detector(step), num_heatmaps=9)
    assert [each.title[:2] for each in heat_maps(logger.figures[TAG][0])] == ["1 ", "5 ", "7 ", "9 "]
    assert caplog.text.count(NO_PHOTOGRAPHS) == 1
    check(run(tmp_path, Detector(step), num_heatmaps=9, images=by_id), (1, 3, 5, 7, 9))


def test_a_function_may_skip_batches_and_images(tmp_path: Path) -> None:
    """A function may return None, or only some of the images by their ids."""
    step = scoring(lambda batch: (batch["scores"], batch["truth"], batch["index"]))
    for images in (
        lambda batch: batch["image"] if 7 in batch["index"] else None,
        lambda batch: {i: image for i, image in zip(batch["index"].tolist(), batch["image"], strict=True) if i == 7},
    ):
        check(run(tmp_path, Detector(step), images=images), [7])


class Fails:
    """An object whose attributes cannot be read."""

    def __getattr__(self, name: str) -> Any:
        """Fail in a way that nobody expects."""
        raise RuntimeError(f"no {name} in this state")


NOT_IMAGES: dict[str, Any] = {
    "nothing": None,
    "labels": torch.tensor([0, 1]),
    "no pixel": torch.rand(2, 3, 0, 4),
    "other images": torch.rand(1, 3, 25, 40),
    "volumes": torch.rand(2, 1, 3, 25, 40),
    "complex numbers": torch.rand(2, 3, 25, 40).to(torch.complex64),
    "arrays": [np.zeros((3, 4, 5)), np.zeros((3, 4, 5))],
    "a number": 5,
    "by id, without ids": {"a.png": torch.rand(3, 25, 40)},
    "an object that fails": Fails(),
}


@pytest.mark.parametrize("case", NOT_IMAGES)
def test_a_wrong_guess_ends_no_training(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was only guessed and is no photograph is passed by with one hint, and all other figures are there."""
    with caplog.at_level(logging.INFO):
        logger, callback = run(tmp_path, Replaces(lambda _: {"image": NOT_IMAGES[case]}))
    assert caplog.text.count(NO_PHOTOGRAPHS) == 1
    assert "AUPIMOCallback(images=...)" in caplog.text
    assert {tag.rpartition("/")[2] for tag in logger.figures} == {"distribution", "curves"}
    assert len(callback.results["val/aupimo"].aupimos) == 10


def fail(batch: Batch) -> Any:
    """Fail as a function of a user does."""
    return batch["photo"]


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "no such name": ("photo", ValueError, "Expected 'photo' in the batch to be images .* but got NoneType"),
    "labels": ("label", ValueError, r"Expected 'label' .* but got \(2,\) of torch.int64"),
    "too few": (lambda batch: batch["image"][:1], ValueError, "got 1 for 2 maps"),
    "arrays": (lambda batch: batch["image"].numpy(), ValueError, "what the function `images` returns .* got ndarray"),
    "by id, without ids": (by_id, ValueError, "`image_ids` in `update`"),
    "an error of the user": (fail, KeyError, "photo"),
}


NO_CHECK = {"num_sanity_val_steps": 0}


@pytest.mark.parametrize("settings", [{}, NO_CHECK, {**NO_CHECK, "limit_val_batches": 1}])
@pytest.mark.parametrize("case", WRONG)
def test_given_photographs_must_be_there(tmp_path: Path, case: str, settings: dict[str, Any]) -> None:
    """Wrong `images` are an error in the sanity check or in the first validation, drawn or not, outside of the step."""
    images, error, message = WRONG[case]
    model = Detector()
    trainer = loops.make_trainer(tmp_path, AUPIMOCallback(images=images, every_n_epochs=2), logger=False, **settings)
    with pytest.raises(error, match=message) as raised:
        trainer.fit(model, loader(), loader())
    assert (trainer.global_step == 0) == (not settings)
    assert "validation_step" not in {each.name for each in raised.traceback}
    assert model.aupimo.listeners == []


def test_no_heat_maps_need_no_photographs(tmp_path: Path) -> None:
    """`num_heatmaps=0` looks at no batch."""
    logger, _ = run(tmp_path, Detector(), images=fail, num_heatmaps=0)
    assert TAG not in logger.figures


MAKE_IDS: dict[str, Any] = {
    "paths": lambda indices: [f"{9 - i}.png" for i in indices.tolist()],
    "integers": lambda indices: indices,
    "none": lambda _: None,
}


@pytest.mark.parametrize("kind", MAKE_IDS)
def test_heat_maps_are_titled_by_their_image(tmp_path: Path, kind: str) -> None:
    """The title of a heat map is that of its image in the result, whatever the order of the data, by path or by id."""
    order = [3, 8, 1, 0, 9, 2, 5, 4, 7, 6]
    step = scoring(lambda batch: (batch["scores"], batch["truth"], MAKE_IDS[kind](batch["index"])))
    ran = run(tmp_path, Detector(step), loaders=loader(order), num_heatmaps=5)
    result, anomalous = ran[1].results["val/aupimo"], [index for index in order if MASKS[index].any()]
    place = {"paths": lambda index: 9 - index, "integers": lambda index: index, "none": order.index}[kind]
    for title, index in zip(check(ran, anomalous), anomalous, strict=True):
        assert title.startswith(f"{9 - index} " if kind == "paths" else f"image {place(index)} ")
        assert title.endswith(f"{float(result.aupimos[place(index)]):.2f}")


@pytest.mark.parametrize("is_before", [True, False])
def test_updates_outside_of_a_batch_have_no_photographs(
    tmp_path: Path, is_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A metric that is updated when the epoch has ended has a result, and no photograph of another image."""
    batches: list[Batch] = []
    updates = LambdaCallback(
        on_validation_epoch_end=lambda _, model: [loops.update_and_log(model, each, 0) for each in batches]
    )
    callback, logger, model = AUPIMOCallback(), FigureLogger(), Detector(lambda _, batch, __: batches.append(batch))
    with caplog.at_level(logging.INFO):
        loops.validate(tmp_path, model, *((updates, callback) if is_before else (callback, updates)), logger=logger)
    assert len(callback.results["val/aupimo"].aupimos) == 10
    assert {tag.rpartition("/")[2] for tag in logger.figures} == {"distribution", "curves"}
    assert caplog.text.count("updated outside of a batch") == 1


@pytest.mark.parametrize(
    ("names", "chosen", "compute_groups", "call"),
    [
        ("bc", None, True, "update"),
        ("bc", None, [["a", "b", "c"]], "forward"),
        ("abc", None, [["a", "b", "c"]], "update"),
        ("b", "metrics.b", False, "update"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*single batch")
def test_in_a_collection(tmp_path: Path, names: str, chosen: str | None, compute_groups: Any, call: str) -> None:
    """Each AUPIMO of a group, or a chosen one, is drawn with its own scores of the states that they share.

    torchmetrics updates only the first of the group, which may be a PIMO.
    """

    def step(model: Detector, batch: Batch, _: int) -> None:
        getattr(model.metrics, call)(batch["scores"], batch["truth"])

    bounds = {"a": (2e-2, 1.0), "b": (1e-2, 1.0), "c": (1e-3, 1.0)}
    metrics: dict[str, Any] = {name: AUPIMO(fpr_bounds=bounds[name], normal_buffer=None) for name in bounds}
    if names == "bc":
        metrics["a"] = PIMO()
    model = Detector(step, metrics=MetricCollection(metrics, prefix="val_", compute_groups=compute_groups))
    logger, callback = run(tmp_path, model, metric=chosen)
    assert list(callback.results) == [f"val_{name}" for name in names]
    for name in names:
        (figure,), result = logger.figures[f"val_{name}/heatmaps"], callback.results[f"val_{name}"]
        expected = functional.aupimo(MAPS, MASKS, fpr_bounds=bounds[name], reduction="none")
        assert_same(result.aupimos.float(), expected, MAX_ERROR)
        check_heat_maps(figure, result, (1, 9))


IS_LAST_ROW = torch.arange(MASKS.shape[1])[:, None] == MASKS.shape[1] - 1

FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], dict[str, Any]]] = {
    "channel": (lambda maps, masks: (maps[:, None], masks[:, None].long()), {}),
    "lists": (lambda maps, masks: ([*maps], [*masks]), {}),
    "half precision": (lambda maps, masks: (maps.bfloat16(), masks.float()), {}),
    "double precision": (lambda maps, masks: (maps.double(), masks), {}),
    "gradients": (lambda maps, masks: (maps.clone().requires_grad_(), masks), {}),
    "ignored pixels": (lambda maps, masks: (maps, masks.byte().masked_fill(IS_LAST_ROW, 255)), {"ignore_index": 255}),
}


@pytest.mark.parametrize("form", FORMS)
def test_maps_and_masks_of_any_form(tmp_path: Path, form: str) -> None:
    """Whatever the metric takes can be drawn, and ignored pixels make no image anomalous."""
    make, settings = FORMS[form]
    model = Detector(scoring(lambda batch: make(batch["scores"], batch["truth"])), aupimo=new_metric(**settings))
    maps = {"half precision": MAPS.bfloat16(), "double precision": MAPS.double()}.get(form, MAPS)
    check(run(tmp_path, model, heatmap_images=[0, 9]), (0, 9), maps)


@pytest.mark.filterwarnings("ignore:AUPIMO does not count every image")
@pytest.mark.parametrize("is_ignored", [True, False])
def test_images_that_cannot_be_drawn_are_skipped(tmp_path: Path, is_ignored: bool) -> None:
    """An image of which every pixel is ignored, or a map with NaN, is skipped, and others have the right title."""

    def make(batch: Batch) -> tuple[Tensor, Tensor]:
        is_first = batch["index"][:, None, None] == 1
        if is_ignored:
            return batch["scores"], batch["truth"].long().masked_fill(is_first, -1)
        return batch["scores"].masked_fill(is_first, torch.nan), batch["truth"]

    metric = new_metric(ignore_index=-1) if is_ignored else new_metric(validate_args=False)
    logger, _ = run(tmp_path, Detector(scoring(make), aupimo=metric), num_heatmaps=4)
    titles = [int(each.title.split()[1]) for each in heat_maps(logger.figures[TAG][0])]
    assert titles == [index - is_ignored for index in (3, 5, 7, 9)]


def test_chosen_images_are_drawn(tmp_path: Path) -> None:
    """Images may be chosen by their indices, normal ones too; a warning says once which are not there.

    However many they are, they stand in one figure.
    """
    check(run(tmp_path, Detector(), heatmap_images=range(9)), range(9))
    check(run(tmp_path, Detector(), heatmap_images=[8, 0]), (0, 8))
    with pytest.warns(UserWarning, match=r"there is no image 10, 99\. This process had 10 images") as caught:
        check(run(tmp_path, Detector(), heatmap_images=[7, 10, 99]), [7])
    assert len([each for each in caught if "heatmap_images" in str(each.message)]) == 1


@pytest.mark.parametrize("batch_size", [1, 100])
def test_images_are_spread_evenly(tmp_path: Path, batch_size: int) -> None:
    """Of many anomalous images the few that are drawn are spread over all, whatever the batches."""
    maps, masks = make_batch("NA" * 50, 0)
    data = [{"image": image[None], "map": image, "mask": mask} for image, mask in zip(maps, masks, strict=True)]
    step = scoring(lambda batch: (batch["map"], batch["mask"]))
    logger, _ = run(tmp_path, Detector(step), loaders=DataLoader(data, batch_size), num_heatmaps=4)
    indices = [int(each.title.split()[1]) for each in heat_maps(logger.figures[TAG][0])]
    assert len(indices) == 4
    assert all(index % 2 == 1 for index in indices)
    assert np.diff([-1, *indices, 100]).max() <= 100 / 2.5


def test_metrics_that_are_made_when_the_epoch_starts(tmp_path: Path) -> None:
    """A metric that is replaced, or that appears, after the hook of the callback and before a batch is listened to."""

    def make(_: Any, model: Any) -> None:
        model.aupimo, model.late = new_metric(), getattr(model, "late", new_metric())

    def step(model: Detector, batch: Batch, _: int) -> None:
        model.aupimo.update(batch["scores"], batch["truth"])
        scoring(loops.as_it_is, "val/{}", "late")(model, batch, 0)

    callback, logger = AUPIMOCallback(), FigureLogger()
    loops.fit(tmp_path, Detector(step), callback, LambdaCallback(on_validation_epoch_start=make), logger=logger)
    for name in ("val/aupimo", "val/late"):
        assert len(logger.figures[f"{name}/heatmaps"]) == 2
        check_heat_maps(logger.figures[f"{name}/heatmaps"][0], callback.results[name], (1, 3, 7, 9))


@loops.unlogged
def test_metrics_that_come_go_or_are_reset_end_no_training(tmp_path: Path) -> None:
    """A metric that is made or reset within an epoch is drawn as far as possible, and is no error."""

    def step(model: Detector, batch: Batch, _: int) -> None:
        if not hasattr(model, "late"):
            model.late = new_metric()
        model.late.update(batch["scores"], batch["truth"])
        if int(batch["index"][0]) == 6:
            model.aupimo.reset()
        model.aupimo.update(batch["scores"], batch["truth"])

    callback, logger = AUPIMOCallback(), FigureLogger()
    loops.fit(tmp_path, Detector(step), callback, logger=logger, num_sanity_val_steps=0)
    assert {name: len(result.aupimos) for name, result in callback.results.items()} == {"val/aupimo": 4, "val/late": 20}
    check_heat_maps(logger.figures[TAG][0], callback.results["val/aupimo"], (7, 9))


@pytest.mark.parametrize("how", ["fit", "validate", "test", "error", "interrupt", "error of a callback"])
def test_listening_ends_with_the_epoch(tmp_path: Path, how: str) -> None:
    """The callback listens in each validation and in no training step, and stops after it, also after an exception."""
    numbers: list[int] = []

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> None:
        loops.update_and_log(model, batch, dataloader_idx)
        numbers.append(len(model.aupimo.listeners))
        if len(numbers) == 4 and how in {"error", "interrupt"}:
            raise KeyError("out of luck") if how == "error" else KeyboardInterrupt

    class Trains(Detector):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            assert self.aupimo.listeners == [mine]
            return super().training_step(batch, batch_idx)

    def fail_at_end(*_: Any) -> None:
        if how == "error of a callback":
            raise KeyError("out of luck")

    def mine(_: Any) -> None: ...

    model, callback = Trains(step), AUPIMOCallback(num_heatmaps=0)
    model.aupimo.listeners.append(mine)  # those of others stay
    trainer = loops.make_trainer(tmp_path, callback, LambdaCallback(on_validation_epoch_end=fail_at_end), logger=False)
    is_error = how not in {"fit", "validate", "test"}
    with pytest.raises(SystemExit if how == "interrupt" else KeyError) if is_error else nullcontext():
        getattr(trainer, "fit" if is_error else how)(model, *[loader()] * (1 if how in {"validate", "test"} else 2))
    assert set(numbers) == {2}
    assert model.aupimo.listeners == [mine]


@pytest.mark.filterwarnings("ignore:AUPIMO of `self.aupimo` is that of the images of 2 dataloaders")
@pytest.mark.parametrize(("late", "loaders"), [(True, 2), (False, 1)])
@pytest.mark.slow
def test_at_most_one_batch_is_held(tmp_path: Path, late: bool, loaders: int) -> None:
    """Of all batches at most one is held, and nothing after the epoch or an error."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def step(model: Detector, batch: Batch, dataloader_idx: int) -> Any:
        nonlocal most
        outputs = return_maps(model, batch, 0) if late else update_and_return(model, batch, dataloader_idx)
        alive.append(weakref.ref(batch["image"]))
        gc.collect()
        most = max(most, sum(each() is not None for each in alive))
        if len(alive) == 12:
            raise KeyError("out of luck")
        return outputs

    model = (UpdatesLate if late else Detector)(step)
    callback = AUPIMOCallback(num_heatmaps=1, heatmap_images=[1])
    parts = [loader(range(4)), loader(range(4, 10))] if loaders == 2 else loader()
    with pytest.raises(KeyError, match="out of luck"):
        loops.fit(tmp_path, model, callback, loaders=parts, logger=False)
    assert most <= 3  # what Lightning holds of the step before and fetches ahead, and the present one
    del model
    gc.collect()
    assert not [each for each in alive[:-1] if each() is not None]


def test_metrics_are_looked_for_once_an_epoch(tmp_path: Path) -> None:
    """How often the model is searched does not grow with the number of batches."""
    walks = []
    for batch_size in (10, 1):
        model = Detector()
        model.named_modules = Mock(wraps=model.named_modules)  # type: ignore[method-assign]
        loops.validate(tmp_path, model, AUPIMOCallback(), loaders=loader(batch_size=batch_size), logger=False)
        walks.append(model.named_modules.call_count)
    assert walks[0] == walks[1] > 0
