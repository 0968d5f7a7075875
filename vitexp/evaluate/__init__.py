"""What a finished run is worth: exact metrics on its own or another test set, and how they come about."""
