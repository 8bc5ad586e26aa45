"""One file per command of the command line; each is imported only when its command is called."""
