"""Puts the parts together: settings in, a ready intake out. Shared by the command line and the Ray applications."""
