"""The gateway's HTTP API: callers, limits, requests and answers."""
