"""The eight specialists' cards of the routing benchmark, made of training rows and a description.

Knows how a card comes from example prompts; must not know scores or figures.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.routing.card_set import CardSet, card_set
from coordinator.routing.head import Head
from coordinator.routing.score import prototype_vector
from node.hosting.prototypes import make_prototypes, make_prototypes_in
from protocols.records import CapabilityCard
from routing_data import DOMAINS, Floats

PROTOTYPES = 8
BASELINE_PROTOTYPES = 4
DESCRIPTIONS: Mapping[str, str] = {
    "computing": (
        "Computer science and programming: algorithms, data structures, complexity and "
        "computability. Operating systems, computer architecture, caches, memory, instructions and "
        "processors. Networks, protocols, encryption, passwords, malware and security attacks such "
        "as buffer overflow. Machine learning, neural networks, classifiers, training and "
        "overfitting. Programs in Python, loops, lists, strings, recursion, Boolean logic, binary "
        "numbers and databases. Software, the internet, compilers, grammars and formal languages."
    ),
    "economics_business": (
        "Economics and business: supply and demand, prices, elasticity, costs, monopoly and "
        "competition. Inflation, unemployment, gross domestic product, fiscal and monetary policy, "
        "interest rates, exchange rates and trade. Regression, time series, estimators and "
        "hypothesis tests in econometrics. Accounting, audits, taxes, financial statements, assets "
        "and depreciation. Marketing, consumers, brands, market research and advertising. "
        "Management, organisations, leadership, stakeholders and business ethics."
    ),
    "history_politics": (
        "History and politics: wars, revolutions, empires, kings, colonies, slavery and the Cold "
        "War. European, American and world history from sources and documents of the time. "
        "Prehistory and archaeology: hominids, fossils, stone tools, early agriculture and ancient "
        "civilisations. Government: Congress, the president, elections, parties, federalism and "
        "the Supreme Court. Foreign policy of the United States, diplomacy, security studies, "
        "terrorism, nuclear weapons and international relations."
    ),
    "law": (
        "Law: contracts, offer and acceptance, breach and damages. Torts, negligence, liability "
        "and defamation. Crimes, murder, burglary, search and seizure, evidence, hearsay and trial "
        "procedure. Property, deeds, mortgages, easements, landlords, wills and trusts. "
        "Constitutional law, due process, statutes, courts, plaintiffs and defendants. "
        "International law, treaties, states, the use of force and human rights. Jurisprudence, "
        "natural law and legal theory. Clauses of agreements, licences and terms of service."
    ),
    "math": (
        "Mathematics: arithmetic word problems, fractions, percentages and ratios. Algebra, "
        "equations, polynomials, functions and graphs. Groups, rings, fields, subgroups and "
        "homomorphisms. Calculus, limits, derivatives, integrals, differential equations and "
        "series. Linear algebra, matrices, vector spaces and eigenvalues. Geometry, triangles, "
        "circles, areas and volumes. Probability and statistics, random samples, means, standard "
        "deviations, confidence intervals. Number theory, divisors, primes and remainders."
    ),
    "medicine": (
        "Medicine and health: symptoms, diagnosis, treatment and drugs; a patient comes to the "
        "physician with pain, fever or findings on examination. Diseases, cancer, infections, "
        "viruses, vaccines and inherited disorders. Anatomy, nerves, muscles, bones, blood and the "
        "heart. Genes, mutations, chromosomes and inheritance. Nutrition, vitamins, diet, proteins "
        "and metabolism. Ageing, older people, dementia and care. Nursing, clinical procedures, "
        "physiology, biochemistry of muscles and exercise."
    ),
    "physics_chem": (
        "Physics, chemistry, astronomy and electrical engineering: force, mass, acceleration, "
        "energy and momentum. Waves, light, optics, heat, gases and thermodynamics. Electric "
        "charge, current, voltage, resistance, circuits, magnetic fields, motors and amplifiers. "
        "Quantum mechanics, atoms, nuclei and radioactivity. Molecules, bonds, acids, bases, pH, "
        "oxidation, reactions, equilibrium, ions, solutions and spectroscopy. Planets, the Moon, "
        "stars, galaxies, orbits and telescopes."
    ),
    "psychology": (
        "Psychology: behaviour, learning, conditioning, reinforcement, memory and perception. "
        "Child development, attachment, cognition, intelligence and language. Personality, Freud, "
        "motivation, emotion, stress and attitudes. Mental disorders, depression, anxiety, "
        "schizophrenia, therapy, counselling and clients. Psychological tests, reliability, "
        "validity, research methods. Social psychology, groups, prejudice and conformity. Human "
        "sexuality, relationships, gender and contraception. The brain and neurons."
    ),
}
"""At most 600 bytes each, as on any card; written before a test row was looked at."""
_SENTENCE = re.compile(r"(?<=[.])\s+")


@dataclass(frozen=True, slots=True)
class TrialCards:
    """Cards of `names`, and the vectors of each description's sentences."""

    names: tuple[str, ...]
    cards: CardSet
    described: tuple[Floats, ...]

    def without_descriptions(self) -> "TrialCards":
        """The cards of people who wrote none: their cosines are not a number."""
        nothing = np.full((1, self.cards.prototypes.shape[1]), np.nan, np.float32)
        return TrialCards(self.names, self.cards, tuple(nothing for _ in self.names))

    def but(self, left_out: str) -> "TrialCards":
        """Without the card of `left_out`."""
        kept = [at for at, name in enumerate(self.names) if name != left_out]
        cards = [self.cards.cards[at] for at in kept]
        return TrialCards(
            tuple(self.names[at] for at in kept),
            card_set(cards, cards[0].encoder, self.cards.prototypes.shape[1]),
            tuple(self.described[at] for at in kept),
        )


