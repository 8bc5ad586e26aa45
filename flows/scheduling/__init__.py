"""What runs by the clock or when a plate arrives, on a Prefect server."""
