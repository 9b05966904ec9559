"""The callback works with Lightning under both of its names, and from the configuration files of both."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HIDE = "import sys\nsys.modules['{}'] = None\n"

MODEL = """
import os, pickle, sys, warnings
sys.path.insert(0, os.getcwd())
{first}
import torch
from torch.utils.data import DataLoader
from torchmetrics import Metric
warnings.simplefilter("ignore")
from {package} import LightningModule, Trainer
from aupimo_torchmetrics import AUPIMO

images, masks = torch.rand(8, 3, 32, 32), torch.zeros(8, 32, 32)
masks[4:, 4:12, 4:12] = 1
data = DataLoader([{{"photo": image, "mask": mask}} for image, mask in zip(images, masks)], batch_size=4)

class Model(LightningModule):
    def __init__(self, aupimo: Metric):
        super().__init__()
        self.network, self.aupimo = torch.nn.Conv2d(3, 1, 1), aupimo

    def training_step(self, batch, _):
        return self.network(batch["photo"]).square().mean()

    def validation_step(self, batch, _):
        self.aupimo.update(self.network(batch["photo"])[:, 0], batch["mask"])
        self.log("val/aupimo", self.aupimo)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)
"""

PROGRAM = """
from {package}.loggers import TensorBoardLogger
from aupimo_torchmetrics.lightning import AUPIMOCallback

logger = TensorBoardLogger(sys.argv[1], name="", version="")
callback = pickle.loads(pickle.dumps(AUPIMOCallback(images="photo")))
trainer = Trainer(
    accelerator="cpu", devices=1, max_epochs=1, logger=logger, callbacks=[callback], default_root_dir=sys.argv[1],
    enable_progress_bar=False, enable_model_summary=False,
)
model = Model(AUPIMO(fpr_bounds=(1e-2, 1e-1)))
trainer.fit(model, data, data)
trainer.validate(model, data, ckpt_path=trainer.checkpoint_callback.best_model_path, verbose=False)
print("bases", *sorted({{base.__module__.split(".")[0] for base in AUPIMOCallback.__mro__}} - {{"builtins"}}))
print("loaded", *sorted({{"lightning", "pytorch_lightning"}} & {{name for name, each in sys.modules.items() if each}}))
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
print("images", *sorted(EventAccumulator(sys.argv[1]).Reload().Tags()["images"]))
"""

BOTH = {"lightning", "pytorch_lightning"}
CALLBACK = "from aupimo_torchmetrics.lightning import AUPIMOCallback"
CASES = {
    "only pytorch_lightning": ("pytorch_lightning", HIDE.format("lightning"), {"pytorch_lightning"}),
    "only lightning": ("lightning.pytorch", HIDE.format("pytorch_lightning"), {"lightning"}),
    "pytorch_lightning first": ("pytorch_lightning", "import pytorch_lightning", {"pytorch_lightning"}),
    "callback first": ("pytorch_lightning", CALLBACK, BOTH),
    "both first": ("pytorch_lightning", "import lightning.pytorch, pytorch_lightning", BOTH),
}


def run(*arguments: str) -> str:
    """Run Python, and return what it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_either_package(tmp_path: Path, case: str) -> None:
    """A trainer and a logger of either package get figures, whatever is installed or imported first."""
    package, first, loaded = CASES[case]
    if any(find_spec(name) is None for name in BOTH):
        pytest.skip("needs both packages")
    lines = run("-c", (MODEL + PROGRAM).format(package=package, first=first), str(tmp_path)).splitlines()
    answers = {line.split()[0]: line.split()[1:] for line in lines if line.split()[:1]}
    assert answers["images"] == [f"val/aupimo/{name}" for name in ("curves", "distribution", "heatmaps")]
    assert set(answers["loaded"]) == loaded
    assert package.split(".")[0] in answers["bases"] or case == "callback first"


@pytest.mark.slow
def test_without_lightning() -> None:
    """Where neither is installed, the error says what to install."""
    hide = HIDE.format("lightning") + HIDE.format("pytorch_lightning")
    code = f"{hide}try:\n    {CALLBACK}\nexcept ModuleNotFoundError as error:\n    print(error)"
    told = run("-c", code)
    assert "AUPIMOCallback expects `lightning` to be installed" in told
    assert 'pip install "aupimo-torchmetrics[lightning]"' in told


CONFIG = """
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  enable_checkpointing: false
  callbacks:
    - class_path: aupimo_torchmetrics.lightning.AUPIMOCallback
      init_args: {{images: {images}, save_to: saved, save: best}}
model: {{aupimo: {{class_path: aupimo_torchmetrics.AUPIMO, init_args: {{fpr_bounds: [0.01, 0.1]}}}}}}
"""

CLI = """
from {package} import LightningDataModule
from {package}.cli import LightningCLI

class Data(LightningDataModule):
    def train_dataloader(self):
        return data

    val_dataloader = train_dataloader

cli = LightningCLI(Model, Data)
print("images", cli.trainer.callbacks[0].images)
"""


@pytest.mark.parametrize(("package", "kind"), [("lightning.pytorch", "name"), ("pytorch_lightning", "function")])
@pytest.mark.slow
def test_command_line_of_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, kind: str) -> None:
    """A configuration with metric and callback by class path runs, and so does the one that Lightning writes."""
    if find_spec("jsonargparse") is None or find_spec(package.split(".", maxsplit=1)[0]) is None:
        pytest.skip("needs jsonargparse and both packages")
    monkeypatch.chdir(tmp_path)
    Path("places.py").write_text("def find(batch):\n    return batch['photo']\n")
    Path("given.yaml").write_text(CONFIG.format(images="photo" if kind == "name" else "places.find"))
    Path("program.py").write_text((MODEL + CLI).format(package=package, first=""))
    program = ("-W", "ignore", "program.py", "fit", "--config")
    first = run(*program, "given.yaml")
    assert ("images photo" if kind == "name" else "images <function find") in first
    assert "Unable to serialize" not in Path("config.yaml").read_text()
    assert Path("saved/val/aupimo/heatmaps.png").is_file()
    Path("config.yaml").rename("written.yaml")
    assert run(*program, "written.yaml").split(" at ")[0] == first.split(" at ")[0]
