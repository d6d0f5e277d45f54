"""Tests of the composition root, of start-up errors, and of what it logs and counts."""
