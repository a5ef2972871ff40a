"""`python -m ecrs_cli`: the same as `ecrs`."""

from ecrs_cli.main import main

main()
