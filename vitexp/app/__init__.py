"""`python -m vitexp app`: step inside a finished run, in the browser."""
