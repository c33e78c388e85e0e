"""Judging past events again, beside the live stream and without any effect on it, and what came out differently."""
