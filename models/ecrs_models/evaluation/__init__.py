"""Offline evaluation: the platform and baseline recommenders on a period after training."""
