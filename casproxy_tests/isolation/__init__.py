"""Tenants apart from each other, and all of them apart from the network this process is in."""
