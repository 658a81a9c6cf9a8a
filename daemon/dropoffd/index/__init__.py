"""A local index of what a store has: follows it, can be deleted at any time, and answers who looks for something."""
