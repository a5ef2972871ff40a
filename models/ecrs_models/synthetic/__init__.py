"""Synthetic data of JData's shape with planted tastes, and the oracle that knows them."""
