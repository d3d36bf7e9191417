"""Distributed launch: torchrun, spawned workers (one process per GPU), or a single process."""

from __future__ import annotations

import contextlib
import datetime
import gc
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

# Other processes wait while the main process computes the metrics of an evaluation.
TIMEOUT = datetime.timedelta(minutes=30)
STOPPED_BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def started_by_torchrun() -> bool:
    """Whether torchrun (or another launcher with the same environment variables) started this process."""
    return all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def launch(
    main: Callable,
    args: tuple = (),
    *,
    num_processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    use_gpus: bool = True,
) -> None:
    """Runs ``main(*args)`` once in every process of the group, with the process group set up.

    Under torchrun this process is already one of the group, and torchrun's counts apply. Otherwise `num_processes` are
    spawned, or for a single process `main` runs in this process without a group. SIGINT and SIGTERM are forwarded to
    the spawned processes. An error in one of them ends all, and is re-raised here.

    Args:
        main: a function at the top level of a module (spawning pickles it).
        args: its arguments.
        num_processes: processes on this machine, one per GPU.
        num_machines: number of machines; each calls this function.
        machine_rank: this machine, 0..num_machines-1.
        dist_url: where the processes meet, ``"tcp://address:port"``; ``"auto"`` uses a free local port.
        use_gpus: if there are GPUs, one per process with NCCL; otherwise gloo only.

    Raises:
        ValueError: invalid counts, or ``"auto"`` with more than one machine.
        SystemExit: a spawned process was stopped by a signal, after saving a checkpoint.
        Exception: of the first spawned process that failed, from a `torch.multiprocessing.ProcessRaisedException` with
            its traceback; or only that one, if the error itself cannot be pickled.
    """
    if started_by_torchrun():
        _run_in_group(main, args, use_gpus, int(os.environ["LOCAL_RANK"]), init_method="env://")
        return
    if num_processes < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise ValueError(
            f"cannot launch {num_processes} processes on machine {machine_rank} of {num_machines}; at least one "
            f"process and machine are needed, and ranks count from 0"
        )
    if num_processes * num_machines == 1:
        main(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                f"{num_machines} machines need a --dist-url reachable from all of them, e.g. tcp://10.0.0.1:29500"
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    group = (use_gpus, num_processes, num_processes * num_machines, machine_rank, dist_url)
    with tempfile.TemporaryDirectory() as errors, _without_termination_warnings():
        context = start_processes(_spawned, args=(main, args, errors, *group), nprocs=num_processes, join=False)
        assert context is not None  # with join=False
        with _signals_forwarded(context.processes):
            try:
                while not context.join():
                    pass
            except ProcessExitedException as exited:
                if exited.exit_code in STOPPED_BY_SIGNAL:
                    sys.exit(exited.exit_code)
                raise
            except ProcessRaisedException as raised:
                if (error := _read_error(errors, raised.error_index)) is not None:
                    raise error from raised
                raise


@contextlib.contextmanager
def _without_termination_warnings():
    """Silences torch's warnings about processes that it ends after another one has failed; the error suffices."""
    log = logging.getLogger("torch.multiprocessing.spawn")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _signals_forwarded(processes):
    """Forwards SIGINT and SIGTERM to the spawned processes, which save checkpoints; this process waits for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number, _frame):
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _spawned(local_rank, main, args, errors, use_gpus, num_processes, world_size, machine_rank, dist_url) -> None:
    rank = machine_rank * num_processes + local_rank
    try:
        _run_in_group(main, args, use_gpus, local_rank, init_method=dist_url, rank=rank, world_size=world_size)
    except Exception as error:
        _write_error(errors, local_rank, error)
        raise


def _write_error(folder: str, local_rank: int, error: Exception) -> None:
    """Saves an error for the parent process, if it can be pickled."""
    with contextlib.suppress(Exception), open(os.path.join(folder, str(local_rank)), "wb") as file:
        pickle.dump(error, file)


def _read_error(folder: str, local_rank: int) -> Exception | None:
    try:
        with open(os.path.join(folder, str(local_rank)), "rb") as file:
            return pickle.load(file)
    except Exception:  # not written, or its class cannot be unpickled
        return None


def _run_in_group(main: Callable, args: tuple, use_gpus: bool, local_rank: int, **group) -> None:
    use_gpus = use_gpus and torch.cuda.is_available()
    if use_gpus:
        if local_rank >= torch.cuda.device_count():
            raise ValueError(f"process {local_rank} has no GPU: this machine has {torch.cuda.device_count()}")
        torch.cuda.set_device(local_rank)
    # Gloo in addition to NCCL: gathered objects (random states, results) are on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if use_gpus else "gloo", timeout=TIMEOUT, **group)
    main(*args)
    # A reference cycle, such as the traceback of a caught error, may hold a model and thereby the group. Its threads
    # would outlive the group's end, and one that asks for the interpreter while this shuts down aborts the process.
    gc.collect()
    # Not after an error: other processes may be inside a collective operation, on which this would block.
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
