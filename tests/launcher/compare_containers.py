"""Two containers, as `docker inspect` tells of them: are they one and the same?"""

from typing import Any

# What may differ, and why: who removes the container, who named it and left notes on it, and what
# only a user at a terminal has.
ALLOWED = {
    "HostConfig.AutoRemove",
    "HostConfig.ConsoleSize",
    "Config.Hostname",
    "Config.AttachStdin",
    "Config.AttachStdout",
    "Config.AttachStderr",
    "Config.OpenStdin",
    "Config.StdinOnce",
    "Config.Tty",
}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries as one; absent, None, empty and zero are the engine's same default."""
    if isinstance(value, dict) and value:
        return {
            key: one
            for inner, it in value.items()
            for key, one in flat(it, f"{name}.{inner}" if name else inner).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = sorted(sorted((k, str(v)) for k, v in one.items() if v) for one in value)
    return {name: value} if value else {}


def told(attributes: dict[str, Any]) -> dict[str, Any]:
    """What `docker inspect` says of a container, flat."""
    parts = {name: attributes[name] for name in ("HostConfig", "Config")}
    mounts = sorted((m["Source"], m["Destination"], m["RW"]) for m in attributes["Mounts"])
    return {**flat(parts), "mounts": mounts}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        key: (one.get(key), other.get(key))
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key)
        and not key.startswith("Config.Labels.")
        and key not in ALLOWED
    }
