"""Launcher for a checkout: `python cli.py …` is `anomaly …`. The commands live in anomaly/cli.py."""

from anomaly.cli import app

if __name__ == "__main__":
    app()
