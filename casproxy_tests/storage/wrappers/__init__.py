"""The wrappers around stores."""
