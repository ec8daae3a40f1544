"""Search over passages, by keywords and by meaning."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from watchkeeper.serving.index import Index
from watchkeeper.serving.passages import Passage, cut

HANDBOOK = Path(__file__).parent / "handbook"
TOPICS = [
    {"leave", "vacation", "holiday", "holidays", "off"},
    {"password", "passwords", "login", "keyhaven"},
    {"dog", "dogs", "pet", "pets"},
    {"hotel", "hotels", "night", "room", "trip"},
    {"salary", "salaries", "paid", "payday", "money"},
]
KEYWORD_QUESTIONS = [
    ("What does error BW-212 mean?", "BW-212 means"),
    ("What is drain_seconds?", "drain_seconds"),
    ("Can I bring my dog on Fridays?", "dogs are welcome"),
    ("How much is paid per kilometre for driving my own car?", "0.38 euros"),
    ("How many characters does a password have?", "at least 14"),
    ("Who is Maria Lindqvist?", "Maria Lindqvist"),
    ("Who arranges visas for China?", "Travel Desk arranges visas"),
]
OFF_TOPIC = [
    "What is the capital of Mongolia?",
    "Who painted the Mona Lisa?",
    "Write a haiku about autumn leaves falling on a pond",
    "How do I bake sourdough bread?",
    "Tell me a joke about penguins",
    "hello",
    "Thanks a lot!",
    "ok",
    "?!",
    "",
]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A toy encoder: one axis a topic, and one on which all texts are a little alike."""
    rows = []
    for text in texts:
        found = {word.strip(".,?!*#") for word in text.lower().split()}
        row = np.array([0.2, *(float(len(topic & found)) for topic in TOPICS)], dtype=np.float32)
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


@pytest.fixture(scope="module")
def keywords() -> Index:
    files = sorted(path for path in HANDBOOK.rglob("*") if path.is_file())
    return Index([passage for path in files for passage in cut(path.relative_to(HANDBOOK).as_posix(), path.read_text())])


@pytest.mark.parametrize(("question", "answer"), KEYWORD_QUESTIONS)
def test_a_question_in_the_bases_words_finds_its_passage_first(keywords: Index, question: str, answer: str) -> None:
    found = keywords.search(question, None, k=3, min_score=0.3)
    assert found.degraded
    assert answer in found.sources[0].text
    assert 0.3 <= found.sources[0].score <= 1.0


@pytest.mark.parametrize("question", OFF_TOPIC)
def test_a_question_about_something_else_finds_nothing(keywords: Index, question: str) -> None:
    assert keywords.search(question, None, k=3, min_score=0.3).sources == ()


def test_meaning_finds_what_keywords_do_not() -> None:
    passages = [Passage("a#1", "Leave", "Annual leave is 28 days."), Passage("b#1", "Dogs", "Dogs are welcome on Fridays.")]
    passages += [Passage(f"c#{number}", "Deploying", f"Step {number} of a release.") for number in range(5)]
    index = Index(passages)
    question = "Any rules for pets?"
    assert index.search(question, None, 3, 0.3).sources == ()
    whole = index.with_vectors(embed([f"{passage.title}\n{passage.text}" for passage in passages]))
    found = whole.search(question, embed([question])[0], 3, 0.3)
    assert [source.id for source in found.sources] == ["b#1"]
    assert not found.degraded
    assert whole.search(question, None, 3, 0.3).degraded


def test_keywords_raise_the_score_of_a_passage_that_means_the_same() -> None:
    passages = [Passage("a#1", "Hotels", "The hotel in Paris."), Passage("b#1", "Hotels", "The hotel in London.")]
    passages += [Passage(f"c#{number}", "x", f"Something else, number {number}.") for number in range(4)]
    index = Index(passages, embed([f"{passage.title}\n{passage.text}" for passage in passages]))
    found = index.search("hotel London", embed(["hotel London"])[0], 2, 0.3).sources
    assert [source.id for source in found] == ["b#1", "a#1"]
    assert found[0].score > found[1].score


def test_what_makes_all_passages_alike_to_the_encoder_is_taken_off() -> None:
    """Vectors of a language that the encoder hardly knows: all of them at .6 to each other and to any question."""
    rng = np.random.default_rng(1)
    common = np.zeros(384, dtype=np.float32)
    common[0] = np.sqrt(0.6)

    def vector() -> NDArray[np.float32]:
        own = rng.normal(size=384).astype(np.float32)
        own[0] = 0
        return np.asarray(common + own / np.linalg.norm(own) * np.sqrt(0.4), dtype=np.float32)

    vectors = np.stack([vector() for _ in range(20)])
    index = Index([Passage(f"a#{number}", "t", f"Absatz {number}") for number in range(20)], vectors)
    assert index.search("Frage", vector(), 3, 0.3).sources == ()
    near = index.search("Frage", vectors[7], 3, 0.3).sources
    assert [source.id for source in near] == ["a#7"]


