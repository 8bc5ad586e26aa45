"""Addresses of stores, and access to them: local files, HTTP, S3."""
