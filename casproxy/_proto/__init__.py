"""Generated from ``proto/`` by ``just proto``; checked in, never edited."""
