"""The three kinds of errors that users see; every message says what was expected, what was given and what to do.

The command line turns these into one line and an exit code, never a traceback.
"""


class BadArgument(ValueError):
    """The request is not valid: a wrong option, an unknown name, a label stack with an id on two layers."""


class BadStore(ValueError):
    """The data on disk or in object storage are not what they claim to be: missing, corrupt, or not OME-Zarr."""


class RunConflict(RuntimeError):
    """The state of a run forbids the request: another run has locked the output, or a result exists already."""
