"""Files that cannot be evaluated, why, and whether the others may be scored without them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from aupimo_torchmetrics._errors import BadDataError

if TYPE_CHECKING:
    from aupimo_torchmetrics.evaluate.evaluation import CategoryScores
    from aupimo_torchmetrics.evaluate.pairing import FoundPairs

__all__ = ["BadFile", "BadFileError", "BadFilesError", "bad_file_lines", "check_bad_files", "naming", "read_all"]

MAX_LISTED = 10
"""More files that are bad for one reason are not listed one by one."""
OF_ONE_FILE = re.compile(r"\S*[/\\]\S*|\S*\d[^\s,;:()\[\]]*")
"""What may differ in one reason from file to file: paths and numbers."""


_Item = TypeVar("_Item")
_Content = TypeVar("_Content")


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


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name the file that a BadDataError is about."""
    try:
        yield
    except BadDataError as error:
        raise BadFileError(path, str(error)) from error


def read_all(items: Iterable[_Item], read: Callable[[_Item], _Content], bad_files: list[BadFile]) -> Iterator[_Content]:
    """Yield what is read of items, one by one; add those that cannot be read to the bad files."""
    for item in items:
        try:
            content = read(item)
        except BadFileError as error:
            bad_files.append(error.bad_file)
            continue
        yield content


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
        count = len({bad_file.path for bad_file in bad_files})
        lines = "".join(f"\n  {line}" for line in bad_file_lines(bad_files))
        super().__init__(f"{count} {'file' if count == 1 else 'files'} cannot be evaluated ({remedy}):{lines}")
        self.bad_files = list(bad_files)


def bad_file_lines(bad_files: Sequence[BadFile]) -> list[str]:
    """List bad files, each once for each reason.

    Args:
        bad_files: Files with the reasons. A file may be there several times.

    Returns:
        A line for each file, in the order given; and one line for more than ten files that are bad for the same reason,
        or for reasons that differ only in paths and numbers.

    Example:
        >>> from aupimo_torchmetrics.evaluate.bad_files import BadFile, bad_file_lines
        >>> bad_file_lines([BadFile(f"good/{number:03}.png", "an image without a map") for number in range(340)])
        ['340 files, such as good/000.png: an image without a map']

    """
    groups = defaultdict(list)
    for path, reason in dict.fromkeys(bad_files):
        groups[OF_ONE_FILE.sub("#", reason.replace(path, "#"))].append(f"{path}: {reason}")
    shown = (each if len(each) <= MAX_LISTED else [f"{len(each)} files, such as {each[0]}"] for each in groups.values())
    return [line for lines in shown for line in lines]


def check_bad_files(
    bad_files: Sequence[BadFile], found: FoundPairs, categories: Sequence[CategoryScores], *, skip_bad: bool
) -> dict[str, int]:
    """Count the images that are skipped.

    Args:
        bad_files: Files that cannot be evaluated.
        found: Test images, and those that have a map.
        categories: Scores of all that could be scored.
        skip_bad: Whether bad files are to be skipped.

    Returns:
        How many images were not scored, by the name of their category, for each category of which there is a map.

    Raises:
        BadDataError: If there is no bad file, and nothing could be scored all the same.
        BadFilesError: If there are bad files, unless they are to be skipped and each category that loses some keeps
            normal and anomalous images.

    """
    if not (bad_files or categories):
        raise BadDataError("Expected the map of a test image, but found none.")
    bad_paths = {bad_file.path for bad_file in bad_files}
    # An image without a map is a bad file only where its category has maps.
    names = {image.category for image in found.images if (image.place or image.name) in bad_paths}
    counts = Counter(image.category for image in found.images)
    counts.subtract({scores.category: len(scores.pairs) for scores in categories})
    skipped = {name: counts[name] for name in sorted(names | {pair.image.category for pair in found.pairs})}
    whole = {scores.category for scores in categories if scores.num_normal and scores.num_anomalous}
    lost = [category for category, count in skipped.items() if count and category not in whole]
    if bad_files and (lost or not (skip_bad and categories)):
        remedy = "`skip_bad=True` goes on without them"
        if lost or not categories:
            left = f"no normal or no anomalous image of {', '.join(lost)}" if lost else "no image"
            remedy = f"`skip_bad=True` cannot go on without them: that leaves {left}"
        raise BadFilesError(bad_files, remedy)
    return skipped
