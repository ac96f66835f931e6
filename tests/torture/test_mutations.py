"""Every guard is tested: when one is removed from a copy of the code, a passing test fails.

A guard is an exact piece of source and its replacement. A piece that is no longer in the source
fails as well, so this list stays up to date.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.shardcommand import ROOT

pytestmark = pytest.mark.torture


@dataclass(frozen=True)
class Guard:
    """`source` in `file` is replaced by `without`; then one of the `test` files must fail (paths in
    `tests/`, without .py)."""

    name: str
    file: str
    source: str
    without: str
    test: str


GUARDS = (
    Guard("payload digest, sequential reads", "ocrdata/reading/sequential.py",
          "if verify and xxh3_128_digest(member) != digests", "if False and member != digests",
          "ocrdata/reading/test_shard_set ocrdata/reading/test_sequential "
          "ocrdata/reading/test_view"),
    Guard("payload digest, single reads", "ocrdata/reading/shard_set.py",
          "if self.verify and xxh3_128_digest(data) !=", "if False and data !=",
          "ocrdata/reading/test_shard_set ocrdata/reading/test_view"),
    Guard("seal of an index", "ocrdata/shards/index.py",
          "    check_seal(str(path), document)\n", "",
          "ocrdata/shards/test_index ocrdata/reading/test_find_index"),
    Guard("seal of token counts", "ocrdata/tokens/counts.py",
          "    check_seal(str(path), document)\n", "", "ocrdata/tokens/test_counts"),
    Guard("seal of a run's files", "ocrtrain/state/run_files.py",
          "        check_seal(str(path), value)\n", "", "ocrtrain/state/test_run_files"),
    Guard("seal of the manifest", "ocrdata/shards/manifest.py",
          "    check_seal(name, document)\n", "", "ocrdata/shards/test_manifest"),
    Guard("digest of a checkpoint's file", "ocrtrain/state/checkpoint.py",
          'saved["xxh3_128"] != digest_of(data)', "False", "ocrtrain/state/test_checkpoint"),
    Guard("end-of-archive blocks of a tar", "ocrdata/shards/tar.py",
          "if self.size < offset + len(END):", "if False:",
          "ocrdata/shards/test_tar ocrdata/reading/test_index_tar"),
    Guard("size cap of PAX headers", "ocrdata/shards/tar.py",
          "if size > MAX_EXTENDED:", "if False:", "ocrdata/shards/test_tar"),
    Guard("checksum of a header", "ocrdata/shards/tar.py",
          "if stored == found:", "if True:", "ocrdata/shards/test_tar"),
    Guard("largest image", "ocrdata/images/decode.py",
          "if width * height > max_pixels:", "if False:", "ocrdata/images/test_decode"),
    Guard("fsync of a file", "ocrdata/storage/files.py",
          "            os.fsync(file.fileno())\n", "", "test_durable ocrdata/storage/test_files"),
    Guard("fsync of a folder", "ocrdata/storage/files.py",
          "    fsync_folder(final.parent)\n", "", "test_durable ocrdata/storage/test_files"),
    Guard("fsync of a shard", "ocrdata/shards/writer.py",
          "                os.fsync(self._handle)\n", "",
          "test_durable ocrdata/shards/test_writer"),
    Guard("the only class a pickle may name", "ocrdata/tokens/nanochat_pickle.py",
          'if (module, name) in (("tiktoken.core", "Encoding"), ("tiktoken", "Encoding")):',
          "if True:", "ocrdata/tokens/test_nanochat_pickle"),
    Guard("transport errors never skip a sample", "ocrdata/reading/samples.py",
          "return bool(error.key) and not isinstance(error, TransportError)",
          "return True", "ocrtrain/data/test_stream_resume"),
    Guard("a resumed run has the data it started with", "ocrtrain/data/continued_plan.py",
          "if changes and not new_data:", "if False:", "ocrtrain/data/test_continued_plan"),
    Guard("a source goes on with its next row", "ocrtrain/data/continued_plan.py",
          'one.get("first_row", 0) + rows[number]', "0", "ocrtrain/data/test_continued_plan"),
    Guard("an extension is not made twice", "ocrtrain/run/resume.py",
          "if lengths and lengths[-1] == (steps - flags.extend, steps) and step < steps:",
          "if False:", "ocrtrain/run/test_changes"),
    Guard("changes of a discarded step are found again", "ocrtrain/run/changes.py",
          "if one.step < step] + made", "] + made", "ocrtrain/run/test_changes"),
    Guard("a sample in training and validation stops the run", "ocrtrain/data/leaks.py",
          "        if not allow:", "        if False:", "ocrtrain/data/test_leaks"),
    Guard("a pass without a graph adds nothing", "ocrtrain/run/step.py",
          "if loss.requires_grad:", "if True:", "ocrtrain/run/test_step"),
    Guard("answers of another evaluation are not mixed", "ocrtrain/evaluation/answers_file.py",
          "if changed and self.done:", "if False:", "ocrtrain/evaluation/test_answers_file"),
    Guard("digest of kept answers", "ocrtrain/evaluation/answers_file.py",
          'if found.get("digest") != digest_of(block):', "if False:",
          "ocrtrain/evaluation/test_answers_file"),
    Guard("a turn is asked about the images it shows", "ocrtrain/evaluation/answers.py",
          "if own := image_parts([user]):\n            images = images[-own:]",
          "if own := image_parts([user]):\n            images = images[:own]",
          "ocrtrain/evaluation/test_answers"),
    Guard("padding is hidden from attention", "ocrtrain/model/row_cache.py",
          "(places >= begins) & (places", "(places <= total) & (places",
          "ocrtrain/evaluation/test_generation"),
    Guard("only a loop stops an answer", "ocrtrain/evaluation/generation.py",
          "if last[period:] == last[:-period]:", "if True:", "ocrtrain/evaluation/test_generation"),
    Guard("held-out samples are not trained on", "ocrtrain/data/sources.py",
          "return shards[:-count], shards[-count:]", "return shards, shards[-count:]",
          "ocrtrain/data/test_sources"),
    Guard("other weights begin a new part of the plan", "ocrtrain/data/continued_plan.py",
          "or (names & {*WEIGHTS} and", "or (False and", "ocrtrain/data/test_continued_plan"),
    Guard("tokens per row", "ocrdata/planning/packing.py",
          "if length <= left < least and seats[row] >= pictures:",
          "if left < least and seats[row] >= pictures:", "ocrdata/planning/test_packing"),
    Guard("images per row", "ocrdata/planning/packing.py",
          "if length <= left < least and seats[row] >= pictures:",
          "if length <= left < least:", "ocrdata/planning/test_packing"),
    Guard("fractions look ahead", "ocrdata/planning/mixture.py",
          "if sum(phase[1])] if equal else phases[:1]", "if sum(phase[1])][:1]",
          "ocrdata/planning/test_mixture"),
    Guard("positions restart with each sample", "ocrdata/tokens/padding.py",
          "positions[number, first:] = np.arange(longest - first)",
          "positions[number, first:] = np.arange(first, longest)",
          "ocrdata/tokens/test_padding ocrtrain/data/test_batch"),
    Guard("targets are supervised ids", "ocrdata/tokens/padding.py",
          "np.where(rendered.loss_mask[1:], rendered.ids[1:], IGNORE)", "rendered.ids[1:]",
          "ocrdata/tokens/test_padding ocrtrain/data/test_batch"),
    Guard("a state of another plan", "ocrdata/torch.py",
          'if state["plan"] != self._digest:', "if False:", "ocrdata/test_torch_plan"),
    Guard("a batch is given out once", "ocrdata/torch.py",
          "if self._number != number:", "if False:", "ocrdata/test_torch_plan"),
    Guard("nobody shares out a rank's batches again", "ocrdata/torch.py",
          "if max((self._given or _ranks())[1], _ranks()[1]) > 1:", "if False:",
          "ocrdata/test_torch_plan"),
    Guard("shards replaced before a worker opens them", "ocrdata/torch.py",
          "if view.digest != self._digests[name]:", "if False:", "ocrdata/test_torch"),
    Guard("a plan of other sources", "ocrdata/torch.py",
          "if own != planned:", "if False:", "ocrdata/test_torch_plan"),
    Guard("maximum number of bad samples", "ocrtrain/data/skipped.py",
          "if len(self) > self.limit:", "if False:", "ocrtrain/data/test_skipped"),
    Guard("rows of an index", "ocrdata/shards/index.py",
          "if index.rows_digest() != header.rows_digest:", "if False:",
          "ocrdata/shards/test_index"),
    Guard("rows of token counts", "ocrdata/tokens/counts.py",
          "if digest_of_rows(table) != header.rows_digest:", "if False:",
          "ocrdata/tokens/test_counts"),
    Guard("seal of a list of token counts", "ocrdata/tokens/counts_list.py",
          "    check_seal(name, document)\n", "", "ocrdata/tokens/test_counts_list"),
    Guard("lists of token counts of other samples", "ocrdata/tokens/counts_list.py",
          "            shard.rows_digest,\n        ):",
          "            entry.rows_digest,\n        ):",
          "ocrdata/tokens/test_counts_list ocrdata/reading/test_verify"),
    Guard("a list of token counts is removed before they are made again",
          "ocrdata/planning/counting.py",
          "    remove_counts_lists([shard.location for shard in shards], tokenizer.fingerprint)\n",
          "",
          "ocrdata/tokens/test_counts_list"),
    Guard("digest of what is read from the cache", "ocrdata/storage/block_cache.py",
          "if os.pread(handle, _DIGEST + 1, size) != place.digest(data):", "if False:",
          "ocrdata/storage/test_block_cache"),
    Guard("names are part of that digest", "ocrdata/storage/block_cache.py",
          'hasher = xxh3_128(f"{os.path.basename(self.folder)}/{self.name}".encode())',
          "hasher = xxh3_128()", "ocrdata/storage/test_block_cache"),
    Guard("room in the cache before anything is written", "ocrdata/storage/block_cache.py",
          "if _is_written(place.writing) or not self._make_room(account, BLOCK + place.cost):",
          "if _is_written(place.writing):", "ocrdata/storage/test_block_cache"),
    Guard("what others write to the cache is counted", "ocrdata/storage/block_cache.py",
          "elif (name := _WRITING.fullmatch(file.name)) and _is_written(file.path):",
          "elif (name := _WRITING.fullmatch(file.name)) and not _is_written(file.path):",
          "ocrdata/storage/test_block_cache"),
    Guard("digest of the cache's account", "ocrdata/storage/block_cache.py",
          "return used if data == _pack(used) else -1", "return used",
          "ocrdata/storage/test_block_cache"),
    Guard("entries whose time has passed are evicted first", "ocrdata/storage/block_cache.py",
          "if needed < self._passed", "if False", "ocrdata/storage/test_block_cache"),
    Guard("files of others in the cache's folder", "ocrdata/storage/block_cache.py",
          "if _ZONE.fullmatch(one.name) and one.is_dir(follow_symlinks=False)",
          "if one.is_dir()", "ocrdata/storage/test_block_cache"),
    Guard("answers of weight 0 are not supervised", "ocrdata/tokens/rendering.py",
          "        if is_trained(answer):\n            spans",
          "        if True:\n            spans",
          "ocrdata/tokens/test_rendering"),
    Guard("answers of weight 0 in token counts", "ocrdata/tokens/rendering.py",
          "if not is_trained(answer):", "if False:", "ocrdata/tokens/test_rendering"),
    Guard("version of shards with answers of weight 0", "ocrdata/shards/index_rows.py",
          "if self._weighted:", "if False:", "ocrdata/reading/test_index_tar"),
    Guard("end of a zstd frame", "ocrdata/sources/text_files.py",
          "    if started:\n", "    if False:\n", "ocrdata/sources/test_text_files"),
    Guard("end of an array", "ocrdata/sources/json_rows.py",
          "            if inside:\n", "            if False:\n", "ocrdata/sources/test_json_rows"),
    Guard("record's images that no part shows", "ocrdata/sources/conversations.py",
          "if image not in named:", "if False:", "ocrdata/sources/test_conversations"),
    Guard("image paths outside the folder", "ocrdata/sources/image_files.py",
          "if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:", "if False:",
          "ocrdata/sources/test_image_files"),
    Guard("images changed between two attempts", "ocrdata/conversion/convert.py",
          "if record and record.input_state != input_state(", "if False and input_state(",
          "ocrdata/conversion/test_convert_again"),
    Guard("token counts belong to the index", "ocrdata/tokens/counts.py",
          "if header.index_rows_digest != rows_digest:", "if False:", "ocrdata/tokens/test_counts"),
    Guard("number of samples in an index", "ocrdata/shards/index.py",
          "fine = len(index) == index.header.samples and all(", "fine = all(",
          "ocrdata/shards/test_index"),
    Guard("number of samples in token counts", "ocrdata/tokens/counts.py",
          "if len(counts) != header.samples or below:", "if below:", "ocrdata/tokens/test_counts"),
    Guard("damaged samples are read again", "ocrdata/planning/counting.py",
          "if self._is_repaired(number, counts):\n            entry",
          "if False:\n            entry", "ocrdata/planning/test_counting"),
    Guard("texts are given back", "ocrdata/tokens/tokenizer.py",
          "if not self.backend.complete and (got", "if False and (got",
          "ocrdata/tokens/test_round_trip"),
    Guard("images in the order of their numbers", "ocrdata/shards/members.py",
          "images = sorted(numbered.get(chosen, []))", "images = numbered.get(chosen, [])",
          "ocrdata/shards/test_members"),
    Guard("masks are no images", "ocrdata/shards/members.py",
          "(match := _IMAGE.fullmatch(field)) is not None",
          "(match := re.search(_IMAGE.pattern, field)) is not None",
          "ocrdata/shards/test_members"),
    Guard("blank captions", "ocrdata/shards/members.py",
          "    if not text.strip():\n", "    if False:\n", "ocrdata/shards/test_members"),
    Guard("an index by older rules", "ocrdata/reading/index_tar.py",
          "(listed or not _is_outdated(", "(True or not _is_outdated(",
          "ocrdata/reading/test_find_index"),
    Guard("somebody's JSON with the name of a set", "ocrdata/shards/manifest.py",
          "        return size > len(head)\n", "        return True\n",
          "ocrdata/reading/test_spec"),
    Guard("maximum number of rows of a Parquet file", "ocrdata/shards/parquet_limits.py",
          "if footer.num_rows > rows:", "if False:",
          "ocrdata/shards/test_index ocrdata/tokens/test_counts"),
    Guard("size of a shard and its index", "ocrdata/reading/shard_entry.py",
          "if size != entry.bytes:", "if False:", "ocrdata/reading/test_shard_entry"),
    Guard("an index of another shard", "ocrdata/reading/shard_entry.py",
          "if _entry(entry.location, index.header) != entry:", "if False:",
          "ocrdata/reading/test_shard_entry ocrdata/reading/test_view"),
    Guard("digest of index blocks", "ocrdata/reading/index_cache.py",
          "if xxh3_128_digest(data) == digest:", "if True:", "ocrdata/reading/test_index_cache"),
    Guard("index blocks of another index", "ocrdata/reading/index_cache.py",
          "_HEAD.pack(_MAGIC, BLOCK_ROWS, identity(shard)):", "head[: _HEAD.size]:",
          "ocrdata/reading/test_index_cache"),
    Guard("checksum of a frame", "ocrdata/shards/frames.py",
          "write_checksum=True", "write_checksum=False", "ocrdata/shards/test_frames"),
    Guard("size of a frame's content", "ocrdata/shards/frames.py",
          "if len(result) == content:", "if True:", "ocrdata/shards/test_frames"),
    Guard("compression ratio of a shard", "ocrdata/shards/frames.py",
          "if tar_size > most_content(file_size):", "if False:", "ocrdata/shards/test_frames"),
    Guard("uncompressed size of Parquet pages", "ocrdata/shards/parquet_limits.py",
          "if size > limit:", "if False:", "ocrdata/shards/test_parquet_limits"),
    Guard("rows of a row group are too large", "ocrdata/sources/parquet.py",
          "if group.bytes > LARGEST_ROW * rows:", "if False:", "ocrdata/sources/test_parquet"),
    Guard("a row is too large", "ocrdata/sources/parquet.py",
          "if size > LARGEST_ROW:", "if False:", "ocrdata/sources/test_parquet"),
    Guard("size of a pickle", "ocrdata/tokens/nanochat_pickle.py",
          "if len(data) > LARGEST_PICKLE:", "if False:", "ocrdata/tokens/test_nanochat_pickle"),
    Guard("opcodes of a pickle", "ocrdata/tokens/nanochat_pickle.py",
          "        raise UsageError(\n            f\"this pickle contains the opcode",
          "        return pickle._Unpickler.dispatch[opcode]\n        raise UsageError(\n"
          "            f\"this pickle contains the opcode", "ocrdata/tokens/test_nanochat_pickle"),
    Guard("dicts and marks of a pickle", "ocrdata/tokens/nanochat_pickle.py",
          "if self.counted > MOST_COUNTED:", "if False:", "ocrdata/tokens/test_nanochat_pickle"),
    Guard("scans of a JPEG", "ocrdata/images/decode.py",
          "if (scans := _scans(data)) > MAX_SCANS:", "if (scans := _scans(data)) < 0:",
          "ocrdata/images/test_decode"),
    Guard("damaged JPEGs are named", "ocrdata/images/jpeg.py",
          "return None if str(exc).startswith(_OF_THE_INTERFACE) else str(exc)", "return None",
          "ocrdata/images/test_jpeg ocrdata/conversion/test_damaged"),
    Guard("images are checked by Pillow at conversion", "ocrdata/images/decode.py",
          "_decode_pillow(data, *_open(data, MAX_PIXELS))", "decode_rgb(data)",
          "ocrdata/images/test_decode"),
    Guard("opening a pipe does not block", "ocrdata/storage/files.py",
          " | os.O_NONBLOCK", "", "test_pipes"),
    Guard("a manifest lists all shards of its set", "ocrdata/reading/spec.py",
          "elif known[manifest_file]:", "elif False:", "ocrdata/reading/test_spec_manifests"),
    Guard("finished shards are discarded on request only", "ocrdata/conversion/convert.py",
          "if not self.options.discard and not all(map(self._is_empty, stale)):", "if False:",
          "ocrdata/conversion/test_convert_again"),
    Guard("a finished shard whose input changed", "ocrdata/conversion/comparison.py",
          "if digests is not None and digests != _digests(result):", "if False:",
          "ocrdata/conversion/test_comparison"),
    Guard("a tar that changed while it is converted", "ocrdata/sources/webdataset.py",
          "if file.version != self._version:", "if False:", "ocrdata/sources/test_webdataset"),
    Guard("an unfinished set", "ocrdata/reading/spec.py",
          "    _refuse_unfinished(tars)\n", "", "ocrdata/reading/test_spec_manifests"),
    Guard("lengths in the digest of a plan", "ocrdata/planning/plan.py",
          '"lengths": self._length_digests[number],', '"lengths": "",',
          "ocrdata/planning/test_plan"),
    Guard("blocks in the digest of a plan", "ocrdata/planning/plan.py",
          "source.blocks.recipe._asdict() if by_blocks", "{} if by_blocks",
          "ocrdata/planning/test_plan"),
    Guard("order windows keep their least number of samples", "ocrdata/planning/order.py",
          "// (blocks.recipe.window + blocks.recipe.block - 1)", "// blocks.recipe.window",
          "ocrdata/planning/test_order"),
    Guard("a run keeps the blocks of its plan", "ocrdata/planning/views.py",
          "blocks_of(shards, known.get(name))", "blocks_of(shards)",
          "ocrdata/planning/test_views ocrtrain/data/test_stream_orders"),
    Guard("a run from before the order by blocks keeps its own", "ocrtrain/settings/config.py",
          'older="full",', 'older="blocks",', "ocrtrain/data/test_stream_orders"),
    Guard("identity of a checkpoint's last batch", "ocrtrain/run/resume.py",
          "if not reasons and state.identity != recorded:", "if False:",
          "ocrtrain/run/test_resume"),
    Guard("all skipped samples are recorded", "ocrtrain/run/resume.py",
          "if not reasons and skipped.before(state.step) != state.skipped:", "if False:",
          "ocrtrain/run/test_resume"),
    Guard("another run is checked again under the lock", "ocrtrain/run/launch.py",
          'f"the run {run}"))\n    _check_is_free(run, resume=resume)', 'f"the run {run}"))',
          "ocrtrain/run/test_resume"),
    Guard("zstd window of a frame", "ocrdata/shards/frames.py",
          "if found.window_size > MAX_WINDOW:", "if False:", "ocrdata/shards/test_frames"),
    Guard("member names with ..", "ocrdata/shards/tar.py",
          'if ".." in name.split("/"):', "if False:", "ocrdata/shards/test_tar"),
    Guard("only one writer", "ocrdata/storage/locks.py",
          "            lock.acquire()\n", "",
          "ocrdata/storage/test_locks"),
    Guard("fsync of bad.jsonl", "ocrtrain/data/skipped.py",
          "        os.fsync(file.fileno())\n", "", "ocrtrain/data/test_skipped"),
    Guard("invalid safetensors files", "ocrtrain/state/checkpoint.py",
          "except SafetensorError as exc:", "except ZeroDivisionError as exc:",
          "test_canary"),
    Guard("a condition is one expression", "ocrdata/transfer/condition.py",
          "        if statement != frame:\n", "        if False:\n",
          "ocrdata/transfer/test_condition"),
    Guard("a condition depends on the sample alone", "ocrdata/transfer/condition.py",
          'if node["class"] not in _OF_ONE_SAMPLE:', "if False:",
          "ocrdata/transfer/test_condition"),
    Guard("functions of the time and of chance in a condition", "ocrdata/transfer/condition.py",
          'self._check_function(node["function_name"])', "pass",
          "ocrdata/transfer/test_condition"),
    Guard("no sample is judged under a narrower type", "ocrdata/transfer/condition.py",
          "            if known not in (NULL, kind):\n", "            if False:\n",
          "ocrdata/transfer/test_condition"),
    Guard("a field that no sample has", "ocrdata/transfer/selection.py",
          "            condition.check_found()\n", "            pass\n",
          "ocrdata/transfer/test_selection"),
    Guard("samples without images are no duplicates", "ocrdata/transfer/selection.py",
          " | (images == 0)", "", "ocrdata/transfer/test_selection"),
    Guard("samples with a common image are one group", "ocrdata/transfer/split.py",
          "        parents[max(one, other)] = min(one, other)\n", "        pass\n",
          "ocrdata/transfer/test_split"),
    Guard("the first origin stays", "ocrdata/transfer/samples.py",
          "    if _is_origin(known):\n", "    if False:\n", "ocrdata/transfer/test_samples"),
    Guard("other fields of a JSON are kept", "ocrdata/transfer/samples.py",
          "if at is None or _is_whole(", "if True or _is_whole(",
          "ocrdata/transfer/test_samples"),
    Guard("a set that changes while it is read", "ocrdata/transfer/inputs.py",
          "if shards.digest != self.digest:", "if False:", "ocrdata/transfer/test_inputs"),
    Guard("a set that is read is not written", "ocrdata/transfer/inputs.py",
          "if _is_same(set_location(shard.location), output):", "if False:",
          "ocrdata/transfer/test_inputs"),
    Guard("origins are unique", "ocrdata/transfer/inputs.py",
          "    _check_distinct([", "    (lambda *_: None)([", "ocrdata/transfer/test_inputs"),
    Guard("images of sets with damaged ones are decoded again", "ocrdata/transfer/inputs.py",
          'manifest.totals.get("damaged_jpegs") == 0', "True", "ocrdata/transfer/test_reshard"),
    Guard("only damage is skipped when sets are made of sets", "ocrdata/transfer/reshard.py",
          "                if not skippable(exc):\n", "                if False:\n",
          "ocrdata/transfer/test_reshard"),
    Guard("heads of other people's weights", "ocrtrain/model/hyperparameters.py",
          "if value is not None and value != rule.value:", "if False:",
          "ocrtrain/model/test_hyperparameters"),
    Guard("heads of our own weights", "ocrtrain/model/hyperparameters.py",
          "elif (_as_list(value)) != _as_list(getattr(model, name)):", "elif False:",
          "ocrtrain/model/test_hyperparameters"),
    Guard("rows of padding in a vocabulary", "ocrtrain/model/pretrained.py",
          "value[: fitting.rows]", "value[: len(parameters[name])]", "ocrtrain/model/test_start"),
    Guard("unknown tensors of a file", "ocrtrain/model/pretrained.py",
          '    _refuse(weights.what, "unknown", unknown)\n', "", "ocrtrain/model/test_start"),
    Guard("values that are not finite", "ocrtrain/model/pretrained.py",
          "if not bool(torch.isfinite(value).all()):", "if False:", "ocrtrain/model/test_start"),
    Guard("numbers of quantised weights", "ocrtrain/model/pretrained.py",
          "if value.dtype not in _FLOATS:", "if False:", "ocrtrain/model/test_start"),
    Guard("the tokenizer of a GPT", "ocrtrain/model/factory.py",
          "if of_gpt and named.fingerprint != of_gpt.fingerprint:", "if False:",
          "ocrtrain/model/test_start"),
    Guard("digest of an encoder file", "ocrtrain/model/encoder_file.py",
          "if tensors_digest(tensors, header) != digest:", "if False:",
          "ocrtrain/model/test_encoder_file"),
)  # fmt: skip


LONGEST_TESTS = 600
"""Time limit in seconds; several times what the tests of all guards take together."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("ocrdata", "ocrtrain", "tools", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def passes(folder: Path, tests: str) -> bool:
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m",
             "not torture", *(f"tests/{name}.py" for name in tests.split())]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1",
           "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    try:
        done = subprocess.run(
            words, cwd=folder, env=env, capture_output=True, text=True, check=False,
            timeout=LONGEST_TESTS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:  # without its guard, native code expands a bomb
        return False
    print(done.stdout[-2000:])  # shown if the caller's assertion fails
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return done.returncode == 0


@pytest.fixture(scope="module")
def passing_copy(copy: Path) -> Path:
    """The copy, checked to pass all tests with every guard in place: later failures are due to the
    removed guard."""
    assert passes(copy, " ".join(sorted({test for guard in GUARDS for test in guard.test.split()})))
    return copy


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_removing_a_guard_fails_a_test(guard: Guard, passing_copy: Path) -> None:
    path = passing_copy / guard.file
    source = path.read_text()
    assert guard.source in source, "the guard is no longer in the source; update this list"
    path.write_text(source.replace(guard.source, guard.without))
    try:
        assert not passes(passing_copy, guard.test), (
            f"no test fails without the guard: {guard.name}"
        )
    finally:
        path.write_text(source)
