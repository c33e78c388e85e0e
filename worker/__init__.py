"""Sluice's worker: from image events to routed verdicts."""
