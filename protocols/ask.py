"""The order of messages in `/dslm/ask/1`, as a state machine for each end; no I/O.

Knows what may follow what; must not know how tokens are made or where bytes go.

    client                          server
    Ask                        ->
                               <-   Refusal, or Accepted
                               <-   Progress*, Tokens* (positions without a gap or a repeat)
    Cancel (at any time)       ->
                               <-   Finished, or Refusal
"""

from enum import Enum, auto
from typing import assert_never

from protocols.errors import (
    Busy,
    DslmError,
    NotHere,
    ProtocolError,
    Refused,
    TooLong,
    Unsupported,
)
from protocols.features import features_of
from protocols.messages.ask import (
    Accepted,
    Ask,
    Cancel,
    ClientMessage,
    Finished,
    Progress,
    Refusal,
    ServerMessage,
    Tokens,
)


class AskState(Enum):
    """Where one generation stands."""

    NEW = auto()
    ASKED = auto()
    STREAMING = auto()
    ENDED = auto()


class ClientAsk:
    """The asking end: checks that a peer's messages make one gapless answer."""

    def __init__(self, ask: Ask) -> None:
        self._next_position = len(ask.delivered)
        self._room = (ask.max_tokens or None) and ask.max_tokens - len(ask.delivered)
        self._features = frozenset(features_of(ask))
        self._forced = ask.forced
        self._logprobs = (ask.sampling.logprobs or 0) if ask.forced else ask.sampling.logprobs
        self._state = AskState.ASKED

    def __repr__(self) -> str:
        return f"<ClientAsk {self._state.name} next_position={self._next_position}>"

    @property
    def ended(self) -> bool:
        """Whether the peer has said its last word."""
        return self._state is AskState.ENDED

    def receive(self, message: ServerMessage) -> ServerMessage:
        """`message`, if it may come now; a `Refusal` is raised as the error it stands for.

        `Unsupported` if the peer accepts, but does not know all that was asked for.
        """
        if self.ended:
            raise ProtocolError("a message after the end of the answer")
        match message:
            case Refusal():
                self._state = AskState.ENDED
                raise refusal_error(message)
            case Accepted():
                self._expect(AskState.ASKED, "accepted twice")
                self._state = AskState.STREAMING
                self._check_features(message)
            case Progress():
                self._expect(AskState.STREAMING, "progress before acceptance")
            case Tokens():
                self._take_tokens(message)
            case Finished():
                self._expect(AskState.STREAMING, "finished before acceptance")
                if message.completion_tokens != self._next_position:
                    raise ProtocolError("the answer's length differs from the tokens received")
                self._state = AskState.ENDED
            case _:
                assert_never(message)
        return message

    def _check_features(self, message: Accepted) -> None:
        missing = ", ".join(sorted(self._features.difference(message.honours)))
        if missing:
            raise Unsupported(f"the peer's version of dslm does not know: {missing}")

    def _check_logprobs(self, message: Tokens) -> None:
        if self._logprobs is None:
            return
        if len(message.logprobs) != len(message.ids):
            raise ProtocolError("the likelihoods are not one for each token")
        if any(len(one.top) > self._logprobs for one in message.logprobs):
            raise ProtocolError("more likelihoods than were asked for")

    def _take_tokens(self, message: Tokens) -> None:
        self._expect(AskState.STREAMING, "tokens before acceptance")
        if message.position != self._next_position:
            raise ProtocolError(
                f"tokens at position {message.position}, expected {self._next_position}"
            )
        if self._room is not None and len(message.ids) > self._room:
            raise ProtocolError("more tokens than were asked for")
        after = self._next_position + len(message.ids)
        if self._forced and self._forced[self._next_position : after] != message.ids:
            raise ProtocolError("other tokens than those that were given")
        self._check_logprobs(message)
        self._next_position = after
        if self._room is not None:
            self._room -= len(message.ids)

    def _expect(self, state: AskState, complaint: str) -> None:
        if self._state is not state:
            raise ProtocolError(complaint)


class ServerAsk:
    """The serving end: one `Ask`, then nothing but `Cancel`."""

    def __init__(self) -> None:
        self._state = AskState.NEW

    def __repr__(self) -> str:
        return f"<ServerAsk {self._state.name}>"

    def receive(self, message: ClientMessage) -> ClientMessage:
        """`message`, if it may come now."""
        match message:
            case Ask():
                if self._state is not AskState.NEW:
                    raise ProtocolError("asked twice on one stream")
                if message.forced and (message.delivered or message.stop or message.constraint):
                    raise ProtocolError("an answer that is given, and what would change it")
                self._state = AskState.ASKED
            case Cancel():
                if self._state is AskState.NEW:
                    raise ProtocolError("cancelled before anything was asked")
                self._state = AskState.ENDED
            case _:
                assert_never(message)
        return message


def refusal_error(refusal: Refusal) -> DslmError:
    """The error that a peer's no stands for."""
    match refusal.code:
        case "busy" | "draining":
            return Busy(refusal.message or "the peer is busy", refusal.retry_after)
        case "not_here":
            return NotHere(refusal.message or "the peer does not host this specialist")
        case "too_long":
            return TooLong(refusal.limit, refusal.requested)
        case "unsupported":
            return Unsupported(refusal.message or "the peer cannot do this")
        case "failed":
            return Refused(refusal.message or "the peer failed while answering")
        case _:
            assert_never(refusal.code)


def refusal_of(error: DslmError) -> Refusal:
    """The no that tells a client about `error`, without our internals in it."""
    match error:
        case Busy():
            return Refusal("busy", str(error), retry_after=error.retry_after)
        case NotHere():
            return Refusal("not_here", str(error))
        case TooLong():
            return Refusal("too_long", limit=error.limit, requested=error.requested)
        case Unsupported() | ProtocolError():
            return Refusal("unsupported", str(error)[:500])
        case _:
            return Refusal("failed", "the peer failed while answering")
