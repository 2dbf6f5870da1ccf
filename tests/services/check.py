"""`python -m tests.services.check` fetches what the tests need and says what it found; exit 1 in CI if not all."""

from __future__ import annotations

import sys

from tests.services import browser, postgres, redis
from tests.services.found import Missing, under_ci


def main() -> int:
    """Print one line for each service; the exit code is 1 when CI=true and one is missing."""
    looked_for = [postgres.locate(), redis.locate(fetch=True), browser.locate(fetch=True)]
    for service in looked_for:
        sys.stdout.write(f"  {service}\n")
    missing = [service for service in looked_for if isinstance(service, Missing)]
    if missing and not under_ci():
        sys.stdout.write("  Tests that need what is missing are skipped; with CI=true they fail.\n")
    return int(bool(missing) and under_ci())


if __name__ == "__main__":
    sys.exit(main())
