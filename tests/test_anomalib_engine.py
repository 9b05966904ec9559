"""The metric in anomalib's `Engine`, command line, checkpoints and exports. Needs anomalib, else it is skipped."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchvision_operators  # noqa: F401  a process that Lightning starts has no conftest
from helpers import assert_same, run_ranks
from loops import FigureLogger, heat_maps
from PIL import Image
from torch import Tensor

import aupimo_torchmetrics

if find_spec("anomalib") is None:
    pytest.skip("needs anomalib", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of anomalib and what it needs, while they are imported
    from anomalib.cli import AnomalibCLI
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.metrics import Evaluator
    from anomalib.models import Fastflow, Padim
    from anomalib.post_processing import PostProcessor
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import CSVLogger

    from aupimo_torchmetrics.anomalib import AUPIMO
    from aupimo_torchmetrics.lightning import AUPIMOCallback

pytestmark = pytest.mark.filterwarnings("ignore", "error:AUPIMO")  # only this package's own are errors here

BOUNDS = (1e-3, 1e-1)
SIZE = 48
NUM_IMAGES = 69
"""An odd number of test images, so that the sampler of two processes repeats one."""


def texture(seed: int) -> Any:
    """An image (H, W) of smooth and fine noise."""
    random = np.random.default_rng(seed)
    smooth = np.kron(random.normal(size=(SIZE // 6, SIZE // 6)), np.ones((6, 6)))
    return 120 + 12 * smooth + 6 * random.normal(size=(SIZE, SIZE))


def save(path: Path, pixels: Any) -> None:
    """Write an image (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB").save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set on disk: 24 images to train on, 35 normal and 34 anomalous ones to test on, with masks."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(24):
        save(folder / f"train/good/{seed:03}.png", texture(seed))
    for seed in range(NUM_IMAGES):
        image = texture(100 + seed)
        if seed % 2 == 0:
            save(folder / f"test/good/{seed:03}.png", image)
            continue
        mask = np.zeros((SIZE, SIZE))
        top, left = np.random.default_rng(seed).integers(4, SIZE - 20, 2)
        mask[top : top + 14, left : left + 12] = 255
        save(folder / f"test/bad/{seed:03}.png", image + (mask > 0) * (8 + seed))
        save(folder / f"masks/{seed:03}.png", mask)
    return folder


def data_of(root: Path, **kwargs: Any) -> Folder:
    """Return the data module, of which all test images are validation images, too."""
    sizes = {"train_batch_size": 8, "eval_batch_size": 8, "num_workers": 0}
    folders = {
        "normal_dir": "train/good",
        "normal_test_dir": "test/good",
        "abnormal_dir": "test/bad",
        "mask_dir": "masks",
    }
    return Folder(name="noise", root=root, **{**sizes, **folders, "val_split_mode": "same_as_test", **kwargs})


def model_of(*metrics: AUPIMO, kind: Any = Padim, **kwargs: Any) -> Any:
    """Return a small model without weights from elsewhere, and with these metrics in validation and test."""
    evaluator = Evaluator(val_metrics=[metric.clone() for metric in metrics], test_metrics=list(metrics))
    pre_processor = kind.configure_pre_processor(image_size=(SIZE, SIZE))
    settings = {"evaluator": evaluator, "visualizer": False, "pre_processor": pre_processor, **kwargs}
    return kind(backbone="resnet18", pre_trained=False, **settings)


def engine_of(folder: Path, *callbacks: Callback, **kwargs: Any) -> Engine:
    """Return an engine on the CPU that says little."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    settings = {"accelerator": "cpu", "devices": 1, **quiet, **kwargs}
    return Engine(default_root_dir=folder, callbacks=list(callbacks), **settings)


class Results(Callback):
    """Keeps the result of each metric of a test, which are there until the end of it."""

    def __init__(self) -> None:
        self.of: dict[str, Any] = {}

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the results before Lightning resets the metrics."""
        del trainer
        self.of = {metric.name: metric.result() for metric in pl_module.evaluator.test_metrics}


def metrics_of() -> list[AUPIMO]:
    """Return two metrics with names of their own, as most tests use them."""
    return [AUPIMO(fpr_bounds=BOUNDS), AUPIMO(prefix="max_", fpr_bounds=BOUNDS, shared_fpr="max")]


class Trained(NamedTuple):
    """What a model gave, and where it is."""

    logged_in_fit: dict[str, Tensor]
    validated: dict[str, float]
    tested: dict[str, float]
    results: dict[str, Any]
    predicted: list[Any]
    checkpoint: Path


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Fit, validate, test and predict with anomalib's default post-processor and two metrics."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    results = Results()
    data, model, engine = data_of(root), model_of(*metrics_of()), engine_of(folder, results)
    engine.fit(model, datamodule=data)
    in_fit = dict(engine.trainer.callback_metrics)
    validated = engine.validate(model, datamodule=data, verbose=False)[0]
    tested = engine.test(model, datamodule=data, verbose=False)[0]
    predicted = engine.predict(model, datamodule=data)
    assert [metric.update_called for metric in model.evaluator.test_metrics] == [False, False]  # Lightning resets them
    checkpoint = Path(engine.trainer.checkpoint_callback.best_model_path)
    return Trained(in_fit, validated, tested, results.of, predicted, checkpoint)


def by_hand(predicted: list[Any], **settings: Any) -> aupimo_torchmetrics.AUPIMO:
    """Score the predicted maps with the metric of torchmetrics."""
    metric = aupimo_torchmetrics.AUPIMO(fpr_bounds=BOUNDS, **settings)
    for batch in predicted:
        metric.update(batch.anomaly_map, batch.gt_mask, image_ids=batch.image_path)
    return metric


def test_engine_logs_the_scores_of_the_predicted_maps(trained: Trained) -> None:
    """Fit, validation and test log both metrics by name, with the values of a direct computation."""
    assert {*trained.tested} == {*trained.validated} == {"AUPIMO", "max_AUPIMO"} <= {*trained.logged_in_fit}
    for name, settings in (("AUPIMO", {}), ("max_AUPIMO", {"shared_fpr": "max"})):
        direct = by_hand(trained.predicted, **settings)
        assert 0.1 < direct.compute() < 0.9
        assert trained.tested[name] == direct.compute().item()
        assert trained.logged_in_fit[name] == trained.validated[name]
        assert_same(trained.results[name].aupimos, direct.result().aupimos)


def test_results_hold_the_paths(trained: Trained, root: Path) -> None:
    """The result of a test holds the path of each image, in ascending order, beside its score."""
    result = trained.results["AUPIMO"]
    assert result.paths == sorted(str(path) for path in (root / "test").rglob("*.png"))
    assert len(result.paths) == NUM_IMAGES
    assert result.image_classes.tolist() == ["bad" in path for path in result.paths]


def test_scores_are_those_of_the_metric_of_anomalib(trained: Trained) -> None:
    """On the maps of the model, sampled scores are those of anomalib's own metric."""
    import anomalib.metrics  # noqa: PLC0415

    theirs = anomalib.metrics.AUPIMO(num_thresholds=5_000, fpr_bounds=BOUNDS, force=True)
    ours = AUPIMO(num_thresholds=5_000, fpr_bounds=BOUNDS)
    for batch in trained.predicted:
        theirs.update(batch)
        ours.update(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(ours.compute(), theirs.compute().float(), atol=1e-6)  # theirs adds float32 numbers


def test_a_checkpoint_is_tested_with_a_new_evaluator(trained: Trained, root: Path, tmp_path: Path) -> None:
    """A checkpoint in a new model with the same metrics gives the same scores."""
    model = model_of(*metrics_of())
    tested = engine_of(tmp_path).test(model, datamodule=data_of(root), ckpt_path=trained.checkpoint, verbose=False)
    assert tested[0] == trained.tested


def test_an_evaluator_is_not_part_of_a_checkpoint(trained: Trained, root: Path, tmp_path: Path) -> None:
    """A model that is loaded from a checkpoint has anomalib's own metrics, unless it is given the evaluator again."""
    lost = Padim.load_from_checkpoint(trained.checkpoint)
    assert not [metric for metric in lost.evaluator.test_metrics if isinstance(metric, AUPIMO)]
    evaluator = Evaluator(test_metrics=metrics_of())
    kept = Padim.load_from_checkpoint(trained.checkpoint, evaluator=evaluator, visualizer=False)
    assert engine_of(tmp_path).test(kept, datamodule=data_of(root), verbose=False)[0] == trained.tested


def test_each_epoch_has_its_own_score_and_training_resumes(root: Path, tmp_path: Path) -> None:
    """Three epochs at once log what two epochs and a resumed third log: no image of an epoch is left in the next."""

    class Epochs(Callback):
        def __init__(self) -> None:
            self.scores: list[float] = []
            self.images: list[int] = []

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self.scores.append(trainer.callback_metrics["AUPIMO"].item())
            self.images.append(len(pl_module.evaluator.val_metrics[0].result().aupimos))

    def run(folder: str, max_epochs: int, checkpoint: str | None = None) -> tuple[Epochs, str]:
        torch.manual_seed(0)
        epochs, model = Epochs(), model_of(AUPIMO(fpr_bounds=BOUNDS), kind=Fastflow, flow_steps=2)
        engine = engine_of(tmp_path / folder, epochs, max_epochs=max_epochs)
        engine.fit(model, datamodule=data_of(root), ckpt_path=checkpoint)
        return epochs, engine.trainer.checkpoint_callback.best_model_path

    first, checkpoint = run("first", 2)
    second, _ = run("second", 3, checkpoint)
    assert first.images == [NUM_IMAGES] * 2
    assert second.images == [NUM_IMAGES]
    assert len({*first.scores, *second.scores}) == 3


def test_an_exported_model_loads_with_the_package_alone(trained: Trained, root: Path, tmp_path: Path) -> None:
    """An exported model is loaded by a process that knows nothing but the package, and scores the same afterwards."""
    evaluator = Evaluator(test_metrics=metrics_of())
    model = Padim.load_from_checkpoint(trained.checkpoint, evaluator=evaluator, visualizer=False)
    path = model.to_torch(tmp_path)
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import torchvision_operators, torch\n"
        f"model = torch.load({str(path)!r}, weights_only=False)['model']\n"
        "print(*[(type(m).__module__, m.name, m.shared_fpr) for m in model.evaluator.test_metrics])\n"
        "print([name for name in sys.modules if name in ('helpers', 'test_anomalib_engine')])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    settings: Any = {"capture_output": True, "text": True, "check": False, "env": environment, "cwd": "/"}
    done = subprocess.run([sys.executable, "-c", code], **settings)  # noqa: PLW1510, S603
    module = "aupimo_torchmetrics.anomalib"
    expected = f"{(module, 'AUPIMO', 'mean')} {(module, 'max_AUPIMO', 'max')}\n[]\n"
    assert done.stdout == expected, done.stderr
    loaded = torch.load(path, weights_only=False)["model"]
    assert engine_of(tmp_path).test(loaded, datamodule=data_of(root), verbose=False)[0] == trained.tested


CONFIG = """
seed_everything: 0
model:
  class_path: anomalib.models.Padim
  init_args:
    backbone: resnet18
    pre_trained: false
    visualizer: false
    pre_processor:
      class_path: anomalib.pre_processing.PreProcessor
      init_args: {transform: {class_path: torchvision.transforms.v2.Resize, init_args: {size: [48, 48]}}}
    evaluator:
      class_path: anomalib.metrics.Evaluator
      init_args:
        test_metrics:
          - class_path: aupimo_torchmetrics.anomalib.AUPIMO
            init_args: {fpr_bounds: [1.0e-3, 1.0e-1]}
          - class_path: aupimo_torchmetrics.anomalib.AUPIMO
            init_args: {fpr_bounds: [1.0e-3, 1.0e-1], prefix: max_, shared_fpr: max, strict: false}
data:
  class_path: anomalib.data.Folder
  init_args:
    {name: noise, root: ROOT, normal_dir: train/good, normal_test_dir: test/good, abnormal_dir: test/bad,
     mask_dir: masks, train_batch_size: 8, eval_batch_size: 8, num_workers: 0, val_split_mode: same_as_test}
trainer: {accelerator: cpu, devices: 1, logger: false, enable_progress_bar: false, enable_model_summary: false}
default_root_dir: RESULTS
"""


class TrainOnly(AnomalibCLI):
    """anomalib's command line with one command, as the parsers of all of them take a minute to build."""

    subcommands = staticmethod(dict)

    @staticmethod
    def anomalib_subcommands() -> dict[str, dict[str, str]]:
        """Name the one command."""
        return {"train": {"description": "Fit and test a model."}}


def test_the_command_line_takes_the_metric_by_its_path(root: Path, tmp_path: Path) -> None:
    """A configuration that names the class trains and tests with the metric and its settings."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("ROOT", str(root)).replace("RESULTS", str(tmp_path / "results")))
    cli = TrainOnly(["train", "--config", str(config)])
    metrics = cli.model.evaluator.test_metrics
    assert [type(metric) for metric in metrics] == [AUPIMO, AUPIMO]
    settings = [(metric.name, metric.shared_fpr, metric.strict) for metric in metrics]
    assert settings == [("AUPIMO", "mean", True), ("max_AUPIMO", "max", False)]
    logged = cli.engine.trainer.callback_metrics
    assert 0.1 < logged["max_AUPIMO"] < logged["AUPIMO"] < 1


UNIFIED = """
          - class_path: aupimo_torchmetrics.anomalib.PerCategory
            init_args: {categories: [brick, grass], fpr_bounds: [1.0e-3, 1.0e-1]}
          - class_path: aupimo_torchmetrics.anomalib.PixelAUROC
"""


def test_a_unified_model_is_scored_by_category(root: Path, tmp_path: Path) -> None:
    """A configuration with images of two categories logs each value of each category and the means."""
    for category in ("brick", "grass"):
        shutil.copytree(root, tmp_path / category)
    config = tmp_path / "config.yaml"
    text = re.sub(r"(test_metrics:\n).*?(?=data:)", rf"\1{UNIFIED[1:]}", CONFIG, flags=re.DOTALL)
    text = text.replace("anomalib.metrics.Evaluator", "aupimo_torchmetrics.anomalib.Evaluator")
    for folder in ("train/good", "test/good", "test/bad", "masks"):
        text = text.replace(f": {folder}", f": [brick/{folder}, grass/{folder}]")
    config.write_text(text.replace("ROOT", str(tmp_path)).replace("RESULTS", str(tmp_path / "results")))
    cli = TrainOnly(["train", "--config", str(config)])
    metrics, whole = cli.model.evaluator.test_metrics
    assert all(each.metric.compute_on_cpu for each in metrics.members().values())
    logged = cli.engine.trainer.callback_metrics
    assert {*metrics, "PixelAUROC"} <= {*logged}
    for name in ("AUPIMO", "AUPRO", "PixelAUROC", "ImageAUROC"):
        assert 0 < logged[f"brick/{name}"] == logged[f"grass/{name}"] == logged[f"mean/{name}"] <= 1
    assert whole.compute_on_cpu


def tell(root: Path, folder: Path, devices: int) -> tuple[list[float], list[list[str]], list[Tensor]]:
    """Test a model with untrained weights on so many processes: what is logged, paths and scores."""
    torch.manual_seed(0)
    model = model_of(*metrics_of(), kind=Fastflow, flow_steps=2)  # not Padim, which anomalib runs in one process only
    results = Results()
    strategy = "ddp" if devices > 1 else "auto"
    engine = engine_of(folder, results, devices=devices, strategy=strategy)
    logged = engine.test(model, datamodule=data_of(root), verbose=False)[0]
    return [*logged.values()], [r.paths for r in results.of.values()], [r.aupimos for r in results.of.values()]


def tell_on_rank(root: Path, folder: Path, rank: int, world_size: int, note: Callable[[str], Any]) -> Any:
    """Test as one of several processes that are there already."""
    note("the test")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ["LOCAL_RANK"] = str(rank)  # Lightning then starts no processes of its own
    return tell(root, folder, world_size)


def test_two_processes_agree_with_one(root: Path, tmp_path: Path) -> None:
    """Two processes, which get 70 images for 69, log and answer what one process does."""
    one = tell(root, tmp_path, 1)
    assert all(0.02 < score < 0.98 for score in one[0])
    assert [len(paths) for paths in one[1]] == [NUM_IMAGES] * 2
    for logged, paths, scores in run_ranks([(partial(tell_on_rank, root, tmp_path), 2)])[0]:
        assert paths == one[1]
        assert logged == pytest.approx(one[0], abs=1e-6)  # among other images, maps have other last bits
        assert_same(scores, one[2], atol=1e-4)


def test_a_data_set_without_masks(trained: Trained, root: Path, tmp_path: Path) -> None:
    """Without masks a metric that is not strict logs nothing and disturbs nothing; a strict one names what it lacks."""
    results, data = Results(), data_of(root, mask_dir=None)
    run = partial(engine_of(tmp_path, results).test, datamodule=data, ckpt_path=trained.checkpoint, verbose=False)
    assert run(model_of(AUPIMO(strict=False))) == [{}]
    assert len(results.of["AUPIMO"].aupimos) == 0
    assert "there is no image" in str(results.of["AUPIMO"])
    with pytest.raises(ValueError, match="gt_mask"):
        run(model_of(AUPIMO()))


def test_masks_that_vanish_are_told_once(root: Path, tmp_path: Path) -> None:
    """Where anomalib's resizing leaves nothing of a mask, a warning says so once, and names the image."""
    for path in (root / "masks").iterdir():
        mask = np.zeros((SIZE, SIZE))
        mask[11, 10:13] = 255  # the rows of 32 are nearest to others of 48
        save(tmp_path / "masks" / path.name, mask)
    pre_processor = Fastflow.configure_pre_processor(image_size=(32, 32))
    model = model_of(AUPIMO(fpr_bounds=BOUNDS), kind=Fastflow, flow_steps=2, pre_processor=pre_processor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            engine_of(tmp_path).test(model, datamodule=data_of(root, mask_dir=tmp_path / "masks"), verbose=False)
    texts = [str(each.message) for each in caught if "have an empty mask" in str(each.message)]
    assert len(texts) == 1
    assert str(root / "test" / "bad") in texts[0]


def test_a_score_for_each_image_cannot_be_logged(trained: Trained, root: Path, tmp_path: Path) -> None:
    """With a logger Lightning refuses `reduction="none"`, as the README says."""
    model = model_of(AUPIMO(fpr_bounds=BOUNDS, reduction="none"))
    engine = engine_of(tmp_path, logger=CSVLogger(tmp_path))
    with pytest.raises(ValueError, match="does not contain a single element"):
        engine.test(model, datamodule=data_of(root), ckpt_path=trained.checkpoint, verbose=False)


def test_normalisation_clamps_what_is_scored(root: Path, tmp_path: Path) -> None:
    """By the range of normal images, maps are clamped and score otherwise; without normalisation they are not."""
    scores, maps = {}, {}
    for is_normalised in (True, False):
        torch.manual_seed(0)
        post_processor = PostProcessor(enable_normalization=is_normalised)
        model = model_of(AUPIMO(fpr_bounds=BOUNDS), post_processor=post_processor)
        model.evaluator.val_metrics = torch.nn.ModuleList()
        data = data_of(root, val_split_mode="from_train", val_split_ratio=0.5, seed=0)
        engine = engine_of(tmp_path)
        engine.fit(model, datamodule=data)
        scores[is_normalised] = engine.test(model, datamodule=data, verbose=False)[0]["AUPIMO"]
        predicted = engine.predict(model, datamodule=data)
        maps[is_normalised] = torch.cat([batch.anomaly_map for batch in predicted])
        assert scores[is_normalised] == by_hand(predicted).compute().item()
    assert ((maps[True] == 0) | (maps[True] == 1)).float().mean() > 0.1
    assert maps[False].max() > 1
    assert abs(scores[True] - scores[False]) > 1e-3


def test_the_example_of_the_readme_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README has an example with anomalib, which runs, on images of another size and without a download."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    (block,) = [block for block in blocks if "aupimo_torchmetrics.anomalib" in block]
    monkeypatch.chdir(tmp_path)
    Path(*re.findall(r'root="(.*?)"', block)).parent.mkdir(parents=True)
    Path(*re.findall(r'root="(.*?)"', block)).symlink_to(root)
    small = "backbone='resnet18', pre_trained=False, pre_processor=Padim.configure_pre_processor((128, 128))"
    block = block.replace("Padim(", f"Padim({small}, visualizer=False, ")
    block = block.replace("Folder(", "Folder(num_workers=0, ").replace("Engine(", "Engine(accelerator='cpu', ")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    logged = names["engine"].trainer.callback_metrics
    assert len([name for name in logged if name.endswith("AUPIMO")]) == 2
    assert names["result"].mean == pytest.approx(logged["AUPIMO"].item(), abs=1e-6)
    assert len(names["result"].paths) == len(names["data"].test_data)


def test_heat_maps_are_of_the_maps_that_were_scored(root: Path, tmp_path: Path) -> None:
    """With the default post-processor, each heat map is that of its image: its mean within the mask is the score."""
    logger, callback = FigureLogger(), AUPIMOCallback()
    engine = engine_of(tmp_path, callback, logger=logger)
    data, model = data_of(root), model_of(*metrics_of())
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)
    for name in ("AUPIMO", "max_AUPIMO"):
        result, figures = callback.results[name], logger.figures[f"{name}/heatmaps"]
        assert len(figures) == 2  # in validation and test
        for each in heat_maps(figures[1]):
            (number,) = re.findall(r"\d{3}", each.title)
            (index,) = [i for i, path in enumerate(result.paths) if path.endswith(f"bad/{number}.png")]
            is_masked = torch.from_numpy(np.asarray(Image.open(root / f"masks/{number}.png").convert("L")) > 0)
            assert float(each.weights[is_masked].mean()) == pytest.approx(float(result.aupimos[index]), abs=1e-6)
            photograph = torch.from_numpy(np.asarray(Image.open(result.paths[index]).convert("L"), dtype=np.float32))
            assert torch.corrcoef(torch.stack([each.image.flatten(), photograph.flatten()]))[0, 1] > 0.99
