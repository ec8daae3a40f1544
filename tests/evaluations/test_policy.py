"""A policy is strict: what is wrong with it is one line that names file, line and key."""

from pathlib import Path

import pytest

from watchkeeper_evaluations.policy import PolicyError, load_policy

GOOD = """
alpha = 0.1
min_cases = 40
min_sessions = 10

[[require]]
metric = "answered"
rule = "not_worse"
margin = 0.02

[[require]]
metric = ["reference_f1", "grounded"]
rule = "better"
margin = 0.05

[[require]]
metric = "total_ms"
rule = "at_most"
value = 2000
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "policy.toml"
    file.write_text(text)
    return file


def test_a_file_is_read(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, GOOD))
    assert (policy.alpha, policy.min_cases, policy.min_sessions) == (0.1, 40, 10)
    assert [(rule.metric, rule.rule, rule.margin, rule.value) for rule in policy.require] == [
        (("answered",), "not_worse", 0.02, None),
        (("reference_f1", "grounded"), "better", 0.05, None),
        (("total_ms",), "at_most", None, 2000.0),
    ]
    assert policy.primary == ("reference_f1", "grounded")
    assert policy.margins == {"answered": 0.02, "reference_f1": 0.05, "grounded": 0.05}


def test_without_a_file_there_is_a_policy() -> None:
    policy = load_policy()
    assert policy.primary == ("reference_similarity", "grounded")
    assert policy.margins == {"answered": 0.05, "toxicity.output": 0.02}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_cases = 40", "min_case = 40", ":3: min_case: there is no such key"),
        ("alpha = 0.1", "alpha = 2", ":2: alpha: Input should be less than or equal to 0.5"),
        ("alpha = 0.1", "alpha = nan", ":2: alpha: Input should be a finite number"),
        ("min_sessions = 10", 'min_sessions = "ten"', ":4: min_sessions: Input should be a valid integer"),
        ('rule = "better"', 'rule = "best"', ":13: require.1.rule: Input should be 'better', 'not_worse'"),
        ("margin = 0.02", "margin = 0", ":9: require.0.margin: Input should be greater than 0"),
        ("margin = 0.02\n", "", ":6: require.0: the rule not_worse needs a margin"),
        ("value = 2000", "margin = 1", ":16: require.2: the rule at_most takes a value, and no margin"),
        ("margin = 0.05", "value = 0.05", ":11: require.1: the rule better takes a margin, and no value"),
        ('metric = "total_ms"', "metric = []", ":17: require.2.metric: Value should have at least 1 item"),
        ('metric = "total_ms"', 'metric = [""]', ":17: require.2.metric.0: String should have at least 1 character"),
        ("alpha = 0.1", "alpha =", "not valid TOML: Invalid value (at line 2, column 8)"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PolicyError) as error:
        load_policy(file)
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_policy_without_rules_is_none(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="require: Field required"):
        load_policy(write(tmp_path, "alpha = 0.05\n"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="there is no such file"):
        load_policy(tmp_path / "none.toml")
