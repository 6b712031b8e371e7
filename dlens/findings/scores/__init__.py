"""How well a model does on texts and problems, text by text, with intervals.

All other findings are made of these numbers; nothing here changes a model.
"""
