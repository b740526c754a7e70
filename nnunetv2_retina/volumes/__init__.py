"""Volumes that outgrow memory: OME-Zarr in, OME-Zarr out, block by block, with the labels of the whole volume."""
