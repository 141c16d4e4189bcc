"""Apply a network to images of any size, one tile at a time."""
