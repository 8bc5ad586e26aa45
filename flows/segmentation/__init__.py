"""The main job: plan, stages, record; one image, a plate, an archive."""

WORKER_MODULES = ("flows.segmentation.stages.field",)
"""Imported by worker processes before the first tile: it takes a second."""
