"""Freeze content at the call, then make it the daemon's own."""
