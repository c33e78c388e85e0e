"""Trains fusion and template head on features that were computed once: the towers of a model stay as they are."""
