"""Carbon factors: providers on a local web service, their history, a metered stage that asks them.

Also fallback, the secret token, and the emissions of an old energy at another provider's factor.
"""

import csv
import json
import re
import signal
import sys
import time

import pytest
from conftest import ROOT
from local_server import serve
from metered import DRAM, ESTIMATE, PACKAGE, Runner, end, head, mark, sample, write_journal
from nodes_tree import lines

from sv.config import read_config
from sv.energy import web
from sv.energy.carbon_web import choose_carbon, fetch_history, recompute_carbon
from sv.energy.config import EnergyConfig
from sv.energy.factors import FactorFeed, find_factor, is_usable, read_table
from sv.energy.record import read_record
from sv.energy.sidecar import format_summary, write_sidecar
from sv.energy.units import format_utc, parse_utc
from sv.energy.web import FetchError
from sv.errors import SvError, UsageError
from sv.report.output import build_tables
from sv.report.results import collect_results

LIST = ROOT.parent / "shared/data/carbon/owid_carbon_intensity.csv"
TOKEN = "k3ep-me-s3cret"
NOW = "2026-11-22T10:15:00Z"
T0 = parse_utc("2026-11-22T10:00:00Z")
BURN = "import time\nt = time.time() + %s\nwhile time.time() < t: pass"


def rte_answer(*values, at=NOW):
    """What Opendatasoft answers: a quarter of an hour between two values."""
    times = [format_utc(parse_utc(at) + 900 * n).replace("Z", "+00:00") for n in range(len(values))]
    return 200, [{"taux_co2": v, "date_heure": t} for v, t in zip(values, times, strict=True)]


def zone_answer(value, **more):
    facts = {"zone": "FR", "datetime": "2026-11-22T10:00:00.000Z", "isEstimated": True}
    return 200, {**facts, "emissionFactorType": "lifecycle", "carbonIntensity": value, **more}


def france(url, *names, **more):
    urls = {"rte_url": url, "electricity_maps_url": url}
    return EnergyConfig(country="FRA", carbon=names, **{**urls, **more})


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
    assert asked[0].path == "/eco2mix-national-tr/exports/json"
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
    "grams for a MWh": (zone_answer(41_500), "carbonIntensity is 41500; a grid has over 0"),
    "just above": (zone_answer(1500.1), "carbonIntensity is 1500.1"),
    "infinite": (zone_answer(float("inf")), "carbonIntensity is inf"),
    "true": (zone_answer(True), "carbonIntensity is True"),
    "null": (zone_answer(None), "carbonIntensity is None"),
    "another zone": (zone_answer(40, zone="DE"), "another zone than FR"),
    "another scope": (zone_answer(40, emissionFactorType="direct"), "not of lifecycle"),
    "no time": (zone_answer(40, datetime=None), "without a datetime"),
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
    "answer",
    [(200, []), (200, {}), (200, [1])] + [rte_answer(v) for v in (0, -1, None, 210_000, "210")],
)
def test_rte_without_a_value_is_a_failure_and_no_zero(answer):
    with serve(lambda _: answer) as (url, _):
        alone = ask_once(france(url, "rte"))
        second = ask_once(france(url, "rte", "owid"))
    assert alone.provider == "none" and alone.g_per_kwh is None and "rte: " in alone.reason
    assert second.provider == "owid" and second.fallback_from == alone.fallback_from


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5_minutes", 300), ("15_minutes", 900), ("hourly", 3600), (None, 3600), ("weekly", None)],
)
def test_a_value_of_electricity_maps_holds_as_long_as_it_says(said, seconds):
    more = {} if said is None else {"temporalGranularity": said}
    with serve(lambda _: zone_answer(41.5, **more)) as (url, _):
        factor = ask_once(france(url, "electricity_maps"), {"EMAPS_API_TOKEN": TOKEN})
    until = None if seconds is None else format_utc(parse_utc(factor.observed_utc) + seconds)
    assert factor.g_per_kwh == 41.5 and factor.valid_to_utc == until


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
        ('carbon = ["rte", "oiwd"]', "carbon must be one of owid, fixed"),
        ('carbon = ["owid", "rte"]', "'owid' always answers"),
        ('carbon = ["rte", "rte"]', "each provider once"),
        ("carbon = []", "at least one"),
        ('carbon = ["fixed"]', "'fixed' if and only if g_per_kwh"),
        ('g_per_kwh = 30000\ng_per_kwh_source = "x"', "g_per_kwh must be 0 to 1500 g"),
        ('g_per_kwh = nan\ng_per_kwh_source = "x"', "g_per_kwh must be"),
        ('carbon = ["owid"]\ng_per_kwh = 3\ng_per_kwh_source = "x"', "'fixed' if and only if"),
        ('electricity_maps_url = "http://api.example.org"', "must begin with https"),
        ('rte_url = "https://me:secret@example.org"', "without a user"),
        ('electricity_maps_token_variable = "aB3xyz"', "not the token itself"),
        ('electricity_maps_scope = "marginal"', "one of lifecycle, direct"),
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


