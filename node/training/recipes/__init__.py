"""One command for each specialist that comes with dslm: from public sets to a folder to be hosted.

Knows which settings were chosen; `docs/specialists.md` says how and why.
"""
