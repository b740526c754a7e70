"""What can be downloaded, and downloading it."""
