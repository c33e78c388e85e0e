"""Judges past events again without any effect on the live stream, and compares the verdicts."""
