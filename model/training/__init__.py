"""The training loop, its state, schedule, curves and budget."""
