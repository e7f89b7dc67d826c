"""When a plan comes down to one specialist's answer, and whose that is.

Knows the request and the plan; must not know how either is carried out. Pure.
"""

from coordinator.answer import AnswerRequest, Planning, Quality
from coordinator.routing.plan import Plan
from coordinator.routing.router import Choice, Wishes
from protocols.ids import SpecialistId
from protocols.messages.ask import Chat


def wishes_of(request: AnswerRequest) -> Wishes:
    """What `request` asks of its plan.

    An answer in a given form, a call of a tool and the continuation of a text cannot be put
    together from several.
    """
    is_form_given = request.constraint is not None or not isinstance(request.prompt, Chat)
    has_tools = isinstance(request.prompt, Chat) and bool(request.prompt.tools)
    return Wishes(
        is_best_wanted=request.quality is Quality.BEST,
        is_single=request.planning is Planning.SINGLE or is_form_given or has_tools,
    )


def is_for_one(request: AnswerRequest, plan: Plan) -> bool:
    """Whether one specialist answers, from the first token on as if there were no plans."""
    if wishes_of(request).is_single:
        return True
    if len(plan.steps) > 1:
        return False
    return request.quality is Quality.NORMAL or not plan.steps[0].alternatives


def choice_of(plan: Plan) -> Choice:
    """The only specialist of `plan`, or of several the one that lies nearest to the prompt."""
    planned = {step.specialist for step in plan.steps}
    ranked = (score.specialist for score in plan.scores if score.specialist in planned)
    specialist: SpecialistId = next(ranked, plan.steps[0].specialist)
    return Choice(specialist, plan.why, plan.scores)
