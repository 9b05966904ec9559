"""Anomaly maps on disk: one file each, or many in one file."""
