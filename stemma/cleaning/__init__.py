"""Cleaning: decoded content in, clean text, language and quality metrics out; what to drop is decided by SQL.

`clean.py` is the stage; `extract.py` chooses how a media type becomes text (`html.py` with `render.py`,
`pdf.py`, `texinfo.py`, `markup.py`); `repair.py`, `language.py` and `metrics.py` are its further steps, each
a pure function of one text. `verdict.py` holds the rules over the metrics: they are no part of a memo, so a
changed threshold cleans nothing again.
"""
