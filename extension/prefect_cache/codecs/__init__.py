"""A room of prefect_cache."""
