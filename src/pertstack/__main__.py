"""``python -m pertstack`` is the command ``pertstack``."""

from pertstack.cli.steps import main

if __name__ == "__main__":
    main()
