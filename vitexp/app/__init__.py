"""The browser app: explore a finished run."""
