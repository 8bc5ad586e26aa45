"""Annotated datasets, one file each, with the same functions."""
