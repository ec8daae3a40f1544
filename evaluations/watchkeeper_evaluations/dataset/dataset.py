"""A dataset: cases under a name, kept as an MLflow evaluation dataset of the experiment `<experiment>-experiments`.

    create or add (each case once; a missing reference answer is filled in) → freeze (the digest is written down) → load

A frozen dataset takes no more cases, and one whose cases no longer have the digest that was written down is an error, so
that two experiments on it were on the same cases. Knows nothing of where cases come from: see traces.py and jsonl.py.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import msgspec

from watchkeeper.record import Message
from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.datasets import OWN_TAG, Datasets, Entry, Stored
from watchkeeper_evaluations.dataset.case import Case, digest
from watchkeeper_evaluations.lock import alone

FROZEN: Final = "watchkeeper.frozen"
"""The tag of a frozen dataset; its value is the digest."""
ERASED: Final = "watchkeeper.erased"
"""The tag of a frozen dataset of which cases were erased; its value is the digest that it had before."""
ERASING: Final = "watchkeeper.erasing"
"""The same, until the new digest is written down."""
OURS: Final = frozenset({FROZEN, ERASED, ERASING})
REFERENCE: Final = "expected_response"
"""What MLflow's own scorers call a reference answer."""
LOCK: Final = "datasets.lock"
"""Held while a dataset is changed: adding reads first what is there."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAMED: Final = 20


class DatasetError(Exception):
    """What was asked of a dataset cannot be done; the message is one line."""


class DatasetUnknown(DatasetError):
    """There is no dataset of this name."""


class DatasetExists(DatasetError):
    """There is one of this name already."""


class DatasetFrozen(DatasetError):
    """It takes no more cases."""


class DatasetChanged(DatasetError):
    """It was frozen, and is no longer what it was then."""


class Dataset(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """`cases`: by case id. `tags`: those that people gave it. `url`: where MLflow's UI shows it."""

    dataset_id: str
    name: str
    frozen: bool
    cases: tuple[Case, ...]
    tags: dict[str, str] = {}
    url: str = ""

    @cached_property
    def digest(self) -> str:
        """sha256 over the cases."""
        return digest(self.cases)


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset without its cases. `cases`: how many it has; `frozen`: the digest that was written down, if it was."""

    name: str
    cases: int
    frozen: str | None
    tags: dict[str, str]
    created_at: datetime
    url: str


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """`added` cases are new, `filled` had no reference answer and have one now, `already` were there."""

    dataset: Dataset
    added: int
    filled: int
    already: int


def home(settings: Settings) -> str:
    """The MLflow experiment that datasets and experiments on them belong to."""
    return f"{settings.mlflow.experiment}-experiments"


def listed(tracking: Tracking, settings: Settings) -> list[Listed]:
    """All datasets, by name. Raises `TrackingUnavailable`."""
    return [
        Listed(
            name=found.name,
            cases=found.count,
            frozen=found.tags.get(FROZEN),
            tags=_tags(found),
            created_at=found.created_at,
            url=found.url,
        )
        for found in Datasets(tracking, home(settings)).all()
    ]


def load(tracking: Tracking, settings: Settings, name: str) -> Dataset:
    """A dataset with its cases. Raises `DatasetUnknown`, `DatasetChanged`, `DatasetError` where it holds what is no case,
    and `TrackingUnavailable`."""
    datasets = Datasets(tracking, home(settings))
    return _load(datasets, _found(datasets, name))


def create(
    tracking: Tracking,
    settings: Settings,
    name: str,
    cases: Iterable[Case] = (),
    *,
    tags: Mapping[str, str] | None = None,
    frozen: bool = False,
) -> Added:
    """A new dataset of these cases. Raises `DatasetExists`, and what `add` and `freeze` raise."""
    datasets = Datasets(tracking, home(settings))
    given = _consistent(cases)
    if frozen and not given:
        raise DatasetError(f"dataset {name!r} would have no cases: there is nothing to freeze")
    with alone(settings.data, LOCK):
        _make(datasets, name, tags or {})
        added = _add(datasets, name, given)
        return msgspec.structs.replace(added, dataset=_freeze(datasets, name)) if frozen else added


def add(tracking: Tracking, settings: Settings, name: str, cases: Iterable[Case], *, make: bool = False) -> Added:
    """Adds what is not there yet; `make`: and makes the dataset where there is none.

    Of a case that is there, only a reference answer that it lacks is taken. Raises `DatasetUnknown`, `DatasetFrozen`,
    `TrackingUnavailable`, and a `DatasetError` where a case has another reference answer already: then nothing is written.
    """
    datasets = Datasets(tracking, home(settings))
    given = _consistent(cases)
    with alone(settings.data, LOCK):
        if make and datasets.find(_named(name)) is None:
            _make(datasets, name, {})
        return _add(datasets, name, given)


def freeze(tracking: Tracking, settings: Settings, name: str) -> Dataset:
    """Writes the digest down; freezing again changes nothing. Raises what `load` raises, and a `DatasetError` where there
    is no case in it."""
    with alone(settings.data, LOCK):
        return _freeze(Datasets(tracking, home(settings)), name)


def made_of(tracking: Tracking, settings: Settings, request_ids: Collection[str]) -> frozenset[str]:
    """The ids of the cases, of all datasets, that were made of these requests. Raises `TrackingUnavailable`."""
    datasets = Datasets(tracking, home(settings))
    entries = (entry for found in datasets.all() for entry in datasets.read(found.dataset_id))
    return _ids(entry for entry in entries if entry.trace in request_ids)


def without(tracking: Tracking, settings: Settings, request_ids: Collection[str]) -> int:
    """Deletes all cases that were made of these requests, of whatever dataset, and returns how many. A frozen dataset stays
    frozen: what is left of it gets a digest of its own, and a note that it was another one; with nothing left it is no
    longer frozen. Also of what others made in MLflow of the experiment's traces. Raises `TrackingUnavailable`."""
    gone = 0
    with alone(settings.data, LOCK):
        for experiment in (home(settings), settings.mlflow.experiment):
            datasets = Datasets(tracking, experiment)
            for found in datasets.all():
                gone += _without(datasets, found, request_ids)
    return gone


