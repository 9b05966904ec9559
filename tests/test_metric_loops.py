"""What loops do with the metric: `forward` on single batches, wrappers, and settings that users bring from anomalib."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import FPR_BOUNDS, caught_texts, make_aupimo, make_batch, updated
from loops import Batch, Detector, advice_of_lightning, fit, loader
from torchmetrics import MetricCollection
from torchmetrics.wrappers import BootStrapper

from aupimo_torchmetrics import AUPIMO, PIMO

pytestmark = advice_of_lightning

REMEDY = r"single batch.*Call `update`, and log the metric object: `self.aupimo.update\(maps, masks\)`.*self.log"


def caught_by(function: Any) -> list[str]:
    """Texts of all warnings while a function runs."""
    with caught_texts() as texts:
        function()
    return texts


@pytest.mark.parametrize("make_metric", [make_aupimo, PIMO])
@pytest.mark.parametrize("classes", ["NN", "AA", "A"])
def test_forward_warns_once_and_says_what_to_do(make_metric: Any, classes: str) -> None:
    """However many batches have no score, one warning names the remedy, also in copies and after a reset."""
    metric = make_metric()
    name = "PIMO" if make_metric is PIMO else "AUPIMO"

    def run() -> None:
        for seed in range(5):
            metric(*make_batch(classes, seed))

    with pytest.warns(UserWarning, match=rf"^{name} is undefined \(NaN\).*{REMEDY}") as caught:
        run()
    assert len(caught) == 1
    assert caught_by(run) == caught_by(lambda: copy.deepcopy(metric)(*make_batch(classes, 1))) == []
    metric.reset()
    assert caught_by(run) == []


def test_forward_leaves_the_score_as_it_is() -> None:
    """The batches count as in `update`, and a score of all data that is undefined is still warned of."""
    metric, batches = make_aupimo(), [make_batch("NN", 0), make_batch("AA", 1)]
    assert len(caught_by(lambda: [metric(*batch) for batch in batches])) == 1
    assert caught_by(metric.compute) == []
    assert float(metric.compute()) == float(updated(make_aupimo(), batches).compute())
    only_normal, refused = make_aupimo(), make_aupimo()
    assert len(caught_by(lambda: only_normal(*batches[0]))) == 1
    refused.update(*batches[0])
    with pytest.raises(ValueError, match="NaN"):
        refused(torch.full((1, 4, 4), torch.nan), torch.zeros(1, 4, 4))
    for each in (only_normal, refused):
        (text,) = caught_by(each.compute)
        assert "single batch" not in text
        assert each.result().warnings[0] == text


def test_each_metric_of_a_collection_warns_once() -> None:
    """Two metrics in a collection warn once each."""
    metrics = MetricCollection({"a": make_aupimo(), "b": make_aupimo(num_thresholds=1000)})
    texts = caught_by(lambda: [metrics(*make_batch("NN", seed)) for seed in range(3)])
    assert len([text for text in texts if "single batch" in text]) == 2


def test_logging_the_value_of_forward(tmp_path: Path) -> None:
    """In Lightning, logging what `forward` returns warns once in a fit, before training, and names the object."""

    def step(model: Detector, batch: Batch, _: int) -> None:
        model.log("val/aupimo", model.aupimo(batch["scores"], batch["truth"]))

    texts = caught_by(lambda: fit(tmp_path, Detector(step), loaders=loader(batch_size=1), logger=False))
    assert len([text for text in texts if "AUPIMO" in text and "log the metric object" in text]) == 1


IDS = [("poisson", "update", torch.arange(6)), ("multinomial", "forward", [f"{i}.png" for i in range(6)])]


@pytest.mark.parametrize(("strategy", "call", "ids"), [*IDS, ("multinomial", "update", [*range(6)])])
def test_ids_in_a_bootstrapper_are_refused(strategy: str, call: str, ids: Any) -> None:
    """`BootStrapper` draws images several times, which ids would undo: an error says to leave them out."""
    torch.manual_seed(0)
    metric = BootStrapper(make_aupimo(), num_bootstraps=3, sampling_strategy=strategy)
    batch = make_batch("NANANA", 0)
    with pytest.raises(ValueError, match=r"`image_ids` to be None in a BootStrapper.*Leave `image_ids` out"):
        getattr(metric, call)(*batch, image_ids=ids)
    metric.reset()
    metric.update(*batch)  # the advice, followed
    assert torch.isfinite(metric.compute()["std"])
    if strategy == "multinomial":  # images drawn twice count twice
        assert all(len(torch.cat(each.aupimo_num_kept)) == 6 for each in metric.metrics)
    make_aupimo().update(*batch, image_ids=ids)  # beside it they are fine


@pytest.mark.parametrize("name", ["return_average", "force", "strict", "fields", "prefix"])
def test_settings_of_anomalib_are_answered(name: str) -> None:
    """A setting that anomalib's metric has is an error that says what there is here."""
    with pytest.raises(ValueError, match=rf"Unexpected keyword arguments: `{name}`.*anomalib.*`reduction`") as error:
        AUPIMO(fpr_bounds=FPR_BOUNDS, **{name: False})
    assert "aupimo_torchmetrics.anomalib.AUPIMO" in str(error.value)