@pytest.mark.parametrize(
    ("written", "meant"),
    [("UK", "GBR, United Kingdom"), ("el", "GRC, Greece"), ("GR", "GRC"), ("tw", "TWN, Taiwan")]
    + [("Turkey", "TUR"), ("germany", "DEU"), ("FRN", "FRA"), ("Roumania", "ROU, Romania")],
)
def test_another_word_for_a_country_suggests_its_code(written, meant):
    with pytest.raises(UsageError, match=f"'{written}' .did you mean {meant}"):
        FactorFeed(EnergyConfig(country=written), {})


def test_the_table_has_every_country_with_its_year():
    rows = read_table()
    zones = [row["zone"] for row in rows]
    assert zones == sorted(zones) and len(set(zones)) == 213  # and the world
    codes = {row["zone"]: row["iso2"] for row in rows}
    assert len(set(codes.values())) == 213 and codes["OWID_WRL"] == ""
    for row in rows:
        assert is_usable(float(row["g_per_kwh"])) and 2009 <= int(row["year"]) <= 2024, row
    new = {zone: find_factor(zone) for zone in ("TWN", "ISR")}
    assert [(f.g_per_kwh, f.year) for f in new.values()] == [(642.378, 2023), (582.927, 2022)]
    assert "carried by CodeCarbon" in new["TWN"].source and new["TWN"].vintage is None
    assert (find_factor("FRA").g_per_kwh, find_factor("FRA", 2023).g_per_kwh) == (44.179, 55.275)


@pytest.mark.skipif(not LIST.is_file(), reason=f"no {LIST}")
def test_the_table_has_the_countries_of_the_list():
    """At its figures, but for those of which it has a newer year."""
    with open(LIST, newline="") as file:
        theirs = list(csv.DictReader(file))
    assert len(theirs) == 212
    for row in theirs:
        ours = find_factor(row["iso3"])
        same = (ours.g_per_kwh, ours.year) == (float(row["g_per_kwh"]), int(row["year"]))
        assert same or (ours.year > int(row["year"]) and ours.vintage == "2025-07"), row


def write_settings(*lines):
    return "\n".join(['country = "FRA"', "period_s = 0.05", *lines, ""])


def find_leaks(folder):
    return [p for p in folder.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]


def test_a_factor_that_changes_while_a_stage_runs(tmp_path):
    def answer(_):
        is_later = len(questions) > 4
        return rte_answer(100, at="2026-11-22T10:30:00Z") if is_later else rte_answer(20)

    with serve(answer) as (url, questions):
        lines = ['carbon = ["rte", "owid"]', f'rte_url = "{url}"', "carbon_refresh_s = 0.2"]
        meter = Runner(tmp_path, write_settings(*lines, "pue = 2.0"))
        status, _, err = meter.run(sys.executable, "-c", BURN % 2.5)
    assert status == 0, err
    sidecar = meter.sidecar()
    carbon = sidecar.carbon
    assert (carbon.provider, carbon.scope, carbon.basis) == ("rte", "direct", "production")
    assert [interval.g_per_kwh for interval in carbon.intervals] == [20.0, 100.0]
    joules = [interval.energy_j for interval in carbon.intervals]
    assert sum(joules) / 3.6e6 == pytest.approx(sidecar.energy_kwh, rel=1e-9)
    by_hand_g = 2.0 * (joules[0] * 20 + joules[1] * 100) / 3.6e6
    assert sidecar.co2_g == pytest.approx(by_hand_g, rel=1e-9)
    assert 20 < carbon.g_per_kwh < 100
    factors = [line for line in meter.journal.read_text().splitlines() if '"factor"' in line]
    assert len(factors) == 2


