"""`python -m pilothouse` is the command line."""

from pilothouse.cli.main import main

if __name__ == "__main__":
    main()
