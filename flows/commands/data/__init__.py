"""Commands that import and export images and masks."""
