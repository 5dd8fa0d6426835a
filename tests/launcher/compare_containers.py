"""Compare two containers by what `docker inspect` reports."""

from typing import Any

from launcher.engine import heartbeat

# These settings may differ: the removal of the container, its name and labels, and its terminal.
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
    """Flatten nested dictionaries; drop None, empty and zero, which all mean the default."""
    if isinstance(value, dict) and value:
        return {
            key: one
            for inner, it in value.items()
            for key, one in flat(it, f"{name}.{inner}" if name else inner).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = sorted(sorted((k, str(v)) for k, v in one.items() if v) for one in value)
    return {name: value} if value else {}


def inspected_settings(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the flattened settings of a container from `docker inspect`."""
    parts = {name: attributes[name] for name in ("HostConfig", "Config")}
    # Only a launched container has a launcher to wait for.
    lock = f"{heartbeat.VARIABLE}="
    variables = [one for one in parts["Config"]["Env"] if not one.startswith(lock)]
    parts["Config"] = {**parts["Config"], "Env": variables}
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
