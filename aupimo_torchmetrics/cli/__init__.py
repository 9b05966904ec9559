"""The command `aupimo`, also `python -m aupimo_torchmetrics`.

Conventions: results go to standard output. An error is one line on standard error, with an indented line for each thing
that it lists, such as bad files or layouts. Exit codes are those of `EXIT_CODES`, for all subcommands. A subcommand is
a module: its `add` makes a parser, and its `run` returns an exit code or raises what the library raises. Errors of the
library name parameters in backticks; the command names its options instead. No subject of the library is imported
before its subcommand runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.cli import _compare, _demo, _evaluate
from aupimo_torchmetrics.cli._arguments import Parser
from aupimo_torchmetrics.cli._output import close_stdout, print_error

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = """exit codes:
  0  done, and a score came out
  1  data that cannot be used, or no score came out: AUPIMO is undefined (NaN) in every category, a package is missing,
     a disk error, too little memory, stopped by Ctrl-C
  2  the command itself is wrong: an unknown option or choice, a number out of range, a path that is not there, a device
     that is not there
"""
"""What the exit codes of all subcommands mean."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program. None for those of the process.

    Returns:
        The exit code, as `EXIT_CODES` says.

    Raises:
        SystemExit: With code 2 if the command was not understood, and with 0 after `--help` and `--version`.

    Example:
        >>> from aupimo_torchmetrics.cli import main
        >>> main(["evaluate", "nowhere", "--data", "nowhere"])
        2

    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # a service may have closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  for the whole process
    parser, subparsers = _parsers()
    arguments = parser.parse_args(argv)
    arguments.parser = subparsers[arguments.command]
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has seen enough, as `head` does
        close_stdout()
        return 0
    except BadDataError as error:
        return print_error(arguments, str(error), 1)
    except (ValueError, TypeError) as error:
        return print_error(arguments, _first_line(error), 2)
    except (ImportError, OSError, MemoryError, RuntimeError) as error:  # RuntimeError: a GPU without memory
        return print_error(arguments, _first_line(error), 1)
    except KeyboardInterrupt as error:
        return print_error(arguments, str(error) or "stopped", 1)
    return code


def _first_line(error: Exception) -> str:
    """The first line of an error, or its name if it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command, and those of its subcommands by their names."""
    parser = Parser(
        prog="aupimo",
        description="AUPIMO scores of visual anomaly detectors.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aupimo-torchmetrics {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for subcommand in (_demo, _evaluate, _compare):
        subcommand.add(commands)
    return parser, commands.choices
