"""`python -m nodeagent`: the command line without the console script."""

from nodeagent.cli import main

main()
