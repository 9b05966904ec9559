"""A file is written whole or not at all."""

import re
from pathlib import Path

import pytest

from aupimo_torchmetrics._files.writing import replacing


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    """While a file is written the old one is there, and afterwards the new one and no other."""
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with replacing(path) as unfinished:
        unfinished.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    """If writing fails or is interrupted half way, the old file stays as it was, and no half file does."""
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")

    def write_half() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("ne", encoding="utf-8")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    """Where a folder is, no file is written, and the error names it."""
    with pytest.raises(IsADirectoryError, match=f"but {re.escape(str(tmp_path))} is a folder"), replacing(tmp_path):
        raise AssertionError
    assert not list(tmp_path.parent.glob("*.unfinished"))
