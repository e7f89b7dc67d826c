"""Who belongs to a swarm: charters, certificates, invites, revocations, and the book of members.

Knows documents and rules, and is pure (time and randomness are arguments); must not read or send.
"""
