"""The error of a build that fails."""


class BuildError(Exception):
    """An engine cannot be built. The message says what is wrong, where, and what to do."""
