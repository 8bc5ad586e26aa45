"""The three kinds of fault a user can meet; every message says what was expected, what came, what to do.

The command line turns these into one line and an exit code, never a traceback.
"""


class BadArgument(ValueError):
    """The caller asked for something that cannot be: a wrong option, an unknown name, a stack that breaks the law."""


class BadStore(ValueError):
    """The data on disk or in object storage are not what they claim to be: missing, corrupt, or not OME-Zarr."""


class RunConflict(RuntimeError):
    """The state of a run forbids the request: another run holds the output, or a result is already there."""
