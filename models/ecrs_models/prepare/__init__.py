"""Importers: somebody's data to a prepared data set (`ecrs_models.dataset`)."""

COMPLETE_JOURNEY = "complete-journey"
"""The name of the demo's data set, for the command line and on disk."""
