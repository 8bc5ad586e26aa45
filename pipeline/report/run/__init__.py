"""The report of a run, without truth: pictures, plate maps, conditions, distributions, seams."""
