"""Several specialists on one prompt: who works when, with which memory, and whose word counts.

Knows plans, answers and time; must not know how one specialist is asked (`coordinator.dispatch`) or
how a plan was made (`coordinator.routing`). All decisions are pure; `carrier` does the waiting.
"""
