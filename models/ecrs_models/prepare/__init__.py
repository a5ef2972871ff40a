"""Importers that convert external data to a prepared data set (`ecrs_models.data.dataset`)."""

COMPLETE_JOURNEY = "complete-journey"
"""Name of the demo's data set, on the command line and on disk."""
