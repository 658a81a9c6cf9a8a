"""Custody on disk: SQLite behind one writer, and the quota."""
