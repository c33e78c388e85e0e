"""Limits NumPy's matrix library to one thread, so that it does not take CPUs from the engine."""

from functools import cache

from threadpoolctl import threadpool_limits


@cache
def use_one_blas_thread() -> None:
    """Makes NumPy multiply matrices on the calling thread, in the whole process.

    The heads' products take microseconds. OpenBLAS would distribute them over one thread per CPU, which then spin while
    they wait for more work. That cost the engine a sixth of its speed.
    """
    threadpool_limits(1, user_api="blas")
