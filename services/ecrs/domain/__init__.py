"""Users, items, interactions, aggregates and provenance: data classes and pure functions, without I/O."""
