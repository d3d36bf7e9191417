"""The training loop."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bcnet
from bcnet.distributed import is_main_process, mean_over_processes, rank, world_size
from bcnet.maps import OCCLUDER
from bcnet.modeling.precision import autocast, autocast_dtype
from bcnet.training.checkpoints import Checkpoints
from bcnet.training.interruption import Interruption, TrainingInterrupted
from bcnet.training.occluder_report import OccluderReport
from bcnet.training.reproducibility import random_state, restore_random_state
from bcnet.training.run_log import RunLog
from bcnet.training.solver import LearningRate, build_optimizer, clip_gradients
from bcnet.training.step_values import NonFiniteLossError, StepValues, describe_images
from bcnet.visualization.training_batches import draw_training_pictures

logger = logging.getLogger(__name__)

# The workers of a loader may get a signal to the process group a moment earlier than this process.
SAME_SIGNAL_SECONDS = 0.2


class Trainer:
    """Trains a model from a stream of batches, as ``cfg.SOLVER`` says.

    One iteration is ``SOLVER.ACCUMULATE_STEPS`` batches: forward, backward, then one step of the optimizer.
    What an iteration measured (losses, wish to stop) is read one iteration later, so that the device is never
    waited for; only a checkpoint waits, because nothing that is not finite may get into it.
    """

    def __init__(
        self,
        cfg,
        model: nn.Module,
        build_loader: Callable[[int], Iterator[list[dict]]],
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """
        Args:
            cfg: the config, with SEED already chosen (not negative).
            model: on its device, with its initial weights. ``model(images, targets)`` gives scalar losses by name.
            build_loader: from the iteration to start with, an endless iterator of batches: this process' share,
                a list of dicts with "image" (uint8 [3, h, w]), "targets" (`Targets`), "image_id", "file_name".
            evaluate: from the model to metrics by name (an empty dict on all but the main process). It is called
                every ``TEST.EVAL_PERIOD`` iterations and at the end, by all processes.
            checkpoints: those of the run; None takes ``cfg.OUTPUT_DIR``'s.

        Raises:
            ValueError: IMS_PER_BATCH cannot be split, or a solver value makes no sense.
        """
        solver = cfg.SOLVER
        share = world_size() * solver.ACCUMULATE_STEPS
        if solver.IMS_PER_BATCH % share:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) must be divisible by the number of processes "
                f"({world_size()}) times SOLVER.ACCUMULATE_STEPS ({solver.ACCUMULATE_STEPS})"
            )
        self.cfg = cfg
        self.model = model
        self.build_loader = build_loader
        self.evaluate = evaluate
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(cfg, model)
        self.learning_rate = LearningRate.from_config(cfg)
        self.amp_dtype = autocast_dtype(cfg)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype == torch.float16)
        self.averaged = None
        if solver.EMA.ENABLED:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(solver.EMA.DECAY))
        self.checkpoints = checkpoints or Checkpoints(cfg.OUTPUT_DIR, kept=solver.CHECKPOINTS_KEPT)
        self.class_names: tuple[str, ...] = ()
        self.start_iteration = 0
        self._random_state: dict | None = None
        self._network = self._distributed()

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated and shipped: the averaged weights where SOLVER.EMA is enabled."""
        return self.averaged.module if self.averaged is not None else self.model

    def _distributed(self) -> nn.Module:
        if world_size() == 1:
            return self.model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.model, device_ids=devices, gradient_as_bucket_view=True)

    def run(self) -> dict[str, float]:
        """Trains from the first iteration, or the one after a loaded state, to ``SOLVER.MAX_ITER``.

        Returns:
            dict: the metrics of the last evaluation; empty without one and on all but the main process.

        Raises:
            NonFiniteLossError: a loss is not finite. The last checkpoint is from before that.
            TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was written.
        """
        max_iter = self.cfg.SOLVER.MAX_ITER
        occluders = OccluderReport(self.cfg.SOLVER.LOG_PERIOD)
        metrics: dict[str, float] = {}
        previous: StepValues | None = None
        self.model.train()
        # Handlers come first: the loader's workers inherit them, and so outlive the terminal's Ctrl-C.
        with Interruption() as interruption, self._open_log() as log:
            batches = self._start_batches()
            interruption.defer_worker_errors()
            for iteration in range(self.start_iteration, max_iter):
                start = time.perf_counter()
                fetched = self._fetch(batches, interruption)
                if fetched is None:
                    self._stop(iteration - 1, previous, interruption)
                data_seconds = time.perf_counter() - start
                current = self._iterate(iteration, fetched, data_seconds, wish_to_stop=bool(interruption.signal_number))
                if previous is not None:
                    self._take(previous, log, occluders)
                stop = self._wish_to_stop(previous, interruption)
                current.seconds = time.perf_counter() - start
                previous = current

                last = iteration + 1 == max_iter
                evaluation_due = self.evaluate is not None and (last or self._due(iteration, self.cfg.TEST.EVAL_PERIOD))
                # An evaluation takes long and may be cut off, so a checkpoint comes before it.
                if stop or last or evaluation_due or self._due(iteration, self.cfg.SOLVER.CHECKPOINT_PERIOD):
                    self._take(current, log, occluders)
                    previous = None
                    self._save(iteration, current)
                if stop:
                    self._stop(iteration, None, interruption)
                if log is not None and self._due(iteration, self.cfg.VIS_PERIOD):
                    self._draw(iteration, fetched[0], log)
                if evaluation_due:
                    metrics = self._evaluate(iteration, log)
            occluders.finish()
            if self.start_iteration >= max_iter and self.evaluate is not None:
                metrics = self._evaluate(max_iter - 1, log)
        self._save_final()
        return metrics

    # -- One iteration ---------------------------------------------------------------------------

    def _start_batches(self) -> Iterator[list[dict]]:
        """The stream of batches, its workers running, and the generators as they were at the checkpoint."""
        if self.start_iteration >= self.cfg.SOLVER.MAX_ITER:
            return iter(())
        loader = self.build_loader(self.start_iteration)
        if hasattr(loader, "info"):
            self.class_names = tuple(loader.info.class_names)
        batches = iter(loader)
        first = next(batches)
        # Starting the workers draws from the generators, so they are restored after that.
        if self._random_state is not None:
            restore_random_state(self._random_state)
            self._random_state = None
        return itertools.chain([first], batches)

    def _fetch(self, batches: Iterator, interruption: Interruption) -> list[list[dict]] | None:
        """The batches of one iteration; None if the signal that asks to stop has ended the loader's workers."""
        try:
            interruption.raise_worker_errors()
            return [next(batches) for _ in range(self.cfg.SOLVER.ACCUMULATE_STEPS)]
        # The latter two when a batch was ready, and the worker that holds its memory is gone.
        except (RuntimeError, OSError, EOFError):
            time.sleep(SAME_SIGNAL_SECONDS)
            # Several processes must stop after the same iteration, and this one cannot finish the next.
            if not interruption.signal_number or world_size() > 1:
                raise
            return None

    def _iterate(
        self, iteration: int, batches: list[list[dict]], data_seconds: float, *, wish_to_stop: bool
    ) -> StepValues:
        rate = self.learning_rate.apply(self.optimizer, iteration)
        values: dict[str, Tensor | float] = {}
        for index, batch in enumerate(batches):
            # Gradients are exchanged once, in the last backward pass.
            is_last = index + 1 == len(batches)
            with contextlib.nullcontext() if is_last or world_size() == 1 else self._network.no_sync():
                for name, value in self._forward_backward(batch, 1 / len(batches)).items():
                    values[name] = values[name] + value if name in values else value
        self._step()
        values["data_time"] = data_seconds
        values["wish_to_stop"] = float(wish_to_stop)
        images = [name for batch in batches for name in describe_images(batch)]
        return StepValues.send(values, iteration=iteration, images=images, rate=rate)

    def _forward_backward(self, batch: list[dict], weight: float) -> dict[str, Tensor | float]:
        """Adds `weight` times the gradient of a batch; returns its weighted losses and its counts, detached."""
        images = [record["image"].to(self.device, non_blocking=True) for record in batch]
        targets = [record["targets"].to(self.device, non_blocking=True) for record in batch]
        with autocast(self.device, self.amp_dtype):
            losses = self._network(images, targets)
            total = sum(losses.values())
        self.scaler.scale(total * weight).backward()
        values = {name: loss.detach() * weight for name, loss in losses.items()}
        values["total_loss"] = total.detach() * weight
        with_occluder = [target.masks.nonempty(OCCLUDER).sum() for target in targets]
        values["instances"] = float(sum(map(len, targets)))
        values["instances_with_occluder"] = torch.stack(with_occluder).sum()
        return values

    def _step(self) -> None:
        clipping = self.cfg.SOLVER.CLIP_GRADIENTS
        if clipping.ENABLED:
            self.scaler.unscale_(self.optimizer)
            clip_gradients(
                self.model.parameters(),
                clip_type=clipping.CLIP_TYPE,
                clip_value=clipping.CLIP_VALUE,
                norm_type=clipping.NORM_TYPE,
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    # -- Between iterations ------------------------------------------------------------------------

    def _due(self, iteration: int, period: int) -> bool:
        return period > 0 and (iteration + 1) % period == 0

    def _wish_to_stop(self, previous: StepValues | None, interruption: Interruption) -> bool:
        if world_size() == 1:
            return bool(interruption.signal_number)
        # The processes must stop after the same iteration, so the wish travels with the values.
        return previous is not None and previous.read()["wish_to_stop"] > 0

    def _take(self, step: StepValues, log: RunLog | None, occluders: OccluderReport) -> None:
        """Checks and logs the values of an iteration."""
        step.require_finite()
        values = step.read()
        del values["wish_to_stop"]
        for name in ("instances", "instances_with_occluder"):
            values[name] *= world_size()  # of the iteration, not of a process
        occluders.add(values)
        if log is not None:
            log.add(step.iteration, {**values, "time": step.seconds}, step.rate)
            if self._due(step.iteration, self.cfg.SOLVER.LOG_PERIOD):
                log.write()

    def _open_log(self):
        if not is_main_process():
            return contextlib.nullcontext()
        return RunLog(
            self.cfg.OUTPUT_DIR,
            max_iter=self.cfg.SOLVER.MAX_ITER,
            start_iteration=self.start_iteration,
            images_per_iteration=self.cfg.SOLVER.IMS_PER_BATCH,
        )

    def _stop(self, iteration: int, unsaved: StepValues | None, interruption: Interruption) -> NoReturn:
        if unsaved is not None:
            unsaved.require_finite()
            self._save(iteration, unsaved)
        if iteration < 0:
            message = "interrupted before the first iteration; there was nothing to save"
        else:
            path = self.checkpoints.last()
            message = f"interrupted after iteration {iteration}; {path} holds its state, and --resume continues from it"
        raise TrainingInterrupted(f"Training was {message}", interruption.signal_number)

    def _evaluate(self, iteration: int, log: RunLog | None) -> dict[str, float]:
        """Evaluates without leaving a trace in the random generators, which a resumed run would lack."""
        if world_size() > 1:
            # Each process updates its own running statistics; all must evaluate the ones that are saved.
            for buffer in self.evaluated_model.buffers():
                dist.broadcast(buffer, src=0)
        state = random_state()
        metrics = dict(self.evaluate(self.evaluated_model))
        restore_random_state(state)
        self.model.train()
        if log is not None and metrics:
            log.write_record(iteration, metrics)
        return metrics

    def _draw(self, iteration: int, batch: list[dict], log: RunLog) -> None:
        """Pictures of the batch to TensorBoard, without leaving a trace in the random generators."""
        state = random_state()
        pictures = draw_training_pictures(
            self.model,
            batch,
            image_format=self.cfg.INPUT.FORMAT,
            class_names=self.class_names,
            amp_dtype=self.amp_dtype,
        )
        restore_random_state(state)
        log.write_pictures(iteration, "training", pictures)

    # -- State -------------------------------------------------------------------------------------

    def _save(self, iteration: int, step: StepValues) -> None:
        """Writes a checkpoint, or raises if the step made a parameter infinite or not a number."""
        parameters = dict(self.model.named_parameters())
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in parameters.values()]).tolist()
        bad = [name for name, is_finite in zip(parameters, finite, strict=True) if not is_finite]
        if bad:
            raise NonFiniteLossError(
                f"the losses of iteration {iteration} are finite, its gradients were not: {len(bad)} parameters are "
                f"not finite any more, e.g. {bad[0]}; images: {', '.join(step.images)}. The last good checkpoint is "
                f"{self.checkpoints.last()}"
            )
        states = [random_state()]
        if world_size() > 1:
            gathered = [None] * world_size()
            dist.all_gather_object(gathered, states[0])
            states = gathered
        if is_main_process():
            self.checkpoints.write_periodic(self._state(iteration, states), iteration)
        if world_size() > 1:
            # No process goes on (or ends the program) before the file is complete.
            mean_over_processes(torch.zeros(1, device=self.device)).item()

    def _state(self, iteration: int, random_states: list[dict]) -> dict:
        """Tensors and plain containers alone, so that reading it needs no trust."""
        averages = None
        if self.averaged is not None:
            averages = {"n_averaged": int(self.averaged.n_averaged), "live_model": self.model.state_dict()}
        return {
            **self._shipped(iteration),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": averages,
            "random_states": random_states,
        }

    def _shipped(self, iteration: int) -> dict:
        return {
            "model": self.evaluated_model.state_dict(),
            "iteration": iteration,
            "seed": self.cfg.SEED,
            "config": self.cfg.dump(),
            "class_names": list(self.class_names),
            "bcnet_version": bcnet.__version__,
        }

    def load_state(self, content: Mapping) -> None:
        """Continues from a checkpoint's content. The config decides rates and decays, also over saved ones.

        Raises:
            ValueError: the checkpoint is of another architecture.
        """
        averages = content["ema"]
        self.class_names = tuple(content.get("class_names", ()))
        try:
            self.model.load_state_dict(averages["live_model"] if averages else content["model"])
            settings = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"the last checkpoint in {self.cfg.OUTPUT_DIR!r} is of another model: {error}") from error
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
        if content["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        if self.averaged is not None:
            if averages:
                self.averaged.module.load_state_dict(content["model"])
                self.averaged.n_averaged.fill_(averages["n_averaged"])
            else:
                logger.warning("The checkpoint has no averaged weights; SOLVER.EMA starts from the current ones")
                self.averaged.module.load_state_dict(self.model.state_dict())
        self.start_iteration = content["iteration"] + 1
        states = content["random_states"]
        if len(states) == world_size():
            self._random_state = states[rank()]
        else:
            logger.warning(
                "The checkpoint is of %d processes, this run has %d: random draws (not the training state) differ from "
                "an uninterrupted run's",
                len(states),
                world_size(),
            )

    def _save_final(self) -> None:
        if is_main_process():
            self.checkpoints.write_final(self._shipped(self.cfg.SOLVER.MAX_ITER - 1))
