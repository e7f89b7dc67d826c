"""Which tokens go through the model next: admission, chunked prefill, preemption, ends of answers.

Knows requests, clients, token counts and the page book; must not know tensors.

Turns go to the client that had least (`node.engine.shares`), and within a client to the request
that came first. Whoever's turn it is waits until it fits, and nobody overtakes it. When pages run
out, the request that came last gives its own up; the one that came first never does, so something
always ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from node.engine.base import (
    AdapterUse,
    Ended,
    EngineRequest,
    EngineStatistics,
    Generated,
    PageOwner,
    StepOutput,
)
from node.engine.pages import PAGE_SIZE, BlockTable, PageBook, PrefixScope, pages_for
from node.engine.sequence import FORCED_ROWS_MAX, TokenSequence, Work
from node.engine.shares import Shares
from node.engine.speculation.drafts import DRAFTED_MAX, Speculation, Wish
from protocols.errors import ProtocolError, TooLong, Unsupported


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """What one engine may do at once. Counts are tokens, but for `running` (requests).

    `step_tokens` is a step's budget: each answer under way takes one token of it, and chunks of
    prompts take the rest, but at least a quarter, so that many answers do not stop prompts and a
    long prompt delays answers by a known time only. A step in which no answer is under way delays
    none, so it may have `prompt_tokens`, if those are more. `model` names what decides the content
    of pages (`PrefixScope.model`). Clients find each other's prompts in the cache only if
    `is_cache_shared`.
    """

    context_length: int
    cache_tokens: int
    running: int
    step_tokens: int
    vocabulary_size: int
    model: str = ""
    is_cache_shared: bool = False
    prompt_tokens: int = 0

    @property
    def longest(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return min(self.context_length, self.cache_tokens)


class Scheduler:
    """Call `schedule`, run the work, give the new tokens to `advance`; `submit` at any time."""

    def __init__(self, limits: SchedulerLimits, speculation: Speculation | None = None) -> None:
        self._limits = limits
        self._speculation = speculation
        self._book = PageBook(pages_for(limits.cache_tokens))
        self._shares = Shares()
        self._waiting: dict[str, TokenSequence] = {}
        self._running: dict[str, TokenSequence] = {}
        self._done_on_arrival: list[Ended] = []
        self._tickets = 0
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._hit_tokens = 0
        self._preemptions = 0
        self._drafted_tokens = 0
        self._accepted_tokens = 0

    def __repr__(self) -> str:
        return f"<Scheduler running={len(self._running)} waiting={len(self._waiting)}>"

    @property
    def has_work(self) -> bool:
        """Whether any request is waiting, running, or ended and not yet told."""
        return bool(self._running or self._waiting or self._done_on_arrival)

    def submit(self, request: EngineRequest) -> None:
        """Queue a request.

        `TooLong` if it can never fit, `Unsupported` for an empty prompt, `ProtocolError` for ids
        outside the vocabulary (delivered ids come from the network) or a request id in use.
        """
        self._check(request)
        if len(request.delivered) >= request.max_tokens:
            self._done_on_arrival.append(Ended(request.request_id, "length"))
            return
        self._tickets += 1
        salt = self._salt(request.client, request.tenant)
        use = request.adapter or AdapterUse("")
        scope = PrefixScope(self._limits.model, salt, use.digest, use.start, request.chain)
        table = BlockTable(scope)
        # What the last forced token would lead to is nobody's question.
        tokens = [*request.prompt, *request.delivered, *request.forced[:-1]]
        self._waiting[request.request_id] = TokenSequence(request, self._tickets, table, tokens)
        self._shares.enter(request.client)

    def cancel(self, request_id: str) -> None:
        """Forget a request in any state, its pages at once; harmless for one that is not there."""
        sequence = self._running.get(request_id) or self._waiting.get(request_id)
        if sequence is not None:
            self._leave(sequence)
        self._done_on_arrival = [e for e in self._done_on_arrival if e.request_id != request_id]

    def ended_on_arrival(self) -> list[Ended]:
        """Requests whose delivered tokens were the whole answer; each is returned once."""
        ended, self._done_on_arrival = self._done_on_arrival, []
        return ended

    def schedule(self) -> list[Work]:
        """Admit what fits; one token of every answer under way, chunks of prompts, then drafts."""
        self._admit()
        inside = sorted(self._running.values(), key=self._turn)
        work: list[Work] = []
        for sequence in inside:
            if sequence.left == 1 and self._make_room(sequence, 1):
                work.append(Work(sequence, 1, wants_token=not sequence.request.forced))
        budget = self._limits.step_tokens
        if not work:
            budget = max(budget, self._limits.prompt_tokens)
        room = max(budget - len(work), budget // 4, 1)
        forced_rows = FORCED_ROWS_MAX
        begun: set[bytes] = set()
        for sequence in inside:
            if sequence.left > 1 and self._is_running(sequence) and room:
                self._match(sequence)
                if not begun.isdisjoint(self._names(sequence, 1)):
                    # Another one computes this very page now; it will be there in the next step.
                    continue
                wanted = min(room, sequence.at_once(forced_rows))
                wanted = self._book.before_known(sequence.table, sequence.findable, wanted)
                count = self._make_room(sequence, wanted) if wanted else 0
                if count:
                    begun |= self._names(sequence, count)
                    is_all = count == sequence.left and not sequence.request.forced
                    work.append(Work(sequence, count, wants_token=is_all))
                    room -= count
                    forced_rows -= work[-1].logits if sequence.request.forced else 0
        # A later entry may have taken the pages of an earlier one.
        work = [item for item in work if self._is_running(item.sequence)]
        return self._with_drafts(work)

    def advance(self, work: Sequence[Work], chosen: Sequence[Sequence[int]]) -> list[StepOutput]:
        """Record that `work` was run.

        `chosen` has the new tokens of each item that `wants_token`: as many of its drafts as were
        right, in order, and one more.
        """
        fresh = iter(chosen)
        outputs: list[StepOutput] = []
        for item in work:
            tokens = next(fresh) if item.wants_token else ()
            if self._is_running(item.sequence):
                outputs += self._record(item, tokens)
        return outputs

    @property
    def book(self) -> PageBook:
        """The pages; whoever fills or reads some from outside does it between two steps."""
        return self._book

    def table_of(self, owner: PageOwner) -> BlockTable:
        """Leads to the base model's pages of prompts of `owner`; it holds none itself."""
        salt = self._salt(owner.client, owner.tenant)
        return BlockTable(PrefixScope(self._limits.model, salt, chain=owner.chain))

    def statistics(self) -> EngineStatistics:
        """Counts now."""
        return EngineStatistics(
            running=len(self._running),
            waiting=len(self._waiting),
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            cache_tokens_used=self._book.used * PAGE_SIZE,
            cache_tokens_total=self._book.total * PAGE_SIZE,
            pages_used=self._book.used,
            pages_cached=self._book.cached,
            pages_total=self._book.total,
            prefix_hit_tokens=self._hit_tokens,
            preemptions=self._preemptions,
            drafted_tokens=self._drafted_tokens,
            accepted_tokens=self._accepted_tokens,
        )

    def _check(self, request: EngineRequest) -> None:
        wanted = len(request.prompt) + request.max_tokens
        if wanted > self._limits.longest:
            raise TooLong(self._limits.longest, wanted)
        if not request.prompt:
            raise Unsupported("The prompt has no tokens; there is nothing to continue.")
        if request.forced and (request.delivered or request.max_tokens != len(request.forced)):
            raise ProtocolError("of a forced answer nothing else is known, and all is wanted")
        ids = request.prompt + request.delivered + request.forced
        if min(ids) < 0 or max(ids) >= self._limits.vocabulary_size:
            raise ProtocolError(
                f"token ids outside the vocabulary of {self._limits.vocabulary_size}"
            )
        if request.adapter is not None and request.adapter.start < 0:
            raise ProtocolError("an adapter cannot begin before the prompt")
        if request.request_id in self._waiting or request.request_id in self._running:
            raise ProtocolError(f"request id {request.request_id!r} is in use")

    def _salt(self, client: str, tenant: str) -> str:
        """Whose pages may be found. Peer ids have no slash."""
        if self._limits.is_cache_shared:
            return ""
        return f"{client}/{tenant}" if tenant else client

    def _turn(self, sequence: TokenSequence) -> tuple[float, int]:
        """Who comes first: the client that had least, then the request that came first."""
        return self._shares.served(sequence.request.client), sequence.ticket

    def _is_running(self, sequence: TokenSequence) -> bool:
        return self._running.get(sequence.request.request_id) is sequence

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.running:
            sequence = min(self._waiting.values(), key=self._turn)
            if not self._fits(sequence):
                return
            del self._waiting[sequence.request.request_id]
            self._running[sequence.request.request_id] = sequence

    def _fits(self, sequence: TokenSequence) -> bool:
        """Whether there are pages for what it and the running ones need next, not for all they may.

        That is the rest of the prompts, and a page each to go on in, so that who has just come in
        is not the next to be preempted. Alone a sequence always fits. The pages that it matches
        are its own if it does.
        """
        saved = self._book.match(sequence.table, sequence.findable)
        promised = sum(one.pages_wanted for one in self._running.values())
        if self._running and sequence.pages_wanted + promised > self._book.available:
            self._book.release(sequence.table)
            return False
        self._note_hits(sequence, saved)
        return True

    def _match(self, sequence: TokenSequence) -> None:
        self._note_hits(sequence, self._book.match(sequence.table, sequence.findable))

    def _note_hits(self, sequence: TokenSequence, saved: int) -> None:
        self._hit_tokens += saved
        given = sequence.given
        known = max(sequence.computed - saved, sequence.prompt_read)
        sequence.reused += max(0, min(sequence.computed, given) - known)

    def _make_room(self, sequence: TokenSequence, count: int) -> int:
        """Pages for at most `count` more tokens; for how many, 0 if it has to wait.

        It waits when only sequences that came before it could give pages up.
        """
        while self._is_running(sequence):
            granted = min(count, self._book.room(sequence.table))
            if granted:
                self._book.grow(sequence.table, sequence.computed + granted)
                return granted
            last = max(self._running.values(), key=lambda one: one.ticket)
            if last is sequence:
                return 0
            self._preempt(last)
        return 0

    def _preempt(self, sequence: TokenSequence) -> None:
        """Back to the queue with its tokens; its full pages stay findable while nobody needs them.

        The next token depends on tokens and position alone, so it goes on as if nothing had been
        (in int4 on tile registers but for near-ties: long chunks are computed in another way).
        """
        self._book.release(sequence.table)
        del self._running[sequence.request.request_id]
        self._waiting[sequence.request.request_id] = sequence
        self._preemptions += 1

    def _names(self, sequence: TokenSequence, count: int) -> set[bytes]:
        return set(self._book.next_names(sequence.table, sequence.findable, count))

    def _with_drafts(self, work: list[Work]) -> list[Work]:
        """Drafts take what is left of the budget, and pages that nobody must give up for them.

        A step that reads prompts has none: whoever waits for a first token waits for that step.
        """
        spare = self._limits.step_tokens - len(work)
        is_reading = any(item.count > 1 or not item.wants_token for item in work)
        if self._speculation is None or is_reading or spare < 1 or not work:
            return work
        wishes = [Wish(item.sequence, self._draft_room(item.sequence)) for item in work]
        drafts = self._speculation.plan(wishes, spare)
        return [self._drafted(*pair) for pair in zip(work, drafts, strict=True)]

    def _draft_room(self, sequence: TokenSequence) -> int:
        """With all drafts right there is one token more; that must not be one too many."""
        return min(DRAFTED_MAX, sequence.request.max_tokens - sequence.answer_length - 1)

    def _drafted(self, item: Work, drafts: Sequence[int]) -> Work:
        """With as many of `drafts` as make sense and have room.

        An id that ends the answer is never drafted: nothing may be asked about what follows it.
        """
        sequence = item.sequence
        room = self._book.room(sequence.table) - item.count
        usable: list[int] = []
        for token_id in drafts[: max(0, min(room, self._draft_room(sequence)))]:
            is_known = 0 <= token_id < self._limits.vocabulary_size
            if not is_known or token_id in sequence.request.stop_ids:
                break
            usable.append(token_id)
        if not usable:
            return item
        self._book.grow(sequence.table, sequence.computed + item.count + len(usable))
        return replace(item, drafts=tuple(usable))

    def _record(self, item: Work, chosen: Sequence[int]) -> list[StepOutput]:
        """Take the new tokens, then publish what is known to be right; drafts that were not go."""
        sequence = item.sequence
        accepted = max(0, len(chosen) - 1)
        if tuple(chosen[:-1]) != item.drafts[:accepted]:
            raise ValueError("a token was chosen after a draft that was wrong")
        outputs = [one for token_id in chosen for one in self._take(sequence, token_id)]
        outputs += self._told(item)
        self._commit(sequence, item.count + accepted)
        self._shares.charge(sequence.request.client, item.count + len(item.drafts))
        self._drafted_tokens += len(item.drafts)
        self._accepted_tokens += accepted
        if self._speculation is not None and not sequence.request.forced:
            self._speculation.settle(sequence, sum(isinstance(o, Generated) for o in outputs))
        if outputs and isinstance(outputs[-1], Ended):
            self._leave(sequence)
        elif item.drafts:
            self._book.trim(sequence.table, len(sequence.tokens))
        return outputs

    def _commit(self, sequence: TokenSequence, count: int) -> None:
        self._book.commit(sequence.table, sequence.tokens, count)
        read = min(sequence.given, sequence.computed)
        self._prompt_tokens += max(0, read - sequence.prompt_read)
        sequence.prompt_read = max(read, sequence.prompt_read)

    def _take(self, sequence: TokenSequence, token_id: int) -> list[StepOutput]:
        """What there is to tell about a new token; the answer ends with `Ended`."""
        request = sequence.request
        if token_id in request.stop_ids:
            return [Ended(request.request_id, "stop", sequence.reused)]
        outputs: list[StepOutput] = [
            Generated(request.request_id, sequence.answer_length, token_id)
        ]
        sequence.tokens.append(token_id)
        self._generated_tokens += 1
        if sequence.answer_length >= request.max_tokens:
            outputs.append(Ended(request.request_id, "length", sequence.reused))
        return outputs

    def _told(self, item: Work) -> list[StepOutput]:
        """The forced tokens whose likelihood is known now, each once, also after a preemption."""
        sequence, request = item.sequence, item.sequence.request
        if not request.forced:
            return []
        known = item.position + item.logits
        outputs: list[StepOutput] = [
            Generated(request.request_id, position, request.forced[position])
            for position in range(sequence.told, known)
        ]
        sequence.told = max(sequence.told, known)
        if sequence.told == len(request.forced):
            outputs.append(Ended(request.request_id, "length", sequence.reused))
        return outputs

    def _leave(self, sequence: TokenSequence) -> None:
        self._book.release(sequence.table)
        self._running.pop(sequence.request.request_id, None)
        self._waiting.pop(sequence.request.request_id, None)
        self._shares.leave(sequence.request.client)
        if self._speculation is not None:
            self._speculation.leave(sequence)
