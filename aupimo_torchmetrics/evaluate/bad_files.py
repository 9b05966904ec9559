"""Files that cannot be evaluated, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError

__all__ = ["BadFile", "BadFileError", "BadFilesError", "bad_file_lines", "num_bad_files"]

MAX_LISTED = 10
"""More files that are bad for one reason are not listed one by one."""
NUM_SHOWN = 3
"""How many of those are named."""


class BadFile(NamedTuple):
    """A file that cannot be evaluated.

    Example:
        >>> from aupimo_torchmetrics.evaluate import BadFile
        >>> BadFile("good/000.png", "an image without a map")
        BadFile(path='good/000.png', reason='an image without a map')

    """

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
    """Files cannot be evaluated. The message names each of them, or how many there are where one reason makes many.

    Attributes:
        bad_files: All these files, with the reasons.

    Example:
        >>> from aupimo_torchmetrics.evaluate import BadFile, BadFilesError
        >>> error = BadFilesError([BadFile("good/000.png", "an image without a map")], "skip them by `skip_bad=True`")
        >>> print(error)
        1 file cannot be evaluated (skip them by `skip_bad=True`):
          good/000.png: an image without a map
        >>> error.bad_files[0].path
        'good/000.png'

    """

    def __init__(self, bad_files: Sequence[BadFile], remedy: str) -> None:
        count = num_bad_files(bad_files)
        lines = "".join(f"\n  {line}" for line in bad_file_lines(bad_files))
        super().__init__(f"{count} cannot be evaluated ({remedy}):{lines}")
        self.bad_files = list(bad_files)


def num_bad_files(bad_files: Sequence[BadFile]) -> str:
    """Say how many files are bad; one with several reasons counts once."""
    count = len({bad_file.path for bad_file in bad_files})
    return "1 file" if count == 1 else f"{count} files"


def bad_file_lines(bad_files: Sequence[BadFile]) -> list[str]:
    """List bad files, each once.

    Args:
        bad_files: Files with the reasons. A file may be there several times.

    Returns:
        A line for each file, in the order given; and one line for more than ten files that are bad for the same reason,
        or for reasons that differ only in paths and numbers.

    Example:
        >>> from aupimo_torchmetrics.evaluate.bad_files import BadFile, bad_file_lines
        >>> bad_file_lines([BadFile(f"good/{number:03}.png", "an image without a map") for number in range(340)])
        ['340 files: an image without a map: good/000.png, good/001.png, good/002.png, ... (and 337 more)']

    """
    reasons: dict[str, list[str]] = {}
    for path, reason in bad_files:
        known = reasons.setdefault(path, [])
        if reason not in known:
            known.append(reason)
    groups: dict[str, list[BadFile]] = {}
    for path, known in reasons.items():
        bad_file = BadFile(path, "; and ".join(known))
        groups.setdefault(_kind_of(bad_file), []).append(bad_file)
    return [line for group in groups.values() for line in _group_lines(group)]


def _kind_of(bad_file: BadFile) -> str:
    """The reason without what differs from file to file: its path, other paths, and numbers."""
    reason = bad_file.reason.replace(bad_file.path, "#")
    return re.sub(r"\S*[/\\]\S*|\S*\d[^\s,;:()\[\]]*", "#", reason)


def _group_lines(group: Sequence[BadFile]) -> list[str]:
    """List files that are bad for one kind of reason."""
    if len(group) <= MAX_LISTED:
        return [f"{path}: {reason}" for path, reason in group]
    more = f"... (and {len(group) - NUM_SHOWN} more)"
    first = group[0].reason
    paths = [bad_file.path for bad_file in group[:NUM_SHOWN]]
    if all(bad_file.reason == first for bad_file in group):
        return [f"{len(group)} files: {first}: {', '.join(paths)}, {more}"]
    return [f"{len(group)} files, such as {paths[0]}: {first}; the same for {', '.join(paths[1:])}, {more}"]
