"""Inference with the models of a bundle, in this process or on Paddle Serving, behind one interface."""
