"""What the Helm chart holds of other parts of the repository."""
