"""The machine's power from its management controller over HTTP: Redfish.

Only by configuration: it is a question over the network, with a password. User and password come
from the environment and are written nowhere; no redirection is followed and no proxy used, so
that they reach the controller alone.
"""

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from sv.energy.config import EnergyConfig
from sv.energy.sensors.polled import Measurement, SensorError
from sv.energy.units import UNITS_PER_W

TIMEOUT_S = 5.0
LONGEST_ANSWER = 1 << 22  # bytes


def build_redfish(config: EnergyConfig, environ: Mapping[str, str]) -> Callable[[], Measurement]:
    """Build the question to the controller of ``config.redfish_url``.

    Returns:
        A function that gives the power of the configured chassis in mW.

    Raises:
        SensorError: A variable that the config names is not set.
    """
    headers = {"Accept": "application/json", "OData-Version": "4.0"}
    if config.redfish_user_variable:
        names = (config.redfish_user_variable, config.redfish_password_variable)
        for name in names:
            if not environ.get(name):
                raise SensorError(f"the environment variable {name} is not set")
        token = base64.b64encode(":".join(environ[name] for name in names).encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    context = ssl.create_default_context()
    if not config.redfish_verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _Stay()
    )
    root = config.redfish_url.rstrip("/")

    def measure() -> Measurement:
        power_mw, members = 0.0, []
        for chassis in config.redfish_chassis:
            url = f"{root}/redfish/v1/Chassis/{quote(chassis, safe='')}/Power"
            answer = _get(opener, urllib.request.Request(url, headers=headers))
            for name, power_w in choose_powers(answer, config.redfish_power_control):
                members.append(f"{chassis}: {name}")
                power_mw += power_w * UNITS_PER_W["mW"]
        if power_mw <= 0:
            raise SensorError("the controller says 0 W: it has no reading")
        return Measurement(round(power_mw), facts={"summed": members})

    return measure


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would take the password along."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse."""


def _get(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Any:
    url = request.full_url
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read(LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        raise SensorError(f"{url}: HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        raise SensorError(f"{url}: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise SensorError(f"{url}: {error}") from error
    except ValueError as error:
        raise SensorError(f"{url}: the answer is not JSON") from error


def choose_powers(answer: Any, wanted: tuple[str, ...]) -> list[tuple[str, float]]:
    """Choose name and watts of the PowerControl members of one chassis.

    Args:
        answer: The chassis's Power resource.
        wanted: MemberIds to take; empty: all. Some makers list the whole machine and its
            processors side by side, which must not be added.

    Raises:
        SensorError: A member that is wanted has no figure, or there is none at all.
    """
    members = answer.get("PowerControl") if isinstance(answer, dict) else None
    chosen = []
    for i, member in enumerate(members if isinstance(members, list) else []):
        if not isinstance(member, dict):
            continue
        member_id = str(member.get("MemberId", i))
        if wanted and member_id not in wanted:
            continue
        power_w = member.get("PowerConsumedWatts")
        if isinstance(power_w, bool) or not isinstance(power_w, int | float) or power_w < 0:
            raise SensorError(f"PowerControl {member_id} has no PowerConsumedWatts now")
        chosen.append((f"{member_id} {member.get('Name', '')}".strip(), float(power_w)))
    if not chosen or (wanted and len(chosen) != len(wanted)):
        raise SensorError("the chassis lacks a PowerControl member that is to be summed")
    return chosen
