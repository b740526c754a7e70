"""What is measured of the objects of a label volume: one table for volumes in memory and for volumes in blocks."""
