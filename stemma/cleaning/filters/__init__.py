"""Filters: metrics of many texts at once, and rules over them in SQL.

`metrics.py` measures, with a module for each family of metrics; `text_blocks.py` lays texts out side by side for
numpy. `verdict.py` says what a rule is, `recipes.py` which published filters and profiles there are (settings in
`fineweb2.py`, `stop_words.py`), `user_rules.py` reads those of the user.
"""
