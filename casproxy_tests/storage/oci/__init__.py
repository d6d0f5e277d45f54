"""The OCI backend's parts, tested one by one."""
