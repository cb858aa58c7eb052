"""Checks of settings, files and packages: they need neither database nor network."""

import json
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from django.conf import settings
from packaging.requirements import Requirement

from feedback_app.operations.doctor.findings import Problem, listed

LOOPBACK = {"localhost", "127.0.0.1", "[::1]", "testserver"}
#: The value of .env.example.
EXAMPLE_SECRET = "change-me"  # noqa: S105
SHORTEST_SECRET = 32
#: Networks in which no receiver of webhooks may be.
NEVER_WEBHOOKS = [
    ip_network(net) for net in ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")
]
#: Networks in which no judge model may be: services of clouds answer there with credentials.
NEVER_JUDGES = [ip_network(net) for net in ("169.254.0.0/16", "fe80::/10")]
#: Addresses in the largest network that is still one organisation's (10.0.0.0/8).
WIDEST_PREFIX = {4: 8, 6: 32}


def is_public() -> bool:
    """Return whether people reach this installation by a name that is not this machine's own."""
    return settings.PRODUCTION or bool(set(settings.ALLOWED_HOSTS) - LOOPBACK)


def secret_key() -> Iterator[Problem]:
    key = settings.SECRET_KEY
    if EXAMPLE_SECRET in key or len(key) < SHORTEST_SECRET or len(set(key)) < 8:
        yield Problem(
            "SECRET_KEY can be guessed, so sessions and stored secrets can be forged or read.",
            "Set it to a random text of 50 characters, and move the old one to "
            "SECRET_KEY_FALLBACKS until everything was encrypted again.",
        )


def allowed_hosts() -> Iterator[Problem]:
    if "*" in settings.ALLOWED_HOSTS:
        yield Problem(
            "ALLOWED_HOSTS accepts every name, also one that another site lets resolve to here.",
            "Name the hosts that serve Prospect.",
        )
    elif not settings.ALLOWED_HOSTS:
        yield Problem(
            "ALLOWED_HOSTS is empty, so every request is refused.",
            "Name the hosts that serve Prospect.",
        )


def debug() -> Iterator[Problem]:
    if settings.DEBUG and is_public():
        yield Problem(
            "DEBUG is on, so error pages show source code and settings.", "Set DEBUG=false."
        )


def production_mode() -> Iterator[Problem]:
    if is_public() and not settings.PRODUCTION:
        yield Problem(
            "ALLOWED_HOSTS names other hosts than this machine, but PROSPECT_ENV is not "
            "production: cookies are sent without TLS.",
            "Set PROSPECT_ENV=production.",
        )


def mail() -> Iterator[Problem]:
    if is_public() and settings.EMAIL_BACKEND.endswith("console.EmailBackend"):
        yield Problem(
            "No mail server is set: password resets and invitations are written to the log.",
            "Set EMAIL_URL.",
        )


def proxies() -> Iterator[Problem]:
    # in production the web process speaks plain HTTP, and redirects what no proxy marked as TLS
    if settings.PRODUCTION and settings.ALLAUTH_TRUSTED_PROXY_COUNT == 0:
        yield Problem(
            "TRUSTED_PROXY_COUNT is 0: X-Forwarded-For is ignored, so all clients behind the TLS "
            "proxy share one limit of wrong passwords.",
            "Set it to the number of proxies that append to X-Forwarded-For.",
            warning=True,
        )


def webhook_networks() -> Iterator[Problem]:
    yield from _networks("WEBHOOK_NETWORKS", "webhooks", NEVER_WEBHOOKS)


def judge_networks() -> Iterator[Problem]:
    yield from _networks("JUDGE_NETWORKS", "judge models", NEVER_JUDGES)


def _networks(
    setting: str, what: str, never: Sequence[IPv4Network | IPv6Network]
) -> Iterator[Problem]:
    """Yield problems of a setting that lists networks to which members may have requests sent."""
    for text in getattr(settings, setting):
        try:
            network = ip_network(text)
        except ValueError:
            yield Problem(
                f"{setting} contains {text!r}, which is no network: {what} fail.",
                "Write networks as 10.1.0.0/16.",
            )
            continue
        forbidden = [n for n in never if n.version == network.version and n.overlaps(network)]
        if network.prefixlen < WIDEST_PREFIX[network.version] or forbidden:
            yield Problem(
                f"{setting} lets {what} reach {network}, which includes addresses that only this "
                "host or its neighbours may reach.",
                "Name the smallest networks that contain the servers.",
            )


def versions() -> Iterator[Problem]:
    if sys.version_info < (3, 11):  # noqa: UP036 - an older interpreter can run this file
        yield Problem(
            f"Python {sys.version.split()[0]} is older than 3.11.", "Install Python 3.11 or newer."
        )
    try:
        required = requires("prospect") or []
    except PackageNotFoundError:
        yield Problem(
            "The package prospect is not installed, so versions cannot be checked.",
            "Run `make install`, or `pip install .`.",
            warning=True,
        )
        return
    wrong = []
    for requirement in map(Requirement, required):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            try:
                found = version(requirement.name)
            except PackageNotFoundError:
                wrong.append(f"{requirement.name} is missing")
            else:
                if not requirement.specifier.contains(found, prereleases=True):
                    wrong.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if wrong:
        yield Problem(
            f"Packages differ from what Prospect needs: {listed(wrong)}.",
            "Run `pip install --constraint constraints.txt .`.",
        )


def permissions() -> Iterator[Problem]:
    var = Path(settings.VAR)
    secrets = [var, var / "secret_key", *sorted((var / "passwords").glob("*"))]
    others = stat.S_IRWXG | stat.S_IRWXO
    # what is in a private directory needs no modes of its own
    if var.exists() and var.stat().st_mode & others:
        found = [path for path in secrets if path.exists() and path.stat().st_mode & others]
        yield Problem(
            f"Other users of this machine can read {listed(found)}.",
            f"Run `chmod -R go= {var}` as its owner.",
        )


def static_files() -> Iterator[Problem]:
    if not settings.STORAGES["staticfiles"]["BACKEND"].endswith("ManifestStaticFilesStorage"):
        return
    do = "Run `manage.py collectstatic`, as `manage.py prepare` does."
    try:
        manifest = json.loads((Path(settings.STATIC_ROOT) / "staticfiles.json").read_text())
    except (OSError, ValueError):
        yield Problem("Static files are not collected: pages fail or have no styles.", do)
        return
    own = [
        str(file.relative_to(root))
        for root in map(Path, settings.STATICFILES_DIRS)
        for file in root.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    ]
    if missing := sorted(set(own) - set(manifest.get("paths", {}))):
        yield Problem(f"Static files are of an earlier version: {listed(missing)} are missing.", do)
