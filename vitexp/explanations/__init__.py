"""From a finished run to its explanations: where runs, data and models meet `vitexp.explain`."""
