"""Prompts × routes × cases, answered, scored and compared, with evidence. A client of a running server."""
