"""Commands that bring images and masks in and out."""
