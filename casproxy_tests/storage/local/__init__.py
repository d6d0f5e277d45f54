"""Tests of the FS backend beyond the contract that all stores share."""
