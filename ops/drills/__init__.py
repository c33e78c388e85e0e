"""Drills: faults made on real servers while events flow, and a count of what became of each event."""
