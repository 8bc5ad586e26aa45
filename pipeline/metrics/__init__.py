"""Scores of predicted against true objects that may overlap: label stacks in, numbers and tables out.

All of it stands on one sparse value, ``overlap.Overlap``; no room here knows stores, reports or networks.
"""
