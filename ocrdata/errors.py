"""Every error of the project; what a caller in Python does wrong may also be a ValueError.

    OcrError                    exit status 1: something failed
    ├── UsageError              exit status 2: the request is not valid (also a ValueError)
    │   └── SpecError           a shard spec that names nothing, or too little
    ├── ShardError              bytes are not what was written; knows shard, sample and member
    │   ├── DigestError         the bytes read differ from the digest stored for them
    │   ├── TruncatedError      a shard is truncated
    │   └── TransportError      the bytes cannot be reached now: never a reason to skip a sample
    ├── ImageError              an image cannot be decoded, or is larger than is allowed
    ├── RejectedRow             an origin row that cannot become a sample; carries the reason
    ├── SourceError             a hub, a file or a server that rows come from does not deliver
    ├── DiskError               no room, no permission, not a folder
    ├── WeightsError            weights that do not fit the model, or are not what was written
    └── TrainError              a run that cannot start or cannot go on

A message says what, where, the rule and the remedy. Command lines print it and nothing else
(`ocrdata.runtime.cli.run`); a bug still shows its traceback.
"""

from __future__ import annotations


def first_line(exc: BaseException) -> str:
    """What a library's exception says, at most 200 characters of its first line; its type where it
    says nothing."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]


class OcrError(Exception):
    """Base of all errors here. `exit_status` is what a command line ends with."""

    exit_status = 1


class UsageError(OcrError, ValueError):
    """A mistake in what was asked: a flag, a value, a combination."""

    exit_status = 2


class SpecError(UsageError):
    """A shard spec that cannot be resolved to existing shards."""


class ShardError(OcrError):
    """Damage or a format that is not ours, with its place.

    `shard` is a file name, `key` a sample's key and `member` a name in the tar; both may be "".
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
        # Keyword-only arguments do not survive the default way across a process boundary.
        return _rebuild, (type(self), self.shard, self.detail, self.key, self.member, self.remedy)


def _rebuild(
    kind: type[ShardError], shard: str, detail: str, key: str, member: str, remedy: str
) -> ShardError:
    return kind(shard, detail, key=key, member=member, remedy=remedy)


class DigestError(ShardError):
    """Bytes whose digest is not the stored one."""


class TruncatedError(ShardError):
    """A shard that ends early."""


class TransportError(ShardError):
    """Bytes that may be sound but cannot be had: a file that is gone, a disk that cannot read."""


class ImageError(OcrError):
    """An image that cannot be decoded."""


class RejectedRow(OcrError):
    """An origin row that cannot become a sample; `str()` is the reason written to the rejects."""


class SourceError(OcrError):
    """Rows cannot be had from where they should come from."""


class DiskError(OcrError):
    """The disk refuses: full, read-only, no permission."""


class TrainError(OcrError):
    """A run that cannot start, or must not go on."""


class WeightsError(OcrError):
    """Weights that do not fit the model, are damaged, or are of an unknown layout."""
