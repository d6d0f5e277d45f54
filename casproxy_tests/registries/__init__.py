"""The OCI backend in front of registries: what they are asked, what they keep, and how each wants to be treated."""
