"""Whether the hub can listen on its address and port."""

import errno
import socket
from collections.abc import Collection

from common.cards import Card
from launcher.hub.settings import SETTINGS_FILE, WORKSHOP, HubSettings


def refuse_unusable(hub: HubSettings, own_ports: Collection[int]) -> None:
    """Refuse an address of another machine, or a port that another program has.

    Args:
        hub: hub.toml.
        own_ports: The ports on which the hub of this clone listens now.

    Raises:
        Card: If the hub can't listen there.
    """
    try:
        taken = is_taken(hub.address, hub.port)
    except OSError as error:
        raise not_here(hub) from error
    if taken and hub.port not in own_ports:
        raise port_taken(hub)


def is_taken(address: str, number: int) -> bool:
    """Return whether a program listens there.

    Raises:
        OSError: If this machine doesn't have the address.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            if error.errno != errno.EACCES:  # the engine may use ports below 1024
                raise
    return False


def port_taken(hub: HubSettings) -> Card:
    """Return the card for a port that another program has."""
    return Card(
        f"Port {hub.port} is taken.",
        f"Another program listens on {hub.address}:{hub.port}.",
        f"set another port in {WORKSHOP / SETTINGS_FILE}, then: invoke hub",
    )


def not_here(hub: HubSettings) -> Card:
    """Return the card for an address of another machine."""
    return Card(
        f"This machine doesn't have the address {hub.address}.",
        "The hub can only listen on addresses of its own machine: ip address lists them.",
        f"correct the address in {WORKSHOP / SETTINGS_FILE}, or 0.0.0.0 for all",
    )
