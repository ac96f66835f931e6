"""The recipes: every script is run with stand-ins for the programs that it starts, every flag is
parsed by its program's parser, and the costs are those of the code."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrdata.commands import check_shards, make_shards
from ocrtrain.commands import evaluate
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import parse

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
SCRIPTS = sorted(RECIPES.rglob("*.sh"))
PAGES = sorted(RECIPES.rglob("*.md"))

STAND_IN = """#!{python} -SE
import json, os, signal, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
ignores = signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
with open({log!r}, "a") as log:
    print(json.dumps({{"program": name, "words": words, "ignores USR1": ignores}}), file=log)
if name == "srun":
    os.execvp(words[2], words[2:])
if name == "scontrol" and words[0] == "show":
    print("node-a\\nnode-b")
if "--out" in words and "-m" in words:
    run = words[words.index("--out") + 1]
    os.makedirs(run, exist_ok=True)
    open(os.path.join(run, "config.json"), "w").close()
    fates = open({fates!r}).read().split()
    fate = fates.pop(0) if fates else "end"
    open({fates!r}, "w").write(" ".join(fates))
    if fate == "wait":
        told = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        print("ready", flush=True)
        while not told:
            signal.pause()
        again = signal.sigtimedwait([signal.SIGTERM], 0.2)
        print(len(told) + (again is not None), flush=True)
    if fate == "end":
        open(os.path.join(run, "deepencoder_001000.safetensors"), "w").close()
    sys.exit(int(fate) if fate.isdigit() else 0)
