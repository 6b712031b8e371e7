"""`python -m dlens` is `dlens`."""

from dlens.cli import main

if __name__ == "__main__":
    main()
