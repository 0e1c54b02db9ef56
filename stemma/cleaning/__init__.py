"""Cleaning: decoded content in, clean text, metadata, language and scores out; what to drop is decided by SQL.

`clean.py` is the stage. `extraction/` turns a document of any media type into text; `repair.py`, `pii.py` and
`language.py` are its further steps, each a pure function of one text, and `origins.py` keeps track of where the
text comes from. `filters/` measures texts and holds the rules over the metrics: they are no part of a memo, so a
changed threshold cleans nothing again. `decontamination.py` and `classification.py` are stages over cleaned texts.
"""
