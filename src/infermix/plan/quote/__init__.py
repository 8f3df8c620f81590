"""A vendor's offer held against a study's traffic: what it is worth, how sure that is, what to ask for instead."""
