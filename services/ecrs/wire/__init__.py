"""Conversion between protobuf messages and domain objects, and the validation of requests."""
