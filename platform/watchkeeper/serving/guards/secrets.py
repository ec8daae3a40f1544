"""secrets: keys, tokens, passwords and private keys in texts.

Three kinds of patterns: those of detect-secrets that name their issuer by a prefix and are linear, prefixes that it does
not know, and assignments (`password = …`, `Authorization: Bearer …`, `scheme://user:password@host`) with a value that is
neither a placeholder nor a word of prose. High entropy alone is no secret: hashes and ids look the same.

A private key without its end reaches to the end of the text, so that a stream never lets the rest of it out.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from detect_secrets.plugins import (
    aws,
    azure_storage_key,
    discord,
    github_token,
    gitlab_token,
    mailchimp,
    pypi_token,
    sendgrid,
    slack,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)

from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject
from watchkeeper.serving.guards.patterns import Families, Family, Pattern

# Left out of detect-secrets: what matches prose (artifactory, keyword, high entropy) and what takes quadratic time or worse
# (basic_auth, cloudant, ibm, jwt, npm, openai, softlayer); private_key knows the first line only.
_PLUGINS: Final = (  # and what each of their tokens holds, in small letters
    (aws.AWSKeyDetector, ("a3t", "abia", "acca", "akia", "asia")),
    (azure_storage_key.AzureStorageKeyDetector, ("accountkey=",)),
    (discord.DiscordBotTokenDetector, (".",)),
    (github_token.GitHubTokenDetector, ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    (gitlab_token.GitLabTokenDetector, ("gl", "gr1348941")),
    (mailchimp.MailchimpDetector, ("-us",)),
    (pypi_token.PypiTokenDetector, ("pypi-",)),
    (sendgrid.SendGridDetector, ("sg.",)),
    (slack.SlackDetector, ("xox", "hooks.slack.com")),
    (square_oauth.SquareOAuthDetector, ("sq0csp-",)),
    (stripe.StripeDetector, ("k_live_",)),
    (telegram_token.TelegramBotTokenDetector, (":",)),
    (twilio.TwilioKeyDetector, ("ac", "sk")),
)

_PREFIXES: Final = {  # what detect-secrets does not know: what a token holds, in small letters, and what it is
    "openai": ("sk-", r"sk-(?:proj|svcacct|admin|None)-[\w-]{16,}|sk-[A-Za-z0-9]{20,}"),
    "anthropic": ("sk-ant-", r"sk-ant-[\w-]{16,}"),
    "openrouter": ("sk-or-", r"sk-or-[\w-]{16,}"),
    "google": ("aiza|ya29.|gocspx-", r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"),
    "github": ("github_pat_", r"github_pat_\w{22,}"),
    "hugging_face": ("hf_", r"hf_[A-Za-z0-9]{30,}"),
    "groq": ("gsk_", r"gsk_[A-Za-z0-9]{40,}"),
    "xai": ("xai-", r"xai-[A-Za-z0-9]{40,}"),
    "replicate": ("r8_", r"r8_[A-Za-z0-9]{30,}"),
    "perplexity": ("pplx-", r"pplx-[A-Za-z0-9]{40,}"),
    "npm": ("npm_", r"npm_[A-Za-z0-9]{36}"),
    "digitalocean": ("_v1_", r"do[opr]_v1_[a-f0-9]{64}"),
    "databricks": ("dapi", r"dapi[a-f0-9]{32}"),
    "shopify": ("shpat_|shpss_|shpca_|shppa_", r"shp(?:at|ss|ca|pa)_[a-fA-F0-9]{32}"),
    "stripe": ("sk_|rk_|whsec_", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,}"),
    "slack": ("xox|xapp-", r"xox[abceoprs]-[\w-]{10,}|xapp-\d-[\w-]{10,}"),
    "atlassian": ("atatt3xff", r"ATATT3xFf[\w=-]{20,}"),
    "notion": ("ntn_|secret_", r"(?:ntn|secret)_[A-Za-z0-9]{40,}"),
    "linear": ("lin_api_", r"lin_api_[A-Za-z0-9]{32,}"),
    "docker": ("dckr_", r"dckr_(?:pat|oat)_[\w-]{20,}"),
    "vault": ("hvs.|hvb.", r"hv[sb]\.[\w-]{24,}"),
    "supabase": ("sbp_", r"sbp_[a-f0-9]{40}"),
    "mailgun": ("key-", r"key-[a-f0-9]{32}"),
    "pulumi": ("pul-", r"pul-[a-f0-9]{40}"),
    "rubygems": ("rubygems_", r"rubygems_[a-f0-9]{48}"),
    "watchkeeper": ("wk_", r"wk_[a-p]{12}_[\w-]{43}"),
    "age": ("age-secret-key-1", r"AGE-SECRET-KEY-1[A-Z0-9]{50,}"),
}
_REST = r"[\w+/=-]{0,256}"  # a token is taken out whole, whatever length its issuer gives it next year


def _token(rule: str, regex: str, needs: tuple[str, ...], flags: int = 0) -> Pattern:
    whole = re.compile(rf"(?<![A-Za-z0-9])(?:{regex}){_REST}", flags)
    return Pattern(category="API_KEY", rule=rule, regex=whole, needs=needs)


def _plugin_patterns() -> Iterator[Pattern]:
    for plugin, needs in _PLUGINS:
        rule = plugin.__module__.rpartition(".")[2].removesuffix("_token")
        # The second of AWS needs a name and quotes around the value: the assignments below know that and more.
        for regex in plugin.denylist[: 1 if plugin is aws.AWSKeyDetector else None]:
            yield _token(rule, regex.pattern, needs, regex.flags & ~re.UNICODE)


_END = r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
_BODY = r"(?:\s|\\[nr])*(?:[\w-]{1,24}: [^\n]{0,80}\s+)*[A-Za-z0-9+/=]{16,}"
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
    rf"(?:(?:(?!-----BEGIN)[\s\S])*?{_END}|(?:{_BODY})+(?:\s*[A-Za-z0-9+/=]+\Z)?)"
)
_PUTTY_KEY = re.compile(r"Private-Lines: \d{1,3}(?:\s+[A-Za-z0-9+/=]{16,})+")
# The header of a token may be long: at the end of a text, which may be a stream's, it is one before its point has come.
_JWT = re.compile(
    r"(?<![\w-])eyJ(?:[\w-]{8,}={0,2}\.eyJ[\w-]{8,}={0,2}(?:\.[\w-]*)?|(?:hbGci|0eXAi|raWQi|4NX|lbmMi|jdHki)[\w-]{32,}(?:\.[\w-]{0,11})?\Z)"
)

_PASSWORD = r"(?:pass(?:word|wd|phrase|code)|pass(?![a-z])|passwort|kennwort|contraseña|pwd)"
_KEY = (
    r"(?:(?:api|access|auth|secret|private|encryption|account|storage|signing|master|service)"
    r"[_ -]?(?:access[_ -]?)?(?:key|token|secret)"
    r"|client[_ -]?secret|(?:bearer|session|refresh|id|bot|csrf)[_ -]?token|token|secret)"
)
_ASSIGN = r"[\w-]{0,16}[\"'`\]]{0,2}\s{0,3}(?::=|=>|={1,3}|:)\s{0,3}"
_IS = r"(?:\s{1,2}(?:is|was|are|ist|es)\s?:?\s{1,2}|\s?[:=]\s{1,2})[\"'`]?"
_QUOTED = r"[\"'`](?P<value>[^\"'`\s]{4,})"
_ASSIGNED = r"(?P<value>[^\s\"'`,;&]{5,}[^\s\"'`,;&.:?)\]}>])"
_TOLD = r"(?P<value>[^\s\"'`]{5,}[^\s\"'`,;.:?)\]}>])"
_PLACEHOLDER = re.compile(
    r"[\[<{$%*(]|x{3}|\.{3}|your|my_|the_|(?:some|new|old|user|db|get|set|enter|insert|example|sample|dummy|test)_"
    r"|(?:none|null|nil|true|false|undefined|string|str|text|pass|pwd|password|passwd|secret|token|value|changeme|example|sample"
    r"|placeholder|redacted|hidden|dummy|required|optional|invalid|incorrect|wrong|correct|empty|blank|default|username|type"
    r"|hash(?:ed)?|forgotten|reset|confirm|bearer|basic|function|const|return|input)$",
    re.IGNORECASE,
)
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$|https?:|[\w.]*[(\[]|/|\\\w+$")


def _is_given(value: str) -> bool:
    """A value that stands in quotes after "password", or in a URL: anything but a placeholder."""
    return _PLACEHOLDER.match(value) is None


def _is_strong(value: str) -> bool:
    """Letters with digits, or with signs that prose has not inside words; no placeholder, no expression of a program."""
    letters = any(character.isalpha() for character in value)
    others = any(character.isdecimal() for character in value) or any(sign in value[1:-1] for sign in "@#$%^&*!+=~")
    return letters and others and _is_given(value) and _CODE.match(value) is None


def _is_key(value: str) -> bool:
    return len(value) >= 12 and any(character.isdecimal() for character in value) and _is_strong(value)


def _is_strong_or_digits(value: str) -> bool:
    return value.isdecimal() or _is_strong(value)


def _after(name: str, value: str, category: str, rule: str, check: Callable[[str], bool], *needs: str) -> Pattern:
    """A pattern for `value` (its group of that name) where it follows `name`."""
    regex = re.compile(name + value, re.IGNORECASE)
    return Pattern(category=category, rule=rule, regex=regex, group="value", check=check, needs=needs)


_PIN = r"\b(?:pin|pin code|security code|cvv|cvc)"
_HEADER = r"authorization[\"']?\s{0,2}[:=,]\s{0,2}[\"']?(?:bearer|basic|token|apikey)\s"
_PASSWORDS: Final = (
    _after(_PASSWORD + _ASSIGN, _QUOTED, "PASSWORD", "password_quoted", _is_given),
    _after(_PASSWORD + _ASSIGN, _ASSIGNED, "PASSWORD", "password_assigned", _is_strong),
    _after(rf"[?&]{_PASSWORD}=", r"(?P<value>[^&\s\"'<>]{4,})", "PASSWORD", "password_in_query", _is_given),
    _after(rf"\b{_PASSWORD}{_IS}", _TOLD, "PASSWORD", "password_told", _is_strong_or_digits),
    _after(_PASSWORD + r"[\"']?\s?[:=]\s?[\"']?", r"(?P<value>\d{4,})\b", "PASSWORD", "password_digits", str.isdecimal),
)
_KEYS: Final = (
    _after(_KEY + _ASSIGN, _QUOTED, "API_KEY", "key_quoted", _is_key),
    _after(_KEY + _ASSIGN, _ASSIGNED, "API_KEY", "key_assigned", _is_key),
    _after(rf"\b{_KEY}{_IS}", _TOLD, "API_KEY", "key_told", _is_key),
)
_DIGITS_TOLD: Final = (
    _after(_PIN + _IS, r"(?P<value>\d{3,8})\b", "PASSWORD", "pin_told", str.isdecimal, "pin", "code", "cv"),
    _after(r"\bbearer\s", r"(?P<value>[\w.~+/=-]{16,})", "TOKEN", "bearer", _is_key, "bearer"),
)
_AUTHORIZATION: Final = _after(_HEADER, r"(?P<value>[\w.~+/=:-]{6,})", "TOKEN", "authorization", _is_given)
_IN_URL: Final = _after(
    r"://[^\s:/@\"'<>]{0,64}:", r"(?P<value>[^\s/\"'<>]{2,128})@[\w.-]", "PASSWORD", "url_password", _is_given
)
_COMMAND: Final = _after(
    r"\s(?:-u|--user)[ =][\"']?[\w.@-]{1,64}:", r"(?P<value>[^\s\"']{4,})", "PASSWORD", "command", _is_given
)

FAMILIES: Final = (
    Family(signs=("-----begin",), patterns=(
        Pattern(category="PRIVATE_KEY", rule="private_key", regex=_PRIVATE_KEY),
    )),
    Family(signs=("private-lines",), patterns=(
        Pattern(category="PRIVATE_KEY", rule="putty_key", regex=_PUTTY_KEY),
    )),
    # Every issuer's token but Slack's has sixteen characters in a row, with a digit or not; few texts do.
    Family(gate=lambda look: look.long or look.has(("xox", "xapp-")), patterns=(
        Pattern(category="TOKEN", rule="jwt", regex=_JWT, needs=("eyj",)),
        *(_token(rule, regex, tuple(needs.split("|"))) for rule, (needs, regex) in _PREFIXES.items()),
        *_plugin_patterns(),
    )),
    Family(signs=("pass", "pwd", "kennwort", "contraseña"), patterns=_PASSWORDS),
    Family(digits=1, signs=("key", "token", "secret"), patterns=_KEYS),
    Family(digits=1, patterns=_DIGITS_TOLD),
    Family(signs=("authorization",), patterns=(_AUTHORIZATION,)),
    Family(signs=("://",), patterns=(_IN_URL,)),
    Family(signs=("-u",), patterns=(_COMMAND,)),
)  # fmt: skip
_PATTERNS: Final = Families(FAMILIES)


class Secrets:
    """Spans of secrets, without a score."""

    name = "secrets"
    version = "1"
    targets: tuple[Target, ...] = ("prompt", "context", "output")
    on_error: Literal["open", "closed"] = "closed"
    reads_embedding = False

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        return _PATTERNS.find(subject.text)
