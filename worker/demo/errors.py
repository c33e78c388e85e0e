"""How the demo can fail."""


class DemoFailed(Exception):
    """The path did not judge everything in time, or the worker ended early."""
