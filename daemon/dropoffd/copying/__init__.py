"""Copying between stores: what a project, a run or an artifact has, to another store under the same keys."""
