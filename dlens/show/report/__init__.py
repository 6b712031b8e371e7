"""`dlens report`: one offline page that says what the papers claim and what the models show.

The command line and `dlens.report` call it; a page is sections of figures with their numbers.
"""
