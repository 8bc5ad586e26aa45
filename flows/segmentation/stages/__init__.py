"""The stages of the main job, from limits to tables, and all of them in one go for a small image."""
