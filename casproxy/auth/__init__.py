"""Tokens: verification is pure (``verify``), keys are loaded beside it (``keys``), ``interceptor`` joins both to a call."""
