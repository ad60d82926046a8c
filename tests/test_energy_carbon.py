"""Carbon factors: providers on a local web service, fallback, intervals, the secret token."""

import re
import time

import pytest
from carbon_services import NOW, TOKEN, france, rte_answer, zone_answer
from local_server import serve

from sv.config import read_config
from sv.energy.carbon import FactorFeed
from sv.energy.config import EnergyConfig
from sv.energy.units import parse_utc
from sv.errors import UsageError


def ask_once(config, environ=None, timeout_s=10.0):
    feed = FactorFeed(config, environ or {})
    feed.start()
    (factor,) = feed.finish(timeout_s)
    return factor


def test_rte_is_asked_for_its_newest_value():
    with serve(lambda _: rte_answer(23)) as (url, asked):
        factor = ask_once(france(url, "rte", "owid"))
    assert (factor.provider, factor.g_per_kwh, factor.zone) == ("rte", 23.0, "FRA")
    assert (factor.scope, factor.basis) == ("direct", "production")
    assert factor.observed_utc == NOW and factor.fallback_from == ()
    assert abs(parse_utc(factor.valid_from_utc) - time.time()) < 20
    assert asked[0].path == "/eco2mix-national-tr/records"
    assert asked[0].query["order_by"] == "date_heure desc" and asked[0].query["limit"] == "1"
    assert asked[0].query["where"] == "taux_co2 is not null"


def test_electricity_maps_gets_the_token_in_a_header_alone():
    with serve(lambda _: zone_answer(41.5)) as (url, asked):
        factor = ask_once(france(url, "electricity_maps"), {"EMAPS_API_TOKEN": f"{TOKEN}\n"})
    assert (factor.g_per_kwh, factor.zone, factor.estimated) == (41.5, "FR", True)
    assert (factor.scope, factor.basis) == ("lifecycle", "consumption")
    assert asked[0].path == "/v3/carbon-intensity/latest"
    assert asked[0].query["shouldUseFallbackCallerLookup"] == "false"
    assert asked[0].query["disableEstimations"] == "false"
    assert asked[0].headers["auth-token"] == TOKEN
    assert TOKEN not in str(asked[0].query) and TOKEN not in str(factor)


