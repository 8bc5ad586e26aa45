"""The roof: jobs, executors, Prefect flows and the command line, over the two wings that do not know each other."""
