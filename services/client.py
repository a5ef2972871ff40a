"""`python client.py as 8888` in the client container, as in the original."""

from ecrs.client.original import main

main()
