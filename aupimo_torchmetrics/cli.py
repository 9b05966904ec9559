"""The command `aupimo`, also `python -m aupimo_torchmetrics`.

Conventions: results go to standard output, errors to standard error, one line each. The exit code is 0 if all went
well, 1 if something is missing, and 2 if the command was not understood. A subcommand is a parser with a `run` default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.datasets import TEXTURES

MAX_SEED = 2**63 - 1
DEMO_PACKAGES = {
    "lightning": "lightning",
    "tensorboard": "tensorboard",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
}
"""Modules that the demo imports, and the packages that hold them."""


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program. None for those of the process.

    Returns:
        The exit code: 0 if all went well, 1 if something is missing.

    Raises:
        SystemExit: With code 2 if the command was not understood, and with 0 after `--help` and `--version`.

    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ModuleNotFoundError, OSError) as error:
        print(f"aupimo {arguments.command}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print(f"aupimo {arguments.command}: stopped", file=sys.stderr)  # noqa: T201
        return 1


def _parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    parser = _Parser(prog="aupimo", description="AUPIMO scores of visual anomaly detectors.")
    parser.add_argument("--version", action="version", version=f"aupimo-torchmetrics {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Options of `aupimo demo`."""
    about = "train a small detector on real photographs, on the CPU in about a minute, and log its AUPIMO"
    parser = commands.add_parser("demo", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("--texture", choices=TEXTURES, default=TEXTURES[0], help="photograph (default: %(default)s)")
    parser.add_argument("--epochs", type=_positive, help="epochs of training (default: a minute of them)")
    parser.add_argument("--out", default="aupimo_demo", metavar="DIR", help="folder to write to (default: %(default)s)")
    parser.add_argument("--seed", type=_seed, default=0, help="seed of defects and training (default: %(default)s)")
    parser.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    """Run `aupimo demo`."""
    missing = [package for module, package in DEMO_PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ModuleNotFoundError(
            f'needs {", ".join(missing)}; please install with `pip install "aupimo-torchmetrics[demo]"`'
        )
    print("Loading PyTorch Lightning ...", flush=True)  # noqa: T201
    from aupimo_torchmetrics.demo import DEFAULT_EPOCHS, run_demo  # noqa: PLC0415

    epochs = DEFAULT_EPOCHS if arguments.epochs is None else arguments.epochs
    report = run_demo(arguments.texture, epochs, arguments.out, arguments.seed)
    print(report.summary())  # noqa: T201
    return 0


def _positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, but got {text!r}")
    return value


def _seed(text: str) -> int:
    """An integer that torch takes as a seed."""
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {MAX_SEED}, but got {text!r}")
    return value
