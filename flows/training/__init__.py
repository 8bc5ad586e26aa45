"""Training of a model from ingested stores."""
