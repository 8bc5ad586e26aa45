"""Files of a user: names of microscopes, metadata beside them, TIFF and other formats."""
