"""The command line: its commands, what they print, the demo."""


def main() -> None:
    """Run ``pertstack``; the console script calls this."""
    from pertstack.cli.entry import main as run

    run()
