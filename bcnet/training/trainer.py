"""Training loop: optimizer steps, logging, checkpoints, periodic evaluation, graceful shutdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from bcnet.training.batches import BatchStream
from bcnet.training.checkpoints import Checkpointer
from bcnet.training.interruption import Interruption, TrainingInterrupted
from bcnet.training.periodic import PeriodicEvaluation, PeriodicPictures
from bcnet.training.recorder import Recorder
from bcnet.training.state import TrainingState
from bcnet.training.step import TrainingStep


class Trainer:
    """Trains from the next iteration of a state to the last one. `build_trainer` makes one from a config.

    The losses of an iteration are read one iteration later, without host-device synchronisation; only a checkpoint
    synchronises, to never save values that are not finite.
    """

    def __init__(
        self,
        *,
        state: TrainingState,
        step: TrainingStep,
        loader: Iterable[list[dict]],
        max_iter: int,
        recorder: Recorder,
        checkpointer: Checkpointer,
        evaluation: PeriodicEvaluation,
        pictures: PeriodicPictures,
        accumulate_steps: int = 1,
    ) -> None:
        """
        Args:
            state: to train; its model in training mode (submodules in eval mode stay so).
            step: of this state.
            loader: endless, from the state's next iteration on: this process' batches, lists of dicts with "image"
                (uint8 [3, h, w]), "targets" (`Targets`), "image_id", "file_name".
            max_iter: total number of iterations, including those before the state's next one.
            recorder: checks and logs every iteration.
            checkpointer: of this state.
            evaluation: of the state's evaluated model, periodically and at the end.
            pictures: of the batches.
            accumulate_steps: batches per iteration.

        Raises:
            ValueError: the state is beyond `max_iter`.
        """
        if state.next_iteration > max_iter:
            raise ValueError(
                f"SOLVER.MAX_ITER is {max_iter}, and the checkpoint to resume from has {state.next_iteration} "
                f"iterations: training cannot end before that"
            )
        self.state = state
        self.step = step
        self.loader = loader
        self.max_iter = max_iter
        self.recorder = recorder
        self.checkpointer = checkpointer
        self.evaluation = evaluation
        self.pictures = pictures
        self.accumulate_steps = accumulate_steps

    def run(self) -> dict[str, float]:
        """Trains, then writes ``model_final.pth``, then evaluates.

        Returns:
            dict: the metrics of the last evaluation; empty without one and on all but the main process.

        Raises:
            NonFiniteLossError: a loss is not finite. The last checkpoint is from before that.
            TrainingInterrupted: SIGINT or SIGTERM was received; a checkpoint was written.
        """
        state, recorder = self.state, self.recorder
        # Handlers are set first: the loader's workers inherit them, and so survive the terminal's Ctrl-C.
        with Interruption() as interruption, recorder:
            stream = self._start_stream(interruption)
            for iteration in range(state.next_iteration, self.max_iter):
                recorder.start_iteration()
                batches = stream.fetch()
                if batches is None:
                    self._stop(interruption)
                values = self.step(iteration, batches)
                recorder.add(iteration, batches, values, rate=self.step.rate, data_seconds=stream.seconds)
                state.next_iteration = iteration + 1
                if interruption.stop_requested():
                    self._stop(interruption)

                last = state.next_iteration == self.max_iter
                evaluation_due = self.evaluation.due(iteration) and not last
                # An evaluation takes long and may be interrupted, so a checkpoint is saved before it.
                if last or evaluation_due or self.checkpointer.due(iteration):
                    self._save()
                if self.pictures.due(iteration):
                    recorder.write_pictures(iteration, self.pictures(state.model, batches[0], state.class_names))
                if evaluation_due:
                    recorder.write_metrics(iteration, self.evaluation(state.evaluated_model))
            recorder.finish()
            self.checkpointer.write_final()
            metrics = self.evaluation(state.evaluated_model)
            recorder.write_metrics(self.max_iter - 1, metrics)
        return metrics

    def _start_stream(self, interruption: Interruption) -> BatchStream:
        """Starts the loader's workers, then restores the random generators of the checkpoint."""
        if not self.state.model.training:
            self.state.model.train()
        loader = self.loader if self.state.next_iteration < self.max_iter else ()
        stream = BatchStream(loader, accumulate_steps=self.accumulate_steps, interruption=interruption)
        # Starting the workers may draw from the generators, so they are restored after that.
        self.state.restore_random_state()
        return stream

    def _save(self) -> None:
        self.recorder.flush()
        self.checkpointer.save(images=self.recorder.images)

    def _stop(self, interruption: Interruption) -> NoReturn:
        self._save()
        iteration = self.state.next_iteration - 1
        if iteration < 0:
            message = "interrupted before the first iteration; there was nothing to save"
        else:
            path = self.checkpointer.checkpoints.last()
            message = f"interrupted after iteration {iteration}; {path} holds its state, and --resume continues from it"
        raise TrainingInterrupted(f"Training was {message}", interruption.signal_number)
