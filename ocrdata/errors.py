"""Every error of the project. Invalid calls from Python may also raise a plain ValueError.

    OcrError                    exit status 1: something failed
    ├── UsageError              exit status 2: the request is invalid (also a ValueError)
    │   ├── SpecError           a shard spec that matches no shards, or too few
    │   └── UsageErrors         several of them at once
    ├── ShardError              corrupted or malformed data; knows shard, sample and member
    │   ├── DigestError         checksum mismatch
    │   ├── TruncatedError      a shard is truncated
    │   └── TransportError      the bytes cannot be read now: never a reason to skip a sample
    │       └── MissingError    there is no such object at a URL
    ├── ImageError              an image cannot be decoded, or is too large
    ├── RejectedRow             an origin row that cannot become a sample; carries the reason
    ├── SourceError             rows cannot be read from the hub, server or file they come from
    │   └── UnreachableError    the hub does not answer now
    ├── DiskError               no space, no permission, not a folder
    ├── WeightsError            weights do not fit the model, or are corrupted
    └── TrainError              a run cannot start or cannot continue

A message says what is wrong, where, the rule and the remedy. Commands print only the message
(`ocrdata.runtime.cli.run`); any other exception is a bug and shows its traceback.
"""

from __future__ import annotations


def first_line(exc: BaseException) -> str:
    """The first line of a library's exception, at most 200 characters; its type if the message is
    empty."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]


class OcrError(Exception):
    """Base of all errors here. `exit_status` is that of a command that fails with it; `is_agreed`
    says that all ranks of a run fail with it at the same point."""

    exit_status = 1
    is_agreed = False

    @property
    def messages(self) -> tuple[str, ...]:
        """What is wrong, one message for each fault."""
        return (str(self),)


class UsageError(OcrError, ValueError):
    """An invalid request: a flag, a value, or a combination of them."""

    exit_status = 2


class SpecError(UsageError):
    """A shard spec that does not resolve to existing shards."""


class UsageErrors(UsageError):
    """Several faults of one request; its arguments are their messages."""

    @property
    def messages(self) -> tuple[str, ...]:
        """One message for each fault."""
        return self.args

    def __str__(self) -> str:
        return "\n".join(self.args)


class Problems:
    """Collects the faults of one request, so that all are told at once.

    problems = Problems()
    with problems:
        check_steps()  # a UsageError in here is kept, and the next check is made
    with problems:
        check_files()
    problems.raise_all()
    """

    def __init__(self) -> None:
        self._found: list[UsageError] = []

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> bool:
        if not isinstance(exc, UsageError):
            return False
        self._found.append(exc)
        return True

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, message: str) -> None:
        """Add a fault."""
        self._found.append(UsageError(message))

    def raise_all(self) -> None:
        """Raise the only fault as it was, several as UsageErrors; a fault found twice counts once.
        Returns if there is none."""
        messages = list(dict.fromkeys(m for exc in self._found for m in exc.messages))
        if len(messages) == 1:
            raise self._found[0]
        if messages:
            raise UsageErrors(*messages)


class ShardError(OcrError):
    """Corrupted data, or data in another format, and where it is.

    `shard` is a file name, `key` a sample's key and `member` a name in the tar; the last two may
    be "".
    """

    def __init__(
        self, shard: str, detail: str, *, key: str = "", member: str = "", remedy: str = ""
    ) -> None:
        self.shard, self.key, self.member = shard, key, member
        self.detail, self.remedy = detail, remedy
        place = [shard]
        if key:
            place.append(f"sample {key}")
        if member:
            place.append(f"member {member}")
        message = ": ".join([*place, detail])
        super().__init__(f"{message}\n  {remedy}" if remedy else message)

    def __reduce__(self) -> tuple[object, ...]:
        # By default, pickling an exception loses its keyword-only arguments.
        return _rebuild, (type(self), self.shard, self.detail, self.key, self.member, self.remedy)


def _rebuild(
    kind: type[ShardError], shard: str, detail: str, key: str, member: str, remedy: str
) -> ShardError:
    return kind(shard, detail, key=key, member=member, remedy=remedy)


class DigestError(ShardError):
    """Bytes that do not match the checksum stored for them."""


class TruncatedError(ShardError):
    """A shard that ends early."""


class TransportError(ShardError):
    """Bytes that cannot be read now but may be intact: a missing file, a failing disk."""


class MissingError(TransportError):
    """An object at a URL that does not exist."""


class ImageError(OcrError):
    """An image that cannot be decoded, or is too large."""


class RejectedRow(OcrError):
    """An origin row that cannot become a sample; `str()` is the reason written to the rejects."""


class SourceError(OcrError):
    """Rows cannot be read from the hub, server or file they come from."""


class UnreachableError(SourceError):
    """The hub does not answer, or not now: what the cache holds may do instead."""


class DiskError(OcrError):
    """A file or folder cannot be written, or not be opened: disk full, read-only, no permission."""


class TrainError(OcrError):
    """A run that cannot start, or must not continue."""


class WeightsError(OcrError):
    """Weights that do not fit the model, are corrupted, or have an unknown layout."""
