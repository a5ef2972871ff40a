"""Runs `ecrs` as `python -m ecrs_cli`."""

from ecrs_cli.main import main

main()
