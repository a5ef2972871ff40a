"""TODO rpc."""
