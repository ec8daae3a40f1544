"""Settings: file and environment make one frozen object; what is wrong is one line that names file, line and key."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from watchkeeper.settings import Gateway, Settings, SettingsError, as_toml, load, seconds


def write(folder: Path, text: str) -> Path:
    file = folder / "watchkeeper.toml"
    file.write_text(text)
    return file


def test_without_a_file_the_embedded_model_is_what_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load()
    assert settings.starts_model
    assert settings.all_upstreams[0].base_url == "http://127.0.0.1:8091/v1"
    assert settings.lake_uri == str(Path(".watchkeeper/lake"))


def test_a_file_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[gateway]\nport = 9001\n")
    monkeypatch.chdir(tmp_path)
    assert load().gateway.port == 9001


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "[gateway]\nport = 9001\nworkers = 2\n")
    monkeypatch.setenv("WATCHKEEPER_GATEWAY__PORT", "9002")
    gateway = load(file).gateway
    assert (gateway.port, gateway.workers) == (9002, 2)


def test_data_given_on_the_command_line_wins(tmp_path: Path) -> None:
    file = write(tmp_path, 'data = "elsewhere"\n')
    assert load(file, data=tmp_path / "here").data == tmp_path / "here"


def test_one_setting_replaces_the_embedded_model(tmp_path: Path) -> None:
    file = write(tmp_path, '[[upstreams]]\nname = "mine"\nbase_url = "http://10.0.0.1:8000/v1/"\nmodel = "m"\n')
    settings = load(file)
    assert not settings.starts_model
    assert settings.all_upstreams[0].base_url == "http://10.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("[gateway]\nprot = 1\n", 2, "gateway.prot"),
        ("[gateway]\nport = 99999\n", 2, "gateway.port"),
        ("\n[gateway]\nworkers = 'two'\n", 3, "gateway.workers"),
        ("colour = 'red'\n", 1, "colour"),
        ("[gatewya]\nport = 1\n", 1, "gatewya"),
        ('[[upstreams]]\nname="a"\nbase_url="http://a"\nmodel="m"\n\n[[upstreams]]\nname="b"\nbase_url="b"\nmodel="m"\n', 8,
         "upstreams.1.base_url"),
        ('[[upstreams]]\nname="a"\nbase_url="http://a"\n', 1, "upstreams.0.model"),
        ("[encoder]\nport = 0\n", 2, "encoder.port"),
        ('[[knowledge.bases]]\nname="a"\nfolders=["x"]\n[[knowledge.bases]]\nname="../b"\nfolders=["x"]\n', 5,
         "knowledge.bases.1.name"),
        ('[[knowledge.bases]]\nname="a"\nfolders=[]\n', 3, "knowledge.bases.0.folders"),
        ('[[knowledge.bases]]\nname="a"\nfolders=["x"]\ntenant=["t"]\n', 4, "knowledge.bases.0.tenant"),
        ('[[upstreams]]\nname="a"\nbase_url="http://a"\nmodel="m"\ntimeout="soon"\n', 5, "upstreams.0.timeout"),
        ('[[jobs]]\njob="drift"\nevery="1h"\n[[jobs]]\njob="astrology"\nevery="1h"\n', 5, "jobs.1.job"),
        ('[[jobs]]\njob="drift"\ncron="61 * * * *"\nwindow="1h"\n', 3, "jobs.0.cron"),
        ('[[jobs]]\njob="drift"\ncron="1 * * * *"\nevery="1h"\n', 1, "jobs.0"),
        ('[[jobs]]\njob="drift"\ncron="1 * * * *"\n', 1, "jobs.0"),
        ('[[jobs]]\njob="drift"\nwindow="1h"\n', 1, "jobs.0"),
        ('[[jobs]]\njob="drift"\nevery="1h"\nreference="2026-04-02..2026-04-01"\n', 4, "jobs.0.reference"),
        ('[[jobs]]\njob="drift"\nevery="1h"\nmin_n=0\n', 4, "jobs.0.min_n"),
        ('[[jobs]]\njob="drift"\nevery="1h"\n[[jobs]]\njob="drift"\nevery="2h"\n', 1, "jobs"),
        ('[alerts]\nwebhook="example.org"\n', 2, "alerts.webhook"),
        ("[objectives]\nrelevance = 0.2\ngrounded = 1.2\n", 3, "objectives.grounded"),
        ("[objectives]\ngrounded = true\n", 2, "objectives.grounded"),
        ("[objectives]\ntotal_p95_ms = 0\n", 2, "objectives.total_p95_ms"),
        ("[objectives]\ntoxicity = 0.1\n", 2, "objectives.toxicity"),
        ('[redaction]\nEMAIL = "hide"\n', 2, "redaction.EMAIL"),
        ('[redaction]\nE_MAIL = "hash"\n', 1, "redaction"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_file_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        load(file)
    assert str(error.value).startswith(f"{file}:{line}: {key}: ")
    assert "\n" not in str(error.value)


def test_toml_that_cannot_be_parsed_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "port = \n")
    with pytest.raises(SettingsError, match=r"watchkeeper\.toml: not valid TOML.*line 1"):
        load(file)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        load(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("second", "why"), [("a", "two have the name 'a'"), ("shared", "'shared' is the name of the base")]
)
def test_bases_are_named_apart(tmp_path: Path, second: str, why: str) -> None:
    text = "".join(f'[[knowledge.bases]]\nname="{name}"\nfolders=["x"]\n' for name in ("a", second))
    with pytest.raises(SettingsError, match=why):
        load(write(tmp_path, text))


@pytest.mark.parametrize("name", ["WATCHKEEPER_GATEWAY__PORT", "WATCHKEEPER_GATEWAY__PROT", "WATCHKEEPER_GATEWYA__PORT"])
def test_a_wrong_variable_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "abc")
    with pytest.raises(SettingsError, match=name):
        load()


def test_an_objective_is_a_number_or_false_and_false_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load(write(tmp_path, "[objectives]\ngrounded = false\ntruncated = 0.3\ntotal_p95_ms = 2000\n")).objectives
    assert (asked.grounded, asked.truncated, asked.total_p95_ms, asked.relevance) == (None, 0.3, 2000, 0.3)
    monkeypatch.setenv("WATCHKEEPER_OBJECTIVES__RELEVANCE", "false")
    monkeypatch.setenv("WATCHKEEPER_OBJECTIVES__REFUSAL", "0.4")
    assert (load().objectives.relevance, load().objectives.refusal) == (None, 0.4)


def test_a_category_that_nobody_looks_for_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no category 'E_MAIL'; there are EMAIL, PHONE, CARD, .*PRIVATE_KEY"):
        load(write(tmp_path, '[redaction]\nE_MAIL = "hash"\n'))


def test_styles_of_redaction_come_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_REDACTION__PHONE", "keep")
    settings = load(write(tmp_path, '[redaction]\ndefault = "mask"\nEMAIL = "hash"\n'))
    assert (settings.redaction.default, settings.redaction.styles) == ("mask", {"EMAIL": "hash", "PHONE": "keep"})
    assert load(write(tmp_path, as_toml(settings))) == settings


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().gateway = Settings().gateway


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("5m", 300), ("1h", 3600), ("7d", 604800)])
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "-1h", "1.5h", "0s", "1w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration looks like"):
        seconds(text)


def test_jobs_that_are_not_given_are_all_every_quarter_of_an_hour() -> None:
    jobs = Settings().jobs
    assert [job.job for job in jobs] == ["toxicity", "quality", "safety", "latency", "drift"]
    assert {(job.every, job.window_s, job.reference, job.min_n) for job in jobs} == {("15m", 900, "previous", None)}


def test_jobs_that_are_given_are_all_there_are(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[[jobs]]\njob="drift"\ncron="5 * * * *"\nwindow="1d"\nreference="2026-04-01..2026-04-02T12:00+02:00"\n'
    )
    (job,) = load(file).jobs
    assert (job.every, job.window_s) == (None, 86_400)


def test_a_gateway_on_every_address_is_asked_at_loopback() -> None:
    urls = [Gateway(host=host, port=80).url for host in ("0.0.0.0", "::", "::1", "10.0.0.5")]
    assert urls == ["http://127.0.0.1:80", "http://[::1]:80", "http://[::1]:80", "http://10.0.0.5:80"]


def test_settings_written_as_a_file_read_the_same(tmp_path: Path) -> None:
    """The demo writes them to its folder, the dashboard for the commands that it runs; TOML has no null."""
    settings = load(write(tmp_path, "[objectives]\nrefusal = false\ngrounded = 0.4\n"))
    again = load(write(tmp_path, as_toml(settings)))
    assert again == settings
    assert again.objectives.refusal is None
