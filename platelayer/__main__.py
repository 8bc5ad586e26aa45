"""`python -m platelayer`: the command line."""

from flows.cli import main

main()
