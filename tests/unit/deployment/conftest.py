import pytest

from ops.dev.deployment_tools import DeploymentTools, deployment_tools


@pytest.fixture(scope="session")
def tools() -> DeploymentTools:
    """helm, kubeconform and composecheck; made first if nobody has yet, as `make test` does."""
    return deployment_tools()
