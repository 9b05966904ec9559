"""How the tests are run: profiles of hypothesis. Functions that tests share are in `helpers.py`."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("long", max_examples=3000, deadline=None)
settings.register_profile("short", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("short")
