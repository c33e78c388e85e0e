"""Turns logging off for commands that print their own messages."""

import logging

import structlog


def be_silent() -> None:
    """Drops all log records until `configure_logging` is called."""
    logging.getLogger().handlers[:] = [logging.NullHandler()]
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
