"""Who belongs to a swarm: charters, certificates, invites, revocations, and the book of members.

Pure: time and randomness are arguments, nothing is read or sent.
"""
