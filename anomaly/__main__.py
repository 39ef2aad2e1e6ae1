"""`python -m anomaly` is the same command as `anomaly`."""

from anomaly.cli import app

if __name__ == "__main__":
    app()
