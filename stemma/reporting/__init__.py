"""What a corpus looks like: numbers by SQL, pictures of them as SVG, and the page that tells all of it.

The pages of the assets in Dagster's UI and `stemma report` are made by the same functions.
"""
