"""A release as a file: what is written reads back as the same, what is wrong is one line that names file and key."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import ACTIONS
from watchkeeper.release import BUILTIN, DEFAULT_POLICIES, Grounding, Parameters, Policy, Release
from watchkeeper_evaluations.release_file import ReleaseFileError, difference, read, written

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
shares = st.floats(0, 1)
thresholds = st.none() | shares
policies = st.builds(Policy, st.booleans(), thresholds, thresholds, st.sampled_from(ACTIONS))
releases = st.builds(
    Release,
    name=st.just("watchkeeper"),
    version=st.integers(1, 99),
    template=texts,
    grounded=st.builds("{}{{sources}}{}{{prompt}}{}".format, *[texts.map(lambda text: text.replace("{", "("))] * 3),
    model=st.sampled_from([None, "local", "mine"]),
    parameters=st.builds(Parameters, st.integers(1, 5000), st.floats(0, 2), st.floats(0, 1, exclude_min=True)),
    grounding=st.builds(Grounding, st.integers(0, 9), shares, st.integers(0, 9999), st.integers(0, 9)),
    policies=st.fixed_dictionaries(dict.fromkeys(DEFAULT_POLICIES, policies)),
)


def candidate(said: str, base: Release = BUILTIN) -> Release:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "better.toml")
        file.write_bytes(said.encode())
        return read(file, base, ["local", "mine"])


@given(releases)
def test_what_is_written_reads_back_as_the_same_release(release: Release) -> None:
    assert candidate(written(release)).digest == release.digest


@given(releases, releases)
def test_a_difference_is_empty_exactly_for_the_same_content(one: Release, other: Release) -> None:
    assert (difference(one, other) == "") == (one.digest == other.digest)
    assert difference(one, msgspec.structs.replace(one, version=100)) == ""


def test_what_is_not_said_stays_as_it_is() -> None:
    base = msgspec.structs.replace(BUILTIN, model="mine", template="Be kind.", parameters=Parameters(max_tokens=9))
    assert candidate("", base) == base
    said = 'model = ""\n[parameters]\ntemperature = 1\n[policies.toxicity]\nflag_at = "never"\naction = "block"\n'
    made = candidate(said, base)
    assert made == msgspec.structs.replace(
        base,
        model=None,
        parameters=Parameters(max_tokens=9, temperature=1.0),
        policies=base.policies | {"toxicity": Policy(flag_at=None, block_at=0.9, action="block")},
    )
    assert made.policies["pii"] == base.policies["pii"]


def test_a_difference_shows_the_line() -> None:
    better = msgspec.structs.replace(BUILTIN, name="watchkeeper", version=2, grounding=Grounding(k=3))
    shown = difference(BUILTIN, better).splitlines()
    assert shown[:2] == ["--- builtin@0", "+++ watchkeeper@2"]
    assert [line for line in shown[2:] if line[0] in "+-"] == ["-k = 2", "+k = 3"]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ('templat = "x"', "templat: there is no such key"),
        ("[parameters]\ntop_k = 3", "parameters.top_k: there is no such key"),
        ("[parameters]\nmax_tokens = 2.5", "parameters.max_tokens: expected int, got float"),
        ("[parameters]\nmax_tokens = 0", "parameters.max_tokens: expected int >= 1"),
        ("[parameters]\ntemperature = nan", "parameters.temperature: expected float >= 0.0"),
        ("[grounding]\nk = true", "grounding.k: expected int, got bool"),
        ("grounding = 1", "grounding: expected object, got int"),
        ('[policies.toxicity]\nflag_at = "soon"', 'policies.toxicity.flag_at: must be a number from 0 to 1, or "never"'),
        ("[policies.toxicity]\nblock_at = 2", 'policies.toxicity.block_at: must be a number from 0 to 1, or "never"'),
        ('[policies.pii]\naction = "kill"', "policies.pii.action: must be one of pass, unknown, flag, redact, block"),
        ("[policies.pii]\nactoin = 1", "policies.pii.actoin: there is no such key"),
        ("[policies.astrology]", "policies.astrology: there is no such guard; there is pii, secrets"),
        ('grounded = "{prompt}"', "grounded: must have {sources} exactly once"),
        ('grounded = "{sources} {prompt} {prompt}"', "grounded: must have {prompt} exactly once"),
        ('model = "gpt"', "model: there is no upstream 'gpt'; there is local, mine"),
        ("model = 3", "model: expected str, got int"),
        ("x = [", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_file_and_key(said: str, wanted: str) -> None:
    with pytest.raises(ReleaseFileError) as raised:
        candidate(said)
    assert f"better.toml: {wanted}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ReleaseFileError, match="there is no such file"):
        read(tmp_path / "nowhere.toml", BUILTIN, [])
    (tmp_path / "latin.toml").write_bytes(b'template = "\xe9"')
    with pytest.raises(ReleaseFileError, match=r"latin\.toml: cannot be read"):
        read(tmp_path / "latin.toml", BUILTIN, [])
