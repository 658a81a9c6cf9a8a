"""Bring content from a store to a directory or into the cache."""