BAD = {
    "unauthorised": ((401, {"error": f"bad token {TOKEN}"}), "HTTP 401 Unauthorized"),
    "broken": ((500, b"oops"), "HTTP 500"),
    "moved": ((302, b"", {"Location": "http://127.0.0.1:1/"}), "HTTP 302 Found: it has moved"),
    "garbage": ((200, b"<html>" + TOKEN.encode()), "not JSON"),
    "a list": ((200, [1]), "in the answer"),
    "zero": (zone_answer(0), "carbonIntensity is 0"),
    "negative": (zone_answer(-3), "carbonIntensity is -3"),
    "NaN": (zone_answer(float("nan")), "carbonIntensity is nan"),
    "true": (zone_answer(True), "carbonIntensity is True"),
    "null": (zone_answer(None), "carbonIntensity is None"),
    "another zone": (zone_answer(40, zone="DE"), "another zone than FR"),
    "another scope": (zone_answer(40, emissionFactorType="direct"), "not of lifecycle"),
    "no time": (zone_answer(40, datetime=None), "without a datetime"),
    "not gzip": ((200, b"plain", {"Content-Encoding": "gzip"}), "not gzip"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_provider_that_fails_falls_back_and_says_so(kind):
    answer, why = BAD[kind]
    with serve(lambda _: answer) as (url, _):
        factor = ask_once(france(url, "electricity_maps", "owid"), {"EMAPS_API_TOKEN": TOKEN})
    assert (factor.provider, factor.g_per_kwh) == ("owid", 44.179)
    (said,) = factor.fallback_from
    assert said.startswith("electricity_maps: ") and why in said
    assert TOKEN not in str(factor)


@pytest.mark.parametrize(
    "answer", [(200, {"results": []}), rte_answer(0), rte_answer(None), (200, {})]
)
def test_rte_without_a_value_is_a_failure_and_no_zero(answer):
    with serve(lambda _: answer) as (url, _):
        alone = ask_once(france(url, "rte"))
        second = ask_once(france(url, "rte", "owid"))
    assert alone.provider == "none" and alone.g_per_kwh is None and "rte: " in alone.reason
    assert second.provider == "owid" and second.fallback_from == alone.fallback_from


def test_a_slow_provider_does_not_hold_up_the_end():
    def answer(_):
        time.sleep(1.0)
        return rte_answer(23)

    with serve(answer) as (url, _):
        began = time.monotonic()
        factor = ask_once(france(url, "rte", "owid"), timeout_s=0.1)
        assert time.monotonic() - began < 0.8
    assert factor.provider == "owid" and "no answer before the stage had ended" in str(factor)


def test_nobody_listens():
    factor = ask_once(france("http://127.0.0.1:9", "rte", "owid"))
    assert factor.provider == "owid" and "no connection (Connection refused)" in str(factor)


def test_estimates_can_be_refused_and_a_missing_token_is_said():
    with serve(lambda _: zone_answer(40)) as (url, asked):
        config = france(url, "electricity_maps", electricity_maps_estimates=False)
        refused = ask_once(config, {"EMAPS_API_TOKEN": TOKEN})
        assert asked[0].query["disableEstimations"] == "true"
        without = ask_once(config)
        odd = ask_once(config, {"EMAPS_API_TOKEN": f"{TOKEN}\u00e9"})
    assert "estimates are refused" in refused.reason and "EMAPS_API_TOKEN" in without.reason
    assert "characters" in odd.reason and TOKEN not in odd.reason
    assert len(asked) == 1


def test_it_is_asked_again_and_a_failure_is_not_for_ever():
    answers = [rte_answer(20), (500, b""), rte_answer(30)]
    with serve(lambda _: answers.pop(0) if len(answers) > 1 else answers[0]) as (url, asked):
        feed = FactorFeed(france(url, "rte", "owid", carbon_refresh_s=0.1), {})
        feed.start()
        factors = []
        deadline = time.monotonic() + 10
        while len(asked) < 6 and time.monotonic() < deadline:
            factors += feed.drain()
            time.sleep(0.02)
        factors += feed.finish(1.0)
    assert [factor.provider for factor in factors] == ["rte", "owid", "rte"]
    assert [factor.g_per_kwh for factor in factors] == [20.0, 44.179, 30.0]
    starts = [factor.valid_from_utc for factor in factors]
    assert starts == sorted(starts)


def test_without_a_network_provider_there_is_no_thread_and_one_factor():
    feed = FactorFeed(EnergyConfig(country="DEU", carbon_year=2023), {})
    (factor,) = feed.drain()
    feed.start()
    assert feed.drain() == [] and feed.finish(0.0) == []
    assert (factor.provider, factor.year, factor.g_per_kwh) == ("owid", 2023, 371.311)
    assert factor.valid_from_utc is None
    (fixed,) = FactorFeed(EnergyConfig(g_per_kwh=12.5, g_per_kwh_source="contract"), {}).drain()
    assert (fixed.provider, fixed.g_per_kwh, fixed.source) == ("fixed", 12.5, "contract")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('carbon = ["rte", "oiwd"]', "no provider 'oiwd'"),
        ('carbon = ["owid", "rte"]', "'owid' always answers"),
        ('carbon = ["rte", "rte"]', "each provider once"),
        ("carbon = []", "at least one"),
        ('carbon = ["fixed"]', "'fixed' if and only if g_per_kwh"),
        ('carbon = ["owid"]\ng_per_kwh = 3\ng_per_kwh_source = "x"', "'fixed' if and only if"),
        ('electricity_maps_url = "http://api.example.org"', "must begin with https"),
        ('rte_url = "https://me:secret@example.org"', "without a user"),
        ('electricity_maps_token_variable = "aB3xyz"', "not the token itself"),
        ('electricity_maps_scope = "marginal"', "lifecycle or direct"),
    ],
)
def test_wrong_configs_are_refused(tmp_path, lines, message):
    path = tmp_path / "energy.toml"
    path.write_text(f"{lines}\n")
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        read_config(path, EnergyConfig)
    assert "aB3xyz" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"country": "XYZ"}, "no carbon factor for country 'XYZ'"),
        ({"country": "FRA", "carbon_year": 1999}, "no carbon factor of 1999"),
        ({"country": "DEU", "carbon": ("rte", "owid")}, "knows France alone"),
        ({"carbon": ("electricity_maps",)}, "set electricity_maps_zone"),
        (
            {"country": "DEU", "carbon": ("electricity_maps",), "electricity_maps_zone": "FR"},
            "does not lie in DEU",
        ),
    ],
)
def test_what_nobody_could_answer_is_refused_at_once(settings, message):
    with pytest.raises(UsageError, match=message):
        FactorFeed(EnergyConfig(**settings), {})
