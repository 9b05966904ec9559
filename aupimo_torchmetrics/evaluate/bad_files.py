"""Files that cannot be evaluated, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aupimo_torchmetrics._files import BadDataError

__all__ = ["BadFile", "BadFileError", "BadFilesError"]


class BadFile(NamedTuple):
    """A file that cannot be evaluated."""

    path: str
    """Path of the file."""
    reason: str
    """What is wrong with it."""


class BadFileError(BadDataError):
    """A single file cannot be evaluated.

    Attributes:
        bad_file: The file, and the reason.

    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.bad_file = BadFile(path, reason)


class BadFilesError(BadDataError):
    """Files cannot be evaluated. The message has a line for each of them.

    Attributes:
        bad_files: All these files, with the reasons.

    """

    def __init__(self, bad_files: Sequence[BadFile], remedy: str) -> None:
        count = "1 file" if len(bad_files) == 1 else f"{len(bad_files)} files"
        lines = "".join(f"\n  {bad_file.path}: {bad_file.reason}" for bad_file in bad_files)
        super().__init__(f"{count} cannot be evaluated ({remedy}):{lines}")
        self.bad_files = list(bad_files)
