"""What the node counts, in Prometheus' terms: answers asked here, and requests served for peers.

Knows metric names and events; must not know who asked or what was said. No label carries a peer id
or any part of a prompt. Names follow vLLM's stems, so that its dashboards can be reused.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from coordinator.answer import (
    Activity,
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    Planned,
    Resumed,
    Routed,
    StepEnded,
    StepStarted,
)
from protocols.errors import DslmError
from protocols.ports import Clock
from protocols.versions import SOFTWARE

_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640)
_INTERVAL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1, 2.5, 5, 10)
_NO_MODEL = "none"

AnswerFunction = Callable[[AnswerRequest], AsyncGenerator[AnswerEvent, None]]


class Metrics:
    """One registry for one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()
        registry, by_model = self.registry, ("model_name",)
        self._prompt_tokens = Counter(
            "dslm_prompt_tokens", "Prompt tokens of answers asked here", by_model, registry=registry
        )
        self._generation_tokens = Counter(
            "dslm_generation_tokens", "Tokens of answers asked here", by_model, registry=registry
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From request to first token", _FIRST_TOKEN_BUCKETS
        )
        self._interval = self._histogram(
            "inter_token_latency_seconds", "Between two tokens", _INTERVAL_BUCKETS
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "From request to end", _FIRST_TOKEN_BUCKETS
        )
        self._ended = Counter(
            "dslm_requests",
            "Answers asked here, by how they ended (stop, length, an error code, abandoned)",
            labelnames=("model_name", "outcome"),
            registry=self.registry,
        )
        self._failovers = self._counter(
            "failovers", "Answers carried on by another peer, by reason", "reason"
        )
        self._plans = self._counter(
            "plans", "Answers asked here, by what was decided about who answers", "kind"
        )
        self._steps = self._counter(
            "steps",
            "Steps of answers by several, by how they ended (whole, failed, doubted)",
            "model_name",
            "outcome",
        )
        self._effort = self._counter(
            "effort",
            "Of all answers: specialists and parameters at work or known, peers, bytes moved",
            "what",
        )
        build = Gauge("dslm_build_info", "Version", ("version",), registry=self.registry)
        build.labels(SOFTWARE).set(1)

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A gauge whose value is asked for when somebody looks."""
        Gauge(f"dslm_{name}", about, registry=self.registry).set_function(read)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"dslm_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        labels = ("model_name",)
        return Histogram(f"dslm_{name}", about, labels, registry=self.registry, buckets=buckets)

    def text(self) -> str:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def observed(self, answer: AnswerFunction) -> AnswerFunction:
        """`answer`, with its events counted on the way."""

        async def observing(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
            observer = _Observer(self, self._clock)
            try:
                async with aclosing(answer(request)) as events:
                    async for event in events:
                        observer.see(event)
                        yield event
            except DslmError as error:
                observer.end(error.code)
                raise
            finally:
                observer.end("abandoned")

        return observing

    def add_effort(self, activity: Activity) -> None:
        """One answer's."""
        counts = {
            "specialists": len(activity.specialists),
            "specialists_known": activity.specialists_known,
            "parameters": activity.parameters,
            "parameters_known": activity.parameters_known,
            "peers": len(activity.peers),
            "bytes_sent": activity.bytes_sent,
            "bytes_received": activity.bytes_received,
            "bytes_of_pages": activity.bytes_of_pages,
        }
        for what, count in counts.items():
            self._effort.labels(what).inc(count)

    def add_step(self, step: StepEnded) -> None:
        """One step of an answer by several."""
        self._steps.labels(step.specialist, "failed" if step.error else "whole").inc()
        for other in step.others:
            if other.evidence is not None and other.evidence.is_low:
                self._steps.labels(other.specialist, "doubted").inc()


class _Observer:
    """Follows one answer. The first call of `end` counts."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._started = clock.monotonic()
        self._last_token: float | None = None
        self._model = _NO_MODEL
        self._ended = False

    def see(self, event: AnswerEvent) -> None:
        match event:
            case Routed():
                self._model = event.specialist
                self._metrics._plans.labels(event.way).inc()
            case Planned(plan):
                self._metrics._plans.labels(plan.kind).inc()
            case StepStarted():
                self._model = event.specialist
            case StepEnded():
                self._metrics.add_step(event)
            case Delta():
                self._tokens(len(event.ids))
            case Resumed():
                self._metrics._failovers.labels(event.reason).inc()
            case Completed():
                self._metrics._prompt_tokens.labels(self._model).inc(event.prompt_tokens)
                if event.activity is not None:
                    self._metrics.add_effort(event.activity)
                self.end(event.reason)
            case _:
                pass

    def end(self, outcome: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._metrics._ended.labels(self._model, outcome).inc()
        seconds = self._clock.monotonic() - self._started
        self._metrics._whole.labels(self._model).observe(seconds)

    def _tokens(self, count: int) -> None:
        now = self._clock.monotonic()
        self._metrics._generation_tokens.labels(self._model).inc(count)
        if self._last_token is None:
            self._metrics._first_token.labels(self._model).observe(now - self._started)
        else:
            self._metrics._interval.labels(self._model).observe((now - self._last_token) / count)
        self._last_token = now
