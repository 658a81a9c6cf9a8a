"""Carry one job to its store."""
