"""`python -m secondglance`."""

from secondglance.cli import main

main()
