"""The main job: plan, stages, record; one image, a plate, an archive."""
