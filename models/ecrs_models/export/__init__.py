"""Exports a finished training as a model bundle: models, tables, golden examples, and the quality gate."""