def test_a_factor_in_other_units_is_refused_and_the_next_one_counts(tmp_path):
    with serve(lambda _: rte_answer(210_000)) as (url, _):
        lines = ['carbon = ["rte", "owid"]', f'rte_url = "{url}"']
        meter = Runner(tmp_path, write_settings(*lines))
        status, _, err = meter.run(sys.executable, "-c", BURN % 0.3)
    sidecar = meter.sidecar()
    assert status == 0 and sidecar.carbon.provider == "owid"
    assert sidecar.co2_g == pytest.approx(sidecar.energy_kwh * 44.179)
    (why,) = sidecar.carbon.fallback_from
    assert why.startswith("rte: taux_co2 is 210000") and why in err


def test_a_meter_that_is_killed_has_its_factor(tmp_path):
    with serve(lambda _: rte_answer(20)) as (url, _):
        meter = Runner(tmp_path, write_settings('carbon = ["rte"]', f'rte_url = "{url}"'))
        process = meter.start(sys.executable, "-c", BURN % 20)
        deadline = time.monotonic() + 15
        while not (meter.journal.exists() and '"factor"' in meter.journal.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    deadline = time.monotonic() + 15
    while "left alone" in meter.rebuild().stderr:
        assert time.monotonic() < deadline
    sidecar = meter.sidecar()
    assert sidecar.status == "interrupted" and sidecar.carbon.provider == "rte"
    assert sidecar.co2_g == pytest.approx(sidecar.energy_kwh * 20)


def test_the_token_is_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("EMAPS_API_TOKEN", TOKEN)
    answers = [(401, {"error": TOKEN}), zone_answer(50)]
    for answer in answers:
        with serve(lambda _, answer=answer: answer) as (url, asked):
            lines = ['carbon = ["electricity_maps", "owid"]', f'electricity_maps_url = "{url}"']
            meter = Runner(tmp_path, write_settings(*lines))
            status, out, err = meter.run(sys.executable, "-c", BURN % 0.3)
        assert status == 0 and asked[0].headers["auth-token"] == TOKEN
        assert TOKEN not in out + err
    sidecar = meter.sidecar()
    first, second = (attempt.carbon for attempt in sidecar.attempts)
    assert first.provider == "owid" and first.scope == "lifecycle"
    assert first.fallback_from == ("electricity_maps: HTTP 401 Unauthorized",)
    assert (second.provider, second.basis) == ("electricity_maps", "consumption")
    assert second.estimated is True and second.fallback_from == ()
    assert len(list(tmp_path.rglob("*"))) >= 3 and not find_leaks(tmp_path)


def test_nothing_is_asked_unless_the_config_says_so(tmp_path):
    with serve(lambda _: rte_answer(20)) as (url, asked):
        lines = [f'rte_url = "{url}"', f'electricity_maps_url = "{url}"']
        meter = Runner(tmp_path, write_settings(*lines))
        assert meter.run("true")[0] == 0
    assert not asked and meter.sidecar().carbon.provider == "owid"


@pytest.fixture
def energy(tmp_path):
    """A stage of 1,800 s at 2 kW (1 kWh) from 10:00, with its journal."""
    journal = tmp_path / "energy" / "05_train.journal.jsonl"
    lines = [head(PACKAGE, DRAM, started_utc="2026-11-22T10:00:00.000Z")]
    for second in range(0, 1801, 10):
        raw = {"rapl__package__0": 1_500_000_000 * second, "rapl__dram__0": 500_000_000 * second}
        lines.append(sample(float(second), **{k: v % 262_143_328_850 for k, v in raw.items()}))
    write_journal(journal, *lines, end(1800.0))
    write_sidecar(journal)
    return journal.parent


def recompute(folder, config, environ=None):
    path = folder / "05_train.json"
    return recompute_carbon(path, read_record(path), config, environ or {})


def test_old_energy_at_another_factor(energy):
    before = (energy / "05_train.json").read_bytes()
    assert json.loads(before)["energy_kwh"] == pytest.approx(1.0)
    carbon = recompute(energy, choose_carbon("owid", country="deu", year=2023))
    assert carbon.co2_g == pytest.approx(1.5 * 371.311), "the sidecar's PUE"
    assert (carbon.provider, carbon.zone, carbon.year) == ("owid", "DEU", 2023)
    assert carbon.scope == "lifecycle" and sum(i.energy_j for i in carbon.intervals) == 3.6e6
    carbon = recompute(energy, choose_carbon("fixed", g_per_kwh=12.5))
    assert (carbon.provider, carbon.g_per_kwh) == ("fixed", 12.5)
    assert carbon.co2_g == pytest.approx(18.75)
    assert (energy / "05_train.json").read_bytes() == before


def test_old_energy_at_rtes_history(energy):
    with serve(lambda a: rte_answer(10, 20, 40, at="2026-11-22T09:45:00Z")) as (url, _):
        carbon = recompute(energy, france(url, "rte"))
    assert [i.g_per_kwh for i in carbon.intervals] == [20.0, 40.0]
    assert carbon.co2_g == pytest.approx(1.5 * (0.5 * 20 + 0.5 * 40), rel=1e-3)
    assert carbon.scope == "direct"
    (energy / "05_train.journal.jsonl").unlink()
    with pytest.raises(SvError, match="needs the journal"):
        recompute(energy, choose_carbon("rte"))


@pytest.mark.parametrize("value", [210_000, -5])
def test_a_history_in_other_units_is_refused(energy, value):
    answer = rte_answer(10, value, 40, at="2026-11-22T09:45:00Z")
    with serve(lambda _: answer) as (url, _), pytest.raises(SvError, match=f"taux_co2 is {value}"):
        recompute(energy, france(url, "rte"))
    with pytest.raises(UsageError, match="g_per_kwh must be"):
        choose_carbon("fixed", g_per_kwh=value)


def test_a_journal_of_another_energy_is_refused(energy):
    values = json.loads((energy / "05_train.json").read_text())
    (energy / "05_train.json").write_text(json.dumps({**values, "energy_kwh": 2.0}))
    with pytest.raises(SvError, match="--rebuild"):
        recompute(energy, choose_carbon("rte"))


def test_a_history_that_fails_has_no_fallback(energy):
    with serve(lambda _: (403, {"error": TOKEN})) as (url, _):
        config = france(url, "electricity_maps")
        with pytest.raises(SvError, match="electricity_maps: HTTP 403 Forbidden$"):
            recompute(energy, config, {"EMAPS_API_TOKEN": TOKEN})
        with pytest.raises(SvError, match="EMAPS_API_TOKEN"):
            recompute(energy, config)


@pytest.mark.parametrize(
    ("provider", "more", "is_usage", "message"),
    [
        ("owid", {}, False, "no country given"),
        ("owid", {"country": "XYZ"}, True, "no carbon factor for country"),
        ("fixed", {}, True, "'fixed' if and only if g_per_kwh"),
        ("rte", {"country": "DEU"}, True, "knows France alone"),
        ("nobody", {}, True, "carbon must be one of"),
    ],
)
def test_providers_that_cannot_answer(energy, provider, more, is_usage, message):
    with pytest.raises(SvError, match=message) as caught:
        recompute(energy, choose_carbon(provider, **more))
    assert isinstance(caught.value, UsageError) is is_usage


def test_the_history_of_forty_days_is_asked_once():
    days = 40
    values = [10 + n % 90 for n in range(96 * days)]
    at = "2026-09-01T00:00:00Z"
    records = rte_answer(*values, at=at)[1]

    def answer(asked):
        if not asked.path.startswith("/eco2mix-national-tr"):
            return 200, []
        begin, end = map(parse_utc, re.findall(r"date'([^']*)'", asked.query["where"]))
        return 200, [r for r in records if begin <= parse_utc(r["date_heure"]) <= end]

    start_s = parse_utc(at)
    with serve(answer) as (url, asked):
        factors = fetch_history("rte", france(url, "rte"), {}, start_s, start_s + 86_400 * days)
    assert [factor.g_per_kwh for factor in factors] == values
    assert len(asked) == 2 and "limit" not in asked[0].query
    starts = [parse_utc(factor.valid_from_utc) for factor in factors]
    assert starts == [start_s + 900 * n for n in range(96 * days)]


def test_older_days_come_from_the_consolidated_set():
    def answer(asked):
        old = asked.path == "/eco2mix-national-cons-def/exports/json"
        return rte_answer(31, 33) if old else rte_answer(34, at="2026-11-22T10:30:00Z")

    start_s = parse_utc(NOW)
    with serve(answer) as (url, _):
        factors = fetch_history("rte", france(url, "rte"), {}, start_s, start_s + 1800)
    assert [factor.g_per_kwh for factor in factors] == [31.0, 34.0]
    assert "cons-def" in factors[0].source and "national-tr" in factors[1].source


def test_history_of_electricity_maps_is_asked_ten_days_at_a_time():
    def answer(asked):
        begin, end = parse_utc(asked.query["start"]), parse_utc(asked.query["end"])
        hours = range(int(begin // 3600), int(end // 3600))
        data = [zone_answer(50 + h % 24, datetime=format_utc(h * 3600))[1] for h in hours]
        data[3]["carbonIntensity"] = None
        return 200, {"zone": "FR", "temporalGranularity": "15_minutes", "data": data}

    with serve(answer) as (url, asked):
        config, environ = france(url, "electricity_maps"), {"EMAPS_API_TOKEN": TOKEN}
        factors = fetch_history("electricity_maps", config, environ, T0, T0 + 86_400 * 12)
    assert len(asked) == 2 and asked[0].path == "/v3/carbon-intensity/past-range"
    assert len(factors) == 12 * 24 + 2 - 2, "two hours are unknown"
    first = factors[0]
    assert parse_utc(first.valid_to_utc) - parse_utc(first.valid_from_utc) == 900


def test_an_answer_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(web, "MAX_BYTES", 6_000)
    with (
        serve(lambda _: rte_answer(*[20] * 100)) as (url, _),
        pytest.raises(FetchError, match="longer than 6000 bytes"),
    ):
        fetch_history("rte", france(url, "rte"), {}, T0, T0 + 3600)


def run_at(start_s, energy_kwh, g_per_kwh, reported, *, pue=1.0, exit_code=0):
    """Give an attempt of 1 kW with one mark, ``g_per_kwh`` None: no provider answered."""
    factor = {"provider": "rte" if g_per_kwh else "none", "g_per_kwh": g_per_kwh}
    begin = {"t_s": float(start_s), "awake_s": float(start_s), "period_s": 10.0}
    made = [
        head(
            PACKAGE, started_utc=format_utc(T0 + start_s), carbon={**factor, "reason": "no answer"},
            pue={"value": pue, "source": "test"}, **begin,
        )
    ]  # fmt: skip
    for second in range(start_s, start_s + round(energy_kwh * 3600) + 1, 10):
        uj = 1_000_000_000 * second % 262_143_328_850
        made.append(sample(float(second), rapl__package__0=uj))
    return [*made, mark(float(start_s + 10), reported), end(float(second), exit_code)]


def write_run(tmp_path, *attempts):
    """Write the training of a model in several attempts; return its sidecar and Table 3."""
    journal = tmp_path / "exp" / "resnet50_d" / "energy" / "05_train.journal.jsonl"
    write_journal(journal, *(line for attempt in attempts for line in attempt))
    sidecar = write_sidecar(journal)
    tables = build_tables(collect_results(tmp_path / "data", tmp_path / "exp"))
    return sidecar, next(table for table in tables if table.name == "table3")


def test_co2_of_a_part_of_the_energy_is_marked_with_its_reason(tmp_path):
    first = run_at(0, 1.0, None, "checkpoint", exit_code=1)
    sidecar, table = write_run(tmp_path, first, run_at(4000, 0.1, 30.0, "resumed"))
    assert sidecar.energy_kwh == pytest.approx(1.1) and sidecar.reason is None
    assert sidecar.co2_g == pytest.approx(3.0) and sidecar.co2_all_g is None
    why = "no carbon factor for 90.9% of the energy"
    assert sidecar.carbon.reason == why
    assert f", 3 gCO2e ({why}), " in format_summary(sidecar)
    cells = table.rows[0].cells
    assert cells["energy_kwh"].marks == () and cells["co2_kg"].marks == ("incomplete",)
    assert cells["co2_all_kg"].value is None and cells["co2_all_kg"].reason == f"no CO2: {why}"
    (note,) = [note.text for note in table.notes if note.mark == "incomplete"]
    assert note == f"incomplete or disputed: CO2: {why}"


def come(t_s, g_per_kwh, wall_s, age_s=900.0):
    """Give a factor of RTE that came at ``t_s``, when the wall clock said ``wall_s``."""
    observed = format_utc(T0 + wall_s - age_s)
    factor = {
        "provider": "rte", "g_per_kwh": g_per_kwh, "valid_from_utc": format_utc(T0 + wall_s),
        "observed_utc": observed,
    }  # fmt: skip
    return {"line": "factor", "t_s": float(t_s), "factor": factor}


@pytest.mark.parametrize("step_s", [3600, -3600, 6 * 3600])
def test_a_step_of_the_wall_clock_moves_no_factor(tmp_path, step_s):
    """2 h at 1 kW; NTP sets the clock after 10 minutes. Every half hour there is a new factor."""
    first, *samples, _, last = run_at(0, 2.0, 1.0, "checkpoint")
    factors = [come(1800 * i, 30.0 * (i + 1), 1800 * i + (step_s if i else 0)) for i in range(4)]
    del first["carbon"]
    sidecar, _ = write_run(tmp_path, [first, *samples, *factors, last])
    carbon = sidecar.carbon
    assert carbon.co2_g == pytest.approx(0.5 * (30 + 60 + 90 + 120))
    assert [i.energy_j for i in carbon.intervals] == pytest.approx([1.8e6] * 4)
    assert [i.t0 for i in carbon.intervals] == [format_utc(T0 + 1800 * i) for i in range(4)]
    assert [i.age_s for i in carbon.intervals] == [900.0] * 4
    assert carbon.stale_fraction == 0.0 and carbon.reason is None


def test_co2_without_one_of_the_machines_says_so_in_attempt_and_sidecar(tmp_path):
    silent = lines("b", 10, 60)
    silent[0]["carbon"] = {"provider": "none", "g_per_kwh": None, "reason": "rte: HTTP 500"}
    nodes = {"t.1.node0": lines("a", 10, 60), "t.1.node1": silent}
    runner = Runner(tmp_path)
    write_journal(runner.journal, *lines("login", 0, 70, ESTIMATE))
    for label, node in nodes.items():
        write_journal(runner.folder / f"05_train.nodes/1/{label}.journal.jsonl", *node)
    sidecar = write_sidecar(runner.journal)
    assert sidecar.energy_kwh * 3.6e6 == pytest.approx(5000 + 5000 + 420)
    assert sidecar.co2_g == pytest.approx((5000 + 420) * 50 * 1.5 / 3.6e6)
    why = "no carbon factor for 48% of the energy"
    assert sidecar.carbon.reason == sidecar.attempts[0].carbon.reason == why


def test_grams_at_several_pues_say_so(tmp_path):
    first = run_at(0, 1.0, 30.0, "checkpoint", exit_code=1)
    second = run_at(4000, 0.1, 30.0, "resumed", pue=1.5)
    sidecar, table = write_run(tmp_path, first, second)
    assert sidecar.co2_g == sidecar.co2_all_g == pytest.approx(1.0 * 30 + 0.1 * 30 * 1.5)
    assert sidecar.carbon.reason == "attempts at different PUEs: 1, 1.5"
    assert table.rows[0].cells["co2_kg"].marks == ("incomplete",)
    # At another factor too: those tables have the last attempt's PUE.
    path = tmp_path / "exp" / "resnet50_d" / "energy" / "05_train.json"
    carbon = recompute_carbon(path, sidecar, choose_carbon("fixed", g_per_kwh=30.0), {})
    assert carbon.co2_g == pytest.approx(49.5)
    assert carbon.reason == "attempts at different PUEs: 1, 1.5"
