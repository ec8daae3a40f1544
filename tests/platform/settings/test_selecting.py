"""Routes and cascades: what names an upstream that is not set, or says two things at once, is one line."""

from pathlib import Path

import pytest

from watchkeeper.settings import SettingsError, as_toml, load

UPSTREAMS = "".join(
    f'[[upstreams]]\nname = "{name}"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n' for name in ("a", "b", "c")
)


def write(folder: Path, text: str) -> Path:
    file = folder / "watchkeeper.toml"
    file.write_text(UPSTREAMS + text)
    return file


def test_routes_and_cascades_are_read_and_written_the_same(tmp_path: Path) -> None:
    settings = load(
        write(
            tmp_path,
            """
[[routes]]
name = "help"
release = "watchkeeper@3"
upstreams = ["b", "a"]
order = "listed"
[[routes]]
name = "sums"
[routes.cascade]
small = "a"
large = ["b", "c"]
difficulty = 0.2
[cascade]
small = ["a", "b"]
large = "c"
signals = ["refusal"]
""",
        )
    )
    help_desk, sums = settings.route("help"), settings.route("sums")
    assert help_desk is not None
    assert (help_desk.release, help_desk.upstreams, help_desk.order) == ("watchkeeper@3", ("b", "a"), "listed")
    assert sums is not None
    assert sums.cascade is not None
    assert (sums.cascade.small, sums.cascade.large, sums.cascade.difficulty) == (("a",), ("b", "c"), 0.2)
    assert settings.cascade is not None
    assert (settings.cascade.small, settings.cascade.signals) == (("a", "b"), ("refusal",))
    assert settings.route("other") is None
    file = tmp_path / "again.toml"
    file.write_text(as_toml(settings))
    assert load(file) == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[routes]]\nname = "x"\nupstreams = ["d"]\n',
            "routes: route x names the upstream 'd', which is not set; there is a, b, c",
        ),
        ('[cascade]\nsmall = "a"\nlarge = "d"\n', "cascade: the cascade names the upstream 'd', which is not set"),
        ('[cascade]\nsmall = "a"\nlarge = ["b", "a"]\n', "cascade: a cannot be small and large"),
        ('[cascade]\nsmall = "a"\n', "cascade.large: Field required"),
        ('[[routes]]\nname = "x"\n[[routes]]\nname = "x"\n', "routes: x is there twice"),
        ('[[routes]]\nname = "x"\norder = "listed"\n', "routes.0: order = 'listed' needs upstreams"),
        ('[[routes]]\nname = "x"\nrelease = "newest"\n', "routes.0.release: String should match"),
        (
            '[[routes]]\nname = "x"\nupstreams = ["a"]\n[routes.cascade]\nsmall = "a"\nlarge = "b"\n',
            "routes.0: has upstreams and a cascade",
        ),
    ],
)
def test_what_cannot_be_is_one_line_that_names_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load(file)
    line = str(raised.value)
    assert said in line
    assert line.startswith(f"{file}:1"), line
    assert len(line.splitlines()) == 1


def test_the_embedded_model_is_an_upstream_too(tmp_path: Path) -> None:
    file = tmp_path / "watchkeeper.toml"
    file.write_text('[[routes]]\nname = "x"\nupstreams = ["local"]\n')
    assert load(file).route("x")
    file.write_text('[[routes]]\nname = "x"\nupstreams = ["a"]\n')
    with pytest.raises(SettingsError, match="there is local"):
        load(file)
