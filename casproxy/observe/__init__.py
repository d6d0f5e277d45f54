"""What an operator sees: logs (``log``), metrics (``metrics``) and the interceptor that feeds both (``calls``)."""