def test_chinese_is_found_by_its_characters() -> None:
    texts = [
        "全职员工每年有28天带薪年假。",
        "密码至少14个字符。",
        "星期五可以带狗到一楼。",
        "工资每月25日发放。",
        "试用期为六个月。",
    ]
    index = Index([Passage(f"zh#{number}", "手册", text) for number, text in enumerate(texts)])
    assert index.search("可以带狗上班吗？", None, 1, 0.3).sources[0].id == "zh#2"
    assert index.search("蒙古的首都是哪里？", None, 1, 0.3).sources == ()


def test_the_same_text_is_given_once_and_k_is_kept() -> None:
    index = Index(
        [Passage(f"{name}#1", "Dogs", "Dogs are welcome.") for name in "abc"] + [Passage("d#1", "Dogs", "No dogs here.")]
    )
    assert [source.id for source in index.search("dogs welcome", None, 5, 0.1).sources] == ["a#1", "d#1"]
    assert len(index.search("dogs", None, 1, 0.0).sources) == 1


def test_an_embedding_of_another_length_is_not_used() -> None:
    index = Index([Passage("a#1", "Dogs", "Dogs are welcome.")], np.ones((1, 384), dtype=np.float32) / np.float32(384**0.5))
    found = index.search("dogs", np.ones(768, dtype=np.float32), 1, 0.3)
    assert found.degraded
    assert found.sources


@pytest.mark.parametrize("passages", [[], [Passage("a#1", "the", "of the and")]])
def test_a_base_without_words_finds_nothing(passages: list[Passage]) -> None:
    assert Index(passages).search("anything at all", None, 3, 0.0).sources == ()


def test_indexing_and_searching_print_and_log_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        index = Index([Passage("a#1", "Dogs", "Dogs are welcome.")])
        index.search("dogs", None, 1, 0.3)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_same_search_gives_the_same_answer(keywords: Index) -> None:
    answers = {keywords.search("How do I book leave and a hotel?", None, 5, 0.0) for _ in range(5)}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("texts", "query"),
    [
        (
            ["每位员工每年有二十七天带薪年假。", "差旅费用须在三十天内报销。", "笔记本电脑必须加密。"],
            "我每年有多少天年假？",
        ),
        (
            ["年次有給休暇は二十七日です。", "交通費は三十日以内に精算してください。", "パソコンは暗号化が必要です。"],
            "有給休暇は何日ありますか？",
        ),
        (
            ["พนักงานมีวันลาพักร้อนยี่สิบเจ็ดวันต่อปี", "ค่าเดินทางต้องเบิกภายในสามสิบวัน", "คอมพิวเตอร์ต้องเข้ารหัส"],
            "ฉันมีวันลาพักร้อนกี่วัน",
        ),
        (
            ["직원은 연간 27일의 연차 휴가가 있습니다.", "출장비는 30일 이내에 정산합니다.", "노트북은 암호화해야 합니다."],
            "연차 휴가는 며칠인가요?",
        ),
    ],
)
def test_scripts_without_spaces_are_searched_by_keywords_alone(texts: list[str], query: str) -> None:
    index = Index([Passage(f"a#{number}", "", text) for number, text in enumerate(texts)])
    found = index.search(query, None, 1, 0.3)
    assert [source.id for source in found.sources] == ["a#0"]
    assert found.spelling == ()


CHINESE = [
    Passage("工资#1", "工资", "工资在每月二十五日发放，如遇周末则提前到周五。"),
    Passage("停车#1", "停车", "地下车库有六十个车位，访客请在前台登记车牌号码。"),
    Passage("病假#1", "病假", "生病超过三天需要提供医生证明，并在第一天上午九点前通知主管。"),
    Passage("宠物#1", "宠物", "每周五可以带狗来办公室，但会议室和食堂除外。"),
    *(Passage(f"其他#{number}", "其他", f"第{number}条规定适用于全体员工。") for number in range(6)),
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [("客人把车停在哪里？", "停车#1"), ("狗可以来吗？", "宠物#1"), ("得病要给医生的证明吗？", "病假#1")],
)
def test_chinese_is_found_by_pairs_and_by_single_characters(question: str, answer: str) -> None:
    """Hardly a pair of the question stands in the passage: 把车停 and 车位, 得病 and 病假."""
    found = Index(CHINESE).search(question, None, 2, 0.3)
    assert [source.id for source in found.sources][:1] == [answer]


@pytest.mark.parametrize("question", ["光速有多快？", "谁画了蒙娜丽莎？", "怎么学吉他？"])
def test_chinese_questions_about_something_else_find_nothing(question: str) -> None:
    assert Index(CHINESE).search(question, None, 2, 0.3).sources == ()
