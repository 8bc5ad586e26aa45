"""Where work runs: executors, clusters, segmenters, Prefect tasks."""
