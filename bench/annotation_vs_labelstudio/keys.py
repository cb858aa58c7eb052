"""Verdicts per second by keys in real Chromium, on our desk with a thousand answers.

A script presses each key as soon as the answer to the one before is on the page, so that the page
is measured and not a person's typing.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from bench.annotation_vs_labelstudio import servers

PRESS = """async (count) => {
    const taken = [];
    for (let n = 0; n < count; n++) {
        const started = performance.now();
        const answered = new Promise((done) =>
            document.addEventListener("htmx:afterSettle", done, { once: true }));
        const key = n % 3 ? "u" : "d";
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        taken.push([document.getElementById("item").dataset.completion, 0]);
        await answered;
        taken[n][1] = performance.now() - started;
    }
    return taken;
}"""
WARM = 20


def keys(directory: Path, *, count: int = 200) -> dict[str, Any]:
    """Return rate and milliseconds of `count` verdicts on SQLite, the single-machine database."""
    environment = servers.ours_env("sqlite", directory, {"url": ""})
    world = servers.fill(
        [sys.executable, "-m", "bench.annotation_vs_labelstudio.ours_fill", "1000", "1"],
        environment,
    )
    servers.collect(environment)
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    chromium = subprocess.run(
        [sys.executable, "tools/chromium.py"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=servers.ROOT,
        check=True,
    ).stdout.strip()
    server = servers.serving(servers.ours_command(port), environment, port, directory / "log")
    with server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(base_url=url).new_page()
        cookie = {"name": "sessionid", "value": world["sessions"][0], "url": url}
        page.context.add_cookies([cookie])
        page.goto("/projects/bench/annotate/")
        page.evaluate(PRESS, WARM)
        started = time.monotonic()
        taken = page.evaluate(PRESS, count)
        seconds = time.monotonic() - started
        browser.close()
    milliseconds = sorted(took for _, took in taken)
    return {
        "system": "keys in Chromium",
        "database": "sqlite",
        "size": 1_000,
        "people": 1,
        "rate": count / seconds,
        "p50": milliseconds[count // 2],
        "p99": milliseconds[int(0.99 * count)],
        "cpu": 0.0,
        "cycles": count,
        "doubled": count - len({item for item, _ in taken}),
        "errors": 0,
        "load": os.getloadavg()[0],
    }
