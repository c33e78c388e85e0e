"""Checks Serve configs before they are deployed."""
