"""NGFF label images: their layout, reading, writing, and publishing a finished one at its place."""
