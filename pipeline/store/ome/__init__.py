"""OME-Zarr: images, labels and tables, read and written."""
