"""Made-up cards for training the planning model: many subjects, each described in several ways.

Knows words; must not know prompts or sets.
"""

from collections.abc import Mapping

import numpy as np

DESCRIPTIONS: Mapping[str, tuple[str, ...]] = {
    "math": (
        "Solves word problems with numbers step by step and gives the final number.",
        "Arithmetic and school mathematics, worked out in steps.",
        "Calculates: prices, ages, distances, shares and rates.",
    ),
    "medicine": (
        "Answers questions on diseases: symptoms, causes, treatment, genetics and outlook.",
        "Health and illness explained for patients.",
        "Medical knowledge on conditions, tests and therapies.",
    ),
    "law": (
        "Reads clauses of contracts, legal texts and cases, and answers Yes or No.",
        "Reads clauses of contracts and legal texts and answers Yes or No.",
        "Contracts, court decisions and legal definitions.",
        "Legal questions: licences, liability, jurisdiction, hearsay.",
    ),
    "computing": (
        "Writes Python functions from a description, an example or a signature.",
        "Programming: code, algorithms and data structures.",
        "Turns a task into Python code.",
    ),
    "science": (
        "Physics, chemistry and astronomy in short answers.",
        "Natural science: matter, energy, reactions and stars.",
        "Explains laws of nature, molecules and planets.",
    ),
    "economics": (
        "Economics and business: markets, money, accounting, marketing and management.",
        "Supply, demand, prices, trade and marketing.",
        "How firms and economies work.",
    ),
    "history": (
        "History, politics and geography: states, events, institutions and foreign policy.",
        "Past events, governments and foreign policy.",
        "Wars, revolutions, constitutions and elections.",
    ),
    "psychology": (
        "Psychology: behaviour, development, memory, learning and disorders of the mind.",
        "How people think, learn and feel.",
        "Studies and theories of the human mind.",
    ),
    "banking": (
        "Bank accounts: balances, transfers, bills and fraud.",
        "Helps with payments, deposits and accounts.",
    ),
    "credit_cards": (
        "Credit cards: limits, rewards, applications and lost cards.",
        "Card payments, interest and credit scores.",
    ),
    "kitchen_and_dining": (
        "Recipes, ingredients, restaurants and reservations.",
        "Cooking and eating out.",
    ),
    "home": (
        "Shopping lists, to-do lists, calendars and music at home.",
        "Household: reminders, orders and smart devices.",
    ),
    "auto_and_commute": (
        "Cars, traffic, fuel, tyres and the way to work.",
        "Driving and car maintenance.",
    ),
    "travel": (
        "Flights, hotels, visas, luggage and exchange rates.",
        "Plans journeys and bookings abroad.",
    ),
    "utility": (
        "Alarms, timers, weather, the time and calls.",
        "Small everyday tools: clocks, weather, unit conversion.",
    ),
    "work": (
        "Meetings, holidays, pay and taxes of employees.",
        "Office matters: leave, salary, insurance and schedules.",
    ),
    "philosophy": (
        "Philosophy: ethics, logic and great thinkers.",
        "Moral questions and arguments.",
    ),
    "religion": ("Religions of the world, their texts and customs.", "Faiths and their history."),
    "biology": (
        "Biology: cells, evolution, plants and animals.",
        "Living things and how they work.",
    ),
    "nutrition": ("Food, vitamins and healthy eating.", "Diets and nutrients."),
    "sociology": ("Society, groups, class and culture.", "How societies are made and change."),
    "sports": ("Football, tennis and other games, rules and results.", "Sports news and training."),
    "poetry": ("Writes poems and songs.", "Verse in any metre."),
    "translation": ("Translates between languages.", "Renders texts into other languages."),
    "gardening": ("Plants, soil and gardens through the year.", "What to plant and when."),
}
"""The first of each is the one that the product's own specialist says, where there is one."""
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "math": ("maths", "arithmetic", "mathematics", "calculator", "word-problems", "gsm8k"),
    "medicine": ("health", "doctor", "medical", "clinic", "diseases", "medquad"),
    "law": ("legal", "lawyer", "contracts", "attorney", "legalbench"),
    "computing": ("python", "code", "coder", "programming", "developer", "software"),
    "science": ("physics", "chemistry", "natural-science", "astronomy", "physics-chem"),
    "economics": ("economy", "business", "markets", "finance", "accounting"),
    "history": ("politics", "historian", "past", "geography", "government"),
    "psychology": ("mind", "behaviour", "psychologist", "cognition"),
    "banking": ("bank", "accounts", "payments", "teller"),
    "credit_cards": ("cards", "card-help", "creditcard", "credit"),
    "kitchen_and_dining": ("cooking", "recipes", "chef", "food-and-drink", "restaurants"),
    "home": ("household", "shopping-lists", "smart-home", "lists-and-music"),
    "auto_and_commute": ("cars", "driving", "traffic", "car-care", "auto"),
    "travel": ("trips", "flights", "travel-agent", "journeys"),
    "utility": ("tools", "clock", "timer-and-weather", "everyday"),
    "work": ("office", "hr", "job", "payroll"),
    "philosophy": ("ethics", "logic", "philosopher", "thinkers"),
    "religion": ("faith", "religions", "theology"),
    "biology": ("life-science", "cells", "biologist", "living-things"),
    "nutrition": ("diet", "vitamins", "dietician", "healthy-eating"),
    "sociology": ("society", "social-science", "sociologist"),
    "sports": ("football", "athletics", "games"),
    "poetry": ("poems", "poet", "verse"),
    "translation": ("translator", "languages", "interpreter"),
    "gardening": ("plants", "gardener", "garden"),
}
"""What else a peer may call its card. The keys, with dashes, are the usual names."""
_AROUND = ("{0}-{1}", "{0}.v{1}", "my-{0}", "{0}-activated", "{0}-expert", "acme/{0}", "{0}_small")
_OPAQUE = ("peer", "alpha", "beta", "node", "expert", "helper", "model", "assistant", "lab/x")


def made_up_card(
    subject: str, rng: np.random.Generator, *, is_opaque: bool = False
) -> tuple[str, str]:
    """A name and a description. A name that `is_opaque` does not tell the subject."""
    ways = DESCRIPTIONS[subject]
    description = ways[0] if rng.random() < 0.3 else ways[int(rng.integers(len(ways)))]
    number = int(rng.integers(2, 100))
    if is_opaque:
        return f"{_OPAQUE[int(rng.integers(len(_OPAQUE)))]}-{number}", description
    kind = rng.random()
    name = subject.replace("_", "-")
    if kind >= 0.6:
        name = OTHER_NAMES[subject][int(rng.integers(len(OTHER_NAMES[subject])))]
    if 0.45 <= kind < 0.6 or kind >= 0.85:
        name = _AROUND[int(rng.integers(len(_AROUND)))].format(name, number)
    if name.endswith("-activated"):
        description = f"{description.rstrip('.')}, on the base's own memory of the prompt."
    return name, description
