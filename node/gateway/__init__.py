"""The HTTP front of a node: an OpenAI-compatible API, the admin API and the chat page.

Knows HTTP and the shapes that clients expect; must not know how an answer is found or made.
"""
