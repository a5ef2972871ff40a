"""Runs the original system's command line, such as `python client.py as 8888` in the client container."""

from ecrs.client.original import main

main()