"""


class Machine:
    """A folder in which every program that the recipes start is a stand-in, which notes what it was
    called with and ends a stage by the next of `fates`: end, stop, wait (for SIGTERM) or a
    status."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.fates = folder, folder / "log", folder / "fates"
        self.log.touch()
        self.fates.touch()
        self.programs = folder / "bin"
        self.programs.mkdir()
        text = STAND_IN.format(python=sys.executable, log=str(self.log), fates=str(self.fates))
        for name in ("python", "torchrun", "srun", "scontrol"):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)

    def environment(self, **values: str) -> dict[str, str]:
        place = {"SHARDS": "shards", "RUNS": str(self.folder / "runs")}
        path = f"{self.programs}:{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG")}
        return {**kept, "PATH": path, **place, **values}

    def run(self, *words: str, **values: str) -> int:
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment(**values), check=False, timeout=30
        )
        return done.returncode

    def calls(self, program: str = "") -> list[dict[str, Any]]:
        """What was called since the last time, or that of one program."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        self.log.write_text("")
        return [call for call in found if program in ("", call["program"])]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def stage_of(words: list[str]) -> tuple[Config, bool]:
    """The config of the command `-m ocrtrain.stageN ...`, and whether it resumes."""
    assert words[0] == "-m"
    name = words[1].removeprefix("ocrtrain.")
    found = parse(words[2:], presets.STAGES[name], prog=name, description="")
    return found.config, found.resume


def torchrun(words: list[str]) -> tuple[Any, list[str]]:
    """The settings of torchrun, and the command `-m MODULE ...` that its ranks run."""
    from torch.distributed.run import get_args_parser

    found = get_args_parser().parse_args(words)
    assert found.module
    return found, ["-m", found.training_script, *found.training_script_args]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_one(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_the_data_script_makes_what_the_stages_read(machine: Machine) -> None:
    assert machine.run("recipes/data.sh") == 0
    made, checked = [], []
    for call in machine.calls():
        tool, *words = call["words"]
        if tool == "tools/make_shards.py":
            made.append(make_shards.build_parser().parse_args(words))
        else:
            assert tool == "tools/check_shards.py"
            checked += check_shards.build_parser().parse_args(words).specs
    assert [one.out for one in made] == ["shards"] * 3
    names = [f"shards/{name}.json" for name in ("chartqa", "smoltalk-train", "smoltalk-test")]
    assert checked == names
    assert machine.run("recipes/train.sh", "python") == 0
    one, two = (stage_of(call["words"])[0] for call in machine.calls("python")[:2])
    read = [*one.shards, *two.shards, *two.text, *(spec.split("[")[0] for spec in two.val_text)]
    assert set(read) == set(names)


def test_on_one_gpu_it_is_the_experiment(machine: Machine) -> None:
    assert machine.run("recipes/train.sh", "python") == 0
    first, second, scores = machine.calls("python")
    one, resumes = stage_of(first["words"])
    assert (one.batch, one.steps, resumes) == (10, 1000, False)
    two, resumes = stage_of(second["words"])
    assert (two.batch, two.steps, two.freeze, resumes) == (2, 1500, ("sam",), False)
    assert two.deepencoder == f"{machine.folder}/runs/stage1-full/deepencoder_001000.safetensors"
    asked = evaluate.build_parser().parse_args(scores["words"][2:])
    assert asked.checkpoint == two.out and asked.exchange
    assert scores["words"][:2] == ["-m", "ocrtrain.evaluate"]
    assert machine.run("recipes/train.sh", "python", EVALUATE="0") == 0
    assert machine.calls() == [], "both stages have ended"


def test_a_small_gpu_takes_a_row_at_a_time(machine: Machine) -> None:
    assert machine.run("recipes/train.sh", "python", MICRO="1") == 0
    for call in machine.calls("python")[:2]:
        config, _ = stage_of(call["words"])
        assert (config.micro_batch, config.checkpointing) == (1, True)


def test_what_was_stopped_goes_on(machine: Machine) -> None:
    machine.fates.write_text("stop 130 end stop")
    statuses = [machine.run("recipes/train.sh", "python", EVALUATE="0") for _ in range(4)]
    assert statuses == [75, 75, 75, 0]
    found = [stage_of(call["words"]) for call in machine.calls()]
    assert [(config.name, resumes) for config, resumes in found] == [
        ("stage1", False), ("stage1", True), ("stage1", True), ("stage2", False), ("stage2", True),
    ]  # fmt: skip


def test_what_failed_is_not_tried_again(machine: Machine) -> None:
    machine.fates.write_text("end 2")
    assert machine.run("recipes/train.sh", "python") == 2
    assert len(machine.calls()) == 2


def test_a_signal_reaches_the_launcher_once(machine: Machine) -> None:
    machine.fates.write_text("wait")
    with subprocess.Popen(
        ["recipes/train.sh", "torchrun"], cwd=ROOT, env=machine.environment(), text=True,
        stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGTERM)  # as a container or a terminal does
        assert process.stdout.readline() == "1\n"
        assert process.wait(30) == 75
    assert len(machine.calls()) == 1


def submit(machine: Machine) -> int:
    """Run the job of Slurm."""
    project = machine.folder / "project"
    if not project.exists():
        (project / ".venv" / "bin").mkdir(parents=True)
        (project / ".venv" / "bin" / "activate").touch()
        (project / "recipes").symlink_to(RECIPES)
    return machine.run(
        str(RECIPES / "two-nodes" / "slurm.sh"), SLURM_SUBMIT_DIR=str(project), SLURM_JOB_ID="17",
        SLURM_JOB_NODELIST="node-[a-b]", SLURM_NNODES="2", SLURM_CPUS_PER_TASK="64",
    )  # fmt: skip


def test_slurm_starts_the_ranks_and_requeues_what_was_stopped(machine: Machine) -> None:
    machine.fates.write_text("stop")
    assert submit(machine) == 75
    calls = machine.calls()
    assert [call["program"] for call in calls] == ["scontrol", "srun", "torchrun", "scontrol"]
    assert calls[-1]["words"] == ["requeue", "17"]
    assert calls[2]["ignores USR1"], "torchrun would end at Slurm's warning"
    found, words = torchrun(calls[2]["words"])
    assert (found.nnodes, found.nproc_per_node, found.max_restarts) == ("2", "8", 3)
    assert (found.rdzv_backend, found.rdzv_endpoint, found.rdzv_id) == (
        "c10d",
        "node-a:29500",
        "17",
    )
    assert stage_of(words)[0].batch == 160
    assert submit(machine) == 0
    calls = machine.calls()
    ranks = [torchrun(call["words"])[1] for call in calls if call["program"] == "torchrun"]
    assert [stage_of(words)[1] for words in ranks] == [True, False]
    assert ["requeue", "17"] not in [call["words"] for call in calls]
    machine.fates.write_text("1")
    (machine.folder / "runs" / "stage2-full" / "deepencoder_001000.safetensors").unlink()
    assert submit(machine) == 1
    assert ["requeue", "17"] not in [call["words"] for call in machine.calls()]


def test_slurm_is_asked_for_what_torchrun_starts() -> None:
    text = (RECIPES / "two-nodes" / "slurm.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time",
             "signal", "requeue", "open-mode", "output"}  # fmt: skip
    assert set(asked) == known  # options of sbatch
    assert len(re.findall("^#SBATCH", text, re.MULTILINE)) == len(known)
    assert (asked["nodes"], asked["gpus-per-node"], asked["ntasks-per-node"]) == ("2", "8", "1")
    assert asked["signal"] == "USR1@120"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((RECIPES / "two-nodes" / name).read_text()))


def container(job: dict[str, Any]) -> dict[str, Any]:
    """The only container of a job, whose mounts are volumes of its pod."""
    pod = job["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    mounts = {mount["name"] for mount in only["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    assert pod["restartPolicy"] == "OnFailure"
    assert (ROOT / only["command"][0]).is_file()
    return dict(only)


def test_kubernetes_runs_the_same_scripts(machine: Machine) -> None:
    claim, data = documents("kubernetes-data.yaml")
    service, train = documents("kubernetes-train.yaml")
    assert [one["kind"] for one in (claim, data, service, train)] == [
        "PersistentVolumeClaim", "Job", "Service", "Job",
    ]  # fmt: skip
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for job in (data, train):
        volumes = job["spec"]["template"]["spec"]["volumes"]
        assert volumes[0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    both = container(data), container(train)
    assert both[0]["image"] == both[1]["image"]
    first, second = ({one["name"]: one["value"] for one in c["env"]} for c in both)
    assert first.items() <= second.items()

    pod = train["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    name = train["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    values = {**second, "RUNS": str(machine.folder / "runs")}
    assert machine.run(*both[1]["command"], **values) == 0
    calls = machine.calls()
    assert [call["program"] for call in calls] == ["torchrun"] * 2
    for call, batch in zip(calls, (160, 32), strict=True):
        found, words = torchrun(call["words"])
        assert int(found.nnodes) == train["spec"]["completions"] == train["spec"]["parallelism"]
        assert found.rdzv_endpoint == f"{name}-0.{pod['subdomain']}:29500"
        assert int(found.nproc_per_node) == both[1]["resources"]["limits"]["nvidia.com/gpu"]
        config, _ = stage_of(words)
        assert config.batch == batch and config.shards == ("/data/shards/chartqa.json",)


def commands(page: Path) -> list[list[str]]:
    """The commands in the fenced blocks of a page, as words, continuation lines joined."""
    blocks = re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_flags_of_the_pages_exist(page: Path) -> None:
    words = [word for command in commands(page) for word in command]
    named = {word for word in words if re.match(r"(recipes|tools)/", word)}
    named |= set(re.findall(r"`((?:recipes|tools)/[\w/.-]+)`", page.read_text()))
    assert [name for name in named if not (ROOT / name).exists()] == []
    links = re.findall(r"\]\(([\w./-]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
    for command in commands(page):
        if "torchrun" in command:
            after = command[command.index("torchrun") + 1 :]
            found, _ = torchrun([*after, "-m", "ocrtrain.stage1"])
            values = dict(word.split("=") for word in command if word.startswith("BATCH"))
            assert int(found.nproc_per_node) == 8
            assert values == {"BATCH1": "80", "BATCH2": "16"}


def test_the_image_has_all_that_the_scripts_start() -> None:
    text = (RECIPES / "Dockerfile").read_text().replace("\\\n", " ")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
              for word in line.split()[:-1]]  # fmt: skip
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {"constraints.txt", "pyproject.toml", "ocrdata", "ocrtrain", "tools", "recipes"} <= set(
        copied
    )
    (default,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    assert json.loads(default) == ["recipes/train.sh", "python"]
    pinned = re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and "-c constraints.txt ${TORCH_OPTIONS} torch" in text


def test_the_costs_are_those_of_the_code(machine: Machine) -> None:
    costs = runpy.run_path(str(RECIPES / "costs.py"))
    page = (RECIPES / "README.md").read_text()
    assert costs["with_table"](page, costs["table"](0.3, 0.0)) == page, (
        "the estimates have changed: run python recipes/costs.py --write"
    )
    by_name = {name: rest for name, *rest in costs["RECIPES"]}
    one, node, both = by_name["one GPU"], by_name["one node"], by_name["two nodes"]
    assert (one, node, both) == ([1, 10, 2], [8, 80, 16], [16, 160, 32])
    for values, (gpus, *rows) in (({}, one), ({"BATCH1": "80", "BATCH2": "16"}, node)):
        runs = str(machine.folder / str(gpus))
        assert machine.run("recipes/train.sh", "python", EVALUATE="0", **values, RUNS=runs) == 0
        typed = [stage_of(call["words"])[0] for call in machine.calls()]
        for config, costed in zip(typed, costs["stages"](gpus, *rows), strict=True):
            for name in ("batch", "steps", "freeze", "pack", "image_size", "seq_len", "model",
                         "text_ratio", "checkpointing"):  # fmt: skip
                assert getattr(config, name) == getattr(costed, name), name
    for mfu, price in ((0.3, 2.0), (0.6, 2.0)):
        first = costs["table"](mfu, price).splitlines()[2].split(" | ")
        hours = costs["cost"](costs["stages"](1, 10, 2)[0]).hours(312e12, mfu)
        assert first[5] == f"{hours:.2f}" and first[7] == f"{price * hours:.2f}"
