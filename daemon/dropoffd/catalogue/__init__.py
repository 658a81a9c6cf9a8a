"""Names and records in the store."""
