"""The package as it is installed: without extras, star-imported, optimized, and documented by what runs."""

import doctest
import importlib.metadata
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import aupimo_torchmetrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = ("matplotlib", "lightning", "pytorch_lightning", "scipy", "skimage", "tensorboard", "pytest", "anomalib")

WITHOUT_EXTRAS = f"""
import importlib.metadata, sys
asked_for = []

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            asked_for.append(name)
            raise ModuleNotFoundError(name)

find_distribution = importlib.metadata.Distribution.from_name

def find_visible_distribution(name):
    if name in {EXTRAS}:
        raise importlib.metadata.PackageNotFoundError(name)
    return find_distribution(name)

importlib.metadata.Distribution.from_name = find_visible_distribution
sys.meta_path.insert(0, Hidden())
import torchmetrics  # which asks for some of them
asked_for.clear()
before = {{*sys.modules}}
import aupimo_torchmetrics
print(*{{*sys.modules}} - before, *asked_for)
"""

SCORE = """
import torch
from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.functional import aupimo
maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
masks[1, 0] = True
metric = AUPIMO(fpr_bounds=(0.1, 0.5))
metric.update(maps, masks)
print(metric.compute().item(), aupimo(maps, masks, fpr_bounds=(0.1, 0.5)).item())
"""
OTHERS = """
from aupimo_torchmetrics import AUPRO, PixelAUROC
from aupimo_torchmetrics.functional import aupro, pixel_f1_max
masks = maps > 27
metric = PixelAUROC()
metric.update(maps, masks)
print(metric.compute().item(), pixel_f1_max(maps, masks).item())
for call in (AUPRO().update, aupro, lambda *_: __import__("aupimo_torchmetrics.anomalib")):
    try:
        call(maps, masks)
    except ModuleNotFoundError as error:
        print(error)
"""


def run_python(code: str, *options: str) -> list[str]:
    """Run code in a new interpreter, outside the tree, and return the lines that it printed."""
    command = [sys.executable, "-W", "error", *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_package_without_any_extra() -> None:
    """Where no extra is installed, metrics and functions work, but AUPRO and those of anomalib say what they need.

    To import the package loads what its metrics need: no part that has an extra, and no library of an extra, as it asks
    for none.
    """
    modules, score, others, *told = run_python(WITHOUT_EXTRAS + SCORE + OTHERS)
    loaded = modules.split()
    assert "aupimo_torchmetrics.metrics" in loaded
    parts = ("plotting", "statistics", "evaluate", "lightning", "anomalib", "demo", "cli")
    assert not {f"aupimo_torchmetrics.{part}" for part in parts} & {*loaded}
    assert not [name for name in loaded if name.split(".")[0] in {*EXTRAS, "PIL", "pandas", "tifffile", "tqdm"}]
    assert (score, others) == ("1.0 1.0", "1.0 1.0")
    expected = [("AUPRO", "scipy", "stats")] * 2 + [("aupimo_torchmetrics.anomalib", "anomalib", "anomalib")]
    for text, (name, library, extra) in zip(told, expected, strict=True):
        assert text.startswith(f"{name} expects `{library}` to be installed.")
        assert f'pip install "aupimo-torchmetrics[{extra}]"' in text


@pytest.mark.slow  # all of torch is compiled anew
def test_docstrings_are_not_needed() -> None:
    """The package works with docstrings and assertions stripped."""
    assert run_python(SCORE, "-OO") == ["1.0 1.0"]


PACKAGE = "aupimo_torchmetrics"
MODULES_OF_THE_PACKAGE = [
    f"{PACKAGE}.{module.name}"
    for module in pkgutil.iter_modules(aupimo_torchmetrics.__path__)
    if not module.name.startswith("_")
]
# The module for anomalib can only be imported beside anomalib, see test_anomalib.py.
PUBLIC_MODULES = [name for name in (PACKAGE, *MODULES_OF_THE_PACKAGE) if name != f"{PACKAGE}.anomalib"]


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_star_import(module: str) -> None:
    """A star-import gives what a module names as public, all of which is there, and nothing else."""
    names: dict[str, object] = {}
    exec(f"from {module} import *", names)  # noqa: S102
    public = sys.modules[module].__all__
    assert public or module == f"{PACKAGE}.formulas"  # which has no names
    assert {*names} - {"__builtins__"} == {*public}


WITHOUT_EXAMPLE = {f"{PACKAGE}.demo.run_demo"}  # trains for several seconds; test_demo.py runs it


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_names_have_examples(module: str) -> None:
    """The docstring of each public class and function holds an example, which the doctests run."""
    imported = import_module(module)
    public = {name: each for name, each in vars(imported).items() if name in imported.__all__}
    documented = {name: each for name, each in public.items() if inspect.isclass(each) or inspect.isfunction(each)}
    examples = {name: doctest.DocTestParser().get_examples(each.__doc__ or "") for name, each in documented.items()}
    run = {name for name, parts in examples.items() if any(doctest.SKIP not in part.options for part in parts)}
    assert {f"{module}.{name}" for name in {*documented} - run} <= WITHOUT_EXAMPLE


def test_the_package_docstring_is_an_index() -> None:
    """The docstring of the package says of each public name and module of it, in one line, what it is."""
    listed = re.findall(r"^- `([\w.]+)`: .+[.]$", str(aupimo_torchmetrics.__doc__), flags=re.MULTILINE)
    public = {*aupimo_torchmetrics.__all__, *MODULES_OF_THE_PACKAGE} - {"__version__"}
    assert sorted(listed) == sorted(public)


def test_docstrings_are_plain() -> None:
    """No file of the package holds roles or directives of Sphinx, which neither `help` nor the API pages render."""
    sphinx = re.compile(r":[a-z]+:`|^ *\.\. [a-z]+::", flags=re.MULTILINE)
    files = Path(str(aupimo_torchmetrics.__file__)).parent.rglob("*.py")
    assert not [path for path in files if sphinx.search(path.read_text(encoding="utf-8"))]


def test_the_version_has_one_source() -> None:
    """The installed distribution has the version that the package states, and the changelog knows it."""
    version = aupimo_torchmetrics.__version__
    assert importlib.metadata.version("aupimo-torchmetrics") == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{'Unreleased' if '.dev' in version else version}]" in changelog


