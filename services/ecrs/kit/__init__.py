"""Server, client, budget, errors, log, settings: knows gRPC, knows no shop."""
