"""The answer's language against the prompt's: certain or silent."""

import pytest

from watchkeeper_evaluations.scorers.language_match import matches

ENGLISH = "How many days of leave do employees have in a year?"
GERMAN = "Wie viele Tage Urlaub haben die Mitarbeiter in einem Jahr?"
FRENCH = "Les employés ont trente jours de congé par an, à prendre avant la fin du mois de mars."
SPANISH = "Los empleados tienen treinta días de vacaciones al año, hasta finales de marzo."
JAPANESE = "従業員の有給休暇は年間三十日です。三月末までに取得してください。"


@pytest.mark.parametrize(
    ("prompt", "answer", "found"),
    [
        (ENGLISH, "They have thirty days of leave, which expire at the end of March.", True),
        (ENGLISH, FRENCH, False),
        (ENGLISH, JAPANESE, False),
        (GERMAN, "Die Mitarbeiter haben dreißig Tage Urlaub im Jahr.", True),
        (GERMAN, "They have thirty days of leave, which expire at the end of March.", False),
        (SPANISH, FRENCH, False),
        (JAPANESE, JAPANESE, True),
        (f"Translate into French: {ENGLISH}", FRENCH, None),
        ("Répondez en anglais: combien de jours de congé par an ?", "Thirty days of leave in every year.", None),
        (ENGLISH, "30", None),
        (ENGLISH, "Thirty.", None),
        ("ok", FRENCH, None),
        (ENGLISH, "```python\ndef days(year):\n    return [30 for _ in range(year)]\n```", None),
        (ENGLISH, "x = {1: 2, 3: 4}; y[0] += (x[1] - 7) ** 2 / 3", None),
    ],
)
def test_the_languages_are_told_or_nothing_is_said(prompt: str, answer: str, found: bool | None) -> None:
    assert matches(prompt, answer) is found
