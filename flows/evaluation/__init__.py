"""Predictions against truth, and the pages that show them."""
