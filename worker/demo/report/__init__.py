"""A self-contained HTML report of scored images."""