def test_the_promise_of_each_test_file_is_told() -> None:
    """`tests/README.md` says of each file of tests what it promises."""
    tests = Path(__file__).parent
    table = (tests / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in tests.glob("test_*.py") if f"| `{path.name}` | " not in table]


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_with_their_outputs(path: Path) -> None:
    """A notebook holds the outputs of one run from top to bottom, without errors, warnings or paths of a machine."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    texts = ["".join(output.get("text", [])) for output in outputs]
    assert not [text for text in texts if re.search(r"(?<![\w.])/(home|root|tmp|usr|work)/", text)]


def readme_blocks() -> list[Any]:
    """Python blocks of the README and of two docstrings; Dask's is slow, and anomalib's run elsewhere."""
    recipe = str(import_module("aupimo_torchmetrics.lightning").__doc__)
    text = README + str(inspect.getdoc(aupimo_torchmetrics.AUPIMO.merge_state)) + recipe
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    blocks = [block for block in blocks if "aupimo_torchmetrics.anomalib" not in block]  # see test_anomalib_engine.py
    return [
        pytest.param(block, marks=pytest.mark.slow if "dask" in block else (), id=block.strip().splitlines()[-1][:40])
        for block in blocks
    ]


def test_the_readme_is_short() -> None:
    """The README has at most 260 lines, and names each notebook; what is longer stands where it is looked for."""
    assert len(README.splitlines()) <= 260
    assert len(NOTEBOOKS) == 6
    assert all(f"notebooks/{path.name}" in README for path in NOTEBOOKS)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec.*is deprecated")
@pytest.mark.parametrize("block", readme_blocks())
def test_readme_block(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each Python block of the README and of two docstrings runs, and prints what the comments behind `print` say."""
    monkeypatch.chdir(tmp_path)
    if "dask" in block:
        pytest.importorskip("distributed")
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", block, flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == expected
