"""Secrets: keys and passwords are redacted; hashes, placeholders, code and prose about passwords are not."""

from collections.abc import Callable

import pytest

from watchkeeper.record import Action
from watchkeeper.serving.guard import Judgement
from watchkeeper.serving.guards.secrets import Secrets
from watchkeeper.serving.redact import redact

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0bu3aozN3tihPm\nMIIEpAIBAAKCAQEA1c7+9z5Pad7\n"

FOUND = [
    ("aws key AKIAIOSFODNN7EXAMPLE here", "aws key [API_KEY] here"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = [API_KEY]"),
    ("use ghp_" + "a1B2" * 9 + " now", "use [API_KEY] now"),
    ("sk-proj-" + "abcDEF123456" * 2, "[API_KEY]"),
    ("sk-ant-api03-" + "abcdefGHIJ1234567890-xyz", "[API_KEY]"),
    ("AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "[API_KEY]"),
    ("xoxb-" + "123456789012-1234567890123-abcdefABCDEF", "[API_KEY]"),
    ("sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc", "[API_KEY]"),
    ("hf_" + "abcdefghijklmnopqrstuvwxyzABCDEF12", "[API_KEY]"),
    ("glpat-" + "abcdefghij1234567890", "[API_KEY]"),
    (f"token {JWT} ok", "token [TOKEN] ok"),
    ("Authorization: Bearer abcdef1234567890abcdef", "Authorization: Bearer [TOKEN]"),
    ("password = 'hunter2'", "password = '[PASSWORD]'"),
    ('db_password: "swordfish"', 'db_password: "[PASSWORD]"'),
    ("password=hunter2&x=1", "password=[PASSWORD]&x=1"),
    ("my password is Tr0ub4dor&3.", "my password is [PASSWORD]."),
    ("The pass is: qwerty!23", "The pass is: [PASSWORD]"),
    ("Passwort: geheim123", "Passwort: [PASSWORD]"),
    ("password=12345678, password_reset_timeout=259200", "password=[PASSWORD], password_reset_timeout=259200"),
    ("my PIN is 4821", "my PIN is [PASSWORD]"),
    ('{"api_key": "0123456789abcdef0123"}', '{"api_key": "[API_KEY]"}'),
    ("postgres://admin:s3cr3t@db.example.com:5432/x", "postgres://admin:[PASSWORD]@db.example.com:5432/x"),
    ("curl -u admin:letmein https://x", "curl -u admin:[PASSWORD] https://x"),
    ("POST /login?user=a&password=letmein&x=1", "POST /login?user=a&password=[PASSWORD]&x=1"),
    (f"key:\n{PEM}-----END RSA PRIVATE KEY-----\nthat was it", "key:\n[PRIVATE_KEY]\nthat was it"),
    (f"key:\n{PEM}MIIEpA", "key:\n[PRIVATE_KEY]"),  # cut off: what is there of it goes
    ("AKIA\u200bIOSFODNN7EXAMPLE", "[API_KEY]"),
]

LEFT_ALONE = [
    "The password is required.",
    "password: must be 8 characters",
    "How do I reset my password? My password is wrong.",
    "password = input('enter'); password = os.environ['DB_PASS']; password = getpass.getpass()",
    "def login(user, password=None): password: str = Field(...)",
    'api_key="YOUR_API_KEY", "password": "string", password: "${DB_PASS}", password: ********',
    "token = tokens[0]; max_tokens=256; const token = await getToken()",
    "secret: the secret ingredient is love. The secret is simple: work",
    "sha 5d41402abc4b2a76b9719d911017c592, commit b179c9523d0e6a0f98a330c7562b682750a6f8c8",
    "https://example.com:8080/path@foo",
    "class sk-fading-circle; Basic understanding of tokenization",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    "A PEM file starts with -----BEGIN PRIVATE KEY----- and then base64.",
    "password=[PASSWORD], Bearer [TOKEN], scheme://user:[PASSWORD]@host",
]


@pytest.mark.parametrize(("text", "clean"), FOUND)
@pytest.mark.parametrize("target", ["prompt", "context", "output"])
def test_secrets_are_redacted(judged: Callable[..., Judgement], target: str, text: str, clean: str) -> None:
    assert redact(text, judged(Secrets(), text, target).spans)[0] == clean


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_is_no_secret_stays(action: Callable[..., Action], text: str) -> None:
    assert action(Secrets(), text) == "pass"


def test_a_token_goes_whole_however_long_it_is(judged: Callable[..., Judgement]) -> None:
    text = "ghp_" + "a1B2" * 30
    assert redact(text, judged(Secrets(), text).spans)[0] == "[API_KEY]"
