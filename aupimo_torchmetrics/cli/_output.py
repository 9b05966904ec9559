"""What the subcommands share of their output: results, errors, and how texts of the library become those of a shell."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable


def print_text(text: str) -> None:
    """Print to standard output. A pipe that the reader has closed is no error: what was printed was not all."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201
    except BrokenPipeError:
        close_stdout()


def close_stdout() -> None:
    """Let nothing more go to a closed pipe, also when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(arguments: argparse.Namespace, message: str, code: int) -> int:
    """Print an error, and return the exit code."""
    print(f"aupimo {arguments.command}: {with_options(message, arguments.parser)}", file=sys.stderr)  # noqa: T201
    return code


def code_of_scores(arguments: argparse.Namespace, means: Iterable[float]) -> int:
    """Return 0 if a score came out; otherwise say that none did, and return 1."""
    if all(math.isnan(mean) for mean in means):
        return print_error(arguments, "no score came out: AUPIMO is undefined (NaN); the warnings say why", 1)
    return 0


def with_options(text: str, parser: argparse.ArgumentParser) -> str:
    """Name the options of a subcommand where a text of the library names parameters in backticks.

    `` `num_thresholds` `` becomes `` `--num-thresholds` ``, `` `skip_bad=True` `` becomes `` `--skip-bad` ``,
    `` `resize=False` `` becomes `` `--no-resize` ``, and a positional one becomes what the help calls it, `` `MAPS` ``.
    What no option can say, as `` `skip_bad=False` ``, stays as it is.
    """
    actions = {action.dest: action for action in parser._actions}  # noqa: SLF001  argparse has no public list

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        opposite, action = actions.get(f"no_{name}"), actions.get(name)
        if opposite is not None and value in {None, "False"}:
            return f"`{opposite.option_strings[-1]}`"
        if action is None or (action.nargs == 0 and value == "False"):
            return match[0]
        if not action.option_strings:
            return f"`{action.metavar}`"
        values = [] if value is None or action.nargs == 0 else _values(value)
        before_each = f" {action.option_strings[-1]} " if action.nargs is None else " "
        return f"`{' '.join([action.option_strings[-1], before_each.join(values)]).rstrip()}`"

    return re.sub(r"`(?P<name>\w+)(?:=(?P<value>[^`]*))?`", option, text)


def _values(text: str) -> list[str]:
    """Values in a text like `(1e-4, 1e-3)` or `['not ok']`, as one types them in a shell."""
    found = re.findall(r"""'([^']*)'|"([^"]*)"|([^\s,()\[\]'"]+)""", text)
    return [shlex.quote("".join(value)) for value in found]
