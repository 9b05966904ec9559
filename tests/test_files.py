"""A file is written whole or not at all, in a folder that is made, with the rights of the files beside it."""

import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_batch, updated

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, PIMOResult

RESULT = AUPIMOResult(torch.tensor([0.5, torch.nan]), (1e-5, 1e-4), (0.1, 0.2))
CURVES = PIMOResult(torch.tensor([0.2, 0.6]), torch.tensor([1.0, 0.1]), torch.tensor([[1.0, 0.5]]))
SAVE: dict[str, Callable[[Any], None]] = {
    "aupimos.json": RESULT.save,
    "aupimos.safetensors": RESULT.save,
    "curves.pt": CURVES.save,
}
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has other rights, limits and processes")


@posix
@pytest.mark.parametrize("name", SAVE)
def test_files_have_the_rights_of_others(tmp_path: Path, name: str) -> None:
    """A file lies in a new folder, complete and alone, and may be read by whom the user lets read files."""
    before = os.umask(0o027)
    try:
        SAVE[name](tmp_path / "new" / "folder" / name)
    finally:
        os.umask(before)
    files = list((tmp_path / "new" / "folder").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}
    assert {file.name for file in files} <= {*SAVE}


@posix
def test_a_full_disk(tmp_path: Path) -> None:
    """If there is no room for one of the files, that is an `OSError` that names it, and none is left."""
    import resource  # noqa: PLC0415  is not on Windows

    metric = updated(AUPIMO(fpr_bounds=(1e-3, 1e-2)), [make_batch("NA", 0, (200, 200))])
    scores = torch.rand(20_000, dtype=torch.float64)
    many_images = AUPIMOResult(scores, (1e-5, 1e-4), (0.1, 0.2))
    large = {"pixels.json": metric.result(), "images.json": many_images, "images.safetensors": many_images}
    large |= {"curves.pt": PIMOResult(scores.sort().values, scores, scores[None])}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        for name, result in large.items():
            with pytest.raises(OSError, match=str(tmp_path / name.split(".")[0])):
                result.save(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@posix
@pytest.mark.parametrize("name", SAVE)
def test_what_a_killed_process_leaves_is_removed(tmp_path: Path, name: str) -> None:
    """The next who writes a file removes what a killed process left of it, but not what another still writes."""
    gone = subprocess.Popen(["true"])  # noqa: S607
    gone.wait()
    kept = [f".{name}.{os.getppid()}.unfinished", ".other.unfinished"]
    SAVE[name](tmp_path / name)
    expected = {path.name for path in tmp_path.iterdir()} | {*kept}
    for left in (f".{name}.{gone.pid}.unfinished", *kept):
        (tmp_path / left).touch()
    SAVE[name](tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("name", SAVE)
def test_a_folder_is_not_replaced(tmp_path: Path, name: str) -> None:
    """Where a folder is, no file is written, and the error names it."""
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=f"but {re.escape(str(tmp_path / name))} is a folder"):
        SAVE[name](tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """If writing fails or is interrupted, the old files stay as they were, and no half file does."""
    RESULT.save(tmp_path / "aupimos.json")
    CURVES.save(tmp_path / "curves.pt")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(bytes(data)[:10])
        raise error

    monkeypatch.setattr(Path, "write_bytes", write_half)
    other = AUPIMOResult(torch.tensor([0.25, torch.nan]), (1e-5, 1e-4), (0.1, 0.2))
    for save, name in ((other.save, "aupimos.json"), (CURVES.save, "curves.pt")):
        with pytest.raises(error):
            save(tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
