"""A network for each seat, with nobody else on it but the hub.

The network is internal and its bridge has no address. So a seat reaches the hub, and neither other
seats, nor this machine, nor anything outside.
"""

import ipaddress
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from launcher.hub.folder import LABEL

HUB = "hub"  # the hub's name on each network
# Reserved for tests of network devices (RFC 2544), so no machine of a site has such an address.
ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
BITS = 29  # six addresses: the hub, the seat, and the gateway that the engine reserves
NO_ADDRESS = {"com.docker.network.bridge.inhibit_ipv4": "true"}
ALONE = {"com.docker.network.bridge.enable_icc": "false"}
_lock = threading.Lock()  # two seats that start at once would take the same addresses


def seat_network(ident: str, name: str) -> str:
    """Return the name of a seat's network, which is also that of its container."""
    return f"llm-labs-seat-{ident}-{name}"


def outside_network(ident: str) -> str:
    """Return the name of the network on which seats reach other machines, if they may."""
    return f"llm-labs-outside-{ident}"


def free_subnet(taken: Iterable[str]) -> str:
    """Return the first subnet that no network has.

    Raises:
        RuntimeError: If there is none.
    """
    used = {ipaddress.ip_network(subnet) for subnet in taken}
    for subnet in ADDRESSES.subnets(new_prefix=BITS):
        if not any(subnet.overlaps(other) for other in used if other.version == 4):
            return str(subnet)
    raise RuntimeError("all addresses for seats are taken")


def addresses(subnet: str) -> dict[str, str]:
    """Return the addresses of a seat's network, as the engine's API takes them.

    The engine chooses the seat's from the upper half. The hub's is in the lower half, so nobody has
    it while the hub is away.
    """
    _, upper = ipaddress.ip_network(subnet).subnets()
    return {"Subnet": subnet, "IPRange": str(upper)}


def hub_address(network: dict[str, Any]) -> str:
    """Return the hub's address on the network of a seat; it stays when the hub's container changes.

    So a seat finds the hub in its /etc/hosts: a busy engine takes ten seconds to look a name up.
    """
    (config,) = _configs(network)
    return str(ipaddress.ip_network(config["Subnet"])[2])


def create(client: Any, ident: str, name: str, hub_container: str) -> str:
    """Create the network of a seat, if it doesn't exist, and connect the hub.

    Returns:
        The hub's address on it.
    """
    own_name = seat_network(ident, name)
    with _lock:
        existing: list[dict[str, Any]] = client.networks()
        if all(network["Name"] != own_name for network in existing):
            configs = [config for network in existing for config in _configs(network)]
            taken = [config["Subnet"] for config in configs if "Subnet" in config]
            client.create_network(
                own_name,
                driver="bridge",
                internal=True,
                options=NO_ADDRESS,
                ipam={"Config": [addresses(free_subnet(taken))]},
                labels={LABEL: ident},
            )
    return connect_hub(client, own_name, hub_container)


def _configs(network: dict[str, Any]) -> list[dict[str, str]]:
    return (network.get("IPAM") or {}).get("Config") or []


def connect_hub(client: Any, name: str, hub_container: str) -> str:
    """Connect the hub to the network of a seat, unless it is connected; return its address."""
    network: dict[str, Any] = client.inspect_network(name)
    address = hub_address(network)
    if not any(member.startswith(hub_container) for member in network["Containers"]):
        client.connect_container_to_network(
            hub_container, name, aliases=[HUB], ipv4_address=address
        )
    return address


def connect_hub_to_all(client: Any, ident: str, hub_container: str) -> None:
    """Connect a new container of the hub to the networks of the seats that it finds running."""
    for network in client.networks(filters={"label": f"{LABEL}={ident}"}):
        if network["Name"].startswith(seat_network(ident, "")):
            connect_hub(client, network["Name"], hub_container)


def connect_outside(client: Any, ident: str, container: str) -> None:
    """Let a seat reach other machines, but no other seat."""
    own_name = outside_network(ident)
    with _lock:
        if not client.networks(names=[f"^{own_name}$"]):
            client.create_network(own_name, "bridge", options=ALONE, labels={LABEL: ident})
    client.connect_container_to_network(container, own_name)


def remove(client: Any, ident: str, name: str, hub_container: str) -> None:
    """Remove the network of a seat; nothing happens if it is gone."""
    own_name = seat_network(ident, name)
    with suppress(OSError):  # includes the SDK's errors
        client.disconnect_container_from_network(hub_container, own_name, force=True)
    with suppress(OSError):
        client.remove_network(own_name)
