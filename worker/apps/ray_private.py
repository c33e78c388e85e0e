"""All private functions of Ray that Sluice uses.

`sluice deploy check` builds applications as `serve deploy` does, and Ray has no public function for that.
pyproject.toml allows only the versions of Ray that they were tested with; test_ray_private.py fails when one of them
moves.
"""

from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app
from ray.serve._private.utils import validate_route_prefix

__all__ = ["build_app", "call_user_app_builder_with_args_if_necessary", "import_attr", "validate_route_prefix"]
