from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_toys import ToyModel, ToyStream, toy_config, toy_trainer

from bcnet.distributed import rank, shared_seed, world_size
from bcnet.training import NonFiniteLossError, TrainingInterrupted, launch
from bcnet.training.launch import started_by_torchrun
from bcnet.training.reproducibility import seed_everything


def write_rank(folder) -> None:
    total = torch.ones(1)
    if world_size() > 1:
        dist.all_reduce(total)
    (folder / f"{rank()}_of_{world_size()}").write_text(f"{int(total)} {shared_seed(-1)}")


def test_one_process_runs_in_place(tmp_path):
    seen = []
    launch(seen.append, (os.getpid(),))
    assert seen == [os.getpid()]
    assert not dist.is_initialized()


@pytest.mark.parametrize("counts", [(0, 1, 0), (1, 0, 0), (1, 2, 2), (1, 2, -1)])
def test_counts_that_make_no_sense(counts):
    processes, machines, machine = counts
    with pytest.raises(ValueError, match=f"{processes} processes on machine {machine} of {machines}"):
        launch(print, num_processes=processes, num_machines=machines, machine_rank=machine)


def test_machines_need_an_address():
    with pytest.raises(ValueError, match="--dist-url"):
        launch(print, num_machines=2)


def failing(what: str) -> None:
    if rank() == 1:
        raise ValueError(what)
    dist.all_reduce(torch.ones(1))


def test_failure_of_one_process_ends_all(monkeypatch):
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"^the second process has failed$") as caught:
        launch(failing, ("the second process has failed",), num_processes=2)
    assert isinstance(caught.value.__cause__, mp.ProcessRaisedException)
    assert time.monotonic() - started < 120


def test_torchrun_variables(tmp_path):
    """Two processes started as torchrun starts them, which meet over gloo."""
    code = textwrap.dedent(
        """
        import pathlib, sys
        from test_launch import launch, write_rank
        launch(write_rank, (pathlib.Path(sys.argv[1]),))
        """
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29871",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**environment, "RANK": str(index), "LOCAL_RANK": str(index)},
        )
        for index in range(2)
    ]
    assert [process.wait(timeout=180) for process in processes] == [0, 0]
    seeds = [(tmp_path / f"{index}_of_2").read_text() for index in range(2)]
    assert seeds[0] == seeds[1] and seeds[0].startswith("2 ")


def test_torchrun_is_recognised(monkeypatch):
    assert not started_by_torchrun()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    assert started_by_torchrun()


def hold_the_group_in_a_cycle(folder) -> None:
    """A model in the traceback of a caught error, as `pytest.raises` leaves it; at exit the threads are listed."""

    def fail():
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        model(torch.ones(1, 2)).sum().backward()
        raise ValueError("with the model in its traceback")

    def list_threads() -> None:
        names = [(path / "comm").read_text().strip() for path in Path("/proc/self/task").iterdir()]
        (folder / f"threads_{number}").write_text("\n".join(names))

    number = rank()
    atexit.register(list_threads)
    cycle = []
    try:
        fail()
    except ValueError as error:
        cycle.extend((error, cycle))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by Linux alone")
def test_threads_of_the_group_end_with_it(tmp_path):
    """Otherwise one of them may abort the process while the interpreter shuts down."""
    launch(hold_the_group_in_a_cycle, (tmp_path,), num_processes=2)
    names = [name for number in range(2) for name in (tmp_path / f"threads_{number}").read_text().splitlines()]
    assert len(names) >= 2
    assert not [name for name in names if "gloo" in name]


class Share:
    """This process' part of a toy stream; rank 0 is asked to stop where `stop_at` says."""

    def __init__(self, stop_at=None) -> None:
        self.stop_at = stop_at

    def __call__(self, start_iteration: int):
        def stop(iteration):
            if iteration == self.stop_at and rank() == 0:
                signal.raise_signal(signal.SIGTERM)

        for batch in ToyStream(on_iteration=stop)(start_iteration):
            yield batch[rank() * 2 : rank() * 2 + 2]


class Poisoned(Share):
    """The second process' images of iteration 1 are not numbers."""

    def __call__(self, start_iteration: int):
        for iteration, batch in enumerate(super().__call__(start_iteration)):
            if iteration == 1 and rank() == 1:
                for sample in batch:
                    sample["image"] = sample["image"].float() * float("nan")
            yield batch


def train_toys(folder) -> None:
    """Uninterrupted, interrupted and resumed, and with a loss that is not finite in one process."""
    interrupted = folder / "interrupted"
    settings = {"SOLVER__MAX_ITER": 6, "SOLVER__EMA__ENABLED": True, "TEST__EVAL_PERIOD": 3}

    def run(name, stream, resume=False):
        cfg = toy_config(folder / name, **settings)
        model = ToyModel(seed=rank())  # DDP must give everybody the first process' weights
        seed_everything(cfg.SEED + rank())
        evaluate = lambda m: {"toy/AP": float(m.layers[1].running_mean.sum())}  # noqa: E731
        toy_trainer(cfg, model, stream, evaluate, resume=resume).run()

    run("whole", Share())
    with pytest.raises(TrainingInterrupted, match="interrupted after iteration 2") as caught:
        run("interrupted", Share(stop_at=1))
    if rank() == 0:
        assert caught.value.signal_number == signal.SIGTERM
        assert (interrupted / "last_checkpoint").read_text() == "model_0000002.pth"
    run("interrupted", Share(), resume=True)
    with pytest.raises(NonFiniteLossError, match=r"(?s)iteration 1 .*process 1: .*nan.*image_6\.jpg") as broken:
        run("broken", Poisoned())
    assert "process 0" not in str(broken.value) and "image_4.jpg" not in str(broken.value)


def test_two_processes_stop_together_resume_bit_for_bit_and_share_errors(tmp_path):
    for name in ("whole", "interrupted", "broken"):
        (tmp_path / name).mkdir()
    launch(train_toys, (tmp_path,), num_processes=2)
    whole, parts = (
        torch.load(tmp_path / name / "model_0000005.pth", weights_only=True) for name in ("whole", "interrupted")
    )
    assert whole["model"].keys() == parts["model"].keys()
    assert all(torch.equal(value, parts["model"][key]) for key, value in whole["model"].items())
    assert len(whole["random_states"]) == 2
    assert not torch.equal(whole["random_states"][0]["torch"], whole["random_states"][1]["torch"])
    assert not list((tmp_path / "broken").glob("*.pth"))


def train_slowly(folder) -> None:
    def wait(iteration):
        (folder / f"reached_{rank()}").touch()
        time.sleep(0.1)

    class Slow(Share):
        def __call__(self, start_iteration):
            for batch in ToyStream(on_iteration=wait)(start_iteration):
                yield batch[rank() * 2 : rank() * 2 + 2]

    cfg = toy_config(folder, SOLVER__MAX_ITER=1000)
    try:
        toy_trainer(cfg, ToyModel(), Slow()).run()
    except TrainingInterrupted as interrupted:
        sys.exit(128 + interrupted.signal_number)


def test_a_signal_to_the_launcher_reaches_the_spawned_processes(tmp_path):
    code = textwrap.dedent(
        """
        import pathlib, sys
        from test_launch import launch, train_slowly
        if __name__ == "__main__":
            launch(train_slowly, (pathlib.Path(sys.argv[1]),), num_processes=2)
        """
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 180
    while not all((tmp_path / f"reached_{index}").exists() for index in range(2)) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM, errors.decode()
    assert (tmp_path / "last_checkpoint").exists()
    assert b"Traceback" not in errors
