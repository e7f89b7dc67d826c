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
        "Reads clauses of contracts and legal texts and answers Yes or No.",
        "Contracts, court decisions and legal definitions.",
        "Legal questions: licences, liability, jurisdiction, hearsay.",
    ),
    "computing": (
        "Writes Python functions from a description or a signature.",
        "Programming: code, algorithms and data structures.",
        "Turns a task into Python code.",
    ),
    "science": (
        "Physics, chemistry and astronomy in short answers.",
        "Natural science: matter, energy, reactions and stars.",
        "Explains laws of nature, molecules and planets.",
    ),
    "economics": (
        "Economics and business: markets, money, accounting and management.",
        "Supply, demand, prices, trade and marketing.",
        "How firms and economies work.",
    ),
    "history": (
        "History, politics and geography: states, events and institutions.",
        "Past events, governments and foreign policy.",
        "Wars, revolutions, constitutions and elections.",
    ),
    "psychology": (
        "Psychology: behaviour, development, memory and disorders of the mind.",
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
_PLAIN_NAMES = ("alpha", "beta", "node", "expert", "helper", "peer", "model", "assistant")


def made_up_card(subject: str, rng: np.random.Generator) -> tuple[str, str]:
    """A name and a description; the name tells the subject more often than not."""
    ways = DESCRIPTIONS[subject]
    description = ways[int(rng.integers(len(ways)))]
    number = int(rng.integers(1, 100))
    kind = rng.random()
    if kind < 0.5:
        return subject.replace("_", "-"), description
    if kind < 0.75:
        return f"{subject.replace('_', '-')}-{number}", description
    return f"{_PLAIN_NAMES[int(rng.integers(len(_PLAIN_NAMES)))]}-{number}", description
