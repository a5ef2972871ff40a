from ecrs.cli import main

main()
