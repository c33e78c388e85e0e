"""Limits NumPy's matrix library to one thread, so that it does not take processors from the engine."""

from functools import cache

from threadpoolctl import threadpool_limits


@cache
def use_one_blas_thread() -> None:
    """From now on NumPy multiplies matrices on the thread that asks, in the whole process.

    The heads' products take microseconds. OpenBLAS shares them among a thread for each processor, which then spin for a
    while, waiting for more: that took the engine a sixth of its speed.
    """
    threadpool_limits(1, user_api="blas")
