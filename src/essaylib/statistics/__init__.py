"""The registered statistics, one module a claim: from what a model made to a `claims.Test`.

A function is named after its statistic in `book/claims.yml` and computes what is written there.
Chapters call it for their verdict; `survival` calls the same one on other models.
"""
