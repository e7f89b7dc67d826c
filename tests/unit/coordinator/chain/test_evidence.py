"""Evidence from likelihoods, and the bound under which a specialist's word is doubted."""

import pytest

from coordinator.answer import AnswerRequest, Delta, Planning, Quality, Score
from coordinator.chain.alone import choice_of, is_for_one, wishes_of
from coordinator.chain.evidence import (
    FLOOR,
    FLOOR_HIGHEST,
    FLOOR_LOWEST,
    GAIN_MIN,
    METRIC,
    Gauge,
    floor_of,
    lead_of,
)
from coordinator.routing.plan import Plan, Step
from coordinator.routing.router import Wishes
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import (
    Chat,
    ChatMessage,
    JsonSchema,
    Likelihood,
    Likely,
    Prompt,
    Sampling,
    Text,
)
from protocols.records import CapabilityCard, MeasuredScore

A = PeerId("a")
LAW, TAX = SpecialistId("law"), SpecialistId("tax")


def likely(logprob: float, *top: tuple[int, float]) -> Likelihood:
    return Likelihood(logprob, b"t", tuple(Likely(token, one, b"t") for token, one in top))


def test_means_and_margins_also_of_tokens_that_were_not_the_likeliest() -> None:
    gauge = Gauge(-1.5)
    assert gauge.evidence() is None
    gauge.add(Delta(A, 0, (5, 6), "x", (likely(-0.5, (5, -0.5), (9, -2.5)),
                                        likely(-3.0, (9, -0.1), (6, -3.0)))))  # fmt: skip
    gauge.add(Delta(A, 2, (7,), "x", (likely(-1.0),)))  # nothing to compare it with
    gauge.add(Delta(A, 3, (8,), "x"))  # no likelihood: it does not count
    found = gauge.evidence()
    assert found is not None
    assert found.tokens == 3
    assert found.logprob == pytest.approx(-1.5)
    assert found.margin == pytest.approx((2.0 - 2.9 + 0.0) / 3)
    assert not found.is_low


def test_what_the_base_says_of_the_first_tokens_outweighs_the_bound() -> None:
    """Tokens that came after the base was asked do not count for the gain, but for the rest."""
    gauge = Gauge(-0.5)
    gauge.add(Delta(A, 0, (5, 6), "x", (likely(-0.2), likely(-0.4))))
    gauge.mark()
    gauge.add(Delta(A, 2, (7,), "x", (likely(-9.0),)))
    before = gauge.evidence()
    assert before is not None
    assert (before.gain, before.is_low) == (None, True)
    gauge.compare(-0.3 - GAIN_MIN - 0.01)
    after = gauge.evidence()
    assert after is not None
    assert after.logprob == before.logprob
    assert after.gain == pytest.approx(GAIN_MIN + 0.01)
    assert not after.is_low
    gauge.compare(-0.3 - GAIN_MIN + 0.01)
    less = gauge.evidence()
    assert less is not None
    assert less.is_low


def test_the_lead_is_over_the_best_of_those_who_could_be_asked_instead() -> None:
    third = SpecialistId("third")
    plan = Plan("chain", (Step(LAW),), "", (Score(LAW, 0.6), Score(TAX, 0.3), Score(third, 0.1)))
    assert lead_of(LAW, (third, TAX), plan) == pytest.approx(0.3)
    assert lead_of(TAX, (LAW,), plan) == pytest.approx(-0.3)
    assert lead_of(LAW, (), plan) == pytest.approx(0.6)
    assert lead_of(SpecialistId("unknown"), (TAX,), plan) == pytest.approx(-0.3)


def card(*scores: tuple[str, float]) -> CapabilityCard:
    measured = tuple(MeasuredScore("probe", metric, score, 10) for metric, score in scores)
    return CapabilityCard("p", "s", 1, 1e10, "law", "d", "b", "fp32", 9, scores=measured)


@pytest.mark.parametrize(
    ("cards", "floor"),
    [
        ([], FLOOR),
        ([card(("accuracy", 0.9))], FLOOR),
        ([card((METRIC, 0.8))], -0.8),
        ([card((METRIC, 50.0))], FLOOR_LOWEST),
        ([card((METRIC, 0.01))], FLOOR_HIGHEST),
        ([card((METRIC, 0.9)), card((METRIC, 9.0)), card((METRIC, 1.0))], -1.0),
    ],
)
def test_the_bound_is_what_good_answers_cost_within_reason(
    cards: list[CapabilityCard], floor: float
) -> None:
    assert floor_of(cards) == floor


CHAT = Chat((ChatMessage("user", "hi"),))


def request(prompt: Prompt = CHAT, **more: object) -> AnswerRequest:
    return AnswerRequest(RequestId("r"), "auto", prompt, Sampling(), 9, 9.0, **more)  # type: ignore[arg-type]


CHAIN = Plan("chain", (Step(LAW), Step(TAX)), "why", (Score(TAX, 0.9), Score(LAW, 0.5)))
ONE = Plan("one", (Step(LAW, alternatives=(TAX,)),), "why")


@pytest.mark.parametrize(
    ("asked", "wishes"),
    [
        (request(), Wishes()),
        (request(quality=Quality.BEST), Wishes(is_best_wanted=True)),
        (request(planning=Planning.SINGLE), Wishes(is_single=True)),
        (request(Text("once")), Wishes(is_single=True)),
        (request(Chat(CHAT.messages, "[]")), Wishes(is_single=True)),
        (request(constraint=JsonSchema("{}")), Wishes(is_single=True)),
    ],
)
def test_what_a_request_asks_of_its_plan(asked: AnswerRequest, wishes: Wishes) -> None:
    assert wishes_of(asked) == wishes
    assert is_for_one(asked, CHAIN) is wishes.is_single
    assert is_for_one(asked, ONE) is not wishes.is_best_wanted


def test_of_several_the_nearest_answers_alone() -> None:
    assert choice_of(CHAIN).specialist == TAX
    assert choice_of(Plan("chain", CHAIN.steps, "why")).specialist == LAW
