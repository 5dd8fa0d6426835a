"""pip's configuration, translated for uv: a site's mirror, certificates, proxy and wheels on disk.

uv reads neither pip.conf nor PIP_… variables. Where pip is configured in a way that uv can't
follow, pip installs the packages.
"""

import ast
import os
import subprocess
import sys
from dataclasses import dataclass, field

INDEX = "UV_DEFAULT_INDEX"
NO_INDEX = "--no-index"
# pip's sections, from the weakest to the strongest; ":env:" contains the PIP_… variables.
_SECTIONS = ("global", "install", ":env:")
_FALSE = ("", "0", "false", "no", "off")
# Options that don't change what is installed, or that the commands of an environment set anyway.
_IRRELEVANT = {
    *("break-system-packages", "cache-dir", "compile", "config-file", "debug", "exists-action"),
    *("disable-pip-version-check", "log", "no-cache-dir", "no-color", "no-compile", "no-input"),
    *("no-python-version-warning", "no-warn-conflicts", "no-warn-script-location", "only-binary"),
    *("prefer-binary", "progress-bar", "quiet", "require-virtualenv", "root-user-action"),
    *("use-feature", "verbose"),
}
_VARIABLES = {
    # In variables, because other users can read a command: a URL may contain a password.
    "index-url": INDEX,
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
_LISTS = {
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}


@dataclass(frozen=True)
class UvSettings:
    """What uv needs to install as pip would.

    Attributes:
        options: Its options.
        constraints: The options for a site's constraints, which a hashed lock can't have.
        variables: Environment variables.
        unknown: The options of pip that uv can't follow.
    """

    options: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict[str, str])
    unknown: tuple[str, ...] = ()


def uv_settings() -> UvSettings:
    """Return pip's configuration for uv."""
    values = _pip_options()
    options = [word for name in _LISTS for word in _repeated(_LISTS[name], values.get(name, ""))]
    if values.get("no-index", "").lower() not in _FALSE:
        options.append(NO_INDEX)
    known = {*_IRRELEVANT, *_VARIABLES, *_LISTS, "no-index", "constraint"}
    variables = {
        _VARIABLES[name]: " ".join(value.split())
        for name, value in values.items()
        if name in _VARIABLES
    }
    return UvSettings(
        tuple(options),
        tuple(_repeated("--constraints", values.get("constraint", ""))),
        {"UV_SYSTEM_CERTS": "true", **variables},  # pip trusts the system's certificates, too
        tuple(name for name in values if name not in known),
    )


def _repeated(option: str, words: str) -> list[str]:
    return [part for word in words.split() for part in (option, word)]


def _pip_options() -> dict[str, str]:
    """Return the options of `pip install`, as pip itself finds them."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    sections: dict[str, dict[str, str]] = {name: {} for name in _SECTIONS}
    if listed.returncode != 0:  # this Python has no pip
        sections[":env:"] = _pip_variables()
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in sections:
            sections[section][name] = str(ast.literal_eval(value))
    return {**sections["global"], **sections["install"], **sections[":env:"]}


def _pip_variables() -> dict[str, str]:
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("PIP_")
    }
