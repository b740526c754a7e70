"""Images under their labels, in napari or in the browser; the napari plugin. Thin: what is shown is made elsewhere."""
