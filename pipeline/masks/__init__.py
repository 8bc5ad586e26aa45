"""Masks in the formats of other programs: import into label stacks, export from them."""
