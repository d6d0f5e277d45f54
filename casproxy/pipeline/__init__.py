"""One upload, one download: three tasks each, joined by bounded channels."""
