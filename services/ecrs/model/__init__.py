"""Served models: one int64 matrix of ids in, one float32 matrix out, wherever they run."""
