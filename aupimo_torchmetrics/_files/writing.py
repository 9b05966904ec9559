"""Files and folders: paths that must be there, and files that are written whole or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aupimo_torchmetrics._errors import SettingError

_UNFINISHED = ".unfinished"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write, in a folder that is made if need be.

    It is renamed to `path` when all went well, and removed if not. What a killed process left of it is removed, too.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file to write, but {path} is a folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_UNFINISHED}"):
        if not _is_running(left.name.removesuffix(_UNFINISHED).rpartition(".")[2]):
            left.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of a full disk, Python does not say where
            error.filename = os.fspath(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    """Whether a process may be running, by its number. On Windows, to ask for it might end it."""
    if os.name != "posix" or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    with replacing(path) as unfinished:
        # Names of files that are no valid text have characters that UTF-8 cannot write.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def check_ending(path: str | os.PathLike[str], *endings: str) -> None:
    """Raise a ValueError unless the name of a file to write has one of the endings, in any case."""
    if not os.fspath(path).lower().endswith(endings):
        expected = " or ".join(f"`{ending}`" for ending in endings)
        raise ValueError(f"Expected `path` to end in {expected}, but got {os.fspath(path)}.")


def existing_folder(name: str, path: str | os.PathLike[str]) -> Path:
    """Return the parameter `name` as a path; raise a ValueError unless it is a folder."""
    path = Path(path)
    if not path.is_dir():
        raise SettingError(f"Expected `{name}` to be a folder, but there is no folder {path}.")
    return path
