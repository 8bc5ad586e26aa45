"""Making stores: from datasets and synthetic scenes, and from files of a microscope."""
