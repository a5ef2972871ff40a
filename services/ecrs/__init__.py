"""ECRS: an e-commerce recommender platform."""

__version__ = "0.1.0"
