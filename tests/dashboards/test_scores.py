"""What scores are called: parts of a score are no scores of their own."""

from watchkeeper_dashboards.scores import is_detail


def test_parts_of_a_score_are_no_scores_of_their_own() -> None:
    assert is_detail("toxicity.prompt.insult")
    assert not is_detail("toxicity.prompt")
    assert not is_detail("a_score_of_ours")
