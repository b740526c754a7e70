"""Files and archives of others, read into arrays."""
