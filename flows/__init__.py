"""Jobs, executors, Prefect flows and the command line: the only package that imports both `pipeline` and `model`."""
