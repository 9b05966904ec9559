"""The version of the library, stated here only."""

__version__ = "0.3.0"
