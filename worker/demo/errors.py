"""The error of a failed demo."""


class DemoFailed(Exception):
    """Not every event was judged in time, or the worker ended early."""
