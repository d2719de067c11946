"""Measures: one module each, with its null and its interval.

Nothing is imported here, so that a chapter's cache depends on the measures it uses and no others.
"""
