"""Suits a process's interpreter to its work; measured on the cached path."""

import gc
import sys


def tune_interpreter() -> None:
    """Sets the collector and the threads' turns for a stream of records.

    Many objects live shortly and without cycles: with Python's defaults the collector walks the records under way over
    and over, a quarter of all time. And threads that wait for servers get the interpreter back after 0.5 ms, not 5.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(0.0005)
