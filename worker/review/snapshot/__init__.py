"""Snapshots of the desk's items in a topic of their own: what a rebuild starts from."""
