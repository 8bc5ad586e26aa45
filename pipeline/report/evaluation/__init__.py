"""The report of an evaluation against truth: scores, kinds of error, worst images first."""
