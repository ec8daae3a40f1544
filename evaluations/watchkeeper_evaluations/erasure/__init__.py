"""Erasing what a person's requests left, in every store that holds it. `erasure.py` shows the order of things."""

from watchkeeper_evaluations.erasure.asked import Asked, NotErasable, of_requests, of_user
from watchkeeper_evaluations.erasure.erasure import Erasure, erase, look

__all__ = ["Asked", "Erasure", "NotErasable", "erase", "look", "of_requests", "of_user"]
