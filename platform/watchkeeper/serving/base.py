"""One knowledge base: folders of documents, indexed, and indexed again when a file changes.

Searching never waits: it reads the last good index, and at most every two seconds has a thread look for changes. Keywords
are searched as soon as the files are read; embeddings join them when the encoder has made them, and stay on disk. Only
files that changed are read, cut and embedded again. Knows nothing of who may read it but the names in its settings.
"""

import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.serving import entities
from watchkeeper.serving.documents import SUFFIXES, Reader, ReaderBroken
from watchkeeper.serving.entities import Candidates, Catalogue
from watchkeeper.serving.index import Index, terms_of, text_of
from watchkeeper.serving.passages import Passage, Unreadable, cut
from watchkeeper.serving.vectors import Embed, VectorCache
from watchkeeper.settings.serving import SHARED

CHECK_S: Final = 2.0
RETRY_S: Final = (1.0, 10.0)
"""How long to wait before the encoder, or a build that failed, is tried again: at first, and at the most."""
MAX_FILES: Final = 5_000
MOST_TOLD: Final = 20
"""New problems that are written into the log one by one."""

log = logging.getLogger(__name__)
encode = msgspec.msgpack.Encoder().encode

Stamp = tuple[int, int]


class Problem(msgspec.Struct, frozen=True):
    """What was left out, and why. `path`: of a file or folder; empty where it is about the whole base."""

    path: str
    reason: str


class Indexed(msgspec.Struct, frozen=True):
    """What can be searched, as of one moment. `version`: a digest of all that is indexed, and of whether it can be found by
    meaning: as long as it stays, so do the passages that a question finds."""

    index: Index
    catalogue: Catalogue
    version: str


class _Document(msgspec.Struct, frozen=True):
    """One file as it was read. `terms`: of each passage; `lines`: of a list of names; `digest`: of what is indexed of it.
    `reason`: why there is nothing of it, empty where there is."""

    stamp: Stamp
    passages: tuple[Passage, ...] = ()
    terms: tuple[tuple[str, ...], ...] = ()
    candidates: Candidates | None = None
    lines: tuple[str, ...] = ()
    digest: bytes = b""
    reason: str = ""


class _Missing(Exception):
    """A folder of the base is not there; the message is its path."""


class _Closed(Exception):
    """The base was closed while it was read."""


