"""cm: the content model: product records by id."""
