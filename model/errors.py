"""The errors of this package besides wrong arguments: a checkpoint, a training sample, a loss, a device.

Each also derives from a builtin exception; the message says what was expected, what was given and what to do.
"""


class BadCheckpoint(ValueError):
    """A folder is not a checkpoint, or its weights and its card do not belong together."""


class BadSample(ValueError):
    """A training image and its label stack do not fit each other, the network or the method."""


class Diverged(ValueError):
    """A loss is not a number; the last good state and model of the training are kept."""


class NoDevice(RuntimeError):
    """A device that was requested by name is not available."""
