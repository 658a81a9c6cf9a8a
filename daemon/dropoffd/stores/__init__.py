"""Somewhere bytes can live: one interface, a folder per provider."""
