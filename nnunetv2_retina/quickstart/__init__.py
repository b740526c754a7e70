"""The whole chain on small data."""
