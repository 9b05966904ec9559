"""Test images of a data set: by its folders, or by a table."""
