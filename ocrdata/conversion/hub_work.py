"""The work folder of a conversion to a data set repository of the hub, by commits of many shards.

The bytes of a shard are sent when it is complete, and then deleted here; it can be seen after a
commit that names it and others. A record that is not committed yet says what to commit, so that a
conversion that goes on sends nothing twice. The manifest is alone in the last commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ocrdata.conversion.remote_work import RemoteWork, are_there
from ocrdata.conversion.work_folder import OnShards, ShardRecord
from ocrdata.shards.names import shard_number
from ocrdata.storage.files import discard, replace_file
from ocrdata.storage.hub_commits import HubBlob, commit, found_in, git_blob, not_sent, send
from ocrdata.storage.location import Location

COMMIT_SHARDS = 50
"""Shards in a commit; the hub limits commits an hour, and slows down with files in one."""


class HubWork(RemoteWork):
    """As `RemoteWork`. The few files that the hub takes with their commit only, as it does small
    ones of some types, wait in `path`."""

    def __init__(
        self,
        place: Location,
        out: Path,
        name: str,
        on_shards: OnShards | None = None,
        commit_shards: int = COMMIT_SHARDS,
    ) -> None:
        super().__init__(place, out, name, on_shards)
        self.commit_shards = commit_shards
        self._sent_shards: list[int] = []

    def shard_done(self, file: str) -> None:
        """Commit what was sent, as soon as it is enough for a commit."""
        number = shard_number(file)
        assert number is not None
        self._sent_shards.append(number)
        if len(self._sent_shards) == self.commit_shards:
            self.read_records(self._sent_shards)
            self._sent_shards = []

    def read_records(self, shards: Sequence[int]) -> dict[int, ShardRecord | None]:
        """The records of several shards. Those that were sent but not committed are committed."""
        known = {shard: sent for shard in shards if (sent := self._read_sent(shard))}
        names = [name for _, sent in known.values() for name in sent]
        found = self._found(names)
        waiting = {
            shard: {name: HubBlob(*one) for name, one in sent.items()}
            for shard, (_, sent) in known.items()
            if not are_there(sent, found)
        }
        if waiting:
            self._commit_sent(waiting)
            found = self._found(names)
        return {
            shard: known[shard][0] if shard in known and are_there(known[shard][1], found) else None
            for shard in shards
        }

    def announce(self, files: Sequence[str]) -> None:
        """As that of `RemoteWork`, once everything is committed that was sent."""
        self.read_records(self.shards())
        super().announce(files)

    def _commit_sent(self, waiting: Mapping[int, Mapping[str, HubBlob]]) -> None:
        """Commit shards whose bytes the hub still has."""
        blobs = [blob for files in waiting.values() for blob in files.values()]
        lost = not_sent(self.place, [blob for blob in blobs if blob.large])
        ready = [
            files
            for files in waiting.values()
            if all(
                blob not in lost if blob.large else (self.path / name).exists()
                for name, blob in files.items()
            )
        ]
        for start in range(0, len(ready), self.commit_shards):
            part = ready[start : start + self.commit_shards]
            files = {
                name: blob if blob.large else self.path / name
                for shard in part
                for name, blob in shard.items()
            }
            commit(self.place, files, f"{self.name}: {len(part):,} shards")
            for content in files.values():
                if isinstance(content, Path):
                    discard(content)

    def _send(self, paths: Sequence[Path]) -> Mapping[str, Sequence[object]]:
        sent: dict[str, Sequence[object]] = {}
        for path, blob in zip(paths, send(self.place, paths).values(), strict=True):
            data = b"" if blob else path.read_bytes()
            if not blob:
                replace_file(self.path / path.name, data)
            sent[path.name] = blob or git_blob(data)
        return sent

    def _found(self, names: Sequence[str]) -> Mapping[str, Sequence[object] | None]:
        return found_in(self.place, names)

    def _publish(self, paths: Sequence[Path]) -> None:
        sent = send(self.place, paths)
        names = ", ".join(path.name for path in paths)
        commit(self.place, {path.name: sent[path.name] or path for path in paths}, names)

    def _remove(self, names: Sequence[str]) -> None:
        if there := list(found_in(self.place, names)):
            commit(self.place, {}, f"without {', '.join(there)}", deleted=there)
