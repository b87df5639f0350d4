"""``python -m pertstack`` is the command ``pertstack``."""

from pertstack.cli.entry import main

if __name__ == "__main__":
    main()
