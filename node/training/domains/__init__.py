"""What each specialist learns from: public sets, in the form of prompts and answers.

Knows the sets' rows and how they are split; must not know tokens or training.
"""