def _without(datasets: Datasets, found: Stored, request_ids: Collection[str]) -> int:
    frozen = found.tags.get(ERASING)
    if frozen is None and FROZEN in found.tags:
        entries = datasets.read(found.dataset_id)
        whole = digest(_cases(entries, found.name)) == found.tags[FROZEN]  # else it stays one that somebody changed
        if whole and any(entry.trace in request_ids for entry in entries):
            # Before the first goes: cut off after that, it could not be told from one that somebody changed.
            frozen = found.tags[FROZEN]
            datasets.tag(found.dataset_id, {ERASING: frozen})
    gone = len(datasets.remove(found.dataset_id, request_ids))
    if frozen is not None:
        cases = _cases(datasets.read(found.dataset_id), found.name)
        if cases:
            datasets.tag(found.dataset_id, {FROZEN: digest(cases), ERASED: frozen})
        else:
            datasets.untag(found.dataset_id, FROZEN)
        datasets.untag(found.dataset_id, ERASING)
    return gone


def _ids(entries: Iterable[Entry]) -> frozenset[str]:
    """Case ids; what is no case has none."""
    found: set[str] = set()
    for entry in entries:
        with contextlib.suppress(ValueError):
            found.add(_case(entry).case_id)
    return frozenset(found)


def merged(cases: Iterable[Case], known: Mapping[str, Case]) -> tuple[list[Case], list[Case], int]:
    """The cases that are new, those whose known one lacks the reference that they have (with it), and how many others were
    known, or came twice. Raises a `DatasetError` where reference answers contradict each other."""
    new: dict[str, Case] = {}
    filled: dict[str, Case] = {}
    already = 0
    conflicts: list[str] = []
    for case in cases:
        other = new.get(case.case_id) or filled.get(case.case_id) or known.get(case.case_id)
        if other is None:
            new[case.case_id] = case
            continue
        already += 1
        if case.reference is None or case.reference == other.reference:
            continue
        if other.reference is not None:
            conflicts.append(case.case_id)
            continue
        (new if case.case_id in new else filled)[case.case_id] = msgspec.structs.replace(other, reference=case.reference)
    if conflicts:
        raise DatasetError(
            f"{len(conflicts)} cases have another reference answer already, and nothing was written; the first is "
            f"{conflicts[0]}: what a case expects is not replaced, export the dataset and import it under a new name"
        )
    return list(new.values()), list(filled.values()), already - len(filled)


