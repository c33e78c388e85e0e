"""The Ray Serve applications. Each module has `build`, an application builder for a Serve config."""
