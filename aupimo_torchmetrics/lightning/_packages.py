"""Lightning under either of its names: `lightning.pytorch` and `pytorch_lightning` are two copies of the same code.

A trainer of one package calls the hooks of a callback of the other, but configuration files accept only a callback of
their own package. So the base classes are those of the packages that the program has imported already.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from aupimo_torchmetrics._extras import require

NAMES = ("lightning.pytorch", "pytorch_lightning")


def callback_bases() -> tuple[type[Any], ...]:
    """Return the class `Callback` of each package that is in use, or else of the first that is installed.

    Raises:
        ModuleNotFoundError: If neither is installed.

    """
    names = [name for name in NAMES if hasattr(sys.modules.get(name), "Callback")]
    names = names or [name for name in NAMES if find_spec(name.partition(".")[0]) is not None][:1]
    if not names:
        require("lightning", extra="lightning", needed_by="AUPIMOCallback")
    return tuple(import_module(name).Callback for name in names)
