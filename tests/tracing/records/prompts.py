"""Two prompts of unequal length."""

PROMPTS = ["Once upon a time", "The little dog ran to the big red house and"]
