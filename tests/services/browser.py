"""A real Chromium: from PATH, else from apt as root, else the one Playwright downloads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, expect, sync_playwright

from tests.services.found import Found, Missing, install_command, on_path

NAME = "Chromium"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium itself calls home unless told not to, and a page that loads from elsewhere must fail, not pass slowly.
QUIET = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)
BRINGS = (
    f"{install_command('chromium', '--cask chromium')}, or {sys.executable} -m playwright install --with-deps chromium"
)


def locate(*, fetch: bool = False) -> Found | Missing:
    """A Chromium that really opens a page here; installed first if there is none and `fetch`."""
    found = opened()
    if isinstance(found, Missing) and fetch:
        for install in (install_with_apt, install_with_playwright):
            if install():
                found = opened()
            if isinstance(found, Found):
                break
    return found


def opened() -> Found | Missing:
    """The Chromium of PATH, else Playwright's own, started once to see that it works."""
    program = on_path(PROGRAMS)
    try:
        with running(program) as browser:
            version = browser.version
    except Error as error:
        why = str(error).strip().splitlines()[0].removeprefix("BrowserType.launch: ")
        return Missing(NAME, why if program else "not on PATH, and Playwright has none of its own", BRINGS)
    return Found(NAME, program or "", version, "on PATH" if program else "Playwright's own")


def install_with_apt() -> bool:
    """Install Debian's Chromium where we are root and there is apt; whether that worked."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update", "-q"], ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"])
    return all(succeeds(command, environment) for command in commands)


def install_with_playwright() -> bool:
    """Have Playwright download its Chromium into the user's cache; whether that worked."""
    return succeeds([sys.executable, "-m", "playwright", "install", "chromium"], dict(os.environ))


def succeeds(command: list[str], environment: dict[str, str]) -> bool:
    """Whether `command` ran and ended well. What it prints is shown only on failure."""
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.stderr.write(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n")
    return done.returncode == 0


@contextmanager
def running(program: str | None) -> Iterator[Browser]:
    """A headless browser on `program` (None or empty: Playwright's own), closed afterwards.

    The sync API keeps an asyncio loop marked as running in this thread until it is
    closed: no coroutine test can run in between.
    """
    arguments = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    # A page on a busy machine may be slow; what is awaited in vain fails the test all the same.
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program or None, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
