"""The chunks of a Zarr array: their form without zarr, reading a few of them directly, and which are absent."""
