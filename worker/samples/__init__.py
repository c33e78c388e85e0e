"""The sample images that ship, with human scores, and functions that degrade images."""
