"""Run `python -m aupimo_torchmetrics`."""

import sys

from aupimo_torchmetrics.cli import main

if __name__ == "__main__":
    sys.exit(main())
