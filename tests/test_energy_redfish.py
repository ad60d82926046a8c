"""The machine's power by Redfish: a management controller on this machine."""

import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
from base64 import b64encode

import pytest
from metered_node import build_meter

from sv.energy.config import EnergyConfig
from sv.energy.sensors import node
from sv.energy.sensors.node import SensorError, choose_powers


class Controller(http.server.BaseHTTPRequestHandler):
    """A management controller with two chassis, one with a part listed beside the whole."""

    power = {
        "Self": [{"MemberId": "0", "Name": "Server Power Control", "PowerConsumedWatts": 210.5}],
        "Left": [
            {"MemberId": "0", "Name": "All", "PowerConsumedWatts": 100},
            {"MemberId": "1", "Name": "CPU", "PowerConsumedWatts": 60},
        ],
        "Off": [{"MemberId": "0", "PowerConsumedWatts": None}],
    }

    def do_GET(self):  # noqa: N802
        chassis = self.path.split("/")[4]
        if chassis == "Elsewhere":
            self.send_response(302)
            self.send_header("Location", "/redfish/v1/Chassis/Self/Power")
            self.end_headers()
            return
        allowed = self.headers["Authorization"] == f"Basic {b64encode(b'root:calvin').decode()}"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        if allowed:
            self.wfile.write(json.dumps({"PowerControl": self.power[chassis]}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def redfish(run_cli, tmp_path):
    meter = build_meter(run_cli, tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Controller)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(chassis, more="", password="calvin", seconds="0.6"):
        settings = (
            f'node_power = "redfish"\nredfish_url = "http://127.0.0.1:{server.server_port}/"\n'
            f'redfish_chassis = {chassis}\nnode_period_s = 0.3\nredfish_user_variable = "BMC_U"\n'
            f'redfish_password_variable = "BMC_P"\n{more}'
        )
        env = {"BMC_U": "root", "BMC_P": password, "http_proxy": "http://127.0.0.1:1"}
        return meter(settings, "sleep", seconds, env=env)

    yield run
    server.shutdown()
    server.server_close()


def test_redfish_sums_the_chosen_chassis(redfish, tmp_path):
    more = 'redfish_power_control = ["0"]\n'
    channels, sidecar, samples, _ = redfish('["Self", "Left"]', more, seconds="1")
    machine = channels["node.redfish"]
    assert machine["energy_j"] == pytest.approx(310.5 * sidecar["duration_s"], rel=0.02)
    assert {sample["raw"]["node.redfish"] for sample in samples} == {None, 310_500}
    written = b"".join(path.read_bytes() for path in (tmp_path / "energy").iterdir())
    assert b"calvin" not in written and b64encode(b"root:calvin") not in written


@pytest.mark.parametrize(
    ("chassis", "password", "reason"),
    [
        ('["Self"]', "wrong", "HTTP 401"),
        ('["Elsewhere"]', "calvin", "HTTP 302"),
        ('["Off"]', "calvin", "no PowerConsumedWatts"),
        ('["Self"]', "", "BMC_P is not set"),
    ],
)
def test_redfish_that_gives_nothing(redfish, chassis, password, reason, tmp_path):
    channels, sidecar, _, _ = redfish(chassis, password=password, seconds="0.3")
    assert channels["node.redfish"]["kind"] == "unavailable" and channels["cpu_time"]["in_total"]
    said = json.dumps(sidecar) + (tmp_path / "energy/05_train.journal.jsonl").read_text()
    assert reason in said


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl for a certificate")
def test_an_unknown_certificate_is_refused_unless_the_config_says_so(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(words, check=True, capture_output=True)
    server = http.server.HTTPServer(("127.0.0.1", 0), Controller)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "redfish_url": f"https://127.0.0.1:{server.server_port}",
        "redfish_chassis": ("Self",),
        "redfish_user_variable": "U",
        "redfish_password_variable": "P",
    }
    environ = {"U": "root", "P": "calvin"}
    with pytest.raises(SensorError, match="CERTIFICATE_VERIFY_FAILED"):
        node.build_redfish(EnergyConfig(**settings), environ)()
    config = EnergyConfig(**settings, redfish_verify_tls=False)
    assert node.build_redfish(config, environ)().value == 210_500
    server.shutdown()
    server.server_close()


def test_a_controller_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(node, "REDFISH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = EnergyConfig(redfish_url=url, redfish_chassis=("Self",))
        with pytest.raises(SensorError, match="no answer in time"):
            node.build_redfish(config, {})()


def test_members_of_a_chassis_that_do_not_add_up():
    both = {"PowerControl": Controller.power["Left"]}
    assert choose_powers(both, ()) == [("0 All", 100.0), ("1 CPU", 60.0)]
    assert choose_powers(both, ("1",)) == [("1 CPU", 60.0)]
    for answer, wanted in [(both, ("2",)), ({}, ()), ([], ()), ({"PowerControl": [1]}, ())]:
        with pytest.raises(SensorError):
            choose_powers(answer, wanted)
