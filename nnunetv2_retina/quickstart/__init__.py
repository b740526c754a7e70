"""The whole chain on small data, with the commands that a user types."""
