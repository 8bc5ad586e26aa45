"""Reports: tables and pictures in, one self-contained page out. The pages are in `run` and `evaluation`."""
