"""The gateway's HTTP door: callers, limits, and the way from a request to its answer."""
