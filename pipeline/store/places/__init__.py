"""Addresses and what lies behind them: local files, HTTP, S3."""
