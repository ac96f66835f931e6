"""The code of docs/other_trainers.md runs, and each trainer in it resumes exactly: what it computes
after a stop are the same weights, bit for bit, from the same batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from torch import Tensor, nn

from tests.support.data import make_inputs

PAGE = Path(__file__).parent.parent.parent / "docs" / "other_trainers.md"

STOP, STEPS = 7, 12

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
"""The trainers' own warnings are not ours."""


class Model(nn.Module):
    """A linear model that looks at its images, and remembers a digest of each batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(400, 8), nn.Linear(8, 400)
        self.seen: list[str] = []

    def forward(
        self, input_ids: Tensor, labels: Tensor, position_ids: Tensor, images: list[Tensor]
    ) -> dict[str, Tensor]:
        batch = xxhash.xxh3_128()
        for tensor in (input_ids, labels, position_ids, *images):
            batch.update(tensor.numpy())
        self.seen.append(batch.hexdigest())
        x = self.embedding(input_ids)
        for image in images:
            x = x + image.float().mean() / 255
        scores = self.head(x)[:, :-1].flatten(0, 1)
        return {"loss": nn.functional.cross_entropy(scores, labels[:, 1:].flatten())}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the blocks of the page define, run one after the other beside shards named as there."""
    folder = tmp_path_factory.mktemp("page")
    inputs = make_inputs(folder)
    (folder / "shards").mkdir()
    for name, kind in (("charts", "shards"), ("chats", "text")):
        for tar in sorted(folder.glob(Path(inputs[kind]).name)):
            for path in folder.glob(f"{tar.stem}*"):
                path.rename(folder / "shards" / f"{name}-{path.name.partition('-')[2]}")
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), found)
        yield found


def new_loader(page: dict[str, Any], accumulate: int = 1) -> Any:
    sampler = page["PlanBatchSampler"](page["dataset"], page["plan"], accumulate=accumulate)
    return page["PlanLoader"](sampler, page["collate"])


def in_a_loop(page: dict[str, Any], folder: Path, model: Model, stop: int, _: int) -> Any:
    loader, optimizer = new_loader(page), torch.optim.AdamW(model.parameters(), lr=1e-2)
    folder.mkdir(exist_ok=True)
    page["train"](loader, model, optimizer, folder / "state.pt", stop=stop)
    return loader


def by_hugging_face(
    page: dict[str, Any], folder: Path, model: Model, stop: int, accumulate: int
) -> Any:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = control.should_training_stop = state.global_step == stop

    loader, goes_on = new_loader(page, accumulate), (folder / "hf").exists()
    trainer = page["trainer_of"](
        loader, model, str(folder / "hf"), gradient_accumulation_steps=accumulate,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        logging_strategy="no",
    )  # fmt: skip
    trainer.add_callback(Stop())
    trainer.train(resume_from_checkpoint=goes_on)
    return loader


def by_lightning(
    page: dict[str, Any], folder: Path, model: Model, stop: int, accumulate: int
) -> Any:
    loader, saved = new_loader(page, accumulate), folder / "lightning.ckpt"
    trainer = page["fit"](
        loader, model, ckpt_path=saved if saved.exists() else None, max_steps=stop,
        accumulate_grad_batches=accumulate, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.save_checkpoint(saved)
    return loader


@pytest.mark.parametrize(
    ("train", "accumulate"), [(in_a_loop, 1), (by_hugging_face, 2), (by_lightning, 2)]
)
def test_a_trainer_resumes_exactly(
    page: dict[str, Any], tmp_path: Path, train: Callable[..., Any], accumulate: int
) -> None:
    through, stopped, resumed = Model(), Model(), Model()
    loader = train(page, tmp_path / "through", through, STEPS, accumulate)
    assert loader.step == STEPS
    whole = [through.seen[at : at + accumulate] for at in range(0, len(through.seen), accumulate)]
    assert len(whole) == STEPS and len({tuple(step) for step in whole}) == STEPS
    train(page, tmp_path / "stopped", stopped, STOP, accumulate)
    train(page, tmp_path / "stopped", resumed, STEPS, accumulate)
    assert stopped.seen == through.seen[: STOP * accumulate]
    assert resumed.seen == through.seen[STOP * accumulate :]
    for one, other in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_trainers_read_the_same_batches(page: dict[str, Any], tmp_path: Path) -> None:
    seen = []
    for train in (in_a_loop, by_hugging_face, by_lightning):
        model = Model()
        train(page, tmp_path / train.__name__, model, STEPS, 1)
        seen.append(model.seen)
    assert seen[0] == seen[1] == seen[2]


def test_hugging_face_must_not_skip_batches(page: dict[str, Any], tmp_path: Path) -> None:
    from accelerate import skip_first_batches

    with pytest.raises(AttributeError, match="ignore_data_skip=True"):
        skip_first_batches(new_loader(page), 3)


def test_what_the_page_shows(page: dict[str, Any]) -> None:
    assert len(page["charts"]) == 40
    assert {row["key"] for row in page["charts"][(17, 3)]} == {"000000017", "000000003"}
    assert page["step"] == page["plan"].steps == STEPS
    text = page["in_squares"]([page["dataset"][len(page["dataset"]) - 1]])
    mixed = page["in_squares"]([page["dataset"][(0, 3)], page["dataset"][61]])
    assert text["pixel_values"].shape == (0, 3, 64, 64)
    assert mixed["pixel_values"].shape == (2, 3, 64, 64) and "images" not in mixed
    first = next(iter(page["by_processor"]))
    assert len(first["keys"]) == len(first["images"]) == 4
    assert all(images[0].mode == "RGB" for images in first["images"])
