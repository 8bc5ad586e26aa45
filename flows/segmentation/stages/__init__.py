"""The stages of the main job, from limits to tables, and the single call that runs them all for a small image."""
