"""bias: generalisations over a protected group: what a group is said to be, to be worth less than another, or not to be
allowed.

Rules (bias.toml) on single sentences, strengthened by the toxicity head's identity_attack. A sentence that denies, reports or
asks about a generalisation makes none, and a group that is only named is no bias: the head alone, which cannot tell a proud
mention from a scornful one, is trusted from a high score on. A first form: it reads English, and sees what is said, not who
is left out.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from watchkeeper.encoder.heads import Head
from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject, Unavailable
from watchkeeper.serving.guards import rules
