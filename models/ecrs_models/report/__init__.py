"""The evaluation report of a bundle: its numbers, plots and HTML page."""
