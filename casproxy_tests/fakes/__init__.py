"""Stand-ins for the far end of a contract, used where the real part would hide what a test must control."""
