"""Scores of predicted against true objects that may overlap: label stacks in, numbers and tables out.

All of it is computed from one sparse value, ``overlap.Overlap``; this package knows no stores, reports or networks.
"""
