"""The demo's two releases. The first uses a passage only when it is all but sure of it, which does for questions in the
handbook's own words. The better one takes what is near, two passages of it, and leaves nothing to chance.

Both put the passages before the question: of 36 questions about bills the embedded model then answers 22 from the handbook,
and 10 in the order of the built-in release.
"""

from typing import Final

from watchkeeper.release import Grounding, Parameters, Release

GROUNDED: Final = "{sources}\n\n{prompt} Answer with the text above."

FIRST: Final = Release(
    name="watchkeeper",
    version=1,
    grounded=GROUNDED,
    grounding=Grounding(k=1, min_score=0.47),
    parameters=Parameters(max_tokens=48, temperature=0.2),
)
FIRST_NOTE: Final = "the first release: one passage, used from a score of .47 on"

BETTER: Final = Release(
    name="watchkeeper",
    version=2,
    grounded=GROUNDED,
    grounding=Grounding(k=2, min_score=0.3),
    parameters=Parameters(max_tokens=48, temperature=0.0),
)
BETTER_NOTE: Final = "two passages, used from a score of .3 on, and no randomness"