class Base:
    """`name`: passages of a named base have it before their document's path. `tenants`, `routes`: whose requests may read
    it; empty: everybody's. `embed`: texts → (n, d) unit rows, called from a thread; may raise. `model`: its name: the
    vectors of another model are not mixed with these. `cache`: the folder for the vectors."""

    def __init__(
        self,
        folders: Sequence[Path],
        cache: Path,
        embed: Embed,
        model: str,
        *,
        name: str = "",
        tenants: Sequence[str] = (),
        routes: Sequence[str] = (),
        reader: Reader | None = None,
        clock: Callable[[], float] = time.monotonic,
        retry_s: tuple[float, float] = RETRY_S,
    ) -> None:
        self.name = name
        self._tenants = frozenset(tenants)
        self._routes = frozenset(routes)
        self._folders = tuple(folders)
        self._vectors = VectorCache(cache, model)
        self._embed = embed
        self._model = model
        self._reader = reader or Reader()
        self._clock = clock
        self._indexed: Indexed | None = None
        self._problems: tuple[Problem, ...] = ()
        self._documents: dict[str, _Document] = {}
        self._building = threading.Lock()
        self._thread: threading.Thread | None = None
        self._retry_s = retry_s
        self._next_check = float("-inf")
        self._closed = threading.Event()

    def open_to(self, tenant: str, route: str) -> bool:
        """Whether a request of this tenant on this route may read it."""
        return (not self._tenants or tenant in self._tenants) and (not self._routes or route in self._routes)

    @property
    def indexed(self) -> Indexed | None:
        """The last good index with what belongs to it; None: there is none yet."""
        return self._indexed

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that was left out of the last index, or kept it from being renewed."""
        return self._problems

    @property
    def complete(self) -> bool:
        """Whether what was read last can be found by meaning too."""
        return self._indexed is not None and _complete(self._indexed.index)

    @property
    def size(self) -> int:
        """How many passages can be found."""
        return len(self._indexed.index.passages) if self._indexed else 0

    def look(self) -> None:
        """Has a thread look for changes, unless one did within `CHECK_S`. Call it at the start, too."""
        now = self._clock()
        if now < self._next_check or (self._thread and self._thread.is_alive()) or self._closed.is_set():
            return
        self._next_check = now + CHECK_S
        self._thread = threading.Thread(target=self._look, name="knowledge", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the thread that looks; whether it has ended: all there is has been indexed, by meaning too."""
        if self._thread:
            self._thread.join(timeout_s)
        return not (self._thread and self._thread.is_alive())

    def close(self) -> None:
        """Nothing is looked for any more; what is indexed can still be searched."""
        self._closed.set()
        self._reader.close()

    def _look(self) -> None:
        pause, most = self._retry_s
        while not self.refresh() and not self._closed.wait(pause):
            pause = min(pause * 2, most)

    def refresh(self) -> bool:
        """Looks now, and indexes what has changed. Raises nothing: what went wrong is in `problems`, the index stays.
        False: something failed that may work later."""
        with self._building:
            try:
                if self._read() or self._indexed is None:
                    self._rebuild()
                complete = self._add_vectors()
                self._tell(tuple(self._find_problems()))
                return complete
            except _Closed:
                return True
            except _Missing as missing:
                self._tell((Problem(str(missing), "no such folder"),))
                return True
            except Exception as error:  # the last good index goes on serving
                log.exception("the knowledge base could not be indexed again")
                self._documents = {}
                self._tell((Problem("", f"could not be indexed again: {type(error).__name__}"),))
                return False

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """Keeps what is wrong, and writes what is new of it into the log."""
        new = [problem for problem in problems if problem not in self._problems]
        self._problems = problems
        for problem in new[:MOST_TOLD]:
            log.warning("knowledge base %s: %s", self.name or SHARED, f"{problem.path} {problem.reason}".strip())
        if len(new) > MOST_TOLD:
            log.warning("knowledge base %s: %d more files are left out", self.name or SHARED, len(new) - MOST_TOLD)

    def _read(self) -> bool:
        """Reads the files that are new or have changed; whether anything did. Raises `_Missing` where an index is there
        already: a folder that went away (an unmounted disk) does not empty the base."""
        found = dict(self._files())
        try:
            read_anew = {
                name: self._load(name, path, stamp)
                for name, (path, stamp) in found.items()
                if name not in self._documents or self._documents[name].stamp != stamp
            }
        finally:
            self._reader.rest()
        changed = bool(read_anew) or len(found) != len(self._documents)
        self._documents = {name: read_anew.get(name) or self._documents[name] for name in found}
        return changed

    def _files(self) -> Iterator[tuple[str, tuple[Path, Stamp]]]:
        """(name, (path, stamp)) of all files, `MAX_FILES` at most, in order. Names begin with the base's, and with their
        folder's where there are several folders. Hidden files and folders are passed over."""
        count = 0
        for folder in self._folders:
            if not folder.is_dir():
                if self._indexed is not None:
                    raise _Missing(str(folder))
                continue
            prefix = f"{self.name}/" if self.name else ""
            prefix += f"{folder.name}/" if len(self._folders) > 1 else ""
            for root, inner, files in os.walk(folder):
                inner[:] = sorted(name for name in inner if not name.startswith("."))
                for name in sorted(files):
                    path = Path(root, name)
                    if name.startswith(".") or path.suffix.lower() not in SUFFIXES or count >= MAX_FILES:
                        continue
                    try:
                        status = path.stat()
                    except OSError:  # it went away meanwhile, or is a link to nothing
                        continue
                    if not stat.S_ISREG(status.st_mode):  # whoever opened a pipe would wait for ever
                        continue
                    count += 1
                    yield prefix + path.relative_to(folder).as_posix(), (path, (status.st_mtime_ns, status.st_size))

    def _rebuild(self) -> None:
        """Index and catalogue of what was read. The first index has keywords only, so that it is there at once; a later
        one has its vectors before it takes the place of one that has."""
        documents = {name: document for name, document in self._documents.items() if not document.reason}
        listed = [document for name, document in documents.items() if Path(name).name == entities.FILE_NAME]
        told = [document for name, document in documents.items() if Path(name).name != entities.FILE_NAME]
        index = Index(
            [passage for document in told for passage in document.passages],
            terms=[terms for document in told for terms in document.terms],
        )
        catalogue = Catalogue.build(
            (document.candidates for document in told if document.candidates),
            (line for document in listed for line in document.lines),
        )
        if self._indexed is not None and self._indexed.index.vectors is not None:
            index = self._with_vectors(index) or index
        self._indexed = Indexed(index, catalogue, self._version(index))

    def _version(self, index: Index) -> str:
        seal = hashlib.sha256(f"{self.name}\0{self._model if _complete(index) else ''}".encode())
        for name, document in sorted(self._documents.items()):
            seal.update(f"\0{name}\0".encode("utf-8", "surrogateescape") + document.digest)
        return seal.hexdigest()[:16]

    def _add_vectors(self) -> bool:
        """Completes the index that serves; whether it is complete."""
        now = self._indexed
        if now is None or _complete(now.index):
            return True
        complete = self._with_vectors(now.index)
        if complete is None:
            return False
        self._indexed = Indexed(complete, now.catalogue, self._version(complete))
        return True

    def _with_vectors(self, index: Index) -> Index | None:
        """None while the encoder is away."""
        if not index.passages:
            return index
        try:
            return index.with_vectors(self._vectors.of([text_of(passage) for passage in index.passages], self._embed))
        except Exception as error:
            log.info("the knowledge base is searched by keywords for now: %s: %s", type(error).__name__, error)
            return None

    def _load(self, name: str, path: Path, stamp: Stamp) -> _Document:
        """One file, read and cut. A file that cannot be is left out, and says why."""
        if self._closed.is_set():
            raise _Closed
        try:
            if self._tenants and self._leaves(path):
                raise Unreadable("is a link to something outside the folder")
            text = self._reader.read(path)
            if path.name == entities.FILE_NAME:
                lines = tuple(text.splitlines())
                return _Document(stamp, lines=lines, digest=hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
            passages = tuple(cut(name, text))
            terms = tuple(tuple(terms_of(passage)) for passage in passages)
            return _Document(stamp, passages, terms, Candidates(text), digest=hashlib.sha256(encode(passages)).digest())
        except ReaderBroken:
            raise  # no fault of the file's: all is read again later
        except Unreadable as error:
            return _Document(stamp, reason=str(error))
        except Exception as error:
            log.exception("%s is left out of the knowledge base", name)
            return _Document(stamp, reason=f"could not be cut into passages: {type(error).__name__}")

    def _find_problems(self) -> Iterator[Problem]:
        for folder in self._folders:
            if not folder.is_dir():
                yield Problem(str(folder), "no such folder")
        for name, document in self._documents.items():
            if document.reason:
                yield Problem(name, document.reason)
        if self._vectors.unkept:
            yield Problem("", f"its vectors are not kept for the next start: {self._vectors.unkept}")
        if len(self._documents) >= MAX_FILES:
            yield Problem("", f"only the first {MAX_FILES} files are read")

    def _leaves(self, path: Path) -> bool:
        """Whether a file lies elsewhere, by a link: who may write into one tenant's folder may not read another's so."""
        real = path.resolve()
        return not any(real.is_relative_to(folder.resolve()) for folder in self._folders)


def _complete(index: Index) -> bool:
    return index.vectors is not None or not index.passages
