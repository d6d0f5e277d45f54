"""The page for people, in a real Chromium that a test drives."""
