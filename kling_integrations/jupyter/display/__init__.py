"""What a cell shows: static cards and grids, and the live strip of a running generation."""
