"""Who is next: pure functions."""
