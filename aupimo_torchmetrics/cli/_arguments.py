"""What the subcommands share of their arguments: the parser, numbers, and what is checked before work begins."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

COMMAND = "this command"
"""What needs packages, in an error that begins with the name of the command."""
MAX_SEED = 2**63 - 1
EVALUATE_PACKAGES = frozenset({"jinja2", "matplotlib", "PIL", "scipy", "tifffile", "tqdm"})
"""What an evaluation and the page `report.html` import."""


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, but got {text!r}")
    return value


def integer_or_none(text: str) -> int | None:
    """An integer, or None, as errors about the number of thresholds advise."""
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected an integer or None, but got {text!r}") from error


def seed(text: str) -> int:
    """An integer that torch takes as a seed."""
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {MAX_SEED}, but got {text!r}")
    return value


def check_folder(out: Path) -> None:
    """Raise if there can be no such folder, before hours are spent on what is to be written there."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"Expected `out` to be a folder, but {nearest} is a file.")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"Expected `out` to be a folder to write to, but {nearest} may not be written to.")
