"""The version of the library, stated here only."""

__version__ = "0.2.0"
