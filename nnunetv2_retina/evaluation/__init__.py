"""Score label files as the papers do."""
