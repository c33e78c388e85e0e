"""Commands say what they have to say themselves; logs are for the worker."""

import logging

import structlog


def be_silent() -> None:
    """Drops all logs until `configure_logging` sends them somewhere; what goes wrong is told by the command."""
    logging.getLogger().handlers[:] = [logging.NullHandler()]
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
