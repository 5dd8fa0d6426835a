"""What `invoke preflight` checks if there is a workshop/hub.toml: whether a hub can serve it."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.cards import Card
from launcher.engine.client import Engine
from launcher.engine.compose import seat_service
from launcher.engine.known_errors import why_no_engine
from launcher.hub import certificate
from launcher.hub import compose as hub_compose
from launcher.hub import folder as hub_folder
from launcher.hub import gpus as hub_gpus
from launcher.hub import settings as hub_settings
from launcher.hub import users as hub_users
from launcher.hub.address import is_taken
from launcher.hub.settings import SETTINGS_FILE, WORKSHOP, HubSettings
from launcher.image.status import name_to_run, why_build
from launcher.preflight import checks as preflight_checks
from launcher.preflight.checks import LAB_BYTES, SEAT_BYTES
from launcher.preflight.findings import FIX, NOTE, Finding, from_card, judge
from launcher.run import service as lab_service
from launcher.run.placement import Placement
from launcher.run.runtime import Runtime

TIME_TO_RENEW = timedelta(days=14)


def findings(runtime: Runtime | None, folder: Path = WORKSHOP) -> Iterator[Finding]:
    """Yield what was found about the hub; nothing without hub.toml.

    Args:
        runtime: What runs the labs here, if anything can.
        folder: The folder workshop/.
    """
    if not (folder / SETTINGS_FILE).exists():
        yield from default_port(folder)
        return
    try:
        hub = hub_settings.read(folder)
    except Card as card:
        yield from_card("hub", card)
        return
    if runtime is None or runtime.engine is None:
        # Without a runtime, an earlier finding says why the engine can't be used.
        why, fix = why_no_engine() if runtime else ("It can't be used.", "docker info")
        yield Finding("hub", f"A hub needs Docker. {why}", FIX, fix)
        return
    yield seats(hub)
    if hub.users:
        yield users(hub, folder)
    if hub.gpus:
        yield gpus(hub, runtime)
    yield image(hub, runtime)
    yield port(hub, hub_compose.published_ports(runtime.engine))
    if hub.certificate:
        yield https(hub, folder)


def seats(hub: HubSettings) -> Finding:
    """Compare the memory that idle seats and one lab need with what is available."""
    _, available = preflight_checks.read_memory()
    needed = hub.seats * SEAT_BYTES
    running = max(0, available - needed) // LAB_BYTES
    value = f"{hub.seats} seats take {needed / 1e9:.1f} GB when idle"
    if running:
        return Finding("hub seats", f"{value}; {running} labs can run beside them")
    fitting = max(0, available - LAB_BYTES) // SEAT_BYTES
    problem = f"too much beside a lab, {available / 1e9:.1f} GB are available"
    fix = _set("seats", fitting) if fitting else "free -h, then end programs that aren't needed"
    return judge("hub seats", value, problem, fix)


def users(hub: HubSettings, folder: Path) -> Finding:
    """Check the list of learners."""
    try:
        count = len(hub_users.read_users(folder / hub.users, hub.teacher))
    except Card as card:
        return from_card("hub users", card)
    value = f"{count} learners in {hub.users}"
    if count > hub.seats:
        problem = f"only {hub.seats} seats"
        return judge("hub users", value, problem, _set("seats", count))
    path = folder / hub.users
    problem = hub_users.readable_by_others(path)
    if problem:
        return Finding("hub users", f"{value}: {problem}", NOTE, f"chmod 600 {path}")
    return Finding("hub users", value)


def gpus(hub: HubSettings, runtime: Runtime) -> Finding:
    """Compare the GPUs that seats need with those of this machine."""
    assert runtime.engine is not None
    try:
        placement = hub_gpus.place(runtime, hub)
        described = hub_gpus.describe(hub, placement, runtime.engine)
    except Card as card:
        return from_card("hub GPUs", card)
    at_once = described.seats if described else 0
    value = f"enough for {at_once} of {hub.seats} seats at once, with {hub.gpus} for each"
    if at_once >= hub.seats:
        return Finding("hub GPUs", value)
    return Finding("hub GPUs", f"{value}; the other learners wait", NOTE if at_once else FIX)


def image(hub: HubSettings, runtime: Runtime) -> Finding:
    """Check that the image of the hub and its seats is there and up to date."""
    assert runtime.engine is not None
    try:
        placement = hub_gpus.place(runtime, hub)
        name = seat_service(placement.stack)
        service = lab_service.resolve(name, placement, {})
        reason = why_build(runtime.engine, service)
    except Card as card:
        return from_card("hub image", card)
    if not reason:
        return Finding("hub image", f"{service['image']}: up to date")
    fix = "invoke hub builds it, and starts the hub"
    return Finding("hub image", f"{service['image']}: {reason}", FIX, fix)


def image_for_seats(engine: Engine, placement: Placement, folder: Path = WORKSHOP) -> str:
    """Return the hub's image, in which `preflight --seats` starts seats; "" if it isn't there.

    Raises:
        Card: If compose.yaml can't be read.
    """
    if not (folder / SETTINGS_FILE).exists():
        return ""
    service = lab_service.resolve(seat_service(placement.stack), placement, {})
    return "" if why_build(engine, service) else name_to_run(engine, service)


def port(hub: HubSettings, own_ports: Collection[int]) -> Finding:
    """Check that the hub can listen, or listens already.

    Args:
        hub: hub.toml.
        own_ports: The ports on which the hub of this clone listens now.
    """
    where = f"{hub.address}:{hub.port}"
    try:
        taken = is_taken(hub.address, hub.port)
    except OSError as error:
        fix = f"in {WORKSHOP / SETTINGS_FILE}, set an address that this lists: ip address"
        return Finding("hub port", f"can't listen on {where}: {error.strerror}", FIX, fix)
    if not taken:
        return Finding("hub port", f"{where} is free")
    if hub.port in own_ports:
        return Finding("hub port", f"the hub runs on {where}")
    fix = f"{_set('port', hub.port + 1)}; this names the program: ss -ltnp"
    return Finding("hub port", f"another program listens on {where}", FIX, fix)


def default_port(folder: Path = WORKSHOP) -> Iterator[Finding]:
    """Yield a note if another program listens where a new hub would listen."""
    hub = hub_settings.check(folder / SETTINGS_FILE, hub_folder.new_settings())
    if is_taken(hub.address, hub.port):
        value = f"another program listens on {hub.address}:{hub.port}"
        yield Finding("hub port", f"{value}; a hub would need another port", NOTE, "ss -ltnp")


def https(hub: HubSettings, folder: Path) -> Finding:
    """Check that certificate and key fit together and need no password, and the dates."""
    file = folder / hub.certificate
    try:
        certificate.refuse_no_pair(file, folder / hub.key)
        begin, end = certificate.validity(file)
    except Card as card:
        return from_card("hub HTTPS", card)
    except ValueError as error:
        value = f"the dates of {hub.certificate} can't be read: {error}"
        return Finding("hub HTTPS", value, FIX, f"openssl x509 -noout -dates -in {file}")
    return _judge_dates(hub, begin, end)


def _judge_dates(hub: HubSettings, begin: datetime, end: datetime) -> Finding:
    """Judge from when until when the certificate is valid."""
    now = datetime.now(UTC)
    days = "%Y-%m-%d %H:%M UTC"
    fix = f"renew {hub.certificate}, then: invoke hub"
    if now < begin:
        value = f"{hub.certificate} isn't valid before {begin:{days}}"
        return Finding("hub HTTPS", value, FIX, f"date shows this machine's clock; or {fix}")
    if end <= now:
        value = f"{hub.certificate} expired on {end:{days}}: browsers refuse it"
        return Finding("hub HTTPS", value, FIX, fix)
    value = f"{hub.certificate} and {hub.key} fit together, valid until {end:{days}}"
    if end - now < TIME_TO_RENEW:
        return Finding("hub HTTPS", f"{value}: {(end - now).days} days to renew it", NOTE, fix)
    return Finding("hub HTTPS", value)


def _set(name: str, value: int) -> str:
    return f"in {WORKSHOP / SETTINGS_FILE}: {name} = {value}"
