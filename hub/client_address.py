"""The address from which somebody logs in, which they can't choose."""

from ipaddress import IPv4Address, IPv6Network, ip_address

BITS_OF_A_SITE = 64  # of an IPv6 address; a client can have all addresses that begin with them


def client_address(peer: str, own: str, forwarded: str) -> str:
    """Return the address of a client; for IPv6, the network of its site.

    The hub's proxy appends the address of its client to X-Forwarded-For. It runs in the hub's
    container, so its connection comes from the hub's own address. Whatever stands before that
    entry is the client's, and so is the entire header if a seat connects to the hub directly.

    Args:
        peer: The address that the connection comes from.
        own: The address of this end of the connection.
        forwarded: The header X-Forwarded-For, or "".
    """
    last = forwarded.rpartition(",")[2].strip()
    text = last if last and peer == own else peer
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), BITS_OF_A_SITE), strict=False))
