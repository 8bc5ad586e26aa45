"""Tiles, stores, stitching, tables, metrics and data: everything around the network, without torch."""
