"""A helper of the cleaner, in a module of its own, to be edited as well."""


def polish(text: str) -> str:
    return text.strip()
