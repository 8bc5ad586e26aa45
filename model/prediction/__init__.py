"""A trained model applied to images: to blocks in a pipeline, to whole images in memory, by torch or OpenVINO."""
