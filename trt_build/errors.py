"""What can go wrong between a model and its engine."""


class BuildError(Exception):
    """An engine cannot be built. The message says what is wrong, where, and what to do."""
