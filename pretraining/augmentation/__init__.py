"""Views of an image: random draws, and the operations that they parametrise."""
