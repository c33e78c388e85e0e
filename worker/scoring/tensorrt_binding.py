"""The Python bindings of TensorRT and of TensorRT for RTX: the same API under two names."""

from importlib import import_module
from typing import Any

from worker.scoring.engine_record import TensorRtBackend

_MODULES: dict[TensorRtBackend, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_INSTALL: dict[TensorRtBackend, str] = {
    "tensorrt": "pip install 'sluice[tensorrt]'",
    "tensorrt-rtx": "pip install 'sluice[tensorrt-rtx]'",
}


class BindingMissing(Exception):
    """The backend is not installed, or its libraries do not load. The message says how to fix it."""


def load_binding(backend: TensorRtBackend) -> Any:
    """The backend's module. Raises BindingMissing."""
    problem: Exception | None = None
    for name in _MODULES[backend]:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                problem = error
        except (ImportError, OSError) as error:
            problem = error
    why = "is not installed" if problem is None else f"does not load: {problem}"
    raise BindingMissing(f"{backend} {why}; {_INSTALL[backend]}") from problem