def description_sentences(description: str) -> list[str]:
    """As the router cuts a card's description."""
    return [one for one in _SENTENCE.split(description) if one]


def trial_card(
    name: str, vectors: Floats, encoder: str, count: int, head: Head | None
) -> CapabilityCard:
    """A card whose prototypes stand for prompts with these vectors [prompts, dimensions], grouped
    in the space of `head` if there is one.
    """
    prototypes = make_prototypes(vectors, count)
    if head is not None:
        prototypes = make_prototypes_in(head.project(vectors), vectors, count)
    return CapabilityCard(
        peer="p", swarm="s", sequence=1, expires_at=1e10, specialist=f"trial/{name}",
        model_digest="d", base="b", precision="fp32", context_length=2048, domains=(name,),
        description=DESCRIPTIONS.get(name, ""), encoder=encoder,
        prototypes=prototypes,
    )  # fmt: skip


def trial_cards(
    examples: Mapping[str, Floats],
    described: Mapping[str, Floats],
    encoder: str,
    count: int = PROTOTYPES,
    head: Head | None = None,
) -> TrialCards:
    """One card for each domain in `examples` (vectors of its example prompts)."""
    cards = [trial_card(name, own, encoder, count, head) for name, own in examples.items()]
    dimensions = next(iter(examples.values())).shape[1]
    names = tuple(examples)
    return TrialCards(
        names, card_set(cards, encoder, dimensions), tuple(described[name] for name in names)
    )


def baseline_scores(whole: Floats, cards: CardSet) -> Floats:
    """The simplest thing that works: the best cosine with a card's prototypes, [prompts, cards]."""
    best = [
        (whole @ np.stack([prototype_vector(one) for one in card.prototypes]).T).max(axis=1)
        for card in cards.cards
    ]
    return np.stack(best, axis=1)


def by_domain(vectors: Floats, domains: Sequence[str]) -> dict[str, Floats]:
    """Rows of `vectors` by the eight domains."""
    labels = np.array(domains)
    return {name: vectors[labels == name] for name in DOMAINS if (labels == name).any()}