def _consistent(cases: Iterable[Case]) -> list[Case]:
    """The cases, once it is sure that they do not contradict each other: before a dataset is made for them."""
    given = list(cases)
    merged(given, {})
    return given


def _add(datasets: Datasets, name: str, cases: Sequence[Case]) -> Added:
    before = _load(datasets, _found(datasets, name))
    if before.frozen:
        raise DatasetFrozen(f"dataset {name!r} is frozen: it takes no more cases; make another one with `dataset create`")
    new, filled, already = merged(cases, {case.case_id: case for case in before.cases})
    if new or filled:
        datasets.write(before.dataset_id, [_entry(case) for case in (*new, *filled)])
    after = _load(datasets, _found(datasets, name)) if new or filled else before
    return Added(dataset=after, added=len(new), filled=len(filled), already=already)


def _make(datasets: Datasets, name: str, tags: Mapping[str, str]) -> Stored:
    if datasets.find(_named(name)) is not None:
        raise DatasetExists(f"there is a dataset {name!r} already; add to it with `watchkeeper dataset add {name}`")
    return datasets.create(name, tags)


def _freeze(datasets: Datasets, name: str) -> Dataset:
    dataset = _load(datasets, _found(datasets, name))
    if dataset.frozen:
        return dataset
    if not dataset.cases:
        raise DatasetError(f"dataset {name!r} has no cases: there is nothing to freeze")
    datasets.tag(dataset.dataset_id, {FROZEN: dataset.digest})
    return msgspec.structs.replace(dataset, frozen=True)


def _found(datasets: Datasets, name: str) -> Stored:
    found = datasets.find(_named(name))
    if found is None:
        names = [each.name for each in datasets.all()]
        there = (
            f"there is {', '.join(names[:_NAMED])}{', …' if len(names) > _NAMED else ''}" if names else "there is none yet"
        )
        raise DatasetUnknown(f"there is no dataset {name!r}; {there}")
    return found


def _load(datasets: Datasets, found: Stored) -> Dataset:
    dataset = Dataset(
        dataset_id=found.dataset_id,
        name=found.name,
        frozen=FROZEN in found.tags,
        cases=_cases(datasets.read(found.dataset_id), found.name),
        tags=_tags(found),
        url=found.url,
    )
    if dataset.frozen and dataset.digest != found.tags[FROZEN]:
        raise DatasetChanged(
            f"dataset {found.name!r} was changed after it was frozen: its digest is {dataset.digest[:12]}, "
            f"frozen was {found.tags[FROZEN][:12]}"
        )
    return dataset


def _tags(found: Stored) -> dict[str, str]:
    return {key: value for key, value in found.tags.items() if key not in OURS}


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DatasetError(f"a dataset's name is up to 100 letters, digits, dots, dashes and underscores, not {name!r}")
    return name


def _entry(case: Case) -> Entry:
    return Entry(
        inputs={"messages": [{"role": message.role, "content": message.content} for message in case.messages]},
        expectations={} if case.reference is None else {REFERENCE: case.reference},
        tags={key: value for key, value in case.tags.items() if not key.startswith(OWN_TAG)},
        trace=case.request_id,
        session=case.session,
    )


def _cases(entries: Sequence[Entry], name: str) -> tuple[Case, ...]:
    cases: list[Case] = []
    for entry in entries:
        try:
            cases.append(_case(entry))
        except ValueError as error:  # msgspec.ValidationError is one
            raise DatasetError(
                f"dataset {name!r} holds a record that is no case, put there by something else than Watchkeeper: {error}"
            ) from None
    return tuple(sorted(cases, key=lambda case: case.case_id))


def _case(entry: Entry) -> Case:
    messages: Any = entry.inputs.get("messages")
    reference: Any = entry.expectations.get(REFERENCE)
    case = Case(
        messages=msgspec.convert(messages, tuple[Message, ...]),
        reference=msgspec.convert(reference, str | None),
        request_id=entry.trace,
        session=entry.session,
        tags=dict(entry.tags),
    )
    if _entry(case).inputs != entry.inputs:  # MLflow would keep it beside the same messages without the rest
        raise ValueError("inputs hold more than messages of role and content")
    return case
