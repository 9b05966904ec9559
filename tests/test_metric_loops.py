"""What loops do with the metric: `forward` on single batches, wrappers, and settings that users bring from anomalib."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BATCHES, FPR_BOUNDS, make_aupimo, make_batch, updated
from loops import Batch, Detector, advice_of_lightning, fit, loader
from torchmetrics import MetricCollection
from torchmetrics.wrappers import BootStrapper

from aupimo_torchmetrics import AUPIMO, PIMO, functional

pytestmark = advice_of_lightning

REMEDY = r"single batch.*Call `update`, and log the metric object: `self.aupimo.update\(maps, masks\)`.*self.log"


def caught_by(function: Any) -> list[str]:
    """Texts of all warnings while a function runs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("make_metric", [make_aupimo, PIMO])
@pytest.mark.parametrize("classes", ["NN", "AA", "A"])
def test_forward_warns_once_and_says_what_to_do(make_metric: Any, classes: str) -> None:
    """However many batches have no score, one warning names the remedy; the score of all data is right."""
    metric = make_metric()
    name = "PIMO" if make_metric is PIMO else "AUPIMO"

    def run() -> None:
        for seed in range(5):
            metric(*make_batch(classes, seed))

    with pytest.warns(UserWarning, match=rf"^{name} is undefined \(NaN\).*{REMEDY}") as caught:
        run()
    assert len(caught) == 1
    assert caught_by(run) == []
    metric.reset()
    assert caught_by(run) == []


def test_forward_leaves_the_score_as_it_is() -> None:
    """The batches count as in `update`, and a score of all data that is undefined is still warned of."""
    metric, batches = make_aupimo(), [make_batch("NN", 0), make_batch("AA", 1)]
    texts = caught_by(lambda: [metric(*batch) for batch in batches])
    assert len(texts) == 1
    assert caught_by(metric.compute) == []
    assert float(metric.compute()) == float(
        updated(make_aupimo(), [make_batch("NN", 0), make_batch("AA", 1)]).compute()
    )
    only_normal = make_aupimo()
    assert len(caught_by(lambda: only_normal(*make_batch("NN", 0)))) == 1
    (text,) = caught_by(only_normal.compute)
    assert "single batch" not in text
    assert only_normal.result().warnings == (text,)


def test_forward_of_a_batch_with_a_score_is_quiet() -> None:
    """A batch of both classes has a score, and no warning."""
    metric = make_aupimo()
    assert caught_by(lambda: [metric(*batch) for batch in BATCHES]) == []


def test_a_failed_forward_does_not_silence_compute() -> None:
    """After a batch that was refused, `compute` warns in full."""
    metric = make_aupimo()
    metric.update(*make_batch("NN", 0))
    with pytest.raises(ValueError, match="NaN"):
        metric(torch.full((1, 4, 4), torch.nan), torch.zeros(1, 4, 4))
    (text,) = caught_by(metric.compute)
    assert "single batch" not in text


def test_each_metric_of_a_collection_warns_once() -> None:
    """Two metrics in a collection warn once each."""
    metrics = MetricCollection({"a": make_aupimo(), "b": make_aupimo(num_thresholds=1000)})
    texts = caught_by(lambda: [metrics(*make_batch("NN", seed)) for seed in range(3)])
    assert len([text for text in texts if "single batch" in text]) == 2


def test_logging_the_value_of_forward(tmp_path: Path) -> None:
    """In Lightning, logging what `forward` returns warns once in a fit, before training, and names the object."""

    def step(model: Detector, batch: Batch, _: int) -> None:
        model.log("val/aupimo", model.aupimo(batch["scores"], batch["truth"]))

    def run() -> None:
        fit(tmp_path, Detector(step), loaders=loader(batch_size=1), logger=False)

    texts = [text for text in caught_by(run) if "AUPIMO" in text]
    assert len([text for text in texts if "log the metric object" in text]) == 1


@pytest.mark.parametrize("strategy", ["poisson", "multinomial"])
@pytest.mark.parametrize("ids", [torch.arange(6), list(range(6)), [f"{i}.png" for i in range(6)]], ids=["t", "i", "p"])
@pytest.mark.parametrize("call", ["update", "forward"])
def test_ids_in_a_bootstrapper_are_refused(strategy: str, ids: Any, call: str) -> None:
    """`BootStrapper` draws images several times, which ids would undo: an error says to leave them out."""
    torch.manual_seed(0)
    metric = BootStrapper(make_aupimo(), num_bootstraps=3, sampling_strategy=strategy)
    batch = make_batch("NANANA", 0)
    with pytest.raises(ValueError, match=r"`image_ids` to be None in a BootStrapper.*Leave `image_ids` out"):
        getattr(metric, call)(*batch, image_ids=ids)
    metric.reset()
    metric.update(*batch)  # the advice, followed
    assert torch.isfinite(metric.compute()["std"])


def test_ids_beside_a_bootstrapper_are_fine() -> None:
    """A metric that is not in the `BootStrapper` takes ids, and images drawn twice count twice in one that is."""
    metric = make_aupimo(reduction="none")
    maps, masks = make_batch("NANANA", 0)
    metric.update(maps, masks, image_ids=list(range(6)))
    assert len(metric.compute()) == 6
    wrapped = BootStrapper(make_aupimo(), num_bootstraps=2, sampling_strategy="multinomial")
    wrapped.update(maps, masks)
    assert all(len(torch.cat(each.aupimo_num_kept)) == 6 for each in wrapped.metrics)


@pytest.mark.parametrize("name", ["return_average", "force", "strict", "fields", "prefix"])
def test_settings_of_anomalib_are_answered(name: str) -> None:
    """A setting that anomalib's metric has is an error that says what there is here."""
    with pytest.raises(ValueError, match=rf"Unexpected keyword arguments: `{name}`.*anomalib.*`reduction`") as error:
        AUPIMO(fpr_bounds=FPR_BOUNDS, **{name: False})
    assert "aupimo_torchmetrics.anomalib.AUPIMO" in str(error.value)


def test_the_advice_on_each_image_is_right() -> None:
    """What the error says to write gives the scores of each image and their mean."""
    batch = make_batch("NANA", 0)
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS, reduction="none")
    metric.update(*batch)
    result = metric.result()
    expected = functional.aupimo(*batch, fpr_bounds=FPR_BOUNDS)
    assert result.mean == pytest.approx(float(expected))
    assert torch.equal(result.aupimos.float().nan_to_num(), metric.compute().nan_to_num())


def test_other_settings_are_unknown() -> None:
    """A setting that nobody knows is the error of torchmetrics."""
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `colour`"):
        AUPIMO(colour="blue")


def test_a_copy_remembers_what_was_said() -> None:
    """A metric copied after the warning does not repeat it."""
    metric = make_aupimo()
    assert len(caught_by(lambda: metric(*make_batch("NN", 0)))) == 1
    assert caught_by(lambda: copy.deepcopy(metric)(*make_batch("NN", 1))) == []
