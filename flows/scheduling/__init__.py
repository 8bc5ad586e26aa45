"""Runs that start by a schedule or when a plate arrives, on a Prefect server."""
