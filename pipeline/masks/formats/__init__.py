"""One file per format of masks: reading it, writing it, or both."""
